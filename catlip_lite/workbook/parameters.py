"""A run's parameters: one YAML serves all notebooks; each notebook gets the names that its `parameters` cell declares.

Reads params/<run>.yaml and the notebooks; gives the values of each notebook, those that a function takes of them, and which
notebooks of a run to execute.
"""

from __future__ import annotations

import ast
import difflib
import inspect
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import get_type_hints

import nbformat
import yaml

from ..artefacts import atomic_path
from .run_folder import is_demo

# ---- what a notebook declares, what a YAML sets


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
    """The notebooks of a folder, in order of their numbers."""
    return sorted(path for path in folder.glob("*.ipynb") if not path.name.startswith("."))


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


def refuse_unknown(values: Mapping, known: set[str], where: Path | str) -> None:
    """Raises ValueError for names that are not known, each with the nearest that is."""
    unknown = [name for name in values if name not in known]
    if unknown:
        named = ", ".join(f"{n} (nearest: {difflib.get_close_matches(n, sorted(known), 1, 0)[0]})" for n in unknown)
        raise ValueError(f"{where}: no notebook has a parameter {named}: correct the name or remove the line")


# ---- what make asks


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

    table: in order, "name:artefact it writes:artefacts it reads:parameters that must name images:", at the end "asked" if it is
    only run when it is asked for. values: the YAML's. only: numbers, "01 02"; none: all others. Raises ValueError for a number
    that there is not, or one of these that lacks something.
    """
    rows = {name: rest for name, *rest in (row.split(":") for row in table)}
    numbers = {name.split("_")[0]: name for name in rows}
    unknown = [number for number in only.split() if number.zfill(2) not in numbers]
    if unknown:
        raise ValueError(f"ONLY: there is no notebook {', '.join(unknown)}: choose from {', '.join(numbers)}")
    asked = [numbers[number.zfill(2)] for number in only.split()]
    own = not all(is_demo(values.get(name) or "demo/") for name in ("captions", "shards"))
    chosen, lacking, made = [], [], set()
    for name, (writes, reads, images, when) in rows.items():
        if name not in asked if asked else when:
            continue
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
    print(*lacking, sep="\n", end="\n" * bool(lacking), file=sys.stderr)
    return chosen
