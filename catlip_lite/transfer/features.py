"""Frozen features of labelled images, computed once and cached by model, images and view: what probes and heads learn from."""

from __future__ import annotations

import hashlib
import logging
import math
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from ..artefacts import atomic_path
from ..data.labelled import LabelledImages, batches_of_views
from ..models import PretrainedModel
from ..models.image_model import ImageModel
from ..progress import progress

logger = logging.getLogger(__name__)

IMAGES_A_PART = 50_000  # an extraction that is killed loses the work of fewer


def extract(
    model: PretrainedModel, images: LabelledImages, cache: Path | None = None, *, workers: int = 0, batch_size: int = 256
) -> tuple[np.ndarray, np.ndarray]:
    """Embeddings of all N images that can be read, float32 [n, D], and which they are, rows int64 [n].

    cache: a folder, which gets one for each model, images, evaluation view and precision, with a file for every 50,000 images:
    an extraction that was killed goes on with the file it was at. Images that could not be read are tried again each time, so
    that a store that was out of reach leaves no gap. workers: processes that read and decode.
    Raises ValueError if none of a file's images is readable.
    """
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
        if stored is not None:
            rows = np.concatenate([stored["rows"], found["rows"]])
            order = np.argsort(rows)
            found = {"features": np.concatenate([stored["features"], found["features"]])[order], "rows": rows[order]}
        parts[-1] = found
        if path is not None and folder is not None:
            folder.mkdir(parents=True, exist_ok=True)
            with atomic_path(path) as staging:
                save_file(found, staging)
    features, rows = (np.concatenate([part[name] for part in parts if part is not None]) for name in ("features", "rows"))
    return features, rows


def model_fingerprint(model: ImageModel) -> str:
    """Sixteen hex digits that change with any weight."""
    digest = hashlib.sha256()
    for name, value in sorted(model.network.state_dict().items()):
        digest.update(name.encode())
        digest.update(value.cpu().contiguous().flatten().view(torch.uint8).numpy())
    return digest.hexdigest()[:16]


def _stored(path: Path | None) -> dict[str, np.ndarray] | None:
    """A part that an earlier extraction wrote; None if there is none, or it is damaged."""
    if path is None or not path.is_file():
        return None
    try:
        return load_file(path)
    except SafetensorError as error:
        logger.warning("%s is damaged (%s): its features are computed again", path, error)
        return None


def _cache_name(model: PretrainedModel, images: LabelledImages) -> str:
    view = hashlib.sha256(str(model.evaluation).encode()).hexdigest()[:8]
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
