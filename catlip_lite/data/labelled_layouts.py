"""Folders of class folders and lists of images with labels, Places365's included → `LabelledImages`."""

from __future__ import annotations

import csv
import logging
import os
import re
from pathlib import Path

import numpy as np

from ..labels import LabelSet
from .image_files import LooseFiles, Names
from .label_values import Selection, class_list, from_values, read_text
from .labelled_images import LabelledImages, ordered_classes, refuse_alike, resolved, some
from .loose_files import EXTENSIONS, loose_images, present_files, scan_folders, without_hollow

logger = logging.getLogger(__name__)

SPLITS = {"train", "training", "val", "valid", "validation", "test", "testing"}
PATH_COLUMNS = ("path", "file", "filename", "file_name", "filepath", "image", "image_path", "img")
LABEL_COLUMNS = ("label", "class", "category", "target")


# --- class folders ------------------------------------------------------------------------------------------------------------


def class_folder_images(folder: Path) -> LabelledImages:
    """The images of a folder of class folders, named by these; in a class folder they lie directly or one folder deeper.

    Hidden files and folders are passed over; empty class folders and empty files are left out, with a warning.
    """
    names = sorted(entry.name for entry in os.scandir(folder) if not entry.name.startswith(".") and entry.is_dir())
    splits = [name for name in names if name.lower() in SPLITS]
    if len(splits) > 1 or (splits and (len(names) == 1 or _holds_class_folders(folder / splits[0]))):
        raise ValueError(f"{folder} holds {', '.join(splits)}: give one of them, e.g. {folder / splits[0]}")
    official = _places_names(names)
    classes = ordered_classes([official.get(name, name) for name in names])
    refuse_alike(names, str(folder))
    folder_of = {official.get(name, name): name for name in names}
    found = scan_folders(folder, [folder_of[name] for name in classes])
    if not any(found):
        raise FileNotFoundError(f"{folder}: its {len(names)} folder(s) ({some(names)}) hold no images")
    empty = [folder_of[name] for name, files in zip(classes, found, strict=True) if not files]
    if empty:
        logger.warning("%s: %d class folder(s) hold no image and are no classes here: %s", folder, len(empty), some(empty))
    whole = {file[0] for file in without_hollow(folder, [file for files in found for file in files])}
    kept = [[file for file in files if file[0] in whole] for files in found]
    classes, kept = zip(*[(name, files) for name, files in zip(classes, kept, strict=True) if files], strict=True)
    if len(classes) == 1 and len(names) == 1 and _holds_folders(folder / names[0]):
        raise ValueError(f"{folder} has one class folder, {names[0]}: is {folder / names[0]} meant?")
    indices = np.repeat(np.arange(len(classes)), [len(files) for files in kept])
    return loose_images(folder, list(classes), indices, [file for files in kept for file in files])


def _holds_folders(folder: Path) -> bool:
    return any(entry.is_dir() for entry in os.scandir(folder))


def _holds_class_folders(folder: Path) -> bool:
    below = (entry.path for entry in os.scandir(folder) if entry.is_dir() and not entry.name.startswith("."))
    return any(name.lower().endswith(EXTENSIONS) for path in below for name in os.listdir(path))


def _places_names(folders: list[str]) -> dict[str, str]:
    """Places365's names of folders in which a hyphen stands for a slash ("arena-hockey"), if all folders are its classes."""
    if not any("-" in name for name in folders):
        return {}
    by_folder = {name.replace("/", "-"): name for name in LabelSet.load("places365").names}
    return by_folder if all(name in by_folder for name in folders) else {}


# --- lists --------------------------------------------------------------------------------------------------------------------


def image_list_images(path: Path, label_field: str, group_field: str, selection: Selection) -> LabelledImages:
    """The images of a list of paths and labels: see `labelled.load_labelled`. Raises FileNotFoundError or ValueError."""
    columns = _read_list(path, label_field)
    names = columns.pop(PATH_COLUMNS[0])
    folder, numbered = path.parent, class_list(path.parent)
    if re.fullmatch(r"places365_(train|val).*\.txt", path.name):
        folder, numbered = _places_folder(path, names[0].lstrip("/")), _places_classes(path)
        names = [name.lstrip("/") for name in names]
    facts, rows = present_files(folder, names, selection, str(path))
    files = LooseFiles(str(folder), Names.of([names[i] for i in rows.tolist()]))
    return from_values(
        files,
        {name: [values[i] for i in rows.tolist()] for name, values in columns.items()},
        where=str(path),
        label_field=label_field,
        group_field=group_field,
        selection=selection,
        there=f"as a column, which are {', '.join(columns)}",
        names_of_numbers=numbered,
        stamps=[resolved([folder]), files.names.text, facts],
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
