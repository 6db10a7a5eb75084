"""What is asked of a layout, and label values as files hold them (names, numbers, lists of either) → classes and indices."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from fsspec.core import url_to_fs

from ...labels.ragged import ends_of_kept, first_in_row, lengths_of
from .images import LabelledImages, counted, labelled_images, ordered_classes
from .pointers import ImagePointers

logger = logging.getLogger(__name__)

CLASS_LISTS = ("classes.txt", "classnames.txt")


@dataclass(frozen=True)
class Wanted:
    """What is asked of a layout. path: an address without what follows its #, or a list of tars. selection: the value that each
    of these fields must have. skip_missing: files that are not there are left out."""

    path: str | list[str]
    label_field: str = "label"
    group_field: str = "vendor"
    selection: Mapping[str, str] = field(default_factory=dict)
    skip_missing: bool = False

    @property
    def fields(self) -> list[str]:
        """The fields that are looked at, each once."""
        return list(dict.fromkeys([self.label_field, self.group_field, *self.selection]))

    def refuse_selection(self) -> None:
        """Raises ValueError for a selection, in a layout that has no fields."""
        if self.selection or self.skip_missing:
            raise ValueError(
                f"{self.path}: only shards, tables, lists and annotations can be selected from: leave out what follows #"
            )


def parse_selection(text: str) -> tuple[dict[str, str], bool]:
    """`selection` and `skip_missing` of "split=train&missing=skip". Raises ValueError for anything else."""
    chosen = {}
    for part in text.split("&") if text else []:
        name, equals, value = part.partition("=")
        if not (name and equals) or name in chosen or (name == "missing" and value != "skip"):
            raise ValueError(f"#{text}: write field=value, e.g. #split=train, or missing=skip; several are joined by &")
        chosen[name] = value
    skip_missing = chosen.pop("missing", None) is not None
    return chosen, skip_missing


def from_values(
    files: ImagePointers,
    values: Mapping[str, Sequence],
    wanted: Wanted,
    *,
    there: str,
    names_of_numbers: Sequence[str] | None,
    stamps: Sequence[np.ndarray | bytes],
) -> LabelledImages:
    """Labelled images of label values: names, numbers (of `names_of_numbers`, or names themselves) or lists of either.

    values: of each field, a value an image; None where it has none. there: for messages, where fields are kept. stamps: see
    `labelled_images`.
    """
    where, label_field, groups = str(wanted.path), wanted.label_field, values.get(wanted.group_field)
    rows = np.flatnonzero(_selected(values, wanted, there))
    labels = [values[label_field][i] for i in rows.tolist()]
    is_list = np.array([isinstance(label, list) for label in labels])
    lists = [label if isinstance(label, list) else [label] for label in labels]
    flat, ends = [one for label in lists for one in label], np.cumsum([len(label) for label in lists], dtype=np.int64)
    odd = [one for one in flat if isinstance(one, (dict, list, bytes))]
    if odd:
        raise ValueError(
            f"{where}: {label_field!r} holds {type(odd[0]).__name__} for {len(odd):,} labels, such as {str(odd[0])[:80]}, "
            "where names, numbers or lists of them are expected: name another field"
        )
    no_label = ("",) if names_of_numbers is None else ("", -1, "-1")  # -1 is what test splits without labels have
    codes, distinct = pd.factorize(np.array([None if one in no_label else one for one in flat], dtype=object))
    times = np.bincount(codes[codes >= 0], minlength=len(distinct))
    classes, index = class_indices(distinct.tolist(), times.tolist(), where, names_of_numbers)
    ends, indices = ends_of_kept(ends, codes >= 0), index[codes[codes >= 0]]  # None and NaN have the code -1
    labelled = is_list | (lengths_of(ends) > 0)
    if not labelled.any():
        raise ValueError(f"{where}: no image has a label: its samples need {label_field!r} {there}")
    if not labelled.all():
        logger.warning("%s: %s of %s images have no label and are left out", where, f"{(~labelled).sum():,}", f"{len(rows):,}")
    single = int((labelled & ~is_list).sum())
    if is_list.any() and single:
        raise ValueError(
            f"{where}: {label_field!r} is a list for {is_list.sum():,} images and a single label for {single:,}: give all of "
            "them lists, or none"
        )
    if not single:  # a label that a list names twice is one
        first = first_in_row(indices.astype(np.int32), ends)
        ends, indices = ends_of_kept(ends, first), indices[first]
    rows = rows[labelled]
    return labelled_images(
        files if len(rows) == len(files) else files.take(rows),
        classes,
        indices,
        [*stamps, rows],
        counts=None if single else lengths_of(ends),
        groups=groups and ["" if groups[i] is None else str(groups[i]) for i in rows.tolist()],
    )


def _selected(values: Mapping[str, Sequence], wanted: Wanted, there: str) -> np.ndarray:
    """Which samples have the wanted values, bool [N]. Raises ValueError if none has."""
    kept = np.ones(len(values[wanted.label_field]), bool)
    for name, value in wanted.selection.items():
        texts = [None if one is None else str(one) for one in values.get(name, ())]
        times = Counter(text for text in texts if text is not None)
        if not times:
            raise ValueError(f"{wanted.path}: no sample has {name!r} {there}")
        if value not in times:
            raise ValueError(f"{wanted.path}: no sample has {name}={value}: its values are {counted(times)}")
        kept &= [text == value for text in texts]
    if not kept.any():
        raise ValueError(f"{wanted.path}: no sample has {' and '.join(map('='.join, wanted.selection.items()))}")
    return kept


def class_indices(
    labels: Sequence, times: Sequence[int], where: str, names_of_numbers: Sequence[str] | None
) -> tuple[list[str], np.ndarray]:
    """Class names and the index of each label, int64: names are ordered, numbers take the given names in their order.

    labels: distinct; times: how often each occurs. Labels may be given names themselves. If none is that nor a number, the list
    is about something else, and names are ordered.
    """
    if names_of_numbers is not None:
        place = {name: i for i, name in enumerate(names_of_numbers)}
        found = [place.get(label, _number(label)) for label in labels]
        numbers = [i for i in found if i is not None]
        odd = Counter({label: n for label, n, i in zip(labels, times, found, strict=True) if i is None})
        if odd and len(odd) < len(labels):
            raise ValueError(
                f"{where}: {odd.total():,} of {sum(times):,} labels are neither numbers nor among the {len(place):,} class "
                f"names given: {counted(odd)}: correct them, or move the list of names elsewhere"
            )
        if numbers and not odd and not 0 <= min(numbers) <= max(numbers) < len(names_of_numbers):
            raise ValueError(
                f"{where}: labels go from {min(numbers)} to {max(numbers)}, but {len(place):,} class names are given"
            )
        if not odd:
            return list(names_of_numbers), np.array(numbers, dtype=np.int64)
    names = [str(int(label)) if isinstance(label, float) and label.is_integer() else str(label) for label in labels]
    classes = ordered_classes(names)
    place = {name: i for i, name in enumerate(classes)}
    return classes, np.array([place[name] for name in names], dtype=np.int64)


def _number(label: Any) -> int | None:
    """The whole number that a label is: 2, 2.0 or "2"."""
    if isinstance(label, str):
        return int(label) if label.removeprefix("-").isdecimal() else None
    is_whole = isinstance(label, (int, float)) and not isinstance(label, bool) and float(label).is_integer()
    return int(label) if is_whole else None


def class_list(folder: str | Path) -> list[str] | None:
    """The names of numbered classes, a line each, in the classes.txt or classnames.txt that lies in a folder, here or in a
    store; None without.

    Raises ValueError for a blank line, which would shift the numbers; blank ones at the end do not count.
    """
    filesystem, place = url_to_fs(str(folder))
    name = next((name for name in CLASS_LISTS if filesystem.isfile(f"{place}/{name}")), None)
    if name is None:
        return None
    path = f"{folder}/{name}"
    lines = [line.strip() for line in _decoded(filesystem.cat_file(f"{place}/{name}"), path).rstrip().splitlines()]
    if "" in lines:
        raise ValueError(f"{path}: line {lines.index('') + 1} is blank, but numbers count the lines: name that class")
    return lines


def read_text(path: Path) -> str:
    """The text of a UTF-8 file, with or without a byte order mark. Raises ValueError, naming it, for other encodings."""
    return _decoded(path.read_bytes(), path)


def _decoded(content: bytes, path: str | Path) -> str:
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not in UTF-8 ({error.reason} at byte {error.start:,}): save it in UTF-8") from error
