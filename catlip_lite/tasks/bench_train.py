"""How fast a training step is and what memory it takes: `make bench-train`, or `python -m catlip_lite.tasks.bench_train`.

Three measurements, on synthetic batches that are on the device already, so that reading and decoding do not count:
  compare  our step (`training.loop.train_step`) beside a plain timm training loop, in turns; the default on a CPU
  matrix   everything on, then one thing changed at a time: images/s, MFU, peak memory, compile time; the default on a GPU
  memory   what a process holds, and takes at most, from the network to the saved checkpoint
Each prints a table; `--out` keeps it as parquet, with the options, versions and device inside.
"""

from __future__ import annotations

import argparse
import gc
import statistics
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import timm
import torch
from torch import nn
from torch._dynamo.utils import counters
from torch._inductor.utils import fresh_cache
from torch.nn import functional as F

from ..artefacts import provenance, write_table
from ..data.batches import Batch
from ..labels.vocabulary import CORENET_CLASSES
from ..machine import describe_machine
from ..models.flops import mfu, peak_flops, training_flops
from ..models.precision import choose_device, choose_precision
from ..models.vit import MODELS, create_vit
from ..training.checkpoints import save_checkpoint
from ..training.loop import RunOptions, start_training, train_step
from ..training.losses import create_loss
from ..training.multi_scale import Scale, scales
from ..training.range_augment import target_mse
from ..training.recipes import PAPER, PAPER_LR, PAPER_MICRO_BATCH, recipe_for

LABELS = (1, 10)  # least labels of an image and one more than the most: five on average, and no two batches with as many
CPU_BATCH = 8
LR, WEIGHT_DECAY, CLIP = PAPER_LR["vit_b16"], PAPER["weight_decay"], 1.0


@dataclass(frozen=True)
class Bench:
    """What is measured: a model at a size and batch (images at that size) on a device."""

    model: str
    classes: int
    image_size: int
    batch: int
    device: torch.device
    precision: str
    steps: int  # timed in one go
    repeats: int

    @property
    def dtype(self) -> torch.dtype:
        """What the network computes in."""
        return choose_precision(self.device, self.precision)


@dataclass(frozen=True)
class Arm:
    """One way to take the step; the defaults are a run of the paper's recipe without torch.compile."""

    name: str
    plain: bool = False  # timm's own network under a straight loop: nothing below but activation checkpointing applies
    stem: str | None = None
    compile: bool = False
    ema: bool = True
    range_augment: bool = True
    multi_scale: str = "none"
    activation_checkpointing: bool = False


COMPARED = (
    Arm("plain timm loop", plain=True),
    Arm("ours, all on"),
    Arm("ours, all on, plain patches", stem="patches"),
    Arm("ours, plain patches, no EMA, no RangeAugment", stem="patches", ema=False, range_augment=False),
)


def matrix_arms(compile: bool) -> list[Arm]:
    """Everything on (compile only where it is wanted), then one thing changed at a time."""
    full = Arm("all on", compile=compile)
    changed = {
        "no compile": {"compile": False},
        "no EMA": {"ema": False},
        "no RangeAugment": {"range_augment": False},
        "plain patches": {"stem": "patches"},
        "multi-scale buckets": {"multi_scale": "buckets"},
        "multi-scale paper": {"multi_scale": "paper"},
        "activation checkpointing": {"activation_checkpointing": True},
    }
    arms = [replace(full, name=name, **values) for name, values in changed.items()]
    return [full, *(arm for arm in arms if replace(arm, name=full.name) != full)]


# ---------------------------------------------------------------- steps


def synthetic_batches(sizes: Sequence[Scale], bench: Bench) -> list[Batch]:
    """A batch of each scale, then another of each: uint8 noise, and labels whose number differs from batch to batch.

    All images are views of the same pixels, so that many scales take no more memory than the largest.
    """
    random = np.random.default_rng(0)
    most = max(3 * scale.batch * scale.size**2 for scale in sizes)
    pixels = torch.randint(0, 256, (most,), dtype=torch.uint8, device=bench.device)
    batches: tuple[list[Batch], list[Batch]] = [], []
    for size, count in sizes:
        images = pixels[: 3 * count * size**2].view(count, 3, size, size)
        for same_numbers in batches:
            numbers = random.integers(*LABELS, size=count).clip(max=bench.classes)
            indices = np.concatenate([random.choice(bench.classes, n, replace=False, shuffle=False) for n in numbers])
            rows = np.repeat(np.arange(count), numbers)
            targets = (torch.from_numpy(values).to(bench.device) for values in (indices, rows))
            same_numbers.append(Batch(images, *targets, torch.ones(count, device=bench.device), [], []))
    return [*batches[0], *batches[1]]


