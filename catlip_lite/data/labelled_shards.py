"""WebDataset shards with labels → `LabelledImages`, by the headers and .json members of the tars; images stay unread."""

from __future__ import annotations

import json
import logging
import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from .image_files import Names, TarMembers, stamps_of
from .index_cache import cached_index
from .label_values import Selection, class_list, from_values
from .labelled_images import LabelledImages, counted, resolved
from .shard_members import sample_places
from .shards import image_member, parse_facts
from .sources import find_shards

logger = logging.getLogger(__name__)

FACTS = ("json", "txt", "cls")  # of a sample, that are no image


def shard_images(
    address: str | Path | Sequence[str], label_field: str, group_field: str, selection: Selection
) -> LabelledImages:
    """The labelled images of shards: see `labelled.load_labelled`. Raises FileNotFoundError or ValueError with advice."""
    paths = find_shards(address)
    fields = tuple(dict.fromkeys([label_field, group_field, *selection.fields]))
    stamps = stamps_of(paths)  # before they are read
    tables = [_shard_table(path, fields) for path in paths]
    values = {name: [v for _, facts in tables for v in facts["values"][name]] for name in fields}
    _tell_lost(address, paths, [facts for _, facts in tables])
    per_tar = [len(table["places"]) for table, _ in tables]
    files = TarMembers(
        tuple(str(path) for path in paths),
        stamps,
        np.repeat(np.arange(len(paths), dtype=np.int32), per_tar),
        np.concatenate([table["places"] for table, _ in tables]),
        Names.of([name for table, _ in tables for name in _split(table)]),
    )
    if not len(files):
        why = next((f", the first: {facts['broken']}" for _, facts in tables if facts["broken"]), "")
        raise ValueError(f"{address}: no image in {len(paths)} shard(s){why}")
    if label_field == "label":  # a .json that has it comes first
        codes = [c for _, facts in tables for c in facts["cls"]]
        values["label"] = [code if value is None else value for value, code in zip(values["label"], codes, strict=True)]
    there = Counter(name for _, facts in tables for name in facts["there"])
    return from_values(
        files,
        values,
        where=str(address),
        label_field=label_field,
        group_field=group_field,
        selection=selection,
        there=f"in their .json, which has {', '.join(there) or 'nothing'}",
        names_of_numbers=class_list(paths[0].parent),
        stamps=[files.names.text, files.places, files.tar, resolved(paths), np.array(stamps)],
    )


def _tell_lost(address: str | Path | Sequence[str], paths: Sequence[Path], tables: Sequence[dict]) -> None:
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


def _shard_table(path: Path, fields: Sequence[str]) -> tuple[dict[str, np.ndarray], dict]:
    """Of one tar: arrays `places` int64 [n, 2] and `names`, and the facts asked for as Python values."""
    table = cached_index(path, json.dumps(["shard", *fields]), lambda: _scan(path, fields))
    return table, json.loads(table["facts"].tobytes())


def _scan(path: Path, fields: Sequence[str]) -> dict[str, np.ndarray]:
    places, names, codes, lost, there, others = [], [], [], 0, [], Counter()
    values = {name: [] for name in fields}
    with open(path, "rb") as file:
        samples, broken = sample_places(file, str(path))
        whole = os.fstat(file.fileno()).st_size
        for key, parts in samples:
            place = image_member(parts)
            if place is None or not place[1] or sum(place) > whole:
                lost += 1
                others.update(f".{extension}" for extension in parts if place is None and extension not in FACTS)
                continue
            facts = _json_at(file, parts["json"], f"{path}:{key}.json") if "json" in parts else {}
            there = there or list(facts)
            for name in fields:
                values[name].append(facts.get(name))
            codes.append(_class_code(file, parts["cls"], f"{path}:{key}.cls") if "cls" in parts else None)
            places.append(place)
            names.append(key)
    facts = {"values": values, "cls": codes, "lost": lost, "there": there, "others": others}
    facts |= {"broken": broken, "samples": len(samples)}
    return {
        "places": np.array(places, dtype=np.int64).reshape(-1, 2),
        "names": np.frombuffer("\n".join(names).encode("utf-8", "surrogateescape"), np.uint8),
        "facts": np.frombuffer(json.dumps(facts).encode(), np.uint8),
    }


def _split(table: dict[str, np.ndarray]) -> list[str]:
    return table["names"].tobytes().decode("utf-8", "surrogateescape").split("\n") if len(table["places"]) else []


def _json_at(file, place: tuple[int, int], name: str) -> dict:
    try:
        return parse_facts(os.pread(file.fileno(), place[1], place[0]))
    except ValueError as error:
        raise ValueError(f"{name}: {error}: write the shard again") from None


def _class_code(file, place: tuple[int, int], name: str) -> int | str:
    text = os.pread(file.fileno(), place[1], place[0]).decode("utf-8", errors="replace").strip()
    if not text:
        raise ValueError(f"{name} is empty: it holds a class's number or name")
    return int(text) if text.removeprefix("-").isdecimal() else text
