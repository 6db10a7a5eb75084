"""Frozen features of labelled images, computed once and cached: what probes and Transfer Init read (notebooks 05, 06)."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors.numpy import load_file, save_file

from ..artefacts import atomic_path
from ..data.labelled import LabelledImages
from ..models import PretrainedModel, network_of


@dataclass
class Features:
    """N images as seen by one backbone. features: float32 [N, D]; logits: float32 [N, V], of the synset head."""

    features: np.ndarray
    logits: np.ndarray
    labels: np.ndarray
    groups: np.ndarray

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, rows: np.ndarray) -> Features:
        """Some of the images, in the order of `rows` (indices or a mask)."""
        return Features(self.features[rows], self.logits[rows], self.labels[rows], self.groups[rows])


def extract(model: PretrainedModel, images: LabelledImages, cache: Path | None = None) -> Features:
    """Embeddings and logits of all images, from `cache` if this model has seen these images before."""
    precision = str(model.dtype).removeprefix("torch.")
    path = cache / f"{model_fingerprint(model)}_{images.fingerprint}_{precision}.safetensors" if cache else None
    if path is not None and path.is_file():
        stored = load_file(path)
        return Features(stored["features"], stored["logits"], images.labels, images.groups)
    features, logits = model.outputs(images.views)
    if path is not None:
        cache.mkdir(parents=True, exist_ok=True)
        with atomic_path(path) as staging:
            save_file({"features": features, "logits": logits}, staging)
    return Features(features, logits, images.labels, images.groups)


def untrained(model: PretrainedModel, images: LabelledImages, seed: int = 0) -> PretrainedModel:
    """The same architecture with random weights: what the features are worth before any training.

    The running statistics of the stem's BatchNorm are taken from `images`: with those of its start the random features would
    not be normalised, and the baseline be weaker than it is.
    """
    torch.manual_seed(seed)
    network = network_of(model.config, num_classes=len(model.vocabulary))
    network.train()
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = None  # the plain mean over batches
    with torch.no_grad():
        for views in images.views.split(256):
            network(views.float().div_(255))
    precision = "bf16" if model.dtype == torch.bfloat16 else "fp32"
    return PretrainedModel(network, model.vocabulary, model.config, model.device, precision)


def pixel_features(images: LabelledImages) -> Features:
    """The images' own pixels, 0..1, flattened: float32 [N, 3 * S * S]."""
    pixels = (images.views.flatten(1).float() / 255).numpy()
    return Features(pixels, np.zeros((len(images), 0), np.float32), images.labels, images.groups)


def join(parts: Sequence[Features]) -> Features:
    """Several sets of images, one after the other."""
    names = ("features", "logits", "labels", "groups")
    return Features(*(np.concatenate([getattr(part, name) for part in parts]) for name in names))


def split_validation(train: Features, group: str | None = None, share: float = 0.2, seed: int = 0) -> np.ndarray:
    """Which training images validate, bool [N]: those of one group (so that validation is as unlike as test), else a random
    share of each class (at least one image, if one is left to train on). Raises ValueError for an empty split."""
    if group is not None:
        chosen = train.groups == group
        if not chosen.any() or chosen.all():
            there = ", ".join(sorted(set(train.groups)))
            raise ValueError(f"validation_group={group!r} must hold some of the training images, not all: groups are {there}")
        return chosen
    chosen = np.zeros(len(train), dtype=bool)
    rng = np.random.default_rng(seed)
    for label in np.unique(train.labels):
        mine = rng.permutation(np.flatnonzero(train.labels == label))
        chosen[mine[: min(len(mine) - 1, max(1, round(share * len(mine))))]] = True
    if not chosen.any():
        raise ValueError("no class has images to spare for validation: give more labelled images or a validation_group")
    return chosen


def model_fingerprint(model: PretrainedModel) -> str:
    """Sixteen hex digits that change with any weight."""
    digest = hashlib.sha256()
    for name, value in sorted(model.network.state_dict().items()):
        digest.update(name.encode() + value.cpu().numpy().tobytes())
    return digest.hexdigest()[:16]
