"""Execute one notebook of a run and render it: `python -m catlip_lite.workbook notebooks/01_x.ipynb --run demo`.

Reads a notebook and the run's YAML; gives outputs/<run>/notebooks/<name>.ipynb (executed; an earlier good one stays until a new
one is complete), outputs/<run>/<name>.html and index.html. With an option it executes nothing and does what else make asks for.
"""

from __future__ import annotations

import argparse
import errno
import os
import sys
from pathlib import Path

import nbformat

from ..artefacts import atomic_path
from .execution import NotebookFailed, execute, write_rule
from .make_run import choose, write_shares
from .pages import finished_notebooks, front_page, notebook_page, publish, write_pages
from .parameters import notebook_paths, parameters_by_notebook
from .run_folder import open_run, workbook_path, workbook_root


def render_notebook(notebook: Path, params: Path, run: str) -> None:
    """Execute `notebook` for a run and write its page and the run's index.

    Raises OSError or ValueError before anything runs, NotebookFailed when a cell raises.
    """
    notebook = notebook.resolve()
    parameters = parameters_by_notebook(params, sorted({*notebook_paths(notebook.parent), notebook}), run)[notebook]
    folder = open_run(run)
    executed = folder / "notebooks" / notebook.name
    executed.parent.mkdir(exist_ok=True)
    try:
        content, modules = execute(notebook, executed.parent, parameters, run=run)
        write_pages(folder, {notebook.stem: notebook_page(notebook.stem, content)})
        write_rule(executed, modules, workbook_root())
        with atomic_path(executed) as staging:
            nbformat.write(content, staging)
    finally:
        failed = {path.name.removesuffix(".failed.ipynb") for path in executed.parent.glob("*.failed.ipynb")}
        write_pages(folder, {"index": front_page(run, finished_notebooks(folder), failed)})


def main(arguments: list[str] | None = None) -> int:
    """The command line; 1 after a one-line error, 130 after an interruption."""
    parser = argparse.ArgumentParser(prog="python -m catlip_lite.workbook", description="Execute a notebook and render it.")
    does = parser.add_mutually_exclusive_group(required=True)
    does.add_argument("notebook", nargs="?", type=Path, help="the notebook to execute")
    does.add_argument("--choose", nargs="*", metavar="ROW", help="check the YAML, print what to run of the table, see `choose`")
    does.add_argument("--publish", action="store_true", help="write pages to share to outputs/published/")
    parser.add_argument("--run", required=True, help="name of the run: outputs/<run>")
    parser.add_argument("--params", type=Path, help="YAML file of parameters (params/<run>.yaml if not given)")
    parser.add_argument("--only", default="", help="numbers of notebooks to choose; all if not given")
    given = parser.parse_args(arguments)
    params = given.params or workbook_path(f"params/{given.run}.yaml")
    try:
        if given.notebook:
            render_notebook(given.notebook, params, given.run)
        elif given.choose is not None:
            shares = parameters_by_notebook(params, notebook_paths(workbook_path("notebooks")), given.run)
            folder = open_run(given.run)
            write_shares(shares, folder / "params")
            values = {name: value for share in shares.values() for name, value in share.items()}
            print(*choose(given.choose, values, folder, given.only))
        else:
            print(publish(open_run(given.run)))
    except (NotebookFailed, OSError, ValueError) as error:
        full = os.strerror(errno.ENOSPC) in str(error)
        print(f"error: {error}{': make room on the disk, the next `make run` goes on from there' * full}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted: earlier results are intact, the next `make run` goes on from there", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
