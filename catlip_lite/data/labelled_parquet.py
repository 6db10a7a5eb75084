"""Parquet files with an image and a label column, as Hugging Face keeps data sets → `LabelledImages`; images stay unread."""

from __future__ import annotations

import json
import re
from glob import glob
from pathlib import Path

import numpy as np

from ..labels import LabelSet
from .image_files import ParquetRows, stamps_of
from .label_values import Selection, from_values
from .labelled_images import LabelledImages, resolved
from .sources import expand_braces

IMAGE_COLUMNS = ("image", "img", "jpg", "png", "image_path", "path", "file_name", "filename")
SPLIT_NAME = re.compile(r"(.+?)-\d+-of-\d+.*\.parquet")  # train-00000-of-00294.parquet


def find_parquet(address: str) -> list[Path]:
    """The parquet files of a file, folder (its own, else those in `data/`), glob or brace pattern, sorted.

    Raises FileNotFoundError if there is none, ValueError if a folder holds the files of several splits.
    """
    folder = Path(address)
    if not folder.is_dir():
        paths = [folder] if folder.is_file() else []  # though its name looks like a pattern
        paths = paths or sorted(Path(path) for pattern in expand_braces(address) for path in glob(pattern))
    else:
        paths = sorted(folder.glob("*.parquet")) or sorted((folder / "data").glob("*.parquet"))
        splits = sorted({match[1] for path in paths if (match := SPLIT_NAME.fullmatch(path.name))})
        if len(splits) > 1:
            example = paths[0].parent / f"{splits[0]}-*.parquet"
            raise ValueError(f"{address} holds the splits {', '.join(splits)}: give one of them, e.g. {example}")
    if not paths:
        raise FileNotFoundError(f"no parquet file at {address!r}")
    return paths


def parquet_images(address: str, label_field: str, group_field: str, selection: Selection) -> LabelledImages:
    """The labelled images of parquet files: see `labelled.load_labelled`. Raises FileNotFoundError or ValueError."""
    import pyarrow
    import pyarrow.parquet

    paths = find_parquet(address)
    stamps = stamps_of(paths)  # before they are read
    values, places, schema = {}, [], None
    for number, path in enumerate(paths):
        try:
            with pyarrow.parquet.ParquetFile(path) as file:
                schema = schema or file.schema_arrow
                groups = [file.metadata.row_group(group).num_rows for group in range(file.num_row_groups)]
                wanted = [name for name in (label_field, group_field, *selection.fields) if name in file.schema_arrow.names]
                table = file.read(columns=list(dict.fromkeys(wanted)))
        except pyarrow.ArrowException as error:
            raise ValueError(f"{path} is no readable parquet file ({error}): download it again") from error
        for name in dict.fromkeys([label_field, group_field, *selection.fields]):
            here = table.column(name).to_pylist() if name in table.column_names else [None] * table.num_rows
            values.setdefault(name, []).extend(here)
        within = [np.stack([np.full(n, group), np.arange(n)], axis=1) for group, n in enumerate(groups)]
        rows = np.concatenate(within) if within else np.zeros((0, 2), int)
        places.append(np.concatenate([np.full((len(rows), 1), number), rows], axis=1).astype(np.int32))
    places = np.concatenate(places)
    features = _features(schema)
    column = _image_column(address, schema, features)
    if not len(places):
        raise ValueError(f"{address}: its {len(paths)} parquet file(s) have no rows")
    return from_values(
        ParquetRows(tuple(map(str, paths)), stamps, column, *np.ascontiguousarray(places.T)),
        values,
        where=address,
        label_field=label_field,
        group_field=group_field,
        selection=selection,
        there=f"as a column, which are {', '.join(schema.names)}",
        names_of_numbers=_class_names(features.get(label_field)),
        stamps=[places, resolved(paths), np.array(stamps)],
    )


def _features(schema) -> dict:
    """Hugging Face's description of the columns, where it is stored."""
    stored = (schema.metadata or {}).get(b"huggingface")
    return json.loads(stored).get("info", {}).get("features", {}) if stored else {}


def _image_column(address: str, schema, features: dict) -> str:
    import pyarrow.types as types

    described = [name for name, feature in features.items() if isinstance(feature, dict) and feature.get("_type") == "Image"]
    fitting = []
    for name in schema.names:
        kind = schema.field(name).type
        has_bytes = types.is_struct(kind) and kind.get_field_index("bytes") >= 0
        if (
            has_bytes
            or types.is_binary(kind)
            or types.is_large_binary(kind)
            or (name in IMAGE_COLUMNS and (types.is_string(kind) or types.is_large_string(kind)))
        ):
            fitting.append(name)
    for name in (*described, *IMAGE_COLUMNS):
        if name in fitting:
            return name
    if len(fitting) == 1:
        return fitting[0]
    raise ValueError(
        f"{address}: which column holds the images? It may hold bytes, structs with `bytes`, or paths under the name "
        f"{', '.join(IMAGE_COLUMNS)}; there are {', '.join(f'{field.name} ({field.type})' for field in schema)}"
    )


def _class_names(feature) -> list[str] | None:
    """The names of a ClassLabel column, or of a column of lists of them; ImageNet-1k's become WNIDs, whose order they have."""
    if isinstance(feature, list) and feature:
        return _class_names(feature[0])
    if not isinstance(feature, dict):
        return None
    if isinstance(feature.get("feature"), (dict, list)):
        return _class_names(feature["feature"])
    names = feature.get("names")
    if isinstance(names, dict):
        names = names.get("class")
    if isinstance(names, dict):
        names = [names[key] for key in sorted(names, key=int)]
    if names and len(names) == 1000 and names[0].startswith("tench") and names[-1].startswith("toilet"):
        return [wnid for (wnid,) in LabelSet.load("imagenet-1k").wnids]
    return list(names) if names else None
