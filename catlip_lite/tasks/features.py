"""Frozen features of labelled images, computed once and cached: what probes and Transfer Init read (notebooks 05, 06)."""

from __future__ import annotations

import hashlib
import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file
from torch.nn import functional as F

from ..artefacts import atomic_path
from ..data.images import Evaluation
from ..data.labelled import LabelledImages, batches_of_views
from ..models import PretrainedModel, network_of
from ..progress import progress

logger = logging.getLogger(__name__)

IMAGES_A_PART = 50_000  # an extraction that is killed loses the work of fewer
STATISTICS_IMAGES = 2_048  # whose pixels give an untrained network its BatchNorm statistics
PIXEL_SIDE = 32  # larger views are averaged down to it: 3,072 pixel features
MOST_VALIDATION = 20_000  # images: the standard error of their top-1 is at most 0.35 %


@dataclass
class Features:
    """N images as one backbone sees them.

    features: float32 [N, D]. labels: class names, str [N]. groups: where each comes from, str [N].
    rows: int64 [N], which of the labelled images each is; unreadable ones are missing.
    """

    features: np.ndarray
    labels: np.ndarray
    groups: np.ndarray
    rows: np.ndarray

    def __len__(self) -> int:
        return len(self.features)

    def take(self, rows: np.ndarray) -> Features:
        """Some of the images, in the order of `rows` (indices or a mask)."""
        return Features(self.features[rows], self.labels[rows], self.groups[rows], self.rows[rows])


def extract(
    model: PretrainedModel, images: LabelledImages, cache: Path | None = None, *, workers: int = 0, batch_size: int = 256
) -> Features:
    """Embeddings of all images, from `cache` as far as this model has seen these images before.

    The cache has a folder for each model, images, evaluation view and precision, with a file for every 50,000 images: an
    extraction that was killed goes on with the file it was at. Images that could not be read are tried again each time, so that
    a store that was out of reach leaves no gap. workers: processes that read and decode.
    Raises ValueError for lists of labels, or if none of a file's images is readable.
    """
    images.expect_single_labels()
    folder = cache / _cache_name(model, images) if cache else None
    starts, parts = range(0, len(images), IMAGES_A_PART), []
    for number, start in enumerate(starts):
        wanted = np.arange(start, min(start + IMAGES_A_PART, len(images)))
        path = folder / f"{start}-{wanted[-1] + 1}.safetensors" if folder else None
        title = "features" if len(starts) == 1 else f"features, part {number + 1} of {len(starts)}"
        stored = _stored(path)
        lacking = wanted if stored is None else np.setdiff1d(wanted, stored["rows"])
        parts.append(stored)
        if not len(lacking):
            continue
        try:
            found = _embedded(model, images, lacking, title, workers, batch_size)
        except ValueError as error:  # none of them is readable
            if stored is None:
                raise
            logger.warning("%d images that could not be read before are left out again: %s", len(lacking), error)
            continue
        parts[-1] = found if stored is None else _merged(stored, found)
        if path is not None:
            folder.mkdir(parents=True, exist_ok=True)
            with atomic_path(path) as staging:
                save_file(parts[-1], staging)
    features, rows = (np.concatenate([part[name] for part in parts]) for name in ("features", "rows"))
    return _of_images(images, features, rows)


def _stored(path: Path | None) -> dict[str, np.ndarray] | None:
    """A part that an earlier extraction wrote; None if there is none, or it is damaged."""
    if path is None or not path.is_file():
        return None
    try:
        return load_file(path)
    except SafetensorError as error:
        logger.warning("%s is damaged (%s): its features are computed again", path, error)
        return None


