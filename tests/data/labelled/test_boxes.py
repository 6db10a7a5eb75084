"""Labels follow what a view shows, whoever drew it."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from files import encode
from PIL import Image

from catlip_lite.data.images import AUGMENTATIONS, Evaluation
from catlip_lite.data.labelled.boxes import crop_looks, evaluation_looks, labels_in_view, labels_of_views, visible_shares
from catlip_lite.data.labelled.corpus import LabelledCorpus
from catlip_lite.data.labelled.images import Boxes, labelled_images
from catlip_lite.data.labelled.pointers import ImagePointers
from catlip_lite.data.loader import BatchSpec

WIDTH, HEIGHT, SIDE = 200, 150, 60
PLACES = [(5, 10, SIDE, SIDE), (125, 80, SIDE, SIDE)]  # of the two squares


def one_box(place, size=(100, 100), crowd=False):
    return Boxes(
        np.zeros(1, np.int64), np.zeros(1, np.int64), np.array([place], np.float32), np.array([crowd]), np.array([size])
    )


def shares(place, crop, size=(100, 100)):
    of_box, of_view = visible_shares(one_box(place, size), crop_looks(np.array([crop]), np.array([size])))
    return of_box[0], of_view[0]


@pytest.mark.parametrize(
    ("crop", "of_box", "of_view"),
    [
        ((0, 0, 100, 100), 1.0, 0.04),  # the whole image
        ((40, 40, 20, 20), 1.0, 1.0),  # just the box
        ((50, 0, 50, 100), 0.5, 0.04),  # its right half
        ((50, 50, 10, 10), 0.25, 1.0),  # its lower right quarter, close up
        ((0, 0, 40, 40), 0.0, 0.0),  # up to its edge
    ],
)
def test_shares_of_a_box_of_20_pixels_at_40_40(crop, of_box, of_view):
    assert shares((40, 40, 20, 20), crop) == pytest.approx((of_box, of_view), abs=1e-6)


def test_shares_do_not_depend_on_the_shape_of_the_image():
    assert shares((40, 20, 20, 10), (50, 0, 50, 50), (100, 50)) == pytest.approx((0.5, 0.04), abs=1e-6)


def test_a_mirrored_view_shows_the_same():
    looks = crop_looks(np.array([[10, 0, 40, 100]]), np.array([[100, 100]]), np.array([True]))
    assert visible_shares(one_box((0, 0, 20, 20)), looks)[0] == pytest.approx(0.5)


def labels(place, crop, crowd=False):
    looks = crop_looks(np.array([crop]), np.array([[100, 100]]))
    return labels_in_view(one_box(place, crowd=crowd), looks)[0].tolist()


def test_an_object_keeps_its_label_while_a_quarter_of_it_is_in_view():
    assert labels((40, 40, 20, 20), (54, 0, 46, 100)) == [0]
    assert labels((40, 40, 20, 20), (56, 0, 44, 100)) == []


def test_an_object_that_fills_half_of_the_view_keeps_its_label():
    assert labels((0, 0, 100, 100), (30, 30, 20, 20)) == [0]


def test_a_crowd_needs_to_fill_a_quarter_of_the_view():
    crop = (90, 90, 20, 20)  # a quarter of it lies on the box, a hundredth of the box lies in it
    assert labels((0, 0, 100, 100), crop, crowd=True) == [0]
    assert labels((0, 0, 100, 100), crop) == []


def test_two_objects_of_one_class_are_one_label():
    boxes = Boxes(
        np.array([0, 0, 1]),
        np.array([3, 3, 2]),
        np.tile(np.float32([1, 1, 8, 8]), (3, 1)),
        np.zeros(3, bool),
        np.full((3, 2), 10),
    )
    indices, rows = labels_in_view(boxes, crop_looks(np.array([[0, 0, 10, 10]] * 2), np.full((2, 2), 10)))
    assert (indices.tolist(), rows.tolist()) == ([3, 2], [0, 1])


# --- against pixels ----------------------------------------------------------------------------------------------------------


def picture() -> Image.Image:
    """Red tells a pixel's column, green its row, blue whether one of the squares is there."""
    pixels = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    pixels[..., 0], pixels[..., 1] = np.arange(WIDTH), np.arange(HEIGHT)[:, None]
    for left, top, w, h in PLACES:
        pixels[top : top + h, left : left + w, 2] = 255
    return Image.fromarray(pixels)


