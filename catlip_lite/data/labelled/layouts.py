"""What labelled images may look like on disk: a list of layouts, each of which recognises an address and reads it."""

from __future__ import annotations

from collections.abc import Callable

from ..addresses import Address, is_there, split_address
from ..demo import demo_path
from .coco import coco_images, is_annotations
from .folders import class_folder_images, is_folder
from .imagenet import (
    are_class_tars,
    are_official_tars,
    class_tar_images,
    flat_validation_images,
    is_flat_validation,
    official_tar_images,
)
from .images import UNDERSTOOD, LabelledImages, joined
from .lists import image_list_images, is_list
from .names import parts_of
from .shards import holds_tars, shard_images
from .tables import holds_tables, table_images
from .values import Selection, Wanted

LAYOUTS: tuple[tuple[Callable[[str], bool], Callable[[Wanted], LabelledImages]], ...] = (  # the first that recognises it reads
    (holds_tables, table_images),
    (are_official_tars, official_tar_images),
    (are_class_tars, class_tar_images),
    (holds_tars, shard_images),
    (is_list, image_list_images),
    (is_annotations, coco_images),
    (is_flat_validation, flat_validation_images),
    (is_folder, class_folder_images),
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
    an empty list is kept. Left out with a warning that counts them: images without a label (NaN, or -1 where
    class names are given) or without any byte, and files that are no images by their names.
    No image is read; a large tar's index is kept in the user's cache until the tar changes.
    Raises FileNotFoundError or ValueError, saying what was found and what to do.
    """
    parts = [str(part) for part in parts_of(address)]
    if not parts:
        raise ValueError("no labelled images are given: give an address, or a list of them")
    if len(parts) > 1 and all(part.endswith(".tar") for part in parts) and not any(map(are_official_tars, parts)):
        read = class_tar_images if any(map(are_class_tars, parts)) else shard_images
        images = read(Wanted(parts, Selection(), label_field, group_field))
    else:
        images = joined([_load_one(part, label_field, group_field) for part in parts], parts)
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
    read = next((read for recognises, read in LAYOUTS if recognises(path)), None)
    if read is None:
        raise ValueError(f"{path} is not understood: {UNDERSTOOD}")
    return read(Wanted(path, Selection.parse(selection), label_field, group_field))
