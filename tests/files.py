"""Files that tests write, and what is read of them."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterable, Mapping
from pathlib import Path

Files = Mapping[str, bytes] | Iterable[tuple[str, bytes]]  # pairs may name one twice


def write(path: Path, content: bytes | str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def write_tar(path: Path, files: Files, **how) -> Path:
    return write(path, tar_bytes(files, **how))


def tar_bytes(files: Files, mode="w", mtime=1, **how) -> bytes:
    """A tar of these files, in order. how: see `tarfile.open`."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode=mode, **how) as tar:
        for name, content in files.items() if isinstance(files, Mapping) else files:
            info = tarfile.TarInfo(name)
            info.size, info.mtime = len(content), mtime
            tar.addfile(info, io.BytesIO(content))
    return out.getvalue()


def contents(images) -> list[bytes]:
    """The encoded images of a labelled set."""
    return [images.files.read(i) for i in range(len(images))]
