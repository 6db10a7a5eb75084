"""What a pre-training run will take, before it starts: memory, compute, reading and storage of a recipe, from its shapes alone.

    python -m catlip_lite.training.plan vit_b16 --mfu 0.4 --peak-tflops 989 --jpeg-kb 40

Reads a `Recipe`; the figures at the heads of params/*.yaml are its rows. Nothing here is measured: MFU, peak and the size of an
image are the reader's to give.
"""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

import pandas as pd
import torch

from ..labels.vocabulary import CORENET_CLASSES
from ..models.flops import training_flops
from ..models.vit import MODELS, POOLINGS, STEMS, create_vit, shape_of
from .multi_scale import MULTI_SCALE, Scale, micro_batches, scales
from .recipes import Recipe, recipe_for

FLOAT = 4  # bytes: weights, gradients, moments and averages are all float32
SAMPLES_PER_SHARD = 10_000
PER_MACHINE = 8  # devices: FSDP spreads its state over those of one machine


def training_plan(
    recipe: Recipe,
    num_classes: int,
    devices: int,
    *,
    mfu: float | None = None,
    peak: float | None = None,
    jpeg_bytes: float | None = None,
) -> pd.DataFrame:
    """A row a quantity: index `quantity`; columns `value` (float, base units), `unit`, `meaning`.

    mfu, peak: share of the peak that is expected, and the peak in FLOP/s of one device; without both there are no times.
    jpeg_bytes: mean size of an encoded image; without it no reading.

    Memory is that which a device holds all the time: weights, gradients, AdamW's two moments, EMA, each float32, and
    BatchNorm's statistics. On top come activations (measure these: they follow the micro-batch and the compiler) and blocks
    that FSDP has gathered. RangeAugment's six numbers are left out. Of several scales
    the mean over steps is taken; an image's FLOPs are weighted by how many images a scale has.

    Raises ValueError for less than one device, a share of the peak outside (0, 1], or a size that is not above 0.
    """
    _check(devices, mfu, peak, jpeg_bytes)
    with torch.device("meta"):
        network = create_vit(recipe.model, num_classes, recipe.image_size, stem=recipe.stem, pooling=recipe.pooling)
    rows = [*_storage(network, min(devices, PER_MACHINE)), *_compute(network, recipe, devices)]
    rate = None
    if mfu is not None and peak is not None:
        rows += _time(rows, devices, mfu * peak)
        rate = _value(rows, "images_per_second")
    if jpeg_bytes is not None:
        rows += _reading(rows, rate, jpeg_bytes)
    return pd.DataFrame(rows, columns=["quantity", "value", "unit", "meaning"]).set_index("quantity").astype({"value": float})


def _check(devices: int, mfu: float | None, peak: float | None, jpeg_bytes: float | None) -> None:
    if devices < 1:
        raise ValueError(f"devices={devices} must be at least 1")
    if mfu is not None and not 0 < mfu <= 1:
        raise ValueError(f"mfu={mfu} is a share of the peak: choose it above 0 and up to 1")
    for name, value in (("peak", peak), ("jpeg_bytes", jpeg_bytes)):
        if value is not None and value <= 0:
            raise ValueError(f"{name}={value} must be above 0")


class Storage(NamedTuple):
    """Bytes: weights; checkpoint, with moments and EMA; state that a device holds all the time, see `training_plan`."""

    weights: int
    checkpoint: int
    state: float


def storage(network: torch.nn.Module, devices: int = 1) -> Storage:
    """What a network takes in training; devices: over how many FSDP spreads the state, 1 for none."""
    tensors = list(network.parameters())
    weights = FLOAT * sum(tensor.numel() for tensor in tensors)
    statistics = sum(buffer.numel() * buffer.element_size() for buffer in network.buffers())
    steps = FLOAT * len(tensors)  # AdamW counts them for each tensor
    kept, spread = 2 * statistics, 5 * weights  # the model's and the EMA's; weights, gradients, two moments, EMA
    return Storage(weights + statistics, 4 * weights + kept + steps, spread / devices + kept)


def _storage(network: torch.nn.Module, devices: int) -> list[tuple]:
    alone, shared = storage(network), storage(network, devices)
    return [
        ("parameters", sum(tensor.numel() for tensor in network.parameters()), "", "of the network, head included"),
        ("state_ddp", alone.state, "B", "training state of a device, each has all of it"),
        ("state_fsdp", shared.state, "B", f"training state of a device, spread over {devices} of a machine"),
        ("checkpoint", alone.checkpoint, "B", "weights, moments and EMA of one checkpoint"),
        ("model", alone.weights, "B", "the trained weights alone (model.safetensors)"),
    ]


