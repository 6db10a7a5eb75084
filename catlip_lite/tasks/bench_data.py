"""How fast the loader turns shards into training batches: `make bench-data`, or `python -m catlip_lite.tasks.bench_data`.

Reads shards with captions, by default synthetic photos that it writes once into the cache folder; prints what each part of the
loader does in a second on one core, what the whole does with 0, 1, 2, ... workers, and how many workers that makes for one GPU.
With --shards-in-table it measures instead what a corpus of so many shards takes of memory.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import io
import itertools
import json
import logging
import math
import multiprocessing
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

import numpy as np
import torch
from PIL import Image

from ..data import images
from ..data.batches import BatchSpec
from ..data.corpus import Corpus
from ..data.image_batches import CHUNK
from ..data.images import AUGMENTATIONS, crop_view
from ..data.sample_order import OrderRule, SampleOrder
from ..data.shard_reader import RawSample, SampleSkipped, ShardReader
from ..data.shard_table import STATS_SUFFIX, ShardTable, open_shards
from ..data.synthetic_photos import synthetic_shards
from ..labels import CaptionLabeler, Vocabulary, count_synsets
from ..labels.vocabulary import CORENET_CLASSES
from ..machine import describe_machine, usable_cores
from ..models.flops import peak_of_name, training_flops
from ..models.vit import MODELS
from ..training.recipes import recipe_for
from ..training.steps import StepPlan

MFU = 0.45  # of a well tuned training step
GPU = "H100"
WARM_UP = 3  # batches: one more than the loader prepares ahead


# --- the parts of the loader, each alone --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Part:
    """A part of the loader in this process: what it did, and in how many seconds of CPU time."""

    name: str
    items: int
    seconds: float

    @property
    def rate(self) -> float:
        """Items a CPU second."""
        return self.items / self.seconds


def read_some(table: ShardTable, count: int, rule: OrderRule) -> tuple[list[RawSample], Part]:
    """Up to `count` samples in the order of training, which opens shards as training does. Raises ValueError for none."""
    reader, found = ShardReader(table), []
    started = time.process_time()
    count = min(count, table.num_samples)
    for shard, row in zip(*(a.tolist() for a in SampleOrder(table.counts, rule).locate(np.arange(count))), strict=True):
        try:
            found.append(reader.read(shard, row))
        except SampleSkipped:
            continue
    part = Part("read a sample from its shard", count, time.process_time() - started)
    reader.close()
    if not found:
        raise ValueError(f"none of the {count:,} samples read has an image and a caption: are these shards of text alone?")
    return found, part


def measure_labels(captions: Sequence[str], labeler: CaptionLabeler, vocabulary: Vocabulary) -> Part:
    """Captions to class indices, as many at a time as a worker has; the words were met before, as most are in training."""
    started = time.process_time()
    for start in range(0, len(captions), CHUNK):
        for wnids in labeler.label(captions[start : start + CHUNK]):
            vocabulary.encode(wnids)
    return Part(f"label a caption, {CHUNK} at a time", len(captions), time.process_time() - started)


def measure_decoding(encoded: Sequence[bytes], size: int, augmentation: str) -> list[Part]:
    """Views straight from encoded images: by simplejpeg, where it is installed, and by Pillow."""
    parts = []
    for name, decoder in (("simplejpeg", images.simplejpeg), ("Pillow", None)):
        if name == "Pillow" or decoder is not None:
            with mock.patch.object(images, "simplejpeg", decoder):
                parts.append(_measure_views(name, encoded, size, augmentation))
    return parts


def _measure_views(decoder: str, encoded: Sequence[bytes], size: int, augmentation: str) -> Part:
    rng, done = np.random.default_rng(0), 0
    started = time.process_time()
    for image in encoded:
        try:
            crop_view(image, size, AUGMENTATIONS[augmentation], rng)
            done += 1
        except ValueError:
            continue
    return Part(f"decode and crop, {decoder}", max(1, done), time.process_time() - started)


# --- the whole ----------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Load:
    """A loader at work: images that came in so many seconds, and CPU seconds of the workers and of the receiving process."""

    workers: int
    multi_scale: str
    images: int
    seconds: float
    worker_seconds: float
    parent_seconds: float

    @property
    def rate(self) -> float:
        """Images a second."""
        return self.images / self.seconds

    @property
    def rate_per_core(self) -> float:
        """Images a second and core that decodes."""
        return self.rate / max(1, self.workers)

    @property
    def rate_per_cpu(self) -> float:
        """Images a CPU second of those who decode, whatever else the machine does meanwhile; where it is not told, a core's."""
        seconds = self.worker_seconds if self.workers else self.parent_seconds
        return self.images / seconds if seconds else self.rate_per_core

    @property
    def cpu_milliseconds(self) -> float:
        """CPU time of all processes an image, whatever else the machine does meanwhile."""
        return 1e3 * (self.worker_seconds + self.parent_seconds) / self.images


