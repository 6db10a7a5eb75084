"""Heads that are trained together on the same batches."""

import math

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from catlip_lite.models.heads import random_head
from catlip_lite.transfer import heads
from catlip_lite.transfer.heads import HeadRecipe, train_head, train_heads

IMAGES, WIDTH, CLASSES = 50, 6, 5


@pytest.fixture
def examples():
    rng = np.random.default_rng(0)
    targets = rng.integers(0, CLASSES, IMAGES)
    centres = rng.normal(size=(CLASSES, WIDTH))
    return (centres[targets] + rng.normal(size=(IMAGES, WIDTH))).astype(np.float32), targets


def by_autograd(start, features, targets, recipe, seed):
    """The same training written down plainly: one head, PyTorch's cross-entropy and its gradient."""
    x, y = torch.from_numpy(features), torch.from_numpy(targets)
    weight, bias = start.weight.clone().requires_grad_(), start.bias.clone().requires_grad_()
    optimiser = torch.optim.AdamW([weight, bias], weight_decay=recipe.weight_decay)
    generator = torch.Generator().manual_seed(seed)
    batches = [b for _ in range(recipe.epochs) for b in torch.randperm(len(y), generator=generator).split(recipe.batch_size)]
    for step, batch in enumerate(batches):
        cosine = 0.5 * (1 + math.cos(math.pi * step / (len(batches) - 1)))
        optimiser.param_groups[0]["lr"] = recipe.min_lr + (recipe.lr - recipe.min_lr) * cosine
        optimiser.zero_grad()
        F.cross_entropy(x[batch] @ weight.T + bias, y[batch]).backward()
        optimiser.step()
    return weight.detach(), bias.detach()


@pytest.mark.parametrize("at_once", [1 << 20, 2 * CLASSES * WIDTH])
def test_heads_trained_together_are_those_trained_one_by_one(examples, monkeypatch, at_once):
    monkeypatch.setitem(heads.AT_ONCE, "cpu", at_once)
    starts = [random_head(CLASSES, WIDTH, seed) for seed in range(3)]
    recipes = [HeadRecipe(epochs=4, lr=lr, min_lr=lr / 30, weight_decay=0.1, batch_size=16) for lr in (1e-3, 1e-2, 1e-1)]
    for start, recipe, head in zip(starts, recipes, train_heads(starts, *examples, recipes, seed=7), strict=True):
        weight, bias = by_autograd(start, *examples, recipe, seed=7)
        torch.testing.assert_close(head.weight, weight, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(head.bias, bias, rtol=1e-4, atol=1e-5)


def test_a_start_is_left_as_it_is(examples):
    start = random_head(CLASSES, WIDTH, 0)
    trained = train_head(start, *examples, HeadRecipe(epochs=1, lr=0.1))
    torch.testing.assert_close(start.weight, random_head(CLASSES, WIDTH, 0).weight, rtol=0, atol=0)
    assert not torch.equal(trained.weight, start.weight)


def test_recipes_with_other_batches_are_refused(examples):
    start = random_head(CLASSES, WIDTH, 0)
    with pytest.raises(ValueError, match="differ in learning rates alone"):
        train_heads([start, start], *examples, [HeadRecipe(batch_size=8), HeadRecipe(batch_size=16)])
