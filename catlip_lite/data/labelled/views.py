"""Evaluation views of labelled images: read, decoded and cropped as a model asks for them, by processes if there are many."""

from __future__ import annotations

import logging
import os
from collections.abc import Generator, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from itertools import chain, pairwise, takewhile

import numpy as np
import torch

from ...labels.label_sets import listed
from ..addresses import Address
from ..images import Evaluation, decode
from ..processes import by_processes
from .images import LabelledImages
from .layouts import load_labelled
from .pointers import ImagePointers

logger = logging.getLogger(__name__)

LOOKED_AT = 32  # images that are tried before long work, spread over the set

Views = tuple[np.ndarray, torch.Tensor, list[str]]  # rows int64 [b], views uint8 [b, 3, S, S]; why others cannot be read


def check_labelled(address: Address, *, label_field: str = "label") -> None:
    """Index the images behind an address and look for one that can be decoded, before long work.

    Raises what loading would raise, and ValueError if none of 32 images, spread over the set, is readable.
    """
    images = load_labelled(address, label_field=label_field)
    rows = np.unique(np.linspace(0, len(images) - 1, min(LOOKED_AT, len(images))).round().astype(int)).tolist()
    failures = list(takewhile(lambda view: isinstance(view, str), map(_Decoding(images.files, Evaluation(8)).view, rows)))
    if len(failures) == len(rows):
        raise ValueError(
            f"{address}: none of the {len(rows)} images looked at, of {len(images):,}, can be read, the first: {failures[0]}"
        )


def batches_of_views(
    images: LabelledImages, evaluation: Evaluation, *, batch_size: int = 256, workers: int = 0
) -> Iterator[tuple[np.ndarray, torch.Tensor]]:
    """The evaluation views of all images, in order: rows int64 [b], views uint8 [b, 3, S, S].

    rows: which of the images; those that cannot be read are left out, and told once, at the end. workers: processes that
    decode; 0: threads of this one, a batch ahead of what is asked for. Raises ValueError if no image can be read.
    """
    decoding, failures, given = _Decoding(images.files, evaluation), [], 0
    spans = [range(start, min(start + batch_size, len(images))) for start in range(0, len(images), batch_size)]
    flow = by_processes(decoding, spans, workers, 2, decoding.told) if workers else decoding.by_threads(spans)
    with closing(flow):
        for rows, views, failed in flow:
            failures += failed
            given += len(rows)
            if len(rows):
                yield rows, views
    if failures and not given:
        raise ValueError(f"none of {len(images):,} images can be read, the first: {failures[0]}")
    if failures:
        logger.warning("%d of %s images are unreadable and left out: %s", len(failures), f"{len(images):,}", listed(failures))


def all_views(images: LabelledImages, evaluation: Evaluation, *, workers: int = 0) -> tuple[np.ndarray, torch.Tensor]:
    """The views of a set that fits in memory: rows int64 [n], views uint8 [n, 3, S, S]; see `batches_of_views`."""
    rows, views = zip(*batches_of_views(images, evaluation, workers=workers), strict=True)
    return np.concatenate(rows), torch.cat(views)


class _Decoding:
    """Images → views, by their range of rows."""

    def __init__(self, files: ImagePointers, evaluation: Evaluation):
        self.files, self.evaluation = files, evaluation

    def view(self, i: int) -> torch.Tensor | str:
        """The view of one image, or why there is none."""
        try:
            return self.evaluation.view(decode(self.files.read(i)))
        except (OSError, ValueError) as error:
            name = self.files.name(i)
            return str(error) if name in str(error) else f"{name} ({error})"

    def __call__(self, span: range, results: Iterable[torch.Tensor | str] | None = None) -> Views:
        """A range, one image after the other unless there are `results` already."""
        views = dict(zip(span, map(self.view, span) if results is None else results, strict=True))
        good = [i for i, view in views.items() if isinstance(view, torch.Tensor)]
        size = self.evaluation.image_size
        pixels = torch.stack([views[i] for i in good]) if good else torch.zeros((0, 3, size, size), dtype=torch.uint8)
        return np.array(good, dtype=np.int64), pixels, [view for view in views.values() if isinstance(view, str)]

    def by_threads(self, spans: Sequence[range]) -> Generator[Views, None, None]:
        """Ranges, by threads of this process, which begin with the next before one is asked for."""
        pool = ThreadPoolExecutor(min(4, os.cpu_count() or 1))
        try:
            begun = ((span, pool.map(self.view, span)) for span in spans)
            for (span, results), _ in pairwise(chain(begun, [(range(0), iter(()))])):
                yield self(span, results)
        finally:
            pool.shutdown(cancel_futures=True)  # who stops early does not wait for the batch ahead

    def told(self, span: range) -> str:
        """A range in words."""
        return f"{len(span)} images, from {self.files.name(span.start)} on,"
