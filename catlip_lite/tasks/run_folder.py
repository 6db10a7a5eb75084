"""Where a run reads and writes: `outputs/<run>/`, and relative paths counted from the workbook's top folder."""

from __future__ import annotations

import os
from pathlib import Path

from ..artefacts import atomic_path


def workbook_root() -> Path:
    """The folder that holds notebooks/ and params/: the working directory or the nearest above it; else that directory."""
    here = Path.cwd()
    return next((p for p in (here, *here.parents) if (p / "notebooks").is_dir() and (p / "params").is_dir()), here)


def workbook_path(path: str | os.PathLike) -> Path:
    """A path from a parameter: absolute as it is, relative counted from the workbook's top folder."""
    return workbook_root() / Path(path).expanduser()


def workbook_address(address):
    """A data address from a parameter: demo/…, URLs and names of label sets stay, local paths are counted from the top."""
    if isinstance(address, (list, tuple)):
        return [workbook_address(part) for part in address]
    path = workbook_path(address)
    if address.startswith("demo/") or "://" in address or not ("/" in address or "." in address or path.exists()):
        return address
    return str(path)


def open_run(run: str) -> Path:
    """The folder `outputs/<run>`, made if need be and tried for writing. Raises ValueError or PermissionError with advice."""
    if not run or Path(run).name != run or run in (".", "..", "published"):
        raise ValueError(f"run={run!r} must be a plain folder name: it becomes outputs/{run}")
    folder = workbook_path("outputs") / run
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with atomic_path(folder / ".writable"):
            pass
        (folder / ".writable").unlink()
    except OSError as error:
        raise PermissionError(
            f"cannot write to {folder} ({error.strerror}): choose another `run` or make it writable"
        ) from error
    return folder
