"""Data sets as they are downloaded: ImageNet-1k, Places365 and COCO, in small."""

import io
import json
import tarfile

import numpy as np
import pytest

from catlip_lite.data.labelled import load_labelled

pytestmark = pytest.mark.usefixtures("own_cache")
TENCH, SHARK, COCK = "n01440764", "n01484850", "n01514668"  # sorted


def tar_bytes(members: dict[str, bytes], mode="w") -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode=mode) as tar:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return out.getvalue()


def contents(images) -> list[bytes]:
    return [images.files.read(i) for i in range(len(images))]


def write(path, content: bytes | str):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


# --- ImageNet-1k --------------------------------------------------------------------------------------------------------------


def meta_mat() -> bytes:
    """The kit's table: classes have numbers of their own order, and above them are synsets with children."""
    from scipy.io import savemat

    kind = [("ILSVRC2012_ID", "i4"), ("WNID", "O"), ("words", "O"), ("num_children", "i4")]
    rows = [(1, COCK, "cock", 0), (2, TENCH, "tench", 0), (3, SHARK, "shark", 0), (4, "n00004258", "living thing", 3)]
    out = io.BytesIO()
    savemat(out, {"synsets": np.array(rows, dtype=kind)})
    return out.getvalue()


KIT = "ILSVRC2012_devkit_t12/data"
TRUTH = "3\n1\n3\n"  # shark, cock, shark


@pytest.fixture
def kit(tmp_path):
    """A function that puts the development kit into tmp_path, unpacked or as it is downloaded."""

    def put(packed=False):
        files = {f"{KIT}/ILSVRC2012_validation_ground_truth.txt": TRUTH.encode(), f"{KIT}/meta.mat": meta_mat()}
        if packed:
            write(tmp_path / "ILSVRC2012_devkit_t12.tar.gz", tar_bytes(files, "w:gz"))
        for name, content in {} if packed else files.items():
            write(tmp_path / name, content)

    return put


@pytest.fixture
def val_names():
    """The validation images' file names."""
    return [f"ILSVRC2012_val_{i:08d}.JPEG" for i in (1, 2, 3)]


def test_the_training_tar_of_tars_is_read_in_place(tmp_path, pictures):
    inner = {SHARK: [0, 1], TENCH: [2], COCK: [3, 4]}
    members = {f"{w}.tar": tar_bytes({f"{w}_{i}.JPEG": pictures[i] for i in mine}) for w, mine in inner.items()}
    path = write(tmp_path / "ILSVRC2012_img_train.tar", tar_bytes(members))
    images = load_labelled(path)
    assert images.classes == [TENCH, SHARK, COCK]
    assert images.labels.tolist() == [SHARK, SHARK, TENCH, COCK, COCK]
    assert contents(images) == pictures[:5]
    assert images.files.name(2) == f"{path}:{TENCH}/{TENCH}_2.JPEG"


def test_the_tar_of_tars_is_walked_once(tmp_path, pictures, monkeypatch):
    monkeypatch.setattr("catlip_lite.data.index_cache.WORTH_KEEPING", 1)
    members = {f"{w}.tar": tar_bytes({f"{w}_0.JPEG": picture}) for w, picture in zip((TENCH, COCK), pictures, strict=False)}
    path = write(tmp_path / "ILSVRC2012_img_train.tar", tar_bytes(members))
    before = load_labelled(path).fingerprint
    monkeypatch.setattr("catlip_lite.data.imagenet_layout.file_places", None)
    assert load_labelled(path).fingerprint == before


def test_class_tars_unpacked_from_it_are_read_in_place(tmp_path, pictures):
    for i, wnid in enumerate((SHARK, TENCH)):
        write(tmp_path / "train" / f"{wnid}.tar", tar_bytes({f"{wnid}_{i}.JPEG": pictures[i]}))
    images = load_labelled(tmp_path / "train")
    assert images.labels.tolist() == [TENCH, SHARK]
    assert contents(images) == [pictures[1], pictures[0]]


@pytest.mark.parametrize("packed", [True, False])
def test_the_validation_tar_takes_its_labels_from_the_kit(tmp_path, pictures, kit, val_names, packed):
    kit(packed)
    path = write(tmp_path / "ILSVRC2012_img_val.tar", tar_bytes(dict(zip(val_names[::-1], pictures, strict=False))))
    images = load_labelled(path)
    assert images.labels.tolist() == [SHARK, COCK, SHARK]
    assert contents(images) == pictures[:3]


def test_the_validation_tar_without_a_kit_says_what_it_needs(tmp_path, pictures, val_names):
    path = write(tmp_path / "ILSVRC2012_img_val.tar", tar_bytes(dict(zip(val_names, pictures, strict=False))))
    with pytest.raises(FileNotFoundError, match="put ILSVRC2012_devkit_t12.tar.gz .*or Kaggle's LOC_val_solution.csv"):
        load_labelled(path)


