"""Where encoded images lie: files that change after they were indexed, and what is cheap to read together."""

import os
import pickle

import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from catlip_lite.data.labelled import load_labelled
from catlip_lite.data.labelled.pointers import ImagePointers, stamp_of
from catlip_lite.data.shards import write_shards

pytestmark = pytest.mark.usefixtures("own_cache")


def test_files_go_to_other_processes(shards):
    files = load_labelled(shards).files
    assert pickle.loads(pickle.dumps(files)).read(5) == files.read(5)


def test_an_image_beyond_the_end_of_its_tar_is_said_by_name(shards):
    files = load_labelled(shards).files
    files.place[23, 1] = 10**9
    with pytest.raises(ValueError, match=r"00001.tar:000010007 ends after [\d,]+ of 1,000,000,000 bytes: write the tar again"):
        files.read(23)


# --- files that have changed --------------------------------------------------------------------------------------------------


def later(path):
    """As if it had been written a second later."""
    os.utime(path, ns=(0, path.stat().st_mtime_ns + 10**9))


def test_a_tar_rewritten_in_place_while_it_is_open_is_not_read(shards, samples, tmp_path):
    files = load_labelled(shards).files
    files.read(0)
    write_shards(samples[::-1], tmp_path / "new", samples_per_shard=16)
    (shards / "00000.tar").write_bytes((tmp_path / "new" / "00000.tar").read_bytes())
    later(shards / "00000.tar")
    with pytest.raises(ValueError, match="00000.tar has changed since it was indexed: load the labelled images again"):
        files.read(0)


def test_a_tar_that_was_written_again_is_not_read_at_its_old_places(shards, samples):
    before = load_labelled(shards).files
    before.read(23)  # from here on the old file is open
    write_shards(samples[::-1], shards, samples_per_shard=16)
    assert load_labelled(shards).files.read(0) == samples[23].image
    with pytest.raises(ValueError, match="00000.tar has changed since it was indexed: load the labelled images again"):
        before.read(0)
    assert before.read(23) == samples[23].image


def test_a_remote_shard_that_has_changed_is_not_read(shards):
    memory = fsspec.filesystem("memory")
    memory.put(str(shards), "/changed", recursive=True)
    files = load_labelled("memory://changed").files
    memory.pipe_file("/changed/00000.tar", (shards / "00001.tar").read_bytes())
    with pytest.raises(ValueError, match="00000.tar has changed since it was indexed"):
        files.read(0)


@pytest.mark.parametrize("kind", ["tar", "parquet"])
def test_a_store_that_hangs_up_is_asked_again(shards, samples, tmp_path, monkeypatch, kind):
    """Ranges of a tar are asked for by cat_file, row groups through an open file."""
    memory, method = fsspec.filesystem("memory"), {"tar": "cat_file", "parquet": "open"}[kind]
    if kind == "tar":
        memory.put(str(shards), "/hangs_up_tar", recursive=True)
    else:
        table = pa.table({"image": [sample.image for sample in samples], "label": list("ab") * 12})
        pq.write_table(table, tmp_path / "0.parquet")
        memory.put(str(tmp_path / "0.parquet"), "/hangs_up_parquet/0.parquet")
    files, give, waits = load_labelled(f"memory://hangs_up_{kind}").files, getattr(memory, method), []

    def hang_up(*args, **options):
        if len(waits) < 2:
            raise ConnectionResetError("the store hung up")
        return give(*args, **options)

    monkeypatch.setattr(memory, method, hang_up)
    monkeypatch.setattr("catlip_lite.data.addresses._wait", waits.append)
    assert files.read(5) == samples[5].image and waits == [0.5, 1.0]


def write_parquet(path, pictures):
    pq.write_table(pa.table({"image": pictures, "label": list("ababab")}), path, row_group_size=2)
    return path


def test_a_parquet_file_that_was_written_again_is_not_read(tmp_path, pictures):
    path = write_parquet(tmp_path / "0.parquet", pictures)
    files = load_labelled(path).files
    files.read(0)
    write_parquet(path, pictures[::-1])
    later(path)
    with pytest.raises(ValueError, match="0.parquet has changed since it was indexed: load the labelled images again"):
        files.read(2)


# --- runs ---------------------------------------------------------------------------------------------------------------------


@pytest.fixture
def rows(tmp_path):
    """A function of the row groups of a table's images."""
    (tmp_path / "0").write_text("")

    def make(groups) -> ImagePointers:
        count, path = len(groups), str(tmp_path / "0")
        place = np.stack([groups, np.zeros(count, int)], axis=1)
        return ImagePointers.of_tables([path], [stamp_of(path)], ["image"], np.zeros(count, np.int32), place)

    return make


LOOSE = ImagePointers.of_files("", ["a", "b"])


def test_row_groups_are_cheap_to_read_together_and_files_alone(rows):
    table = rows([0, 0, 1, 1, 1])
    assert table.runs().tolist() == [0, 0, 1, 1, 1]
    assert table.take(np.array([4, 0, 3])).runs().tolist() == [1, 0, 1]
    assert LOOSE.runs().tolist() == [-1, -1]


def test_joined_images_have_the_runs_of_their_parts(rows):
    joined = ImagePointers.joined([rows([0, 0, 1]), LOOSE, rows([0, 0, 1])])
    assert joined.runs().tolist() == [0, 0, 1, -1, -1, 2, 2, 3]
    assert joined.take(np.array([7, 3, 0])).runs().tolist() == [1, -1, 0]


def test_joined_parquet_files_share_the_memory_of_row_groups(tmp_path, pictures, monkeypatch):
    monkeypatch.setattr("catlip_lite.data.labelled.pointers.ROW_GROUP_BYTES", 2 * len(pictures[0]) + 100)
    files = load_labelled([str(write_parquet(tmp_path / f"{i}.parquet", pictures)) for i in range(2)]).files
    assert [files.read(i) for i in (0, 6, 5)] == [pictures[i] for i in (0, 0, 5)]
    assert len(files._kept.columns) == 1
