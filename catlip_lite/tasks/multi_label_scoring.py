"""Figures by which multi-label classifiers are judged: average precision by class, its macro, micro and weighted means.

Between scores [N, C] with boolean targets and the tables of notebook 10. Average precision is scikit-learn's (the reference's
metric, paper table 3), ties included, at a cost that suits 40,000 images of 80 classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from ..data.labelled import LabelledImages

MEANS = ("macro", "micro", "weighted")


@dataclass(frozen=True)
class Precision:
    """Average precision of a classifier on N images.

    per_class: float64 [C], NaN for a class without positives. positives: int64 [C]. macro: mean over the classes that have
    positives; weighted: their mean by number of positives; micro: of all N * C decisions as one list. left_out: names of the
    classes without positives.
    """

    per_class: np.ndarray
    positives: np.ndarray
    macro: float
    micro: float
    weighted: float
    left_out: tuple[str, ...]

    def means(self) -> dict[str, float]:
        """Macro, micro and weighted mean by name."""
        return {name: getattr(self, name) for name in MEANS}


def dense_targets(images: LabelledImages) -> np.ndarray:
    """Which labels each image has: bool [N, C]."""
    targets = np.zeros((len(images), len(images.classes)), bool)
    targets[np.repeat(np.arange(len(images)), images.counts), images.indices] = True
    return targets


def average_precision(scores: np.ndarray, targets: np.ndarray) -> float:
    """Mean over the positives of the precision at their score: scores float [N], targets bool [N]; NaN without positives.

    Equal to scikit-learn's average_precision_score: what scores the same is taken in at the same time.
    """
    ascending, positives = np.sort(scores), np.sort(scores[targets])
    if not len(positives):
        return float("nan")
    taken = len(scores) - np.searchsorted(ascending, positives, side="left")
    right = len(positives) - np.searchsorted(positives, positives, side="left")
    return float((right / taken).mean())


def score_multi_label(scores: np.ndarray, targets: np.ndarray, classes: Sequence[str]) -> Precision:
    """Average precision of each class and its means: scores float [N, C] (logits will do), targets bool [N, C].

    Raises ValueError for shapes that do not fit, scores that are NaN, or targets without one positive.
    """
    _check(scores, targets, classes)
    per_class = np.array([average_precision(scores[:, c], targets[:, c]) for c in range(len(classes))])
    positives = targets.sum(axis=0)
    has = positives > 0
    return Precision(
        per_class,
        positives,
        macro=float(per_class[has].mean()),
        micro=average_precision(scores.ravel(), targets.ravel()),
        weighted=float(np.average(per_class[has], weights=positives[has])),
        left_out=tuple(name for name, some in zip(classes, has, strict=True) if not some),
    )


def resampled_means(scores: np.ndarray, targets: np.ndarray, resamples: int = 100, seed: int = 0) -> pd.DataFrame:
    """Macro, micro and weighted mean (columns) on bootstrap draws of the N images (rows); their std is a standard error.

    The same N and seed draw the same images, so that the difference of two classifiers' draws is paired. Scores are sorted
    once, whatever the number of draws: 100 draws of 40,000 images x 80 classes take about a minute and a half.
    """
    rng = np.random.default_rng(seed)
    count, classes = scores.shape
    drawn = np.stack([np.bincount(rng.integers(count, size=count), minlength=count) for _ in range(resamples)])
    per_class = np.stack([_weighted_precision(scores[:, c], targets[:, c], drawn) for c in range(classes)], axis=1)
    positives = drawn @ targets.astype(np.int64)
    flat, images = (scores.ravel(), targets.ravel()), np.repeat(np.arange(count), classes)
    micro = [_weighted_precision(*flat, times[None], images)[0] for times in drawn]
    found = np.nan_to_num(per_class)
    macro = found.sum(axis=1) / np.maximum((positives > 0).sum(axis=1), 1)
    weighted = (found * positives).sum(axis=1) / np.maximum(positives.sum(axis=1), 1)
    return pd.DataFrame({"macro": macro, "micro": micro, "weighted": weighted})


def precision_at(scores: np.ndarray, targets: np.ndarray, k: int) -> float:
    """Mean over images of the share of their k best-scored classes that are right."""
    best = np.argpartition(-scores, k - 1, axis=1)[:, :k]
    return float(np.take_along_axis(targets, best, axis=1).mean())


def best_thresholds(scores: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """The threshold of each class that gives the best F1 on these images: float [C]; infinite for a class without positives.

    A label is predicted where the score is at least the threshold. Choose on images set aside, never on those scored.
    """
    thresholds = np.full(scores.shape[1], np.inf)
    for c in np.flatnonzero(targets.any(axis=0)):
        ascending, positives = np.sort(scores[:, c]), np.sort(scores[targets[:, c], c])
        taken = len(ascending) - np.searchsorted(ascending, positives, side="left")
        right = len(positives) - np.searchsorted(positives, positives, side="left")
        thresholds[c] = positives[np.argmax(2 * right / (taken + len(positives)))]
    return thresholds


def f1_scores(predicted: np.ndarray, targets: np.ndarray) -> dict[str, float]:
    """Macro F1 (mean over classes that have positives) and micro F1 (all decisions): bool [N, C] both."""
    right, both = (predicted & targets).sum(axis=0), predicted.sum(axis=0) + targets.sum(axis=0)
    has = targets.any(axis=0)
    return {
        "macro F1": float((2 * right[has] / both[has]).mean()) if has.any() else float("nan"),
        "micro F1": float(2 * right.sum() / both.sum()) if both.sum() else float("nan"),
    }


def _weighted_precision(
    scores: np.ndarray, targets: np.ndarray, drawn: np.ndarray, images: np.ndarray | None = None
) -> np.ndarray:
    """Average precision where decision i counts as often as its image was drawn: drawn int [R, N] -> float64 [R].

    images: of each decision, where they are not the N images in order. NaN for a draw without positives.
    """
    falling = np.argsort(-scores, kind="stable")
    ordered = scores[falling]
    end = np.append(np.flatnonzero(np.diff(ordered)), len(ordered) - 1)  # last place of each group of equal scores
    times = drawn[:, falling if images is None else images[falling]]
    taken = np.cumsum(times, axis=1)[:, end]
    right = np.cumsum(times * targets[falling], axis=1)[:, end]
    gained = np.diff(right, axis=1, prepend=0)
    with np.errstate(invalid="ignore"):
        return (gained * right / np.maximum(taken, 1)).sum(axis=1) / right[:, -1]


def _check(scores: np.ndarray, targets: np.ndarray, classes: Sequence[str]) -> None:
    if scores.shape != targets.shape or scores.ndim != 2 or scores.shape[1] != len(classes):
        raise ValueError(
            f"scores {scores.shape} and targets {targets.shape} must both be [N, {len(classes)}], a column a class"
        )
    lost = int(np.isnan(scores).any(axis=1).sum())
    if lost:
        raise ValueError(f"the scores of {lost} of {len(scores)} images are not numbers: did training diverge?")
    if not targets.any():
        raise ValueError(f"none of the {len(targets)} images has one of the {len(classes)} labels: nothing to average")
