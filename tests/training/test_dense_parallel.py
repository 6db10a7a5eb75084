"""Dense tasks by several processes: what one would learn, also from a damaged image, and with one image a micro-batch."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from runs import in_processes

from catlip_lite.data.dense import load_objects, load_segmentation
from catlip_lite.models import PretrainedModel, create_vit
from catlip_lite.training.dense_recipes import dense_recipe_for
from catlip_lite.training.loop import RunOptions
from catlip_lite.transfer.dense import train_dense_in

SIDE, PAGES = 64, 16
SMALL = {
    "image_size": SIDE,
    "batch_size": 8,
    "micro_batch": 2,
    "max_steps": 3,
    "warmup_steps": 1,
    "channels": 16,
    "proposals": 16,
}


def train_once(root: str, name: str, parallel: str, task: str, given: dict):
    """One process's part of a training on root/pages."""
    torch.manual_seed(0)
    model = PretrainedModel(create_vit("vit_nano8", 1, 32), None, {"model": "vit_nano8", "image_size": 32}, "cpu")
    pages = Path(root) / "pages"
    if task == "segmentation":
        images = load_segmentation(pages / "images" / "train")
    else:
        images = load_objects(pages / "annotations" / "instances_train.json")
    processes = torch.distributed.get_world_size() if torch.distributed.is_initialized() else 1
    recipe = dense_recipe_for("vit_nano8", task, num_images=len(images), processes=processes, **{**SMALL, **given})
    options = RunOptions("cpu", "fp32", parallel=parallel, log_every=1, checkpoint_every=10)
    found, _ = train_dense_in(Path(root) / name, model, images, recipe, options, loader_workers=0)
    assert found.network.blocks[0].norm1.weight.device.type == "cpu"


def read_log(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


@pytest.fixture
def root(tmp_path):
    """Grey pages with a red block on most, none on some."""
    pages, objects = tmp_path / "pages", []
    for folder in (pages / "images" / "train", pages / "annotations" / "train"):
        folder.mkdir(parents=True)
    for i in range(PAGES):
        pixels, mask = np.full((SIDE, SIDE, 3), 128, np.uint8), np.ones((SIDE, SIDE), np.uint8)
        left, top, side = 4 + i, 20 - i, 24
        if i % 4:
            pixels[top : top + side, left : left + side], mask[top : top + side, left : left + side] = (220, 20, 20), 2
            right, bottom = left + side, top + side
            corners = [left, top, right, top, right, bottom, left, bottom]
            one = {"id": i, "image_id": i, "category_id": 1, "bbox": [left, top, side, side], "area": side**2, "iscrowd": 0}
            objects.append(one | {"segmentation": [corners]})
        Image.fromarray(pixels).save(pages / "images" / "train" / f"{i:02d}.png")
        Image.fromarray(mask).save(pages / "annotations" / "train" / f"{i:02d}.png")
    (pages / "classes.txt").write_text("ground\nblock\n")
    images = [{"id": i, "file_name": f"{i:02d}.png", "width": SIDE, "height": SIDE} for i in range(PAGES)]
    told = {"images": images, "annotations": objects, "categories": [{"id": 1, "name": "block"}]}
    (pages / "annotations" / "instances_train.json").write_text(json.dumps(told))
    return tmp_path


@pytest.fixture
def one_thread():
    """As each of the processes has: which proposals are sampled hangs on the last digits of their scores."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.mark.parametrize("parallel", ["ddp", "fsdp"])
@pytest.mark.parametrize("task", ["segmentation", "detection"])
def test_two_processes_learn_what_one_does(root, one_thread, task, parallel):
    train_once(str(root), "one", "ddp", task, {})
    assert in_processes(2, train_once, str(root), "two", parallel, task, {}) == [0, 0]
    one, two = read_log(root / "one"), read_log(root / "two")
    assert len(one) == len(two) == 3
    assert two[0]["loss"] == pytest.approx(one[0]["loss"], rel=1e-5)
    assert two[0]["grad_norm"] == pytest.approx(one[0]["grad_norm"], rel=1e-3)
    for a, b in zip(one, two, strict=True):  # norms over two images and sampled proposals make much of the last digits
        assert b["loss"] == pytest.approx(a["loss"], rel=1e-2)


def test_a_frozen_backbone_is_trained_beside_by_two_processes(root):
    assert in_processes(2, train_once, str(root), "two", "ddp", "segmentation", {"head": "linear"}) == [0, 0]
    assert read_log(root / "two")[-1]["step"] == 3


def test_a_damaged_image_alone_in_its_micro_batch_is_skipped_at_any_size_and_counted(root):
    (root / "pages/images/train/05.png").write_bytes(b"no image")
    given = {"micro_batch": 1, "max_steps": 6, "multi_scale": "detection", "windows": 2, "views": "jitter"}
    train_once(str(root), "one", "ddp", "detection", given)
    log = read_log(root / "one")
    assert log[-1]["skipped"] >= 2 and all(np.isfinite(entry["loss"]) for entry in log)
