"""What another program at work costs a training: `make bench-busy`, or `python -m catlip_lite.tasks.bench_busy`.

Steps of the demo's training on the threads it would have, alone and beside as many computing processes as are asked for; once
with the spinning that `catlip_lite` sets and once with what OpenMP does by itself.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from contextlib import ExitStack

import pandas as pd

from .. import THREADS_WAIT
from ..machine import describe_machine

STEPS, BATCH, CLASSES = 60, 64, 1552
COMPUTE = "while True: sum(range(10**6))"
TRAIN = f"""
import statistics, time
import catlip_lite
import torch
from .bench_train import Arm, Bench, make_step
cpu = torch.device("cpu")
step, _ = make_step(Arm("", range_augment=False), Bench("vit_nano8", {CLASSES}, 32, {BATCH}, cpu, "auto", 1, 1))
seconds = []
for i in range({STEPS} + 5):
    before = time.perf_counter()
    step(i)
    seconds.append(time.perf_counter() - before)
print({BATCH} / statistics.mean(seconds[5:]))
"""


def images_per_second(others: int, settings: dict[str, str]) -> float:
    """Of a training in a process of its own, with these variables in its environment, beside so many that compute."""
    environment = {name: value for name, value in os.environ.items() if name not in THREADS_WAIT} | settings
    with ExitStack() as stack:
        for _ in range(others):
            other = stack.enter_context(subprocess.Popen([sys.executable, "-c", COMPUTE]))
            stack.callback(other.kill)
        done = subprocess.run([sys.executable, "-c", TRAIN], env=environment, capture_output=True, text=True, check=True)
    return float(done.stdout.split()[-1])


def main(arguments: list[str] | None = None) -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(prog="python -m catlip_lite.tasks.bench_busy", description=main.__doc__)
    parser.add_argument("--others", type=int, default=1, help="computing processes beside it (default: %(default)s)")
    parser.add_argument("--repeats", type=int, default=3, help="the median of so many is told (default: %(default)s)")
    parser.add_argument("--spin", help="also measure GOMP_SPINCOUNT at these numbers, commas between them")
    given = parser.parse_args(arguments)
    ways = {"as catlip_lite sets it": {}, "OpenMP's own": dict.fromkeys(THREADS_WAIT, "")}
    ways |= {f"GOMP_SPINCOUNT={n}": {"GOMP_SPINCOUNT": n} for n in (given.spin or "").split(",") if n}
    print(describe_machine())
    rows = []
    for name, settings in ways.items():
        runs = [(images_per_second(0, settings), images_per_second(given.others, settings)) for _ in range(given.repeats)]
        alone, busy = pd.DataFrame(runs).median()
        rows.append({"threads wait": name, "alone, images/s": alone, "busy, images/s": busy, "busy / alone": busy / alone})
    print(pd.DataFrame(rows).round(2).to_string(index=False))


if __name__ == "__main__":
    main()
