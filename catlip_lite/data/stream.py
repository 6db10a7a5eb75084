"""The samples of a corpus as an endless stream: the one at any position is a pure function of shards and seed.

Three parts: a `ShardTable` (which shards there are and how many samples each holds, before any is read), a `SampleOrder` (shard
and row of each position) and a `ShardReader` (the sample in a row of a shard). A run's place in its data is therefore one
number, whatever the number of processes, and a process finds its share of any step without having read what came before.
"""

from __future__ import annotations

import errno
import hashlib
import json
import logging
import os
import re
import time
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from multiprocessing.util import Finalize
from pathlib import Path

import numpy as np
import pyarrow as pa
from fsspec.core import url_to_fs

from ..artefacts import atomic_path
from ..cache import cache_folder
from .addresses import LOOK_UPS, TABLES, TRIES, Address, DataFile, find_files, patiently, without_query
from .captions import captions_in, check_columns
from .index_cache import cached_index
from .shards import CAPTION, OpenTar, ReadAt, Sample, ShardIndex, index_shard, open_shard
from .tables import image_bytes, image_column, open_table

logger = logging.getLogger(__name__)

# ---------------------------------------------------------------- which shards there are

STATS_SUFFIX = "_stats.json"  # 00000_stats.json beside 00000.tar
READ_AHEAD = 4 << 20  # bytes of a remote tar fetched at a time
MOST_SAMPLES = 2**31 - 1  # of a shard: counts are int32
NAMED = 10  # empty shards named in one warning


@dataclass(frozen=True, eq=False)
class ShardTable:
    """The S shards of a corpus and how many samples each holds; small even for 100,000 shards, and fit for other processes.

    addresses: F local paths or protocol://…, sorted within each given address. counts: int32 [S], samples in each, where a
    sample is a key of a tar, usable or not. They may be wrong where img2dataset's statistics are: a `ShardReader` copes.
    groups: int32 [S, 2], file and row group of each, -1 for all of a file, where tables are among them; else None: a file each.
    """

    addresses: tuple[str, ...]
    counts: np.ndarray
    groups: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.counts)

    @property
    def num_samples(self) -> int:
        """Over all shards."""
        return int(self.counts.sum(dtype=np.int64))

    @property
    def fingerprint(self) -> str:
        """16 hex digits: SHA-256 over the shards' file names and counts, in order. The same corpus has it in any folder."""
        digest = hashlib.sha256()
        for shard, count in enumerate(self.counts.tolist()):
            digest.update(f"{self.name(shard)}\0{count}\0".encode("utf-8", errors="surrogateescape"))
        return digest.hexdigest()[:16]

    def place(self, shard: int) -> tuple[str, int | None]:
        """A shard's address, and which row group of it."""
        if self.groups is None:
            return self.addresses[shard], None
        file, group = self.groups[shard].tolist()
        return self.addresses[file], group if group >= 0 else None

    def name(self, shard: int) -> str:
        """What logs call a shard: its file's name, without folders and, of a web address, the query."""
        return without_query(self.place(shard)[0]).rpartition("/")[2]


def open_shards(
    address: Address, progress: Callable[[Sequence], Iterable] = lambda items: items, *, columns: Sequence[str] = (CAPTION,)
) -> ShardTable:
    """The shards behind an address or several (see `find_files`), with their counts; each file once.

    Tars, img2dataset's folders of loose files, or tables with a column of images: each row group of a table is a shard.
    progress: wraps the list of files while they are looked up or counted. columns: of captions.

    A count is "successes" in the `<stem>_stats.json` beside the tar, else the cached count of an earlier scan of the same file
    (by address, size and time of change or ETag), else found by scanning the tar's headers. A shard without any sample, or that
    cannot be read, has count 0 and is warned about.
    Raises FileNotFoundError if an address names no shard, ValueError if all the shards together hold no sample, or if tables
    lack the columns or have their images as URLs.
    """
    files = find_files(address, what="shards")
    if files[0].suffix not in TABLES:
        check_columns(files[0], columns)
    found = list(_in_threads(partial(_samples_in, columns=columns), files, progress))
    counts = np.array([count for groups in found for count in groups], np.int32)
    groups = None
    if any(file.suffix in TABLES for file in files):
        numbers = [range(len(n)) if file.suffix in TABLES else [-1] for file, n in zip(files, found, strict=True)]
        groups = np.array([(i, group) for i, within in enumerate(numbers) for group in within], np.int32).reshape(-1, 2)
    table = ShardTable(tuple(file.opening_address for file in files), counts, groups)
    empty = [file.address for file, groups in zip(files, found, strict=True) if not sum(groups)]
    if not table.num_samples:
        others = f", like the other {len(files) - 1:,} shards," if len(files) > 1 else ""
        raise ValueError(
            f"{empty[0]}{others} holds no sample: give tars with members <key>.jpg (or png, webp) and <key>.txt, as "
            "img2dataset writes them"
        )
    if empty:
        more = f" and {len(empty) - NAMED:,} more" if len(empty) > NAMED else ""
        told = ", ".join(empty[:NAMED])
        logger.warning("%d of %d shards hold no sample and are left out: %s%s", len(empty), len(files), told, more)
    return table


