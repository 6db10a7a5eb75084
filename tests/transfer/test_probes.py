"""Classifiers on frozen features: each against what another way of solving the same problem gives."""

import math

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression, Ridge
from torch.nn import functional as F

from catlip_lite.models import Head, random_head
from catlip_lite.transfer import probes
from catlip_lite.transfer.probes import Examples, Problem, fit_heads, nearest, neighbour_scores, train_heads

CPU = torch.device("cpu")


def clusters(images, classes=5, width=12, seed=0, noise=2.0):
    """Features with an offset, of unlike scales and correlated, around a centre a class."""
    centres = np.random.default_rng(1).normal(size=(classes, width))
    mix = np.random.default_rng(2).normal(size=(width, width)) * np.logspace(0, -1, width)[:, None]
    rng = np.random.default_rng(seed)
    targets = rng.permutation(np.arange(images) % classes)
    return Examples(((centres[targets] + noise * rng.normal(size=(images, width))) @ mix + 3).astype(np.float32), targets)


def standardised(part: Examples, like: Examples) -> np.ndarray:
    return (part.features - like.features.mean(0)) / like.features.std(0)


def cross_entropy(scores, targets):
    return float(F.cross_entropy(torch.tensor(scores), torch.tensor(targets)))


# --- solved -------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("images, width", [(300, 12), (40, 60)], ids=["more images than features", "fewer"])
def test_logistic_regression_ends_where_scikit_learn_does(images, width):
    train, other = clusters(images, width=width), clusters(50, width=width, seed=5)
    problem, penalty = Problem.of([train], 5, CPU), 0.02
    theta = problem.minimise(problem.start(), penalty, tolerance=1e-5)
    known = LogisticRegression(C=1 / (penalty * images), tol=1e-7, max_iter=5000).fit(standardised(train, train), train.targets)
    head = problem.basis.head(theta[:-1], theta[-1])
    expected = known.decision_function(standardised(train, train))
    assert cross_entropy(head.scores(train.features), train.targets) == pytest.approx(
        cross_entropy(expected.astype(np.float32), train.targets), abs=1e-4
    )
    answers = head.scores(other.features).argmax(1)
    np.testing.assert_array_equal(answers, known.predict(standardised(other, train)))


def test_ridge_regression_is_that_of_centred_one_hot_labels():
    train, penalty = clusters(300), 0.1
    fit = probes.ridge_probe(train, train, 5, [penalty], "cpu")
    both = Examples(np.concatenate([train.features] * 2), np.concatenate([train.targets] * 2))
    known = Ridge(alpha=penalty * len(both)).fit(standardised(both, both), np.eye(5)[both.targets])
    np.testing.assert_allclose(fit.head.scores(train.features), known.predict(standardised(train, both)), atol=2e-4)


def test_ridge_regression_on_fewer_images_than_features_is_the_same():
    train, penalty = clusters(40, width=60), 0.3
    head = probes.ridge_probe(train, train, 5, [penalty], "cpu").validated
    known = Ridge(alpha=penalty * 40).fit(standardised(train, train), np.eye(5)[train.targets])
    np.testing.assert_allclose(head.scores(train.features), known.predict(standardised(train, train)), atol=1e-3)


def test_the_loss_has_the_gradient_that_autograd_finds():
    problem = Problem.of([clusters(60), clusters(30, seed=3)], 5, CPU)
    theta = torch.randn(13, 5, generator=torch.Generator().manual_seed(0), requires_grad=True)
    logits = torch.cat([x for x, _ in problem.parts]) @ theta[:-1] + theta[-1]
    loss = F.cross_entropy(logits, torch.cat([y for _, y in problem.parts])) + 0.5 * 0.3 * theta[:-1].square().sum()
    loss.backward()
    value, gradient = problem.loss(theta.detach(), 0.3)
    assert value == pytest.approx(float(loss.detach()), rel=1e-5)
    torch.testing.assert_close(gradient, theta.grad, rtol=1e-4, atol=1e-5)


