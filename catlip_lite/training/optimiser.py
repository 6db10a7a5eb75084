"""AdamW and its schedule (paper table 6): no decay on norms and biases, linear warm-up, cosine to the least rate; Muon; EMA."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

OPTIMISERS = ("adamw", "muon")
EMBEDDINGS = ("cls_token", "pos_embed")
QUINTIC = (3.4445, -4.7750, 2.0315)  # of Newton-Schulz's iteration, steep at 0: five bring singular values to 0.7 … 1.2


def create_optimisers(
    model: nn.Module, weight_decay: float, kind: str = "adamw", *, dtype: torch.dtype = torch.float32, **options: Any
) -> list[torch.optim.Optimizer]:
    """What trains a model: AdamW alone, or ("muon") Muon for the matrices of its blocks and AdamW for all else.

    dtype: what Muon orthogonalises in. options: see `create_adamw`.
    """
    if kind == "adamw":
        return [create_adamw(model, weight_decay, **options)]
    matrices = [p for name, p in model.named_parameters() if "blocks." in name and p.ndim == 2]
    others = create_adamw(model, weight_decay, leave_out=matrices, **options)
    return [others, Muon(matrices, weight_decay, dtype=dtype)]


def create_adamw(
    model: nn.Module,
    weight_decay: float,
    *,
    beta2: float = 0.999,
    leave_out: Sequence[nn.Parameter] = (),
    layer_decay: float = 1.0,
) -> torch.optim.AdamW:
    """Fused AdamW; weights with two axes or more are decayed, norms and biases are not, nor are a pyramid's deconvolutions.

    Nor, unlike in the reference, are the CLS token, positions and RangeAugment's ranges. layer_decay: each group's learning
    rate is multiplied by its `lr_scale`, see there.
    """
    left_out = {id(parameter) for parameter in leave_out}
    groups: dict[tuple[float, float], list] = {(weight_decay, 1.0): [], (0.0, 1.0): []}
    depth = len({name.split("blocks.")[1].split(".")[0] for name, _ in model.named_parameters() if "blocks." in name})
    for name, parameter in model.named_parameters():
        if parameter.requires_grad and id(parameter) not in left_out:
            embedding = name.split(".")[-1] in EMBEDDINGS or "range_augment" in name
            plain = embedding or parameter.ndim < 2 or "pyramid.scales" in name
            scale = 1.0 if layer_decay == 1 else lr_scale(name, depth, layer_decay)
            groups.setdefault((0.0 if plain else weight_decay, scale), []).append(parameter)
    settings = [{"params": p, "weight_decay": decay, "lr_scale": scale} for (decay, scale), p in groups.items() if p]
    return torch.optim.AdamW(settings, lr=0.0, betas=(0.9, beta2), eps=1e-8, fused=True)


def lr_scale(name: str, depth: int, layer_decay: float) -> float:
    """What layer-wise decay multiplies a parameter's learning rate by, in a ViT of `depth` blocks.

    Whatever is no part of the ViT, a head above all: 1. Last norm and last block: d; the block before d^2, …; patch embedding,
    positions and CLS token: d^(depth + 1). As in the reference, which fails with a CLS token.
    """
    parts = name.split(".")
    if {"range_augment", "head", "pyramid", "loss"} & set(parts):
        return 1.0
    if "blocks" in parts:
        return layer_decay ** (depth - int(parts[parts.index("blocks") + 1]))
    return layer_decay if {"norm", "fc_norm"} & set(parts) else layer_decay ** (depth + 1)


def learning_rate(step: int, *, max_steps: int, warmup_steps: int, lr: float, min_lr: float) -> float:
    """Rate of a step counted from 0: linear from a millionth to `lr`, then half a cosine down to `min_lr` at the last."""
    if step < warmup_steps:
        return 1e-6 + (lr - 1e-6) * step / warmup_steps
    progress = (step - warmup_steps) / max(1, max_steps - 1 - warmup_steps)
    return min_lr + 0.5 * (lr - min_lr) * (1 + math.cos(math.pi * min(1.0, progress)))


class Muon(torch.optim.Optimizer):
    """Momentum whose matrices are made orthogonal before each step (Jordan et al., 2024), so that no direction is left behind.

    Steps are as large as AdamW's usually are, 0.2 sqrt(max(rows, columns)) (Liu et al., arXiv 2502.16982), and so take its
    rates and weight decay. As `torch.optim.Muon`, but for all matrices of a shape at once, and in the precision that the device
    is fast in. Weights must be whole: not for FSDP.
    """

    def __init__(self, matrices: Sequence[nn.Parameter], weight_decay: float, *, dtype: torch.dtype = torch.float32):
        super().__init__(matrices, {"lr": 0.0, "weight_decay": weight_decay, "momentum": 0.95})
        self.dtype = dtype

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:
        """Take a step with the gradients there are."""
        for group in self.param_groups:
            by_shape = defaultdict(list)
            for matrix in group["params"]:
                if matrix.grad is not None:
                    by_shape[matrix.shape].append(matrix)
            for shape, matrices in by_shape.items():
                ahead = []
                for matrix in matrices:
                    if not self.state[matrix]:
                        self.state[matrix]["average"] = torch.zeros_like(matrix)
                    average = self.state[matrix]["average"].lerp_(matrix.grad, 1 - group["momentum"])
                    ahead.append(matrix.grad.lerp(average, group["momentum"]))  # Nesterov's
                steps = orthogonalised(torch.stack(ahead).to(self.dtype)).to(matrices[0].dtype)
                for matrix, step in zip(matrices, steps, strict=True):
                    matrix.mul_(1 - group["lr"] * group["weight_decay"])
                    matrix.add_(step, alpha=-group["lr"] * 0.2 * math.sqrt(max(shape)))


def orthogonalised(matrices: torch.Tensor) -> torch.Tensor:
    """Matrices [N, R, C] with their singular values brought near 1 (0.7 to 1.2), by Newton-Schulz's iteration; zeros stay."""
    a, b, c = QUINTIC
    wide = matrices if matrices.shape[1] <= matrices.shape[2] else matrices.mT
    x = wide / torch.linalg.vector_norm(wide, dim=(1, 2), keepdim=True).clamp(min=1e-7)  # no flatten: FSDP's may be sharded
    for _ in range(5):
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x if wide is matrices else x.mT


class Ema:
    """Exponential moving average of a model's state dict (momentum 5e-4 a step in the paper), on its device.

    The momentum starts high and falls to its value, so that short runs are not held back by their first weights. The model's
    tensors must stay where they are (their values change); what FSDP spreads is averaged in place, each process its part.
    """

    def __init__(self, state: Mapping[str, torch.Tensor], momentum: float):
        self.momentum = momentum
        current = {name: value.detach() for name, value in state.items()}
        self.state = {name: value.clone() for name, value in current.items()}
        floats = [name for name, value in current.items() if value.is_floating_point()]
        self._averages, self._values = ([_local(tensors[name]) for name in floats] for tensors in (self.state, current))
        self._copied = [(self.state[name], current[name]) for name in current.keys() - set(floats)]

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Take in the weights after `step` (from 0); integer buffers are copied."""
        get_ema_multi_avg_fn(1 - max(self.momentum, 10 / (10 + step)))(self._averages, self._values, None)
        for average, value in self._copied:
            average.copy_(value)


def _local(tensor: torch.Tensor) -> torch.Tensor:
    """This process's part of a tensor that FSDP spreads; any other as it is."""
    return tensor.to_local() if hasattr(tensor, "to_local") else tensor
