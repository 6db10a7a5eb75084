"""Encoded images in an order → training batches: what `Corpus` (captions) and `LabelledCorpus` (classes) have in common.

What fits in memory is decoded once; the rest streams: worker processes read and decode what each step needs. Either way a batch
is a pure function of its `BatchSpec`, and a sample that cannot be used is a row of weight 0.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass

import numpy as np
import torch

from .batches import Batch, BatchSpec, Piece, joined, sparse_targets
from .images import Augmentation, augment, crop_view, decode, squash
from .loader_processes import by_processes
from .sample_order import SampleOrder

logger = logging.getLogger(__name__)

CHUNK = 64  # images a worker decodes at a time: small enough for steady flow, large enough to label captions together
STORED = 1.5  # side of a picture kept in memory, in views: what crops and tilts still look sharp from


class ImageBatches:
    """The batches of a stream of samples, by `BatchSpec`.

    fingerprint: of the data. in_memory: decode once and keep; else `workers` processes decode. kind: what the data is called in
    errors.
    """

    def __init__(
        self,
        stream: SampleStream,
        fingerprint: str,
        *,
        in_memory: bool,
        workers: int = 2,
        kind: str = "shards",
        progress: Callable[[Sequence], Iterable] = lambda shards: shards,
    ):
        self.stream, self.fingerprint, self.in_memory, self.workers, self.kind = stream, fingerprint, in_memory, workers, kind
        self.order, self.augmentation = stream.order, stream.augmentation
        if in_memory:
            self.memory = decode_all(stream, progress, kind)

    def __len__(self) -> int:
        return self.order.num_samples

    def batches(self, specs: Iterable[BatchSpec]) -> Iterator[Batch]:
        """The batch of each spec, in order. Raises ValueError for a batch without one usable sample."""
        for batch in self._from_memory(specs) if self.in_memory else self._from_stream(specs):
            if not batch.weights.any():
                reasons = sorted({reason for _, reason in batch.skipped})
                raise ValueError(
                    f"none of the {len(batch)} samples of a batch can be used ({', '.join(reasons)}), such as "
                    f"{', '.join(batch.names[:3])}: are these {self.kind} damaged?"
                )
            yield batch

    def identity(self) -> dict:
        """What a run that is resumed must find again: JSON values `corpus` (what) and `rule` (in which order)."""
        rule = self.order.rule
        told = {"seed": rule.seed, "shuffle_shards": rule.shuffle_shards, "lanes": rule.lanes}
        return {"corpus": self.fingerprint, "rule": told}

    def views_of(self, spec: BatchSpec) -> torch.Tensor:
        """Training views to look at: float32 [B, 3, S, S] in 0..1."""
        workers, self.workers = self.workers, 0  # a handful of images is not worth starting processes
        images = next(iter(self.batches([spec]))).images
        self.workers = workers
        return images if images.is_floating_point() else images.float() / 255

    def _from_memory(self, specs: Iterable[BatchSpec]) -> Iterator[Batch]:
        for spec in specs:
            places = self.memory.place_of(*self.stream.locate(spec))
            images, aspects = self.memory.images[places], self.memory.aspects[places]
            good = self.memory.good[places]
            batch = Batch(
                images,
                *sparse_targets([self.memory.labels[i] for i in places]),
                torch.from_numpy(good.astype(np.float32)),
                [self.memory.names[i] for i in places],
                [(self.memory.names[i], self.memory.reasons[i]) for i in places[~good]],
            )
            yield self._augmented(batch, aspects, spec)

    def _from_stream(self, specs: Iterable[BatchSpec]) -> Iterator[Batch]:
        """Chunks come from the workers in turn; with lanes for every worker, a worker gets the same lanes each step."""
        chunks, pieces = Chunks(specs, self.workers), {}
        with closing(by_processes(self.stream, chunks, self.workers, chunks.ahead, self.stream.told)) as flow:
            for piece, first, spec, is_last in flow:
                pieces[first] = piece
                if is_last:
                    batch, aspects = joined([pieces[first] for first in sorted(pieces)])
                    pieces.clear()  # and `piece`: shared memory goes back before the training loop takes its time
                    del piece
                    yield self._augmented(batch, aspects, spec)
                    del batch

    def _augmented(self, batch: Batch, aspects: torch.Tensor, spec: BatchSpec) -> Batch:
        """Squares that were kept whole become views; crops made while decoding already are."""
        if not self.in_memory and self.augmentation.only_crops:
            return batch
        batch.images = augment(batch.images, aspects, spec.image_size, self.augmentation, self._generator(spec))
        batch.images *= batch.weights[:, None, None, None]
        return batch

    def _generator(self, spec: BatchSpec) -> torch.Generator:
        """What the views of a micro-batch are drawn from."""
        return torch.Generator().manual_seed(self.order.rule.seed * 1_000_003 + spec.start + spec.first)


# --- streaming: what a worker does --------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Read:
    """One sample as it is stored, or why it cannot be used. said: what its labels come from, a caption or class indices."""

    name: str
    image: bytes = b""
    said: str | np.ndarray = ""
    skipped: str | None = None


class SampleStream(torch.utils.data.Dataset):
    """Positions of the stream -> samples; a chunk of a micro-batch -> its piece of the batch.

    A corpus's own stream gives `read_at` and `labels`. stored_size: side of squares that are kept whole, pixels.
    """

    def __init__(self, order: SampleOrder, augmentation: Augmentation, stored_size: int):
        self.order, self.augmentation, self.stored_size = order, augmentation, stored_size

    def read_at(self, shard: int, row: int) -> Read:
        """The sample in a row of a shard."""
        raise NotImplementedError

    def labels(self, said: Sequence) -> list[np.ndarray]:
        """Class indices of each; none for None, a sample that cannot be used."""
        raise NotImplementedError

    def place_told(self, shard: int, row: int) -> str:
        """Where a sample lies, without reading it."""
        raise NotImplementedError

    def told(self, item: tuple[BatchSpec, BatchSpec, bool]) -> str:
        """A chunk in words: where its first samples lie, in as many shards as it has."""
        shards, rows = self.locate(item[0])
        firsts = np.unique(shards, return_index=True)[1][:3]
        some = ", ".join(self.place_told(s, r) for s, r in zip(shards[firsts].tolist(), rows[firsts].tolist(), strict=True))
        return f"{len(rows)} samples, from {some} on,"

    def prepare(self, positions: np.ndarray) -> None:
        """These positions are about to be read."""

    def locate(self, spec: BatchSpec) -> tuple[np.ndarray, np.ndarray]:
        """Shard and row of each sample of a spec."""
        return self.order.locate(self.order.rows_of_step(spec.start, spec.size, spec.first, spec.stop))

    def read(self, position: int) -> Read:
        """The sample at a position of the stream."""
        shards, rows = self.order.locate(np.array([position]))
        return self.read_at(int(shards[0]), int(rows[0]))

    def square(self, encoded: bytes) -> tuple[torch.Tensor, float]:
        """The whole picture squashed to a square, and its width / height. Raises ValueError if it is unreadable."""
        image = decode(encoded)
        return squash(image, self.stored_size), image.width / image.height

    def __getitem__(self, item: tuple[BatchSpec, BatchSpec, bool]) -> tuple[Piece, int, BatchSpec, bool]:
        chunk, spec, is_last = item
        positions = self.order.rows_of_step(chunk.start, chunk.size, chunk.first, chunk.stop)
        self.prepare(positions)
        shards, rows = self.order.locate(positions)
        samples = [self.read_at(s, r) for s, r in zip(shards.tolist(), rows.tolist(), strict=True)]
        size = chunk.image_size if self.augmentation.only_crops else self.stored_size
        images = _blank((len(samples), 3, size, size))
        aspects, weights = np.ones(len(samples), np.float32), np.zeros(len(samples), np.float32)
        skipped, said = [], []
        for i, (sample, position) in enumerate(zip(samples, positions.tolist(), strict=True)):
            reason = sample.skipped
            if reason is None:
                try:
                    if self.augmentation.only_crops:
                        images[i] = crop_view(sample.image, size, self.augmentation, self._random(position))
                    else:
                        images[i], aspects[i] = self.square(sample.image)
                    weights[i] = 1
                except ValueError as error:
                    reason = str(error)
            if reason is not None:
                skipped.append((sample.name, reason))
            said.append(sample.said if reason is None else None)
        labels = self.labels(said)
        counts = np.array([len(found) for found in labels])
        names = [sample.name for sample in samples]
        return Piece(images, np.concatenate(labels), counts, weights, aspects, names, skipped), chunk.first, spec, is_last

    def _random(self, position: int) -> np.random.Generator:
        """A sample's own randomness: whoever decodes it, alone or among others, draws the same."""
        return np.random.Generator(np.random.Philox(key=(self.order.rule.seed << 64) | position))


