"""Which shards a corpus has and how many samples each holds: what an order over all samples is drawn from, before any is read.

Reads listings, the statistics that img2dataset leaves beside each tar and, where there are none, the tars' headers (once: the
counts are kept in the cache folder); gives a `ShardTable`, from which a `ShardReader` reads.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..artefacts import atomic_path
from ..cache import cache_folder
from .shard_members import read_members
from .sources import SourceFile, find_source_files

logger = logging.getLogger(__name__)

STATS_SUFFIX = "_stats.json"  # 00000_stats.json beside 00000.tar
LOOK_UPS = 32  # requests at a time: a store answers one in tens of milliseconds
SCANS = 8  # tars counted at a time: remote ones arrive side by side, local ones keep one core busy
READ_AHEAD = 4 << 20  # bytes of a remote tar fetched at a time
TRIES = 4  # to read a tar whose store fails; half a second before the second, then twice as long each time
SAVE_EVERY_SECONDS = 60.0
MOST_SAMPLES = 2**31 - 1  # of a shard: counts are int32
NAMED = 10  # empty shards named in one warning

_wait = time.sleep


@dataclass(frozen=True, eq=False)
class ShardTable:
    """The shards of a corpus and how many samples each holds; small even for 100,000 shards, and fit for other processes.

    addresses: S local paths or protocol://…, sorted within each given address. counts: int32 [S], samples in each, where a
    sample is a key of the tar, usable or not. They may be wrong where img2dataset's statistics are: a `ShardReader` copes.
    """

    addresses: tuple[str, ...]
    counts: np.ndarray

    def __len__(self) -> int:
        return len(self.addresses)

    @property
    def num_samples(self) -> int:
        """Over all shards."""
        return int(self.counts.sum(dtype=np.int64))

    @property
    def fingerprint(self) -> str:
        """16 hex digits: SHA-256 over the shards' file names and counts, in order. The same corpus has it in any folder."""
        digest = hashlib.sha256()
        for address, count in zip(self.addresses, self.counts.tolist(), strict=True):
            digest.update(f"{shard_name(address)}\0{count}\0".encode("utf-8", errors="surrogateescape"))
        return digest.hexdigest()[:16]

    def sample_name(self, shard: int, key: str) -> str:
        """What logs call a sample: "00000.tar:000000042"."""
        return f"{shard_name(self.addresses[shard])}:{key}"


def shard_name(address: str) -> str:
    """The file's name, without its folder and, of a web address, without what follows a question mark."""
    return without_query(address).rpartition("/")[2]


def without_query(address: str) -> str:
    """A web address up to its question mark: what follows may be a signature, which changes; others as they are."""
    return address.partition("?")[0] if address.startswith(("http://", "https://")) else address


def open_shards(
    address: str | Path | Sequence[str | Path], progress: Callable[[Sequence], Iterable] = lambda items: items
) -> ShardTable:
    """The shards behind an address or several, with their counts; each shard once.

    address: a folder of tars, a tar, a glob, a brace pattern ("{00000..00012}.tar"), a list of these, or demo/<split>; local or
    at any address fsspec knows (see `find_source_files`). progress: wraps the list of shards while statistics are looked up
    and, if there are shards without, the list of those while they are counted.

    A count is "successes" in the `<stem>_stats.json` beside the tar, else the cached count of an earlier scan of the same file
    (by address, size and time of change or ETag), else found by scanning the tar's headers. A shard without any sample, or that
    cannot be read as a tar, has count 0 and is warned about.
    Raises FileNotFoundError if an address names no tar, ValueError if all the shards together hold no sample.
    """
    addresses = [str(part) for part in ([address] if isinstance(address, (str, Path)) else address)]
    found = {opening_address(file): file for part in addresses for file in _find_tars(part)}
    files = list(found.values())
    if not files:
        raise FileNotFoundError(
            f"no shards in {address!r}: give a folder of .tar files, a glob, a brace pattern or demo/pretrain"
        )
    counts = dict(zip(found, _in_threads(_count_in_stats, files, LOOK_UPS, progress), strict=True))
    unknown = [file for file in files if counts[opening_address(file)] is None]
    if unknown:
        counts |= _count_by_scan(unknown, _cache_file(addresses), progress)
    table = ShardTable(tuple(found), np.fromiter(counts.values(), np.int32, len(counts)))
    _check(table)
    return table


def opening_address(file: SourceFile) -> str:
    """The address that opens a file again, also in another process: a web address may need what follows its question mark."""
    return file.path if file.path.startswith(("http://", "https://")) else file.address


def _find_tars(text: str) -> list[SourceFile]:
    """The tars behind one address."""
    try:
        files = find_source_files(text)
    except FileNotFoundError:
        files = []
    tars = [file for file in files if file.suffix == ".tar"]
    if not tars:
        instead = f" (it holds {len(files):,} parquet files, which have no images)" if files else ""
        raise FileNotFoundError(
            f"no shards at {text!r}{instead}: give a folder of .tar files, a glob, a brace pattern or demo/pretrain"
        )
    return tars


def _check(table: ShardTable) -> None:
    """Name the empty shards. Raises ValueError if there are no others."""
    if not table.num_samples:
        others = f", like the other {len(table) - 1:,} shards," if len(table) > 1 else ""
        raise ValueError(
            f"{without_query(table.addresses[0])}{others} holds no sample: "
            "give tars with members <key>.jpg (or png, webp) and <key>.txt, as img2dataset writes them"
        )
    empty = np.flatnonzero(table.counts == 0)
    if len(empty):
        named = ", ".join(without_query(table.addresses[i]) for i in empty[:NAMED])
        more = f" and {len(empty) - NAMED:,} more" if len(empty) > NAMED else ""
        logger.warning("%d of %d shards hold no sample and are left out: %s%s", len(empty), len(table), named, more)


