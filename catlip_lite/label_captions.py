"""Front door of labelling a corpus: captions that no notebook could hold → the labels of each, and synset counts, file by file.

    python -m catlip_lite.label_captions SOURCE DESTINATION --workers 8

Reads tables or shards, local or remote, in processes of this machine or on a Ray cluster. A source file `00000.tar` becomes
`00000-1f3a9c2e.labels.parquet`; the digits are of its address, so that equal names in two folders differ. It holds uid: string
and labels: list<int32>, a row a caption in the source's order. A label is a WNID number (2084071 for n02084071), in the
labeler's order; a caption without any has an empty list. How many captions mention each synset is in the file's metadata.

A result is there completely or not at all, whatever ends the run: it is written under a name of its own and then renamed. What
is complete is skipped, unless the source has another size, ETag or time of change by now: then it is labelled again. The counts
of one destination or several become the `synset_counts.parquet` that notebook 02 prunes.
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
import zlib
from collections import Counter
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from importlib.util import find_spec
from itertools import islice
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from fsspec import AbstractFileSystem
from fsspec.core import url_to_fs
from fsspec.implementations.local import LocalFileSystem

from .artefacts import PROVENANCE_KEY, provenance, write_table
from .data.addresses import LABELS_SUFFIX, LOOK_UPS, TABLES, Address, DataFile, find_files
from .data.captions import OF_FILES, UID, Columns, caption_batches, check_columns, columns_of
from .data.shards import CAPTION
from .labels import CaptionLabeler, load_nouns
from .labels.labeler import LABELER_FACTS, LANGUAGE_FACTS, MODES
from .labels.languages import LANGUAGES
from .labels.senses import SENSES
from .labels.tagging import TAGGERS
from .machine import usable_cores
from .orphans import stop_with_parent
from .progress import progress

logger = logging.getLogger(__name__)

ENGINES = ("processes", "ray")
COUNTS_FILE = "synset_counts.parquet"
COUNTS_KEY = b"synset_counts"  # in a result's metadata: {WNID number: captions} as JSON, compressed
LOOK_AT = 8  # files whose columns are looked at before any is labelled


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

    def add(self, one: LabelReport) -> None:
        """Take in what became of one file."""
        for name in ("files", "broken", "captions", "unlabelled", "damaged"):
            setattr(self, name, getattr(self, name) + getattr(one, name))


def label_corpus(
    source: Address,
    destination: str | Path,
    *,
    mode: str = "compound",
    sense: str | None = None,
    proper_nouns: bool = True,
    tagger: str = "perceptron",
    language: str = "en",
    column: Columns = CAPTION,
    uid_column: str = UID,
    uid_from_json: bool = False,
    engine: str = "processes",
    workers: int | None = None,
) -> LabelReport:
    """Label every caption behind an address (results: see the module); run again with the same arguments, it goes on.

    source: tables or shards by address, see `find_files`. destination: a folder, local or at any fsspec address; all workers
    must reach both. mode, sense, proper_nouns, tagger, language: as of `CaptionLabeler`. column: of the captions, or several,
    see `read_captions`. uid_column: values become strings; tables without a column "uid" get "<file stem>:<row>" (any other
    name must be there). A shard's uid is the sample's key; with uid_from_json it is `uid_column` of its .json, which DataComp's
    shards have ("uid") and which costs time.
    engine: "processes" of this machine or "ray" (the cluster of RAY_ADDRESS, else this machine; all its machines need this
    package). workers: files at a time; None: a core each. A script that uses more than one must call this within `if __name__
    == "__main__":`.

    A file that cannot be read to its end, or lacks a column, is left out, logged and reported; the others go on.
    Raises, before any work: ValueError (unknown mode or engine; the destination holds labels of another labeler or column; none
    of the files looked at has the column), FileNotFoundError, ModuleNotFoundError (Ray is not installed).
    Raises, with all finished files kept: OSError if results cannot be written (a full disk), RuntimeError if a worker dies,
    KeyboardInterrupt; ValueError if no file at all could be labelled.
    """
    if engine not in ENGINES:
        raise ValueError(f"engine={engine!r} is unknown: choose one of {', '.join(ENGINES)}")
    if workers is not None and workers < 1:
        raise ValueError(f"workers={workers} must be 1 or more, or None for as many as there are cores")
    if engine == "ray" and find_spec("ray") is None:
        raise ModuleNotFoundError("engine='ray' needs Ray: pip install 'catlip-lite[cluster]', or use engine='processes'")
    labeler = CaptionLabeler(mode, sense=sense, proper_nouns=proper_nouns, tagger=tagger, language=language)
    columns = columns_of(column)
    how = {"labeler": labeler.name, **labeler.card, "caption_column": columns[0] if len(columns) == 1 else list(columns)}
    how |= {"uid_column": uid_column, "uid_from_json": uid_from_json}
    files, target = find_files(source), Destination.at(destination)
    done = _complete(files, target, how)
    # The largest first: at the end, no worker is left alone with a long one.
    todo = sorted((file for file in files if file.address not in done), key=lambda file: -(file.size or 0))
    _look_at_columns(todo, how)
    target.filesystem.makedirs(target.folder, exist_ok=True)
    report, started = LabelReport(skipped=len(done)), time.monotonic()
    try:
        with closing(_reports(engine, workers, todo, partial(label_file, destination=target, how=how))) as reports:
            for one in progress(reports, "labelled", len(todo), "files"):
                if isinstance(one, OSError):  # not written: the next one would not be, either
                    raise one
                report.add(one)
                for address, reason in one.broken:
                    logger.warning("%s is left out: %s", address, reason)
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


# ---------------------------------------------------------------- before: what is there, and what is asked for


def _complete(files: Sequence[DataFile], destination: Destination, how: dict) -> set[str]:
    """Addresses of the files whose labels are there already. Raises ValueError if the destination's are of another kind."""
    cards, names, complete = {name: card for name, card, _ in destination.results()}, {}, set()
    for card in cards.values():
        other = next((option for option in how if card.get(option) != how[option]), None)
        if other:
            raise ValueError(
                f"{destination.address} holds labels made with {other}={card.get(other)!r}, not {how[other]!r}: use another "
                "destination, or remove its files"
            )
    for file in files:
        if names.setdefault(file.result_name, file) is not file:
            raise ValueError(
                f"{file.path} and {names[file.result_name].path} would have one result's name: label them into two destinations"
            )
        card, wanted = cards.get(file.result_name), _card(file, how)
        if card and all(card.get(fact) == wanted[fact] for fact in wanted):
            complete.add(file.address)
        elif card:
            logger.info("%s has changed since it was labelled: it is labelled again", file.address)
    return complete