def make_step(arm: Arm, bench: Bench) -> tuple[Callable[[int], Batch], nn.Module]:
    """A function that takes training step number i and gives the batch it took, and the network that it trains."""
    batches = synthetic_batches(scales(bench.image_size, arm.multi_scale, bench.batch), bench)
    take, network = plain_step(bench) if arm.plain else our_step(arm, bench)

    def step(i: int) -> Batch:
        batch = batches[i % len(batches)]
        take(i, batch)
        return batch

    return step, network


def our_step(arm: Arm, bench: Bench) -> tuple[Callable[[int, Batch], None], nn.Module]:
    """The step of `training.loop.train`, EMA included."""
    recipe = recipe_for(
        bench.model, image_size=bench.image_size, batch_size=bench.batch, micro_batch=bench.batch, stem=arm.stem,
        range_augment=arm.range_augment, multi_scale=arm.multi_scale,
    )  # fmt: skip
    options = RunOptions(
        bench.device, bench.precision, compile=arm.compile, activation_checkpointing=arm.activation_checkpointing
    )
    network = create_vit(bench.model, bench.classes, bench.image_size, stem=arm.stem)
    training = start_training(network, create_loss("bce"), recipe, options)
    target = torch.zeros((), device=bench.device)

    def take(i: int, batch: Batch) -> None:
        target.fill_(target_mse(i, recipe.max_steps))
        train_step(training, [batch], [i], target, recipe.lr, recipe.clip)
        if arm.ema:
            training.ema.update(i)

    return take, network


def plain_step(bench: Bench) -> tuple[Callable[[int, Batch], None], nn.Module]:
    """What one writes without this package: timm's ViT, dense multi-hot targets, AdamW as it comes; no EMA, no RangeAugment."""
    shape = MODELS[bench.model]
    network = timm.create_model(
        "vit_base_patch16_224", img_size=bench.image_size, num_classes=bench.classes, embed_dim=shape.width,
        depth=shape.depth, num_heads=shape.heads,
    ).to(bench.device)  # fmt: skip
    optimiser = torch.optim.AdamW(network.parameters(), lr=LR, weight_decay=WEIGHT_DECAY)
    network.train()

    def take(i: int, batch: Batch) -> None:
        targets = torch.zeros(len(batch), bench.classes, device=bench.device)
        targets[batch.rows, batch.indices] = 1
        with torch.autocast(bench.device.type, bench.dtype, enabled=bench.dtype != torch.float32):
            logits = network(batch.images.float() / 255)
        loss = F.binary_cross_entropy_with_logits(logits.float(), targets, reduction="sum") / len(batch)
        optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(network.parameters(), CLIP)
        optimiser.step()

    return take, network


# ---------------------------------------------------------------- measurements


def compare(bench: Bench) -> Iterator[dict]:
    """Images/s of each arm of COMPARED, a row an arm; they take turns, so that what slows the machine slows all of them.

    images_per_second: median over repeats; slowest, fastest: of them. ratio: to the plain loop, median over repeats. On a GPU
    our step is compiled, as it is in training, the plain one is not.
    """
    compile = bench.device.type == "cuda"
    steps = [make_step(replace(arm, compile=compile), bench)[0] for arm in COMPARED]
    for step in steps:
        _timed(step, 0, 2, bench)  # one a batch
    windows = [[_timed(step, 2 + r * bench.steps, bench.steps, bench) for step in steps] for r in range(bench.repeats)]
    rates = np.array([[images / seconds for seconds, images in window] for window in windows])
    for arm, own in zip(COMPARED, rates.T, strict=True):
        found = {"images_per_second": np.median(own), "slowest": own.min(), "fastest": own.max()}
        yield {"arm": arm.name, **found, "ratio": np.median(own / rates[:, 0])}


MEASURED = (  # by `measure`, in this order
    "images_per_second", "slowest", "fastest", "mfu", "peak_gb", "compile_seconds", "graphs", "graph_breaks", "waits"
)  # fmt: skip


