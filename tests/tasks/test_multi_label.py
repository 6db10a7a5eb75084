"""Notebook 10's task: where BCE starts from, and what training on scenes of coloured blocks comes to."""

import io
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from catlip_lite.artefacts import read_table
from catlip_lite.data.demo_scenes import write_scenes
from catlip_lite.data.labelled import load_labelled
from catlip_lite.data.shards import Sample, write_shards
from catlip_lite.labels import Vocabulary
from catlip_lite.models import PretrainedModel, create_vit
from catlip_lite.tasks import multi_label as task
from catlip_lite.tasks import multi_label_report as report
from catlip_lite.tasks.multi_label_scoring import dense_targets
from catlip_lite.viz.multi_label import show_crops

COLOURS = {"apple": (220, 20, 20), "banana": (240, 220, 40), "cat": (90, 90, 90), "dog": (60, 40, 200)}
WNIDS = {"apple": "n07739125", "banana": "n07753592", "cat": "n02121620"}  # dogs are not in the vocabulary


def block(colour) -> bytes:
    picture = Image.new("RGB", (72, 72), "white")
    picture.paste(colour, (6, 6, 66, 66))
    out = io.BytesIO()
    picture.save(out, "PNG")
    return out.getvalue()


@pytest.fixture(scope="module")
def addresses(tmp_path_factory):
    """Annotations of 64 train and 32 test scenes."""
    folder = tmp_path_factory.mktemp("scenes")
    (folder / "annotations").mkdir()
    found = {}
    for split, count in (("train", 64), ("test", 32)):
        (folder / split).mkdir()
        annotations = write_scenes(folder / split, {name: [block(c)] for name, c in COLOURS.items()}, count, split)
        found[split] = folder / "annotations" / f"instances_{split}.json"
        found[split].write_text(json.dumps(annotations))
    return {name: str(path) for name, path in found.items()}


@pytest.fixture(scope="module")
def model():
    """A small network for 16 pixels."""
    torch.manual_seed(0)
    vocabulary = Vocabulary(list(WNIDS.values()), [50, 30, 20], num_captions=100)
    network = create_vit("vit_nano8", num_classes=3, image_size=16)
    torch.nn.init.normal_(network.head.bias)
    return PretrainedModel(network, vocabulary, {"model": "vit_nano8", "image_size": 16}, "cpu")


@pytest.fixture(scope="module")
def images(model, addresses):
    """The task as the network sees it, at twice the size that it was made for."""
    return task.load_task(model, [addresses["train"]], [addresses["test"]], image_size=32, validation_share=0.25)


@pytest.fixture(scope="module")
def lists(tmp_path_factory):
    """Shards with lists of labels, and no boxes."""
    folder = tmp_path_factory.mktemp("lists") / "lists"
    names = [["apple", "cat"], ["banana", "dog"]] * 6
    samples = [Sample("", block(COLOURS[n[0]]), "png", "", {"uid": f"u{i}", "label": n}) for i, n in enumerate(names)]
    write_shards(samples, folder, samples_per_shard=16)
    return str(folder)


@pytest.fixture(scope="module")
def found(images):
    recipe = task.recipe_for(images, epochs=1, batch_size=16)
    return task.compare(images, recipe, trained_on=["image", "view"], quiet=True)


def test_the_head_is_the_same_at_another_size(images):
    assert images.at_size.image_size == 32
    assert images.at_size.network.head.weight.shape == (3, 192)


def test_validation_is_set_aside_of_the_labelled_images(images):
    assert (len(images.train), len(images.validation)) == (48, 16)
    names = {part.files.name(i) for part in (images.train, images.validation) for i in range(len(part))}
    assert len(names) == 64


def test_images_of_one_label_each_are_refused(images, shards):
    with pytest.raises(ValueError, match="one label an image"):
        task.load_task(images.at_size, [str(shards)], [str(shards)], image_size=32)


def test_a_shifted_bias_is_the_rows_less_the_captions_odds_plus_the_labels(images):
    head = task.start_head(images, task.TRANSFER, bias="shifted")
    model, share = images.at_size, (dense_targets(images.train)[:, 0].sum() + 0.5) / (len(images.train) + 1)
    expected = model.network.head.bias[0].item() - model.vocabulary.log_prior_odds()[0] + np.log(share / (1 - share))
    assert head.bias[0].item() == pytest.approx(expected, abs=1e-5)


def test_a_copied_bias_is_the_rows(images):
    head = task.start_head(images, task.TRANSFER, bias="copied")
    assert torch.equal(head.bias[:3], images.at_size.network.head.bias.detach())


def test_a_random_head_starts_at_the_labels_frequency_or_at_zero(images):
    odds = torch.from_numpy(task.label_log_odds(images.train))
    assert torch.equal(task.start_head(images, task.RANDOM, bias="shifted").bias, odds)
    assert not task.start_head(images, task.RANDOM, bias="zero").bias.any()


def test_the_bias_does_not_change_the_macro_mean(images):
    starts = task.compare_starts(images)
    assert starts[starts["init"] == task.TRANSFER]["macro"].nunique() == 1


def test_starting_at_the_labels_frequency_lowers_the_loss_of_a_random_head(images):
    losses = task.compare_starts(images).set_index(["init", "bias"])["loss"]
    assert losses[task.RANDOM, "frequency"] < losses[task.RANDOM, "zero"]


def test_every_classifier_is_scored_under_both_protocols(images, found):
    table = report.score_table(images, found, resamples=5)
    assert len(table) == 2 * len(found) == 10
    assert table[["macro", "micro", "weighted"]].stack().between(0, 1).all()


