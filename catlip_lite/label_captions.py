"""Front door of labelling a corpus: captions that no notebook could hold → the labels of each, and synset counts, file by file.

    python -m catlip_lite.label_captions SOURCE DESTINATION --workers 8

Reads parquets or WebDataset shards, local or remote, in processes of this machine or on a Ray cluster. A source file
`00000.tar` becomes two files; the digits are of its address, so that equal names in two folders differ:
- `00000-1f3a9c2e.labels.parquet`: uid: string, labels: list<int32>, a row a caption in the source's order. A label is a
  WNID number (2084071 for n02084071), in the labeler's order; a caption without any has an empty list.
- `00000-1f3a9c2e.counts.parquet`: wnid: string, count: int64, the captions of that file that mention the synset.
A result is there completely or not at all, whatever ends the run: each file is written under a name of its own and then
renamed, the labels last. Complete ones are skipped, unless the source has another size, ETag or time of change by now: then it
is labelled again. Counts of one destination or several become the `synset_counts.parquet` that notebook 02 prunes.
"""

from __future__ import annotations

import argparse
import errno
import hashlib
import json
import logging
import multiprocessing
import os
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import closing, contextmanager, nullcontext, suppress
from dataclasses import dataclass, field
from functools import partial
from importlib.util import find_spec
from itertools import islice
from pathlib import Path, PurePosixPath

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from fsspec.core import url_to_fs
from fsspec.implementations.local import LocalFileSystem

from .artefacts import PROVENANCE_KEY, provenance, write_table
from .data.captions import DEFAULT_COLUMN, OF_FILES, is_text
from .data.shards import parse_facts, read_caption, scan_shard
from .data.sources import COUNTS_SUFFIX, LABELS_SUFFIX, LOOK_UPS, SourceFile, find_source_files
from .labels import CaptionLabeler, load_nouns
from .labels.labeler import LABELER_FACTS, MODES
from .labels.senses import SENSES
from .machine import usable_cores
from .orphans import stop_with_parent
from .progress import progress

logger = logging.getLogger(__name__)

ENGINES = ("processes", "ray")
COUNTS_FILE = "synset_counts.parquet"
DEFAULT_UID_COLUMN = "uid"
BATCH = 65_536  # captions labelled at a time, and rows of a row group: some ten MB
READ_BUFFER = 8 << 20  # bytes of a column read at a time; without it, pyarrow reads a row group's whole column
LOOK_AT = 8  # files whose columns are looked at before any is labelled
MERGE_ROWS = 5_000_000  # rows of counts in memory before they are added up


@dataclass
class LabelReport:
    """What a run did. files: labelled now; skipped: complete from an earlier run; broken: (address, reason) of those left out.

    captions and unlabelled (those without any synset), damaged ("shard:key: reason" of samples that cannot be read, and have no
    labels): of the files labelled now. seconds: wall clock, from the first file's start.
    """

    files: int = 0
    skipped: int = 0
    broken: list[tuple[str, str]] = field(default_factory=list)
    captions: int = 0
    unlabelled: int = 0
    damaged: list[str] = field(default_factory=list)
    seconds: float = 0.0

    def __str__(self) -> str:
        share = f" ({self.unlabelled / self.captions:.1%})" if self.captions else ""
        lines = [
            f"{self.files:,} files labelled, {self.skipped:,} complete already, {len(self.broken):,} broken",
            f"{self.captions:,} captions, {self.unlabelled:,} of them without a label{share}",
            f"{self.captions / max(self.seconds, 1e-9):,.0f} captions/s",
            *(f"broken: {file}: {reason}" for file, reason in self.broken),
            *(f"damaged: {sample}" for sample in self.damaged),
        ]
        return "\n".join(lines)