def matrix(bench: Bench) -> Iterator[dict]:
    """A row an arm, each measured alone: images/s, MFU, peak memory, compile time, graphs, and waits for the device in a step.

    peak_gb: of tensors on the GPU, 10^9 bytes. compile_seconds: first steps (one a scale) less what these take later; without
    torch.compile, the choice of kernels. waits: times a step made the host wait for the GPU, which should be 0. An arm that
    does not fit is told by its name alone.
    """
    for arm in matrix_arms(compile=bench.device.type == "cuda"):
        try:
            yield {"arm": arm.name, **measure(arm, bench)}
        except torch.OutOfMemoryError:
            yield {"arm": f"{arm.name} (out of memory)", **dict.fromkeys(MEASURED)}


def measure(arm: Arm, bench: Bench) -> dict:
    """One row of `matrix`."""
    _forget()
    with fresh_cache():  # an arm must not find what another has compiled
        step, network = make_step(arm, bench)
        sizes = scales(bench.image_size, arm.multi_scale, bench.batch)
        cycle = len(sizes)
        first, _ = _timed(step, 0, cycle, bench)  # each scale once
        _timed(step, cycle, 2 * cycle, bench)  # with other numbers of labels, and memory in its final places
        timed = max(1, round(bench.steps / cycle)) * cycle
        windows = [_timed(step, 3 * cycle, timed, bench) for _ in range(bench.repeats)]
        waits = _waits(step, bench.device)
    seconds = statistics.median(window[0] for window in windows)
    images = windows[0][1]
    flops = sum(scale.batch * training_flops(network, scale.size) for scale in sizes) / sum(scale.batch for scale in sizes)
    rates = [images / window[0] for window in windows]
    share = mfu(images / seconds, flops, 1, peak_flops(bench.device, bench.dtype))
    peak = torch.cuda.max_memory_allocated(bench.device) / 1e9 if bench.device.type == "cuda" else None
    graphs, breaks = counters["stats"]["unique_graphs"], sum(counters["graph_break"].values())
    compiling = first - seconds * cycle / timed
    found = (images / seconds, min(rates), max(rates), share, peak, compiling, graphs, breaks, waits)
    return dict(zip(MEASURED, found, strict=True))


def _timed(step: Callable[[int], Batch], first: int, count: int, bench: Bench) -> tuple[float, int]:
    """Seconds and images of `count` steps from number `first` on."""
    wait = partial(torch.cuda.synchronize, bench.device) if bench.device.type == "cuda" else torch.cpu.synchronize
    wait()
    started = time.perf_counter()
    images = sum(len(step(i)) for i in range(first, first + count))
    wait()
    return time.perf_counter() - started, images


def _waits(step: Callable[[int], Batch], device: torch.device) -> int | None:
    if device.type != "cuda":
        return None
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        try:
            step(0)
        finally:
            torch.cuda.set_sync_debug_mode("default")
    return sum("synchroniz" in str(warning.message) for warning in told)


def _forget() -> None:
    """Leave nothing of the arm before: compiled code, counters, memory."""
    torch._dynamo.reset()
    counters.clear()
    gc.collect()
    if torch.cuda.is_initialized():
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()


def profile(arm: Arm, bench: Bench) -> str:
    """The operations or kernels that took most of three steps, as torch.profiler tells it."""
    step, _ = make_step(arm, bench)
    _timed(step, 0, 3, bench)
    with torch.profiler.profile() as told:
        _timed(step, 3, 3, bench)
    return told.key_averages().table(sort_by=f"self_{bench.device.type}_time_total", row_limit=25, max_name_column_width=80)


def memory(bench: Bench) -> Iterator[dict]:
    """Memory of this process (GB of 10^9 bytes) after each stage of a run, and the most it took meanwhile (Linux alone)."""
    yield {"stage": "imports", **_resident()}
    network = create_vit(bench.model, bench.classes, bench.image_size)
    yield {"stage": "network", **_resident()}
    recipe = recipe_for(bench.model, image_size=bench.image_size, batch_size=bench.batch, micro_batch=bench.batch)
    options = RunOptions(bench.device, bench.precision, compile=False)
    training = start_training(network, create_loss("bce"), recipe, options)
    yield {"stage": "training started", **_resident()}
    batch = synthetic_batches(scales(bench.image_size, "none", bench.batch), bench)[0]
    train_step(training, [batch], [0], torch.zeros((), device=bench.device), recipe.lr, recipe.clip)
    training.ema.update(0)
    yield {"stage": "a step", **_resident()}
    with tempfile.TemporaryDirectory() as folder:
        save_checkpoint(Path(folder), 1, training.state())
        yield {"stage": "checkpoint saved", **_resident()}
        training.resume(Path(folder))
        yield {"stage": "checkpoint loaded", **_resident()}


