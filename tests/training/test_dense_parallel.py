"""Dense tasks by several processes: what one would learn, also from a damaged image, and with one image a micro-batch."""

from pathlib import Path

import numpy as np
import pytest
import torch
from blocks import write_pages
from runs import in_processes, read_log

from catlip_lite.data.dense import load_objects, load_segmentation
from catlip_lite.models import PretrainedModel, create_vit
from catlip_lite.training.dense_recipes import TASKS, dense_recipe_for
from catlip_lite.training.loop import RunOptions
from catlip_lite.transfer.dense import train_dense_in

SIDE = 64
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
        images = load_segmentation(pages / "images" / "training")
    else:
        images = load_objects(pages / "annotations" / "instances_training.json")
    processes = torch.distributed.get_world_size() if torch.distributed.is_initialized() else 1
    recipe = dense_recipe_for("vit_nano8", task, num_images=len(images), processes=processes, **{**SMALL, **given})
    options = RunOptions("cpu", "fp32", parallel=parallel, log_every=1, checkpoint_every=10)
    found, _ = train_dense_in(Path(root) / name, model, images, recipe, options, loader_workers=0)
    assert found.network.blocks[0].norm1.weight.device.type == "cpu"


@pytest.fixture
def root(tmp_path):
    """A red block on most pages, none on some."""
    blocks = [(0, 4 + i, 20 - i, 24, 24) if i % 4 else None for i in range(16)]
    write_pages(tmp_path / "pages", SIDE, {"block": (220, 20, 20)}, blocks)
    return tmp_path


@pytest.fixture
def one_thread():
    """As each of the processes has: which proposals are sampled hangs on the last digits of their scores."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


TRAININGS = {f"{task}, {parallel}": (parallel, task, {}) for task in TASKS for parallel in ("ddp", "fsdp")}
TRAININGS["frozen"] = "ddp", "segmentation", {"head": "linear"}


def train_each(root: str):
    for name, training in TRAININGS.items():
        train_once(root, name, *training)


def test_two_processes_learn_what_one_does_and_train_beside_a_frozen_backbone(root, one_thread):
    assert in_processes(2, train_each, str(root)) == [0, 0]
    for task in TASKS:
        train_once(str(root), task, "ddp", task, {})
        one = read_log(root / task)
        for two in (read_log(root / f"{task}, {parallel}") for parallel in ("ddp", "fsdp")):
            assert len(one) == len(two) == 3
            assert two[0]["loss"] == pytest.approx(one[0]["loss"], rel=1e-5)
            assert two[0]["grad_norm"] == pytest.approx(one[0]["grad_norm"], rel=1e-3)
            for a, b in zip(one, two, strict=True):  # norms over two images and sampled proposals make much of the last digits
                assert b["loss"] == pytest.approx(a["loss"], rel=1e-2)
    assert read_log(root / "frozen")[-1]["step"] == 3


def test_a_damaged_image_alone_in_its_micro_batch_is_skipped_at_any_size_and_counted(root):
    (root / "pages/images/training/05.png").write_bytes(b"no image")
    given = {"micro_batch": 1, "max_steps": 6, "multi_scale": "detection", "windows": 2, "views": "jitter"}
    train_once(str(root), "one", "ddp", "detection", given)
    log = read_log(root / "one")
    assert log[-1]["skipped"] >= 2 and all(np.isfinite(entry["loss"]) for entry in log)
