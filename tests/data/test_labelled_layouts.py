"""Folders of images: split folders among them, files of other kinds, the folder as part of the fingerprint; damaged shards."""

import gzip
import shutil

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from catlip_lite.data.images import Evaluation
from catlip_lite.data.labelled import all_views, load_labelled
from catlip_lite.data.shards import Sample, write_shards

pytestmark = pytest.mark.usefixtures("own_cache")


# --- splits -------------------------------------------------------------------------------------------------------------------


def test_split_folders_beside_others_are_no_classes(class_folders):
    folder = class_folders({"train/ant": ["1.png"], "val/ant": ["1.png"], "annotations": ["1.png"]})
    with pytest.raises(ValueError, match="holds train, val: give one of them, e.g. .*/train"):
        load_labelled(folder)


def test_one_split_folder_of_class_folders_is_no_class(class_folders):
    with pytest.raises(ValueError, match="holds train: give one of them, e.g. .*/train"):
        load_labelled(class_folders({"train/ant": ["1.png"], "annotations": ["1.png"]}))


def test_a_class_may_have_a_splits_name(class_folders):
    assert load_labelled(class_folders({"train": ["1.png"], "car": ["1.png"]})).classes == ["car", "train"]


# --- files of other kinds -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("extension", ["jfif", "ppm", "avif", "GIF", "tif", "bmp"])
def test_images_of_any_kind_count_in_folders_and_shards(class_folders, tmp_path, make_png, extension):
    folder = class_folders({"ant": [f"1.{extension}"], "bee": ["1.png"]})
    assert len(load_labelled(folder)) == 2
    facts = [{"label": label} for label in "ab"]
    write_shards([Sample("", make_png(), extension, None, fact) for fact in facts], tmp_path / "s")
    assert len(load_labelled(tmp_path / "s")) == 2


def test_other_files_in_class_folders_are_counted_in_one_warning(class_folders, caplog):
    load_labelled(class_folders({"ant": ["1.png", "1.txt", "2.TXT", "x/1.xml"], "bee": ["1.png", "notes"]}))
    (told,) = caplog.messages
    assert "4 file(s) are no images by their names and passed over: .txt (2), " in told


def test_what_samples_have_instead_of_an_image_is_told(tmp_path, make_png, caplog):
    kinds = ["png", "svg", "png", "svg", "heic"]
    samples = [Sample("", make_png(), kind, None, {"label": "ab"[i // 2 % 2]}) for i, kind in enumerate(kinds)]
    write_shards(samples, tmp_path / "s")
    assert len(load_labelled(tmp_path / "s")) == 2
    assert "3 sample(s) without an image, or with an empty one, are left out (they have .svg (2), .heic (1))" in caplog.text


# --- damage -------------------------------------------------------------------------------------------------------------------


def test_a_compressed_tar_is_called_that(shards, caplog):
    path = shards / "00001.tar"
    path.write_bytes(gzip.compress(path.read_bytes()))
    assert len(load_labelled(shards)) == 16
    assert "00001.tar gives no sample: the tar is compressed" in caplog.text
    with pytest.raises(ValueError, match=r"no image in 1 shard\(s\), the first: the tar is compressed, .*: unpack it"):
        load_labelled(path)


def test_a_file_that_is_no_image_is_told_without_memory_addresses(class_folders, caplog):
    folder = class_folders({"ant": ["1.png", "2.png"], "bee": ["1.png"]})
    (folder / "ant" / "2.png").write_bytes(b"no image")
    all_views(load_labelled(folder), Evaluation(8))
    assert "unreadable image of 8 bytes: no image that Pillow reads" in caplog.text


# --- fingerprints -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["folders", "tars", "parquet"])
def test_equal_names_sizes_and_times_elsewhere_are_another_set(class_folders, shards, tmp_path, pictures, kind):
    here = {"folders": class_folders({"ant": ["1.png"], "bee": ["1.png"]}), "tars": shards, "parquet": tmp_path / "parquet"}[
        kind
    ]
    if kind == "parquet":
        here.mkdir()
        pq.write_table(pa.table({"image": pictures, "label": list("ababab")}), here / "0.parquet")
    shutil.copytree(here, tmp_path / "copy")
    assert (tmp_path / "copy").stat().st_mtime_ns == here.stat().st_mtime_ns
    assert load_labelled(tmp_path / "copy").fingerprint != load_labelled(here).fingerprint


def test_a_relative_address_is_the_same_set(class_folders, monkeypatch):
    folder = class_folders({"ant": ["1.png"], "bee": ["1.png"]})
    monkeypatch.chdir(folder.parent)
    assert load_labelled(folder.name).fingerprint == load_labelled(folder).fingerprint
