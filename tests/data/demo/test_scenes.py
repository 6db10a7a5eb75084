"""Scenes composed of drawings, annotated as COCO is."""

import json
from collections import Counter

import numpy as np
import pytest
from files import encode
from PIL import Image

from catlip_lite.data.demo.scenes import MOST_OVERLAP, scene_labels, scenes_annotations, write_scenes
from catlip_lite.data.labelled import load_labelled

COLOURS = {"apple": (200, 30, 30), "leaf": (30, 160, 30), "sky": (40, 60, 220), "coal": (20, 20, 20)}


def drawing(colour) -> bytes:
    """A coloured block in the middle of a white square."""
    picture = Image.new("RGB", (72, 72), "white")
    picture.paste(colour, (16, 26, 56, 46))
    return encode(picture)


DRAWINGS = {name: [drawing(colour)] * (9 if name == "apple" else 1) for name, colour in COLOURS.items()}


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    """A folder with 60 scenes in COCO's layout, and its annotations."""
    folder = tmp_path_factory.mktemp("scenes")
    for name in ("train", "annotations"):
        (folder / name).mkdir()
    annotations = write_scenes(folder / "train", DRAWINGS, 60, "seed")
    (folder / "annotations" / "instances_train.json").write_text(json.dumps(annotations))
    return folder, annotations


def boxes_of(annotations, image):
    return [a["bbox"] for a in annotations["annotations"] if a["image_id"] == image]


def test_a_scene_shows_one_to_four_distinct_labels_here(scenes):
    # There are but four labels to draw from; a page may be too full for the last of them.
    _, annotations = scenes
    for image in annotations["images"]:
        labels = [a["category_id"] for a in annotations["annotations"] if a["image_id"] == image["id"]]
        assert len(labels) == len(set(labels)) and 1 <= len(labels) <= 4


def test_boxes_lie_inside_their_page(scenes):
    _, annotations = scenes
    sizes = {image["id"]: (image["width"], image["height"]) for image in annotations["images"]}
    for a in annotations["annotations"]:
        (left, top, w, h), (width, height) = a["bbox"], sizes[a["image_id"]]
        assert left >= 0 and top >= 0 and left + w <= width and top + h <= height


def test_drawings_hardly_overlap(scenes):
    _, annotations = scenes
    for image in annotations["images"]:
        boxes = boxes_of(annotations, image["id"])
        for i, (x, y, w, h) in enumerate(boxes):
            for x2, y2, w2, h2 in boxes[:i]:
                shared = max(0, min(x + w, x2 + w2) - max(x, x2)) * max(0, min(y + h, y2 + h2) - max(y, y2))
                assert shared <= MOST_OVERLAP * min(w * h, w2 * h2)


def test_a_box_holds_its_drawing_and_nothing_but_ink(scenes):
    folder, annotations = scenes
    names = {c["id"]: c["name"] for c in annotations["categories"]}
    for a in annotations["annotations"]:
        pixels = np.asarray(Image.open(folder / "train" / f"{a['image_id']:06d}.png")).astype(int)
        left, top, w, h = a["bbox"]
        middle = pixels[top + h // 2, left + w // 2]
        assert abs(w / h - 2) < 0.2  # the block is 40 x 20
        assert (middle <= np.array(COLOURS[names[a["category_id"]]]) + 1).all()


def test_the_same_seed_gives_the_same_scenes(scenes, tmp_path):
    folder, annotations = scenes
    assert write_scenes(tmp_path, DRAWINGS, 60, "seed") == annotations
    assert (tmp_path / "000007.png").read_bytes() == (folder / "train" / "000007.png").read_bytes()


def test_another_seed_gives_other_scenes(scenes, tmp_path):
    assert write_scenes(tmp_path, DRAWINGS, 60, "other")["annotations"] != scenes[1]["annotations"]


def test_a_label_with_more_drawings_is_more_frequent(scenes):
    names = {category["id"]: category["name"] for category in scenes[1]["categories"]}
    shown = Counter(names[annotation["category_id"]] for annotation in scenes[1]["annotations"])
    assert shown.most_common(1)[0][0] == "apple" and shown["apple"] > 1.3 * shown["leaf"]


def test_they_are_read_as_coco_is(scenes):
    folder, annotations = scenes
    images = load_labelled(folder / "annotations" / "instances_train.json")
    assert len(images) == 60 and images.multi_label and images.classes == sorted(COLOURS)
    assert images.boxes.xywh.tolist() == [a["bbox"] for a in annotations["annotations"]]
    assert images.boxes.size[0].tolist() == [annotations["images"][0]["width"], annotations["images"][0]["height"]]


def test_signs_and_what_the_test_vendor_draws_once_are_no_labels():
    train = {"cat": [b""] * 9, "button": [b""] * 99, "dog": [b""] * 5, "owl": [b""] * 7}
    assert scene_labels({"train": train, "test": {"cat": [b""] * 2, "button": [b""] * 9, "dog": [b""] * 3, "owl": [b""]}}) == [
        "cat",
        "dog",
    ]


def test_an_unknown_split_is_refused():
    with pytest.raises(ValueError, match="no scenes 'val'"):
        scenes_annotations("val")
