"""The table of a corpus's shards: what they are, how many samples each holds, and what tells that they are the same."""

import json
import os
import pickle

import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from catlip_lite.data import addresses, stream
from catlip_lite.data.captions import read_captions
from catlip_lite.data.shards import Sample, write_shards
from catlip_lite.data.stream import ShardReader, ShardTable, open_shards

pytestmark = pytest.mark.usefixtures("own_cache")


@pytest.fixture
def remote(shards):
    """The two shards in fsspec's memory."""
    memory = fsspec.filesystem("memory")
    memory.put(str(shards), "/shard_table", recursive=True)
    yield "memory://shard_table"
    memory.rm("/shard_table", recursive=True)


@pytest.fixture
def scanned(monkeypatch) -> list[str]:
    """The names of the tars whose headers are read, as they are."""
    names, index = [], stream._index_of
    monkeypatch.setattr(stream, "_index_of", lambda file: names.append(file.address) or index(file))
    return names


def names(table) -> list[str]:
    return [address.rpartition("/")[2] for address in table.addresses]


# --- which shards -------------------------------------------------------------------------------------------------------


def test_an_address_names_the_same_shards_locally_and_remotely(shards, remote):
    local, far = open_shards(shards), open_shards(remote)
    assert names(local) == names(far) == ["00000.tar", "00001.tar"]
    assert local.counts.tolist() == far.counts.tolist() == [16, 8]
    assert far.addresses[0] == "memory:///shard_table/00000.tar" and local.addresses[0] == str(shards / "00000.tar")


def test_a_list_keeps_the_order_of_its_addresses_and_names_a_shard_once(shards):
    table = open_shards([shards / "00001.tar", shards])
    assert names(table) == ["00001.tar", "00000.tar"] and table.counts.tolist() == [8, 16]


def test_the_table_knows_its_sizes(shards):
    table = open_shards(shards)
    assert (len(table), table.num_samples, table.counts.dtype) == (2, 24, np.int32)
    assert table.name(1) == "00001.tar"


def test_an_address_without_shards_is_answered_with_what_it_may_be(tmp_path):
    (tmp_path / "a.txt").write_bytes(b"")
    with pytest.raises(FileNotFoundError, match=f"no shards at '{tmp_path}': give a .tar or .parquet"):
        open_shards(tmp_path)


def test_an_empty_list_of_addresses_is_refused():
    with pytest.raises(FileNotFoundError, match=r"no shards in \[\]"):
        open_shards([])


def test_the_query_of_a_web_address_is_no_part_of_a_shards_name():
    table = ShardTable(("https://host/a/00000.tar?signature=a/b", "/a/what?.tar"), np.ones(2, np.int32))
    assert [table.name(shard) for shard in (0, 1)] == ["00000.tar", "what?.tar"]


def test_progress_sees_every_shard(shards):
    seen = []
    open_shards(shards, progress=lambda files: seen.append(len(files)) or files)
    assert seen == [2]


# --- counts -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("is_remote", [False, True])
def test_img2datasets_statistics_are_believed_and_the_tar_is_not_opened(shards, remote, scanned, is_remote):
    with fsspec.open(f"{remote if is_remote else shards}/00000_stats.json", "w") as file:
        json.dump({"count": 20, "successes": 17, "failed_to_download": 3}, file)
    assert open_shards(remote if is_remote else shards).counts.tolist() == [17, 8]
    assert [name.rpartition("/")[2] for name in scanned] == ["00001.tar"]


@pytest.mark.parametrize("stats", ["{", "[]", '{"count": 16}', '{"successes": "16"}', '{"successes": -1}'])
def test_statistics_that_say_nothing_are_named_and_the_tar_is_counted(shards, caplog, stats):
    (shards / "00000_stats.json").write_text(stats)
    assert open_shards(shards).counts.tolist() == [16, 8]
    assert "00000.tar: its _stats.json has no number of successes" in caplog.text


def test_a_sample_without_image_or_caption_counts(tmp_path):
    write_shards([Sample("", b"x", "jpg", "t"), Sample("", None, "", "t"), Sample("", b"x", "jpg", None)], tmp_path)
    assert open_shards(tmp_path).counts.tolist() == [3]


@pytest.mark.parametrize("is_remote", [False, True])
def test_a_scanned_count_is_used_again_until_the_shard_has_changed(shards, remote, scanned, is_remote):
    address = remote if is_remote else shards
    assert open_shards(address).counts.tolist() == open_shards(address).counts.tolist() == [16, 8]
    assert len(scanned) == 2
    with fsspec.open(f"{address}/00000.tar", "wb") as file:
        file.write((shards / "00001.tar").read_bytes())
    assert open_shards(address).counts.tolist() == [8, 8]
    assert len(scanned) == 3


