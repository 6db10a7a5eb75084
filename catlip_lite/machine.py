"""The machine in words, as figures that were measured on it are told."""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
from functools import cache
from pathlib import Path


def usable_cores() -> int:
    """Cores that this process may use, which in a container may be fewer than the machine has."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@cache
def describe_machine() -> str:
    """The machine in a few words: processor, cores, memory, GPUs."""
    cores = usable_cores()
    parts = [_processor(), f"{cores} core{'s' if cores != 1 else ''}"]
    if hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names:
        parts.append(f"{os.sysconf('SC_PHYS_PAGES') * os.sysconf('SC_PAGE_SIZE') / 2**30:.0f} GB")
    return ", ".join([*parts, *_gpus()])


def _processor() -> str:
    try:
        found = re.search(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    except OSError:
        found = None
    name = found[1] if found else platform.processor() or platform.machine()
    return " ".join(re.sub(r"\((R|TM)\)|CPU|Processor|@.*", " ", name).split()) or platform.machine()


def _gpus() -> list[str]:
    """GPUs by name, counted, as the driver's own tool lists them; none where there is no such tool."""
    if not shutil.which("nvidia-smi"):
        return []
    query = ["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"]
    try:
        answer = subprocess.run(query, capture_output=True, text=True, timeout=20)
    except (OSError, subprocess.TimeoutExpired):
        return []
    names = answer.stdout.split("\n") if answer.returncode == 0 else []
    names = [name.strip() for name in names if name.strip()]
    return [f"{names.count(name)} x {name}" for name in dict.fromkeys(names)]
