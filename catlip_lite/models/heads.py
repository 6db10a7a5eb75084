"""Linear classifiers as plain tensors, and the one place where they borrow rows of the pre-trained head (paper section 4.1).

Reads a pre-trained model and what `labels.borrowing.borrow` chose for each label; gives a `Head`: zero-shot as it is, Transfer
Init to train from.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch

from ..labels import Vocabulary
from ..labels.borrowing import Borrowed

GAMMA_NEG, MARGIN = 4.0, 0.05  # of the asymmetric loss, as its authors train
LEAST_IDF = 0.01  # weight of a class that nearly every caption names: next to nothing, but not negative
BIASES = ("prior", "copied", "zero")
FITTED_ON = 20_000  # images that a single number needs at most
STEEPEST = 1e3  # the inverse of the least temperature: where every image is right, the best one is zero
SCORES_AT_ONCE = 16_000_000  # numbers of a part of a score matrix


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


# ---------------------------------------------------------------- what a head answers if it cannot see the image


def prior_logits(vocabulary: Vocabulary, loss: str = "bce") -> np.ndarray:
    """The constant logits of least mean loss, float32 [V]; zero-shot takes them off, or frequent synsets would win by that.

    bce: log odds of a class's share of the captions. softmax: log of its share of all labels; superclass: the same, labels
    weighted by rarity. asymmetric: where its slope is zero. Of the softmaxes it is right but for how many labels share a
    caption with a class, which counts don't tell.
    """
    counts = np.asarray(vocabulary.counts, np.float64)
    if loss in ("softmax", "superclass"):
        labels = counts * (idf_weights(counts, vocabulary.num_captions) if loss == "superclass" else 1.0)
        return np.log(np.maximum(labels, 1e-8) / labels.sum()).astype(np.float32)
    odds = vocabulary.log_prior_odds()
    if loss != "asymmetric":
        return odds
    logits = np.linspace(-12, 12, 24_001)
    p = 1 / (1 + np.exp(-logits))
    absent = np.minimum(1 - p + MARGIN, 1)
    slope = np.gradient((1 - absent) ** GAMMA_NEG * -np.log(absent), logits)  # of a negative; of a positive it is p - 1
    rising = slope > 0
    return np.interp(odds, np.log(slope[rising] / (1 - p[rising])), logits[rising]).astype(np.float32)


def idf_weights(counts: np.ndarray, num_captions: int) -> np.ndarray:
    """Inverse document frequency of each class, log(N / (1 + n_c)), at least LEAST_IDF: float64 [V].

    counts: int64 [V], captions that name the class (n_c). num_captions: captions counted (N).
    """
    return np.maximum(np.log(max(num_captions, 1) / (1.0 + np.asarray(counts, dtype=np.float64))), LEAST_IDF)


# ---------------------------------------------------------------- borrowed rows


class WithRows(Protocol):
    """What is asked of a `PretrainedModel`: its head, and what this answers whatever the image, float32 [V]."""

    network: torch.nn.Module

    @property
    def prior(self) -> np.ndarray:
        """See `prior_logits`."""


def transfer_head(
    model: WithRows, borrowed: Sequence[Borrowed], *, scale: str | float = "as trained", bias: str = "prior", seed: int = 0
) -> Head:
    """Transfer Init: each label's row is the weighted mean of the rows it borrows; float32 weight [C, D] and bias [C].

    model: a `PretrainedModel`. bias: "prior" (the rows' biases less their synsets' `prior_logits`), "copied" (the rows' biases)
    or "zero". scale: how rows trained under a sigmoid each act under one softmax. "as trained" leaves them; "unit" multiplies
    each label's weight and bias so that the weights of all that borrow have these labels' mean norm; a number, `fit_scale`'s
    for instance, is a temperature that multiplies both. Labels that borrow nothing get a row of `random_head(C, D, seed)` and
    the mean bias of the others. Raises ValueError for another bias or scale.
    """
    if bias not in BIASES:
        raise ValueError(f"bias={bias!r} is unknown: choose one of {', '.join(BIASES)}")
    if scale not in ("as trained", "unit") and (isinstance(scale, str) or not 0 < scale < float("inf")):
        raise ValueError(f"scale={scale!r} is unknown: choose 'as trained', 'unit' or a positive number")
    trained = model.network.head
    head = random_head(len(borrowed), trained.in_features, seed)
    matched = torch.tensor([found.kind != "none" for found in borrowed], dtype=torch.bool)
    if not matched.any():
        return head
    biases = trained.bias.detach().float().cpu()
    biases = {"prior": biases - torch.from_numpy(model.prior), "copied": biases, "zero": torch.zeros_like(biases)}[bias]
    rows = _means(trained.weight.detach().float().cpu(), borrowed)[matched]
    factor = torch.full((len(rows),), 1.0 if isinstance(scale, str) else float(scale))
    if scale == "unit":
        norms = rows.norm(dim=1).clamp(min=1e-12)
        factor = norms.mean() / norms
    head.weight[matched], head.bias[matched] = rows * factor[:, None], _means(biases[:, None], borrowed)[matched, 0] * factor
    head.bias[~matched] = head.bias[matched].mean()
    return head


def zero_shot_head(model: WithRows, borrowed: Sequence[Borrowed], *, prior_corrected: bool = True) -> Head:
    """Zero-shot of a `PretrainedModel`: the mean, over the rows that a label borrows, of logit less the synset's prior.

    That is how much the image speaks for a synset, whatever its frequency; prior_corrected=False leaves the frequency in. A
    label that borrows nothing scores -inf.
    """
    head = transfer_head(model, borrowed, bias="prior" if prior_corrected else "copied")
    lacking = torch.tensor([found.kind == "none" for found in borrowed], dtype=torch.bool)
    head.weight[lacking], head.bias[lacking] = 0.0, -torch.inf
    return head


def _means(values: torch.Tensor, borrowed: Sequence[Borrowed]) -> torch.Tensor:
    """Weighted means of rows: [V, D] -> [C, D], zero where nothing is borrowed."""
    label = torch.repeat_interleave(torch.tensor([len(found.rows) for found in borrowed]))
    rows = torch.from_numpy(np.concatenate([found.rows for found in borrowed]).astype(np.int64))
    weights = torch.from_numpy(np.concatenate([found.weights for found in borrowed]))
    means = torch.zeros(len(borrowed), values.shape[1])
    for part in torch.arange(len(rows)).split(1 << 16):  # "animal" has thousands of hyponyms
        means.index_add_(0, label[part], values[rows[part]] * weights[part, None])
    return means


# ---------------------------------------------------------------- one number for all scores


def fit_scale(head: Head, features: np.ndarray, targets: np.ndarray) -> float:
    """The temperature that makes `head` least surprised by labelled images: what its logits are to be multiplied by.

    features: float32 [N, D]; targets: int64 [N], class indices; of more than 20,000 images so many are drawn, always the same.
    Raises ValueError without images.
    """
    if not len(targets):
        raise ValueError("fit_scale needs labelled images: none given")
    chosen = np.random.default_rng(0).permutation(len(targets))[:FITTED_ON]
    return 1 / fit_temperature(head.scores(features[chosen]), targets[chosen])


def fit_temperature(scores: np.ndarray, targets: np.ndarray) -> float:
    """The temperature T of softmax(scores / T) that surprises least (Guo et al., ICML 2017): float [N, C], targets int64 [N].

    Of N images a share of 1 / (N + 2) counts as evenly spread over the classes (Platt's correction): where a few are all right,
    the best temperature would be zero otherwise. Images whose target is -1 or scores -inf are left out; 1 if none is left.
    Between 0.001 and 1,000; what is minimised is convex in 1 / T.
    """
    own = scores[np.arange(len(targets)), np.maximum(targets, 0)]
    kept = (targets >= 0) & np.isfinite(own)
    if not kept.any():
        return 1.0
    logits, share = torch.from_numpy(scores[kept]).float(), 1 / (int(kept.sum()) + 2)
    finite = np.ma.masked_invalid(scores[kept]).mean(axis=1, dtype=np.float64).filled(0.0)
    right = float(((1 - share) * own[kept] + share * finite).mean(dtype=np.float64))

    def slope(inverse: float) -> float:
        """Of the mean surprise by 1 / T: the score that the softmax expects, less that of the target."""
        total = 0.0
        for part in logits.split(max(1, SCORES_AT_ONCE // logits.shape[1])):
            total += float((torch.softmax(part * inverse, 1) * part).nan_to_num(nan=0.0).sum(dtype=torch.float64))
        return total / len(logits) - right

    low, high = -np.log(STEEPEST), np.log(STEEPEST)
    for _ in range(24):  # its logarithm to 1e-6
        middle = (low + high) / 2
        low, high = (middle, high) if slope(float(np.exp(middle))) < 0 else (low, middle)
    return float(np.exp(-(low + high) / 2))
