"""ImageNet-1k as it is downloaded: the official tars, read in place, and the flat validation folder → `LabelledImages`.

Classes are WNIDs, sorted: the order of all published classifiers. The labels of the validation images come from the development
kit (`ILSVRC2012_devkit_t12`, unpacked or as .tar.gz) or from Kaggle's `LOC_val_solution.csv`.
"""

from __future__ import annotations

import io
import os
import re
import tarfile
from collections.abc import Sequence
from functools import partial
from glob import glob
from pathlib import Path, PurePosixPath

import numpy as np
import pandas as pd

from ...labels.label_sets import listed
from ..addresses import expand_braces
from ..shards import reader_of, tar_files
from .folders import present_files
from .images import LabelledImages, kept_scan, labelled_images
from .pointers import loose_files, stamp_of, tar_members
from .values import Wanted

OFFICIAL_TAR = re.compile(r"ILSVRC2012_img_(train|val).*\.tar")
CLASS_TAR, CLASS_FOLDER = re.compile(r"n\d{8}\.tar"), re.compile(r"n\d{8}")
VAL_IMAGE = re.compile(r"ILSVRC2012_val_(\d{8})\.JPEG", re.IGNORECASE)
DEVKIT, SOLUTION = "ILSVRC2012_devkit_t12", "LOC_val_solution.csv"
GROUND_TRUTH, META = "ILSVRC2012_validation_ground_truth.txt", "meta.mat"
LEVELS_UP = 4  # from Kaggle's ILSVRC/Data/CLS-LOC/val to the folder that holds its tables


def holds_official_tars(path: str) -> bool:
    """Whether it is one of the two official tars, or a folder or pattern of tars with one of them among them."""
    return any(OFFICIAL_TAR.fullmatch(tar.name) for tar in tars_at(path))


def holds_imagenet_tars(path: str) -> bool:
    """Whether official tars, or training's inner ones (n01440764.tar and so on), are there."""
    return holds_official_tars(path) or any(CLASS_TAR.fullmatch(tar.name) for tar in tars_at(path))


def tars_at(path: str) -> list[Path]:
    """The local tars that an address names, sorted."""
    place = Path(path)
    if place.is_dir():
        return sorted(place.glob("*.tar"))
    found = [path] if place.exists() else [one for pattern in expand_braces(path) for one in glob(pattern)]
    return sorted(Path(one) for one in found if one.endswith(".tar"))


def imagenet_tar_images(wanted: Wanted) -> LabelledImages:
    """The images of an official tar, training's tar of a thousand tars or validation's, or of training's inner tars."""
    wanted.refuse_selection()
    paths = _tars_of_one_kind(wanted)
    stamps = [stamp_of(path) for path in paths]  # before they are indexed
    official = OFFICIAL_TAR.fullmatch(paths[0].name)
    part = official[1] if official else "class tars"
    scans = [kept_scan(path, f"images {part}", partial(_scan, path, part == "train")) for path in paths]
    names = [name for _, found in scans for name in found]
    if not names:
        raise ValueError(f"{listed(paths)}: no image in there: download it again")
    if part == "val":
        labels = _labels_of_validation(names, paths[0].parent)[1]
    elif part == "train":
        labels = [name.partition("/")[0] for name in names]
    else:
        labels = [path.stem for path, (_, found) in zip(paths, scans, strict=True) for _ in found]
    classes, indices = np.unique(labels, return_inverse=True)
    files, of_files = tar_members(paths, stamps, [table["places"] for table, _ in scans], names)
    return labelled_images(files, classes.tolist(), indices, of_files)


def _tars_of_one_kind(wanted: Wanted) -> list[Path]:
    """The tars, if there is one, official, or all are class tars. Raises ValueError, with their numbers, for a mixture, and for
    class tars beside class folders that are not those unpacked from them."""
    parts = [wanted.path] if isinstance(wanted.path, str) else wanted.path
    paths = [path for part in parts for path in tars_at(part)]
    official = [path for path in paths if OFFICIAL_TAR.fullmatch(path.name)]
    of_classes = [path for path in paths if CLASS_TAR.fullmatch(path.name)]
    if len(official or of_classes) < len(paths) or len(official) > 1:
        others = len(paths) - len(official) - len(of_classes)
        raise ValueError(
            f"{wanted.path}: {len(official)} official tar(s) of ImageNet, {len(of_classes)} class tar(s) and {others} other(s) "
            f"are several data sets: give one of them, e.g. {(official or of_classes)[0]}"
        )
    folder = Path(parts[0])
    if of_classes and folder.is_dir():
        unpacked = {entry.name for entry in folder.iterdir() if CLASS_FOLDER.fullmatch(entry.name) and entry.is_dir()}
        packed = {path.stem for path in paths}
        if unpacked and unpacked != packed:
            raise ValueError(
                f"{folder} holds {len(packed):,} class tars and {len(unpacked):,} class folders, {len(packed & unpacked):,} of "
                "the same name: move the tars away if all are unpacked, else the folders"
            )
    return paths


