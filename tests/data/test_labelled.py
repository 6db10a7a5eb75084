"""Labelled images by address: class folders, shards, selection, joining."""

import io
import json
import pickle
import tarfile

import numpy as np
import pytest

from catlip_lite.data.labelled import address_name, load_labelled
from catlip_lite.data.shards import Sample, write_shards

pytestmark = pytest.mark.usefixtures("own_cache")


def write_tar(path, members):
    with tarfile.open(path, "w") as tar:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))


# --- class folders ------------------------------------------------------------------------------------------------------------


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


def test_splits_are_no_classes(class_folders):
    with pytest.raises(ValueError, match="holds train, val: give one of them, e.g. .*/train"):
        load_labelled(class_folders({"train/ant": ["1.png"], "val/ant": ["1.png"]}))


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


def test_an_address_with_nothing_behind_it_is_said(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere is not there: labelled images are"):
        load_labelled(tmp_path / "nowhere")


# --- shards -------------------------------------------------------------------------------------------------------------------


def test_shards_give_labels_and_groups(shards):
    images = load_labelled(shards)
    assert len(images) == 24
    assert images.classes == ["apple", "banana", "cat", "dog"]
    assert images.labels[:4].tolist() == ["apple", "dog", "cat", "banana"]
    assert set(images.groups) == {"A", "B"}


def test_a_shards_images_are_read_by_their_place(shards, samples):
    files = load_labelled(shards).files
    assert [files.read(i) for i in (17, 3)] == [samples[17].image, samples[3].image]
    assert files.name(17) == f"{shards / '00001.tar'}:000010001"


def test_a_list_of_tars_is_one_set(shards):
    assert load_labelled(sorted(map(str, shards.glob("*.tar")))).fingerprint == load_labelled(shards).fingerprint


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


def test_class_folders_have_no_fields_to_select_by(class_folders):
    folder = class_folders({"ant": ["1.png"], "bee": ["1.png"]})
    with pytest.raises(ValueError, match="only shards, parquet, lists and annotations can be selected from"):
        load_labelled(f"{folder}#split=train")


def test_no_labels_is_said_with_the_field(shards):
    with pytest.raises(
        ValueError, match="no image has a label: its samples need 'species' in their .json, which has uid, label"
    ):
        load_labelled(shards, label_field="species")


def write_labels(folder, make_png, labels):
    write_shards([Sample("", make_png((i, 0, 0)), "png", None, {"label": label}) for i, label in enumerate(labels)], folder)
    return folder


def test_images_without_a_label_are_left_out_and_counted(tmp_path, make_png, caplog):
    images = load_labelled(write_labels(tmp_path / "s", make_png, ["a", "", "b", None]))
    assert images.labels.tolist() == ["a", "b"]
    assert images.files.read(1) == make_png((2, 0, 0))
    assert "2 of 4 images have no label and are left out" in caplog.text


def test_numbers_are_names_in_their_own_order(tmp_path, make_png):
    images = load_labelled(write_labels(tmp_path / "s", make_png, [10, 9, 10]))
    assert (images.classes, images.indices.tolist()) == (["9", "10"], [1, 0, 1])


def test_numbers_count_the_lines_of_the_class_list_beside_the_shards(tmp_path, make_png):
    folder = write_labels(tmp_path / "s", make_png, [2, 0])
    (folder / "classes.txt").write_text("zebra\nant\nbee\n")
    images = load_labelled(folder)
    assert (images.classes, images.labels.tolist()) == (["zebra", "ant", "bee"], ["bee", "zebra"])
    assert images.present() == ["zebra", "bee"]


def test_a_number_beyond_the_class_list_is_refused(tmp_path, make_png):
    folder = write_labels(tmp_path / "s", make_png, [2, 0])
    (folder / "classes.txt").write_text("zebra\nant\n")
    with pytest.raises(ValueError, match="labels go from 0 to 2, but 2 class names are given"):
        load_labelled(folder)


def test_cls_members_are_labels(tmp_path, make_png):
    write_tar(tmp_path / "0.tar", {"a.png": make_png(), "a.cls": b"1", "b.png": make_png(), "b.cls": b"0"})
    (tmp_path / "classes.txt").write_text("n01440764\nn01443537\n")
    assert load_labelled(tmp_path / "0.tar").labels.tolist() == ["n01443537", "n01440764"]


def test_lists_make_a_multi_label_set_in_which_empty_ones_stay(tmp_path, make_png):
    images = load_labelled(write_labels(tmp_path / "s", make_png, [["dog", "cat", "dog"], [], ["cat"]]))
    assert images.multi_label
    assert images.classes == ["cat", "dog"]
    assert (images.counts.tolist(), images.indices.tolist()) == ([2, 0, 1], [1, 0, 0])


def test_single_labels_are_not_to_be_had_of_a_multi_label_set(tmp_path, make_png):
    images = load_labelled(write_labels(tmp_path / "s", make_png, [["dog", "cat"], []]))
    with pytest.raises(ValueError, match=r"lists of labels \(2 labels on 2 images\), where one label an image is expected"):
        _ = images.labels


def test_lists_among_single_labels_are_refused(tmp_path, make_png):
    with pytest.raises(ValueError, match="'label' is a list for 1 images and a single label for 2"):
        load_labelled(write_labels(tmp_path / "s", make_png, [["dog"], "cat", "cow"]))


def test_samples_without_an_image_are_left_out_and_counted(tmp_path, make_png, caplog):
    good = {f"{k}.{e}": c for k in "ab" for e, c in (("png", make_png()), ("json", json.dumps({"label": k}).encode()))}
    write_tar(tmp_path / "0.tar", {**good, "c.json": b'{"label": "a"}', "d.png": b"", "d.json": b'{"label": "a"}'})
    assert len(load_labelled(tmp_path)) == 2
    assert "2 sample(s) without an image, or with an empty one, are left out" in caplog.text


def test_a_kept_index_gives_the_same_set_and_follows_the_tar(tmp_path, make_png, monkeypatch):
    monkeypatch.setattr("catlip_lite.data.index_cache.WORTH_KEEPING", 1)
    folder = write_labels(tmp_path / "s", make_png, ["a", "b"])
    first, kept = load_labelled(folder), load_labelled(folder)
    assert len(list((tmp_path / "cache" / "indexes").glob("*.npz"))) == 1
    assert (kept.fingerprint, kept.labels.tolist()) == (first.fingerprint, ["a", "b"])
    write_labels(folder, make_png, ["a", "b", "c"])
    assert load_labelled(folder).labels.tolist() == ["a", "b", "c"]


def test_a_damaged_index_is_made_anew(tmp_path, make_png, monkeypatch, caplog):
    monkeypatch.setattr("catlip_lite.data.index_cache.WORTH_KEEPING", 1)
    folder = write_labels(tmp_path / "s", make_png, ["a", "b"])
    load_labelled(folder)
    next((tmp_path / "cache" / "indexes").glob("*.npz")).write_bytes(b"PK damaged")
    assert load_labelled(folder).labels.tolist() == ["a", "b"]
    assert "is of no use" in caplog.text


# --- what a set can do --------------------------------------------------------------------------------------------------------


def test_fingerprints_repeat_and_change_with_labels_selection_and_files(shards, samples):
    before = load_labelled(shards).fingerprint
    assert load_labelled(shards).fingerprint == before
    assert load_labelled(f"{shards}#vendor=A").fingerprint != before
    assert load_labelled(shards, label_field="vendor").fingerprint != before
    write_shards(samples[:20], shards, samples_per_shard=16)
    assert load_labelled(shards).fingerprint != before


def test_a_sample_repeats_and_is_cached_apart_from_the_whole(shards):
    images = load_labelled(shards)
    some, again = images.sample(5), images.sample(5)
    assert some.labels.tolist() == again.labels.tolist()
    assert (len(some), images.sample(None), some.fingerprint != images.fingerprint) == (5, images, True)


def test_rows_or_a_mask_are_taken_with_all_that_belongs_to_them(shards):
    images = load_labelled(shards)
    mask = np.zeros(24, bool)
    mask[[2, 7]] = True
    for taken in (images.take([2, 7]), images.take(mask)):
        assert taken.labels.tolist() == images.labels[[2, 7]].tolist()
        assert taken.groups.tolist() == images.groups[[2, 7]].tolist()
        assert [taken.files.read(i) for i in range(2)] == [images.files.read(i) for i in (2, 7)]
    assert images.take([7, 2]).labels.tolist() == images.labels[[7, 2]].tolist()


def test_ragged_labels_are_taken_whole(tmp_path, make_png):
    images = load_labelled(write_labels(tmp_path / "s", make_png, [["b", "a"], [], ["c"], ["a", "c"]]))
    taken = images.take([3, 1, 0])
    assert (taken.counts.tolist(), [taken.classes[i] for i in taken.indices]) == ([2, 0, 2], ["a", "c", "b", "a"])


def test_joined_sets_share_the_classes_of_all(class_folders, shards):
    folder = class_folders({"ant": ["1.png"], "dog": ["1.png"]})
    images = load_labelled([str(shards), str(folder)])
    assert images.classes == ["ant", "apple", "banana", "cat", "dog"]
    assert images.labels[[0, 24, 25]].tolist() == ["apple", "ant", "dog"]
    assert images.files.read(25) == (folder / "dog" / "1.png").read_bytes()
    assert images.take([25]).files.read(0) == (folder / "dog" / "1.png").read_bytes()


def test_sets_whose_classes_differ_only_in_spelling_are_not_joined(class_folders, shards):
    with pytest.raises(ValueError, match="the classes 'Dog' and 'dog' differ only in spelling"):
        load_labelled([str(shards), str(class_folders({"Dog": ["1.png"], "ant": ["1.png"]}))])


def test_multi_label_sets_are_not_joined_with_others(tmp_path, shards, make_png):
    lists = write_labels(tmp_path / "lists", make_png, [["dog", "cat"]])
    with pytest.raises(ValueError, match="lists has lists of labels, .*shards one label an image: give sets of one kind"):
        load_labelled([str(shards), str(lists)])


def test_files_go_to_other_processes(shards):
    files = load_labelled(shards).files
    assert pickle.loads(pickle.dumps(files)).read(5) == files.read(5)


def test_a_tar_that_was_written_again_is_not_read_at_its_old_places(shards, samples):
    before = load_labelled(shards).files
    before.read(23)  # from here on the old file is open
    write_shards(samples[::-1], shards, samples_per_shard=16)
    assert load_labelled(shards).files.read(0) == samples[23].image
    with pytest.raises(ValueError, match="00000.tar has changed since it was indexed: load the labelled images again"):
        before.read(0)
    assert before.read(23) == samples[23].image


def test_an_image_beyond_the_end_of_its_tar_is_said_by_name(shards):
    files = load_labelled(shards).files
    files.places[23, 1] = 10**9
    with pytest.raises(ValueError, match=r"00001.tar:000010007 ends after [\d,]+ of 1,000,000,000 bytes: write the tar again"):
        files.read(23)


def test_a_cache_folder_that_cannot_be_written_is_no_hindrance(tmp_path, shards, monkeypatch, caplog):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("CATLIP_CACHE", str(tmp_path / "file" / "cache"))
    assert len(load_labelled(shards)) == 24
    assert "CATLIP_CACHE" in caplog.text


def test_short_names_of_addresses(tmp_path):
    assert address_name("data/caltech101#split=test") == "caltech101 test"
    assert address_name("demo/labelled_train") == "labelled_train"
    assert address_name("annotations/instances_val2017.json") == "instances_val2017"
    assert address_name(["a/b", "a/c"]) == "b + c"
