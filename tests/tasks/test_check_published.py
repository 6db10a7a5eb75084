"""Published checkpoints end to end: files of the reference's shapes and names, with heads that make the answer known."""

import json
import pickle
from collections import OrderedDict

import pytest
import torch
from PIL import Image

from catlip_lite.labels import LabelSet, corenet_key, load_nouns
from catlip_lite.models import corenet_state_dict
from catlip_lite.models.vit import VitShape, build_vit
from catlip_lite.tasks import check_published as task

COLOURS = {"n01440764": (250, 20, 20), "n02084071": (20, 250, 20), "n02691156": (20, 20, 250), "n15075141": (230, 230, 40)}
CLASSES = 24_320


def made_network(rows: dict[int, tuple], classes: int, size: int = 224):
    """A small network with the reference's stem whose head answers with a row where an image has that row's colour."""
    torch.manual_seed(0)
    network = build_vit(VitShape(64, 1, 1), classes, image_size=224).eval()
    views = torch.stack([torch.tensor(colour)[:, None, None].expand(3, size, size) / 255 for colour in rows.values()])
    with torch.no_grad():
        network.head.weight.zero_()
        network.head.bias.zero_()
        features = network.forward_head(network.forward_features(views), pre_logits=True).double()
        wanted = 20 * torch.eye(len(rows), dtype=torch.float64) - 10
        network.head.weight[list(rows)] = (torch.linalg.pinv(features) @ wanted).T.float()
    return network


def saved(path, network):
    """As the reference publishes it: a bare state dict with the six ranges of RangeAugment."""
    state = dict(corenet_state_dict(network))
    state |= {
        f"neural_augmentor.{op}._{end}": torch.tensor(0.5)
        for op in ("brightness", "contrast", "noise")
        for end in ("low", "high")
    }
    torch.save(state, path)
    return path


def class_folders(folder, colours, each=2):
    for name, colour in colours.items():
        (folder / name).mkdir(parents=True)
        for i in range(each):
            Image.new("RGB", (40, 30), colour).save(folder / name / f"{i}.png")
    return folder


@pytest.fixture(scope="module")
def wnids():
    """24,320 synsets with those of the colours, but for the airplane, in known rows 0, 1, 2."""
    own = [wnid for wnid in COLOURS if wnid != "n02691156"]
    others = [wnid for wnid in load_nouns().wnids if wnid not in COLOURS]
    return own + others[: CLASSES - len(own)]


@pytest.fixture
def pretrained(tmp_path, wnids):
    """A pre-trained checkpoint of 24,320 classes with its vocabulary as the reference pickles it."""
    rows = {wnids.index(wnid): colour for wnid, colour in COLOURS.items() if wnid in wnids}
    counts = OrderedDict((corenet_key(wnid), CLASSES - i) for i, wnid in enumerate(wnids))
    (tmp_path / "vocab.pkl").write_bytes(pickle.dumps(counts))
    return saved(tmp_path / "vit_base.pt", made_network(rows, CLASSES)), tmp_path / "vocab.pkl"


def per_cent(table):
    return dict(zip(table["figure"], table["per cent"], strict=True))


def test_a_pretrained_checkpoint_finds_its_labels_in_the_published_vocabulary(tmp_path, pretrained, capsys):
    checkpoint, vocabulary = pretrained
    images = class_folders(tmp_path / "val", {w: c for w, c in COLOURS.items() if w != "n02691156"})
    table = task.check(checkpoint, str(images), vocabulary=vocabulary, device="cpu", precision="fp32")
    assert per_cent(table)["zero-shot without prior correction top-1"] == 100
    told = capsys.readouterr().out
    assert "64 channels, 1 blocks, 24,320 classes: pre-trained; images of 224 pixels" in told
    assert "3 labels (labels): 3 own synsets, 0 borrow from below, 0 from near them, 0 unmatched" in told


