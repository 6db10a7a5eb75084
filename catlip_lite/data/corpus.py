"""Shards + vocabulary → training batches: labels made from the captions, images decoded and augmented.

Shards are scanned once (captions are read, images are not) into an index of a few bytes a sample. A corpus that fits in
memory is decoded once; a larger one is decoded by worker processes, each step anew. Which samples make up step s is a pure
function of (seed, s), so a resumed run continues with the very next unseen sample.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch

from ..labels import CaptionLabeler, Vocabulary
from .images import Augmentation, augment, decode, squash
from .shards import find_shards, image_member, read_caption, scan_shard

logger = logging.getLogger(__name__)

LABEL_CHUNK = 4096  # captions labelled at a time while scanning


@dataclass
class Batch:
    """images: float32 [B, 3, S, S] in 0..1. Targets are sparse: class `indices` int64 [N] and the image `rows` int64 [N]."""

    images: torch.Tensor
    indices: torch.Tensor
    rows: torch.Tensor
    samples: np.ndarray  # int64 [B], rows of the index: which samples these are

    def to(self, device: torch.device) -> Batch:
        """The same batch on another device."""
        move = {"device": device, "non_blocking": True}
        return Batch(self.images.to(**move), self.indices.to(**move), self.rows.to(**move), self.samples)


@dataclass
class ShardIndex:
    """Where each sample's image lies and what its caption's labels are, for all shards of a corpus (N samples)."""

    paths: list[Path]
    shard: np.ndarray  # int32 [N], an index into paths
    offset: np.ndarray  # int64 [N], first byte of the image in its tar
    size: np.ndarray  # int32 [N], bytes
    label_ends: np.ndarray  # int64 [N + 1]: the labels of sample i are labels[label_ends[i] : label_ends[i + 1]]
    labels: np.ndarray  # int32, class indices
    skipped: dict[str, int]  # reason -> samples left out
    keys: list[str] | None = None

    def __len__(self) -> int:
        return len(self.shard)

    def image(self, i: int) -> bytes:
        """The encoded image of sample i."""
        with open(self.paths[self.shard[i]], "rb") as file:
            file.seek(self.offset[i])
            return file.read(self.size[i])

    def targets(self, samples: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
        """Class indices and image rows of several samples: int64 [N], int64 [N]."""
        starts, ends = self.label_ends[samples], self.label_ends[samples + 1]
        indices = np.concatenate([self.labels[a:b] for a, b in zip(starts, ends, strict=True)]).astype(np.int64)
        return torch.from_numpy(indices), torch.from_numpy(np.repeat(np.arange(len(samples)), ends - starts))


def index_shards(
    address: str | Path | Sequence[str],
    labeler: CaptionLabeler,
    vocabulary: Vocabulary,
    progress: Callable[[Sequence], Sequence] = lambda paths: paths,
) -> ShardIndex:
    """Scan all shards behind an address (see `find_shards`). Samples whose caption gives no label are kept, as in the paper.

    Raises FileNotFoundError if there are no shards, ValueError if a shard holds no image or the captions give no label at all.
    """
    paths = find_shards(address)
    shard, offset, size, keys, captions, labels, counts = [], [], [], [], [], [], [0]
    skipped = {"no image": 0, "no caption": 0}

    def flush():
        for wnids in labeler.label(captions):
            encoded = vocabulary.encode(wnids)
            labels.append(encoded)
            counts.append(len(encoded))
        captions.clear()

    for number, path in enumerate(progress(paths)):
        before = len(shard)
        for key, parts, tar in scan_shard(path):
            image, caption = image_member(parts), read_caption(parts, tar)
            if image is None or caption is None:
                skipped["no image" if image is None else "no caption"] += 1
                logger.info("%s: sample %s has %s", path, key, "no image" if image is None else "no caption")
                continue
            shard.append(number)
            offset.append(image.offset_data)
            size.append(image.size)
            keys.append(key)
            captions.append(caption)
            if len(captions) == LABEL_CHUNK:
                flush()
        if len(shard) == before:
            raise ValueError(f"{path} holds no image with a caption: it needs members <key>.jpg (or png, webp) and <key>.txt")
    flush()
    if not any(counts):
        raise ValueError(
            f"no caption of {address} has a synset of this vocabulary ({len(vocabulary):,} classes): choose another"
        )
    return ShardIndex(
        paths,
        np.array(shard, np.int32),
        np.array(offset, np.int64),
        np.array(size, np.int32),
        np.cumsum(counts, dtype=np.int64),
        np.concatenate(labels),
        skipped,
        keys,
    )


@lru_cache(maxsize=2)
def _epoch_order(count: int, seed: int, epoch: int) -> np.ndarray:
    """One epoch's permutation, drawn once an epoch rather than once a batch."""
    return np.random.default_rng((seed, epoch)).permutation(count)


def sample_order(count: int, start: int, length: int, seed: int) -> np.ndarray:
    """Samples number `start` … `start + length` of an endless stream of epochs, each a permutation drawn from (seed, epoch)."""
    parts = []
    while length > 0:
        epoch, position = divmod(start, count)
        order = _epoch_order(count, seed, epoch)[position : position + length]
        parts.append(order)
        start, length = start + len(order), length - len(order)
    return np.concatenate(parts)


