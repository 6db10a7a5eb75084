"""Dense tasks (paper tables 4 and 5): a pre-trained backbone, pixels or objects with their classes → a segmenter, a detector.

The twin of `finetune`: trained by the same loop, continued where it was stopped, only loaded where it is finished.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import nn
from torch.nn import functional as F

from ..data.dense import (
    IGNORED,
    DenseCorpus,
    DetectedImages,
    DetectionViews,
    SegmentationViews,
    SegmentedImages,
)
from ..data.images import AUGMENTATIONS
from ..models.detector import DetectionModel, create_detector, detector_config, load_detector
from ..models.image_model import ImageModel
from ..models.pretrained import write_folder
from ..models.segmenter import SegmentationModel, create_segmenter, load_segmenter, segmenter_config
from ..progress import TrainingReporter
from ..training.dense_recipes import DenseRecipe
from ..training.loop import RunOptions, train
from ..training.ownership import claim_for_all
from ..training.parallel import full_disk_told, is_main, wait_for_all
from ..training.plan import shown, storage
from .features import model_fingerprint

DenseImages = SegmentedImages | DetectedImages
DenseModel = SegmentationModel | DetectionModel


def pixel_loss(logits: torch.Tensor, indices: torch.Tensor, rows: torch.Tensor, masks: torch.Tensor) -> torch.Tensor:
    """Cross-entropy of segmentation: float32 [B], whose mean is that over all pixels with a class.

    logits: float [B, C, S, S]; masks: uint8 [B, S, S], IGNORED where there is no class. indices, rows: of the labels of whole
    images, which there are none of.
    """
    each = F.cross_entropy(logits.float(), masks.long(), ignore_index=IGNORED, reduction="none").sum((1, 2))
    return each * len(masks) / (masks != IGNORED).sum().clamp(min=1)


def dense_networks(model: ImageModel, num_classes: int, recipe: DenseRecipe) -> tuple[nn.Module, Callable]:
    """What the loop trains, on a copy of a pre-trained model's backbone: the network, and the loss, a detector's heads in it.

    Heads are drawn by the recipe's seed.
    """
    how: dict[str, Any] = {"channels": recipe.channels, "windows": recipe.windows, "drop_path": recipe.drop_path}
    with torch.random.fork_rng():
        torch.manual_seed(recipe.seed)
        if recipe.task == "detection":
            network, loss = create_detector(model.network, num_classes, recipe.image_size, proposals=recipe.proposals, **how)
        else:
            how |= {"head": recipe.head, "output_stride": recipe.output_stride}
            network, loss = create_segmenter(model.network, num_classes, recipe.image_size, **how), pixel_loss
    if recipe.frozen:
        network.backbone.freeze()
    return network, loss


def train_dense_in(
    folder: Path, model: ImageModel, images: DenseImages, recipe: DenseRecipe, options: RunOptions, *, loader_workers: int = 2
) -> tuple[DenseModel, pd.DataFrame]:
    """Train a segmenter on segmented images, a detector on images with objects: the model of the averaged (EMA) weights, as it
    is kept in a folder, and the log. Continued if it was stopped, only loaded if it is finished.

    model: pre-trained, left as it is. Every process of a group calls it alike. A folder that holds another run is kept under a
    new name. Raises ValueError for a recipe of another task or model.
    """
    detection = isinstance(images, DetectedImages)
    if (recipe.task == "detection") != detection:
        raise ValueError(f"the recipe is of {recipe.task}, the images are {type(images).__name__}: make a recipe for them")
    if recipe.model != model.config["model"]:
        raise ValueError(f"the recipe is for {recipe.model}, the model is {model.config['model']}: make a recipe for it")
    identity = {
        "recipe": recipe.identity(),
        "corpus": images.fingerprint,
        "classes": images.classes,
        "model": model_fingerprint(model),
    }
    with claim_for_all(folder, identity) as finished:
        if not finished:
            with full_disk_told(folder, shown(storage(model.network).checkpoint, "B")):
                _train(folder, model, images, recipe, options, loader_workers)
    load = load_detector if detection else load_segmenter
    return load(folder, options.device, options.precision), pd.read_json(folder / "log.jsonl", lines=True)


def _train(
    folder: Path, model: ImageModel, images: DenseImages, recipe: DenseRecipe, options: RunOptions, loader_workers: int
) -> None:
    """One process's part of a training; the first one writes the model."""
    detection = isinstance(images, DetectedImages)
    views = DetectionViews(recipe.views) if detection else SegmentationViews()
    how: dict[str, Any] = {"augmentation": AUGMENTATIONS[recipe.augmentation], "seed": recipe.seed, "workers": loader_workers}
    corpus = DenseCorpus(images, recipe.image_size, views, **how)
    options = replace(options, log_every=min(options.log_every, max(1, recipe.max_steps // 20)))
    if detection and options.compile is None:  # proposals are as many as there are: no graph of fixed shapes
        options = replace(options, compile=False)
    tell: dict[str, Any] = {"on_log": TrainingReporter(recipe.max_steps, recipe.task)} if is_main() else {}
    network, loss = dense_networks(model, len(images.classes), recipe)
    state = train(network, loss, corpus, recipe, folder, options, **tell)
    if is_main():
        facts = {"recipe": recipe.as_dict(), "images": len(images), "data": images.fingerprint}
        write_folder(folder, state, dense_config_of(model.config, images.classes, recipe), **facts)
    wait_for_all()


def dense_config_of(backbone: Mapping, classes: list[str], recipe: DenseRecipe) -> dict:
    """What is told of a model in its folder. backbone: the pre-trained model's config."""
    alike: dict[str, Any] = {"image_size": recipe.image_size, "channels": recipe.channels, "windows": recipe.windows}
    if recipe.task == "detection":
        return detector_config(backbone, classes, **alike, protocol="squash" if recipe.views == "squash" else "keep")
    return segmenter_config(backbone, classes, **alike, head=recipe.head, output_stride=recipe.output_stride)
