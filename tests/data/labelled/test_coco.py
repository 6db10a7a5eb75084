"""COCO's detection annotations: multi-label, with boxes, wherever the images lie."""

import json

import pytest
from files import contents, write

from catlip_lite.data.labelled import load_labelled

pytestmark = pytest.mark.usefixtures("own_cache")
DOG, CAT, CAR = 18, 17, 3


def coco(categories, images, objects) -> str:
    return json.dumps(
        {
            "categories": [{"id": i, "name": name} for i, name in categories],
            "images": [{"id": i, "file_name": name, "height": 24, "width": 24} for i, name in images],
            "annotations": [
                {"id": n, "image_id": image, "category_id": category, "bbox": box, "iscrowd": crowd}
                for n, (image, category, box, crowd) in enumerate(objects)
            ],
        }
    )


@pytest.fixture
def annotations(tmp_path):
    """Three images: two cats and a dog; nothing; a crowd of cars."""
    objects = [(70, CAR, [5, 6, 7, 8], 1), (9, CAT, [0, 0, 10, 10], 0), (9, DOG, [1, 2, 3, 4.5], 0), (9, CAT, [9, 9, 2, 2], 0)]
    images = [(9, "000009.jpg"), (40, "000040.jpg"), (70, "000070.jpg")]
    text = coco([(DOG, "dog"), (CAT, "cat"), (CAR, "car")], images, objects)
    return write(tmp_path / "annotations" / "instances_val2017.json", text)


@pytest.fixture
def coco_pictures(tmp_path, pictures):
    """A function that puts the three images into a folder."""

    def put(folder):
        for name, picture in zip(("000009", "000040", "000070"), pictures, strict=False):
            write(tmp_path / folder / f"{name}.jpg", picture)

    return put


@pytest.mark.parametrize("folder", ["val2017", "images/val2017", "images", "annotations", "annotations/images"])
def test_coco_is_multi_label_wherever_its_images_lie(annotations, coco_pictures, pictures, folder):
    coco_pictures(folder)
    images = load_labelled(annotations)
    assert images.multi_label
    assert images.classes == ["car", "cat", "dog"]  # by the categories' ids
    assert (images.counts.tolist(), images.indices.tolist()) == ([2, 0, 1], [1, 2, 0])
    assert contents(images) == pictures[:3]


def test_coco_boxes_are_every_object_and_follow_their_images(annotations, coco_pictures):
    coco_pictures("val2017")
    images = load_labelled(annotations)
    assert images.boxes.image.tolist() == [0, 0, 0, 2]
    assert images.boxes.class_index.tolist() == [1, 2, 1, 0]
    assert images.boxes.xywh[1].tolist() == [1, 2, 3, 4.5]
    assert images.boxes.crowd.tolist() == [False, False, False, True]
    taken = images.take([2, 1, 0]).boxes
    assert (taken.image.tolist(), taken.class_index.tolist()) == ([0, 2, 2, 2], [0, 1, 2, 1])


def test_joined_coco_sets_keep_their_boxes(annotations, coco_pictures):
    coco_pictures("val2017")
    images = load_labelled([str(annotations)] * 2)
    assert images.boxes.image.tolist() == [0, 0, 0, 2, 3, 3, 3, 5]
    assert images.counts.tolist() == [2, 0, 1] * 2


def test_coco_images_that_are_missing_are_counted_or_skipped(tmp_path, annotations, coco_pictures, caplog):
    coco_pictures("val2017")
    (tmp_path / "val2017" / "000009.jpg").unlink()
    with pytest.raises(FileNotFoundError, match=r"1 of 3 images \(33.3%\) are not in .*val2017 \(the first: 000009.jpg\)"):
        load_labelled(annotations)
    images = load_labelled(f"{annotations}#missing=skip")
    assert (images.counts.tolist(), images.boxes.image.tolist()) == ([0, 1], [1])
    assert "1 of 3 images (33.3%)" in caplog.text


def test_coco_without_images_says_where_they_should_be(annotations):
    with pytest.raises(FileNotFoundError, match="its first image, 000009.jpg, is in none of .*val2017"):
        load_labelled(annotations)


def test_other_json_is_no_annotation_file(tmp_path):
    path = write(tmp_path / "captions_val2017.json", '{"images": [], "annotations": []}')
    with pytest.raises(ValueError, match=r"holds no COCO detection annotations \(KeyError: 'categories'\)"):
        load_labelled(path)


def test_annotations_of_unknown_images_are_refused_by_number(tmp_path):
    objects = [(1, CAT, [0, 0, 1, 1], 0), (77, CAT, [0, 0, 1, 1], 0), (77, CAT, [0, 0, 2, 2], 0)]
    path = write(tmp_path / "annotations" / "instances_val2017.json", coco([(CAT, "cat")], [(1, "1.jpg")], objects))
    with pytest.raises(
        ValueError, match=r"2 of 3 annotations have image_ids that are not among its 1 images \(the first: 77\)"
    ):
        load_labelled(path)
