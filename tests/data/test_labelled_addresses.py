"""What an address of labelled images means: names for tables, selections, paths that look like patterns, tars of ImageNet."""

import io
import shutil
import tarfile

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from catlip_lite.data.labelled import load_labelled, named_addresses

pytestmark = pytest.mark.usefixtures("own_cache")
TENCH, COCK = "n01440764", "n01514668"


# --- names --------------------------------------------------------------------------------------------------------------------


def test_names_of_test_sets_are_short_where_they_are_distinct():
    addresses = ["data/caltech101#split=test", "demo/labelled_test", ["a/b", "a/c"]]
    assert named_addresses(addresses) == dict(zip(["caltech101 test", "labelled_test", "b + c"], addresses, strict=True))


def test_folders_are_added_to_names_until_they_differ():
    addresses = ["data/photos/test", "data/sketch/test", "old/sketch/test", "data/other"]
    assert list(named_addresses(addresses)) == ["photos/test", "data/sketch/test", "old/sketch/test", "other"]


def test_a_selection_stays_in_a_name_with_folders():
    assert list(named_addresses(["a/x#split=test", "b/x#split=test"])) == ["a/x test", "b/x test"]


def test_names_without_further_folders_become_the_addresses():
    assert list(named_addresses(["test.tar", "test.parquet"])) == ["test.tar", "test.parquet"]


def test_a_string_is_one_test_set():
    assert named_addresses("data/photos") == {"photos": "data/photos"}


@pytest.mark.parametrize("again", ["data/a", "data/a/", "./data/a"])
def test_a_test_set_given_twice_is_refused(again):
    with pytest.raises(ValueError, match=r"test set\(s\) given twice: data/a: keep each once"):
        named_addresses(["data/a", "data/b", again])


def test_no_test_set_is_refused():
    with pytest.raises(ValueError, match="no test set is given"):
        named_addresses([])


def test_no_address_is_refused():
    with pytest.raises(ValueError, match="no labelled images are given"):
        load_labelled([])


# --- selections and patterns --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["run#1", "run#a=1"])
def test_a_hash_in_a_folders_name_is_no_selection(shards, tmp_path, name):
    moved = shutil.move(shards, tmp_path / name)
    assert len(load_labelled(f"{moved}/*.tar")) == 24
    assert len(load_labelled(f"{moved}/0000*.tar#vendor=A")) == 12


def test_a_value_with_a_slash_is_selected(tmp_path, pictures):
    table = pa.table({"image": pictures, "label": ["arena/hockey", "b"] * 3, "kind": ["in/side"] * 4 + ["c"] * 2})
    pq.write_table(table, tmp_path / "0.parquet")
    assert len(load_labelled(f"{tmp_path}/*.parquet#kind=in/side")) == 4


def test_a_tar_whose_name_looks_like_a_pattern_is_taken(shards):
    (shards / "00000.tar").rename(shards / "part[1].tar")
    assert len(load_labelled(shards / "part[1].tar")) == 16


def test_a_parquet_file_whose_name_looks_like_a_pattern_is_taken(tmp_path, pictures):
    pq.write_table(pa.table({"image": pictures, "label": list("ababab")}), tmp_path / "part[1].parquet")
    assert len(load_labelled(tmp_path / "part[1].parquet")) == 6


# --- ImageNet's tars ----------------------------------------------------------------------------------------------------------


def write_tar(path, members):
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return path


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
