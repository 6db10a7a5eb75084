"""How long a linear probe takes, and what it reaches: `make bench-probe`, or `python -m catlip_lite.tasks.bench_probe`.

By default on synthetic features, Gaussian classes of which the best possible accuracy is known; with the path of a cached
extraction (a folder in `outputs/<run>/features/`) and a file of its class indices, on that.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors.numpy import load_file

from ..models.heads import Head, random_head
from ..transfer.heads import HeadRecipe, train_head
from ..transfer.linear_probe import Examples, Fit, logistic_probe, ridge_probe
from ..transfer.neighbours import nearest, neighbour_scores
from .scoring import top_k_hits

SIGNAL = 256  # dimensions in which the classes differ
SPREAD = 0.35  # standard deviation of the class centres there, that of the images being 1


@dataclass(frozen=True)
class Benchmark:
    """Features to probe: to train on, to choose by, to test on. best: the accuracy that no classifier beats, if known."""

    train: Examples
    validation: Examples
    test: Examples
    classes: int
    best: float | None = None


def synthetic_features(images: int, classes: int, width: int, seed: int = 0) -> Benchmark:
    """So many training and validation images, a fifth of them validation, and as many again as a fifth to test on.

    Each class is a Gaussian of its own mean and the common covariance, whose spectrum falls as one over the square root of the
    rank; so the nearest class mean, in the metric of that covariance, is the best answer there is.
    """
    rng = np.random.default_rng(seed)
    fifth = max(1, images // 5)
    centres = np.zeros((classes, width), np.float32)
    signal = min(SIGNAL, width)
    centres[:, :signal] = SPREAD * (SIGNAL / signal) ** 0.5 * rng.normal(size=(classes, signal))
    mix = (rng.normal(size=(width, width)) / np.sqrt(np.arange(1, width + 1))[:, None]).astype(np.float32)
    targets = rng.permutation(np.arange(images + fifth) % classes)
    white = centres[targets] + rng.standard_normal((len(targets), width), dtype=np.float32)
    last = white[images:]
    answers = (last @ centres.T - 0.5 * np.square(centres).sum(1)).argmax(1)
    return _split(white @ mix, targets, images - fifth, images, classes, float((answers == targets[images:]).mean()))


def stored_features(folder: Path, targets: Path, seed: int = 0) -> Benchmark:
    """A cached extraction: folder of .safetensors parts, and a .npy with the class index of each image of the data set.

    A fifth validates, a fifth tests, at random. Raises ValueError if the two do not fit.
    """
    files = sorted(folder.glob("*.safetensors"), key=lambda path: int(path.stem.split("-")[0])) if folder.is_dir() else [folder]
    parts = [load_file(path) for path in files]
    if not parts:
        raise ValueError(f"{folder} holds no .safetensors files: give a folder of outputs/<run>/features/")
    features, rows = (np.concatenate([part[name] for part in parts]) for name in ("features", "rows"))
    labels = np.load(targets)
    if rows.max() >= len(labels):
        raise ValueError(
            f"{targets} has {len(labels):,} class indices, but {folder} has image {rows.max():,}: give those of it"
        )
    order = np.random.default_rng(seed).permutation(len(rows))
    fifth = len(rows) // 5
    found = labels[rows][order].astype(np.int64)
    return _split(features[order], found, len(rows) - 2 * fifth, len(rows) - fifth, int(labels.max()) + 1)


def _split(features, targets, train: int, both: int, classes: int, best: float | None = None) -> Benchmark:
    ends = (slice(0, train), slice(train, both), slice(both, None))
    return Benchmark(*(Examples(features[end], targets[end]) for end in ends), classes, best)


# --- the methods: each prints a line ------------------------------------------------------------------------------------------


def ridge(data: Benchmark, device: str) -> Fit:
    """Closed form."""
    return ridge_probe(data.train, data.validation, data.classes, device=device)


def logistic(data: Benchmark, device: str) -> Fit:
    """L-BFGS along the path of penalties, and the final fit."""
    return logistic_probe(data.train, data.validation, data.classes, device=device)


def adamw(data: Benchmark, device: str) -> Fit:
    """The paper's recipe at one learning rate, 3e-4, on training images alone: a fifth of what notebook 05 does."""
    started = time.perf_counter()
    mean, std = data.train.features.mean(0), data.train.features.std(0) + 1e-6
    start = random_head(data.classes, len(mean), seed=0)
    standardised = (data.train.features - mean) / std
    found = train_head(start, standardised, data.train.targets, HeadRecipe(lr=3e-4), device=device)
    weight = found.weight / torch.from_numpy(std)
    head = Head(weight, found.bias - weight @ torch.from_numpy(mean))
    steps = HeadRecipe().epochs * -(-len(data.train) // HeadRecipe().batch_size)
    reached = {3e-4: top_1(head, data.validation)}
    return Fit(head, head, 3e-4, reached, (steps, 0), time.perf_counter() - started)


METHODS = {"ridge": ridge, "logistic": logistic, "adamw": adamw}


def top_1(head: Head, part: Examples) -> float:
    """Of a classifier on some images."""
    return top_k_hits(head.scores(part.features), part.targets)[1]


def line(name: str, fit: Fit, data: Benchmark) -> str:
    """One method's row of the table."""
    looks = " + ".join(map(str, fit.iterations))
    reached = f"{fit.top1[fit.penalty]:>10.2%}  {top_1(fit.head, data.test):>7.2%}"
    return f"{name:<10} {fit.seconds:>8.1f} s  {looks:>10}  {fit.penalty:>8.2g}  {reached}"


def neighbours_line(data: Benchmark, device: str, k: int = 10) -> str:
    """k nearest neighbours' row of the table."""
    started = time.perf_counter()
    hits = []
    for part in (data.validation, data.test):
        cosines, rows = nearest(data.train.features, part.features, 128, device)
        hits.append(top_k_hits(neighbour_scores(cosines, data.train.targets[rows], k, data.classes), part.targets)[1])
    return f"{'k-NN':<10} {time.perf_counter() - started:>8.1f} s  {'':>10}  {k:>8}  {hits[0]:>10.2%}  {hits[1]:>7.2%}"


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(prog="python -m catlip_lite.tasks.bench_probe", description=__doc__.splitlines()[0])
    parser.add_argument("features", type=Path, nargs="?", help="cached extraction; without it, synthetic features")
    parser.add_argument("--targets", type=Path, help=".npy with the class index of each image of the extraction's data set")
    parser.add_argument("--images", type=int, default=50_000, help="synthetic images to train on and to choose by")
    parser.add_argument("--classes", type=int, default=1_000)
    parser.add_argument("--width", type=int, default=768, help="features an image")
    parser.add_argument("--methods", nargs="+", choices=[*METHODS, "knn"], default=["ridge", "logistic", "knn"])
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    options = parser.parse_args(arguments)
    if options.features and not options.targets:
        parser.error("give --targets with a cached extraction: it holds no labels")
    if options.features:
        data = stored_features(options.features, options.targets)
    else:
        data = synthetic_features(options.images, options.classes, options.width)
    told = f", no classifier beats {data.best:.2%}" if data.best is not None else ""
    print(
        f"{len(data.train):,} + {len(data.validation):,} features of {data.train.features.shape[1]} numbers, {data.classes:,} "
        f"classes; test {len(data.test):,}{told}; {options.device}, {torch.get_num_threads()} thread(s)"
    )
    print(f"{'method':<10} {'in all':>10}  {'looks':>10}  {'setting':>8}  {'validation':>10}  {'test':>7}", flush=True)
    for name in options.methods:
        if name == "knn":
            print(neighbours_line(data, options.device), flush=True)
        else:
            print(line(name, METHODS[name](data, options.device), data), flush=True)


if __name__ == "__main__":
    main()
