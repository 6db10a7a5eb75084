"""Scores of classifiers, against answers counted by hand."""

import numpy as np
import pytest
import torch

from catlip_lite.models.calibration import fit_temperature
from catlip_lite.tasks.scoring import (
    answers_of,
    calibration_error,
    per_class_accuracy,
    reliability,
    top_k_hits,
)


def test_top_k_counts_targets_among_the_k_best():
    scores = np.array([[3.0, 2, 1], [1, 2, 3]])
    assert top_k_hits(scores, np.array([1, 0]), ks=(1, 2, 3)) == {1: 0.0, 2: 0.5, 3: 1.0}


def test_a_target_that_the_classifier_never_considers_is_a_miss_even_among_few_classes():
    scores = np.array([[-np.inf, 1.0], [np.nan, 1.0], [0.0, 1.0], [0.0, 1.0]])
    assert top_k_hits(scores, np.array([0, 0, -1, 1]), ks=(1, 5)) == {1: 0.25, 5: 0.25}


def test_answers_keep_what_figures_need(monkeypatch):
    monkeypatch.setattr("catlip_lite.tasks.scoring.SCORES_AT_ONCE", 3)
    scores, targets = np.log(np.array([[0.5, 0.3, 0.2], [0.1, 0.8, 0.1]], np.float32)), np.array([1, -1])
    answers = answers_of(scores, targets)
    assert answers.predicted.tolist() == [0, 1]
    np.testing.assert_allclose(answers.confidence, [0.5, 0.8], rtol=1e-5)
    assert answers.nll == pytest.approx(-np.log(0.3), rel=1e-5)
    assert (answers.top(1), answers.top(2)) == (0.0, 0.5)


def test_reliability_bins_hold_equally_many_images():
    confidence = np.linspace(0, 1, 150) ** 4
    table = reliability(confidence, confidence > 0.5, bins=15)
    assert table["images"].tolist() == [10] * 15
    assert table["confidence"].is_monotonic_increasing


def test_calibration_error_is_the_mean_gap_by_images():
    confidence = np.repeat([0.6, 0.9], 100)
    hits = np.concatenate([np.arange(100) < 50, np.arange(100) < 90])
    assert calibration_error(confidence, hits, bins=2) == pytest.approx(0.05)


def test_a_bin_has_at_least_ten_images():
    assert reliability(np.linspace(0, 1, 34), np.ones(34, bool))["images"].tolist() == [12, 11, 11]


def test_the_temperature_is_the_one_by_which_scores_were_multiplied():
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(20_000, 4)).astype(np.float32) * 2
    chances = torch.softmax(torch.from_numpy(logits), 1)
    targets = torch.multinomial(chances, 1, generator=torch.Generator().manual_seed(0))[:, 0].numpy()
    assert fit_temperature(3 * logits, targets) == pytest.approx(3, rel=0.05)


def test_images_that_a_classifier_cannot_know_do_not_move_the_temperature():
    scores = np.array([[1.0, 0, -np.inf], [1, 0, -np.inf], [0, 1, -np.inf]] * 4, np.float32)
    targets = np.array([0, 1, 1] * 4)
    more = np.concatenate([scores, scores[:2]]), np.concatenate([targets, [2, -1]])
    assert fit_temperature(*more) == fit_temperature(scores, targets)
    assert 0.1 < fit_temperature(scores, targets) < 10


def test_per_class_accuracy_names_what_a_class_is_taken_for():
    table = per_class_accuracy(np.array(["bee", "ant", "bee", "ant"]), np.array(["ant", "bee", "ant", "ant"]))
    assert table.to_dict("records") == [
        {"label": "bee", "images": 1, "accuracy": 0.0, "taken_for": "ant", "times": 1},
        {"label": "ant", "images": 3, "accuracy": 1 / 3, "taken_for": "bee", "times": 2},
    ]


def test_a_few_images_that_are_all_right_do_not_make_the_temperature_zero():
    scores, targets = np.array([[1.0, 0]] * 4), np.zeros(4, int)
    sure = 1 / fit_temperature(scores, targets)
    assert sure == pytest.approx(np.log((5 * 1 + 0.5) / 0.5), rel=1e-4)  # a sixth counts as evenly spread
