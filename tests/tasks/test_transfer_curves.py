"""Curves of notebook 06: the same images, another start (paper figures 5 and 7), and what is said of them."""

import dataclasses
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from transfer_tasks import made_task

from catlip_lite.labels import Vocabulary
from catlip_lite.labels.borrowing import Borrowed
from catlip_lite.models import PretrainedModel, create_vit
from catlip_lite.models.heads import Head
from catlip_lite.models.transfer import transfer_head
from catlip_lite.tasks import transfer_curves as curves
from catlip_lite.tasks import transfer_report as report
from catlip_lite.tasks.transfer_init import budgets


@pytest.fixture
def model():
    torch.manual_seed(0)
    vocabulary = Vocabulary(["n07739125", "n02084071", "n02120997"], [50, 30, 20], num_captions=100)
    network = create_vit("vit_nano8", num_classes=3, image_size=16)
    return PretrainedModel(network, vocabulary, {"model": "vit_nano8", "image_size": 16}, "cpu")


@pytest.fixture
def downstream(tmp_path, make_png):
    return made_task(tmp_path, make_png)


def oracle(downstream):
    """A start that is right about every image: the mean feature of each class."""
    features, targets = downstream.pool.features.features, downstream.targets(downstream.pool)
    means = np.stack([features[targets == label].mean(axis=0) for label in range(len(downstream))])
    bias = torch.from_numpy(-0.5 * (means**2).sum(axis=1))
    return lambda seed, train: Head(torch.from_numpy(means), bias)


# --- training ---------------------------------------------------------------------------------------------------------------


def test_without_images_each_head_is_its_start(downstream):
    table = curves.probe_curve(downstream, oracle(downstream), budgets([0], None), seeds=[0]).table
    assert table.set_index("init")["top-1"].to_dict()["Transfer Init"] == 1
    assert set(table["init"]) == {"Transfer Init", "Random Init"}
    assert table["lr"].isna().all()


def test_a_start_that_validates_best_is_not_trained_away_from(downstream):
    start = oracle(downstream)(0, None)
    lr, head = curves.fit_heads(downstream, downstream.pool.take([0]), [start], epochs=3, seed=0)[0]
    assert (lr, head) == (0.0, start)


def test_heads_from_both_starts_learn_separable_classes(downstream, model):
    curve = curves.probe_curve(downstream, report.head_of(model, downstream), budgets([2], None), seeds=[0, 1])
    assert curve.table.groupby("init")["top-1"].mean().to_dict() == dict.fromkeys(
        ("Transfer Init", "Random Init", "Transfer added", "class means", "nearest image"), 1
    )


def test_borrowed_rows_are_added_to_a_probe_as_far_as_they_help(downstream):
    right = oracle(downstream)(0, None)
    wrong = Head(-0.01 * right.weight, torch.zeros_like(right.bias))
    share, head = curves.add_borrowed(downstream, wrong, right)
    assert share > 0
    scores = head.scores(downstream.validation.features.features)
    assert (scores.argmax(axis=1) == downstream.targets(downstream.validation)).all()
    assert curves.add_borrowed(downstream, right, Head(-right.weight, -right.bias))[0] == 0


def test_labels_that_borrow_nothing_get_nothing_added(downstream):
    right = oracle(downstream)(0, None)
    empty = Borrowed(np.zeros(0, np.int32), np.zeros(0, np.float32), "none")
    lacking = dataclasses.replace(downstream, borrowed=[empty, *downstream.borrowed[1:]])
    probe = Head(0.01 * right.weight, 0.01 * right.bias)
    share, head = curves.add_borrowed(lacking, probe, right)
    torch.testing.assert_close(head.weight[0], probe.weight[0])
    torch.testing.assert_close(head.weight[1:], probe.weight[1:] + share * right.weight[1:])


def test_networks_are_fine_tuned_from_three_starts_where_there_are_images(downstream, model):
    options = curves.FinetuneOptions(least_steps=2, lrs=[1e-5, 1e-4], precision="fp32")
    start = report.head_of(model, downstream)
    curve = curves.finetune_curve(model, downstream, start, budgets([0, 1], None), [0], options, head_epochs=2)
    assert list(curve.table["init"]) == ["Transfer Init", "Random Init", "LP-FT"]
    assert (set(curve.table["budget"]), set(curve.table["images"])) == ({"1 a class"}, {3})
    assert set(curve.table["lr"]) <= {0.0, 1e-5, 1e-4}
    assert set(curve.hits) == {("fine-tuning", init, "1 a class", 0) for init in curve.table["init"]}


def test_a_start_that_validates_best_is_not_fine_tuned_away_from(downstream, model, monkeypatch):
    def ruined(*arguments, **options):
        return SimpleNamespace(scores=lambda views, workers: np.zeros((len(views), len(downstream))))

    monkeypatch.setattr(curves, "finetune", ruined)
    options = curves.FinetuneOptions(least_steps=1, precision="fp32")
    table = curves.finetune_curve(model, downstream, oracle(downstream), budgets([1], None), [0], options, 2).table
    assert table.set_index("init").loc["Transfer Init", ["lr", "top-1"]].to_list() == [0.0, 1.0]


