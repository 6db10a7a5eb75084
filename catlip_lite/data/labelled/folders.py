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
from ..shards import IMAGE_EXTENSIONS
from .images import UNDERSTOOD, LabelledImages, counted, labelled_images, ordered_classes, refuse_alike, resolved, some
from .pointers import ImagePointers, Names
from .values import Selection, Wanted

logger = logging.getLogger(__name__)

EXTENSIONS = tuple(f".{extension}" for extension in IMAGE_EXTENSIONS)
SPLITS = {"train", "training", "val", "valid", "validation", "test", "testing"}
SCANS = 8  # side by side: on network disks each waits for its server
FILES_A_SCAN = 1000

FileFacts = tuple[str, int, int]  # relative path, bytes, time of change in ns


def is_folder(path: str) -> bool:
    """Whether it is a folder of this machine."""
    return Path(path).is_dir()


def class_folder_images(wanted: Wanted) -> LabelledImages:
    """The images of a folder of class folders, named by these; in a class folder they lie directly or one folder deeper.

    Hidden files and folders are passed over; empty class folders and empty files are left out, with a warning.
    """
    wanted.refuse_selection()
    folder = Path(wanted.path)
    inside = next((folder / name for name in ("ILSVRC/Data/CLS-LOC", "Data/CLS-LOC") if (folder / name).is_dir()), None)
    if inside:
        raise ValueError(f"{folder} holds ImageNet's splits: give {inside / 'train'} or {inside / 'val'}")
    names = sorted(entry.name for entry in os.scandir(folder) if not entry.name.startswith(".") and entry.is_dir())
    if not names:
        there = sorted(entry.name for entry in folder.iterdir() if not entry.name.startswith("."))
        found = f"{len(there):,} file(s) ({some(there)})" if there else "nothing"
        raise FileNotFoundError(f"{folder} holds {found}, no class folders: {UNDERSTOOD}")
    splits = [name for name in names if name.lower() in SPLITS]
    if len(splits) > 1 or (splits and (len(names) == 1 or _holds_class_folders(folder / splits[0]))):
        raise ValueError(f"{folder} holds {', '.join(splits)}: give one of them, e.g. {folder / splits[0]}")
    official = _places_names(names)
    classes = ordered_classes([official.get(name, name) for name in names])
    refuse_alike(names, str(folder))
    folder_of = {official.get(name, name): name for name in names}
    found = scan_folders(folder, [folder_of[name] for name in classes])
    if not any(found):
        raise FileNotFoundError(f"{folder}: its {len(names)} folder(s) ({some(names)}) hold no images")
    empty = [folder_of[name] for name, files in zip(classes, found, strict=True) if not files]
    if empty:
        logger.warning("%s: %d class folder(s) hold no image and are no classes here: %s", folder, len(empty), some(empty))
    whole = {file[0] for file in without_hollow(folder, [file for files in found for file in files])}
    kept = [[file for file in files if file[0] in whole] for files in found]
    classes, kept = zip(*[(name, files) for name, files in zip(classes, kept, strict=True) if files], strict=True)
    if len(classes) == 1 and len(names) == 1 and _holds_folders(folder / names[0]):
        raise ValueError(f"{folder} has one class folder, {names[0]}: is {folder / names[0]} meant?")
    indices = np.repeat(np.arange(len(classes)), [len(files) for files in kept])
    return loose_images(folder, list(classes), indices, [file for files in kept for file in files])


def _holds_folders(folder: Path) -> bool:
    return any(entry.is_dir() for entry in os.scandir(folder))


def _holds_class_folders(folder: Path) -> bool:
    below = (entry.path for entry in os.scandir(folder) if entry.is_dir() and not entry.name.startswith("."))
    return any(name.lower().endswith(EXTENSIONS) for path in below for name in os.listdir(path))


def _places_names(folders: list[str]) -> dict[str, str]:
    """Places365's names of folders in which a hyphen stands for a slash ("arena-hockey"), if all folders are its classes."""
    if not any("-" in name for name in folders):
        return {}
    by_folder = {name.replace("/", "-"): name for name in LabelSet.load("places365").names}
    return by_folder if all(name in by_folder for name in folders) else {}


# ---------------------------------------------------------------- files below a folder