def label_corpus(
    source: str | Path | Sequence[str | Path],
    destination: str | Path,
    *,
    mode: str = "compound",
    sense: str | None = None,
    proper_nouns: bool = True,
    tagger: str = "perceptron",
    column: str = DEFAULT_COLUMN,
    uid_column: str = DEFAULT_UID_COLUMN,
    uid_from_json: bool = False,
    engine: str = "processes",
    workers: int | None = None,
    reporting: Callable[[Iterable, int], Iterable] = lambda outcomes, files: outcomes,
) -> LabelReport:
    """Label every caption behind an address (results: see the module); run again with the same arguments, it goes on.

    source: parquets or tars by address, see `find_source_files`. destination: a folder, local or at any fsspec address; all
    workers must reach both. mode, sense, proper_nouns, tagger: as of `CaptionLabeler`. column: where parquets keep captions;
    tars keep them in .txt, else in .json under "caption". uid_column: values become strings; parquets without a column "uid"
    get "<file stem>:<row>" (any other name must be there). A tar's uid is the sample's key; with uid_from_json it is
    `uid_column` of its .json, which DataComp's shards have ("uid") and which costs time.
    engine: "processes" of this machine or "ray" (the cluster of RAY_ADDRESS, else this machine; all its machines need this
    package). workers: files at a time; None: a core each. A script that uses more than one must call this within `if __name__
    == "__main__":`. reporting: wraps the outcomes, one a file as it is finished, and is told how many there will be.

    A file that cannot be read to its end, or lacks a column, is left out, logged and reported; the others go on.
    Raises, before any work: ValueError (unknown mode or engine; the destination holds labels of another labeler or column; none
    of the parquets looked at has the column), FileNotFoundError, ModuleNotFoundError (Ray is not installed).
    Raises, with all finished files kept: OSError if results cannot be written (a full disk), RuntimeError if a worker dies,
    KeyboardInterrupt; ValueError if no file at all could be labelled.
    """
    if engine not in ENGINES:
        raise ValueError(f"engine={engine!r} is unknown: choose one of {', '.join(ENGINES)}")
    if workers is not None and workers < 1:
        raise ValueError(f"workers={workers} must be 1 or more, or None for as many as there are cores")
    if engine == "ray" and find_spec("ray") is None:
        raise ModuleNotFoundError("engine='ray' needs Ray: pip install 'catlip-lite[cluster]', or use engine='processes'")
    labeler = CaptionLabeler(mode, sense=sense, proper_nouns=proper_nouns, tagger=tagger)
    how = {"labeler": labeler.name, **labeler.card}
    how |= {"caption_column": column, "uid_column": uid_column, "uid_from_json": uid_from_json}
    files, target = find_source_files(source), Destination.at(destination)
    done = _complete(files, target, how)
    # The largest first: at the end, no worker is left alone with a long one.
    todo = sorted((file for file in files if file.address not in done), key=lambda file: -(file.size or 0))
    _look_at_columns(todo, how)
    target.filesystem.makedirs(target.folder, exist_ok=True)
    report, started = LabelReport(skipped=len(done)), time.monotonic()
    try:
        with closing(_outcomes(engine, workers, todo, partial(label_file, destination=target, how=how))) as outcomes:
            for outcome in reporting(outcomes, len(todo)):
                _add(outcome, report)
    except (KeyboardInterrupt, OSError, RuntimeError) as error:
        finished = report.files + report.skipped
        with suppress(Exception):  # workers may have finished some that it has not heard of, if the destination can be read
            finished = len(_complete(files, target, how))
        told = f"{finished:,} of {len(files):,} files are done; run again with the same arguments to go on from there"
        if isinstance(error, OSError):
            raise OSError(error.errno or errno.EIO, f"{error.strerror or error}: {told}") from error
        raise type(error)(f"{'stopped' if isinstance(error, KeyboardInterrupt) else error}: {told}") from error
    finally:
        report.seconds = time.monotonic() - started
    if report.broken and not report.files and not report.skipped:
        file, reason = report.broken[0]
        raise ValueError(f"none of the {len(report.broken):,} files could be labelled, the first to fail: {file}: {reason}")
    return report


# ---------------------------------------------------------------- before and between