def test_test_sets_that_are_too_large_to_keep_are_scored_as_they_are_read(downstream, model, monkeypatch):
    options = curves.FinetuneOptions(least_steps=1, lrs=[1e-3], precision="fp32")
    given = model, downstream, report.head_of(model, downstream), budgets([1], None), [0], options, 1
    kept = curves.finetune_curve(*given).table
    monkeypatch.setattr(curves, "KEPT_BYTES", 0)
    pd.testing.assert_frame_equal(curves.finetune_curve(*given).table, kept)


def test_no_seeds_are_refused(downstream):
    with pytest.raises(ValueError, match=r"seeds=\[\]: give at least one"):
        curves.probe_curve(downstream, oracle(downstream), budgets([0], None), seeds=[])


def test_however_few_the_images_there_are_least_steps(model):
    options = curves.FinetuneOptions(epochs=2, least_steps=50)
    assert options.recipe(model, images=3, lr=None, seed=0).max_steps == 50
    assert options.recipe(model, images=6400, lr=None, seed=0).max_steps > 50


def test_class_means_and_nearest_image_by_hand():
    features = np.array([[2.0, 0], [0, 1], [1, 1]], np.float32)
    targets, queries = np.array([0, 1, 1]), np.array([[3.0, 3]], np.float32)
    half = np.sqrt(0.5)
    mean = np.array([half, 1 + half]) / np.linalg.norm([half, 1 + half])
    means = curves.class_means(features, targets, queries, 3)
    nearest = curves.nearest_image(features, targets, queries, 3)
    np.testing.assert_allclose(means, [[half, half * mean.sum(), -np.inf]], rtol=1e-6)
    np.testing.assert_allclose(nearest, [[(half - 2) / 0.05, 1 / 0.05, -np.inf]], rtol=1e-5)  # votes of one neighbour


def test_accuracy_of_labels_by_hand():
    scores = np.array([[1.0, 0, 0], [1, 0, 0], [0, 1, 0]])
    np.testing.assert_array_equal(curves.label_accuracy(scores, np.array([0, 1, 1]), 3), [1, 0.5, np.nan])


# --- what is said of them -----------------------------------------------------------------------------------------------------


@pytest.fixture
def table():
    rows = [
        ("Transfer Init", 0, 0.5), ("Transfer Init", 1, 0.7), ("Random Init", 0, 0.4), ("Random Init", 1, 0.4),
    ]  # fmt: skip
    facts = {"method": "linear probe", "kind": "images a class", "budget": "1 a class", "images": 3, "images a class": 1.0}
    return pd.DataFrame([facts | {"init": i, "seed": s, "lr": 0.1, "test": "t", "top-1": v, "top-5": 1.0} for i, s, v in rows])


def test_bands_are_students_for_the_mean_over_seeds(table):
    found = report.with_bands(table).set_index("init").loc["Transfer Init"]
    half_width = 12.706 * np.std([0.5, 0.7], ddof=1) / np.sqrt(2)  # t for one degree of freedom, 95 %
    np.testing.assert_allclose(
        [found["mean"], found["low"], found["high"]], [0.6, 0.6 - half_width, 0.6 + half_width], rtol=1e-4
    )


def test_margins_pair_the_starts_by_seed(table):
    (found,) = report.margins(table).to_dict("records")
    half_width = 12.706 * np.std([0.1, 0.3], ddof=1) / np.sqrt(2)
    np.testing.assert_allclose([found["mean"], found["high"]], [0.2, 0.2 + half_width], rtol=1e-4)


def test_one_seed_has_no_band(table):
    assert report.with_bands(table[table["seed"] == 0])[["low", "high"]].isna().all(axis=None)


def test_gains_name_the_labels_and_what_they_borrow(downstream, model):
    key = ("linear probe", "{}", "1 a class", 0)
    hits = {
        (key[0], "Transfer Init", *key[2:]): np.array([1, 0.5, 0]),
        (key[0], "Random Init", *key[2:]): np.array([0, 0.5, 1]),
    }
    gains = report.label_gains(curves.Curve(pd.DataFrame(), hits), downstream, model.vocabulary, "1 a class")
    assert gains[["label", "gain"]].to_numpy().tolist() == [["apple", 1.0], ["cat", 0.0], ["dog", -1.0]]
    assert gains["captions"].to_list() == [50, 20, 30]
    assert gains["borrows"].to_list() == ["own synset", "similar synsets", "own synset"]
    summary = report.summarise_gains(gains)
    assert summary[["gained", "lost", "as before"]].sum().to_list() == [1, 1, 1]


def test_zero_shot_leaves_out_labels_that_borrow_nothing(downstream, model):
    found = report.zero_shot_table(model, downstream)
    known = sum(len(b.rows) > 0 for b in downstream.borrowed)
    assert set(found["classes"]) == {known}
    assert list(found["prior correction"]) == [True, False]


def test_a_fitted_scale_changes_confidence_and_not_the_order(downstream, model):
    fitted = report.head_of(model, downstream, scale="fitted")(0, downstream.pool)
    plain = transfer_head(model, downstream.borrowed, seed=0)
    ratio = (fitted.weight / plain.weight).flatten()
    torch.testing.assert_close(ratio, ratio[:1].expand_as(ratio))
    assert float(ratio[0]) != 1.0


def test_each_option_is_measured_by_itself(downstream, model):
    (size,) = budgets([1], None)
    found = report.measure_options(model, downstream, size, [0], min_similarity=0.5, epochs=2)
    assert found["option"].value_counts().to_dict() == {"borrow": 4, "bias": 3, "scale": 3}
    assert found["1 a class"].between(0, 1).all()
