"""One shard, as img2dataset writes them: a tar (or a folder) whose files `<key>.jpg`, `.txt`, `.json` are a sample.

Writes shards; walks the headers of one, several times as fast as `tarfile`, and leaves to that whatever is out of the ordinary;
reads its samples one after the other, or, by an index of some 50 bytes a sample, in any order.
"""

from __future__ import annotations

import io
import json
import logging
import os
import tarfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, TypeVar

import numpy as np

from ..artefacts import atomic_path

logger = logging.getLogger(__name__)

# What counts as an image by its name, in shards and in folders; of several of a sample, the first.
IMAGE_EXTENSIONS = ("jpg", "jpeg", "png", "webp", "jfif", "bmp", "gif", "tif", "tiff", "ppm", "pgm", "avif")
CAPTION = "caption"  # where captions usually are: in tables a column, in shards the .txt or a field of the .json
BETWEEN = " | "  # what parts two captions of one image, as `CaptionLabeler` takes lists
WINDOW = 256 << 10  # bytes read at a time: disks and network file systems read ahead, and the images are wanted soon anyway
REGULAR = (tarfile.REGTYPE, tarfile.AREGTYPE)
BEYOND_TIMES = (b"path=", b"size=", b"GNU.", b"charset=")  # pax records that change what a member is called or where it ends

Place = tuple[int, int]  # of a tar's file: its offset and bytes; of a folder's: its number and -1
ReadAt = Callable[[int, int], bytes]
Member = TypeVar("Member")


@dataclass
class Sample:
    """One image and what is said of it, from its shard to the batch.

    image: encoded bytes, None if there is none. caption, or classes: int32 [n], indices. facts: its .json. skipped: why it
    cannot be used, "" if it can. key: its name in the shard; in a stream after the shard's own, "00000.tar:000000042".
    """

    key: str
    image: bytes | None = None
    extension: str = ""
    caption: str | None = None
    facts: dict = field(default_factory=dict)
    classes: np.ndarray | None = None
    skipped: str = ""


class BreaksOff(ValueError):
    """A tar that cannot be read further; within: it ends amid a file, so that its last sample is not whole."""

    def __init__(self, reason: str, within: bool = False):
        super().__init__(reason)
        self.within = within

    @classmethod
    def at(cls, what: str, within: bool = False) -> BreaksOff:
        """One that ends before its end."""
        return cls(f"the tar breaks off ({what}): write or download it again", within)


# ---------------------------------------------------------------- samples, one after the other


class OpenTar(io.FileIO):
    """Closed, and its copy deleted, once nobody has it; where it was opened before a fork, the child only closes it."""

    copy: Path | None = None

    def __init__(self, path: str | Path, copy: Path | None = None):
        super().__init__(path)
        self.copy, self.pid = copy, os.getpid()

    def __del__(self):
        self.close()
        if self.copy is not None and self.pid == os.getpid():
            self.copy.unlink(missing_ok=True)


@contextmanager
def open_shard(path: str, file: IO[bytes] | None = None) -> Iterator[tuple[Iterator[tuple[str, dict[str, Place]]], ReadAt]]:
    """Key and places by extension of each sample of a tar or folder, and what reads a place.

    file: the tar's bytes, seekable, if they are not to be had by opening `path`; it stays open. Where a tar breaks off, the
    samples end with BreaksOff.
    """
    if file is None and os.path.isdir(path):
        names = sorted(name for name in os.listdir(path) if not name.startswith("."))
        yield group_samples((name, (i, -1)) for i, name in enumerate(names)), _reader_of_folder(path, names)
        return
    with open(path, "rb") if file is None else nullcontext(file) as opened:
        read = reader_of(opened)
        yield group_samples(tar_files(opened, read)), read


