"""Checkpoints of a training run: sharded, atomic, kept by a policy; a damaged last one falls back to the one before.

A checkpoint is a folder `step_<n>` of torch.distributed.checkpoint, the same whether one process or many wrote it, so that any
number of processes can go on from it; `checkpoint.json` in it holds the facts, and the sizes its files must have.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch.distributed.checkpoint as dcp
from torch.distributed.checkpoint import DefaultSavePlanner
from torch.distributed.checkpoint.api import CheckpointException

from .distribution import is_main, told_by_main, wait_for_all, world_size

logger = logging.getLogger(__name__)

FACTS = "checkpoint.json"
FULL = ("inline_container", "No space left", "os error 28", "quota exceeded")  # how PyTorch, Python and safetensors say so


def save_checkpoint(
    folder: Path, step: int, state: dict, facts: dict | None = None, *, keep_last: int = 2, keep_every: int | None = None
) -> Path:
    """Write `step_<n>` and delete old ones. Every process calls it; `folder` is one that all of them see.

    state: nested dict of tensors (spread by FSDP or not). facts: JSON values. keep_last: so many of the newest stay;
    keep_every: and those whose step is a multiple of this.
    """
    path, staging = folder / f"step_{step:08d}", folder / f".step_{step:08d}"
    if is_main():
        for left_over in folder.glob(".step_*"):  # of a run that was killed
            shutil.rmtree(left_over)
        staging.mkdir(parents=True)
    wait_for_all()
    with _quiet():
        # Of what all processes hold, the first one's is kept: batch norms' statistics differ between them.
        planner = DefaultSavePlanner(dedup_save_to_lowest_rank=True)
        dcp.save(state, checkpoint_id=staging, planner=planner, no_dist=world_size() == 1)
    if is_main():
        sizes = {file.name: file.stat().st_size for file in staging.iterdir()}
        with open(staging / FACTS, "w") as file:
            json.dump({"step": step, **(facts or {}), "files": sizes}, file)
            file.flush()
            os.fsync(file.fileno())
        if path.exists():
            shutil.rmtree(path)
        staging.rename(path)
        _sync_folder(folder)
        for abandoned in [later for later in _by_step(folder) if later.name > path.name]:  # damaged: the run went on before it
            shutil.rmtree(abandoned)
        for old in _by_step(folder)[keep_last:]:
            if not keep_every or int(old.name.removeprefix("step_")) % keep_every:
                shutil.rmtree(old)
    wait_for_all()
    return path


def load_latest(folder: Path, state: dict) -> dict | None:
    """Load the newest readable checkpoint into `state`, in place; its facts, or None if there is none.

    Every process calls it. What a damaged one has overwritten, the one before overwrites again; if none can be read, that is an
    error (OSError): the state is then neither new nor old.
    """
    paths = told_by_main(_by_step(folder))
    for path in paths:
        try:
            facts = told_by_main(_facts_or_error(path) if is_main() else None)
            if isinstance(facts, Exception):
                raise facts
            with _quiet():
                dcp.load(state, checkpoint_id=path, no_dist=world_size() == 1)
            return facts
        except (Exception, CheckpointException) as error:  # a damaged archive or pickle raises one of many kinds
            if isinstance(error, CheckpointException):  # what went wrong in each process; one will do
                error = next(iter(error.failures.values()))[0]
            told = str(error).partition("\n")[0]
            logger.warning("checkpoint %s is damaged (%s: %s): trying the one before", path, type(error).__name__, told)
    if paths:
        raise OSError(f"none of the {len(paths)} checkpoint(s) in {folder} can be read: delete the folder to start anew")
    return None


def _facts_or_error(path: Path) -> dict | Exception:
    """For one process to judge, and all to follow."""
    try:
        return read_facts(path)
    except (OSError, ValueError) as error:
        return error


def latest_facts(folder: Path) -> dict | None:
    """The facts of the newest checkpoint that looks whole, None if there is none."""
    for path in _by_step(folder):
        try:
            return read_facts(path)
        except (OSError, ValueError) as error:
            logger.warning("checkpoint %s is damaged (%s): looking at the one before", path, error)
    return None


def read_facts(path: Path) -> dict:
    """The facts of a checkpoint. Raises OSError or ValueError if a file is missing or has another size than it was given."""
    facts = json.loads((path / FACTS).read_text())
    for name, size in facts["files"].items():
        found = (path / name).stat().st_size
        if found != size:
            raise ValueError(f"{name} has {found:,} bytes instead of {size:,}")
    return facts


def _by_step(folder: Path) -> list[Path]:
    """The checkpoints, the newest first."""
    return sorted(folder.glob("step_*"), reverse=True)


def _sync_folder(folder: Path) -> None:
    """Have the new name on disk, not only in the system's memory."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextmanager
def full_disk_told(folder: Path, checkpoint: str) -> Iterator[None]:
    """What cannot be written below `folder` for want of room is an OSError of one line; what was begun of it goes.

    checkpoint: how much one takes, to be read.
    """
    try:
        yield
    except (Exception, CheckpointException) as error:
        causes = [of_one[0] for of_one in error.failures.values()] if isinstance(error, CheckpointException) else [error]
        if not any(told in str(cause) for cause in causes for told in FULL):
            raise
        if is_main():
            for left_over in folder.glob("checkpoints/.step_*"):
                shutil.rmtree(left_over)
        disk = next(path for path in (folder.resolve(), *folder.resolve().parents) if path.is_mount())
        free = shutil.disk_usage(folder).free
        raise OSError(
            f"the disk of {folder} ({disk}) is full: {free / 1e6:,.0f} MB are free, a checkpoint takes {checkpoint}; "
            "make room or lower keep_last, then run again: it goes on from the last checkpoint"
        ) from error


@contextmanager
def _quiet() -> Iterator[None]:
    """PyTorch warns that a single process is alone."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