def test_parts_of_the_memory_at_a_time_give_the_same_as_all_at_once(monkeypatch):
    train, validation = clusters(200), clusters(50, seed=1)
    whole = probes.logistic_probe(train, validation, 5, device="cpu")
    monkeypatch.setitem(probes.CHUNK_ELEMENTS, "cpu", 100)
    parts = probes.logistic_probe(train, validation, 5, device="cpu")
    assert whole.penalty == parts.penalty
    torch.testing.assert_close(whole.head.weight, parts.head.weight, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("solve", [probes.ridge_probe, probes.logistic_probe])
def test_with_apples_gpu_which_has_no_float64_it_is_the_cpus(solve):
    on_cpu, on_mps = (solve(clusters(60), clusters(50, seed=1), 5, device=device) for device in ("cpu", torch.device("mps", 0)))
    assert on_mps.penalty == on_cpu.penalty and torch.equal(on_mps.head.weight, on_cpu.head.weight)


@pytest.mark.parametrize("solve", [probes.ridge_probe, probes.logistic_probe])
def test_the_penalty_is_the_one_that_validates_best(solve):
    train, validation = clusters(60, noise=3), clusters(200, seed=1, noise=3)
    top1 = {}
    for penalty in probes.RIDGE_PENALTIES:
        head = solve(train, validation, 5, [penalty]).validated
        top1[penalty] = (head.scores(validation.features).argmax(1) == validation.targets).mean()
    chosen = solve(train, validation, 5, probes.RIDGE_PENALTIES).penalty
    assert top1[chosen] >= max(top1.values()) - 0.01 > min(top1.values())  # an image or two for where the paths end


@pytest.mark.parametrize("solve", [probes.ridge_probe, probes.logistic_probe])
def test_a_class_with_validation_images_alone_is_learned_in_the_final_fit(solve):
    train, validation = clusters(200, noise=0.3), clusters(50, seed=1, noise=0.3)
    rows = train.targets != 2
    fit = solve(Examples(train.features[rows], train.targets[rows]), validation, 5, device="cpu")
    assert 2 not in fit.validated.scores(validation.features).argmax(1)
    assert (fit.head.scores(validation.features).argmax(1) == validation.targets).mean() > 0.95


def test_features_that_never_change_do_no_harm():
    train = clusters(100, noise=0.3)
    features = np.concatenate([train.features, np.full((100, 2), 7, np.float32)], axis=1)
    head = probes.ridge_probe(Examples(features, train.targets), Examples(features, train.targets), 5, device="cpu").head
    assert (head.scores(features).argmax(1) == train.targets).mean() > 0.95


def test_a_path_on_some_images_chooses_for_all_of_them(monkeypatch):
    monkeypatch.setattr(probes, "LEAST_ON_PATH", 100)
    train, validation = clusters(400), clusters(100, seed=1)
    some = probes.logistic_probe(train, validation, 5, [1e-2], "cpu", tolerance=1e-4)
    problem = Problem.of([train, validation], 5, CPU)
    theta = problem.minimise(problem.start(), 1e-2 / 5 * 100 / 500, 1e-4)
    expected = problem.basis.head(theta[:-1], theta[-1])
    torch.testing.assert_close(some.head.weight, expected.weight, rtol=0.02, atol=0.01)


@pytest.mark.parametrize("targets, message", [([0, 7], "from 0 to 7"), ([-1, 0], "from -1 to 0"), ([], "no training images")])
def test_targets_that_are_no_classes_are_refused(targets, message):
    part = Examples(np.zeros((len(targets), 3), np.float32), np.array(targets, np.int64))
    with pytest.raises(ValueError, match=message):
        probes.ridge_probe(part, clusters(10, width=3), 5)


def test_features_that_are_not_finite_are_refused():
    train = clusters(10)
    train.features[3, 2] = np.nan
    with pytest.raises(ValueError, match="not all finite"):
        probes.logistic_probe(train, clusters(10), 5)


# --- trained, from any start --------------------------------------------------------------------------------------------------


def by_autograd(start, part, rate, epochs, batch_size, seed):
    """The same training written down plainly: one head, PyTorch's cross-entropy and its gradient."""
    x, y = torch.from_numpy(part.features), torch.from_numpy(part.targets)
    weight, bias = start.weight.clone().requires_grad_(), start.bias.clone().requires_grad_()
    optimiser = torch.optim.AdamW([weight, bias], weight_decay=0.0)
    generator = torch.Generator().manual_seed(seed)
    batches = [b for _ in range(epochs) for b in torch.randperm(len(y), generator=generator).split(batch_size)]
    for step, batch in enumerate(batches):
        cosine = 0.5 * (1 + math.cos(math.pi * step / (len(batches) - 1)))
        optimiser.param_groups[0]["lr"] = rate / 30 + (rate - rate / 30) * cosine
        optimiser.zero_grad()
        F.cross_entropy(x[batch] @ weight.T + bias, y[batch]).backward()
        optimiser.step()
    return weight.detach(), bias.detach()


@pytest.mark.parametrize("at_once", [1 << 20, 2 * 5 * 12], ids=["all at once", "two at a time"])
def test_heads_trained_together_are_those_trained_one_by_one(monkeypatch, at_once):
    monkeypatch.setitem(probes.AT_ONCE, "cpu", at_once)
    train, starts, rates = clusters(50), [random_head(5, 12, seed) for seed in range(3)], (1e-3, 1e-2, 1e-1)
    heads = train_heads(starts, train, rates, epochs=4, seed=7, batch_size=16)
    for start, rate, head in zip(starts, rates, heads, strict=True):
        weight, bias = by_autograd(start, train, rate, 4, 16, seed=7)
        torch.testing.assert_close(head.weight, weight, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(head.bias, bias, rtol=1e-4, atol=1e-5)


def test_heads_are_trained_on_the_cpu_where_the_gpu_is_apples():
    train, start = clusters(50), random_head(5, 12, 0)
    on_cpu, on_mps = (train_heads([start], train, [0.1], epochs=1, device=device)[0] for device in ("cpu", "mps"))
    assert torch.equal(on_mps.weight, on_cpu.weight)


def test_a_start_is_left_as_it_is():
    train, start = clusters(50), random_head(5, 12, 0)
    (trained,) = train_heads([start], train, [0.1], epochs=1)
    torch.testing.assert_close(start.weight, random_head(5, 12, 0).weight, rtol=0, atol=0)
    assert not torch.equal(trained.weight, start.weight)


def class_means(part):
    """A start that knows the classes: Gaussians of one spread around their means."""
    means = np.stack([part.features[part.targets == label].mean(axis=0) for label in range(5)])
    return Head(torch.from_numpy(means), torch.from_numpy(-0.5 * (means**2).sum(axis=1)))


def test_of_each_start_the_learning_rate_is_the_one_that_validates_best():
    train, validation = clusters(60, noise=0.3), clusters(60, seed=1, noise=0.3)
    starts = [random_head(5, 12, seed) for seed in (0, 1)]
    for start, (chosen, head) in zip(starts, fit_heads(starts, train, validation, epochs=3), strict=True):
        tried = train_heads([start] * len(probes.LEARNING_RATES), train, probes.LEARNING_RATES, epochs=3)
        top1 = [(other.scores(validation.features).argmax(1) == validation.targets).mean() for other in tried]
        assert probes.LEARNING_RATES[int(np.argmax(top1))] == chosen
        torch.testing.assert_close(head.weight, tried[int(np.argmax(top1))].weight)


def test_a_start_that_validates_best_is_not_trained_away_from():
    validation = clusters(60, seed=1, noise=0.01)
    start = class_means(validation)
    wrong = Examples(validation.features, (validation.targets + 1) % 5)
    assert fit_heads([start], wrong, validation) == [(0.0, start)]


def test_without_images_each_head_is_its_start():
    start, nothing = random_head(5, 12, 0), Examples(np.zeros((0, 12), np.float32), np.zeros(0, np.int64))
    assert fit_heads([start], nothing, clusters(20)) == [(None, start)]


# --- nearest images -----------------------------------------------------------------------------------------------------------


def made(images, seed):
    return np.random.default_rng(seed).normal(size=(images, 6)).astype(np.float32)


def test_the_nearest_are_those_of_highest_cosine_in_order(monkeypatch):
    monkeypatch.setitem(probes.SIMILARITIES_AT_ONCE, "cpu", 40 * 5)
    reference, queries = made(40, 0), made(13, 1)
    cosines, rows = nearest(reference, queries, 6)
    similarity = (queries / np.linalg.norm(queries, axis=1)[:, None]) @ (
        reference / np.linalg.norm(reference, axis=1)[:, None]
    ).T
    np.testing.assert_array_equal(rows, np.argsort(-similarity, axis=1)[:, :6])
    np.testing.assert_allclose(cosines, np.take_along_axis(similarity, rows, 1), rtol=1e-5)


def test_the_nearest_are_looked_up_on_the_cpu_where_the_gpu_is_apples():
    for found, expected in zip(nearest(made(40, 0), made(13, 1), 6, "mps"), nearest(made(40, 0), made(13, 1), 6), strict=True):
        np.testing.assert_array_equal(found, expected)


def test_fewer_references_than_asked_for_are_all_given():
    _, rows = nearest(made(3, 0), made(2, 1), 10)
    assert np.sort(rows).tolist() == [[0, 1, 2]] * 2


def test_an_image_of_zeros_is_no_nearer_to_one_than_to_another():
    cosines, _ = nearest(made(3, 0), np.zeros((1, 6), np.float32), 3)
    assert cosines.tolist() == [[0, 0, 0]]


def test_softmax_of_scores_is_the_share_of_the_vote():
    scores = neighbour_scores(np.array([[0.9, 0.8, 0.7]], np.float32), np.array([[1, 0, 1]]), 3, 3)
    votes = np.exp(np.array([0.8, 0.9, 0.7]) / 0.05)
    np.testing.assert_allclose(np.exp(scores[0, :2]), [votes[0], votes[1] + votes[2]], rtol=1e-4)


def test_classes_of_further_neighbours_rank_below_all_votes_and_the_rest_never():
    scores = neighbour_scores(np.array([[-0.9, -0.95, -0.97]], np.float32), np.array([[2, 0, 3]]), 1, 5)[0]
    assert scores[2] > scores[0] > scores[3]
    assert np.isneginf(scores[[1, 4]]).all()
