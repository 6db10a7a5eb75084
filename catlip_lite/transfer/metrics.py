"""Figures by which classifiers of one label an image are judged; those of several labels are scikit-learn's."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from sklearn.metrics import average_precision_score

from ..data.labelled import LabelledImages
from ..models.heads import SCORES_AT_ONCE

NEVER = np.iinfo(np.int64).max


def target_ranks(scores: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """How many classes score better than the target, int64 [N]; ties count for the target. scores: float [N, C]; targets: [N].

    NEVER where the target is -1 or its score is -inf or NaN: a class that the classifier never considers is no answer of it.
    """
    own = scores[np.arange(len(targets)), np.maximum(targets, 0)]
    better = np.empty(len(targets), dtype=np.int64)
    rows = max(1, SCORES_AT_ONCE // scores.shape[1])
    for start in range(0, len(targets), rows):
        better[start : start + rows] = (scores[start : start + rows] > own[start : start + rows, None]).sum(axis=1)
    return np.where((targets >= 0) & np.isfinite(own), better, NEVER)


def top_k(scores: np.ndarray, targets: np.ndarray, k: int = 1) -> float:
    """Share of rows whose target is among the k best, see `target_ranks`; NaN for no rows."""
    return float((target_ranks(scores, targets) < k).mean()) if len(targets) else float("nan")


def standard_error(share: float, images: int) -> float:
    """Of a share of so many independent images."""
    return (share * (1 - share) / images) ** 0.5


@dataclass(frozen=True)
class Answers:
    """What a classifier says of N images, without the N x C scores behind it.

    targets: int64 [N], -1 for labels that it does not know. predicted: int64 [N], class indices. ranks: see `target_ranks`.
    confidence: float32 [N], the answer's probability. surprise: float32 [N], minus the log probability of the target in nats;
    NaN where the classifier does not know it.
    """

    targets: np.ndarray
    predicted: np.ndarray
    ranks: np.ndarray
    confidence: np.ndarray
    surprise: np.ndarray

    def __len__(self) -> int:
        return len(self.targets)

    @property
    def hits(self) -> np.ndarray:
        """Whether the first answer is right, bool [N]."""
        return self.ranks == 0

    def top(self, k: int) -> float:
        """Share of images whose label is among the k best; unknown labels are misses."""
        return float((self.ranks < k).mean())

    @property
    def nll(self) -> float:
        """Mean surprise over images whose label the classifier knows, nats an image."""
        return float(np.nanmean(self.surprise)) if np.isfinite(self.surprise).any() else float("nan")


def answers_of(scores: np.ndarray, targets: np.ndarray, temperature: float = 1.0) -> Answers:
    """What scores float [N, C] say; targets: int64 [N], -1 for labels without a class. Probabilities: softmax(scores / T)."""
    predicted, confidence, surprise = [], [], []
    rows = max(1, SCORES_AT_ONCE // scores.shape[1])
    for start in range(0, len(scores), rows):
        part, wanted = torch.from_numpy(scores[start : start + rows]), torch.from_numpy(targets[start : start + rows]).long()
        logp = torch.log_softmax(part.float() / temperature, dim=1)
        best, index = logp.max(dim=1)
        told = logp.gather(1, wanted.clamp(min=0)[:, None])[:, 0].neg()
        predicted.append(index)
        confidence.append(best.exp())
        surprise.append(torch.where((wanted >= 0) & told.isfinite(), told, torch.nan))
    ranks = target_ranks(scores, targets)
    return Answers(targets, torch.cat(predicted).numpy(), ranks, torch.cat(confidence).numpy(), torch.cat(surprise).numpy())


# ---------------------------------------------------------------- several labels an image


def dense_targets(images: LabelledImages) -> np.ndarray:
    """Which labels each image has: bool [N, C]."""
    targets = np.zeros((len(images), len(images.classes)), bool)
    targets[np.repeat(np.arange(len(images)), images.counts), images.indices] = True
    return targets


def average_precision(scores: np.ndarray, targets: np.ndarray) -> tuple[np.ndarray, dict[str, float]]:
    """Average precision (scikit-learn's, the reference's metric, paper table 3) of each class, and its means.

    scores: float [N, C], logits will do; targets: bool [N, C]. By class float64 [C], NaN without positives. Means: "macro",
    over the classes that have positives; "weighted", by their number; "micro", of all N * C decisions as one list.
    Raises ValueError for scores that are NaN, or targets without one positive.
    """
    lost = int(np.isnan(scores).any(axis=1).sum())
    if lost:
        raise ValueError(f"the scores of {lost} of {len(scores)} images are not numbers: did training diverge?")
    if not targets.any():
        raise ValueError(f"none of the {len(targets)} images has one of the {targets.shape[1]} labels: nothing to average")
    by_class, positives = np.full(targets.shape[1], np.nan), targets.sum(axis=0)
    for c in np.flatnonzero(positives):
        by_class[c] = average_precision_score(targets[:, c], scores[:, c])
    has = positives > 0
    means = {"macro": float(by_class[has].mean()), "micro": average_precision_score(targets.ravel(), scores.ravel())}
    return by_class, means | {"weighted": float(np.average(by_class[has], weights=positives[has]))}
