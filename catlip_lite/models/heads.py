"""A linear classifier as plain tensors: what Transfer Init makes, probes train and fine-tuning starts from."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch


@dataclass
class Head:
    """A linear classifier: weight float32 [C, D], bias float32 [C]."""

    weight: torch.Tensor
    bias: torch.Tensor

    def scores(self, features: np.ndarray) -> np.ndarray:
        """Logits, float32 [N, C]."""
        return (torch.from_numpy(features) @ self.weight.T + self.bias).numpy()


def random_head(classes: int, width: int, seed: int) -> Head:
    """Random Init: truncated normal weights of std 0.02 as in the reference, zero bias."""
    generator = torch.Generator().manual_seed(seed)
    weight = torch.nn.init.trunc_normal_(torch.empty(classes, width), std=0.02, generator=generator)
    return Head(weight, torch.zeros(classes))