def test_training_from_transfer_init_and_from_random_init_differ_in_their_start_alone(found):
    assert [(one.init, one.labels_of) for one in found[2:]] == [
        (task.TRANSFER, "image"),
        (task.RANDOM, "image"),
        (task.TRANSFER, "view"),
    ]


def test_gains_are_the_difference_of_two_classifiers_by_class(images, found):
    classes = report.per_class(images, found, "instances_test")
    np.testing.assert_allclose(classes["gained"], classes[task.TRANSFER] - classes[task.RANDOM])


def test_training_views_keep_a_part_of_the_labels(images):
    views, whole, left = task.training_views(images, task.recipe_for(images, epochs=1), most=24)
    assert views.shape == (24, 3, 32, 32)
    assert all(set(b) <= set(a) for a, b in zip(whole, left, strict=True)) and whole != left


def test_images_without_boxes_are_trained_on_whole_and_nothing_is_known_of_crops(model, lists):
    unboxed = task.load_task(model, lists, lists, image_size=16)
    recipe = task.recipe_for(unboxed, epochs=1, batch_size=8)
    views, whole, left = task.training_views(unboxed, recipe, most=4)
    assert left is None and all(whole)
    assert "nobody knows" in show_crops(views, whole, left).get_suptitle()
    table = report.score_table(unboxed, task.compare(unboxed, recipe, quiet=True), resamples=2)
    assert set(table["labels of"]) == {"image"}


def test_following_the_crop_without_boxes_is_refused_before_any_training(model, lists):
    with pytest.raises(ValueError, match="only where boxes are known"):
        task.load_task(model, lists, lists, image_size=16, trained_on=["image", "view"])


@pytest.mark.parametrize("trained_on", [["view"], ["view", "image"]], ids=str)
def test_random_init_is_trained_on_the_first_of_any_targets(images, trained_on):
    one_step = task.recipe_for(images, max_steps=1, batch_size=16)
    found = task.compare(images, one_step, trained_on=trained_on, quiet=True)
    assert [(one.init, one.labels_of) for one in found[2:4]] == [(task.TRANSFER, "view"), (task.RANDOM, "view")]
    assert list(report.per_class(images, found, "instances_test").columns[3:5]) == [
        "Random Init, labels of the view",
        "Transfer Init, labels of the view",
    ]
    assert "From Random Init to Transfer Init" in report.findings(report.score_table(images, found, resamples=2))


@pytest.mark.parametrize("trained_on", [[], ["view", "view"], ["crop"], "view"], ids=str)
def test_other_targets_are_refused_before_any_training(model, addresses, images, trained_on):
    told = "trained_on=.* must be a list of one or more of image, view, each once"
    with pytest.raises(ValueError, match=told):
        task.load_task(model, addresses["train"], addresses["test"], image_size=32, trained_on=trained_on)
    with pytest.raises(ValueError, match=told):
        task.compare(images, task.recipe_for(images, epochs=1), trained_on=trained_on)


def test_without_a_seed_nothing_is_trained(images):
    with pytest.raises(ValueError, match="seeds is empty"):
        task.compare(images, task.recipe_for(images, epochs=1), seeds=[])


def test_a_label_that_the_test_does_not_know_is_left_out_and_told(model, addresses, tmp_path, caplog):
    annotations = json.loads(Path(addresses["test"]).read_text())
    (gone,) = [category["id"] for category in annotations["categories"] if category["name"] == "banana"]
    annotations["categories"] = [c for c in annotations["categories"] if c["id"] != gone]
    annotations["annotations"] = [a for a in annotations["annotations"] if a["category_id"] != gone]
    (tmp_path / "rare").symlink_to(Path(addresses["test"]).parents[1] / "test")
    (tmp_path / "annotations").mkdir()
    rare = tmp_path / "annotations" / "instances_rare.json"
    rare.write_text(json.dumps(annotations))
    some = task.load_task(model, addresses["train"], [str(rare), addresses["test"]], image_size=32)
    assert some.classes == ["apple", "cat", "dog"] == [part.classes for part in some.tests.values()][1]
    assert "1 class(es) that only the training images have are left out: banana" in caplog.text
    both = [dense_targets(part) for part in some.tests.values()]
    np.testing.assert_array_equal(*both)
    assert some.targets("instances_test", "view", np.arange(32)).any(axis=0).all()


def test_tests_of_one_name_in_different_folders_stay_two(model, lists, tmp_path):
    (tmp_path / "lists").symlink_to(lists)
    assert len(task.load_task(model, lists, [lists, str(tmp_path / "lists")], image_size=16).tests) == 2


def test_findings_tell_what_several_seeds_spread_over():
    macro = {(task.TRANSFER, 0): 0.5, (task.RANDOM, 0): 0.4, (task.TRANSFER, 1): 0.6, (task.RANDOM, 1): 0.3}
    rows = [
        {"classifier": name, "seed": seed, "test": "t", "labels of": "image", "macro": value, "± macro": 0.03}
        for (name, seed), value in macro.items()
    ]
    told = report.findings(pd.DataFrame(rows))
    assert "+0.200 (± 0.042; over 2 seeds from +0.100 to +0.300)" in told


def test_results_are_written_with_the_recipe(images, found, tmp_path):
    table = report.score_table(images, found[:1], resamples=0)
    _, card = read_table(report.write_results(tmp_path / "t.parquet", table, images, task.recipe_for(images, epochs=1)))
    assert card["recipe"]["loss"] == "bce" and card["paper_macro"]["vit_b16"] == 88.06


def test_the_demos_scenes_have_an_address(monkeypatch, addresses):
    monkeypatch.setattr("catlip_lite.data.labelled.scenes_annotations", lambda split: addresses[split])
    assert len(load_labelled("demo/scenes_test")) == 32
