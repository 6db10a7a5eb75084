"""Labels as files hold them: numbers of a class list, floats, missing ones, structs; class names that are alike."""

import io
import json
import tarfile

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from catlip_lite.data.labelled import load_labelled
from catlip_lite.data.labelled_images import ordered_classes
from catlip_lite.data.shards import Sample, write_shards

pytestmark = pytest.mark.usefixtures("own_cache")


@pytest.fixture
def labelled_shard(tmp_path, make_png):
    """A function of labels, and of the lines of classes.txt, that writes a shard; returns its folder."""

    def write(labels, names=None):
        folder = tmp_path / "labelled"
        samples = [Sample("", make_png((i, 0, 0)), "png", None, {"label": label}) for i, label in enumerate(labels)]
        write_shards(samples, folder)
        if names is not None:
            (folder / "classes.txt").write_text(names, encoding="utf-8")
        return folder

    return write


ZOO = "zebra\nant\nbee\n"


# --- with a class list --------------------------------------------------------------------------------------------------------


def test_whole_floats_and_digits_count_the_lines_of_the_class_list(labelled_shard):
    images = load_labelled(labelled_shard([1.0, 2, "0"], ZOO))
    assert (images.classes, images.indices.tolist()) == (["zebra", "ant", "bee"], [1, 2, 0])


def test_minus_one_is_no_label_where_classes_are_listed(labelled_shard, caplog):
    images = load_labelled(labelled_shard([1, -1, 2, "-1", -1.0], ZOO))
    assert (images.classes, images.indices.tolist()) == (["zebra", "ant", "bee"], [1, 2])
    assert "3 of 5 images have no label and are left out" in caplog.text


def test_minus_one_in_a_cls_member_is_no_label(tmp_path, make_png):
    with tarfile.open(tmp_path / "0.tar", "w") as tar:
        for key, code in (("a", b"1"), ("b", b"-1"), ("c", b"0")):
            for name, content in ((f"{key}.png", make_png()), (f"{key}.cls", code)):
                info = tarfile.TarInfo(name)
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))
    (tmp_path / "classes.txt").write_text(ZOO)
    assert load_labelled(tmp_path).labels.tolist() == ["ant", "zebra"]


def test_minus_one_is_no_label_in_a_list_of_images(tmp_path, pictures):
    for i in range(3):
        (tmp_path / f"{i}.png").write_bytes(pictures[i])
    (tmp_path / "list.txt").write_text("0.png 1\n1.png -1\n2.png 0\n")
    (tmp_path / "classes.txt").write_text(ZOO)
    assert load_labelled(tmp_path / "list.txt").labels.tolist() == ["ant", "zebra"]


def test_minus_one_drops_out_of_lists_of_labels(labelled_shard):
    images = load_labelled(labelled_shard([[1, -1], [2.0], []], ZOO))
    assert (images.indices.tolist(), images.counts.tolist()) == ([1, 2], [1, 1, 0])


def test_labels_may_be_names_of_the_class_list(labelled_shard):
    images = load_labelled(labelled_shard(["bee", "ant"], ZOO))
    assert (images.classes, images.indices.tolist()) == (["zebra", "ant", "bee"], [2, 1])


def test_labels_beside_the_class_list_are_refused_with_counts_and_examples(labelled_shard):
    with pytest.raises(
        ValueError, match=r"3 of 5 labels are neither numbers nor among the 3 class names given: cow \(2\), 1.5"
    ):
        load_labelled(labelled_shard([1, "cow", 2, "cow", 1.5], ZOO))


def test_a_class_list_of_something_else_is_not_used(labelled_shard):
    assert load_labelled(labelled_shard(["cow", "dog"], ZOO)).classes == ["cow", "dog"]


def test_a_blank_line_in_a_class_list_is_refused(labelled_shard):
    with pytest.raises(ValueError, match="classes.txt: line 2 is blank, but numbers count the lines"):
        load_labelled(labelled_shard([0, 1], "zebra\n\nant\n\n"))


# --- without one --------------------------------------------------------------------------------------------------------------


def test_whole_floats_are_numbers(labelled_shard):
    assert load_labelled(labelled_shard([1.0, 2, 10.0])).classes == ["1", "2", "10"]


def test_nan_is_no_label(tmp_path, pictures, caplog):
    table = pa.table({"image": pictures, "label": [1.0, float("nan"), 2.0, None, 1.0, 2.0]})
    pq.write_table(table, tmp_path / "0.parquet")
    assert load_labelled(tmp_path).labels.tolist() == ["1", "2", "1", "2"]
    assert "2 of 6 images have no label" in caplog.text


def test_structs_are_no_labels(tmp_path, pictures):
    pq.write_table(pa.table({"image": pictures, "label": [{"id": i} for i in range(6)]}), tmp_path / "0.parquet")
    with pytest.raises(
        ValueError, match=r"'label' holds dict for 6 labels, such as \{'id': 0\}, where names, numbers or lists"
    ):
        load_labelled(tmp_path)


def test_letters_that_differ_only_in_case_are_classes(labelled_shard):
    assert load_labelled(labelled_shard(["A", "a", "b", "B"])).classes == ["A", "B", "a", "b"]


def test_numbers_of_equal_value_are_ordered_by_their_digits():
    orders = {tuple(ordered_classes(names)) for names in (["01", "1", "001", "2"], ["2", "001", "1", "01"])}
    assert orders == {("001", "01", "1", "2")}


# --- groups -------------------------------------------------------------------------------------------------------------------


def test_one_long_group_does_not_widen_all(tmp_path, make_png):
    facts = [{"label": "ab"[i % 2], "vendor": "x" * (100_000 if i == 3 else 1)} for i in range(50)]
    write_shards([Sample("", make_png(), "png", None, fact) for fact in facts], tmp_path / "s")
    groups = load_labelled(tmp_path / "s").groups
    assert groups.nbytes < 50 * 100
    assert (groups == "x").sum() == 49
    assert len(json.dumps(groups.tolist())) > 100_000
