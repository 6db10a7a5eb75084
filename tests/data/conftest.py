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


@pytest.fixture
def own_cache(tmp_path, monkeypatch):
    """Indexes of tars stay in the test's folder."""
    monkeypatch.setenv("CATLIP_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def class_folders(tmp_path, make_png):
    """A function of {class: [file names]} that writes them; returns the folder."""

    def write(classes, folder="pictures"):
        top = tmp_path / folder
        for i, (name, files) in enumerate(classes.items()):
            (top / name).mkdir(parents=True)
            for j, file in enumerate(files):
                (top / name / file).parent.mkdir(exist_ok=True)
                (top / name / file).write_bytes(make_png((40 * i, 10 * j, 0)))
        return top

    return write


@pytest.fixture
def pictures(make_png):
    """Six different images."""
    return [make_png((i * 40, 0, 0)) for i in range(6)]
