"""Lists of images with labels, a path and a label on each line, Places365's included → `LabelledImages`."""

from __future__ import annotations

import csv
import re
from pathlib import Path

from ...labels import LabelSet
from .folders import folder_of_images, present_files
from .images import LabelledImages
from .pointers import loose_files
from .values import Wanted, class_list, from_values, read_text

PATH_COLUMNS = ("path", "file", "filename", "file_name", "filepath", "image", "image_path", "img")
LABEL_COLUMNS = ("label", "class", "category", "target")


def is_list(path: str) -> bool:
    """Whether it is a .txt, .csv or .tsv file."""
    return path.lower().endswith((".txt", ".csv", ".tsv")) and Path(path).is_file()


def image_list_images(wanted: Wanted) -> LabelledImages:
    """The images of a list of paths and labels: see `load_labelled`. Raises FileNotFoundError or ValueError."""
    path = Path(str(wanted.path))
    columns = _read_list(path, wanted.label_field)
    names = columns.pop(PATH_COLUMNS[0])
    folder, numbered = path.parent, class_list(path.parent)
    places365 = re.fullmatch(r"places365_(train|val).*\.txt", path.name)
    if places365:  # data_256 before data_large, val_256 before val_large; beside or above
        names, numbered = [name.lstrip("/") for name in names], _places_classes(path)
        start, bases = "val" if places365[1] == "val" else "data", (path.parent, path.parent.parent)
        kinds = [f"{start}_{size}{end}" for end in ("", "_standard") for size in ("256", "large")]
        folder = folder_of_images(path, names[0], [base / kind for base in bases for kind in kinds])
    facts, rows = present_files(folder, names, str(path), skip_missing=wanted.skip_missing)
    files, stamps = loose_files(folder, [names[i] for i in rows.tolist()], facts)
    return from_values(
        files,
        {name: [values[i] for i in rows.tolist()] for name, values in columns.items()},
        wanted,
        there=f"as a column, which are {', '.join(columns)}",
        names_of_numbers=numbered,
        stamps=stamps,
    )


def _read_list(path: Path, label_field: str) -> dict[str, list[str]]:
    """The columns of a list: `path`, the label under its field's name, and those that a header names."""
    lines = [line for line in read_text(path).splitlines() if line.strip()]
    if not lines:
        raise ValueError(f"{path} is empty: write an image's path and its label on each line")
    rows = _split_lines(path, lines)
    header = [cell.strip().lower() for cell in rows[0]]
    paths, labels = ([header.index(name) for name in names if name in header] for names in (PATH_COLUMNS, LABEL_COLUMNS))
    fields = [PATH_COLUMNS[0], label_field]
    if paths:
        fields, lines = [cell.strip() for cell in rows.pop(0)], lines[1:]
        if label_field not in fields and not labels:
            raise ValueError(f"{path} has no column {label_field!r}: it has {', '.join(fields)}")
        if label_field not in fields:
            fields[labels[0]] = label_field
        fields[paths[0]] = PATH_COLUMNS[0]
    odd = next((i for i, row in enumerate(rows) if len(row) != len(fields)), None)
    if odd is not None or not rows:
        told = f"{lines[odd]!r} has {len(rows[odd])} column(s)" if odd is not None else "it has a header alone"
        raise ValueError(f"{path}: {told}, where {' and '.join(fields)} are expected, separated by a tab, a comma or spaces")
    return {name: [row[i].strip() for row in rows] for i, name in enumerate(fields)}


def _split_lines(path: Path, lines: list[str]) -> list[list[str]]:
    """Cells by tabs or, in a .csv, commas; else path and label by the last comma or the last spaces of each line."""
    if "\t" in lines[0]:
        return list(csv.reader(lines, delimiter="\t"))
    if path.suffix.lower() == ".csv":
        return list(csv.reader(lines))
    by_comma = all("," in line for line in lines[:100])
    return [line.rsplit(",", 1) if by_comma else line.rsplit(None, 1) for line in lines]


def _places_classes(path: Path) -> list[str]:
    """Names in the order of their numbers: of categories_places365.txt ("/a/airfield 0"), else the known ones."""
    categories = path.parent / "categories_places365.txt"
    if not categories.is_file():
        return list(LabelSet.load("places365").names)
    lines = [line.split() for line in read_text(categories).splitlines() if line.strip()]
    return [name.split("/", 2)[-1] for name, _ in sorted(lines, key=lambda line: int(line[1]))]
