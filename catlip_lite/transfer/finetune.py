"""Fine-tuning (paper tables 1, 2, 3 and 7): a pre-trained model, a head to start from, labelled images → a classifier."""

from __future__ import annotations

import hashlib
import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd

from ..data.images import AUGMENTATIONS
from ..data.labelled import LabelledImages
from ..data.labelled.corpus import LabelledCorpus
from ..models import Head, PretrainedModel
from ..models.classifier import Classifier, classifier_config, classifier_network, load_classifier
from ..models.pretrained import write_folder
from ..progress import TrainingReporter, progress
from ..training.loop import RunOptions, train
from ..training.losses import create_loss
from ..training.ownership import claim_for_all
from ..training.parallel import full_disk_told, is_main, wait_for_all
from ..training.plan import shown, storage
from ..training.recipes import FinetuneRecipe
from .features import model_fingerprint

logger = logging.getLogger(__name__)


def finetune(
    model: PretrainedModel,
    head: Head,
    images: LabelledImages,
    recipe: FinetuneRecipe,
    options: RunOptions,
    folder: Path | None = None,
    *,
    loader_workers: int = 2,
    cache_gb: float = 2.0,
    quiet: bool = False,
) -> Classifier:
    """Train backbone and head on labelled images: the classifier of the averaged (EMA) weights, also kept in `folder`.

    model: left as it is. head: the start, a row for each of `images.classes`, in that order. folder None: nothing is written,
    no checkpoint either. Every process of a group calls it alike. quiet: no lines on the way. loader_workers, cache_gb: see
    `LabelledCorpus`.
    Raises ValueError for a head with another number of classes, or a recipe that suits neither model nor images.
    """
    if recipe.model != model.config["model"]:
        raise ValueError(f"the recipe is for {recipe.model}, the model is {model.config['model']}: make a recipe for it")
    if len(head.weight) != len(images.classes):
        raise ValueError(
            f"the head has {len(head.weight)} classes, the images {len(images.classes)}: a row for each of images.classes"
        )
    if recipe.loss == "softmax" and images.multi_label:
        raise ValueError("these images have several labels each: take a recipe with loss='bce' (task='coco')")
    if len(images) < len(images.classes) and is_main() and not quiet:
        logger.warning("%d training images for %d classes: some classes have none", len(images), len(images.classes))
    corpus = LabelledCorpus(
        images,
        recipe.image_size,
        AUGMENTATIONS[recipe.augmentation],
        seed=recipe.seed,
        labels_of=recipe.labels_of,
        cache_gb=cache_gb,
        workers=loader_workers,
        progress=lambda runs: runs if quiet else progress(runs, "decoded", unit="runs"),
    )
    options = replace(options, log_every=min(options.log_every, max(1, recipe.max_steps // 20)))
    if folder is None:
        options = replace(options, checkpoint_every=None)
    tell: dict[str, Any] = {"on_log": TrainingReporter(recipe.max_steps, "finetune")} if is_main() and not quiet else {}
    network = classifier_network(model, head, recipe.image_size, drop_path=recipe.drop_path)
    loss = create_loss(recipe.loss, label_smoothing=recipe.label_smoothing)
    state = train(network, loss, corpus, recipe, folder, options, **tell)
    config = classifier_config(model.config, images.classes, recipe.image_size)
    if folder is not None and is_main():
        facts = {"recipe": recipe.as_dict(), "images": len(images), "data": images.fingerprint}
        write_folder(folder, state, config, **facts)
    wait_for_all()
    tuned = classifier_network(model, head, recipe.image_size)
    tuned.load_state_dict(state)
    return Classifier(tuned, config, options.device, options.precision)


def finetune_in(
    folder: Path,
    model: PretrainedModel,
    head: Head,
    images: LabelledImages,
    recipe: FinetuneRecipe,
    options: RunOptions,
    **given: Any,
) -> tuple[Classifier, pd.DataFrame]:
    """`finetune` with its outcome in a folder: continued if it was stopped, only loaded if it is finished; and its log.

    A folder that holds another run (recipe, model, start, classes or images) is kept under a new name.
    """
    identity = {
        "recipe": recipe.identity(),
        "corpus": images.fingerprint,
        "classes": images.classes,
        "model": model_fingerprint(model),
        "head": _fingerprint(head),
    }
    with claim_for_all(folder, identity) as finished:
        if finished:
            classifier = load_classifier(folder, options.device, options.precision)
        else:
            with full_disk_told(folder, shown(storage(model.network).checkpoint, "B")):
                classifier = finetune(model, head, images, recipe, options, folder, **given)
    return classifier, pd.read_json(folder / "log.jsonl", lines=True)


def _fingerprint(head: Head) -> str:
    """16 hex digits of a head's numbers, in their order, to the last bit: rounded first, some of a million would still lie at
    an edge, and two devices that differ there, as they may with a fitted scale, do not begin the same run."""
    digest = hashlib.sha256(str(tuple(head.weight.shape)).encode())
    for part in (head.weight, head.bias):
        digest.update(part.detach().float().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]
