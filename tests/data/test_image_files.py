"""Where encoded images lie: files that change while they are open, and what is cheap to read together."""

import os

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from catlip_lite.data.image_files import JoinedFiles, LooseFiles, Names, ParquetRows, stamps_of
from catlip_lite.data.labelled import load_labelled
from catlip_lite.data.shards import write_shards

pytestmark = pytest.mark.usefixtures("own_cache")


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


def rows_of(path, groups) -> ParquetRows:
    zeros = np.zeros(len(groups), np.int32)
    return ParquetRows((str(path),), stamps_of([path]), "image", zeros, np.array(groups, np.int32), zeros)


def test_row_groups_are_cheap_to_read_together_and_files_alone(tmp_path):
    (tmp_path / "0").write_text("")
    rows, loose = rows_of(tmp_path / "0", [0, 0, 1, 1, 1]), LooseFiles("", Names.of(["a", "b"]))
    assert rows.runs().tolist() == [0, 0, 1, 1, 1]
    assert rows.take(np.array([4, 0, 3])).runs().tolist() == [1, 0, 1]
    assert loose.runs().tolist() == [-1, -1]


def test_joined_files_have_the_runs_of_their_parts(tmp_path):
    (tmp_path / "0").write_text("")
    rows, loose = rows_of(tmp_path / "0", [0, 0, 1]), LooseFiles("", Names.of(["a", "b"]))
    joined = JoinedFiles.of([rows, loose, rows])
    assert joined.runs().tolist() == [0, 0, 1, -1, -1, 2, 2, 3]
    assert joined.take(np.array([7, 3, 0])).runs().tolist() == [3, -1, 0]


def test_joined_parquet_files_share_the_memory_of_row_groups(tmp_path, pictures, monkeypatch):
    monkeypatch.setattr("catlip_lite.data.image_files.ROW_GROUP_BYTES", 2 * len(pictures[0]) + 100)
    files = load_labelled([str(write_parquet(tmp_path / f"{i}.parquet", pictures)) for i in range(2)]).files
    assert [files.read(i) for i in (0, 6, 5)] == [pictures[i] for i in (0, 0, 5)]
    assert len({id(part._kept) for part in files.parts}) == 1
    assert len(files.parts[0]._kept.columns) == 1
