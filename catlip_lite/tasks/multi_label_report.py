"""What notebook 10 shows of multi-label classifiers: average precision under both label protocols, by label, and findings."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from ..artefacts import provenance, write_table
from ..data.boxes import LABELS_OF
from ..data.labelled import all_views
from ..training.finetune_recipes import FinetuneRecipe
from .multi_label import RANDOM, TRANSFER, Scored, Task
from .multi_label_scoring import (
    MEANS,
    Precision,
    best_thresholds,
    dense_targets,
    f1_scores,
    precision_at,
    resampled_means,
    score_multi_label,
)

# Macro AP of the reference on COCO's val2017 with the labels of whole images, at 512 pixels: its README, and table 3.
PAPER_MACRO = {"vit_b16": 88.06, "vit_l16": 90.75}
FOLLOWED = f"{TRANSFER}, labels of the view"  # the name of what was trained so
FORMATS = {name: "{:.3f}" for mean in MEANS for name in (mean, f"± {mean}")}


def score_table(task: Task, found: Sequence[Scored], resamples: int = 100) -> pd.DataFrame:
    """Average precision of each classifier on each test, under both label protocols.

    Columns: classifier, init, trained on, seed, test, labels of, images, classes (that have positives), macro, micro,
    weighted, and their standard errors over bootstrap draws of the test images ("± macro" …).
    """
    rows = []
    for one in found:
        for test, (images, scores) in one.scores.items():
            for labels_of in LABELS_OF if task.tests[test].boxes is not None else LABELS_OF[:1]:
                targets = task.targets(test, labels_of, images)
                means = score_multi_label(scores, targets, task.classes)
                facts = {"classifier": one.name, "init": one.init, "trained on": one.labels_of, "seed": one.seed, "test": test}
                facts |= {"labels of": labels_of, "images": len(images), "classes": len(task.classes) - len(means.left_out)}
                errors = resampled_means(scores, targets, resamples).std() if resamples else dict.fromkeys(MEANS, np.nan)
                rows.append(facts | means.means() | {f"± {mean}": float(errors[mean]) for mean in MEANS})
    return pd.DataFrame(rows)


def average_seeds(table: pd.DataFrame) -> pd.DataFrame:
    """Means over seeds, a row a test, protocol and classifier, in the table's order."""
    keys = ["test", "labels of", "classifier"]
    return table.groupby(keys, sort=False)[[*MEANS, *(f"± {m}" for m in MEANS)]].mean().reset_index()


def precision_of(task: Task, one: Scored, test: str, labels_of: str = "image") -> Precision:
    """Average precision by class of one classifier on one test."""
    rows, scores = one.scores[test]
    return score_multi_label(scores, task.targets(test, labels_of, rows), task.classes)


def starts_compared(names: Iterable[str]) -> tuple[str, str]:
    """Of classifiers' names, the one trained from Random Init and that from Transfer Init trained on the same labels."""
    before = next(name for name in names if name.startswith(RANDOM))
    return before, before.replace(RANDOM, TRANSFER)


def per_class(task: Task, found: Sequence[Scored], test: str) -> pd.DataFrame:
    """AP of each class from Random Init and from Transfer Init (means over seeds), what the second gained, the most first.

    Columns: label, images (with it), borrowed (kind), the two classifiers' names, gained. Labels of whole images.
    """
    before, after = starts_compared(one.name for one in found)
    positives = precision_of(task, next(one for one in found if one.name == after), test).positives
    means = {
        name: np.mean([precision_of(task, one, test).per_class for one in found if one.name == name], axis=0)
        for name in (before, after)
    }
    table = pd.DataFrame(
        {
            "label": task.classes,
            "images": positives,
            "borrowed": [rows.kind for rows in task.borrowed],
            before: means[before],
            after: means[after],
            "gained": means[after] - means[before],
        }
    )
    return table[table["images"] > 0].sort_values("gained", ascending=False, ignore_index=True)