def loose_images(folder: Path, classes: list[str], indices: np.ndarray, files: list[FileFacts], **labels) -> LabelledImages:
    """Labelled images of files below a folder. labels: what else `labelled_images` takes."""
    names = [file[0] for file in files]
    facts = np.array([file[1:] for file in files], dtype=np.int64)
    stamps = [resolved([folder]), Names.of(names).text, facts]
    return labelled_images(ImagePointers.of_files(str(folder), names), classes, indices, stamps, **labels)


def images_below(folder: Path, name: str, depth: int = 1) -> tuple[list[FileFacts], Counter]:
    """The image files of `folder/name` and, one folder deeper, of its folders, sorted; and the other files by extension.

    Hidden ones are passed over.
    """
    found, others = [], Counter()
    for entry in os.scandir(folder / name):
        if entry.name.startswith("."):
            continue
        path = f"{name}/{entry.name}" if name else entry.name
        if entry.name.lower().endswith(EXTENSIONS):
            found.append((path, *_facts(entry.path)))
        elif entry.is_dir():
            if depth:
                deeper, other = images_below(folder, path, depth - 1)
                found += deeper
                others.update(other)
        else:
            others[os.path.splitext(entry.name)[1].lower() or "no extension"] += 1
    return sorted(found), others


def scan_folders(folder: Path, names: Sequence[str]) -> list[list[FileFacts]]:
    """The images below several of its folders; other files are counted in a warning."""
    with ThreadPoolExecutor(SCANS) as pool:
        scanned = list(pool.map(lambda name: images_below(folder, name), names))
    others = sum((other for _, other in scanned), Counter())
    if others:
        told = (folder, f"{others.total():,}", counted(others))
        logger.warning("%s: %s file(s) are no images by their names and passed over: %s", *told)
    return [found for found, _ in scanned]


def without_hollow(folder: Path, files: Sequence[FileFacts]) -> list[FileFacts]:
    """The files that have any bytes; others are told in a warning. Raises ValueError if none has."""
    hollow = [file[0] for file in files if file[1] <= 0]
    if hollow and len(hollow) == len(files):
        raise ValueError(f"{folder}: all {len(hollow):,} image files are of zero bytes: copy them again")
    if hollow:
        logger.warning("%s: %d file(s) of zero bytes are left out: %s", folder, len(hollow), some(hollow))
    return [file for file in files if file[1] > 0]


def present_files(folder: Path, names: Sequence[str], selection: Selection, where: str) -> tuple[np.ndarray, np.ndarray]:
    """Size and time of change of the named files that are there and not empty, int64 [n, 2], and which they are, int64 [n].

    Files of zero bytes are left out with a warning; so are missing ones if `selection` says so, else FileNotFoundError tells
    how many are missing, and which first.
    """
    parts = [names[start : start + FILES_A_SCAN] for start in range(0, len(names), FILES_A_SCAN)]
    with ThreadPoolExecutor(SCANS) as pool:
        looked = pool.map(lambda part: [_facts(os.path.join(folder, name)) for name in part], parts)
        facts = np.array([fact for part in looked for fact in part], dtype=np.int64).reshape(-1, 2)
    missing, hollow = np.flatnonzero(facts[:, 0] < 0), np.flatnonzero(facts[:, 0] == 0)
    if len(missing):
        told = f"{where}: {len(missing):,} of {len(names):,} images ({len(missing) / len(names):.1%}) are not in {folder}"
        told += f" (the first: {some([names[i] for i in missing[:3]])})"
        if len(missing) == len(names):
            raise FileNotFoundError(f"{told}: put the images there; relative paths count from there")
        if not selection.skip_missing:
            raise FileNotFoundError(f"{told}: add them, or go on without them by adding #missing=skip to the address")
        logger.warning("%s and are left out", told)
    if len(hollow):
        logger.warning(
            "%s: %d file(s) of zero bytes are left out: %s", where, len(hollow), some([names[i] for i in hollow[:5]])
        )
    there = np.flatnonzero(facts[:, 0] > 0)
    if not len(there):
        raise ValueError(f"{where}: none of its {len(names):,} images has any bytes")
    return facts[there], there


def _facts(path: str) -> tuple[int, int]:
    """Bytes and time of change; -1, 0 if it is not there."""
    try:
        facts = os.stat(path)
    except (FileNotFoundError, NotADirectoryError):  # also a link that leads nowhere
        return -1, 0
    return facts.st_size, facts.st_mtime_ns