def group_samples(files: Iterable[tuple[str, Place]]) -> Iterator[tuple[str, dict[str, Place]]]:
    """Key and places by extension of each sample, of a shard's files in their order.

    Neighbours of one key are a sample; an extension that the sample has already begins the next, so that shards that were put
    end to end lose nothing where their keys meet.
    """
    last, parts = "", {}
    try:
        for name, place in files:
            key, extension = key_and_extension(name)
            if parts and (key != last or extension in parts):
                yield last, parts
                parts = {}
            last, parts[extension] = key, place
    except BreaksOff as error:
        if parts and not error.within:
            yield last, parts
        raise
    if parts:
        yield last, parts


def key_and_extension(name: str) -> tuple[str, str]:
    """WebDataset's rule: the key ends at the first period of the file's name; './' in front is dropped."""
    folder, _, file = name.removeprefix("./").rpartition("/")
    stem, _, extension = file.partition(".")
    return f"{folder}/{stem}" if folder else stem, extension.lower()


def read_shard(path: str | Path) -> Iterator[Sample]:
    """The samples of a tar or folder, images included, in its order; one that breaks off gives what it has, with a warning."""
    try:
        with open_shard(str(path)) as (samples, read):
            for key, parts in samples:
                member = image_member(parts)
                image, facts, caption = None, {}, None
                try:
                    image = read(*member) if member else None
                    facts = parse_facts(read(*parts["json"])) if "json" in parts else {}
                    caption = read_caption(parts, read)
                except (ValueError, FileNotFoundError) as error:
                    logger.warning("%s:%s: %s", path, key, error)
                extension = next((name for name, place in parts.items() if place == member), "")
                yield Sample(key, image, extension, caption, facts)
    except BreaksOff as error:
        logger.warning("%s: %s (the samples up to there are used)", path, error)


def image_member(parts: Mapping[str, Member]) -> Member | None:
    """The member that is the sample's image."""
    return next((parts[e] for e in IMAGE_EXTENSIONS if e in parts), None)


# ---------------------------------------------------------------- captions


def caption_members(parts: Mapping[str, Member], columns: Sequence[str] = (CAPTION,)) -> list[tuple[Member | None, str]]:
    """The member that holds each of a sample's captions, None if none does, and the field of a .json, else "".

    A column is a member of that name, or a field of the .json; the usual one is the .txt first.
    """
    found = []
    for column in columns:
        member = next((e for e in (column, "txt" if column == CAPTION else "") if e in parts), None)
        found.append((parts[member], "") if member else (parts.get("json"), column))
    return found


def read_caption(parts: Mapping[str, Place], read: ReadAt, columns: Sequence[str] = (CAPTION,)) -> str | None:
    """The caption of a sample, of several columns those there are; None if there is none. Raises as `parse_facts`."""
    members = caption_members(parts, columns)
    return joined_captions(parse_caption(read(*member), name) if member else None for member, name in members)


def parse_caption(content: bytes, name: str) -> str | None:
    """The text of a member, or the field of that name of a .json; None if it is missing or empty. Raises as `parse_facts`.

    An empty .txt is how img2dataset writes that there is no caption: nothing is known of what the image shows.
    """
    caption = parse_facts(content).get(name) if name else content.decode("utf-8", errors="replace")
    if not isinstance(caption, (str, type(None))):
        raise ValueError(f"damaged .json (its {name} is a {type(caption).__name__}, not text)")
    return (caption or "").strip() or None


def joined_captions(captions: Iterable[str | None]) -> str | None:
    """Several captions of one image as one, whose labels are those of all."""
    return BETWEEN.join(filter(None, captions)) or None


def parse_facts(content: bytes) -> dict:
    """The fields of a sample's .json. Raises ValueError, "damaged .json (…)", if it is none or nested too deep."""
    try:
        facts = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"damaged .json ({error})") from None
    if not isinstance(facts, dict):
        raise ValueError(f"damaged .json (it holds a {type(facts).__name__}, not the fields of a sample)")
    return facts


# ---------------------------------------------------------------- samples, in any order


