"""Images with their objects, class, box and mask each, as COCO annotates them → `DetectedImages`, not yet read."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from types import ModuleType

import numpy as np

from ...labels.label_sets import listed
from ...labels.ragged import take_rows
from ..addresses import split_address
from ..demo import demo_path
from ..labelled.coco import annotated_boxes, annotated_files, is_annotations, refuse_fields, scan_annotations
from ..labelled.images import Boxes, ImageSet, digest, kept_scan
from ..labelled.values import Wanted, parse_selection

logger = logging.getLogger(__name__)

LEAST_POLYGON = 6  # numbers: three points
FURTHEST = 10  # sides of the image, that a polygon may reach: the mask API walks along it, and would fill the memory on its way
UNDERSTOOD = (
    "objects are annotated as COCO's are: give an annotations/instances_….json, with the images where the download puts them"
)


@dataclass(frozen=True, eq=False)
class DetectedImages(ImageSet):
    """N images and their M objects.

    sizes: int32 [N, 2], width and height. boxes: of the objects, in the order of their images, clipped to these. areas: float32
    [M], as annotated, in pixels. runs: uint8 [K], the run lengths of all masks, compressed as COCO does it, end to end; spans:
    int64 [M, 2], where each starts and stops.
    """

    sizes: np.ndarray
    boxes: Boxes
    areas: np.ndarray
    runs: np.ndarray
    spans: np.ndarray

    def objects(self, i: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """The n objects of an image: class indices int64 [n], boxes float32 [n, 4] (left, top, right, bottom, in pixels), masks
        uint8 [n, H, W] of 0 and 1, and whether each is a crowd, bool [n]."""
        mine = slice(*np.searchsorted(self.boxes.image, [i, i + 1]).tolist())
        xywh, (width, height) = self.boxes.xywh[mine], self.sizes[i].tolist()
        corners = np.concatenate([xywh[:, :2], xywh[:, :2] + xywh[:, 2:]], axis=1)
        encoded = [self._encoded(row) for row in range(mine.start, mine.stop)]
        masks = np.zeros((height, width, 0), np.uint8) if not encoded else mask_api().decode(encoded)
        return self.boxes.class_index[mine], corners, masks.transpose(2, 0, 1), self.boxes.crowd[mine]

    def as_coco(self) -> dict:
        """The objects, crowds included, as evaluators take them: COCO's dictionary, of images, categories and annotations that
        are numbered 1, 2, … in this order."""
        columns = (self.boxes.image, self.boxes.class_index, self.boxes.xywh, self.boxes.crowd, self.areas)
        return {
            "images": [
                {"id": i, "file_name": self.files.name(i - 1), "width": w, "height": h}
                for i, (w, h) in enumerate(self.sizes.tolist(), start=1)
            ],
            "categories": [{"id": i, "name": name} for i, name in enumerate(self.classes, start=1)],
            "annotations": [
                {
                    "id": row + 1,
                    "image_id": image + 1,
                    "category_id": class_index + 1,
                    "bbox": xywh,
                    "iscrowd": int(crowd),
                    "area": area,
                    "segmentation": {**(encoded := self._encoded(row)), "counts": encoded["counts"].decode()},
                }
                for row, (image, class_index, xywh, crowd, area) in enumerate(zip(*(c.tolist() for c in columns), strict=True))
            ],
        }

    def known_of(self, rows: np.ndarray) -> dict:
        """`sizes`, `boxes`, `areas` and `spans`."""
        chosen = take_rows(np.cumsum(np.bincount(self.boxes.image, minlength=len(self.sizes))), rows)[0]
        boxes = self.boxes.take(rows, len(self.sizes))
        return {"sizes": self.sizes[rows], "boxes": boxes, "areas": self.areas[chosen], "spans": self.spans[chosen]}

    def _encoded(self, row: int) -> dict:
        """The mask of an object as the mask API takes it."""
        start, stop = self.spans[row].tolist()
        width, height = self.boxes.size[row].tolist()
        return {"size": [height, width], "counts": self.runs[start:stop].tobytes()}


def load_objects(address: str | Path) -> DetectedImages:
    """The images of an annotation file with their objects: COCO's instances_train2017.json, or another of its kind.

    The images lie where `load_labelled` looks for them; `demo/composites_train` and `demo/composites_test` are the demo's.
    Classes are the categories by name, in the order of their ids. Masks are polygons or run lengths, compressed or not. Boxes
    are clipped to their image. Left out and counted: objects whose box has no area or whose mask no pixel; images without
    objects are kept. `address#missing=skip` goes on without images that are not there. No image is read; what is found in a
    large file is kept in the user's cache.
    Raises FileNotFoundError or ValueError, saying what was found and what to do, and ModuleNotFoundError, with the install
    command, if the package that knows COCO's masks is missing.
    """
    path, selection = split_address(address)
    path = demo_path(path) or path
    if not is_annotations(path):
        raise FileNotFoundError(f"{path} is no annotation file: {UNDERSTOOD}")
    chosen, skip_missing = parse_selection(selection)
    refuse_fields(Wanted(path, selection=chosen))
    mask_api()  # before a long scan
    path = Path(path)
    table, (names, classes) = kept_scan(path, "coco masks 1", lambda: scan_annotations(path, lambda *told: _masks(path, *told)))
    files, stamps, rows = annotated_files(path, names, skip_missing=skip_missing)
    boxes = annotated_boxes(table)
    boxes = replace(boxes, xywh=_clipped(boxes.xywh, boxes.size))
    empty_box, empty_mask = (boxes.xywh[:, 2:] <= 0).any(axis=1), table["pixels"] == 0
    if empty_box.any() or empty_mask.any():
        told = "%s: %d of %d objects are left out: %d have a box without area in their image, %d a mask without a pixel"
        counts = (empty_box | empty_mask).sum(), len(boxes), empty_box.sum(), empty_mask.sum()
        logger.warning(told, path, *counts)
    kept = ~empty_box & ~empty_mask
    if len(kept) and not kept.any():
        raise ValueError(
            f"{path}: none of its {len(kept):,} objects has a box and a mask: annotations need bbox and segmentation"
        )
    found = DetectedImages(
        files, classes, "", table["sizes"], boxes.only(kept), table["areas"][kept], table["runs"], table["spans"][kept]
    )
    known = found.known_of(rows)
    facts = known["sizes"], known["boxes"].image, known["boxes"].class_index, known["boxes"].xywh, known["spans"], table["runs"]
    return replace(found, fingerprint=digest(["\n".join(classes), *stamps, *facts]), **known)


@cache
def mask_api() -> ModuleType:
    """The functions of COCO's masks. Raises ModuleNotFoundError, with the install command, without them."""
    try:
        from faster_coco_eval.core import mask
    except ModuleNotFoundError as error:
        told = "masks of objects need the package faster-coco-eval: run `pip install 'catlip-lite[dense]'`"
        raise ModuleNotFoundError(told) from error
    return mask


