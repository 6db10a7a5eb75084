"""Losses on sparse targets equal their dense definitions, image by image."""

import math

import numpy as np
import pytest
import torch
from torch._dynamo.testing import CompileCounter
from torch.nn import functional as F

from catlip_lite.labels import Vocabulary
from catlip_lite.models.heads import LEAST_IDF, idf_weights, prior_logits
from catlip_lite.training.losses import LOSSES, asymmetric, bce, create_loss, softmax

ROWS, INDICES = torch.tensor([0, 0, 1, 3]), torch.tensor([2, 9, 0, 5])  # image 2 has no label
NOTHING = torch.zeros(0, dtype=torch.long)


def ten_classes() -> Vocabulary:
    wnids = [f"n{i:08d}" for i in range(10)]
    return Vocabulary(wnids, counts=[900, 400, 200, 100, 50, 25, 10, 5, 2, 1], num_captions=1000)


def some_logits(dtype=torch.float32) -> torch.Tensor:
    return (torch.randn(4, 10, generator=torch.Generator().manual_seed(0)) * 5).to(dtype).requires_grad_()


def multi_hot() -> torch.Tensor:
    dense = torch.zeros(4, 10)
    dense[ROWS, INDICES] = 1
    return dense


def dense_softmax(logits, weights):
    targets = F.normalize(multi_hot() * weights, p=1, dim=1)
    return -(targets * logits.log_softmax(dim=1)).sum(dim=1)


def dense_asymmetric(logits, gamma_neg=4, gamma_pos=0, margin=0.05):
    p, y = torch.sigmoid(logits), multi_hot()
    p_m = (p - margin).clamp(min=0)
    positive = (1 - p) ** gamma_pos * torch.log(p)
    negative = p_m**gamma_neg * torch.log(1 - p_m)
    return -(y * positive + (1 - y) * negative).sum(dim=1)


DENSE = {
    "bce": lambda logits: F.binary_cross_entropy_with_logits(logits, multi_hot(), reduction="none").sum(dim=1),
    "softmax": lambda logits: dense_softmax(logits, torch.ones(10)),
    "superclass": lambda logits: dense_softmax(logits, torch.from_numpy(idf_weights(ten_classes().counts, 1000)).float()),
    "asymmetric": dense_asymmetric,
}


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_softmax_of_single_labels_is_torchs_cross_entropy_with_its_gradient(smoothing):
    logits, labels = some_logits(), torch.tensor([2, 9, 0, 5])
    ours = create_loss("softmax", label_smoothing=smoothing)(logits, labels, torch.arange(4))
    theirs = F.cross_entropy(logits, labels, label_smoothing=smoothing, reduction="none")
    torch.testing.assert_close(ours, theirs)
    gradients = [torch.autograd.grad(loss.sum(), logits)[0] for loss in (ours, theirs)]
    torch.testing.assert_close(*gradients)


def test_smoothing_leaves_an_image_without_a_label_out():
    smoothed = create_loss("softmax", label_smoothing=0.1)(some_logits(), INDICES, ROWS)
    assert smoothed[2] == 0 < smoothed[0]


def test_smoothing_another_loss_is_refused():
    with pytest.raises(ValueError, match="label_smoothing=0.1 belongs to softmax: loss='bce' takes 0"):
        create_loss("bce", label_smoothing=0.1)


@pytest.mark.parametrize("name", LOSSES)
def test_each_image_gets_the_loss_of_its_dense_definition(name):
    logits = some_logits()
    torch.testing.assert_close(create_loss(name, ten_classes())(logits, INDICES, ROWS), DENSE[name](logits))


