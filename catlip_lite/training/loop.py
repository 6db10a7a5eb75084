"""The training loop (paper section 3.2): batches of a corpus → a trained ViT, with checkpoints and a log on the way.

One step function, one loop around it, the same for one process and for many. A resumed run needs weights, optimiser, EMA
and its place (steps done, samples taken); the order of the samples and all randomness are functions of that place.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from timm.layers import PatchDropout
from torch import nn

from ..artefacts import atomic_path
from ..data.batches import Batch
from ..data.image_batches import ImageBatches
from ..models.precision import choose_precision, prefer_plain_attention
from .checkpoints import load_latest, save_checkpoint
from .distribution import distribute, gradients_shared, is_main, rank, whole, world_size
from .meter import Meter
from .optimiser import Ema, create_optimisers
from .prefetch import on_device
from .range_augment import RangeAugment, target_mse
from .recipes import Recipe
from .run_log import RunLog
from .steps import Place, StepPlan


@dataclass(frozen=True)
class RunOptions:
    """How a run is carried out: nothing here changes what it computes, but for rounding.

    precision: see `choose_precision`. compile: torch.compile over the learner; None: on GPUs. parallel: see `distribute`.
    activation_checkpointing: compute activations twice and keep fewer. checkpoint_every, log_every, keep_every: steps;
    checkpoint_every None: no checkpoints, as for runs of seconds. also_every: steps after which there is a checkpoint besides,
    where `checkpoint_every` of them take long. keep_last, keep_every: see `save_checkpoint`. record_samples: see `RunLog`.
    """

    device: torch.device
    precision: str = "auto"
    compile: bool | None = None
    parallel: str = "ddp"
    activation_checkpointing: bool = False
    checkpoint_every: int | None = 1000
    also_every: int | None = None
    keep_last: int = 2
    keep_every: int | None = None
    log_every: int = 20
    record_samples: bool = False

    def saves_after(self, done: int) -> bool:
        """Whether a checkpoint is due when so many steps are done, besides the one at the end."""
        return self.checkpoint_every is not None and any(n and done % n == 0 for n in (self.checkpoint_every, self.also_every))


Normalise = tuple[Sequence[float], Sequence[float]]  # mean and std of red, green and blue


class Learner(nn.Module):
    """What a step differentiates: uint8 or 0..1 images and sparse targets -> the loss, a scalar.

    loss: (logits, indices, rows) -> float32 [B]; the weighted sum over images is divided by B. target_mse: scalar tensor,
    RangeAugment's goal, unused without it. normalise: mean and std of each colour, taken off just before the network; None for
    a network that sees 0..1.
    """

    def __init__(
        self,
        network: nn.Module,
        loss: Callable,
        range_augment: RangeAugment | None = None,
        normalise: Normalise | None = None,
    ):
        super().__init__()
        self.network, self.loss, self.range_augment = network, loss, range_augment
        self.normalise = normalise is not None
        for name, values in zip(("mean", "std"), normalise or (), strict=False):  # of the model, not of a checkpoint
            self.register_buffer(name, torch.tensor(values).view(3, 1, 1), persistent=False)

    def forward(self, images, indices, rows, weights, target_mse):
        if not images.is_floating_point():
            images = images.float() / 255
        penalty = 0.0
        if self.range_augment is not None:
            images, penalty = self.range_augment(images, target_mse)
        if self.normalise:
            images = (images - self.mean) / self.std
        # Channels side by side, as cuDNN's tensor-core kernels take them. torch.compile would see to it by itself, but not in
        # a graph of 300 nodes a convolution (12 blocks make over 1,000, the stem three); on a CPU the stem is a sixth faster.
        images = images.contiguous(memory_format=torch.channels_last)
        losses = self.loss(self.network(images), indices, rows)
        return (losses * weights).sum() / len(weights) + penalty


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
        from torch.distributed.checkpoint.state_dict import get_optimizer_state_dict

        moments = get_optimizer_state_dict(self.learner, self.optimisers)["state"]
        return {"learner": self.learner.state_dict(), "optimiser": moments, "ema": self.ema.state}

    def resume(self, folder: Path) -> dict | None:
        """Take in the newest checkpoint; its facts, None if there is none."""
        from torch.distributed.checkpoint.state_dict import get_optimizer_state_dict, set_optimizer_state_dict

        if not any(folder.glob("step_*")):
            return None
        optimiser = get_optimizer_state_dict(self.learner, self.optimisers)
        state = {**self.state(), "optimiser": optimiser["state"]}
        facts = load_latest(folder, state)
        set_optimizer_state_dict(self.learner, self.optimisers, optimiser)
        return facts


def forward(learner: Callable, batch: Batch, target: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """The loss of a micro-batch, computed in dtype where that is safe."""
    with torch.autocast(batch.images.device.type, dtype, enabled=dtype != torch.float32):
        return learner(batch.images, batch.indices, batch.rows, batch.weights, target)


def train_step(
    training: Training,
    batches: Iterable[Batch],
    seeds: Sequence[int],
    target: torch.Tensor,
    lr: float,
    clip: float,
    tell: Callable[[int], None] = lambda done: None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """One optimiser step: forward and backward of each micro-batch, gradients averaged, clipped, applied.

    batches: as many are taken as there are seeds, each when the one before is under way. seeds: of what each micro-batch draws
    on its device. target: RangeAugment's mean squared error. tell: called with the number of micro-batches done. Returns this
    process's mean loss and the norm of the gradient over all processes before clipping (scalars on the device).
    """
    losses = []
    for i, (seed, batch) in enumerate(zip(seeds, batches, strict=False)):
        torch.manual_seed(seed)
        with gradients_shared(training.spread, share=i == len(seeds) - 1):
            loss = forward(training.stepped, batch, target, training.dtype) / len(seeds)
            loss.backward()
        losses.append(loss.detach())
        tell(i + 1)
    norm = nn.utils.clip_grad_norm_(training.learner.parameters(), clip)
    for optimiser in training.optimisers:
        for group in optimiser.param_groups:
            group["lr"] = lr * group.get("lr_scale", 1.0)
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)
    return torch.stack(losses).sum(), whole(norm)


def train(
    network: nn.Module,
    loss: Callable,
    corpus: ImageBatches,
    recipe: Recipe,
    folder: Path | None,
    options: RunOptions,
    *,
    normalise: Normalise | None = None,
    on_log: Callable[[dict], None] = lambda entry: None,
    on_progress: Callable[[int, int, int], None] = lambda step, images, of: None,
) -> dict[str, torch.Tensor]:
    """Train `network` in place up to `recipe.max_steps`, going on from `folder/checkpoints` if there is one.

    Every process calls it with the same arguments, its own device aside. Writes what `RunLog` writes; `on_log` gets each
    line of the log (see `Meter.read`), `on_progress` each micro-batch: the number of its step, how many images of it are done,
    and of how many. folder None: nothing is written, for runs of seconds without checkpoints. corpus: anything with its
    `batches`, `identity` and length. normalise: see `Learner`.
    Returns the averaged weights, a state dict of the network on the CPU; the network has the last ones.
    Raises FloatingPointError when a loss or gradient is not finite: the step and the names of its samples are in
    `folder/not_finite_rank<r>.json`, and every checkpoint is from before it.
    """
    if folder is None and options.checkpoint_every is not None:
        raise ValueError("without a folder there is no place for checkpoints: give one, or checkpoint_every=None")
    with settings_kept(options.device):
        training = start_training(network, loss, recipe, options, normalise)
        facts = training.resume(folder / "checkpoints") if options.checkpoint_every is not None else None
        place = _check_facts(facts, corpus, recipe, folder)
        patch = network.patch_embed.patch_size[0]
        plan = StepPlan(recipe, patch, place, rank(), world_size())
        meter = Meter(network, recipe, options.device, training.dtype, (facts or {}).get("skipped", 0))
        stream = meter.counted(on_device(corpus.batches(plan.specs()), options.device))
        target = torch.zeros((), device=options.device)
        # Closed whatever happens: an error's traceback holds on to the stream, and so to the processes that decode.
        with closing(stream), RunLog(folder, place.step, record_samples=options.record_samples) as log:
            for step in range(place.step, recipe.max_steps):
                set_patch_drop(network, recipe.patch_drop_at(step))
                lr = recipe.lr_at(step)
                target.fill_(target_mse(step, recipe.max_steps))
                seeds = [plan.seed_of(step, i) for i in range(plan.share(step))]
                tell = partial(_tell_progress, on_progress, plan, step)
                value, norm = train_step(training, stream, seeds, target, lr, recipe.clip, tell)
                training.ema.update(step)
                done, place = step + 1, plan.place_after(step)
                log.samples(done, *meter.add(value, norm, plan.images(step), plan.scale(step).size, recipe.patch_drop_at(step)))

                last = done == recipe.max_steps
                save = options.saves_after(done) or (last and options.checkpoint_every is not None)
                if save or last or done % options.log_every == 0:
                    entry = meter.read(done, lr, training.learner.range_augment)
                    entry["samples_seen"] = place.position
                    _stop_if_not_finite(meter, folder, recipe)
                    log.write(entry)
                    on_log(entry)
                if save:
                    facts = {"position": place.position, "skipped": meter.skipped, "recipe": recipe.identity()}
                    facts["micro_batch"] = recipe.micro_batch
                    kept = {"keep_last": options.keep_last, "keep_every": options.keep_every}
                    save_checkpoint(folder / "checkpoints", done, training.state(), facts | corpus.identity(), **kept)
        return {name: whole(value).cpu() for name, value in training.ema.state.items()}


def _tell_progress(on_progress: Callable[[int, int, int], None], plan: StepPlan, step: int, done: int) -> None:
    """In images of all processes, as if the others were as far."""
    of = plan.images(step)
    on_progress(step + 1, of * done // plan.share(step), of)


@contextmanager
def settings_kept(device: torch.device) -> Iterator[None]:
    """Random states and the precision of float32 products are afterwards what they were."""
    precision = torch.get_float32_matmul_precision()
    try:
        with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
            yield
    finally:
        torch.set_float32_matmul_precision(precision)


def create_learner(
    network: nn.Module, loss: Callable, recipe: Recipe, options: RunOptions, normalise: Normalise | None = None
) -> tuple[Learner, torch.dtype]:
    """A network on its device with all that a forward pass needs, and the precision it computes in."""
    dtype = choose_precision(options.device, options.precision)
    if options.device.type == "cpu" and dtype == torch.bfloat16:
        prefer_plain_attention(network)
    if options.device.type == "cuda":
        torch.cuda.set_device(options.device)
        torch.set_float32_matmul_precision("high")  # TF32, where a product is not in bf16 anyway
    if recipe.patch_drop:
        network.patch_drop = PatchDropout(recipe.patch_drop, num_prefix_tokens=network.num_prefix_tokens)
    learner = Learner(network, loss, RangeAugment() if recipe.range_augment else None, normalise)
    return learner.to(options.device).train(), dtype


def start_training(
    network: nn.Module, loss: Callable, recipe: Recipe, options: RunOptions, normalise: Normalise | None = None
) -> Training:
    """Put a network on its device, ready for its first step."""
    learner, dtype = create_learner(network, loss, recipe, options, normalise)
    network.set_grad_checkpointing(options.activation_checkpointing)
    spread = distribute(learner, network.blocks, options.parallel, options.device)
    of_groups = {"decay_embeddings": recipe.decay_embeddings, "layer_decay": recipe.layer_decay}
    optimisers = create_optimisers(learner, recipe.weight_decay, recipe.optimiser, dtype=dtype, **of_groups)
    ema = Ema(network, recipe.ema_momentum)
    use_compile = options.device.type == "cuda" if options.compile is None else options.compile
    stepped = compile_learner(spread, learner, options.parallel) if use_compile else spread
    return Training(learner, spread, stepped, optimisers, ema, dtype)


def compile_learner(spread: nn.Module, learner: Learner, parallel: str) -> Callable:
    """torch.compile over forward and backward of a step; under FSDP of its parts, as each block is gathered on its own.

    Shapes are taken as they come, one graph each (13 for the paper's multi-scale, see `scales` for fewer), but for the number
    of labels, which differs from batch to batch.
    """
    torch._dynamo.config.recompile_limit = max(64, torch._dynamo.config.recompile_limit)
    if world_size() > 1 and parallel == "fsdp":
        parts = [learner.network.patch_embed, *learner.network.blocks]
        for part in parts if learner.range_augment is None else [learner.range_augment, *parts]:
            part.compile(dynamic=False)
        return spread
    # Else DDP has the graph cut where a bucket of gradients is full, in seventeen for ViT-B, to send them a little sooner.
    torch._dynamo.config.optimize_ddp = False
    compiled = torch.compile(spread, dynamic=False)

    def marked(images, indices, rows, weights, target):
        for labels in (indices, rows):
            torch._dynamo.mark_dynamic(labels, 0)
        return compiled(images, indices, rows, weights, target)

    return marked


def set_patch_drop(network: nn.Module, share: float) -> None:
    """Have a network made for patch dropout leave out this share of the patches."""
    if isinstance(network.patch_drop, PatchDropout) and network.patch_drop.prob != share:
        network.patch_drop.prob = share


def _check_facts(facts: dict | None, corpus: ImageBatches, recipe: Recipe, folder: Path) -> Place:
    """Where to go on. Raises ValueError if the checkpoint is of another run."""
    if facts is None:
        return Place()
    changed = {k: (facts["recipe"].get(k), v) for k, v in recipe.identity().items() if facts["recipe"].get(k) != v}
    if changed:
        told = ", ".join(f"{k} was {old}, is {new}" for k, (old, new) in changed.items())
        raise ValueError(f"{folder} holds a run with another recipe ({told}): choose another `run`, or delete the folder")
    for name, here in corpus.identity().items():
        if facts[name] != here:
            raise ValueError(
                f"{folder} holds a run over other data or in another order ({name} was {facts[name]}, is {here}): "
                "give the data it began with, or choose another `run`"
            )
    if is_main():
        print(f"resuming after step {facts['step']:,} of {recipe.max_steps:,}", flush=True)
        before = facts.get("micro_batch", recipe.micro_batch)
        if before != recipe.micro_batch:
            told = f"micro_batch is {recipe.micro_batch} from here on, it was {before}"
            print(f"{told}: the stem's batch norms average over as many images", flush=True)
    return Place(facts["step"], facts["position"])


def _stop_if_not_finite(meter: Meter, folder: Path | None, recipe: Recipe) -> None:
    """Keep what led there, then raise."""
    if meter.not_finite is None:
        return
    step, names = meter.not_finite
    if folder is None:
        raise FloatingPointError(f"the loss or its gradient is not finite at step {step}: lower lr ({recipe.lr})")
    if names:
        with atomic_path(folder / f"not_finite_rank{rank()}.json") as staging:
            staging.write_text(json.dumps({"step": step, "samples": names}, indent=1))
    raise FloatingPointError(
        f"the loss or its gradient is not finite at step {step}: its samples are named in {folder}/not_finite_rank*.json, the "
        f"checkpoints before it are intact; lower lr ({recipe.lr}) or clip ({recipe.clip}), or leave these samples out"
    )
