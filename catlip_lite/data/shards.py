"""WebDataset shards as img2dataset writes them: tar files whose members `<key>.png|jpg|webp`, `.txt`, `.json` are a sample.

Reads a folder, a glob, a brace pattern or a list of tars, one sample after the other; writes shards atomically.
"""

from __future__ import annotations

import io
import json
import logging
import re
import tarfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from glob import glob
from itertools import groupby
from pathlib import Path

from ..artefacts import atomic_path

logger = logging.getLogger(__name__)

IMAGE_EXTENSIONS = ("jpg", "jpeg", "png", "webp")


@dataclass
class Sample:
    """One image with its text. image: encoded bytes, None if the shard has none; facts: the sample's .json."""

    key: str
    image: bytes | None
    extension: str
    caption: str | None
    facts: dict = field(default_factory=dict)


def find_shards(address: str | Path | Sequence[str]) -> list[Path]:
    """Paths of the tars behind an address, sorted: a folder, a tar, a glob, a brace pattern ("{00000..00012}.tar"), a list.

    `demo/<split>` is the demo corpus. Raises FileNotFoundError if there is none.
    """
    if not isinstance(address, (str, Path)):
        return [path for part in address for path in find_shards(part)]
    text = str(address)
    if text.startswith("demo/") and not Path(text).exists():
        from .demo import demo_folder

        return sorted(demo_folder(text.removeprefix("demo/")).glob("*.tar"))
    if Path(text).is_dir():
        paths = sorted(Path(text).glob("*.tar"))
    else:
        paths = sorted(Path(p) for pattern in _expand_braces(text) for p in glob(pattern))
    if not paths:
        raise FileNotFoundError(f"no shards at {text!r}: give a folder of .tar files, a glob, a brace pattern or demo/pretrain")
    return paths


def _expand_braces(pattern: str) -> list[str]:
    match = re.search(r"\{(\d+)\.\.(\d+)\}", pattern)
    if not match:
        return [pattern]
    first, last = match.groups()
    numbers = (str(i).zfill(len(first)) for i in range(int(first), int(last) + 1))
    return [p for n in numbers for p in _expand_braces(pattern[: match.start()] + n + pattern[match.end() :])]


def read_shard(path: str | Path) -> Iterator[Sample]:
    """The samples of one tar, in its order. A tar that breaks off gives what it has, with a warning that names it."""
    try:
        with tarfile.open(path) as tar:
            members = ((m.name.partition(".")[0], m.name.partition(".")[2], tar.extractfile(m)) for m in tar if m.isfile())
            for key, files in groupby(members, key=lambda member: member[0]):
                yield _assemble(key, {extension.lower(): file.read() for _, extension, file in files})
    except (tarfile.ReadError, EOFError) as error:
        logger.warning("%s breaks off (%s): the samples up to there are used", path, error)


def _assemble(key: str, parts: dict[str, bytes]) -> Sample:
    extension = next((e for e in IMAGE_EXTENSIONS if e in parts), "")
    facts = json.loads(parts["json"]) if "json" in parts else {}
    caption = parts["txt"].decode("utf-8", errors="replace") if "txt" in parts else facts.get("caption")
    return Sample(key, parts.get(extension), extension, caption, facts)


def read_samples(address: str | Path | Sequence[str]) -> Iterator[Sample]:
    """All samples behind an address, shard after shard."""
    for path in find_shards(address):
        yield from read_shard(path)


def write_shards(samples: Iterable[Sample], folder: Path, samples_per_shard: int = 10_000) -> list[Path]:
    """Write tars 00000.tar, 00001.tar … with img2dataset's keys (five digits of the shard, four of the sample)."""
    folder.mkdir(parents=True, exist_ok=True)
    samples = list(samples)
    paths = []
    for shard, start in enumerate(range(0, len(samples), samples_per_shard)):
        paths.append(folder / f"{shard:05d}.tar")
        with atomic_path(paths[-1]) as staging, tarfile.open(staging, "w") as tar:
            for i, sample in enumerate(samples[start : start + samples_per_shard]):
                key = f"{shard:05d}{i:04d}"
                facts = {**sample.facts, "key": key, "caption": sample.caption}
                parts = {sample.extension: sample.image, "txt": (sample.caption or "").encode(), "json": json.dumps(facts).encode()}
                for extension, content in parts.items():
                    if content is not None:
                        info = tarfile.TarInfo(f"{key}.{extension}")
                        info.size = len(content)
                        tar.addfile(info, io.BytesIO(content))
    return paths
