"""Where the images and captions of one tar lie, found by its headers alone: what sample counts and random access rest on.

Reads an open tar, local or remote; gives a `MemberTable` of some 50 bytes a sample. Tars as WebDataset's writers make them
are walked several times as fast as `tarfile` does; whatever is out of the ordinary in one (long names, damage, an early end) is
left to `scan_shard`, so that both see the same samples.
"""

from __future__ import annotations

import os
import tarfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import groupby
from operator import itemgetter
from typing import IO

import numpy as np

from .shards import caption_member, image_member, key_and_extension, scan_shard

WINDOW = 256 << 10  # bytes read at a time: disks and network file systems read ahead, and the images are wanted soon anyway
REGULAR = (tarfile.REGTYPE, tarfile.AREGTYPE)
BEYOND_TIMES = (b"path=", b"size=", b"GNU.", b"charset=")  # pax records that change what a member is called or where it ends
Place = tuple[int, int]  # offset in the tar, bytes


@dataclass(frozen=True, eq=False)
class MemberTable:
    """The N samples of a tar, in its order.

    places: int64 [N, 4]: offset and size of the image, offset and size of the caption; -1, -1 for what is missing.
    is_json: bool [N], whether the caption is in a .json. key_text, key_ends: the keys end to end, int32 [N + 1].
    broken: why the tar ends before its end, "" if it is whole.
    """

    places: np.ndarray
    is_json: np.ndarray
    key_text: bytes
    key_ends: np.ndarray
    broken: str = ""

    def __len__(self) -> int:
        return len(self.places)

    def key(self, row: int) -> str:
        """The key of a sample."""
        return self.key_text[self.key_ends[row] : self.key_ends[row + 1]].decode("utf-8", errors="surrogateescape")


def read_members(file: IO[bytes], name: str) -> MemberTable:
    """The table of an open tar, which stays open. name: for messages.

    A tar that breaks off gives the samples up to there, and says so in `broken`; so does a file that is no tar, or a compressed
    one, without any sample. Raises OSError (or what else its file system raises) if the file cannot be read.
    """
    try:
        return _table(_plain_samples(_reader(file)))
    except _OutOfTheOrdinary:
        return _scanned_table(file, name)


def sample_places(file: IO[bytes], name: str) -> tuple[list[tuple[str, dict[str, Place]]], str]:
    """Key and places by extension of every sample of an open tar, and why it breaks off ("" if it is whole).

    For those who need more than image and caption; otherwise as `read_members`.
    """
    try:
        return _until_broken(_plain_samples(_reader(file)))
    except _OutOfTheOrdinary:
        return _until_broken(_scanned_samples(file, name))


def file_places(file: IO[bytes], name: str) -> list[tuple[str, Place]]:
    """Name and place of every file of an open, uncompressed tar. Raises ValueError, with `name`, if it is damaged."""
    try:
        return list(_plain_files(_reader(file)))
    except _OutOfTheOrdinary:
        pass
    file.seek(0)
    try:
        with tarfile.open(fileobj=file, mode="r:") as tar:
            return [(member.name, (member.offset_data, member.size)) for member in tar if member.isfile()]
    except (tarfile.TarError, EOFError) as error:
        raise ValueError(f"{name} is no whole, uncompressed tar ({error}): download it again") from error


def nested_file_places(file: IO[bytes], name: str, inner: Place) -> list[tuple[str, Place]]:
    """Name and place, counted from the start of the outer tar, of the files of a tar that lies within an open tar."""
    start, size = inner
    read = _reader(file)
    try:
        found = list(_plain_files(lambda offset, most: read(start + offset, max(0, min(most, size - offset)))))
    except _OutOfTheOrdinary:
        raise ValueError(f"{name} is no whole tar of plain files: download it again, or unpack it") from None
    return [(member, (start + offset, length)) for member, (offset, length) in found]


def _until_broken(samples: Iterator[tuple[str, dict[str, Place]]]) -> tuple[list[tuple[str, dict[str, Place]]], str]:
    found = []
    try:
        found.extend(samples)
    except (ValueError, tarfile.TarError) as error:
        return found, str(error)
    return found, ""


def _table(samples: Iterator[tuple[str, dict[str, Place]]]) -> MemberTable:
    """The table of an iterator over key and members by extension; `broken` is what its ValueError says."""
    places, is_json, keys, broken = [], [], [], ""
    try:
        for key, parts in samples:
            caption, in_json = caption_member(parts)
            places.append((image_member(parts) or (-1, -1)) + (caption or (-1, -1)))
            is_json.append(in_json)
            keys.append(key.encode("utf-8", errors="surrogateescape"))
    except (ValueError, tarfile.TarError) as error:
        broken = str(error)
    ends = np.cumsum([0, *map(len, keys)], dtype=np.int32)
    return MemberTable(np.array(places, np.int64).reshape(-1, 4), np.array(is_json, bool), b"".join(keys), ends, broken)


