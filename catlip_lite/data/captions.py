"""Captions by address, without their images: what labels are made from (step one of the paper's path).

Reads a parquet file, a folder or glob of parquets, a CSV or TSV, a text file with a caption a line, or the captions of
WebDataset shards; gives a list of strings, their synsets, and a fingerprint of them for provenance.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from glob import glob
from pathlib import Path

import pandas as pd

from ..labels import CaptionLabeler
from ..progress import progress as reporting
from .shards import Sample, captions_of_shard, read_shard
from .sources import find_shards

logger = logging.getLogger(__name__)

TABLE_SUFFIXES = (".parquet", ".csv", ".tsv")
DEFAULT_COLUMN = "caption"
CHUNK = 4096  # captions labelled between two reports of progress
NAMED = 10  # damaged samples
OF_FILES = "files-sha256:"  # how the fingerprint of a corpus begins that was read file by file, in no certain order


def read_captions(
    address: str | Path | Sequence[str],
    column: str = DEFAULT_COLUMN,
    progress: Callable[[Sequence], Iterable] = lambda paths: paths,
    skipped: list[str] | None = None,
) -> list[str | None]:
    """All captions behind an address, in order; None where a row or sample has none (empty text is none, too).

    address: a .parquet, a folder or glob of them, a .csv or .tsv with a header, a .txt with a caption a line, or shards as
    `find_shards` knows them ("demo/pretrain", a folder of tars, a glob, a brace pattern, a list of addresses). A folder that
    holds both tars and parquets is read as shards.
    column: where tables keep their captions; shards keep them in each sample's .txt (or its .json, under "caption").
    progress: wraps the list of files while they are read. skipped: gets "shard:key: reason" of each damaged sample, whose
    caption is None, and "shard: reason" of each tar that breaks off or cannot be read.
    Raises FileNotFoundError or ValueError, each with advice: files and columns are looked at before any caption is read.
    """
    files = find_caption_files(address)
    if not files:
        raise FileNotFoundError(f"captions={address!r} names no file")
    if column != DEFAULT_COLUMN and files[0].suffix not in TABLE_SUFFIXES:
        raise ValueError(f"column={column!r}: only tables have columns, {address} is {files[0].suffix}: use {DEFAULT_COLUMN!r}")
    columns = [_check_column(path, column) for path in files if path.suffix in TABLE_SUFFIXES]
    skipped = [] if skipped is None else skipped
    captions = [clean for path in progress(files) for clean in map(_none_if_empty, _read_file(path, column, skipped))]
    if not any(captions):
        others = ", ".join(c for c in (columns[0] if columns else []) if c != column)
        advice = f"choose another column ({others})" if others else "captions are needed to make labels"
        where = f"column {column!r}" if columns else "the captions"
        damaged = f" ({len(skipped):,} cannot be read: {skipped[0]})" if skipped else ""
        raise ValueError(f"{address}: {where} of all {len(captions):,} rows is empty{damaged}: {advice}")
    return captions


def read_corpus(address: str | Path | Sequence[str], column: str = DEFAULT_COLUMN) -> list[str | None]:
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


def find_caption_files(address: str | Path | Sequence[str]) -> list[Path]:
    """The files behind an address of captions, sorted. Raises FileNotFoundError, naming what an address may be."""
    if not isinstance(address, (str, Path)):
        return [path for part in address for path in find_caption_files(part)]
    text = str(address)
    if Path(text).is_dir():
        tables = sorted(Path(text).glob("*.parquet"))
        if tables and not any(Path(text).glob("*.tar")):
            return tables
    elif Path(text).is_file() and not text.endswith(".tar"):
        if Path(text).suffix not in (*TABLE_SUFFIXES, ".txt"):
            raise ValueError(f"{text}: captions are read from {', '.join(TABLE_SUFFIXES)}, .txt or .tar files")
        return [Path(text)]
    elif text.endswith(TABLE_SUFFIXES):
        tables = sorted(Path(p) for p in glob(text))
        if tables:
            return tables
    try:
        return find_shards(address)
    except FileNotFoundError:
        raise FileNotFoundError(
            f"no captions at {text!r}: give a .parquet, .csv or .txt file, a folder of parquets, shards (.tar) or demo/pretrain"
        ) from None


def fingerprint(captions: Iterable[str | None]) -> str:
    """SHA-256 over the captions in their order, as 64 hexadecimal digits; a missing caption counts as an empty one."""
    digest = hashlib.sha256()
    for caption in captions:
        digest.update((caption or "").encode("utf-8", errors="replace") + b"\0")
    return digest.hexdigest()


def read_samples_at(address: str | Path | Sequence[str], positions: Iterable[int]) -> dict[int, Sample]:
    """Samples by their position in `read_captions(address)`, images included; none if the captions don't come from shards.

    Shards are read in order and only as far as the last position.
    """
    wanted = set(positions)
    found: dict[int, Sample] = {}
    files = find_caption_files(address)
    if any(path.suffix != ".tar" for path in files):
        return found
    samples = (sample for path in files for sample in read_shard(path))
    for position, sample in enumerate(samples):
        if len(found) == len(wanted):
            break
        if position in wanted:
            found[position] = sample
    return found


# --- one file -----------------------------------------------------------------------------------------------------------


def _none_if_empty(caption: str | None) -> str | None:
    return caption if caption and not caption.isspace() else None


def _check_column(path: Path, column: str) -> list[str]:
    """The columns of a table. Raises ValueError if the captions' column is not among them, or is not text."""
    if path.suffix == ".parquet":
        import pyarrow
        import pyarrow.parquet

        try:
            schema = pyarrow.parquet.read_schema(path)
        except (pyarrow.ArrowInvalid, OSError) as error:
            raise ValueError(f"{path} is no readable parquet file ({error}): write or download it again") from error
        names = schema.names
        kind = schema.field(column).type if column in names else None
        if kind is not None and not is_text(kind):
            raise ValueError(f"{path}: column {column!r} holds {kind}, not text: choose another of {', '.join(names)}")
    else:
        try:
            names = list(pd.read_csv(path, sep=_separator(path), nrows=0).columns)
        except (pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeDecodeError) as error:
            raise ValueError(f"{path} is no readable table ({error}): give a UTF-8 file with a line of column names") from error
    if column not in names:
        raise ValueError(f"{path} has no column {column!r}: choose one of {', '.join(names)}")
    return names


def is_text(kind) -> bool:
    """Whether a column of this Arrow type holds captions: strings of any layout, dictionaries of them, or nothing at all."""
    from pyarrow import types

    if types.is_dictionary(kind):
        kind = kind.value_type
    return types.is_string(kind) or types.is_large_string(kind) or types.is_string_view(kind) or types.is_null(kind)


def _separator(path: Path) -> str:
    return "\t" if path.suffix == ".tsv" else ","


def _read_file(path: Path, column: str, skipped: list[str]) -> Iterable[str | None]:
    if path.suffix == ".parquet":
        import pyarrow.parquet

        return pyarrow.parquet.read_table(path, columns=[column])[column].to_pylist()
    if path.suffix in TABLE_SUFFIXES:
        # "NA" and "null" are words here, not missing values.
        table = pd.read_csv(
            path, sep=_separator(path), usecols=[column], dtype=str, keep_default_na=False, encoding_errors="replace"
        )
        return table[column].tolist()
    if path.suffix == ".txt":
        return path.read_text(encoding="utf-8", errors="replace").splitlines()
    return captions_of_shard(path, skipped)
