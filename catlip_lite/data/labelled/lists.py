"""Lists of images with labels, a path and a label on each line, Places365's included → `LabelledImages`."""

from __future__ import annotations

import csv
import re
from pathlib import Path

from ...labels import LabelSet
from .folders import present_files
from .images import LabelledImages, resolved
from .pointers import ImagePointers, Names
from .values import Wanted, class_list, from_values, read_text

PATH_COLUMNS = ("path", "file", "filename", "file_name", "filepath", "image", "image_path", "img")
LABEL_COLUMNS = ("label", "class", "category", "target")


def is_list(path: str) -> bool:
    """Whether it is a .txt, .csv or .tsv file."""
    return path.lower().endswith((".txt", ".csv", ".tsv")) and Path(path).is_file()


def image_list_images(wanted: Wanted) -> LabelledImages:
    """The images of a list of paths and labels: see `load_labelled`. Raises FileNotFoundError or ValueError."""
    path, label_field = Path(wanted.path), wanted.label_field
    columns = _read_list(path, label_field)
    names = columns.pop(PATH_COLUMNS[0])
    folder, numbered = path.parent, class_list(path.parent)
    if re.fullmatch(r"places365_(train|val).*\.txt", path.name):
        folder, numbered = _places_folder(path, names[0].lstrip("/")), _places_classes(path)
        names = [name.lstrip("/") for name in names]
    facts, rows = present_files(folder, names, wanted.selection, str(path))
    there = [names[i] for i in rows.tolist()]
    return from_values(
        ImagePointers.of_files(str(folder), there),
        {name: [values[i] for i in rows.tolist()] for name, values in columns.items()},
        wanted,
        there=f"as a column, which are {', '.join(columns)}",
        names_of_numbers=numbered,
        stamps=[resolved([folder]), Names.of(there).text, facts],
    )


def _read_list(path: Path, label_field: str) -> dict[str, list[str]]:
    """The columns of a list: `path`, the label under its field's name, and those that a header names."""
    lines = [line for line in read_text(path).splitlines() if line.strip()]
    if not lines:
        raise ValueError(f"{path} is empty: write an image's path and its label on each line")
    rows = _split_lines(path, lines)
    header = [cell.strip().lower() for cell in rows[0]]
    where_path = next((header.index(name) for name in PATH_COLUMNS if name in header), None)
    if where_path is not None:
        fields, lines = [cell.strip() for cell in rows.pop(0)], lines[1:]
        if label_field not in fields:
            known = next((header.index(name) for name in LABEL_COLUMNS if name in header), None)
            if known is None:
                raise ValueError(f"{path} has no column {label_field!r}: it has {', '.join(fields)}")
            fields[known] = label_field
        fields[where_path] = PATH_COLUMNS[0]
    else:
        fields = [PATH_COLUMNS[0], label_field]
    odd = next((i for i, row in enumerate(rows) if len(row) != len(fields)), None)
    if odd is not None or not rows:
        told = f"{lines[odd]!r} has {len(rows[odd])} column(s)" if rows else "it has a header alone"
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


def _places_folder(path: Path, first: str) -> Path:
    """Where the images of Places365's lists lie: data_256 before data_large, val_256 before val_large; beside or above."""
    start = "val" if path.name.startswith("places365_val") else "data"
    places = [base / f"{start}_{size}" for base in (path.parent, path.parent.parent) for size in ("256", "large")]
    places += [place.with_name(f"{place.name}_standard") for place in places]
    found = next((place for place in places if (place / first).is_file()), None)
    found = found or next((place for place in places if place.is_dir()), None)
    if found is None:
        raise FileNotFoundError(
            f"{path}: none of {', '.join(map(str, places[:4]))} is there: unpack the images beside the list"
        )
    return found


def _places_classes(path: Path) -> list[str]:
    """Names in the order of their numbers: of categories_places365.txt ("/a/airfield 0"), else the known ones."""
    categories = path.parent / "categories_places365.txt"
    if not categories.is_file():
        return list(LabelSet.load("places365").names)
    lines = [line.split() for line in read_text(categories).splitlines() if line.strip()]
    return [name.split("/", 2)[-1] for name, _ in sorted(lines, key=lambda line: int(line[1]))]