def _complete(files: Sequence[SourceFile], destination: Destination, how: dict) -> set[str]:
    """Addresses of the files whose labels are there already. Raises ValueError if the destination's are of another kind."""
    cards, complete = {name: card for name, _, card in destination.results(with_counts=False)}, set()
    for card in cards.values():
        if card["labeler"] != how["labeler"]:
            raise ValueError(
                f"{destination.address} holds labels that {card['labeler']} made, not {how['labeler']}: use another "
                "destination, or remove its files"
            )
    for file in files:
        card, wanted = cards.get(file.result_name), _card(file, how)
        other = next((option for option in how if card and card.get(option) != wanted[option]), None)
        if other:
            raise ValueError(
                f"{destination.address} holds labels of {file.address} made with {other}={card.get(other)!r}, not "
                f"{wanted[other]!r}: use another destination, or remove its files"
            )
        if card and all(card.get(fact) == wanted[fact] for fact in wanted):
            complete.add(file.address)
        elif card:
            logger.info("%s has changed since it was labelled: it is labelled again", file.address)
    return complete


def _card(source: SourceFile, how: dict) -> dict:
    """What both files of a result say, and a later run compares. No date in it: the same work gives the same bytes."""
    return {**how, "source": source.address, "source_size": source.size, "source_stamp": source.stamp}


