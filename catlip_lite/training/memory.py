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
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from ..data.batches import Batch
from ..models.flops import training_flops
from .distribution import from_all, processes_here, wait_for_all, world_size
from .loop import Learner, Normalise, RunOptions, create_learner, forward, set_patch_drop, settings_kept
from .multi_scale import scales
from .plan import FLOAT, storage
from .recipes import Recipe

SPARE = 0.1  # of the memory that is free: fragments of the allocator, buffers of communication, a system that goes on living
# Without activation checkpointing a step is a quarter faster; with it, more images fit. It is used only if less than so many
# would fit without: a GPU needs them to be busy, two cores are busy with a handful.
ENOUGH = {"cuda": 32, "cpu": 8}
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
    network: nn.Module,
    loss: Callable,
    recipe: Recipe,
    options: RunOptions,
    *,
    normalise: Normalise | None = None,
    micro_batch: int | None = None,
    checkpointing: bool | None = None,
    before: int | None = None,
    reserve: float = 0.0,
) -> Fit:
    """Choose micro-batch and activation checkpointing for the device, unless they are given; every process gets the same.

    The micro-batch is the largest up to the recipe's that divides a process's share of the batch and is planned to fit, with a
    tenth of the memory to spare; on a GPU it is then tried, beside as much memory as the state will take, and halved as often
    as memory runs out. On a CPU, where that would end the process, no more is tried than the plan says. before: what the run
    has had so far; it stays if it fits and is at least half of what would be chosen. reserve: bytes that others will take.
    The network is moved to its device, and otherwise left as it was.
    Raises ValueError if not even one image fits.
    """
    device = options.device
    with settings_kept(device):
        learner, dtype = create_learner(network, loss, recipe, options, normalise)
        with _left_as_it_was(learner):
            trial = _Trial(learner, dtype, device, recipe, _state(network, recipe, options))
            wait_for_all()  # until every process has its weights
            free = (free_memory(device) - reserve) * (1 - SPARE) / (1 if device.type == "cuda" else processes_here())
            free += FLOAT * sum(p.numel() for p in network.parameters())  # the weights are part of the state, and there
            wait_for_all()  # and none has begun to measure
            trial.measure()
            most = recipe.micro_batch
            if device.type != "cuda":
                useful = int(FLOPS_ON_CPU / training_flops(network, recipe.image_size))
                most = min(most, MOST_ON_CPU, max(1, useful))
            share, enough = recipe.batch_size // world_size(), ENOUGH["cuda" if device.type == "cuda" else "cpu"]
            sizes = [micro_batch] if micro_batch else [n for n in range(most, 0, -1) if share % n == 0]
            within = free if micro_batch is None or checkpointing is None else float("inf")
            usual = choose(trial.need, sizes, checkpointing, within, enough)
            if usual and before in sizes and usual[0] <= 2 * before:
                sizes = sizes[sizes.index(before) :]
            chosen = trial.largest_that_fits(sizes, checkpointing, within, enough)
            everyone = from_all((*chosen, trial.speed))
            fitting = min(n for n, *_ in everyone), any(light for _, light, _ in everyone)
            speed = min(speed for *_, speed in everyone)
    return Fit(*fitting, trial.state, trial.need(*fitting) - trial.state, free, speed)


def _state(network: nn.Module, recipe: Recipe, options: RunOptions) -> float:
    """Bytes that a process holds all the time; under FSDP its part, with what is gathered for the block at work."""
    if world_size() == 1 or options.parallel != "fsdp":
        return storage(network).state
    blocks = FLOAT * sum(p.numel() for p in network.blocks.parameters())
    rest = FLOAT * sum(p.numel() for p in network.parameters()) - blocks
    # Weights and gradients of the rest, which is gathered throughout; of the block at work and of the next.
    return storage(network, min(world_size(), processes_here())).state + 2 * rest + 4 * blocks / len(network.blocks)


# --- the plan, and the trial ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Kept:
    """Bytes that a forward pass keeps for the backward one: outside of the blocks, in each block, and one block's input."""

    outside: float
    block: float
    entry: float

    def needed(self, depth: int, checkpointing: bool) -> float:
        """With what the backward pass takes on top, for the block at work."""
        within = depth * self.entry + self.block if checkpointing else depth * self.block
        return self.outside + within + AT_WORK * self.block


