"""ImageNet-1k as it is downloaded: the official tars, read in place, and the flat validation folder → `LabelledImages`.

Classes are WNIDs, sorted: the order of all published classifiers. The labels of the validation images come from the development
kit (`ILSVRC2012_devkit_t12`, unpacked or as .tar.gz) or from Kaggle's `LOC_val_solution.csv`.
"""

from __future__ import annotations

import csv
import io
import re
import tarfile
from glob import glob
from pathlib import Path, PurePosixPath

import numpy as np

from ..addresses import expand_braces
from ..index_cache import cached_index
from ..shards import reader_of, tar_files
from .folders import images_below, loose_images, without_hollow
from .images import LabelledImages, labelled_images, resolved, some
from .pointers import ImagePointers, Stamp, stamp_of
from .values import Wanted

TRAIN_TAR, VAL_TAR = re.compile(r"ILSVRC2012_img_train.*\.tar"), re.compile(r"ILSVRC2012_img_val.*\.tar")
CLASS_TAR, CLASS_FOLDER = re.compile(r"(n\d{8})\.tar"), re.compile(r"n\d{8}")
VAL_IMAGE = re.compile(r"ILSVRC2012_val_(\d{8})\.JPEG", re.IGNORECASE)
DEVKIT, SOLUTION = "ILSVRC2012_devkit_t12", "LOC_val_solution.csv"
GROUND_TRUTH = "ILSVRC2012_validation_ground_truth.txt"
LEVELS_UP = 4  # from Kaggle's ILSVRC/Data/CLS-LOC/val to the folder that holds its tables


def is_imagenet_tar(path: Path) -> bool:
    """Whether it is one of the two official tars, by its name."""
    return bool(TRAIN_TAR.fullmatch(path.name) or VAL_TAR.fullmatch(path.name))


def are_official_tars(path: str) -> bool:
    """Whether it is one of the official tars, or a folder or pattern of tars with one of them among them."""
    return any(map(is_imagenet_tar, tars_at(path)))


def are_class_tars(path: str) -> bool:
    """Whether tars called n01440764.tar and so on are there."""
    return any(CLASS_TAR.fullmatch(tar.name) for tar in tars_at(path))


def tars_at(path: str) -> list[Path]:
    """The local tars that an address names, sorted."""
    place = Path(path)
    if place.is_dir():
        return sorted(place.glob("*.tar"))
    if place.is_file():
        return [place] if place.suffix == ".tar" else []
    return sorted(Path(found) for pattern in expand_braces(path) for found in glob(pattern) if found.endswith(".tar"))


def official_tar_images(wanted: Wanted) -> LabelledImages:
    """The images of an official tar: training's tar of a thousand tars, or validation's."""
    wanted.refuse_selection()
    path = _of_one_kind(wanted)[0]
    stamps = [stamp_of(str(path))]
    if VAL_TAR.fullmatch(path.name):
        table = cached_index(path, "tar", lambda: _table(_files_of(path)))
        labels = validation_labels(path.parent)
        return _of_tars([path], stamps, [table], [_validation_label(name, labels) for name in _names(table)])
    table = cached_index(path, "tar of tars", lambda: _table(_files_of(path, nested=True)))
    return _of_tars([path], stamps, [table], [name.split("/")[0] for name in _names(table)])


def class_tar_images(wanted: Wanted) -> LabelledImages:
    """The images of training's inner tars, n01440764.tar and so on, unpacked from the large one."""
    wanted.refuse_selection()
    paths, folder = _of_one_kind(wanted), Path(str(wanted.path))
    if folder.is_dir():
        unpacked = {entry.name for entry in folder.iterdir() if CLASS_FOLDER.fullmatch(entry.name) and entry.is_dir()}
        packed = {path.stem for path in paths}
        if unpacked and unpacked != packed:
            raise ValueError(
                f"{folder} holds {len(packed):,} class tars and {len(unpacked):,} class folders, {len(packed & unpacked):,} of "
                "the same name: move the tars away if all are unpacked, else the folders"
            )
    stamps = [stamp_of(str(path)) for path in paths]
    tables = [cached_index(path, "tar", lambda path=path: _table(_files_of(path))) for path in paths]
    labels = [CLASS_TAR.fullmatch(path.name)[1] for path, table in zip(paths, tables, strict=True) for _ in table["places"]]
    return _of_tars(paths, stamps, tables, labels)


