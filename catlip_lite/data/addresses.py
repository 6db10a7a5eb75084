"""Addresses → files: the one place that knows what an address may be, on this machine, in a store, on a hub or in the demo.

Reads listings only; gives one `DataFile` a tar, parquet, Arrow file or folder of samples, with what tells later whether it is
still the same file.
"""

from __future__ import annotations

import hashlib
import json
import logging
import re
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from glob import glob
from pathlib import Path, PurePosixPath
from typing import IO, Any, TypeVar

from fsspec import AbstractFileSystem
from fsspec.core import url_to_fs
from fsspec.implementations.local import LocalFileSystem

from .demo import demo_path
from .shards import IMAGE_EXTENSIONS

logger = logging.getLogger(__name__)

TABLES = (".parquet", ".arrow")  # arrow: as `datasets` saves them
FOLDER = ""  # the kind of a folder of loose samples, img2dataset's output_format "files"
CORPUS = (".tar", FOLDER, *TABLES)  # kinds of files that hold captions, with or without images; of a folder, the first there is
LABELS_SUFFIX = ".labels.parquet"  # what labelling writes is no source
IMAGES_ALONE = (
    " (it holds images; with their captions beside them, 0.jpg and 0.txt, in folders 00000, 00001 … of it they would do)"
)
HUB, HUB_FILES = "hf://", "hf://datasets/"  # a data set, and the address of a file of one, as fsspec knows it
SPLIT_FILE = re.compile(r"(.+?)-\d+-of-\d+.*\.(?:parquet|arrow)")  # train-00000-of-00294.parquet
STAMPS = ("ETag", "etag", "md5Hash", "content_md5", "mtime", "LastModified", "last_modified", "updated", "modified", "created")
TRIES = 4  # of what a store is asked for
LOOK_UPS = 32  # requests at a time: a store answers one in tens of milliseconds
FINAL = (FileNotFoundError, PermissionError, IsADirectoryError)  # errors that waiting a few seconds does not mend

Address = str | Path | Sequence[str | Path]
Result = TypeVar("Result")
_wait = time.sleep


@dataclass(frozen=True)
class DataFile:
    """One file. address: an absolute path, or protocol://…, without a signature. size: bytes. stamp: ETag or time of change.

    size and stamp are None where the file system does not tell.
    """

    filesystem: AbstractFileSystem = field(repr=False, compare=False)
    path: str = field(repr=False)
    address: str
    size: int | None
    stamp: str | None

    @property
    def name(self) -> str:
        """The file's name without its folder."""
        return self.address.rpartition("/")[2]

    @property
    def stem(self) -> str:
        """The name without its suffix."""
        return PurePosixPath(self.address).stem

    @property
    def suffix(self) -> str:
        """ ".tar", ".parquet" and so on; FOLDER for a folder of samples."""
        return PurePosixPath(self.address).suffix

    @property
    def result_name(self) -> str:
        """The stem and eight digits of the address's SHA-256: 00000-1f3a9c2e. Equal names in other folders differ here."""
        return f"{self.stem}-{hashlib.sha256(self.address.encode()).hexdigest()[:8]}"

    @property
    def is_local(self) -> bool:
        """Whether `path` can be opened as it is."""
        return isinstance(self.filesystem, LocalFileSystem)

    @property
    def opening_address(self) -> str:
        """What opens the file again, also in another process: a web address may need what follows its question mark."""
        return self.path if _is_web(self.path) else self.address

    def open(self, **options: Any) -> IO[bytes]:
        """The file, for reading bytes; options go to fsspec."""
        return open(self.path, "rb") if self.is_local else self.filesystem.open(self.path, "rb", **options)


def find_files(address: Address, kinds: Sequence[str] = CORPUS, *, what: str = "captions") -> list[DataFile]:
    """The files behind an address or several, sorted within each, every file once.

    An address is a file, a folder (its own files; "**/*.parquet" reaches deeper), a glob, a brace pattern
    ("{00000..00012}.tar"), demo/<split>, or a list of these: local, or anywhere fsspec reaches (s3://, gs://, http://):
    credentials are fsspec's matter. `hf://ILSVRC/imagenet-1k#split=validation` is a data set of Hugging Face's hub, found by
    `datasets` and read in place; #split= also chooses within a folder that `save_to_disk` or `push_to_hub` wrote.
    kinds: suffixes that are asked for; a folder is read as the first of them that it holds. what: for messages.
    Raises FileNotFoundError if an address names nothing, ValueError for another kind of file, an unknown protocol, or a split
    to be chosen, ImportError (naming the package) if a protocol's driver or `datasets` is not installed.
    """
    addresses = [address] if isinstance(address, (str, Path)) else list(address)
    found = {file.opening_address: file for one in addresses for file in _find_at(str(one), kinds, what)}
    if not found:
        raise FileNotFoundError(f"no {what} in {address!r}: {_advice(kinds)}")
    return list(found.values())


