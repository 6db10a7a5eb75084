"""Execute one notebook of a run and render it: `python -m catlip_lite.workbook notebooks/01_x.ipynb --run demo`.

Reads a notebook and the run's YAML; gives outputs/<run>/notebooks/<name>.ipynb (executed), outputs/<run>/<name>.html and
outputs/<run>/index.html. With `--pages-only` nothing is executed: the pages of what was executed earlier are written again.
With `--publish` these pages are written to outputs/published/<run>/, without pictures that belong to others.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
from pathlib import Path

import nbformat

from .execution import NotebookFailed, execute
from .imports import write_rule
from .index_page import key_picture, notebook_title, write_index
from .notebook_page import withhold_artwork, write_notebook_page
from .parameters import notebook_paths, parameters_by_notebook
from .run_folder import open_run, workbook_path, workbook_root


def render_notebook(notebook: Path, params: Path, run: str) -> Path:
    """Execute `notebook` for a run and write its page and the run's index; gives the executed copy.

    Raises FileNotFoundError, PermissionError or ValueError before anything runs, NotebookFailed when a cell raises.
    """
    notebook, root = notebook.resolve(), workbook_root()
    siblings = notebook_paths(notebook.parent)
    parameters = parameters_by_notebook(params, [*siblings, *([] if notebook in siblings else [notebook])], run)[notebook]
    folder = open_run(run)
    executed = folder / "notebooks" / notebook.name
    executed.parent.mkdir(exist_ok=True)
    try:
        finished = execute(notebook, executed, parameters, run=run)
    except NotebookFailed:
        write_index(folder, notebook.parent)
        raise
    write_notebook_page(finished, folder / f"{notebook.stem}.html", notebook_title(finished))
    write_rule(executed, finished, root)
    finished.replace(executed)
    write_index(folder, notebook.parent)
    return executed


def render_pages(run: str) -> Path:
    """Write the pages of all executed notebooks of a run, and its index, again; gives the index."""
    folder = open_run(run)
    for executed in finished_notebooks(folder / "notebooks"):
        write_notebook_page(executed, folder / f"{executed.stem}.html", notebook_title(executed))
    return write_index(folder, workbook_path("notebooks"))


def publish(run: str) -> Path:
    """Write a run's pages, index and key pictures to outputs/published/<run>/, artwork withheld; gives the index."""
    executed = finished_notebooks(open_run(run) / "notebooks")
    published = workbook_path("outputs/published") / run
    published.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as staging:
        folder = Path(staging) / run
        (folder / "notebooks").mkdir(parents=True)
        for path in executed:
            shown = withhold_artwork(path, folder / "notebooks" / path.name)
            write_notebook_page(shown, folder / f"{path.stem}.html", notebook_title(shown))
            (folder / f"{path.stem}.png").write_bytes(key_picture(nbformat.read(shown, as_version=4)))
        write_index(folder, workbook_path("notebooks"))
        for page in folder.glob("*.html"):
            text = page.read_text(encoding="utf-8").replace(
                f"{workbook_root()}/", ""
            )  # paths of this machine say nothing elsewhere
            (published / page.name).write_text(text, encoding="utf-8")
        for picture in folder.glob("*.png"):
            if picture.stat().st_size:
                shutil.copyfile(picture, published / picture.name)
    return published / "index.html"


def finished_notebooks(folder: Path) -> list[Path]:
    """The executed notebooks of a run that went well, in order."""
    return [path for path in notebook_paths(folder) if not path.name.endswith(".failed.ipynb")]


def main(arguments: list[str] | None = None) -> int:
    """The command line; 1 after a one-line error, 130 after an interruption."""
    parser = argparse.ArgumentParser(prog="python -m catlip_lite.workbook", description="Execute a notebook and render it.")
    parser.add_argument("notebook", nargs="?", type=Path, help="the notebook to execute")
    parser.add_argument("--run", required=True, help="name of the run: outputs/<run>")
    parser.add_argument("--params", type=Path, help="YAML file of parameters (params/<run>.yaml if not given)")
    parser.add_argument("--pages-only", action="store_true", help="execute nothing; write the HTML pages and the index again")
    parser.add_argument("--publish", action="store_true", help="execute nothing; write pages to share to outputs/published/")
    given = parser.parse_args(arguments)
    if (given.notebook is not None) + given.pages_only + given.publish != 1:
        parser.error("give one of: a notebook, --pages-only, --publish")
    try:
        if given.pages_only or given.publish:
            print((publish if given.publish else render_pages)(given.run))
        else:
            render_notebook(given.notebook, given.params or workbook_path(f"params/{given.run}.yaml"), given.run)
    except (NotebookFailed, OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted: earlier results are intact, the next `make run` goes on from there", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
