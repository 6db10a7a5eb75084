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
import pyarrow as pa
from fsspec.core import url_to_fs

from ..addresses import STAMPS, TABLES, TRIES, find_files, patiently
from ..shards import OpenTar
from ..tables import image_bytes, open_table

OPEN_TARS = 64  # a process keeps so many open
ROW_GROUP_BYTES = 256 << 20  # of tables' images that a process keeps in memory; the last row group read is kept at any size
Stamp = tuple[int, int | str]  # bytes, and time of change (ns) or ETag, of a file that holds many images


def stamp_of(path: str | Path | int) -> Stamp:
    """Of a file, or an open one's descriptor, to be taken before it is indexed: one that has changed since is not read."""
    if "://" not in str(path):
        facts = os.stat(path)
        return facts.st_size, facts.st_mtime_ns
    filesystem, place = url_to_fs(path)
    info = filesystem.info(place)
    return info["size"], next((str(info[key]) for key in STAMPS if info.get(key) is not None), "")


def _check(path: str, stamp: Stamp, descriptor: int | None = None) -> None:
    if stamp_of(path if descriptor is None else descriptor) != stamp:
        raise ValueError(f"{path} has changed since it was indexed: load the labelled images again")


_check_once = lru_cache(maxsize=1 << 20)(_check)  # a process: to ask a store before each image would double the requests


def as_bytes(names: Sequence[str | Path]) -> pa.LargeBinaryArray:
    """Names of files as Arrow keeps strings, end to end: a fifth of what a list of them takes."""
    return pa.array(map(os.fsencode, names), pa.large_binary())


@dataclass(frozen=True, eq=False)
class ImagePointers:
    """N encoded images by number, in F files.

    paths: of the files, or addresses, [F]. file: int32 [N], which file. place: int64 [N, 2], offset and bytes in a tar, row
    group and row in a table; -1, -1 is the whole file. names: [N], of the tars' members, null of others. holders: of each file
    that holds many images its stamp before it was indexed, and a table's column of images, else "".
    """

    paths: pa.LargeBinaryArray
    file: np.ndarray
    place: np.ndarray
    names: pa.LargeBinaryArray
    holders: Mapping[int, tuple[Stamp, str]]
    _kept: _RowGroups = field(default_factory=lambda: _RowGroups())

    @classmethod
    def of_files(cls, folder: str, names: Sequence[str]) -> ImagePointers:
        """Files of their own, below a folder."""
        paths, n = as_bytes([os.path.join(folder, name) for name in names]), len(names)
        return cls(paths, np.arange(n, dtype=np.int32), np.full((n, 2), -1, np.int64), pa.nulls(n, pa.large_binary()), {})

    @classmethod
    def of_tables(
        cls, paths: Sequence[str], stamps: Sequence[Stamp], columns: Sequence[str], file: np.ndarray, place: np.ndarray
    ) -> ImagePointers:
        """Rows of tables, with a column of images each."""
        nameless, holders = pa.nulls(len(file), pa.large_binary()), dict(enumerate(zip(stamps, columns, strict=True)))
        return cls(as_bytes(paths), file, place, nameless, holders)

    @classmethod
    def joined(cls, parts: Sequence[ImagePointers]) -> ImagePointers:
        """All images of all parts, one part after the other."""
        starts = np.cumsum([0, *(len(part.paths) for part in parts[:-1])]).tolist()
        return cls(
            pa.concat_arrays([part.paths for part in parts]),
            np.concatenate([part.file + np.int32(start) for part, start in zip(parts, starts, strict=True)]),
            np.concatenate([part.place for part in parts]),
            pa.concat_arrays([part.names for part in parts]),
            {start + i: held for part, start in zip(parts, starts, strict=True) for i, held in part.holders.items()},
        )

    def __len__(self) -> int:
        return len(self.file)

    def take(self, rows: np.ndarray) -> ImagePointers:
        """Some of them; rows: int [n]. Files that no image is left in stay in the list."""
        return replace(self, file=self.file[rows], place=self.place[rows], names=self.names.take(pa.array(rows)))

    def path(self, i: int) -> str:
        """The file that it lies in."""
        return os.fsdecode(self.paths[self.file[i].item()].as_py())

    def name(self, i: int) -> str:
        """What messages call it: path, `tar:member` or `table:row`."""
        member, (first, second) = self.names[i].as_py(), self.place[i].tolist()
        if member is not None:
            return f"{self.path(i)}:{os.fsdecode(member)}"
        return self.path(i) if first < 0 else f"{self.path(i)}:row group {first}, row {second}"

    def read(self, i: int) -> bytes:
        """Its encoded bytes. Raises OSError or ValueError, with the image's name, if it cannot be read."""
        path, (first, second) = self.path(i), self.place[i].tolist()
        if first < 0:
            with open(path, "rb") as file:
                return file.read()
        stamp, column = self.holders[self.file[i].item()]
        if column:
            cell = self._kept.column(path, stamp, first, column)[second].as_py()
            return image_bytes(cell, path.rpartition("/")[0], self.name(i))
        if "://" in path:
            _check_once(path, stamp)
            filesystem, place = url_to_fs(path)
            content = patiently(lambda: filesystem.cat_file(place, start=first, end=first + second))
        else:
            tar = _open_tar(path, stamp)
            content = os.pread(tar.fileno(), second, first)
            _check(path, stamp, tar.fileno())  # after reading: it may be written at any time
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


