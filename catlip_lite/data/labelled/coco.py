"""COCO's detection annotations (`annotations/instances_val2017.json`) → multi-label `LabelledImages` with boxes."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import numpy as np

from ..index_cache import cached_index
from .folders import loose_images, present_files
from .images import Boxes, LabelledImages, refuse_alike, some
from .values import Wanted

logger = logging.getLogger(__name__)


def is_annotations(path: str) -> bool:
    """Whether it is a .json file."""
    return path.lower().endswith(".json") and Path(path).is_file()


def coco_images(wanted: Wanted) -> LabelledImages:
    """The images of an annotation file with the classes of their objects, crowds included; boxes: every object.

    Classes are the categories by name, in the order of their ids. Images without any object have no label. The images lie in
    a folder of the file's second name (val2017 of instances_val2017) or `images`, one folder up or beside; else in either.
    Raises ValueError for a file of another kind and, unless selection skips them, for images that are not there.
    """
    path, selection = Path(wanted.path), wanted.selection
    if selection.wanted:
        raise ValueError(f"{path}: annotations have no field {selection.fields[0]!r} to select by: leave out the #")
    table = cached_index(path, "coco", lambda: _arrays(path))
    names, classes = (json.loads(table[name].tobytes()) for name in ("names", "classes"))
    refuse_alike(classes, str(path))
    folder = _image_folder(path, names[0])
    facts, rows = present_files(folder, names, selection, str(path))
    boxes = Boxes(*(table[name] for name in ("image", "class_index", "xywh", "crowd", "size"))).take(rows, len(names))
    pairs = np.unique(np.stack([boxes.image, boxes.class_index]), axis=1)
    counts = np.bincount(pairs[0], minlength=len(rows))
    if (counts == 0).any():
        logger.info("%s: %d of %d images have no object", path, (counts == 0).sum(), len(rows))
    files = [(names[i], *fact) for i, fact in zip(rows.tolist(), facts.tolist(), strict=True)]
    return loose_images(folder, classes, pairs[1], files, counts=counts, boxes=boxes)


class _Dangling(ValueError):
    """An annotation of something that the file does not have."""


def _arrays(path: Path) -> dict[str, np.ndarray]:
    """The file's contents as arrays; json takes its time for the half gigabyte of the training set."""
    try:
        content = json.loads(path.read_bytes())
        categories = sorted(content["categories"], key=lambda category: category["id"])
        index = {category["id"]: i for i, category in enumerate(categories)}
        row = {image["id"]: i for i, image in enumerate(content["images"])}
        objects = content["annotations"]
        _check_references(path, objects, {"image_id": ("images", row), "category_id": ("categories", index)})
        image = np.array([row[one["image_id"]] for one in objects], dtype=np.int64)
        class_index = np.array([index[one["category_id"]] for one in objects], dtype=np.int64)
        xywh = np.array([one["bbox"] for one in objects], dtype=np.float32).reshape(-1, 4)
        crowd = np.array([bool(one.get("iscrowd", 0)) for one in objects], dtype=bool)
        names = [entry["file_name"] for entry in content["images"]]
        sizes = np.array([(entry.get("width", 0), entry.get("height", 0)) for entry in content["images"]], dtype=np.int32)
        classes = [category["name"] for category in categories]
    except _Dangling:
        raise
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise ValueError(
            f"{path} holds no COCO detection annotations ({type(error).__name__}: {error}): they have images, categories and "
            "annotations with image_id, category_id and bbox, as instances_val2017.json"
        ) from error
    if not names:
        raise ValueError(f"{path} names no image")
    order = np.argsort(image, kind="stable")
    return {
        "image": image[order],
        "class_index": class_index[order],
        "xywh": xywh[order],
        "crowd": crowd[order],
        "size": sizes[image[order]],
        "names": np.frombuffer(json.dumps(names).encode(), np.uint8),
        "classes": np.frombuffer(json.dumps(classes).encode(), np.uint8),
    }


def _check_references(path: Path, objects: list[dict], known: dict[str, tuple[str, dict]]) -> None:
    """Raises ValueError if objects are of images or categories that the file does not have."""
    for field, (told, ids) in known.items():
        lost = [one[field] for one in objects if one[field] not in ids]
        if lost:
            raise _Dangling(
                f"{path}: {len(lost):,} of {len(objects):,} annotations have {field}s that are not among its {len(ids):,} "
                f"{told} (the first: {some(list(dict.fromkeys(lost)))}): they are of another file, or this one was cut"
            )


def _image_folder(path: Path, first: str) -> Path:
    split = path.stem.split("_", 1)[-1]
    above, here = path.parent.parent, path.parent
    places = [base / name for base in (above, here) for name in (split, f"images/{split}", "images", "")]
    found = next((place for place in places if (place / first).is_file()), None)
    named = next((place for place in places[:-1] if place.is_dir() and place not in (above, here)), None)
    if found or named:
        return found or named
    raise FileNotFoundError(
        f"{path}: its first image, {first}, is in none of {', '.join(map(str, places))}: put the images there"
    )