def test_the_flat_validation_folder_takes_its_labels_from_the_kit(tmp_path, pictures, kit, val_names):
    kit()
    for name, picture in zip(val_names, pictures, strict=False):
        write(tmp_path / "val" / name, picture)
    images = load_labelled(tmp_path / "val")
    assert images.labels.tolist() == [SHARK, COCK, SHARK]
    assert images.classes == [SHARK, COCK]
    assert contents(images) == pictures[:3]


def test_empty_validation_images_are_left_out_and_named(tmp_path, pictures, kit, val_names, caplog):
    kit()
    for name, picture in zip(val_names, [pictures[0], b"", pictures[2]], strict=True):
        write(tmp_path / "val" / name, picture)
    assert contents(load_labelled(tmp_path / "val")) == [pictures[0], pictures[2]]
    assert f"1 file(s) of zero bytes are left out: {val_names[1]}" in caplog.text


def test_kaggles_tree(tmp_path, pictures, val_names):
    boxes = [f"{name[:-5]},{wnid} 85 1 499 272 " for name, wnid in zip(val_names, (COCK, TENCH, COCK), strict=True)]
    write(tmp_path / "LOC_val_solution.csv", "\n".join(["ImageId,PredictionString", *boxes[::-1]]))
    data = tmp_path / "ILSVRC" / "Data" / "CLS-LOC"
    for name, picture in zip(val_names, pictures, strict=False):
        write(data / "val" / name, picture)
    for i, wnid in enumerate((TENCH, COCK)):
        write(data / "train" / wnid / f"{wnid}_1.JPEG", pictures[i])
    assert load_labelled(data / "val").labels.tolist() == [COCK, TENCH, COCK]
    assert load_labelled(data / "train").labels.tolist() == [TENCH, COCK]
    with pytest.raises(ValueError, match="holds ImageNet's splits: give .*CLS-LOC/train or .*CLS-LOC/val"):
        load_labelled(tmp_path)


def test_a_folder_of_both_official_tars_asks_which(tmp_path):
    for name in ("train", "val"):
        write(tmp_path / f"ILSVRC2012_img_{name}.tar", tar_bytes({}))
    with pytest.raises(ValueError, match="holds ILSVRC2012_img_train.tar, ILSVRC2012_img_val.tar: give one of them"):
        load_labelled(tmp_path)


# --- Places365 ----------------------------------------------------------------------------------------------------------------


def test_places_class_folders_have_the_names_of_the_label_set(tmp_path, pictures):
    for i, name in enumerate(("arena-hockey", "airfield", "apartment_building-outdoor")):
        write(tmp_path / "places365_standard" / "train" / name / "1.jpg", pictures[i])
    images = load_labelled(tmp_path / "places365_standard" / "train")
    assert images.classes == ["airfield", "apartment_building/outdoor", "arena/hockey"]
    assert contents(images) == [pictures[1], pictures[2], pictures[0]]


def test_hyphens_of_other_classes_stay(tmp_path, pictures):
    for i, name in enumerate(("arena-hockey", "t-shirt")):
        write(tmp_path / name / "1.jpg", pictures[i])
    assert load_labelled(tmp_path).classes == ["arena-hockey", "t-shirt"]


@pytest.mark.parametrize("folder", ["data_256", "data_large"])
def test_places_training_list(tmp_path, pictures, folder):
    lists = tmp_path / "filelist_places365-standard"
    listed = {"/a/airfield/00000001.jpg": 0, "/a/arena/hockey/00000001.jpg": 15, "/a/airfield/00000002.jpg": 0}
    write(lists / "places365_train_standard.txt", "".join(f"{name} {code}\n" for name, code in listed.items()))
    for name, picture in zip(listed, pictures, strict=False):
        write(tmp_path / folder / name[1:], picture)
    images = load_labelled(lists / "places365_train_standard.txt")
    assert len(images.classes) == 365
    assert images.labels.tolist() == ["airfield", "arena/hockey", "airfield"]
    assert contents(images) == pictures[:3]


def test_places_validation_list_with_its_categories(tmp_path, pictures):
    write(tmp_path / "categories_places365.txt", "/a/arch 1\n/a/arena/hockey 0\n")
    write(tmp_path / "places365_val.txt", "Places365_val_00000001.jpg 1\nPlaces365_val_00000002.jpg 0\n")
    for i in (1, 2):
        write(tmp_path / "val_256" / f"Places365_val_0000000{i}.jpg", pictures[i])
    images = load_labelled(tmp_path / "places365_val.txt")
    assert (images.classes, images.labels.tolist()) == (["arena/hockey", "arch"], ["arch", "arena/hockey"])
    assert contents(images) == pictures[1:3]


def test_places_list_without_images_says_where_they_should_be(tmp_path):
    path = write(tmp_path / "places365_val.txt", "Places365_val_00000001.jpg 1\n")
    with pytest.raises(FileNotFoundError, match="none of .*/val_256, .*/val_large, .* is there: unpack the images beside"):
        load_labelled(path)


# --- COCO ---------------------------------------------------------------------------------------------------------------------


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


DOG, CAT, CAR = 18, 17, 3


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
