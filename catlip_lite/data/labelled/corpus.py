"""Labelled images → training batches, for fine-tuning: the twin of `loader.Corpus`, with classes in place of captions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from ..images import Augmentation, random_affine, random_crop_box
from ..loader import Batch, BatchSpec, Loader
from ..shards import Sample
from ..stream import OrderRule, SampleOrder
from .boxes import LABELS_OF, check_boxes, crop_looks, labels_in_view
from .images import LabelledImages
from .pointers import ImagePointers

RUN = 1024  # neighbours that are read together while a set is decoded
GROUPS_AT_ONCE = 16  # row groups of parquet that images are shuffled within; each process keeps those it reads


def class_targets(samples: Sequence[Sample]) -> tuple[np.ndarray, np.ndarray]:
    """The classes that labelled images come with."""
    none = np.empty(0, np.int32)
    classes = [none if sample.skipped or sample.classes is None else sample.classes for sample in samples]
    return np.concatenate([none, *classes]), np.array(list(map(len, classes)), np.int64)


class LabelledCorpus(Loader):
    """The training batches of labelled images: endless epochs, each image once an epoch, all shuffled; see `Loader`.

    Unreadable images are rows of weight 0; those that are decoded once are told. labels_of: the labels of the whole "image",
    whatever a view shows of it, or of the "view" (see `boxes.labels_in_view`), for which the images' boxes must be known and
    the views upright.
    """

    stream: LabelledStream

    def __init__(
        self,
        images: LabelledImages,
        image_size: int,
        augmentation: Augmentation,
        *,
        seed: int = 0,
        labels_of: str = "image",
        **how: Any,
    ):
        if not len(images):
            raise ValueError("there is no labelled image to train on")
        if labels_of not in LABELS_OF:
            raise ValueError(f"labels_of={labels_of!r} is unknown: choose one of {', '.join(LABELS_OF)}")
        if labels_of == "view":
            check_boxes(images)
            if augmentation.rotate or augmentation.shear:
                raise ValueError("labels cannot follow a tilted view: give an augmentation without rotate and shear")
        self.images, self.labels_of = images, labels_of
        super().__init__(LabelledStream(images, seed), class_targets, image_size, augmentation, **how)

    def _augmented(self, batch: Batch, spec: BatchSpec) -> Batch:
        batch = super()._augmented(batch, spec)
        if self.labels_of == "view":
            indices, rows = self._labels_in_view(spec, batch.aspects)
            usable = batch.weights.numpy()[rows] > 0
            batch.indices, batch.rows = torch.from_numpy(indices[usable]), torch.from_numpy(rows[usable])
        return batch

    def _labels_in_view(self, spec: BatchSpec, aspects: torch.Tensor) -> tuple[np.ndarray, np.ndarray]:
        """Class indices and rows of a micro-batch. Its views are drawn from seed and position alone, so that what they show is
        drawn again here instead of being sent along."""
        assert self.images.boxes is not None  # `check_boxes` saw to it
        boxes = self.images.boxes.take(self.stream.places(*self.reading.locate(spec)), len(self.images))
        how = self.augmentation
        if self.in_memory or not how.only_crops:
            looks = random_affine(len(spec), aspects, how, self._generator(spec)).numpy()
        else:
            sizes = np.ones((len(spec), 2), np.int64)  # of an image without boxes nothing needs to be known
            sizes[boxes.image] = boxes.size
            crops, flipped = [], []
            for position, (width, height) in zip(self.reading.positions(spec).tolist(), sizes.tolist(), strict=True):
                rng = self.reading.random(position)
                crops.append(random_crop_box(width, height, how.crop_scale, how.crop_ratio, rng))
                flipped.append(rng.random() < how.flip)
            looks = crop_looks(np.array(crops), sizes, np.array(flipped))
        return labels_in_view(boxes, looks)


class LabelledStream:
    """Labelled images by run and place in it, with their classes."""

    def __init__(self, images: LabelledImages, seed: int):
        self.fingerprint, self.files, self.indices = images.fingerprint, images.files, images.indices.astype(np.int32)
        counts, self.rows, in_groups = runs_of(images.files)
        # Row groups are read whole, so images are shuffled within windows of them; else there is one window, of all.
        self.order = SampleOrder(counts, OrderRule(seed, shuffle_shards=GROUPS_AT_ONCE if in_groups else len(counts)))
        self.starts = np.cumsum(counts) - counts
        self.edges = np.concatenate([[0], np.cumsum(images.counts)])

    def prepare(self, positions: np.ndarray) -> None:
        """Files are opened as they are read."""

    def told(self, shard: int, row: int) -> str:
        """An image by its name."""
        return self.files.name(int(self.places(shard, row)))

    def read(self, shard: int, row: int) -> Sample:
        """The image in a run's row."""
        place = int(self.places(shard, row))
        sample = Sample(self.files.name(place), classes=self.indices[self.edges[place] : self.edges[place + 1]])
        try:
            sample.image = self.files.read(place)
        except (OSError, ValueError) as error:
            sample.skipped = str(error)
        return sample

    def places(self, shards: np.ndarray | int, rows: np.ndarray | int) -> np.ndarray:
        """Numbers of the images in these rows of these runs: int64."""
        return self.rows[self.starts[shards] + rows]


def runs_of(files: ImagePointers) -> tuple[np.ndarray, np.ndarray, bool]:
    """Images by what is cheap to read together: counts of each run, the images' numbers run by run, both int64, and whether
    windows of runs matter.

    Images that are cheap alone are dealt out among the runs of the others, so that each window has its share of them; if there
    are no others, runs are neighbours.
    """
    runs = files.runs()
    alone = np.flatnonzero(runs < 0)
    if len(alone) == len(files):
        runs = np.arange(len(files)) // RUN
    elif len(alone):
        together, dealt = np.sort(runs[runs >= 0]), np.random.default_rng(0).permutation(alone)
        runs[dealt] = together[np.arange(len(alone)) * len(together) // len(alone)]
    return np.unique(runs, return_counts=True)[1], np.argsort(runs, kind="stable"), len(alone) < len(files)
