"""Drawings on painted grounds, with masks that are the drawings, in ADE20k's and COCO's layouts at once."""

import json

import numpy as np
import pytest
from files import encode
from PIL import Image, ImageDraw

from catlip_lite.data.demo import composites
from catlip_lite.data.demo.composites import (
    CLASSES,
    GROUND,
    PAGES,
    Drawing,
    box_of,
    compose,
    composites_annotations,
    cut_out,
    ground,
    run_lengths,
    write_composites,
)
from catlip_lite.data.demo.scenes import SPLITS, drawings_of
from catlip_lite.data.dense import IGNORED, load_objects, load_segmentation
from catlip_lite.data.labelled import load_labelled

COLOURS = {"apple": (200, 30, 30), "leaf": (30, 160, 30), "sky": (40, 60, 220)}


def picture(draw) -> bytes:
    """72 x 72 pixels of white paper with what `draw` puts on it."""
    page = Image.new("RGB", (72, 72), "white")
    draw(ImageDraw.Draw(page))
    return encode(page)


def block(colour) -> bytes:
    return picture(lambda pen: pen.rectangle((16, 26, 55, 45), fill=colour))


DRAWINGS = {name: [block(colour)] for name, colour in COLOURS.items()}
BLACK = Drawing(np.zeros((20, 40, 3), np.uint8), np.ones((20, 40), bool))


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """A folder with 40 scenes of both splits."""
    folder = tmp_path_factory.mktemp("composites")
    for split in ("train", "test"):
        write_composites(folder, split, DRAWINGS, 40)
    return folder


@pytest.fixture
def segmented(root):
    return load_segmentation(f"{root}#split=train")


@pytest.fixture
def detected(root, monkeypatch, tmp_path):
    monkeypatch.setenv("CATLIP_CACHE", str(tmp_path))
    return load_objects(root / "annotations" / "instances_train.json")


# --- a drawing ----------------------------------------------------------------------------------------------------------------


def test_white_inside_an_outline_is_drawing_and_white_outside_is_paper():
    ring = cut_out(picture(lambda pen: pen.ellipse((10, 20, 49, 59), fill="white", outline="black", width=3)))
    assert ring.inked.shape == ring.pixels.shape[:2] == (40, 40)
    assert ring.inked[20, 20] and not ring.inked[0, 0]
    assert ring.inked.sum() == pytest.approx(np.pi * 20**2, rel=0.03)
    assert (ring.pixels[ring.inked].min(), ring.pixels[20, 20].min()) == (0, 255)


def test_white_that_is_open_to_the_border_is_paper():
    def horseshoe(pen):
        pen.rectangle((10, 10, 60, 60), fill="black")
        pen.rectangle((30, 30, 40, 71), fill="white")

    drawing = cut_out(picture(horseshoe))
    assert drawing.inked.sum() == 51 * 51 - 11 * 31


def test_pages_of_lines_or_nothing_are_no_drawings():
    assert cut_out(picture(lambda pen: None)) is None
    assert cut_out(picture(lambda pen: pen.line((5, 5, 60, 60), fill="black"))) is None


# --- a scene ------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(12))
def test_masks_are_the_pixels_that_differ_from_the_ground(seed):
    scene = compose(np.random.default_rng(seed), {"block": [BLACK]})
    rng = np.random.default_rng(seed)
    width, height = PAGES[rng.integers(len(PAGES))]
    page = ground(rng, width, height)
    covered = scene.masks.any(axis=0)
    assert (scene.pixels[~covered] == page[~covered]).all()
    assert (scene.pixels[covered] == 0).all() and (page > 0).all()


def test_no_pixel_is_of_two_drawings():
    for seed in range(12):
        assert compose(np.random.default_rng(seed), {"block": [BLACK]}).masks.sum(axis=0).max() == 1


def test_of_each_drawing_seven_tenths_are_seen(monkeypatch):
    monkeypatch.setattr(composites, "SIDES", (40, 40))
    shares = np.array([mask.sum() / 800 for s in range(60) for mask in compose(np.random.default_rng(s), {"b": [BLACK]}).masks])
    assert 0.7 <= shares.min() < 0.95 and shares.max() == 1


