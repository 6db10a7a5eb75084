"""Linear classifiers on frozen features: the paper's linear-probe recipe, started from any weights, on features [N, D]."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch.nn import functional as F

from ..models.heads import Head


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
    x, y = torch.from_numpy(features).to(device), torch.from_numpy(targets).long().to(device)
    weight, bias = (value.to(device, copy=True).requires_grad_() for value in (start.weight, start.bias))
    optimiser = torch.optim.AdamW([weight, bias], lr=recipe.lr, weight_decay=recipe.weight_decay, fused=True)
    generator = torch.Generator().manual_seed(seed)
    steps_an_epoch = math.ceil(len(y) / recipe.batch_size)
    total = recipe.epochs * steps_an_epoch
    step = 0
    for _ in range(recipe.epochs):
        for batch in torch.randperm(len(y), generator=generator).to(device).split(recipe.batch_size):
            cosine = 0.5 * (1 + math.cos(math.pi * step / max(1, total - 1)))
            for group in optimiser.param_groups:
                group["lr"] = recipe.min_lr + (recipe.lr - recipe.min_lr) * cosine
            loss = F.cross_entropy(x[batch] @ weight.T + bias, y[batch])
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            step += 1
    return Head(weight.detach().cpu(), bias.detach().cpu())
