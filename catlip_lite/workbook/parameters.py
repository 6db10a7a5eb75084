"""A run's parameters: one YAML serves all notebooks; each notebook gets the names that its `parameters` cell declares.

Reads `params/<run>.yaml` and the notebooks, gives the renderer the values of one notebook. Run as a module (by make) it checks
the YAML, writes each notebook's share to `outputs/<run>/params/`, touching only files whose values changed (what follows from a
notebook's own parameters is done again, nothing else), and prints which notebooks to run, and what the others lack.
"""

from __future__ import annotations

import argparse
import ast
import difflib
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import nbformat
import yaml

from ..artefacts import atomic_path
from .run_folder import is_demo, open_run, workbook_path


def notebook_paths(folder: Path) -> list[Path]:
    """The notebooks of a folder, in order of their numbers."""
    return sorted(path for path in folder.glob("*.ipynb") if not path.name.startswith("."))


def declared_parameters(notebook: Path) -> list[str]:
    """The names that the cell tagged `parameters` assigns; none if there is no such cell. Raises ValueError for no notebook."""
    return [name for name, _ in _assignments(notebook)]


def declared_values(notebook: Path) -> dict:
    """The parameters of a notebook with their defaults, plain literals. Raises as `declared_parameters`."""
    return {name: ast.literal_eval(value) for name, value in _assignments(notebook)}


def _assignments(notebook: Path) -> list[tuple[str, ast.expr]]:
    try:
        cells = nbformat.read(notebook, as_version=4).cells
    except FileNotFoundError:
        raise FileNotFoundError(f"{notebook} is not there: give the path of a notebook") from None
    except (OSError, UnicodeDecodeError, nbformat.reader.NotJSONError, nbformat.ValidationError) as error:
        raise ValueError(f"{notebook} is no readable notebook ({type(error).__name__})") from None
    source = next((c.source for c in cells if "parameters" in c.metadata.get("tags", [])), "")
    try:
        statements = ast.parse(source).body
    except SyntaxError as error:
        raise ValueError(f"{notebook}: the parameters cell is no Python, line {error.lineno}: {error.msg}") from None
    found = []
    for statement in statements:
        targets = statement.targets if isinstance(statement, ast.Assign) else [getattr(statement, "target", None)]
        found += [(target.id, statement.value) for target in targets if isinstance(target, ast.Name)]
    return found


def read_parameters(path: Path) -> dict:
    """The mapping in a YAML file; an empty file is an empty mapping. Raises FileNotFoundError or ValueError with advice."""
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        there = ", ".join(sorted(p.name for p in path.parent.glob("*.yaml"))) or "no YAML"
        raise FileNotFoundError(f"parameters {path} are not there ({path.parent} has {there}): pass PARAMS=file.yaml") from None
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ValueError(f"{path} is no readable YAML: {' '.join(str(error).split())}") from None
    if values is None:
        return {}
    if not isinstance(values, dict) or not all(isinstance(name, str) for name in values):
        raise ValueError(f"{path} must be a mapping, a line `name: value` for each parameter, not a {type(values).__name__}")
    return values


def parameters_by_notebook(params: Path, notebooks: list[Path], run: str) -> dict[Path, dict]:
    """Each notebook's share of the YAML, and `run`. Raises ValueError for a name that no notebook declares."""
    values = {**read_parameters(params), "run": run}
    if isinstance(values.get("shards"), str):
        values.setdefault("captions", values["shards"])  # captions that nobody named are the shards' own
    declared = {notebook: declared_parameters(notebook) for notebook in notebooks}
    refuse_unknown(values, {name for names in declared.values() for name in names} | {"run"}, params)
    return {notebook: {n: v for n, v in values.items() if n in names} for notebook, names in declared.items()}


def refuse_unknown(values: Mapping, known: set[str], params: Path | str) -> None:
    """Raises ValueError for names that are not known, each with the nearest that is."""
    unknown = [name for name in values if name not in known]
    if unknown:
        named = ", ".join(f"{n} (nearest: {difflib.get_close_matches(n, sorted(known), 1, 0)[0]})" for n in unknown)
        raise ValueError(f"{params}: no notebook has a parameter {named}: correct the name or remove the line")


def write_shares(shares: Mapping[Path, Mapping], folder: Path) -> None:
    """Write each notebook's parameters to `folder`/<name>.yaml, leaving alone a file that says the same already."""
    folder.mkdir(exist_ok=True)
    for notebook, values in shares.items():
        path, text = folder / f"{notebook.stem}.yaml", yaml.safe_dump(dict(values), allow_unicode=True, sort_keys=True)
        if not path.is_file() or path.read_text(encoding="utf-8") != text:
            with atomic_path(path) as staging:
                staging.write_text(text, encoding="utf-8")


def choose(table: Sequence[str], values: Mapping, folder: Path, only: str = "") -> list[str]:
    """The notebooks of a run to execute: those that have images to work on and artefacts to read. What others lack is told.

    table: in order, "name:artefact it writes:artefacts it reads:parameters that must name images". values: the YAML's.
    only: numbers, "01 02"; none: all. Raises ValueError for a number that there is not, or one of these that lacks something.
    """
    rows = {name: rest for name, *rest in (row.split(":") for row in table)}
    numbers = {name.split("_")[0]: name for name in rows}
    unknown = [number for number in only.split() if number.zfill(2) not in numbers]
    if unknown:
        raise ValueError(f"ONLY: there is no notebook {', '.join(unknown)}: choose from {', '.join(numbers)}")
    wanted = [numbers[number.zfill(2)] for number in only.split()] or list(rows)
    own = not all(is_demo(values.get(name) or "demo/") for name in ("captions", "shards"))
    chosen, lacking, made = [], [], set()
    for name in (name for name in rows if name in wanted):
        writes, reads, images = rows[name]
        unnamed = [f"`{p}`" for p in images.split() if not values.get(p) and (own or values.get(p) is not None)]
        absent = [path for path in reads.split() if path not in made and not (folder / path).exists()]
        if unnamed:
            lacking.append(f"{name}: not run, {' and '.join(unnamed)} name{'s' * (len(unnamed) == 1)} no images")
        elif absent and not ("pretrained" in values and absent == ["pretrain/model.safetensors"]):
            writer = next((other for other in rows if rows[other][0] == absent[0]), "nothing")
            lacking.append(f"{name}: not run, outputs/{folder.name}/{absent[0]} is not there: {writer} writes it")
        else:
            chosen.append(name)
            made.add(writes)
    if only and lacking:
        raise ValueError("; ".join(lacking))
    for line in lacking:
        print(line, file=sys.stderr)
    return chosen


def main(arguments: list[str] | None = None) -> int:
    """The command line; 1 after a one-line error."""
    parser = argparse.ArgumentParser(description="Check a run's parameters, write each notebook's share, choose what to run.")
    parser.add_argument("table", nargs="*", help="a row a notebook, see `choose`")
    parser.add_argument("--run", required=True, help="name of the run: outputs/<run>")
    parser.add_argument("--params", required=True, type=Path, help="YAML file of parameters")
    parser.add_argument("--only", default="", help="numbers of notebooks; all if not given")
    given = parser.parse_args(arguments)
    try:
        shares = parameters_by_notebook(given.params, notebook_paths(workbook_path("notebooks")), given.run)
        folder = open_run(given.run)
        write_shares(shares, folder / "params")
        print(*choose(given.table, {n: v for share in shares.values() for n, v in share.items()}, folder, given.only))
    except (OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