@dataclass(frozen=True, eq=False)
class ShardIndex:
    """The N samples of a tar or folder, in its order. columns: the C names of captions.

    places: int64 [N, 1 + C, 2], of the image and of the C captions; -1, -1 for what is missing. in_json: bool [N, C], whether a
    caption is, or would be, in a .json. key_text, key_ends: the keys end to end, int32 [N + 1]. broken: why the tar ends before
    its end, "" if it is whole.
    """

    columns: tuple[str, ...]
    places: np.ndarray
    in_json: np.ndarray
    key_text: bytes
    key_ends: np.ndarray
    broken: str = ""

    def __len__(self) -> int:
        return len(self.places)

    def key(self, row: int) -> str:
        """The key of a sample."""
        return self.key_text[self.key_ends[row] : self.key_ends[row + 1]].decode("utf-8", errors="surrogateescape")

    def sample(self, row: int, read: ReadAt) -> Sample:
        """The sample in a row, or why it cannot be used. Raises OSError if the file cannot be read any more."""
        key, (image, *captions) = self.key(row), self.places[row].tolist()
        if image[0] < 0:
            return Sample(key, skipped="no image")
        fields = [name if in_json else "" for name, in_json in zip(self.columns, self.in_json[row].tolist(), strict=True)]
        try:
            encoded = _whole(read, image)
            there = ((place, name) for place, name in zip(captions, fields, strict=True) if place[0] >= 0)
            caption = joined_captions(parse_caption(_whole(read, place), name) for place, name in there)
        except EOFError:
            return Sample(key, skipped="missing")
        except ValueError as error:
            return Sample(key, skipped=str(error))
        return Sample(key, encoded, caption=caption, skipped="" if caption else "no caption")


def _whole(read: ReadAt, place: Place) -> bytes:
    """Raises EOFError where the file has been cut off, or has gone, since it was indexed."""
    try:
        content = read(*place)
    except FileNotFoundError as error:
        raise EOFError(str(error)) from error
    if len(content) < place[1]:
        raise EOFError
    return content


def index_shard(samples: Iterable[tuple[str, dict[str, Place]]], columns: Sequence[str] = (CAPTION,)) -> ShardIndex:
    """The index of a shard's samples; one that breaks off has those up to there, one that is no tar has none, and says why."""
    places, in_json, keys, broken = [], [], [], ""
    try:
        for key, parts in samples:
            captions = caption_members(parts, columns)
            places.append([image_member(parts) or (-1, -1), *(place or (-1, -1) for place, _ in captions)])
            in_json.append([bool(name) for _, name in captions])
            keys.append(key.encode("utf-8", errors="surrogateescape"))
    except ValueError as error:
        broken = str(error)
    ends = np.cumsum([0, *map(len, keys)], dtype=np.int32)
    shape = (-1, 1 + len(columns), 2)
    flags = np.array(in_json, bool).reshape(-1, len(columns))
    return ShardIndex(tuple(columns), np.array(places, np.int64).reshape(shape), flags, b"".join(keys), ends, broken)


# ---------------------------------------------------------------- the walk over a tar's headers


class _OutOfTheOrdinary(Exception):
    """A header that the fast walk leaves to tarfile."""


def reader_of(file: IO[bytes]) -> ReadAt:
    """(offset, size) -> bytes of an open file, fewer at its end. Threads may share it where the file is local."""
    try:
        descriptor = file.fileno()
    except (AttributeError, OSError):  # a remote file has none

        def read(offset: int, size: int) -> bytes:
            file.seek(offset)
            return file.read(size)

        return read
    return lambda offset, size: os.pread(descriptor, size, offset)


