"""Positions of a stream → batches: locate, read, decode, label; what cannot be used is skipped, counted and named in one place.

A batch is a pure function of its `BatchSpec`, whoever makes it. What fits in memory is decoded once; the rest streams: worker
processes read and decode what each step needs. What a sample is to teach is the objective's matter: see `Targets`.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, fields, replace
from itertools import pairwise
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch

from ..labels.ragged import take_rows
from .images import Augmentation, augment, crop_view, decode, squash
from .processes import by_processes
from .shards import CAPTION, Sample
from .stream import OrderRule, SampleOrder, ShardReader, ShardStream, ShardTable

logger = logging.getLogger(__name__)

CHUNK = 64  # images a worker decodes at a time: small enough for steady flow, large enough to label captions together
STORED = 1.5  # side of a picture kept in memory, in views: what crops and tilts still look sharp from
THREADS = 4  # that decode what is kept in memory


class Targets(Protocol):
    """What samples are to teach."""

    def __call__(self, samples: Sequence[Sample], /) -> tuple[np.ndarray, np.ndarray]:
        """Class indices of all, int32, end to end, and how many each has, int64; none where a sample is skipped, or where this
        says that it has to be."""


class CaptionTargets(Targets, Protocol):
    """What captions are to teach; as text, what a caption has to have."""

    def look(self, indices: np.ndarray, counts: np.ndarray, /) -> dict[str, float]:
        """What the targets of some captions are like; {} if they teach nothing."""


@dataclass(frozen=True)
class BatchSpec:
    """A micro-batch: rows first … stop - 1 of a step that takes `size` samples of the stream from position `start`.

    Rows of a step are in the order of `SampleOrder.rows_of_step`. image_size: side of the views, pixels.
    """

    start: int
    size: int
    first: int
    stop: int
    image_size: int

    def __len__(self) -> int:
        return self.stop - self.first

    def split(self, parts: int) -> list[BatchSpec]:
        """The same rows in up to so many pieces of nearly equal length."""
        edges = np.linspace(self.first, self.stop, min(parts, len(self)) + 1).round().astype(int).tolist()
        return [replace(self, first=a, stop=b) for a, b in pairwise(edges)]


@dataclass
class Batch:
    """A micro-batch of B images with sparse targets.

    images: uint8, or float32 in 0..1, [B, 3, S, S]. Targets: class `indices` int64 [N] and the image `rows` int64 [N] that each
    belongs to. weights: float32 [B], 1, or 0 for a sample that had to be skipped (its image is black, it has no labels).
    names: "<shard>:<key>" of each row. skipped: name and reason of the rows of weight 0. aspects: float32 [B], width / height
    of images that were squashed. Of dense tasks, boxes: float32 [N, 4], left, top, right and bottom of each object in pixels of
    its view; masks: uint8 [N, S, S] of objects, or [B, S, S], a class for each pixel.
    """

    images: torch.Tensor
    indices: torch.Tensor
    rows: torch.Tensor
    weights: torch.Tensor
    names: list[str]
    skipped: list[tuple[str, str]]
    aspects: torch.Tensor | None = None
    boxes: torch.Tensor | None = None
    masks: torch.Tensor | None = None

    def __len__(self) -> int:
        return len(self.images)

    @property
    def dense(self) -> tuple[torch.Tensor, ...]:
        """What the loss of a dense task takes besides: masks, or boxes, masks and the weights of images."""
        if self.boxes is not None:
            return self.boxes, self.masks, self.weights
        return () if self.masks is None else (self.masks,)

    def to(self, device: torch.device) -> Batch:
        """The same batch on another device."""
        # Elsewhere a copy must not outlive what it reads: Apple's GPU would see other numbers (pytorch/pytorch#189690).
        return self._with_tensors(lambda tensor: tensor.to(device, non_blocking=device.type == "cuda"))

    def pinned(self) -> Batch:
        """The same batch in page-locked memory, from where copies to a GPU need not wait."""
        return self._with_tensors(torch.Tensor.pin_memory)

    def _with_tensors(self, change: Callable) -> Batch:
        values = (getattr(self, one.name) for one in fields(self))
        return Batch(*(change(value) if isinstance(value, torch.Tensor) else value for value in values))

    def __getstate__(self) -> dict:
        """Between processes each tensor takes shared memory and a file descriptor, of which a process has only so many: images
        and masks alone are worth that."""
        return {
            name: value.numpy() if isinstance(value, torch.Tensor) and name not in ("images", "masks") else value
            for name, value in self.__dict__.items()
        }

    def __setstate__(self, state: dict) -> None:
        self.__dict__.update({n: torch.from_numpy(v) if isinstance(v, np.ndarray) else v for n, v in state.items()})


def joined(pieces: Sequence[Batch], images: torch.Tensor | None = None) -> Batch:
    """Pieces of a micro-batch as one. images: theirs end to end, where they lie so already."""
    if len(pieces) == 1:
        return pieces[0]
    if images is None:
        images = torch.cat([piece.images for piece in pieces])
    starts = np.cumsum([0, *map(len, pieces)]).tolist()
    return Batch(
        images,
        torch.cat([piece.indices for piece in pieces]),
        torch.cat([piece.rows + start for piece, start in zip(pieces, starts, strict=False)]),
        torch.cat([piece.weights for piece in pieces]),
        [name for piece in pieces for name in piece.names],
        [skip for piece in pieces for skip in piece.skipped],
        torch.cat([piece.aspects for piece in pieces]),
        *(
            None if getattr(pieces[0], what) is None else torch.cat([getattr(piece, what) for piece in pieces])
            for what in ("boxes", "masks")
        ),
    )


# ---------------------------------------------------------------- samples → (part of) a batch


class Stream(Protocol):
    """Samples in an order; fit to be sent to other processes."""

    order: SampleOrder

    @property
    def fingerprint(self) -> str:
        """Tells one corpus from another."""

    def read(self, shard: int, row: int) -> Sample:
        """The sample in a row of a shard; one that cannot be used says why."""

    def prepare(self, positions: np.ndarray) -> None:
        """These positions are about to be read."""

    def told(self, shard: int, row: int) -> str:
        """Where a sample lies, without reading it."""


@dataclass(frozen=True)
class Reading:
    """How samples become batches, fit to be sent to other processes. stored_size: side of squares kept whole, pixels."""

    stream: Stream
    targets: Targets
    augmentation: Augmentation
    stored_size: int

    def locate(self, spec: BatchSpec) -> tuple[np.ndarray, np.ndarray]:
        """Shard and row of each sample of a spec."""
        return self.stream.order.locate(self.positions(spec))

    def positions(self, spec: BatchSpec) -> np.ndarray:
        """Of each sample of a spec in the stream: int64."""
        return self.stream.order.rows_of_step(spec.start, spec.size, spec.first, spec.stop)

    def piece(self, chunk: BatchSpec) -> Batch:
        """What a worker makes of its part of a micro-batch: views where these are crops alone, else whole squares."""
        positions = self.positions(chunk)
        self.stream.prepare(positions)
        crops = self.augmentation.only_crops
        size = chunk.image_size if crops else self.stored_size

        def crop(i: int, encoded: bytes) -> tuple[torch.Tensor, float]:
            return crop_view(encoded, size, self.augmentation, self.random(int(positions[i]))), 1.0

        images = torch.zeros((len(chunk), 3, size, size), dtype=torch.uint8)
        return self.loaded(*self.stream.order.locate(positions), images, crop if crops else self.square)

    def loaded(self, shards: np.ndarray, rows: np.ndarray, images: torch.Tensor, view: Callable, each: Callable = map) -> Batch:
        """The samples at these rows of these shards, read, decoded by `view` and labelled; those that cannot be are skipped.

        images: black, uint8 [n, 3, S, S], to be filled. view: number and encoded bytes -> uint8 [3, S, S] and its aspect.
        """
        samples = [self.stream.read(s, r) for s, r in zip(shards.tolist(), rows.tolist(), strict=True)]
        aspects = torch.ones(len(samples))

        def show(i: int) -> None:
            sample = samples[i]
            if not sample.skipped:
                try:
                    images[i], aspects[i] = view(i, sample.image)
                except ValueError as error:
                    sample.skipped = str(error)

        for _ in each(show, range(len(samples))):
            pass
        indices, counts = self.targets(samples)
        for i, sample in enumerate(samples):
            if sample.skipped:  # for its caption, perhaps, when its image was decoded already
                images[i] = 0
        return Batch(
            images,
            torch.from_numpy(indices.astype(np.int64)),
            torch.from_numpy(np.repeat(np.arange(len(counts)), counts)),
            torch.tensor([float(not sample.skipped) for sample in samples]),
            [sample.key for sample in samples],
            [(sample.key, sample.skipped) for sample in samples if sample.skipped],
            aspects,
        )

    def square(self, _: int, encoded: bytes) -> tuple[torch.Tensor, float]:
        """The whole picture squashed to a square, and its width / height. Raises ValueError if it is unreadable."""
        image = decode(encoded)
        return squash(image, self.stored_size), image.width / image.height

    def random(self, position: int) -> np.random.Generator:
        """A sample's own randomness: whoever decodes it, alone or among others, draws the same."""
        return np.random.Generator(np.random.Philox(key=(self.stream.order.rule.seed << 64) | position))

    def __call__(self, item: tuple[BatchSpec, BatchSpec, bool]) -> tuple[Batch, int, BatchSpec, bool]:
        """An item of `Chunks`, done."""
        chunk, spec, is_last = item
        return self.piece(chunk), chunk.first, spec, is_last

    def told(self, item: tuple[BatchSpec, BatchSpec, bool]) -> str:
        """A chunk in words: where its first samples lie, in as many shards as it has."""
        shards, rows = self.locate(item[0])
        firsts = np.unique(shards, return_index=True)[1][:3]
        some = (self.stream.told(s, r) for s, r in zip(shards[firsts].tolist(), rows[firsts].tolist(), strict=True))
        return f"{len(rows)} samples, from {', '.join(some)} on,"


