"""What a scan of a large tar found, kept in the user's cache until the tar changes: a million headers are walked once."""

from __future__ import annotations

import hashlib
import logging
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np

from ..artefacts import atomic_path
from ..cache import cache_folder

logger = logging.getLogger(__name__)

WORTH_KEEPING = 2_000  # entries; fewer are found again in a few milliseconds
VERSION = "2"  # raise when what is kept changes


def cached_index(path: Path, asked: str, build: Callable[[], dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """The arrays that `build` makes of the file at `path`, from the cache if it is the same file, unchanged.

    Times of change can be set (cp -p, rsync -t); the inode and the time of its own change cannot, and count as well.
    asked: what else they depend on. The length of the first array decides whether it is worth keeping.
    """
    facts = path.stat()
    key = f"{VERSION}\n{path.resolve()}\n{facts.st_size}\n{facts.st_mtime_ns}\n{facts.st_ino}\n{facts.st_ctime_ns}\n{asked}"
    name = f"{hashlib.sha256(key.encode('utf-8', 'surrogateescape')).hexdigest()[:32]}.npz"
    place = None
    try:
        place = cache_folder() / "indexes" / name
        if place.is_file():
            with np.load(place, allow_pickle=False) as kept:
                return dict(kept)
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        logger.warning("the kept index of %s is of no use (%s): it is made anew", path, error)
    found = build()
    if place is not None and len(next(iter(found.values()))) >= WORTH_KEEPING:
        try:
            place.parent.mkdir(exist_ok=True)
            with atomic_path(place) as staging, open(staging, "wb") as file:
                np.savez(file, **found)
        except OSError as error:
            logger.warning("the index of %s cannot be kept (%s): it is made anew each time", path, error)
    return found
