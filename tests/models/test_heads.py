"""Transfer Init's heads and zero-shot scores: rows of the pre-trained head, borrowed (paper section 4.1)."""

import numpy as np
import pytest
import torch

from catlip_lite.labels import Vocabulary
from catlip_lite.labels.borrowing import Borrowed
from catlip_lite.models import (
    Head,
    PretrainedModel,
    create_vit,
    fit_scale,
    fit_temperature,
    random_head,
    transfer_head,
    zero_shot_head,
)

PRIOR = np.log(np.array([0.5, 0.3, 0.2]) / np.array([0.5, 0.7, 0.8]))


@pytest.fixture
def model():
    torch.manual_seed(0)
    vocabulary = Vocabulary(["n07739125", "n02084071", "n02121620"], [50, 30, 20], num_captions=100)
    network = create_vit("vit_nano8", num_classes=3, image_size=16)
    torch.nn.init.normal_(network.head.bias)
    return PretrainedModel(network, vocabulary, {"model": "vit_nano8", "image_size": 16}, "cpu")


def of(*rows, weights=None):
    """What a label borrows: these rows with these weights, or equal ones."""
    given = np.full(len(rows), 1 / max(len(rows), 1)) if weights is None else np.array(weights)
    return Borrowed(np.array(rows, np.int32), given.astype(np.float32), "own" if rows else "none")


def weight_of(model):
    return model.network.head.weight.detach()


def bias_of(model):
    return model.network.head.bias.detach().numpy()


# --- heads -----------------------------------------------------------------------------------------------------------------


def test_a_label_takes_the_row_of_its_synset(model):
    assert torch.equal(transfer_head(model, [of(1)]).weight[0], weight_of(model)[1])


def test_a_label_of_several_synsets_takes_their_weighted_mean(model):
    head = transfer_head(model, [of(0, 2, weights=[0.75, 0.25])])
    torch.testing.assert_close(head.weight[0], 0.75 * weight_of(model)[0] + 0.25 * weight_of(model)[2])


def test_a_label_that_borrows_nothing_has_the_row_of_random_init_and_the_mean_bias(model):
    head = transfer_head(model, [of(1), of(), of(2)], seed=3)
    assert torch.equal(head.weight[1], random_head(3, 192, seed=3).weight[1])
    assert head.bias[1] == pytest.approx(float(head.bias[[0, 2]].mean()))


def test_where_nothing_is_borrowed_the_head_is_random_inits(model):
    head, expected = transfer_head(model, [of(), of()], seed=4), random_head(2, 192, seed=4)
    assert torch.equal(head.weight, expected.weight)
    assert torch.equal(head.bias, expected.bias)


@pytest.mark.parametrize(
    ("bias", "expected"),
    [
        ("prior", lambda trained: trained[0] / 2 + trained[2] / 2 - PRIOR[0] / 2 - PRIOR[2] / 2),
        ("copied", lambda trained: trained[0] / 2 + trained[2] / 2),
        ("zero", lambda trained: 0),
    ],
)
def test_biases(model, bias, expected):
    head = transfer_head(model, [of(0, 2)], bias=bias)
    assert float(head.bias[0]) == pytest.approx(float(expected(bias_of(model))), abs=1e-5)


def test_unit_rows_have_the_mean_norm_of_those_that_borrow(model):
    borrowed = [of(0), of(1, 2), of()]
    before, after = transfer_head(model, borrowed), transfer_head(model, borrowed, scale="unit")
    norms = before.weight[:2].norm(dim=1)
    torch.testing.assert_close(after.weight[:2].norm(dim=1), norms.mean().expand(2))
    torch.testing.assert_close(after.bias[:2], before.bias[:2] * norms.mean() / norms)
    assert torch.equal(after.weight[2], before.weight[2])


def test_a_number_is_a_temperature_of_what_is_borrowed(model):
    before, after = (transfer_head(model, [of(0), of()], scale=scale) for scale in ("as trained", 0.25))
    torch.testing.assert_close(after.weight[0], before.weight[0] / 4)
    torch.testing.assert_close(after.bias[0], before.bias[0] / 4)
    assert torch.equal(after.weight[1], before.weight[1])


