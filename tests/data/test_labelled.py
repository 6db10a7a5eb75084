"""Labelled images come from shards with labels or from class folders."""

import pytest

from catlip_lite.data.labelled import check_labelled, load_labelled


def test_shards_give_labels_and_groups(shards):
    images = load_labelled(shards, 16)
    assert (len(images), images.views.shape[1:]) == (24, (3, 16, 16))
    assert images.classes == ["apple", "banana", "cat", "dog"]
    assert set(images.groups) == {"A", "B"}


def test_class_folders_give_labels(tmp_path, make_png):
    for name in ("zebra", "ant"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "1.png").write_bytes(make_png())
    assert load_labelled(tmp_path, 8).labels.tolist() == ["ant", "zebra"]


def test_unreadable_images_are_left_out_and_named(tmp_path, make_png, caplog):
    (tmp_path / "ant").mkdir()
    (tmp_path / "ant" / "good.png").write_bytes(make_png())
    (tmp_path / "ant" / "bad.png").write_bytes(b"no image")
    assert len(load_labelled(tmp_path, 8)) == 1
    assert "bad.png" in caplog.text


def test_fingerprint_changes_with_labels_and_size(shards):
    prints = {load_labelled(shards, 16).fingerprint, load_labelled(shards, 8).fingerprint}
    assert prints == {load_labelled(shards, 16).fingerprint, load_labelled(shards, 8).fingerprint}
    assert len(prints | {load_labelled(shards, 16, only={"ant", "dog"}).fingerprint}) == 3


def test_no_labels_is_said_with_the_field(shards):
    with pytest.raises(ValueError, match="no image has a label: shards need 'species' in their .json"):
        load_labelled(shards, 8, label_field="species")


def test_a_missing_label_field_is_told_before_long_work(shards):
    with pytest.raises(ValueError, match="sample 000000000 has no 'species' in its .json, which has uid, label"):
        check_labelled([shards], label_field="species")


def test_a_sample_repeats_and_is_cached_apart_from_the_whole(shards):
    images = load_labelled(shards, 8)
    some, again = images.sample(5), images.sample(5)
    assert some.labels.tolist() == again.labels.tolist()
    assert (len(some), images.sample(None), some.fingerprint != images.fingerprint) == (5, images, True)
