"""What a pre-training run will take, said before its first step: images, memory, time, and room on the disk."""

from __future__ import annotations

import math
import shutil
from dataclasses import replace
from typing import TYPE_CHECKING

import torch

from ..labels import Vocabulary
from ..models import create_vit
from ..training.distribution import world_size
from ..training.loop import RunOptions
from ..training.memory import Fit
from ..training.plan import run_totals, shown, storage
from ..training.recipes import Recipe

if TYPE_CHECKING:
    from .pretrain_job import PretrainJob

SAVE_SECONDS, LOG_SECONDS = 900.0, 60.0  # a checkpoint, a line of the log: as often, if a step is no longer
LONG = 3 * 86_400.0  # seconds that a run may take without advice
SMALLER = {"vit_h16": "vit_ti16", "vit_l16": "vit_ti16", "vit_b16": "vit_ti16", "vit_s16": "vit_ti16", "vit_ti16": "vit_nano8"}


def paced(options: RunOptions, step_seconds: float) -> RunOptions:
    """Where steps are slow, more checkpoints and lines of the log than every so many steps."""
    also, log = (max(1, int(seconds / step_seconds)) for seconds in (SAVE_SECONDS, LOG_SECONDS))
    every = options.checkpoint_every
    return replace(
        options,
        also_every=also if every is not None and also < every else None,
        log_every=min(options.log_every, log),
    )


def run_seconds(network: torch.nn.Module, recipe: Recipe, fit: Fit, start: int) -> float:
    """From step `start` to the last, at the speed of the trial: without reading, optimiser and evaluation."""
    _, flops = run_totals(network, recipe, world_size(), start)
    return flops / (fit.speed * world_size())


def outlook(
    network: torch.nn.Module, recipe: Recipe, options: RunOptions, fit: Fit, num_images: int, start: int = 0
) -> list[str]:
    """Three lines: what a run will do, in what memory, and for how long.

    options: as the run has them. start: steps that are done already, fewer than all.
    """
    device, processes, left = options.device, world_size(), recipe.max_steps - start
    shared = f" by {processes} processes" if processes > 1 else ""
    images, _ = run_totals(network, recipe, processes, start)
    seconds = run_seconds(network, recipe, fit, start)
    step, rate = seconds / left, images / seconds
    weights = sum(parameter.numel() for parameter in network.parameters())
    to_go = f"steps {start + 1:,} to {recipe.max_steps:,}" if start else f"{left:,} steps"
    kept = "computed twice, to keep fewer" if fit.activation_checkpointing else "kept for the backward pass"
    what = (
        f"{recipe.model}, {weights / 1e6:,.1f}M parameters, on {num_images:,} images: {to_go}, {images / num_images:.3g} "
        f"epochs; a step is {recipe.batch_size:,} images = {recipe.micro_batches:,} x {recipe.micro_batch:,}{shared}"
    )
    too_much = ": more than there is" if fit.state + fit.activations > fit.free else ""
    memory = (
        f"memory of {device}: {shown(fit.state, 'B')} of weights, gradients, moments and EMA, {shown(fit.activations, 'B')} of "
        f"activations ({kept}), of {shown(fit.free, 'B')} free{too_much}"
    )
    how_long = f"about {duration(seconds)} at the rate of the first micro-batches, {rate:,.3g} images a second"
    if seconds > LONG:
        here = f"this takes about {duration(seconds)} here, {rate:,.2g} images a second"
        how_long = f"{here}: {_shorter(recipe, device, step)} would not"
    between = min(n for n in (options.checkpoint_every, options.also_every, left) if n)
    under_way = "the step under way, " if between == 1 else "at most "
    lost = f": it loses {under_way}{duration(between * step)}" if between * step >= 60 else ""
    return [what, memory, f"{how_long}; it can be killed at any time, and goes on when run again{lost}"]


def _shorter(recipe: Recipe, device: torch.device, step: float) -> str:
    """What would end within days."""
    faster = "more GPUs (`workers`)" if device.type == "cuda" else "a GPU"
    smaller = f"`-p model {SMALLER[recipe.model]}`" if recipe.model in SMALLER else f"`-p image_size {recipe.image_size // 2}`"
    return f"{faster}, {smaller} or `-p max_steps {max(1, min(10, int(LONG / step)))}`"


def duration(seconds: float) -> str:
    """Roughly: "40 days", "5.2 hours", "12 minutes"."""
    for unit, size in (("days", 86_400.0), ("hours", 3600.0), ("minutes", 60.0)):
        if seconds >= 2 * size:
            return f"{seconds / size:,.0f} {unit}" if seconds >= 10 * size else f"{seconds / size:.1f} {unit}"
    return f"{seconds:.0f} seconds"


# --- the disk ---------------------------------------------------------------------------------------------------------------


def check_disk(job: PretrainJob, vocabulary: Vocabulary) -> None:
    """Whether the checkpoints that a run keeps fit where they go, with the trained model.

    Raises OSError if not even those that are there at the same time do; tells if those of every `keep_every` steps will not.
    """
    recipe, folder = job.recipe, job.pretrain_folder
    with torch.device("meta"):
        network = create_vit(recipe.model, len(vocabulary), recipe.image_size, stem=recipe.stem, pooling=recipe.pooling)
    model, checkpoint, _ = storage(network)
    saves = math.ceil(recipe.max_steps / job.checkpoint_every)
    last = min(job.keep_last, saves)
    at_once = max(min(job.keep_last + 1, saves) * checkpoint, last * checkpoint + model)  # one is written before one goes
    forever = recipe.max_steps // math.lcm(job.checkpoint_every, job.keep_every) if job.keep_every else 0
    there = sum(file.stat().st_size for file in folder.glob("checkpoints/step_*/*"))
    free = shutil.disk_usage(folder).free + there
    told = f"{folder}: a checkpoint takes {shown(checkpoint, 'B')}"
    if at_once > free:
        raise OSError(
            f"{told}, keep_last={job.keep_last} of them, another while it is written and the model {shown(at_once, 'B')}; "
            f"{shown(free, 'B')} are free on this disk: make room, lower keep_last, or link outputs/ to a larger disk"
        )
    later = at_once + forever * checkpoint
    if later > free:
        print(
            f"{told}; with the {forever:,} that keep_every={job.keep_every} keeps {shown(later, 'B')}, "
            f"of {shown(free, 'B')} free: make room in time, or raise keep_every",
            flush=True,
        )
