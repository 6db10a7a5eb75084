"""The folder that `label_corpus` writes to: two parquets a source file, committed together, local or remote.

`<name>.labels.parquet` is the commit point: it takes its place last. `<name>.counts.parquet` holds its size, so that a result
that was cut off on its way (an interrupted copy, an upload that broke) is seen without reading it.
"""

from __future__ import annotations

import json
import logging
import os
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

import pyarrow as pa
import pyarrow.parquet as pq
from fsspec import AbstractFileSystem
from fsspec.core import url_to_fs
from fsspec.implementations.local import LocalFileSystem

from ..artefacts import PROVENANCE_KEY
from .sources import COUNTS_SUFFIX, LABELS_SUFFIX, LOOK_UPS

logger = logging.getLogger(__name__)

STAGING_PREFIX, STAGING_SUFFIX = ".catlip-", ".part"


class DestinationError(Exception):
    """A result could not be written (its cause says why): nothing that another source file would change."""


@dataclass(frozen=True)
class Destination:
    """A folder of results; address as the user gave it, folder as the file system names it."""

    filesystem: AbstractFileSystem = field(repr=False)
    folder: str
    address: str

    @classmethod
    def at(cls, address: str | Path) -> Destination:
        """The folder at a local path or any fsspec address; nothing is created."""
        filesystem, folder = url_to_fs(str(address))
        return cls(filesystem, folder.rstrip("/") or "/", str(address))

    @property
    def is_local(self) -> bool:
        """Whether files are staged in the folder itself and renamed; else they are staged in the machine's temporary folder."""
        return isinstance(self.filesystem, LocalFileSystem)

    @property
    def _staging_folder(self) -> str:
        return self.folder if self.is_local else tempfile.gettempdir()

    @contextmanager
    def staged(self, name: str) -> Iterator[IO[bytes]]:
        """A local file to write `name` to; it is gone when the block ends, unless `commit` has put it in its place."""
        with writing():
            file = _locked_file(self._staging_folder, f"{STAGING_PREFIX}{name}.")
        try:
            yield file
        finally:
            Path(file.name).unlink(missing_ok=True)
            with suppress(OSError):  # a full disk says so again when the rest of the buffer is written
                file.close()

    def commit(self, name: str, labels: IO[bytes], counts: IO[bytes]) -> None:
        """Put two staged files in their places: the labels last, and old labels away first. Raises DestinationError."""
        with writing():
            for file in (labels, counts):
                file.flush()
                os.fsync(file.fileno())
            if self.filesystem.exists(self._path(name + LABELS_SUFFIX)):
                self.filesystem.rm_file(self._path(name + LABELS_SUFFIX))
            self._put(counts.name, self._path(name + COUNTS_SUFFIX))
            self._put(labels.name, self._path(name + LABELS_SUFFIX))

    def cards(self) -> dict[str, dict]:
        """Name -> card of each complete result, by name; the others are left out, with a warning."""
        return {name: card for name, (_, card) in self.counts(with_tables=False)}

    def counts(self, *, with_tables: bool = True) -> Iterator[tuple[str, tuple[pa.Table | None, dict]]]:
        """Name, counts (wnid: string, count: int64) and card of each complete result, by name."""
        sizes = self._sizes()
        labels = {name.removesuffix(LABELS_SUFFIX): size for name, size in sizes.items() if name.endswith(LABELS_SUFFIX)}
        names = sorted(name for name in labels if name + COUNTS_SUFFIX in sizes)
        incomplete = len(labels.keys() ^ {n.removesuffix(COUNTS_SUFFIX) for n in sizes if n.endswith(COUNTS_SUFFIX)})
        with ThreadPoolExecutor(LOOK_UPS) as pool:
            for start in range(0, len(names), 16 * LOOK_UPS):  # some at a time: all tables of a large corpus fill the memory
                part = names[start : start + 16 * LOOK_UPS]
                for name, found in zip(part, pool.map(lambda n: self._read_counts(n, with_tables), part), strict=True):
                    if found is not None and found[1].get("labels_bytes") == labels[name]:
                        yield name, found
                    else:
                        incomplete += 1
        if incomplete:
            logger.warning("%s: %d result(s) are incomplete and not used", self.address, incomplete)

    def sweep(self) -> None:
        """Remove what a killed run on this machine left behind; what a living one writes is locked, and stays."""
        import fcntl

        for path in Path(self._staging_folder).glob(f"{STAGING_PREFIX}*{STAGING_SUFFIX}"):
            with suppress(OSError), open(path, "rb") as file:  # OSError: it is locked, or gone
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                path.unlink()

    def _read_counts(self, name: str, with_table: bool) -> tuple[pa.Table | None, dict] | None:
        try:
            with self.filesystem.open(self._path(name + COUNTS_SUFFIX), "rb") as file:
                table = pq.read_table(file) if with_table else pq.read_schema(file).empty_table()
        except (pa.ArrowInvalid, OSError):
            return None
        return table, json.loads((table.schema.metadata or {}).get(PROVENANCE_KEY, b"{}"))

    def _sizes(self) -> dict[str, int]:
        self.filesystem.invalidate_cache()
        try:
            infos = self.filesystem.ls(self.folder, detail=True)
        except FileNotFoundError:
            return {}
        return {info["name"].rstrip("/").rpartition("/")[2]: info["size"] for info in infos}

    def _path(self, name: str) -> str:
        return f"{self.folder.rstrip('/')}/{name}"

    def _put(self, staged: str, path: str) -> None:
        if self.is_local:
            os.chmod(staged, 0o644)
            os.replace(staged, path)
        else:
            self.filesystem.put_file(staged, path)


@contextmanager
def writing() -> Iterator[None]:
    """What goes wrong within is the destination's fault: raises DestinationError from it."""
    try:
        yield
    except Exception as error:
        raise DestinationError(str(error)) from error


def _locked_file(folder: str, prefix: str) -> IO[bytes]:
    """A new staging file, locked until it is closed or its process dies: what `sweep` leaves alone."""
    import fcntl

    while True:
        file = tempfile.NamedTemporaryFile(dir=folder, prefix=prefix, suffix=STAGING_SUFFIX, delete=False)  # noqa: SIM115
        with suppress(OSError):  # a file system without locks: what is killed there stays
            fcntl.flock(file, fcntl.LOCK_EX)
        if Path(file.name).exists():
            return file
        file.close()  # another run's sweep came between its birth and its lock
