"""Progress of long work: a bar in JupyterLab, a line every few seconds when a notebook runs headless."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Iterator

LINE_EVERY_SECONDS = 10.0


def is_interactive() -> bool:
    """Whether a person looks at the notebook: Jupyter servers name the session in the kernel's environment."""
    return "JPY_SESSION_NAME" in os.environ


def progress(items: Iterable, title: str, total: int | None = None, unit: str = "it") -> Iterator:
    """The items, one by one, reporting how many are done. `title`: what is being done, in a word or two."""
    total = len(items) if total is None and hasattr(items, "__len__") else total
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
