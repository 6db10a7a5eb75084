"""Labels as files hold them: numbers of a class list, floats, missing ones, lists, structs; selection by values."""

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from files import write_tar

from catlip_lite.data.labelled import load_labelled
from catlip_lite.data.labelled.images import ordered_classes
from catlip_lite.data.shards import Sample, write_shards

pytestmark = pytest.mark.usefixtures("own_cache")
ZOO = "zebra\nant\nbee\n"


# --- with a class list --------------------------------------------------------------------------------------------------------


def test_whole_floats_and_digits_count_the_lines_of_the_class_list(labelled_shard):
    folder = labelled_shard([2.0, 2, "0"], ZOO)
    fsspec.filesystem("memory").put(str(folder), "/listed", recursive=True)
    for address in (folder, "memory://listed"):
        images = load_labelled(address)
        assert (images.classes, images.indices.tolist()) == (["zebra", "ant", "bee"], [2, 2, 0])
        assert images.present() == ["zebra", "bee"]


def test_a_number_beyond_the_class_list_is_refused(labelled_shard):
    with pytest.raises(ValueError, match="labels go from 0 to 2, but 2 class names are given"):
        load_labelled(labelled_shard([2, 0], "zebra\nant\n"))


def test_minus_one_is_no_label_where_classes_are_listed(labelled_shard, caplog):
    images = load_labelled(labelled_shard([1, -1, 2, "-1", -1.0], ZOO))
    assert (images.classes, images.indices.tolist()) == (["zebra", "ant", "bee"], [1, 2])
    assert "3 of 5 images have no label and are left out" in caplog.text


def test_cls_members_are_labels_of_which_minus_one_is_none(tmp_path, make_png):
    codes = {"a": b"1", "b": b"-1", "c": b"0"}
    write_tar(tmp_path / "0.tar", {f"{k}.{e}": c for k, code in codes.items() for e, c in (("png", make_png()), ("cls", code))})
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


def test_images_without_a_label_are_left_out_and_counted(labelled_shard, make_png, caplog):
    images = load_labelled(labelled_shard(["a", "", "b", None]))
    assert images.labels.tolist() == ["a", "b"]
    assert images.files.read(1) == make_png((2, 0, 0))
    assert "2 of 4 images have no label and are left out" in caplog.text


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


# --- lists of labels ----------------------------------------------------------------------------------------------------------


def test_lists_make_a_multi_label_set_in_which_empty_ones_stay(labelled_shard):
    images = load_labelled(labelled_shard([["dog", "cat", "dog"], [], ["cat"]]))
    assert images.multi_label
    assert images.classes == ["cat", "dog"]
    assert (images.counts.tolist(), images.indices.tolist()) == ([2, 0, 1], [1, 0, 0])


def test_single_labels_are_not_to_be_had_of_a_multi_label_set(labelled_shard):
    images = load_labelled(labelled_shard([["dog", "cat"], []]))
    with pytest.raises(ValueError, match=r"lists of labels \(2 labels on 2 images\), where one label an image is expected"):
        _ = images.labels


def test_lists_among_single_labels_are_refused(labelled_shard):
    with pytest.raises(ValueError, match="'label' is a list for 1 images and a single label for 2"):
        load_labelled(labelled_shard([["dog"], "cat", "cow"]))


# --- selection ----------------------------------------------------------------------------------------------------------------


def test_a_selection_keeps_the_samples_with_the_value(shards):
    everything, some = load_labelled(shards), load_labelled(f"{shards}#vendor=B")
    assert (len(some), set(some.groups)) == (12, {"B"})
    assert some.files.read(0) == everything.files.read(4)


def test_several_fields_are_selected_together(shards):
    assert len(load_labelled([f"{shards}#vendor=B&label=cat", f"{shards}#label=dog"])) == 3 + 6


def test_a_value_that_no_sample_has_is_answered_by_those_there_are(shards):
    with pytest.raises(ValueError, match=r"no sample has vendor=C: its values are A \(12\), B \(12\)"):
        load_labelled(f"{shards}#vendor=C")


def test_a_field_that_no_sample_has_is_answered_by_those_there_are(shards):
    with pytest.raises(ValueError, match="no sample has 'split' in their .json, which has uid, label, vendor"):
        load_labelled(f"{shards}#split=train")


def test_what_is_no_selection_is_refused(shards):
    with pytest.raises(ValueError, match="#train: write field=value, e.g. #split=train"):
        load_labelled(f"{shards}#train")


# --- groups -------------------------------------------------------------------------------------------------------------------


def test_one_long_group_does_not_widen_all(tmp_path, make_png):
    facts = [{"label": "ab"[i % 2], "vendor": "x" * (100_000 if i == 3 else 1)} for i in range(50)]
    write_shards([Sample("", make_png(), "png", None, fact) for fact in facts], tmp_path / "s")
    groups = load_labelled(tmp_path / "s").groups
    assert groups.nbytes < 50 * 100
    assert (groups == "x").sum() == 49
    assert max(map(len, groups)) == 100_000
