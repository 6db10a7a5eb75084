"""Labelled images → training batches, for fine-tuning: the twin of `corpus`, with classes in place of captions.

How images become batches, in memory or streamed, is `image_batches`; which image comes when, and of which class, is here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import numpy as np
import torch

from .batches import Batch, BatchSpec
from .boxes import LABELS_OF, LEAST_VISIBLE, check_boxes, crop_looks, labels_in_view
from .image_batches import STORED, ImageBatches, Read, SampleStream
from .image_files import ImageFiles
from .images import Augmentation, random_affine, random_crop_box
from .labelled import LabelledImages
from .sample_order import OrderRule, SampleOrder

RUN = 1024  # neighbours that are read together while a set is decoded
GROUPS_AT_ONCE = 16  # row groups of parquet that images are shuffled within; each process keeps those it reads


class LabelledCorpus(ImageBatches):
    """The training batches of labelled images: endless epochs, each image once an epoch, all shuffled.

    image_size: side of the views the recipe trains at (others may be asked for). cache_gb: decode once and keep in memory if
    that takes no more than this; else `workers` processes decode. Unreadable images are rows of weight 0; those that are
    decoded once are told. labels_of: the labels of the whole "image", whatever a view shows of it, or of the "view" (see
    `boxes.labels_in_view`), for which the images' boxes must be known.
    """

    def __init__(
        self,
        images: LabelledImages,
        image_size: int,
        augmentation: Augmentation,
        *,
        seed: int = 0,
        labels_of: str = "image",
        least_visible: float = LEAST_VISIBLE,
        cache_gb: float = 2.0,
        workers: int = 2,
        progress: Callable[[Sequence], Iterable] = lambda runs: runs,
    ):
        if not len(images):
            raise ValueError("there is no labelled image to train on")
        if labels_of not in LABELS_OF:
            raise ValueError(f"labels_of={labels_of!r} is unknown: choose one of {', '.join(LABELS_OF)}")
        if labels_of == "view":
            check_boxes(images, least_visible)
        self.images, self.labels_of, self.least_visible = images, labels_of, least_visible
        stored_size = round(image_size * STORED)
        in_memory = len(images) * 3 * stored_size**2 <= cache_gb * 2**30
        counts, rows, in_groups = runs_of(images.files)
        # Row groups are read whole, so images are shuffled within windows of them; else there is one window, of all.
        order = SampleOrder(counts, OrderRule(seed, shuffle_shards=GROUPS_AT_ONCE if in_groups else len(counts)))
        stream = _Labelled(images, order, rows, augmentation, stored_size)
        super().__init__(stream, images.fingerprint, in_memory=in_memory, workers=workers, kind="images", progress=progress)

    def _augmented(self, batch: Batch, aspects: torch.Tensor, spec: BatchSpec) -> Batch:
        batch = super()._augmented(batch, aspects, spec)
        if self.labels_of == "view":
            indices, rows = self._labels_in_view(spec, aspects)
            usable = batch.weights.numpy()[rows] > 0
            batch.indices, batch.rows = torch.from_numpy(indices[usable]), torch.from_numpy(rows[usable])
        return batch

    def _labels_in_view(self, spec: BatchSpec, aspects: torch.Tensor) -> tuple[np.ndarray, np.ndarray]:
        """Class indices and rows of a micro-batch. Its views are drawn from seed and position alone, so that what they show is
        drawn again here instead of being sent along."""
        boxes = self.images.boxes.take(self.stream.places(*self.stream.locate(spec)), len(self.images))
        how = self.augmentation
        if self.in_memory or not how.only_crops:
            looks = random_affine(len(spec), aspects, how, self._generator(spec)).numpy()
        else:
            sizes = np.ones((len(spec), 2), np.int64)  # of an image without boxes nothing needs to be known
            sizes[boxes.image] = boxes.size
            looks = self.stream.crop_looks(spec, sizes)
        return labels_in_view(boxes, looks, least_visible=self.least_visible)


class _Labelled(SampleStream):
    """Labelled images by run and place in it."""

    def __init__(
        self, images: LabelledImages, order: SampleOrder, rows: np.ndarray, augmentation: Augmentation, stored_size: int
    ):
        super().__init__(order, augmentation, stored_size)
        self.rows = rows
        self.files = images.files
        self.indices = images.indices.astype(np.int32)
        self.starts = np.cumsum(order.counts) - order.counts
        self.edges = np.concatenate([[0], np.cumsum(images.counts)])

    def place_told(self, shard: int, row: int) -> str:
        """An image by its name."""
        return self.files.name(int(self.places(shard, row)))

    def read_at(self, shard: int, row: int) -> Read:
        """The image in a run's row; `said` are its classes."""
        place = int(self.places(shard, row))
        name = self.files.name(place)
        try:
            encoded = self.files.read(place)
        except (OSError, ValueError) as error:
            return Read(name, skipped=str(error))
        return Read(name, encoded, self.indices[self.edges[place] : self.edges[place + 1]])

    def places(self, shards: np.ndarray | int, rows: np.ndarray | int) -> np.ndarray:
        """Numbers of the images in these rows of these runs: int64."""
        return self.rows[self.starts[shards] + rows]

    def crop_looks(self, spec: BatchSpec, sizes: np.ndarray) -> np.ndarray:
        """What the crops of a micro-batch show of images of these sizes (int [B, 2]): looks float32 [B, 2, 3], see `boxes`."""
        crops, flipped, how = [], [], self.augmentation
        positions = self.order.rows_of_step(spec.start, spec.size, spec.first, spec.stop)
        for position, (width, height) in zip(positions.tolist(), sizes.tolist(), strict=True):
            rng = self._random(position)
            crops.append(random_crop_box(width, height, how.crop_scale, how.crop_ratio, rng))
            flipped.append(rng.random() < how.flip)
        return crop_looks(np.array(crops), sizes, np.array(flipped))

    def labels(self, said: Sequence[np.ndarray | None]) -> list[np.ndarray]:
        """Class indices of each."""
        return [np.empty(0, np.int32) if classes is None else classes for classes in said]


def runs_of(files: ImageFiles) -> tuple[np.ndarray, np.ndarray, bool]:
    """Images by what is cheap to read together: counts of each run, the images' numbers run by run, both int64, and whether
    windows of runs matter.

    Images that are cheap alone are dealt out among the runs of the others, so that each window has its share of them; if there
    are no others, runs are neighbours.
    """
    runs = files.runs()
    alone = np.flatnonzero(runs < 0)
    if len(alone) == len(files):
        starts = np.arange(RUN, len(files), RUN)
        return np.diff([0, *starts, len(files)]), np.arange(len(files), dtype=np.int64), False
    if len(alone):
        together = np.sort(runs[runs >= 0])
        dealt = np.random.default_rng(0).permutation(alone)
        runs = runs.copy()
        runs[dealt] = together[np.arange(len(alone)) * len(together) // len(alone)]
    rows = np.argsort(runs, kind="stable")
    return np.unique(runs, return_counts=True)[1], rows, True