def test_a_scene_has_one_to_four_drawings():
    counts = {len(compose(np.random.default_rng(seed), {"block": [BLACK]}).labels) for seed in range(60)}
    assert counts == {1, 2, 3, 4}


# --- the files ----------------------------------------------------------------------------------------------------------------


def test_both_layouts_tell_the_same(segmented, detected):
    assert segmented.classes == ["background", "apple", "leaf", "sky"]
    assert detected.classes == ["apple", "leaf", "sky"]
    assert len(segmented) == len(detected) == 40
    for i in range(40):
        assert segmented.files.path(i) == detected.files.path(i)
        mask, expected = segmented.mask(i), np.zeros(segmented.mask(i).shape, np.uint8)
        classes, boxes, masks, crowd = detected.objects(i)
        for class_index, box, seen in zip(classes, boxes, masks, strict=True):
            expected[seen == 1] = class_index + 1
            left, top, width, height = box_of(seen.astype(bool))
            assert box.tolist() == [left, top, left + width, top + height]
        assert (mask == expected).all()
        assert not crowd.any() and IGNORED not in mask


def test_a_masks_pixels_have_its_drawings_colour(detected):
    for i in range(10):
        pixels = np.asarray(Image.open(detected.files.path(i))).astype(int)
        for class_index, mask in zip(*(detected.objects(i)[part] for part in (0, 2)), strict=True):
            off = np.abs(pixels[mask == 1] - COLOURS[detected.classes[class_index]]).max(axis=1)
            assert np.median(off) <= 2


def test_areas_are_those_of_the_masks(detected):
    pixels = [mask.sum() for i in range(len(detected)) for mask in detected.objects(i)[2]]
    assert detected.areas.tolist() == pixels


def test_they_are_multi_label_images_too(root):
    images = load_labelled(root / "annotations" / "instances_test.json")
    assert images.multi_label and len(images) == 40 and images.counts.min() >= 1


def test_the_same_split_gives_the_same_scenes_and_another_others(root, tmp_path):
    write_composites(tmp_path, "train", DRAWINGS, 5)
    for kind in ("images", "annotations"):
        same, other = ((root / kind / split / "000003.png").read_bytes() for split in ("train", "test"))
        assert (tmp_path / kind / "train" / "000003.png").read_bytes() == same != other


def test_run_lengths_are_column_after_column():
    mask = np.zeros((3, 2), bool)
    mask[1:, 0] = mask[0, 1] = True
    assert run_lengths(mask) == {"size": [3, 2], "counts": [1, 3, 2]}
    mask[0, 0] = True
    assert run_lengths(mask) == {"size": [3, 2], "counts": [0, 4, 2]}
    json.dumps(run_lengths(mask))


def test_both_vendors_draw_each_class_solidly():
    for part, least in (("train", 18), ("test", 3)):
        drawings = drawings_of(SPLITS[part])
        assert min(sum(cut_out(drawing) is not None for drawing in drawings[name]) for name in CLASSES) >= least


def test_the_demos_addresses_are_written_once_for_every_loader(monkeypatch, tmp_path):
    monkeypatch.setattr(composites, "SCENES", {"train": 3, "test": 2})
    monkeypatch.setattr(composites, "cache_folder", lambda: tmp_path)
    train, test = (load_segmentation(f"demo/composites_{split}") for split in ("train", "test"))
    assert (len(train), len(test), train.classes, test.classes) == (3, 2, [GROUND, *CLASSES], [GROUND, *CLASSES])
    monkeypatch.setattr(composites, "write_composites", None)
    objects, labelled = load_objects("demo/composites_test"), load_labelled("demo/composites_test")
    assert objects.classes == labelled.classes == list(CLASSES)
    assert [objects.files.path(i) for i in range(2)] == [labelled.files.path(i) for i in range(2)]


def test_an_unknown_split_is_refused():
    with pytest.raises(ValueError, match="no composites 'val': choose one of train, test"):
        composites_annotations("val")
