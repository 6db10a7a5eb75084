"""Linear classifiers on frozen features: the paper's linear-probe recipe, started from any weights, on features [N, D]."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from ..models.heads import Head

AT_ONCE = {"cpu": 1 << 20, "cuda": 1 << 26}  # weights of heads that are trained together: on CPUs, what a cache holds


@dataclass(frozen=True)
class HeadRecipe:
    """AdamW with a cosine over epochs. The defaults are the paper's linear probe: 30 epochs, 3e-5 → 1e-6, no decay, batch 256.

    label_smoothing as in the reference's cross-entropy would be 0.1; a probe uses none.
    """

    epochs: int = 30
    lr: float = 3e-5
    min_lr: float = 1e-6
    weight_decay: float = 0.0
    batch_size: int = 256


def train_head(
    start: Head,
    features: np.ndarray,
    targets: np.ndarray,
    recipe: HeadRecipe,
    seed: int = 0,
    device: str | torch.device = "cpu",
) -> Head:
    """Softmax cross-entropy from the given start: features float32 [N, D], targets int64 [N]; `start` is left as it is.

    device: where it is trained, all features at once; the head comes back on the CPU, its batches are the same on any device.
    """
    return train_heads([start], features, targets, [recipe], seed, device)[0]


def train_heads(
    starts: Sequence[Head],
    features: np.ndarray,
    targets: np.ndarray,
    recipes: Sequence[HeadRecipe],
    seed: int = 0,
    device: str | torch.device = "cpu",
) -> list[Head]:
    """`train_head` from several starts [C, D] at once, a recipe each: on the same batches one product serves all of them.

    Each comes out as it would alone, but for rounding. Raises ValueError for recipes of unlike epochs or batches.
    """
    epochs, size, decay = recipes[0].epochs, recipes[0].batch_size, recipes[0].weight_decay
    if any((recipe.epochs, recipe.batch_size, recipe.weight_decay) != (epochs, size, decay) for recipe in recipes):
        raise ValueError("heads are trained together on the same batches: give recipes that differ in learning rates alone")
    at_once = max(1, AT_ONCE[torch.device(device).type] // starts[0].weight.numel())
    if len(starts) > at_once:
        parts = [slice(first, first + at_once) for first in range(0, len(starts), at_once)]
        found = [train_heads(starts[part], features, targets, recipes[part], seed, device) for part in parts]
        return [head for part in found for head in part]
    x, y = torch.from_numpy(features).to(device), torch.from_numpy(targets).long().to(device)
    weights = torch.stack([start.weight for start in starts]).to(device)
    biases = torch.stack([start.bias for start in starts]).to(device)
    optimiser = torch.optim.AdamW(_with_gradients(weights, biases), lr=0.0, weight_decay=decay, fused=True)
    heads, classes, width = weights.shape
    rows, flat = torch.arange(min(size, len(y)), device=device), weights.view(-1, width)
    # Memory that is asked for anew at every step has to be cleared by the system first: as long as the products take.
    logits, wrong = (torch.empty(len(rows), heads, classes, device=device) for _ in range(2))
    generator = torch.Generator().manual_seed(seed)
    total, step = epochs * math.ceil(len(y) / size), 0
    for _ in range(epochs):
        for batch in torch.randperm(len(y), generator=generator).to(device).split(size):
            cosine = 0.5 * (1 + math.cos(math.pi * step / max(1, total - 1)))
            for group, recipe in zip(optimiser.param_groups, recipes, strict=True):
                group["lr"] = recipe.min_lr + (recipe.lr - recipe.min_lr) * cosine
            # Cross-entropy's gradient by hand: probabilities less the truth, over the images of the batch.
            seen, count = x[batch], len(batch)
            torch.addmm(biases.view(-1), seen, flat.T, out=logits[:count].view(count, -1))
            torch.softmax(logits[:count], dim=2, out=wrong[:count])
            wrong[rows[:count], :, y[batch]] -= 1
            wrong[:count] /= count
            torch.mm(wrong[:count].view(count, -1).T, seen, out=weights.grad.view(-1, width))
            torch.sum(wrong[:count], dim=0, out=biases.grad)
            optimiser.step()
            step += 1
    return [Head(weight.clone(), bias.clone()) for weight, bias in zip(weights.cpu(), biases.cpu(), strict=True)]


def _with_gradients(*stacked: torch.Tensor) -> list[dict]:
    """A group for each of the heads that lie in `stacked`, [H, …] each, whose gradients lie as these do."""
    each = [list(part) for part in stacked]
    for part, views in zip(stacked, each, strict=True):
        part.grad = torch.zeros_like(part)
        for view, gradient in zip(views, part.grad, strict=True):
            view.grad = gradient
    return [{"params": list(of_head)} for of_head in zip(*each, strict=True)]
