"""AdamW and its schedule (paper table 6): no decay on norms and biases, linear warm-up, cosine to the least rate."""

from __future__ import annotations

import math

import torch
from torch import nn

from .distribution import local

EMBEDDINGS = ("cls_token", "pos_embed")


def create_adamw(
    model: nn.Module,
    weight_decay: float,
    *,
    decay_embeddings: bool = False,
    layer_decay: float = 1.0,
    betas: tuple[float, float] = (0.9, 0.999),
) -> torch.optim.AdamW:
    """Fused AdamW; weights with two axes or more are decayed, norms and biases are not.

    decay_embeddings: also decay the CLS token, positions and RangeAugment's ranges, as the reference code does. layer_decay:
    each group's learning rate is multiplied by its `lr_scale`, see `lr_scale`.
    """
    groups: dict[tuple[float, float], list] = {(weight_decay, 1.0): [], (0.0, 1.0): []}
    depth = len({name.split("blocks.")[1].split(".")[0] for name, _ in model.named_parameters() if "blocks." in name})
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            embedding = name.split(".")[-1] in EMBEDDINGS or "range_augment" in name
            plain = not decay_embeddings if embedding else parameter.ndim < 2
            scale = 1.0 if layer_decay == 1 else lr_scale(name, depth, layer_decay)
            groups.setdefault((0.0 if plain else weight_decay, scale), []).append(parameter)
    settings = [{"params": p, "weight_decay": decay, "lr_scale": scale} for (decay, scale), p in groups.items() if p]
    return torch.optim.AdamW(settings, lr=0.0, betas=betas, eps=1e-8, fused=True)


def lr_scale(name: str, depth: int, layer_decay: float) -> float:
    """What layer-wise decay multiplies a parameter's learning rate by, in a ViT of `depth` blocks.

    The head (and RangeAugment): 1. Last norm and last block: d; the block before d^2, …; patch embedding, positions and CLS
    token: d^(depth + 1). As in the reference, which fails with a CLS token.
    """
    parts = name.split(".")
    if "range_augment" in parts or "head" in parts:
        return 1.0
    if "blocks" in parts:
        return layer_decay ** (depth - int(parts[parts.index("blocks") + 1]))
    return layer_decay if {"norm", "fc_norm"} & set(parts) else layer_decay ** (depth + 1)


def learning_rate(
    step: int, *, max_steps: int, warmup_steps: int, lr: float, min_lr: float, warmup_from: float = 1e-6
) -> float:
    """Rate of a step counted from 0: linear from `warmup_from` to `lr`, then half a cosine down to `min_lr` at the last."""
    if step < warmup_steps:
        return warmup_from + (lr - warmup_from) * step / warmup_steps
    progress = (step - warmup_steps) / max(1, max_steps - 1 - warmup_steps)
    return min_lr + 0.5 * (lr - min_lr) * (1 + math.cos(math.pi * min(1.0, progress)))


class Ema:
    """Exponential moving average of a model's parameters and buffers (momentum 5e-4 a step in the paper), on their device.

    The momentum starts high and falls to its value, so that short runs are not held back by their first weights. The model's
    tensors must stay where they are (their values change); what FSDP spreads is averaged in place, each process its part.
    """

    def __init__(self, model: nn.Module, momentum: float):
        self.momentum = momentum
        current = {name: value.detach() for name, value in model.state_dict().items()}
        self.state = {name: value.clone() for name, value in current.items()}
        floats = [name for name, value in current.items() if value.is_floating_point()]
        self._averages, self._values = ([local(tensors[name]) for name in floats] for tensors in (self.state, current))
        self._copied = [(self.state[name], current[name]) for name in current.keys() - set(floats)]

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Take in the weights after `step` (from 0); integer buffers are copied."""
        momentum = max(self.momentum, 10 / (10 + step))
        torch._foreach_lerp_(self._averages, self._values, momentum)
        for average, value in self._copied:
            average.copy_(value)