def run_totals(network: torch.nn.Module, recipe: Recipe, devices: int, start: int = 0) -> tuple[float, float]:
    """Images that a run sees from step `start` on, and the FLOPs that they take, forward and backward; a step counts as the
    mean over its sizes."""
    base, share = Scale(recipe.image_size, recipe.micro_batch), max(1, recipe.micro_batches // devices)
    sizes = scales(recipe.image_size, recipe.multi_scale, recipe.micro_batch, patch=shape_of(network).patch)
    images = [devices * scale.batch * micro_batches(scale, base, share) for scale in sizes]
    total = 0.0
    for drop, steps in Counter(recipe.patch_drop_at(step) for step in range(start, recipe.max_steps)).items():
        costs = [training_flops(network, scale.size, keep_tokens=1 - drop) for scale in sizes]
        total += steps * sum(n * cost for n, cost in zip(images, costs, strict=True)) / len(sizes)
    return (recipe.max_steps - start) * sum(images) / len(sizes), total


def _compute(network: torch.nn.Module, recipe: Recipe, devices: int) -> list[tuple]:
    seen, total = run_totals(network, recipe, devices)
    return [
        ("images_per_step", seen / recipe.max_steps, "images", "mean over steps, all devices"),
        ("samples_seen", seen, "images", f"in {recipe.max_steps:,} steps"),
        ("flops_per_image", total / seen, "FLOP", "forward and backward pass, mean over images"),
        ("total_flops", total, "FLOP", "of the whole run"),
    ]


def _time(rows: Sequence[tuple], devices: int, speed: float) -> list[tuple]:
    hours = _value(rows, "total_flops") / speed / 3600
    rate = speed / _value(rows, "flops_per_image")
    return [
        ("images_per_second_per_device", rate, "images/s", "at the given MFU and peak"),
        ("images_per_second", rate * devices, "images/s", f"of {devices} device(s)"),
        ("device_hours", hours, "h", "of all devices together"),
        ("hours", hours / devices, "h", "from the first step to the last, waiting and evaluation not counted"),
        ("shards_per_second", rate * devices / SAMPLES_PER_SHARD, "shards/s", f"of {SAMPLES_PER_SHARD:,} samples"),
    ]


def _reading(rows: Sequence[tuple], rate: float | None, jpeg_bytes: float) -> list[tuple]:
    found = [("bytes_read", _value(rows, "samples_seen") * jpeg_bytes, "B", "encoded images over the whole run")]
    if rate is not None:
        found.append(("read_bandwidth", rate * jpeg_bytes, "B/s", "encoded images, all devices"))
    return found


def _value(rows: Sequence[tuple], quantity: str) -> float:
    return next(value for name, value, *_ in rows if name == quantity)


# ---------------------------------------------------------------- as a table to read


def shown(value: float, unit: str) -> str:
    """A value as it is read: bytes and FLOPs with a decimal prefix ("1.675 GB"), other large ones in full."""
    if value < 1000:
        return f"{value:.4g} {unit}".rstrip()
    if not unit.startswith(("B", "FLOP")):
        return f"{value:,.0f} {unit}".rstrip()
    prefixes = ("", "k", "M", "G", "T", "P", "E", "Z", "Y")
    power = min((len(f"{value:.0f}") - 1) // 3, len(prefixes) - 1)
    return f"{value / 1000**power:.4g} {prefixes[power]}{unit}"


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the plan of the paper's recipe for a model, or of one that differs in what is given."""
    parser = argparse.ArgumentParser(prog="python -m catlip_lite.training.plan", description=main.__doc__)
    parser.add_argument("model", choices=MODELS)
    parser.add_argument("--classes", type=int, default=CORENET_CLASSES, help="size of the vocabulary (default: %(default)s)")
    parser.add_argument("--devices", type=int, help="default: so many that each has one micro-batch a step")
    parser.add_argument("--images", dest="num_samples", type=int, help="of the corpus, which batch and steps follow")
    for name in ("image-size", "batch-size", "micro-batch", "max-steps"):
        parser.add_argument(f"--{name}", type=int)
    for name, choices in (("multi-scale", MULTI_SCALE), ("stem", STEMS), ("pooling", POOLINGS)):
        parser.add_argument(f"--{name}", choices=choices)
    parser.add_argument("--patch-drop", type=float, help="share of patch tokens left out in training")
    parser.add_argument("--mfu", type=float, help="expected share of the peak, 0 to 1")
    parser.add_argument("--peak-tflops", type=float, help="dense peak of one device (see models.flops.PEAK_TFLOPS)")
    parser.add_argument("--jpeg-kb", type=float, help="mean size of an encoded image, thousands of bytes")
    given = vars(parser.parse_args(arguments))
    model, classes, devices, mfu = (given.pop(name) for name in ("model", "classes", "devices", "mfu"))
    peak, jpeg = given.pop("peak_tflops"), given.pop("jpeg_kb")
    try:
        if devices is None:
            devices = recipe_for(model, **given).micro_batches
        recipe = recipe_for(model, processes=devices, **given)
        table = training_plan(recipe, classes, devices, mfu=mfu, peak=peak and peak * 1e12, jpeg_bytes=jpeg and jpeg * 1e3)
    except ValueError as error:
        parser.error(str(error))
    print(
        f"{model} at {recipe.image_size} px (multi-scale: {recipe.multi_scale}), {classes:,} classes, {devices} device(s), "
        f"{recipe.max_steps:,} steps of {recipe.batch_size:,} images in micro-batches of {recipe.micro_batch:,}"
    )
    for quantity, row in table.iterrows():
        print(f"{quantity:30}{shown(row['value'], row['unit']):>22}   {row['meaning']}")


if __name__ == "__main__":
    main()
