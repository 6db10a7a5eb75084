"""Where the encoded images of a labelled data set lie, a few dozen bytes an image: in files of their own, tars or tables.

Made of arrays alone, so that a million images go to a loader's processes in no time; files are opened by the process that
reads, at its first read.
"""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path

import numpy as np
from fsspec.core import url_to_fs

from ..addresses import STAMPS, TABLES, find_files
from ..tables import image_bytes, open_table

OPEN_TARS = 64  # a process keeps so many open
ROW_GROUP_BYTES = 256 << 20  # of tables' images that a process keeps in memory; the last row group read is kept at any size
Stamp = tuple[int, int | str]  # bytes, and time of change (ns) or ETag, of a file that holds many images


def stamp_of(path: str) -> Stamp:
    """Of a file, to be taken before it is indexed: one that has changed since is not read."""
    if "://" not in path:
        return _stamp(os.stat(path))
    filesystem, place = url_to_fs(path)
    info = filesystem.info(place)
    return info["size"], next((str(info[key]) for key in STAMPS if info.get(key) is not None), "")


def _stamp(facts: os.stat_result) -> Stamp:
    return facts.st_size, facts.st_mtime_ns


def _check_stamp(path: str, now: Stamp, then: Stamp) -> None:
    if now != then:
        raise ValueError(f"{path} has changed since it was indexed: load the labelled images again")


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

    def __add__(self, other: Names) -> Names:
        return Names(self.text + other.text, np.concatenate([self.ends, self.ends[-1] + other.ends[1:]]))

    def take(self, rows: np.ndarray) -> Names:
        """Some of them."""
        parts = [self.text[a:b] for a, b in zip(self.ends[:-1][rows].tolist(), self.ends[1:][rows].tolist(), strict=True)]
        return Names(b"".join(parts), np.cumsum([0, *map(len, parts)], dtype=np.int64))


