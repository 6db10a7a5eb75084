"""A downstream task (paper section 4): labelled images and tests → classes, what they mean, and the rows that they borrow.

One task for probes, Transfer Init, fine-tuning and images of several labels alike.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ..data.addresses import Address
from ..data.labelled import LabelledImages, address_name, load_labelled, named_addresses
from ..data.labelled.images import joined, refuse_alike
from ..labels import LabelSet
from ..labels.borrowing import NOTHING, Borrowed
from ..labels.borrowing import borrow as borrow_rows
from ..labels.label_sets import listed
from ..labels.mapping import map_classes
from ..models import Head, PretrainedModel, fit_scale, random_head, transfer_head
from ..training.parallel import is_main
from .features import extract

logger = logging.getLogger(__name__)

TRANSFER, RANDOM = "Transfer Init", "Random Init"
KINDS = {"own": "own synset", "hyponyms": "synsets below it", "similar": "similar synsets", "none": "none: starts at random"}
MOST_VALIDATION = 20_000  # images: the standard error of their top-1 is at most 0.35 %


# ---------------------------------------------------------------- the task


@dataclass(frozen=True)
class Task:
    """C classes that the labelled images and the first test both have images of.

    label_set: their names and synsets. borrowed: which rows of the model's head each takes. labelled: the images to learn
    from, those of the first address first; source: int [N], the number of each one's address; sources: the addresses' names.
    place: int64 [N], where each stands among all that the addresses hold. tests: by name, only scored. All images are of these
    classes, in this order: their `indices` are the targets.
    """

    model: PretrainedModel
    label_set: LabelSet
    borrowed: list[Borrowed]
    labelled: LabelledImages
    source: np.ndarray
    sources: list[str]
    place: np.ndarray
    tests: dict[str, LabelledImages]

    @property
    def classes(self) -> list[str]:
        """Names of the C classes."""
        return list(self.label_set.names)

    def head(
        self, init: str = TRANSFER, *, scale: str | float = "as trained", bias: str = "prior", seed: int = 0,
        train: Part | None = None,
    ) -> Head:  # fmt: skip
        """Where training starts: "Random Init", or "Transfer Init" (see `transfer_head` for scale and bias).

        scale "fitted" is the one temperature that suits `train` best, as trained without an image. Raises ValueError for
        Transfer Init from a model without rows, as CLIP is.
        """
        if init == RANDOM:
            return random_head(len(self.borrowed), self.model.network.head.in_features, seed)
        if not hasattr(self.model, "vocabulary"):
            told = f"a {self.model.config['objective']} model has no head with rows of synsets to borrow"
            raise ValueError(f"{told}: start at random (init={RANDOM!r}), probe its features, or compare with prompts")
        if scale != "fitted":
            return transfer_head(self.model, self.borrowed, scale=scale, bias=bias, seed=seed)
        head = transfer_head(self.model, self.borrowed, bias=bias, seed=seed)
        fitted = fit_scale(head, train.features, train.targets) if train else 1.0
        return Head(head.weight * fitted, head.bias * fitted)

    def at_random(self) -> np.ndarray:
        """A number in 0..1 for each labelled image, float64 [N], the same whichever classes are left out."""
        return np.random.default_rng(0).random(self.place.max() + 1)[self.place]

    def summary(self) -> pd.DataFrame:
        """Images, classes, labels an image and origins, a row a source and test."""
        parts = {name: self.labelled.take(self.source == i) for i, name in enumerate(self.sources)}
        uses = [("labelled", name, part) for name, part in parts.items()]
        uses += [("test", name, part) for name, part in self.tests.items()]
        return pd.DataFrame(
            {
                "use": use,
                "name": name,
                "images": len(part),
                "classes": len(part.present()),
                "labels an image": part.counts.mean(),
                "from": listed(sorted(set(part.groups) - {""})),
            }
            for use, name, part in uses
        )

    def borrowing(self) -> pd.DataFrame:
        """How many labels borrow what, from how many rows and captions, with examples; `label_mapping.csv` has them all."""
        counts = self.model.vocabulary.counts if hasattr(self.model, "vocabulary") else np.zeros(0, np.int64)
        facts = pd.DataFrame(
            {
                "borrows": [KINDS[found.kind] for found in self.borrowed],
                "rows": [len(found.rows) for found in self.borrowed],
                "captions": [int(counts[found.rows].sum()) for found in self.borrowed],
                "label": self.classes,
            }
        )
        found = facts.groupby("borrows").agg(
            labels=("label", "size"),
            rows=("rows", "mean"),
            captions=("captions", "median"),
            examples=("label", lambda names: ", ".join(names[:6])),
        )
        told = {"rows": "rows a label", "captions": "captions a label (median)", "examples": "such as"}
        found = found.reindex(KINDS.values()).fillna({"labels": 0, "rows": 0, "captions": 0, "examples": ""})
        return found.astype({"labels": int}).reset_index().rename(columns=told)


def open_task(
    model: PretrainedModel,
    labelled: Address | Sequence[Address],
    tests: Address | Sequence[Address],
    *,
    label_field: str = "label",
    group_field: str = "vendor",
    label_set: str | LabelSet | None = None,
    label_mapping: str | os.PathLike | None = None,
    allow_unknown: bool = False,
    borrow: str = "own",
    borrow_similarity: float = 0.5,
    multi_label: bool = False,
) -> Task:
    """Index the images behind the addresses, the preferred ones first, and match their classes with the model's vocabulary.

    Nothing is decoded. Images of classes that only one side has are left out, and told. label_set, label_mapping: what the
    labels mean, see `map_classes`. borrow, borrow_similarity: what each takes, see `labels.borrowing.borrow`; labels that
    WordNet does not know start at random, if allow_unknown. multi_label: several labels an image.
    Raises ValueError for the other kind of images, fewer than two classes in common, and unknown labels that are not allowed.
    """
    fields = {"label_field": label_field, "group_field": group_field}
    one_set = isinstance(labelled, (str, Path)) or all(str(part).endswith(".tar") for part in labelled)
    whole: Any = labelled
    addresses = {address_name(whole): whole} if one_set and labelled else named_addresses(labelled)
    parts = {name: load_labelled(address, **fields) for name, address in addresses.items()}
    asked = {name: load_labelled(address, **fields) for name, address in named_addresses(tests).items()}
    for name, part in {**parts, **asked}.items():
        if multi_label and not part.multi_label:
            raise ValueError(f"{name} has one label an image: give COCO annotations (instances_….json), or use notebook 07")
        if not multi_label:
            part.expect_single_labels()
    images, (first, test) = joined(list(parts.values()), list(parts)), next(iter(asked.items()))
    source = np.repeat(np.arange(len(parts)), [len(part) for part in parts.values()])
    classes = _shared_classes(images, test, first)
    vocabulary = getattr(model, "vocabulary", None)  # CLIP has none
    meant = map_classes(classes, label_set, label_mapping, vocabulary)
    if meant.unknown and not allow_unknown:
        raise ValueError(
            f"WordNet has no noun for {len(meant.unknown)} of {len(meant)} labels ({listed(meant.unknown)}): say what they "
            "mean in a CSV with columns label,wnids (`label_mapping`), name the `label_set` they are of, or set allow_unknown "
            "to start them at random"
        )
    borrowed = [NOTHING] * len(meant)
    if vocabulary is not None:
        borrowed = borrow_rows(meant, vocabulary, borrow, min_similarity=borrow_similarity)
    place = np.arange(len(images))
    if not multi_label:
        place = place[np.isin(images.indices, [images.classes.index(name) for name in classes])]
    over = {name: _over_classes(part, classes, name) for name, part in asked.items()}
    return Task(model, meant, borrowed, _over_classes(images, classes, "labelled"), source[place], list(parts), place, over)


def _shared_classes(images: LabelledImages, test: LabelledImages, name: str) -> list[str]:
    """Classes that both have images of, in the order of the labelled images; what only one side has is told."""
    have, asked = images.present(), test.present()
    refuse_alike(list(dict.fromkeys([*have, *asked])), f"the labelled images and {name}")
    shared = [label for label in have if label in set(asked)]
    for names, where in (
        (set(asked) - set(shared), f"only {name} has"),
        (set(have) - set(shared), "only the labelled images have"),
    ):
        if names and is_main():
            logger.warning("%d class(es) that %s are left out: %s", len(names), where, listed(sorted(names)))
    if len(shared) < 2:
        raise ValueError(
            f"the labelled images ({len(have)} classes, such as {listed(have, 3)}) and {name} ({len(asked)}, such as "
            f"{listed(asked, 3)}) have {len(shared)} class(es) in common: a task needs two"
        )
    return shared


def _over_classes(images: LabelledImages, classes: list[str], name: str) -> LabelledImages:
    """The images of these classes, over all of these, whether the set knows each or not."""
    if images.multi_label and images.classes == classes:
        return images  # else its fingerprint says which classes were asked for, and a training of them goes on
    known = [label for label in classes if label in set(images.classes)]
    if not known:
        raise ValueError(
            f"{name} has no image of the task's {len(classes)} classes, its own are such as {listed(images.classes, 3)}"
        )
    kept, place = images.of_classes(known), np.array([classes.index(label) for label in known])
    boxes = kept.boxes if kept.boxes is None else replace(kept.boxes, class_index=place[kept.boxes.class_index])
    return replace(kept, classes=classes, indices=place[kept.indices], boxes=boxes)


# ---------------------------------------------------------------- as one backbone sees it


@dataclass(frozen=True)
class Part:
    """Labelled images with one backbone's features, float32 [N, D]; row i of both is the same image. rows: int64 [N], which of
    the images that were asked for each is, where some could not be read."""

    images: LabelledImages
    features: np.ndarray
    rows: np.ndarray

    def __len__(self) -> int:
        return len(self.features)

    @cached_property
    def targets(self) -> np.ndarray:
        """Class indices, int64 [N]."""
        return self.images.indices

    def take(self, rows: np.ndarray) -> Part:
        """Some of the images, in the order of `rows` (indices or a mask)."""
        return Part(self.images.take(rows), self.features[rows], self.rows[rows])


def embedded(model: PretrainedModel, images: LabelledImages, cache: Path | None = None, *, workers: int = 0) -> Part:
    """Images with the features that a model gives them, see `extract`."""
    features, rows = extract(model, images, cache, workers=workers)
    return Part(images if len(rows) == len(images) else images.take(rows), features, rows)


def split_validation(
    images: LabelledImages, group: str | None = None, share: float = 0.2, most: int = MOST_VALIDATION
) -> np.ndarray:
    """Which training images validate, bool [N]: those of one group (so that validation is as unlike as test), else a random
    share of each class, `most` images in all: at least one, unless the class has no other. Raises ValueError for an empty
    split."""
    if group is not None:
        chosen = images.groups == group
        if not chosen.any() or chosen.all():
            there = ", ".join(sorted(set(images.groups)))
            raise ValueError(f"validation_group={group!r} must hold some of the training images, not all: groups are {there}")
        return chosen
    mine, sizes = images.indices, np.bincount(images.indices, minlength=len(images.classes))
    share = min(share, most / len(images))
    wanted = np.minimum(sizes - 1, np.maximum(1, np.round(share * sizes)))
    shuffled = np.random.default_rng(0).permutation(len(images))
    ordered = shuffled[np.argsort(mine[shuffled], kind="stable")]
    place = np.arange(len(images)) - np.repeat(np.cumsum(sizes) - sizes, sizes)  # within its class
    chosen = np.zeros(len(images), dtype=bool)
    chosen[ordered[place < wanted[mine[ordered]]]] = True
    if not chosen.any():
        raise ValueError(
            f"none of the {(sizes > 0).sum():,} classes has more than one image, so none is left for validation: give more "
            "labelled images or a validation_group"
        )
    return chosen


def draw(
    targets: np.ndarray, source: np.ndarray, seed: int, *, shots: int | None = None, fraction: float | None = None
) -> np.ndarray:
    """Rows of a pool to train on, ascending: `shots` images a class, or a fraction; a larger one of a seed holds the smaller.

    targets, source: int64 [N]. A fraction is drawn at random from all images; images a class at random within each, those of
    the first source first, fewer where a class has fewer.
    """
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(targets))
    if fraction is not None:
        return np.sort(order[: round(fraction * len(targets))])
    order = order[np.lexsort((source[order], targets[order]))]  # stable: random among equals
    of_class = targets[order]
    return np.sort(order[np.arange(len(order)) - np.searchsorted(of_class, of_class) < shots])  # type: ignore[operator]  # one of both is given
