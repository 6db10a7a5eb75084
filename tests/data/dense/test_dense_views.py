"""What training sees of an image, its mask and its objects: they move together."""

import numpy as np
import pytest
import torch
from files import encode, write
from squares import HEIGHT, SQUARE, WIDTH, square_of
from torchvision.ops import masks_to_boxes

from catlip_lite.data.dense import IGNORED, DetectionViews, SegmentationViews, load_objects, load_segmentation

pytestmark = pytest.mark.usefixtures("own_cache")
SEEDS = range(40)


def drawn(views, images, size, i=0):
    """A view of an image for each seed."""
    for seed in SEEDS:
        torch.manual_seed(seed)
        yield views(images, i, size)


def box_of(mask) -> torch.Tensor:
    """Left, top, right and bottom of what is set: float32 [4]."""
    return masks_to_boxes(mask[None].byte())[0] + torch.tensor([0.0, 0.0, 1.0, 1.0])


@pytest.mark.parametrize(("fit", "size"), [("squash", 48), ("squash", 96), ("jitter", 64)])
def test_a_square_its_box_and_its_mask_move_together(one_square, fit, size):
    images, seen, sides, mirrored = load_objects(one_square), 0, set(), 0
    for view in drawn(DetectionViews(fit), images, size):
        assert (view.image.shape, view.image.dtype) == ((3, size, size), torch.uint8)
        assert (view.masks.dtype, view.boxes.dtype, view.classes.dtype) == (torch.uint8, torch.float32, torch.int64)
        bright = view.image[0] > 127
        if not len(view.boxes):
            assert fit == "jitter" and bright.sum() < 8
            continue
        assert view.classes.tolist() == [0]
        assert (box_of(view.masks[0]) - view.boxes[0]).abs().max() <= 1
        assert (box_of(bright) - view.boxes[0]).abs().max() <= 1
        seen += 1
        sides.add(int(view.boxes[0, 2] - view.boxes[0, 0]))
        mirrored += int(view.boxes[0, 0] > size - view.boxes[0, 2])
    assert seen > 20
    if fit == "squash":
        assert sides == {round((SQUARE[2] - SQUARE[0]) * size / WIDTH)}
        assert 10 < mirrored < 30
    else:
        assert len(sides) > 10


def test_squashed_boxes_are_the_annotated_ones_in_the_views_pixels(one_square):
    view = DetectionViews("squash", flip=0)(load_objects(one_square), 0, 48)
    left, top, right, bottom = SQUARE
    expected = [left * 48 / WIDTH, top * 48 / HEIGHT, right * 48 / WIDTH, bottom * 48 / HEIGHT]
    assert view.boxes[0].tolist() == pytest.approx(expected)


def test_what_jitter_shrinks_is_padded_to_the_right_and_below_with_black(instances):
    picture = encode(np.full((HEIGHT, WIDTH), 255, np.uint8))
    images = load_objects(instances([], picture=picture))
    inside = torch.zeros(60, 60, dtype=torch.bool)
    inside[:20, :30] = True
    for view in drawn(DetectionViews("jitter", scale=(0.5, 0.5)), images, 60):
        assert (view.image[0] > 0).equal(inside)


def test_crowds_and_objects_out_of_view_are_left_out(instances):
    left, top, right, bottom = SQUARE
    polygon, box = [[left, top, right, top, right, bottom, left, bottom]], [left, top, right - left, bottom - top]
    crowd, speck = {"iscrowd": 1}, [[50.0, 30.0, 50.9, 30.0, 50.9, 30.9, 50.0, 30.9]]
    objects = [(0, box, polygon, crowd), (0, box, polygon, {"category_id": 20}), (0, [50, 30, 1, 1], speck, {})]
    images = load_objects(instances(objects))
    assert 0 < DetectionViews()(images, 0, 120).classes.numel() <= 2
    assert DetectionViews()(images, 0, 24).classes.tolist() == [1]  # the speck is a third of a pixel wide
    for view in drawn(DetectionViews("jitter", scale=(2.0, 2.0)), images, 64):
        assert len(view.classes) == len(view.boxes) == len(view.masks)
        assert view.masks.flatten(1).any(dim=1).all()


def test_an_image_without_objects_has_a_view_without(one_square):
    images = load_objects(one_square)
    for fit in ("squash", "jitter"):
        view = DetectionViews(fit)(images, 1, 32)
        assert (view.boxes.shape, view.masks.shape, view.classes.shape) == ((0, 4), (0, 32, 32), (0,))
        assert view.image.any()


def test_an_image_of_another_size_than_annotated_is_refused(instances):
    images = load_objects(instances([], picture=encode(square_of(9)[:, :50])))
    with pytest.raises(ValueError, match="000000000000.png is 50 x 40 pixels, annotated are 60 x 40"):
        DetectionViews()(images, 0, 32)