def _in_threads(work: Callable, items: Sequence, threads: int, progress: Callable[[Sequence], Iterable]) -> Iterable:
    """What `work` gives for each item, in their order. An interruption drops what has not begun."""
    pool = ThreadPoolExecutor(threads)
    try:
        results = pool.map(work, items)
        for _ in progress(items):
            yield next(results)
    finally:
        pool.shutdown(cancel_futures=True)


# --- counts by img2dataset's statistics ---------------------------------------------------------------------------------


def _count_in_stats(file: SourceFile) -> int | None:
    """How many samples the statistics beside a tar say it holds; None if there are none, or none that can be used."""
    path, mark, query = file.path, "", ""
    if path.startswith(("http://", "https://")):
        path, mark, query = path.partition("?")
    try:
        content = file.filesystem.cat_file(path.removesuffix(".tar") + STATS_SUFFIX + mark + query)
    except FileNotFoundError:
        return None
    except Exception as error:  # a store may say "forbidden" for what is not there, in its own words: the tar can be counted
        logger.info("%s: no %s to be had (%s)", without_query(file.address), STATS_SUFFIX, error)
        return None
    try:
        count = json.loads(content)["successes"]
    except (ValueError, TypeError, KeyError, RecursionError):
        count = None
    if type(count) is int and 0 <= count <= MOST_SAMPLES:
        return count
    logger.warning("%s: its %s has no number of successes: the tar is counted", without_query(file.address), STATS_SUFFIX)
    return None


# --- counts by scanning -------------------------------------------------------------------------------------------------


def _count_by_scan(files: Sequence[SourceFile], cache: Path, progress: Callable[[Sequence], Iterable]) -> dict[str, int]:
    """Counts by address, from the cache or by scanning; what was scanned is cached, also if an interruption ends this."""
    known = _load_counts(cache)
    counts = {opening_address(file): known.get(_identity(file)) for file in files}
    todo = [file for file in files if counts[opening_address(file)] is None]
    if not todo:
        return counts
    logger.info("%d shards have no %s: their samples are counted now, once", len(todo), STATS_SUFFIX)
    saved = time.monotonic()
    try:
        for file, count in zip(todo, _in_threads(_count_in_tar, todo, SCANS, progress), strict=True):
            counts[opening_address(file)] = count or 0
            if count is not None and file.size is not None:  # else a later change could not be told
                known[_identity(file)] = count
            if time.monotonic() - saved > SAVE_EVERY_SECONDS:
                _save_counts(cache, known)
                saved = time.monotonic()
    finally:
        _save_counts(cache, known)
    return counts


def _count_in_tar(file: SourceFile) -> int | None:
    """Samples of a tar, 0 if it is none; None if it cannot be had."""
    options = {} if file.is_local else {"block_size": READ_AHEAD, "cache_type": "readahead"}
    name = without_query(file.address)
    for attempt in range(TRIES):
        try:
            with file.open(**options) as tar:
                members = read_members(tar, name)
            break
        except Exception as error:  # each store has its own: all are named, and none ends a run of thousands of shards
            if attempt == TRIES - 1 or isinstance(error, (FileNotFoundError, PermissionError)):
                logger.warning("%s cannot be read (%s: %s): it is left out", name, type(error).__name__, error)
                return None
            _wait(0.5 * 2**attempt)
    if members.broken:
        logger.warning("%s: %s (%d samples up to there)", name, members.broken, len(members))
    return len(members)


def _identity(file: SourceFile) -> tuple[str, int | None, str | None]:
    return file.address, file.size, file.stamp


def _cache_file(addresses: Sequence[str]) -> Path:
    """Where the counts of a corpus are kept: a file for each address, or list of them, that was ever counted."""
    texts = [text if "://" in text else os.path.abspath(text) for text in map(without_query, addresses)]
    digest = hashlib.sha256("\0".join(texts).encode("utf-8", errors="surrogateescape")).hexdigest()[:16]
    return cache_folder() / "shard_counts" / f"{digest}.jsonl"


def _load_counts(cache: Path) -> dict[tuple[str, int | None, str | None], int]:
    """Cached counts by address, size and stamp; none, with a warning, if the file is damaged."""
    try:
        rows = [json.loads(line) for line in cache.read_text().splitlines()]
        return {(str(row["address"]), row["size"], row["stamp"]): int(row["samples"]) for row in rows}
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, TypeError, KeyError) as error:
        logger.warning("%s is damaged (%s) and ignored: the shards are counted again", cache, error)
        return {}


def _save_counts(cache: Path, counts: dict[tuple[str, int | None, str | None], int]) -> None:
    rows = {address: (size, stamp, samples) for (address, size, stamp), samples in counts.items()}  # the latest of each
    try:
        cache.parent.mkdir(exist_ok=True)
        with atomic_path(cache) as staging, open(staging, "w") as file:
            for address, (size, stamp, samples) in rows.items():
                file.write(json.dumps({"address": address, "size": size, "stamp": stamp, "samples": samples}) + "\n")
    except OSError as error:
        logger.warning("the shards' counts cannot be kept in %s (%s): the next run counts again", cache, error)
