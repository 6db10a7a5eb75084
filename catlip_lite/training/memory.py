"""What a run takes on the device there is: micro-batch and activation checkpointing from a plan of its memory, tried before the
first step, and how fast that was.

Between a recipe, which says how many images a step has, and the loop, which is told how many of them go through the network at
a time. What a forward pass keeps for the backward one is counted on one image and on two: exact, in any precision, anywhere.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import nn

from ..data.loader import Batch
from ..models.dense import OnViT
from ..models.detector import DetectionHeads
from ..models.flops import training_flops
from ..models.precision import choose_device
from ..models.segmenter import Segmenter
from .loop import Learner, RunOptions, create_learner, forward, set_patch_drop, settings_kept
from .parallel import from_all, processes_here, wait_for_all, world_size
from .plan import FLOAT, storage
from .recipes import Recipe

SPARE = 0.1  # of the memory that is free: fragments of the allocator, buffers of communication, a system that goes on living
# Without activation checkpointing a step is a quarter faster; with it, more images fit. It is used only if less than so many
# would fit without: a GPU needs them to be busy, two cores are busy with a handful.
ENOUGH = {"cpu": 8, "mps": 32, "cuda": 32}
MOST_ON_CPU, FLOPS_ON_CPU = 128, 5e12  # images and FLOPs of a micro-batch: more is no faster, and minutes pass without a word
AT_WORK = 3  # times what a block keeps: gradients and temporaries, up to 2.6 measured (ViT-B/16, 128 px, fp32)
IMAGE_COPIES = 9  # bytes a pixel and colour outside of the network: as it came, as float32, augmented
TIMED_SECONDS = 5.0  # of the trial on a CPU, where it need not be of a whole micro-batch


@dataclass(frozen=True)
class Fit:
    """How a run goes on its devices. Bytes of one process: state, activations, and what there was for both.

    speed: FLOP/s of one process in the trial, forward and backward, neither compiled nor with optimiser and data.
    """

    micro_batch: int
    activation_checkpointing: bool
    state: float
    activations: float
    free: float
    speed: float


def fit_to_device(
    network: nn.Module, loss: Callable, recipe: Recipe, options: RunOptions, *,
    micro_batch: int | None = None, before: int | None = None, reserve: float = 0.0,
) -> Fit:  # fmt: skip
    """Choose micro-batch and activation checkpointing for the device, unless they are given; every process gets the same.

    The micro-batch is the largest up to the recipe's that divides a process's share of the batch and is planned to fit, with a
    tenth of the memory to spare; on a GPU it is then tried, and halved as often as memory runs out. On a CPU, where that would
    end the process, no more is tried than the plan says. before: what the run has had so far; it stays if it fits and is at
    least half of what would be chosen. reserve: bytes that others will take.
    The network is moved to its device, and otherwise left as it was. Raises ValueError if not even one image fits.
    """
    device, checkpointing = choose_device(options.device), options.activation_checkpointing
    kind, most, share = device.type, recipe.micro_batch, recipe.batch_size // world_size()
    if kind == "cpu":
        most = min(most, MOST_ON_CPU, max(1, int(FLOPS_ON_CPU / training_flops(network, recipe.image_size))))
    sizes = [micro_batch] if micro_batch else [n for n in range(most, 0, -1) if share % n == 0]
    with settings_kept(device):
        learner, dtype = create_learner(network, loss, recipe, options)
        set_patch_drop(network, 0.0)
        with _left_as_it_was(learner):
            wait_for_all()  # until every process has its weights
            free = (free_memory(device) - reserve) * (1 - SPARE) / (processes_here() if kind == "cpu" else 1)
            free += FLOAT * sum(p.numel() for p in learner.parameters())  # the weights are part of the state, and there
            wait_for_all()  # and none has begun to measure
            state = _state(learner, recipe, options)
            need = planned(learner, dtype, recipe, state)
            left = free if micro_batch is None or checkpointing is None else float("inf")
            usual = choose(need, sizes, checkpointing, left, ENOUGH[kind])
            if usual and before in sizes and usual[0] <= 2 * before:
                sizes = sizes[sizes.index(before) :]
            while chosen := choose(need, sizes, checkpointing, left, ENOUGH[kind]):
                try:
                    speed = try_out(learner, dtype, recipe, state, *chosen)
                    break
                except RuntimeError as error:  # a torch.OutOfMemoryError, but from Apple's GPU
                    if not isinstance(error, torch.OutOfMemoryError) and "out of memory" not in str(error):
                        raise
                    left = need(chosen[0] // 2, chosen[1]) if chosen[0] > 1 else 0.0
                learner.zero_grad(set_to_none=True)
                release_memory(device)
            if chosen is None:
                least = need(sizes[-1], checkpointing is not False)
                smaller = "batch_size, or more workers" if recipe.contrastive else "micro_batch, or free memory"
                raise ValueError(
                    f"{recipe.model} takes {least / 1e9:.1f} GB with micro_batch={sizes[-1]}, {left / 1e9:.1f} GB are "
                    f"free on {device}: choose a smaller model, image_size or {smaller}"
                )
            everyone = from_all((*chosen, speed))
    fitting = min(n for n, *_ in everyone), any(light for _, light, _ in everyone)
    return Fit(*fitting, state, need(*fitting) - state, free, min(speed for *_, speed in everyone))


def choose(need: Callable, sizes: list[int], checkpointing: bool | None, free: float, enough: int) -> tuple[int, bool] | None:
    """The largest micro-batch that needs no more than `free` bytes, and whether with activation checkpointing; None if none.

    sizes: those to choose from, the largest first. checkpointing: None, only if less than `enough` images (or than all, if
    these are fewer) fit without and more with it.
    """
    fitting = {light: [n for n in sizes if need(n, light) <= free] for light in (False, True)}
    if checkpointing is None:
        plain, light = (max(fitting[way], default=0) for way in (False, True))
        checkpointing = plain < min(enough, sizes[0]) and light > plain
    return (fitting[checkpointing][0], checkpointing) if fitting[checkpointing] else None


# --- the plan -----------------------------------------------------------------------------------------------------------------


def _state(learner: Learner, recipe: Recipe, options: RunOptions) -> float:
    """Bytes that a process holds all the time; under FSDP its part, with what is gathered for the block at work."""
    if world_size() == 1 or options.spread(recipe.model) != "fsdp":
        return storage(*learner.towers()).state
    sizes = [FLOAT * sum(p.numel() for p in block.parameters()) for block in learner.blocks()]
    rest = FLOAT * sum(p.numel() for p in learner.parameters()) - sum(sizes)
    # Weights and gradients of the rest, which is gathered throughout; of the block at work and of the next.
    devices = min(world_size(), processes_here())
    return storage(*learner.towers(), devices=devices).state + 2 * rest + 4 * max(sizes)


def planned(learner: Learner, dtype: torch.dtype, recipe: Recipe, state: float) -> Callable[[int, bool], float]:
    """Bytes of a process by micro-batch and whether activations are computed twice, at the size that takes most.

    Counted of one block, as all are alike, at the largest image size and at the smallest: it has the most images, each with a
    row of logits. A detector's images have as many objects as it learns from.
    """
    network, dense = learner.network, isinstance(learner.network, OnViT)
    vit, stride = (network.vit, network.backbone.stride) if dense else (network, network.patch_embed.patch_size[0])
    blocks, constant, of_image = vit.blocks, 0.0, {}
    depth, few = len(blocks), 1 + isinstance(network, Segmenter)  # DeepLab's head normalises over two or more
    pairs = AT_WORK * 2 * FLOAT * world_size() if recipe.contrastive else 0.0  # similarities of an image with all captions
    learner.set_grad_checkpointing(False)
    for size in {recipe.scales[0].size, recipe.scales[-1].size}:
        kept = [_kept(learner, dtype, n, size, vit, blocks[:d]) for d in (1, 2) for n in (few, few + 1)]
        (once, of_one), (twice, of_two) = ((more - less, less - few * (more - less)) for less, more in (kept[:2], kept[2:]))
        block, of_weights = twice - once, of_two - of_one  # of an image; whatever the images, copies in bf16
        outside = once - block + 3 * size**2 * IMAGE_COPIES
        constant = max(constant, of_one + (depth - 1) * of_weights)
        entry = FLOAT * (size // stride) ** 2 * network.embed_dim
        plain, light = depth * block, depth * entry + block
        if recipe.contrastive:
            text = learner.loss.text  # type: ignore[attr-defined]  # a contrastive one has it
            learner.set_grad_checkpointing(True)
            less, more = (_kept(learner, dtype, n, size, vit, blocks[:1]) for n in (1, 2))
            learner.set_grad_checkpointing(False)
            # Of each block of the text tower its entry stays; the image tower's one block is checkpointed, too.
            light += FLOAT * len(text.transformer.resblocks) * text.context_length * text.width - (once - block - (more - less))
        of_image[size] = [outside + within + AT_WORK * block for within in (plain, light)]
    vit.blocks = blocks

    def need(micro_batch: int, checkpointing: bool) -> float:
        images = images_by_size(recipe, micro_batch)
        kept = max(images[size] * (bytes[checkpointing] + pairs * images[size]) for size, bytes in of_image.items())
        return state + constant + kept

    return need


def _kept(learner: Learner, dtype: torch.dtype, images: int, size: int, vit: nn.Module, blocks: nn.Sequential) -> int:
    """Bytes that a forward pass through these blocks alone keeps for the backward one, weights aside."""
    vit.blocks, total = blocks, 0
    seen = {t.untyped_storage().data_ptr() for t in (*learner.parameters(), *learner.buffers())}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        nonlocal total
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in seen:
            seen.add(storage.data_ptr())
            total += storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        loss = _loss_of(learner, dtype, images, size)
    del loss
    return total


def images_by_size(recipe: Recipe, micro_batch: int) -> dict[int, int]:
    """Images of such a micro-batch at each of a recipe's sizes, the smallest first."""
    return {scale.size: scale.batch for scale in replace(recipe, micro_batch=max(1, micro_batch)).scales}