def tar_files(file: IO[bytes], read: ReadAt, inner: Place | None = None) -> Iterator[tuple[str, Place]]:
    """Name and place of each file of an open, uncompressed tar. Raises BreaksOff where it ends before its end.

    inner: of a tar that is a file of the open one, where it lies; places count from the start of the open one.
    """
    start, stop = (inner[0], sum(inner)) if inner else (0, None)
    offset, end, last = start, size_of(file) if stop is None else stop, 0
    if read(start, 2) == b"\x1f\x8b":
        raise BreaksOff("the tar is compressed, so that its members cannot be read one by one: unpack it")
    try:
        for name, (data, size), following in _plain_files(read, start, stop):
            offset, last = following, data + size
            if name is not None:
                yield name, (data, size)
        return
    except _OutOfTheOrdinary:
        if end is not None and last > end:
            raise BreaksOff.at("unexpected end of data", within=True) from None
    if inner:
        raise BreaksOff.at("a header of another kind")
    file.seek(offset)
    try:
        with tarfile.open(fileobj=file, mode="r:") as tar:
            for member in tar:
                if member.isfile():
                    yield member.name, (member.offset_data, member.size)
                tar.members = []  # type: ignore[attr-defined]  # else it keeps a kilobyte a member
            if read(tar.offset, tarfile.BLOCKSIZE) != tarfile.NUL * tarfile.BLOCKSIZE:
                raise BreaksOff.at("no end-of-archive block")
    except tarfile.ReadError as error:
        raise BreaksOff.at(str(error), within="unexpected end" in str(error)) from None


def size_of(file: IO[bytes]) -> int | None:
    """Bytes of an open file, None where that cannot be told."""
    try:
        return os.fstat(file.fileno()).st_size
    except (AttributeError, OSError):
        return getattr(file, "size", None)


def _plain_files(read: ReadAt, start: int, stop: int | None) -> Iterator[tuple[str | None, Place, int]]:
    """Name (None: not a file), place and next header's offset of each member, up to the end-of-archive block.

    Raises _OutOfTheOrdinary at a header that tarfile must judge, whose offset is the last one given.
    """
    window, at_start, offset = b"", start, start
    end_block = tarfile.NUL * tarfile.BLOCKSIZE
    while True:
        if offset + tarfile.BLOCKSIZE > at_start + len(window):
            most = WINDOW if stop is None else max(0, min(WINDOW, stop - offset))
            window, at_start = read(offset, most), offset
        at = offset - at_start
        header = window[at : at + tarfile.BLOCKSIZE]
        if header == end_block:
            return
        kind, size = _kind_and_size(header)
        data = offset + tarfile.BLOCKSIZE
        following = data + (size + tarfile.BLOCKSIZE - 1) // tarfile.BLOCKSIZE * tarfile.BLOCKSIZE
        if kind == tarfile.XHDTYPE:  # Python writes one for each member whose time has a fraction
            at += tarfile.BLOCKSIZE
            records = window[at : at + size] if at + size <= len(window) else read(data, size)
            if any(record in records for record in BEYOND_TIMES):
                raise _OutOfTheOrdinary
            offset = following  # what it describes is told together with it: tarfile would have to begin here
            continue
        if kind not in REGULAR and (kind != tarfile.DIRTYPE or size):
            raise _OutOfTheOrdinary
        yield _name(header) if kind in REGULAR else None, (data, size), following
        offset = following


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


def _reader_of_folder(folder: str, names: Sequence[str]) -> ReadAt:
    def read(number: int, _: int) -> bytes:
        with open(os.path.join(folder, names[number]), "rb") as file:
            return file.read()

    return read


# ---------------------------------------------------------------- writing


def write_shards(samples: Iterable[Sample], folder: Path, samples_per_shard: int = 10_000) -> list[Path]:
    """Write tars 00000.tar, 00001.tar … with img2dataset's keys (five digits of the shard, four of the sample)."""
    folder.mkdir(parents=True, exist_ok=True)
    samples, paths = list(samples), []
    for shard, start in enumerate(range(0, len(samples), samples_per_shard)):
        paths.append(folder / f"{shard:05d}.tar")
        with atomic_path(paths[-1]) as staging, tarfile.open(staging, "w") as tar:
            for i, sample in enumerate(samples[start : start + samples_per_shard]):
                key = f"{shard:05d}{i:04d}"
                facts = {**sample.facts, "key": key, "caption": sample.caption}
                caption = (sample.caption or "").encode()
                parts = {sample.extension: sample.image, "txt": caption, "json": json.dumps(facts).encode()}
                for extension, content in parts.items():
                    if content is not None:
                        info = tarfile.TarInfo(f"{key}.{extension}")
                        info.size = len(content)
                        tar.addfile(info, io.BytesIO(content))
    return paths
