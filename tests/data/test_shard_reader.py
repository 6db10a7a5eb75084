"""Samples by shard and row: what is read is what was written, whatever shards and stores do."""

import gc
import logging
import multiprocessing
import os
import pickle
import time

import fsspec
import numpy as np
import pytest
from files import write_tar
from fsspec.implementations.memory import MemoryFileSystem

from catlip_lite.data import addresses, stream
from catlip_lite.data.labelled import load_labelled
from catlip_lite.data.shards import Sample, write_shards
from catlip_lite.data.stream import ShardReader, ShardTable, open_shards


class FlakyStore(MemoryFileSystem):
    """Memory whose downloads fail, or bring half of a file, as many times as they are told to."""

    protocol = "flaky"
    store, pseudo_dirs = {}, [""]
    failures = halves = downloads = 0

    @classmethod
    def _strip_protocol(cls, path):
        return super()._strip_protocol(path.replace("flaky://", "memory://"))

    def get_file(self, rpath, lpath, **options):
        FlakyStore.downloads += 1
        if FlakyStore.failures:
            FlakyStore.failures -= 1
            raise ConnectionResetError("the store hung up")
        super().get_file(rpath, lpath, **options)
        if FlakyStore.halves:
            FlakyStore.halves -= 1
            os.truncate(lpath, os.path.getsize(lpath) // 2)


fsspec.register_implementation("flaky", FlakyStore, clobber=True)


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """The cache folder of one test."""
    monkeypatch.setenv("CATLIP_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture(autouse=True)
def waits(monkeypatch) -> list[float]:
    """The seconds a reader would have waited before it tried again."""
    waits = []
    monkeypatch.setattr(addresses, "_wait", waits.append)
    return waits


@pytest.fixture
def table(shards) -> ShardTable:
    """Two shards of 16 and 8 samples on disk."""
    return open_shards(shards)


@pytest.fixture
def remote(shards, monkeypatch) -> ShardTable:
    """The same two shards in a store."""
    for name in ("failures", "halves", "downloads"):
        monkeypatch.setattr(FlakyStore, name, 0)
    for path in shards.glob("*.tar"):
        FlakyStore().pipe_file(f"/corpus/{path.name}", path.read_bytes())
    return open_shards("flaky://corpus")


@pytest.fixture
def reader(table):
    """A reader of the two shards on disk."""
    return ShardReader(table)


def read_all(reader) -> list[Sample]:
    return [reader.read(shard, row) for shard in range(len(reader.table)) for row in range(reader.table.counts[shard])]


def skipped(reader, shard, row) -> tuple[str, str]:
    """Why a sample cannot be used, and which it is."""
    sample = reader.read(shard, row)
    return sample.skipped, sample.key.partition(":")[2]


def open_tars(folder) -> list[str]:
    """The tars in a folder that this process has open, by name."""
    gc.collect()  # what an earlier test's error still holds
    links = (f"/proc/self/fd/{n}" for n in os.listdir("/proc/self/fd"))
    targets = (os.readlink(link) for link in links if os.path.islink(link))
    return sorted(t.rpartition("/")[2] for t in targets if ".tar" in t and t.startswith(f"{folder}/"))


# --- samples ------------------------------------------------------------------------------------------------------------


def test_what_is_written_is_read_by_shard_and_row(reader, samples):
    assert [(s.image, s.caption) for s in read_all(reader)] == [(s.image, s.caption) for s in samples]
    assert reader.read(1, 3).key == "00001.tar:000010003"


def test_rows_are_read_in_any_order(reader, samples):
    order = np.random.default_rng(0).permutation(24)
    images = [reader.read(*divmod(int(i), 16)).image for i in order]
    assert images == [samples[i].image for i in order]


def test_samples_that_lack_something_are_skipped_with_their_key(tmp_path):
    files = {"0.txt": b"t", "1.jpg": b"x", "2.jpg": b"x", "2.txt": b" \n"}
    for i, content in enumerate((b"{}", b'{"caption": null}', b'{"caption": " "}'), start=3):
        files |= {f"{i}.jpg": b"x", f"{i}.json": content}
    reader = ShardReader(open_shards(write_tar(tmp_path / "a.tar", files)))
    assert [skipped(reader, 0, i) for i in range(6)] == [("no image", "0"), *(("no caption", str(i)) for i in range(1, 6))]


def test_a_tar_without_one_usable_sample_among_good_ones_is_skipped_by_name(shards, caplog):
    write_tar(shards / "00002.tar", {"0.txt": b"t", "1.json": b"{}"})
    reader = ShardReader(open_shards(shards))
    assert [reader.read(2, row).key for row in (0, 1)] == ["00002.tar:0", "00002.tar:1"]
    assert [skipped(reader, 2, row)[0] for row in (0, 1)] == ["no image", "no image"]
    assert len(load_labelled(shards)) == 24
    assert "2 sample(s) without an image, or with an empty one, are left out" in caplog.text


# --- shards that are not what they should be ----------------------------------------------------------------------------


def test_rows_that_wrong_statistics_promise_are_missing(shards, samples, caplog):
    (shards / "00000_stats.json").write_text('{"successes": 20}')
    reader = ShardReader(open_shards(shards))
    assert reader.read(0, 15).image == samples[15].image
    assert [skipped(reader, 0, row) for row in (16, 19)] == [("missing", "row 16"), ("missing", "row 19")]
    assert caplog.text.count("00000.tar holds 16 samples where 20 were counted: the others are skipped") == 1


def test_a_tar_that_breaks_off_is_read_up_to_there_and_named_once(table, shards, samples, caplog):
    os.truncate(shards / "00000.tar", 20_000)
    reader = ShardReader(table, open_at_once=1)
    outcomes = []
    for _ in range(2):
        read = [reader.read(0, row) for row in range(16)]
        outcomes += [sample.skipped or sample.image == samples[row].image for row, sample in enumerate(read)]
        reader.read(1, 0)  # so that the first shard is opened twice
    there = outcomes.index("missing")
    assert 0 < there < 16 and outcomes == ([True] * there + ["missing"] * (16 - there)) * 2
    assert caplog.text.count("breaks off") == 1 and f"({there} of 16 samples are there)" in caplog.text


def test_a_tar_that_is_cut_while_it_is_open_gives_no_half_image(reader, shards):
    reader.read(0, 0)
    os.truncate(shards / "00000.tar", 612)  # 100 bytes of the first image
    assert skipped(reader, 0, 0) == ("missing", "000000000")


def test_a_shard_that_is_gone_is_skipped_at_once_named_once_and_tried_again(table, shards, caplog, waits, monkeypatch):
    (shards / "00000.tar").rename(shards / "elsewhere")
    reader = ShardReader(table)
    assert [skipped(reader, 0, row) for row in (0, 1)] == [("shard unreadable", "row 0"), ("shard unreadable", "row 1")]
    assert reader.read(1, 0).key == "00001.tar:000010000"
    (shards / "elsewhere").rename(shards / "00000.tar")
    assert skipped(reader, 0, 0)[0] == "shard unreadable"  # not before its time
    monkeypatch.setattr(stream.time, "monotonic", lambda now=time.monotonic: now() + 61)
    assert reader.read(0, 0).key == "00000.tar:000000000"
    assert waits == [] and caplog.text.count("00000.tar cannot be read (FileNotFoundError") == 1


# --- what is kept open --------------------------------------------------------------------------------------------------


def test_no_more_shards_than_told_are_open_the_last_used_ones(tmp_path, samples):
    write_shards(samples, tmp_path / "six", samples_per_shard=4)
    reader = ShardReader(open_shards(tmp_path / "six"), open_at_once=2)
    for shard in (0, 1, 0, 3):
        reader.read(shard, 0)
    assert open_tars(tmp_path) == ["00000.tar", "00003.tar"]
    reader.prepare([4, 5, 1])
    reader.read(4, 0)
    assert len(open_tars(tmp_path)) <= 2
    pool = reader._pool
    del reader
    pool.shutdown()
    assert open_tars(tmp_path) == []


def test_a_reader_that_is_forgotten_closes_its_shards(table, tmp_path):
    ShardReader(table).read(0, 0)
    assert open_tars(tmp_path) == []


def test_a_prepared_shard_is_read_without_opening_it_again(reader, monkeypatch):
    reader.prepare([1])
    reader._open[1].result()
    monkeypatch.setattr(stream, "_open_local", None)
    assert reader.read(1, 0).key == "00001.tar:000010000"


# --- remote shards ------------------------------------------------------------------------------------------------------


def test_a_remote_shard_is_copied_read_and_deleted(remote, samples, tmp_path):
    reader = ShardReader(remote, download_to=tmp_path / "copies", open_at_once=1)
    assert [s.image for s in read_all(reader)] == [s.image for s in samples]
    assert [path.name.partition("-")[2] for path in (tmp_path / "copies").iterdir()] == ["00001.tar"]
    del reader
    assert list((tmp_path / "copies").iterdir()) == [] and open_tars(tmp_path) == []


def test_copies_are_in_the_cache_folder_unless_told_otherwise(remote, cache):
    reader = ShardReader(remote)
    reader.read(0, 0)
    assert len(list((cache / "shard_downloads").glob("*-00000.tar"))) == 1


def test_readers_of_one_folder_share_copies_and_read_on_when_one_is_deleted(remote, samples):
    one, other = ShardReader(remote), ShardReader(remote)
    one.read(0, 0)
    other.read(0, 0)
    assert FlakyStore.downloads == 1
    del one
    assert other.read(0, 5).image == samples[5].image
    assert ShardReader(remote).read(0, 5).image == samples[5].image
    assert FlakyStore.downloads == 2


def test_a_prepared_remote_shard_is_downloaded_in_the_background(remote):
    reader = ShardReader(remote)
    reader.prepare([1, 0, 1])
    for future in reader._open.values():
        future.result()
    assert FlakyStore.downloads == 2
    assert reader.read(0, 0).key == "00000.tar:000000000" and FlakyStore.downloads == 2


def test_a_shard_that_is_let_go_while_it_is_fetched_leaves_nothing(remote, cache, tmp_path):
    reader = ShardReader(remote, open_at_once=1)
    reader.prepare([0])
    pool = reader._pool
    reader.read(1, 0)
    del reader
    pool.shutdown()
    assert list((cache / "shard_downloads").iterdir()) == [] and open_tars(tmp_path) == []


def test_a_store_that_fails_for_a_while_costs_waiting_only(remote, waits):
    FlakyStore.failures = 3
    assert ShardReader(remote).read(0, 0).key == "00000.tar:000000000"
    assert waits == [0.5, 1.0, 2.0]


def test_half_a_download_is_downloaded_again(remote, samples, cache):
    FlakyStore.halves = 1
    reader = ShardReader(remote)
    assert reader.read(0, 15).image == samples[15].image
    assert FlakyStore.downloads == 2 and len(list((cache / "shard_downloads").iterdir())) == 1


def test_a_copy_of_another_size_than_the_stores_is_downloaded_again(remote, samples):
    leftover = ShardReader(remote)
    leftover.read(0, 0)
    FlakyStore().pipe_file("/corpus/00000.tar", FlakyStore().cat_file("/corpus/00001.tar"))
    assert ShardReader(remote).read(0, 0).image == samples[16].image


def test_an_unreadable_shard_is_skipped_then_tried_once_a_minute_and_recovers(remote, waits, caplog, monkeypatch):
    caplog.set_level(logging.INFO)
    FlakyStore.failures = 6
    reader = ShardReader(remote)
    assert skipped(reader, 0, 0)[0] == skipped(reader, 0, 1)[0] == "shard unreadable"
    assert waits == [0.5, 1.0, 2.0] and FlakyStore.downloads == 4
    monkeypatch.setattr(stream, "RETRY_AFTER_SECONDS", 0.0)
    reader._unreadable[0] = 0.0  # the minute is over
    assert [skipped(reader, 0, 0)[0] for _ in range(2)] == ["shard unreadable"] * 2
    assert reader.read(0, 0).key == "00000.tar:000000000" and FlakyStore.downloads == 7
    assert caplog.text.count("00000.tar cannot be read (ConnectionResetError: the store hung up)") == 1
    assert "00000.tar can be read again" in caplog.text


def test_a_failure_in_the_background_is_one_of_the_read(remote):
    FlakyStore.failures = 4
    reader = ShardReader(remote)
    reader.prepare([0])
    assert skipped(reader, 0, 0)[0] == "shard unreadable"
    reader.prepare([0])
    assert FlakyStore.downloads == 4  # not before its time


def test_what_killed_processes_left_is_deleted_after_a_day(remote, tmp_path):
    old, young, other = (f".{'0' * 16}-a.tar-x1", f"{'1' * 16}-b.tar", "notes.txt")
    for name in (old, young, other):
        (tmp_path / name).write_bytes(b"")
    for name in (old, other):
        os.utime(tmp_path / name, (1, 1))
    reader = ShardReader(remote, download_to=tmp_path)
    reader.read(0, 0)
    assert not (tmp_path / old).exists() and (tmp_path / young).exists() and (tmp_path / other).exists()


# --- processes ----------------------------------------------------------------------------------------------------------


def test_a_reader_can_be_sent_to_another_process(remote, samples):
    reader = ShardReader(remote, open_at_once=3)
    reader.read(0, 0)
    sent = pickle.loads(pickle.dumps(reader))
    assert (sent.open_at_once, sent.table.fingerprint) == (3, remote.fingerprint)
    assert sent.read(1, 7).image == samples[23].image


@pytest.mark.parametrize("used_before", [False, True])
def test_a_forked_process_reads_and_leaves_the_parents_copies_alone(remote, samples, cache, used_before):
    reader = ShardReader(remote)
    if used_before:
        reader.prepare([0])
        reader.read(0, 0)
    mine = set((cache / "shard_downloads").glob("*")) if used_before else set()
    context = multiprocessing.get_context("fork")
    queue = context.SimpleQueue()
    child = context.Process(target=lambda: queue.put(reader.read(1, 7).image))
    child.start()
    child.join(60)
    assert child.exitcode == 0 and queue.get() == samples[23].image
    assert set((cache / "shard_downloads").iterdir()) == mine  # the child's copy went with the child
    assert reader.read(0, 1).image == samples[1].image
