"""A notebook's training from a shell: the same YAML, the same parameters, alone or as one of torchrun's processes."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

from ..data.processes import WorkerDied
from ..training.parallel import process_group
from .parameters import declared_values, notebook_paths, parameters_by_notebook, read_parameters, refuse_unknown
from .run_folder import workbook_path


def run_from_shell(name: str, train_here: Callable[[dict], None], description: str, arguments: list[str] | None) -> int:
    """Call `train_here` with every parameter of the notebook, as the YAML and the shell set them; 1 after a one-line error."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("params", type=Path, help="YAML file of parameters; the rest are the notebook's defaults")
    parser.add_argument("-p", nargs=2, action="append", default=[], metavar=("NAME", "VALUE"), help="one more, as papermill's")
    given = parser.parse_args(arguments)
    try:
        notebook = workbook_path("notebooks") / f"{name}.ipynb"
        defaults, set_here = declared_values(notebook), {name: _value_of(name, value) for name, value in given.p}
        refuse_unknown(set_here, set(defaults), "-p")
        run = set_here.get("run") or read_parameters(given.params).get("run", given.params.stem)
        values = parameters_by_notebook(given.params, notebook_paths(notebook.parent), run)[notebook]
        values = {**defaults, **values, **set_here}
        if "RANK" not in os.environ:
            train_here(values)
        else:
            with process_group(values["device"]) as device:
                train_here({**values, "device": device})
    except (OSError, ValueError, FloatingPointError, WorkerDied) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def _value_of(name: str, written: str) -> Any:
    try:
        return yaml.safe_load(written)
    except yaml.YAMLError:
        raise ValueError(f"-p {name} {written}: the value must be YAML, text in quotes of its own: \"'{written}'\"") from None
