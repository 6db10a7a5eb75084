"""Tables on disk or in a store, group of rows by group of rows: parquet, and Arrow files as `datasets` saves them.

Between a `DataFile` and whoever reads captions, labels or images from its columns: only what is asked for is read.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import IO, Any, Protocol

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow import types

from ..labels import LabelSet
from .addresses import DataFile

READ_BUFFER = 8 << 20  # bytes of a column read at a time; without it, pyarrow reads a row group's whole column
IMAGE_COLUMNS = ("image", "img", "jpg", "jpeg", "png", "webp", "image_path", "path", "file_name", "filename")
URL_COLUMNS = ("url", "image_url", "img_url", "image_link", "link")


class Table(Protocol):
    """A table of G groups of rows, of `groups` (list of int) rows each, with a `schema` (Arrow's)."""

    schema: pa.Schema
    groups: list[int]

    def read(self, columns: Sequence[str], group: int | None = None) -> pa.Table:
        """Some columns of a group of rows, or of all."""

    def batches(self, columns: Sequence[str], rows: int) -> Iterator[pa.RecordBatch]:
        """Some columns of all rows, so many rows at a time or fewer."""


class _Parquet:
    def __init__(self, file: str | IO[bytes]):
        self.parquet = pq.ParquetFile(file, buffer_size=READ_BUFFER)
        self.schema = self.parquet.schema_arrow
        self.groups = [self.parquet.metadata.row_group(group).num_rows for group in range(self.parquet.num_row_groups)]

    def read(self, columns: Sequence[str], group: int | None = None) -> pa.Table:
        return self.parquet.read(columns) if group is None else self.parquet.read_row_group(group, columns)

    def batches(self, columns: Sequence[str], rows: int) -> Iterator[pa.RecordBatch]:
        return self.parquet.iter_batches(rows, columns=columns, use_threads=False)  # the cores are other files'


class _Arrow:
    def __init__(self, file: str | IO[bytes]):
        with pa.ipc.open_stream(file) as stream:
            self.table = stream.read_all()  # of a mapped file, this reads nothing
        self.schema, self.parts = self.table.schema, self.table.to_batches()
        self.groups = [len(part) for part in self.parts]

    def read(self, columns: Sequence[str], group: int | None = None) -> pa.Table:
        return (self.table if group is None else pa.Table.from_batches([self.parts[group]])).select(columns)

    def batches(self, columns: Sequence[str], rows: int) -> Iterator[pa.RecordBatch]:
        return iter(self.table.select(columns).to_batches(rows))


@contextmanager
def open_table(source: DataFile) -> Iterator[Table]:
    """A table, open. Raises ValueError if it is damaged, or another kind of file."""
    is_arrow = source.suffix == ".arrow"
    if source.is_local:  # without read-ahead: columns are read in turns, and reading ahead of one is in vain for the other
        opened = pa.memory_map(source.path) if is_arrow else nullcontext(source.path)
    else:
        opened = source.open(cache_type="readahead" if is_arrow else "none")
    with opened as file:
        try:
            table = (_Arrow if is_arrow else _Parquet)(file)
        except (pa.ArrowInvalid, OSError) as error:
            if isinstance(error, FileNotFoundError):
                raise
            kind = "Arrow" if is_arrow else "parquet"
            raise ValueError(f"{source.address} is no readable {kind} file ({error}): write or download it again") from error
        yield table


def is_text(kind: pa.DataType) -> bool:
    """Whether a column of this type holds captions: strings of any layout, dictionaries or lists of them, or nothing at all."""
    if types.is_dictionary(kind) or types.is_list(kind) or types.is_large_list(kind):
        kind = kind.value_type
    return types.is_string(kind) or types.is_large_string(kind) or types.is_string_view(kind) or types.is_null(kind)


def features_of(schema: pa.Schema) -> dict:
    """Hugging Face's description of the columns, where it is stored."""
    stored = (schema.metadata or {}).get(b"huggingface")
    return json.loads(stored).get("info", {}).get("features", {}) if stored else {}


def image_column(where: str, schema: pa.Schema) -> str:
    """The column that holds the images: bytes, structs with `bytes`, or paths under a usual name.

    Raises ValueError, with the columns there are, if none or several could be meant; with advice if there are only URLs.
    """
    described = [name for name, one in features_of(schema).items() if isinstance(one, dict) and one.get("_type") == "Image"]
    fitting = []
    for one in schema:
        has_bytes = types.is_struct(one.type) and one.type.get_field_index("bytes") >= 0
        is_bytes = has_bytes or types.is_binary(one.type) or types.is_large_binary(one.type)
        if is_bytes or (one.name in IMAGE_COLUMNS and (types.is_string(one.type) or types.is_large_string(one.type))):
            fitting.append(one.name)
    for name in (*described, *IMAGE_COLUMNS):
        if name in fitting:
            return name
    if len(fitting) == 1:
        return fitting[0]
    urls = next((name for name in schema.names if name.lower() in URL_COLUMNS), None)
    if urls and not fitting:
        raise ValueError(
            f"{where} has its images as URLs only (column {urls!r}): download them first, e.g. by `img2dataset --url_list … "
            f"--url_col {urls} --output_format webdataset`, and give the folder of tars that it writes"
        )
    raise ValueError(
        f"{where}: which column holds the images? It may hold bytes, structs with `bytes`, or paths under the name "
        f"{', '.join(IMAGE_COLUMNS)}; there are {', '.join(f'{one.name} ({one.type})' for one in schema)}"
    )


def class_names(feature: object) -> list[str] | None:
    """The names of a ClassLabel column, or of a column of lists of them; ImageNet-1k's become WNIDs, whose order they have."""
    if isinstance(feature, list) and feature:
        return class_names(feature[0])
    if not isinstance(feature, dict):
        return None
    if isinstance(feature.get("feature"), (dict, list)):
        return class_names(feature["feature"])
    names = feature.get("names")
    if names and len(names) == 1000 and names[0].startswith("tench") and names[-1].startswith("toilet"):
        return [wnid for (wnid,) in LabelSet.load("imagenet-1k").wnids]
    return list(names) if names else None


def image_bytes(value: Any, folder: str, name: str) -> bytes:
    """The encoded image that a cell holds: bytes, a struct with `bytes` and `path`, or a path, counted from `folder`."""
    if isinstance(value, dict):
        value = value.get("bytes") or value.get("path")
    if isinstance(value, str):
        with fsspec.open(value if value.startswith("/") or "://" in value else f"{folder}/{value}", "rb") as file:
            return file.read()
    if not value:
        raise ValueError(f"{name}: its image is empty")
    return value
