"""Who owns a training's folder: one process at a time, on any machine that shares it, and one run from first step to last."""

from __future__ import annotations

import fcntl
import itertools
import json
import logging
import os
import platform
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from datetime import datetime
from pathlib import Path
from typing import IO

from ..artefacts import atomic_path
from .parallel import is_main, told_by_main

logger = logging.getLogger(__name__)

WORKERS = ".workers"
PATIENCE = 10.0  # seconds; the workers of a run that was killed notice, and end, in less


@contextmanager
def claim_for_all(folder: Path, identity: dict) -> Iterator[bool]:
    """Hold a training's folder as its one owner, once it is this run's; gives whether the run is finished.

    The first of the processes that train does it for all, and tells them. Another run's folder is moved out of the way
    (`pretrain-1` …). identity: JSON values that a run keeps; `corpus` among them is the fingerprint of its data. Raises
    ValueError if the folder holds this run, unfinished, over other data: these may be back tomorrow, and a run of days with
    them; BlockingIOError if another process trains in it, see `hold`.
    """
    with hold(folder) if is_main() else nullcontext():
        finished = None
        if is_main():
            with hold(folder, WORKERS):  # of a run whose own process is gone
                _make_this_runs(folder, identity)
            finished = (folder / "model.safetensors").is_file()
            if finished:
                print(f"{folder} holds this very run, finished: nothing to train", flush=True)
        yield told_by_main(finished)


def _make_this_runs(folder: Path, identity: dict) -> None:
    marker = folder / "run.json"
    if folder.is_dir() and any(folder.iterdir()):
        there = json.loads(marker.read_text()) if marker.is_file() else {}
        changed = [name for name, value in identity.items() if there.get(name) != json.loads(json.dumps(value))]
        finished = (folder / "model.safetensors").is_file()
        if changed == ["corpus"] and not finished and any((folder / "checkpoints").glob("step_*")):
            raise ValueError(
                f"{folder} holds this run, begun with other data or other numbers of samples in them: give it the data it "
                "began with (are all of them within reach?), or choose another `run`"
            )
        if changed:
            free = next(p for n in itertools.count(1) if not (p := folder.with_name(f"{folder.name}-{n}")).exists())
            folder.rename(free)
            print(f"{folder} held another run (other {', '.join(changed)}): it is kept as {free}", flush=True)
    folder.mkdir(parents=True, exist_ok=True)
    with atomic_path(marker) as staging:
        staging.write_text(json.dumps(identity))


@contextmanager
def hold(folder: Path, part: str = "") -> Iterator[None]:
    """Keep other processes from training in a folder, until the block ends or this process does; of any machine that shares it.

    The lock is on a file beside the folder, which may be moved. part: WORKERS for processes that train for the one which holds
    the folder. Raises BlockingIOError, naming the other process, if it is still there after PATIENCE. Where the file
    system has no locks, a warning says so.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    with open(folder.with_name(f".{folder.name}{part}.lock"), "a+") as file:
        if not _locked(file, folder):
            yield
            return
        file.truncate(0)
        file.write(f"process {os.getpid()} of {platform.node()}, since {datetime.now():%d %b %H:%M:%S}")
        file.flush()
        try:
            yield
        finally:
            fcntl.flock(file, fcntl.LOCK_UN)  # closing would not do while a process forked from this one lives


def _locked(file: IO[str], folder: Path) -> bool:
    """Lock a file; False where that cannot be done at all."""
    until = time.monotonic() + PATIENCE
    while True:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except BlockingIOError:
            if time.monotonic() > until:
                file.seek(0)
                told = f"{folder} is being trained by {file.read() or 'another process'}"
                raise BlockingIOError(f"{told}: wait for it, end it, or choose another `run`") from None
            time.sleep(0.2)
        except OSError as error:
            logger.warning("%s cannot be locked (%s): take care that no other process trains in it", folder, error.strerror)
            return False
