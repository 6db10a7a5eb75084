"""The training loop (paper section 3.2): batches of a corpus → a trained ViT, with checkpoints and a log on the way.

One step function, one loop around it, the same for one process and for many. A resumed run needs weights, optimiser, EMA
and its place (steps done, samples taken); the order of the samples and all randomness are functions of that place.
"""

from __future__ import annotations

import json
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import torch
from timm.layers import PatchDropout
from torch import nn
from torch.distributed.checkpoint.state_dict import get_optimizer_state_dict, set_optimizer_state_dict
from torch.utils.tensorboard import SummaryWriter

from ..artefacts import atomic_path
from ..data.loader import Batch, Loader
from ..models.flops import mfu, peak_flops, training_flops
from ..models.precision import arranged, choose_device, choose_precision, exact_device, prefer_plain_attention
from . import parallel
from .optimiser import Ema, create_optimisers
from .range_augment import RangeAugment, target_mse
from .recipes import Recipe
from .steps import Place, StepPlan


@dataclass(frozen=True)
class RunOptions:
    """How a run is carried out, as plain values: nothing here changes what it computes, but for rounding.

    device: None, the best there is. precision: see `choose_precision`. compile: torch.compile; None: on GPUs, Apple's aside.
    parallel: "ddp" or "fsdp", see `distribute`; None: fsdp for vit_l16 and vit_h16. activation_checkpointing: compute
    activations twice, keep fewer; None: as `fit_to_device` finds. checkpoint_every, keep_every, log_every: steps;
    checkpoint_every None: none, as for runs of seconds. keep_every: see `save_checkpoint`. record_samples: see
    `RunLog`. also_every: steps after which there is a checkpoint besides, where `checkpoint_every` of them take long.
    """

    device: str | None = None
    precision: str = "auto"
    compile: bool | None = None
    parallel: str | None = None
    activation_checkpointing: bool | None = None
    checkpoint_every: int | None = 1000
    keep_every: int | None = None
    log_every: int = 20
    record_samples: bool = False
    also_every: int | None = None

    def __post_init__(self):
        if self.parallel not in (None, *parallel.PARALLEL):
            raise ValueError(f"parallel={self.parallel!r} is unknown: choose ddp (each has the model) or fsdp (they share it)")
        if self.checkpoint_every is not None and self.checkpoint_every < 1:
            raise ValueError(f"checkpoint_every={self.checkpoint_every} must be at least 1")

    def spread(self, model: str) -> str:
        """How several processes share a model of this name."""
        return self.parallel or ("fsdp" if model in parallel.SHARDED_MODELS else "ddp")

    def saves_after(self, done: int) -> bool:
        """Whether a checkpoint is due when so many steps are done, besides the one at the end."""
        return self.checkpoint_every is not None and any(n and done % n == 0 for n in (self.checkpoint_every, self.also_every))


# --- the learner --------------------------------------------------------------------------------------------------------------


class Learner(nn.Module):
    """What a step differentiates: uint8 or 0..1 images and sparse targets -> the loss, a scalar.

    loss: (outputs of the network, indices, rows, and boxes or masks where batches have them) -> float32 [B]; the weighted sum
    over images is divided by B. target_mse: scalar tensor, RangeAugment's goal, unused without it.
    """

    def __init__(self, network: nn.Module, loss: Callable, range_augment: RangeAugment | None = None):
        super().__init__()
        self.network, self.loss, self.range_augment = network, loss, range_augment

    def forward(
        self, images: torch.Tensor, indices: torch.Tensor, rows: torch.Tensor, weights: torch.Tensor,
        target_mse: torch.Tensor, *dense: torch.Tensor,
    ) -> torch.Tensor:  # fmt: skip
        if not images.is_floating_point():
            images = images.float() / 255
        penalty = 0.0
        if self.range_augment is not None:
            images, penalty = self.range_augment(images, target_mse)
        # torch.compile would see to the layout by itself, but not in a graph of 300 nodes a convolution (12 blocks make over
        # 1,000, the stem three); on a CPU the stem is a sixth faster.
        losses = self.loss(self.network(arranged(images)), indices, rows, *dense)
        return (losses * weights).sum() / len(weights) + penalty

    def towers(self) -> list[nn.Module]:
        """What is trained and kept: the network, and a loss that has parameters, a text tower's."""
        trained = isinstance(self.loss, nn.Module) and any(True for _ in self.loss.parameters())
        return [self.network, self.loss] if trained else [self.network]

    def averaged(self) -> dict[str, torch.Tensor]:
        """The state of the towers."""
        return {name: value for tower in self.towers() for name, value in tower.state_dict().items()}

    def blocks(self) -> list[nn.Module]:
        """The transformer blocks of all towers."""
        return [*self.network.blocks, *(self.loss.text.transformer.resblocks if hasattr(self.loss, "text") else ())]

    def set_grad_checkpointing(self, enable: bool) -> None:
        """Of all towers."""
        self.network.set_grad_checkpointing(enable)
        if hasattr(self.loss, "text"):
            self.loss.text.set_grad_checkpointing(enable)

    def training_flops(self, image_size: int, keep_tokens: float = 1.0) -> int:
        """Of an image and its caption, forward and backward."""
        return training_flops(self.network, image_size, keep_tokens=keep_tokens) + getattr(self.loss, "training_flops", 0)


