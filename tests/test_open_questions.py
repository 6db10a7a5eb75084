"""Chapter 13 reads a corpus of several languages caption by caption."""

from __future__ import annotations

import ast
from functools import cache
from pathlib import Path

import nbformat
import numpy as np
import pyarrow as pa

from catlip_lite.data.shards import BETWEEN
from catlip_lite.labels import CaptionLabeler

CHAPTER = Path(__file__).resolve().parents[1] / "notebooks" / "13_open_questions.ipynb"
EIS = 7615774


class German:
    def label_column(self, captions):
        return pa.array([[EIS] if caption.endswith("eis") else [] for caption in captions], pa.list_(pa.int32()))


def test_each_caption_of_a_mixture_is_read_in_its_language():
    (cell,) = [cell for cell in nbformat.read(CHAPTER, as_version=4).cells if "class ByLanguage" in cell.source]
    names = {"np": np, "pa": pa, "BETWEEN": BETWEEN, "cache": cache, "CaptionLabeler": CaptionLabeler}
    exec(compile(ast.parse(cell.source), CHAPTER.name, "exec"), names)
    names["reader_of"] = {"en": CaptionLabeler(), "de": German()}.__getitem__
    captions = ["en | an apple", "de | eis", "", "en | a dog | eis", "de | hund", "en | eis", "de | ein eis"]
    labels = names["ByLanguage"]().label_column(captions)
    assert labels.to_pylist() == [[7739125], [EIS], [], [2084071], [], [], [EIS]]
