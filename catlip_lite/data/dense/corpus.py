"""Segmented images, or images with objects → training batches: the twin of `labelled.corpus`, with masks and boxes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from ..images import AUGMENTATIONS, Augmentation, recoloured
from ..loader import Batch, BatchSpec, Loader, Reading
from ..stream import OrderRule, SampleOrder
from .objects import DetectedImages
from .segmentation import SegmentedImages
from .views import DetectionViews, SegmentationViews, View


class DenseCorpus(Loader):
    """The training batches of a dense task: endless epochs, each image once an epoch, all shuffled; see `Loader`.

    Batches have `masks`, those of objects `boxes`, too, with `indices` and `rows` of the objects (of segmented images these are
    empty). Images that cannot be used are rows of weight 0: black, without objects, or with a mask of IGNORED. What is drawn at
    random for a view follows from the seed and the sample's position alone. augmentation: of it the colours; how a view is
    cropped and mirrored is the views' own matter. workers: processes that read and decode; images are decoded anew for each
    view. Raises ValueError without images, or for views of the other kind of images.
    """

    def __init__(
        self,
        images: SegmentedImages | DetectedImages,
        image_size: int,
        views: SegmentationViews | DetectionViews,
        *,
        augmentation: Augmentation = AUGMENTATIONS["none"],
        seed: int = 0,
        workers: int = 2,
    ):
        if not len(images):
            raise ValueError("there is no image to train on")
        if isinstance(images, SegmentedImages) != isinstance(views, SegmentationViews):
            raise ValueError(f"{type(views).__name__} are not for {type(images).__name__}: give the views of their kind")
        self.images = images
        stream: Any = DenseStream(images, seed)
        # Masks and boxes are what is taught: there are no targets to be made of samples, nor views to be made of squares.
        targets: Any = None
        super().__init__(stream, targets, image_size, AUGMENTATIONS["none"], cache_gb=0, workers=workers)
        self.reading = DenseReading(stream, targets, augmentation, image_size, views)


class DenseStream:
    """Images by number; all are shuffled together."""

    def __init__(self, images: SegmentedImages | DetectedImages, seed: int):
        self.images, self.fingerprint = images, images.fingerprint
        self.order = SampleOrder(np.array([len(images)]), OrderRule(seed, shuffle_shards=1))

    def told(self, _: int, row: int) -> str:
        """An image by its name."""
        return self.images.files.name(row)


@dataclass(frozen=True)
class DenseReading(Reading):
    """How images and what is known of them become batches."""

    stream: Any  # a DenseStream, whose images are no samples
    targets: Any  # none
    views: SegmentationViews | DetectionViews

    def piece(self, chunk: BatchSpec) -> Batch:
        """What a worker makes of its part of a micro-batch."""
        size, files, positions = chunk.image_size, self.stream.images.files, self.positions(chunk)
        rows = self.stream.order.locate(positions)[1].tolist()
        views, skipped = [], {}
        for i, (position, row) in enumerate(zip(positions.tolist(), rows, strict=True)):
            try:
                views.append(self.view(position, row, size))
            except (OSError, ValueError) as error:
                views.append(self.views.blank(size))
                skipped[i] = files.name(row), str(error)
        counts = torch.tensor([len(view.classes) for view in views])
        return Batch(
            torch.stack([view.image for view in views]),
            torch.cat([view.classes for view in views]),
            torch.repeat_interleave(torch.arange(len(views)), counts),
            torch.tensor([float(i not in skipped) for i in range(len(views))]),
            [files.name(row) for row in rows],
            list(skipped.values()),
            torch.ones(len(views)),
            boxes=None if views[0].boxes is None else torch.cat([view.boxes for view in views]),
            masks=torch.cat([view.masks for view in views]),
        )

    def view(self, position: int, row: int, size: int) -> View:
        """What a position draws of its image. torchvision draws from torch's generator: it is lent to the sample."""
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(int(self.random(position).integers(2**63)))
            view, strength = self.views(self.stream.images, row, size), self.augmentation.colour
            return view._replace(image=recoloured(view.image, strength, torch.default_generator)) if strength else view