def create_learner(network: nn.Module, loss: Callable, recipe: Recipe, options: RunOptions) -> tuple[Learner, torch.dtype]:
    """A network on its device with all that a forward pass needs, and the precision it computes in."""
    device = choose_device(options.device)
    dtype = choose_precision(device, options.precision)
    if device.type == "cpu" and dtype == torch.bfloat16:
        prefer_plain_attention(network)
    if device.type == "cuda":
        torch.cuda.set_device(device)
        torch.set_float32_matmul_precision("high")  # TF32, where a product is not in bf16 anyway
    if recipe.patch_drop:
        network.patch_drop = PatchDropout(recipe.patch_drop, num_prefix_tokens=network.num_prefix_tokens)
    learner = Learner(network, loss, RangeAugment() if recipe.range_augment else None)
    return learner.to(device).train(), dtype


def set_patch_drop(network: nn.Module, share: float) -> None:
    """Have a network made for patch dropout leave out this share of the patches."""
    dropout = getattr(network, "patch_drop", None)
    if isinstance(dropout, PatchDropout) and dropout.prob != share:
        dropout.prob = share


def compile_learner(spread: nn.Module, learner: Learner, how: str) -> Callable:
    """torch.compile over forward and backward of a step; under FSDP of its parts, as each block is gathered on its own.

    Shapes are taken as they come, one graph each (13 for the paper's multi-scale, see `scales` for fewer), but for the number
    of labels, which differs from batch to batch.
    """
    torch.compiler.config.recompile_limit = max(64, torch.compiler.config.recompile_limit)
    if parallel.world_size() > 1 and how == "fsdp":
        parts = [learner.network.patch_embed, *learner.blocks()]
        for part in parts if learner.range_augment is None else [learner.range_augment, *parts]:
            part.compile(dynamic=False)
        return spread
    # Else DDP has the graph cut where a bucket of gradients is full, in seventeen for ViT-B, to send them a little sooner. For
    # this and for `mark_dynamic` PyTorch documents no other names than these.
    torch._dynamo.config.optimize_ddp = False
    compiled = torch.compile(spread, dynamic=False)

    def marked(images: torch.Tensor, indices: torch.Tensor, rows: torch.Tensor, *others: torch.Tensor) -> torch.Tensor:
        for labels in (indices, rows):
            torch._dynamo.mark_dynamic(labels, 0)
        return compiled(images, indices, rows, *others)

    return marked


# --- the step -----------------------------------------------------------------------------------------------------------------


@dataclass
class Training:
    """A learner on its way: what a step changes and a checkpoint holds.

    spread: the learner as `distribute` gives it; stepped: that, compiled, to be called.
    """

    learner: Learner
    spread: nn.Module
    stepped: Callable
    optimisers: list[torch.optim.Optimizer]
    ema: Ema
    dtype: torch.dtype

    def state(self) -> dict:
        """Everything to save, as nested dicts of the very tensors that training uses."""
        moments = get_optimizer_state_dict(self.learner, self.optimisers)["state"]
        return {"learner": self.learner.state_dict(), "optimiser": moments, "ema": self.ema.state}

    def resume(self, folder: Path) -> dict | None:
        """Take in the newest checkpoint; its facts, None if there is none."""
        if not any(folder.glob("step_*")):
            return None
        optimiser = get_optimizer_state_dict(self.learner, self.optimisers)
        facts = parallel.load_latest(folder, {**self.state(), "optimiser": optimiser["state"]})
        set_optimizer_state_dict(self.learner, self.optimisers, optimiser)
        return facts