def _blank(shape: tuple[int, ...]) -> torch.Tensor:
    """Black images, uint8; in a worker in memory that is shared already, so that they need not be copied there to be sent."""
    if torch.utils.data.get_worker_info() is None:
        return torch.zeros(shape, dtype=torch.uint8)
    storage = torch.UntypedStorage._new_shared(math.prod(shape))  # as torch's own collate does; new shared memory is zero
    return torch.empty(0, dtype=torch.uint8).set_(storage, 0, shape)


class Chunks:
    """The sampler: the pieces of each spec. ahead: how many a worker has in hand, its share of two micro-batches."""

    def __init__(self, specs: Iterable[BatchSpec], workers: int):
        self.specs, self.workers = iter(specs), max(1, workers)
        self.next = next(self.specs, None)
        self.ahead = max(2, -(-2 * self._pieces(self.next) // self.workers)) if self.next else 2

    def _pieces(self, spec: BatchSpec) -> int:
        """A multiple of the workers, so that each worker meets the same lanes each time, and opens no other shards.

        Counted by pixels: batches of another image size, with as many pixels in all, are cut into as many pieces.
        """
        pieces = max(1, round(len(spec) * spec.image_size**2 / (CHUNK * 224**2)))
        return -(-pieces // self.workers) * self.workers

    def __iter__(self) -> Iterator[tuple[BatchSpec, BatchSpec, bool]]:
        while self.next is not None:
            spec, self.next = self.next, next(self.specs, None)
            pieces = spec.split(self._pieces(spec))
            # The loader deals items out in turn. Each worker takes neighbours, which lie in the same lanes.
            turns, rest = divmod(len(pieces), self.workers)
            if turns > 1 and not rest:
                pieces = [pieces[worker * turns + turn] for turn in range(turns) for worker in range(self.workers)]
            for i, piece in enumerate(pieces):
                yield piece, spec, i == len(pieces) - 1


# --- in memory ----------------------------------------------------------------------------------------------------------------


@dataclass
class _Memory:
    """A whole corpus, decoded: images uint8 [N, 3, T, T] squashed squares, aspects float32 [N], class indices a sample."""

    starts: np.ndarray  # int64 [S]: the place of each shard's first sample
    images: torch.Tensor
    aspects: torch.Tensor
    labels: list[np.ndarray]
    good: np.ndarray  # bool [N]
    names: list[str]
    reasons: dict[int, str]

    def place_of(self, shards: np.ndarray, rows: np.ndarray) -> np.ndarray:
        return self.starts[shards] + rows

    @property
    def skipped(self) -> list[tuple[str, str]]:
        return [(self.names[i], reason) for i, reason in sorted(self.reasons.items())]


def decode_all(
    stream: SampleStream, progress: Callable[[Sequence], Iterable], kind: str = "shards", threads: int = 4
) -> _Memory:
    """Every sample of the corpus, read shard after shard."""
    counts = stream.order.counts
    total = int(counts.sum())
    images = torch.zeros(total, 3, stream.stored_size, stream.stored_size, dtype=torch.uint8)
    memory = _Memory(np.cumsum(counts) - counts, images, torch.ones(total), [], np.zeros(total, bool), [], {})

    def load(place: int, sample: Read) -> None:
        if sample.skipped is None:
            try:
                memory.images[place], memory.aspects[place] = stream.square(sample.image)
                memory.good[place] = True
            except ValueError as error:
                memory.reasons[place] = str(error)
        else:
            memory.reasons[place] = sample.skipped

    with ThreadPoolExecutor(threads) as pool:
        for shard in progress(range(len(counts))):
            start = len(memory.names)
            samples = [stream.read_at(shard, row) for row in range(counts[shard])]
            memory.names += [sample.name for sample in samples]
            list(pool.map(load, range(start, start + len(samples)), samples))
            usable = memory.good[start:]
            memory.labels += stream.labels([s.said if ok else None for s, ok in zip(samples, usable, strict=False)])
    if memory.reasons:
        told = ", ".join(f"{name} ({reason})" for name, reason in memory.skipped[:5])
        logger.warning("%d of %d samples are skipped: %s", len(memory.reasons), total, told)
    if not memory.good.any():
        raise ValueError(f"none of the {total} samples can be used: are the {kind} damaged?")
    return memory
