"""Where the encoded images of a labelled data set lie, a few dozen bytes an image: loose files, tar members, parquet rows.

All kinds have len(), `name(i)`, `size(i)`, `read(i)` and `take(rows)`. They are made of arrays alone, so that a million images
go to a loader's processes in no time; files are opened by the process that reads, at its first read.
"""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import Protocol

import numpy as np

OPEN_TARS = 64  # a process keeps so many open
ROW_GROUP_BYTES = 256 << 20  # of parquet images that a process keeps in memory; the last row group read is kept at any size
Stamp = tuple[int, int]  # bytes and time of change (ns) of a file that holds many images


def stamps_of(paths: Sequence[Path]) -> tuple[Stamp, ...]:
    """The stamps of files, to be taken before they are indexed: one that has changed since is not read."""
    return tuple(_stamp(path.stat()) for path in paths)


def _stamp(facts: os.stat_result) -> Stamp:
    return facts.st_size, facts.st_mtime_ns


def _check_stamp(path: str, now: Stamp, then: Stamp) -> None:
    if now != then:
        raise ValueError(f"{path} has changed since it was indexed: load the labelled images again")


class ImageFiles(Protocol):
    """N encoded images by number. Raises OSError or ValueError, with the image's name, for one that cannot be read."""

    def __len__(self) -> int: ...

    def name(self, i: int) -> str:
        """What messages call it: path, `tar:member` or `parquet:row`."""

    def read(self, i: int) -> bytes:
        """Its encoded bytes."""

    def take(self, rows: np.ndarray) -> ImageFiles:
        """Some of them; rows: int [n]."""

    def runs(self) -> np.ndarray:
        """What is cheap to read together: the number of each image's run, int64 [N]; -1 for images that are cheap alone."""


@dataclass(frozen=True, eq=False)
class Names:
    """N strings end to end: text bytes, ends int64 [N + 1]; a fifth of what a list of strings takes."""

    text: bytes
    ends: np.ndarray

    @classmethod
    def of(cls, names: Sequence[str]) -> Names:
        """Of a list of strings."""
        encoded = [os.fsencode(name) for name in names]
        return cls(b"".join(encoded), np.cumsum([0, *map(len, encoded)], dtype=np.int64))

    def __len__(self) -> int:
        return len(self.ends) - 1

    def __getitem__(self, i: int) -> str:
        return os.fsdecode(self.text[self.ends[i] : self.ends[i + 1]])

    def take(self, rows: np.ndarray) -> Names:
        """Some of them."""
        parts = [self.text[a:b] for a, b in zip(self.ends[:-1][rows].tolist(), self.ends[1:][rows].tolist(), strict=True)]
        return Names(b"".join(parts), np.cumsum([0, *map(len, parts)], dtype=np.int64))


@dataclass(frozen=True, eq=False)
class LooseFiles:
    """Files below a folder, by relative path."""

    folder: str
    names: Names

    def __len__(self) -> int:
        return len(self.names)

    def name(self, i: int) -> str:
        return os.path.join(self.folder, self.names[i])

    def read(self, i: int) -> bytes:
        with open(self.name(i), "rb") as file:
            return file.read()

    def take(self, rows: np.ndarray) -> LooseFiles:
        return LooseFiles(self.folder, self.names.take(rows))

    def runs(self) -> np.ndarray:
        return np.full(len(self), -1, np.int64)


@dataclass(frozen=True, eq=False)
class TarMembers:
    """Members of uncompressed tars. tar: int32 [N], which of `paths`; places: int64 [N, 2], offset and size in it.

    stamps: of each tar, before it was indexed; one that has changed since is not read.
    """

    paths: tuple[str, ...]
    stamps: tuple[Stamp, ...]
    tar: np.ndarray
    places: np.ndarray
    names: Names

    def __len__(self) -> int:
        return len(self.tar)

    def name(self, i: int) -> str:
        return f"{self.paths[self.tar[i]]}:{self.names[i]}"

    def read(self, i: int) -> bytes:
        offset, size = self.places[i].tolist()
        path, stamp = self.paths[self.tar[i]], self.stamps[self.tar[i]]
        with _open_tar(path, stamp) as descriptor:
            content = os.pread(descriptor, size, offset)
            _check_stamp(path, _stamp(os.fstat(descriptor)), stamp)  # after reading: it may be written at any time
        if len(content) < size:
            raise ValueError(f"{self.name(i)} ends after {len(content):,} of {size:,} bytes: write the tar again")
        return content

    def take(self, rows: np.ndarray) -> TarMembers:
        return TarMembers(self.paths, self.stamps, self.tar[rows], self.places[rows], self.names.take(rows))

    def runs(self) -> np.ndarray:
        return np.full(len(self), -1, np.int64)


