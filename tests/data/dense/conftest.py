"""ADE20k's and COCO's folders in small."""

import json

import pytest
from files import encode, write
from squares import HEIGHT, SQUARE, WIDTH, square_of


@pytest.fixture
def scene_parsing(tmp_path):
    """A function of masks by name that writes them with a picture of the square each; returns the root."""

    def put(masks, split="training", table="Idx\tRatio\tName  \n1\t.1\tsky\n2\t.2\tbuilding, edifice\n3\t.3\ttree  \n"):
        root = tmp_path / "ADEChallengeData2016"
        write(root / "objectInfo150.txt", table)
        for name, mask in masks.items():
            write(root / "images" / split / f"{name}.png", encode(square_of(255)))
            if mask is not None:
                write(root / "annotations" / split / f"{name}.png", mask if isinstance(mask, bytes) else encode(mask))
        return root

    return put


@pytest.fixture
def instances(tmp_path):
    """A function of annotations (image's number, box, segmentation, what else) that writes them, with the images; returns the
    annotation file."""

    def put(objects, images=2, size=(WIDTH, HEIGHT), categories=("cat", "dog"), picture=None):
        for i in range(images):
            write(tmp_path / "val2017" / f"{i:012d}.png", picture or encode(square_of(255)))
        content = {
            "images": [{"id": 7 + i, "file_name": f"{i:012d}.png", "width": size[0], "height": size[1]} for i in range(images)],
            "categories": [{"id": 10 * i, "name": name} for i, name in enumerate(categories, start=1)],
            "annotations": [
                {"id": n, "image_id": 7 + i, "category_id": 10, "bbox": box, "segmentation": told, "iscrowd": 0, **more}
                for n, (i, box, told, more) in enumerate(objects)
            ],
        }
        return write(tmp_path / "annotations" / "instances_val2017.json", json.dumps(content))

    return put


@pytest.fixture
def one_square(instances):
    """The annotation file of six images of the square, the second without an object."""
    left, top, right, bottom = SQUARE
    polygon = [[left, top, right, top, right, bottom, left, bottom]]
    return instances([(i, [left, top, right - left, bottom - top], polygon, {}) for i in (0, 2, 3, 4, 5)], images=6)
