"""Segmenters and detectors: from a pre-trained model and pages of coloured blocks to pixels and objects that are found."""

import shutil

import numpy as np
import pytest
import torch
import yaml
from blocks import write_pages

from catlip_lite import dense as front_door
from catlip_lite.data.dense import load_objects, load_segmentation
from catlip_lite.models import create_vit, load, save_pretrained
from catlip_lite.training.dense_recipes import dense_recipe_for
from catlip_lite.training.loop import RunOptions
from catlip_lite.transfer import dense
from catlip_lite.transfer.dense import pixel_loss, train_dense_in
from catlip_lite.transfer.dense_metrics import detection_scores, segmentation_scores

SIDE = 48  # pixels
COLOURS = {"apple": (220, 20, 20), "banana": (240, 220, 40), "dog": (60, 40, 200)}
SMALL = {"image_size": SIDE, "lr": 2e-3, "batch_size": 8, "max_steps": 6, "warmup_steps": 1, "channels": 32}
OPTIONS = RunOptions("cpu", "fp32", checkpoint_every=2, log_every=1)


@pytest.fixture
def pages(tmp_path):
    """Sixteen pages with a block each."""
    rng = np.random.default_rng(0)
    places = [(*rng.integers(0, 20, 2).tolist(), *rng.integers(16, 28, 2).tolist()) for _ in range(16)]
    return write_pages(tmp_path / "blocks", SIDE, COLOURS, [(i % 3, *place) for i, place in enumerate(places)])


def recipe(task, **given):
    return dense_recipe_for("vit_nano8", task, num_images=16, **{**SMALL, **given})


@pytest.mark.parametrize("given", [{}, {"frozen": True, "lr": 0.02}], ids=["deeplab", "linear"])
def test_pixels_of_blocks_are_told_apart_and_a_frozen_backbone_stays_as_it_is(model, pages, tmp_path, given):
    images = load_segmentation(pages / "images" / "training")
    before = {name: value.clone() for name, value in model.network.state_dict().items()}
    chosen = recipe("segmentation", max_steps=60, **given)
    found, _ = train_dense_in(tmp_path / "found", model, images, chosen, OPTIONS, loader_workers=0)
    figures, table = segmentation_scores(found, images)
    assert figures["mIoU"] > 0.6 and table["class"].tolist() == ["ground", *COLOURS]
    assert figures["mIoU"] == pytest.approx(table["IoU"].mean())
    assert all(torch.equal(before[name], value) for name, value in model.network.state_dict().items())
    weights = found.network.vit.state_dict()
    kept = [torch.equal(weights[name], before[name]) for name in weights if name != "pos_embed"]
    assert all(kept) if given else not all(kept)


def test_blocks_are_found_with_their_boxes_and_masks(model, pages, tmp_path):
    images = load_objects(pages / "annotations" / "instances_training.json")
    chosen = recipe("detection", max_steps=60, proposals=32)
    found, _ = train_dense_in(tmp_path / "found", model, images, chosen, OPTIONS, loader_workers=0)
    figures, table = detection_scores(found, images)
    assert figures["box AP50"] > 0.5 and figures["mask AP50"] > 0.5
    assert table["box AP"].mean() == pytest.approx(figures["box AP"], abs=1e-6)


