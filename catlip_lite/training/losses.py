"""Losses by name on sparse multi-label targets (paper section 3.2): logits and positive classes -> one value an image.

Every loss is called as `loss(logits, indices, rows)` and gives float32 [B]; the caller weights and averages. Shapes:
logits: float [B, V], any float dtype, computed in float32. indices: int64 [N], the positive classes of all images one after
the other. rows: int64 [N], the image each belongs to, 0..B-1. Each (row, index) pair must occur once. No dense multi-hot is
made, and N may differ from step to step without a new compiled graph.

`bce` is the paper's. The others are what later work trains the same data with: `softmax` (Mahajan et al., ECCV 2018),
`superclass` (Huang et al., NeurIPS 2024) and `asymmetric` (Ridnik et al., ICCV 2021).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import nn
from torch.nn import functional as F

from ..labels import Vocabulary
from ..models.heads import GAMMA_NEG, MARGIN, idf_weights

LOSSES = ("bce", "softmax", "superclass", "asymmetric")

Loss = Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]


def create_loss(name: str, vocabulary: Vocabulary | None = None, *, label_smoothing: float = 0.0) -> Loss:
    """The loss of that name. `superclass` is an nn.Module that holds its class weights: move it with `.to(device)`.

    vocabulary: whose counts weight the classes; only `superclass` needs it. label_smoothing: see `softmax`. Raises ValueError
    for an unknown name, for `superclass` without a vocabulary, or if another loss than `softmax` is to be smoothed.
    """
    if name not in LOSSES:
        raise ValueError(f"loss={name!r} is unknown: choose one of {', '.join(LOSSES)}")
    if label_smoothing and name != "softmax":
        raise ValueError(f"label_smoothing={label_smoothing} belongs to softmax: loss={name!r} takes 0")
    if name != "superclass":
        smoothed = partial(softmax, label_smoothing=label_smoothing)
        named: dict[str, Loss] = {"bce": bce, "softmax": smoothed, "asymmetric": asymmetric}
        return named[name]
    if vocabulary is None:
        raise ValueError("loss='superclass' weights classes by their counts: pass the vocabulary that the targets index")
    return SuperClass(torch.from_numpy(idf_weights(vocabulary.counts, vocabulary.num_captions)))


def bce(logits: torch.Tensor, indices: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
    """Binary cross-entropy, summed over classes; its mean over images is the paper's loss (the reference's `batch_mean`)."""
    logits = logits.float()
    # -log(1 - p) of every class; at a positive -log p = -log(1 - p) - logit.
    return F.softplus(logits).sum(dim=1) - _sum_by_row(logits[rows, indices], rows, len(logits))


def softmax(logits: torch.Tensor, indices: torch.Tensor, rows: torch.Tensor, *, label_smoothing: float = 0.0) -> torch.Tensor:
    """Softmax cross-entropy against K-hot targets of 1/K each; an image without labels has no target and gives 0.

    label_smoothing: share of the target that is spread evenly over all classes; for single labels this is
    `F.cross_entropy(logits, labels, label_smoothing=...)`, what fine-tuning minimises (table 7: 0.1).
    """
    ones = torch.ones_like(indices, dtype=torch.float32)
    losses = _weighted_softmax(logits, indices, rows, ones)
    if not label_smoothing:
        return losses
    logits = logits.float()
    even = torch.logsumexp(logits, dim=1) - logits.mean(dim=1)
    labelled = _sum_by_row(ones, rows, len(logits)) > 0
    return (1 - label_smoothing) * losses + label_smoothing * even * labelled


class SuperClass(nn.Module):
    """Softmax cross-entropy against targets in proportion to class weights, float [V] above 0: w_c y_c / sum of w y."""

    def __init__(self, weights: torch.Tensor):
        super().__init__()
        # Not persistent: the vocabulary, which is saved with the model, gives the weights again.
        self.register_buffer("weights", weights.float(), persistent=False)

    def forward(self, logits: torch.Tensor, indices: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
        """As `softmax`."""
        return _weighted_softmax(logits, indices, rows, self.weights[indices])


def asymmetric(
    logits: torch.Tensor,
    indices: torch.Tensor,
    rows: torch.Tensor,
    *,
    gamma_neg: float = GAMMA_NEG,
    margin: float = MARGIN,
) -> torch.Tensor:
    """Asymmetric loss (ASL), summed over classes. Positives: -log p. Negatives: p_m^gamma_neg * -log(1 - p_m), with
    p_m = max(p - margin, 0), so that a negative below the margin is left alone.

    The defaults are those of the authors' training runs, where positives are not focused. Gradient flows through the focusing
    factor, as in the paper's analysis, so that what is reported is what is minimised.
    """
    logits = logits.float()
    positives = logits[rows, indices]
    # Each class counts as a negative first; the positives, a handful an image, then trade that term for their own.
    change = -F.logsigmoid(positives) - _asymmetric_negative(positives, gamma_neg, margin)
    return _asymmetric_negative(logits, gamma_neg, margin).sum(dim=1) + _sum_by_row(change, rows, len(logits))


def _asymmetric_negative(logits: torch.Tensor, gamma: float, margin: float) -> torch.Tensor:
    """What each logit costs as a negative, float32 of the same shape."""
    absent = (torch.sigmoid(-logits) + margin).clamp(min=1e-8, max=1.0)  # 1 - p_m
    return (1 - absent) ** gamma * -absent.log()


def _weighted_softmax(logits: torch.Tensor, indices: torch.Tensor, rows: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """Softmax cross-entropy against each row's positives in proportion to weights, float32 [N] above 0: float32 [B]."""
    logits = logits.float()
    share = weights / _sum_by_row(weights, rows, len(logits))[rows]
    surprise = torch.logsumexp(logits, dim=1)[rows] - logits[rows, indices]
    return _sum_by_row(share * surprise, rows, len(logits))


def _sum_by_row(values: torch.Tensor, rows: torch.Tensor, count: int) -> torch.Tensor:
    """float32 [N] summed into the row each belongs to: float32 [count], 0 where there is none."""
    return values.new_zeros(count).index_add(0, rows, values)
