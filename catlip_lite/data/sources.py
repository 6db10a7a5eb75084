"""Files of a corpus by address: what `label_corpus` reads captions from, local or remote; and the shards on this machine.

Reads listings only; gives one `SourceFile` a parquet or tar, with what tells later whether it is still the same file.
"""

from __future__ import annotations

import hashlib
import logging
import re
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from glob import glob
from pathlib import Path, PurePosixPath
from typing import IO

from fsspec import AbstractFileSystem
from fsspec.core import url_to_fs
from fsspec.implementations.local import LocalFileSystem

from .demo import demo_folder
from .shards import Sample, read_shard

logger = logging.getLogger(__name__)

SOURCE_SUFFIXES = (".tar", ".parquet")
LABELS_SUFFIX, COUNTS_SUFFIX = ".labels.parquet", ".counts.parquet"  # what labelling writes is no source
STAMPS = ("ETag", "etag", "md5Hash", "content_md5", "mtime", "LastModified", "last_modified", "updated", "modified", "created")
LOOK_UPS = 16  # requests at a time: a store answers one in tens of milliseconds


@dataclass(frozen=True)
class SourceFile:
    """One parquet or tar. address: an absolute path, or protocol://…; size: bytes; stamp: ETag or time of last change.

    size and stamp are None where the file system does not tell.
    """

    filesystem: AbstractFileSystem = field(repr=False, compare=False)
    path: str = field(repr=False)
    address: str
    size: int | None
    stamp: str | None

    @property
    def stem(self) -> str:
        """The file's name without its folder and suffix."""
        return PurePosixPath(self.address).stem

    @property
    def suffix(self) -> str:
        """ ".tar" or ".parquet"."""
        return PurePosixPath(self.address).suffix

    @property
    def result_name(self) -> str:
        """The stem and eight digits of the address's SHA-256: 00000-1f3a9c2e. Equal names in other folders differ here."""
        return f"{self.stem}-{hashlib.sha256(self.address.encode()).hexdigest()[:8]}"

    @property
    def is_local(self) -> bool:
        """Whether `path` can be opened as it is."""
        return isinstance(self.filesystem, LocalFileSystem)

    def open(self, **options) -> IO[bytes]:
        """The file, for reading bytes; options go to fsspec."""
        return self.filesystem.open(self.path, "rb", **options)


def find_source_files(source: str | Path | Sequence[str | Path]) -> list[SourceFile]:
    """The parquets and tars behind an address or several, sorted within each, every file once.

    source: a file, a folder (its own files; "**/*.parquet" reaches deeper), a glob, a brace pattern ("{00000..00012}.tar"), a
    list of these, or demo/<split>; local, or any address fsspec knows (s3://, gs://, http://, memory://): credentials are
    fsspec's matter (its configuration files, the environment). A folder that holds both tars and parquets is read as tars.
    Raises FileNotFoundError if an address names nothing, ValueError for another kind of file or an unknown protocol,
    ImportError (naming the package) if the protocol's driver is not installed.
    """
    addresses = [source] if isinstance(source, (str, Path)) else list(source)
    found = {(file.address, file.path): file for address in addresses for file in _find_at(str(address))}
    files = list(found.values())
    names = {}
    for file in files:
        other = names.setdefault(file.result_name, file)
        if other is not file:
            raise ValueError(f"{file.path} and {other.path} would have one result's name: label them into two destinations")
    return files


def _find_at(text: str) -> list[SourceFile]:
    if text.startswith("demo/") and not Path(text).exists():
        return [file for path in find_shards(text) for file in _find_at(str(path))]
    filesystem, path = url_to_fs(text)
    filesystem.invalidate_cache()  # a listing from earlier in this process may be of files that have changed since
    is_http = text.startswith(("http://", "https://"))
    infos = _list(filesystem, path, is_http)
    files = [info for info in infos if info["type"] != "directory" and _is_source(info["name"], is_http)]
    if not files and len(infos) == 1 and infos[0]["type"] == "file":
        raise ValueError(f"{infos[0]['name']}: captions at corpus scale are read from {' or '.join(SOURCE_SUFFIXES)} files")
    if not files:
        raise FileNotFoundError(
            f"no captions at {text!r}: give a .parquet or .tar file, a folder of them, a glob or a brace pattern"
        )
    return sorted((_source_file(filesystem, info, is_http) for info in files), key=lambda file: file.path)


