"""The kept index of a file holds for this very file alone."""

import os

import numpy as np
import pytest

from catlip_lite.data import index_cache
from catlip_lite.data.index_cache import cached_index

pytestmark = pytest.mark.usefixtures("own_cache")


def index_of(path) -> list[int]:
    return cached_index(path, "bytes", lambda: {"bytes": np.frombuffer(path.read_bytes(), np.uint8)})["bytes"].tolist()


@pytest.mark.parametrize("in_place", [True, False], ids=["cp -p", "rsync -t"])
def test_other_contents_of_equal_size_and_time_are_indexed_anew(tmp_path, monkeypatch, in_place):
    monkeypatch.setattr(index_cache, "WORTH_KEEPING", 1)
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
