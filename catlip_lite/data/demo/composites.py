"""Demo composites: drawings cut out and laid on coloured grounds, with the mask of each, for dense tasks without a download.

Between the demo corpus and `load_segmentation` or `load_objects` ("demo/composites_train", "demo/composites_test"). Drawings on
painted grounds, not photos: what they show is whether the path works and which choice is better, not how ADE20k or COCO come
out. Train scenes take the pre-training vendors' and Google's drawings, test scenes Samsung's, a hand that training never saw.
Written once, in seconds, to `<cache>/demo-composites-<version>` as both downloads lie: `images/<split>/*.png` with ADE20k's
`annotations/<split>/*.png` and class list, and COCO's `annotations/instances_<split>.json`. The artwork keeps its owners'
licences and never leaves the user's cache.
"""

from __future__ import annotations

import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image
from scipy import ndimage

from ...cache import cache_folder
from .drawings import VERSION as VERSION_OF_DRAWINGS
from .drawings import whole_folder
from .scenes import SPLITS, drawings_of

VERSION = f"1-{VERSION_OF_DRAWINGS}"  # raise the first number when the scenes change; each version has its own folder
SCENES = {"train": 1200, "test": 300}
# Of the things that the test vendor draws at least three times, those that are solid and no part of each other.
CLASSES = ("automobile", "bell", "camera", "cat", "chick", "mailbox", "medal", "monkey", "moon", "shoe", "tree", "umbrella")
GROUND = "background"  # a class of the masks, so that mIoU counts what is not drawing
PAGES = ((128, 96), (96, 128), (96, 96))  # width and height in pixels
DRAWINGS = (1, 4)  # least and most on a page
SIDES = (32, 64)  # of a drawing, pixels
MOST_HIDDEN = 0.3  # of a drawing, by those laid on it later
PALE = 243  # the least of its colours, of a pixel that may be paper
LEAST_INK = 0.2  # of a drawing's box: one that the paper runs through would leave but lines


class Drawing(NamedTuple):
    """A drawing cut to its ink. pixels: uint8 [h, w, 3]. inked: bool [h, w], what is drawing, not paper."""

    pixels: np.ndarray
    inked: np.ndarray


class Scene(NamedTuple):
    """A page. pixels: uint8 [H, W, 3]. labels: of each drawing. masks: bool [n, H, W], what is seen of each."""

    pixels: np.ndarray
    labels: list[str]
    masks: np.ndarray


def composites_annotations(split: str) -> Path:
    """The COCO file of a split ("train" or "test"), composing the scenes first if they are not in the cache.

    Raises ValueError for an unknown split, ModuleNotFoundError with the install command if a package of the demo is missing.
    """
    return _composites(split) / "annotations" / f"instances_{split}.json"


def composites_images(split: str) -> Path:
    """The folder of a split's images; see `composites_annotations`."""
    return _composites(split) / "images" / split


def _composites(split: str) -> Path:
    if split not in SCENES:
        raise ValueError(f"the demo has no composites {split!r}: choose one of {', '.join(SCENES)}")
    folder = cache_folder() / f"demo-composites-{VERSION}"
    if not folder.is_dir():
        drawings = {part: drawings_of(sources) for part, sources in SPLITS.items()}
        with whole_folder(folder) as staging:
            for part, count in SCENES.items():
                write_composites(staging, part, {name: drawings[part][name] for name in CLASSES}, count)
    return folder


def write_composites(folder: Path, split: str, drawings: Mapping[str, Sequence[bytes]], count: int) -> None:
    """Write `count` scenes of a split with their masks, in both layouts.

    drawings: encoded pictures on white by label. Classes are the labels, sorted; in masks 1 is the ground, 2 the first of them.
    The same split and drawings give the same scenes.
    """
    names, images, annotations = sorted(drawings), [], []
    cut = {name: [drawing for picture in drawings[name] if (drawing := cut_out(picture))] for name in names}
    for kind in ("images", "annotations"):
        (folder / kind / split).mkdir(parents=True)
    for number in range(count):
        scene = compose(np.random.default_rng([*split.encode(), number]), cut)
        file_name, (height, width) = f"{number:06d}.png", scene.pixels.shape[:2]
        Image.fromarray(scene.pixels).save(folder / "images" / split / file_name, compress_level=1)  # grain packs badly anyway
        classes = np.ones((height, width), np.uint8)
        images.append({"id": number, "file_name": file_name, "width": width, "height": height})
        for label, mask in zip(scene.labels, scene.masks, strict=True):
            place = names.index(label)
            classes[mask] = place + 2
            facts = {"id": len(annotations) + 1, "image_id": number, "category_id": place + 1, "iscrowd": 0}
            annotations.append({**facts, "bbox": box_of(mask), "area": int(mask.sum()), "segmentation": run_lengths(mask)})
        Image.fromarray(classes).save(folder / "annotations" / split / file_name)
    rows = [f"{i}\t{name}" for i, name in enumerate([GROUND, *names], start=1)]
    (folder / f"objectInfo{len(rows)}.txt").write_text("\n".join(["Idx\tName", *rows, ""]), encoding="utf-8")
    content = {
        "info": {"description": "scenes composed of emoji drawings; the artwork keeps its owners' licences"},
        "images": images,
        "annotations": annotations,
        "categories": [{"id": i, "name": name} for i, name in enumerate(names, start=1)],
    }
    (folder / "annotations" / f"instances_{split}.json").write_text(json.dumps(content))