def measure_loader(corpus: Corpus, specs: Iterator[BatchSpec], batches: int, multi_scale: str) -> Load:
    """Receive so many batches, for each worker, once the loader runs steadily; then drop it in full flow."""
    flow, received = corpus.batches(specs), 0
    for _ in itertools.islice(flow, WARM_UP):
        pass
    children, parent, started = _children_cpu_seconds(), time.process_time(), time.monotonic()
    for batch in itertools.islice(flow, batches * max(1, corpus.workers)):
        received += len(batch)
    seconds, own = time.monotonic() - started, time.process_time() - parent
    result = Load(corpus.workers, multi_scale, received, seconds, _children_cpu_seconds() - children, own)
    flow.close()
    return result


def _children_cpu_seconds() -> float:
    """CPU time so far of the processes that this one started and that live; 0 where there is no /proc."""
    records = [Path(f"/proc/{child.pid}/stat") for child in multiprocessing.active_children()]
    fields = [record.read_text().rpartition(")")[2].split() for record in records if record.exists()]
    return sum(int(user) + int(system) for *_, user, system in (f[:13] for f in fields)) / os.sysconf("SC_CLK_TCK")


def worker_numbers(cores: int) -> list[int]:
    """0, 1, 2, 4, ... and the cores themselves."""
    return [0, *(2**i for i in range(cores.bit_length()) if 2**i < cores), cores]


