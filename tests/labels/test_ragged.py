"""Rows of different lengths in one flat array."""

import numpy as np

from catlip_lite.labels.ragged import ends_of_kept, first_in_row, keys_by_row, lengths_of, take_rows

FLAT, ENDS = np.array([1, 2, 3, 4, 5], dtype=np.int32), np.array([2, 2, 5])  # [1 2] [] [3 4 5]


def rows(flat, ends):
    return [part.tolist() for part in np.split(flat, ends)[: len(ends)]]


def test_rows_are_as_long_as_their_ends_are_apart():
    assert lengths_of(ENDS).tolist() == [2, 0, 3]


def test_rows_of_which_some_members_are_kept_end_earlier():
    kept = FLAT % 2 == 1
    assert rows(FLAT[kept], ends_of_kept(ENDS, kept)) == [[1], [], [3, 5]]


def test_rows_can_be_taken_in_any_order_and_twice():
    positions, ends = take_rows(ENDS, np.array([2, 1, 0, 0]))
    assert rows(FLAT[positions], ends) == [[3, 4, 5], [], [1, 2], [1, 2]]


def test_keys_sort_by_row_before_they_sort_by_value():
    assert np.argsort(keys_by_row(FLAT[::-1], ENDS)).tolist() == [1, 0, 4, 3, 2]


def test_the_first_of_equal_values_is_found_row_by_row():
    values = np.array([7, 7, 5, 7, 5, 5], dtype=np.int32)
    assert first_in_row(values, np.array([3, 6])).tolist() == [True, False, True, True, True, False]
