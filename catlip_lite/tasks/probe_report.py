"""What came of notebook 05's probes: classes and their confusions with pictures, calibration, zero-shot beside, findings."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from ..artefacts import provenance, write_table
from ..data.images import Evaluation
from ..data.labelled import LabelledImages, all_views
from ..labels.borrowing import borrow
from ..labels.mapping import map_classes
from ..models import PretrainedModel, transfer_head
from .features import Features, model_fingerprint
from .probe import TRAINED, ProbeData, ProbeImages, Scored
from .scoring import per_class_accuracy, reliability, standard_error, target_ranks


def best_on_trained(table: pd.DataFrame) -> dict:
    """The row of the probe that does best on trained features, on the first test set."""
    part = table[(table["backbone"] == TRAINED) & (table["test"] == table["test"].iloc[0])]
    return part.loc[part["top-1"].idxmax()].to_dict()


def answers_of_best(found: Mapping[tuple[str, str, str], Scored], best: Mapping) -> Scored:
    """The answers behind a row of the table."""
    return found[best["backbone"], best["method"], best["test"]]


def per_class(data: ProbeData, scored: Scored, test: str) -> pd.DataFrame:
    """Accuracy a class of one probe on one test set, see `per_class_accuracy`."""
    return per_class_accuracy(np.array(data.classes)[scored.plain.predicted], data.tests[test].labels)


# --- the worst classes, with pictures -----------------------------------------------------------------------------------------


@dataclass
class Confusion:
    """A class and what it is most often taken for. times of its images in the test are; right are answered right.

    missed: test pictures of it that are taken for the other; own, other: training pictures of both. uint8 [n, 3, S, S] each.
    """

    label: str
    taken_for: str
    images: int
    right: int
    times: int
    missed: torch.Tensor
    own: torch.Tensor
    other: torch.Tensor


def worst_classes(
    data: ProbeData,
    scored: Scored,
    images: ProbeImages,
    test: str,
    evaluation: Evaluation,
    *,
    most: int = 6,
    pictures: int = 3,
) -> list[Confusion]:
    """The classes that the probe finds hardest, with what they are taken for: at most so many, the worst first."""
    table = per_class(data, scored, test)
    table = table[(table["times"] > 0) & table["label"].isin(data.classes)].head(most)
    predicted, asked = np.array(data.classes)[scored.plain.predicted], data.tests[test]
    found = []
    for row in table.itertuples():
        mistaken = np.flatnonzero((asked.labels == row.label) & (predicted == row.taken_for))
        views = [_views(images.tests[test], asked.rows[mistaken[:pictures]], evaluation)]
        for label in (row.label, row.taken_for):
            views.append(_views(images.train, _rows_of(data, label)[:pictures], evaluation))
        right = round(row.accuracy * row.images)
        found.append(Confusion(row.label, row.taken_for, row.images, right, row.times, *views))
    return found


def _rows_of(data: ProbeData, label: str) -> np.ndarray:
    """Training images of a class, by their rows of the labelled images."""
    return np.concatenate([part.rows[part.labels == label] for part in (data.fit, data.validation)])


def _views(images: LabelledImages, rows: np.ndarray, evaluation: Evaluation) -> torch.Tensor:
    return all_views(images.take(rows), evaluation)[1]


# --- calibration --------------------------------------------------------------------------------------------------------------


def reliabilities(scored: Scored) -> tuple[dict[str, pd.DataFrame], dict[str, float]]:
    """Accuracy by confidence of one probe, as it is and with its temperature (see `scoring.reliability`); and the calibration
    error of both."""
    parts = {"as it is": scored.plain, f"temperature {scored.temperature:.2g}": scored.tempered}
    tables = {name: reliability(part.confidence, part.ranks == 0) for name, part in parts.items()}
    return tables, {name: part.calibration_error for name, part in parts.items()}


# --- zero-shot beside the probe -----------------------------------------------------------------------------------------------


def beside_zero_shot(model: PretrainedModel, data: ProbeData, scored: Mapping[str, Scored]) -> pd.DataFrame:
    """Zero-shot of the same backbone and the probe on the same images: those of labels whose own synset the head knows.

    scored: the probe's answers by test. The choice of answers is the classes that the head knows for zero-shot, all classes for
    the probe. Columns: test, images, classes, zero-shot top-1 and top-5, probe top-1 and top-5; no rows if the head knows none.
    """
    label_set = map_classes(data.classes)
    borrowed = borrow(label_set, model.vocabulary, "own", fallback=())
    known = np.array([found.kind != "none" for found in borrowed])
    rows = []
    if known.any():
        head = transfer_head(model, [found for found in borrowed if found.kind != "none"])
        place = np.cumsum(known) - 1
        for name, answers in scored.items():
            targets = answers.plain.targets
            asked = (targets >= 0) & known[np.maximum(targets, 0)]
            if asked.any():
                rows.append({"test": name} | _compared(head, data.tests[name], asked, place[targets[asked]], answers))
    return pd.DataFrame(rows)


def _compared(head, test: Features, asked: np.ndarray, targets: np.ndarray, answers: Scored) -> dict[str, float]:
    ranks = {"zero-shot": target_ranks(head.scores(test.features[asked]), targets), "probe": answers.plain.ranks[asked]}
    figures = {"images": int(asked.sum()), "classes": len(head.bias)}
    return figures | {f"{who} top-{k}": float((found < k).mean()) for who, found in ranks.items() for k in (1, 5)}


# --- what was found -----------------------------------------------------------------------------------------------------------


def write_results(path: Path, table: pd.DataFrame, model: PretrainedModel) -> Path:
    """Store the table with its provenance."""
    return write_table(table.astype({"chosen": float}), path, provenance(model=model_fingerprint(model)))


def findings(table: pd.DataFrame, zero_shot: pd.DataFrame | None = None) -> str:
    """What the probes found, as Markdown."""
    lines = []
    for test, part in table.groupby("test", sort=False):
        best = part.loc[part.groupby("backbone", sort=False)["top-1"].idxmax()]
        told = [f"{r['backbone']} **{r['top-1']:.3f}** ± {r['standard error']:.3f} ({r['method']})" for _, r in best.iterrows()]
        lines.append(f"- {test}, {part['images'].iloc[0]:,} images, best top-1: {', '.join(told)}.")
    best = best_on_trained(table)
    lines.append(
        f"- Calibration of the best probe on {best['test']}: its confidence is off by {best['calibration error']:.3f}, by "
        f"{best['calibration error, tempered']:.3f} with a temperature of {best['temperature']:.2g}; it is surprised by "
        f"{best['nll']:.2f} and {best['nll, tempered']:.2f} nats an image."
    )
    for row in [] if zero_shot is None else zero_shot.to_dict("records"):
        error = standard_error(row["zero-shot top-1"], row["images"])
        lines.append(
            f"- Of {row['test']}, the head knows the labels of {row['images']:,} images: zero-shot "
            f"{row['zero-shot top-1']:.3f} ± {error:.3f} over {row['classes']:,} classes, the probe "
            f"{row['probe top-1']:.3f} over all."
        )
    return "\n".join(lines)
