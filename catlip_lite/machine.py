"""The machine in words, as figures that were measured on it are told."""

from __future__ import annotations

import math
import os
import platform
import re
import shutil
import subprocess
from functools import cache
from pathlib import Path

CPU_QUOTA = Path("/sys/fs/cgroup/cpu.max")  # of a container: microseconds of CPU, or "max", in so many microseconds


def usable_cores() -> int:
    """Cores that this process may use, which in a container may be fewer than the machine has."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota, period = CPU_QUOTA.read_text().split() if CPU_QUOTA.is_file() else ("max", "")
    return cores if quota == "max" else min(cores, math.ceil(int(quota) / int(period)))


@cache
def describe_machine() -> str:
    """The machine in a few words: processor, cores, memory, GPUs."""
    cores = usable_cores()
    parts = [_processor(), f"{cores} core{'s' if cores != 1 else ''}"]
    if hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names:
        parts.append(f"{os.sysconf('SC_PHYS_PAGES') * os.sysconf('SC_PAGE_SIZE') / 2**30:.0f} GB")
    return ", ".join([*parts, *_gpus()])


def _processor() -> str:
    file = Path("/proc/cpuinfo")
    found = re.search(r"^model name\s*:\s*(.+)$", file.read_text() if file.is_file() else "", re.MULTILINE)
    name = found[1] if found else _answer("sysctl", "-n", "machdep.cpu.brand_string") or platform.processor()
    return " ".join(re.sub(r"\((R|TM)\)|CPU|Processor|@.*", " ", name).split()) or platform.machine()


# Who lists GPUs (of NVIDIA, AMD, a Mac), and where in its answer their names are.
LISTS = {
    ("nvidia-smi", "--query-gpu=name", "--format=csv,noheader"): r"^(.+)$",
    ("rocm-smi", "--showproductname"): r"card series:\s*(.+)$",
    ("system_profiler", "SPDisplaysDataType"): r"chipset model: (.+)$",
}


def _gpus() -> list[str]:
    """GPUs by name, counted, as the systems' own tools list them; none where there is no such tool."""
    found = [re.findall(pattern, _answer(*tool), re.MULTILINE | re.IGNORECASE) for tool, pattern in LISTS.items()]
    names = [" ".join(name.split()) for of_tool in found for name in of_tool]
    return [f"{names.count(name)} x {name}{' GPU' if name.startswith('Apple') else ''}" for name in dict.fromkeys(names)]


def _answer(*command: str) -> str:
    """What a tool prints; nothing where it is lacking, or fails."""
    if not shutil.which(command[0]):
        return ""
    try:
        answer = subprocess.run(command, capture_output=True, text=True, timeout=20)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return answer.stdout.strip() if answer.returncode == 0 else ""
