"""Objects with class, box and mask, as COCO annotates them: however masks are written; what is left out, what is refused."""

import logging

import numpy as np
import pytest
from faster_coco_eval.core import mask as mask_api
from squares import HEIGHT, SQUARE, WIDTH, square_of

from catlip_lite.data.demo.composites import run_lengths
from catlip_lite.data.dense import load_objects

pytestmark = pytest.mark.usefixtures("own_cache")
left, top, right, bottom = SQUARE
BOX = [left, top, right - left, bottom - top]
POLYGON = [[left, top, right, top, right, bottom, left, bottom]]
RUNS = run_lengths(square_of(1).astype(bool))
COMPRESSED = {"size": [HEIGHT, WIDTH], "counts": mask_api.frPyObjects(RUNS, HEIGHT, WIDTH)["counts"].decode()}


@pytest.mark.parametrize("told", [POLYGON, RUNS, COMPRESSED], ids=["polygons", "run lengths", "compressed"])
def test_masks_are_the_same_however_they_are_written(instances, told):
    images = load_objects(instances([(1, BOX, told, {"category_id": 20})]))
    class_index, boxes, masks, crowd = images.objects(1)
    assert (images.classes, class_index.tolist(), crowd.tolist()) == (["cat", "dog"], [1], [False])
    assert (boxes.dtype, boxes.tolist()) == (np.float32, [list(SQUARE)])
    assert (masks.dtype, masks[0].tolist()) == (np.uint8, square_of(1).tolist())


def test_objects_come_by_image_whatever_the_files_order(instances):
    images = load_objects(
        instances([(2, BOX, POLYGON, {}), (0, BOX, POLYGON, {"category_id": 20}), (2, BOX, POLYGON, {})], images=3)
    )
    assert [len(images.objects(i)[0]) for i in range(3)] == [1, 0, 2]
    assert images.objects(0)[0].tolist() == [1]
    class_index, boxes, masks, crowd = images.objects(1)
    assert (class_index.shape, boxes.shape, masks.shape, crowd.shape) == ((0,), (0, 4), (0, HEIGHT, WIDTH), (0,))


def test_several_polygons_are_one_mask_as_pycocotools_has_it(instances):
    pycocotools = pytest.importorskip("pycocotools.mask")
    polygons = [[3.2, 4.7, 20.1, 6.3, 11.9, 30.4], [15.5, 2.5, 40.2, 9.9, 33.3, 25.1, 18.8, 20.6]]
    images = load_objects(instances([(0, [3, 2, 38, 29], polygons, {})]))
    expected = pycocotools.decode(pycocotools.merge(pycocotools.frPyObjects(polygons, HEIGHT, WIDTH)))
    assert 0 < expected.sum() == images.objects(0)[2].sum()
    assert (images.objects(0)[2][0] == expected).all()


def test_crowds_are_told_as_such(instances):
    images = load_objects(instances([(0, BOX, RUNS, {"iscrowd": 1}), (0, BOX, POLYGON, {})]))
    assert images.objects(0)[3].tolist() == [True, False]


def test_boxes_are_clipped_to_the_image_and_empty_ones_are_left_out(instances, caplog):
    boxes = [[-5, -5, 20, 20], [50, 30, 99, 99], [10, 10, 0, 5], [WIDTH, 0, 5, 5], [-9, 0, 9, 5]]
    images = load_objects(instances([(0, box, POLYGON, {}) for box in boxes]))
    assert images.objects(0)[1].tolist() == [[0, 0, 15, 15], [50, 30, WIDTH, HEIGHT]]
    assert "3 of 5 objects are left out: 3 have a box without area in their image, 0 a mask without a pixel" in caplog.text


@pytest.mark.parametrize(
    "told",
    [[], None, [[1, 1, 5, 5]], [[70, 50, 75, 50, 75, 55]], {"size": [HEIGHT, WIDTH], "counts": [WIDTH * HEIGHT]}],
    ids=["no polygon", "nothing", "a line", "outside", "run lengths of nothing"],
)
def test_objects_without_a_pixel_are_left_out(instances, told, caplog):
    images = load_objects(instances([(0, BOX, told, {}), (0, BOX, POLYGON, {"category_id": 20})]))
    assert images.objects(0)[0].tolist() == [1]
    assert "1 of 2 objects are left out: 0 have a box without area in their image, 1 a mask without a pixel" in caplog.text


def test_annotations_of_boxes_alone_are_refused(instances):
    with pytest.raises(ValueError, match="none of its 2 objects has a box and a mask"):
        load_objects(instances([(0, BOX, [], {})] * 2))


def test_a_file_of_images_without_objects_is_kept(instances, caplog):
    with caplog.at_level(logging.WARNING):
        images = load_objects(instances([]))
    assert (len(images), [len(images.objects(i)[0]) for i in range(2)]) == (2, [0, 0])
    assert not caplog.text


