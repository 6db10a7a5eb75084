"""Samples by shard and row, for one reading process: what stands between an order over a corpus and the decoding of images.

Reads the tars of a `ShardTable`, local ones in place, remote ones from copies that the processes of a machine share; gives
encoded images with their captions. Only the shards that are open take memory, file descriptors and disk.
"""

from __future__ import annotations

import errno
import hashlib
import logging
import os
import re
import time
from collections import OrderedDict
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.util import Finalize
from pathlib import Path

from fsspec.core import url_to_fs

from ..artefacts import atomic_path
from ..cache import cache_folder
from .shard_members import MemberTable, read_members
from .shard_table import ShardTable, shard_name, without_query
from .shards import parse_caption

logger = logging.getLogger(__name__)

FETCHES = 4  # shards fetched in the background at a time
FIRST_WAIT_SECONDS = 0.5  # before a failed fetch is tried again; then twice as long each time
RETRY_AFTER_SECONDS = 60.0  # until a shard that could not be opened is tried again
LEFTOVER_SECONDS = 24 * 3600  # downloads older than this are of processes that were killed
DOWNLOAD_NAME = re.compile(r"\.?[0-9a-f]{16}-.+")  # also of the staging files that become one
FINAL = (FileNotFoundError, PermissionError, IsADirectoryError)  # errors that waiting a few seconds does not mend

_wait = time.sleep


class SampleSkipped(Exception):
    """A sample that cannot be had, to be passed over.

    reason: "no image", "no caption", "damaged .json (…)", "missing" (the tar ends before it) or "shard unreadable".
    key: "" where it is unknown.
    shard: the file name of the tar.
    """

    def __init__(self, reason: str, key: str = "", shard: str = ""):
        super().__init__(reason, key, shard)
        self.reason, self.key, self.shard = reason, key, shard

    def __str__(self) -> str:
        return f"{self.shard}:{self.key}: {self.reason}"


@dataclass(frozen=True)
class RawSample:
    """A sample as it lies in its shard. image: encoded bytes; caption: not empty."""

    key: str
    image: bytes
    caption: str


@dataclass(frozen=True)
class _OpenShard:
    descriptor: int
    members: MemberTable
    download: Path | None = None  # the copy to delete when the shard is let go


