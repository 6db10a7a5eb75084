"""The kept index of a file holds for this very file alone."""

import os

import numpy as np
import pytest

from catlip_lite.data.index_cache import cached_index
from catlip_lite.data.labelled import load_labelled

pytestmark = pytest.mark.usefixtures("own_cache", "every_index_is_kept")


def index_of(path) -> list[int]:
    return cached_index(path, "bytes", lambda: {"bytes": np.frombuffer(path.read_bytes(), np.uint8)})["bytes"].tolist()


@pytest.mark.parametrize("in_place", [True, False], ids=["cp -p", "rsync -t"])
def test_other_contents_of_equal_size_and_time_are_indexed_anew(tmp_path, in_place):
    path, times = tmp_path / "file", (10**18, 10**18)
    path.write_bytes(b"\1\2")
    os.utime(path, ns=times)
    assert index_of(path) == [1, 2]
    if in_place:
        path.write_bytes(b"\3\4")
        os.utime(path, ns=times)
    else:
        (tmp_path / "new").write_bytes(b"\3\4")
        os.utime(tmp_path / "new", ns=times)
        (tmp_path / "new").replace(path)
    assert index_of(path) == [3, 4]


def test_a_kept_index_gives_the_same_set_and_follows_the_tar(labelled_shard, tmp_path):
    folder = labelled_shard(["a", "b"])
    first, kept = load_labelled(folder), load_labelled(folder)
    assert len(list((tmp_path / "cache" / "indexes").glob("*.npz"))) == 1
    assert (kept.fingerprint, kept.labels.tolist()) == (first.fingerprint, ["a", "b"])
    labelled_shard(["a", "b", "c"])
    assert load_labelled(folder).labels.tolist() == ["a", "b", "c"]


def test_a_damaged_index_is_made_anew(labelled_shard, tmp_path, caplog):
    folder = labelled_shard(["a", "b"])
    load_labelled(folder)
    next((tmp_path / "cache" / "indexes").glob("*.npz")).write_bytes(b"PK damaged")
    assert load_labelled(folder).labels.tolist() == ["a", "b"]
    assert "is of no use" in caplog.text


def test_a_cache_folder_that_cannot_be_written_is_no_hindrance(tmp_path, shards, monkeypatch, caplog):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("CATLIP_CACHE", str(tmp_path / "file" / "cache"))
    assert len(load_labelled(shards)) == 24
    assert "CATLIP_CACHE" in caplog.text