def _list(filesystem: AbstractFileSystem, path: str, is_http: bool) -> list[dict]:
    """What the file system knows of each file that a path, folder, glob or brace pattern names."""
    is_plain = isinstance(filesystem, LocalFileSystem) and Path(path).exists()  # whatever marks are in its name
    paths = [path] if is_plain else expand_braces(path)
    if not is_plain and any(mark in path for mark in ("*" if is_http else "*?[")):
        return [info for pattern in paths for info in filesystem.glob(pattern, detail=True).values()]
    if is_http and len(paths) == 1 and not _is_source(path, is_http):  # a page of links passes for a file
        infos = [{"name": path, "type": "directory"}]
    else:
        infos = _look_up(filesystem, paths)
    if len(infos) == 1 and infos[0]["type"] == "directory":
        infos = filesystem.ls(infos[0]["name"], detail=True)
        return [info for info in infos if _suffix(info["name"], is_http) == ".tar"] or infos
    return infos


def _look_up(filesystem: AbstractFileSystem, paths: Sequence[str]) -> list[dict]:
    """What the file system knows of each path; those that are not there are left out, with a warning if others are."""

    def info(path: str) -> dict | None:
        try:
            return filesystem.info(path)
        except FileNotFoundError:
            return None

    with ThreadPoolExecutor(LOOK_UPS) as pool:
        infos = [found for found in pool.map(info, paths) if found is not None]
    if 0 < len(infos) < len(paths):
        logger.warning(
            "%d of the %d files from %s to %s are not there", len(paths) - len(infos), len(paths), paths[0], paths[-1]
        )
    return infos


def _source_file(filesystem: AbstractFileSystem, info: dict, is_http: bool) -> SourceFile:
    path = info["name"]
    if info.get("size") is None:  # listings of web pages have no sizes
        info = {**info, **filesystem.info(path)}
    address = path if isinstance(filesystem, LocalFileSystem) else filesystem.unstrip_protocol(path)
    if is_http:
        address = address.partition("?")[0]  # what follows may be a signature: it changes, and is nobody else's business
    stamp = next((str(info[key]) for key in STAMPS if info.get(key) is not None), None)
    return SourceFile(filesystem, path, address, info.get("size"), stamp)


def _suffix(name: str, is_http: bool) -> str:
    return PurePosixPath(name.partition("?")[0] if is_http else name).suffix


def _is_source(name: str, is_http: bool) -> bool:
    file = PurePosixPath(name).name
    return (
        _suffix(name, is_http) in SOURCE_SUFFIXES
        and not file.startswith((".", "_"))  # staging files, and what Spark leaves beside its parts
        and not file.endswith((LABELS_SUFFIX, COUNTS_SUFFIX))
    )


# --- shards on this machine ---------------------------------------------------------------------------------------------------


def find_shards(address: str | Path | Sequence[str]) -> list[Path]:
    """Paths of the tars behind an address, sorted: a folder, a tar, a glob, a brace pattern ("{00000..00012}.tar"), a list.

    `demo/<split>` is the demo corpus. Raises FileNotFoundError if there is none.
    """
    if not isinstance(address, (str, Path)):
        return [path for part in address for path in find_shards(part)]
    text = str(address)
    if text.startswith("demo/") and not Path(text).exists():
        return sorted(demo_folder(text.removeprefix("demo/")).glob("*.tar"))
    if Path(text).is_dir():
        paths = sorted(Path(text).glob("*.tar"))
    elif Path(text).is_file():  # though its name looks like a pattern
        paths = [Path(text)]
    else:
        paths = sorted(Path(p) for pattern in expand_braces(text) for p in glob(pattern))
    if not paths:
        raise FileNotFoundError(f"no shards at {text!r}: give a folder of .tar files, a glob, a brace pattern or demo/pretrain")
    return paths


def expand_braces(pattern: str) -> list[str]:
    """ "{00000..00012}.tar" -> thirteen addresses; one without braces is its own."""
    match = re.search(r"\{(\d+)\.\.(\d+)\}", pattern)
    if not match:
        return [pattern]
    first, last = match.groups()
    numbers = (str(i).zfill(len(first)) for i in range(int(first), int(last) + 1))
    return [p for n in numbers for p in expand_braces(pattern[: match.start()] + n + pattern[match.end() :])]


def read_samples(address: str | Path | Sequence[str]) -> Iterator[Sample]:
    """All samples behind an address (see `find_shards`), shard after shard."""
    for path in find_shards(address):
        yield from read_shard(path)