@pytest.mark.parametrize("name", LOSSES)
def test_gradients_are_those_of_the_dense_definition(name):
    sparse, dense = some_logits(), some_logits()
    weights = torch.tensor([1.0, 2.0, 3.0, 0.5])  # of the images, as a caller may have them
    (create_loss(name, ten_classes())(sparse, INDICES, ROWS) * weights).sum().backward()
    (DENSE[name](dense) * weights).sum().backward()
    torch.testing.assert_close(sparse.grad, dense.grad, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("name", LOSSES)
def test_the_order_of_the_labels_does_not_matter(name):
    loss, shuffled = create_loss(name, ten_classes()), torch.tensor([3, 1, 2, 0])
    logits = some_logits().detach()
    torch.testing.assert_close(loss(logits, INDICES[shuffled], ROWS[shuffled]), loss(logits, INDICES, ROWS))


@pytest.mark.parametrize("name", LOSSES)
def test_half_precision_logits_give_float32_losses(name):
    half, loss = some_logits(torch.bfloat16), create_loss(name, ten_classes())
    values = loss(half, INDICES, ROWS)
    assert values.dtype == torch.float32
    torch.testing.assert_close(values, loss(half.float(), INDICES, ROWS), rtol=0, atol=0)


@pytest.mark.parametrize("name", LOSSES)
def test_extreme_logits_give_finite_losses_and_gradients(name):
    logits = torch.full((2, 10), -200.0)
    logits[0, 5] = logits[1, 6] = 200.0
    logits.requires_grad_()
    values = create_loss(name, ten_classes())(logits, torch.tensor([5, 0]), torch.tensor([0, 1]))
    values.sum().backward()
    assert values[0] < 1e-6 < values[1]  # right and sure; wrong and sure
    assert torch.isfinite(values).all()
    assert torch.isfinite(logits.grad).all()


@pytest.mark.parametrize("name", LOSSES)
def test_one_graph_serves_any_number_of_labels(name):
    torch._dynamo.reset()
    graphs = CompileCounter()
    compiled = torch.compile(create_loss(name, ten_classes()), backend=graphs, fullgraph=True, dynamic=True)
    logits = some_logits().detach()
    for n in (3, 2, 4):  # the first differs from the batch size, or the compiler takes both for one length
        torch.testing.assert_close(
            compiled(logits, INDICES[:n], ROWS[:n]), create_loss(name, ten_classes())(logits, INDICES[:n], ROWS[:n])
        )
    assert graphs.frame_count == 1


def test_the_mean_of_bce_over_images_is_the_papers_batch_mean():
    logits = some_logits().detach()
    expected = F.binary_cross_entropy_with_logits(logits, multi_hot(), reduction="sum") / 4
    torch.testing.assert_close(bce(logits, INDICES, ROWS).mean(), expected)


def test_a_head_at_the_log_prior_odds_starts_at_the_entropy_of_the_labels():
    counts = np.array([60, 30, 10])
    vocabulary = Vocabulary(["n07739125", "n02084071", "n02121620"], counts, num_captions=100)
    odds = torch.from_numpy(vocabulary.log_prior_odds())
    rows = torch.cat([torch.arange(n) for n in counts])
    indices = torch.repeat_interleave(torch.arange(3), torch.from_numpy(counts))
    p = counts / 100
    entropy = -(p * np.log(p) + (1 - p) * np.log(1 - p)).sum()
    np.testing.assert_allclose(bce(odds.expand(100, 3), indices, rows).mean().item(), entropy, rtol=1e-5)


@pytest.mark.parametrize("name", ["bce", "softmax", "superclass", "asymmetric"])
def test_no_constant_answer_has_a_smaller_loss_than_the_prior(name):
    vocabulary = Vocabulary([f"n{i:08d}" for i in range(3)], [60, 30, 10], num_captions=100)
    indices = torch.repeat_interleave(torch.arange(3), torch.tensor([60, 30, 10]))  # a label each
    logits = torch.from_numpy(prior_logits(vocabulary, name)).double().requires_grad_()
    loss = create_loss(name, vocabulary)(logits.expand(100, 3).float(), indices, torch.arange(100))
    if name == "superclass":  # its weights act between the labels of an image, and here there is one in each
        loss = loss * torch.from_numpy(idf_weights(vocabulary.counts, 100))[indices].float()
    loss.mean().backward()
    np.testing.assert_allclose(logits.grad.numpy(), 0, atol=1e-5)


@pytest.mark.parametrize("name", ["softmax", "superclass"])
def test_images_without_labels_give_no_softmax_loss(name):
    assert create_loss(name, ten_classes())(some_logits(), INDICES, ROWS)[2] == 0
    assert create_loss(name, ten_classes())(torch.randn(2, 10), NOTHING, NOTHING).tolist() == [0, 0]


def test_softmax_at_equal_logits_is_ln_v():
    np.testing.assert_allclose(softmax(torch.zeros(4, 10), INDICES, ROWS)[[0, 1, 3]].numpy(), math.log(10), rtol=1e-6)


def test_superclass_weights_rare_labels_more():
    logits = torch.zeros(1, 10, requires_grad=True)
    create_loss("superclass", ten_classes())(logits, torch.tensor([1, 8]), torch.tensor([0, 0])).backward()
    pull = 0.1 - logits.grad[0]  # the target's share: the gradient is p less it, and p is 1/10
    common, rare = math.log(1000 / 401), math.log(1000 / 3)
    np.testing.assert_allclose(pull[[1, 8]].numpy(), np.array([common, rare]) / (common + rare), rtol=1e-5)


def test_a_class_in_every_caption_keeps_a_small_positive_weight():
    np.testing.assert_allclose(idf_weights(np.array([100, 9]), 100), [LEAST_IDF, math.log(10)], rtol=1e-6)


def test_superclass_weights_follow_the_module_but_stay_out_of_its_state():
    loss = create_loss("superclass", ten_classes()).to(torch.float64)
    assert loss.weights.dtype == torch.float64
    assert not loss.state_dict()


def test_asymmetric_without_focus_and_margin_is_bce():
    logits = some_logits().detach()
    plain = asymmetric(logits, INDICES, ROWS, gamma_neg=0, margin=0)
    torch.testing.assert_close(plain, bce(logits, INDICES, ROWS))


def test_asymmetric_ignores_negatives_below_the_margin():
    logits = torch.full((1, 10), math.log(0.04 / 0.96), requires_grad=True)
    asymmetric(logits, NOTHING, NOTHING).backward()
    assert logits.grad.abs().max() == 0


def test_asymmetric_of_one_positive_and_one_negative_at_even_odds():
    value = asymmetric(torch.zeros(1, 2), torch.tensor([0]), torch.tensor([0])).item()
    np.testing.assert_allclose(value, math.log(2) - 0.45**4 * math.log(0.55), rtol=1e-5)


def test_unknown_losses_are_refused_with_the_known_ones():
    with pytest.raises(ValueError, match="loss='focal' is unknown: choose one of bce, softmax, superclass, asymmetric"):
        create_loss("focal")


def test_superclass_needs_a_vocabulary():
    with pytest.raises(ValueError, match="pass the vocabulary"):
        create_loss("superclass")
