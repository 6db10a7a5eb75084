"""Recipes of dense tasks, tables 8 and 9 of the paper: how a segmenter or a detector is trained on a pre-trained backbone.

Between notebooks 11 and 12 and the loop, which takes a `DenseRecipe` as it takes any other.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ..data.dense.views import FIT
from ..models.segmenter import HEADS
from ..models.vit import MODELS, refuse_unknown
from .recipes import FinetuneRecipe, complete, given_values

TASKS = ("segmentation", "detection")

# Table 8, ADE20k. The reference neither clips gradients nor computes in bf16 at dense tasks; both are left on here.
TABLE_8 = {
    "image_size": 512, "epochs": 50, "warmup_steps": 500, "lr": 3e-5, "min_lr": 3e-6, "weight_decay": 0.1, "ema_momentum": 1e-4,
    "batch_size": 32, "micro_batch": 4, "multi_scale": "none", "schedule": "epoch", "channels": 512,
}  # fmt: skip
# A frozen backbone takes another rate: its head is all that learns (DINOv2, arXiv 2304.07193, and DINOv3 train it by 1e-3).
LINEAR = {"lr": 1e-3, "min_lr": 1e-5, "range_augment": False, "epochs": 10, "head": "linear", "optimiser": "adamw"}

# Table 9, COCO: 25 epochs of the images taken four times, 20 for ViT-H. RangeAugment ends at 20 dB here as everywhere, the
# reference's at 10; and the warm-up begins at a millionth, not a hundred-thousandth.
TABLE_9 = {
    "image_size": 1024, "epochs": 100, "warmup_steps": 250, "lr": 3e-4, "min_lr": 3e-6, "weight_decay": 0.1,
    "ema_momentum": 1e-4, "batch_size": 128, "micro_batch": 2, "multi_scale": "detection", "schedule": "milestones",
    "channels": 256, "proposals": 512,
}  # fmt: skip
TABLE_9_BY_MODEL = {
    "vit_b16": {"layer_decay": 0.7, "drop_path": 0.1},
    "vit_l16": {"layer_decay": 0.8, "drop_path": 0.4},
    "vit_h16": {"layer_decay": 0.9, "drop_path": 0.5, "epochs": 80, "first_drop": 17 / 20, "second_drop": 19 / 20},
}
ALIKE = {"augmentation": "paper", "range_augment": True, "head_bias": "zero", "loss": "softmax", "label_smoothing": 0.0}

ARMS: dict[str, dict] = {  # ways to train a detector that notebook 12 compares, the reference's first, and what each changes
    "pre-trained": {},
    "untrained": {},
    "windows": {"windows": 14},  # ViTDet's attention
    "jitter": {"views": "jitter", "multi_scale": "none"},  # and augmentation, which has one size of view
}

# The demo's model, for two CPU cores: narrow heads, as the paper's would take most of the time. A segmenter learns faster by
# Muon (mIoU 0.47 after six epochs, 0.43 by AdamW), a detector at a lower rate (box AP50 after four: 0.41 at 5e-4, 0.22 at
# 2e-3), a linear head of few steps at fifty times DINOv3's (mIoU 0.31 after four, 0.24 after five). One seed each.
DEMO = {
    "segmentation": {
        "image_size": 96, "epochs": 24, "warmup_steps": 50, "lr": 3e-3, "min_lr": 3e-5, "weight_decay": 0.05,
        "ema_momentum": 2e-3, "batch_size": 32, "multi_scale": "none", "schedule": "step", "channels": 64,
        "range_augment": False, "layer_decay": 0.8, "output_stride": 8, "augmentation": "drawings", "optimiser": "muon",
    },
    "detection": {
        "image_size": 96, "epochs": 6, "warmup_steps": 50, "lr": 4e-4, "min_lr": 4e-6, "weight_decay": 0.05,
        "ema_momentum": 2e-3, "batch_size": 16, "multi_scale": "none", "schedule": "step", "channels": 64, "proposals": 32,
        "range_augment": False, "layer_decay": 0.8, "augmentation": "drawings",
    },
}  # fmt: skip
DEMO_LINEAR = {"lr": 5e-2, "min_lr": 5e-4, "epochs": 8}


@dataclass(frozen=True)
class DenseRecipe(FinetuneRecipe):
    """All that decides the outcome of a dense training, besides data and backbone; the rest: `FinetuneRecipe`.

    head: of a segmenter, "deeplab" or "linear". frozen: the backbone stays as it is. output_stride: pixels of the image a token
    of the map stands for; None: half of the patch, as the reference's segmenter, or the patch where the backbone is frozen, as
    it was trained so, and for detection. windows: tokens a side of the windows that most blocks attend within (ViTDet's), at
    most half of the map; None: all see everything, as in the reference. channels: width of the heads. proposals: boxes of an
    image that a detector's heads learn from at a step. views: of a detector's training images, see `DetectionViews`. schedule:
    also "milestones": no cosine, but a tenth of the rate from each of two shares of the steps on, first_drop and second_drop.
    Of an augmentation only the colours count; what `Recipe` says of loss is of other tasks.
    """

    task: str = "segmentation"
    head: str = "deeplab"
    frozen: bool = False
    output_stride: int | None = None
    windows: int | None = None
    channels: int = 256
    proposals: int = 512
    views: str = "squash"
    first_drop: float = 22 / 25
    second_drop: float = 24 / 25

    def lr_at(self, step: int) -> float:
        """Learning rate of a step, before layer-wise decay."""
        if self.schedule != "milestones" or step < self.warmup_steps:
            return super().lr_at(step)
        return self.lr * 0.1 ** sum(step >= share * self.max_steps for share in (self.first_drop, self.second_drop))


def dense_recipe_for(model: str, task: str, *, num_images: int, processes: int = 1, **given: Any) -> DenseRecipe:
    """The recipe of a model, a name of `MODELS`, for so many training images; values given and not None replace those of table
    8 ("segmentation") or 9 ("detection").

    As `finetune_recipe_for` else. A linear head stands on a frozen backbone, unless frozen=False says otherwise, with a rate of
    its own; and a frozen backbone has a linear head, unless another is named.
    Raises ValueError for an unknown name or an impossible value.
    """
    given = given_values(DenseRecipe, model, given)
    for name, value, known in (("task", task, TASKS), ("head", given.get("head"), HEADS), ("views", given.get("views"), FIT)):
        if value is not None:
            refuse_unknown(name, value, known)
    segmentation, patch = task == "segmentation", MODELS[model].patch
    strides = (patch, patch // 2) if segmentation else (patch,)
    if given.get("output_stride", patch) not in strides:
        known = " or ".join(map(str, strides))
        raise ValueError(f"output_stride={given['output_stride']} is none for {task} with {model}: choose {known}")
    if model == "vit_nano8":
        values: dict[str, Any] = DEMO[task]
    else:
        values = TABLE_8 if segmentation else TABLE_9 | TABLE_9_BY_MODEL.get(model, TABLE_9_BY_MODEL["vit_b16"])
    values = ALIKE | {"task": task} | values
    if segmentation and given.get("head") == "linear":
        given.setdefault("frozen", True)
    if segmentation and given.get("frozen"):
        values |= LINEAR | (DEMO_LINEAR if model == "vit_nano8" else {}) | {"layer_decay": 1.0, "output_stride": patch}
    values = {"output_stride": patch // 2 if segmentation else patch} | values | given
    if values.get("windows"):
        values["windows"] = min(values["windows"], max(1, values["image_size"] // values["output_stride"] // 2))
    recipe = complete(DenseRecipe, values, num_images, processes, given)
    if segmentation and recipe.head == "deeplab" and recipe.micro_batch < 2:
        raise ValueError(
            f"DeepLab's head normalises over the images of a micro-batch, of which batch_size={recipe.batch_size} leaves one: "
            "give a batch_size that two or more a process divide, or the linear head"
        )
    return recipe