def _resident() -> dict:
    """What the process holds, and the most since it was asked last."""
    if not Path("/proc/self/clear_refs").exists():
        raise OSError("the memory of a process is read from /proc, which this system lacks: measure it on Linux")
    lines = Path("/proc/self/status").read_text().splitlines()
    found = {line.split(":")[0]: int(line.split()[1]) * 1024 / 1e9 for line in lines if line.startswith(("VmRSS", "VmHWM"))}
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew
    return {"now_gb": found["VmRSS"], "peak_gb": found["VmHWM"]}


# ---------------------------------------------------------------- from a shell

KINDS = {"compare": compare, "matrix": matrix, "memory": memory}
FORMATS = {"arm": "{:<44}", "stage": "{:<20}", "mfu": "{:.1%}", "ratio": "{:.3f}", "now_gb": "{:.2f}", "peak_gb": "{:.2f}"}


def shown(row: dict, heading: bool = False) -> str:
    """A row of a table as a line; `heading`: its columns' names, as wide."""
    cells = []
    for name, value in row.items():
        layout = FORMATS.get(name, "{:,.4g}")
        text = name if heading else "-" if value is None else layout.format(value)
        cells.append(f"{text:<44}" if name in ("arm", "stage") else f"{text:>{max(9, len(name) + 2)}}")
    return "".join(cells)


def main(arguments: Sequence[str] | None = None) -> int:
    """Print one kind of measurement; gives 0, or 1 with one line that says what to do."""
    given = _parser().parse_args(arguments)
    try:
        device = choose_device(given.device)
        on_gpu = device.type == "cuda"
        if on_gpu:
            torch.cuda.set_device(device)
        kind = given.kind or ("matrix" if on_gpu else "compare")
        batch = given.batch or (PAPER_MICRO_BATCH[given.model] if on_gpu else CPU_BATCH)
        precision = given.precision or ("bf16" if on_gpu else "fp32")
        steps = given.steps or (20 if on_gpu else 1)
        bench = Bench(given.model, given.classes, given.image_size, batch, device, precision, steps, given.repeats)
        facts = {
            "kind": kind,
            **vars(bench),
            "device": str(device),
            "threads": torch.get_num_threads(),
            "machine": describe_machine(),
        }
        print(", ".join(f"{name} {value}" for name, value in facts.items()), flush=True)
        if given.profile:
            print(profile(matrix_arms(on_gpu)[0], bench))
            return 0
        rows = []
        for row in KINDS[kind](bench):
            if not rows:
                print(shown(row, heading=True))
            print(shown(row), flush=True)
            rows.append(row)
        if given.out:
            write_table(pd.DataFrame(rows), given.out, provenance(**facts))
            print(f"wrote {given.out}")
    except (OSError, ValueError, RuntimeError) as error:
        print(f"error: {str(error).splitlines()[0]}", file=sys.stderr)
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="make bench-train", description=__doc__.splitlines()[0])
    parser.add_argument("kind", nargs="?", choices=KINDS, help="default: matrix on a GPU, compare on a CPU")
    parser.add_argument("--device", help="cuda, cuda:1, cpu; default: the best there is")
    parser.add_argument("--model", choices=[name for name in MODELS if MODELS[name].patch == 16], default="vit_b16")
    parser.add_argument("--classes", type=int, default=CORENET_CLASSES, help="default: %(default)s")
    parser.add_argument("--image-size", type=int, default=PAPER["image_size"], help="pixels; default: %(default)s")
    parser.add_argument("--batch", type=int, help=f"images a step; default: the paper's on a GPU, {CPU_BATCH} on a CPU")
    parser.add_argument("--precision", choices=("bf16", "fp32"), help="default: bf16 on a GPU, fp32 on a CPU")
    parser.add_argument("--steps", type=int, help="timed in one go, a multiple of the scales; default: 20 on a GPU, 1 on a CPU")
    parser.add_argument("--repeats", type=int, default=5, help="of these; the median is told (default: %(default)s)")
    parser.add_argument("--profile", action="store_true", help="instead of a table: the costliest kernels with everything on")
    parser.add_argument("--out", help="parquet file for the table")
    return parser


if __name__ == "__main__":
    sys.exit(main())