def _scanned_table(file: IO[bytes], name: str) -> MemberTable:
    return _table(_scanned_samples(file, name))


def _scanned_samples(file: IO[bytes], name: str) -> Iterator[tuple[str, dict[str, Place]]]:
    """Key and places by extension of each sample, by `tarfile`; a tar that breaks off raises ValueError, at that place."""
    file.seek(0)
    for key, parts, tar in scan_shard(name, file, whole=True):
        if tar.fileobj is not file:
            raise tarfile.ReadError("the tar is compressed, so that its members cannot be read one by one: unpack it")
        yield key, {extension: (member.offset_data, member.size) for extension, member in parts.items()}


# --- the fast walk ------------------------------------------------------------------------------------------------------


class _OutOfTheOrdinary(Exception):
    """A header that the fast walk leaves to tarfile."""


def _reader(file: IO[bytes]) -> Callable[[int, int], bytes]:
    """(offset, size) -> bytes, fewer at the end of the file."""
    try:
        descriptor = file.fileno()
    except (AttributeError, OSError):  # a remote file has none

        def read(offset: int, size: int) -> bytes:
            file.seek(offset)
            return file.read(size)

        return read
    return lambda offset, size: os.pread(descriptor, size, offset)


def _plain_samples(read: Callable[[int, int], bytes]) -> Iterator[tuple[str, dict[str, Place]]]:
    """Key and places by extension of each sample. Raises _OutOfTheOrdinary for a tar that tarfile must judge."""
    files = ((*key_and_extension(name), place) for name, place in _plain_files(read))
    for key, group in groupby(files, key=itemgetter(0)):
        yield key, {extension: place for _, extension, place in group}


def _plain_files(read: Callable[[int, int], bytes]) -> Iterator[tuple[str, Place]]:
    """Name and place of each file of the tar, up to its end-of-archive block."""
    window, start, offset = b"", 0, 0
    end_block = tarfile.NUL * tarfile.BLOCKSIZE
    while True:
        if offset + tarfile.BLOCKSIZE > start + len(window):
            window, start = read(offset, WINDOW), offset
        at = offset - start
        header = window[at : at + tarfile.BLOCKSIZE]
        if header == end_block:
            return
        kind, size = _kind_and_size(header)
        data = offset + tarfile.BLOCKSIZE
        offset = data + (size + tarfile.BLOCKSIZE - 1) // tarfile.BLOCKSIZE * tarfile.BLOCKSIZE
        if kind in REGULAR:
            yield _name(header), (data, size)
        elif kind == tarfile.XHDTYPE:  # Python writes one for each member whose time has a fraction
            at += tarfile.BLOCKSIZE
            records = window[at : at + size] if at + size <= len(window) else read(data, size)
            if any(record in records for record in BEYOND_TIMES):
                raise _OutOfTheOrdinary
        elif kind != tarfile.DIRTYPE or size:
            raise _OutOfTheOrdinary


def _kind_and_size(header: bytes) -> tuple[bytes, int]:
    """A header's member type and size, once its checksum is right."""
    try:
        size = int(header[124:136].rstrip(b"\0 "), 8)
        checksum = int(header[148:156].rstrip(b"\0 "), 8)  # the sum of all bytes, itself counted as eight spaces
    except ValueError:
        raise _OutOfTheOrdinary from None
    expected = checksum - 8 * ord(" ") + sum(header[148:156])
    # The lower half of Adler-32 is one more than the sum of the bytes: summing them in Python takes half of the whole walk.
    if zlib.adler32(header) & 0xFFFF != (expected + 1) % 65521 or size < 0 or len(header) < tarfile.BLOCKSIZE:
        raise _OutOfTheOrdinary
    return header[156:157], size


def _name(header: bytes) -> str:
    """A member's name; in the ustar format long ones have their folders in a field of their own."""
    name, folders = header[:100].partition(b"\0")[0], header[345:500].partition(b"\0")[0]
    if header[156:157] == tarfile.AREGTYPE and name.endswith(b"/"):  # a folder, in the oldest tars
        raise _OutOfTheOrdinary
    return (folders + b"/" + name if folders else name).decode(tarfile.ENCODING, errors="surrogateescape")