def _card(source: DataFile, how: dict) -> dict:
    """What a result says of itself, and a later run compares. No date in it: the same work gives the same bytes."""
    return {**how, "source": source.address, "source_size": source.size, "source_stamp": source.stamp}


def _look_at_columns(files: Sequence[DataFile], how: dict) -> None:
    """Raises ValueError, before labelers are built and files read, if none of some files has the columns."""
    reasons = []
    for file in files[:: max(1, len(files) // LOOK_AT)][:LOOK_AT]:
        try:
            _check_columns(file, how)
            return
        except (ValueError, OSError) as error:
            reasons.append(str(error))
    if reasons:
        raise ValueError(f"no file of the {len(reasons)} looked at can be labelled; {reasons[0]}")


def _check_columns(file: DataFile, how: dict) -> None:
    uids = [how["uid_column"]] if file.suffix in TABLES and how["uid_column"] != UID else []
    check_columns(file, columns_of(how["caption_column"]), *uids)


# ---------------------------------------------------------------- who labels: this process, several, or a Ray cluster

Reports = Generator["LabelReport | OSError", None, None]

_stop: Any = None  # in a worker process: an event, set once the run is over, whatever ended it


def _reports(engine: str, workers: int | None, files: Sequence[DataFile], work: Callable) -> Reports:
    """What `work` makes of each file, in the order in which they are finished; closing it stops the work."""
    processes = min(workers or usable_cores(), len(files))
    if engine == "ray" and files:
        yield from _on_ray(workers, files, work)
    elif processes < 2:
        yield from map(work, files)
    else:
        context = multiprocessing.get_context("spawn")  # a fork would share the parent's threads and connections
        stop = context.Event()
        with ProcessPoolExecutor(processes, mp_context=context, initializer=_start_worker, initargs=(stop,)) as pool:
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


def _start_worker(stop: Any) -> None:
    global _stop
    _stop = stop
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group: the parent decides
    stop_with_parent()  # else the workers of a killed parent wait for work for ever


def _on_ray(workers: int | None, files: Sequence[DataFile], work: Callable) -> Reports:
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


def label_file(source: DataFile, destination: Destination, how: dict) -> LabelReport | OSError:
    """Label one file and write its result, all of it or nothing; gives what could not be written as an OSError.

    how: the labeler's name and card, caption_column, uid_column, uid_from_json.
    """
    tally = _Tally()
    try:
        with destination.staged(source.result_name) as path:
            _write_labels(path, source, how, tally)
    except _NotWritten as error:
        cause = error.__cause__
        told = f"the labels of {source.address} cannot be written ({_one_line(cause)})"
        return OSError(getattr(cause, "errno", None) or errno.EIO, told)
    except Exception as error:  # whatever is wrong with one file of thousands, the others go on
        return LabelReport(broken=[(source.address, _one_line(error))])
    return LabelReport(1, captions=tally.captions, unlabelled=tally.unlabelled, damaged=tally.damaged)


def _write_labels(path: Path, source: DataFile, how: dict, tally: _Tally) -> None:
    """Write uid and labels of each caption, a row group a batch, and what was counted."""
    _check_columns(source, how)
    labeler, columns = CaptionLabeler.from_card(how), columns_of(how["caption_column"])
    uids_of = {name: how[name] for name in ("uid_column", "uid_from_json")}
    schema = pa.schema([("uid", pa.string()), ("labels", pa.list_(pa.int32()))])
    with _writing():  # a dictionary pays for synsets; no two uids are the same
        writer = pq.ParquetWriter(path, schema, compression="zstd", use_dictionary=["labels.list.element"])
    try:
        with closing(caption_batches(source, columns, tally.damaged, **uids_of)) as batches:
            for uids, captions in batches:
                if _stop is not None and _stop.is_set():
                    raise KeyboardInterrupt
                labels = labeler.label_column(captions)
                tally.add(captions, labels)
                with _writing():
                    writer.write_batch(pa.RecordBatch.from_arrays([uids, labels], schema=schema))
    except BaseException:
        with suppress(Exception):  # a writer that is left open says so on stderr
            writer.close()
        raise
    with _writing():
        card = json.dumps(_card(source, how) | tally.card()).encode()
        writer.add_key_value_metadata({PROVENANCE_KEY: card, COUNTS_KEY: tally.packed_counts()})
        writer.close()


class _Tally:
    """Counts over the captions of a file, batch by batch."""

    def __init__(self):
        self.captions = self.unlabelled = 0
        self.damaged: list[str] = []
        self.counts: Counter[int] = Counter()  # WNID number -> captions with that synset
        self.digest = hashlib.sha256()

    def add(self, captions: pa.StringArray, labels: pa.ListArray) -> None:
        """captions: string [N]; labels: list<int32> [N]."""
        self.captions += len(captions)
        # Mode corenet can give a caption a synset twice: distinct pairs of row and synset are counted, here in one int64.
        rows = pc.list_parent_indices(labels).to_numpy().astype(np.int64)
        numbers, counts = np.unique(np.unique(rows << 32 | labels.flatten().to_numpy()) & 0xFFFFFFFF, return_counts=True)
        self.counts.update(dict(zip(numbers.tolist(), counts.tolist(), strict=True)))
        self.unlabelled += len(captions) - len(np.unique(rows))
        # The bytes that `captions.fingerprint` sees: each caption and a zero, in one buffer.
        ended = pc.binary_join_element_wise(pc.fill_null(captions, ""), "", "\0")
        if len(ended):
            _, ends, text = ended.buffers()
            self.digest.update(memoryview(text)[: np.frombuffer(ends, dtype=np.int32)[len(ended)]])

    def card(self) -> dict:
        sha256 = self.digest.hexdigest()
        return {"num_captions": self.captions, "num_unlabelled": self.unlabelled, "captions_sha256": sha256}

    def packed_counts(self) -> bytes:
        return zlib.compress(json.dumps(dict(sorted(self.counts.items()))).encode())


def _one_line(error: BaseException | None) -> str:
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    text = " ".join(str(error).split())
    return text if isinstance(error, ValueError) and text else f"{type(error).__name__}: {text}"


# ---------------------------------------------------------------- the folder of results


class _NotWritten(Exception):
    """A result could not be written (its cause says why): nothing that another source file would change."""


@contextmanager
def _writing() -> Iterator[None]:
    """What goes wrong within is the destination's fault: raises _NotWritten from it."""
    try:
        yield
    except Exception as error:
        raise _NotWritten(str(error)) from error


@dataclass(frozen=True)
class Destination:
    """A folder of results; address as the user gave it, folder as the file system names it."""

    filesystem: AbstractFileSystem = field(repr=False)
    folder: str
    address: str

    @classmethod
    def at(cls, address: str | Path) -> Destination:
        """The folder at a local path or any fsspec address; nothing is created."""
        filesystem, folder = url_to_fs(str(address))
        return cls(filesystem, folder.rstrip("/") or "/", str(address))

    @contextmanager
    def staged(self, name: str) -> Iterator[Path]:
        """A local file, in the folder itself if that is local, which takes its place when the block ends, unless that fails."""
        is_local = isinstance(self.filesystem, LocalFileSystem)
        with _writing():
            handle, staging = tempfile.mkstemp(dir=self.folder if is_local else None, prefix=".catlip-", suffix=".part")
            os.close(handle)
        path, place = Path(staging), f"{self.folder.rstrip('/')}/{name}{LABELS_SUFFIX}"
        try:
            yield path
            with _writing():
                if is_local:
                    path.chmod(0o644)
                    path.replace(place)
                else:
                    self.filesystem.put_file(staging, place)
        finally:
            path.unlink(missing_ok=True)

    def results(self) -> Iterator[tuple[str, dict, dict[str, int]]]:
        """Name, card and counts by WNID number of each complete result, by name; others are told."""
        self.filesystem.invalidate_cache()
        paths = self.filesystem.ls(self.folder, detail=False) if self.filesystem.exists(self.folder) else []
        paths = sorted(path for path in paths if path.endswith(LABELS_SUFFIX))

        def read(path: str) -> tuple[str, dict, dict] | None:
            try:
                with self.filesystem.open(path, "rb") as file:
                    facts = pq.read_metadata(file).metadata
                counts = json.loads(zlib.decompress(facts[COUNTS_KEY]))
                return PurePosixPath(path).name.removesuffix(LABELS_SUFFIX), json.loads(facts[PROVENANCE_KEY]), counts
            except (pa.ArrowInvalid, OSError, KeyError, TypeError, zlib.error):
                return None

        incomplete = 0
        with ThreadPoolExecutor(LOOK_UPS) as pool:
            for start in range(0, len(paths), 16 * LOOK_UPS):  # some at a time: all counts of a large corpus fill the memory
                for found in pool.map(read, paths[start : start + 16 * LOOK_UPS]):
                    incomplete += found is None
                    if found is not None:
                        yield found
        if incomplete:
            logger.warning("%s: %d result(s) are incomplete and not used", self.address, incomplete)


# ---------------------------------------------------------------- counts


def merge_counts(destinations: str | Path | Sequence[str | Path]) -> tuple[pd.DataFrame, dict]:
    """Synset counts over all complete results of one destination or several, as if all captions had been counted at once.

    Gives the table (wnid, name, count: captions that mention the synset; the most frequent first, ties by WNID) and the card of
    `synset_counts.parquet` (`write_table` takes both): num_captions, labeler and its options, captions (where the sources are),
    corpus_fingerprint, …
    The fingerprint of one file is that of its captions (`captions.fingerprint`); of more, "files-sha256:" and the SHA-256 over
    the lines "<file name> <fingerprint>", sorted: neither the order of work nor the folder matters.
    Raises ValueError if there is no result or no label, labelers differ, or a source is in it twice.
    """
    added, cards = Counter(), []
    for address in [destinations] if isinstance(destinations, (str, Path)) else destinations:
        for _, card, counts in Destination.at(address).results():
            added.update(counts)
            cards.append(card)
    if not cards:
        raise ValueError(f"{destinations} holds no complete labels: run label_corpus first")
    _check_mergeable(cards)
    num_captions = sum(card["num_captions"] for card in cards)
    if not added:
        told = f"none of {num_captions:,} captions names a WordNet noun that {cards[0]['labeler']} knows"
        raise ValueError(f"{told}: are they of its language, and in the right column?")
    rows = sorted(((f"n{int(number):08d}", count) for number, count in added.items()), key=lambda row: (-row[1], row[0]))
    counts = pd.DataFrame(rows, columns=["wnid", "count"])
    counts.insert(1, "name", counts["wnid"].map(load_nouns().name))
    lines = sorted(f"{PurePosixPath(card['source']).name} {card['captions_sha256']}\n" for card in cards)
    of_all = OF_FILES + hashlib.sha256("".join(lines).encode()).hexdigest()
    card = provenance(
        num_captions=num_captions,
        num_unlabelled=sum(card["num_unlabelled"] for card in cards),
        num_files=len(cards),
        **{fact: cards[0][fact] for fact in ("labeler", *LABELER_FACTS, *LANGUAGE_FACTS, "caption_column") if fact in cards[0]},
        captions=sorted({f"{card['source'].rpartition('/')[0]}/*{PurePosixPath(card['source']).suffix}" for card in cards}),
        corpus_fingerprint=cards[0]["captions_sha256"] if len(cards) == 1 else of_all,
    )
    return counts, card


def _check_mergeable(cards: Sequence[Mapping]) -> None:
    labelers = sorted({" by lemmas of ".join([card["labeler"], *filter(None, [card.get("lemmas")])]) for card in cards})
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
    parser.add_argument("source", nargs="+", help="tables or shards: files, folders, globs, brace patterns, local or remote")
    parser.add_argument("destination", help="the folder of the results, local or remote")
    parser.add_argument("--mode", default="compound", choices=MODES)
    parser.add_argument("--sense", choices=SENSES, help="visual for mode compound, first for the others, if not given")
    parser.add_argument("--no-proper-nouns", dest="proper_nouns", action="store_false", help="leave out names")
    parser.add_argument("--tagger", default="perceptron", choices=TAGGERS, help="for mode pos")
    parser.add_argument("--language", default="en", choices=("en", "auto", *LANGUAGES), help="of the captions (%(default)s)")
    parser.add_argument("--column", action="append", help=f"where captions are ({CAPTION}); given twice, two are read as one")
    parser.add_argument("--uid-column", default=UID, help="where tables keep their uid (%(default)s)")
    parser.add_argument("--uid-from-json", action="store_true", help="take a shard's uids from its .json files, not the keys")
    parser.add_argument("--engine", default="processes", choices=ENGINES)
    parser.add_argument("--workers", type=int, help="files at a time; a core each if not given")
    parser.add_argument("--counts", metavar="FOLDER", help=f"when all is done, merge the counts into FOLDER/{COUNTS_FILE}")
    options = vars(parser.parse_args(arguments))
    counts, options["column"] = options.pop("counts"), options["column"] or CAPTION
    logging.basicConfig(format="%(message)s")
    try:
        print(label_corpus(**options), flush=True)
        if counts:
            Path(counts).mkdir(parents=True, exist_ok=True)
            table, card = merge_counts(options["destination"])
            print(f"written: {write_table(table, Path(counts) / COUNTS_FILE, card)}")
    except KeyboardInterrupt as error:
        print(error, file=sys.stderr)
        return 130
    except (ValueError, OSError, RuntimeError, ImportError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