def _in_threads(work: Callable, items: Sequence, progress: Callable[[Sequence], Iterable]) -> Iterable:
    """What `work` gives for each item, in their order. An interruption drops what has not begun."""
    pool = ThreadPoolExecutor(LOOK_UPS)
    try:
        results = pool.map(work, items)
        for _ in progress(items):
            yield next(results)
    finally:
        pool.shutdown(cancel_futures=True)


def _samples_in(file: DataFile, columns: Sequence[str]) -> list[int]:
    """Rows in each group of a table that has images and captions; the samples of a tar or folder, in a list."""
    if file.suffix not in TABLES:
        count = _count_in_stats(file)
        return [_count_in_shard(file) if count is None else count]
    with open_table(file) as table:
        image_column(file.address, table.schema)  # first: a list of URLs lacks more than a column
        groups = table.groups
    check_columns(file, columns)
    return groups


def _count_in_stats(file: DataFile) -> int | None:
    """How many samples the statistics beside a shard say it holds; None if there are none, or none that can be used."""
    path = without_query(file.path)
    stats = path.removesuffix(".tar") + STATS_SUFFIX + file.path[len(path) :]
    try:
        content = file.filesystem.cat_file(stats)
    except FileNotFoundError:
        return None
    except Exception as error:  # a store may say "forbidden" for what is not there, in its own words: the tar can be counted
        logger.info("%s: no %s to be had (%s)", file.address, STATS_SUFFIX, error)
        return None
    try:
        count = json.loads(content)["successes"]
    except (ValueError, TypeError, KeyError, RecursionError):
        count = None
    if type(count) is int and 0 <= count <= MOST_SAMPLES:
        return count
    logger.warning("%s: its %s has no number of successes: the tar is counted", file.address, STATS_SUFFIX)
    return None


def _count_in_shard(file: DataFile) -> int:
    """Samples of a shard, found once; 0 if it is none, or cannot be had."""

    def count() -> dict[str, np.ndarray]:
        index = patiently(lambda: _index_of(file))
        if index.broken:
            logger.warning("%s: %s (%d samples up to there)", file.address, index.broken, len(index))
        return {"samples": np.array([len(index)])}

    try:
        if not file.suffix:  # a folder's own facts do not tell of changes in its files
            return int(count()["samples"][0])
        stamp = file.size, file.stamp
        return int(cached_index(file.opening_address, "samples", count, stamp=stamp, least=1)["samples"][0])
    except Exception as error:  # each store has its own: all are named, and none ends a run of thousands of shards
        logger.warning("%s cannot be read (%s: %s): it is left out", file.address, type(error).__name__, error)
        return 0


def _index_of(file: DataFile) -> ShardIndex:
    if file.is_local:
        with open_shard(file.path) as (samples, _):
            return index_shard(samples)
    with file.open(block_size=READ_AHEAD, cache_type="readahead") as tar, open_shard(file.path, tar) as (samples, _):
        return index_shard(samples)


# ---------------------------------------------------------------- which sample is where in the stream


@dataclass(frozen=True)
class OrderRule:
    """What decides the order, besides the corpus. A resumed run keeps the rule it began with.

    seed: of every permutation. shuffle_shards: samples are shuffled within windows of so many shards, which are open at a
    time. lanes: the epoch's shards are cut into so many contiguous shares that are read side by side; position p takes its
    sample from lane p modulo lanes. A process that serves whole lanes opens these lanes' shards and no others.
    """

    seed: int = 0
    shuffle_shards: int = 8
    lanes: int = 1

    def __post_init__(self):
        for name in ("shuffle_shards", "lanes"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)} must be at least 1")