def test_an_unknown_fit_is_refused():
    with pytest.raises(ValueError, match="fit='crop' is unknown: choose one of squash, jitter"):
        DetectionViews("crop")


# --- segmentation -------------------------------------------------------------------------------------------------------------


@pytest.fixture
def segmented(scene_parsing):
    """An image whose bright square is a building under the sky."""
    return load_segmentation(f"{scene_parsing({'a': square_of(2, ground=1)})}#split=training")


@pytest.mark.parametrize("size", [32, 64])
def test_a_mask_moves_with_its_image(segmented, size):
    buildings = set()
    for view in drawn(SegmentationViews(), segmented, size):
        assert (view.image.shape, view.masks.shape, view.boxes) == ((3, size, size), (1, size, size), None)
        assert view.image.dtype == view.masks.dtype == torch.uint8
        bright, building = view.image[0] > 127, view.masks[0] == 1
        edges = 2 * (2 * size + 2 * size)  # a pixel along the square's outline, at most
        assert (bright != building).sum() <= edges / 4
        if building.sum() > 16 and bright.any():
            assert (box_of(bright) - box_of(building)).abs().max() <= 1
        buildings.add(int(building.sum()))
    assert len(buildings) > 15


def test_what_a_crop_lacks_is_black_and_ignored(segmented):
    sizes = set()
    for view in drawn(SegmentationViews((0.5, 0.5)), segmented, 60):
        ignored = view.masks[0] == IGNORED
        assert not view.image[:, ignored].any()
        assert not ignored[:30, :45].any() and ignored[30:].all() and ignored[:, 45:].all()
        sizes.add(int(ignored.sum()))
    assert sizes == {60 * 60 - 30 * 45}


def test_the_long_side_has_at_most_two_of_the_view(scene_parsing, tmp_path):
    root = scene_parsing({"a": np.ones((20, 200), np.uint8)})
    write(root / "images" / "training" / "a.png", encode(np.full((20, 200), 255, np.uint8)))
    images = load_segmentation(f"{root}#split=training")
    for view in drawn(SegmentationViews(), images, 32):  # 6 x 64 pixels, whatever is drawn
        assert (view.masks[0] != IGNORED).sum() == 6 * 32


def test_a_crop_of_one_class_is_drawn_again(scene_parsing):
    root = scene_parsing({"a": square_of(2, ground=1)})
    images = load_segmentation(f"{root}#split=training")

    def of_one_class(views):
        shares = [torch.bincount(view.masks.flatten(), minlength=256)[:255] for view in drawn(views, images, 24)]
        return sum(int(counts.max() > 0.75 * counts.sum()) for counts in shares)

    any_crop, balanced = (of_one_class(SegmentationViews((1.5, 1.5), most)) for most in (1.0, 0.75))
    assert any_crop > 15 > 5 > balanced


def test_a_mask_of_another_size_than_its_image_is_refused(scene_parsing):
    images = load_segmentation(f"{scene_parsing({'a': square_of(1)[:, :50]})}#split=training")
    with pytest.raises(ValueError, match="annotations/training/a.png is 50 x 40 pixels, its image 60 x 40"):
        SegmentationViews()(images, 0, 32)


def test_an_image_too_thin_to_be_resized_is_refused(scene_parsing):
    root = scene_parsing({"a": np.ones((1, 500), np.uint8)})
    write(root / "images" / "training" / "a.png", encode(np.zeros((1, 500), np.uint8)))
    with pytest.raises(ValueError, match="500 x 1 pixels are too thin"):
        SegmentationViews()(load_segmentation(f"{root}#split=training"), 0, 32)


@pytest.mark.parametrize(
    "pixels",
    [square_of(255), np.dstack([square_of(255)] * 4), square_of(65535, dtype=np.uint16), np.dstack([square_of(255)] * 3)],
    ids=["grey", "RGBA", "16 bits", "RGB"],
)
def test_images_of_any_kind_of_pixels_are_seen_alike(scene_parsing, pixels):
    root = scene_parsing({"a": square_of(2, ground=1)})
    if pixels.ndim == 3 and pixels.shape[2] == 4:
        pixels[..., 3] = 255
    write(root / "images" / "training" / "a.png", encode(pixels))
    images = load_segmentation(f"{root}#split=training")
    views = SegmentationViews((1, 1), most_of_a_class=1, flip=0)
    view = views(images, 0, 40)
    assert ((view.image > 127) == (view.masks == 1)).all()


def test_an_image_without_a_labelled_pixel_is_seen_as_it_is(scene_parsing):
    images = load_segmentation(f"{scene_parsing({'a': square_of(0)})}#split=training")
    assert (SegmentationViews()(images, 0, 32).masks == IGNORED).all()
