"""Captions by address, without their images: what labels are made from (step one of the paper's path).

Reads a parquet file, a folder or glob of parquets, a CSV or TSV, a text file with a caption a line, or the captions of shards;
gives a list of strings, their synsets, and a fingerprint of them for provenance. `caption_batches` reads one file at any size.
"""

from __future__ import annotations

import csv
import hashlib
import io
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, suppress
from functools import partial
from itertools import islice

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from ..labels import CaptionLabeler
from ..progress import progress as reporting
from .addresses import CORPUS, TABLES, Address, DataFile, find_files
from .shards import (
    BETWEEN,
    CAPTION,
    IMAGE_EXTENSIONS,
    BreaksOff,
    Sample,
    open_shard,
    parse_facts,
    read_caption,
    read_shard,
)
from .tables import is_text, open_table

TEXTS = (".csv", ".tsv", ".txt")
UID = "uid"
BATCH = 65_536  # captions read at a time: some ten MB
CHUNK = 4096  # captions labelled between two reports of progress
NAMED = 10  # damaged samples
LOOK_AT = 100  # samples of a shard that are looked at for a column
OF_FILES = "files-sha256:"  # how the fingerprint of a corpus begins that was read file by file, in no certain order

Columns = str | Sequence[str]
Captions = Generator[tuple[pa.StringArray, pa.StringArray], None, None]  # uids and captions


def read_captions(
    address: Address,
    column: Columns = CAPTION,
    progress: Callable[[Sequence], Iterable] = lambda paths: paths,
    skipped: list[str] | None = None,
) -> list[str | None]:
    """All captions behind an address, in order; None where a row or sample has none (empty text is none, too).

    address: see `find_files`; also a .csv or .tsv with a header, or a .txt with a caption a line. A folder that holds both tars
    and parquets is read as shards. column: where tables keep their captions; in shards a member ("txt") or a field of the
    .json, of which the usual name, "caption", is the .txt first. Several (["title", "description"]) are read as one caption,
    whose labels are those of all. progress: wraps the list of files while they are read. skipped: gets "shard:key: reason" of
    each damaged sample, whose caption is None, and "shard: reason" of each tar that breaks off or cannot be read.
    Raises FileNotFoundError or ValueError, each with advice: files and columns are looked at before any caption is read.
    """
    files, columns = find_files(address, (*CORPUS, *TEXTS)), columns_of(column)
    others = [check_columns(file, columns) for file in files]
    skipped, captions = [] if skipped is None else skipped, []
    for file in progress(files):
        try:
            for _, batch in caption_batches(file, columns, skipped):
                captions += batch.to_pylist()
        except (ValueError, OSError) as error:  # what is wrong with one file of many; also one that has gone since it was found
            skipped.append(f"{file.name}: {error}")
    if not any(captions):
        is_shard = files[0].suffix not in (*TABLES, *TEXTS)
        other = ", ".join(name for name in (_names_in_shard(files[0]) if is_shard else others[0]) if name not in columns)
        advice = f"choose another column ({other})" if other else "captions are needed to make labels"
        damaged = f" ({len(skipped):,} cannot be read: {skipped[0]})" if skipped else ""
        told = " and ".join(map(repr, columns))
        raise ValueError(f"{address}: column {told} of all {len(captions):,} rows is empty{damaged}: {advice}")
    return captions


def read_corpus(address: Address, column: Columns = CAPTION) -> list[str | None]:
    """What `read_captions` gives, reporting progress and, when all is read, what cannot be read."""
    skipped: list[str] = []
    captions = read_captions(address, column, lambda files: reporting(files, "reading captions", unit="files"), skipped)
    if skipped:
        more = f", the first {NAMED}" if len(skipped) > NAMED else ""
        print(f"{len(skipped):,} cannot be read and give no labels{more}:", *skipped[:NAMED], sep="\n")
    return captions


def label_captions(captions: Sequence[str | None], labeler: CaptionLabeler) -> list[list[str]]:
    """WNIDs of every caption, reporting progress."""
    parts = [captions[i : i + CHUNK] for i in range(0, len(captions), CHUNK)]
    labelled = map(labeler.label, reporting(parts, f"labelling ({labeler.name})", unit=f"x {CHUNK:,} captions"))
    return [wnids for part in labelled for wnids in part]


def check_captions(captions: Sequence[str | None], card: Mapping) -> None:
    """Raises ValueError if the captions are not those that an artefact, by its card, was made from.

    Of a corpus that was counted file by file (`label_corpus`), any part will do: it stands for the whole.
    """
    expected, found = card.get("corpus_fingerprint"), fingerprint(captions)
    if expected != found and not str(expected).startswith(OF_FILES):
        raise ValueError(
            f"these {len(captions):,} captions (SHA-256 {found[:12]}…) are not the {card.get('num_captions', 0):,} that were "
            f"counted, of {card.get('captions')!r} ({str(expected)[:12]}…): pass the same captions, or run notebook 01 again"
        )


