"""Folders of class folders → `LabelledImages`, and the files below any folder: found, looked up, counted, many side by side."""

from __future__ import annotations

import logging
import os
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from ...labels import LabelSet
from ...labels.label_sets import listed
from ..shards import IMAGE_EXTENSIONS
from .images import UNDERSTOOD, LabelledImages, counted, labelled_images, ordered_classes
from .pointers import Stamp, loose_files, stamp_of
from .values import Wanted

logger = logging.getLogger(__name__)

EXTENSIONS = tuple(f".{extension}" for extension in IMAGE_EXTENSIONS)
SPLITS = {"train", "training", "val", "valid", "validation", "test", "testing"}
SCANS = 8  # side by side: on network disks each waits for its server
FILES_A_SCAN = 1000


def class_folder_images(wanted: Wanted) -> LabelledImages:
    """The images of a folder of class folders, named by these; in a class folder they lie directly or one folder deeper."""
    wanted.refuse_selection()
    folder = Path(str(wanted.path))
    inside = next((folder / name for name in ("ILSVRC/Data/CLS-LOC", "Data/CLS-LOC") if (folder / name).is_dir()), None)
    if inside:
        raise ValueError(f"{folder} holds ImageNet's splits: give {inside / 'train'} or {inside / 'val'}")
    entries = sorted(visible(folder), key=lambda entry: entry.name)
    below = [entry.name for entry in entries if entry.is_dir()]
    if not below:
        found = f"{len(entries):,} file(s) ({listed([entry.name for entry in entries])})" if entries else "nothing"
        raise FileNotFoundError(f"{folder} holds {found}, no class folders: {UNDERSTOOD}")
    splits = [name for name in below if name.lower() in SPLITS]
    deeper = [inner for entry in visible(folder / splits[0]) if entry.is_dir() for inner in visible(entry)] if splits else []
    if len(splits) > 1 or (splits and (len(below) == 1 or any(map(is_image, deeper)))):
        raise ValueError(f"{folder} holds {', '.join(splits)}: give one of them, e.g. {folder / splits[0]}")
    folder_of = _named_classes(below)
    classes = ordered_classes(folder_of)
    files, indices = _scan_folders(folder, [folder_of[name] for name in classes])
    if not files:
        raise FileNotFoundError(f"{folder}: its {len(below)} folder(s) ({listed(below)}) hold no images")
    facts, rows = present_files(folder, files, str(folder), skip_missing=True)  # a link that leads nowhere
    there, indices = np.unique(indices[rows], return_inverse=True)
    empty = [folder_of[classes[i]] for i in np.setdiff1d(np.arange(len(classes)), there).tolist()]
    if empty:
        logger.warning("%s: %d class folder(s) hold no image and are no classes here: %s", folder, len(empty), listed(empty))
    if len(below) == 1 and any(entry.is_dir() for entry in visible(folder / below[0])):
        raise ValueError(f"{folder} has one class folder, {below[0]}: is {folder / below[0]} meant?")
    pointers, stamps = loose_files(folder, [files[i] for i in rows.tolist()], facts)
    return labelled_images(pointers, [classes[i] for i in there.tolist()], indices, stamps)


def visible(folder: str | os.PathLike[str]) -> list[os.DirEntry]:
    """What lies in a folder, but for hidden files and folders."""
    return [entry for entry in os.scandir(folder) if not entry.name.startswith(".")]


def is_image(entry: os.DirEntry) -> bool:
    """Whether it is one by its name."""
    return entry.name.lower().endswith(EXTENSIONS)


def _named_classes(folders: list[str]) -> dict[str, str]:
    """Folders by class name: their own, or Places365's, where a hyphen of a folder ("arena-hockey") stands for a slash."""
    official = {}
    if any("-" in name for name in folders):
        official = {name.replace("/", "-"): name for name in LabelSet.load("places365").names}
    return {official[name]: name for name in folders} if official.keys() >= set(folders) else {name: name for name in folders}


def _scan_folders(folder: Path, names: Sequence[str]) -> tuple[list[str], np.ndarray]:
    """The image files below several of its folders, sorted within each, and which folder each is of, int64; others are told."""

    def scan(name: str) -> tuple[list[str], list[str]]:
        entries, start = visible(folder / name), len(str(folder / name))
        entries += [inner for entry in entries if not is_image(entry) and entry.is_dir() for inner in visible(entry)]
        found = sorted(name + entry.path[start:] for entry in entries if is_image(entry))
        return found, [entry.name for entry in entries if not is_image(entry) and not entry.is_dir()]

    with ThreadPoolExecutor(SCANS) as pool:
        found, others = zip(*pool.map(scan, names), strict=True)
    kinds = Counter(os.path.splitext(name)[1].lower() or "no extension" for names in others for name in names)
    if kinds:
        told = (folder, f"{kinds.total():,}", counted(kinds))
        logger.warning("%s: %s file(s) are no images by their names and passed over: %s", *told)
    return [name for names in found for name in names], np.repeat(np.arange(len(found)), list(map(len, found)))


# ---------------------------------------------------------------- files below a folder


def present_files(
    folder: Path, names: Sequence[str], where: str, *, skip_missing: bool = False
) -> tuple[np.ndarray, np.ndarray]:
    """Bytes and time of change of the named files that are there and not empty, int64 [n, 2], and which they are, int64 [n].

    What is left out is told. Raises FileNotFoundError if files are missing, unless these are skipped.
    """
    parts = [names[start : start + FILES_A_SCAN] for start in range(0, len(names), FILES_A_SCAN)]
    with ThreadPoolExecutor(SCANS) as pool:
        looked = pool.map(lambda part: [_facts(os.path.join(folder, name)) for name in part], parts)
        facts = np.array([fact for part in looked for fact in part], dtype=np.int64).reshape(-1, 2)
    missing, hollow = ([names[i] for i in np.flatnonzero(chosen).tolist()] for chosen in (facts[:, 0] < 0, facts[:, 0] == 0))
    if missing:
        told = f"{where}: {len(missing):,} of {len(names):,} images ({len(missing) / len(names):.1%}) are not in {folder}"
        told += f" (the first: {listed(missing[:3])})"
        if len(missing) == len(names):
            raise FileNotFoundError(f"{told}: put the images there; relative paths count from there")
        if not skip_missing:
            raise FileNotFoundError(f"{told}: add them, or go on without them by adding #missing=skip to the address")
        logger.warning("%s and are left out", told)
    if len(hollow) + len(missing) == len(names):
        raise ValueError(f"{where}: none of its {len(names):,} images has any bytes: copy them again")
    if hollow:
        logger.warning("%s: %d file(s) of zero bytes are left out: %s", where, len(hollow), listed(hollow))
    there = np.flatnonzero(facts[:, 0] > 0)
    return facts[there], there


def _facts(path: str) -> Stamp:
    try:
        return stamp_of(path)
    except (FileNotFoundError, NotADirectoryError):  # also a link that leads nowhere
        return -1, 0


def folder_of_images(path: Path, first: str, named: Sequence[Path], others: Sequence[Path] = ()) -> Path:
    """The folder that holds the first image of a list, else the first of the `named` ones that is there."""
    places = [*named, *others]
    found = next((place for place in places if (place / first).is_file()), None)
    found = found or next((place for place in named if place.is_dir()), None)
    if found is None:
        told = ", ".join(map(str, places))
        raise FileNotFoundError(f"{path}: its first image, {first}, is in none of {told}: put the images there")
    return found