# --- the trial ----------------------------------------------------------------------------------------------------------------


def try_out(learner: Learner, dtype: torch.dtype, recipe: Recipe, state: float, micro_batch: int, checkpointing: bool) -> float:
    """Forward and backward as a step has them; FLOP/s.

    On a GPU at the smallest and the largest size, beside as much memory as the state will take. On a CPU, which could only be
    killed, some images of the smallest size, for the speed.
    """
    device = next(learner.parameters()).device
    learner.set_grad_checkpointing(checkpointing)
    images = images_by_size(recipe, micro_batch)
    smallest, largest = min(images), max(images)

    def seconds(images: int, size: int) -> float:
        wait = torch.get_device_module(device).synchronize
        wait()
        began = time.perf_counter()
        _loss_of(learner, dtype, images, size).backward()
        wait()
        return time.perf_counter() - began

    if device.type != "cpu":
        there = 2 * FLOAT * sum(p.numel() for p in learner.parameters())  # weights, and soon their gradients
        beside = torch.empty(int(max(0, state - there)), dtype=torch.uint8, device=device)
        seconds(images[smallest], smallest)
        seconds(images[largest], largest)
        speed = images[largest] * learner.training_flops(largest) / seconds(images[largest], largest)
        del beside
        return speed
    seconds(1, smallest)  # the first is slow
    tried = max(1, min(int(TIMED_SECONDS / seconds(1, smallest)), images[smallest]))
    return tried * learner.training_flops(smallest) / seconds(tried, smallest)


