"""Images with their labels as arrays: what every layout of `load_labelled` gives, and what its readers take.

Nothing is decoded here; a million images take some 100 bytes each.
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Any, Self

import numpy as np

from ...labels import LabelSet
from ...labels.label_sets import listed
from ...labels.ragged import take_rows
from ..index_cache import cached_index
from .pointers import ImagePointers

UNDERSTOOD = (
    "labelled images are a folder of class folders, WebDataset shards (.tar), tables (.parquet, .arrow, hf://…), COCO's "
    "instances_….json, ImageNet's tars or folders, or a list (.txt, .csv, .tsv) of paths and labels"
)


@dataclass(frozen=True, eq=False)
class Boxes:
    """The M annotated objects of a detection data set, in the order of their images.

    image: int64 [M], which image, ascending. class_index: int64 [M]. xywh: float32 [M, 4], left, top, width and height in
    pixels of the original image. crowd: bool [M], a box around many. size: int32 [M, 2], width and height of its image.
    """

    image: np.ndarray
    class_index: np.ndarray
    xywh: np.ndarray
    crowd: np.ndarray
    size: np.ndarray

    def __len__(self) -> int:
        return len(self.image)

    def only(self, chosen: np.ndarray) -> Boxes:
        """Some of the boxes, of the same images; chosen: bool [M] or int [m]."""
        return Boxes(self.image[chosen], self.class_index[chosen], self.xywh[chosen], self.crowd[chosen], self.size[chosen])

    def take(self, rows: np.ndarray, num_images: int) -> Boxes:
        """The boxes of some of num_images images, whose numbers become 0, 1, …; rows: int [n]."""
        counts = np.bincount(self.image, minlength=num_images)
        image = np.repeat(np.arange(len(rows), dtype=np.int64), counts[rows])
        return replace(self.only(take_rows(np.cumsum(counts), rows)[0]), image=image)


@dataclass(frozen=True, eq=False)
class ImageSet:
    """N images and what is known of them, not yet read.

    files: len(), name(i), read(i) -> encoded bytes. classes: C distinct names. fingerprint: 16 hex digits, of names, sizes,
    times of change and what is known.
    """

    files: ImagePointers
    classes: list[str]
    fingerprint: str

    def __len__(self) -> int:
        return len(self.files)

    def take(self, rows: np.ndarray | Sequence[int]) -> Self:
        """Some of the images, in the order of rows (indices or a mask); the classes stay."""
        rows = np.asarray(rows)
        rows = np.flatnonzero(rows) if rows.dtype == bool else rows.astype(np.int64)
        return replace(self, files=self.files.take(rows), fingerprint=digest([self.fingerprint, rows]), **self.known_of(rows))

    def sample(self, most: int | None) -> Self:
        """At most so many of the images, drawn at random with a fixed seed; None: all."""
        if most is None or most >= len(self):
            return self
        return self.take(np.sort(np.random.default_rng(0).permutation(len(self))[:most]))

    def known_of(self, rows: np.ndarray) -> dict:
        """What is known of some of the images, int64 [n], by field."""
        raise NotImplementedError


@dataclass(frozen=True, eq=False)
class LabelledImages(ImageSet):
    """N images with their labels; classes in a known benchmark's official order, else sorted.

    indices: int64 [M], the class indices of all images, end to end. counts: int64 [N], how many each image has: 1, unless
    multi_label, where 0 is possible. groups: str [N] (dtype object, so that one long text does not widen all), where each image
    comes from (e.g. its artist; "" if unknown). boxes: of a detection data set.
    """

    indices: np.ndarray
    counts: np.ndarray
    groups: np.ndarray
    multi_label: bool = False
    boxes: Boxes | None = None

    @property
    def labels(self) -> np.ndarray:
        """The class name of each image, str [N]. Raises ValueError for a multi-label set."""
        self.expect_single_labels()
        return np.array(self.classes, dtype=str)[self.indices]

    def expect_single_labels(self) -> None:
        """Raises ValueError for a multi-label set."""
        if self.multi_label:
            raise ValueError(
                f"these images have lists of labels ({len(self.indices):,} labels on {len(self):,} images), where one label "
                "an image is expected: give other data, or use notebook 10"
            )

    def known_of(self, rows: np.ndarray) -> dict:
        """`indices`, `counts`, `groups` and `boxes`."""
        indices = self.indices[take_rows(np.cumsum(self.counts), rows)[0]]
        boxes = None if self.boxes is None else self.boxes.take(rows, len(self))
        return {"indices": indices, "counts": self.counts[rows], "groups": self.groups[rows], "boxes": boxes}

    def of_classes(self, names: Sequence[str]) -> LabelledImages:
        """The images of these classes, which become the classes in this order; of a multi-label set all images, with the labels
        among these. Raises ValueError for names that are no class here."""
        place, known = {name: i for i, name in enumerate(names)}, set(self.classes)
        lacking = [name for name in names if name not in known]
        if lacking or len(place) < len(names):
            told = f"no classes of these images: {listed(lacking)}" if lacking else "a class is named twice"
            raise ValueError(f"{told}; they have {len(self.classes)}, such as {listed(self.classes)}")
        new_index = np.array([place.get(name, -1) for name in self.classes], dtype=np.int64)
        kept = self if self.multi_label else self.take(new_index[self.indices] >= 0)
        indices, boxes = new_index[kept.indices], kept.boxes
        image = np.repeat(np.arange(len(kept)), kept.counts)[indices >= 0]
        if boxes is not None:
            boxes = replace(boxes, class_index=new_index[boxes.class_index])
            boxes = boxes.only(boxes.class_index >= 0)
        return replace(
            kept,
            classes=list(names),
            indices=indices[indices >= 0],
            counts=np.bincount(image, minlength=len(kept)),
            fingerprint=digest(["\n".join([kept.fingerprint, *names])]),
            boxes=boxes,
        )

    def present(self) -> list[str]:
        """The classes that have at least one image here, in order."""
        return [self.classes[i] for i in np.unique(self.indices).tolist()]


def labelled_images(
    files: ImagePointers,
    classes: Sequence[str],
    indices: np.ndarray,
    stamps: Sequence[np.ndarray | bytes],
    *,
    counts: np.ndarray | None = None,
    groups: Sequence[str] | None = None,
    boxes: Boxes | None = None,
) -> LabelledImages:
    """Labelled images with their fingerprint.

    stamps: what the fingerprint is of besides the labels. counts: given for multi-label sets alone. groups: None if unknown.
    """
    multi_label, indices = counts is not None, np.asarray(indices, dtype=np.int64)
    counts = np.asarray(counts if multi_label else np.ones(len(files)), dtype=np.int64)
    groups = np.array([""] * len(files) if groups is None else [sys.intern(group) for group in groups], dtype=object)
    fingerprint = digest(["\n".join([*classes, "", *groups]), indices, counts, *stamps])
    return LabelledImages(files, list(classes), fingerprint, indices, counts, groups, multi_label, boxes)


def joined(parts: Sequence[LabelledImages], names: Sequence[str]) -> LabelledImages:
    """Several sets, one after the other, over the classes of all, in the order of a part that has them all, else ordered anew.

    names: what messages call them. Raises ValueError for sets of different kinds, and for classes that are spelled alike.
    """
    kinds = {part.multi_label: name for part, name in zip(parts, names, strict=True)}
    if len(kinds) > 1:
        raise ValueError(f"{kinds[True]} has lists of labels, {kinds[False]} one label an image: give sets of one kind")
    everything = set().union(*(part.classes for part in parts))
    classes = next((part.classes for part in parts if len(part.classes) >= len(everything)), None)
    classes = classes or ordered_classes(everything)
    refuse_alike(classes, " + ".join(names))
    if len(parts) == 1:
        return parts[0]
    place = {name: i for i, name in enumerate(classes)}
    maps = [np.array([place[name] for name in part.classes], dtype=np.int64) for part in parts]
    boxes = None
    held = [part.boxes for part in parts if part.boxes is not None]
    if len(held) == len(parts):
        starts = np.cumsum([0, *map(len, parts[:-1])])
        boxes = Boxes(
            np.concatenate([part.image + start for part, start in zip(held, starts, strict=True)]),
            np.concatenate([to[part.class_index] for part, to in zip(held, maps, strict=True)]),
            *(np.concatenate([getattr(part, name) for part in held]) for name in ("xywh", "crowd", "size")),
        )
    return labelled_images(
        ImagePointers.joined([part.files for part in parts]),
        classes,
        np.concatenate([to[part.indices] for part, to in zip(parts, maps, strict=True)]),
        [part.fingerprint.encode() for part in parts],
        counts=np.concatenate([part.counts for part in parts]) if parts[0].multi_label else None,
        groups=list(chain.from_iterable(part.groups for part in parts)),
        boxes=boxes,
    )


def ordered_classes(names: Iterable[str]) -> list[str]:
    """Class names in the official order if they are all those of COCO or Places365; else sorted, numbers by value."""
    names = set(names)
    for benchmark in ("coco-80", "places365"):
        official = LabelSet.load(benchmark).names
        if names == set(official):
            return list(official)
    return sorted(names, key=lambda name: (int(name), name)) if all(name.isdecimal() for name in names) else sorted(names)


def refuse_alike(classes: Sequence[str], where: str) -> None:
    """Raises ValueError, naming them, if two classes are the same or differ only in case or the way that spaces are written.

    Single characters are taken as they are: those of handwriting ("A" and "a") are distinct classes.
    """
    twice = [name for name, times in Counter(classes).items() if times > 1]
    if twice:
        raise ValueError(f"{where}: class name(s) given twice: {listed(twice)}: write them apart")
    seen = {}
    for name in classes:
        plain = name if len(name) == 1 else " ".join(name.replace("_", " ").split()).casefold()
        other = seen.setdefault(plain, name)
        if other != name:
            raise ValueError(f"{where}: the classes {other!r} and {name!r} differ only in spelling: give one of them up")


# ---------------------------------------------------------------- what the layouts share


def digest(parts: Iterable[str | bytes | np.ndarray]) -> str:
    """16 hex digits: SHA-256 over the parts, end to end."""
    sha = hashlib.sha256()
    for part in parts:
        part = part.encode("utf-8", "surrogateescape") if isinstance(part, str) else part
        sha.update(part.tobytes() if isinstance(part, np.ndarray) else part)
    return sha.hexdigest()[:16]


def kept_scan(path: str | Path, asked: str, scan: Callable[[], tuple], **how: Any) -> tuple[dict[str, np.ndarray], Any]:
    """The arrays and the JSON values that `scan` finds in a file, kept until it changes; asked, how: see `cached_index`."""

    def build() -> dict[str, np.ndarray]:
        arrays, facts = scan()
        return {**arrays, "facts": np.frombuffer(json.dumps(facts).encode(), np.uint8)}

    kept = cached_index(path, asked, build, **how)
    return kept, json.loads(kept["facts"].tobytes())


def counted(times: Counter) -> str:
    """ ".txt (3), .xml (2)", the most frequent first."""
    return listed([f"{what} ({n:,})" for what, n in times.most_common()])
