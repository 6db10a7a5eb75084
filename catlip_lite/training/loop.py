"""The training loop (paper section 3.2): batches of a corpus → a trained ViT, with checkpoints and a log on the way.

One function, one step inside it. State that a resumed run needs: weights, optimiser, EMA, step; the order of the samples
and all randomness are functions of (seed, step).
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import nn

from ..data.corpus import Batch, Corpus
from ..models.precision import choose_precision, prefer_plain_attention
from .checkpoints import load_latest, save_checkpoint
from .losses import bce
from .optimiser import Ema, create_adamw, learning_rate
from .recipes import Recipe


def train_step(
    model: nn.Module, optimiser: torch.optim.Optimizer, batches: Sequence[Batch], lr: float, clip: float, dtype: torch.dtype
) -> tuple[torch.Tensor, torch.Tensor]:
    """One optimiser step: forward and backward of each micro-batch, gradients averaged, clipped, applied.

    Returns the mean loss and the gradient norm before clipping (scalars on the device).
    """
    total = 0.0
    for batch in batches:
        with torch.autocast(batch.images.device.type, dtype, enabled=dtype != torch.float32):
            logits = model(batch.images)
        loss = bce(logits, batch.indices, batch.rows) / len(batches)
        loss.backward()
        total = total + loss.detach()
    norm = nn.utils.clip_grad_norm_(model.parameters(), clip)
    for group in optimiser.param_groups:
        group["lr"] = lr
    optimiser.step()
    optimiser.zero_grad(set_to_none=True)
    return total, norm


def train(
    model: nn.Module,
    corpus: Corpus,
    recipe: Recipe,
    folder: Path,
    *,
    device: torch.device,
    precision: str = "auto",
    checkpoint_every: int = 1000,
    log_every: int = 20,
    on_log: Callable[[dict], None] = lambda entry: None,
) -> dict[str, torch.Tensor]:
    """Train `model` in place up to `recipe.max_steps`, resuming from `folder/checkpoints` if there is a checkpoint.

    Writes `folder/log.jsonl`, a line every `log_every` steps, which `on_log` gets too: step, loss (mean since the last
    line), lr, grad_norm, images_per_second, data_wait (share of the time spent waiting for batches), eta_seconds.
    Returns the state dict of the EMA. Raises FloatingPointError at the first line whose loss is not finite; the checkpoint
    before it stays.
    """
    dtype = choose_precision(device, precision)
    if device.type == "cpu" and dtype == torch.bfloat16:
        prefer_plain_attention(model)
    model.to(device).train()
    optimiser = create_adamw(model, recipe.weight_decay)
    ema = Ema(model, recipe.ema_momentum)
    start = _resume(folder, model, optimiser, ema, recipe)
    stream = iter(corpus.batches(start * recipe.accumulate, recipe.max_steps * recipe.accumulate, recipe.micro_batch))
    meter = _Meter(recipe)
    with _open_log(folder / "log.jsonl", start) as log:
        for step in range(start, recipe.max_steps):
            with meter.waiting():
                batches = [next(stream).to(device) for _ in range(recipe.accumulate)]
            lr = learning_rate(
                step, max_steps=recipe.max_steps, warmup_steps=recipe.warmup_steps, lr=recipe.lr, min_lr=recipe.min_lr
            )
            loss, norm = train_step(model, optimiser, batches, lr, recipe.clip, dtype)
            ema.update(model, step)
            meter.losses.append(loss)

            done = step + 1
            if done % log_every == 0 or done == recipe.max_steps:
                entry = meter.read(done, lr, norm)
                if not math.isfinite(entry["loss"]):
                    raise FloatingPointError(
                        f"the loss became {entry['loss']} at step {done}: lower lr ({recipe.lr}); the last checkpoint is intact"
                    )
                log.write(json.dumps(entry) + "\n")
                log.flush()
                on_log(entry)
            if done % checkpoint_every == 0 or done == recipe.max_steps:
                state = {"model": model.state_dict(), "optimiser": optimiser.state_dict(), "ema": ema.state}
                save_checkpoint(folder / "checkpoints", done, {**state, "recipe": recipe.as_dict()})
    return ema.state


class _Meter:
    """Losses, waiting and time since the last reading; losses stay on the device until they are read."""

    def __init__(self, recipe: Recipe):
        self.recipe = recipe
        self._restart()

    def _restart(self) -> None:
        self.losses, self.waited, self.since = [], 0.0, time.perf_counter()

    @contextmanager
    def waiting(self):
        """Counts the time within as waiting for data."""
        before = time.perf_counter()
        yield
        self.waited += time.perf_counter() - before

    def read(self, done: int, lr: float, norm: torch.Tensor) -> dict:
        """The line of the log for the steps since the last one; starts anew."""
        loss, norm = torch.stack(self.losses).mean().item(), norm.item()  # waits for the device
        seconds, steps = time.perf_counter() - self.since, len(self.losses)
        entry = {
            "step": done,
            "loss": loss,
            "lr": lr,
            "grad_norm": norm,
            "images_per_second": steps * self.recipe.batch_size / seconds,
            "data_wait": self.waited / seconds,
            "eta_seconds": (self.recipe.max_steps - done) * seconds / steps,
        }
        self._restart()
        return entry


def _resume(folder: Path, model: nn.Module, optimiser: torch.optim.Optimizer, ema: Ema, recipe: Recipe) -> int:
    """Load the newest checkpoint, if there is one, into all three; returns the number of steps done."""
    state = load_latest(folder / "checkpoints")
    if state is None:
        return 0
    there, here = len(state["model"]["head.bias"]), len(model.head.bias)
    if there != here:
        raise ValueError(
            f"{folder} holds a run with {there:,} classes, the vocabulary has {here:,}: pass the vocabulary it was trained with"
        )
    changed = {k: (v, recipe.as_dict()[k]) for k, v in state["recipe"].items() if recipe.as_dict().get(k) != v}
    if changed:
        told = ", ".join(f"{k} was {old}, is {new}" for k, (old, new) in changed.items())
        raise ValueError(f"{folder} holds a run with another recipe ({told}): choose another `run`, or delete the folder")
    model.load_state_dict(state["model"])
    optimiser.load_state_dict(state["optimiser"])
    for name, value in state["ema"].items():
        ema.state[name].copy_(value)
    print(f"resuming after step {state['step']:,} of {recipe.max_steps:,}", flush=True)
    return state["step"]


def _open_log(path: Path, start: int):
    """The log to append to, cut back to the checkpoint that training resumes from."""
    kept = []
    if start and path.exists():
        for line in path.read_text().splitlines():
            try:
                entry = json.loads(line)
            except json.JSONDecodeError:  # the line that a killed run was writing
                break
            if entry["step"] <= start:
                kept.append(line + "\n")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(kept))
    return open(path, "a")