def start_training(network: nn.Module, loss: Callable, recipe: Recipe, options: RunOptions) -> Training:
    """Put a network on its device, ready for its first step."""
    learner, dtype = create_learner(network, loss, recipe, options)
    learner.set_grad_checkpointing(bool(options.activation_checkpointing))
    device, how = next(network.parameters()).device, options.spread(recipe.model)
    spread = parallel.distribute(learner, learner.blocks(), how, device)
    of_groups = {"layer_decay": recipe.layer_decay, "beta2": recipe.beta2}
    optimisers = create_optimisers(learner, recipe.weight_decay, recipe.optimiser, dtype=dtype, **of_groups)
    ema = Ema(learner.averaged(), recipe.ema_momentum)
    use_compile = device.type == "cuda" if options.compile is None else options.compile
    stepped = compile_learner(spread, learner, how) if use_compile else spread
    return Training(learner, spread, stepped, optimisers, ema, dtype)


def forward(learner: Callable, batch: Batch, target: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """The loss of a micro-batch, computed in dtype where that is safe."""
    with torch.autocast(batch.images.device.type, dtype, enabled=dtype != torch.float32):
        return learner(batch.images, batch.indices, batch.rows, batch.weights, target, *batch.dense)


def train_step(
    training: Training, batches: Iterable[Batch], seeds: Sequence[int], target: torch.Tensor, lr: float, clip: float,
    tell: Callable[[int], None] | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:  # fmt: skip
    """One optimiser step: forward and backward of each micro-batch, gradients averaged, clipped, applied.

    batches: as many are taken as there are seeds, each when the one before is under way. seeds: of what each micro-batch draws
    on its device. target: RangeAugment's mean squared error. tell: called with the number of micro-batches done. Returns this
    process's mean loss and the norm of the gradient over all processes before clipping (scalars on the device).
    """
    losses = []
    for i, (seed, batch) in enumerate(zip(seeds, batches, strict=False)):
        torch.manual_seed(seed)
        with parallel.gradients_shared(training.spread, share=i == len(seeds) - 1):
            loss = forward(training.stepped, batch, target, training.dtype) / len(seeds)
            loss.backward()
        losses.append(loss.detach())
        if tell is not None:
            tell(i + 1)
    norm = nn.utils.clip_grad_norm_(training.learner.parameters(), clip)
    for optimiser in training.optimisers:
        for group in optimiser.param_groups:
            group["lr"] = lr * group.get("lr_scale", 1.0)
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)
    return torch.stack(losses).sum(), parallel.whole(norm)


# --- the loop -----------------------------------------------------------------------------------------------------------------


def train(
    network: nn.Module,
    loss: Callable,
    corpus: Loader,
    recipe: Recipe,
    folder: Path | None,
    options: RunOptions,
    *,
    on_log: Callable[[dict], None] = lambda entry: None,
    on_progress: Callable[[int, int, int], None] = lambda step, images, of: None,
) -> dict[str, torch.Tensor]:
    """Train `network` in place up to `recipe.max_steps`, going on from `folder/checkpoints` if there is one.

    Every process calls it with the same arguments, its own device aside. Writes what `RunLog` writes; `on_log` gets each
    line of the log (see `Meter.read`), `on_progress` each micro-batch: the number of its step, how many images of it are done,
    and of how many. folder None: nothing is written, for runs of seconds without checkpoints. corpus: anything with its
    `batches`, `identity` and length.
    Returns the averaged weights, a state dict of the network on the CPU; the network has the last ones. Where the loss has
    parameters, as a text tower has, they are trained and averaged with it, and are part of what is returned.
    Raises FloatingPointError when a loss or gradient is not finite: the step and the names of its samples are in
    `folder/not_finite_rank<r>.json`, and every checkpoint is from before it.
    """
    device, saving = choose_device(options.device), options.checkpoint_every is not None
    if folder is None and saving:
        raise ValueError("without a folder there is no place for checkpoints: give one, or checkpoint_every=None")
    with settings_kept(device):
        training = start_training(network, loss, recipe, options)
        facts = training.resume(folder / "checkpoints") if folder is not None and saving else None
        place = _place_of(facts, corpus, recipe, folder)
        plan = StepPlan(recipe, place, parallel.rank(), parallel.world_size())
        meter = Meter(training.learner, recipe, device, training.dtype, (facts or {}).get("skipped", 0))
        stream = meter.counted(on_device(corpus.batches(plan.specs()), device))
        target = torch.zeros((), device=device)
        # Closed whatever happens: an error's traceback holds on to the stream, and so to the processes that decode.
        with closing(stream), closing(RunLog(folder, place.step, record_samples=options.record_samples)) as log:
            for step in range(place.step, recipe.max_steps):
                share, of, patch_drop, lr = plan.share(step), plan.images(step), recipe.patch_drop_at(step), recipe.lr_at(step)

                def tell(micro_batches: int, step: int = step, share: int = share, of: int = of) -> None:
                    # As if the other processes were as far.
                    on_progress(step + 1, of * micro_batches // share, of)

                set_patch_drop(network, patch_drop)
                target.fill_(target_mse(step, recipe.max_steps))
                seeds = [plan.seed_of(step, i) for i in range(share)]
                value, norm = train_step(training, stream, seeds, target, lr, recipe.clip, tell)
                training.ema.update(step)
                done, place = step + 1, plan.place_after(step)
                log.samples(done, *meter.add(value, norm, of, plan.scale(step).size, patch_drop))

                last = done == recipe.max_steps
                save = options.saves_after(done) or (last and saving)
                if save or last or done % options.log_every == 0:
                    entry = meter.read(done, lr, training.learner.range_augment)
                    entry["samples_seen"] = place.position
                    _stop_if_not_finite(meter, folder, recipe)
                    log.write(entry)
                    on_log(entry)
                if save and folder is not None:
                    facts = {"position": place.position, "skipped": meter.skipped, "recipe": recipe.identity()}
                    facts |= {"micro_batch": recipe.micro_batch, **corpus.identity()}
                    checkpoints, state = folder / "checkpoints", training.state()
                    parallel.save_checkpoint(checkpoints, done, state, facts, keep_every=options.keep_every)
        return {name: parallel.whole(value).cpu() for name, value in training.ema.state.items()}


@contextmanager
def settings_kept(device: torch.device) -> Iterator[None]:
    """Random states and the precision of float32 products are afterwards what they were."""
    precision = torch.get_float32_matmul_precision()
    try:
        with torch.random.fork_rng([device] if device.type != "cpu" else [], device_type=device.type):
            yield
    finally:
        torch.set_float32_matmul_precision(precision)


def _place_of(facts: dict | None, corpus: Loader, recipe: Recipe, folder: Path | None) -> Place:
    """Where to go on. Raises ValueError if the checkpoint is of another run."""
    if facts is None:
        return Place()
    before, here = {**facts, **facts["recipe"]}, {**corpus.identity(), **recipe.identity()}
    changed = ", ".join(f"{name} was {before.get(name)}, is {new}" for name, new in here.items() if before.get(name) != new)
    if changed:
        raise ValueError(f"{folder} holds another run ({changed}): give what it began with, or choose another `run`")
    if parallel.is_main():
        print(f"resuming after step {facts['step']:,} of {recipe.max_steps:,}", flush=True)
        if facts.get("micro_batch", recipe.micro_batch) != recipe.micro_batch:
            told = f"micro_batch is {recipe.micro_batch} from here on, it was {facts['micro_batch']}"
            print(f"{told}: the stem's batch norms average over as many images", flush=True)
    return Place(facts["step"], facts["position"])


def _stop_if_not_finite(meter: Meter, folder: Path | None, recipe: Recipe) -> None:
    """Keep what led there, then raise."""
    if meter.not_finite is None:
        return
    step, names = meter.not_finite
    told = f"the loss or its gradient is not finite at step {step}: lower the learning rate ({recipe.lr:g})"
    if folder is not None:
        told += f", or leave out the samples named in {folder}/not_finite_rank*.json; the checkpoints before it are intact"
        if names:
            with atomic_path(folder / f"not_finite_rank{parallel.rank()}.json") as staging:
                staging.write_text(json.dumps({"step": step, "samples": names}, indent=1))
    raise FloatingPointError(told)


# --- batches on their way to the device ---------------------------------------------------------------------------------------

AHEAD = 2  # batches on the device that wait for their step


def on_device(batches: Generator[Batch], device: torch.device) -> Generator[Batch]:
    """The batches on a device; on a CUDA GPU a thread page-locks the next ones and copies them on a stream of its own."""
    if device.type != "cuda":
        with closing(batches):
            yield from (batch.to(device) for batch in batches)
        return
    stream = torch.cuda.Stream(device)

    def take() -> Batch | None:
        if (batch := next(batches, None)) is None:
            return None
        with torch.cuda.stream(stream):
            moved = batch.pinned().to(device)
            stream.record_event().synchronize()  # the page-locked memory may go back now
        return moved

    thread = ThreadPoolExecutor(1, "batches to the device")
    with closing(batches):  # and with them the processes that decode
        try:
            ahead = deque(thread.submit(take) for _ in range(AHEAD))
            while (batch := ahead.popleft().result()) is not None:
                ahead.append(thread.submit(take))
                for tensor in (batch.images, batch.indices, batch.rows, batch.weights, *batch.dense):
                    tensor.record_stream(torch.cuda.current_stream(device))
                yield batch
        finally:
            thread.shutdown(cancel_futures=True)


# --- loss, speed and waiting between two lines of the log ---------------------------------------------------------------------


class Meter:
    """Gathers what steps tell, over all processes; losses stay on the device until they are read.

    skipped: samples left out since the run began, over all processes, as of the last reading. not_finite: the first step since
    the last reading whose loss or gradient is not finite, with this process's samples, none if the loss was another's.
    """

    def __init__(self, learner: Learner, recipe: Recipe, device: torch.device, dtype: torch.dtype, skipped: int = 0):
        self.max_steps, self.device, self.peak = recipe.max_steps, device, peak_flops(device, dtype)
        self.skipped = skipped
        self.not_finite: tuple[int, list[str]] | None = None
        self._flops = cache(lambda size, patch_drop: learner.training_flops(size, keep_tokens=1 - patch_drop))
        self._restart()

    def _restart(self) -> None:
        self.losses, self.norms, self.names, self.waited, self.since = [], [], [], 0.0, time.perf_counter()
        self.images, self.flops, self.labels, self.left_out, self.rows = 0, 0.0, 0, 0, 0
        self._names, self._skipped = [], []  # of the step under way

    def counted(self, batches: Generator[Batch]) -> Generator[Batch]:
        """The batches, each counted as it passes, with the time that was spent waiting for it."""
        with closing(batches):
            while True:
                before = time.perf_counter()
                batch = next(batches, None)
                self.waited += time.perf_counter() - before
                if batch is None:
                    return
                self.labels += len(batch.indices)
                self.left_out += len(batch.skipped)
                self.rows += len(batch)
                self._names += batch.names
                self._skipped += batch.skipped
                yield batch

    def add(self, loss: torch.Tensor, norm: torch.Tensor, images: int, size: int, patch_drop: float) -> tuple[list, list]:
        """Close a step: this process's loss; of all, the gradient's norm, images, their size, the patches left out.

        Returns what this process saw in it: names of the samples; names and reasons of those it had to skip.
        """
        self.losses.append(loss)
        self.norms.append(norm)
        self.images += images
        self.flops += images * self._flops(size, patch_drop)
        seen = self._names, self._skipped
        self.names.append(self._names)
        self._names, self._skipped = [], []
        return seen

    def read(self, done: int, lr: float, range_augment: RangeAugment | None = None) -> dict:
        """The line of the log for the steps since the last one; starts anew.

        step: steps done. loss: mean of these steps. lr, grad_norm (before clipping): of the last. images_per_second: over all
        processes. mfu: share of the devices' peak that the network's own arithmetic takes (see `mfu`); None where the peak is
        unknown. data_wait: share of the time spent waiting for batches. labels_per_image: tokens among them, where there are.
        skipped (since the run began), eta_seconds, and the ranges of RangeAugment.
        """
        where = exact_device(self.device)
        mine, norms = torch.stack(self.losses).to(where).double(), torch.stack(self.norms).cpu()
        numbers = torch.tensor([self.labels, self.left_out, self.rows, self.waited], dtype=torch.float64, device=where)
        together = parallel.summed_over_processes(torch.cat([mine, numbers])).cpu()  # waits for the device
        seconds, steps = time.perf_counter() - self.since, len(self.losses)
        processes = parallel.world_size()
        losses = together[:steps] / processes
        labels, left_out, rows, waited = together[steps:].tolist()
        self.skipped += int(left_out)
        # A finite loss whose gradient is not finite counts too: the weights after it are lost.
        bad = (~(losses.isfinite() & norms.isfinite())).nonzero().flatten().tolist()
        if bad:
            of_others = mine[bad[0]].isfinite() and not losses[bad[0]].isfinite()
            self.not_finite = done - steps + bad[0] + 1, [] if of_others else self.names[bad[0]]
        rate = self.images / seconds
        entry = {
            "step": done, "loss": losses.mean().item(), "lr": lr, "grad_norm": norms[-1].item(), "images_per_second": rate,
            "mfu": mfu(rate, self.flops / self.images, processes, self.peak), "data_wait": waited / processes / seconds,
            "labels_per_image": labels / rows, "skipped": self.skipped,
            "eta_seconds": (self.max_steps - done) * seconds / steps,
        }  # fmt: skip
        for name, (low, high) in range_augment.ranges().items() if range_augment is not None else ():
            entry |= {f"{name}_low": low, f"{name}_high": high}
        self._restart()
        return entry


# --- what a run writes while it goes ------------------------------------------------------------------------------------------

LOG = "log.jsonl"


class RunLog:
    """What one process writes of a run that goes on after step `start`, to which the files are cut back first.

    `log.jsonl` and TensorBoard's files in `tensorboard/` (both by the first process), `skipped/rank<r>.jsonl`, and with
    record_samples `samples/rank<r>.jsonl`: a line a step with the names of its samples, in order. folder None: nothing.
    """

    def __init__(self, folder: Path | None, start: int, *, record_samples: bool = False):
        self.folder, self.record_samples, self.board = folder, record_samples, None
        if parallel.is_main() and folder is not None:
            for path in (*folder.glob(LOG), *folder.glob("skipped/*.jsonl"), *folder.glob("samples/*.jsonl")):
                _cut_back(path, start)
            self.board = SummaryWriter(str(folder / "tensorboard"), purge_step=start + 1 if start else None)
        parallel.wait_for_all()

    def close(self) -> None:
        """Have TensorBoard's last lines written."""
        if self.board is not None:
            self.board.close()

    def write(self, entry: dict) -> None:
        """One line of the log, by the first process."""
        if self.board is None:
            return
        self._append(LOG, entry)
        for name, value in entry.items():
            if isinstance(value, (int, float)) and name != "step":
                self.board.add_scalar(f"train/{name}", value, entry["step"])

    def samples(self, step: int, names: list[str], skipped: list[tuple[str, str]]) -> None:
        """What a step saw, if samples are recorded, and which of them it had to leave out, with the reason."""
        if self.record_samples:
            self._append(f"samples/rank{parallel.rank()}.jsonl", {"step": step, "samples": names})
        for name, reason in skipped:
            self._append(f"skipped/rank{parallel.rank()}.jsonl", {"step": step, "sample": name, "reason": reason})

    def _append(self, name: str, line: dict) -> None:
        if self.folder is not None:
            (self.folder / name).parent.mkdir(parents=True, exist_ok=True)
            with open(self.folder / name, "a") as file:
                file.write(json.dumps(line) + "\n")


def _cut_back(path: Path, start: int) -> None:
    """Keep the lines up to the step that training resumes from."""
    kept = []
    for line in path.read_text().splitlines():
        try:
            entry = json.loads(line)
        except json.JSONDecodeError:  # the line that a killed run was writing
            break
        if entry["step"] <= start:
            kept.append(line + "\n")
    path.write_text("".join(kept))
