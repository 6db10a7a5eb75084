"""Where a run reads and writes: `outputs/<run>/`, and relative paths counted from the workbook's top folder."""

from __future__ import annotations

import logging
import os
import re
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

from ..orphans import stop_with_launcher
from .parameters import declared_values, notebook_paths, refuse_unknown

logger = logging.getLogger(__name__)

ASSIGNED = re.compile(r"^(\w+) *(?::[^=\n]*)?=(?!=)", re.MULTILINE)  # name = …, name: type = …


def workbook_root() -> Path:
    """The folder that holds notebooks/ and params/: the working directory or the nearest above it; else that directory."""
    here = Path.cwd()
    return next((p for p in (here, *here.parents) if (p / "notebooks").is_dir() and (p / "params").is_dir()), here)


def workbook_path(path: str | os.PathLike) -> Path:
    """A path from a parameter: absolute as it is, relative counted from the workbook's top folder."""
    return workbook_root() / Path(path).expanduser()


def workbook_address(address: Any) -> Any:
    """A data address from a parameter: demo/…, URLs and names of label sets stay, local paths are counted from the top."""
    if isinstance(address, (list, tuple)):
        return [workbook_address(part) for part in address]
    path = workbook_path(address)
    plain, _, selection = address.partition("#")  # data/shards#split=test
    exists = path.exists() or (selection and workbook_path(plain).exists())
    if address.startswith("demo/") or "://" in address or not ("/" in plain or "." in plain or exists):
        return address
    return str(path)


def is_demo(address: Any) -> bool:
    """Whether an address, or each of several, is the demo's: demo/<split>."""
    return all(str(part).startswith("demo/") for part in ([address] if isinstance(address, (str, Path)) else address))


def own_or_demo(name: str, named: Any, demo: Any, beside: Iterable, *, optional: bool = False) -> Any:
    """What the parameter `name` names (see `workbook_address`); at None `demo`, but beside the demo's own data alone.

    beside: addresses of the data that the run rests on already, its captions and shards. Raises ValueError where nothing is
    named and the demo's would not go with these, or nothing was meant (an empty list); if it is optional, gives [].
    """
    if named:
        return workbook_address(named)
    others = [str(address) for address in beside if not is_demo(address)]
    if named is None and not others:
        return demo
    if optional:
        return []
    why = f", and the demo's go with the demo's data alone, not with {others[0]}" if others else ""
    raise ValueError(f"`{name}` names no images{why}: give an address of your own, or a list of them")


def data_behind(model: Any, parameters: Mapping) -> list:
    """Addresses of the captions and shards that a pre-trained model learnt from, by its folder, and of those named.

    parameters: a notebook's names; papermill puts captions and shards of a YAML there, whether the notebook takes them or not.
    """
    card = model.vocabulary.card if hasattr(model, "vocabulary") else {}  # CLIP has none
    captions = card.get("captions", model.config.get("shards", "a model of unknown captions"))
    named = [parameters[name] for name in ("captions", "shards") if parameters.get(name)]
    return [captions, model.config.get("shards", captions), *named]


def open_run(run: str) -> Path:
    """The folder `outputs/<run>`, made if need be and tried for writing. Raises ValueError or PermissionError with advice.

    In a notebook that papermill executes, a parameter that neither it nor a chapter declares is a ValueError, too: papermill
    runs on.
    """
    stop_with_launcher()  # a notebook runs no longer than whoever executes it
    injected, notebooks = injected_parameters(), notebook_paths(workbook_root() / "notebooks")
    if injected and notebooks:
        refuse_unknown(injected, set().union(*map(declared_values, notebooks)), "papermill's -p and -f")
    if not run or Path(run).name != run or run in (".", "..", "published"):
        raise ValueError(f"run={run!r} must be a plain folder name: it becomes outputs/{run}")
    folder = workbook_path("outputs") / run
    if not (workbook_root() / "notebooks").is_dir():
        logger.warning("%s is no folder of the workbook: relative paths count from here, outputs go to %s", Path.cwd(), folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with TemporaryFile(dir=folder):
            return folder
    except OSError as error:
        told = f"cannot write to {folder} ({error.strerror}): choose another `run` or make it writable"
        raise PermissionError(told) from error


def injected_parameters() -> list[str]:
    """The names that papermill set in the notebook whose kernel this is and that no cell before had set; outside one none."""
    ipython = sys.modules["IPython"].get_ipython() if "IPython" in sys.modules else None
    cells = ipython.user_ns["In"] if ipython else []
    here = next((i for i, cell in enumerate(cells) if cell.startswith("# Parameters\n")), 0)
    declared, injected = (ASSIGNED.findall("\n".join(part)) for part in (cells[:here], cells[here : here + 1]))
    return [name for name in injected if name not in declared]
