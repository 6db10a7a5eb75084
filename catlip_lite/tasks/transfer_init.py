"""Notebook 06: Transfer Init against Random Init by labelled-data size (paper section 4.1, figures 5 and 7), and zero-shot.

This module makes the task: labelled images → features, labels with the rows they borrow, a pool to draw from, validation and
tests. `transfer_curves` trains on draws from the pool, `transfer_report` says what came of it.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from ..data import labelled_images
from ..data.labelled import LabelledImages, load_labelled, named_addresses
from ..labels import LabelSet, Vocabulary
from ..labels.borrowing import Borrowed, borrow
from ..labels.mapping import map_classes
from ..models import PretrainedModel
from ..models.heads import Head
from .features import MOST_VALIDATION, Features, extract, join

logger = logging.getLogger(__name__)

SHOWN = 8  # names in a warning


@dataclass
class Part:
    """Labelled images with one backbone's features; row i of both is the same image."""

    name: str
    images: LabelledImages
    features: Features

    def __len__(self) -> int:
        return len(self.features)

    def take(self, rows: np.ndarray) -> Part:
        """Some of the images, in the order of `rows` (indices or a mask)."""
        return Part(self.name, self.images.take(rows), self.features.take(rows))


def load_parts(
    model: PretrainedModel, addresses: Sequence[str], *, label_field: str, group_field: str, cache: Path, workers: int = 0
) -> list[Part]:
    """Index and embed the labelled images behind each address; images that cannot be read are left out."""
    parts = []
    for name, address in named_addresses(addresses).items():
        images = load_labelled(address, label_field=label_field, group_field=group_field)
        features = extract(model, images, cache, workers=workers)
        parts.append(Part(name, images.take(features.rows), features))
    return parts


def summarise_parts(labelled: Sequence[Part], tests: Sequence[Part]) -> pd.DataFrame:
    """Images, classes and origins of each part, a row each."""
    rows = [
        {
            "part": part.name,
            "use": use,
            "images": len(part),
            "classes": len(set(part.features.labels)),
            "from": ", ".join(sorted(set(part.features.groups) - {""})),
        }
        for use, parts in (("labelled", labelled), ("test", tests))
        for part in parts
    ]
    return pd.DataFrame(rows)


def task_labels(labelled: Sequence[Part], tests: Sequence[Part]) -> list[str]:
    """Labels of the task, sorted: those that both the labelled images and the first test have.

    Labels that only one side has are told. Raises ValueError if there are fewer than two in common.
    """
    have = {label for part in labelled for label in part.features.labels}
    asked = set(tests[0].features.labels)
    for names, told in (
        (asked - have, f"only {tests[0].name} has, whose images are left out"),
        (have - asked, "only the labelled images have, which are left out"),
    ):
        if names:
            some = ", ".join(sorted(names)[:SHOWN])
            logger.warning("%d label(s) that %s: %s%s", len(names), told, some, " …" if len(names) > SHOWN else "")
    if len(have & asked) < 2:
        raise ValueError(
            f"the labelled images ({len(have)} labels, such as {sorted(have)[:3]}) and {tests[0].name} ({len(asked)}, such as "
            f"{sorted(asked)[:3]}) have {len(have & asked)} label(s) in common: a task needs two"
        )
    return sorted(have & asked)


@dataclass
class Task:
    """A downstream task as one backbone sees it.

    label_set: C labels. borrowed: for each the vocabulary rows it borrows. pool: labelled images to draw from, the preferred
    ones first (`priority` int [N], 0 before 1). validation: to choose settings on. tests: by name.
    """

    label_set: LabelSet
    borrowed: list[Borrowed]
    pool: Part
    priority: np.ndarray
    validation: Part
    tests: dict[str, Part]

    def __len__(self) -> int:
        return len(self.label_set)

    def scores(self, head: Head) -> dict[str, np.ndarray]:
        """A head's logits of every test, float32 [N, C] by name."""
        return {name: head.scores(part.features.features) for name, part in self.tests.items()}

    def targets(self, part: Part) -> np.ndarray:
        """Class indices, int64 [N]."""
        position = {name: i for i, name in enumerate(self.label_set.names)}
        return np.array([position[label] for label in part.features.labels], dtype=np.int64)


