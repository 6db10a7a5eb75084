"""Fine-tuning: from a head to a classifier, saved, resumed, and alike from notebook 07 and from the shell."""

import shutil

import numpy as np
import pytest
import torch

from catlip_lite import finetune as front_door
from catlip_lite.data.labelled import load_labelled
from catlip_lite.models import create_vit, load, save_pretrained
from catlip_lite.models.heads import Head, random_head
from catlip_lite.training.loop import RunOptions
from catlip_lite.training.recipes import finetune_recipe_for
from catlip_lite.transfer import finetune as task
from catlip_lite.transfer.finetune import finetune, finetune_in
from catlip_lite.transfer.metrics import average_precision, dense_targets, top_k
from catlip_lite.transfer.task import open_task
from catlip_lite.workbook.parameters import declared_values, taken_by

SMALL = {"image_size": 16, "lr": 1e-3, "batch_size": 8, "max_steps": 6, "warmup_steps": 1}
OPTIONS = RunOptions("cpu", "fp32", checkpoint_every=2, log_every=1)
QUIET = {"loader_workers": 0, "quiet": True}


@pytest.fixture
def images(shards):
    return load_labelled(shards)


def recipe(images, **given):
    return finetune_recipe_for("vit_nano8", num_images=len(images), **{**SMALL, **given})


def start(images, seed=0):
    return random_head(len(images.classes), 192, seed)


# --- training -----------------------------------------------------------------------------------------------------------------


def test_it_learns_the_colours(model, images):
    tuned = finetune(model, start(images), images, recipe(images, max_steps=60), OPTIONS, **QUIET)
    assert top_k(tuned.scores(images), images.indices) > 0.9


def test_images_of_several_labels_are_learned(model, scenes):
    images = load_labelled(scenes("train", 48))
    of_coco = recipe(images, task="coco", max_steps=40, batch_size=16)
    tuned = finetune(model, start(images), images, of_coco, OPTIONS, **QUIET)
    before, after = (
        average_precision(scores, dense_targets(images))[1]["macro"]
        for scores in (start(images).scores(model.embed([images.files.read(i) for i in range(48)])), tuned.scores(images))
    )
    assert before < 0.95 < 0.98 < after


def test_the_averaged_weights_are_no_worse_than_the_last_ones_after_a_short_run(model, images, monkeypatch):
    networks, train = [], task.train
    monkeypatch.setattr(
        task, "train", lambda network, *rest, **given: networks.append(network) or train(network, *rest, **given)
    )
    tuned = finetune(model, start(images), images, recipe(images, max_steps=30), OPTIONS, **QUIET)
    averaged = top_k(tuned.scores(images), images.indices)
    tuned.network.load_state_dict(networks[0].state_dict())
    assert averaged >= top_k(tuned.scores(images), images.indices)


def test_an_interrupted_run_with_layer_decay_ends_exactly_as_an_uninterrupted_one(model, images, tmp_path, monkeypatch):
    def run(folder):
        chosen = recipe(images, layer_decay=0.7, drop_path=0.1)
        return finetune(model, start(images), images, chosen, OPTIONS, folder, loader_workers=0)

    def stop(entry):
        if entry["step"] == 3:
            raise KeyboardInterrupt

    whole = run(tmp_path / "whole").network.state_dict()
    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(task, "TrainingReporter", lambda *_: stop)
        run(tmp_path / "cut")
    resumed = run(tmp_path / "cut").network.state_dict()
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)


def test_smoothing_is_of_the_loss_that_is_learned(model, images, monkeypatch):
    losses = []
    monkeypatch.setattr(task, "TrainingReporter", lambda *_: lambda entry: losses.append(entry["loss"]))
    for smoothing in (0.0, 0.1):
        chosen = recipe(images, max_steps=1, label_smoothing=smoothing, augmentation="none", batch_size=24)
        finetune(model, start(images), images, chosen, OPTIONS, loader_workers=0)
    assert losses[0] != losses[1]