class SampleOrder:
    """The order of a corpus of S shards with `counts` samples each (int [S]); N samples an epoch.

    An epoch takes every sample once: shards in an order drawn from (seed, epoch), samples permuted within windows of shards by
    (seed, epoch, window). lanes_met: how many lanes this process takes samples from, all if it is None. Memory: a few numbers a
    shard, and the permutations of the windows in use, one or two for each lane met.
    """

    def __init__(self, counts: np.ndarray, rule: OrderRule = OrderRule(), *, lanes_met: int | None = None):
        self.rule = rule
        self.lanes_met = rule.lanes if lanes_met is None else min(rule.lanes, lanes_met)
        self.shards = np.flatnonzero(counts).astype(np.int32)  # a shard without samples is in no window
        self.counts = np.asarray(counts, np.int64)
        self.num_samples = int(self.counts.sum())
        self.windows = max(1, round(len(self.shards) / rule.shuffle_shards))
        self._epochs: OrderedDict[int, _Epoch] = OrderedDict()
        self._permutations: OrderedDict[tuple[int, int], np.ndarray] = OrderedDict()

    def locate(self, positions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Shard and row within it of the samples at these positions of the stream: int32 [n] and int32 [n]."""
        epochs, sequence = self._sequence(positions)
        shards, rows = np.empty(len(sequence), np.int32), np.empty(len(sequence), np.int32)
        for epoch in np.unique(epochs):
            plan = self._epoch(int(epoch))
            mine = np.flatnonzero(epochs == epoch)
            windows = plan.window_of(sequence[mine])
            for window in np.unique(windows):
                here = mine[windows == window]
                start = plan.window_starts[window]
                permuted = start + self._permutation(int(epoch), int(window))[sequence[here] - start]
                slots = np.searchsorted(plan.shard_starts, permuted, side="right") - 1
                shards[here] = plan.shards[slots]
                rows[here] = permuted - plan.shard_starts[slots]
        return shards, rows

    def rows_of_step(self, start: int, size: int, first: int, stop: int) -> np.ndarray:
        """Positions of rows first … stop - 1 of a step that takes `size` samples from position `start`: int64 [stop - first].

        Rows are sorted by lane, so that neighbouring rows lie in the same shards.
        """
        lanes, rows = self.rule.lanes, np.arange(first, min(stop, size), dtype=np.int64)
        if lanes == 1:
            return start + rows
        # Counted, not sorted: a step of 65,536 samples is cut into chunks of 64, and each would sort it again. Within an epoch
        # the positions of a lane are `lanes` apart; [lanes, 1] and [1, epochs that the step touches] below.
        edges = (
            np.arange(start // self.num_samples, (start + size - 1) // self.num_samples + 1, dtype=np.int64) * self.num_samples
        )
        begins, ends = np.maximum(edges, start), np.minimum(edges + self.num_samples, start + size)
        lane = np.arange(lanes, dtype=np.int64)[:, None]
        firsts = begins + (lane - (begins - edges)) % lanes
        counts = np.maximum(0, -(-(ends - firsts) // lanes)).ravel()
        stops = np.cumsum(counts)
        run = np.searchsorted(stops, rows, side="right")
        return firsts.ravel()[run] + (rows - (stops - counts)[run]) * lanes

    def one_a_lane(self, positions: np.ndarray) -> list[int]:
        """One of the positions for each lane that they lie in."""
        return positions[np.unique(self._lanes(positions), return_index=True)[1]].tolist()

    def window_shards(self, position: int, *, ahead: int = 0) -> np.ndarray:
        """Shards of the window that a position lies in, or of one `ahead` of it in the same epoch (else none): int32."""
        epochs, sequence = self._sequence(np.array([position], np.int64))
        plan = self._epoch(int(epochs[0]))
        window = int(plan.window_of(sequence)[0]) + ahead
        edges = plan.window_edges
        return plan.shards[edges[window] : edges[window + 1]] if window < self.windows else plan.shards[:0]

    def _lanes(self, positions: np.ndarray) -> np.ndarray:
        return positions % self.num_samples % self.rule.lanes

    def _sequence(self, positions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Epoch of each position, and its place in the epoch's sequence of windows."""
        epochs, within = np.divmod(np.asarray(positions, np.int64), self.num_samples)
        lane, step = within % self.rule.lanes, within // self.rule.lanes
        each, longer = divmod(self.num_samples, self.rule.lanes)  # the first `longer` lanes have one sample more
        return epochs, lane * each + np.minimum(lane, longer) + step

    def _epoch(self, epoch: int) -> _Epoch:
        def draw() -> _Epoch:
            shards = self.shards[np.random.default_rng((self.rule.seed, epoch)).permutation(len(self.shards))]
            edges = np.linspace(0, len(shards), self.windows + 1).round().astype(np.int64)
            starts = np.concatenate([[0], np.cumsum(self.counts[shards])])
            return _Epoch(shards, starts[:-1], edges, starts[edges])

        return _remembered(self._epochs, epoch, draw, most=2)

    def _permutation(self, epoch: int, window: int) -> np.ndarray:
        def draw() -> np.ndarray:
            starts = self._epoch(epoch).window_starts
            rng = np.random.default_rng((self.rule.seed, epoch, 1 + window))
            return rng.permutation(np.arange(starts[window + 1] - starts[window], dtype=np.int32))

        return _remembered(self._permutations, (epoch, window), draw, most=self.lanes_met + 2)


@dataclass(frozen=True)
class _Epoch:
    """One epoch's shards in order, and where each shard and each window begins in the sequence of its samples."""

    shards: np.ndarray
    shard_starts: np.ndarray
    window_edges: np.ndarray  # [windows + 1], indices into shards
    window_starts: np.ndarray  # [windows + 1], samples

    def window_of(self, sequence: np.ndarray) -> np.ndarray:
        return np.searchsorted(self.window_starts, sequence, side="right") - 1


def _remembered(memory: OrderedDict, key: Hashable, draw: Callable, most: int):
    """What `draw` gives for a key, drawn once while it is among the `most` last asked for."""
    if key in memory:
        memory.move_to_end(key)
    else:
        memory[key] = draw()
        if len(memory) > most:
            memory.popitem(last=False)
    return memory[key]


# ---------------------------------------------------------------- the sample in a row of a shard

FETCHES = 4  # shards fetched in the background at a time
RETRY_AFTER_SECONDS = 60.0  # until a shard that could not be opened is tried again
LEFTOVER_SECONDS = 24 * 3600  # downloads older than this are of processes that were killed
DOWNLOAD_NAME = re.compile(r"\.?[0-9a-f]{16}-.+")  # also of the staging files that become one


class ShardReader:
    """Samples by (shard, row) of a table, for one thread of one process; every process has its own.

    columns: of captions. open_at_once: shards kept open, the last used ones; a caller's shards in use and those prepared should
    be fewer. A tar takes a file descriptor and some 50 bytes of memory a sample and, if it is remote, the disk space of a copy;
    a row group takes the memory of its images. download_to: where remote tars are copied, `shard_downloads` in the cache folder
    if it is None. The processes that share this folder share the copies. A copy is deleted when a reader that used it lets go
    of the shard; others that have it open read on. Copies and half copies older than a day, left by processes that were killed,
    are deleted at the first read.

    It opens nothing before the first read, so it can be sent to another process; after a fork, the child opens its own files.
    """

    _pool: ThreadPoolExecutor | None  # of those that open shards in the background

    def __init__(
        self,
        table: ShardTable,
        columns: Sequence[str] = (CAPTION,),
        *,
        open_at_once: int = 64,
        download_to: Path | None = None,
    ):
        self.table, self.columns, self.open_at_once = table, tuple(columns), open_at_once
        self.download_to = None if download_to is None else Path(download_to)
        self._reset()

    def __getstate__(self) -> dict:
        return {name: value for name, value in self.__dict__.items() if not name.startswith("_")}

    def __setstate__(self, state: dict) -> None:
        self.__dict__.update(state)
        self._reset()

    def read(self, shard: int, row: int) -> Sample:
        """The sample at a row of a shard, counted from 0. Waits if the shard has to be opened (see `prepare`).

        One that cannot be used says why in `skipped`: "no image", "no caption", "damaged .json (…)", "missing" (the shard ends
        before it), "shard unreadable".
        """
        opened = self._opened(shard)
        if opened is None:
            sample = Sample(f"row {row}", skipped="shard unreadable")
        elif row >= len(opened):
            sample = Sample(f"row {row}", skipped="missing")
        else:
            try:
                sample = opened.sample(row)
            except OSError as error:  # a network file system that lost the file: it is opened anew, later
                self._give_up(shard, error)
                sample = Sample(f"row {row}", skipped="shard unreadable")
        sample.key = f"{self.table.name(shard)}:{sample.key}"
        return sample

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

    def _reset(self) -> None:
        self._open: OrderedDict[int, Future[_OpenShard | _OpenGroup]] = OrderedDict()  # the last used one last
        self._unreadable: dict[int, float] = {}  # shard -> when it may be tried again
        self._told: set[int] = set()  # shards with something wrong that the log has
        self._pool = None
        self._pid: int | None = None

    def _start(self) -> None:
        """Begin to read in this process."""
        if self._pid == os.getpid():
            return
        self._reset()
        self._pid = os.getpid()
        # Runs at the end of this process, too, also where that is a worker process, which skips what atexit knows.
        Finalize(self, _let_go_all, (self._open,), exitpriority=1)
        if any("://" in address and not address.endswith(TABLES) for address in self.table.addresses):
            _sweep(self._downloads())

    def _downloads(self) -> Path:
        folder = self.download_to or cache_folder() / "shard_downloads"
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def _opened(self, shard: int) -> _OpenShard | _OpenGroup | None:
        """None if it cannot be opened."""
        self._start()
        if shard in self._open:
            self._open.move_to_end(shard)
        elif time.monotonic() < self._unreadable.get(shard, 0.0):
            return None
        else:
            future = Future()
            try:
                future.set_result(self._fetch(shard))
            except Exception as error:
                future.set_exception(error)
            self._keep(shard, future)
        try:
            return self._open[shard].result()
        except Exception as error:
            self._give_up(shard, error)
            return None

    def _keep(self, shard: int, future: Future) -> None:
        self._open[shard] = future
        while len(self._open) > self.open_at_once:
            self._open.popitem(last=False)[1].cancel()

    def _give_up(self, shard: int, error: Exception) -> None:
        """Let go of a shard until it may be tried again; say so once."""
        self._open.pop(shard)
        self._unreadable[shard] = time.monotonic() + RETRY_AFTER_SECONDS
        if shard not in self._told:
            self._told.add(shard)
            told = (without_query(self.table.place(shard)[0]), type(error).__name__, error)
            logger.warning("%s cannot be read (%s: %s): its samples are skipped", *told)

    def _fetch(self, shard: int) -> _OpenShard | _OpenGroup:
        """Open a shard, in the background or not. Raises what the last attempt raised."""
        address, group = self.table.place(shard)
        if group is not None:
            work: Callable[[], _OpenShard | _OpenGroup] = partial(_open_group, address, group, self.columns)
        elif "://" in address:
            work = partial(_open_remote, address, self._downloads(), self.columns)
        else:
            work = partial(_open_local, address, self.columns)
        opened = patiently(work, 1 if shard in self._unreadable else TRIES)
        if self._unreadable.pop(shard, None) is not None:
            logger.info("%s can be read again", without_query(address))
            self._told.discard(shard)
        self._tell_of_shortage(shard, opened)
        return opened

    def _tell_of_shortage(self, shard: int, opened: _OpenShard | _OpenGroup) -> None:
        """Log, once, that a shard does not hold what the table says."""
        name, count = without_query(self.table.place(shard)[0]), int(self.table.counts[shard])
        if shard in self._told or not (opened.broken or len(opened) != count):
            return
        self._told.add(shard)
        if opened.broken:
            logger.warning("%s: %s (%d of %d samples are there)", name, opened.broken, len(opened), count)
        else:
            left_out = "the others are skipped" if len(opened) < count else "no more than these are read"
            logger.warning("%s holds %d samples where %d were counted: %s", name, len(opened), count, left_out)


def _let_go_all(opened: OrderedDict[int, Future]) -> None:
    while opened:
        opened.popitem()[1].cancel()


@dataclass(frozen=True)
class _OpenShard:
    """A tar or folder."""

    index: ShardIndex
    read: ReadAt
    tar: OpenTar | None = None  # kept open

    def __len__(self) -> int:
        return len(self.index)

    @property
    def broken(self) -> str:
        return self.index.broken

    def sample(self, row: int) -> Sample:
        return self.index.sample(row, self.read)


@dataclass(frozen=True)
class _OpenGroup:
    """A row group of a table, in memory. images: as the column has them; captions: string [N]; keys: string [N] or None."""

    images: pa.Array
    captions: pa.StringArray
    keys: pa.Array | None
    folder: str
    group: int
    broken = ""

    def __len__(self) -> int:
        return len(self.captions)

    def sample(self, row: int) -> Sample:
        key = self.keys[row].as_py() if self.keys is not None else f"row group {self.group}, row {row}"
        caption = self.captions[row].as_py()
        try:
            image = image_bytes(self.images[row].as_py(), self.folder, key)
        except (OSError, ValueError):
            return Sample(key, skipped="no image")
        return Sample(key, image, caption=caption, skipped="" if caption else "no caption")


def _open_group(address: str, group: int, columns: Sequence[str]) -> _OpenGroup:
    (file,) = find_files(address, TABLES)
    with open_table(file) as table:
        images = image_column(address, table.schema)
        wanted = dict.fromkeys([images, *columns, *(["key"] if "key" in table.schema.names else [])])
        rows = table.read(list(wanted), group).combine_chunks()
        keys = rows.column("key").combine_chunks().cast(pa.string()) if "key" in rows.column_names else None
        pictures = rows.column(images).combine_chunks()
        return _OpenGroup(pictures, captions_in(rows, columns), keys, address.rpartition("/")[0], group)


def _open_local(path: str, columns: Sequence[str]) -> _OpenShard:
    if os.path.isdir(path):
        with open_shard(path) as (samples, read):
            return _OpenShard(index_shard(samples, columns), read)
    return _opened_tar(OpenTar(path), columns)


def _opened_tar(tar: OpenTar, columns: Sequence[str]) -> _OpenShard:
    with open_shard("", tar) as (samples, read):
        return _OpenShard(index_shard(samples, columns), read, tar)


def _open_remote(address: str, folder: Path, columns: Sequence[str]) -> _OpenShard:
    """Open the copy of a remote tar, after downloading it if there is none of the store's size in the folder."""
    filesystem, path = url_to_fs(address)  # made anew: one made before a fork is of no use after it
    size, plain = filesystem.info(path).get("size"), without_query(address)
    digest = hashlib.sha256(plain.encode("utf-8", errors="surrogateescape")).hexdigest()[:16]
    copy = folder / f"{digest}-{plain.rpartition('/')[2]}"
    with suppress(FileNotFoundError):
        tar = OpenTar(copy, copy)
        if size is None or os.fstat(tar.fileno()).st_size == size:
            return _opened_tar(tar, columns)
        tar.copy = None  # of an older version of the shard, whose place the new one takes
    with atomic_path(copy) as staging:
        filesystem.get_file(path, str(staging))
        got = staging.stat().st_size
        if size is not None and got != size:
            filesystem.invalidate_cache()  # the size may be that of an earlier listing
            raise OSError(errno.EIO, f"{got:,} of {size:,} bytes arrived", plain)
        tar = OpenTar(staging, copy)  # now: another process may delete the copy at once
    return _opened_tar(tar, columns)


def _sweep(folder: Path) -> None:
    """Delete what killed processes left; of what a living one still reads, this takes the name only."""
    oldest = time.time() - LEFTOVER_SECONDS
    for path in folder.iterdir():
        with suppress(OSError):  # another process may be sweeping, too
            if DOWNLOAD_NAME.fullmatch(path.name) and path.stat().st_mtime < oldest:
                path.unlink()


# ---------------------------------------------------------------- all three


class ShardStream:
    """The samples of a table's shards, in the order of a rule."""

    def __init__(self, table: ShardTable, rule: OrderRule, reader: ShardReader):
        self.table, self.order, self.reader = table, SampleOrder(table.counts, rule), reader

    @property
    def fingerprint(self) -> str:
        return self.table.fingerprint

    def prepare(self, positions: np.ndarray) -> None:
        """Have the shards of the next window fetched."""
        for position in self.order.one_a_lane(positions):
            self.reader.prepare(self.order.window_shards(position, ahead=1).tolist())

    def told(self, shard: int, row: int) -> str:
        """A sample by its row: its key is not known before it is read."""
        return f"{self.table.name(shard)}:row {row}"

    def read(self, shard: int, row: int) -> Sample:
        return self.reader.read(shard, row)
