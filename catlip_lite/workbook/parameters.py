"""A run's parameters: one YAML serves all notebooks; each notebook gets the names that its `parameters` cell declares.

Reads params/<run>.yaml and the notebooks; gives the values of each notebook, and those that a function takes of them.
"""

from __future__ import annotations

import ast
import difflib
import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import get_type_hints

import nbformat
import yaml


def taken_by(taker: Callable, values: Mapping, prefix: str = "") -> dict:
    """Of `values`, a notebook's globals() or a shell's parameters, those that a function or dataclass takes, by its own names.

    A dataclass takes its fields; a function all but what each call has to say itself (parameters without a default) and, where
    it hands `**given` on to the dataclass that it returns, the fields of that. prefix: "finetune_" gives `finetune_lr` as `lr`.
    """
    signature = inspect.signature(taker).parameters.values()
    names = [p.name for p in signature if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
    if not is_dataclass(taker):
        given_to = get_type_hints(taker).get("return") if any(p.kind is p.VAR_KEYWORD for p in signature) else None
        required = {p.name for p in signature if p.default is p.empty}
        names += [field.name for field in fields(given_to)] if is_dataclass(given_to) else []
        names = [name for name in names if name not in required]
    return {name: values[prefix + name] for name in names if prefix + name in values}


def notebook_paths(folder: Path) -> list[Path]:
    """The chapters in a folder, in order of their numbers; what papermill wrote beside them, out.ipynb, is none."""
    return sorted(folder.glob("[0-9]*.ipynb"))


def declared_values(notebook: Path) -> dict:
    """The parameters of a notebook with their defaults; none if no cell is tagged so. Raises OSError or ValueError."""
    try:
        cells = nbformat.read(notebook, as_version=4).cells
    except (UnicodeDecodeError, nbformat.reader.NotJSONError, nbformat.ValidationError) as error:
        raise ValueError(f"{notebook} is no readable notebook ({type(error).__name__})") from None
    source = next((cell.source for cell in cells if "parameters" in cell.metadata.get("tags", [])), "")
    try:
        statements = [node for node in ast.parse(source).body if isinstance(node, (ast.Assign, ast.AnnAssign))]
        return {
            ast.unparse(s.targets[0] if isinstance(s, ast.Assign) else s.target): ast.literal_eval(s.value or "")
            for s in statements
        }
    except (SyntaxError, ValueError) as error:
        raise ValueError(f"{notebook}: the parameters cell must assign plain literals ({error})") from None


def read_parameters(path: Path) -> dict:
    """The mapping in a YAML file; an empty file is an empty mapping. Raises FileNotFoundError or ValueError with advice."""
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        there = ", ".join(sorted(p.name for p in path.parent.glob("*.yaml"))) or "no YAML"
        raise FileNotFoundError(f"{path} is not there ({path.parent} has {there}): pass PARAMS=file.yaml") from None
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ValueError(f"{path} is no readable YAML: {' '.join(str(error).split())}") from None
    values = {} if values is None else values
    if not isinstance(values, dict) or not all(isinstance(name, str) for name in values):
        raise ValueError(f"{path} must be a mapping, a line `name: value` for each parameter, not a {type(values).__name__}")
    return values


def parameters_by_notebook(params: Path, notebooks: Sequence[Path], run: str) -> dict[Path, dict]:
    """Each notebook's share of the YAML, and `run`. Raises ValueError for a name that no notebook declares."""
    values = {**read_parameters(params), "run": run}
    if isinstance(values.get("shards"), str):
        values.setdefault("captions", values["shards"])  # captions that nobody named are the shards' own
    declared = {notebook: set(declared_values(notebook)) for notebook in notebooks}
    refuse_unknown(values, {"run"}.union(*declared.values()), params)
    return {notebook: {n: v for n, v in values.items() if n in names} for notebook, names in declared.items()}


def refuse_unknown(names: Iterable[str], known: set[str], where: Path | str) -> None:
    """Raises ValueError for names that are not known, each with the nearest that is."""
    unknown = [name for name in names if name not in known]
    if unknown:
        named = ", ".join(f"{n} (nearest: {difflib.get_close_matches(n, sorted(known), 1, 0)[0]})" for n in unknown)
        raise ValueError(f"{where}: no notebook has a parameter {named}: correct the name or remove the line")