# ---------------------------------------------------------------- with what tells one data set from another


def loose_files(folder: Path, names: Sequence[str], facts: np.ndarray) -> tuple[ImagePointers, list[np.ndarray | bytes]]:
    """Pointers to files below a folder, and what fingerprints are of; facts: bytes and time of change, int64 [N, 2]."""
    return ImagePointers.of_files(str(folder), names), [whereabouts([folder]), os.fsencode("".join(names)), facts]


def tar_members(
    paths: Sequence[str | Path], stamps: Sequence[Stamp], places: Sequence[np.ndarray], names: Sequence[str]
) -> tuple[ImagePointers, list[np.ndarray | bytes]]:
    """Pointers to members of tars, in order, and what fingerprints are of. places: int64 [n, 2] of each tar; names: of all."""
    file = np.repeat(np.arange(len(paths), dtype=np.int32), list(map(len, places)))
    holders = {i: (stamp, "") for i, stamp in enumerate(stamps)}
    files = ImagePointers(as_bytes(paths), file, np.concatenate(places), as_bytes(names), holders)
    return files, [os.fsencode("".join(names)), files.place, file, whereabouts(paths), np.array(stamps)]


def whereabouts(paths: Sequence[str | Path]) -> bytes:
    """Where files or folders really lie: those of equal names, sizes and times elsewhere are others."""
    if "://" in str(paths[0]):
        return "\n".join(map(str, paths)).encode()
    return b"\0".join(os.fsencode(Path(path).resolve()) for path in paths)


# ---------------------------------------------------------------- files that many images share


@lru_cache(maxsize=OPEN_TARS)
def _open_tar(path: str, stamp: Stamp) -> OpenTar:
    tar = OpenTar(path)  # pread has no position to share: threads, and processes after a fork, may use one descriptor
    _check(path, stamp, tar.fileno())
    return tar


def _column(path: str, group: int, name: str) -> pa.Array:
    (file,) = find_files(path, TABLES)
    with open_table(file) as table:
        return table.read([name], group).column(name).combine_chunks()


class _RowGroups:
    """The row groups last read, by this process; sent to another, it is empty."""

    def __init__(self):
        self.columns, self.lock = OrderedDict(), threading.Lock()

    def __reduce__(self) -> tuple:
        return _RowGroups, ()

    def column(self, path: str, stamp: Stamp, group: int, name: str) -> pa.Array:
        """A column of images, by row."""
        key = (path, stamp, group, name)
        with self.lock:
            if key not in self.columns:
                _check(path, stamp)
                content = patiently(lambda: _column(path, group, name), TRIES if "://" in path else 1)
                _check(path, stamp)  # again: it may be written at any time
                self.columns[key] = content
                while len(self.columns) > 1 and sum(kept.nbytes for kept in self.columns.values()) > ROW_GROUP_BYTES:
                    self.columns.popitem(last=False)
            self.columns.move_to_end(key)
            return self.columns[key]