class ShardReader:
    """Samples by (shard, row) of a table, for one thread of one process; every process has its own.

    open_at_once: shards kept open, the last used ones; a caller's shards in use and those prepared should be fewer. Each takes
    a file descriptor and some 50 bytes of memory a sample and, if it is remote, the disk space of its tar.
    download_to: where remote shards are copied, `shard_downloads` in the cache folder if it is None. The processes that share
    this folder share the copies. A copy is deleted when a reader that used it lets go of the shard; others that have it open
    read on. Copies and half copies older than a day, left by processes that were killed, are deleted at the first read.
    retries: attempts, after the first, to open a shard.

    It opens nothing before the first read, so it can be sent to another process; after a fork, the child opens its own files.
    """

    def __init__(self, table: ShardTable, *, open_at_once: int = 64, download_to: Path | None = None, retries: int = 4):
        if open_at_once < 1 or retries < 0:
            raise ValueError(f"open_at_once={open_at_once}, retries={retries}: they must be at least 1 and 0")
        self.table, self.open_at_once, self.retries = table, open_at_once, retries
        self.download_to = None if download_to is None else Path(download_to)
        self._reset()

    def __getstate__(self) -> dict:
        return {name: value for name, value in self.__dict__.items() if not name.startswith("_")}

    def __setstate__(self, state: dict) -> None:
        self.__dict__.update(state)
        self._reset()

    def read(self, shard: int, row: int) -> RawSample:
        """The sample at a row of a shard, counted from 0. Waits if the shard has to be opened (see `prepare`).

        Raises SampleSkipped if there is no such sample or the shard cannot be opened, IndexError for a negative row.
        """
        if row < 0:
            raise IndexError(f"row {row} of shard {shard}: rows are counted from 0")
        opened = self._opened(shard)
        if row >= len(opened.members):
            raise self._skipped(shard, "missing")
        key = opened.members.key(row)
        image_offset, image_size, caption_offset, caption_size = opened.members.places[row].tolist()
        if image_offset < 0:
            raise self._skipped(shard, "no image", key)
        if caption_offset < 0:
            raise self._skipped(shard, "no caption", key)
        try:
            image = os.pread(opened.descriptor, image_size, image_offset)
            text = os.pread(opened.descriptor, caption_size, caption_offset)
        except OSError as error:  # a network file system that lost the file: it is opened anew, later
            self._give_up(shard, error)
            raise self._skipped(shard, "shard unreadable", key) from error
        if len(image) < image_size or len(text) < caption_size:  # the file has been cut off since it was opened
            raise self._skipped(shard, "missing", key)
        try:
            caption = parse_caption(text, bool(opened.members.is_json[row]))
        except ValueError as error:
            raise self._skipped(shard, str(error), key) from None
        if caption is None:
            raise self._skipped(shard, "no caption", key)
        return RawSample(key, image, caption)

    def prepare(self, shards: Sequence[int]) -> None:
        """Start to open these shards in the background (remote ones: download them), the first `open_at_once` of them."""
        self._start()
        if self._pool is None:
            self._pool = ThreadPoolExecutor(FETCHES, thread_name_prefix="shards")
        for shard in list(dict.fromkeys(shards))[: self.open_at_once]:
            if shard in self._open:
                self._open.move_to_end(shard)
            elif time.monotonic() >= self._unreadable.get(shard, 0.0):
                self._keep(shard, self._pool.submit(self._fetch, shard))

    def release(self, shards: Sequence[int]) -> None:
        """Let go of shards that are not read any more, before others take their place: their copies are deleted now."""
        for shard in shards:
            if self._pid == os.getpid() and shard in self._open:
                _let_go(self._open.pop(shard))

    def close(self) -> None:
        """Let go of all shards. A later read opens them again."""
        if self._pid == os.getpid():
            if self._pool is not None:
                self._pool.shutdown(wait=False, cancel_futures=True)
            self._finalize()
        self._reset()

    # --- opening and letting go -----------------------------------------------------------------------------------------

    def _reset(self) -> None:
        self._open: OrderedDict[int, Future[_OpenShard]] = OrderedDict()  # the last used one last
        self._unreadable: dict[int, float] = {}  # shard -> when it may be tried again
        self._told: set[int] = set()  # shards with something wrong that the log has
        self._pool: ThreadPoolExecutor | None = None
        self._finalize: Finalize | None = None
        self._pid: int | None = None

    def _start(self) -> None:
        """Begin to read in this process."""
        if self._pid == os.getpid():
            return
        for future in self._open.values():  # of the process that this one was forked from: the copies are still its own
            if future.done() and not future.cancelled() and future.exception() is None:
                os.close(future.result().descriptor)
        self._reset()
        self._pid = os.getpid()
        # Runs at the end of this process, too, also where that is a worker process, which skips what atexit knows.
        self._finalize = Finalize(self, _let_go_all, (self._open,), exitpriority=1)
        if any("://" in address for address in self.table.addresses):
            _sweep(self._downloads())

    def _downloads(self) -> Path:
        folder = self.download_to or cache_folder() / "shard_downloads"
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def _opened(self, shard: int) -> _OpenShard:
        self._start()
        if shard in self._open:
            self._open.move_to_end(shard)
        elif time.monotonic() < self._unreadable.get(shard, 0.0):
            raise self._skipped(shard, "shard unreadable")
        else:
            self._keep(shard, _done(self._fetch, shard))
        try:
            return self._open[shard].result()
        except Exception as error:
            self._give_up(shard, error)
            raise self._skipped(shard, "shard unreadable") from error

    def _keep(self, shard: int, future: Future) -> None:
        self._open[shard] = future
        while len(self._open) > self.open_at_once:
            _let_go(self._open.popitem(last=False)[1])

    def _fetch(self, shard: int) -> _OpenShard:
        """Open a shard, in the background or not. Raises what the last attempt raised."""
        address = self.table.addresses[shard]
        attempts = 1 if shard in self._unreadable else self.retries + 1
        for attempt in range(attempts):
            try:
                opened = _open_remote(address, self._downloads()) if "://" in address else _open_local(address)
                break
            except Exception as error:  # each store has errors of its own
                if attempt == attempts - 1 or isinstance(error, FINAL):
                    raise
                _wait(FIRST_WAIT_SECONDS * 2**attempt)
        if self._unreadable.pop(shard, None) is not None:
            logger.info("%s can be read again", without_query(address))
            self._told.discard(shard)
        self._tell_of_shortage(shard, opened.members)
        return opened

    def _tell_of_shortage(self, shard: int, members: MemberTable) -> None:
        """Log, once, that a shard does not hold what the table says."""
        name, count = without_query(self.table.addresses[shard]), int(self.table.counts[shard])
        if shard in self._told or not (members.broken or len(members) != count):
            return
        self._told.add(shard)
        if members.broken:
            logger.warning("%s: %s (%d of %d samples are there)", name, members.broken, len(members), count)
        else:
            left_out = "the others are skipped" if len(members) < count else "no more than these are read"
            logger.warning("%s holds %d samples where %d were counted: %s", name, len(members), count, left_out)

    def _give_up(self, shard: int, error: Exception) -> None:
        """Leave a shard alone for a while; the log has it the first time."""
        if shard in self._open:
            _let_go(self._open.pop(shard))
        self._unreadable[shard] = time.monotonic() + RETRY_AFTER_SECONDS
        if shard not in self._told:
            self._told.add(shard)
            logger.warning(
                "%s cannot be read (%s: %s): its samples are skipped, it is tried again every %.0f s",
                without_query(self.table.addresses[shard]),
                type(error).__name__,
                error,
                RETRY_AFTER_SECONDS,
            )

    def _skipped(self, shard: int, reason: str, key: str = "") -> SampleSkipped:
        return SampleSkipped(reason, key, shard_name(self.table.addresses[shard]))