class Chunks:
    """The pieces of each spec, in the order in which they are dealt out. ahead: how many a worker has in hand, its share of two
    micro-batches."""

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
            # Items are dealt out in turn. Each worker takes neighbours, which lie in the same lanes.
            turns, rest = divmod(len(pieces), self.workers)
            if turns > 1 and not rest:
                pieces = [pieces[worker * turns + turn] for turn in range(turns) for worker in range(self.workers)]
            for i, piece in enumerate(pieces):
                yield piece, spec, i == len(pieces) - 1


# ---------------------------------------------------------------- all of them, by spec


class Loader:
    """The batches of a stream, by `BatchSpec`.

    image_size: side of the views the recipe trains at (others may be asked for). cache_gb: decode once and keep in memory if
    that takes no more than this; else `workers` processes decode. progress: wraps the numbers of shards while they are decoded.
    """

    patience = 64  # samples: a micro-batch of large images may be one, which may be damaged

    def __init__(
        self,
        stream: Stream,
        targets: Targets,
        image_size: int,
        augmentation: Augmentation,
        *,
        cache_gb: float = 2.0,
        workers: int = 2,
        progress: Callable[[Sequence], Iterable] = lambda shards: shards,
    ):
        self.stream, self.targets, self.augmentation, self.workers = stream, targets, augmentation, workers
        self.reading = Reading(stream, targets, augmentation, round(image_size * STORED))
        self.order = stream.order
        self.in_memory = len(self) * 3 * self.reading.stored_size**2 <= cache_gb * 2**30
        if self.in_memory:
            self._decode_all(progress)

    def __len__(self) -> int:
        return self.order.num_samples

    def batches(self, specs: Iterable[BatchSpec]) -> Generator[Batch, None, None]:
        """The batch of each spec, in order. Raises ValueError for a batch, or several in a row, of more than `patience` samples
        without a usable one."""
        lost = 0
        for batch in self._from_memory(specs) if self.in_memory else self._from_stream(specs, self.workers):
            lost = 0 if batch.weights.any() else lost + len(batch)
            if lost > self.patience:
                reasons = sorted({reason for _, reason in batch.skipped})
                raise ValueError(
                    f"none of the {len(batch)} samples of a batch can be used ({', '.join(reasons)}), such as "
                    f"{', '.join(batch.names[:3])}: are the files damaged?"
                )
            yield batch

    def identity(self) -> dict:
        """What a run that is resumed must find again: JSON values `corpus` (what) and `rule` (in which order)."""
        rule = self.order.rule
        told = {"seed": rule.seed, "shuffle_shards": rule.shuffle_shards, "lanes": rule.lanes}
        return {"corpus": self.stream.fingerprint, "rule": told}

    def views_of(self, spec: BatchSpec) -> torch.Tensor:
        """Training views to look at: float32 [B, 3, S, S] in 0..1."""
        # A handful of images is not worth starting processes.
        images = next(self._from_memory([spec]) if self.in_memory else self._from_stream([spec], workers=0)).images
        return images if images.is_floating_point() else images.float() / 255

    def _from_stream(self, specs: Iterable[BatchSpec], workers: int) -> Iterator[Batch]:
        """Chunks come from the workers in turn; with lanes for every worker, a worker gets the same lanes each step."""
        chunks, pieces = Chunks(specs, workers), {}
        with closing(by_processes(self.reading, chunks, workers, chunks.ahead, self.reading.told)) as flow:
            for piece, first, spec, is_last in flow:
                pieces[first] = piece
                if is_last:
                    batch = joined([pieces[first] for first in sorted(pieces)])
                    pieces.clear()  # and `piece`: shared memory goes back before the training loop takes its time
                    del piece
                    yield self._augmented(batch, spec)
                    del batch

    def _from_memory(self, specs: Iterable[BatchSpec]) -> Iterator[Batch]:
        memory = self.memory
        for spec in specs:
            shards, rows = self.reading.locate(spec)
            places = self._starts[shards] + rows
            chosen, ends = take_rows(self._ends, places)
            good = memory.weights[places]
            batch = Batch(
                memory.images[places],
                memory.indices[chosen],
                torch.from_numpy(np.repeat(np.arange(len(places)), np.diff(ends, prepend=0))),
                good,
                [memory.names[i] for i in places],
                [self._reasons[i] for i in places[good.numpy() == 0].tolist()],
                memory.aspects[places],  # type: ignore[index]  # all squares have theirs
            )
            yield self._augmented(batch, spec)

    def _decode_all(self, progress: Callable[[Sequence], Iterable]) -> None:
        """Every sample of the corpus, read shard after shard."""
        counts, size = self.order.counts, self.reading.stored_size
        self._starts, pieces = np.cumsum(counts) - counts, []
        images = torch.zeros((len(self), 3, size, size), dtype=torch.uint8)
        with ThreadPoolExecutor(THREADS) as pool:
            for shard, part in zip(progress(range(len(counts))), images.split(counts.tolist()), strict=True):
                rows = np.arange(counts[shard])
                pieces.append(self.reading.loaded(np.full_like(rows, shard), rows, part, self.reading.square, pool.map))
        self.memory = joined(pieces, images)
        self._ends = np.cumsum(np.bincount(self.memory.rows, minlength=len(self.memory)))
        self._reasons = dict(zip(np.flatnonzero(self.memory.weights.numpy() == 0).tolist(), self.memory.skipped, strict=True))
        if self.memory.skipped:
            told = ", ".join(f"{name} ({reason})" for name, reason in self.memory.skipped[:5])
            logger.warning("%d of %d samples are skipped: %s", len(self.memory.skipped), len(self.memory), told)
        if not self.memory.weights.any():
            raise ValueError(f"none of the {len(self.memory)} samples can be used: are the files damaged?")

    def _augmented(self, batch: Batch, spec: BatchSpec) -> Batch:
        """Squares that were kept whole become views; crops made while decoding already are."""
        if not self.in_memory and self.augmentation.only_crops:
            return batch
        batch.images = augment(batch.images, batch.aspects, spec.image_size, self.augmentation, self._generator(spec))
        batch.images *= batch.weights[:, None, None, None]
        return batch

    def _generator(self, spec: BatchSpec) -> torch.Generator:
        """What the views of a micro-batch are drawn from."""
        return torch.Generator().manual_seed(self.order.rule.seed * 1_000_003 + spec.start + spec.first)