def fingerprint(captions: Iterable[str | None]) -> str:
    """SHA-256 over the captions in their order, as 64 hexadecimal digits; a missing caption counts as an empty one."""
    digest = hashlib.sha256()
    for caption in captions:
        digest.update((caption or "").encode("utf-8", errors="replace") + b"\0")
    return digest.hexdigest()


def read_samples_at(address: Address, positions: Iterable[int]) -> dict[int, Sample]:
    """Samples by their position in `read_captions(address)`, images included; none if the captions don't come from shards.

    Shards are read in order and only as far as the last position.
    """
    wanted, found = set(positions), {}
    files = find_files(address, (*CORPUS, *TEXTS))
    if any(file.suffix in (*TABLES, *TEXTS) or not file.is_local for file in files):
        return found
    for position, sample in enumerate(sample for file in files for sample in read_shard(file.path)):
        if len(found) == len(wanted):
            break
        if position in wanted:
            found[position] = sample
    return found


# ---------------------------------------------------------------- one file


def columns_of(column: Columns) -> tuple[str, ...]:
    """One column or several as a tuple, each once. Raises ValueError for none."""
    columns = tuple(dict.fromkeys([column] if isinstance(column, str) else column))
    if not all(isinstance(name, str) and name for name in columns) or not columns:
        raise ValueError(f"column={column!r}: give the name of a column, or a list of names")
    return columns


def check_columns(file: DataFile, columns: Sequence[str], *others: str) -> list[str]:
    """The columns of a file, those named among them. Raises ValueError if one is missing, or holds no text.

    Of a shard: members and fields of the first samples, which may do without the usual name. others: that need not be text.
    """
    if file.suffix == ".txt":
        names, kinds = [CAPTION], {}
    elif file.suffix in TABLES:
        with open_table(file) as table:
            names, kinds = table.schema.names, {name: table.schema.field(name).type for name in table.schema.names}
    elif file.suffix in TEXTS:
        try:
            separator = _separator(file)
            with file.open() as opened:
                names, kinds = list(pd.read_csv(opened, sep=separator, nrows=0).columns), {}
        except (pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeDecodeError) as error:
            raise ValueError(
                f"{file.address} is no readable table ({error}): give a UTF-8 file with a line of column names"
            ) from error
    else:
        found = [] if all(name == CAPTION for name in columns) else _names_in_shard(file)
        if not found:  # also where none can be read, which is told when it is
            return []
        names, kinds = list(dict.fromkeys([CAPTION, *found])), {}
    for name in (*columns, *others):
        there = f"choose one of {', '.join(names)}"
        if name not in names:
            raise ValueError(f"{file.address} has no column {name!r}: {there}")
        if name in columns and kinds and not is_text(kinds[name]):
            raise ValueError(f"{file.address}: column {name!r} holds {kinds[name]}, not text: {there}")
    return names


def caption_batches(
    file: DataFile,
    columns: Sequence[str] = (CAPTION,),
    skipped: list[str] | None = None,
    *,
    uid_column: str = UID,
    uid_from_json: bool = False,
) -> Captions:
    """The uids and captions of a file, some 65,536 at a time; a caption is null where there is none but white space.

    uid_column: a table's column of that name, else "<stem>:<row>"; of a shard each sample's key or, with uid_from_json, that
    field of its .json. skipped: gets "shard:key: reason" of samples that cannot be read, whose caption is null and uid the key.
    Raises BreaksOff, all samples before given, for a tar that ends before its end; ValueError for a sample without its uid.
    """
    if file.suffix in TABLES:
        return _of_table(file, columns, uid_column)
    if file.suffix in TEXTS:
        return _of_texts(file, columns)
    return _of_shard(file, columns, [] if skipped is None else skipped, uid_column if uid_from_json else None)


def _of_table(file: DataFile, columns: Sequence[str], uid: str) -> Captions:
    with open_table(file) as table:
        first, has_uids = 0, uid in table.schema.names
        for batch in table.batches(list(dict.fromkeys([*columns, uid] if has_uids else columns)), BATCH):
            uids = batch.column(uid).cast(pa.string()) if has_uids else _numbered(file, first, len(batch))
            first += len(batch)
            yield uids, captions_in(batch, columns)


def _of_texts(file: DataFile, columns: Sequence[str]) -> Captions:
    if file.suffix == ".txt":
        with _text(file) as lines:
            captions = [_clean(_strings([line.rstrip("\n") for line in lines]))]
    else:  # "NA" and "null" are words here, not missing values
        read = partial(pd.read_csv, dtype=str, keep_default_na=False, encoding_errors="replace", sep=_separator(file))
        with file.open() as opened:
            table = read(opened, usecols=list(columns))
        captions = [_clean(_strings(table[name].tolist())) for name in columns]
    yield _numbered(file, 0, len(captions[0])), _joined(captions)


