"""Labelled images by one address: from ImageNet as it is downloaded to a folder of thirty pictures; and their evaluation views.

`load_labelled` finds images and labels without reading any image; `batches_of_views` reads, decodes and crops them as a model
asks for them, in other processes if there are many.
"""

from __future__ import annotations

import logging
import os
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from glob import glob
from pathlib import Path

import numpy as np
import torch

from .coco_annotations import coco_images
from .demo_scenes import scenes_annotations
from .image_files import ImageFiles
from .imagenet_layout import (
    CLASS_FOLDER,
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
from .loader_processes import by_processes
from .sources import expand_braces, find_shards

__all__ = [
    "Boxes",
    "LabelledImages",
    "address_name",
    "all_views",
    "batches_of_views",
    "check_labelled",
    "load_labelled",
    "named_addresses",
]

logger = logging.getLogger(__name__)

Address = str | Path | Sequence[str]
LOOKED_AT = 32  # images that are tried before long work, spread over the set


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
    an empty list is kept. Left out with a warning that counts them: images without a label (NaN, or -1 where
    class names are given) or without any byte, and files that are no images by their names.
    No image is read; a large tar's index is kept in the user's cache until the tar changes.
    Raises FileNotFoundError or ValueError, saying what was found and what to do.
    """
    parts = _parts_of(address)
    if not parts:
        raise ValueError("no labelled images are given: give an address, or a list of them")
    if len(parts) > 1 and all(str(part).endswith(".tar") for part in parts) and not any(map(_official, parts)):
        images = _load_tars(parts, Selection(), label_field, group_field)
    else:
        loaded = [_load_one(*split_address(part), label_field, group_field) for part in parts]
        images = joined(loaded, [str(part) for part in parts])
    if len(images.classes) < 2 and not images.multi_label:
        raise ValueError(
            f"{address}: all {len(images):,} images are of one class, {images.classes[0]!r}: there is nothing to tell apart"
        )
    return images


def check_labelled(address: Address, *, label_field: str = "label") -> None:
    """Index the images behind an address and look for one that can be decoded, before long work.

    Raises what loading would raise, and ValueError if none of 32 images, spread over the set, is readable.
    """
    images = load_labelled(address, label_field=label_field)
    source, failures = _ViewSource(images.files, Evaluation(8)), []
    for row in np.unique(np.linspace(0, len(images) - 1, min(LOOKED_AT, len(images))).round().astype(int)).tolist():
        view = source.view(row)
        if isinstance(view, torch.Tensor):
            return
        failures.append(view)
    raise ValueError(
        f"{address}: none of the {len(failures)} images looked at, of {len(images):,}, can be read, the first: {failures[0]}"
    )


def address_name(address: Address) -> str:
    """A short name for tables: "caltech101 test" of "data/caltech101#split=test", else the last part of the path."""
    return _name_with_folders(address, 0)


def named_addresses(addresses: Address | Sequence[Address]) -> dict[str, Address]:
    """Several test sets by names for tables, which are distinct: where two share one, the folders above are added.

    "photos/test" and "sketch/test" of "data/photos/test" and "data/sketch/test". Raises ValueError for none, and for the same
    address given twice.
    """
    addresses = _parts_of(addresses)
    if not addresses:
        raise ValueError("no test set is given: give an address, or a list of them")
    same = Counter(tuple(os.path.normpath(str(part)) for part in _parts_of(address)) for address in addresses)
    twice = [" + ".join(address) for address, times in same.items() if times > 1]
    if twice:
        raise ValueError(f"test set(s) given twice: {some(twice)}: keep each once")
    names, folders = [address_name(address) for address in addresses], 0
    while len(set(names)) < len(names):
        folders += 1
        times = Counter(names)
        longer = [_name_with_folders(address, folders) for address in addresses]
        if all(times[name] == 1 or name == more for name, more in zip(names, longer, strict=True)):
            longer = [" + ".join(map(str, _parts_of(address))) for address in addresses]  # endings alone tell them apart
        names = [more if times[name] > 1 else name for name, more in zip(names, longer, strict=True)]
    return dict(zip(names, addresses, strict=True))


def _name_with_folders(address: Address, folders: int) -> str:
    if not isinstance(address, (str, Path)):
        return " + ".join(_name_with_folders(part, folders) for part in address)
    path, selection = split_address(address)
    place = Path(path)
    name = place.name if place.is_dir() else place.stem
    above = [part for part in place.parts[:-1] if part != place.anchor]
    return " ".join(["/".join([*above[max(0, len(above) - folders) :], name]), *(value for _, value in selection.wanted)])


def _parts_of(address: Address) -> list:
    return [address] if isinstance(address, (str, Path)) else list(address)


def split_address(address: str | Path) -> tuple[str, Selection]:
    """Path and selection of `path#field=value`; a path that is there with its # has none, nor has a folder called "a#1"."""
    text = str(address)
    path, _, selection = text.rpartition("#")
    has_slash, has_equals = "/" in selection, "=" in selection
    if not path or (has_slash and not has_equals) or _is_there(text):
        return text, Selection()
    if (has_equals and not has_slash) or path.startswith("demo/") or _is_there(path):
        return path, Selection.parse(selection)
    return text, Selection()


def _is_there(path: str) -> bool:
    return Path(path).exists() or any(glob(pattern) for pattern in expand_braces(path))


def _official(path: str | Path) -> bool:
    return is_imagenet_tar(Path(path))


def _load_tars(address: str | list, selection: Selection, label_field: str, group_field: str) -> LabelledImages:
    """Shards, unless all their names are those of ImageNet's class tars; an official tar of ImageNet is read alone."""
    paths = find_shards(address)
    official = [path for path in paths if _official(path)]
    of_classes = [path for path in paths if CLASS_TAR.fullmatch(path.name)]
    if not official and not of_classes:
        return shard_images(address, label_field, group_field, selection)
    if len(official or of_classes) < len(paths) or len(official) > 1:
        raise ValueError(
            f"{address}: {len(official)} official tar(s) of ImageNet, {len(of_classes)} class tar(s) and "
            f"{len(paths) - len(official) - len(of_classes)} other(s) are several data sets: give one of them, e.g. "
            f"{(official or of_classes)[0]}"
        )
    _refuse_selection(address, selection)
    return imagenet_tar_images(paths[0]) if official else class_tar_images(paths)


def _refuse_selection(address: str | list, selection: Selection) -> None:
    if selection != Selection():
        raise ValueError(
            f"{address}: only shards, parquet, lists and annotations can be selected from: leave out what follows #"
        )


def _load_one(path: str, selection: Selection, label_field: str, group_field: str) -> LabelledImages:
    if path.startswith("demo/scenes_") and not Path(path).exists():
        path = str(scenes_annotations(path.removeprefix("demo/scenes_")))
    fields = (label_field, group_field, selection)
    if path.startswith("demo/") and not Path(path).exists():
        return shard_images(path, *fields)
    if "://" in path:
        raise ValueError(f"{path}: labelled images are read from local disks: copy them there")
    place, ending = Path(path), path.rpartition(".")[2].lower()
    if not _is_there(path):
        raise FileNotFoundError(f"{path} is not there: {_understood()}")
    if ending == "parquet" or (place.is_dir() and _has_parquet(place)):
        return parquet_images(path, *fields)
    if ending == "tar" and not place.is_dir():
        return _load_tars(path, selection, label_field, group_field)
    if place.is_file() and ending in ("txt", "csv", "tsv"):
        return image_list_images(place, *fields)
    if place.is_file() and ending == "json":
        return coco_images(place, selection)
    tars = list(place.glob("*.tar")) if place.is_dir() else []
    if tars and not any(is_imagenet_tar(tar) or CLASS_TAR.fullmatch(tar.name) for tar in tars):
        return shard_images(path, *fields)
    _refuse_selection(path, selection)
    return _imagenet_or_class_folders(place)


def _imagenet_or_class_folders(place: Path) -> LabelledImages:
    if not place.is_dir():
        raise ValueError(f"{place} is not understood: {_understood()}")
    tars = sorted(place.glob("*.tar"))
    official = [tar for tar in tars if is_imagenet_tar(tar)]
    of_classes = {tar.stem for tar in tars if CLASS_TAR.fullmatch(tar.name)}
    if of_classes and not official:
        unpacked = {entry.name for entry in place.iterdir() if CLASS_FOLDER.fullmatch(entry.name) and entry.is_dir()}
        if unpacked and unpacked != of_classes:
            raise ValueError(
                f"{place} holds {len(of_classes):,} class tars and {len(unpacked):,} class folders, "
                f"{len(of_classes & unpacked):,} of the same name: move the tars away if all are unpacked, else the folders"
            )
        return _load_tars(list(map(str, tars)), Selection(), "label", "")
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
    with closing(by_processes(source, spans, workers, 2, source.told)) as flow:
        for span, (good, views, failures) in zip(spans, flow, strict=True):
            results = [failures.get(i) for i in range(len(span))]
            for i, view in zip(good, views, strict=True):
                results[i] = view
            yield span.start, results


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