def _loss_of(learner: Learner, dtype: torch.dtype, images: int, size: int) -> torch.Tensor:
    """Forward with random images, a label each, or of a dense task as much as it learns from."""
    device, targets = next(learner.parameters()).device, {}
    pixels, rows = torch.randint(0, 256, (images, 3, size, size), dtype=torch.uint8, device=device), torch.arange(images)
    if isinstance(learner.network, Segmenter):
        targets["masks"] = torch.zeros((images, size, size), dtype=torch.uint8)
    elif isinstance(learner.loss, DetectionHeads):
        sampler = learner.loss.roi_heads.fg_bg_sampler
        rows = rows.repeat_interleave(int(sampler.batch_size_per_image * sampler.positive_fraction))
        corners = torch.rand(len(rows), 2) * size / 2
        targets["boxes"] = torch.cat([corners, corners + size / 4], dim=1)
        targets["masks"] = torch.ones((1, 1, 1), dtype=torch.uint8).expand(len(rows), size, size)
    batch = Batch(pixels, torch.zeros_like(rows), rows, torch.ones(images), [], [], **targets).to(device)
    return forward(learner, batch, torch.zeros((), device=device), dtype)


@contextmanager
def _left_as_it_was(learner: Learner) -> Iterator[None]:
    """A trial moves the statistics of batch norms and leaves gradients behind."""
    buffers = {name: buffer.clone() for name, buffer in learner.named_buffers()}
    try:
        yield
    finally:
        learner.zero_grad(set_to_none=True)
        for name, buffer in learner.named_buffers():
            buffer.copy_(buffers[name])
        release_memory(next(learner.parameters()).device)


