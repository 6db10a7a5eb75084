"""Figures of classifiers, against answers counted by hand and scikit-learn's."""

import numpy as np
import pytest
from sklearn.metrics import average_precision_score

from catlip_lite.data.labelled.images import LabelledImages
from catlip_lite.transfer import metrics
from catlip_lite.transfer.metrics import answers_of, average_precision, dense_targets, standard_error, top_k

# --- one label an image -------------------------------------------------------------------------------------------------------


def test_top_k_counts_targets_among_the_k_best():
    scores = np.array([[3.0, 2, 1], [1, 2, 3]])
    assert [top_k(scores, np.array([1, 0]), k) for k in (1, 2, 3)] == [0.0, 0.5, 1.0]


def test_a_target_that_the_classifier_never_considers_is_a_miss_even_among_few_classes():
    scores = np.array([[-np.inf, 1.0], [np.nan, 1.0], [0.0, 1.0], [0.0, 1.0]])
    assert [top_k(scores, np.array([0, 0, -1, 1]), k) for k in (1, 5)] == [0.25, 0.25]


def test_answers_keep_what_figures_need(monkeypatch):
    monkeypatch.setattr(metrics, "SCORES_AT_ONCE", 3)
    scores, targets = np.log(np.array([[0.5, 0.3, 0.2], [0.1, 0.8, 0.1]], np.float32)), np.array([1, -1])
    answers = answers_of(scores, targets)
    assert answers.predicted.tolist() == [0, 1]
    np.testing.assert_allclose(answers.confidence, [0.5, 0.8], rtol=1e-5)
    assert answers.nll == pytest.approx(-np.log(0.3), rel=1e-5)
    assert (answers.top(1), answers.top(2)) == (0.0, 0.5)


def test_a_temperature_changes_how_sure_answers_are_and_none_of_them():
    scores, targets = np.random.default_rng(0).normal(size=(50, 4)).astype(np.float32), np.arange(50) % 4
    plain, sure = answers_of(scores, targets), answers_of(scores, targets, temperature=0.5)
    np.testing.assert_array_equal(plain.ranks, sure.ranks)
    np.testing.assert_allclose(sure.surprise, answers_of(2 * scores, targets).surprise)
    assert (sure.confidence > plain.confidence).all()


def test_the_standard_error_of_a_share_is_what_its_draws_spread_over():
    drawn = np.random.default_rng(0).binomial(400, 0.3, size=20_000) / 400
    assert standard_error(0.3, 400) == pytest.approx(drawn.std(), rel=0.02)


# --- several labels an image --------------------------------------------------------------------------------------------------


def case(decimals=None):
    rng = np.random.default_rng(0)
    targets = rng.random((200, 6)) < np.linspace(0.05, 0.6, 6)
    scores = (rng.normal(size=targets.shape) + targets).astype(np.float32)
    return (scores if decimals is None else scores.round(decimals)), targets


@pytest.mark.parametrize("decimals", [None, 0], ids=["no ties", "many ties"])
def test_each_class_and_mean_is_scikit_learns(decimals):
    scores, targets = case(decimals)
    by_class, means = average_precision(scores, targets)
    np.testing.assert_allclose(by_class, average_precision_score(targets, scores, average=None))
    assert means == {
        mean: pytest.approx(average_precision_score(targets, scores, average=mean)) for mean in ("macro", "micro", "weighted")
    }


def test_a_class_without_positives_is_left_out_of_the_means():
    scores, targets = case()
    targets[:, 2] = False
    rest = [0, 1, 3, 4, 5]
    by_class, means = average_precision(scores, targets)
    assert np.flatnonzero(np.isnan(by_class)).tolist() == [2]
    for mean in ("macro", "weighted"):
        assert means[mean] == pytest.approx(average_precision_score(targets[:, rest], scores[:, rest], average=mean))


def test_scores_that_are_not_numbers_and_targets_without_a_positive_are_refused():
    scores, targets = case()
    with pytest.raises(ValueError, match="none of the 200 images has one of the 6 labels"):
        average_precision(scores, np.zeros_like(targets))
    scores[3, 1] = np.nan
    with pytest.raises(ValueError, match="scores of 1 of 200 images are not numbers"):
        average_precision(scores, targets)


def test_dense_targets_say_which_labels_each_image_has():
    indices, counts = np.array([0, 2, 1]), np.array([2, 0, 1])
    images = LabelledImages([None] * 3, ["ant", "bee", "cow"], "", indices, counts, np.array([""] * 3, object), True)
    assert dense_targets(images).tolist() == [[True, False, True], [False] * 3, [False, True, False]]
