"""What `make run` asks before it executes anything: each notebook's share of the parameters, and which notebooks to execute."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import yaml

from ..artefacts import atomic_path
from .run_folder import is_demo


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