class _OpenTar:
    """A descriptor that is closed once nobody reads from it and it is not among the last used."""

    def __init__(self, path: str, stamp: Stamp):
        self.descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_CLOEXEC", 0))
        _check_stamp(path, _stamp(os.fstat(self.descriptor)), stamp)

    def __enter__(self) -> int:
        return self.descriptor

    def __exit__(self, *_) -> None:
        pass

    def __del__(self):
        if hasattr(self, "descriptor"):
            os.close(self.descriptor)


@lru_cache(maxsize=OPEN_TARS)
def _open_tar(path: str, stamp: Stamp) -> _OpenTar:
    return _OpenTar(path, stamp)  # pread has no position to share: threads, and processes after a fork, may use one descriptor


@dataclass(frozen=True, eq=False)
class ParquetRows:
    """An image column of parquet files, read a row group at a time: swift in order, slow at random.

    stamps: of each file, before it was indexed; one that has changed since is not read.
    file, group, row: int32 [N], which of `paths`, which row group of it, which row in that. The column holds encoded images,
    paths, or structs with `bytes` and `path`; paths count from the parquet file's folder.
    """

    paths: tuple[str, ...]
    stamps: tuple[Stamp, ...]
    column: str
    file: np.ndarray
    group: np.ndarray
    row: np.ndarray
    _kept: _RowGroups = field(default_factory=lambda: _RowGroups())

    def __len__(self) -> int:
        return len(self.file)

    def name(self, i: int) -> str:
        return f"{self.paths[self.file[i]]}:row group {self.group[i]}, row {self.row[i]}"

    def read(self, i: int) -> bytes:
        path, stamp = self.paths[self.file[i]], self.stamps[self.file[i]]
        value = self._kept.column(path, stamp, int(self.group[i]), self.column)[int(self.row[i])].as_py()
        if isinstance(value, dict):
            value = value.get("bytes") or value.get("path")
        if isinstance(value, str):
            return (Path(path).parent / value).read_bytes()
        if not value:
            raise ValueError(f"{self.name(i)}: column {self.column!r} is empty")
        return value

    def take(self, rows: np.ndarray) -> ParquetRows:
        return ParquetRows(self.paths, self.stamps, self.column, self.file[rows], self.group[rows], self.row[rows])

    def runs(self) -> np.ndarray:
        return np.unique(np.stack([self.file, self.group]), axis=1, return_inverse=True)[1].reshape(-1).astype(np.int64)


class _RowGroups:
    """The row groups last read, by this process; sent to another, it is empty."""

    def __init__(self):
        self.columns, self.size, self.lock = OrderedDict(), 0, threading.Lock()

    def __reduce__(self):
        return _RowGroups, ()

    def column(self, path: str, stamp: Stamp, group: int, name: str):
        import pyarrow.parquet

        key = (path, stamp, group, name)
        with self.lock:
            if key not in self.columns:
                _check_stamp(path, _stamp(os.stat(path)), stamp)
                with pyarrow.parquet.ParquetFile(path) as file:
                    content = file.read_row_group(group, columns=[name]).column(name).combine_chunks()
                _check_stamp(path, _stamp(os.stat(path)), stamp)  # again: it may be written at any time
                self.columns[key] = content
                self.size += content.nbytes
                while self.size > ROW_GROUP_BYTES and len(self.columns) > 1:
                    self.size -= self.columns.popitem(last=False)[1].nbytes
            self.columns.move_to_end(key)
            return self.columns[key]


@dataclass(frozen=True, eq=False)
class JoinedFiles:
    """Images of several kinds or places, one after the other. part, row: int [N], which of `parts`, which image of it."""

    parts: tuple[ImageFiles, ...]
    part: np.ndarray
    row: np.ndarray

    @classmethod
    def of(cls, parts: Sequence[ImageFiles]) -> JoinedFiles:
        """All images of all parts."""
        kept = _RowGroups()  # one bound on the memory of all
        parts = [replace(p, _kept=kept) if isinstance(p, ParquetRows) else p for p in parts]
        part = np.repeat(np.arange(len(parts), dtype=np.int32), [len(p) for p in parts])
        return cls(tuple(parts), part, np.concatenate([np.arange(len(p), dtype=np.int64) for p in parts]))

    def __len__(self) -> int:
        return len(self.part)

    def name(self, i: int) -> str:
        return self.parts[self.part[i]].name(int(self.row[i]))

    def read(self, i: int) -> bytes:
        return self.parts[self.part[i]].read(int(self.row[i]))

    def take(self, rows: np.ndarray) -> JoinedFiles:
        return JoinedFiles(self.parts, self.part[rows], self.row[rows])

    def runs(self) -> np.ndarray:
        found, taken = np.full(len(self), -1, np.int64), 0
        for number, part in enumerate(self.parts):
            runs = part.runs()
            mine = np.flatnonzero(self.part == number)
            here = runs[self.row[mine]]
            found[mine] = np.where(here < 0, -1, here + taken)
            taken += int(runs.max(initial=-1)) + 1
        return found
