"""Synthetic photos in shards: what notebook 08 times the loader on where no data set is at hand.

Gives JPEGs of a photo's size, bytes and work to decode, with captions that name two things, as img2dataset lays shards out.
"""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from PIL import Image

from ...cache import cache_folder
from ..shards import Sample, write_shards
from .drawings import whole_folder

PHOTO = (500, 375)  # width, height in pixels: what Flickr shows by default, and web images often have
QUALITY = 85
SHARDS = 16
# Cells across a photo and grey levels of each octave: large shapes, then ever finer texture, fainter as in photos.
OCTAVES = ((3, 50.0), (8, 28.0), (24, 20.0), (80, 16.0), (250, 14.0))
NOUNS = ("dog", "cat", "horse", "bicycle", "beach", "mountain", "church", "kitchen", "apple", "umbrella", "train", "guitar")
SENTENCES = (
    "A {} beside a {} in the morning light.",
    "Two people look at the {} and a small {}",
    "Photo of an old {} near the {}, taken from above",
    "the {} and its {}",
)


def synthetic_photo(rng: np.random.Generator) -> bytes:
    """A JPEG as large as a photo's, and as much work: smooth random shapes under texture, some rougher than others."""
    rough = rng.uniform(0.6, 1.2)
    luma = sum(grey * (rough if cells > 10 else 1) * _field(rng, cells) for cells, grey in OCTAVES)
    luma = luma + 6 * rough * rng.standard_normal(PHOTO[::-1], np.float32)
    planes = [luma, *(18 * _field(rng, 4) + 8 * _field(rng, 30) for _ in range(2))]
    photo = Image.merge("YCbCr", [Image.fromarray((p + 128).clip(0, 255).astype(np.uint8)) for p in planes])
    out = io.BytesIO()
    photo.save(out, "JPEG", quality=QUALITY)
    return out.getvalue()


def _field(rng: np.random.Generator, cells: int) -> np.ndarray:
    """Smooth noise of variance below 1, so many cells across: float32 [height, width]."""
    width, height = PHOTO
    grid = rng.standard_normal((max(2, round(cells * height / width)), cells), np.float32)
    return np.asarray(Image.fromarray(grid).resize(PHOTO, Image.Resampling.BICUBIC))


def synthetic_shards(count: int) -> Path:
    """The folder of `count` synthetic samples, written if it is not there, the same on each machine but for the encoder."""
    folder, rng = cache_folder() / f"synthetic-photos-{count}", np.random.default_rng(0)
    if not folder.is_dir():
        print(f"writing {count:,} synthetic photos to {folder}, once", flush=True)
        captions = (str(rng.choice(SENTENCES)).format(*rng.choice(NOUNS, 2, replace=False)) for _ in range(count))
        samples = (Sample("", synthetic_photo(rng), "jpg", caption) for caption in captions)
        with whole_folder(folder) as staging:
            write_shards(samples, staging, samples_per_shard=max(1, -(-count // SHARDS)))
    return folder
