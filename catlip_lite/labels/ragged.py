"""Ragged arrays: N rows of different lengths as one flat array and the position where each row ends."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def ends_of(lengths: Sequence[int] | np.ndarray) -> np.ndarray:
    """Where rows of these lengths end: int64 [N]."""
    return np.cumsum(lengths, dtype=np.int64)


def lengths_of(ends: np.ndarray) -> np.ndarray:
    """The lengths of rows that end there: int64 [N]."""
    return np.diff(ends, prepend=0)


def rows_at(ends: np.ndarray, positions: np.ndarray) -> np.ndarray:
    """The row that each flat position belongs to, int64."""
    return np.searchsorted(ends, positions, side="right")


def take_rows(ends: np.ndarray, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Choose rows, in any order: the flat positions of their members, and where the chosen rows end."""
    lengths = lengths_of(ends)[rows]
    return spans(ends[rows] - lengths, lengths)


def spans(starts: np.ndarray, lengths: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The positions starts[i], starts[i] + 1, … of each span, one after the other, and where the spans end among them."""
    ends = ends_of(lengths)
    return np.repeat(starts + lengths - ends, lengths) + np.arange(ends[-1] if len(ends) else 0), ends


def replace_rows(
    flat: np.ndarray, ends: np.ndarray, rows: np.ndarray, instead: Sequence[Sequence[int]]
) -> tuple[np.ndarray, np.ndarray]:
    """Put other members into some rows; returns the new flat array and ends."""
    if not len(rows):
        return flat, ends
    members = np.fromiter((m for row in instead for m in row), dtype=flat.dtype)
    all_ends = np.append(ends, (ends[-1] if len(ends) else 0) + ends_of([len(row) for row in instead]))
    chosen = np.arange(len(ends))
    chosen[rows] = len(ends) + np.arange(len(rows))
    positions, new_ends = take_rows(all_ends, chosen)
    return np.append(flat, members)[positions], new_ends


def first_in_row(values: np.ndarray, ends: np.ndarray) -> np.ndarray:
    """Where each value occurs for the first time in its row: bool, like values (int32, 0 or more)."""
    keys = np.repeat(np.arange(len(ends), dtype=np.int64) << 32, lengths_of(ends)) | values
    ordered = np.sort(keys)
    repeated = np.unique(ordered[1:][ordered[1:] == ordered[:-1]])
    first = np.ones(len(values), dtype=bool)
    if len(repeated):
        at = np.flatnonzero(repeated[np.minimum(np.searchsorted(repeated, keys), len(repeated) - 1)] == keys)
        first[at] = False
        first[at[np.unique(keys[at], return_index=True)[1]]] = True
    return first
