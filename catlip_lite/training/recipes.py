"""Recipes: what to train and how, validated once. A value left at None is the paper's for the chosen model and corpus."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields

from ..models.vit import MODELS
from .losses import LOSSES
from .multi_scale import MULTI_SCALE, scales
from .optimiser import OPTIMISERS, learning_rate

# Table 6 of the paper (DataComp): learning rates and batch over all GPUs; 200,000 steps, 10,000 of them warm-up.
PAPER = {
    "image_size": 224, "batch_size": 65_536, "max_steps": 200_000, "warmup_steps": 10_000, "weight_decay": 0.2,
    "ema_momentum": 5e-4, "augmentation": "paper", "range_augment": True, "multi_scale": "paper", "head_bias": "zero",
}  # fmt: skip
PAPER_LR = {"vit_ti16": 1e-3, "vit_s16": 1e-3, "vit_b16": 1e-3, "vit_l16": 6e-4, "vit_h16": 4e-4}
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

HEAD_BIASES = ("zero", "prior")

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
    image, until the last `unmasked_tail` share of the steps, which see whole images. decay_embeddings: see `create_adamw`.
    shuffle_shards: see `OrderRule`.
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
    decay_embeddings: bool = False
    clip: float = 1.0
    shuffle_shards: int = 8
    seed: int = 0

    layer_decay = 1.0  # no field: pre-training has one learning rate for all layers, fine-tuning may not

    @property
    def micro_batches(self) -> int:
        """Micro-batches a step, over all processes."""
        return self.batch_size // self.micro_batch

    def as_dict(self) -> dict:
        """Plain values, for JSON."""
        return asdict(self)

    def identity(self) -> dict:
        """The values that a run keeps from its first step to its last."""
        return {name: value for name, value in asdict(self).items() if name not in FREE_TO_CHANGE}

    def lr_at(self, step: int) -> float:
        """Learning rate of a step, see `learning_rate`."""
        return learning_rate(step, max_steps=self.max_steps, warmup_steps=self.warmup_steps, lr=self.lr, min_lr=self.min_lr)

    def patch_drop_at(self, step: int) -> float:
        """Share of patch tokens that a step leaves out."""
        return self.patch_drop if step < round(self.max_steps * (1 - self.unmasked_tail)) else 0.0


def recipe_for(
    model: str, *, epochs: float | None = None, num_samples: int | None = None, processes: int = 1, **given
) -> Recipe:
    """The recipe of a model; values given and not None replace the paper's.

    num_samples: images of the corpus, which batch, learning rate and steps follow (see `of_corpus`); None: table 6, whatever
    there is. No run is longer than 100 epochs, unless epochs (instead of max_steps; needs num_samples) or max_steps say so.
    processes: how many share a step; the micro-batch, if it is not given, is the paper's images a GPU, or each process's share
    of the batch if that is less. vit_nano8 has a recipe of its own.
    Raises ValueError for an unknown model, name or impossible value.
    """
    if model not in MODELS:
        raise ValueError(f"model={model!r} is unknown: choose one of {', '.join(MODELS)}")
    unknown = set(given) - {f.name for f in fields(Recipe)}
    if unknown:
        raise ValueError(f"a recipe has no {', '.join(sorted(unknown))}")
    given = {name: value for name, value in given.items() if value is not None}
    if model == "vit_nano8":
        values = DEMO | given
    else:
        followed = of_corpus(model, num_samples, given.get("batch_size"))
        values = {**PAPER, "micro_batch": PAPER_MICRO_BATCH[model], **followed, **given}
    values.setdefault("min_lr", values["lr"] / 100)
    settle_batch(values, processes, keep_micro_batch="micro_batch" in given)
    bounded = num_samples is not None and model != "vit_nano8"
    if "max_steps" not in given and (epochs is not None or bounded):
        passes = MOST_EPOCHS if epochs is None else epochs
        steps = max(1, round(passes * num_samples / mean_batch(values, MODELS[model].patch)))
        by_table_6 = epochs is None and num_samples >= FEW_IMAGES
        values["max_steps"] = min(steps, values["max_steps"]) if by_table_6 else steps
    settle_warmup(values)
    return Recipe(model=model, **values)


def of_corpus(model: str, num_samples: int | None, batch_size: int | None = None) -> dict:
    """batch_size and peak lr for so many images, by the paper's two recipes: table 6, and for less than ten million CC3M's.

    The batch is at most an eighth of the images, as a power of two; batch_size: one that was chosen instead. With fewer images
    a step than the paper's recipe has, lr falls by the square root of their ratio, as AdamW's should (Malladi et al.,
    NeurIPS 2022); with more it stays.
    """
    few = num_samples is not None and num_samples < FEW_IMAGES
    papers = FEW_BATCH if few else PAPER["batch_size"]
    most = papers if num_samples is None else max(1, num_samples // FEWEST_STEPS)
    batch = batch_size or min(papers, 1 << (most.bit_length() - 1))
    return {"batch_size": batch, "lr": PAPER_LR[model] * (FEW_LR if few else 1) * min(1.0, max(0, batch) / papers) ** 0.5}


def mean_batch(values: dict, patch: int) -> float:
    """Images that a step of these values takes, the mean over its sizes, before they are rounded to whole micro-batches."""
    base = values["image_size"]
    shares = [(base / scale.size) ** 2 for scale in scales(base, values["multi_scale"], 1, patch=patch)]
    return values["batch_size"] * sum(shares) / len(shares)


def settle_batch(values: dict, processes: int, *, keep_micro_batch: bool) -> None:
    """Check a recipe's values and set its micro_batch: the largest up to its value that divides a process's share of the batch.

    keep_micro_batch: exactly its value. Raises ValueError for impossible values, or a batch that does not come out even.
    """
    _check(values, processes)
    share = values["batch_size"] // processes
    most = min(values.get("micro_batch", share), share)
    if not keep_micro_batch and values["batch_size"] % processes == 0:
        most = next(n for n in range(most, 0, -1) if share % n == 0)
    values["micro_batch"] = most
    if values["batch_size"] % (values["micro_batch"] * processes):
        raise ValueError(
            f"batch_size={values['batch_size']} must be a multiple of micro_batch={values['micro_batch']}"
            + (f" times workers={processes}" if processes > 1 else "")
        )


def settle_warmup(values: dict) -> None:
    """A short run warms up in a fifth of its steps."""
    values["warmup_steps"] = min(values["warmup_steps"], max(1, values["max_steps"] // 5))


def _check(values: dict, processes: int) -> None:
    for name in ("image_size", "batch_size", "max_steps", "lr"):
        if values.get(name, 1) <= 0:
            raise ValueError(f"{name}={values[name]} must be above 0")
    if values.get("micro_batch", 1) < 1 or values["batch_size"] < processes:
        raise ValueError(
            f"batch_size={values['batch_size']} and micro_batch={values.get('micro_batch')} must leave every one of "
            f"{processes} process(es) an image a step"
        )
    for name, known in (
        ("loss", LOSSES),
        ("optimiser", OPTIMISERS),
        ("multi_scale", MULTI_SCALE),
        ("head_bias", HEAD_BIASES),
    ):
        if name in values and values[name] not in known:
            raise ValueError(f"{name}={values[name]!r} is unknown: choose one of {', '.join(known)}")
    if not 0 <= values.get("patch_drop", 0.0) < 1:
        raise ValueError(f"patch_drop={values['patch_drop']} must be a share of the patches, from 0 to below 1")
    if not 0 <= values.get("unmasked_tail", 0.1) <= 1:
        raise ValueError(f"unmasked_tail={values['unmasked_tail']} must be a share of the steps, from 0 to 1")
