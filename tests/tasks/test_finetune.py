"""Fine-tuning as notebook 07 calls it: from a head to a saved classifier, resumed, compared with the probe."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from catlip_lite.data.labelled import load_labelled
from catlip_lite.models import create_vit, save_pretrained
from catlip_lite.models.heads import Head, random_head
from catlip_lite.models.pretrained import load
from catlip_lite.tasks import finetune as task
from catlip_lite.tasks import finetune_report as report
from catlip_lite.tasks.scoring import answers_of
from catlip_lite.workbook.parameters import declared_values

NOTEBOOK = Path(__file__).resolve().parents[2] / "notebooks" / "07_finetune.ipynb"
SMALL = {"lr": 1e-3, "batch_size": 8, "max_steps": 6, "warmup_steps": 1}
QUIET = {"device": "cpu", "precision": "fp32", "loader_workers": 0, "quiet": True}


@pytest.fixture
def model(tmp_path, vocabulary):
    torch.manual_seed(0)
    state = create_vit("vit_nano8", num_classes=4, image_size=16).state_dict()
    return load(save_pretrained(tmp_path / "pretrain", state, vocabulary, model="vit_nano8", image_size=16), "cpu")


@pytest.fixture
def images(shards):
    return load_labelled(shards)


def recipe(model, images, **given):
    return task.recipe_from(model, len(images), SMALL | given)


def start(images, seed=0):
    return random_head(len(images.classes), 192, seed)


def test_it_learns_the_colours(model, images):
    tuned = task.finetune(model, start(images), images, recipe(model, images, max_steps=60), **QUIET)
    rows, scores = task.evaluate(tuned, images)
    assert (scores.argmax(axis=1) == images.indices[rows]).mean() > 0.9


def test_the_averaged_weights_are_no_worse_than_the_last_ones_after_a_short_run(model, images, monkeypatch):
    networks = []
    real = task.train
    monkeypatch.setattr(
        task, "train", lambda network, *rest, **options: networks.append(network) or real(network, *rest, **options)
    )
    tuned = task.finetune(model, start(images), images, recipe(model, images, max_steps=30), **QUIET)
    averaged = answers_of(tuned.scores(images), images.indices).top(1)
    tuned.network.load_state_dict(networks[0].state_dict())
    assert averaged >= answers_of(tuned.scores(images), images.indices).top(1)


def test_an_interrupted_run_with_layer_decay_ends_exactly_as_an_uninterrupted_one(model, images, tmp_path):
    def run(folder, **options):
        chosen = recipe(model, images, layer_decay=0.7, drop_path=0.1)
        return task.finetune(model, start(images), images, chosen, folder, checkpoint_every=2, log_every=1, **QUIET, **options)

    def stop(entry):
        if entry["step"] == 3:
            raise KeyboardInterrupt

    whole = run(tmp_path / "whole").network.state_dict()
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "cut", on_log=stop)
    resumed = run(tmp_path / "cut").network.state_dict()
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)


def test_smoothing_is_of_training_alone(model, images):
    """Scores are plain logits, and the loss of the log is the smoothed one."""
    losses = {}
    for smoothing in (0.0, 0.1):
        chosen = recipe(model, images, max_steps=1, label_smoothing=smoothing, augmentation="none", batch_size=24)
        task.finetune(
            model, start(images), images, chosen, on_log=lambda e, s=smoothing: losses.update({s: e["loss"]}), **QUIET
        )
    assert losses[0.0] != losses[0.1]


def test_a_finished_folder_is_loaded_and_one_of_another_recipe_kept(model, images, tmp_path, capsys):
    folder = tmp_path / "finetune"
    first, log = task.finetune_in(folder, model, start(images), images, recipe(model, images), **QUIET)
    again, _ = task.finetune_in(folder, model, start(images), images, recipe(model, images), **QUIET)
    assert "finished: nothing to train" in capsys.readouterr().out
    assert log["step"].iloc[-1] == 6
    np.testing.assert_array_equal(first.scores(images), again.scores(images))
    task.finetune_in(folder, model, start(images), images, recipe(model, images, lr=2e-3), **QUIET)
    assert (tmp_path / "finetune-1" / "model.safetensors").is_file()


def test_without_a_size_fine_tuning_sees_the_pixels_that_the_probe_sees(tmp_path, vocabulary):
    state = create_vit("vit_ti16", num_classes=4, image_size=48).state_dict()
    small = load(save_pretrained(tmp_path / "tiny", state, vocabulary, model="vit_ti16", image_size=48), "cpu")
    assert task.recipe_from(small, 24, {}).image_size == 48
    assert task.recipe_from(small, 24, {"image_size": 64}).image_size == 64


@pytest.mark.parametrize(("image_size", "told"), [(None, False), (32, True)])
def test_sizes_that_differ_between_probe_and_network_are_told(model, shards, tmp_path, capsys, image_size, told):
    downstream = task.open_downstream(model, [str(shards)], str(shards))
    heads = task.start_heads(model, downstream, compare=False)
    chosen = recipe(model, downstream.train, image_size=image_size, max_steps=1)
    tuned = task.finetune_all(tmp_path, model, heads, downstream, chosen, **QUIET)
    report.all_answers(model, downstream, heads, tuned, tmp_path / "features")
    assert ("linear probe at 16 px, fine-tuned at 32 px (4.0 × the pixels)" in capsys.readouterr().out) == told


def test_a_task_without_a_test_is_refused(model, shards):
    with pytest.raises(ValueError, match="no test set is given"):
        task.open_downstream(model, [str(shards)], [])


def test_tests_of_one_name_in_different_folders_stay_two(model, shards, tmp_path):
    for place in ("one", "other"):
        (tmp_path / place).mkdir()
        (tmp_path / place / "shards").symlink_to(shards)
    tests = [str(tmp_path / place / "shards") for place in ("one", "other")]
    assert list(task.open_downstream(model, str(shards), tests).tests) == ["one/shards", "other/shards"]


def test_the_same_rows_in_another_order_are_another_start(model, images, tmp_path):
    head = start(images)
    task.finetune_in(tmp_path / "finetune", model, head, images, recipe(model, images, max_steps=1), **QUIET)
    swapped = Head(head.weight.flip(0), head.bias)
    task.finetune_in(tmp_path / "finetune", model, swapped, images, recipe(model, images, max_steps=1), **QUIET)
    assert (tmp_path / "finetune-1").is_dir()


def test_a_task_is_the_classes_that_training_images_and_first_test_share(model, shards, tmp_path, make_png, caplog):
    for name in ("apple", "dog", "zebra"):
        (tmp_path / "photos" / name).mkdir(parents=True)
        (tmp_path / "photos" / name / "1.png").write_bytes(make_png())
    downstream = task.open_downstream(model, [str(shards)], [str(tmp_path / "photos")])
    assert downstream.train.classes == downstream.tests["photos"].classes == ["apple", "dog"]
    assert [found.kind for found in downstream.borrowed] == ["own", "own"]
    assert "only photos has are left out: zebra" in caplog.text
    assert "only the training images have are left out: banana, cat" in caplog.text


def test_transfer_init_starts_from_the_synsets_rows_and_random_init_does_not(model, shards):
    downstream = task.open_downstream(model, [str(shards)], [str(shards)])
    heads = task.start_heads(model, downstream)
    row = model.vocabulary.encode(["n07739125"])[0]
    assert torch.equal(heads["Transfer Init"].weight[0], model.network.head.weight[row])
    assert not torch.equal(heads["Random Init"].weight[0], model.network.head.weight[row])


def test_classes_that_gain_and_lose_are_counted_on_the_same_images():
    targets = np.array([0, 0, 1, 1])
    before = answers_of(np.array([[2.0, 1], [2, 1], [1, 2], [1, 2]]), targets)
    after = answers_of(np.array([[2.0, 1], [1, 2], [1, 2], [1, 2]]), targets)
    changes = report.class_changes(before, after, ["ant", "bee"])
    assert changes.to_dict("records") == [
        {"label": "bee", "images": 2, "before": 1.0, "after": 1.0, "change": 0.0, "taken_for": ""},
        {"label": "ant", "images": 2, "before": 1.0, "after": 0.5, "change": -0.5, "taken_for": "bee"},
    ]
    assert report.difference(after, before)[0] == -0.25


def test_the_notebook_has_every_parameter_of_recipe_and_run():
    assert set(task.PARAMETERS) <= set(declared_values(NOTEBOOK))


def test_the_recipes_table_shows_table_7_beside_it(model, images):
    table = report.summarise_recipe(recipe(model, images), 1_281_167).set_index("setting")
    assert isinstance(table, pd.DataFrame)
    assert (table.loc["lr", "table 7"], table.loc["lr", "here"]) == ("3e-05", "0.001")


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"head": random_head(3, 192, 0)}, "the head has 3 classes, the images 4"),
        ({"augmentation": "wild"}, "augmentation='wild' is unknown"),
        ({"model": "vit_ti16", "image_size": 32}, "the recipe is for vit_ti16, the model is vit_nano8"),
    ],
)
def test_what_does_not_fit_is_refused_before_training(model, images, change, told):
    head = change.pop("head", start(images))
    name = change.pop("model", "vit_nano8")
    chosen = task.finetune_recipe_for(name, num_images=24, **{"image_size": 16, **change})
    with pytest.raises(ValueError, match=told):
        task.finetune(model, head, images, chosen, **QUIET)
