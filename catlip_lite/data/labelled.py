"""Labelled images by one address: from ImageNet as it is downloaded to a folder of thirty pictures; and their evaluation views.

`load_labelled` finds images and labels without reading any image; `batches_of_views` reads, decodes and crops them as a model
asks for them, in other processes if there are many.
"""

from __future__ import annotations

import logging
import os
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from glob import glob
from pathlib import Path

import numpy as np
import torch

from .coco_annotations import coco_images
from .demo_scenes import scenes_annotations
from .image_files import ImageFiles
from .imagenet_layout import (
    CLASS_TAR,
    class_tar_images,
    flat_validation_images,
    imagenet_tar_images,
    is_flat_validation,
    is_imagenet_tar,
)
from .images import Evaluation, decode
from .label_values import Selection
from .labelled_images import Boxes, LabelledImages, joined, some
from .labelled_layouts import class_folder_images, image_list_images
from .labelled_parquet import parquet_images
from .labelled_shards import shard_images
from .shards import expand_braces

__all__ = ["Boxes", "LabelledImages", "address_name", "all_views", "batches_of_views", "check_labelled", "load_labelled"]

logger = logging.getLogger(__name__)

Address = str | Path | Sequence[str]


def load_labelled(address: Address, *, label_field: str = "label", group_field: str = "vendor") -> LabelledImages:
    """The labelled images behind an address, or behind several (a list), one after the other, over the classes of all.

    An address is one of these, told apart by what is there:

    - a folder of class folders, with images in them or one folder deeper;
    - WebDataset shards (a folder of .tar, a tar, a glob, a brace pattern "{00000..00012}.tar"; `demo/<split>` is the demo) with
      `label_field` in their .json or with .cls members: a name, a number or a list. Numbers count the lines of a classes.txt
      or classnames.txt beside the shards; without one, they are the names;
    - parquet (a file, a folder, a glob) with a column of images (bytes, structs with `bytes`, or paths) and a column
      `label_field`; class names and their order are taken from Hugging Face's description, if it is stored there;
    - COCO's `annotations/instances_val2017.json`, with the images where the download puts them: multi-label, with boxes;
    - ImageNet-1k as downloaded: ILSVRC2012_img_train.tar and ILSVRC2012_img_val.tar, read in place; train/ with its class
      folders or class tars; val/, sorted into class folders or flat, with the development kit or LOC_val_solution.csv beside
      it or up to four folders above (so Kaggle's ILSVRC/Data/CLS-LOC/val is one, too);
    - Places365 as downloaded: its class folders, or the list places365_train_standard.txt or places365_val.txt with data_256/
      or val_256/ (else data_large/, val_large/) beside it or one folder above;
    - a list of images (.txt, .csv, .tsv): path and label on each line, separated by a tab, a comma or spaces, or columns under
      a header; relative paths count from the list's folder.

    `address#field=value` keeps the samples whose .json or column has that value: data/caltech101#split=train.
    `address#missing=skip` goes on without the images of a list or annotation file that are not there; several are joined by &.
    group_field: where .json or columns tell where an image comes from. Labels that are lists make a multi-label set, in which
    an empty list is kept. Left out with a warning that counts them: images without a label or without any byte.
    No image is read; a large tar's index is kept in the user's cache until the tar changes.
    Raises FileNotFoundError or ValueError, saying what was found and what to do.
    """
    parts = [address] if isinstance(address, (str, Path)) else list(address)
    if len(parts) > 1 and all(str(part).endswith(".tar") for part in parts):
        images = _load_one(parts, Selection(), label_field, group_field)
    else:
        loaded = [_load_one(*split_address(part), label_field, group_field) for part in parts]
        images = joined(loaded, [str(part) for part in parts])
    if len(images.classes) < 2 and not images.multi_label:
        raise ValueError(
            f"{address}: all {len(images):,} images are of one class, {images.classes[0]!r}: there is nothing to tell apart"
        )
    return images


def check_labelled(address: Address, *, label_field: str = "label") -> None:
    """Index the images behind each address and decode the first, before long work. Raises what loading would raise."""
    for part in [address] if isinstance(address, (str, Path)) else address:
        images = load_labelled(part, label_field=label_field)
        next(batches_of_views(images.take([0]), Evaluation(8)))


def address_name(address: Address) -> str:
    """A short name for tables: "caltech101 test" of "data/caltech101#split=test", else the last part of the path."""
    if not isinstance(address, (str, Path)):
        return " + ".join(address_name(part) for part in address)
    path, selection = split_address(address)
    name = Path(path).name if Path(path).is_dir() else Path(path).stem
    return " ".join([name, *(value for _, value in selection.wanted)])


def split_address(address: str | Path) -> tuple[str, Selection]:
    """Path and selection of `path#field=value`; a path that exists with its # has none."""
    text = str(address)
    if "#" not in text or Path(text).exists():
        return text, Selection()
    path, _, selection = text.rpartition("#")
    return path, Selection.parse(selection)