@pytest.fixture
def squares(tmp_path):
    """40 copies of the picture with two labels and boxes, and one file that is no image."""
    names = [f"{i:02d}.png" for i in range(41)]
    for name in names:
        (tmp_path / name).write_bytes(encode(picture()) if name != "07.png" else b"no image")
    count = len(names)
    boxes = Boxes(
        np.repeat(np.arange(count), 2),
        np.tile([0, 1], count),
        np.tile(np.float32(PLACES), (count, 1)),
        np.zeros(2 * count, bool),
        np.tile([WIDTH, HEIGHT], (2 * count, 1)).astype(np.int32),
    )
    files = ImagePointers.of_files(str(tmp_path), names)
    return labelled_images(files, ["one", "two"], np.tile([0, 1], count), [], counts=np.full(count, 2), boxes=boxes)


def seen_in(view: torch.Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Visible share of each square, and its share of the view, from the pixels of a view float [3, S, S] in 0..255."""
    red, green, blue = view
    columns, rows = (float(colour.max() - colour.min()) * view.shape[-1] / (view.shape[-1] - 1) for colour in (red, green))
    of_view = np.array([float(((blue > 127) & side).float().mean()) for side in (red < WIDTH / 2, red >= WIDTH / 2)])
    return of_view * columns * rows / SIDE**2, of_view


def views_and_labels(images, how, cache_gb, batches=4):
    corpus = LabelledCorpus(images, 48, how, labels_of="view", cache_gb=cache_gb, workers=0)
    for number in range(batches):
        batch = next(iter(corpus.batches([BatchSpec(40 * number, 40, 0, 40, 48)])))
        images = batch.images.float() * (255 if batch.images.is_floating_point() else 1)
        for row in range(len(batch)):
            yield images[row], set(batch.indices[batch.rows == row].tolist()), float(batch.weights[row])


@pytest.mark.parametrize("cache_gb", [1.0, 0.0], ids=["in memory", "streamed"])
def test_a_training_view_has_the_labels_of_the_squares_that_its_pixels_show(squares, cache_gb):
    told = {True: 0, False: 0}
    for view, found, weight in views_and_labels(squares, AUGMENTATIONS["paper"], cache_gb):
        if not weight:
            continue
        for label, (of_box, of_view) in enumerate(zip(*seen_in(view), strict=True)):
            expected = of_box >= 0.25 or of_view >= 0.5
            if abs(of_box - 0.25) > 0.06 and abs(of_view - 0.5) > 0.06:  # pixels are too coarse to tell nearer than that
                assert (label in found) == expected, (label, of_box, of_view)
                told[expected] += 1
    assert min(told.values()) > 30


@pytest.mark.parametrize("cache_gb", [1.0, 0.0], ids=["in memory", "streamed"])
def test_an_unreadable_image_has_no_labels(squares, cache_gb):
    weights = [(weight, found) for _, found, weight in views_and_labels(squares, AUGMENTATIONS["none"], cache_gb)]
    assert any(not weight for weight, _ in weights)
    assert all(found == ({0, 1} if weight else set()) for weight, found in weights)


@pytest.mark.parametrize("evaluation", [Evaluation(48), Evaluation(384)], ids=str)
def test_evaluation_sees_what_its_pixels_show(evaluation):
    (of_box, of_view) = seen_in(evaluation.view(picture()).float())
    boxes = Boxes(np.zeros(2, np.int64), np.arange(2), np.float32(PLACES), np.zeros(2, bool), np.tile([WIDTH, HEIGHT], (2, 1)))
    computed = visible_shares(boxes, evaluation_looks(boxes.size, evaluation))
    np.testing.assert_allclose(computed, (of_box, of_view), atol=0.04)


def test_labels_of_evaluation_views_leave_out_what_the_crop_cuts_off(squares, monkeypatch):
    # Of the middle 145 of 200 columns, the first square shows 38 of its 60, the second 47.
    monkeypatch.setattr("catlip_lite.data.labelled.boxes.LEAST_VISIBLE", 0.7)
    kept = labels_of_views(squares, Evaluation(48))
    assert set(kept.indices.tolist()) == {1}
    assert kept.fingerprint != squares.fingerprint


def test_labels_cannot_follow_the_view_without_boxes(squares):
    with pytest.raises(ValueError, match="only where boxes are known"):
        LabelledCorpus(replace(squares, boxes=None), 48, AUGMENTATIONS["paper"], labels_of="view")


def test_labels_cannot_follow_a_tilted_view(squares):
    with pytest.raises(ValueError, match="cannot follow a tilted view"):
        LabelledCorpus(squares, 48, AUGMENTATIONS["drawings"], labels_of="view")


def test_labels_of_the_image_stay_whatever_the_view_shows(squares):
    corpus = LabelledCorpus(squares, 48, AUGMENTATIONS["paper"], workers=0)
    batch = next(iter(corpus.batches([BatchSpec(0, 40, 0, 40, 48)])))
    assert len(batch.indices) == 2 * batch.weights.sum()
