"""What a set of labelled images can do: sample, take, join; what its fingerprint sees."""

import shutil

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from catlip_lite.data.labelled import load_labelled
from catlip_lite.data.shards import write_shards

pytestmark = pytest.mark.usefixtures("own_cache")


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


def test_ragged_labels_are_taken_whole(labelled_shard):
    images = load_labelled(labelled_shard([["b", "a"], [], ["c"], ["a", "c"]]))
    taken = images.take([3, 1, 0])
    assert (taken.counts.tolist(), [taken.classes[i] for i in taken.indices]) == ([2, 0, 2], ["a", "c", "b", "a"])


# --- several sets as one ------------------------------------------------------------------------------------------------------


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


def test_multi_label_sets_are_not_joined_with_others(labelled_shard, shards):
    lists = labelled_shard([["dog", "cat"]])
    with pytest.raises(ValueError, match="labelled has lists of labels, .*shards one label an image: give sets of one kind"):
        load_labelled([str(shards), str(lists)])


# --- fingerprints -------------------------------------------------------------------------------------------------------------


def test_fingerprints_repeat_and_change_with_labels_selection_and_files(shards, samples):
    before = load_labelled(shards).fingerprint
    assert load_labelled(shards).fingerprint == before
    assert load_labelled(f"{shards}#vendor=A").fingerprint != before
    assert load_labelled(shards, label_field="vendor").fingerprint != before
    write_shards(samples[:20], shards, samples_per_shard=16)
    assert load_labelled(shards).fingerprint != before


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
