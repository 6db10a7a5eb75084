"""Tables with an image and a label column, as Hugging Face keeps data sets → `LabelledImages`; images stay unread."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from ..addresses import HUB, HUB_FILES, TABLES, find_files
from ..tables import class_names, features_of, image_column, open_table
from .images import LabelledImages
from .pointers import ImagePointers, stamp_of, whereabouts
from .values import Wanted, from_values

CHOICES = ("split", "config")  # of files; else of rows


def holds_tables(path: str) -> bool:
    """Whether it is a table, a folder or pattern of tables, what `save_to_disk` or `push_to_hub` wrote, or on the hub.

    A folder that also holds tars is one of shards: img2dataset writes a table without images beside each.
    """
    if path.endswith(TABLES) or (path.startswith(HUB) and not path.startswith(HUB_FILES)):
        return True
    if "://" in path:
        try:
            return find_files(path, (".tar", *TABLES))[0].suffix in TABLES
        except (FileNotFoundError, ValueError) as error:  # nothing of the kind, or several splits
            return isinstance(error, ValueError)
    folder, names = Path(path), ("*.parquet", "*.arrow", "data/*.parquet", "dataset_dict.json")
    return folder.is_dir() and not any(folder.glob("*.tar")) and any(any(folder.glob(name)) for name in names)


def table_images(wanted: Wanted) -> LabelledImages:
    """The labelled images of tables: see `load_labelled`. Raises FileNotFoundError or ValueError."""
    chosen = "&".join(f"{name}={value}" for name, value in wanted.selection.items() if name in CHOICES)
    of_rows = {name: value for name, value in wanted.selection.items() if name not in CHOICES}
    try:
        tables = find_files(f"{wanted.path}#{chosen}" if chosen else wanted.path, TABLES, what="labelled images")
        wanted = replace(wanted, selection=of_rows)
    except ValueError:  # not a split of files, but a column of that name, perhaps
        if str(wanted.path).startswith(HUB) or not chosen:
            raise
        tables = find_files(wanted.path, TABLES, what="labelled images")
    paths = [file.opening_address for file in tables]
    stamps = [stamp_of(path) for path in paths]  # before they are read
    values, places, columns, schemas = {name: [] for name in wanted.fields}, [], [], []
    for number, file in enumerate(tables):
        with open_table(file) as table:
            schemas.append(table.schema)
            columns.append(image_column(str(wanted.path), table.schema))
            found = table.read([name for name in values if name in table.schema.names])
            for group, rows in enumerate(table.groups):
                places.append(np.stack(np.broadcast_arrays(number, group, np.arange(rows)), axis=1))
        for name in values:
            values[name] += found.column(name).to_pylist() if name in found.column_names else [None] * sum(table.groups)
    if not any(map(len, places)):
        raise ValueError(f"{wanted.path}: its {len(paths)} table(s) have no rows")
    places = np.concatenate(places).astype(np.int32)
    return from_values(
        ImagePointers.of_tables(paths, stamps, columns, places[:, 0].copy(), places[:, 1:].astype(np.int64)),
        values,
        wanted,
        there=f"as a column, which are {', '.join(schemas[0].names)}",
        names_of_numbers=class_names(features_of(schemas[0]).get(wanted.label_field)),
        stamps=[places, whereabouts(paths), np.array(stamps)],
    )