@dataclass(frozen=True, eq=False)
class ImagePointers:
    """N encoded images by number, in F files.

    paths: of the files, or addresses. file: int32 [N], which file. place: int64 [N, 2], offset and bytes in a tar, row group
    and row in a table; -1, -1 is the whole file. names: of the tars' members, "" of others. holders: of each file that holds
    many images its stamp before it was indexed, and a table's column of images, else ""; one that has changed is not read.
    """

    paths: Names
    file: np.ndarray
    place: np.ndarray
    names: Names
    holders: Mapping[int, tuple[Stamp, str]]
    _kept: _RowGroups = field(default_factory=lambda: _RowGroups())

    @classmethod
    def of_files(cls, folder: str, names: Sequence[str]) -> ImagePointers:
        """Files of their own, below a folder."""
        paths, count = Names.of([os.path.join(folder, name) for name in names]), len(names)
        nameless = Names(b"", np.zeros(count + 1, np.int64))
        return cls(paths, np.arange(count, dtype=np.int32), np.full((count, 2), -1, np.int64), nameless, {})

    @classmethod
    def of_tars(cls, paths: Sequence[str], stamps: Sequence[Stamp], counts: Sequence[int], places, names) -> ImagePointers:
        """`counts` members of each tar, in order; places: int64 [N, 2]."""
        holders = {i: (stamp, "") for i, stamp in enumerate(stamps)}
        file = np.repeat(np.arange(len(paths), dtype=np.int32), counts)
        return cls(Names.of(paths), file, places, Names.of(names), holders)

    @classmethod
    def of_tables(cls, paths: Sequence[str], stamps: Sequence[Stamp], columns: Sequence[str], file, place) -> ImagePointers:
        """Rows of tables, with a column of images each."""
        nameless = Names(b"", np.zeros(len(file) + 1, np.int64))
        holders = dict(enumerate(zip(stamps, columns, strict=True)))
        return cls(Names.of(paths), file, place, nameless, holders)

    @classmethod
    def joined(cls, parts: Sequence[ImagePointers]) -> ImagePointers:
        """All images of all parts, one part after the other."""
        starts = np.cumsum([0, *(len(part.paths) for part in parts)]).tolist()
        return cls(
            sum((part.paths for part in parts[1:]), parts[0].paths),
            np.concatenate([part.file + np.int32(start) for part, start in zip(parts, starts, strict=False)]),
            np.concatenate([part.place for part in parts]),
            sum((part.names for part in parts[1:]), parts[0].names),
            {start + i: held for part, start in zip(parts, starts, strict=False) for i, held in part.holders.items()},
        )

    def __len__(self) -> int:
        return len(self.file)

    def take(self, rows: np.ndarray) -> ImagePointers:
        """Some of them; rows: int [n]. Files that no image is left in stay in the list."""
        return replace(self, file=self.file[rows], place=self.place[rows], names=self.names.take(rows))

    def name(self, i: int) -> str:
        """What messages call it: path, `tar:member` or `table:row`."""
        path, (first, second) = self.paths[self.file[i]], self.place[i].tolist()
        if first < 0:
            return path
        is_row = bool(self.holders[int(self.file[i])][1])
        return f"{path}:row group {first}, row {second}" if is_row else f"{path}:{self.names[i]}"

    def read(self, i: int) -> bytes:
        """Its encoded bytes. Raises OSError or ValueError, with the image's name, if it cannot be read."""
        path, (first, second) = self.paths[self.file[i]], self.place[i].tolist()
        if first < 0:
            with open(path, "rb") as file:
                return file.read()
        stamp, column = self.holders[int(self.file[i])]
        if column:
            cell = self._kept.column(path, stamp, first, column)[second].as_py()
            return image_bytes(cell, str(Path(path).parent), self.name(i))
        if "://" in path:
            _check_remote(path, stamp)
            filesystem, place = url_to_fs(path)
            content = filesystem.cat_file(place, start=first, end=first + second)
        else:
            with _open_tar(path, stamp) as descriptor:
                content = os.pread(descriptor, second, first)
                _check_stamp(path, _stamp(os.fstat(descriptor)), stamp)  # after reading: it may be written at any time
        if len(content) < second:
            raise ValueError(f"{self.name(i)} ends after {len(content):,} of {second:,} bytes: write the tar again")
        return content

    def runs(self) -> np.ndarray:
        """What is cheap to read together: the number of each image's row group, int64 [N]; -1 for what is cheap alone."""
        in_tables = [i for i, (_, column) in self.holders.items() if column]
        rows, runs = np.flatnonzero(np.isin(self.file, in_tables)), np.full(len(self), -1, np.int64)
        groups = np.stack([self.file[rows], self.place[rows, 0]])
        runs[rows] = np.unique(groups, axis=1, return_inverse=True)[1].reshape(-1)
        return runs


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


@lru_cache(maxsize=1 << 20)
def _check_remote(path: str, stamp: Stamp) -> None:
    _check_stamp(path, stamp_of(path), stamp)  # once a process: to ask before each image would double the requests


class _RowGroups:
    """The row groups last read, by this process; sent to another, it is empty."""

    def __init__(self):
        self.columns, self.size, self.lock = OrderedDict(), 0, threading.Lock()

    def __reduce__(self):
        return _RowGroups, ()

    def column(self, path: str, stamp: Stamp, group: int, name: str):
        """A column of images, by row."""
        key = (path, stamp, group, name)
        with self.lock:
            if key not in self.columns:
                _check_stamp(path, stamp_of(path), stamp)
                (file,) = find_files(path, TABLES)
                with open_table(file) as table:
                    content = table.read([name], group).column(name).combine_chunks()
                _check_stamp(path, stamp_of(path), stamp)  # again: it may be written at any time
                self.columns[key] = content
                self.size += content.nbytes
                while self.size > ROW_GROUP_BYTES and len(self.columns) > 1:
                    self.size -= self.columns.popitem(last=False)[1].nbytes
            self.columns.move_to_end(key)
            return self.columns[key]
