"""A corpus of three parquet files, and where its labels go."""

from pathlib import Path

import pytest
from label_corpora import CAPTIONS, write_parquet


@pytest.fixture
def parquets(tmp_path) -> Path:
    """Three files of other captions each: the corpus is their 15 captions."""
    for i, part in enumerate([CAPTIONS, CAPTIONS[:4], CAPTIONS[2:5]]):
        write_parquet(tmp_path / "corpus" / f"{i}.parquet", part, [f"u{i}-{row}" for row in range(len(part))])
    return tmp_path / "corpus"


@pytest.fixture
def out(tmp_path) -> Path:
    return tmp_path / "out"
