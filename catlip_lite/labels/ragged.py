"""Ragged arrays: N rows of different lengths as one flat array and the position where each row ends."""

from __future__ import annotations

import numpy as np


def lengths_of(ends: np.ndarray) -> np.ndarray:
    """The lengths of rows that end there: int64 [N]."""
    return np.diff(ends, prepend=0)


def ends_of_kept(ends: np.ndarray, kept: np.ndarray) -> np.ndarray:
    """Where rows end of which only some members are kept: int64 [N]. kept: bool, a value for each member."""
    return np.append(0, np.cumsum(kept))[ends]


def take_rows(ends: np.ndarray, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Choose rows, in any order: the flat positions of their members, and where the chosen rows end."""
    lengths = lengths_of(ends)[rows]
    return spans(ends[rows] - lengths, lengths)


def spans(starts: np.ndarray, lengths: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The positions starts[i], starts[i] + 1, … of each span, one after the other, and where the spans end among them."""
    ends = np.cumsum(lengths, dtype=np.int64)
    return np.repeat(starts + lengths - ends, lengths) + np.arange(ends[-1] if len(ends) else 0), ends


def keys_by_row(values: np.ndarray, ends: np.ndarray) -> np.ndarray:
    """A number for each value (int32, 0 or more) that sorts by row, then value: int64, row << 32 | value."""
    return np.repeat(np.arange(len(ends), dtype=np.int64) << 32, lengths_of(ends)) | values


def first_in_row(values: np.ndarray, ends: np.ndarray) -> np.ndarray:
    """Where each value occurs for the first time in its row: bool, like values (int32, 0 or more)."""
    first = np.zeros(len(values), dtype=bool)
    first[np.unique(keys_by_row(values, ends), return_index=True)[1]] = True
    return first
