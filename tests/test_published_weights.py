"""Chapter 14 on files of the reference's shapes and names, whose heads make the answer known: its cells, in this process."""

import json
import pickle
from pathlib import Path

import matplotlib
import nbformat
import numpy as np
import pytest
import torch
from corenet_checkpoints import detection_checkpoint, segmentation_checkpoint
from PIL import Image

from catlip_lite.artefacts import read_table
from catlip_lite.labels import LabelSet, corenet_key, load_nouns
from catlip_lite.labels.vocabulary import CORENET_CLASSES
from catlip_lite.models import corenet_state_dict
from catlip_lite.models.vit import VitShape, build_vit

CHAPTER = Path(__file__).resolve().parents[1] / "notebooks" / "14_published_weights.ipynb"
COLOURS = {"n01440764": (250, 20, 20), "n02084071": (20, 250, 20), "n02691156": (20, 20, 250), "n15075141": (230, 230, 40)}


@pytest.fixture
def execute(tmp_path, monkeypatch):
    """Execute the chapter with these parameters: its names, and the figures that it wrote."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("catlip_lite.workbook.run_folder.stop_with_launcher", lambda: None)
    matplotlib.use("agg")

    def run(**parameters):
        names = {"__name__": "chapter"}
        for cell in nbformat.read(CHAPTER, as_version=4).cells:
            if cell.cell_type == "code":
                exec(cell.source, names)
            if "parameters" in cell.metadata.get("tags", []):
                names.update({"device": "cpu", "precision": "fp32"} | {name: str(value) for name, value in parameters.items()})
        matplotlib.pyplot.close("all")
        table, _ = read_table(tmp_path / "outputs/smoke/published_weights.parquet")
        return names, dict(zip(table["figure"], table["per cent"], strict=True))

    return run


def published_file(path, rows: dict[int, tuple], classes: int):
    """A small network whose head answers with a row where an image has that row's colour, saved as the reference does."""
    torch.manual_seed(0)
    network = build_vit(VitShape(64, 1, 1), classes, image_size=224).eval()
    views = torch.stack([torch.tensor(colour)[:, None, None].expand(3, 224, 224) / 255 for colour in rows.values()])
    with torch.no_grad():
        network.head.weight.zero_()
        network.head.bias.zero_()
        features = network.forward_head(network.forward_features(views), pre_logits=True).double()
        wanted = 20 * torch.eye(len(rows), dtype=torch.float64) - 10
        network.head.weight[list(rows)] = (torch.linalg.pinv(features) @ wanted).T.float()
    torch.save(dict(corenet_state_dict(network)), path)
    return path


def class_folders(folder, colours, each=2):
    for name, colour in colours.items():
        (folder / name).mkdir(parents=True)
        for i in range(each):
            Image.new("RGB", (40, 30), colour).save(folder / name / f"{i}.png")
    return folder


def test_a_pretrained_file_is_scored_zero_shot_and_by_a_probe_and_a_label_without_a_row_is_missed(execute, tmp_path, capsys):
    own = [wnid for wnid in COLOURS if wnid != "n02691156"]  # the vocabulary lacks the airplane
    wnids = [*own, *(wnid for wnid in load_nouns().wnids if wnid not in COLOURS)][:CORENET_CLASSES]
    (tmp_path / "vocab.pkl").write_bytes(pickle.dumps({corenet_key(w): CORENET_CLASSES - i for i, w in enumerate(wnids)}))
    file = published_file(tmp_path / "vit_base.pt", {i: COLOURS[wnid] for i, wnid in enumerate(own)}, CORENET_CLASSES)
    colours = {wnid: COLOURS[wnid] for wnid in own} | {"xyzzy": COLOURS["n02691156"]}
    val, train = class_folders(tmp_path / "val", colours), class_folders(tmp_path / "train", colours, each=4)
    _, found = execute(weights=file, images=val, train=train, vocabulary=tmp_path / "vocab.pkl")
    assert found["zero-shot without prior correction top-1"] == 75
    assert found["zero-shot top-5"] == 75
    assert found["linear probe top-1"] == 100
    told = capsys.readouterr().out
    assert "64 channels, 1 blocks, 24,320 classes: pre-trained; 224 pixels" in told
    assert "4 labels (labels): 3 own synsets, 0 borrow from below, 0 from near them, 1 unmatched xyzzy" in told


def test_a_head_of_1000_rows_knows_imagenets_classes_in_their_order_and_no_others(execute, tmp_path):
    known = [wnid for (wnid,) in LabelSet.load("imagenet-1k").wnids]
    colours = {wnid: colour for wnid, colour in COLOURS.items() if wnid in known}
    file = published_file(tmp_path / "vit_base.pt", {known.index(wnid): colour for wnid, colour in colours.items()}, 1000)
    names, found = execute(weights=file, images=class_folders(tmp_path / "val", colours))
    assert (len(colours), found) == (2, {"top-1": 100, "top-5": 100})
    assert names["size"] == 224
    with pytest.raises(ValueError, match="imagenet-1k, which the classifier knows, has no class n02084071"):
        execute(weights=file, images=class_folders(tmp_path / "others", COLOURS))


