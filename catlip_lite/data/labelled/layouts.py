"""Addresses of labelled images: a list of layouts, each of which recognises an address and reads it, and their short names."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

from ...labels.label_sets import listed
from ..addresses import Address, is_there, split_address
from ..demo import demo_path
from .coco import coco_images, is_annotations
from .folders import class_folder_images
from .imagenet import flat_validation_images, holds_imagenet_tars, holds_official_tars, imagenet_tar_images, is_flat_validation
from .images import UNDERSTOOD, LabelledImages, joined
from .lists import image_list_images, is_list
from .shards import holds_tars, shard_images
from .tables import holds_tables, table_images
from .values import Wanted, parse_selection

LAYOUTS: tuple[tuple[Callable[[str], bool], Callable[[Wanted], LabelledImages]], ...] = (  # the first that recognises it reads
    (holds_tables, table_images),
    (holds_imagenet_tars, imagenet_tar_images),
    (holds_tars, shard_images),
    (is_list, image_list_images),
    (is_annotations, coco_images),
    (is_flat_validation, flat_validation_images),
    (os.path.isdir, class_folder_images),
)


def load_labelled(address: Address, *, label_field: str = "label", group_field: str = "vendor") -> LabelledImages:
    """The labelled images behind an address, or behind several (a list), one after the other, over the classes of all.

    An address is one of these, told apart by what is there:

    - a folder of class folders, with images in them or one folder deeper;
    - WebDataset shards (a folder of .tar, a tar, a glob, a brace pattern "{00000..00012}.tar", here or anywhere fsspec reaches;
      `demo/<split>` is the demo) with `label_field` in their .json or with .cls members: a name, a number or a list.
      Numbers count the lines of a classes.txt or classnames.txt beside the shards; without one, they are the names;
    - tables (a parquet or Arrow file, a folder, a glob, what `save_to_disk` or `push_to_hub` wrote) with a column of images
      (bytes, structs with `bytes`, or paths) and a column `label_field`; class names and their order are taken from Hugging
      Face's description, if it is stored there. `hf://ILSVRC/imagenet-1k#split=validation` is one of the hub's, read in place;
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
    an empty list is kept. Left out and counted: images without a label (NaN, or -1 where class names are given) or without any
    byte, and files that are no images by their names. No image is read; indexes of large files are kept in the user's cache.
    Raises FileNotFoundError or ValueError, saying what was found and what to do.
    """
    parts = [str(part) for part in parts_of(address)]
    if not parts:
        raise ValueError("no labelled images are given: give an address, or a list of them")
    if len(parts) > 1 and all(part.endswith(".tar") for part in parts) and not any(map(holds_official_tars, parts)):
        read = imagenet_tar_images if any(map(holds_imagenet_tars, parts)) else shard_images  # one set
        found, parts = [read(Wanted(parts, label_field, group_field))], [f"{parts[0]}, …"]
    else:
        found = [_load_one(part, label_field, group_field) for part in parts]
    images = joined(found, parts)
    if len(images.classes) < 2 and not images.multi_label:
        raise ValueError(
            f"{address}: all {len(images):,} images are of one class, {images.classes[0]!r}: there is nothing to tell apart"
        )
    return images


def _load_one(address: str, label_field: str, group_field: str) -> LabelledImages:
    path, selection = split_address(address)
    path = demo_path(path) or path
    if "://" not in path and not is_there(path):
        raise FileNotFoundError(f"{path} is not there: {UNDERSTOOD}")
    for recognises, read in LAYOUTS:
        if recognises(path):
            return read(Wanted(path, label_field, group_field, *parse_selection(selection)))
    raise ValueError(f"{path} is not understood: {UNDERSTOOD}")


# ---------------------------------------------------------------- short names, for tables and figures


def address_name(address: Address) -> str:
    """A short name for tables: "caltech101 test" of "data/caltech101#split=test", else the last part of the path."""
    return _with_folders(address, 0)


def named_addresses(addresses: Address | Sequence[Address]) -> dict[str, Address]:
    """Several test sets by names for tables, which are distinct: where two share one, the folders above are added.

    "photos/test" and "sketch/test" of "data/photos/test" and "data/sketch/test". Raises ValueError for none, and for the same
    address given twice.
    """
    addresses = parts_of(addresses)
    if not addresses:
        raise ValueError("no test set is given: give an address, or a list of them")
    same = Counter(tuple(os.path.normpath(str(part)) for part in parts_of(address)) for address in addresses)
    twice = [" + ".join(address) for address, times in same.items() if times > 1]
    if twice:
        raise ValueError(f"test set(s) given twice: {listed(twice)}: keep each once")
    deepest = max(len(Path(part).parts) for address in addresses for part in parts_of(address))
    levels = [[_with_folders(address, folders) for address in addresses] for folders in range(deepest)]
    whole = [" + ".join(map(str, parts_of(address))) for address in addresses]  # where endings alone tell them apart
    named = (next((names[i] for names in levels if names.count(names[i]) == 1), whole[i]) for i in range(len(addresses)))
    return dict(zip(named, addresses, strict=True))


def parts_of(address: Address | Sequence[Address]) -> list:
    """One address, or several, as a list."""
    return [address] if isinstance(address, (str, Path)) else list(address)


def _with_folders(address: Address, folders: int) -> str:
    if not isinstance(address, (str, Path)):
        return " + ".join(_with_folders(part, folders) for part in address)
    path, selection = split_address(address)
    place = Path(path.partition("://")[2] or path)
    name = place.name if place.is_dir() or "://" in path else place.stem
    above = [part for part in place.parts[:-1] if part != place.anchor]
    return " ".join(["/".join([*above[max(0, len(above) - folders) :], name]), *parse_selection(selection)[0].values()])
