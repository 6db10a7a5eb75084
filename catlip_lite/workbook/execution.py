"""One notebook executed headless with papermill: its log lines on the terminal, its outcome on disk, a failure in one line.

Reads notebooks/<name>.ipynb and its parameters, gives outputs/<run>/notebooks/<name>.ipynb. An earlier good copy stays until a
new one is complete; a failed one is kept beside it as <name>.failed.ipynb.
"""

from __future__ import annotations

import os
import re
import sys
import time
from collections.abc import Mapping
from pathlib import Path

import nbformat
from nbclient.exceptions import DeadKernelError

from ..machine import describe_machine

LONGEST_MESSAGE = 700


class NotebookFailed(RuntimeError):
    """A cell raised; the message is one line: notebook, cell, exception, where the failed notebook is."""


class ElapsedLines:
    """What a notebook prints, line by line on the terminal, each with the notebook's number and the time since its start."""

    def __init__(self, name: str, stream=None):
        self.prefix, self.stream, self.started, self.partial = name.split("_")[0], stream or sys.stdout, time.monotonic(), ""

    def write(self, text: str) -> None:
        """Print the whole lines; of a line that was overwritten (a carriage return) its last state."""
        *lines, self.partial = (self.partial + text).split("\n")
        for line in lines:
            shown = line.rstrip("\r").rpartition("\r")[2].rstrip()
            if shown:
                minutes, seconds = divmod(int(time.monotonic() - self.started), 60)
                print(f"{self.prefix} {minutes:>3}:{seconds:02}  {shown}", file=self.stream, flush=True)

    def flush(self) -> None:
        """Nothing to do: whole lines are printed at once."""


def execute(notebook: Path, destination: Path, parameters: Mapping, *, run: str) -> Path:
    """Execute `notebook` in its own folder and return the path of the executed copy, not yet in its final place.

    The copy records the run and the machine in its metadata. Raises NotebookFailed, after keeping the failed copy as
    <destination's stem>.failed.ipynb.
    """
    from papermill import execute_notebook
    from papermill.exceptions import PapermillExecutionError

    running = destination.with_name(f".{destination.stem}.running.ipynb")
    failed = destination.with_name(f"{destination.stem}.failed.ipynb")
    lines = ElapsedLines(notebook.stem)
    os.environ.pop("JPY_SESSION_NAME", None)  # set inside a Jupyter kernel: the notebook would draw bars for nobody
    try:
        executed = execute_notebook(
            notebook,
            running,
            dict(parameters),
            cwd=notebook.parent,
            progress_bar=False,
            stdout_file=lines,
            stderr_file=lines,
            extra_arguments=["--IPKernelApp.log_level=50"],  # the kernel's own notes, of no use to the reader
        )
    except PapermillExecutionError as error:
        running.replace(failed)
        told = f"{error.ename}: {_one_line(error.evalue)}" if error.evalue else error.ename
        raise NotebookFailed(f"{notebook.stem} failed at In [{error.exec_count}]: {told} (notebook: {_near(failed)})") from None
    except DeadKernelError:
        running.replace(failed)
        raise NotebookFailed(
            f"{notebook.stem}: its Python process died, most likely for lack of memory ({_near(failed)})"
        ) from None
    lines.write("\nfinished\n")
    executed.metadata["catlip_lite"] = {"run": run, "machine": describe_machine()}
    nbformat.write(executed, running)
    failed.unlink(missing_ok=True)
    return running


def _near(path: Path) -> Path:
    """The path as seen from the working directory, where it lies below it."""
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path


def _one_line(message: str) -> str:
    message = " ".join(re.sub(r"\x1b\[[0-9;]*m", "", message).split())
    return message if len(message) <= LONGEST_MESSAGE else f"{message[:LONGEST_MESSAGE]} …"