def map_labels(
    labels: Sequence[str],
    vocabulary: Vocabulary,
    *,
    label_set: str | None = None,
    label_mapping: Path | None = None,
    allow_unknown: bool = False,
    how: str = "own",
    min_similarity: float = 0.5,
) -> tuple[LabelSet, list[Borrowed]]:
    """What each label means (see `map_classes`) and which rows of the head it borrows (see `borrow`).

    Raises ValueError for labels that WordNet does not know, unless they are allowed: they start at random.
    """
    found = map_classes(list(labels), label_set, label_mapping)
    if found.unknown and not allow_unknown:
        raise ValueError(
            f"WordNet has no noun for {len(found.unknown)} of {len(found)} labels ({', '.join(found.unknown[:SHOWN])}): say "
            "what they mean in a CSV with columns label,wnids (`label_mapping`), name the `label_set` they are of, or set "
            "allow_unknown to start them at random"
        )
    return found, borrow(found, vocabulary, how, min_similarity=min_similarity)


def prepare_task(
    label_set: LabelSet,
    borrowed: list[Borrowed],
    labelled: Sequence[Part],
    tests: Sequence[Part],
    validation_share: float = 0.2,
) -> Task:
    """Split the labelled images (in order of preference) into pool and validation; images of other labels are left out.

    Validation is a random share of the preferred images, at most 20,000, drawn once with a fixed seed.
    Raises ValueError if no image is left in a part.
    """
    if not 0 < validation_share < 1:
        raise ValueError(f"validation_share={validation_share} must be between 0 and 1: it chooses the settings")
    priority = np.repeat(np.arange(len(labelled)), [len(part) for part in labelled])
    everything = joined(labelled)
    wanted = np.isin(everything.features.labels, label_set.names)
    share = min(validation_share, MOST_VALIDATION / max(1, len(labelled[0])))
    validating = (priority == 0) & (np.random.default_rng(0).random(len(everything)) < share)
    pool, validation = wanted & ~validating, wanted & validating
    kept = {part.name: part.take(np.isin(part.features.labels, label_set.names)) for part in tests}
    if not pool.any() or not validation.any() or any(len(part) == 0 for part in kept.values()):
        raise ValueError(
            f"labelled images {pool.sum()}, validation {validation.sum()}, tests {[len(p) for p in kept.values()]}: none may "
            "be empty; do the labelled images and the tests have labels in common?"
        )
    if pool.sum() < len(label_set):
        logger.warning("%d labelled images for %d labels: some labels have none to learn from", pool.sum(), len(label_set))
    return Task(label_set, borrowed, everything.take(pool), priority[pool], everything.take(validation), kept)


def joined(parts: Sequence[Part]) -> Part:
    """Several parts as one, end to end."""
    if len(parts) == 1:
        return parts[0]
    names = [part.name for part in parts]
    images = labelled_images.joined([part.images for part in parts], names)
    return Part(" + ".join(names), images, join([part.features for part in parts]))


# --- how much labelled data -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Budget:
    """How much labelled data: `shots` images a class, or a `fraction` of the pool (exactly one is set)."""

    shots: int | None = None
    fraction: float | None = None

    @property
    def name(self) -> str:
        """'2 a class' or '10 %'."""
        return f"{self.shots} a class" if self.fraction is None else f"{100 * self.fraction:g} %"

    @property
    def kind(self) -> str:
        """'images a class' or 'share of the labels': the axis it stands on."""
        return "images a class" if self.fraction is None else "share of the labels"


def budgets(shots: Sequence[int] | None, fractions: Sequence[float] | None) -> list[Budget]:
    """The budgets of the curves, those in images a class first. Raises ValueError for none, or for impossible ones."""
    if not shots and not fractions:
        raise ValueError("give shots (images a class), fractions (of the labelled images) or both")
    if any(k < 0 or k != int(k) for k in shots or ()) or any(not 0 <= f <= 1 for f in fractions or ()):
        raise ValueError(f"shots {shots} must be whole numbers from 0, fractions {fractions} within 0..1")
    return [Budget(shots=k) for k in sorted(set(shots or ()))] + [Budget(fraction=f) for f in sorted(set(fractions or ()))]


def draw(task: Task, budget: Budget, seed: int) -> np.ndarray:
    """Rows of the pool to train on, ascending; a larger budget of the same seed holds the smaller one's.

    A fraction is drawn at random from all images; images a class at random within each, preferred images first, fewer where a
    class has fewer.
    """
    rng = np.random.default_rng(seed)
    if budget.fraction is not None:
        return np.sort(rng.permutation(len(task.pool))[: round(budget.fraction * len(task.pool))])
    targets = task.targets(task.pool)
    order = rng.permutation(len(targets))
    order = order[np.lexsort((task.priority[order], targets[order]))]  # stable: random among equals
    of_class = targets[order]
    rank = np.arange(len(order)) - np.searchsorted(of_class, of_class)
    return np.sort(order[rank < budget.shots])