@pytest.mark.parametrize(
    ("told", "why"),
    [
        ([[1, 1, 5, 5, 9, 9, 3]], "annotation 1: a polygon has an odd count of numbers"),
        ({"size": [WIDTH, HEIGHT], "counts": RUNS["counts"]}, "annotation 1: its mask is 40 x 60 pixels, its image 60 x 40"),
        ({"size": [HEIGHT, WIDTH], "counts": [5, 9]}, "annotation 1: its run lengths are of 14 pixels, its image has 2,400"),
        ({"size": [HEIGHT, WIDTH], "counts": "05"}, "annotation 1: "),
        ({"counts": [5, 9]}, "annotation 1: "),
        ("a mask", "annotation 1: its segmentation is a str"),
        ([["a", 1, 2, 3, 4, 5]], "annotation 1: "),
        ([[1e9, 1, 2, 3, 4, 5]], "annotation 1: a polygon goes further than 600 pixels"),
        ([[float("nan"), 1, 2, 3, 4, 5]], "annotation 1: a polygon goes further than 600 pixels"),
    ],
    ids=["odd polygon", "size", "too few runs", "too few compressed", "no size", "text", "no numbers", "far off", "NaN"],
)
def test_masks_that_cannot_be_read_are_refused_by_number(instances, told, why):
    with pytest.raises(
        ValueError, match=f"instances_val2017.json: 1 of 2 objects have masks that cannot be read, such as {why}"
    ):
        load_objects(instances([(0, BOX, POLYGON, {}), (0, BOX, told, {})]))


def test_images_without_a_size_are_refused(instances):
    with pytest.raises(ValueError, match="2 of 2 images have no width and height: 000000000000.png"):
        load_objects(instances([(0, BOX, POLYGON, {})], size=(0, 0)))


@pytest.mark.parametrize(("wrong", "told"), [({"category_id": 99}, "category_ids .*99"), ({"image_id": 99}, "image_ids .*99")])
def test_classes_and_images_that_the_file_does_not_list_are_refused(instances, wrong, told):
    with pytest.raises(ValueError, match=f"1 of 1 annotations have {told}"):
        load_objects(instances([(0, BOX, POLYGON, wrong)]))


def test_annotations_of_other_images_are_refused(instances, tmp_path):
    path = instances([(0, BOX, POLYGON, {})])
    for picture in (tmp_path / "val2017").iterdir():
        picture.rename(picture.with_name(f"other-{picture.name}"))
    with pytest.raises(FileNotFoundError, match="instances_val2017.json: 2 of 2 images .* are not in .*val2017"):
        load_objects(path)


def test_what_is_no_annotation_file_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="is no annotation file: objects are annotated as COCO's are"):
        load_objects(tmp_path)


def test_images_that_are_missing_are_skipped_with_their_objects(instances, tmp_path):
    path = instances([(0, BOX, POLYGON, {}), (1, BOX, POLYGON, {"category_id": 20})])
    (tmp_path / "val2017" / "000000000000.png").unlink()
    images = load_objects(f"{path}#missing=skip")
    assert (len(images), images.objects(0)[0].tolist()) == (1, [1])


def test_some_of_the_images_keep_their_objects(instances):
    objects = [(i, [left, top, 5 + i, 5], POLYGON, {"area": 100 + i}) for i in range(4)]
    images = load_objects(instances(objects, images=5))
    taken = images.take([3, 4, 1])
    assert [[box[2] - left for box in taken.objects(i)[1].tolist()] for i in range(3)] == [[8], [], [6]]
    assert taken.areas.tolist() == [103, 101]
    assert taken.objects(2)[2].tolist() == images.objects(1)[2].tolist()
    assert len({images.fingerprint, taken.fingerprint, images.sample(2).fingerprint}) == 3
    assert len(images.sample(2)) == 2 and images.sample(9) is images


def test_what_a_large_file_holds_is_kept(instances, every_index_is_kept, monkeypatch):
    path = instances([(0, BOX, POLYGON, {}), (1, BOX, RUNS, {})])
    first = load_objects(path)
    monkeypatch.setattr("catlip_lite.data.dense.objects.scan_annotations", None)
    again = load_objects(path)
    assert again.fingerprint == first.fingerprint
    assert again.objects(1)[2].tolist() == first.objects(1)[2].tolist()


def test_an_evaluator_finds_its_own_objects_right_crowds_aside(instances):
    faster_coco_eval = pytest.importorskip("faster_coco_eval")
    objects = [
        (0, BOX, POLYGON, {}),
        (1, [0, 0, 9, 9], [[0, 0, 9, 0, 9, 9, 0, 9]], {"category_id": 20}),
        (1, BOX, RUNS, {"iscrowd": 1}),
    ]
    truth = load_objects(instances(objects)).as_coco()
    found = [{**one, "score": 0.9} for one in truth["annotations"] if not one["iscrowd"]]
    coco = faster_coco_eval.COCO(truth)
    for kind in ("bbox", "segm"):
        evaluation = faster_coco_eval.COCOeval_faster(coco, coco.loadRes(found), kind)
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
        assert evaluation.stats[0] == pytest.approx(1.0)
