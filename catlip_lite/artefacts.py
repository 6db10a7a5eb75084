"""Files that one notebook writes and another reads: parquet tables with their provenance inside, written atomically."""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import pandas as pd

from .machine import describe_machine

PROVENANCE_KEY = b"catlip_lite"
PACKAGES = ("catlip-lite", "nltk", "numpy", "pandas", "timm", "torch")


def provenance(**facts: object) -> dict:
    """What to store beside a result so that it can be repeated: date, package versions, machine, and the given facts."""
    installed = {d.metadata["Name"].lower(): d.version for d in importlib.metadata.distributions() if d.metadata["Name"]}
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "packages": {name: installed[name] for name in PACKAGES if name in installed},
        "python": platform.python_version(),
        "machine": describe_machine(),
        "wordnet": "3.0",
        **facts,
    }


@contextmanager
def atomic_path(path: str | Path) -> Iterator[Path]:
    """A temporary path that takes the place of `path` when the block ends well; nothing is left behind when it does not."""
    path = Path(path)
    handle, staging = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}-")
    os.close(handle)
    staging = Path(staging)
    try:
        yield staging
        staging.chmod(0o644)
        staging.replace(path)
    finally:
        staging.unlink(missing_ok=True)


def write_table(table: pd.DataFrame, path: str | Path, card: Mapping) -> Path:
    """Write a parquet file with `card` (JSON values) in its metadata; the folder must exist."""
    import pyarrow
    import pyarrow.parquet

    arrow = pyarrow.Table.from_pandas(table, preserve_index=False)
    metadata = {**(arrow.schema.metadata or {}), PROVENANCE_KEY: json.dumps(dict(card)).encode()}
    with atomic_path(path) as staging:
        pyarrow.parquet.write_table(arrow.replace_schema_metadata(metadata), staging, compression="zstd")
    return Path(path)


def read_table(path: str | Path, *, columns: Sequence[str] = (), written_by: str = "") -> tuple[pd.DataFrame, dict]:
    """The table and the card that `write_table` stored.

    Raises FileNotFoundError (naming the notebook that writes it) or ValueError (naming the columns that are not there).
    """
    import pyarrow.parquet

    path = Path(path)
    if not path.is_file():
        advice = f": run notebook {written_by} first, with the same `run`" if written_by else ""
        raise FileNotFoundError(f"{path} is not there{advice}")
    try:
        arrow = pyarrow.parquet.read_table(path)
    except pyarrow.ArrowInvalid as error:
        raise ValueError(f"{path} is no readable parquet file ({error}): write it again") from error
    missing = [c for c in columns if c not in arrow.column_names]
    if missing:
        raise ValueError(f"{path} lacks the column(s) {', '.join(missing)}: it has {', '.join(arrow.column_names)}")
    card = json.loads((arrow.schema.metadata or {}).get(PROVENANCE_KEY, b"{}"))
    return arrow.to_pandas(), card