@pytest.mark.parametrize("task", ["segmentation", "detection"])
def test_an_interrupted_training_ends_exactly_as_an_uninterrupted_one_and_is_found_finished(
    model, pages, tmp_path, task, capsys, monkeypatch
):
    where = {
        "segmentation": ("images/training", load_segmentation),
        "detection": ("annotations/instances_training.json", load_objects),
    }
    address, load = where[task]
    images = load(pages / address)
    chosen = recipe(task, batch_size=4, layer_decay=0.7, drop_path=0.1)

    def stop(entry):
        if entry["step"] == 3:
            raise KeyboardInterrupt

    whole, _ = train_dense_in(tmp_path / "whole", model, images, chosen, OPTIONS, loader_workers=0)
    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(dense, "TrainingReporter", lambda *_: stop)
        train_dense_in(tmp_path / "cut", model, images, chosen, OPTIONS, loader_workers=0)
    resumed, log = train_dense_in(tmp_path / "cut", model, images, chosen, OPTIONS, loader_workers=0)
    assert log["step"].tolist() == list(range(1, 7))
    page = images.files.read(0)
    answers = [one.logits(page) if task == "segmentation" else one.detect(page, 0.0)["boxes"] for one in (whole, resumed)]
    assert np.array_equal(*answers)
    train_dense_in(tmp_path / "cut", model, images, chosen, OPTIONS, loader_workers=0)
    assert "finished: nothing to train" in capsys.readouterr().out


def test_a_recipe_of_another_task_or_model_is_refused(model, pages, tmp_path):
    images = load_segmentation(pages / "images" / "training")
    with pytest.raises(ValueError, match="the recipe is of detection, the images are SegmentedImages"):
        train_dense_in(tmp_path / "refused", model, images, recipe("detection"), OPTIONS)
    other = dense_recipe_for("vit_ti16", "segmentation", num_images=16, image_size=SIDE)
    with pytest.raises(ValueError, match="the recipe is for vit_ti16, the model is vit_nano8"):
        train_dense_in(tmp_path / "refused", model, images, other, OPTIONS)
    assert not (tmp_path / "refused").exists()


def test_the_loss_is_the_mean_over_all_pixels_that_have_a_class():
    logits, masks = torch.randn(2, 3, 4, 4), torch.randint(0, 3, (2, 4, 4), dtype=torch.uint8)
    masks[0, :2] = 255
    logits[0, :, :2] = torch.nan  # whatever is said of pixels without a class
    each = pixel_loss(logits.nan_to_num(1e4), None, None, masks)
    chosen = logits.movedim(1, -1)[masks != 255]
    assert each.mean() == pytest.approx(torch.nn.functional.cross_entropy(chosen, masks[masks != 255].long()).item(), rel=1e-5)


# --- from the shell -----------------------------------------------------------------------------------------------------------


def test_what_the_front_door_trains_is_what_the_notebook_finds_finished(
    pages, vocabulary, tmp_path, monkeypatch, capsys, request
):
    folder, notebook = tmp_path / "workbook", request.config.rootpath / "notebooks" / "11_segmentation.ipynb"
    (folder / "params").mkdir(parents=True)
    (folder / "notebooks").mkdir()
    shutil.copy(notebook, folder / "notebooks")
    monkeypatch.chdir(folder / "notebooks")
    torch.manual_seed(0)
    state = create_vit("vit_nano8", num_classes=4, image_size=16).state_dict()
    save_pretrained(folder / "outputs/small/pretrain", state, vocabulary, model="vit_nano8", image_size=16)
    values = {"run": "small", "segmentation_train": str(pages / "images" / "training"), "segmentation_heads": ["linear"]}
    values |= {"segmentation_image_size": 32, "segmentation_batch_size": 8, "device": "cpu", "precision": "fp32"}
    (folder / "params/small.yaml").write_text(yaml.safe_dump(values))
    assert front_door.main(["segmentation", "../params/small.yaml"]) == 0
    model, images = load(folder / "outputs/small/pretrain", "cpu"), load_segmentation(pages / "images" / "training")
    chosen = dense_recipe_for(
        "vit_nano8", "segmentation", num_images=16, image_size=32, batch_size=8, head="linear", epochs=1, seed=0
    )
    train_dense_in(folder / "outputs/small/segmentation/linear_pre-trained_0", model, images, chosen, OPTIONS, loader_workers=0)
    assert "finished: nothing to train" in capsys.readouterr().out


def test_another_word_than_a_dense_task_is_refused(capsys):
    assert front_door.main(["params/demo.yaml"]) == 2
    assert "'params/demo.yaml' is no dense task: write segmentation or detection, then the YAML" in capsys.readouterr().err
