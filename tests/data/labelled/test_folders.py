"""Folders of class folders: what is a class, what is an image, and what is said of the rest."""

import pytest
from files import contents, write

from catlip_lite.data.labelled import load_labelled
from catlip_lite.data.shards import Sample, write_shards

pytestmark = pytest.mark.usefixtures("own_cache")


def test_class_folders_give_labels_in_the_order_of_their_names(class_folders):
    images = load_labelled(class_folders({"zebra": ["1.png"], "ant": ["1.png", "2.png"]}))
    assert images.classes == ["ant", "zebra"]
    assert images.labels.tolist() == ["ant", "ant", "zebra"]
    assert images.counts.tolist() == [1, 1, 1]
    assert images.groups.tolist() == ["", "", ""]


def test_files_are_read_as_they_are_and_named_by_path(class_folders, make_png):
    folder = class_folders({"ant": ["1.png"], "zebra": ["1.png"]})
    files = load_labelled(folder).files
    assert files.read(1) == make_png((40, 0, 0))
    assert files.name(1) == str(folder / "zebra" / "1.png")


def test_images_may_lie_one_folder_deeper_and_hidden_files_are_passed_over(class_folders):
    folder = class_folders({"ant": ["images/1.png", ".hidden.png"], "bee": ["1.png"], ".git": ["1.png"]})
    assert load_labelled(folder).labels.tolist() == ["ant", "bee"]


def test_empty_class_folders_are_told_by_name(class_folders, caplog):
    images = load_labelled(class_folders({"ant": ["1.png"], "bee": ["1.png"], "cow": [], "dog": []}))
    assert images.classes == ["ant", "bee"]
    assert "2 class folder(s) hold no image and are no classes here: cow, dog" in caplog.text


def test_a_single_class_is_refused(class_folders):
    with pytest.raises(ValueError, match="all 2 images are of one class, 'ant': there is nothing to tell apart"):
        load_labelled(class_folders({"ant": ["1.png", "2.png"]}))


def test_the_folder_above_the_class_folders_is_recognised(class_folders):
    folder = class_folders({"101_ObjectCategories/ant": ["1.png"], "101_ObjectCategories/bee": ["1.png"]})
    with pytest.raises(ValueError, match="has one class folder, 101_ObjectCategories: is .*101_ObjectCategories meant"):
        load_labelled(folder)


@pytest.mark.parametrize(("one", "other"), [("Ice Cream", "ice_cream"), ("Cat", "cat")])
def test_classes_that_differ_only_in_spelling_are_refused(class_folders, one, other):
    with pytest.raises(ValueError, match=f"the classes '{one}' and '{other}' differ only in spelling"):
        load_labelled(class_folders({one: ["1.png"], other: ["1.png"]}))


def test_files_of_zero_bytes_are_left_out_and_named(class_folders, caplog):
    folder = class_folders({"ant": ["1.png", "2.png"], "bee": ["1.png"]})
    (folder / "ant" / "2.png").write_bytes(b"")
    assert len(load_labelled(folder)) == 2
    assert "1 file(s) of zero bytes are left out: ant/2.png" in caplog.text


def test_a_folder_without_images_says_what_is_there_and_what_is_understood(tmp_path):
    (tmp_path / "notes.docx").write_text("hello")
    with pytest.raises(FileNotFoundError, match=r"holds 1 file\(s\) \(notes.docx\), no class folders: .*class folders, WebD"):
        load_labelled(tmp_path)


def test_class_folders_without_images_are_refused(class_folders):
    with pytest.raises(FileNotFoundError, match=r"its 2 folder\(s\) \(ant, bee\) hold no images"):
        load_labelled(class_folders({"ant": ["1.txt"], "bee": []}))


def test_class_folders_have_no_fields_to_select_by(class_folders):
    folder = class_folders({"ant": ["1.png"], "bee": ["1.png"]})
    with pytest.raises(ValueError, match="only shards, tables, lists and annotations can be selected from"):
        load_labelled(f"{folder}#split=train")


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
