"""What the tests of labels at corpus scale share: a few captions as files, and short words for what is asked of results."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from catlip_lite.data.captions import read_captions
from catlip_lite.label_captions import LabelReport, label_corpus

CAPTIONS = ["a dog and a cat", None, "an apple, a dog", "of the and", " ", "ice cream for the dog", "Überall ein Hund", "a dog"]
DOG, CAT = "n02084071", "n02121620"


def write_parquet(path: Path, captions=CAPTIONS, uids=None, column="caption") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    columns = {column: pa.array(captions)}
    if uids is not None:
        columns["uid"] = pa.array(uids)
    pq.write_table(pa.table(columns), path)
    return path


def run(source, destination, **options) -> LabelReport:
    return label_corpus(source, destination, **{"workers": 1, **options})


def all_captions(parquets: Path) -> list:
    return read_captions([str(parquets / f"{i}.parquet") for i in range(3)])


def labels_of(destination: Path, stem: str) -> pa.Table:
    (path,) = destination.glob(f"{stem}-*.labels.parquet")
    return pq.read_table(path)


def contents(destination: Path) -> dict[str, bytes]:
    """All files of a folder, hidden ones too."""
    return {path.name: path.read_bytes() for path in destination.iterdir()}


def stems(destination: Path) -> set[str]:
    """The source files that have labels."""
    return {path.name.partition("-")[0] for path in destination.glob("*.labels.parquet")}


def truncated(path: Path, size: int) -> Path:
    path.write_bytes(path.read_bytes()[:size])
    return path