def test_a_head_of_80_rows_is_scored_at_512_pixels_by_its_mean_average_precision(execute, tmp_path, monkeypatch):
    names = LabelSet.load("coco-80").names
    colours = {"person": (250, 20, 20), "hot dog": (20, 250, 20), "toothbrush": (20, 20, 250)}
    monkeypatch.setenv("CATLIP_CACHE", str(tmp_path / "cache"))  # the index of the annotations
    file = published_file(tmp_path / "vit_base.pt", {names.index(name): colour for name, colour in colours.items()}, 80)
    (tmp_path / "val2017").mkdir()
    (tmp_path / "annotations").mkdir()
    content = {"images": [], "annotations": [], "categories": [{"id": i + 1, "name": name} for i, name in enumerate(names)]}
    for i, (name, colour) in enumerate(colours.items()):
        Image.new("RGB", (40, 30), colour).save(tmp_path / "val2017" / f"{i}.jpg")
        content["images"].append({"id": i, "file_name": f"{i}.jpg", "width": 40, "height": 30})
        content["annotations"].append({"image_id": i, "category_id": names.index(name) + 1, "bbox": [0, 0, 40, 30]})
    annotations = tmp_path / "annotations" / "instances_val2017.json"
    annotations.write_text(json.dumps(content))
    chapter, found = execute(weights=file, images=annotations)
    assert found["macro mAP"] == 100
    assert (chapter["size"], chapter["told"]) == (512, "fine-tuned on coco-80")


def test_a_pretrained_file_without_its_vocabulary_is_refused(execute, tmp_path):
    file = published_file(tmp_path / "vit_base.pt", {0: (250, 20, 20)}, 77)
    with pytest.raises(ValueError, match="a head of 77 classes is a pre-trained model's: name its `vocabulary`"):
        execute(weights=file, images=tmp_path)


def test_a_segmenter_is_scored_by_its_mean_intersection_over_union(execute, tmp_path):
    """One that answers the third class everywhere: three quarters of the union, none of the first."""
    state = segmentation_checkpoint(classes=5)
    state["seg_head.classifier.block.conv.weight"].zero_()
    state["seg_head.classifier.block.conv.bias"] = torch.tensor([0.0, 0.0, 9.0, 0.0, 0.0])
    torch.save(state, tmp_path / "deeplabv3_vit_base.pt")
    masks = np.full((2, 20, 30), 3, np.uint8)
    masks[1, :10] = 1
    for kind, pictures in {"images": masks, "annotations": masks}.items():
        (tmp_path / kind / "validation").mkdir(parents=True)
        for i, picture in enumerate(pictures):
            Image.fromarray(picture).save(tmp_path / kind / "validation" / f"{i}.png")
    (tmp_path / "objectInfo150.txt").write_text("Idx\tName\n" + "".join(f"{i}\tclass {i}\n" for i in range(1, 6)))
    images = tmp_path / "images" / "validation"
    chapter, found = execute(weights=tmp_path / "deeplabv3_vit_base.pt", images=images)
    assert found == {"mIoU": pytest.approx(37.5)}
    assert (chapter["size"], chapter["told"]) == (512, "segmentation of ade20k")
    torch.save(segmentation_checkpoint(classes=4), tmp_path / "other.pt")
    with pytest.raises(ValueError, match=r"other.pt knows 4 classes, the images have 5: name `images` of its own"):
        execute(weights=tmp_path / "other.pt", images=images)


def test_a_detector_is_scored_by_cocos_precision(execute, tmp_path, monkeypatch):
    """One whose classes are all below the score that counts, and so finds nothing."""
    monkeypatch.setenv("CATLIP_CACHE", str(tmp_path / "cache"))
    state = detection_checkpoint(classes=3)
    state["model.roi_heads.box_predictor.cls_score.weight"].zero_()
    state["model.roi_heads.box_predictor.cls_score.bias"] = torch.tensor([9.0, 0.0, 0.0])
    torch.save(state, tmp_path / "maskrcnn_vit_base.pt")
    (tmp_path / "val2017").mkdir()
    (tmp_path / "annotations").mkdir()
    Image.new("RGB", (40, 30), (200, 30, 30)).save(tmp_path / "val2017" / "0.jpg")
    box = {"image_id": 0, "category_id": 1, "bbox": [5, 5, 20, 10], "area": 200, "iscrowd": 0, "id": 1}
    content = {
        "images": [{"id": 0, "file_name": "0.jpg", "width": 40, "height": 30}],
        "annotations": [box | {"segmentation": [[5, 5, 25, 5, 25, 15, 5, 15]]}],
        "categories": [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}],
    }
    annotations = tmp_path / "annotations" / "instances_val2017.json"
    annotations.write_text(json.dumps(content))
    chapter, found = execute(weights=tmp_path / "maskrcnn_vit_base.pt", images=annotations)
    assert found == dict.fromkeys(("box AP", "box AP50", "mask AP", "mask AP50"), 0)
    assert (chapter["size"], chapter["told"]) == (1024, "detection of coco")


@pytest.mark.parametrize(
    ("found", "images", "told"),
    [
        (84.15, 50_000, "as published"),
        (83.91, 50_000, "as published"),
        (83.89, 50_000, "0.31 points below"),
        (84.51, 50_000, "0.31 points above"),
        (50.0, 300, "no verdict: 300 of 50,000 images"),
    ],
)
def test_a_verdict_allows_three_tenths_of_a_point_on_all_images(found, images, told):
    cells = [cell.source for cell in nbformat.read(CHAPTER, as_version=4).cells]
    names = {"shown": range(images), "title": "imagenet-1k", "np": __import__("numpy")}
    for wanted in ("PUBLISHED = {", "def verdict("):
        exec(next(cell for cell in cells if wanted in cell), names)
    assert names["verdict"](found, names["PUBLISHED"]["top-1", "imagenet-1k", 224][768]) == told