def _of_one_kind(wanted: Wanted) -> list[Path]:
    """The tars, if all are class tars, or there is one, official. Raises ValueError, with their numbers, for a mixture."""
    paths = [path for part in wanted.parts for path in tars_at(part)]
    official = [path for path in paths if is_imagenet_tar(path)]
    of_classes = [path for path in paths if CLASS_TAR.fullmatch(path.name)]
    if len(official or of_classes) < len(paths) or len(official) > 1:
        others = len(paths) - len(official) - len(of_classes)
        raise ValueError(
            f"{wanted.path}: {len(official)} official tar(s) of ImageNet, {len(of_classes)} class tar(s) and {others} other(s) "
            f"are several data sets: give one of them, e.g. {(official or of_classes)[0]}"
        )
    return paths


def _files_of(path: Path, nested: bool = False) -> list[tuple[str, tuple[int, int]]]:
    """Name and place of every file of a tar; nested: of the tars within it, by "<class>/<name>"."""
    with open(path, "rb") as file:
        read, name = reader_of(file), str(path)
        try:
            if not nested:
                return list(tar_files(file, read))
            found = []
            for inner, place in tar_files(file, read):
                name = f"{path}:{inner}"
                match = CLASS_TAR.fullmatch(PurePosixPath(inner).name)
                if match is None:
                    raise ValueError("n01440764.tar and the like are expected")
                found += [(f"{match[1]}/{image}", at) for image, at in tar_files(file, read, place)]
                name = str(path)
            return found
        except ValueError as error:
            raise ValueError(f"{name} is no whole, uncompressed tar of ImageNet's ({error}): download it again") from error


def is_flat_validation(path: str) -> bool:
    """Whether ILSVRC2012_val_00000001.JPEG and the like lie in the folder itself."""
    return any(VAL_IMAGE.fullmatch(file.name) for file in Path(path).glob("ILSVRC2012_val_*"))


def flat_validation_images(wanted: Wanted) -> LabelledImages:
    """The validation images of a folder that holds them side by side."""
    wanted.refuse_selection()
    folder = Path(wanted.path)
    labels = validation_labels(folder)
    found = [file for file in images_below(folder, "", depth=0)[0] if VAL_IMAGE.fullmatch(file[0])]
    files = without_hollow(folder, found)
    classes = sorted(set(labels.values()))
    place = {wnid: i for i, wnid in enumerate(classes)}
    return loose_images(folder, classes, np.array([place[_validation_label(file[0], labels)] for file in files]), files)


def _table(files: list[tuple[str, tuple[int, int]]]) -> dict[str, np.ndarray]:
    names = "\n".join(name for name, _ in files)
    places = np.array([place for _, place in files], dtype=np.int64).reshape(-1, 2)
    return {"places": places, "names": np.frombuffer(names.encode("utf-8", "surrogateescape"), np.uint8)}


def _names(table: dict[str, np.ndarray]) -> list[str]:
    return table["names"].tobytes().decode("utf-8", "surrogateescape").split("\n") if len(table["places"]) else []


def _of_tars(paths: list[Path], stamps: list[Stamp], tables: list[dict[str, np.ndarray]], labels: list[str]) -> LabelledImages:
    """stamps: of the tars, from before they were indexed."""
    names, places = [name for table in tables for name in _names(table)], np.concatenate([t["places"] for t in tables])
    if not names:
        raise ValueError(f"{some(paths)}: no image in there: download it again")
    classes, indices = np.unique(np.array(labels), return_inverse=True)
    files = ImagePointers.of_tars(list(map(str, paths)), stamps, [len(table["places"]) for table in tables], places, names)
    return labelled_images(
        files, classes.tolist(), indices, [files.names.text, places, files.file, resolved(paths), np.array(stamps)]
    )


