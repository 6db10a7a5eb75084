"""What a pre-training run will take, before it starts: memory, compute, reading and storage of a recipe, from its shapes alone.

    python -m catlip_lite.training.plan vit_b16 --mfu 0.4 --peak-tflops 989 --jpeg-kb 40

Reads a `Recipe`; the figures at the heads of params/*.yaml are its rows. Nothing here is measured: MFU, peak and the size of an
image are the reader's to give.
"""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Sequence
from dataclasses import fields
from typing import NamedTuple

import torch
import yaml
from torch import nn

from ..labels.vocabulary import CORENET_CLASSES
from ..models.clip import add_projection, text_flops, text_tower
from ..models.flops import training_flops
from ..models.vit import MODELS, create_vit
from .recipes import Recipe, recipe_for
from .steps import shares_of_scales

FLOAT = 4  # bytes: weights, gradients, moments and averages are all float32
SAMPLES_PER_SHARD = 10_000
PER_MACHINE = 8  # devices: FSDP spreads its state over those of one machine


class Storage(NamedTuple):
    """Bytes: weights; checkpoint, with moments and EMA; state that a device holds all the time, besides activations."""

    weights: int
    checkpoint: int
    state: float


def storage(*towers: nn.Module, devices: int = 1) -> Storage:
    """What networks take in training; devices: over how many FSDP spreads the state, 1 for none.

    Weights, gradients, AdamW's two moments and EMA, each float32, and BatchNorm's statistics.
    """
    tensors = [tensor for tower in towers for tensor in tower.parameters()]
    weights = FLOAT * sum(tensor.numel() for tensor in tensors)
    statistics = sum(buffer.numel() * buffer.element_size() for tower in towers for buffer in tower.buffers())
    kept, counters = 2 * statistics, FLOAT * len(tensors)  # statistics: the model's and the EMA's; AdamW counts steps a tensor
    return Storage(weights + statistics, 4 * weights + kept + counters, 5 * weights / devices + kept)


def run_totals(network: nn.Module, recipe: Recipe, devices: int, start: int = 0, *, of_caption: int = 0) -> tuple[float, float]:
    """Images that a run sees from step `start` on, and the FLOPs that they take, forward and backward; a step counts as the
    mean over its sizes. of_caption: FLOPs of a text tower beside each."""
    sizes, shares = recipe.scales, shares_of_scales(recipe, devices)
    images = [devices * scale.batch * share for scale, share in zip(sizes, shares, strict=True)]
    total = 0.0
    for drop, steps in Counter(recipe.patch_drop_at(step) for step in range(start, recipe.max_steps)).items():
        costs = [training_flops(network, scale.size, keep_tokens=1 - drop) + of_caption for scale in sizes]
        total += steps * sum(n * cost for n, cost in zip(images, costs, strict=True)) / len(sizes)
    return (recipe.max_steps - start) * sum(images) / len(sizes), total


def towers_on_paper(recipe: Recipe, num_classes: int) -> list[nn.Module]:
    """A recipe's network, and its text tower if it has one, without memory for their weights."""
    with torch.device("meta"):
        classes = num_classes if recipe.names_synsets else 0
        network = create_vit(recipe.model, classes, recipe.image_size, stem=recipe.stem, pooling=recipe.pooling)
        if not recipe.contrastive:
            return [network]
        return [add_projection(network, recipe.model), text_tower(recipe.model, recipe.context_length)]


