"""WebDataset shards as img2dataset writes them: tar files whose members `<key>.png|jpg|webp`, `.txt`, `.json` are a sample.

Reads a folder, a glob, a brace pattern or a list of tars, one sample after the other; writes shards atomically.
"""

from __future__ import annotations

import io
import json
import logging
import tarfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from typing import IO, TypeVar

from ..artefacts import atomic_path

logger = logging.getLogger(__name__)

# What counts as an image by its name, in shards and in folders; of several of a sample, the first.
IMAGE_EXTENSIONS = ("jpg", "jpeg", "png", "webp", "jfif", "bmp", "gif", "tif", "tiff", "ppm", "pgm", "avif")
Member = TypeVar("Member")  # a TarInfo, or whatever else tells where a member is


@dataclass
class Sample:
    """One image with its text. image: encoded bytes, None if the shard has none; facts: the sample's .json."""

    key: str
    image: bytes | None
    extension: str
    caption: str | None
    facts: dict = field(default_factory=dict)


def scan_shard(
    path: str | Path, file: IO[bytes] | None = None, *, whole: bool = False
) -> Iterator[tuple[str, dict[str, tarfile.TarInfo], tarfile.TarFile]]:
    """Key, members by extension and the open tar of each sample, without reading any image.

    file: the tar's bytes, seekable, if they are not to be had by opening `path`; it stays open.
    A tar that breaks off gives what it has, with a warning that names it; `whole`: it raises ValueError, at that place.
    """
    broken = ""
    try:
        with tarfile.open(path, fileobj=file) as tar:
            files = ((*key_and_extension(member.name), member) for member in tar if member.isfile())
            for key, group in groupby(files, key=lambda file: file[0]):
                yield key, {extension: member for _, extension, member in group}, tar
                tar.members = []  # else it keeps a kilobyte a member
            tar.fileobj.seek(tar.offset)
            if tar.fileobj.read(tarfile.BLOCKSIZE) != tarfile.NUL * tarfile.BLOCKSIZE:
                broken = "no end-of-archive block"
    except (tarfile.ReadError, EOFError) as error:
        broken = str(error)
    if broken and whole:
        raise ValueError(f"the tar breaks off ({broken}): write or download it again")
    if broken:
        logger.warning("%s breaks off (%s): the samples up to there are used", path, broken)


def key_and_extension(name: str) -> tuple[str, str]:
    """WebDataset's rule: the key ends at the first period of the file's name; './' in front is dropped."""
    folder, _, file = name.removeprefix("./").rpartition("/")
    stem, _, extension = file.partition(".")
    return f"{folder}/{stem}" if folder else stem, extension.lower()


def read_caption(parts: dict[str, tarfile.TarInfo], tar: tarfile.TarFile) -> tuple[str | None, str]:
    """The caption of a sample: its .txt, else `caption` in its .json; None if it is missing or empty, or cannot be read, and
    then why."""
    member, is_json = caption_member(parts)
    try:
        return (parse_caption(tar.extractfile(member).read(), is_json) if member else None), ""
    except ValueError as error:
        return None, str(error)


def parse_caption(content: bytes, is_json: bool) -> str | None:
    """The caption in a .txt or .json; None if it is missing or empty. Raises ValueError as `parse_facts`."""
    caption = parse_facts(content).get("caption") if is_json else content.decode("utf-8", errors="replace")
    if not isinstance(caption, (str, type(None))):
        raise ValueError(f"damaged .json (its caption is a {type(caption).__name__}, not text)")
    return (caption or "").strip() or None


def parse_facts(content: bytes) -> dict:
    """The fields of a sample's .json. Raises ValueError, "damaged .json (…)", if it is none or nested too deep."""
    try:
        facts = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"damaged .json ({error})") from None
    if not isinstance(facts, dict):
        raise ValueError(f"damaged .json (it holds a {type(facts).__name__}, not the fields of a sample)")
    return facts


def captions_of_shard(path: Path, skipped: list[str]) -> Iterator[str | None]:
    """The caption of each sample of a tar, images passed over unread; None where there is none.

    skipped: gets "shard:key: reason" of each sample whose caption cannot be read, and "shard: reason" if the tar cannot, or
    breaks off: then what is there is given.
    """
    try:
        for key, parts, tar in scan_shard(path, whole=True):
            caption, reason = read_caption(parts, tar)
            if reason:
                skipped.append(f"{path.name}:{key}: {reason}")
            yield caption
    except (ValueError, OSError) as error:
        skipped.append(f"{path.name}: {error}")


def caption_member(parts: Mapping[str, Member]) -> tuple[Member | None, bool]:
    """The member that holds the sample's caption, and whether it is a .json."""
    return next(((parts[e], e == "json") for e in ("txt", "json") if e in parts), (None, False))


def image_member(parts: Mapping[str, Member]) -> Member | None:
    """The member that is the sample's image."""
    return next((parts[e] for e in IMAGE_EXTENSIONS if e in parts), None)


def read_shard(path: str | Path) -> Iterator[Sample]:
    """The samples of one tar, images included, in its order (see `scan_shard`)."""
    for key, parts, tar in scan_shard(path):
        member = image_member(parts)
        image = tar.extractfile(member).read() if member else None
        if member and len(image) < member.size:  # the tar ends within the image
            continue
        try:
            facts = parse_facts(tar.extractfile(parts["json"]).read()) if "json" in parts else {}
        except ValueError as error:
            logger.warning("%s:%s: %s", path, key, error)
            facts = {}
        extension = key_and_extension(member.name)[1] if member else ""
        yield Sample(key, image, extension, read_caption(parts, tar)[0], facts)


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
                parts = {
                    sample.extension: sample.image,
                    "txt": (sample.caption or "").encode(),
                    "json": json.dumps(facts).encode(),
                }
                for extension, content in parts.items():
                    if content is not None:
                        info = tarfile.TarInfo(f"{key}.{extension}")
                        info.size = len(content)
                        tar.addfile(info, io.BytesIO(content))
    return paths