# --- the labels of the validation images --------------------------------------------------------------------------------------


def validation_labels(folder: Path) -> dict[int, str]:
    """WNID of each validation image by its number (1 to 50,000), from a development kit or solution file here or above.

    Raises FileNotFoundError, naming both, if there is neither.
    """
    folder = folder.resolve()
    for base in [folder, *list(folder.parents)[:LEVELS_UP]]:
        for kit in (base / DEVKIT, base):
            if (kit / "data" / GROUND_TRUTH).is_file() and (kit / "data" / "meta.mat").is_file():
                data = kit / "data"
                return _labels_of_kit((data / GROUND_TRUTH).read_text(encoding="utf-8"), (data / "meta.mat").read_bytes(), kit)
        archive = next((path for path in (base / f"{DEVKIT}.tar.gz", base / f"{DEVKIT}.tgz") if path.is_file()), None)
        if archive is not None:
            return _labels_of_archive(archive)
        if (base / SOLUTION).is_file():
            return _labels_of_solution(base / SOLUTION)
    raise FileNotFoundError(
        f"{folder}: the labels of ImageNet's validation images are not here: put {DEVKIT}.tar.gz (or unpacked) or Kaggle's "
        f"{SOLUTION} beside them"
    )


def _validation_label(name: str, labels: dict[int, str]) -> str:
    match = VAL_IMAGE.fullmatch(PurePosixPath(name).name)
    if match is None or int(match[1]) not in labels:
        raise ValueError(f"{name} is no validation image with a label: they are called ILSVRC2012_val_00000001.JPEG and so on")
    return labels[int(match[1])]


def _labels_of_archive(archive: Path) -> dict[int, str]:
    found = {}
    with tarfile.open(archive) as tar:
        for member in tar:
            name = PurePosixPath(member.name).name
            if name in (GROUND_TRUTH, "meta.mat"):
                found[name] = tar.extractfile(member).read()
    if len(found) < 2:
        raise ValueError(f"{archive} lacks {GROUND_TRUTH} or meta.mat: download it again")
    return _labels_of_kit(found[GROUND_TRUTH].decode(), found["meta.mat"], archive)


def _labels_of_kit(truth: str, meta: bytes, where: Path) -> dict[int, str]:
    """Numbers of the ground truth are the kit's own (ILSVRC2012_ID), not those of the sorted WNIDs."""
    try:
        from scipy.io import loadmat
    except ModuleNotFoundError:
        raise ModuleNotFoundError(f"{where}: meta.mat is read by scipy: run `pip install scipy`") from None
    synsets = loadmat(io.BytesIO(meta), squeeze_me=True)["synsets"]
    wnids = {int(one["ILSVRC2012_ID"]): str(one["WNID"]) for one in synsets if int(one["num_children"]) == 0}
    codes = [int(line) for line in truth.split()]
    unknown = set(codes) - set(wnids)
    if unknown:
        raise ValueError(f"{where}: classes {some(sorted(unknown))} of {GROUND_TRUTH} are not in meta.mat: download it again")
    return {number: wnids[code] for number, code in enumerate(codes, start=1)}


def _labels_of_solution(path: Path) -> dict[int, str]:
    """Kaggle's lines: ILSVRC2012_val_00048981,n03995372 85 1 499 272 (class, then the boxes)."""
    with open(path, newline="", encoding="utf-8") as file:
        rows = [(row["ImageId"], row["PredictionString"]) for row in csv.DictReader(file)]
    return {int(name.removesuffix(".JPEG")[-8:]): boxes.split()[0] for name, boxes in rows}
