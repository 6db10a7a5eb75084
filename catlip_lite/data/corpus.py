"""Shards + vocabulary → training batches: captions become labels, images are decoded and augmented, in the corpus's order.

How images become batches, in memory or streamed, is `image_batches`; what lies in shards and what captions say is here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..labels import CaptionLabeler, Vocabulary
from .image_batches import STORED, ImageBatches, Read, SampleStream
from .images import Augmentation
from .sample_order import OrderRule, SampleOrder
from .shard_reader import SampleSkipped, ShardReader
from .shard_table import ShardTable


class Corpus(ImageBatches):
    """The batches of a corpus, by `BatchSpec`.

    image_size: side of the views the recipe trains at (others may be asked for). cache_gb: decode once and keep in memory if
    that takes no more than this; else `workers` processes decode. processes, share: how many processes share a step, and how
    many of its micro-batches each takes; they bound how many shards a worker keeps open. download_to: where shards of a remote
    store are kept while they are read.
    """

    def __init__(
        self,
        table: ShardTable,
        labeler: CaptionLabeler,
        vocabulary: Vocabulary,
        image_size: int,
        augmentation: Augmentation,
        *,
        rule: OrderRule = OrderRule(),  # noqa: B008 (frozen)
        cache_gb: float = 2.0,
        workers: int = 2,
        processes: int = 1,
        share: int = 1,
        download_to: Path | None = None,
        progress: Callable[[Sequence], Iterable] = lambda shards: shards,
    ):
        self.table, self.rule = table, rule
        stored_size = round(image_size * STORED)
        in_memory = table.num_samples * 3 * stored_size**2 <= cache_gb * 2**30
        order = SampleOrder(table.counts, rule)
        reader = ShardReader(table, download_to=download_to)
        stream = _Shards(table, order, reader, labeler, vocabulary, augmentation, stored_size)
        super().__init__(stream, table.fingerprint, in_memory=in_memory, workers=workers, progress=progress)
        self.share_among(processes, share)

    def share_among(self, processes: int, share: int) -> None:
        """Before the first batch: how many processes share a step, and how many of its micro-batches each takes."""
        # Each worker takes the same stretch of the lanes from every micro-batch; its ends may lie within two more.
        lanes = self.rule.lanes
        stretch = -(-lanes // (processes * share * max(1, self.workers))) + 2
        met = lanes if self.in_memory else min(lanes, share * stretch)
        self.order.lanes_met, self.stream.reader.open_at_once = met, 2 * self.rule.shuffle_shards * met + 8

    def first_look(self, most: int = 1000) -> FirstLook:
        """What the first samples of the first lane are like, undecoded; all of the corpus, if it is in memory.

        Raises ValueError if not one of them has a label.
        """
        if self.in_memory:
            labels = [found for found, good in zip(self.memory.labels, self.memory.good, strict=True) if good]
            skipped = self.memory.skipped
        else:
            lanes = self.rule.lanes
            read = [self.stream.read(p * lanes) for p in range(min(most, max(1, len(self) // lanes)))]
            captions = [sample.said for sample in read if sample.skipped is None]
            skipped = [(sample.name, sample.skipped) for sample in read if sample.skipped is not None]
            labels = self.stream.labels(captions)
        counts = np.array([len(found) for found in labels])
        if not counts.any():
            lost = f"; {len(skipped):,} samples cannot be used, such as {skipped[0][0]} ({skipped[0][1]})" if skipped else ""
            raise ValueError(
                f"none of the {len(counts):,} captions looked at has a synset of this vocabulary "
                f"({len(self.stream.vocabulary):,} classes): choose another vocabulary or other shards{lost}"
            )
        return FirstLook(len(labels), float(counts.mean()), int((counts == 0).sum()), skipped)


@dataclass(frozen=True)
class FirstLook:
    """captions: how many were looked at. skipped: name and reason of samples that cannot be used."""

    captions: int
    labels_per_image: float
    without_label: int
    skipped: list[tuple[str, str]]


class _Shards(SampleStream):
    """Samples of shards, labelled by their captions."""

    def __init__(self, table, order, reader, labeler, vocabulary, augmentation, stored_size):
        super().__init__(order, augmentation, stored_size)
        self.table: ShardTable = table
        self.reader: ShardReader = reader
        self.labeler: CaptionLabeler = labeler
        self.vocabulary: Vocabulary = vocabulary

    def prepare(self, positions: np.ndarray) -> None:
        """Have the shards of the next window fetched."""
        for position in self.order.one_a_lane(positions):
            self.reader.prepare(self.order.window_shards(position, ahead=1).tolist())

    def place_told(self, shard: int, row: int) -> str:
        """A sample by its row: its key is not known before it is read."""
        return self.table.sample_name(shard, f"row {row}")

    def read_at(self, shard: int, row: int) -> Read:
        """The sample in a row of a shard."""
        try:
            sample = self.reader.read(shard, row)
        except SampleSkipped as skip:
            return Read(self.table.sample_name(shard, skip.key or f"row {row}"), skipped=skip.reason)
        return Read(self.table.sample_name(shard, sample.key), sample.image, sample.caption)

    def labels(self, said: Sequence[str | None]) -> list[np.ndarray]:
        """Class indices of each caption."""
        return [self.vocabulary.encode(wnids) for wnids in self.labeler.label([caption or "" for caption in said])]
