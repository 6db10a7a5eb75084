"""Average precision as scikit-learn computes it, and what it leaves out."""

import warnings

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, f1_score

from catlip_lite.tasks.multi_label_scoring import (
    average_precision,
    best_thresholds,
    f1_scores,
    precision_at,
    resampled_means,
    score_multi_label,
)

CLASSES = [f"class {c}" for c in range(6)]


def case(images=200, decimals=None, seed=0):
    rng = np.random.default_rng(seed)
    targets = rng.random((images, len(CLASSES))) < np.linspace(0.05, 0.6, len(CLASSES))
    scores = (rng.normal(size=targets.shape) + targets).astype(np.float32)
    return (scores if decimals is None else scores.round(decimals)), targets


@pytest.mark.parametrize("decimals", [None, 1, 0], ids=["no ties", "some ties", "many ties"])
@pytest.mark.parametrize("mean", ["macro", "micro", "weighted"])
def test_each_mean_is_scikit_learns(mean, decimals):
    scores, targets = case(decimals=decimals)
    expected = average_precision_score(targets, scores, average=mean)
    assert getattr(score_multi_label(scores, targets, CLASSES), mean) == pytest.approx(expected, abs=1e-12)


def test_each_class_is_scikit_learns_with_ties():
    scores, targets = case(decimals=0)
    expected = average_precision_score(targets, scores, average=None)
    np.testing.assert_allclose(score_multi_label(scores, targets, CLASSES).per_class, expected, atol=1e-12)


def test_equal_scores_give_the_share_of_positives():
    assert average_precision(np.zeros(8), np.arange(8) < 2) == pytest.approx(0.25)


def test_known_order():
    # Positives at ranks 1 and 3 of 4: (1/1 + 2/3) / 2.
    assert average_precision(np.array([4.0, 3.0, 2.0, 1.0]), np.array([True, False, True, False])) == pytest.approx(5 / 6)


def test_a_class_without_positives_is_named_and_left_out_of_the_macro_mean():
    scores, targets = case()
    targets[:, 2] = False
    found = score_multi_label(scores, targets, CLASSES)
    rest = [c for c in range(len(CLASSES)) if c != 2]
    assert found.left_out == ("class 2",)
    assert found.macro == pytest.approx(average_precision_score(targets[:, rest], scores[:, rest], average="macro"))


def test_a_class_without_positives_weighs_nothing():
    scores, targets = case()
    targets[:, 2] = False
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # scikit-learn warns of the empty class
        expected = average_precision_score(targets, scores, average="weighted")
    assert score_multi_label(scores, targets, CLASSES).weighted == pytest.approx(expected)


def test_scores_that_are_not_numbers_are_refused():
    scores, targets = case()
    scores[3, 1] = np.nan
    with pytest.raises(ValueError, match="scores of 1 of 200 images are not numbers"):
        score_multi_label(scores, targets, CLASSES)


def test_targets_without_a_positive_are_refused():
    scores, targets = case()
    with pytest.raises(ValueError, match="none of the 200 images"):
        score_multi_label(scores, np.zeros_like(targets), CLASSES)


@pytest.mark.parametrize("mean", ["macro", "micro", "weighted"])
def test_a_bootstrap_draw_scores_the_images_that_were_drawn(mean):
    scores, targets = case(images=60, decimals=1)
    drawn = np.random.default_rng(5).integers(60, size=60)
    expected = average_precision_score(targets[drawn], scores[drawn], average=mean)
    assert resampled_means(scores, targets, resamples=1, seed=5)[mean][0] == pytest.approx(expected)


def test_draws_of_two_classifiers_are_of_the_same_images():
    scores, targets = case()
    assert (resampled_means(scores, targets, 10) - resampled_means(2 * scores, targets, 10)).abs().to_numpy().max() < 1e-12


def test_precision_at_two_of_known_scores():
    scores = np.array([[3.0, 2.0, 1.0], [1.0, 2.0, 3.0]])
    targets = np.array([[True, True, False], [True, False, True]])
    assert precision_at(scores, targets, 2) == pytest.approx(0.75)


def test_no_threshold_among_the_scores_gives_a_better_f1():
    scores, targets = case(decimals=1)
    thresholds = best_thresholds(scores, targets)
    for c in range(len(CLASSES)):
        best = max(f1_score(targets[:, c], scores[:, c] >= t) for t in np.unique(scores[:, c]))
        assert f1_score(targets[:, c], scores[:, c] >= thresholds[c]) == pytest.approx(best)


def test_f1_is_scikit_learns():
    scores, targets = case()
    found = f1_scores(scores > 0.5, targets)
    assert found["macro F1"] == pytest.approx(f1_score(targets, scores > 0.5, average="macro"))
    assert found["micro F1"] == pytest.approx(f1_score(targets, scores > 0.5, average="micro"))