def _of_shard(file: DataFile, columns: Sequence[str], skipped: list[str], uid: str | None) -> Captions:
    with _opened(file) as (samples, read):
        uids, captions, broken = [], [], None
        try:
            for key, parts in samples:
                caption, name, reason = None, key, ""
                try:
                    caption = read_caption(parts, read, columns)
                    facts = parse_facts(read(*parts["json"])) if uid and "json" in parts else {}
                except (ValueError, FileNotFoundError) as error:
                    reason = str(error)
                    skipped.append(f"{file.name}:{key}: {reason}")
                if uid and not reason:
                    name = facts.get(uid)
                    if name is None:
                        raise ValueError(f"sample {key} has no {uid!r} in its .json: label without uid_from_json")
                uids.append(str(name))
                captions.append(caption)
                if len(uids) == BATCH:
                    yield _strings(uids), _strings(captions)
                    uids, captions = [], []
        except BreaksOff as error:
            broken = error
        if uids:
            yield _strings(uids), _strings(captions)
        if broken:
            raise broken


@contextmanager
def _opened(file: DataFile) -> Iterator:
    """A shard, here or in a store: see `open_shard`."""
    with nullcontext() if file.is_local else file.open() as opened, open_shard(file.path, opened) as shard:
        yield shard


def _names_in_shard(file: DataFile) -> list[str]:
    """Members and .json fields of the first samples, images aside, in the order of their first occurrence."""
    names: dict[str, None] = {}
    with suppress(ValueError), _opened(file) as (samples, read):  # what is damaged is told when it is read
        for _, parts in islice(samples, LOOK_AT):
            names |= dict.fromkeys(extension for extension in parts if extension not in (*IMAGE_EXTENSIONS, "json"))
            names |= dict.fromkeys(parse_facts(read(*parts["json"])) if "json" in parts else ())
    return list(names)


def captions_in(rows: pa.RecordBatch | pa.Table, columns: Sequence[str]) -> pa.StringArray:
    """The caption of each row: string [N], of several columns those there are; null where there is none but white space."""
    if isinstance(rows, pa.Table):
        (rows,) = rows.select(columns).combine_chunks().to_batches() or [pa.RecordBatch.from_pylist([], rows.schema)]
    return _joined([_clean(rows.column(name)) for name in columns])


def _joined(captions: Sequence[pa.StringArray]) -> pa.StringArray:
    """Columns of captions as one; null where all are."""
    if len(captions) == 1:
        return captions[0]
    return _clean(pc.binary_join_element_wise(*captions, BETWEEN, null_handling="skip"))


def _clean(captions: pa.Array) -> pa.StringArray:
    """Null where there is only white space; a list is its members. Bytes that are no UTF-8 become U+FFFD."""
    if pa.types.is_list(captions.type) or pa.types.is_large_list(captions.type):
        captions = pc.binary_join(captions, BETWEEN)
    captions = captions.cast(pa.string())
    try:
        captions.validate(full=True)
    except pa.ArrowInvalid:
        texts = captions.cast(pa.binary()).to_pylist()
        captions = pa.array([None if t is None else t.decode("utf-8", errors="replace") for t in texts], pa.string())
    is_blank = pc.or_(pc.utf8_is_space(captions), pc.equal(captions, ""))
    return pc.if_else(is_blank, None, captions)


def _strings(texts: Sequence[str | None]) -> pa.StringArray:
    """Half of a surrogate pair, which JSON can hold, is no Unicode: it becomes "?"."""
    encoded = [None if text is None else text.encode("utf-8", errors="replace") for text in texts]
    return pa.array(encoded, pa.binary()).cast(pa.string())


def _numbered(file: DataFile, first: int, count: int) -> pa.StringArray:
    return pc.binary_join_element_wise(file.stem, pa.array(np.arange(first, first + count)).cast(pa.string()), ":")


def _text(file: DataFile) -> io.TextIOWrapper:
    """A text file, here or in a store, to be read."""
    return io.TextIOWrapper(file.open(), encoding="utf-8", errors="replace")


def _separator(file: DataFile) -> str:
    """What parts the columns: of the usual characters the first that parts the line of names, as spreadsheets write it."""
    usual = "\t" if file.suffix == ".tsv" else ","
    with _text(file) as lines:
        header = lines.readline()
    return next(
        (mark for mark in (usual, ",", ";", "\t", "|") if len(next(csv.reader([header], delimiter=mark), [])) > 1), usual
    )
