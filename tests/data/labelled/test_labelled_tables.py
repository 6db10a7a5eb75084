"""Labelled images of tables, as Hugging Face writes them."""

import json
import pickle

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from files import contents, write

from catlip_lite.data.labelled import load_labelled, pointers
from catlip_lite.data.stream import open_shards

pytestmark = pytest.mark.usefixtures("own_cache")
TENCH, COCK = "n01440764", "n01514668"


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
    with pytest.raises(ValueError, match=r"holds the splits train, validation: give one of them, e.g. .*#split=train"):
        load_labelled(tmp_path)


def test_paths_in_a_parquet_file_count_from_its_folder(tmp_path, pictures):
    for i in range(2):
        write(tmp_path / "pictures" / f"{i}.png", pictures[i])
    table = pa.table({"image_path": ["pictures/1.png", "pictures/0.png"], "label": ["a", "b"]})
    write_parquet(tmp_path / "0.parquet", table)
    fsspec.filesystem("memory").put(str(tmp_path), "/paths", recursive=True)
    for address in (tmp_path / "0.parquet", "memory://paths/0.parquet"):
        assert contents(load_labelled(address)) == [pictures[1], pictures[0]]


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
    monkeypatch.setattr(pointers, "ROW_GROUP_BYTES", 2 * len(pictures[0]) + 100)
    assert [files.read(i) for i in (0, 5, 1, 4, 2)] == [pictures[i] for i in (0, 5, 1, 4, 2)]
    assert len(files._kept.columns) == 1
    assert len(pickle.loads(pickle.dumps(files))._kept.columns) == 0


@pytest.mark.parametrize("address", ["memory://tables", "memory://tables/*.parquet", "memory://tables/0.parquet"])
def test_remote_tables_are_read_in_place(tmp_path, pictures, address):
    table = pa.table({"image": pictures, "label": list("ababab")})
    write_parquet(tmp_path / "0.parquet", table)
    fsspec.filesystem("memory").pipe_file("/tables/0.parquet", (tmp_path / "0.parquet").read_bytes())
    images = load_labelled(address)
    assert images.labels.tolist() == list("ababab")
    assert contents(images) == contents(pickle.loads(pickle.dumps(images))) == pictures


def test_a_table_of_urls_is_refused_with_what_downloads_them(tmp_path):
    path = write_parquet(tmp_path / "0.parquet", pa.table({"URL": ["https://x"], "TEXT": ["a"], "label": ["b"]}))
    for read in (load_labelled, open_shards):
        with pytest.raises(ValueError, match="as URLs only .column 'URL'.: download them first, e.g. by `img2dataset"):
            read(path)


def test_tables_beside_tars_are_what_img2dataset_notes_of_them(shards):
    write_parquet(shards / "00000.parquet", pa.table({"url": ["https://x"], "caption": ["a"]}))
    assert len(load_labelled(shards)) == 24
