"""Evaluation views of labelled images: read, decoded and cropped as a model asks for them, by processes if there are many."""

from __future__ import annotations

import logging
import os
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

import numpy as np
import torch

from ..addresses import Address
from ..images import Evaluation, decode
from ..processes import by_processes
from .images import LabelledImages, some
from .layouts import load_labelled
from .pointers import ImagePointers

logger = logging.getLogger(__name__)

LOOKED_AT = 32  # images that are tried before long work, spread over the set


def check_labelled(address: Address, *, label_field: str = "label") -> None:
    """Index the images behind an address and look for one that can be decoded, before long work.

    Raises what loading would raise, and ValueError if none of 32 images, spread over the set, is readable.
    """
    images = load_labelled(address, label_field=label_field)
    views, failures = _Views(images.files, Evaluation(8)), []
    for row in np.unique(np.linspace(0, len(images) - 1, min(LOOKED_AT, len(images))).round().astype(int)).tolist():
        view = views.view(row)
        if isinstance(view, torch.Tensor):
            return
        failures.append(view)
    raise ValueError(
        f"{address}: none of the {len(failures)} images looked at, of {len(images):,}, can be read, the first: {failures[0]}"
    )


def batches_of_views(
    images: LabelledImages, evaluation: Evaluation, *, batch_size: int = 256, workers: int = 0
) -> Iterator[tuple[np.ndarray, torch.Tensor]]:
    """The evaluation views of all images, in order: rows int64 [b], views uint8 [b, 3, S, S].

    rows: which of the images; those that cannot be read are left out, and told once, at the end. workers: processes that
    decode; 0: threads of this one, a batch ahead of what is asked for. Raises ValueError if no image can be read.
    """
    failures, given = [], 0
    for first, results in _decoded(images.files, evaluation, batch_size, workers):
        good = [i for i, result in enumerate(results) if isinstance(result, torch.Tensor)]
        failures += [str(result) for result in results if not isinstance(result, torch.Tensor)]
        if good:
            given += len(good)
            views = torch.stack([results[i] for i in good])
            del results
            yield first + np.array(good, dtype=np.int64), views
    if failures and not given:
        raise ValueError(f"none of {len(images):,} images can be read, the first: {failures[0]}")
    if failures:
        logger.warning("%d of %s images are unreadable and left out: %s", len(failures), f"{len(images):,}", some(failures))


def all_views(images: LabelledImages, evaluation: Evaluation, *, workers: int = 0) -> tuple[np.ndarray, torch.Tensor]:
    """The views of a set that fits in memory: rows int64 [n], views uint8 [n, 3, S, S]; see `batches_of_views`."""
    batches = list(batches_of_views(images, evaluation, workers=workers))
    return np.concatenate([rows for rows, _ in batches]), torch.cat([views for _, views in batches])


def _decoded(
    files: ImagePointers, evaluation: Evaluation, batch_size: int, workers: int
) -> Iterator[tuple[int, list[torch.Tensor | str]]]:
    """The first row of each batch, and of each of its images the view, or why there is none."""
    views = _Views(files, evaluation)
    spans = [range(start, min(start + batch_size, len(files))) for start in range(0, len(files), batch_size)]
    if not workers:
        yield from _decoded_here(views, spans)
        return
    with closing(by_processes(views, spans, workers, 2, views.told)) as flow:
        for span, (good, pixels, failures) in zip(spans, flow, strict=True):
            shown = dict(zip(good, pixels, strict=True))
            yield span.start, [shown.get(i, failures.get(i)) for i in range(len(span))]


def _decoded_here(views: _Views, spans: Sequence[range]) -> Iterator[tuple[int, list[torch.Tensor | str]]]:
    pool, ahead = ThreadPoolExecutor(min(4, os.cpu_count() or 1)), deque()
    try:
        for span in [*spans, None]:
            if span is not None:
                ahead.append((span.start, [pool.submit(views.view, i) for i in span]))
            if ahead and (span is None or len(ahead) > 1):
                start, futures = ahead.popleft()
                yield start, [future.result() for future in futures]
    finally:
        pool.shutdown(cancel_futures=True)  # who stops early does not wait for the batch ahead


class _Views:
    """Batches of views by their range of rows."""

    def __init__(self, files: ImagePointers, evaluation: Evaluation):
        self.files, self.evaluation = files, evaluation

    def __call__(self, span: range) -> tuple[list[int], torch.Tensor, dict[int, str]]:
        results = [self.view(i) for i in span]
        good = [i for i, result in enumerate(results) if isinstance(result, torch.Tensor)]
        size = self.evaluation.image_size
        views = torch.stack([results[i] for i in good]) if good else torch.zeros((0, 3, size, size), dtype=torch.uint8)
        return good, views, {i: result for i, result in enumerate(results) if isinstance(result, str)}

    def told(self, span: range) -> str:
        """A range in words."""
        return f"{len(span)} images, from {self.files.name(span.start)} on,"

    def view(self, i: int) -> torch.Tensor | str:
        """The view of one image, or why there is none."""
        try:
            return self.evaluation.view(decode(self.files.read(i)))
        except (OSError, ValueError) as error:
            name = self.files.name(i)
            return str(error) if name in str(error) else f"{name} ({error})"
