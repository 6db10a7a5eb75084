"""Losses on sparse multi-label targets (paper section 3.2): logits and the indices of the positive classes -> a scalar.

Targets stay sparse: `indices` int64 [N], the positive classes of all images one after the other, and `rows` int64 [N], the
image each belongs to. No dense multi-hot is made.
"""

from __future__ import annotations

import torch
from torch.nn import functional as F


def bce(logits: torch.Tensor, indices: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
    """Binary cross-entropy, summed over classes, averaged over images (the paper's; the reference calls it `batch_mean`).

    logits: float [B, V]. Each (row, index) pair must occur once. Equals
    `binary_cross_entropy_with_logits(logits, multi_hot, reduction="sum") / B`.
    """
    logits = logits.float()
    return (F.softplus(logits).sum() - logits[rows, indices].sum()) / logits.shape[0]
