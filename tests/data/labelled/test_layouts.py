"""What an address of labelled images means: selections, paths that look like patterns, nothing at all."""

import shutil

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from catlip_lite.data.labelled import load_labelled

pytestmark = pytest.mark.usefixtures("own_cache")


def test_an_address_with_nothing_behind_it_is_said(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere is not there: labelled images are"):
        load_labelled(tmp_path / "nowhere")


def test_no_address_is_refused():
    with pytest.raises(ValueError, match="no labelled images are given"):
        load_labelled([])


@pytest.mark.parametrize("name", ["run#1", "run#a=1"])
def test_a_hash_in_a_folders_name_is_no_selection(shards, tmp_path, name):
    moved = shutil.move(shards, tmp_path / name)
    assert len(load_labelled(f"{moved}/*.tar")) == 24
    assert len(load_labelled(f"{moved}/0000*.tar#vendor=A")) == 12


def test_a_value_with_a_slash_is_selected(tmp_path, pictures):
    table = pa.table({"image": pictures, "label": ["arena/hockey", "b"] * 3, "kind": ["in/side"] * 4 + ["c"] * 2})
    pq.write_table(table, tmp_path / "0.parquet")
    assert len(load_labelled(f"{tmp_path}/*.parquet#kind=in/side")) == 4


def test_a_tar_whose_name_looks_like_a_pattern_is_taken(shards):
    (shards / "00000.tar").rename(shards / "part[1].tar")
    assert len(load_labelled(shards / "part[1].tar")) == 16


def test_a_parquet_file_whose_name_looks_like_a_pattern_is_taken(tmp_path, pictures):
    pq.write_table(pa.table({"image": pictures, "label": list("ababab")}), tmp_path / "part[1].parquet")
    assert len(load_labelled(tmp_path / "part[1].parquet")) == 6
