"""WebDataset shards with labels → `LabelledImages`, by the headers and .json members of the tars; images stay unread."""

from __future__ import annotations

import json
import logging
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ..addresses import DataFile, find_files
from ..index_cache import cached_index
from ..shards import BreaksOff, image_member, open_shard, parse_facts, size_of
from .images import LabelledImages, counted, resolved
from .pointers import ImagePointers, stamp_of
from .values import Wanted, class_list, from_values

logger = logging.getLogger(__name__)

FACTS = ("json", "txt", "cls")  # of a sample, that are no image


def holds_tars(path: str) -> bool:
    """Whether it is a tar, or a folder or pattern of tars, here or in a store."""
    return "://" in path or path.endswith(".tar") or any(Path(path).glob("*.tar"))


def shard_images(wanted: Wanted) -> LabelledImages:
    """The labelled images of shards: see `load_labelled`. Raises FileNotFoundError or ValueError with advice."""
    files, fields = find_files(wanted.path, [".tar"], what="shards"), wanted.fields
    paths = [file.opening_address for file in files]
    stamps = [stamp_of(path) for path in paths]  # before they are read
    tables = [_shard_table(file, fields) for file in files]
    values = {name: [v for _, facts in tables for v in facts["values"][name]] for name in fields}
    _tell_lost(wanted.path, paths, [facts for _, facts in tables])
    per_tar, names = [len(table["places"]) for table, _ in tables], [name for table, _ in tables for name in _split(table)]
    pointers = ImagePointers.of_tars(paths, stamps, per_tar, np.concatenate([table["places"] for table, _ in tables]), names)
    if not len(pointers):
        why = next((f", the first: {facts['broken']}" for _, facts in tables if facts["broken"]), "")
        raise ValueError(f"{wanted.path}: no image in {len(paths)} shard(s){why}")
    if wanted.label_field == "label":  # a .json that has it comes first
        codes = [c for _, facts in tables for c in facts["cls"]]
        values["label"] = [code if value is None else value for value, code in zip(values["label"], codes, strict=True)]
    there = Counter(name for _, facts in tables for name in facts["there"])
    of_files = resolved(map(Path, paths)) if files[0].is_local else "\n".join(paths).encode()
    return from_values(
        pointers,
        values,
        wanted,
        there=f"in their .json, which has {', '.join(there) or 'nothing'}",
        names_of_numbers=class_list(Path(paths[0]).parent),
        stamps=[pointers.names.text, pointers.place, pointers.file, of_files, np.array(stamps)],
    )


def _tell_lost(address: str | list[str], paths: Sequence[str], tables: Sequence[dict]) -> None:
    """Warn of tars that break off and of samples that cannot be used."""
    for path, facts in zip(paths, tables, strict=True):
        if facts["broken"] and facts["samples"]:
            logger.warning("%s breaks off (%s): the samples up to there are used", path, facts["broken"])
        elif facts["broken"]:
            logger.warning("%s gives no sample: %s", path, facts["broken"])
    lost = sum(facts["lost"] for facts in tables)
    if lost:
        others = Counter()
        for facts in tables:
            others.update(facts["others"])
        told = f" (they have {counted(others)})" if others else ""
        logger.warning("%s: %d sample(s) without an image, or with an empty one, are left out%s", address, lost, told)


def _shard_table(file: DataFile, fields: Sequence[str]) -> tuple[dict[str, np.ndarray], dict]:
    """Of one tar: arrays `places` int64 [n, 2] and `names`, and the facts asked for as Python values."""
    table = cached_index(
        file.opening_address, json.dumps(["shard", *fields]), lambda: _scan(file, fields), stamp=(file.size, file.stamp)
    )
    return table, json.loads(table["facts"].tobytes())


def _scan(file: DataFile, fields: Sequence[str]) -> dict[str, np.ndarray]:
    places, names, codes, lost, there, others, broken, seen = [], [], [], 0, [], Counter(), "", 0
    values = {name: [] for name in fields}
    with file.open() as opened, open_shard(file.path, opened) as (samples, read):
        whole = size_of(opened)
        try:
            for key, parts in samples:
                seen += 1
                place = image_member(parts)
                if place is None or not place[1] or sum(place) > whole:
                    lost += 1
                    others.update(f".{extension}" for extension in parts if place is None and extension not in FACTS)
                    continue
                facts = _json_in(read(*parts["json"]), f"{file.address}:{key}.json") if "json" in parts else {}
                there = there or list(facts)
                for name in fields:
                    values[name].append(facts.get(name))
                codes.append(_class_code(read(*parts["cls"]), f"{file.address}:{key}.cls") if "cls" in parts else None)
                places.append(place)
                names.append(key)
        except BreaksOff as error:
            broken = str(error)
    facts = {"values": values, "cls": codes, "lost": lost, "there": there, "others": others}
    facts |= {"broken": broken, "samples": seen}
    return {
        "places": np.array(places, dtype=np.int64).reshape(-1, 2),
        "names": np.frombuffer("\n".join(names).encode("utf-8", "surrogateescape"), np.uint8),
        "facts": np.frombuffer(json.dumps(facts).encode(), np.uint8),
    }


def _split(table: dict[str, np.ndarray]) -> list[str]:
    return table["names"].tobytes().decode("utf-8", "surrogateescape").split("\n") if len(table["places"]) else []


def _json_in(content: bytes, name: str) -> dict:
    try:
        return parse_facts(content)
    except ValueError as error:
        raise ValueError(f"{name}: {error}: write the shard again") from None


def _class_code(content: bytes, name: str) -> int | str:
    text = content.decode("utf-8", errors="replace").strip()
    if not text:
        raise ValueError(f"{name} is empty: it holds a class's number or name")
    return int(text) if text.removeprefix("-").isdecimal() else text
