"""Label values as files hold them (names, numbers, lists of either) → classes and indices; selection by `#field=value`."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from .images import LabelledImages, counted, labelled_images, ordered_classes, refuse_alike, some
from .pointers import ImagePointers

logger = logging.getLogger(__name__)

CLASS_LISTS = ("classes.txt", "classnames.txt")
MISSING = "missing"  # the option of an address that is no field


@dataclass(frozen=True)
class Selection:
    """What stands behind the # of an address. wanted: (field, value) pairs, all of which must hold; skip_missing: files that
    are not there are left out."""

    wanted: tuple[tuple[str, str], ...] = ()
    skip_missing: bool = False

    @property
    def fields(self) -> list[str]:
        """The fields that it looks at."""
        return [name for name, _ in self.wanted]

    @classmethod
    def parse(cls, text: str) -> Selection:
        """Of "split=train" or "split=train&missing=skip". Raises ValueError for anything else."""
        wanted, skip = [], False
        for part in text.split("&") if text else []:
            name, equals, value = part.partition("=")
            if not (name and equals) or (name == MISSING and value != "skip"):
                raise ValueError(f"#{text}: write field=value, e.g. #split=train, or missing=skip; several are joined by &")
            if name == MISSING:
                skip = True
            else:
                wanted.append((name, value))
        return cls(tuple(wanted), skip)

    def without(self, *names: str) -> tuple[str, Selection]:
        """What chooses by these names, as it is written, and the rest."""
        mine = [pair for pair in self.wanted if pair[0] in names]
        rest = Selection(tuple(pair for pair in self.wanted if pair not in mine), self.skip_missing)
        return "&".join("=".join(pair) for pair in mine), rest

    def rows(self, values: dict[str, Sequence], where: str, there: str) -> np.ndarray:
        """Which samples have the wanted values, bool [N]. Raises ValueError if none has."""
        kept = None
        for name, value in self.wanted:
            found = [_text(v) for v in values[name]]
            if all(v is None for v in found):
                raise ValueError(f"{where}: no sample has {name!r} {there}")
            here = np.array([v == value for v in found], dtype=bool)
            if not here.any():
                counts = ", ".join(f"{v} ({n:,})" for v, n in Counter(v for v in found if v is not None).most_common(8))
                raise ValueError(f"{where}: no sample has {name}={value}: its values are {counts}")
            kept = here if kept is None else kept & here
        if kept is not None and not kept.any():
            raise ValueError(f"{where}: no sample has {' and '.join('='.join(pair) for pair in self.wanted)}")
        return np.ones(len(next(iter(values.values()))), bool) if kept is None else kept


@dataclass(frozen=True)
class Wanted:
    """What is asked of a layout. path: an address without its selection, or a list of tars."""

    path: str | list[str]
    selection: Selection
    label_field: str = "label"
    group_field: str = "vendor"

    @property
    def parts(self) -> list[str]:
        """The path, or the paths."""
        return [self.path] if isinstance(self.path, str) else self.path

    @property
    def fields(self) -> list[str]:
        """The fields that are looked at, each once."""
        return list(dict.fromkeys([self.label_field, self.group_field, *self.selection.fields]))

    def refuse_selection(self) -> None:
        """Raises ValueError for a selection, in a layout that has no fields."""
        if self.selection != Selection():
            raise ValueError(
                f"{self.path}: only shards, tables, lists and annotations can be selected from: leave out what follows #"
            )


def from_values(
    files: ImagePointers,
    values: dict[str, list],
    wanted: Wanted,
    *,
    there: str,
    names_of_numbers: Sequence[str] | None,
    stamps: Sequence[np.ndarray | bytes],
) -> LabelledImages:
    """Labelled images of label values: names, numbers (of `names_of_numbers`, or names themselves) or lists of either.

    values: of each field, a value an image; None where it has none. there: for messages, where fields are kept. stamps: see
    `labelled_images`. Images without a label are left out and counted.
    """
    where, label_field, group_field, selection = str(wanted.path), wanted.label_field, wanted.group_field, wanted.selection
    kept = selection.rows(values, where, there)
    labels = _plain_labels(values[label_field], where, label_field, names_of_numbers)
    has_label = np.array([label is not None and label != "" for label in labels], dtype=bool)
    if not has_label[kept].any():
        raise ValueError(f"{where}: no image has a label: its samples need {label_field!r} {there}")
    unlabelled = int((kept & ~has_label).sum())
    if unlabelled:
        logger.warning("%s: %s of %s images have no label and are left out", where, f"{unlabelled:,}", f"{kept.sum():,}")
    rows = np.flatnonzero(kept & has_label)
    labels = [labels[i] for i in rows.tolist()]
    lists = sum(isinstance(label, list) for label in labels)
    if 0 < lists < len(labels):
        raise ValueError(
            f"{where}: {label_field!r} is a list for {lists:,} images and a single label for {len(labels) - lists:,}: give all "
            "of them lists, or none"
        )
    groups = [_text(values[group_field][i]) or "" for i in rows.tolist()] if group_field in values else None
    if lists:
        labels = [[one for one in dict.fromkeys(label) if one is not None and one != ""] for label in labels]
    flat = [one for label in labels for one in label] if lists else labels
    classes, indices = class_indices(flat, where, names_of_numbers)
    counts = [len(label) for label in labels] if lists else None
    if len(rows) < len(files):
        files = files.take(rows)
    return labelled_images(files, classes, indices, [*stamps, rows], counts=counts, groups=groups)


def class_indices(labels: Sequence, where: str, names_of_numbers: Sequence[str] | None) -> tuple[list[str], np.ndarray]:
    """Class names and the index of each label: names are ordered, numbers take the given names in their order.

    Labels may be given names themselves. If none is that nor a number, the list is about something else, and names are ordered.
    """
    if names_of_numbers is not None:
        place = {name: i for i, name in enumerate(names_of_numbers)}
        found = [place.get(label) if isinstance(label, str) else label for label in labels]
        odd = Counter(label for label, i in zip(labels, found, strict=True) if not _is_int(i))
        if odd.total() < len(labels) or not labels:
            return distinct(names_of_numbers, where), _numbered(found, odd, len(names_of_numbers), where)
    names = [str(label) for label in labels]
    classes = ordered_classes(names)
    refuse_alike(classes, where)
    place = {name: i for i, name in enumerate(classes)}
    return classes, np.fromiter((place[name] for name in names), np.int64, len(names))


def _numbered(found: list, odd: Counter, num_classes: int, where: str) -> np.ndarray:
    """The indices, int64, if all are those of given names."""
    if odd:
        raise ValueError(
            f"{where}: {odd.total():,} of {len(found):,} labels are neither numbers nor among the {num_classes:,} class names "
            f"given: {counted(odd)}: correct them, or move the list of names elsewhere"
        )
    indices = np.array(found, dtype=np.int64)
    if len(indices) and not (indices.min() >= 0 and indices.max() < num_classes):
        raise ValueError(
            f"{where}: labels go from {indices.min()} to {indices.max()}, but {num_classes:,} class names are given"
        )
    return indices


def _plain_labels(labels: Sequence, where: str, label_field: str, names_of_numbers: Sequence[str] | None) -> list:
    """Labels, or lists of them, as names and whole numbers; None for "no label". Raises ValueError for dicts and the like."""
    given = None if names_of_numbers is None else set(names_of_numbers)
    plain = [
        [_plain(one, given) for one in label] if isinstance(label, (list, tuple)) else _plain(label, given) for label in labels
    ]
    flat = (one for label in plain for one in (label if isinstance(label, list) else [label]))
    odd = [one for one in flat if isinstance(one, (dict, list, tuple, bytes))]
    if odd:
        raise ValueError(
            f"{where}: {label_field!r} holds {type(odd[0]).__name__} for {len(odd):,} labels, such as {str(odd[0])[:80]}, "
            "where names, numbers or lists of them are expected: name another field"
        )
    return plain


def _plain(label, given: set[str] | None):
    """A label with whole floats, and digits if names are given, as numbers; None for NaN, and -1 if names are given: what test
    splits without labels have."""
    if isinstance(label, (float, np.floating)):
        if np.isnan(label):
            return None
        label = int(label) if float(label).is_integer() else float(label)
    if given is not None and isinstance(label, str) and label not in given and label.removeprefix("-").isdecimal():
        label = int(label)
    return None if given is not None and _is_int(label) and label == -1 else label


def _is_int(label) -> bool:
    return isinstance(label, (int, np.integer)) and not isinstance(label, bool)


def class_list(folder: Path) -> list[str] | None:
    """The names of numbered classes, a line each, in the classes.txt or classnames.txt that lies in a folder; None without.

    Raises ValueError for a blank line, which would shift the numbers; blank ones at the end do not count.
    """
    path = next((folder / name for name in CLASS_LISTS if (folder / name).is_file()), None)
    if path is None:
        return None
    lines = [line.strip() for line in read_text(path).rstrip().splitlines()]
    if "" in lines:
        raise ValueError(f"{path}: line {lines.index('') + 1} is blank, but numbers count the lines: name that class")
    return lines


def read_text(path: Path) -> str:
    """The text of a UTF-8 file, with or without a byte order mark. Raises ValueError, naming it, for other encodings."""
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not in UTF-8 ({error.reason} at byte {error.start:,}): save it in UTF-8") from error


def distinct(names: Sequence[str], where: str) -> list[str]:
    """A given list of class names, as it is. Raises ValueError if two are the same, or differ in spelling alone."""
    twice = [name for name, times in Counter(names).items() if times > 1]
    if twice:
        raise ValueError(f"{where}: class name(s) given twice: {some(twice)}: write them apart")
    refuse_alike(names, where)
    return list(names)


def _text(value) -> str | None:
    return None if value is None else str(value)
