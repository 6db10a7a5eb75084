"""Fine-tuning recipes: how a pre-trained ViT learns a task, validated once. None is the paper's value (table 7)."""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass, fields

from ..data.boxes import LABELS_OF, LEAST_VISIBLE
from ..models.vit import MODELS
from .multi_scale import LARGE_BASE
from .recipes import Recipe, mean_batch, settle_batch, settle_warmup

logger = logging.getLogger(__name__)

TASKS = ("imagenet-1k", "places365", "coco")  # table 7's; another task takes the recipe of the one it is like
SCHEDULES = ("epoch", "step")

# Table 7, all tasks. Evaluation is on 232 pixels cropped to 224, from 384 pixels on without a margin: see `Evaluation`.
PAPER = {
    "image_size": 224, "epochs": 10, "warmup_steps": 500, "lr": 3e-5, "min_lr": 3e-6, "weight_decay": 0.05,
    "ema_momentum": 5e-4, "augmentation": "paper", "range_augment": True, "multi_scale": "finetune", "loss": "softmax",
    "label_smoothing": 0.1, "batch_size": 512, "decay_embeddings": False,
}  # fmt: skip
PAPER_COCO = {
    "lr": 1e-5,
    "min_lr": 1e-6,
    "multi_scale": "multi_label",
    "loss": "bce",
    "label_smoothing": 0.0,
    "batch_size": 128,
}
# Images a GPU: below LARGE_BASE pixels, and from there on.
PAPER_MICRO_BATCH = {
    "vit_ti16": (512, 64),
    "vit_s16": (512, 64),
    "vit_b16": (512, 64),
    "vit_l16": (128, 64),
    "vit_h16": (128, 32),
}
COCO_MICRO_BATCH = 32
FEWEST = 4  # a micro-batch may be this many times smaller than what fits; BatchNorm averages over its images

# The demo's model, for two CPU cores: chosen on a quarter of its labelled drawings, set aside, by a handful of short trainings.
DEMO = {
    "image_size": 32, "epochs": 10, "warmup_steps": 20, "lr": 1e-3, "weight_decay": 0.05, "ema_momentum": 2e-3,
    "augmentation": "drawings", "range_augment": False, "multi_scale": "none", "loss": "softmax", "label_smoothing": 0.1,
    "batch_size": 32, "schedule": "step", "layer_decay": 0.6,
}  # fmt: skip
DEMO_COCO = {"loss": "bce", "label_smoothing": 0.0, "layer_decay": 1.0}  # scenes are not what it was pre-trained on


@dataclass(frozen=True)
class FinetuneRecipe(Recipe):
    """All that decides the outcome of fine-tuning, besides data, backbone and head; what it shares with pre-training: `Recipe`.

    epochs: passes over the images, of steps_per_epoch steps each (a step of a multi-scale run takes more images or fewer; the
    mean counts). schedule: the cosine moves on "epoch" by epoch, as the reference's (the rate stands still within an epoch,
    and `min_lr` is never reached: 3.66e-6 is table 7's last), or "step" by step down to min_lr. label_smoothing: see `softmax`.
    layer_decay: see `lr_scale`. drop_path: stochastic depth's rate at the last block, linear from 0 at the first.
    labels_of, least_visible: whether a view has the labels of its whole "image" (the reference's) or of what the "view" shows.
    """

    epochs: int = 10
    steps_per_epoch: int = 1
    schedule: str = "epoch"
    label_smoothing: float = 0.1
    layer_decay: float = 1.0
    drop_path: float = 0.0
    labels_of: str = "image"
    least_visible: float = LEAST_VISIBLE

    def lr_at(self, step: int) -> float:
        """Learning rate of a step, before layer-wise decay."""
        if self.schedule == "step" or step < self.warmup_steps:
            return super().lr_at(step)
        epoch = step // self.steps_per_epoch
        return self.min_lr + 0.5 * (self.lr - self.min_lr) * (1 + math.cos(math.pi * epoch / self.epochs))


def finetune_recipe_for(
    model: str,
    *,
    num_images: int,
    image_size: int | None = None,
    task: str | None = None,
    multi_label: bool = False,
    processes: int = 1,
    **given,
) -> FinetuneRecipe:
    """The recipe of a model, a name of `MODELS`, for so many training images; values given and not None replace table 7's.

    task: whose column of table 7, one of `TASKS`; None: "coco" for multi-label images, else "imagenet-1k". max_steps may be
    given instead of epochs. processes: how many share a step. A batch of more than all images is lowered, with a warning, and
    so is one that only micro-batches of a few images would divide (257 images, 128 of which fit).
    Raises ValueError for an unknown name or an impossible value.
    """
    task = task or ("coco" if multi_label else "imagenet-1k")
    for name, value, known in (("model", model, MODELS), ("task", task, TASKS)):
        if value not in known:
            raise ValueError(f"{name}={value!r} is unknown: choose one of {', '.join(known)}")
    unknown = set(given) - {f.name for f in fields(FinetuneRecipe)}
    if unknown:
        raise ValueError(f"a fine-tuning recipe has no {', '.join(sorted(unknown))}")
    if num_images < processes:
        raise ValueError(f"{num_images} training image(s) are too few for {processes} process(es): give more images")
    given = {name: value for name, value in {**given, "image_size": image_size}.items() if value is not None}
    values = _defaults(model, task, given.get("image_size")) | given
    if "lr" in given and "min_lr" not in given:
        values["min_lr"] = values["lr"] / 10
    lowered = _lower_batch(values, num_images, processes, as_given="micro_batch" in given)
    _check(values, MODELS[model].patch)
    settle_batch(values, processes, keep_micro_batch="micro_batch" in given and not lowered)
    _settle_steps(values, num_images, MODELS[model].patch)
    settle_warmup(values)
    return FinetuneRecipe(model=model, **values)


