"""Rows of different lengths in one flat array."""

import numpy as np

from catlip_lite.labels.ragged import ends_of, first_in_row, lengths_of, replace_rows, rows_at, take_rows

FLAT, ENDS = np.array([1, 2, 3, 4, 5], dtype=np.int32), np.array([2, 2, 5])  # [1 2] [] [3 4 5]


def rows(flat, ends):
    return [part.tolist() for part in np.split(flat, ends)[: len(ends)]]


def test_ends_and_lengths_are_each_others_inverse():
    assert (ends_of([2, 0, 3]).tolist(), lengths_of(ENDS).tolist()) == ([2, 2, 5], [2, 0, 3])


def test_a_position_belongs_to_the_row_that_holds_it():
    assert rows_at(ENDS, np.arange(5)).tolist() == [0, 0, 2, 2, 2]


def test_rows_can_be_taken_in_any_order_and_twice():
    positions, ends = take_rows(ENDS, np.array([2, 1, 0, 0]))
    assert rows(FLAT[positions], ends) == [[3, 4, 5], [], [1, 2], [1, 2]]


def test_replaced_rows_may_have_other_lengths():
    assert rows(*replace_rows(FLAT, ENDS, np.array([0, 1]), [[], [7, 8]])) == [[], [7, 8], [3, 4, 5]]


def test_nothing_to_replace_leaves_all_as_it_is():
    assert rows(*replace_rows(FLAT, ENDS, np.array([], dtype=int), [])) == [[1, 2], [], [3, 4, 5]]


def test_the_first_of_equal_values_is_found_row_by_row():
    values = np.array([7, 7, 5, 7, 5, 5], dtype=np.int32)
    assert first_in_row(values, np.array([3, 6])).tolist() == [True, False, True, True, True, False]
