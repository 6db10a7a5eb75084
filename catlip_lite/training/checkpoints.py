"""Checkpoints of a training run: atomic, a few kept, a damaged last one falls back to the one before."""

from __future__ import annotations

import logging
from pathlib import Path

import torch

from ..artefacts import atomic_path

logger = logging.getLogger(__name__)


def save_checkpoint(folder: Path, step: int, state: dict, keep: int = 2) -> Path:
    """Write `step_<n>.pt` and delete all but the `keep` newest."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"step_{step:08d}.pt"
    with atomic_path(path) as staging:
        torch.save({"step": step, **state}, staging)
    for old in sorted(folder.glob("step_*.pt"))[:-keep]:
        old.unlink()
    return path


def load_latest(folder: Path) -> dict | None:
    """The newest readable checkpoint's state, None if there is none. Tensors and plain containers only are unpickled."""
    for path in sorted(folder.glob("step_*.pt"), reverse=True):
        try:
            return torch.load(path, map_location="cpu", weights_only=True)
        except Exception as error:  # a damaged zip or pickle raises one of many kinds
            logger.warning("checkpoint %s is damaged (%s: %s): trying the one before", path, type(error).__name__, error)
    return None