def _done(work, *arguments) -> Future:
    """`work`, done now, in the form of what a thread pool gives."""
    future: Future = Future()
    try:
        future.set_result(work(*arguments))
    except Exception as error:
        future.set_exception(error)
    return future


def _let_go(future: Future) -> None:
    """Close a shard and delete its copy, now or as soon as it is there."""
    future.cancel()
    future.add_done_callback(_close)


def _close(future: Future) -> None:
    if future.cancelled() or future.exception() is not None:
        return
    opened = future.result()
    os.close(opened.descriptor)
    if opened.download is not None:
        opened.download.unlink(missing_ok=True)


def _let_go_all(opened: OrderedDict[int, Future]) -> None:
    while opened:
        _let_go(opened.popitem()[1])


# --- one shard ----------------------------------------------------------------------------------------------------------


def _open_local(path: str) -> _OpenShard:
    return _with_members(os.open(path, os.O_RDONLY | os.O_CLOEXEC), path)


def _with_members(descriptor: int, address: str, download: Path | None = None) -> _OpenShard:
    try:
        with open(descriptor, "rb", closefd=False) as file:
            return _OpenShard(descriptor, read_members(file, without_query(address)), download)
    except BaseException:
        os.close(descriptor)
        raise


def _open_remote(address: str, folder: Path) -> _OpenShard:
    """Open the copy of a remote shard, after downloading it if there is none of the store's size in the folder."""
    filesystem, path = url_to_fs(address)  # made anew: one made before a fork is of no use after it
    size = filesystem.info(path).get("size")
    digest = hashlib.sha256(without_query(address).encode("utf-8", errors="surrogateescape")).hexdigest()[:16]
    copy = folder / f"{digest}-{shard_name(address)}"
    with suppress(FileNotFoundError):
        descriptor = os.open(copy, os.O_RDONLY | os.O_CLOEXEC)
        if size is None or os.fstat(descriptor).st_size == size:
            return _with_members(descriptor, address, copy)
        os.close(descriptor)  # of an older version of the shard
    with atomic_path(copy) as staging:
        filesystem.get_file(path, str(staging))
        got = staging.stat().st_size
        if size is not None and got != size:
            filesystem.invalidate_cache()  # the size may be that of an earlier listing
            raise OSError(errno.EIO, f"{got:,} of {size:,} bytes arrived", without_query(address))
        descriptor = os.open(staging, os.O_RDONLY | os.O_CLOEXEC)  # another process may delete the copy at once
    return _with_members(descriptor, address, copy)


def _sweep(folder: Path) -> None:
    """Delete what killed processes left; of what a living one still reads, this takes the name only."""
    oldest = time.time() - LEFTOVER_SECONDS
    for path in folder.iterdir():
        with suppress(OSError):  # another process may be sweeping, too
            if DOWNLOAD_NAME.fullmatch(path.name) and path.stat().st_mtime < oldest:
                path.unlink()