# ---------------------------------------------------------------- annotations → arrays


def _clipped(xywh: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """Boxes [M, 4] (left, top, width, height) within images of sizes [M, 2]; of one outside, a side is 0 or less."""
    first = np.clip(xywh[:, :2], 0, sizes)
    last = np.clip(xywh[:, :2] + xywh[:, 2:], 0, sizes)
    return np.concatenate([first, last - first], axis=1).astype(np.float32)


def _masks(path: Path, images: list[dict], objects: list[dict]) -> dict[str, np.ndarray]:
    """`sizes` of the images, and of the objects `runs`, `spans`, `areas` and `pixels`: how many each mask has, int64 [M]."""
    sizes = {one["id"]: (one.get("width") or 0, one.get("height") or 0) for one in images}
    sizeless = [one["file_name"] for one in images if min(sizes[one["id"]]) < 1]
    if sizeless:
        raise ValueError(f"{path}: {len(sizeless):,} of {len(images):,} images have no width and height: {listed(sizeless)}")
    encoded, odd = [], []
    for one in objects:
        try:
            encoded.append(_encoded(one.get("segmentation"), *sizes[one["image_id"]]))
        except (ValueError, TypeError, KeyError) as error:
            odd.append(f"annotation {one.get('id')}: {error}")
    if odd:
        raise ValueError(f"{path}: {len(odd):,} of {len(objects):,} objects have masks that cannot be read, such as {odd[0]}")
    pixels = np.array(mask_api().area(encoded) if encoded else [], dtype=np.int64)
    counts = [one["counts"] for one in encoded]
    stops = np.cumsum([len(one) for one in counts], dtype=np.int64)
    starts = np.concatenate([[0], stops[:-1]])[: len(stops)]
    return {
        "sizes": np.array([sizes[one["id"]] for one in images], np.int32),
        "runs": np.frombuffer(b"".join(counts), np.uint8),
        "spans": np.stack([starts, stops], axis=1).astype(np.int64),
        "areas": np.array([one.get("area", n) for one, n in zip(objects, pixels.tolist(), strict=True)], np.float32),
        "pixels": pixels,
    }


def _encoded(told: list | dict | None, width: int, height: int) -> dict:
    """A mask as COCO compresses it. told: polygons, run lengths, compressed or not, or nothing, a mask without pixels."""
    api = mask_api()
    if isinstance(told, dict):
        if list(told["size"]) != [height, width]:
            raise ValueError(f"its mask is {told['size'][1]} x {told['size'][0]} pixels, its image {width} x {height}")
        if isinstance(told["counts"], list):
            if sum(told["counts"]) != width * height or min(told["counts"]) < 0:
                raise ValueError(f"its run lengths are of {sum(told['counts']):,} pixels, its image has {width * height:,}")
            return api.frPyObjects(told, height, width)
        encoded = {"size": [height, width], "counts": told["counts"].encode()}
        api.decode(encoded)  # raises for runs that do not fill the image
        return encoded
    if not isinstance(told, (list, type(None))):
        raise ValueError(f"its segmentation is a {type(told).__name__}, where polygons or run lengths are expected")
    polygons = [polygon for polygon in told or [] if len(polygon) >= LEAST_POLYGON]  # lines and points have no pixel
    if any(len(polygon) % 2 for polygon in polygons):
        raise ValueError("a polygon has an odd count of numbers, which are x, y, x, y, …")
    reach = FURTHEST * max(width, height)
    if not all(abs(number) <= reach for polygon in polygons for number in polygon):  # NaN is not, either
        raise ValueError(
            f"a polygon goes further than {reach:,} pixels, or is of no numbers, in an image of {width} x {height}"
        )
    if not polygons:
        return api.frPyObjects({"size": [height, width], "counts": [width * height]}, height, width)
    return api.merge(api.frPyObjects(polygons, height, width))