def training_plan(
    recipe: Recipe, num_classes: int, devices: int, speed: float | None = None, jpeg_bytes: float | None = None
) -> dict[str, tuple]:
    """Value (base units), unit and meaning by quantity.

    speed: FLOP/s of a device, its peak times MFU; None: no times. jpeg_bytes: mean size of an encoded image; None: no reading.
    Activations come on top of the memory told (they follow micro-batch and compiler), and blocks that FSDP has gathered.
    """
    towers = towers_on_paper(recipe, num_classes)
    together, of_caption = min(devices, PER_MACHINE), sum(3 * text_flops(text) for text in towers[1:])
    alone, shared = storage(*towers), storage(*towers, devices=together)
    seen, total = run_totals(towers[0], recipe, devices, of_caption=of_caption)
    plan = {
        "parameters": (sum(p.numel() for tower in towers for p in tower.parameters()), "", "of the network, head included"),
        "state_ddp": (alone.state, "B", "training state of a device, each has all of it"),
        "state_fsdp": (shared.state, "B", f"training state of a device, spread over {together} of a machine"),
        "checkpoint": (alone.checkpoint, "B", "weights, moments and EMA of one checkpoint"),
        "model": (alone.weights, "B", "the trained weights alone (model.safetensors)"),
        "images_per_step": (seen / recipe.max_steps, "images", "mean over steps, all devices"),
        "samples_seen": (seen, "images", f"in {recipe.max_steps:,} steps"),
        "flops_per_image": (total / seen, "FLOP", "forward and backward pass, mean over images"),
        "total_flops": (total, "FLOP", "of the whole run"),
    }
    if speed is not None:
        rate, hours = devices * speed * seen / total, total / speed / 3600
        plan |= {
            "images_per_second_per_device": (rate / devices, "images/s", "at the given MFU and peak"),
            "images_per_second": (rate, "images/s", f"of {devices} device(s)"),
            "device_hours": (hours, "h", "of all devices together"),
            "hours": (hours / devices, "h", "from the first step to the last, waiting and evaluation not counted"),
            "shards_per_second": (rate / SAMPLES_PER_SHARD, "shards/s", f"of {SAMPLES_PER_SHARD:,} samples"),
        }
    if jpeg_bytes is not None:
        plan["bytes_read"] = (seen * jpeg_bytes, "B", "encoded images over the whole run")
    if speed is not None and jpeg_bytes is not None:
        plan["read_bandwidth"] = (rate * jpeg_bytes, "B/s", "encoded images, all devices")
    return plan


def shown(value: float, unit: str) -> str:
    """A value as it is read: bytes and FLOPs with a decimal prefix ("1.675 GB"), other large ones in full."""
    if value < 1000:
        return f"{value:.4g} {unit}".rstrip()
    if not unit.startswith(("B", "FLOP")):
        return f"{value:,.0f} {unit}".rstrip()
    power = min((len(f"{value:.0f}") - 1) // 3, 8)
    return f"{value / 1000**power:.4g} {' kMGTPEZY'[power]}{unit}"


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the plan of the paper's recipe for a model, or of one that differs in what is given."""
    parser = argparse.ArgumentParser(prog="python -m catlip_lite.training.plan", description=main.__doc__)
    parser.add_argument("model", choices=MODELS)
    parser.add_argument("--classes", type=int, default=CORENET_CLASSES, help="size of the vocabulary (default: %(default)s)")
    parser.add_argument("--devices", type=int, help="default: so many that each has one micro-batch a step")
    parser.add_argument("--images", dest="num_samples", type=int, help="of the corpus, which batch and steps follow")
    parser.add_argument("--mfu", type=float, help="expected share of the peak, 0 to 1")
    parser.add_argument("--peak-tflops", type=float, help="dense peak of one device (see models.flops.PEAK_TFLOPS)")
    parser.add_argument("--jpeg-kb", type=float, help="mean size of an encoded image, thousands of bytes")
    for field in fields(Recipe)[1:]:
        parser.add_argument(f"--{field.name.replace('_', '-')}", type=yaml.safe_load, help="of the recipe")
    given = vars(parser.parse_args(arguments))
    model, classes, devices, mfu, peak, jpeg = map(given.pop, ("model", "classes", "devices", "mfu", "peak_tflops", "jpeg_kb"))
    try:
        devices = recipe_for(model, **given).micro_batches if devices is None else devices
        recipe = recipe_for(model, processes=devices, **given)
    except ValueError as error:
        parser.error(str(error))
    print(
        f"{model} at {recipe.image_size} px (multi-scale: {recipe.multi_scale}), {classes:,} classes, {devices} device(s), "
        f"{recipe.max_steps:,} steps of {recipe.batch_size:,} images in micro-batches of {recipe.micro_batch:,}"
    )
    plan = training_plan(recipe, classes, devices, mfu and peak and mfu * peak * 1e12, jpeg and jpeg * 1e3)
    for quantity, (value, unit, meaning) in plan.items():
        print(f"{quantity:30}{shown(value, unit):>22}   {meaning}")


if __name__ == "__main__":
    main()
