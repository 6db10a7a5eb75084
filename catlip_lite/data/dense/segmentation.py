"""Images with the class of each pixel, as ADE20k is downloaded → `SegmentedImages`, not yet read."""

from __future__ import annotations

import csv
import io
import os
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from ...labels.label_sets import listed
from ..addresses import split_address
from ..demo import demo_path
from ..labelled.folders import is_image, present_files, visible
from ..labelled.images import ImageSet, digest, refuse_alike
from ..labelled.pointers import ImagePointers, loose_files
from ..labelled.values import CLASS_LISTS, class_list, parse_selection, read_text

IGNORED = 255  # the class of pixels that nobody labelled
UNDERSTOOD = (
    "segmented images are ADE20k's images/training, with annotations/training beside it and objectInfo150.txt above, or others "
    "in such folders, with a line a class in classes.txt"
)


@dataclass(frozen=True, eq=False)
class SegmentedImages(ImageSet):
    """N images, each with a mask of the classes, which are in the order of their numbers.

    masks: len(), name(i), read(i) -> encoded bytes.
    """

    masks: ImagePointers

    def mask(self, i: int) -> np.ndarray:
        """The class index of each pixel: uint8 [H, W]; IGNORED where the file has 0, unlabelled, or 255.

        Raises OSError or ValueError, with the mask's name, if it cannot be read, or is no mask of these classes.
        """
        name, encoded = self.masks.name(i), self.masks.read(i)
        try:
            mask = Image.open(io.BytesIO(encoded))
            numbers = np.asarray(mask)  # of a palette's, the indices: these are the classes, its colours are for the eye
        except Exception as error:  # Pillow raises a dozen kinds
            raise ValueError(f"{name}: unreadable mask ({type(error).__name__}: {error})") from error
        if numbers.ndim != 2:
            raise ValueError(
                f"{name} is {mask.mode}, where a mask has one channel of class numbers: save it as a grey or palette PNG"
            )
        beyond = numbers[(numbers > len(self.classes)) & (numbers != IGNORED)]
        if len(beyond):
            raise ValueError(f"{name} has class number {beyond.max()}, but {len(self.classes)} classes are listed")
        numbers = numbers.astype(np.uint8)
        return np.where(numbers == IGNORED, IGNORED, numbers - np.uint8(1))  # 0 - 1 is 255

    def known_of(self, rows: np.ndarray) -> dict:
        """`masks`."""
        return {"masks": self.masks.take(rows)}


def load_segmentation(address: str | Path) -> SegmentedImages:
    """The segmented images behind an address: of ADE20k's scene parsing data, as downloaded, or others laid out like it.

    An address is a folder of images, ADEChallengeData2016/images/training, or the folder above with its split,
    ADEChallengeData2016#split=validation; `demo/composites_train` and `demo/composites_test` are the demo's. The mask of
    images/training/x.jpg is annotations/training/x.png, grey or with a palette, of class numbers: 0 is unlabelled, 1 the first
    class of objectInfo150.txt (of several words of a class, the first is its name) or of classes.txt beside images/.
    `address#missing=skip` goes on without images that have no mask. No image is read.
    Raises FileNotFoundError or ValueError, saying what was found and what to do.
    """
    path, selection = split_address(address)
    chosen, skip_missing = parse_selection(selection)
    split = chosen.pop("split", None)
    if chosen:
        raise ValueError(f"{path}: segmented images have no field {next(iter(chosen))!r} to select by: #split= alone is known")
    folder = _folder_of_images(Path(demo_path(path, masks=True) or path).absolute(), split)
    if "images" not in folder.parts:
        raise ValueError(f"{folder} does not lie in a folder images/, with annotations/ for the masks beside it: {UNDERSTOOD}")
    depth = len(folder.parts) - folder.parts[::-1].index("images") - 1
    root, below = Path(*folder.parts[:depth]), folder.parts[depth + 1 :]
    classes, names = _class_names(root), sorted(entry.name for entry in visible(folder) if is_image(entry))
    if not names:
        raise FileNotFoundError(f"{folder} holds no images: {UNDERSTOOD}")
    at = root.joinpath("annotations", *below)
    of_masks = [os.path.splitext(name)[0] + ".png" for name in names]
    mask_facts, rows = present_files(at, of_masks, f"masks of {folder}", skip_missing=skip_missing)
    facts, full = present_files(folder, [names[i] for i in rows.tolist()], str(folder), skip_missing=skip_missing)
    mask_facts, rows = mask_facts[full], rows[full].tolist()
    files, stamps = loose_files(folder, [names[i] for i in rows], facts)
    masks, mask_stamps = loose_files(at, [of_masks[i] for i in rows], mask_facts)
    return SegmentedImages(files, classes, digest(["\n".join(classes), *stamps, *mask_stamps]), masks)


def _folder_of_images(path: Path, split: str | None) -> Path:
    """The folder of images itself, of a split if it is the root that is given."""
    if not path.is_dir():
        raise FileNotFoundError(f"{path} is no folder: {UNDERSTOOD}")
    inside = path / "images"
    splits = sorted(entry.name for entry in os.scandir(inside) if entry.is_dir()) if inside.is_dir() else []
    if split is None:
        if splits:
            raise ValueError(f"{inside} holds {', '.join(splits)}: choose one, e.g. {path}#split={splits[0]}")
        return inside if inside.is_dir() else path
    if split not in splits:
        told = f"its images/ holds {listed(splits)}" if splits else "it has no folders below images/"
        raise ValueError(f"{path} has no split {split!r}: {told}")
    return inside / split


def _class_names(root: Path) -> list[str]:
    """The classes of masks, in the order of their numbers, from 1 on."""
    table = next(iter(sorted(root.glob("objectInfo*.txt")) + sorted(root.glob("objectInfo*.csv"))), None)
    classes = class_list(root) if table is None else _names_in_table(table)
    if not classes:
        raise FileNotFoundError(f"{root} has no list of classes, objectInfo150.txt or {CLASS_LISTS[0]}: {UNDERSTOOD}")
    if len(classes) > IGNORED - 1:
        raise ValueError(f"{root} lists {len(classes)} classes: masks of a byte a pixel tell {IGNORED - 1} apart")
    refuse_alike(classes, str(root))
    return classes


def _names_in_table(path: Path) -> list[str]:
    """The names of a table with columns Idx and Name, among others, as ADE20k's: "building" of "building, edifice"."""
    lines = read_text(path).strip().splitlines() or [""]
    rows = [[cell.strip() for cell in row] for row in csv.reader(lines, delimiter="\t" if "\t" in lines[0] else ",")]
    try:
        number, name = rows[0].index("Idx"), rows[0].index("Name")
        named = {int(row[number]): re.split("[,;]", row[name])[0].strip() for row in rows[1:]}
    except (ValueError, IndexError) as error:
        raise ValueError(
            f"{path} is no list of classes ({error}): it has columns Idx and Name, as objectInfo150.txt"
        ) from error
    if sorted(named) != list(range(1, len(rows))):
        raise ValueError(
            f"{path} numbers its {len(rows) - 1} classes from {min(named)} to {max(named)}: number them 1, 2, …, each once"
        )
    return [named[i] for i in sorted(named)]
