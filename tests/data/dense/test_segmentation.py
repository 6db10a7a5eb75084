"""ADE20k's images and masks: found as they are downloaded, class numbers read as such, damaged ones named."""

import numpy as np
import pytest
from files import encode, write
from PIL import Image
from squares import HEIGHT, WIDTH, square_of

from catlip_lite.data.dense import IGNORED, load_segmentation


def test_class_numbers_begin_at_1_and_0_is_ignored(scene_parsing):
    images = load_segmentation(scene_parsing({"a": square_of(3), "b": square_of(1, ground=2)}) / "images" / "training")
    assert images.classes == ["sky", "building", "tree"]
    assert [images.files.name(i)[-5:] for i in range(2)] == ["a.png", "b.png"]
    for i, (inside, outside) in enumerate([(2, IGNORED), (0, 1)]):
        mask = images.mask(i)
        assert mask.dtype == np.uint8
        assert mask.tolist() == square_of(inside, outside).tolist()


def test_a_split_of_the_root_is_its_folder(scene_parsing):
    scene_parsing({"a": square_of(1)}, split="training")
    root = scene_parsing({"b": square_of(1), "c": square_of(1)}, split="validation")
    images = load_segmentation(f"{root}#split=validation")
    assert (len(images), images.fingerprint) == (2, load_segmentation(root / "images" / "validation").fingerprint)
    assert images.fingerprint != load_segmentation(root / "images" / "training").fingerprint


def test_a_root_with_splits_wants_one_of_them(scene_parsing):
    root = scene_parsing({"a": square_of(1)})
    with pytest.raises(ValueError, match="images holds training: choose one, e.g. .*#split=training"):
        load_segmentation(root)
    with pytest.raises(ValueError, match="no split 'test': its images/ holds training"):
        load_segmentation(f"{root}#split=test")
    with pytest.raises(ValueError, match="no field 'label'"):
        load_segmentation(f"{root}#label=sky")


def test_own_images_without_splits_have_classes_in_a_plain_list(tmp_path):
    for folder, pixels in (("images", square_of(255)), ("annotations", square_of(1, ground=2))):
        write(tmp_path / folder / "x.png", encode(pixels))
    with pytest.raises(FileNotFoundError, match="has no list of classes, objectInfo150.txt or classes.txt"):
        load_segmentation(tmp_path)
    write(tmp_path / "classes.txt", "leaf\nsoil\n")
    images = load_segmentation(tmp_path)
    assert images.classes == ["leaf", "soil"]
    assert np.unique(images.mask(0)).tolist() == [0, 1]


def test_a_palette_masks_classes_are_its_indices(scene_parsing):
    palette = Image.fromarray(square_of(3, ground=1)).convert("L")
    palette.putpalette([255 - i // 3 for i in range(768)])
    assert palette.mode == "P"
    images = load_segmentation(f"{scene_parsing({'a': encode(palette)})}#split=training")
    assert images.mask(0).tolist() == square_of(2, ground=0).tolist()


def test_a_mask_of_16_bits_is_read_by_value(scene_parsing):
    images = load_segmentation(f"{scene_parsing({'a': square_of(2, dtype=np.uint16)})}#split=training")
    assert images.mask(0).tolist() == square_of(1, IGNORED).tolist()


def test_255_is_ignored_too(scene_parsing):
    images = load_segmentation(f"{scene_parsing({'a': square_of(2, ground=255)})}#split=training")
    assert images.mask(0).tolist() == square_of(1, IGNORED).tolist()


@pytest.mark.parametrize(
    ("mask", "told"),
    [
        (square_of(4), "a.png has class number 4, but 3 classes are listed"),
        (square_of(300, dtype=np.uint16), "a.png has class number 300"),
        (np.zeros((HEIGHT, WIDTH, 3), np.uint8), "a.png is RGB, where a mask has one channel"),
        (b"no image", "a.png: unreadable mask"),
        (encode(square_of(1))[:60], "a.png: unreadable mask"),
    ],
    ids=["beyond the list", "beyond a byte", "colours", "no image", "cut off"],
)
def test_what_is_no_mask_of_these_classes_is_named(scene_parsing, mask, told):
    images = load_segmentation(f"{scene_parsing({'a': mask})}#split=training")
    with pytest.raises(ValueError, match=told):
        images.mask(0)


def test_missing_masks_are_counted_or_skipped(scene_parsing):
    root = scene_parsing({"a": square_of(1), "b": None, "c": square_of(2)})
    with pytest.raises(FileNotFoundError, match=r"masks of .*training: 1 of 3 .* are not in .*annotations/training .*b.png"):
        load_segmentation(f"{root}#split=training")
    images = load_segmentation(f"{root}#split=training&missing=skip")
    assert [images.files.name(i)[-5:] for i in range(2)] == [images.masks.name(i)[-5:] for i in range(2)] == ["a.png", "c.png"]
    assert images.mask(1).max() == IGNORED and images.mask(1).min() == 1


def test_an_empty_image_is_left_out_with_its_mask(scene_parsing):
    root = scene_parsing({"a": square_of(1), "b": square_of(2)})
    write(root / "images" / "training" / "a.png", b"")
    images = load_segmentation(f"{root}#split=training")
    assert (len(images), images.mask(0).min()) == (1, 1)


def test_other_folders_are_refused(tmp_path, make_png):
    write(tmp_path / "pictures" / "a.png", make_png())
    with pytest.raises(ValueError, match="does not lie in a folder images/"):
        load_segmentation(tmp_path / "pictures")
    with pytest.raises(FileNotFoundError, match="nowhere is no folder"):
        load_segmentation(tmp_path / "nowhere")


def test_scenes_of_the_demo_without_masks_are_refused():
    with pytest.raises(ValueError, match="demo/scenes_train has no masks"):
        load_segmentation("demo/scenes_train")


@pytest.mark.parametrize(
    ("table", "told"),
    [
        ("Idx\tName\n1\tsky\n3\ttree\n", "numbers its 2 classes from 1 to 3"),
        ("number\tname\n1\tsky\n", "is no list of classes .*columns Idx and Name"),
        ("Idx\tName\n1\tsky\n2\tSky\n", "differ only in spelling"),
        ("Idx\tName\n" + "".join(f"{i}\tc{i}\n" for i in range(1, 256)), "lists 255 classes: .* tell 254 apart"),
    ],
)
def test_a_list_of_classes_that_masks_cannot_be_read_by_is_refused(scene_parsing, table, told):
    root = scene_parsing({"a": square_of(1)}, table=table)
    with pytest.raises(ValueError, match=told):
        load_segmentation(f"{root}#split=training")


def test_the_table_may_be_separated_by_commas(scene_parsing):
    root = scene_parsing({"a": square_of(1)}, table="Idx,Ratio,Stuff,Name\n1,.1,1,wall\n2,.2,0,building;edifice\n")
    assert load_segmentation(f"{root}#split=training").classes == ["wall", "building"]


def test_some_of_the_images_keep_their_masks(scene_parsing):
    images = load_segmentation(f"{scene_parsing({name: square_of(i) for i, name in enumerate('abc', start=1)})}#split=training")
    taken = images.take([2, 0])
    assert [taken.mask(i).min() for i in range(2)] == [2, 0]
    assert taken.files.name(0).endswith("c.png") and taken.masks.name(0).endswith("c.png")
    assert images.sample(None) is images and len(images.sample(2)) == 2
    assert len({images.fingerprint, taken.fingerprint, images.sample(2).fingerprint}) == 3
