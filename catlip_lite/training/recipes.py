"""Recipes: what to train and how, validated once. A value left at None is the paper's (table 6) for the chosen model."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields

from ..models.vit import MODELS

# Table 6 of the paper (DataComp): learning rates and batch over all GPUs; 200,000 steps, 10,000 of them warm-up.
PAPER = {
    "image_size": 224, "batch_size": 65_536, "max_steps": 200_000, "warmup_steps": 10_000, "weight_decay": 0.2,
    "ema_momentum": 5e-4, "augmentation": "paper", "head_bias": 0.0,
}  # fmt: skip
PAPER_LR = {"vit_ti16": 1e-3, "vit_s16": 1e-3, "vit_b16": 1e-3, "vit_l16": 6e-4, "vit_h16": 4e-4}
PAPER_MICRO_BATCH = {"vit_ti16": 1024, "vit_s16": 1024, "vit_b16": 1024, "vit_l16": 512, "vit_h16": 256}  # images a GPU

# The demo's model, for two CPU cores; max_steps is the smoke run's minute, params/demo.yaml trains on.
DEMO = {
    "image_size": 32, "batch_size": 64, "max_steps": 300, "warmup_steps": 50, "weight_decay": 0.1, "lr": 1e-3,
    "ema_momentum": 2e-3, "augmentation": "drawings", "head_bias": None,
}  # fmt: skip


@dataclass(frozen=True)
class Recipe:
    """All that decides the outcome of a pre-training run, besides data and vocabulary.

    batch_size: images a step. micro_batch: images that pass through the network at a time; gradients are accumulated.
    lr, min_lr: peak and last learning rate. clip: largest gradient norm. max_steps: optimiser steps. head_bias: start of
    the head's bias; None starts each class at its log prior odds, which takes the initial loss from V * ln 2 to the
    labels' entropy.
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
    head_bias: float | None
    clip: float = 1.0
    seed: int = 0

    @property
    def accumulate(self) -> int:
        """Micro-batches a step."""
        return self.batch_size // self.micro_batch

    def as_dict(self) -> dict:
        """Plain values, for JSON."""
        return asdict(self)


def recipe_for(model: str, *, epochs: float | None = None, num_samples: int | None = None, **given) -> Recipe:
    """The recipe of a model; values given and not None replace the paper's.

    epochs: instead of max_steps, needs num_samples. Raises ValueError for an unknown model, name or impossible value.
    """
    if model not in MODELS:
        raise ValueError(f"model={model!r} is unknown: choose one of {', '.join(MODELS)}")
    unknown = set(given) - {f.name for f in fields(Recipe)}
    if unknown:
        raise ValueError(f"a recipe has no {', '.join(sorted(unknown))}")
    values = dict(DEMO) if model == "vit_nano8" else {**PAPER, "lr": PAPER_LR[model], "micro_batch": PAPER_MICRO_BATCH[model]}
    given = {name: value for name, value in given.items() if value is not None}
    if epochs is not None and "max_steps" not in given:
        given["max_steps"] = max(1, round(epochs * num_samples / (given.get("batch_size") or values["batch_size"])))
    values.update(given)
    for name in ("image_size", "batch_size", "max_steps", "lr"):
        if values[name] <= 0:
            raise ValueError(f"{name}={values[name]} must be above 0")
    values["micro_batch"] = min(values.get("micro_batch", values["batch_size"]), values["batch_size"])
    if values["batch_size"] % values["micro_batch"]:
        raise ValueError(f"batch_size={values['batch_size']} must be a multiple of micro_batch={values['micro_batch']}")
    values["warmup_steps"] = min(values["warmup_steps"], max(1, values["max_steps"] // 5))
    values.setdefault("min_lr", values["lr"] / 100)
    return Recipe(model=model, **values)
