"""Demo scenes: several of the demo's drawings on one page, annotated as a COCO download is, for multi-label work without COCO.

Between the demo corpus and `load_labelled` ("demo/scenes_train", "demo/scenes_test"). Composed drawings, not photos: what they
show is whether the path works and which choice is better, not how COCO comes out. Train scenes take the pre-training vendors'
and Google's drawings, test scenes Samsung's, a hand that training never saw. Written once, in seconds, to
`<cache>/demo-scenes-<version>/annotations/instances_<split>.json` and `<split>/*.png`; the artwork keeps its owners' licences
and never leaves the user's cache.
"""

from __future__ import annotations

import io
import json
import random
from collections import defaultdict
from collections.abc import Mapping, Sequence
from itertools import chain
from pathlib import Path

from PIL import Image, ImageChops

from ...cache import cache_folder
from ..shards import read_shard
from .drawings import VERSION as VERSION_OF_DRAWINGS
from .drawings import demo_folder, whole_folder

VERSION = f"1-{VERSION_OF_DRAWINGS}"  # raise the first number when the scenes change; each version has its own folder
SCENES = {"train": 1500, "test": 500}
SPLITS = {"train": ("pretrain", "labelled_train"), "test": ("labelled_test",)}  # of the demo, whose drawings the scenes show
LABELS = 40
# Names of signs and marks: other drawings are full of them (a face on a button, a heart on a card).
SIGNS = {
    "arrow", "ball", "blood type", "box", "button", "circle", "diamond", "exclamation mark", "face", "hand", "heart", "index",
    "kiss", "leg", "mark", "question mark", "sign", "square", "stone", "suit", "symbol",
}  # fmt: skip
PAGES = ((128, 96), (96, 128), (128, 128))  # width and height in pixels: most photos are no squares
DRAWINGS = (2, 5)  # least and most on a page
SIDES = (28, 60)  # of a drawing, pixels
MOST_OVERLAP = 0.1  # of the smaller of two boxes

Box = tuple[int, int, int, int]  # left, top, right, bottom


def scenes_annotations(split: str) -> Path:
    """The COCO file of a split ("train" or "test"), composing the scenes first if they are not in the cache.

    Raises ValueError for an unknown split, ModuleNotFoundError with the install command if a package of the demo is missing.
    """
    if split not in SCENES:
        raise ValueError(f"the demo has no scenes {split!r}: choose one of {', '.join(SCENES)}")
    folder = cache_folder() / f"demo-scenes-{VERSION}"
    if not folder.is_dir():
        drawings = {part: drawings_of(sources) for part, sources in SPLITS.items()}
        labels = scene_labels(drawings)
        with whole_folder(folder) as staging:
            (staging / "annotations").mkdir()
            for part, count in SCENES.items():
                (staging / part).mkdir()
                annotations = write_scenes(staging / part, {name: drawings[part][name] for name in labels}, count, part)
                (staging / "annotations" / f"instances_{part}.json").write_text(json.dumps(annotations))
    return folder / "annotations" / f"instances_{split}.json"


def scene_labels(drawings: Mapping[str, Mapping[str, Sequence[bytes]]]) -> list[str]:
    """The labels of the scenes, by falling number of train drawings: things, not signs, that the test vendor draws twice."""
    drawn = {name: len(pictures) for name, pictures in drawings["train"].items() if name not in SIGNS}
    eligible = [name for name in drawn if len(drawings["test"].get(name, ())) >= 2]
    return sorted(eligible, key=lambda name: (-drawn[name], name))[:LABELS]


def write_scenes(folder: Path, drawings: Mapping[str, Sequence[bytes]], count: int, seed: str) -> dict:
    """Write `count` scenes as PNG and give their annotations, as COCO's instances JSON has them.

    drawings: encoded pictures on white by label. A label's share of the scenes grows with the square root of its drawings, so
    that some labels are several times as frequent as others. seed: the same gives the same scenes.
    """
    names = list(drawings)
    categories = {name: i for i, name in enumerate(sorted(names), start=1)}
    weights = [len(drawings[name]) ** 0.5 for name in names]
    inked = {name: [ink for picture in pictures if (ink := _ink(picture))] for name, pictures in drawings.items()}
    images, annotations = [], []
    for number in range(count):
        rng = random.Random(f"{seed} {number}")
        page, placed = _compose(rng, inked, weights)
        file_name = f"{number:06d}.png"
        page.save(folder / file_name)
        images.append({"id": number, "file_name": file_name, "width": page.width, "height": page.height})
        for label, (left, top, right, bottom) in placed.items():
            w, h = right - left, bottom - top
            facts = {"id": len(annotations) + 1, "image_id": number, "category_id": categories[label]}
            annotations.append({**facts, "bbox": [left, top, w, h], "area": w * h, "iscrowd": 0})
    return {
        "info": {"description": "scenes composed of emoji drawings; the artwork keeps its owners' licences"},
        "images": images,
        "annotations": annotations,
        "categories": [{"id": i, "name": name} for name, i in categories.items()],
    }


def drawings_of(parts: Sequence[str]) -> dict[str, list[bytes]]:
    """Encoded drawings of some of the demo's splits by label, in an order of their own."""
    found = defaultdict(list)
    shards = [shard for part in parts for shard in sorted(demo_folder(part).glob("*.tar"))]
    for sample in chain.from_iterable(map(read_shard, shards)):
        if sample.image and sample.facts["label"]:
            found[sample.facts["label"]].append((sample.facts["uid"], sample.image))
    return {label: [image for _, image in sorted(pictures)] for label, pictures in found.items()}


def _compose(
    rng: random.Random, drawings: Mapping[str, Sequence[Image.Image]], weights: Sequence[float]
) -> tuple[Image.Image, dict[str, Box]]:
    """A page, and the box of each drawing on it by its label."""
    size = rng.choice(PAGES)
    page = Image.new("RGB", size, tuple(rng.randint(205, 255) for _ in range(3)))
    wanted, placed = rng.randint(*DRAWINGS), {}
    for _ in range(40 * wanted):
        if len(placed) == wanted:
            break
        (label,) = rng.choices(list(drawings), weights)
        if label in placed:
            continue
        drawing = rng.choice(drawings[label])
        scale = rng.uniform(*SIDES) / max(drawing.size)
        w, h = (max(4, round(side * scale)) for side in drawing.size)
        left, top = rng.randint(0, size[0] - w), rng.randint(0, size[1] - h)
        box = (left, top, left + w, top + h)
        if all(_overlap(box, other) <= MOST_OVERLAP for other in placed.values()):
            # White ground takes the page's colour, as ink on paper does.
            page.paste(ImageChops.multiply(page.crop(box), drawing.resize((w, h), Image.Resampling.BILINEAR)), box)
            placed[label] = box
    return page, placed


def _ink(picture: bytes) -> Image.Image | None:
    """What is not white of a drawing, cut out; None for an empty page."""
    drawing = Image.open(io.BytesIO(picture)).convert("RGB")
    box = drawing.convert("L").point([255 * (value < 243) for value in range(256)]).getbbox()
    return drawing.crop(box) if box else None


def _overlap(a: Box, b: Box) -> float:
    """Area that two boxes share, as a share of the smaller one's."""
    w, h = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    smaller = min((box[2] - box[0]) * (box[3] - box[1]) for box in (a, b))
    return max(0, w) * max(0, h) / smaller
