"""What a scan of a file found, kept in the user's cache until the file changes: a million headers are walked once."""

from __future__ import annotations

import hashlib
import logging
import os
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from ..artefacts import atomic_path
from ..cache import cache_folder

logger = logging.getLogger(__name__)

VERSION = "2"  # raise when what is kept changes


def cached_index(
    path: str | Path, asked: str, build: Callable[[], dict[str, np.ndarray]], *, stamp: tuple = (), least: int = 2_000
) -> dict[str, np.ndarray]:
    """The arrays that `build` makes of the file at `path`, from the cache if it is the same file, unchanged.

    Times of change can be set (cp -p, rsync -t); a local file's inode and the time of its own change cannot, and count as well.
    asked: what else they depend on. stamp: what tells whether a remote file has changed. least: entries of the first array that
    are worth keeping: fewer are found again in a few milliseconds.
    """
    if "://" not in str(path):
        facts, path = os.stat(path), os.path.realpath(path)
        stamp = facts.st_size, facts.st_mtime_ns, facts.st_ino, facts.st_ctime_ns
    key = "\n".join(map(str, (VERSION, path, *stamp, asked)))
    name = f"{hashlib.sha256(key.encode('utf-8', 'surrogateescape')).hexdigest()[:32]}.npz"
    place = None
    try:
        place = cache_folder() / "indexes" / name
        if place.is_file():
            with np.load(place, allow_pickle=False) as kept:
                return dict(kept)
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        logger.warning("the kept index of %s is of no use (%s): it is made anew", path, error)
    found: dict[str, Any] = build()
    if place is not None and None not in stamp and len(next(iter(found.values()))) >= least:
        try:
            place.parent.mkdir(exist_ok=True)
            with atomic_path(place) as staging, open(staging, "wb") as file:
                np.savez(file, **found)
        except OSError as error:
            logger.warning("the index of %s cannot be kept (%s): it is made anew each time", path, error)
    return found
