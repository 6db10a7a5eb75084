"""Pages with a coloured block on each, in ADE20k's folders and with COCO's annotations, for tests of dense tasks."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image


def write_pages(root: Path, side: int, colours: Mapping[str, tuple], blocks: Sequence[tuple | None]) -> Path:
    """A grey page of so many pixels a side for each block: number of its colour, left, top, width, height; None: no block."""
    objects = []
    for folder in (root / "images" / "training", root / "annotations" / "training"):
        folder.mkdir(parents=True)
    for i, block in enumerate(blocks):
        pixels, mask = np.full((side, side, 3), 128, np.uint8), np.ones((side, side), np.uint8)
        if block:
            c, left, top, width, height = block
            pixels[top : top + height, left : left + width] = list(colours.values())[c]
            mask[top : top + height, left : left + width] = 2 + c
            corners = [left, top, left + width, top, left + width, top + height, left, top + height]
            one = {"id": i, "image_id": i, "category_id": 1 + c, "bbox": [left, top, width, height]}
            objects.append(one | {"segmentation": [corners], "iscrowd": 0, "area": width * height})
        Image.fromarray(pixels).save(root / "images" / "training" / f"{i:02d}.png")
        Image.fromarray(mask).save(root / "annotations" / "training" / f"{i:02d}.png")
    (root / "classes.txt").write_text("\n".join(["ground", *colours]))
    images = [{"id": i, "file_name": f"{i:02d}.png", "width": side, "height": side} for i in range(len(blocks))]
    named = [{"id": i, "name": name} for i, name in enumerate(colours, start=1)]
    annotated = {"images": images, "annotations": objects, "categories": named}
    (root / "annotations" / "instances_training.json").write_text(json.dumps(annotated))
    return root