def split_address(address: str | Path) -> tuple[str, str]:
    """Path and what stands behind the # of `path#field=value`; a path that is there with its # has none, nor has "a#1"."""
    text = str(address)
    path, _, selection = text.rpartition("#")
    has_slash, has_equals = "/" in selection, "=" in selection
    if not path or (has_slash and not has_equals) or is_there(text):
        return text, ""
    if (has_equals and ("://" in path or not has_slash)) or path.startswith(("demo/", HUB)) or is_there(path):
        return path, selection
    return text, ""


def is_there(path: str) -> bool:
    """Whether a local path, glob or brace pattern names anything."""
    return Path(path).exists() or any(glob(pattern) for pattern in expand_braces(path))


def expand_braces(pattern: str) -> list[str]:
    """ "{00000..00012}.tar" -> thirteen addresses; one without braces is its own."""
    match = re.search(r"\{(\d+)\.\.(\d+)\}", pattern)
    if not match:
        return [pattern]
    first, last = match.groups()
    numbers = (str(i).zfill(len(first)) for i in range(int(first), int(last) + 1))
    return [p for n in numbers for p in expand_braces(pattern[: match.start()] + n + pattern[match.end() :])]


def without_query(address: str) -> str:
    """A web address up to its question mark: what follows may be a signature, which changes; others as they are."""
    return address.partition("?")[0] if _is_web(address) else address


def patiently(work: Callable[[], Result], tries: int = TRIES) -> Result:
    """What `work` gives, tried again if a store fails: after half a second, then twice as long each time."""
    for attempt in range(tries - 1):
        try:
            return work()
        except FINAL:
            raise
        except Exception:  # each store has errors of its own
            _wait(0.5 * 2**attempt)
    return work()


# ---------------------------------------------------------------- one address


def _find_at(text: str, kinds: Sequence[str], what: str) -> list[DataFile]:
    text, selection = split_address(text)
    chosen = _chosen(selection)
    if text.startswith(HUB) and not text.startswith(HUB_FILES):
        paths = _of_hub(text.removeprefix(HUB), **chosen)
        filesystem = url_to_fs(paths[0])[0]
        files = _look_up(filesystem, [url_to_fs(path)[1] for path in paths])
    else:
        filesystem, path = url_to_fs(demo_path(text) or text)
        filesystem.invalidate_cache()  # a listing from earlier in this process may be of files that have changed since
        files = _of_split(_list(filesystem, path, kinds), text, **chosen)
    good = [info for info in files if _kind(info) in kinds]
    if not good and len(files) == 1 and files[0]["type"] == "file":
        alone = "; captions without images are for `captions`" if what == "shards" else ""
        raise ValueError(f"{without_query(files[0]['name'])}: {what} are read from {_readable(kinds)} files{alone}")
    if not good:
        has_images = any(inside.suffix.lower().removeprefix(".") in IMAGE_EXTENSIONS for inside in Path(text).glob("*"))
        raise FileNotFoundError(f"no {what} at {text!r}{IMAGES_ALONE * has_images}: {_advice(kinds)}")
    return sorted((_data_file(filesystem, info) for info in good), key=lambda file: file.path)


def _chosen(selection: str) -> dict[str, str]:
    chosen = {name: value for name, _, value in (part.partition("=") for part in selection.split("&") if part)}
    if chosen.keys() - {"split", "config"} or not all(chosen.values()):
        raise ValueError(f"#{selection}: only split and config are chosen here, as #split=train or #config=en&split=train")
    return chosen