def _load_one(path: str | list[str], selection: Selection, label_field: str, group_field: str) -> LabelledImages:
    if isinstance(path, str) and path.startswith("demo/scenes_") and not Path(path).exists():
        path = str(scenes_annotations(path.removeprefix("demo/scenes_")))
    fields = (label_field, group_field, selection)
    if isinstance(path, list) or (path.startswith("demo/") and not Path(path).exists()):
        return shard_images(path, *fields)
    if "://" in path:
        raise ValueError(f"{path}: labelled images are read from local disks: copy them there")
    place, ending = Path(path), path.rpartition(".")[2].lower()
    if not place.exists() and not any(glob(pattern) for pattern in expand_braces(path)):
        raise FileNotFoundError(f"{path} is not there: {_understood()}")
    if ending == "parquet" or (place.is_dir() and _has_parquet(place)):
        return parquet_images(path, *fields)
    if ending == "tar" and not is_imagenet_tar(place):
        return shard_images(path, *fields)
    if place.is_file() and ending in ("txt", "csv", "tsv"):
        return image_list_images(place, *fields)
    if place.is_file() and ending == "json":
        return coco_images(place, selection)
    tars = list(place.glob("*.tar")) if place.is_dir() else []
    if tars and not any(is_imagenet_tar(tar) or CLASS_TAR.fullmatch(tar.name) for tar in tars):
        return shard_images(path, *fields)
    if selection != Selection():
        raise ValueError(f"{path}: only shards, parquet, lists and annotations can be selected from: leave out what follows #")
    return _imagenet_or_class_folders(place)


def _imagenet_or_class_folders(place: Path) -> LabelledImages:
    if is_imagenet_tar(place):
        return imagenet_tar_images(place)
    if not place.is_dir():
        raise ValueError(f"{place} is not understood: {_understood()}")
    tars = sorted(place.glob("*.tar"))
    if tars and all(CLASS_TAR.fullmatch(tar.name) for tar in tars):
        return class_tar_images(tars)
    official = [tar for tar in tars if is_imagenet_tar(tar)]
    if official:
        raise ValueError(f"{place} holds {', '.join(tar.name for tar in official)}: give one of them, e.g. {official[0]}")
    inside = next((place / name for name in ("ILSVRC/Data/CLS-LOC", "Data/CLS-LOC") if (place / name).is_dir()), None)
    if inside:
        raise ValueError(f"{place} holds ImageNet's splits: give {inside / 'train'} or {inside / 'val'}")
    if is_flat_validation(place):
        return flat_validation_images(place)
    there = sorted(entry.name for entry in place.iterdir() if not entry.name.startswith("."))
    if not any((place / name).is_dir() for name in there):
        found = f"{len(there):,} file(s) ({some(there)})" if there else "nothing"
        raise FileNotFoundError(f"{place} holds {found}, no class folders: {_understood()}")
    return class_folder_images(place)


def _has_parquet(folder: Path) -> bool:
    return any(any(place.glob("*.parquet")) for place in (folder, folder / "data"))


def _understood() -> str:
    return (
        "labelled images are a folder of class folders, WebDataset shards (.tar), parquet, COCO's instances_….json, ImageNet's "
        "tars or folders, or a list (.txt, .csv, .tsv) of paths and labels"
    )


# --- views ------------------------------------------------------------------------------------------------------------------


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
    files: ImageFiles, evaluation: Evaluation, batch_size: int, workers: int
) -> Iterator[tuple[int, list[torch.Tensor | str]]]:
    """The first row of each batch, and of each of its images the view, or why there is none."""
    source = _ViewSource(files, evaluation)
    starts = range(0, len(files), batch_size)
    spans = [range(start, min(start + batch_size, len(files))) for start in starts]
    if not workers:
        yield from _decoded_here(source, spans)
        return
    loader = torch.utils.data.DataLoader(
        source, batch_size=None, sampler=spans, collate_fn=_as_it_is, num_workers=workers, prefetch_factor=2
    )
    flow = iter(loader)
    try:
        for span, (good, views, failures) in zip(spans, flow, strict=True):
            results = [failures.get(i) for i in range(len(span))]
            for i, view in zip(good, views, strict=True):
                results[i] = view
            yield span.start, results
    finally:
        flow._shutdown_workers()  # an error's traceback holds on to the iterator, and so to the processes


def _decoded_here(source: _ViewSource, spans: Sequence[range]) -> Iterator[tuple[int, list[torch.Tensor | str]]]:
    pool, ahead = ThreadPoolExecutor(min(4, os.cpu_count() or 1)), deque()
    try:
        for span in [*spans, None]:
            if span is not None:
                ahead.append((span.start, [pool.submit(source.view, i) for i in span]))
            if ahead and (span is None or len(ahead) > 1):
                start, futures = ahead.popleft()
                yield start, [future.result() for future in futures]
    finally:
        pool.shutdown(cancel_futures=True)  # who stops early does not wait for the batch ahead


class _ViewSource(torch.utils.data.Dataset):
    """Batches of views by their range of rows, for a loader's process."""

    def __init__(self, files: ImageFiles, evaluation: Evaluation):
        self.files, self.evaluation = files, evaluation

    def __getitem__(self, span: range) -> tuple[list[int], torch.Tensor, dict[int, str]]:
        results = [self.view(i) for i in span]
        good = [i for i, result in enumerate(results) if isinstance(result, torch.Tensor)]
        size = self.evaluation.image_size
        views = torch.stack([results[i] for i in good]) if good else torch.zeros((0, 3, size, size), dtype=torch.uint8)
        return good, views, {i: result for i, result in enumerate(results) if isinstance(result, str)}

    def view(self, i: int) -> torch.Tensor | str:
        """The view of one image, or why there is none."""
        try:
            return self.evaluation.view(decode(self.files.read(i)))
        except (OSError, ValueError) as error:
            name = self.files.name(i)
            return str(error) if name in str(error) else f"{name} ({error})"


def _as_it_is(batch):
    return batch