def _scan(path: Path, is_nested: bool) -> tuple[dict[str, np.ndarray], list[str]]:
    """Places and names of the files of a tar or, if it is nested, of the tars within it, by "<class>/<name>"."""
    found, where = [], str(path)
    try:
        with open(path, "rb") as file:
            read = reader_of(file)
            for name, place in tar_files(file, read):
                if is_nested:
                    inner, where = PurePosixPath(name), f"{path}:{name}"
                    if not CLASS_TAR.fullmatch(inner.name):
                        raise ValueError("n01440764.tar and the like are expected")
                    found += [(f"{inner.stem}/{image}", at) for image, at in tar_files(file, read, place)]
                    where = str(path)
                else:
                    found.append((name, place))
    except ValueError as error:
        raise ValueError(f"{where} is no whole, uncompressed tar of ImageNet's ({error}): download it again") from error
    return {"places": np.array([place for _, place in found], np.int64).reshape(-1, 2)}, [name for name, _ in found]


# ---------------------------------------------------------------- the validation images


def is_flat_validation(path: str) -> bool:
    """Whether ILSVRC2012_val_00000001.JPEG and the like lie in the folder itself."""
    return any(VAL_IMAGE.fullmatch(file.name) for file in Path(path).glob("ILSVRC2012_val_*"))


def flat_validation_images(wanted: Wanted) -> LabelledImages:
    """The validation images of a folder that holds them side by side; classes are those of all known labels."""
    wanted.refuse_selection()
    folder = Path(str(wanted.path))
    names = sorted(filter(VAL_IMAGE.fullmatch, os.listdir(folder)))
    facts, rows = present_files(folder, names, str(folder), skip_missing=True)
    names = [names[i] for i in rows.tolist()]
    classes, labels = _labels_of_validation(names, folder)
    files, of_files = loose_files(folder, names, facts)
    return labelled_images(files, classes, np.searchsorted(classes, labels), of_files)


def _labels_of_validation(names: Sequence[str], folder: Path) -> tuple[list[str], list[str]]:
    """All WNIDs, sorted, and that of each of these images."""
    known, labels = validation_labels(folder), []
    for name in names:
        match = VAL_IMAGE.fullmatch(PurePosixPath(name).name)
        if match is None or int(match[1]) not in known:
            raise ValueError(f"{name} is no validation image with a label: their names are like ILSVRC2012_val_00000001.JPEG")
        labels.append(known[int(match[1])])
    return sorted(set(known.values())), labels


def validation_labels(folder: Path) -> dict[int, str]:
    """WNID of each validation image by its number (1 to 50,000), from a development kit or solution file here or above.

    Raises FileNotFoundError, naming both, if there is neither.
    """
    folder = folder.resolve()
    for base in [folder, *folder.parents[:LEVELS_UP]]:
        for data in (base / DEVKIT / "data", base / "data"):
            if (data / GROUND_TRUTH).is_file() and (data / META).is_file():
                return _labels_of_kit((data / GROUND_TRUTH).read_bytes(), (data / META).read_bytes(), data.parent)
        for archive in (base / f"{DEVKIT}.tar.gz", base / f"{DEVKIT}.tgz"):
            if archive.is_file():
                with tarfile.open(archive) as tar:
                    parts = ((member.name, tar.extractfile(member)) for member in tar if member.isfile())
                    kit = {PurePosixPath(name).name: part.read() for name, part in parts if part}
                if not {GROUND_TRUTH, META} <= kit.keys():
                    raise ValueError(f"{archive} lacks {GROUND_TRUTH} or {META}: download it again")
                return _labels_of_kit(kit[GROUND_TRUTH], kit[META], archive)
        if (base / SOLUTION).is_file():  # lines like ILSVRC2012_val_00048981,n03995372 85 1 499 272: class, then boxes
            lines = pd.read_csv(base / SOLUTION)
            numbers = lines["ImageId"].str.removesuffix(".JPEG").str[-8:].astype(int)
            return dict(zip(numbers.tolist(), lines["PredictionString"].str.split().str[0].tolist(), strict=True))
    raise FileNotFoundError(
        f"{folder}: the labels of ImageNet's validation images are not here: put {DEVKIT}.tar.gz (or unpacked) or Kaggle's "
        f"{SOLUTION} beside them"
    )


def _labels_of_kit(truth: bytes, meta: bytes, where: Path) -> dict[int, str]:
    """Numbers of the ground truth are the kit's own (ILSVRC2012_ID), not those of the sorted WNIDs."""
    from scipy.io import loadmat  # here: it takes its time, and few ask

    synsets = loadmat(io.BytesIO(meta), squeeze_me=True)["synsets"]
    wnids = {int(one["ILSVRC2012_ID"]): str(one["WNID"]) for one in synsets if int(one["num_children"]) == 0}
    codes = [int(line) for line in truth.split()]
    unknown = set(codes) - set(wnids)
    if unknown:
        raise ValueError(f"{where}: classes {listed(sorted(unknown))} of {GROUND_TRUTH} are not in {META}: download it again")
    return {number: wnids[code] for number, code in enumerate(codes, start=1)}
