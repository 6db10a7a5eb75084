"""Short names of labelled sets, for tables: distinct, and each set once."""

import pytest

from catlip_lite.data.labelled import address_name, named_addresses


def test_short_names_of_addresses(tmp_path):
    assert address_name("data/caltech101#split=test") == "caltech101 test"
    assert address_name("demo/labelled_train") == "labelled_train"
    assert address_name("annotations/instances_val2017.json") == "instances_val2017"
    assert address_name(["a/b", "a/c"]) == "b + c"


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
