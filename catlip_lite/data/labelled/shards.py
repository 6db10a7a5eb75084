"""WebDataset shards with labels → `LabelledImages`, by the headers and .json members of the tars; images stay unread."""

from __future__ import annotations

import json
import logging
from collections import Counter
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np

from ..addresses import DataFile, find_files
from ..shards import BreaksOff, image_member, open_shard, parse_facts
from .images import LabelledImages, counted, kept_scan
from .pointers import stamp_of, tar_members
from .values import Wanted, class_list, from_values

logger = logging.getLogger(__name__)

FACTS = ("json", "txt", "cls")  # of a sample, that are no image


def holds_tars(path: str) -> bool:
    """Whether it is a tar, or a folder or pattern of tars, here or in a store."""
    return "://" in path or path.endswith(".tar") or any(Path(path).glob("*.tar"))


def shard_images(wanted: Wanted) -> LabelledImages:
    """The labelled images of shards: see `load_labelled`. Raises FileNotFoundError or ValueError with advice."""
    shards, fields = find_files(wanted.path, [".tar"], what="shards"), wanted.fields
    paths = [shard.opening_address for shard in shards]
    stamps = [stamp_of(path) for path in paths]  # before they are read
    asked = json.dumps(["labelled samples", *fields])
    scans = [
        kept_scan(path, asked, partial(_scan, shard, fields), stamp=(shard.size, shard.stamp))
        for path, shard in zip(paths, shards, strict=True)
    ]
    found = [facts for _, facts in scans]
    _tell_lost(str(wanted.path), paths, found)
    names = [name for facts in found for name in facts["names"]]
    if not names:
        why = next((f", the first: {facts['broken']}" for facts in found if facts["broken"]), "")
        raise ValueError(f"{wanted.path}: no image in {len(paths)} shard(s){why}")
    files, of_files = tar_members(paths, stamps, [table["places"] for table, _ in scans], names)
    there = dict.fromkeys(name for facts in found for name in facts["there"])
    return from_values(
        files,
        {name: [value for facts in found for value in facts["values"][name]] for name in fields},
        wanted,
        there=f"in their .json, which has {', '.join(there) or 'nothing'}",
        names_of_numbers=class_list(shards[0].address.rpartition("/")[0]),
        stamps=of_files,
    )


def _tell_lost(where: str, paths: Sequence[str], found: Sequence[dict]) -> None:
    """Warn of tars that break off and of samples that cannot be used."""
    for path, facts in zip(paths, found, strict=True):
        if facts["broken"]:
            told = "%s breaks off (%s): the samples up to there are used" if facts["names"] else "%s gives no sample: %s"
            logger.warning(told, path, facts["broken"])
    lost = sum(facts["lost"] for facts in found)
    if lost:
        others = sum((Counter(facts["others"]) for facts in found), Counter())
        told = f" (they have {counted(others)})" if others else ""
        logger.warning("%s: %d sample(s) without an image, or with an empty one, are left out%s", where, lost, told)


def _scan(shard: DataFile, fields: Sequence[str]) -> tuple[dict[str, np.ndarray], dict]:
    """Of the samples of a tar: `places` int64 [n, 2], `names` and the `values` of fields; the fields `there` are; how many are
    `lost`, and what `others` have instead of an image; why the tar is `broken`. A .cls is the label of who has no other."""
    places, names, values, there, others, lost, broken = [], [], {name: [] for name in fields}, [], Counter(), 0, ""
    with shard.open() as file, open_shard(shard.path, file) as (samples, read):
        try:
            for key, parts in samples:
                place = image_member(parts)
                if place is None or not place[1]:
                    lost += 1
                    others.update(f".{extension}" for extension in parts if place is None and extension not in FACTS)
                    continue
                try:
                    facts = parse_facts(read(*parts["json"])) if "json" in parts else {}
                    there = there or list(facts)
                    if "cls" in parts and facts.get("label") is None:
                        facts["label"] = _class_code(read(*parts["cls"]))
                except ValueError as error:
                    raise ValueError(f"{shard.address}:{key}: {error}: write the shard again") from None
                for name in fields:
                    values[name].append(facts.get(name))
                places.append(place)
                names.append(key)
        except BreaksOff as error:
            broken = str(error)
    facts = {"names": names, "values": values, "there": there, "others": others, "lost": lost, "broken": broken}
    return {"places": np.array(places, dtype=np.int64).reshape(-1, 2)}, facts


def _class_code(content: bytes) -> int | str:
    text = content.decode("utf-8", errors="replace").strip()
    if not text:
        raise ValueError("its .cls is empty, where it holds a class's number or name")
    return int(text) if text.removeprefix("-").isdecimal() else text
