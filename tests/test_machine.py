"""The machine in words, as its system's own tools tell it."""

from pathlib import Path

import pytest

from catlip_lite import machine
from catlip_lite.machine import describe_machine, usable_cores

NVIDIA = "NVIDIA H100 80GB HBM3\nNVIDIA H100 80GB HBM3\n"
AMD = """
============================ ROCm System Management Interface ============================
GPU[0]		: Card Series: 		AMD Instinct MI300X
GPU[0]		: Card Model: 		0x74a1
GPU[1]		: Card Series: 		AMD Instinct MI300X
GPU[1]		: Card Model: 		0x74a1
"""
APPLE = """Graphics/Displays:

    Apple M2 Pro:

      Chipset Model: Apple M2 Pro
      Type: GPU
      Bus: Built-In
      Total Number of Cores: 19
"""


@pytest.fixture
def tool(tmp_path, monkeypatch):
    """`tool(name, answer, status)`: there is a tool of this name, and no other."""
    monkeypatch.setenv("PATH", str(tmp_path))

    def add(name, answer, status=0):
        lines = f"while read -r line; do echo \"$line\"; done <<'END'\n{answer}\nEND"
        (tmp_path / name).write_text(f"#!/bin/sh\n{lines}\nexit {status}\n")
        (tmp_path / name).chmod(0o755)

    return add


@pytest.mark.parametrize(
    ("name", "answer", "told"),
    [
        ("nvidia-smi", NVIDIA, "2 x NVIDIA H100 80GB HBM3"),
        ("rocm-smi", AMD, "2 x AMD Instinct MI300X"),
        ("system_profiler", APPLE, "1 x Apple M2 Pro GPU"),
    ],
)
def test_gpus_are_named_and_counted_whoever_made_them(tool, name, answer, told):
    tool(name, answer)
    assert describe_machine.__wrapped__().endswith(f" GB, {told}")


def test_a_tool_that_fails_names_no_gpu(tool):
    tool("nvidia-smi", "NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver.", status=9)
    assert describe_machine.__wrapped__().endswith(" GB")


def test_a_macs_processor_has_its_chips_name(tool, monkeypatch):
    monkeypatch.setattr(Path, "is_file", lambda path: False)  # there is no /proc
    tool("sysctl", "Apple M2 Pro")
    assert describe_machine.__wrapped__().startswith("Apple M2 Pro, ")


@pytest.mark.parametrize(
    ("quota", "cores"), [("200000 100000", 2), ("150000 100000", 2), ("50000 100000", 1), ("max 100000", 8), (None, 8)]
)
def test_a_containers_share_of_the_cores_is_counted_in_whole_ones(tmp_path, monkeypatch, quota, cores):
    monkeypatch.setattr(machine, "CPU_QUOTA", tmp_path / "cpu.max")
    monkeypatch.setattr(machine.os, "sched_getaffinity", lambda _: range(8), raising=False)
    if quota:
        (tmp_path / "cpu.max").write_text(f"{quota}\n")
    assert usable_cores() == cores
