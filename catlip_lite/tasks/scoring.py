"""Figures by which classifiers are judged: top-k and per-class accuracy, likelihood, calibration."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch

from ..models.calibration import SCORES_AT_ONCE

BINS = 15  # of calibration, as in Guo et al. (2017)
LEAST_IN_BIN = 10
NEVER = np.iinfo(np.int64).max


@dataclass(frozen=True)
class Answers:
    """What a classifier says of N images, without the N x C scores behind it.

    targets: int64 [N], -1 for labels that it does not know. predicted: int64 [N], class indices. ranks: int64 [N], classes that
    score better than the target; NEVER where it cannot be an answer. confidence: float32 [N], the answer's probability.
    surprise: float32 [N], minus the log probability of the target in nats; NaN where the classifier does not know it.
    """

    targets: np.ndarray
    predicted: np.ndarray
    ranks: np.ndarray
    confidence: np.ndarray
    surprise: np.ndarray

    def __len__(self) -> int:
        return len(self.targets)

    def top(self, k: int) -> float:
        """Share of images whose label is among the k best; unknown labels are misses."""
        return float((self.ranks < k).mean())

    @property
    def nll(self) -> float:
        """Mean surprise over images whose label the classifier knows, nats an image."""
        return float(np.nanmean(self.surprise)) if np.isfinite(self.surprise).any() else float("nan")

    @property
    def calibration_error(self) -> float:
        """See `calibration_error`."""
        return calibration_error(self.confidence, self.ranks == 0)


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


def top_k_hits(scores: np.ndarray, targets: np.ndarray, ks: tuple[int, ...] = (1, 5)) -> dict[int, float]:
    """Share of rows whose target is among the k best, see `target_ranks`; NaN for no rows."""
    ranks = target_ranks(scores, targets)
    return {k: float((ranks < k).mean()) if len(ranks) else float("nan") for k in ks}


def standard_error(share: float, images: int) -> float:
    """Of a share of so many independent images."""
    return (share * (1 - share) / images) ** 0.5


def calibration_error(confidence: np.ndarray, hits: np.ndarray, bins: int = BINS) -> float:
    """Expected calibration error: mean over bins, by their images, of |accuracy - mean confidence|.

    As Guo et al. (2017, "On calibration of modern neural networks", equation 3) define it, of the first answer; but in bins of
    equally many images (Nguyen and O'Connor, 2015), since bins of equal width leave most of them empty.
    """
    table = reliability(confidence, hits, bins)
    return float((table["images"] * (table["accuracy"] - table["confidence"]).abs()).sum() / table["images"].sum())


def reliability(confidence: np.ndarray, hits: np.ndarray, bins: int = BINS) -> pd.DataFrame:
    """Accuracy and mean confidence in bins of equally many images, the least confident first (columns images, confidence,
    accuracy); fewer bins where each would have less than ten."""
    order = np.argsort(confidence, kind="stable")
    parts = np.array_split(order, max(1, min(bins, len(order) // LEAST_IN_BIN)))
    rows = [{"images": len(p), "confidence": confidence[p].mean(), "accuracy": hits[p].mean()} for p in parts]
    return pd.DataFrame(rows).astype({"images": int, "confidence": float, "accuracy": float})


def per_class_accuracy(predicted: np.ndarray, labels: np.ndarray) -> pd.DataFrame:
    """Accuracy of each class, the worst first and of these the largest, with the label it is most often taken for.

    Columns: label, images, accuracy, taken_for, times (that it is; "" and 0 for a class without mistakes).
    """
    rows = []
    order = np.argsort(labels, kind="stable")
    names, starts = np.unique(labels[order], return_index=True)
    for label, mine in zip(names, np.split(predicted[order], starts[1:]), strict=True):
        wrong, counts = np.unique(mine[mine != label], return_counts=True)
        rows.append(
            {
                "label": label,
                "images": len(mine),
                "accuracy": float((mine == label).mean()),
                "taken_for": wrong[counts.argmax()] if len(wrong) else "",
                "times": int(counts.max(initial=0)),
            }
        )
    return pd.DataFrame(rows).sort_values(["accuracy", "images", "label"], ascending=[True, False, True], ignore_index=True)