def _merged(stored: dict[str, np.ndarray], found: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Both parts' images, by row."""
    rows = np.concatenate([stored["rows"], found["rows"]])
    order = np.argsort(rows)
    return {"features": np.concatenate([stored["features"], found["features"]])[order], "rows": rows[order]}


def untrained(model: PretrainedModel, images: LabelledImages, seed: int = 0, *, workers: int = 0) -> PretrainedModel:
    """The same architecture with random weights: what the features are worth before any training.

    The running statistics of the stem's BatchNorm are taken from some of `images`: with those of its start the random features
    would not be normalised, and the baseline be weaker than it is.
    """
    torch.manual_seed(seed)
    network = network_of(model.config, num_classes=len(model.vocabulary))
    precision = "bf16" if model.dtype == torch.bfloat16 else "fp32"
    blank = PretrainedModel(network, model.vocabulary, model.config, model.device, precision)
    norms = [module for module in network.modules() if isinstance(module, torch.nn.BatchNorm2d)]
    for norm in norms:
        norm.train()
        norm.momentum = None  # the plain mean over batches
    if norms:
        with torch.no_grad():
            for _, views in batches_of_views(images.sample(STATISTICS_IMAGES), model.evaluation, workers=workers):
                network(blank.network_input(views))
    network.eval()
    return blank


def pixel_features(images: LabelledImages, evaluation: Evaluation, *, workers: int = 0) -> Features:
    """The pixels of the view that the model sees, 0..1, flattened: float32 [N, 3 * S * S], S at most 32."""
    side, rows, pixels = min(evaluation.image_size, PIXEL_SIDE), [], []
    for found, views in batches_of_views(images, evaluation, workers=workers):
        small = F.interpolate(views.float() / 255, size=(side, side), mode="area")
        rows.append(found)
        pixels.append(small.flatten(1).numpy())
    return _of_images(images, np.concatenate(pixels), np.concatenate(rows))


def join(parts: Sequence[Features]) -> Features:
    """Several sets of images, one after the other; `rows` stay those of their own sets."""
    names = ("features", "labels", "groups", "rows")
    return Features(*(np.concatenate([getattr(part, name) for part in parts]) for name in names))


def split_validation(
    train: Features, group: str | None = None, share: float = 0.2, seed: int = 0, most: int = MOST_VALIDATION
) -> np.ndarray:
    """Which training images validate, bool [N]: those of one group (so that validation is as unlike as test), else a random
    share of each class, `most` images in all: at least one, unless the class has no other. Raises ValueError for an empty
    split."""
    if group is not None:
        chosen = train.groups == group
        if not chosen.any() or chosen.all():
            there = ", ".join(sorted(set(train.groups)))
            raise ValueError(f"validation_group={group!r} must hold some of the training images, not all: groups are {there}")
        return chosen
    classes, mine, sizes = np.unique(train.labels, return_inverse=True, return_counts=True)
    share = min(share, most / len(train))
    wanted = np.minimum(sizes - 1, np.maximum(1, np.round(share * sizes)))
    shuffled = np.random.default_rng(seed).permutation(len(train))
    ordered = shuffled[np.argsort(mine[shuffled], kind="stable")]
    place = np.arange(len(train)) - np.repeat(np.cumsum(sizes) - sizes, sizes)  # within its class
    chosen = np.zeros(len(train), dtype=bool)
    chosen[ordered[place < wanted[mine[ordered]]]] = True
    if not chosen.any():
        raise ValueError(
            f"none of the {len(classes):,} classes has more than one image, so none is left for validation: give more labelled "
            "images or a validation_group"
        )
    return chosen


def model_fingerprint(model: PretrainedModel) -> str:
    """Sixteen hex digits that change with any weight."""
    digest = hashlib.sha256()
    for name, value in sorted(model.network.state_dict().items()):
        digest.update(name.encode())
        digest.update(value.cpu().contiguous().flatten().view(torch.uint8).numpy())
    return digest.hexdigest()[:16]


def _cache_name(model: PretrainedModel, images: LabelledImages) -> str:
    colours = [model.config.get(name) for name in ("mean", "std")]
    view = hashlib.sha256(f"{model.evaluation} {colours}".encode()).hexdigest()[:8]
    return f"{model_fingerprint(model)}_{images.fingerprint}_{view}_{str(model.dtype).removeprefix('torch.')}"


def _embedded(
    model: PretrainedModel, images: LabelledImages, wanted: np.ndarray, title: str, workers: int, batch_size: int
) -> dict[str, np.ndarray]:
    """Of the images `wanted`, int64 [W], the readable ones' rows int64 [n] and features float32 [n, D]."""
    chosen = images if len(wanted) == len(images) else images.take(wanted)
    batches = batches_of_views(chosen, model.evaluation, batch_size=batch_size, workers=workers)
    rows, features = [], []
    for found, views in progress(batches, title, math.ceil(len(chosen) / batch_size), f"batches of {batch_size}"):
        rows.append(wanted[found])
        features.append(model.embed(views, batch_size))
    return {"features": np.concatenate(features), "rows": np.concatenate(rows)}


def _of_images(images: LabelledImages, features: np.ndarray, rows: np.ndarray) -> Features:
    return Features(features, images.labels[rows], images.groups[rows], rows)
