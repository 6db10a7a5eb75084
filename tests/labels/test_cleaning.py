"""Cleaning is the reference's, in its order, one by one and a column at a time."""

import re
from urllib.parse import unquote

import ftfy
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from nasty_captions import HAND_PICKED, random_captions

from catlip_lite.labels.tokenising import as_text_column, clean_caption, clean_column

CAPTIONS = [*HAND_PICKED, *random_captions(3000)]


def straight(caption):
    text = re.sub(r"<.*?>", "", unquote(str(caption)).replace("+", " ")).strip("\n")
    return ftfy.fix_text(re.sub(" +", " ", text)).strip().lower()


@pytest.mark.parametrize(
    "raw, clean",
    [
        ("  A+Red%20Apple ", "a red apple"),
        ("dog<br>cat", "dogcat"),  # tags go without a space, as in the reference
        ("I <3 dogs > cats", "i cats"),
        ("&lt;b&gt;bold", "<b>bold"),  # entities are decoded after tags are removed
        ("it’s schÃ¶n", "it's schön"),
        (None, "none"),
        (["a dog", "a cat"], "['a dog', 'a cat']"),
    ],
)
def test_cleaning_follows_the_references_steps(raw, clean):
    assert clean_caption(raw) == clean


def test_shortcuts_change_no_text():
    assert [clean_caption(c) for c in CAPTIONS] == [straight(c) for c in CAPTIONS]


def test_a_column_is_cleaned_like_its_captions():
    assert clean_column(pa.array(CAPTIONS)).to_pylist() == [clean_caption(c) for c in CAPTIONS]


def test_a_column_can_keep_its_capitals():
    assert clean_column(pa.array(["A  Red%20Apple"]), lower=False).to_pylist() == ["A Red Apple"]


def test_a_slice_of_a_column_is_cleaned_alone():
    assert clean_column(pa.array(["A dog", "", "  A  CAT ", "x"]).slice(1, 2)).to_pylist() == ["", "a cat"]


def test_a_megabyte_of_open_brackets_is_cleaned_in_linear_time():
    # A regular expression that looks for the end of a tag at each "<" would take hours.
    assert clean_caption("<" * 1_000_000 + "\n>") == "<" * 1_000_000 + "\n>"


@pytest.mark.parametrize(
    "value, text",
    [
        (None, ""),
        (float("nan"), ""),
        (b"a dog", "a dog"),
        (b"\xff", "\ufffd"),
        (["a dog", None, "a cat"], "a dog |  | a cat"),
        (np.array(["a dog", None, "a cat"], dtype=object), "a dog |  | a cat"),  # as read_parquet gives a column of lists
        (pd.NA, ""),
        (7, "7"),
    ],
)
def test_values_that_are_no_string_become_text(value, text):
    assert as_text_column([value], literal=False).to_pylist() == [text]


def test_the_reference_takes_values_literally():
    assert as_text_column([None, b"x", ["a"]], literal=True).to_pylist() == ["None", "b'x'", "['a']"]


def test_missing_values_of_a_column_are_empty_text():
    assert as_text_column(pa.array(["a", None]), literal=False).to_pylist() == ["a", ""]


def test_half_a_surrogate_pair_is_mended():
    assert as_text_column(["\ud800 dog"], literal=False).to_pylist() == ["\ufffd dog"]


def test_columns_of_other_text_types_are_read():
    kinds = (pa.large_string(), pa.string_view(), pa.dictionary(pa.int32(), pa.string()))
    assert [as_text_column(pa.array(["a", "b"]).cast(kind), literal=False).to_pylist() for kind in kinds] == [["a", "b"]] * 3
