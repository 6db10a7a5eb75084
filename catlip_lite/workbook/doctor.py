"""What is here, what runs in how long and what is missing, in some ten lines: `make doctor`, before set-up and after.

Any Python from 3.11 on runs it in a bare clone: what is not of the standard library is imported where it is needed.
"""

from __future__ import annotations

import importlib.metadata
import os
import platform
import shutil
import sys
import time
from collections.abc import Iterator
from importlib.util import find_spec
from typing import Any

from ..cache import cache_folder
from ..machine import describe_machine, usable_cores

SET_UP_GB = {"download": 4, "disk": 8}  # of PyTorch with its CUDA libraries and the rest
LEAST_FREE_GB = 3  # for the demo's outputs and what is kept for the next run
# The README's machine, two cores of an AMD EPYC without AMX: what `demo_rate` gives there (chapter 08), and how long `make run`
# takes. What is no training (start-up, captions, figures) does not get faster with the step.
KNOWN_RATE, KNOWN_MINUTES, NO_TRAINING = 687, 12, 2  # images/s, minutes, minutes of these


def main() -> int:
    """Print the report; 1 where nothing can run."""
    if platform.system() == "Windows":
        print(
            "error: not for Windows itself: `wsl --install` in PowerShell, then clone and `make` in its Linux", file=sys.stderr
        )
        return 1
    lines = after_set_up() if find_spec("torch") else before_set_up()
    for name, told in lines:
        print(f"{name:<10} {told}", flush=True)
    return 0


def before_set_up() -> Iterator[tuple[str, str]]:
    """Names and texts of what `make` will do."""
    yield "Python", f"{platform.python_version()} ({sys.executable})"
    yield "machine", describe_machine()
    uv = shutil.which("uv")
    how = "uv, the versions in uv.lock" if uv else "pip, the newest versions (uv on PATH takes less than half as long)"
    yield "set-up", f"not done: `make run` begins with it, in .venv by {how}"
    yield "needs", f"up to {SET_UP_GB['download']} GB to download, {SET_UP_GB['disk']} GB on disk"
    yield "disk", f"{free_gb():.0f} GB free here"
    yield "make run", f"{KNOWN_MINUTES} minutes on two cores of an AMD EPYC; after set-up `make doctor` measures this machine"
    yield "missing", "; ".join(missing_tools(SET_UP_GB["disk"], makes_venv=not uv)) or "nothing"


def after_set_up() -> Iterator[tuple[str, str]]:
    """Names and texts of what is installed, and how fast it is."""
    import torch

    from ..models.precision import choose_device, choose_precision

    device = choose_device()
    yield "Python", f"{platform.python_version()} ({sys.executable})"
    yield "machine", describe_machine()
    yield "PyTorch", f"{torch.__version__} computes on {device} in {str(choose_precision(device)).removeprefix('torch.')}"
    yield "disk", f"{free_gb():.0f} GB free here"
    yield "cache", cache_place()
    extras = missing_packages()
    yield "extras", advice(extras) if extras else "all there"
    if not {"", "train"} & extras.keys():
        yield "make run", in_minutes(demo_rate())
    yield "missing", "; ".join(missing_tools(LEAST_FREE_GB, device=device.type)) or "nothing"


def free_gb() -> float:
    """GB free where the working directory is."""
    return shutil.disk_usage(".").free / 1e9


def cache_place() -> str:
    """Where downloads and decoded images stay between runs, or why they cannot."""
    try:
        return f"{cache_folder()} (CATLIP_CACHE names another place)"
    except OSError as error:
        return str(error)


def missing_packages() -> dict[str, list[str]]:
    """By extra ("": the core) what pyproject.toml asks for on this machine and is not installed, or not in that version."""
    from packaging.requirements import Requirement

    distribution, missing = importlib.metadata.distribution("catlip-lite"), {}
    requirements = [Requirement(line) for line in distribution.requires or ()]
    for extra in ("", *(distribution.metadata.get_all("Provides-Extra") or ())):
        for wanted in requirements:
            of_extra = wanted.marker.evaluate({"extra": extra}) if wanted.marker else not extra
            if of_extra and wanted.name != "catlip-lite" and not is_installed(wanted):
                missing.setdefault(extra, []).append(wanted.name)
    return missing


