"""One file of captions → the labels of each caption and the file's synset counts: the piece of work of `label_corpus`.

Reads a parquet or tar batch by batch, so that memory stays flat, and writes one result (see `label_results`).
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, nullcontext, suppress
from dataclasses import asdict, dataclass
from itertools import islice
from typing import IO

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from ..artefacts import PROVENANCE_KEY
from ..labels import CaptionLabeler
from .captions import is_text
from .label_results import Destination, DestinationError, writing
from .shards import parse_facts, read_caption, scan_shard
from .sources import COUNTS_SUFFIX, LABELS_SUFFIX, SourceFile

BATCH = 65_536  # captions labelled at a time, and rows of a row group: some ten MB
READ_BUFFER = 8 << 20  # bytes of a column read at a time; without it, pyarrow reads a row group's whole column
DEFAULT_UID_COLUMN = "uid"
SCHEMA = pa.schema([("uid", pa.string()), ("labels", pa.list_(pa.int32()))])


@dataclass(frozen=True)
class Labelling:
    """What a file's labels depend on, besides its captions: the labeler's name and card, and what `label_corpus` is told."""

    labeler: str
    label_mode: str
    label_sense: str
    proper_nouns: bool
    tagger: str | None
    caption_column: str
    uid_column: str
    uid_from_json: bool

    def card(self, source: SourceFile) -> dict:
        """What both files of a result say, and a later run compares. No date in it: the same work gives the same bytes."""
        return {**asdict(self), "source": source.address, "source_size": source.size, "source_stamp": source.stamp}


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


def label_file(
    source: SourceFile, destination: Destination, labelling: Labelling, stop: Callable[[], bool] = lambda: False
) -> Outcome:
    """Label one file and write its result: all of it or, if the outcome is broken or failed, nothing.

    stop: asked between batches; once it says True, KeyboardInterrupt is raised and nothing is left behind.
    """
    name, card = source.result_name, labelling.card(source)
    try:
        with destination.staged(name + LABELS_SUFFIX) as labels_file:
            tally = _write_labels(labels_file, source, labelling, stop)
            card |= {**tally.card(), "labels_bytes": labels_file.tell()}
            with destination.staged(name + COUNTS_SUFFIX) as counts_file:
                counts = tally.table().replace_schema_metadata(_metadata(card))
                with writing():
                    pq.write_table(counts, counts_file, compression="zstd")
                destination.commit(name, labels_file, counts_file)
    except DestinationError as error:
        cause = error.__cause__
        return Outcome(source.address, failed=_one_line(cause), errno=getattr(cause, "errno", None))
    except Exception as error:  # whatever is wrong with one file of thousands, the others go on
        return Outcome(source.address, broken=_one_line(error))
    return Outcome(source.address, tally.captions, tally.unlabelled, tuple(tally.damaged))


def check_columns(source: SourceFile, labelling: Labelling) -> None:
    """Raises ValueError, naming the columns there are, if a parquet lacks a column or its captions are no text."""
    with _open_parquet(source) as parquet:
        _check_schema(parquet.schema_arrow, labelling)


# --- captions in, labels out --------------------------------------------------------------------------------------------


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
        return {
            "num_captions": self.captions,
            "num_missing": self.missing,
            "num_unlabelled": self.unlabelled,
            "captions_sha256": self.digest.hexdigest(),
        }

    def table(self) -> pa.Table:
        """wnid: string, count: int64, by WNID."""
        numbers = sorted(self.counts)
        counts = pa.array([self.counts[n] for n in numbers], pa.int64())
        return pa.table({"wnid": pa.array([f"n{n:08d}" for n in numbers], pa.string()), "count": counts})


def _write_labels(file: IO[bytes], source: SourceFile, labelling: Labelling, stop: Callable[[], bool]) -> _Tally:
    """Write uid and labels of each caption, a row group a batch; gives the counts."""
    labeler, tally = CaptionLabeler.from_card(asdict(labelling)), _Tally()
    read = _read_shard if source.suffix == ".tar" else _read_parquet
    with (
        _row_groups(file, _metadata(labelling.card(source))) as write,
        closing(read(source, labelling, tally.damaged)) as batches,
    ):
        for uids, captions in batches:
            if stop():
                raise KeyboardInterrupt
            labels = labeler.label_column(captions)
            tally.add(captions, labels)
            write(uids, labels)
    return tally


@contextmanager
def _row_groups(file: IO[bytes], metadata: dict) -> Iterator[Callable[[pa.StringArray, pa.ListArray], None]]:
    """A function that writes a row group; what it raises is a DestinationError."""
    with writing():
        # A dictionary pays for synsets; no two uids are the same.
        options = {"compression": "zstd", "use_dictionary": ["labels.list.element"]}
        writer = pq.ParquetWriter(file, SCHEMA.with_metadata(metadata), **options)

    def write(uids: pa.StringArray, labels: pa.ListArray) -> None:
        with writing():
            writer.write_batch(pa.RecordBatch.from_arrays([uids, labels], schema=writer.schema))

    try:
        yield write
    except BaseException:
        with suppress(Exception):  # a writer that is left open says so on stderr
            writer.close()
        raise
    with writing():
        writer.close()


def _metadata(card: dict) -> dict[bytes, bytes]:
    return {PROVENANCE_KEY: json.dumps(card).encode()}


def _one_line(error: BaseException) -> str:
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    text = " ".join(str(error).split())
    return text if isinstance(error, ValueError) and text else f"{type(error).__name__}: {text}"


# --- a parquet ----------------------------------------------------------------------------------------------------------


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


def _check_schema(schema: pa.Schema, labelling: Labelling) -> None:
    needed = [labelling.caption_column]
    if labelling.uid_column != DEFAULT_UID_COLUMN:
        needed.append(labelling.uid_column)
    for column in needed:
        if column not in schema.names:
            raise ValueError(f"no column {column!r}: choose one of {', '.join(schema.names)}")
    column = labelling.caption_column
    kind = schema.field(column).type
    if not is_text(kind):
        raise ValueError(f"column {column!r} holds {kind}, not text: choose another of {', '.join(schema.names)}")


def _read_parquet(source: SourceFile, labelling: Labelling, _damaged: list) -> Iterator[tuple[pa.StringArray, pa.StringArray]]:
    """uids and captions, a batch at a time."""
    with _open_parquet(source) as parquet:
        _check_schema(parquet.schema_arrow, labelling)
        has_uids = labelling.uid_column in parquet.schema_arrow.names
        columns = list(dict.fromkeys([labelling.caption_column, *([labelling.uid_column] if has_uids else [])]))
        first = 0
        for batch in parquet.iter_batches(BATCH, columns=columns, use_threads=False):  # the cores are the other workers'
            if has_uids:
                uids = batch.column(labelling.uid_column).cast(pa.string())
            else:
                rows = pa.array(np.arange(first, first + len(batch))).cast(pa.string())
                uids = pc.binary_join_element_wise(source.stem, rows, ":")
            first += len(batch)
            yield uids, _clean(batch.column(labelling.caption_column))


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


# --- a tar --------------------------------------------------------------------------------------------------------------


def _read_shard(source: SourceFile, labelling: Labelling, damaged: list) -> Iterator[tuple[pa.StringArray, pa.StringArray]]:
    """uids and captions, a batch at a time. Raises ValueError if the tar breaks off or a sample lacks its uid; damaged gets
    "shard:key: reason" of samples with a .json that cannot be read: with no caption, and their key for a uid."""
    with nullcontext() if source.is_local else source.open() as file:
        samples = scan_shard(source.path, file, whole=True)
        pairs = (_uid_and_caption(f"{source.stem}.tar", *sample, labelling, damaged) for sample in samples)
        while batch := list(islice(pairs, BATCH)):
            uids, captions = zip(*batch, strict=True)
            # Half of a surrogate pair, which JSON can hold, is no Unicode: it becomes "?".
            encoded = [None if caption is None else caption.encode("utf-8", errors="replace") for caption in captions]
            yield pa.array(uids, pa.string()), pa.array(encoded, pa.binary()).cast(pa.string())


def _uid_and_caption(shard: str, key: str, parts: dict, tar, labelling: Labelling, damaged: list) -> tuple[str, str | None]:
    caption, reason = read_caption(parts, tar)
    uid = key
    if labelling.uid_from_json and not reason:
        try:
            facts = parse_facts(tar.extractfile(parts["json"]).read()) if "json" in parts else {}
        except ValueError as error:
            reason = str(error)
        else:
            uid = facts.get(labelling.uid_column)
            if uid is None:
                raise ValueError(f"sample {key} has no {labelling.uid_column!r} in its .json: label without uid_from_json")
    if reason:
        damaged.append(f"{shard}:{key}: {reason}")
    return str(uid), caption
