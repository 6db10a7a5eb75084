"""COCO's detection annotations (`annotations/instances_val2017.json`) → multi-label `LabelledImages` with boxes."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ...labels.label_sets import listed
from .folders import folder_of_images, present_files
from .images import Boxes, LabelledImages, kept_scan, labelled_images
from .pointers import ImagePointers, loose_files
from .values import Wanted

logger = logging.getLogger(__name__)


def is_annotations(path: str) -> bool:
    """Whether it is a .json file."""
    return path.lower().endswith(".json") and Path(path).is_file()


def coco_images(wanted: Wanted) -> LabelledImages:
    """The images of an annotation file with the classes of their objects, crowds included; boxes: every object.

    Classes are the categories by name, in the order of their ids. Images without any object have no label. The images lie in
    a folder of the file's second name (val2017 of instances_val2017) or `images`, one folder up or beside; else in either.
    Raises ValueError for a file of another kind and, unless they are to be skipped, FileNotFoundError for missing images.
    """
    path = Path(str(wanted.path))
    refuse_fields(wanted)
    table, (names, classes) = kept_scan(path, "coco 2", lambda: scan_annotations(path))
    files, stamps, rows = annotated_files(path, names, skip_missing=wanted.skip_missing)
    boxes = annotated_boxes(table).take(rows, len(names))
    pairs = np.unique(np.stack([boxes.image, boxes.class_index]), axis=1)
    counts = np.bincount(pairs[0], minlength=len(rows))
    if (counts == 0).any():
        logger.info("%s: %d of %d images have no object", path, (counts == 0).sum(), len(rows))
    return labelled_images(files, classes, pairs[1], stamps, counts=counts, boxes=boxes)


# ---------------------------------------------------------------- what those who need masks share


def refuse_fields(wanted: Wanted) -> None:
    """Raises ValueError for a selection by a field, which annotations don't have."""
    if wanted.selection:
        told = f"annotations have no field {next(iter(wanted.selection))!r} to select by: leave out the #"
        raise ValueError(f"{wanted.path}: {told}")


def annotated_files(path: Path, names: Sequence[str], *, skip_missing: bool) -> tuple[ImagePointers, list, np.ndarray]:
    """The named images of an annotation file, what fingerprints are of, and which of the names are there, int64 [n]."""
    above, here, split = path.parent.parent, path.parent, path.stem.split("_", 1)[-1]
    named = [base / name for base in (above, here) for name in (split, f"images/{split}", "images")]
    folder = folder_of_images(path, names[0], named, [above, here])
    facts, rows = present_files(folder, names, str(path), skip_missing=skip_missing)
    return *loose_files(folder, [names[i] for i in rows.tolist()], facts), rows


def annotated_boxes(table: dict[str, np.ndarray]) -> Boxes:
    """The boxes of a scan."""
    return Boxes(*(table[name] for name in ("image", "class_index", "xywh", "crowd", "size")))


def scan_annotations(
    path: Path, more: Callable[[list[dict], list[dict]], dict[str, np.ndarray]] | None = None
) -> tuple[dict[str, np.ndarray], tuple[list[str], list[str]]]:
    """Boxes as arrays; names of images and of classes. The half gigabyte of the training set takes json its time.

    more: further arrays, of the file's images and of its annotations, which are in the order of their images.
    """
    try:
        content = json.loads(path.read_bytes())
        images, objects = content["images"], content["annotations"]
        categories = sorted(content["categories"], key=lambda category: category["id"])
        places = {}
        for what, known in (("image_id", images), ("category_id", categories)):
            place = {one["id"]: i for i, one in enumerate(known)}
            places[what] = np.array([place.get(one[what], -1) for one in objects], dtype=np.int64)
        xywh = np.array([one["bbox"] for one in objects], dtype=np.float32).reshape(-1, 4)
        crowd = np.array([bool(one.get("iscrowd", 0)) for one in objects], dtype=bool)
        sizes = np.array([(one.get("width", 0), one.get("height", 0)) for one in images], dtype=np.int32)
        names = [one["file_name"] for one in images], [category["name"] for category in categories]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise ValueError(
            f"{path} holds no COCO detection annotations ({type(error).__name__}: {error}): they have images, categories and "
            "annotations with image_id, category_id and bbox, as instances_val2017.json"
        ) from error
    if not images:
        raise ValueError(f"{path} names no image")
    for what, told, known in (("image_id", "images", images), ("category_id", "categories", categories)):
        lost = [objects[i][what] for i in np.flatnonzero(places[what] < 0).tolist()]
        if lost:
            raise ValueError(
                f"{path}: {len(lost):,} of {len(objects):,} annotations have {what}s that are not among its {len(known):,} "
                f"{told} (the first: {listed(list(dict.fromkeys(lost)))}): they are of another file, or this one was cut"
            )
    order = np.argsort(places["image_id"], kind="stable")
    image, class_index = places["image_id"][order], places["category_id"][order]
    arrays: dict[str, Any] = {
        "image": image,
        "class_index": class_index,
        "xywh": xywh[order],
        "crowd": crowd[order],
        "size": sizes[image],
    }
    if more is not None:
        arrays |= more(images, [objects[i] for i in order.tolist()])
    return arrays, names