def test_a_head_leaves_the_model_as_it_is(model):
    before = model.network.head.weight.clone()
    head = transfer_head(model, [of(1)])
    head.weight.zero_()
    assert torch.equal(model.network.head.weight, before)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"bias": "none"}, "bias='none' is unknown: choose one of prior, copied, zero"),
        ({"scale": "norm"}, "scale='norm' is unknown: choose 'as trained', 'unit' or a positive number"),
        ({"scale": 0.0}, "scale=0.0 is unknown"),
        ({"scale": float("nan")}, "scale=nan is unknown"),
    ],
)
def test_unknown_options_are_refused(model, options, message):
    with pytest.raises(ValueError, match=message):
        transfer_head(model, [of(0)], **options)


# --- zero-shot -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("corrected", [True, False])
def test_a_label_scores_the_weighted_mean_of_its_rows_less_their_log_prior_odds(model, corrected):
    features = np.random.default_rng(0).normal(size=(5, 192)).astype(np.float32)
    rows = model.head_logits(features) - (PRIOR if corrected else 0)
    scores = zero_shot_head(model, [of(2), of(0, 1, weights=[0.9, 0.1])], prior_corrected=corrected).scores(features)
    np.testing.assert_allclose(scores, np.stack([rows[:, 2], 0.9 * rows[:, 0] + 0.1 * rows[:, 1]], 1), rtol=1e-4, atol=1e-5)


def test_a_label_without_rows_scores_minus_infinity(model):
    scores = zero_shot_head(model, [of(1), of()]).scores(np.ones((2, 192), np.float32))
    assert np.isfinite(scores[:, 0]).all()
    assert (scores[:, 1] == -np.inf).all()


# --- temperature -----------------------------------------------------------------------------------------------------------


def test_the_temperature_makes_probabilities_the_frequencies():
    # Every image has the logits (2, 0), three of four are of the first class: best is log(3) / 2, but for the 1 of 202 parts
    # that count as evenly spread.
    head = Head(torch.tensor([[2.0], [0.0]]), torch.zeros(2))
    targets = np.array([0, 0, 0, 1] * 50)
    assert fit_scale(head, np.ones((200, 1), np.float32), targets) == pytest.approx(
        np.log((201 * 0.75 + 0.5) / (201 * 0.25 + 0.5)) / 2, rel=1e-5
    )


def test_no_other_temperature_has_a_smaller_cross_entropy():
    rng = np.random.default_rng(0)
    features = rng.normal(size=(300, 8)).astype(np.float32)
    head = Head(torch.from_numpy(rng.normal(size=(5, 8)).astype(np.float32)), torch.zeros(5))
    targets = (head.scores(features) + 4 * rng.gumbel(size=(300, 5))).argmax(1)
    logits, target = torch.from_numpy(head.scores(features)).double(), torch.from_numpy(targets)
    best = fit_scale(head, features, targets)
    losses = [float(torch.nn.functional.cross_entropy(logits * best * factor, target)) for factor in (0.99, 1, 1.01)]
    assert losses.index(min(losses)) == 1


def test_a_temperature_stays_finite_where_all_are_right():
    head = Head(torch.tensor([[1.0], [-1.0]]), torch.zeros(2))
    assert fit_scale(head, np.array([[1.0], [-1.0]], np.float32), np.array([0, 1])) <= 1000


def test_a_few_images_that_are_all_right_do_not_make_the_temperature_zero():
    sure = 1 / fit_temperature(np.array([[1.0, 0]] * 4), np.zeros(4, int))
    assert sure == pytest.approx(np.log((5 * 1 + 0.5) / 0.5), rel=1e-4)  # a sixth counts as evenly spread


def test_the_temperature_is_the_one_by_which_scores_were_multiplied():
    logits = np.random.default_rng(0).normal(size=(20_000, 4)).astype(np.float32) * 2
    chances = torch.softmax(torch.from_numpy(logits), 1)
    targets = torch.multinomial(chances, 1, generator=torch.Generator().manual_seed(0))[:, 0].numpy()
    assert fit_temperature(3 * logits, targets) == pytest.approx(3, rel=0.05)


def test_images_that_a_classifier_cannot_know_do_not_move_the_temperature():
    scores = np.array([[1.0, 0, -np.inf], [1, 0, -np.inf], [0, 1, -np.inf]] * 4, np.float32)
    targets = np.array([0, 1, 1] * 4)
    more = np.concatenate([scores, scores[:2]]), np.concatenate([targets, [2, -1]])
    assert fit_temperature(*more) == fit_temperature(scores, targets)
    assert 0.1 < fit_temperature(scores, targets) < 10


def test_no_images_give_no_temperature():
    with pytest.raises(ValueError, match="fit_scale needs labelled images: none given"):
        fit_scale(random_head(2, 3, 0), np.zeros((0, 3), np.float32), np.zeros(0, np.int64))
