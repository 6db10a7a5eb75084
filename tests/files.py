"""Files that tests write, and what is read and said of them."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
from PIL import Image

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


def encode(picture: np.ndarray | Image.Image, kind="PNG", **options) -> bytes:
    """An array, or an image, as a file."""
    out = io.BytesIO()
    (picture if isinstance(picture, Image.Image) else Image.fromarray(picture)).save(out, kind, **options)
    return out.getvalue()


def contents(images) -> list[bytes]:
    """The encoded images of a labelled set."""
    return [images.files.read(i) for i in range(len(images))]


def one_line(error) -> str:
    """What an error says, which has no second line."""
    assert "\n" not in str(error.value)
    return str(error.value)
