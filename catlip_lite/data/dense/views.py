"""Training views of dense tasks: an image and its mask, or its objects, resized, mirrored and cropped together by torchvision.

What is drawn at random comes from torch's own generator on the CPU: `corpus` seeds it for each sample.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from PIL import Image
from torchvision import tv_tensors
from torchvision.ops import masks_to_boxes
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as F

from ..images import decode
from .objects import DetectedImages
from .segmentation import IGNORED, SegmentedImages

FIT = ("squash", "jitter")
LEAST_SIDE = 2  # pixels, of an image that was resized: torchvision rounds down, to 0 what should be 1


class View(NamedTuple):
    """image: uint8 [3, S, S]. masks: uint8 [1, S, S], the class of each pixel, or [n, S, S], 0 or 1, of n objects. These have
    classes: int64 [n], and boxes: float32 [n, 4], left, top, right and bottom in pixels of the view; else none and None."""

    image: torch.Tensor
    masks: torch.Tensor
    classes: torch.Tensor
    boxes: torch.Tensor | None


NO_CLASSES = torch.zeros(0, dtype=torch.int64)


@dataclass(frozen=True)
class SegmentationViews:
    """How views of segmented images are drawn: resized, mirrored, cropped, and padded to the right and below, where the image
    is black and its mask IGNORED. The defaults are the reference's.

    short_side: least and most of the resized image's, in sides of the view; its long side has at most two. most_of_a_class:
    share of the labelled pixels; a crop with more of one class is drawn again, up to ten times. flip: probability.
    """

    short_side: tuple[float, float] = (0.5, 1.5)
    most_of_a_class: float = 0.75
    flip: float = 0.5

    def __call__(self, images: SegmentedImages, i: int, size: int) -> View:
        """A view of one of the images. Raises OSError or ValueError if it, or its mask, cannot be used."""
        image, mask = decode(images.files.read(i)), torch.from_numpy(images.mask(i))
        if image.size != tuple(mask.shape[::-1]):
            told = f"{mask.shape[1]} x {mask.shape[0]} pixels, its image {image.width} x {image.height}"
            raise ValueError(f"{images.masks.name(i)} is {told}")
        least, most = (round(share * size) for share in self.short_side)
        _refuse_thin(image, 2 * size)
        resize = v2.RandomShortestSize(list(range(least, most + 1)), 2 * size, interpolation=v2.InterpolationMode.BICUBIC)
        whole = v2.RandomHorizontalFlip(self.flip)(resize({"image": F.to_image(image), "mask": tv_tensors.Mask(mask)}))
        for _ in range(10):
            cut = _crop(whole, size)
            counts = torch.bincount(cut["mask"].flatten(), minlength=IGNORED)[:IGNORED]
            if counts.max() <= self.most_of_a_class * counts.sum():
                break
        view = _pad(cut, size, IGNORED)
        return View(view["image"].as_subclass(torch.Tensor), view["mask"].as_subclass(torch.Tensor)[None], NO_CLASSES, None)

    def blank(self, size: int) -> View:
        """Of an image that cannot be used."""
        black = torch.zeros((3, size, size), dtype=torch.uint8)
        return View(black, torch.full((1, size, size), IGNORED, dtype=torch.uint8), NO_CLASSES, None)


@dataclass(frozen=True)
class DetectionViews:
    """How views of images with objects are drawn, crowds left out, as are objects of which less than a pixel is seen.

    fit: "squash", the whole image as a square, its shape not kept, the reference's; or "jitter": large-scale jitter, the image
    resized by a factor within `scale` of what fits the view, cropped, and padded to the right and below with black, its boxes
    drawn anew around what is seen. flip: probability.
    """

    fit: str = "squash"
    scale: tuple[float, float] = (0.1, 2.0)
    flip: float = 0.5

    def __post_init__(self):
        if self.fit not in FIT:
            raise ValueError(f"fit={self.fit!r} is unknown: choose one of {', '.join(FIT)}")

    def __call__(self, images: DetectedImages, i: int, size: int) -> View:
        """A view of one of the images. Raises OSError or ValueError if it cannot be used."""
        image = decode(images.files.read(i))
        if image.size != tuple(images.sizes[i].tolist()):
            told = f"{image.width} x {image.height} pixels, annotated are {images.sizes[i][0]} x {images.sizes[i][1]}"
            raise ValueError(f"{images.files.name(i)} is {told}")
        classes, boxes, masks, crowd = images.objects(i)
        sample = {
            "image": F.to_image(image),
            "masks": tv_tensors.Mask(torch.from_numpy(masks[~crowd])),
            "boxes": tv_tensors.BoundingBoxes(torch.from_numpy(boxes[~crowd]), format="XYXY", canvas_size=image.size[::-1]),
            "labels": torch.from_numpy(classes[~crowd]),
        }
        sample = v2.RandomHorizontalFlip(self.flip)(sample)
        if self.fit == "jitter":
            _refuse_thin(image, self.scale[0] * size)
            sample = _pad(_crop(v2.ScaleJitter((size, size), self.scale)(sample), size), size, 0)
        else:
            sample = v2.Resize((size, size))(sample)
        sample = v2.SanitizeBoundingBoxes()(sample)
        image, masks, boxes = (sample[name].as_subclass(torch.Tensor) for name in ("image", "masks", "boxes"))
        seen = masks.flatten(1).any(dim=1).bool()
        masks, boxes = masks[seen], boxes[seen]
        if self.fit == "jitter" and len(masks):
            boxes = masks_to_boxes(masks) + torch.tensor([0.0, 0.0, 1.0, 1.0])  # theirs end at the first pixel's edge
        return View(image, masks, sample["labels"][seen], boxes)

    def blank(self, size: int) -> View:
        """Of an image that cannot be used."""
        black = torch.zeros((3, size, size), dtype=torch.uint8)
        return View(black, black[:0], NO_CLASSES, torch.zeros((0, 4)))


def _crop(sample: dict, size: int) -> dict:
    """A random square of so many pixels a side, or what there is of it."""
    height, width = F.get_size(sample["image"])
    return v2.RandomCrop((min(height, size), min(width, size)))(sample)


def _pad(sample: dict, size: int, of_masks: int) -> dict:
    """To a square. Only what is left of a crop is padded: torchvision's crops pad first, to three times the side."""
    height, width = F.get_size(sample["image"])
    return v2.Pad([0, 0, size - width, size - height], {tv_tensors.Image: 0, tv_tensors.Mask: of_masks})(sample)


def _refuse_thin(image: Image.Image, long_side: float) -> None:
    """Raises ValueError for an image of which next to nothing is left with this long side."""
    if min(image.size) * long_side < LEAST_SIDE * max(image.size):
        raise ValueError(f"{image.width} x {image.height} pixels are too thin for a view")