def test_a_probe_learns_what_the_head_does_not_know(tmp_path, pretrained):
    checkpoint, vocabulary = pretrained
    val, train = class_folders(tmp_path / "val", COLOURS), class_folders(tmp_path / "train", COLOURS, each=4)
    found = per_cent(task.check(checkpoint, str(val), vocabulary=vocabulary, train=str(train), device="cpu", precision="fp32"))
    assert found["linear probe top-1"] == 100


def test_a_label_that_borrows_nothing_counts_as_missed(tmp_path, pretrained, capsys):
    checkpoint, vocabulary = pretrained
    images = class_folders(tmp_path / "val", {"n01440764": (250, 20, 20), "xyzzy": (20, 20, 250)})
    found = per_cent(task.check(checkpoint, str(images), vocabulary=vocabulary, device="cpu", precision="fp32"))
    assert found["zero-shot top-5"] == 50
    assert "1 unmatched (xyzzy)" in capsys.readouterr().out


def test_a_classifiers_rows_are_imagenets_in_their_order(tmp_path):
    known = [wnid for (wnid,) in LabelSet.load("imagenet-1k").wnids]
    colours = {wnid: colour for wnid, colour in COLOURS.items() if wnid in known}
    network = made_network({known.index(wnid): colour for wnid, colour in colours.items()}, 1000)
    checkpoint, images = saved(tmp_path / "vit_base.pt", network), class_folders(tmp_path / "val", colours)
    table = task.check(checkpoint, str(images), device="cpu", precision="fp32")
    assert (len(colours), per_cent(table)) == (2, {"top-1": 100, "top-5": 100})


def test_a_places_classifier_takes_folders_with_hyphens(tmp_path):
    names = LabelSet.load("places365").names
    rows = {names.index("bow_window/indoor"): (250, 20, 20), names.index("zen_garden"): (20, 250, 20)}
    checkpoint = saved(tmp_path / "vit_base.pt", made_network(rows, 365))
    images = class_folders(tmp_path / "val", {"bow_window-indoor": (250, 20, 20), "zen_garden": (20, 250, 20)})
    assert per_cent(task.check(checkpoint, str(images), device="cpu", precision="fp32"))["top-1"] == 100


def test_a_coco_classifier_is_scored_at_512_pixels_by_its_mean_average_precision(tmp_path, capsys, monkeypatch):
    names = LabelSet.load("coco-80").names
    colours = {"person": (250, 20, 20), "hot dog": (20, 250, 20), "toothbrush": (20, 20, 250)}
    monkeypatch.setenv("CATLIP_CACHE", str(tmp_path / "cache"))  # the index of the annotations
    rows = {names.index(name): colour for name, colour in colours.items()}
    checkpoint = saved(tmp_path / "vit_base.pt", made_network(rows, 80))
    (tmp_path / "val2017").mkdir()
    (tmp_path / "annotations").mkdir()
    content = {"images": [], "annotations": [], "categories": [{"id": i + 1, "name": name} for i, name in enumerate(names)]}
    for i, (name, colour) in enumerate(colours.items()):
        Image.new("RGB", (40, 30), colour).save(tmp_path / "val2017" / f"{i}.jpg")
        content["images"].append({"id": i, "file_name": f"{i}.jpg", "width": 40, "height": 30})
        content["annotations"].append({"image_id": i, "category_id": names.index(name) + 1, "bbox": [0, 0, 40, 30]})
    (tmp_path / "annotations" / "instances_val2017.json").write_text(json.dumps(content))
    table = task.check(checkpoint, str(tmp_path / "annotations" / "instances_val2017.json"), device="cpu", precision="fp32")
    assert per_cent(table)["macro mAP"] == 100
    assert "fine-tuned on coco-80; images of 512 pixels" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("name", "image_size", "expected"),
    [("vit_base_512x512.pt", None, 512), ("vit_base.pt", 96, 96), ("vit_base.pt", None, 224)],
)
def test_the_image_size_is_given_or_told_by_the_name_and_positions_are_the_references(
    tmp_path, monkeypatch, name, image_size, expected
):
    asked = []
    load = task.load_corenet
    monkeypatch.setattr(task, "load_corenet", lambda path, size, **options: asked.append((size, options)) or load(path, size))
    checkpoint = saved(tmp_path / name, made_network({0: (250, 20, 20)}, 1000))
    _, _, size = task._network(checkpoint, None, image_size)
    assert (size, asked) == (expected, [(expected, {"positions": "reference"})])


