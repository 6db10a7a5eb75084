"""One temperature for a classifier's scores, so that its probabilities are as sure as they may be (Guo et al., ICML 2017).

Probes are calibrated with it, and rows that were trained under sigmoids are scaled with it for a softmax.
"""

from __future__ import annotations

import numpy as np
import torch

STEEPEST = 1e3  # the inverse of the least temperature: where every image is right, the best one is zero
SCORES_AT_ONCE = 16_000_000  # numbers of a part of the score matrix


def fit_temperature(scores: np.ndarray, targets: np.ndarray) -> float:
    """The temperature T of softmax(scores / T) that surprises least: scores float [N, C], targets int64 [N].

    Of N images a share of 1 / (N + 2) counts as evenly spread over the classes (Platt's correction): where a few are all right,
    the best temperature would be zero otherwise. Images whose target is -1 or scores -inf are left out; 1 if none is left.
    Between 0.001 and 1,000.
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
