"""Labelled images by table: parquet as Hugging Face writes it, and lists of images."""

import json
import pickle

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from catlip_lite.data import image_files
from catlip_lite.data.labelled import load_labelled

pytestmark = pytest.mark.usefixtures("own_cache")
TENCH, COCK = "n01440764", "n01514668"


def contents(images) -> list[bytes]:
    return [images.files.read(i) for i in range(len(images))]


def write(path, content: bytes | str):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


# --- parquet ------------------------------------------------------------------------------------------------------------------


def hugging_face(columns: dict, features: dict) -> pa.Table:
    info = json.dumps({"info": {"features": features}}).encode()
    return pa.table(columns).replace_schema_metadata({b"huggingface": info})


def class_label(names) -> dict:
    return {"names": names, "_type": "ClassLabel"}


@pytest.fixture
def structs(pictures):
    """The image column as Hugging Face writes it."""
    return [{"bytes": picture, "path": f"{i}.png"} for i, picture in enumerate(pictures)]


def write_parquet(path, table, rows_a_group=2):
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, path, row_group_size=rows_a_group)
    return path


def test_class_names_of_a_parquet_file_come_from_its_description(tmp_path, structs, pictures):
    features = {"image": {"_type": "Image"}, "label": class_label(["wolf", "ant", "unseen"])}
    path = write_parquet(tmp_path / "0.parquet", hugging_face({"image": structs, "label": [1, 0, 0, 1, 1, 0]}, features))
    images = load_labelled(path)
    assert (images.classes, images.indices.tolist()) == (["wolf", "ant", "unseen"], [1, 0, 0, 1, 1, 0])
    assert contents(images) == pictures
    assert images.files.name(3) == f"{path}:row group 1, row 1"


def test_a_folder_of_parquet_files_is_one_set(tmp_path, pictures):
    for i in range(2):
        table = pa.table({"img": pictures[3 * i : 3 * i + 3], "label": ["b", "a", "b"]})
        write_parquet(tmp_path / "data" / f"train-0000{i}-of-00002.parquet", table)
    for address in (tmp_path, tmp_path / "data", tmp_path / "data" / "train-*.parquet"):
        images = load_labelled(address)
        assert images.labels.tolist() == ["b", "a", "b"] * 2
        assert contents(images) == pictures


def test_a_folder_of_several_splits_asks_which(tmp_path, pictures):
    for split in ("train", "validation"):
        write_parquet(tmp_path / f"{split}-00000-of-00001.parquet", pa.table({"image": pictures[:1], "label": ["a"]}))
    with pytest.raises(ValueError, match=r"holds the splits train, validation: give one of them, e.g. .*train-\*.parquet"):
        load_labelled(tmp_path)


def test_paths_in_a_parquet_file_count_from_its_folder(tmp_path, pictures):
    for i in range(2):
        write(tmp_path / "pictures" / f"{i}.png", pictures[i])
    table = pa.table({"image_path": ["pictures/1.png", "pictures/0.png"], "label": ["a", "b"]})
    assert contents(load_labelled(write_parquet(tmp_path / "0.parquet", table))) == [pictures[1], pictures[0]]


def test_lists_of_numbered_labels_make_a_multi_label_set(tmp_path, structs):
    features = {"image": {"_type": "Image"}, "label": {"_type": "List", "feature": class_label(["wolf", "ant"])}}
    labels = [[1, 0], [], [1], [0], [1], [1]]
    images = load_labelled(write_parquet(tmp_path / "0.parquet", hugging_face({"image": structs, "label": labels}, features)))
    assert images.multi_label
    assert (images.classes, images.counts.tolist()) == (["wolf", "ant"], [2, 0, 1, 1, 1, 1])


def test_rows_of_a_parquet_file_are_selected_by_a_column(tmp_path, pictures):
    table = pa.table({"image": pictures, "label": list("ababab"), "split": ["train"] * 2 + ["test"] * 4})
    images = load_labelled(f"{write_parquet(tmp_path / '0.parquet', table)}#split=test")
    assert contents(images) == pictures[2:]


def test_minus_one_is_no_label_in_a_described_column(tmp_path, structs, caplog):
    features = {"label": class_label(["wolf", "ant"])}
    table = hugging_face({"image": structs, "label": [1, -1, 0, -1, 1, 0]}, features)
    assert load_labelled(write_parquet(tmp_path / "0.parquet", table)).indices.tolist() == [1, 0, 1, 0]
    assert "2 of 6 images have no label" in caplog.text


def test_a_parquet_file_without_the_label_says_what_it_has(tmp_path, structs):
    path = write_parquet(tmp_path / "0.parquet", pa.table({"image": structs, "fine_label": [1] * 6}))
    with pytest.raises(ValueError, match="need 'label' as a column, which are image, fine_label"):
        load_labelled(path)


def test_a_parquet_file_without_images_says_what_it_has(tmp_path):
    path = write_parquet(tmp_path / "0.parquet", pa.table({"text": ["a"], "label": ["b"]}))
    with pytest.raises(ValueError, match=r"which column holds the images\? .* there are text \(string\), label \(string\)"):
        load_labelled(path)


def test_class_names_given_twice_are_refused(tmp_path, structs):
    features = {"label": class_label(["crane", "ant", "crane"])}
    path = write_parquet(tmp_path / "0.parquet", hugging_face({"image": structs, "label": [0] * 6}, features))
    with pytest.raises(ValueError, match=r"class name\(s\) given twice: crane"):
        load_labelled(path)


def test_imagenets_names_at_hugging_face_become_wnids(tmp_path, structs):
    names = ["tench, Tinca tinca", *(f"class {i}" for i in range(1, 999)), "toilet tissue, toilet paper, bathroom tissue"]
    table = hugging_face({"image": structs, "label": [0, 7, 999, 0, 7, 999]}, {"label": class_label(names)})
    images = load_labelled(write_parquet(tmp_path / "0.parquet", table))
    assert images.present() == [TENCH, COCK, "n15075141"]


def test_row_groups_in_memory_are_bounded(tmp_path, pictures, monkeypatch):
    path = write_parquet(tmp_path / "0.parquet", pa.table({"image": pictures, "label": list("ababab")}))
    files = load_labelled(path).files
    monkeypatch.setattr(image_files, "ROW_GROUP_BYTES", 2 * len(pictures[0]) + 100)
    assert [files.read(i) for i in (0, 5, 1, 4, 2)] == [pictures[i] for i in (0, 5, 1, 4, 2)]
    assert len(files._kept.columns) == 1
    assert len(pickle.loads(pickle.dumps(files))._kept.columns) == 0


# --- lists --------------------------------------------------------------------------------------------------------------------


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