def test_the_model_is_left_as_it_is_and_without_a_folder_nothing_is_written(model, images, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    before, there = {name: value.clone() for name, value in model.network.state_dict().items()}, set(tmp_path.iterdir())
    finetune(model, start(images), images, recipe(images), OPTIONS, **QUIET)
    assert all(torch.equal(before[name], value) for name, value in model.network.state_dict().items())
    assert set(tmp_path.iterdir()) == there


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"classes": 3}, "the head has 3 classes, the images 4"),
        ({"model": "vit_ti16", "image_size": 32}, "the recipe is for vit_ti16, the model is vit_nano8"),
    ],
)
def test_what_does_not_fit_is_refused_before_training(model, images, change, told):
    head = random_head(change.get("classes", 4), 192, 0)
    name, size = change.get("model", "vit_nano8"), change.get("image_size", 16)
    chosen = finetune_recipe_for(name, num_images=24, image_size=size)
    with pytest.raises(ValueError, match=told):
        finetune(model, head, images, chosen, OPTIONS, **QUIET)


# --- in a folder --------------------------------------------------------------------------------------------------------------


def test_a_finished_folder_is_loaded_and_one_of_another_recipe_kept(model, images, tmp_path, capsys):
    folder = tmp_path / "finetune"
    first, log = finetune_in(folder, model, start(images), images, recipe(images), OPTIONS, **QUIET)
    again, _ = finetune_in(folder, model, start(images), images, recipe(images), OPTIONS, **QUIET)
    assert "finished: nothing to train" in capsys.readouterr().out
    assert log["step"].iloc[-1] == 6
    np.testing.assert_array_equal(first.scores(images), again.scores(images))
    finetune_in(folder, model, start(images), images, recipe(images, lr=2e-3), OPTIONS, **QUIET)
    assert (tmp_path / "finetune-1" / "model.safetensors").is_file()


def test_the_same_rows_in_another_order_are_another_start(model, images, tmp_path):
    head, chosen = start(images), recipe(images, max_steps=1)
    finetune_in(tmp_path / "finetune", model, head, images, chosen, OPTIONS, **QUIET)
    finetune_in(tmp_path / "finetune", model, Head(head.weight.flip(0), head.bias), images, chosen, OPTIONS, **QUIET)
    assert (tmp_path / "finetune-1").is_dir()


def test_what_the_front_door_trains_is_the_run_that_the_notebook_finds_finished(
    shards, vocabulary, tmp_path, monkeypatch, capsys, request
):
    folder, notebook = tmp_path / "workbook", request.config.rootpath / "notebooks" / "07_finetune.ipynb"
    (folder / "params").mkdir(parents=True)
    (folder / "notebooks").mkdir()
    shutil.copy(notebook, folder / "notebooks")
    monkeypatch.chdir(folder / "notebooks")
    torch.manual_seed(0)
    state = create_vit("vit_nano8", num_classes=4, image_size=16).state_dict()
    save_pretrained(folder / "outputs/small/pretrain", state, vocabulary, model="vit_nano8", image_size=16)
    values = declared_values(notebook) | {"run": "small", "labelled": [str(shards)], "tests": [str(shards)]}
    values |= {"finetune_epochs": 1, "finetune_batch_size": 8, "device": "cpu", "precision": "fp32"}
    front_door.finetune_from(dict(values))
    model = load(folder / "outputs/small/pretrain", "cpu")
    opened = open_task(model, values["labelled"], values["tests"], **taken_by(open_task, values))
    given = taken_by(finetune_recipe_for, values, "finetune_") | {"image_size": 16}
    chosen = finetune_recipe_for("vit_nano8", num_images=24, seed=0, **given)
    finetune_in(folder / "outputs/small/finetune", model, opened.head(seed=0), opened.labelled, chosen, OPTIONS)
    assert "finished: nothing to train" in capsys.readouterr().out


@pytest.mark.parametrize(("notebook", "prefix"), [("07_finetune", "finetune_"), ("10_multi_label", "multi_label_")])
def test_fine_tuning_can_be_fitted_to_a_smaller_gpu(notebook, prefix, request):
    values = declared_values(request.config.rootpath / f"notebooks/{notebook}.ipynb")
    given = taken_by(finetune_recipe_for, {name: 16 if "micro_batch" in name else None for name in values}, prefix)
    assert finetune_recipe_for("vit_b16", num_images=10_000, **given).micro_batch == 16