# ---------------------------------------------------------------- the batches of shards


@dataclass(frozen=True)
class FirstLook:
    """captions: how many were looked at. facts: what their targets are like. skipped: name and reason of unusable samples."""

    captions: int
    facts: dict[str, float]
    skipped: list[tuple[str, str]]


class Corpus(Loader):
    """The batches of shards, by `BatchSpec`; see `Loader`.

    columns: of captions. processes, share: how many processes share a step, and how many of its micro-batches each takes; they
    bound how many shards a worker keeps open. download_to: where shards of a remote store are kept while they are read.
    """

    stream: ShardStream
    targets: CaptionTargets

    def __init__(
        self,
        table: ShardTable,
        targets: CaptionTargets,
        image_size: int,
        augmentation: Augmentation,
        *,
        columns: Sequence[str] = (CAPTION,),
        rule: OrderRule = OrderRule(),  # noqa: B008 (frozen)
        processes: int = 1,
        share: int = 1,
        download_to: Path | None = None,
        **how: Any,
    ):
        self.table, self.rule = table, rule
        stream = ShardStream(table, rule, ShardReader(table, columns, download_to=download_to))
        super().__init__(stream, targets, image_size, augmentation, **how)
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
            counts, skipped = np.diff(self._ends, prepend=0)[self.memory.weights.numpy() > 0], self.memory.skipped
            indices = self.memory.indices.numpy()  # what is skipped has none
        else:
            positions = np.arange(min(most, max(1, len(self) // self.rule.lanes))) * self.rule.lanes
            read = [self.stream.read(*place) for place in zip(*(p.tolist() for p in self.order.locate(positions)), strict=True)]
            indices, counts = self.targets(read)
            skipped = [(sample.key, sample.skipped) for sample in read if sample.skipped]
            counts = counts[[not sample.skipped for sample in read]]
        facts = self.targets.look(indices, counts) if counts.any() else {}
        if not facts or facts.get("captions without a label") == len(counts):
            lost = f"; {len(skipped):,} samples cannot be used, such as {skipped[0][0]} ({skipped[0][1]})" if skipped else ""
            raise ValueError(
                f"none of the {len(counts):,} captions looked at has {self.targets}: choose another vocabulary or other "
                f"shards{lost}"
            )
        return FirstLook(len(counts), facts, skipped)
