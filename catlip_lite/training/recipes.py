"""Recipes, tables 6 and 7 of the paper: what to train and how, validated once. A value left at None is the paper's.

Reads a model's name and how many images there are; gives a `Recipe`, which `steps` turns into batches and `loop` trains by.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, NamedTuple, TypeVar

import numpy as np

from ..data.images import AUGMENTATIONS
from ..data.labelled.boxes import LABELS_OF
from ..models.clip import CONTEXT
from ..models.vit import MODELS
from .losses import LOSSES
from .optimiser import OPTIMISERS, learning_rate

logger = logging.getLogger(__name__)

# --- image sizes: multi-scale training ----------------------------------------------------------------------------------------
# The networks see objects at many scales and serve other resolutions than the one they are named after; small images, of which
# more fit, pay for the large ones.

MULTI_SCALE = {  # sizes as shares of the base, which is always among them
    "none": (),
    "paper": tuple(np.linspace(128, 320, 25) / 224),  # the reference's 25 draws, for base 224 from 128 to 320
    # Each size costs compiled graphs and a warm-up of the allocator. These five stand for the fifths of the paper's range: for
    # base 224 the same mean size, 224, and a mean batch of 0.98 of the paper's.
    "buckets": (144 / 224, 176 / 224, 1.0, 272 / 224, 304 / 224),
    "finetune": tuple(np.linspace(128, 320, 25) / 224),  # table 7; from LARGE_BASE on 0.5 to 1
    "multi_label": tuple(np.linspace(0.5, 1.5, 25)),  # table 7, COCO: for base 512 from 256 to 768
    "detection": tuple(np.linspace(0.5, 1.25, 25)),  # table 9: for base 1,024 from 512 to 1,280
}
LARGE_BASE = 384  # pixels
COARSE_FROM = 14  # patches a side: from here on fine-tuning's sizes are two patches apart
TILE = 8  # matrix units work in tiles; a batch that is no multiple leaves some of the last tile idle


class Scale(NamedTuple):
    """One kind of step: square images of `size` pixels a side, `batch` of them in a micro-batch."""

    size: int
    batch: int


def scales(image_size: int, kind: str, micro_batch: int, patch: int = 16) -> tuple[Scale, ...]:
    """The sizes that steps are drawn from, smallest first, each with as many images as have a micro-batch's pixels.

    image_size: the base, in pixels; the range scales with it. micro_batch: images at the base size. patch: sizes are its
    multiples. kind: "none" is the base alone; "paper" the reference's variable batch sampler, for base 224 and patch 16 the 13
    sizes 128, 144, ... 320; "buckets" five of them, batches in multiples of 8; "finetune" the reference's for fine-tuning (base
    224: 7 sizes, base 512: 9 from 256 to 512); "multi_label" that for COCO (base 512: 25 sizes from 256 to 768), "detection"
    that for its boxes (base 1,024: 25 from 512 to 1,280).
    Raises ValueError for an unknown kind, or a base that is no multiple of the patch.
    """
    if kind not in MULTI_SCALE:
        raise ValueError(f"multi_scale={kind!r} is unknown: choose one of {', '.join(MULTI_SCALE)}")
    if kind != "none" and image_size % patch:
        raise ValueError(f"image_size={image_size} must be a multiple of the patch, {patch}, to train at several scales")
    finetune = kind == "finetune"
    shares = np.linspace(0.5, 1.0, 25) if finetune and image_size >= LARGE_BASE else MULTI_SCALE[kind]
    step = 2 * patch if kind == "detection" or (finetune and image_size >= COARSE_FROM * patch) else patch
    sizes = sorted({image_size, *(_nearest_multiple(image_size * share, step) for share in shares)})
    return tuple(Scale(size, _batch(size, image_size, micro_batch, kind)) for size in sizes)


def _nearest_multiple(size: float, patch: int) -> int:
    """The nearest multiple of patch, or the next above if the nearest is more than 10 % below (the reference's rule)."""
    nearest = max(patch, int(size + patch / 2) // patch * patch)
    return nearest + patch if nearest < 0.9 * size else nearest


def _batch(size: int, base: int, micro_batch: int, kind: str) -> int:
    batch = max(1, int(round(base * base * micro_batch / (size * size), 2)))
    # Of fewer than eight tiles, rounding down would leave out too large a share.
    return batch // TILE * TILE if kind == "buckets" and size != base and batch >= 8 * TILE else batch


# --- the recipe ---------------------------------------------------------------------------------------------------------------

OBJECTIVES = ("catlip", "clip", "siglip", "superclip")  # see `training.objectives`
WITHOUT_SYNSETS = ("clip", "siglip")

# How the work is cut and spread does not decide the outcome (but for the images that a batch norm averages over).
FREE_TO_CHANGE = ("micro_batch",)


@dataclass(frozen=True)
class Recipe:
    """All that decides the outcome of a pre-training run, besides data and vocabulary.

    batch_size: images a step, over all processes; at other sizes of a multi-scale run as many as have the same pixels.
    micro_batch: images that pass through the network at a time (gradients are accumulated; BatchNorm averages over these).
    lr, min_lr: peak and last learning rate. clip: largest gradient norm. max_steps: optimiser steps. loss: see
    `create_loss`. optimiser: see `create_optimisers`. head_bias: start of the head's bias, "zero" or "prior": each class at
    its `prior_logits`, which takes the initial loss (bce) from V * ln 2 to the labels' entropy. range_augment: learn the
    strength of brightness, contrast and noise. multi_scale: see `scales`. patch_drop: share of patch tokens left out of every
    image, until the last `unmasked_tail` share of the steps, which see whole images.
    shuffle_shards: see `OrderRule`. objective: what is learnt, one of OBJECTIVES; loss is that of the synset head, if it has
    one. context_length: tokens of a caption that a text tower reads. beta2: of AdamW.
    """

    model: str
    image_size: int
    batch_size: int
    micro_batch: int
    max_steps: int
    warmup_steps: int
    lr: float
    min_lr: float
    weight_decay: float
    ema_momentum: float
    augmentation: str
    range_augment: bool
    multi_scale: str
    head_bias: str
    loss: str = "bce"
    optimiser: str = "adamw"
    stem: str | None = None
    pooling: str | None = None
    patch_drop: float = 0.0
    unmasked_tail: float = 0.1
    clip: float = 1.0
    shuffle_shards: int = 8
    seed: int = 0
    objective: str = "catlip"
    context_length: int = CONTEXT
    beta2: float = 0.999

    layer_decay = 1.0  # no field: pre-training has one learning rate for all layers, fine-tuning may not

    @property
    def micro_batches(self) -> int:
        """Micro-batches a step, over all processes."""
        return self.batch_size // self.micro_batch

    @property
    def scales(self) -> tuple[Scale, ...]:
        """The sizes of its steps, see the function of this name."""
        return scales(self.image_size, self.multi_scale, self.micro_batch, MODELS[self.model].patch)

    def as_dict(self) -> dict:
        """Plain values, for JSON."""
        return asdict(self)

    def identity(self) -> dict:
        """The values that a run keeps from its first step to its last."""
        return {name: value for name, value in asdict(self).items() if name not in FREE_TO_CHANGE}

    @property
    def contrastive(self) -> bool:
        """Whether images are compared with the captions of a whole step."""
        return self.objective != "catlip"

    @property
    def names_synsets(self) -> bool:
        """Whether there is a head with a row for each synset of a vocabulary."""
        return self.objective not in WITHOUT_SYNSETS

    def lr_at(self, step: int) -> float:
        """Learning rate of a step, see `learning_rate`."""
        return learning_rate(step, max_steps=self.max_steps, warmup_steps=self.warmup_steps, lr=self.lr, min_lr=self.min_lr)

    def patch_drop_at(self, step: int) -> float:
        """Share of patch tokens that a step leaves out."""
        return self.patch_drop if step < round(self.max_steps * (1 - self.unmasked_tail)) else 0.0


def mean_batch(values: dict) -> float:
    """Images that a step of a recipe's values takes, the mean over its sizes, before they are rounded to whole micro-batches.

    Unrounded, as a run that goes on with another micro_batch or number of processes must find the same number of steps.
    """
    base = values["image_size"]
    shares = [(base / scale.size) ** 2 for scale in scales(base, values["multi_scale"], 1, MODELS[values["model"]].patch)]
    return values["batch_size"] * sum(shares) / len(shares)


CHOICES = {
    "loss": LOSSES, "optimiser": OPTIMISERS, "multi_scale": MULTI_SCALE, "head_bias": ("zero", "prior"),
    "augmentation": AUGMENTATIONS, "schedule": ("epoch", "step", "milestones"), "labels_of": LABELS_OF, "objective": OBJECTIVES,
}  # fmt: skip


def given_values(kind: type[Recipe], model: str, given: dict) -> dict:
    """The model and those given that are not None. Raises ValueError for an unknown model or name, or a number that is none."""
    if model not in MODELS:
        raise ValueError(f"model={model!r} is unknown: choose one of {', '.join(MODELS)}")
    types = {f.name: str(f.type) for f in fields(kind)}
    unknown = set(given) - types.keys()
    if unknown:
        raise ValueError(f"a {kind.__name__} has no {', '.join(sorted(unknown))}")
    return {"model": model, **{name: as_number(name, v, types[name]) for name, v in given.items() if v is not None}}


def as_number(name: str, value: Any, kind: str) -> Any:
    """A number that came as a string: 1e-3 is one in YAML, where a shell and a file of parameters are read. kind: "int …" or
    "float …", the field's type; values of other fields stay as they are."""
    if not isinstance(value, str) or not kind.startswith(("int", "float")):
        return value
    try:
        number = float(value)
    except ValueError:
        raise ValueError(f"{name}={value!r} must be a number") from None
    return int(number) if kind.startswith("int") and number.is_integer() else number


def _tell_of_steps_and_epochs(max_steps: int | None, epochs: float | None) -> None:
    """A few steps of a run whose file names its epochs are a fair wish, so it is not refused."""
    if max_steps is not None and epochs is not None:
        logger.warning("epochs=%g does not count: max_steps=%d is given, too", epochs, max_steps)


def _settle(values: dict, processes: int, *, keep_micro_batch: bool) -> None:
    """Check a recipe's values; its micro_batch becomes the largest up to its value that divides a process's share of the batch.

    keep_micro_batch: exactly its value. Raises ValueError for impossible values, or a batch that does not come out even.
    """
    if processes < 1:
        raise ValueError(f"workers={processes} must be at least 1")
    for name, known in CHOICES.items():
        if name in values and values[name] not in known:
            raise ValueError(f"{name}={values[name]!r} is unknown: choose one of {', '.join(known)}")
    for name in ("image_size", "batch_size", "max_steps", "lr"):
        if values.get(name, 1) <= 0:
            raise ValueError(f"{name}={values[name]} must be above 0")
    for name in ("patch_drop", "label_smoothing", "drop_path"):
        if not 0 <= values.get(name, 0.0) < 1:
            raise ValueError(f"{name}={values[name]} must be a share, from 0 to below 1")
    if not 0 <= values.get("unmasked_tail", 0.1) <= 1:
        raise ValueError(f"unmasked_tail={values['unmasked_tail']} must be a share of the steps, from 0 to 1")
    batch, share = values["batch_size"], values["batch_size"] // processes
    if values.get("objective", "catlip") != "catlip":
        _check_contrastive(values, batch, share)
    most = min(values.get("micro_batch", share), share)
    if most < 1:
        told = f"batch_size={batch} and micro_batch={values.get('micro_batch')}"
        raise ValueError(f"{told} must leave every one of {processes} process(es) an image a step")
    if not keep_micro_batch and batch % processes == 0:
        most = next(n for n in range(most, 0, -1) if share % n == 0)
    values["micro_batch"] = most
    if batch % (most * processes):
        among = f" times workers={processes}" if processes > 1 else ""
        raise ValueError(f"batch_size={batch} must be a multiple of micro_batch={most}{among}")


def _check_contrastive(values: dict, batch: int, share: int) -> None:
    told = f"objective={values['objective']!r} compares each image with the captions of its whole step"
    if batch < 2:
        raise ValueError(f"{told}: batch_size={batch} leaves nothing to compare, give 2 or more")
    if values.get("micro_batch", share) < share:
        raise ValueError(
            f"{told}, which cannot be accumulated: micro_batch={values['micro_batch']} would compare it with fewer than "
            f"batch_size={batch}; leave micro_batch out, and give more workers or a smaller batch_size if memory runs out"
        )
    if values["context_length"] < 3:
        raise ValueError(f"context_length={values['context_length']} must be at least 3: both marks of a caption, and a token")


# --- pre-training: table 6, and CC3M's ----------------------------------------------------------------------------------------

# Table 6 (DataComp): learning rates and batch over all GPUs; 200,000 steps, 10,000 of them warm-up.
PAPER: dict[str, Any] = {
    "image_size": 224, "batch_size": 65_536, "max_steps": 200_000, "warmup_steps": 10_000, "weight_decay": 0.2,
    "ema_momentum": 5e-4, "augmentation": "paper", "range_augment": True, "multi_scale": "paper", "head_bias": "zero",
}  # fmt: skip
PAPER_LR = {"vit_ti16": 1e-3, "vit_s16": 1e-3, "vit_b16": 1e-3, "vit_l16": 6e-4, "vit_h16": 4e-4}
# Its CLIP baseline, where it differs; the rate is one for all models.
PAPER_CLIP = {"lr": 5e-4, "min_lr": 1e-6, "beta2": 0.98}
PAPER_MICRO_BATCH = {"vit_ti16": 1024, "vit_s16": 1024, "vit_b16": 1024, "vit_l16": 512, "vit_h16": 256}  # images a GPU

# The paper's run on CC3M, from which it lists no others for small corpora: a batch of 2,048 and ViT-B's rates of 2e-3 to 2e-5,
# twice table 6's (for other models we double theirs), for up to 100 epochs; the rest is table 6.
FEW_IMAGES = 10_000_000  # below, the recipe for CC3M
FEW_BATCH, FEW_LR = 2_048, 2.0
MOST_EPOCHS = 100
FEWEST_STEPS = 8  # an epoch: no step takes more than an eighth of the corpus

# The demo's model, for two CPU cores; max_steps is the smoke run's minute, params/demo.yaml trains on.
DEMO = {
    "image_size": 32, "batch_size": 128, "max_steps": 150, "warmup_steps": 50, "weight_decay": 0.1, "lr": 3e-3,
    "optimiser": "muon", "ema_momentum": 2e-3, "augmentation": "drawings", "range_augment": False, "multi_scale": "none",
    "head_bias": "prior",
}  # fmt: skip
DEMO_CONTEXT = 24  # tokens: one in seventy of the captions of the demo and of Flickr8k has more


def recipe_for(
    model: str, *, epochs: float | None = None, num_samples: int | None = None, processes: int = 1, **given: Any
) -> Recipe:
    """The recipe of a model; values given and not None replace the paper's.

    num_samples: images of the corpus, by which it is table 6's, or below ten million CC3M's; None: table 6, whatever there is.
    The batch is at most an eighth of the images, as a power of two; with fewer images a step than the paper's, lr falls by the
    square root of their ratio, as AdamW's should (Malladi et al., NeurIPS 2022). No run is longer than 100 epochs, unless
    epochs (needs num_samples) or max_steps, which wins, say so. processes: how many share a step; the micro-batch, if it is not
    given, is the paper's images a GPU, or each process's share if that is less. vit_nano8 has its own recipe.
    A contrastive objective takes table 6's values for CLIP (5e-4 to 1e-6, beta2 0.98), and all of a process's share at a time;
    `superclip` its authors' loss, `superclass`.
    Raises ValueError for an unknown model, name or impossible value.
    """
    given, epochs = given_values(Recipe, model, given), as_number("epochs", epochs, "float")
    demo, few = model == "vit_nano8", num_samples is not None and num_samples < FEW_IMAGES
    objective = given.get("objective", "catlip")
    contrastive = objective != "catlip"
    if objective in WITHOUT_SYNSETS and "loss" in given:
        raise ValueError(f"loss={given['loss']!r} is of the synset head, which objective={objective!r} has not: leave it out")
    if demo:
        values: dict[str, Any] = DEMO | ({"context_length": DEMO_CONTEXT, "beta2": PAPER_CLIP["beta2"]} if contrastive else {})
    else:
        papers = FEW_BATCH if few else PAPER["batch_size"]
        most = papers if num_samples is None else max(1, num_samples // FEWEST_STEPS)
        batch = given.get("batch_size") or min(papers, 1 << (most.bit_length() - 1))
        lr = PAPER_CLIP["lr"] if contrastive else PAPER_LR[model] * (FEW_LR if few else 1)
        values = {**PAPER, "batch_size": batch, "lr": lr * min(1.0, max(0, batch) / papers) ** 0.5}
        values |= {"context_length": CONTEXT, "beta2": PAPER_CLIP["beta2"]} if contrastive else {}
        values |= {} if contrastive else {"micro_batch": PAPER_MICRO_BATCH[model]}
    values |= {"loss": "superclass"} if objective == "superclip" else {}
    values |= given
    values.setdefault("min_lr", values["lr"] / (PAPER_CLIP["lr"] / PAPER_CLIP["min_lr"] if contrastive else 100))
    _settle(values, processes, keep_micro_batch="micro_batch" in given)
    _tell_of_steps_and_epochs(given.get("max_steps"), epochs)
    if "max_steps" not in given and (epochs is not None or (num_samples is not None and not demo)):
        if num_samples is None:
            raise ValueError(f"epochs={epochs} are passes over a corpus: give its num_samples, or max_steps instead")
        passes = MOST_EPOCHS if epochs is None else epochs
        steps = max(1, round(passes * num_samples / mean_batch(values)))
        values["max_steps"] = min(steps, values["max_steps"]) if epochs is None and not few else steps
    values["warmup_steps"] = min(values["warmup_steps"], max(1, values["max_steps"] // 5))
    return Recipe(**values)


# --- fine-tuning: table 7 -----------------------------------------------------------------------------------------------------

TASKS = ("imagenet-1k", "places365", "coco")  # table 7's; another task takes the recipe of the one it is like

# All tasks. Evaluation is on 232 pixels cropped to 224, from 384 pixels on without a margin: see `Evaluation`.
TABLE_7 = {
    "image_size": 224, "epochs": 10, "warmup_steps": 500, "lr": 3e-5, "min_lr": 3e-6, "weight_decay": 0.05,
    "ema_momentum": 5e-4, "augmentation": "paper", "range_augment": True, "multi_scale": "finetune", "loss": "softmax",
    "label_smoothing": 0.1, "batch_size": 512, "head_bias": "zero",
}  # fmt: skip
TABLE_7_COCO = {
    "image_size": 512, "lr": 1e-5, "min_lr": 1e-6, "multi_scale": "multi_label", "loss": "bce", "label_smoothing": 0.0,
    "batch_size": 128, "micro_batch": 32,
}  # fmt: skip
LARGE_MICRO_BATCH = {"vit_h16": 32}  # images a GPU from LARGE_BASE pixels on, 64 for the others; below:
SMALL_MICRO_BATCH = {"vit_l16": 128, "vit_h16": 128}  # 512 for the others

# The demo's model, for two CPU cores: chosen on a quarter of its labelled drawings, set aside, by a handful of short trainings.
FINETUNE_DEMO = {
    "image_size": 32, "epochs": 10, "warmup_steps": 20, "lr": 1e-3, "min_lr": 1e-4, "weight_decay": 0.05, "ema_momentum": 2e-3,
    "augmentation": "drawings", "range_augment": False, "multi_scale": "none", "loss": "softmax", "label_smoothing": 0.1,
    "batch_size": 32, "schedule": "step", "layer_decay": 0.6, "head_bias": "zero",
}  # fmt: skip
FINETUNE_DEMO_COCO = {"loss": "bce", "label_smoothing": 0.0, "layer_decay": 1.0}  # scenes are not what it was pre-trained on


@dataclass(frozen=True)
class FinetuneRecipe(Recipe):
    """All that decides the outcome of fine-tuning, besides data, backbone and head; what it shares with pre-training: `Recipe`.

    epochs: passes over the images, of steps_per_epoch steps each (a step of a multi-scale run takes more images or fewer; the
    mean counts). schedule: the cosine moves on "epoch" by epoch, as the reference's (the rate stands still within an epoch,
    and `min_lr` is never reached: 3.66e-6 is table 7's last), or "step" by step down to min_lr. label_smoothing: see `softmax`.
    layer_decay: see `lr_scale`. drop_path: stochastic depth's rate at the last block, linear from 0 at the first.
    labels_of: whether a view has the labels of its whole "image" (the reference's) or of what the "view" shows.
    """

    epochs: int = 10
    steps_per_epoch: int = 1
    schedule: str = "epoch"
    label_smoothing: float = 0.1
    layer_decay: float = 1.0
    drop_path: float = 0.0
    labels_of: str = "image"

    def lr_at(self, step: int) -> float:
        """Learning rate of a step, before layer-wise decay."""
        if self.schedule == "step" or step < self.warmup_steps:
            return super().lr_at(step)
        epoch = step // self.steps_per_epoch
        return self.min_lr + 0.5 * (self.lr - self.min_lr) * (1 + math.cos(math.pi * epoch / self.epochs))


def finetune_recipe_for(
    model: str, *, num_images: int, task: str | None = None, multi_label: bool = False, processes: int = 1, **given: Any
) -> FinetuneRecipe:
    """The recipe of a model, a name of `MODELS`, for so many training images; values given and not None replace table 7's.

    task: whose column of table 7, one of `TASKS`; None: "coco" for multi-label images, else "imagenet-1k". max_steps, if
    it is given, wins over epochs. processes: how many share a step. A batch of more than all images is lowered, with a warning.
    Raises ValueError for an unknown name or an impossible value.
    """
    given = given_values(FinetuneRecipe, model, given)
    task = task or ("coco" if multi_label else "imagenet-1k")
    if task not in TASKS:
        raise ValueError(f"task={task!r} is unknown: choose one of {', '.join(TASKS)}")
    large = given.get("image_size", 224) >= LARGE_BASE
    micro_batch = LARGE_MICRO_BATCH.get(model, 64) if large else SMALL_MICRO_BATCH.get(model, 512)
    if model == "vit_nano8":
        values = FINETUNE_DEMO | (FINETUNE_DEMO_COCO if task == "coco" else {}) | given
    elif task == "coco":
        values = TABLE_7 | TABLE_7_COCO | given
    else:
        values = TABLE_7 | {"micro_batch": min(micro_batch, 128) if task == "places365" else micro_batch} | given
    return complete(FinetuneRecipe, values, num_images, processes, given)


Kind = TypeVar("Kind", bound=FinetuneRecipe)


def complete(kind: type[Kind], values: dict, num_images: int, processes: int, given: Mapping) -> Kind:
    """A recipe of its values: the batch lowered to the images there are, steps counted. given: what was asked for."""
    if num_images < processes:
        raise ValueError(f"{num_images} training image(s) are too few for {processes} process(es): give more images")
    if "lr" in given and "min_lr" not in given:
        values["min_lr"] = values["lr"] / 10
    lowered = num_images < values["batch_size"]
    if lowered:
        # 8 to 15 times a power of two: any number of processes that is a power of two shares it alike, and all make one recipe.
        unit = 1 << max(0, num_images.bit_length() - 4)
        batch = num_images // unit * unit // processes * processes or processes
        logger.warning("batch_size=%d is lowered to %d: there are %d images", values["batch_size"], batch, num_images)
        values["batch_size"] = batch
    _check_finetuning(values)
    _settle(values, processes, keep_micro_batch="micro_batch" in given and not lowered)
    values["steps_per_epoch"] = max(1, round(num_images / mean_batch(values)))
    _tell_of_steps_and_epochs(given.get("max_steps"), given.get("epochs"))
    if "max_steps" in values:
        values["epochs"] = math.ceil(values["max_steps"] / values["steps_per_epoch"])
    else:
        values["max_steps"] = values["epochs"] * values["steps_per_epoch"]
    values["warmup_steps"] = min(values["warmup_steps"], max(1, values["max_steps"] // 5))
    return kind(**values)


def _check_finetuning(values: dict) -> None:
    size, patch = values["image_size"], MODELS[values["model"]].patch
    if size < patch or size % patch:
        raise ValueError(f"image_size={size} is no multiple of the model's patch, {patch}: choose {size // patch * patch}, say")
    if values["epochs"] < 1 or values["epochs"] != int(values["epochs"]):
        raise ValueError(f"epochs={values['epochs']} must be a whole number, at least 1")
    if values["label_smoothing"] and values["loss"] != "softmax":
        raise ValueError(f"label_smoothing={values['label_smoothing']} belongs to softmax: loss={values['loss']!r} takes 0")
    if not 0 < values.get("layer_decay", 1.0) <= 1:
        raise ValueError(f"layer_decay={values['layer_decay']} must be above 0 and at most 1 (1: the same rate in all layers)")
    if not 0 <= values["min_lr"] <= values["lr"]:
        raise ValueError(f"min_lr={values['min_lr']} must be from 0 to lr={values['lr']}")