class _Trial:
    """Forward and backward passes on random images at a recipe's largest and smallest size.

    The smallest counts too: it has the most images in a micro-batch, and each has a row of logits.
    """

    def __init__(self, learner: Learner, dtype: torch.dtype, device: torch.device, recipe: Recipe, state: float):
        self.learner, self.network, self.dtype, self.device = learner, learner.network, dtype, device
        self.recipe, self.state = recipe, state
        self.target = torch.zeros((), device=device)
        set_patch_drop(self.network, 0.0)
        every = self.scales_of(recipe.micro_batch)
        self.smallest, self.largest = every[0].size, every[-1].size
        self.of_image: dict[int, Kept] = {}  # by image size
        self.of_weights = 0.0  # copies of these in bf16
        self.speed = 0.0

    def scales_of(self, micro_batch: int) -> tuple:
        """The recipe's scales with the images that such a micro-batch has at each."""
        patch = self.network.patch_embed.patch_size[0]
        return scales(self.recipe.image_size, self.recipe.multi_scale, micro_batch, patch=patch)

    def batch(self, images: int, size: int) -> Batch:
        """Random images with a label each."""
        pixels = torch.randint(0, 256, (images, 3, size, size), dtype=torch.uint8, device=self.device)
        rows = torch.arange(images, device=self.device)
        return Batch(pixels, torch.zeros_like(rows), rows, torch.ones(images, device=self.device), [], [])

    def measure(self) -> None:
        """Count what one image keeps at each size, as the difference that a second makes; of one block, as all are alike."""
        blocks = self.network.blocks
        self.network.set_grad_checkpointing(False)
        self.network.blocks = blocks[:1]
        for size in {self.smallest, self.largest}:
            two, one = (self._kept(images, size) for images in (2, 1))
            pixels = 3 * size**2 * IMAGE_COPIES
            self.of_image[size] = Kept(two.outside - one.outside + pixels, two.block - one.block, two.entry - one.entry)
            constant = 2 * one.outside - two.outside + len(blocks) * (2 * one.block - two.block)
            self.of_weights = max(self.of_weights, constant)
        self.network.blocks = blocks

    def _kept(self, images: int, size: int) -> Kept:
        """Of a network with a single block."""
        (block,), counted = self.network.blocks, {"outside": 0, "block": 0, "entry": 0}
        seen = {t.untyped_storage().data_ptr() for t in (*self.learner.parameters(), *self.learner.buffers())}
        where = ["outside"]

        def enter(_, inputs):
            where[0], counted["entry"] = "block", inputs[0].nbytes

        def leave(*_):
            where[0] = "outside"

        def keep(tensor):
            storage = tensor.untyped_storage()
            if storage.data_ptr() not in seen:
                seen.add(storage.data_ptr())
                counted[where[0]] += storage.nbytes()
            return tensor

        hooks = block.register_forward_pre_hook(enter), block.register_forward_hook(leave)
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            loss = forward(self.learner, self.batch(images, size), self.target, self.dtype)
        for hook in hooks:
            hook.remove()
        del loss
        return Kept(**counted)

    def need(self, micro_batch: int, checkpointing: bool) -> float:
        """Planned bytes of a process that trains with such micro-batches, at the size that takes most."""
        depth, images = len(self.network.blocks), {s.size: s.batch for s in self.scales_of(micro_batch)}
        most = max(images[size] * kept.needed(depth, checkpointing) for size, kept in self.of_image.items())
        return self.state + self.of_weights + most

    def largest_that_fits(self, sizes: list[int], checkpointing: bool | None, free: float, enough: int) -> tuple[int, bool]:
        """The first of these micro-batches that is planned to fit and, on a GPU, does; and whether with checkpointing."""
        while True:
            chosen = choose(self.need, sizes, checkpointing, free, enough)
            if chosen is None:
                least = self.need(sizes[-1], checkpointing is not False)
                raise ValueError(
                    f"{self.recipe.model} takes {least / 1e9:.1f} GB with micro_batch={sizes[-1]}, {free / 1e9:.1f} GB are "
                    f"free on {self.device}: choose a smaller model, image_size or micro_batch, or free memory"
                )
            try:
                self.try_out(*chosen)
                return chosen
            except torch.OutOfMemoryError:
                half, checkpointed = chosen[0] // 2, chosen[1]
                free = self.need(half, checkpointed) if half else 0.0
            self.learner.zero_grad(set_to_none=True)
            torch.cuda.empty_cache()

    def try_out(self, micro_batch: int, checkpointing: bool) -> None:
        """Forward and backward as a step has them; sets `speed`.

        On a GPU at the smallest and the largest size, beside as much memory as the state will take. On a CPU, which could only
        be killed, some images of the smallest size, for the speed.
        """
        self.network.set_grad_checkpointing(checkpointing)
        images = {s.size: s.batch for s in self.scales_of(micro_batch)}
        if self.device.type == "cuda":
            there = 2 * FLOAT * sum(p.numel() for p in self.network.parameters())  # weights, and soon their gradients
            beside = torch.empty(int(max(0, self.state - there)), dtype=torch.uint8, device=self.device)
            self.seconds(images[self.smallest], self.smallest)
            self.seconds(images[self.largest], self.largest)
            tried, size = images[self.largest], self.largest
        else:
            beside = None
            self.seconds(1, self.smallest)  # the first is slow
            tried, size = int(TIMED_SECONDS / self.seconds(1, self.smallest)), self.smallest
            tried = max(1, min(tried, images[size]))
        self.speed = tried * training_flops(self.network, size) / self.seconds(tried, size)
        del beside

    def seconds(self, images: int, size: int) -> float:
        """Forward and backward of so many images."""
        batch, on_gpu = self.batch(images, size), self.device.type == "cuda"
        if on_gpu:
            torch.cuda.synchronize(self.device)
        began = time.perf_counter()
        forward(self.learner, batch, self.target, self.dtype).backward()
        if on_gpu:
            torch.cuda.synchronize(self.device)
        return time.perf_counter() - began