def _defaults(model: str, task: str, image_size: int | None) -> dict:
    """The table's values, before those given."""
    if model == "vit_nano8":
        values = DEMO | (DEMO_COCO if task == "coco" else {})
        return {"head_bias": "zero", "min_lr": values["lr"] / 10, **values}
    values = PAPER | {"head_bias": "zero", "micro_batch": PAPER_MICRO_BATCH[model][(image_size or 224) >= LARGE_BASE]}
    if task == "coco":
        values |= PAPER_COCO | {"micro_batch": COCO_MICRO_BATCH, "image_size": 512}
    elif task == "places365":
        values["micro_batch"] = min(values["micro_batch"], 128)
    return values


def _lower_batch(values: dict, num_images: int, processes: int, *, as_given: bool) -> bool:
    """No batch of more than all images, or without a divisor near the micro-batch; whether it was lowered.

    It becomes 8 to 15 times a power of two, at most an eighth less: any number of processes that is a power of two shares it
    alike, so that all make the same recipe. as_given: the micro-batch is not ours to choose, and so no reason.
    """
    batch = min(values["batch_size"], num_images)
    share, most = batch // processes, min(values.get("micro_batch", batch), batch // processes)
    even = as_given or batch % processes or _largest_divisor(share, most) * FEWEST > most
    if batch == values["batch_size"] and even:
        return False
    unit = 1 << max(0, batch.bit_length() - 4)
    lowered = batch // unit * unit
    lowered = lowered // processes * processes or processes
    if lowered == values["batch_size"]:
        return False
    why = f"there are {num_images} training images" if batch < values["batch_size"] else "it is to divide into micro-batches"
    logger.warning("batch_size=%d is lowered to %d: %s", values["batch_size"], lowered, why)
    values["batch_size"] = lowered
    return True


def _largest_divisor(number: int, most: int) -> int:
    return next((n for n in range(most, 0, -1) if number % n == 0), 1)


def _check(values: dict, patch: int) -> None:
    size = values["image_size"]
    if size < patch or size % patch:
        near = max(patch, round(size / patch) * patch)
        raise ValueError(f"image_size={size} is no multiple of the model's patch, {patch}: choose {near}, say")
    if values["epochs"] < 1 or values["epochs"] != int(values["epochs"]):
        raise ValueError(f"epochs={values['epochs']} must be a whole number, at least 1")
    if values.get("labels_of", "image") not in LABELS_OF:
        raise ValueError(f"labels_of={values['labels_of']!r} is unknown: choose one of {', '.join(LABELS_OF)}")
    if values.get("schedule", "epoch") not in SCHEDULES:
        raise ValueError(f"schedule={values['schedule']!r} is unknown: choose one of {', '.join(SCHEDULES)}")
    for name in ("label_smoothing", "drop_path"):
        if not 0 <= values.get(name, 0.0) < 1:
            raise ValueError(f"{name}={values[name]} must be a share, from 0 to below 1")
    if values["label_smoothing"] and values["loss"] != "softmax":
        raise ValueError(f"label_smoothing={values['label_smoothing']} belongs to softmax: loss={values['loss']!r} takes 0")
    if not 0 < values.get("layer_decay", 1.0) <= 1:
        raise ValueError(f"layer_decay={values['layer_decay']} must be above 0 and at most 1 (1: the same rate in all layers)")
    if not 0 <= values["min_lr"] <= values["lr"]:
        raise ValueError(f"min_lr={values['min_lr']} must be from 0 to lr={values['lr']}")


def _settle_steps(values: dict, num_images: int, patch: int) -> None:
    """Epochs as steps, of the batch that a step takes on average; or the epochs that the given steps are.

    The mean is of batches before they are rounded to whole images in a micro-batch, which differ with micro_batch and the
    number of processes: a run that goes on with other ones must find the same number of steps.
    """
    mean = mean_batch(values, patch)
    values["steps_per_epoch"] = max(1, round(num_images / mean))
    if "max_steps" in values:
        values["epochs"] = math.ceil(values["max_steps"] / values["steps_per_epoch"])
    else:
        values["max_steps"] = values["epochs"] * values["steps_per_epoch"]