def predicted_labels(task: Task, one: Scored, test: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rows of the test's images, the labels predicted and the labels there are: int64 [n], bool [n, C] and bool [n, C].

    A label is predicted above the threshold that gives its best F1 on the validation images.
    """
    rows, scores = one.validation
    thresholds = best_thresholds(scores, dense_targets(task.validation)[rows])
    rows, scores = one.scores[test]
    return rows, scores >= thresholds, task.targets(test, "image", rows)


def predictions_to_show(
    task: Task, found: Sequence[Scored], test: str, most: int = 12, best: int = 4
) -> tuple[torch.Tensor, np.ndarray, np.ndarray]:
    """The first test images as the last classifier sees them: views uint8 [n, 3, S, S], its `best` best-scored classes of each
    (int64 [n, best], the best first) and the labels there are (bool [n, C])."""
    rows, scores = found[-1].scores[test]
    shown = task.tests[test].take(rows[:most])
    readable, views = all_views(shown, task.at_size.evaluation)
    return views, np.argsort(-scores[readable], axis=1, kind="stable")[:, :best], dense_targets(shown)[readable]


def write_results(path: Path, table: pd.DataFrame, task: Task, recipe: FinetuneRecipe) -> Path:
    """Store the table of scores with its provenance."""
    data = {name: part.fingerprint for name, part in {"train": task.train, **task.tests}.items()}
    return write_table(table, path, provenance(recipe=recipe.as_dict(), data=data, paper_macro=PAPER_MACRO))


def f1_of(task: Task, found: Sequence[Scored], test: str) -> pd.DataFrame:
    """F1 of each classifier's predicted labels, means over seeds: columns classifier, macro F1, micro F1, precision@1."""
    rows = []
    for one in found:
        _, said, true = predicted_labels(task, one, test)
        first = precision_at(one.scores[test][1], true, 1)
        rows.append({"classifier": one.name, **f1_scores(said, true), "precision@1": first})
    return pd.DataFrame(rows).groupby("classifier", sort=False).mean().reset_index()


def findings(table: pd.DataFrame) -> str:
    """What Transfer Init and labels that follow the crop gave, as Markdown; with several seeds, what these spread over."""
    lines = []
    before, after = starts_compared(table["classifier"])
    for test, part in table.groupby("test", sort=False):
        by = {labels_of: _Means(mine) for labels_of, mine in part.groupby("labels of", sort=False)}
        whole = by["image"]
        told = ", ".join(f"{name} **{macro:.3f}**" for name, macro in whole.macro.items())
        lines.append(
            f"- {test}, macro AP by the labels of whole images: {told}. From Random Init to Transfer Init, after the same "
            f"training: {whole.change(before, after)}."
        )
        if "view" in by:
            shift = by["view"].macro[after] - whole.macro[after]
            lines.append(f"- Scored by the labels of the view instead, fine-tuning from Transfer Init changes by {shift:+.3f}.")
        if {TRANSFER, FOLLOWED} <= set(whole.macro.index):
            lines += [
                f"- Trained on labels that follow the crop and scored by those of the {labels_of}, macro AP changes by "
                f"{means.change(TRANSFER, FOLLOWED)}."
                for labels_of, means in by.items()
            ]
    return "\n".join(lines) + "\n\n± is one standard error over draws of the test images; seeds are draws of the training."


class _Means:
    """Macro AP on one test under one protocol, by classifier; rows of `score_table`."""

    def __init__(self, rows: pd.DataFrame):
        means = rows.groupby("classifier", sort=False)[["macro", "± macro"]].mean()
        self.macro, self.error = means["macro"], means["± macro"]
        self.by_seed = rows.pivot(index="seed", columns="classifier", values="macro")

    def change(self, first: str, second: str) -> str:
        """What the second is above the first: "+0.031 (± 0.012; over 3 seeds from +0.010 to +0.045)"."""
        error = np.hypot(self.error[first], self.error[second])
        each = (self.by_seed[second] - self.by_seed[first]).dropna()
        spread = f"; over {len(each)} seeds from {each.min():+.3f} to {each.max():+.3f}" if len(each) > 1 else ""
        return f"{self.macro[second] - self.macro[first]:+.3f} (± {error:.3f}{spread})"


def paper_figures() -> pd.DataFrame:
    """What the reference reaches on COCO, for comparison with a real run: columns model, macro AP, source."""
    source = "the reference's README, val2017, labels of whole images, 512 px"
    return pd.DataFrame([{"model": m, "macro AP": f / 100, "source": source} for m, f in PAPER_MACRO.items()])
