"""Class folders, pictures, and a cache of their own for tests of data."""

import pytest

from catlip_lite.data.index_cache import cached_index
from catlip_lite.data.shards import Sample, write_shards


@pytest.fixture
def own_cache(tmp_path, monkeypatch):
    """Indexes of tars stay in the test's folder."""
    monkeypatch.setenv("CATLIP_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def every_index_is_kept(monkeypatch):
    """Small ones, too."""
    monkeypatch.setitem(cached_index.__kwdefaults__, "least", 1)


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


@pytest.fixture
def labelled_shard(tmp_path, make_png):
    """A function of labels, and of the lines of classes.txt, that writes a shard; returns its folder."""

    def write(labels, names=None):
        folder = tmp_path / "labelled"
        samples = [Sample("", make_png((i, 0, 0)), "png", None, {"label": label}) for i, label in enumerate(labels)]
        write_shards(samples, folder)
        if names is not None:
            (folder / "classes.txt").write_text(names, encoding="utf-8")
        return folder

    return write
