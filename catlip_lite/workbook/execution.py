"""One notebook executed headless with papermill: its log lines on the terminal, its outcome on disk, a failure in one line.

Reads a notebook and its parameters; gives it executed, and which modules of the library it used, as a rule for make.
"""

from __future__ import annotations

import os
import re
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import nbformat
from nbclient.exceptions import DeadKernelError

from ..machine import describe_machine

LONGEST_MESSAGE = 700

# What runs after the last cell: the kernel itself says which modules were imported. Worker processes import no others.
MODULES_TAG = "modules-used"
TELL_MODULES = """\
modules = list(__import__("sys").modules.items())
files = [getattr(module, "__file__", None) for name, module in modules if name.split(".")[0] == "catlip_lite"]
get_ipython().display_pub.publish({"application/json": [file for file in files if file]})"""


class NotebookFailed(RuntimeError):
    """A cell raised; the message is one line: notebook, cell, exception, where the failed notebook is."""


class ElapsedLines:
    """A stream that puts whole lines on the terminal, each with the notebook's number and the time since its start."""

    def __init__(self, name: str):
        self.prefix, self.started, self.partial = name.split("_")[0], time.monotonic(), ""

    def write(self, text: str) -> None:
        """Print the whole lines; of a line that was overwritten (a carriage return) its last state."""
        *lines, self.partial = (self.partial + text).split("\n")
        for line in lines:
            if shown := line.rstrip("\r").rpartition("\r")[2].rstrip():
                minutes, seconds = divmod(int(time.monotonic() - self.started), 60)
                print(f"{self.prefix} {minutes:>3}:{seconds:02}  {shown}", file=sys.stdout, flush=True)

    def flush(self) -> None:
        """Nothing to do: whole lines are printed at once."""


def execute(notebook: Path, folder: Path, parameters: Mapping, *, run: str) -> tuple[nbformat.NotebookNode, list[Path]]:
    """Execute a notebook in its own folder; gives it, run and machine in its metadata, and the library's files that it used.

    It grows in `folder`/.<name>.running.ipynb. Raises NotebookFailed, after keeping it as `folder`/<name>.failed.ipynb.
    """
    from papermill import execute_notebook  # slow to import: what only writes pages does without
    from papermill.exceptions import PapermillExecutionError

    running, failed = folder / f".{notebook.stem}.running.ipynb", folder / f"{notebook.stem}.failed.ipynb"
    content, lines = nbformat.read(notebook, as_version=4), ElapsedLines(notebook.stem)
    content.cells.append(nbformat.v4.new_code_cell(TELL_MODULES, metadata={"tags": [MODULES_TAG]}))
    nbformat.write(content, running)
    os.environ.pop("JPY_SESSION_NAME", None)  # set inside a Jupyter kernel: the notebook would draw bars for nobody
    why = None
    try:
        execute_notebook(
            running, running, dict(parameters), cwd=notebook.parent, progress_bar=False, stdout_file=lines, stderr_file=lines,
            extra_arguments=["--IPKernelApp.log_level=50"],  # the kernel's own notes, of no use to the reader
        )  # fmt: skip
    except PapermillExecutionError as error:
        why = f"failed at In [{error.exec_count}]: {error.ename}" + (f": {_one_line(error.evalue)}" if error.evalue else "")
    except DeadKernelError:
        why = "failed: its Python process died, most likely for lack of memory"
    content = nbformat.read(running, as_version=4)
    told = [cell for cell in content.cells if MODULES_TAG in cell.metadata.get("tags", [])]
    content.cells = [cell for cell in content.cells if cell not in told]
    content.metadata.get("papermill", {})["input_path"] = str(notebook)
    if why:
        nbformat.write(content, failed)
        running.unlink()
        raise NotebookFailed(f"{notebook.stem} {why} (notebook: {os.path.relpath(failed)})")
    running.unlink()
    failed.unlink(missing_ok=True)
    lines.write("\nfinished\n")
    content.metadata["catlip_lite"] = {"run": run, "machine": describe_machine()}
    return content, sorted(Path(file) for cell in told for output in cell.outputs for file in output.data["application/json"])


def write_rule(target: Path, modules: Sequence[Path], root: Path) -> None:
    """Write `<target>.d`: the make rule that `target` depends on these library modules. A module that goes away is no error."""
    names = [path.relative_to(root).as_posix() for path in modules if path.is_relative_to(root)]
    lines = [f"{target.relative_to(root).as_posix()}: " + " \\\n  ".join(names), *(f"{name}:" for name in names)]
    target.with_suffix(".d").write_text("\n".join(lines) + "\n", encoding="utf-8")


def _one_line(message: str) -> str:
    message = " ".join(re.sub(r"\x1b\[[0-9;]*m", "", message).split())
    return message if len(message) <= LONGEST_MESSAGE else f"{message[:LONGEST_MESSAGE]} …"
