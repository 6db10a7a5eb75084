"""Multi-scale training (paper table 6): image sizes that change from step to step, with batches of about as many pixels.

Between the recipe, which names a kind, and the plan of the steps. The networks see objects at many scales and serve other
resolutions than the one they are named after; small images, of which more fit, pay for the large ones.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

MULTI_SCALE = ("none", "paper", "buckets", "finetune", "multi_label")

# As shares of the base size. The reference draws from 25 sizes and the base, for base 224 from 128 to 320.
PAPER_SHARES = (*np.linspace(128, 320, 25) / 224, 1.0)
# Each size costs compiled graphs, forward and backward, and a warm-up of the allocator. These five stand for the fifths of the
# paper's range: for base 224 the same mean size, 224, and a mean batch of 0.98 of the paper's.
BUCKET_SHARES = (144 / 224, 176 / 224, 1.0, 272 / 224, 304 / 224)
# Table 7's, again 25 draws each: base 224 from 128 to 320, base 512 from 256 to 512; COCO's base 512 from 256 to 768.
SMALL_BASE_SHARES, LARGE_BASE_SHARES = PAPER_SHARES, tuple(np.linspace(0.5, 1.0, 25))
MULTI_LABEL_SHARES = tuple(np.linspace(0.5, 1.5, 25))
LARGE_BASE = 384  # pixels
COARSE_FROM = 14  # patches a side: from here on fine-tuning's sizes are two patches apart
TILE = 8  # matrix units work in tiles; a batch that is no multiple leaves some of the last tile idle


class Scale(NamedTuple):
    """One kind of step: square images of `size` pixels a side, `batch` of them in a micro-batch."""

    size: int
    batch: int


def scales(image_size: int, kind: str, micro_batch: int, patch: int = 16) -> tuple[Scale, ...]:
    """The sizes that steps are drawn from, smallest first, each with the micro-batch that fits.

    image_size: the base, in pixels; the range scales with it. micro_batch: images at the base size. patch: sizes are its
    multiples. kind: "none" is the base alone; "paper" the reference's variable batch sampler, for base 224 and patch 16 the 13
    sizes 128, 144, ... 320; "buckets" five of them, with batches in multiples of 8 that never hold more pixels than at the
    base; "finetune" the reference's for fine-tuning, two patches apart (base 224: the 7 sizes 128, 160, ... 320; base 512: 9
    from 256 to 512), one patch apart for a base of less than 14 patches; "multi_label" that for COCO (base 512: 25 sizes from
    256 to 768). Raises ValueError for an unknown kind, or a base that is no multiple of the patch.
    """
    if kind not in MULTI_SCALE:
        raise ValueError(f"multi_scale={kind!r} is unknown: choose one of {', '.join(MULTI_SCALE)}")
    if kind == "none":
        return (Scale(image_size, micro_batch),)
    if image_size % patch:
        raise ValueError(f"image_size={image_size} must be a multiple of the patch, {patch}, to train at several scales")
    coarse = kind == "finetune" and image_size >= COARSE_FROM * patch
    step = 2 * patch if coarse else patch
    sizes = sorted({image_size} | {_nearest_multiple(image_size * share, step) for share in _shares(kind, image_size)})
    return tuple(Scale(size, _batch(size, image_size, micro_batch, kind)) for size in sizes)


def micro_batches(scale: Scale, base: Scale, count: int) -> int:
    """How many micro-batches of a scale hold about as many pixels as `count` of the base's: more, where few images are in each.

    Where steps end among the samples therefore depends on the micro-batch, by less than half a micro-batch.
    """
    return max(1, round(count * base.batch * base.size**2 / (scale.batch * scale.size**2)))


def _shares(kind: str, image_size: int) -> tuple[float, ...]:
    """Sizes as shares of the base."""
    of_finetune = LARGE_BASE_SHARES if image_size >= LARGE_BASE else SMALL_BASE_SHARES
    shares = {"paper": PAPER_SHARES, "buckets": BUCKET_SHARES, "finetune": of_finetune, "multi_label": MULTI_LABEL_SHARES}
    return shares[kind]


def size_of_steps(steps: np.ndarray, seed: int, num_scales: int) -> np.ndarray:
    """Which scale each step takes, uniform over 0..num_scales-1: int64, shaped as `steps` (int64).

    A pure function of (seed, step), so that a resumed run, or another process, asks for any step without drawing those before.
    """
    first = _splitmix64(np.array(seed & (2**64 - 1), np.uint64))
    hashed = _splitmix64(first + np.asarray(steps).astype(np.uint64))
    # The upper half as a fraction of 2^32, times the number of scales.
    return ((hashed >> np.uint64(32)) * np.uint64(num_scales) >> np.uint64(32)).astype(np.int64)


def _nearest_multiple(size: float, patch: int) -> int:
    """The nearest multiple of patch, or the next above if the nearest is more than 10 % below (the reference's rule)."""
    nearest = max(patch, int(size + patch / 2) // patch * patch)
    return nearest + patch if nearest < 0.9 * size else nearest


def _batch(size: int, base: int, micro_batch: int, kind: str) -> int:
    """Images of `size` with the pixels of a micro-batch at the base size; at least 1."""
    batch = max(1, int(round(base * base * micro_batch / (size * size), 2)))
    # Of fewer than eight tiles, rounding down would leave out too large a share.
    return batch // TILE * TILE if kind == "buckets" and size != base and batch >= 8 * TILE else batch


def _splitmix64(state: np.ndarray) -> np.ndarray:
    """A well-mixed 64-bit number for each state: uint64 (Steele, Lea and Flood, OOPSLA 2014); arithmetic is modulo 2^64."""
    with np.errstate(over="ignore"):
        state = state + np.uint64(0x9E3779B97F4A7C15)
        state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return state ^ (state >> np.uint64(31))