def bench_loader(table: ShardTable, labeler: CaptionLabeler, vocabulary: Vocabulary, options) -> list[Load]:
    """Print the table of loaders, a line for each number of workers and kind of multi-scale; give its lines."""
    print(f"\n{'loader':16}{'multi-scale':>12}{'images/s':>10}{'a core':>9}{'CPU ms/image':>14}{'of it, receiving':>18}")
    loads = []
    for kind, workers in itertools.product(("none", "paper"), options.workers):
        recipe = recipe_for(
            "vit_b16",
            image_size=options.image_size,
            batch_size=options.micro_batch,
            micro_batch=options.micro_batch,
            max_steps=WARM_UP + (options.batches + 1) * max(1, workers) + 16,  # more than are taken: it is dropped in full flow
            multi_scale=kind,
            augmentation=options.augmentation,
        )
        lanes = max(1, min(max(1, workers), len(table) // recipe.shuffle_shards))
        rule = OrderRule(recipe.seed, recipe.shuffle_shards, lanes)
        how = AUGMENTATIONS[recipe.augmentation]
        given = {"rule": rule, "cache_gb": 0, "workers": workers}
        corpus = Corpus(table, labeler, vocabulary, recipe.image_size, how, **given)
        load = measure_loader(corpus, StepPlan(recipe, MODELS["vit_b16"].patch).specs(), options.batches, kind)
        name = "in this process" if not workers else f"{workers} worker{'s' * (workers > 1)}"
        receiving = f"{1e3 * load.parent_seconds / load.images:.2f}" if workers else ""
        numbers = f"{load.rate:10,.0f}{load.rate_per_core:9,.0f}{load.cpu_milliseconds:14.2f}{receiving:>18}"
        print(f"{name:16}{kind:>12}{numbers}", flush=True)
        loads.append(load)
    return loads


def print_needs(load: Load, given: float | None) -> None:
    """Print how many workers feed one GPU, calculated from a measured load; given: images/s, instead of those of three ViTs."""
    print(f"\nworkers for one GPU, calculated from {load.rate_per_cpu:,.0f} images a CPU second of {load.workers} workers:")
    peak, of_what = peak_of_name(GPU), f"at {MFU:.0%} of the {GPU}'s dense peak"
    rates = {
        f"{model} at 224 px, {of_what}": MFU * peak / training_flops(model, 224, CORENET_CLASSES)
        for model in ("vit_b16", "vit_l16", "vit_h16")
    }
    for name, rate in ({"as asked for": given} if given else rates).items():
        print(f"  {rate:8,.0f} images/s: {math.ceil(rate / load.rate_per_cpu):4d} workers ({name})")


# --- memory of a long table ---------------------------------------------------------------------------------------------------


def bench_table(address: str, shards: int, windows: int, image_size: int) -> list[float]:
    """Print the memory of a corpus of so many shards, links to a few, as its stream is walked; give MB after each tenth.

    Half of the windows follow each other, as in training, the others lie anywhere in a thousand epochs. Raises ValueError for
    remote shards, which cannot be linked to.
    """
    few = open_shards(address)
    if any("://" in tar for tar in few.addresses):
        raise ValueError(f"{address}: shards on this machine are needed, to make links to")
    sample = read_some(few, CHUNK, OrderRule())[0]
    labeler = CaptionLabeler()
    vocabulary = _vocabulary_of([s.caption for s in sample], labeler)
    with tempfile.TemporaryDirectory(prefix="bench_data") as folder:
        print(
            f"{_megabytes():,.0f} MB before, in a process that has labelled and decoded nothing yet but {len(sample)} captions"
        )
        started = time.monotonic()
        _link(few, Path(folder), shards)
        linked = time.monotonic()
        table = open_shards(folder)
        print(f"{_megabytes():,.0f} MB with a table of {len(table):,} shards, {table.num_samples:,} samples: opened in "
              f"{time.monotonic() - linked:.1f} s (links made in {linked - started:.1f} s)")  # fmt: skip
        corpus = Corpus(table, labeler, vocabulary, image_size, AUGMENTATIONS["paper"], cache_gb=0, workers=0)
        return _walk(corpus, windows, image_size)


def _link(few: ShardTable, folder: Path, shards: int) -> None:
    """Links to a few tars under many names, each with a link to its statistics, as img2dataset leaves them."""
    for i, (tar, count) in enumerate(zip(few.addresses, few.counts.tolist(), strict=True)):
        (folder / "stats").mkdir(exist_ok=True)
        statistics_file = folder / "stats" / f"{i}.json"
        statistics_file.write_text(json.dumps({"successes": count}))
        for number in range(i, shards, len(few)):
            os.symlink(os.path.abspath(tar), folder / f"{number:06d}.tar")
            os.symlink(statistics_file, folder / f"{number:06d}{STATS_SUFFIX}")


def _walk(corpus: Corpus, windows: int, image_size: int) -> list[float]:
    rng, per_window = np.random.default_rng(0), len(corpus) // corpus.order.windows
    anywhere = rng.integers(1000 * len(corpus), size=windows - windows // 2)
    starts = [*(window * per_window for window in range(windows // 2)), *anywhere.tolist()]
    sizes = []
    specs = (BatchSpec(start, 16, 0, 16, image_size) for start in starts)
    for i, _ in enumerate(corpus.batches(specs), 1):
        if i in (1, 2) or i % max(1, windows // 10) == 0:
            sizes.append(_megabytes())
            print(f"{sizes[-1]:,.0f} MB after {i:,} windows, {len(os.listdir('/dev/fd'))} files open", flush=True)
    return sizes


def _megabytes() -> float:
    """MB that this process holds now."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS")) / 1024


# --- all of it ----------------------------------------------------------------------------------------------------------------


def bench(address: str, options) -> None:
    """Print all but the memory of a long table."""
    table = open_shards(address)
    samples, reading = read_some(table, options.samples, OrderRule())
    labeler, captions = CaptionLabeler(), [sample.caption for sample in samples]
    vocabulary = _vocabulary_of(captions, labeler)
    encoded = [sample.image for sample in samples]
    sides = [Image.open(io.BytesIO(image)).size for image in encoded[:100]]
    width, height = (statistics.median(side) for side in zip(*sides, strict=True))
    kilobytes = statistics.mean(map(len, encoded)) / 1000
    print(
        f"{address}: {table.num_samples:,} samples in {len(table):,} shards, images of {kilobytes:.1f} KB on average, ", end=""
    )
    print(f"{width:.0f} x {height:.0f} (median); views of {options.image_size} px, augmentation {options.augmentation!r}")
    print(f"\n{'part, on one core':40}{'a CPU second':>14}{'µs each':>10}")
    parts = measure_decoding(encoded, options.image_size, options.augmentation)
    for part in (*parts, reading, measure_labels(captions, labeler, vocabulary)):
        print(f"{part.name:40}{part.rate:14,.0f}{1e6 / part.rate:10,.1f}", flush=True)
    loads = bench_loader(table, labeler, vocabulary, options)
    print_needs([load for load in loads if load.multi_scale == "none"][-1], options.images_per_second)


def _vocabulary_of(captions: Sequence[str], labeler: CaptionLabeler) -> Vocabulary:
    """All synsets of these captions."""
    return Vocabulary.from_counts(count_synsets(labeler.label(captions)), threshold=0, num_captions=len(captions))


def _machine() -> str:
    def version(package: str) -> str:
        try:
            return f"{package} {importlib.metadata.version(package)}"
        except importlib.metadata.PackageNotFoundError:
            return f"no {package}"

    return f"{describe_machine()}; {', '.join(map(version, ('torch', 'simplejpeg', 'pillow')))}"


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the measurements; gives 0, or 1 with one line that says what to do."""
    parser = argparse.ArgumentParser(prog="make bench-data", description=__doc__.splitlines()[0])
    parser.add_argument("shards", nargs="?", help="tars with images and captions; synthetic photos if not given")
    parser.add_argument(
        "--samples", type=int, default=2048, help="synthetic photos, and samples each part is given (%(default)s)"
    )
    parser.add_argument("--image-size", type=int, default=224, help="side of the views, pixels (%(default)s)")
    parser.add_argument("--augmentation", default="paper", choices=[n for n, how in AUGMENTATIONS.items() if how.only_crops])
    parser.add_argument("--micro-batch", type=int, default=256, help="images a batch (%(default)s)")
    parser.add_argument("--batches", type=int, default=8, help="measured a worker (%(default)s)")
    parser.add_argument("--workers", type=int, nargs="+", default=worker_numbers(usable_cores()), help="(default: %(default)s)")
    parser.add_argument("--images-per-second", type=float, help="that a GPU takes; default: ViTs at 45 %% of an H100's peak")
    parser.add_argument("--shards-in-table", type=int, help="measure the memory of a corpus of so many shards instead")
    parser.add_argument("--windows", type=int, default=1000, help="of that corpus to walk through (%(default)s)")
    options = parser.parse_args(arguments)
    logging.basicConfig(format="%(levelname)s: %(message)s")
    torch.set_num_threads(1)
    print(_machine())
    try:
        address = options.shards or str(synthetic_shards(options.samples))
        if options.shards_in_table:
            bench_table(address, options.shards_in_table, options.windows, options.image_size)
        else:
            bench(address, options)
    except (FileNotFoundError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
