"""Probes that are solved: each against what another way of solving the same problem gives."""

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression, Ridge

from catlip_lite.transfer import linear_probe as probe
from catlip_lite.transfer.linear_probe import Examples

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
    return float(torch.nn.functional.cross_entropy(torch.tensor(scores), torch.tensor(targets)))


@pytest.mark.parametrize("images, width", [(300, 12), (40, 60)], ids=["more images than features", "fewer"])
def test_logistic_regression_ends_where_scikit_learn_does(images, width):
    train, other = clusters(images, width=width), clusters(50, width=width, seed=5)
    problem, penalty = probe._problem([train], 5, CPU), 0.02
    weights, _ = probe.minimise(problem, problem.start(), penalty, tolerance=1e-5)
    known = LogisticRegression(C=1 / (penalty * images), tol=1e-7, max_iter=5000).fit(standardised(train, train), train.targets)
    head = problem.head(weights)
    expected = known.decision_function(standardised(train, train))
    assert cross_entropy(head.scores(train.features), train.targets) == pytest.approx(
        cross_entropy(expected.astype(np.float32), train.targets), abs=1e-4
    )
    answers = head.scores(other.features).argmax(1)
    np.testing.assert_array_equal(answers, known.predict(standardised(other, train)))


def test_ridge_regression_is_that_of_centred_one_hot_labels():
    train, penalty = clusters(300), 0.1
    fit = probe.ridge_probe(train, train, 5, [penalty], "cpu")
    both = Examples(np.concatenate([train.features] * 2), np.concatenate([train.targets] * 2))
    known = Ridge(alpha=penalty * len(both)).fit(standardised(both, both), np.eye(5)[both.targets])
    np.testing.assert_allclose(fit.head.scores(train.features), known.predict(standardised(train, both)), atol=2e-4)


def test_ridge_regression_on_fewer_images_than_features_is_the_same():
    train, penalty = clusters(40, width=60), 0.3
    head = probe.ridge_probe(train, train, 5, [penalty], "cpu").validated
    known = Ridge(alpha=penalty * 40).fit(standardised(train, train), np.eye(5)[train.targets])
    np.testing.assert_allclose(head.scores(train.features), known.predict(standardised(train, train)), atol=1e-3)


def test_the_loss_has_the_gradient_that_autograd_finds():
    problem = probe._problem([clusters(60), clusters(30, seed=3)], 5, CPU)
    theta = torch.randn(13, 5, generator=torch.Generator().manual_seed(0), requires_grad=True)
    logits = torch.cat([x for x, _ in problem.parts]) @ theta[:-1] + theta[-1]
    loss = (
        torch.nn.functional.cross_entropy(logits, torch.cat([y for _, y in problem.parts]))
        + 0.5 * 0.3 * theta[:-1].square().sum()
    )
    loss.backward()
    value, gradient = problem.loss(theta.detach(), 0.3)
    assert value == pytest.approx(float(loss.detach()), rel=1e-5)
    torch.testing.assert_close(gradient, theta.grad, rtol=1e-4, atol=1e-5)


def test_the_gradient_at_zero_is_told_without_looking():
    problem = probe._problem([clusters(61)], 5, CPU)
    zero = torch.zeros(13, 5)
    torch.testing.assert_close(probe._gradient_at_zero(problem), problem.loss(zero, 0.1)[1], rtol=1e-4, atol=1e-5)


def test_parts_of_the_memory_at_a_time_give_the_same_as_all_at_once(monkeypatch):
    train, validation = clusters(200), clusters(50, seed=1)
    whole = probe.logistic_probe(train, validation, 5, device="cpu")
    monkeypatch.setitem(probe.CHUNK_ELEMENTS, "cpu", 100)
    parts = probe.logistic_probe(train, validation, 5, device="cpu")
    assert whole.penalty == parts.penalty
    torch.testing.assert_close(whole.head.weight, parts.head.weight, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("solve", [probe.ridge_probe, probe.logistic_probe])
def test_the_penalty_is_the_one_that_validates_best(solve):
    fit = solve(clusters(60, noise=3), clusters(200, seed=1, noise=3), 5, device="cpu")
    assert fit.top1[fit.penalty] == max(fit.top1.values())
    assert len(set(fit.top1.values())) > 1


@pytest.mark.parametrize("solve", [probe.ridge_probe, probe.logistic_probe])
def test_a_class_with_validation_images_alone_is_learned_in_the_final_fit(solve):
    train, validation = clusters(200, noise=0.3), clusters(50, seed=1, noise=0.3)
    rows = train.targets != 2
    fit = solve(Examples(train.features[rows], train.targets[rows]), validation, 5, device="cpu")
    assert 2 not in fit.validated.scores(validation.features).argmax(1)
    assert (fit.head.scores(validation.features).argmax(1) == validation.targets).mean() > 0.95


def test_features_that_never_change_do_no_harm():
    train = clusters(100, noise=0.3)
    features = np.concatenate([train.features, np.full((100, 2), 7, np.float32)], axis=1)
    head = probe.ridge_probe(Examples(features, train.targets), Examples(features, train.targets), 5, device="cpu").head
    assert (head.scores(features).argmax(1) == train.targets).mean() > 0.95


def test_a_path_on_some_images_chooses_for_all_of_them():
    train, validation = clusters(400), clusters(100, seed=1)
    some = probe.logistic_probe(train, validation, 5, [1e-2], "cpu", most_on_path=100, tolerance=1e-4)
    problem = probe._problem([train, validation], 5, CPU)
    expected, _ = probe.minimise(problem, problem.start(), 1e-2 / 5 * 100 / 500, 1e-4)
    torch.testing.assert_close(some.head.weight, problem.head(expected).weight, rtol=0.02, atol=0.01)


@pytest.mark.parametrize("targets, message", [([0, 7], "from 0 to 7"), ([-1, 0], "from -1 to 0"), ([], "no training images")])
def test_targets_that_are_no_classes_are_refused(targets, message):
    part = Examples(np.zeros((len(targets), 3), np.float32), np.array(targets, np.int64))
    with pytest.raises(ValueError, match=message):
        probe.ridge_probe(part, clusters(10, width=3), 5)


def test_features_that_are_not_finite_are_refused():
    train = clusters(10)
    train.features[3, 2] = np.nan
    with pytest.raises(ValueError, match="not all finite"):
        probe.logistic_probe(train, clusters(10), 5)