class Corpus:
    """An indexed corpus that gives the batch of any step.

    image_size: side of the views. cache_gb: decode once and keep in memory if that takes no more than this; else `workers`
    processes decode.
    """

    def __init__(
        self,
        index: ShardIndex,
        image_size: int,
        augmentation: Augmentation,
        *,
        seed: int = 0,
        cache_gb: float = 2.0,
        workers: int = 2,
    ):
        self.index, self.image_size, self.augmentation, self.seed, self.workers = index, image_size, augmentation, seed, workers
        self.stored_size = round(image_size * 1.5)
        self.in_memory = len(index) * 3 * self.stored_size**2 <= cache_gb * 2**30
        if self.in_memory:
            self.images, self.aspects, good = decode_all(index, self.stored_size)
            if not good.all():
                bad = np.flatnonzero(~good)
                index.skipped["unreadable image"] = len(bad)
                named = ", ".join(f"{index.paths[index.shard[i]].name}:{index.keys[i]}" for i in bad[:5])
                logger.warning("%d unreadable image(s) are left out: %s", len(bad), named)
            self.usable = np.flatnonzero(good)
        else:
            self.usable = np.arange(len(index))
        if not len(self.usable):
            raise ValueError(f"none of the {len(index)} images can be read: are the shards damaged?")

    def __len__(self) -> int:
        return len(self.usable)

    def batches(self, start: int, stop: int, batch_size: int) -> Iterator[Batch]:
        """The batches of steps start … stop - 1."""
        if self.in_memory:
            for step in range(start, stop):
                yield self._memory_batch(step, batch_size)
            return
        steps = _DecodedSteps(self, start, stop, batch_size)
        ahead = 4 if self.workers else None
        yield from torch.utils.data.DataLoader(steps, batch_size=None, num_workers=self.workers, prefetch_factor=ahead)

    def samples_of_step(self, step: int, batch_size: int) -> np.ndarray:
        """Which samples (rows of the index) make up a step."""
        return self.usable[sample_order(len(self), step * batch_size, batch_size, self.seed)]

    def views_of_step(self, step: int, count: int) -> torch.Tensor:
        """The first few training views of a step, to look at: float32 [count, 3, S, S] in 0..1."""
        return next(iter(self.batches(step, step + 1, count))).images

    def _generator(self, step: int) -> torch.Generator:
        return torch.Generator().manual_seed(self.seed * 1_000_003 + step)

    def _memory_batch(self, step: int, batch_size: int) -> Batch:
        samples = self.samples_of_step(step, batch_size)
        views = augment(self.images[samples], self.aspects[samples], self.image_size, self.augmentation, self._generator(step))
        return Batch(views, *self.index.targets(samples), samples)


class _DecodedSteps(torch.utils.data.Dataset):
    """Step -> Batch, decoding in a DataLoader's worker; an unreadable image is replaced by the step's first readable one."""

    def __init__(self, corpus: Corpus, start: int, stop: int, batch_size: int):
        self.corpus, self.start, self.stop, self.batch_size = corpus, start, stop, batch_size

    def __len__(self) -> int:
        return self.stop - self.start

    def __getitem__(self, item: int) -> Batch:
        corpus, step = self.corpus, self.start + item
        samples = corpus.samples_of_step(step, self.batch_size)
        decoded, good = [], []
        for i in samples:
            try:
                image = decode(corpus.index.image(i))
            except ValueError as error:
                logger.warning("%s: sample %s: %s", corpus.index.paths[corpus.index.shard[i]], corpus.index.keys[i], error)
                continue
            decoded.append((squash(image, corpus.stored_size), image.width / image.height))
            good.append(i)
        if not good:
            raise ValueError(f"step {step}: none of its {len(samples)} images can be read")
        good += [good[0]] * (len(samples) - len(good))
        decoded += [decoded[0]] * (len(samples) - len(decoded))
        images, aspects = torch.stack([d for d, _ in decoded]), torch.tensor([a for _, a in decoded])
        views = augment(images, aspects, corpus.image_size, corpus.augmentation, corpus._generator(step))
        samples = np.array(good)
        return Batch(views, *corpus.index.targets(samples), samples)


def decode_all(index: ShardIndex, size: int, threads: int = 4) -> tuple[torch.Tensor, torch.Tensor, np.ndarray]:
    """Every image squashed to a square: uint8 [N, 3, size, size], width / height float32 [N], and which could be read [N]."""
    images = torch.zeros(len(index), 3, size, size, dtype=torch.uint8)
    aspects = torch.ones(len(index))
    good = np.ones(len(index), dtype=bool)

    def load(i: int) -> None:
        try:
            image = decode(index.image(i))
        except ValueError:
            good[i] = False
            return
        images[i] = squash(image, size)
        aspects[i] = image.width / image.height

    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(load, range(len(index)), chunksize=64))
    return images, aspects, good