def test_what_was_counted_before_an_interruption_is_kept(shards, scanned):
    def one(files):
        yield files[0]
        if len(scanned):  # not while statistics are looked up
            raise KeyboardInterrupt
        yield from files[1:]

    with pytest.raises(KeyboardInterrupt):
        open_shards(shards, progress=one)
    scanned.clear()
    assert open_shards(shards).counts.tolist() == [16, 8]
    assert str(shards / "00000.tar") not in scanned


@pytest.mark.parametrize("content", [b"", b"no tar at all" * 100, b"\0" * 10240], ids=["empty file", "no tar", "empty tar"])
def test_a_shard_without_samples_is_named_and_has_count_0(shards, caplog, content):
    (shards / "00000.tar").write_bytes(content)
    assert open_shards(shards).counts.tolist() == [0, 8]
    assert f"1 of 2 shards hold no sample and are left out: {shards}/00000.tar" in caplog.text


@pytest.mark.parametrize("groups", [0, 1], ids=["no row group", "an empty row group"])
def test_a_table_without_rows_is_named_and_left_out(tmp_path, make_png, caplog, groups):
    table = pa.table({"image": [make_png()] * 3, "caption": ["a", "b", "c"]})
    for name, rows in (("good", 3), ("none", 0)):
        with pq.ParquetWriter(tmp_path / f"{name}.parquet", table.schema) as writer:
            for _ in range(groups if name == "none" else 1):
                writer.write_table(table.slice(0, rows))
    shards = open_shards(tmp_path)
    assert (shards.num_samples, shards.counts[0], read_captions(tmp_path)) == (3, 3, ["a", "b", "c"])
    assert f"1 of 2 shards hold no sample and are left out: {tmp_path}/none.parquet" in caplog.text


def test_tars_and_tables_can_be_one_corpus(shards, tmp_path, make_png):
    pq.write_table(pa.table({"image": [make_png()] * 3, "caption": ["a"] * 3}), tmp_path / "a.parquet", row_group_size=2)
    table = open_shards([shards / "00001.tar", tmp_path / "a.parquet"])
    assert table.counts.tolist() == [8, 2, 1]
    assert [ShardReader(table).read(shard, 0).key for shard in (0, 2)] == [
        "00001.tar:000010000",
        "a.parquet:row group 1, row 0",
    ]


def test_shards_without_any_sample_at_all_are_an_error_that_names_the_first(shards):
    for name in ("00000", "00001"):
        (shards / f"{name}_stats.json").write_text('{"successes": 0}')
    with pytest.raises(ValueError, match=r"00000\.tar, like the other 1 shards, holds no sample: give tars with"):
        open_shards(shards)


def test_a_shard_that_breaks_off_counts_up_to_there(shards, caplog):
    os.truncate(shards / "00000.tar", 20_000)
    assert 0 < open_shards(shards).counts[0] < 16
    assert "00000.tar: the tar breaks off" in caplog.text


def test_a_store_that_fails_is_asked_again_and_its_failure_is_not_cached(shards, monkeypatch, caplog):
    waits, fails, index = [], [True], stream._index_of

    def read(file):
        if fails[0] and file.name == "00000.tar":
            raise TimeoutError("no answer")
        return index(file)

    monkeypatch.setattr(addresses, "_wait", waits.append)
    monkeypatch.setattr(stream, "_index_of", read)
    assert open_shards(shards).counts.tolist() == [0, 8]
    assert waits == [0.5, 1.0, 2.0] and "00000.tar cannot be read (TimeoutError: no answer)" in caplog.text
    fails[0] = False
    caplog.clear()
    assert open_shards(shards).counts.tolist() == [16, 8] and not caplog.text


# --- identity -----------------------------------------------------------------------------------------------------------


def test_the_fingerprint_is_of_names_and_counts_and_not_of_the_folder(shards, remote):
    table = open_shards(shards)
    assert len(table.fingerprint) == 16 and open_shards(remote).fingerprint == table.fingerprint
    assert open_shards(shards / "00000.tar").fingerprint != table.fingerprint
    (shards / "00001_stats.json").write_text('{"successes": 7}')
    assert open_shards(shards).fingerprint != table.fingerprint


def test_a_table_can_be_sent_to_another_process(remote):
    table = open_shards(remote)
    sent = pickle.loads(pickle.dumps(table))
    assert sent.addresses == table.addresses and sent.fingerprint == table.fingerprint