def is_installed(wanted: Any) -> bool:
    """Whether a packaging.requirements.Requirement is met, its own extras aside."""
    try:
        return wanted.specifier.contains(importlib.metadata.version(wanted.name), prereleases=True)
    except importlib.metadata.PackageNotFoundError:
        return False


def advice(missing: dict[str, list[str]]) -> str:
    """What `missing_packages` found, and the line that brings it."""
    told = "; ".join(f"{extra or 'the core'} lacks {', '.join(names)}" for extra, names in missing.items())
    wanted = ",".join(filter(None, missing))
    pip = f"{sys.executable} -m pip install" if find_spec("pip") else f"uv pip install --python {sys.executable}"
    return f"{told}: {pip} -e '.{f'[{wanted}]' if wanted else ''}'"


def missing_tools(least_gb: float, *, makes_venv: bool = False, device: str = "") -> list[str]:
    """What is not here and will be wanted, each with what to do. device: what PyTorch computes on, if it is here."""
    gpu, unseen = device == "cuda", device == "cpu" and " x " in describe_machine()
    lacking = {
        "make: apt install make, or on macOS xcode-select --install": not shutil.which("make"),
        "Python's venv: apt install python3-venv": makes_venv and not find_spec("ensurepip"),
        "a C compiler, for torch.compile: apt install gcc": gpu and not (shutil.which("cc") or shutil.which("gcc")),
        "a driver by which PyTorch sees the GPU: it may be older than PyTorch's CUDA": unseen,
        f"{least_gb} GB of free disk: make room, or move this folder": free_gb() < least_gb,
    }
    return [told for told, lacks in lacking.items() if lacks]


def in_minutes(rate: float) -> str:
    """How long the demo takes where its ViT trains at `rate` images/s, and what that is judged by."""
    minutes = NO_TRAINING + (KNOWN_MINUTES - NO_TRAINING) * KNOWN_RATE / rate
    known = f"two cores of an AMD EPYC: {KNOWN_RATE}, {KNOWN_MINUTES} minutes"
    told = f"about {minutes:.0f} minutes, by {rate:,.0f} images/s of the demo's ViT ({known})"
    load = os.getloadavg()[0]
    return f"{told}; other programs are at work (load {load:.0f})" if load > usable_cores() else told


def demo_rate(seconds: float = 3.0) -> float:
    """Images/s of training steps of the demo's ViT, as chapter 08 times them beside other programs: AdamW, 64 images a step."""
    import torch

    from ..data.loader import Batch
    from ..models import create_vit
    from ..training.loop import RunOptions, start_training, train_step
    from ..training.losses import create_loss
    from ..training.recipes import recipe_for

    images, rows = torch.randint(0, 256, (64, 3, 32, 32), dtype=torch.uint8), torch.arange(64)
    training = start_training(
        create_vit("vit_nano8", 1552, 32),
        create_loss("bce"),
        recipe_for("vit_nano8", optimiser="adamw"),
        RunOptions(compile=False),
    )
    device = next(training.learner.parameters()).device
    batch = Batch(images, rows * 20, rows, torch.ones(64), [], []).to(device)
    target = torch.zeros((), device=device)
    steps, started = -2, time.perf_counter()
    while steps < 1 or time.perf_counter() < started + seconds:
        loss, _ = train_step(training, [batch], [0], target, 1e-3, 1.0)
        loss.item()  # waits for a GPU
        steps += 1
        if steps == 0:  # the first ones warm up
            started = time.perf_counter()
    return 64 * steps / (time.perf_counter() - started)


if __name__ == "__main__":
    sys.exit(main())
