"""ImageNet-1k as it is downloaded, in small: its tars in place, its validation labels from the kit or from Kaggle."""

import io
import shutil

import numpy as np
import pytest
from files import contents, tar_bytes, write, write_tar

from catlip_lite.data.labelled import load_labelled

pytestmark = pytest.mark.usefixtures("own_cache")
TENCH, SHARK, COCK = "n01440764", "n01484850", "n01514668"  # sorted


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


@pytest.mark.usefixtures("every_index_is_kept")
def test_the_tar_of_tars_is_walked_once(tmp_path, pictures, monkeypatch):
    members = {f"{w}.tar": tar_bytes({f"{w}_0.JPEG": picture}) for w, picture in zip((TENCH, COCK), pictures, strict=False)}
    path = write(tmp_path / "ILSVRC2012_img_train.tar", tar_bytes(members))
    before = load_labelled(path).fingerprint
    monkeypatch.setattr("catlip_lite.data.labelled.imagenet.tar_files", None)
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
    with pytest.raises(ValueError, match=r"2 official tar\(s\) .* are several data sets: give one of them, e.g. .*train.tar"):
        load_labelled(tmp_path)


# --- class tars, unpacked from training's -------------------------------------------------------------------------------------


@pytest.fixture
def class_tars(tmp_path, pictures):
    """A folder of two class tars."""
    for wnid, picture in zip((TENCH, COCK), pictures, strict=False):
        write_tar(tmp_path / "train" / f"{wnid}.tar", {f"{wnid}_1.JPEG": picture})
    return tmp_path / "train"


def test_class_tars_by_glob_or_list_are_those_of_their_folder(class_tars):
    folder = load_labelled(class_tars)
    for address in (f"{class_tars}/*.tar", sorted(map(str, class_tars.glob("*.tar")))):
        images = load_labelled(address)
        assert images.labels.tolist() == [TENCH, COCK]
        assert images.fingerprint == folder.fingerprint


def test_an_official_tar_in_a_list_is_read_as_such(class_tars, tmp_path, pictures):
    inner = write_tar(tmp_path / "inner.tar", {"n02084071_1.JPEG": pictures[2]}).read_bytes()
    official = write_tar(tmp_path / "ILSVRC2012_img_train.tar", {"n02084071.tar": inner})
    images = load_labelled([str(official), f"{class_tars}/{TENCH}.tar"])
    assert images.labels.tolist() == ["n02084071", TENCH]


def test_class_tars_among_other_tars_are_refused_by_count(class_tars, shards):
    shutil.copy(shards / "00000.tar", class_tars)
    for address in (class_tars, f"{class_tars}/*.tar"):
        with pytest.raises(ValueError, match=r"2 class tar\(s\) and 1 other\(s\) are several data sets"):
            load_labelled(address)


def test_class_tars_beside_other_class_folders_are_refused_by_count(class_tars, pictures):
    for wnid in (TENCH, "n02084071", "n02121620"):
        (class_tars / wnid).mkdir()
        (class_tars / wnid / "1.JPEG").write_bytes(pictures[0])
    with pytest.raises(ValueError, match="holds 2 class tars and 3 class folders, 1 of the same name"):
        load_labelled(class_tars)