def _look_at_columns(files: Sequence[SourceFile], how: dict) -> None:
    """Raises ValueError, before labelers are built and files read, if none of some parquets has the columns."""
    parquets, reasons = [file for file in files if file.suffix == ".parquet"], []
    for file in parquets[:: max(1, len(parquets) // LOOK_AT)][:LOOK_AT]:
        try:
            with _open_parquet(file) as parquet:
                _check_schema(parquet.schema_arrow, how)
            return
        except (ValueError, OSError) as error:
            reasons.append(f"{file.address}: {error}")
    if reasons and len(parquets) == len(files):
        raise ValueError(f"no file of the {len(reasons)} looked at can be labelled; {reasons[0]}")


def _add(outcome: Outcome, report: LabelReport) -> None:
    """Raises OSError if the outcome could not be written: the next one would not, either."""
    if outcome.failed:
        raise OSError(outcome.errno or errno.EIO, f"the labels of {outcome.source} cannot be written ({outcome.failed})")
    if outcome.broken:
        logger.warning("%s is left out: %s", outcome.source, outcome.broken)
        report.broken.append((outcome.source, outcome.broken))
        return
    report.files += 1
    report.captions += outcome.captions
    report.unlabelled += outcome.unlabelled
    report.damaged += outcome.damaged


# ---------------------------------------------------------------- who labels: this process, several, or a Ray cluster

_stop = None  # in a worker process: an event, set once the run is over, whatever ended it


def _outcomes(engine: str, workers: int | None, files: Sequence[SourceFile], work: Callable) -> Iterator[Outcome]:
    """What `work` makes of each file, in the order in which they are finished; closing it stops the work."""
    workers = min(workers or usable_cores(), len(files)) if engine == "processes" else workers
    if engine == "ray" and files:
        yield from _on_ray(workers, files, work)
    elif workers < 2:
        yield from map(work, files)
    else:
        context = multiprocessing.get_context("spawn")  # a fork would share the parent's threads and connections
        stop = context.Event()
        with ProcessPoolExecutor(workers, mp_context=context, initializer=_start_worker, initargs=(stop,)) as pool:
            try:
                for future in as_completed([pool.submit(work, file) for file in files]):
                    yield future.result()
            except BrokenProcessPool as error:
                raise RuntimeError(
                    "a worker process died: if memory ran out, use fewer workers; a script must call label_corpus within "
                    "`if __name__ == '__main__':`"
                ) from error
            finally:
                stop.set()
                pool.shutdown(wait=True, cancel_futures=True)


def _start_worker(stop) -> None:
    global _stop
    _stop = stop
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group: the parent decides
    stop_with_parent()  # else the workers of a killed parent wait for work for ever


def _on_ray(workers: int | None, files: Sequence[SourceFile], work: Callable) -> Iterator[Outcome]:
    import ray

    is_ours = not ray.is_initialized()
    if is_ours:
        ray.init(log_to_driver=False)  # joins the cluster of RAY_ADDRESS, if there is one
    # Plain tasks: Ray gives each a core, on any machine, and runs one anew (three times) whose process or machine is lost.
    label, waiting = ray.remote(num_cpus=1)(lambda file: work(file)), iter(files)
    under_way = []
    try:
        workers = workers or max(1, int(ray.cluster_resources().get("CPU", 1)))
        under_way += [label.remote(file) for file in islice(waiting, workers)]
        while under_way:
            [done], under_way = ray.wait(under_way)
            under_way += [label.remote(file) for file in islice(waiting, 1)]
            yield ray.get(done)
    except ray.exceptions.RayError as error:
        lines = str(error).strip().splitlines()
        raise RuntimeError(f"labelling under Ray failed: {lines[-1] if lines else type(error).__name__}") from error
    finally:
        for task in under_way:
            ray.cancel(task, force=True)
        if is_ours:
            ray.shutdown()


# ---------------------------------------------------------------- one file


@dataclass
class Outcome:
    """What became of a file: done (captions, unlabelled), broken (why it cannot be read) or failed (why not written).

    damaged: "shard:key: reason" of each sample whose caption cannot be read, and which has no labels therefore.
    """

    source: str
    captions: int = 0
    unlabelled: int = 0
    damaged: tuple[str, ...] = ()
    broken: str = ""
    failed: str = ""
    errno: int | None = None


def label_file(source: SourceFile, destination: Destination, how: dict) -> Outcome:
    """Label one file and write its result: all of it or, if the outcome is broken or failed, nothing.

    how: the labeler's name and card, caption_column, uid_column, uid_from_json.
    """
    name, card = source.result_name, _card(source, how)
    try:
        with destination.staged() as labels, destination.staged() as counts:
            tally = _write_labels(labels, source, how, card)
            card |= {**tally.card(), "labels_bytes": labels.stat().st_size}
            with _writing():
                table = tally.table().replace_schema_metadata(_metadata(card))
                pq.write_table(table, counts, compression="zstd")
                destination.commit(name, labels, counts)
    except DestinationError as error:
        cause = error.__cause__
        return Outcome(source.address, failed=_one_line(cause), errno=getattr(cause, "errno", None))
    except Exception as error:  # whatever is wrong with one file of thousands, the others go on
        return Outcome(source.address, broken=_one_line(error))
    return Outcome(source.address, tally.captions, tally.unlabelled, tuple(tally.damaged))


class _Tally:
    """Counts over the captions of a file, batch by batch."""

    def __init__(self):
        self.captions = self.missing = self.unlabelled = 0
        self.damaged: list[str] = []
        self.counts: Counter[int] = Counter()  # WNID number -> captions with that synset
        self.digest = hashlib.sha256()

    def add(self, captions: pa.StringArray, labels: pa.ListArray) -> None:
        """captions: string [N]; labels: list<int32> [N]."""
        self.captions += len(captions)
        self.missing += captions.null_count
        # Mode corenet can give a caption a synset twice: distinct pairs of row and synset are counted, here in one int64.
        rows = pc.list_parent_indices(labels).to_numpy().astype(np.int64)
        pairs = np.sort(rows << 32 | labels.flatten().to_numpy())
        is_new = np.ones(len(pairs), dtype=bool)
        is_new[1:] = pairs[1:] != pairs[:-1]
        pairs = pairs[is_new]
        self.unlabelled += len(captions) - int(np.count_nonzero(np.bincount(rows)))
        counted = pc.value_counts(pa.array(pairs & 0xFFFFFFFF))
        self.counts.update(dict(zip(*(counted.field(i).to_pylist() for i in range(2)), strict=True)))
        # The bytes that `captions.fingerprint` sees: each caption and a zero, in one buffer.
        ended = pc.binary_join_element_wise(pc.fill_null(captions, ""), "", "\0")
        if len(ended):
            _, ends, text = ended.buffers()
            self.digest.update(memoryview(text)[: np.frombuffer(ends, dtype=np.int32)[len(ended)]])

    def card(self) -> dict:
        facts = {"num_captions": self.captions, "num_missing": self.missing, "num_unlabelled": self.unlabelled}
        return facts | {"captions_sha256": self.digest.hexdigest()}

    def table(self) -> pa.Table:
        """wnid: string, count: int64, by WNID."""
        numbers = sorted(self.counts)
        counts = pa.array([self.counts[n] for n in numbers], pa.int64())
        return pa.table({"wnid": pa.array([f"n{n:08d}" for n in numbers], pa.string()), "count": counts})


def _write_labels(path: Path, source: SourceFile, how: dict, card: dict) -> _Tally:
    """Write uid and labels of each caption, a row group a batch; gives the counts."""
    labeler, tally = CaptionLabeler.from_card(how), _Tally()
    schema = pa.schema([("uid", pa.string()), ("labels", pa.list_(pa.int32()))]).with_metadata(_metadata(card))
    read = _read_shard if source.suffix == ".tar" else _read_parquet
    with _writing():  # a dictionary pays for synsets; no two uids are the same
        writer = pq.ParquetWriter(path, schema, compression="zstd", use_dictionary=["labels.list.element"])
    try:
        with closing(read(source, how, tally.damaged)) as batches:
            for uids, captions in batches:
                if _stop is not None and _stop.is_set():
                    raise KeyboardInterrupt
                labels = labeler.label_column(captions)
                tally.add(captions, labels)
                with _writing():
                    writer.write_batch(pa.RecordBatch.from_arrays([uids, labels], schema=writer.schema))
    except BaseException:
        with suppress(Exception):  # a writer that is left open says so on stderr
            writer.close()
        raise
    with _writing():
        writer.close()
    return tally


def _metadata(card: dict) -> dict[bytes, bytes]:
    return {PROVENANCE_KEY: json.dumps(card).encode()}


def _one_line(error: BaseException) -> str:
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    text = " ".join(str(error).split())
    return text if isinstance(error, ValueError) and text else f"{type(error).__name__}: {text}"


# ---------------------------------------------------------------- uids and captions, a batch at a time


@contextmanager
def _open_parquet(source: SourceFile) -> Iterator[pq.ParquetFile]:
    # Two columns are read in turns: reading ahead of one is in vain for the other.
    with nullcontext(source.path) if source.is_local else source.open(cache_type="none") as file:
        try:
            parquet = pq.ParquetFile(file, buffer_size=READ_BUFFER)
        except pa.ArrowInvalid as error:
            raise ValueError(f"no readable parquet file ({error})") from error
        with parquet:
            yield parquet


def _check_schema(schema: pa.Schema, how: dict) -> None:
    column, others = how["caption_column"], f"choose one of {', '.join(schema.names)}"
    for needed in [column] + [how["uid_column"]] * (how["uid_column"] != DEFAULT_UID_COLUMN):
        if needed not in schema.names:
            raise ValueError(f"no column {needed!r}: {others}")
    if not is_text(schema.field(column).type):
        raise ValueError(f"column {column!r} holds {schema.field(column).type}, not text: {others}")


def _read_parquet(source: SourceFile, how: dict, _damaged: list) -> Iterator[tuple[pa.StringArray, pa.StringArray]]:
    with _open_parquet(source) as parquet:
        _check_schema(parquet.schema_arrow, how)
        column, uid_column, first = how["caption_column"], how["uid_column"], 0
        has_uids = uid_column in parquet.schema_arrow.names
        columns = list(dict.fromkeys([column, uid_column])) if has_uids else [column]
        for batch in parquet.iter_batches(BATCH, columns=columns, use_threads=False):  # the cores are the other workers'
            if has_uids:
                uids = batch.column(uid_column).cast(pa.string())
            else:
                rows = pa.array(np.arange(first, first + len(batch))).cast(pa.string())
                uids = pc.binary_join_element_wise(source.stem, rows, ":")
            first += len(batch)
            yield uids, _clean(batch.column(column))


def _clean(captions: pa.Array) -> pa.StringArray:
    """Captions as `read_captions` gives them: null where there is only white space. Bytes that are no UTF-8 become U+FFFD."""
    captions = captions.cast(pa.string())
    try:
        captions.validate(full=True)
    except pa.ArrowInvalid:
        texts = captions.cast(pa.binary()).to_pylist()
        captions = pa.array([None if t is None else t.decode("utf-8", errors="replace") for t in texts], pa.string())
    is_blank = pc.or_(pc.utf8_is_space(captions), pc.equal(captions, ""))
    return pc.if_else(is_blank, None, captions)


def _read_shard(source: SourceFile, how: dict, damaged: list) -> Iterator[tuple[pa.StringArray, pa.StringArray]]:
    """Raises ValueError if the tar breaks off or a sample lacks its uid; damaged gets "shard:key: reason" of samples with a
    .json that cannot be read: with no caption, and their key for a uid."""
    with nullcontext() if source.is_local else source.open() as file:
        samples = scan_shard(source.path, file, whole=True)
        pairs = (_uid_and_caption(f"{source.stem}.tar", *sample, how, damaged) for sample in samples)
        while batch := list(islice(pairs, BATCH)):
            uids, captions = zip(*batch, strict=True)
            # Half of a surrogate pair, which JSON can hold, is no Unicode: it becomes "?".
            encoded = [None if caption is None else caption.encode("utf-8", errors="replace") for caption in captions]
            yield pa.array(uids, pa.string()), pa.array(encoded, pa.binary()).cast(pa.string())


def _uid_and_caption(shard: str, key: str, parts: dict, tar, how: dict, damaged: list) -> tuple[str, str | None]:
    caption, reason = read_caption(parts, tar)
    uid = key
    if how["uid_from_json"] and not reason:
        try:
            facts = parse_facts(tar.extractfile(parts["json"]).read()) if "json" in parts else {}
        except ValueError as error:
            reason = str(error)
        else:
            uid = facts.get(how["uid_column"])
            if uid is None:
                raise ValueError(f"sample {key} has no {how['uid_column']!r} in its .json: label without uid_from_json")
    if reason:
        damaged.append(f"{shard}:{key}: {reason}")
    return str(uid), caption


# ---------------------------------------------------------------- the folder of results


class DestinationError(Exception):
    """A result could not be written (its cause says why): nothing that another source file would change."""


@contextmanager
def _writing() -> Iterator[None]:
    """What goes wrong within is the destination's fault: raises DestinationError from it."""
    try:
        yield
    except Exception as error:
        raise DestinationError(str(error)) from error


@dataclass(frozen=True)
class Destination:
    """A folder of results; address as the user gave it, folder as the file system names it.

    The labels of a result are its commit point: they take their place last. The counts hold their size, so that a result that
    was cut off on its way (an interrupted copy, an upload that broke) is seen without reading it.
    """

    filesystem: object = field(repr=False)
    folder: str
    address: str

    @classmethod
    def at(cls, address: str | Path) -> Destination:
        """The folder at a local path or any fsspec address; nothing is created."""
        filesystem, folder = url_to_fs(str(address))
        return cls(filesystem, folder.rstrip("/") or "/", str(address))

    @contextmanager
    def staged(self) -> Iterator[Path]:
        """A local file, in the folder itself if that is local; it is gone when the block ends, unless `commit` has moved it."""
        with _writing():
            folder = self.folder if isinstance(self.filesystem, LocalFileSystem) else None
            handle, path = tempfile.mkstemp(dir=folder, prefix=".catlip-", suffix=".part")
            os.close(handle)
        try:
            yield Path(path)
        finally:
            Path(path).unlink(missing_ok=True)

    def commit(self, name: str, labels: Path, counts: Path) -> None:
        """Put two staged files in their places: the labels last, and old labels away first."""
        places = {suffix: f"{self.folder.rstrip('/')}/{name}{suffix}" for suffix in (COUNTS_SUFFIX, LABELS_SUFFIX)}
        if self.filesystem.exists(places[LABELS_SUFFIX]):
            self.filesystem.rm_file(places[LABELS_SUFFIX])
        for staged, place in zip((counts, labels), places.values(), strict=True):
            if isinstance(self.filesystem, LocalFileSystem):
                staged.chmod(0o644)
                staged.replace(place)
            else:
                self.filesystem.put_file(str(staged), place)

    def results(self, *, with_counts: bool = True) -> Iterator[tuple[str, pa.Table, dict]]:
        """Name, counts (wnid: string, count: int64) and card of each complete result, by name; others are told.

        with_counts: else the table is empty, and its card alone is read.
        """
        self.filesystem.invalidate_cache()
        infos = self.filesystem.ls(self.folder, detail=True) if self.filesystem.exists(self.folder) else []
        sizes = {info["name"].rstrip("/").rpartition("/")[2]: info["size"] for info in infos}
        names = [{n.removesuffix(s) for n in sizes if n.endswith(s)} for s in (LABELS_SUFFIX, COUNTS_SUFFIX)]
        both, incomplete = sorted(names[0] & names[1]), len(names[0] ^ names[1])

        def read(name: str) -> tuple[pa.Table, dict] | None:
            try:
                with self.filesystem.open(f"{self.folder.rstrip('/')}/{name}{COUNTS_SUFFIX}", "rb") as file:
                    table = pq.read_table(file) if with_counts else pq.read_schema(file).empty_table()
            except (pa.ArrowInvalid, OSError):
                return None
            card = json.loads((table.schema.metadata or {}).get(PROVENANCE_KEY, b"{}"))
            return (table, card) if card.get("labels_bytes") == sizes[name + LABELS_SUFFIX] else None

        with ThreadPoolExecutor(LOOK_UPS) as pool:
            for start in range(0, len(both), 16 * LOOK_UPS):  # some at a time: all tables of a large corpus fill the memory
                part = both[start : start + 16 * LOOK_UPS]
                for name, found in zip(part, pool.map(read, part), strict=True):
                    incomplete += found is None
                    if found is not None:
                        yield name, *found
        if incomplete:
            logger.warning("%s: %d result(s) are incomplete and not used", self.address, incomplete)


# ---------------------------------------------------------------- counts


def merge_counts(destinations: str | Path | Sequence[str | Path]) -> tuple[pd.DataFrame, dict]:
    """Synset counts over all complete results of one destination or several, as if all captions had been counted at once.

    Gives the table (wnid, name, count: captions that mention the synset; the most frequent first, ties by WNID) and the card of
    `synset_counts.parquet`: num_captions, labeler and its options, captions (where the sources are), corpus_fingerprint, …
    The fingerprint of one file is that of its captions (`captions.fingerprint`); of more, "files-sha256:" and the SHA-256 over
    the lines "<file name> <fingerprint>", sorted: neither the order of work nor the folder matters.
    Raises ValueError if there is no result or no label, labelers differ, or a source is in it twice.
    """
    parts, cards, pending = [], [], 0
    for address in [destinations] if isinstance(destinations, (str, Path)) else destinations:
        for _, table, card in Destination.at(address).results():
            parts.append(table.replace_schema_metadata(None))
            cards.append(card)
            pending += len(table)
            if pending > MERGE_ROWS:
                parts, pending = [_added_up(parts)], 0
    if not cards:
        raise ValueError(f"{destinations} holds no complete labels: run label_corpus first")
    _check_mergeable(cards)
    num_captions = sum(card["num_captions"] for card in cards)
    counts = _added_up(parts).to_pandas().sort_values(["count", "wnid"], ascending=[False, True], ignore_index=True)
    if counts.empty:
        raise ValueError(f"none of {num_captions:,} captions names a WordNet noun: are they English, and in the right column?")
    counts.insert(1, "name", counts["wnid"].map(load_nouns().name))
    lines = sorted(f"{PurePosixPath(card['source']).name} {card['captions_sha256']}\n" for card in cards)
    of_all = OF_FILES + hashlib.sha256("".join(lines).encode()).hexdigest()
    card = provenance(
        num_captions=num_captions,
        num_unlabelled=sum(card["num_unlabelled"] for card in cards),
        num_files=len(cards),
        **{fact: cards[0][fact] for fact in ("labeler", *LABELER_FACTS, "caption_column")},
        captions=sorted({f"{card['source'].rpartition('/')[0]}/*{PurePosixPath(card['source']).suffix}" for card in cards}),
        corpus_fingerprint=cards[0]["captions_sha256"] if len(cards) == 1 else of_all,
    )
    return counts, card


def write_synset_counts(destinations: str | Path | Sequence[str | Path], folder: str | Path) -> Path:
    """Merge counts (see `merge_counts`) and write `synset_counts.parquet` to a run's folder, where notebook 02 looks for it."""
    counts, card = merge_counts(destinations)
    return write_table(counts, Path(folder) / COUNTS_FILE, card)


def _added_up(parts: Sequence[pa.Table]) -> pa.Table:
    added = pa.concat_tables(parts).group_by("wnid").aggregate([("count", "sum")])
    return pa.table({"wnid": added["wnid"], "count": added["count_sum"]})


def _check_mergeable(cards: Sequence[Mapping]) -> None:
    labelers = sorted({card["labeler"] for card in cards})
    if len(labelers) > 1:
        raise ValueError(f"counts of different labelers cannot be merged: {', '.join(labelers)}")
    seen, first, twins = set(), {}, []
    for card in cards:
        if card["source"] in seen:
            raise ValueError(f"{card['source']} would be counted twice: name each destination once, each with its own sources")
        seen.add(card["source"])
        twin = first.setdefault((PurePosixPath(card["source"]).name, card["captions_sha256"]), card["source"])
        if twin != card["source"] and card["num_captions"]:
            twins.append(f"{twin} and {card['source']}")
    if twins:  # a corpus that was moved between two runs, most likely
        logger.warning("%d file(s) are counted twice, with equal names and captions in two folders: %s", len(twins), twins[0])


# ---------------------------------------------------------------- command line


def main(arguments: Sequence[str] | None = None) -> int:
    """Label a corpus and print the report. Gives 0 (done, though some files may be broken), 1 (an error) or 130 (Ctrl-C)."""
    parser = argparse.ArgumentParser(prog="python -m catlip_lite.label_captions", description=__doc__.splitlines()[0])
    parser.add_argument("source", nargs="+", help="parquets or tars: files, folders, globs or brace patterns, local or remote")
    parser.add_argument("destination", help="the folder of the results, local or remote")
    parser.add_argument("--mode", default="compound", choices=MODES)
    parser.add_argument("--sense", choices=SENSES, help="visual for mode compound, first for the others, if not given")
    parser.add_argument("--no-proper-nouns", dest="proper_nouns", action="store_false", help="leave out names")
    parser.add_argument("--tagger", default="perceptron", help="for mode pos: perceptron, spacy or nltk")
    parser.add_argument("--column", default=DEFAULT_COLUMN, help="where parquets keep captions (%(default)s)")
    parser.add_argument("--uid-column", default=DEFAULT_UID_COLUMN, help="where they keep their uid (%(default)s)")
    parser.add_argument("--uid-from-json", action="store_true", help="take a tar's uids from each sample's .json, not its key")
    parser.add_argument("--engine", default="processes", choices=ENGINES)
    parser.add_argument("--workers", type=int, help="files at a time; a core each if not given")
    parser.add_argument("--counts", metavar="FOLDER", help=f"when all is done, merge the counts into FOLDER/{COUNTS_FILE}")
    options = vars(parser.parse_args(arguments))
    counts = options.pop("counts")
    logging.basicConfig(format="%(message)s")
    try:
        print(label_corpus(**options, reporting=lambda found, files: progress(found, "labelled", files, "files")), flush=True)
        if counts:
            Path(counts).mkdir(parents=True, exist_ok=True)
            print(f"written: {write_synset_counts(options['destination'], counts)}")
    except KeyboardInterrupt as error:
        print(error, file=sys.stderr)
        return 130
    except (ValueError, OSError, RuntimeError, ImportError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