def choose(
    need: Callable[[int, bool], float], sizes: list[int], checkpointing: bool | None, free: float, enough: int
) -> tuple[int, bool] | None:
    """The largest micro-batch that needs no more than `free` bytes, and whether with activation checkpointing; None if none.

    sizes: those to choose from, the largest first. checkpointing: None, only if less than `enough` images (or than all, if
    these are fewer) fit without and more with it.
    """
    fitting = {light: [n for n in sizes if need(n, light) <= free] for light in (False, True)}
    if checkpointing is None:
        plain, light = (max(fitting[way], default=0) for way in (False, True))
        checkpointing = plain < min(enough, sizes[0]) and light > plain
    return (fitting[checkpointing][0], checkpointing) if fitting[checkpointing] else None


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
        if next(learner.parameters()).is_cuda:
            torch.cuda.empty_cache()


# --- what there is ----------------------------------------------------------------------------------------------------------


def free_memory(device: torch.device, root: Path = Path("/")) -> float:
    """Bytes that this process may still take on a device: of a GPU what is free, of a CPU's memory what the system says is
    available or what its control groups leave, whichever is least. root: where /proc and /sys are."""
    if device.type == "cuda":
        unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return torch.cuda.mem_get_info(device)[0] + unused
    info = root / "proc/meminfo"
    if not info.is_file():  # not Linux: half of what is built in
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2
    fields = dict(line.split(":", 1) for line in info.read_text().splitlines())
    return min([int(fields["MemAvailable"].split()[0]) * 1024, *_left_by_control_groups(root)])


def _left_by_control_groups(root: Path) -> Iterator[float]:
    """What each group that this process is in, and those above it, leave of their limits; files kept in memory can go."""
    named = root / "proc/self/cgroup"
    for line in named.read_text().splitlines() if named.is_file() else ():
        _, controllers, path = line.split(":", 2)
        if controllers == "":
            top, limit, used, prefix = root / "sys/fs/cgroup", "memory.max", "memory.current", ""
        elif "memory" in controllers.split(","):
            top, limit, used, prefix = root / "sys/fs/cgroup/memory", "memory.limit_in_bytes", "memory.usage_in_bytes", "total_"
        else:
            continue
        inside = top / path.strip("/")  # within a container the path may be the host's, and only `top` is there
        for folder in (inside, *inside.parents):
            if (folder / limit).is_file() and (most := (folder / limit).read_text().strip()) != "max":
                stat = dict(entry.split() for entry in (folder / "memory.stat").read_text().splitlines())
                files = sum(int(stat.get(f"{prefix}{kind}_file", 0)) for kind in ("inactive", "active"))
                yield int(most) - int((folder / used).read_text()) + files
            if folder == top:
                break