# ---------------------------------------------------------------- a scene


def cut_out(picture: bytes) -> Drawing | None:
    """A drawing without its paper: what is reached from the border through near-white. None if too little is left."""
    pixels = np.asarray(Image.open(io.BytesIO(picture)).convert("RGB"))
    pale = pixels.min(axis=2) >= PALE
    border = np.pad(np.zeros((pale.shape[0] - 2, pale.shape[1] - 2), bool), 1, constant_values=True)
    inked = ~ndimage.binary_propagation(border & pale, mask=pale)
    if not inked.any():
        return None
    left, top, width, height = box_of(inked)
    inside = slice(top, top + height), slice(left, left + width)
    return Drawing(pixels[inside], inked[inside]) if inked[inside].mean() >= LEAST_INK else None


def compose(rng: np.random.Generator, drawings: Mapping[str, Sequence[Drawing]]) -> Scene:
    """A page of some drawings, each of any label, later ones on earlier ones."""
    width, height = PAGES[rng.integers(len(PAGES))]
    page, labels, masks, whole = ground(rng, width, height), [], [], []
    wanted = rng.integers(DRAWINGS[0], DRAWINGS[1] + 1)
    for _ in range(40 * wanted):
        if len(labels) == wanted:
            break
        label = list(drawings)[rng.integers(len(drawings))]
        drawing = _resized(drawings[label][int(rng.integers(len(drawings[label])))], rng.uniform(*SIDES))
        (h, w), mask = drawing.inked.shape, np.zeros((height, width), bool)
        top, left = rng.integers(height - h + 1), rng.integers(width - w + 1)
        place = slice(top, top + h), slice(left, left + w)
        mask[place] = drawing.inked
        seen = [other & ~mask for other in masks]
        if all(now.sum() >= (1 - MOST_HIDDEN) * all_of_it for now, all_of_it in zip(seen, whole, strict=True)):
            page[place] = _inked_on(page[place], drawing)
            labels, masks, whole = [*labels, label], [*seen, mask], [*whole, mask.sum()]
    return Scene(page, labels, np.stack(masks))


def ground(rng: np.random.Generator, width: int, height: int) -> np.ndarray:
    """A page of two colours, plain, shaded, striped or clouded, with a fine grain: uint8 [height, width, 3]."""
    x, y = np.meshgrid(np.linspace(-1, 1, width), np.linspace(-1, 1, height))
    angle = rng.uniform(0, 2 * np.pi)
    along = x * np.cos(angle) + y * np.sin(angle)
    clouds = Image.fromarray(rng.uniform(0, 1, (rng.integers(3, 9), rng.integers(3, 9))).astype(np.float32))
    fields = (
        np.zeros_like(x),
        (along + 1.5) / 3,
        0.5 + 0.5 * np.sin(rng.uniform(6, 20) * along),
        np.asarray(clouds.resize((width, height), Image.Resampling.BICUBIC)),
    )
    field = fields[rng.integers(len(fields))][..., None]
    one, other = rng.uniform(60, 235, (2, 3))
    page = one + 0.7 * (other - one) * field + rng.normal(0, 4, (height, width, 1))
    return page.round().clip(0, 255).astype(np.uint8)


def _resized(drawing: Drawing, side: float) -> Drawing:
    """With a long side of so many pixels."""
    h, w = drawing.inked.shape
    size = tuple(max(4, round(length * side / max(h, w))) for length in (w, h))
    pixels, cover = (
        np.asarray(Image.fromarray(content).resize(size, Image.Resampling.BILINEAR))
        for content in (drawing.pixels, drawing.inked.astype(np.uint8) * 255)
    )
    return Drawing(pixels, cover >= 128)


def _inked_on(page: np.ndarray, drawing: Drawing) -> np.ndarray:
    """A place of a page with a drawing on it. Where it ends, its pixels are half paper, and take the page's colour instead."""
    rim = drawing.inked & ~ndimage.binary_erosion(drawing.inked)
    inked, mixed = drawing.inked[..., None], (page.astype(np.uint16) * drawing.pixels // 255).astype(np.uint8)
    return np.where(rim[..., None], mixed, np.where(inked, drawing.pixels, page))


# ---------------------------------------------------------------- as COCO writes it


def box_of(mask: np.ndarray) -> list[int]:
    """Left, top, width and height of what is set in a mask, bool [H, W], in pixels."""
    down, across = (np.flatnonzero(mask.any(axis=axis)) for axis in (1, 0))
    return [int(across[0]), int(down[0]), int(across[-1] - across[0] + 1), int(down[-1] - down[0] + 1)]


def run_lengths(mask: np.ndarray) -> dict:
    """COCO's uncompressed run lengths of a mask, bool [H, W]: column after column, the first run is of what is not set."""
    column_by_column = mask.ravel(order="F")
    edges = [0, *(np.flatnonzero(np.diff(column_by_column)) + 1).tolist(), mask.size]
    runs = np.diff(edges).tolist()
    return {"size": list(mask.shape), "counts": [0, *runs] if column_by_column[0] else runs}
