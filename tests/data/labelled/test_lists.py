"""Lists of images with labels, a path and a label on each line, Places365's included."""

import pytest
from files import contents, write

from catlip_lite.data.labelled import load_labelled

pytestmark = pytest.mark.usefixtures("own_cache")


@pytest.fixture
def listed(tmp_path, pictures):
    """A function that writes a list beside two images, one with spaces in its name."""
    for name, picture in zip(("a.png", "my dog.png"), pictures, strict=False):
        write(tmp_path / "pictures" / name, picture)
    return lambda name, text: write(tmp_path / name, text)


LISTS = {
    "spaces.txt": "pictures/a.png  cat\n\npictures/my dog.png dog\n",
    "tabs.txt": "pictures/a.png\tcat\npictures/my dog.png\tdog\n",
    "commas.txt": "pictures/a.png,cat\npictures/my dog.png, dog\n",
    "plain.csv": 'pictures/a.png,cat\n"pictures/my dog.png",dog\n',
    "header.csv": "path,label\npictures/a.png,cat\npictures/my dog.png,dog\n",
    "other.csv": "class,size,filename\ncat,3,pictures/a.png\ndog,4,pictures/my dog.png\n",
    "header.tsv": "\ufefffile\tlabel\r\npictures/a.png\tcat\r\npictures/my dog.png\tdog\r\n",
}


@pytest.mark.parametrize("name", LISTS)
def test_lists_of_images(listed, pictures, name):
    images = load_labelled(listed(name, LISTS[name]))
    assert images.labels.tolist() == ["cat", "dog"]
    assert contents(images) == pictures[:2]


def test_absolute_paths_stay(listed, tmp_path, pictures):
    lines = f"{tmp_path}/pictures/a.png cat\n{tmp_path}/pictures/my dog.png dog\n"
    assert contents(load_labelled(listed("elsewhere/list.txt", lines))) == pictures[:2]


def test_a_list_is_selected_from_by_its_columns(listed):
    text = "path,label,split\npictures/a.png,cat,x\npictures/my dog.png,dog,x\npictures/a.png,cow,y\n"
    assert load_labelled(f"{listed('l.csv', text)}#split=x").labels.tolist() == ["cat", "dog"]


def test_missing_files_are_refused_by_count_share_and_name(listed):
    path = listed("l.txt", "pictures/a.png cat\npictures/b.png dog\npictures/c.png dog\npictures/my dog.png dog\n")
    with pytest.raises(FileNotFoundError, match=r"2 of 4 images \(50.0%\) .*pictures/b.png, pictures/c.png\).*#missing=skip"):
        load_labelled(path)


def test_missing_files_are_skipped_where_the_address_says_so(listed, caplog):
    path = listed("l.txt", "pictures/a.png cat\npictures/b.png dog\npictures/my dog.png dog\n")
    assert load_labelled(f"{path}#missing=skip").labels.tolist() == ["cat", "dog"]
    assert "1 of 3 images (33.3%) are not in" in caplog.text


def test_a_list_of_nothing_but_missing_files_is_refused_all_the_same(listed):
    path = listed("l.txt", "b.png cat\nc.png dog\n")
    with pytest.raises(FileNotFoundError, match=r"2 of 2 images \(100.0%\) are not in .*relative paths count from there"):
        load_labelled(f"{path}#missing=skip")


def test_a_line_without_a_label_is_shown(listed):
    with pytest.raises(ValueError, match=r"'b.png' has 1 column\(s\), where path and label are expected"):
        load_labelled(listed("l.txt", "pictures/a.png cat\nb.png\n"))


def test_an_empty_list_is_refused(listed):
    with pytest.raises(ValueError, match="l.txt is empty: write an image's path and its label on each line"):
        load_labelled(listed("l.txt", "\n"))


def test_a_list_in_another_encoding_is_said_by_name(tmp_path):
    (tmp_path / "l.csv").write_bytes("a.png,caf\xe9\n".encode("latin-1"))
    with pytest.raises(ValueError, match=r"l.csv is not in UTF-8 \(.* at byte 9\): save it in UTF-8"):
        load_labelled(tmp_path / "l.csv")


# --- Places365 ----------------------------------------------------------------------------------------------------------------


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
    with pytest.raises(FileNotFoundError, match="first image, .*, is in none of .*/val_256, .*/val_large, .*: put the images"):
        load_labelled(path)