# --- beside the published figures -----------------------------------------------------------------------------------------


def verdict(share, images=50_000, width=768, labels="imagenet-1k", size=224, figure="top-1"):
    [row] = task.beside_published({figure: share}, labels, width, size, images).to_dict("records")
    return row["published"], row["verdict"]


@pytest.mark.parametrize(
    ("share", "told"),
    [(0.8415, "as published"), (0.8391, "as published"), (0.8389, "0.31 points below"), (0.8451, "0.31 points above")],
)
def test_a_verdict_allows_three_tenths_of_a_point(share, told):
    assert verdict(share) == (84.2, told)


@pytest.mark.parametrize(
    ("facts", "published"),
    [
        ({"width": 1024, "size": 512}, 88.6),
        ({"width": 1280, "labels": "places365", "size": 512, "images": 36_500}, 61.1),
        ({"width": 1024, "labels": "coco-80", "size": 512, "images": 5_000, "figure": "macro mAP"}, 90.75),
        ({"width": 1280, "figure": "linear probe top-1"}, 86.1),
    ],
)
def test_figures_are_found_by_width_labels_and_size(facts, published):
    assert verdict(published / 100, **facts) == (published, "as published")


def test_part_of_the_validation_set_gets_no_verdict():
    assert verdict(0.5, images=300) == (84.2, "no verdict: 300 of 50,000 images")


def test_other_widths_and_labels_have_no_published_figure():
    for facts in ({"width": 64}, {"labels": "caltech-101"}, {"size": 320}, {"figure": "zero-shot top-1"}):
        assert verdict(0.5, **facts)[1] == "no verdict: nothing published"


def test_every_published_figure_has_its_validation_set():
    assert {labels for _, labels, _ in task.PUBLISHED} <= set(task.EVALUATED)


# --- errors ---------------------------------------------------------------------------------------------------------------


def refusal(arguments, capsys):
    assert task.main([str(argument) for argument in arguments]) == 1
    [line] = capsys.readouterr().err.strip().splitlines()
    return line


def test_a_pretrained_checkpoint_without_vocabulary_is_refused(tmp_path, pretrained, capsys):
    assert "a head of 24,320 classes is a pre-trained model's: pass its --vocabulary" in refusal(
        [pretrained[0], "--images", tmp_path], capsys
    )


def test_a_vocabulary_of_another_size_is_refused_with_both_sizes(tmp_path, pretrained, capsys):
    (tmp_path / "small.pkl").write_bytes(pickle.dumps({"n2084071": 5}))
    told = refusal([pretrained[0], "--images", tmp_path, "--vocabulary", tmp_path / "small.pkl"], capsys)
    assert "small.pkl has 1 classes but the checkpoint's head has 24,320" in told


def test_images_of_other_classes_than_the_classifiers_are_refused_by_name(tmp_path, capsys):
    checkpoint = saved(tmp_path / "vit_base.pt", made_network({0: (250, 20, 20)}, 1000))
    images = class_folders(tmp_path / "val", {"n01440764": (250, 20, 20), "n02084071": (20, 250, 20)})
    assert "imagenet-1k, which the classifier knows, has no class n02084071" in refusal(
        [checkpoint, "--images", images], capsys
    )


def test_the_table_is_printed(tmp_path, capsys):
    checkpoint = saved(tmp_path / "vit_base.pt", made_network({0: (250, 20, 20), 999: (230, 230, 40)}, 1000))
    images = class_folders(tmp_path / "val", {"n01440764": (250, 20, 20), "n15075141": (230, 230, 40)})
    assert task.main([str(checkpoint), "--images", str(images), "--device", "cpu", "--precision", "fp32"]) == 0
    rows = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["top-1", "100.00", "-", "no", "verdict:", "nothing", "published"] in rows
