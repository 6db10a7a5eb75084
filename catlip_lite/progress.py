"""Progress of long work: a bar in JupyterLab, a line every few seconds when a notebook runs headless."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Iterator, Sized
from typing import Any

LINE_EVERY_SECONDS = 10.0


def is_interactive() -> bool:
    """Whether a person looks at the notebook: Jupyter servers name the session in the kernel's environment."""
    return "JPY_SESSION_NAME" in os.environ


def duration(seconds: float) -> str:
    """A time as people say it: 8 s, 1 min 20 s, 2 h 5 min, 3.4 days, 40 days."""
    if seconds >= 2 * 86_400:
        return f"{seconds / 86_400:,.{int(seconds < 864_000)}f} days"
    minutes, left = divmod(max(1, round(seconds)), 60)
    parts = [(minutes // 60, "h"), (minutes % 60, "min")] if minutes >= 60 else [(minutes, "min"), (left, "s")]
    return " ".join(f"{count} {unit}" for count, unit in parts if count)


def progress(items: Iterable, title: str, total: int | None = None, unit: str = "it") -> Iterator:
    """The items, one by one, reporting how many are done. `title`: what is being done, in a word or two."""
    total = len(items) if total is None and isinstance(items, Sized) else total
    if is_interactive():
        from tqdm.auto import tqdm

        yield from tqdm(items, desc=title, total=total, unit=unit)
        return
    started = last = time.monotonic()
    done = 0
    for done, item in enumerate(items, start=1):
        yield item
        now = time.monotonic()
        if now - last > LINE_EVERY_SECONDS:
            print(
                f"{title}: {done:,}{f' of {total:,}' if total else ''} {unit}, {done / (now - started):,.1f} {unit}/s",
                flush=True,
            )
            last = now


class TrainingReporter:
    """Shows a training's log as it comes: a bar in JupyterLab, a line every few seconds headless."""

    def __init__(self, max_steps: int, title: str = "pretrain"):
        self.max_steps, self.title = max_steps, title
        self.bar: Any = None  # tqdm's, once there is something to show
        self.last = self.last_log = -LINE_EVERY_SECONDS  # when a line was printed

    def __call__(self, entry: dict) -> None:
        """A line of the log."""
        told = f"loss {entry['loss']:.3f}, {entry['images_per_second']:,.3g} img/s"
        if is_interactive():
            self._show(entry["step"], told)
        elif time.monotonic() - self.last_log >= LINE_EVERY_SECONDS or entry["step"] == self.max_steps:
            self.last = self.last_log = time.monotonic()
            print(f"step {entry['step']:,} of {self.max_steps:,}: {told}, {entry['eta_seconds']:,.0f} s left", flush=True)

    def within(self, step: int, images: int, of: int) -> None:
        """So many images of a step are done."""
        if is_interactive():
            self._show(step if images == of else step - 1, began=step - 1)
        if images == of or time.monotonic() - self.last < LINE_EVERY_SECONDS:
            return
        self.last = time.monotonic()
        told = f"{images:,} of {of:,} images"
        if is_interactive():
            self._show(step - 1, f"step {step:,}: {told}")
        else:
            print(f"step {step:,} of {self.max_steps:,}: {told}", flush=True)

    def _show(self, done: int, told: str | None = None, began: int = 0) -> None:
        """began: the step that a resumed training goes on from; those before it took no time."""
        if self.bar is None:
            from tqdm.auto import tqdm

            self.bar = tqdm(total=self.max_steps, initial=began, desc=self.title, unit="step")
        self.bar.update(done - self.bar.n)
        if told:
            self.bar.set_postfix_str(told)
