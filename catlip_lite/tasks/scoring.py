"""Figures by which classifiers are judged: top-k accuracy, per-class accuracy."""

from __future__ import annotations

import numpy as np
import pandas as pd


def top_k_hits(scores: np.ndarray, targets: np.ndarray, ks: tuple[int, ...] = (1, 5)) -> dict[int, float]:
    """Share of rows whose target is among the k best: scores float [N, C], targets int [N]; ties count for the target."""
    better = (scores > scores[np.arange(len(targets)), targets][:, None]).sum(axis=1)
    return {k: float((better < k).mean()) for k in ks}


def per_class_accuracy(predicted: np.ndarray, labels: np.ndarray) -> pd.DataFrame:
    """Accuracy of each class, the worst first, with the label it is most often taken for (columns: label, images, accuracy,
    taken_for)."""
    rows = []
    for label in np.unique(labels):
        mine = predicted[labels == label]
        wrong = mine[mine != label]
        names, counts = np.unique(wrong, return_counts=True)
        rows.append(
            {
                "label": label,
                "images": len(mine),
                "accuracy": float((mine == label).mean()),
                "taken_for": names[counts.argmax()] if len(wrong) else "",
            }
        )
    return pd.DataFrame(rows).sort_values(["accuracy", "label"], ignore_index=True)