# --- what there is ------------------------------------------------------------------------------------------------------------

V1 = "sys/fs/cgroup/memory", "memory.limit_in_bytes", "memory.usage_in_bytes", "total_"
V2 = "sys/fs/cgroup", "memory.max", "memory.current", ""


def free_memory(device: torch.device, root: Path = Path("/")) -> float:
    """Bytes that this process may still take on a device: of a GPU what is free, of Apple's what macOS recommends, of a CPU's
    memory what the system says is available or what its control groups leave, whichever is least. root: where /proc and /sys
    are."""
    if device.type == "cuda":
        unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return torch.cuda.mem_get_info(device)[0] + unused
    if device.type == "mps":
        torch.mps.empty_cache()  # what the driver has allocated is then in use
        return torch.mps.recommended_max_memory() - torch.mps.driver_allocated_memory()
    info = root / "proc/meminfo"
    if not info.is_file():  # not Linux: half of what is built in
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2
    fields = dict(line.split(":", 1) for line in info.read_text().splitlines())
    return min([int(fields["MemAvailable"].split()[0]) * 1024, *_left_by_control_groups(root)])


def release_memory(device: torch.device) -> None:
    """Give back to a GPU what this process holds and does not use."""
    if device.type != "cpu":
        torch.get_device_module(device).empty_cache()


def _left_by_control_groups(root: Path) -> Iterator[float]:
    """What each group that this process is in, and those above it, leave of their limits; files kept in memory can go."""
    named = root / "proc/self/cgroup"
    for line in named.read_text().splitlines() if named.is_file() else ():
        _, controllers, path = line.split(":", 2)
        if controllers and "memory" not in controllers.split(","):
            continue
        where, limit, used, prefix = V1 if controllers else V2
        # Within a container the path may be the host's, and only the top is there.
        for folder in (root / where / path.strip("/"), *(root / where / path.strip("/")).parents):
            if (folder / limit).is_file() and (most := (folder / limit).read_text().strip()) != "max":
                stat = dict(entry.split() for entry in (folder / "memory.stat").read_text().splitlines())
                files = sum(int(stat.get(f"{prefix}{kind}_file", 0)) for kind in ("inactive", "active"))
                yield int(most) - int((folder / used).read_text()) + files
