"""Label sets: ImageNet by name, or anybody's names and WNIDs from a list, a text file, a CSV or class folders."""

import pytest

from catlip_lite.labels import LabelSet

DOG, CAT = ("n02084071",), ("n02121620",)


def test_imagenet_1k_has_1000_synsets_in_its_class_order():
    labels = LabelSet.load("imagenet-1k")
    assert (len(labels), labels.wnids[0], labels.wnids[999]) == (1000, ("n01440764",), ("n15075141",))


def test_imagenets_two_cranes_have_two_names():
    names = LabelSet.load("imagenet-1k").names
    assert len(set(names)) == 1000
    assert {"crane (n02012849)", "crane (n03126707)"} <= set(names)


def test_names_from_a_list():
    assert LabelSet.load(["dog", "cat"]).wnids == (DOG, CAT)


def test_wnids_from_a_list_mean_themselves():
    assert LabelSet.load([*DOG, *CAT]).wnids == (DOG, CAT)


def test_names_from_a_text_file(tmp_path):
    (tmp_path / "pets.txt").write_text("dog\n\n cat \n")
    labels = LabelSet.load(tmp_path / "pets.txt")
    assert (labels.title, labels.names, labels.wnids) == ("pets", ("dog", "cat"), (DOG, CAT))


def test_a_csv_can_say_what_a_name_means(tmp_path):
    (tmp_path / "pets.csv").write_text("label,wnids\nrex,n02084071\ncat,\n")
    assert LabelSet.load(tmp_path / "pets.csv").wnids == (DOG, CAT)


def test_names_from_class_folders(tmp_path):
    for name in ("dog", "cat", ".cache"):
        (tmp_path / name).mkdir()
    assert LabelSet.load(tmp_path).names == ("cat", "dog")


def test_unknown_names_are_kept_without_a_synset():
    assert LabelSet.load(["dog", "xyzzy"], allow_unknown=True).unknown == ["xyzzy"]


def test_unknown_names_are_refused_in_one_line_that_names_them():
    with pytest.raises(ValueError) as error:
        LabelSet.load(["dog", "xyzzy"], allow_unknown=False)
    assert "1 of 2 labels (xyzzy)" in str(error.value)
    assert "allow_unknown" in str(error.value)
    assert "\n" not in str(error.value)


def test_a_label_set_of_unknown_names_alone_is_refused_always():
    with pytest.raises(ValueError, match="2 of 2"):
        LabelSet.load(["xyzzy", "plugh"], allow_unknown=True)


def test_a_repeated_label_is_refused():
    with pytest.raises(ValueError, match="twice: dog"):
        LabelSet.load(["dog", "dog"])


def test_an_empty_file_is_refused(tmp_path):
    (tmp_path / "none.txt").write_text("\n")
    with pytest.raises(ValueError, match="no labels"):
        LabelSet.load(tmp_path / "none.txt")


def test_a_csv_without_a_label_column_is_told_which_it_needs(tmp_path):
    (tmp_path / "x.csv").write_text("species\ndog\n")
    with pytest.raises(ValueError, match="label, name, class, wnid"):
        LabelSet.load(tmp_path / "x.csv")


def test_an_address_that_is_nothing_names_the_known_label_sets():
    with pytest.raises(FileNotFoundError, match="imagenet-1k"):
        LabelSet.load("imagenet-2k")
