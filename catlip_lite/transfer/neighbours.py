"""k nearest neighbours by cosine on frozen features [N, D]: the classifier that needs no training (notebook 05)."""

from __future__ import annotations

import numpy as np
import torch

TEMPERATURE = 0.05  # of votes: a neighbour whose cosine is 0.05 higher counts 2.7 times as much
QUERIES_AT_ONCE = 4096
SIMILARITIES_AT_ONCE = {"cpu": 16_000_000, "cuda": 512_000_000}


def nearest(
    reference: np.ndarray, queries: np.ndarray, count: int, device: str | torch.device = "cpu"
) -> tuple[np.ndarray, np.ndarray]:
    """The `count` nearest reference features of each query, the nearest first: cosines float32 [Q, k], rows int64 [Q, k].

    reference: float32 [N, D]; queries: float32 [Q, D]; k = min(count, N). Of the Q x N cosines 64 MB (a GPU: 2 GB) are in
    memory at a time. A feature vector of zeros has cosine 0 with all.
    """
    device = torch.device(device)
    count = min(count, len(reference))
    reference_rows = max(count, SIMILARITIES_AT_ONCE[device.type] // QUERIES_AT_ONCE)
    cosines, rows = [], []
    for start in range(0, len(queries), QUERIES_AT_ONCE):
        wanted = _unit(queries[start : start + QUERIES_AT_ONCE], device)
        best = torch.full((len(wanted), count), -torch.inf, device=device)
        where = torch.zeros((len(wanted), count), dtype=torch.int64, device=device)
        for first in range(0, len(reference), reference_rows):
            similar = wanted @ _unit(reference[first : first + reference_rows], device).T
            found, place = similar.topk(min(count, similar.shape[1]), dim=1)
            best, order = torch.cat([best, found], 1).topk(count, dim=1)
            where = torch.cat([where, place + first], 1).gather(1, order)
        cosines.append(best.cpu())
        rows.append(where.cpu())
    return torch.cat(cosines).numpy(), torch.cat(rows).numpy()


def neighbour_scores(cosines: np.ndarray, targets: np.ndarray, k: int, classes: int) -> np.ndarray:
    """Logs of the votes of the k nearest of each query, float32 [Q, C]; softmax makes them shares of the vote.

    cosines: float32 [Q, K] and targets: int64 [Q, K], class indices, both the nearest first. A vote weighs exp(cosine / 0.05).
    Classes that only the other K - k have are ranked by their nearest, below all that have votes; the rest score -inf.
    """
    cosine, target = torch.from_numpy(cosines), torch.from_numpy(targets)
    votes = torch.zeros(len(cosine), classes).scatter_add_(1, target[:, :k], (cosine[:, :k] / TEMPERATURE).exp())
    without = torch.full((len(cosine), classes), -torch.inf).scatter_reduce_(1, target, (cosine - 2) / TEMPERATURE, "amax")
    return torch.where(votes > 0, votes.log(), without).numpy()


def _unit(features: np.ndarray, device: torch.device) -> torch.Tensor:
    part = torch.from_numpy(np.ascontiguousarray(features, np.float32)).to(device)
    return part / part.norm(dim=1, keepdim=True).clamp_min(1e-12)
