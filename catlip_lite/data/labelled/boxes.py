"""Labels that follow the crop: objects' boxes and the part of the image that a view shows → the labels of the view.

Between annotated boxes (COCO's) and the targets of multi-label training and evaluation. The reference keeps the labels of the
whole image whatever a crop shows (a view of the sky alone is still "person, kite"); with boxes, both protocols can be had.

A `look` says which part of its image an upright view shows: float32 [2, 3], from places in the view to places in the image,
both -1..1 from left to right and from top to bottom, as `torch.nn.functional.affine_grid` has it.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from ..images import Evaluation
from .images import Boxes, LabelledImages, digest

LABELS_OF = ("image", "view")
# An object counts as seen while so much of its box is in view, or while it fills so much of the view (a face, of a person from
# head to foot). A label kept too long asks for what is not there, one dropped too soon punishes what is. Of the demo's unseen
# drawings the demo model names 59 % right as a whole, 25 % with three quarters of the box in view, 7 % with half, 2 % with a
# quarter (of 259 labels): below that there is nothing to learn from, and photos, which show more of their context, keep longer.
LEAST_VISIBLE, LEAST_FILLED = 0.25, 0.5


def crop_looks(boxes: np.ndarray, sizes: np.ndarray, flipped: np.ndarray | None = None) -> np.ndarray:
    """Looks of crops: boxes [B, 4] (left, top, width, height) of images of sizes [B, 2] (width, height), in the same units.

    flipped: bool [B], views that are mirrored. float32 [B, 2, 3].
    """
    looks = np.zeros((len(boxes), 2, 3), np.float32)
    looks[:, [0, 1], [0, 1]] = boxes[:, 2:] / sizes
    looks[:, :, 2] = (2 * boxes[:, :2] + boxes[:, 2:]) / sizes - 1
    if flipped is not None:
        looks[flipped, 0, 0] *= -1
    return looks


def evaluation_looks(sizes: np.ndarray, evaluation: Evaluation) -> np.ndarray:
    """Looks of evaluation's views of images of these sizes: int [N, 2] (width, height) -> float32 [N, 2, 3]."""
    side, short = evaluation.image_size, evaluation.resized_short_side
    sizes = np.asarray(sizes, np.int64)
    resized = short * sizes // sizes.min(axis=1, keepdims=True)
    corners = np.round((resized - side) / 2)
    return crop_looks(np.concatenate([corners, np.full_like(corners, side)], axis=1), resized)


def visible_shares(boxes: Boxes, looks: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """How much of each of M boxes its view shows, and how much of the view it fills: looks [M, 2, 3], one a box.

    Both float64 [M] in 0..1.
    """
    half = np.maximum(boxes.xywh[:, 2:].astype(np.float64), 1e-6) / boxes.size  # a box of no width is a very narrow one
    middle = (2.0 * boxes.xywh[:, :2] + boxes.xywh[:, 2:]) / boxes.size - 1
    looks = looks.astype(np.float64)
    reach, centre = np.abs(looks[:, [0, 1], [0, 1]]), looks[:, :, 2]
    both = np.minimum(middle + half, centre + reach) - np.maximum(middle - half, centre - reach)
    area = np.maximum(both, 0).prod(axis=1)
    return area / (2 * half).prod(axis=1), area / np.maximum((2 * reach).prod(axis=1), 1e-12)


def labels_in_view(boxes: Boxes, looks: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The labels of B views of the boxes' B images: `indices` int64 [n] and the view `rows` int64 [n] that each belongs to.

    looks: float32 [B, 2, 3]. An object gives its label while a quarter of its box is in view, or while it fills half of the
    view; a crowd, whose members are smaller than its box, while a quarter of the view is crowd. A label is named once a view,
    in ascending order.
    """
    of_box, of_view = visible_shares(boxes, looks[boxes.image])
    seen = (of_box >= LEAST_VISIBLE) | (of_view >= np.where(boxes.crowd, LEAST_FILLED / 2, LEAST_FILLED))
    pairs = np.unique(np.stack([boxes.image[seen], boxes.class_index[seen]], axis=1), axis=0)
    return pairs[:, 1], pairs[:, 0]


def labels_of_views(images: LabelledImages, evaluation: Evaluation) -> LabelledImages:
    """The same images with the labels of what evaluation's view of each shows; an image may be left with none.

    Raises ValueError for images without boxes.
    """
    boxes = check_boxes(images)
    looks = np.zeros((len(images), 2, 3), np.float32)  # of an image without boxes nothing needs to be known
    looks[boxes.image] = evaluation_looks(boxes.size, evaluation)
    indices, rows = labels_in_view(boxes, looks)
    counts = np.bincount(rows, minlength=len(images))
    fingerprint = digest([f"{images.fingerprint} {evaluation} {LEAST_VISIBLE}"])
    return replace(images, indices=indices, counts=counts, fingerprint=fingerprint)


def check_boxes(images: LabelledImages) -> Boxes:
    """The boxes of images. Raises ValueError unless labels can follow the crop."""
    if images.boxes is None:
        raise ValueError("labels can follow the view only where boxes are known: give COCO annotations, or labels_of='image'")
    if (images.boxes.size <= 0).any():
        raise ValueError("labels can follow the view only where the images' width and height are annotated: they are missing")
    return images.boxes