def _list(filesystem: AbstractFileSystem, path: str, kinds: Sequence[str]) -> list[dict]:
    """What the file system knows of each file that a path, folder, glob or brace pattern names."""
    is_web = _is_web(path)
    is_plain = isinstance(filesystem, LocalFileSystem) and Path(path).exists()  # whatever marks are in its name
    paths = [path] if is_plain else expand_braces(path)
    if not is_plain and any(mark in path for mark in ("*" if is_web else "*?[")):
        infos = [info for pattern in paths for info in filesystem.glob(pattern, detail=True).values()]
        return [info for info in infos if info["type"] != "directory" or _kind(info) == FOLDER]
    if is_web and len(paths) == 1 and not PurePosixPath(without_query(path)).suffix:  # a page of links passes for a file
        infos = [{"name": path, "type": "directory"}]
    else:
        infos = _look_up(filesystem, paths)
    if len(infos) != 1 or infos[0]["type"] != "directory":
        return infos
    inside = filesystem.ls(infos[0]["name"], detail=True)
    names = {PurePosixPath(info["name"]).name: info for info in inside}
    by_kind = {kind: [info for info in inside if _kind(info) == kind] for kind in kinds}
    first = next((kind for kind in kinds if by_kind[kind]), None)
    if first is None and "dataset_dict.json" in names:  # what `DatasetDict.save_to_disk` wrote: a folder a split
        splits = json.loads(filesystem.cat_file(names["dataset_dict.json"]["name"]))["splits"]
        return [info for name in splits for info in _list(filesystem, names[name]["name"], kinds)]
    if first is None and "data" in names:  # what `push_to_hub` wrote
        return _list(filesystem, names["data"]["name"], kinds)
    return by_kind[first] if first is not None else []


def _of_split(infos: list[dict], text: str, split: str | None = None, config: str | None = None) -> list[dict]:
    """Of the files of a folder, those of the split that is asked for. Raises ValueError if there are several and none is."""
    if config is not None:
        raise ValueError(f"{text}: config= chooses within a data set of the hub (hf://): give the configuration's folder")
    by_split: dict[str | None, list[dict]] = {}
    for info in infos:
        by_split.setdefault(_split_of(info), []).append(info)
    is_pattern = any(mark in text for mark in "*?[{")
    if split is None and (len(by_split) < 2 or None in by_split or is_pattern):
        return infos
    if split in by_split:
        return by_split[split]
    names = sorted(filter(None, by_split))
    told = f"holds the splits {', '.join(names)}: give one of them, e.g. {text}#split={names[0]}" if names else ""
    raise ValueError(f"{text} {told or 'has no splits to choose from: leave out what follows #'}")


def _split_of(info: dict) -> str | None:
    path = PurePosixPath(info["name"])
    match = SPLIT_FILE.fullmatch(path.name)
    return path.parent.name if match and match[1] == "data" else match and match[1]


def _of_hub(name: str, split: str | None = None, config: str | None = None) -> list[str]:
    """Addresses of a data set's files. name: as on the hub, or a local folder with the same layout."""
    if not name:
        raise ValueError(f"{HUB} names no data set: write {HUB}ILSVRC/imagenet-1k#split=validation")
    try:  # here: needed for such addresses alone
        from datasets import load_dataset_builder
    except ImportError as error:
        raise ImportError(f"{HUB} addresses need Hugging Face's library: pip install 'catlip-lite[hf]'") from error
    found = load_dataset_builder(name, config).config.data_files or {}
    splits = {str(of): [str(path) for path in paths] for of, paths in found.items() if paths}
    if not splits:
        raise FileNotFoundError(f"{HUB}{name} holds no data files that `datasets` knows")
    if (split is None and len(splits) > 1) or (split is not None and split not in splits):
        told = "holds the splits" if split is None else f"has no split {split!r}, but"
        first = next(iter(splits))
        raise ValueError(f"{HUB}{name} {told} {', '.join(splits)}: give one of them, e.g. {HUB}{name}#split={first}")
    return splits[split or next(iter(splits))]


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


def _data_file(filesystem: AbstractFileSystem, info: dict) -> DataFile:
    path = info["name"]
    if info.get("size") is None:  # listings of web pages have no sizes
        info = {**info, **filesystem.info(path)}
    address = path if isinstance(filesystem, LocalFileSystem) else without_query(filesystem.unstrip_protocol(path))
    stamp = next((str(info[key]) for key in STAMPS if info.get(key) is not None), None)
    return DataFile(filesystem, path, address, info.get("size"), stamp)


def _kind(info: dict) -> str | None:
    """The suffix of a file that may be a source, FOLDER of a folder of loose samples; None of others."""
    path = PurePosixPath(without_query(info["name"]))
    if info["type"] == "directory":
        return FOLDER if path.name.isdecimal() and "://" not in info["name"] and Path(info["name"]).is_dir() else None
    is_hidden = path.name.startswith((".", "_"))  # staging files, and what Spark leaves beside its parts
    return None if is_hidden or path.name.endswith(LABELS_SUFFIX) else path.suffix or None


def _is_web(address: str) -> bool:
    return address.startswith(("http://", "https://"))


def _readable(kinds: Sequence[str]) -> str:
    return " or ".join(kind for kind in kinds if kind)


def _advice(kinds: Sequence[str]) -> str:
    return f"give a {_readable(kinds)} file, a folder of them, a glob, a brace pattern or demo/pretrain"
