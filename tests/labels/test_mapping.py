"""Class names of data sets and what they mean: known benchmarks recognised, others looked up, a person's corrections kept."""

import csv

import numpy as np
import pytest

from catlip_lite.labels import LabelSet, Vocabulary, load_nouns
from catlip_lite.labels.borrowing import borrow
from catlip_lite.labels.mapping import NAMED_SETS, class_positions, map_classes, recognise, write_mapping

DOG, CAT, APPLE, COMPUTER_MOUSE, ANIMAL_MOUSE = "n02084071", "n02121620", "n07739125", "n03793489", "n02330245"


def meant(*names, **options):
    return map_classes(names, **options).wnids


# --- known sets ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMED_SETS)
def test_a_known_set_is_recognised_by_its_own_names(name):
    names = LabelSet.load(name).names
    assert recognise(names).title == name
    assert class_positions(names, LabelSet.load(name)).tolist() == list(range(len(names)))


SPELLINGS = {  # how data sets write class names -> as files of that benchmark do
    "imagenet-1k": lambda name, wnid: wnid,
    "places365": lambda name, wnid: f"/{name[0]}/{name}",
    "coco-80": lambda name, wnid: name.replace(" ", "_").upper(),
    "caltech-101": lambda name, wnid: name.lower(),
}


@pytest.mark.parametrize("name", SPELLINGS)
def test_a_known_set_is_recognised_as_its_files_write_it_in_any_order(name):
    known = LabelSet.load(name)
    written = [SPELLINGS[name](n, " ".join(w)) for n, w in zip(known.names, known.wnids, strict=True)][::-1]
    mapped = map_classes(written)
    assert (mapped.title, mapped.names, mapped.wnids) == (name, tuple(written), known.wnids[::-1])


def test_places_in_folders_of_one_level_are_recognised():
    names = [name.replace("/", "-") for name in LabelSet.load("places365").names]
    assert class_positions(names, LabelSet.load("places365")).tolist() == list(range(365))


def test_imagenets_names_may_be_all_lemmas_of_a_synset():
    known = LabelSet.load("imagenet-1k")
    assert class_positions(["tench, Tinca tinca", "Tinca tinca"], known).tolist() == [0, 0]


def test_a_file_of_ones_own_may_be_named_like_imagenet_and_have_names_that_wordnet_lacks(tmp_path):
    (tmp_path / "imagenet-mine.csv").write_text("label\ntench\nxyzzy\n")
    known = LabelSet.load(tmp_path / "imagenet-mine.csv")
    assert class_positions(["Tinca tinca", "xyzzy"], known).tolist() == [0, 1]


def test_a_class_that_a_known_set_lacks_is_looked_up_in_wordnet():
    mapped = map_classes([*LabelSet.load("coco-80").names, "apple tree"])
    assert (mapped.title, load_nouns().name(mapped.wnids[-1][0])) == ("coco-80", "apple tree")


def test_part_of_a_known_set_is_recognised_from_half_of_it_on():
    names = LabelSet.load("caltech-101").names
    assert recognise(names[:51]).title == "caltech-101"
    assert recognise(names[:50]) is None


def test_more_than_a_twentieth_of_strange_names_is_another_data_set():
    names = [*LabelSet.load("coco-80").names]
    assert recognise([*names, "quokka", "wombat", "emu", "dugong"]).title == "coco-80"
    assert recognise([*names, "quokka", "wombat", "emu", "dugong", "koala"]) is None


def test_the_mouse_of_three_animals_is_no_computers():
    assert meant("cat", "dog", "mouse") == ((CAT,), (DOG,), (ANIMAL_MOUSE,))


def test_the_mouse_of_a_named_set_is_that_sets():
    assert meant("cat", "dog", "mouse", label_set="coco-80") == ((CAT,), (DOG,), (COMPUTER_MOUSE,))


def test_a_named_set_without_the_class_is_refused_unless_a_correction_says_what_it_means(tmp_path):
    with pytest.raises(
        ValueError, match=r"label set coco-80 has no class quokka \(1 of 2\): say what they mean in corrections"
    ):
        map_classes(["cat", "quokka"], "coco-80")
    (tmp_path / "mine.csv").write_text("label,wnids\nquokka,\n")
    assert meant("cat", "quokka", label_set="coco-80", corrections=tmp_path / "mine.csv") == ((CAT,), ())


def test_a_label_set_may_be_a_file_that_changes(tmp_path):
    path = tmp_path / "own.csv"
    path.write_text(f"label,wnids\nmouse,{ANIMAL_MOUSE}\n")
    assert meant("mouse", label_set=path) == ((ANIMAL_MOUSE,),)
    path.write_text(f"label,wnids\nmouse,{COMPUTER_MOUSE}\n")
    assert meant("mouse", label_set=path) == ((COMPUTER_MOUSE,),)


# --- other names -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("written", "names"),
    [
        (DOG, ["dog"]),
        (f"{DOG}_dog", ["dog"]),
        (f"{DOG}-domestic-dog", ["dog"]),
        ("ice_creams", ["ice cream"]),
        ("hot-dogs", ["hotdog"]),
        ("Golden Retrievers", ["golden retriever"]),
        ("ZEBRAS", ["zebra"]),
        ("001.Black_footed_Albatross", ["black-footed albatross"]),
        ("12 ice cream", ["ice cream"]),
        ("/a/apartment_building", ["apartment building"]),
        ("SeaLake", ["sea", "lake"]),
        ("restaurant_kitchen", ["restaurant", "kitchen"]),
        ("7up", []),
        ("n99999999", []),
    ],
)
def test_names_as_folders_write_them(written, names):
    [wnids] = meant(written)
    assert [load_nouns().name(w) for w in wnids] == names


def test_classes_given_twice_are_named():
    with pytest.raises(ValueError, match="classes given twice: cat: keep each once"):
        map_classes(["cat", "dog", "cat"])


def test_no_classes_are_refused():
    with pytest.raises(ValueError, match="no classes given"):
        map_classes([])


# --- a person's table ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("label,wnids\nmouse,n03793489 n00000042\n", r"no noun of WordNet 3.0 \(n02084071 is one\): n00000042"),
        ("label,wnids\nrat,n02330245\n", "no class of the data: rat"),
        ("label,wnids\nmouse,n02330245\nmouse,\n", r"label\(s\) given twice: mouse"),
        ("label;wnids\nmouse;n02330245\n", "need the columns label and wnids, separated by commas; it has label;wnids"),
        ("", "it has nothing"),
        (b"label,wnids\nmaus\xe9,\n", "is no CSV in UTF-8"),
    ],
)
def test_corrections_that_cannot_be_meant_are_refused_with_what_is_wrong(tmp_path, text, message):
    (tmp_path / "mine.csv").write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(ValueError, match=rf"mine.csv.*{message}"):
        map_classes(["mouse", "cat"], corrections=tmp_path / "mine.csv")


def test_corrections_that_are_not_there_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="no corrections at .*mine.csv"):
        map_classes(["mouse"], corrections=tmp_path / "mine.csv")


def test_corrections_as_a_spreadsheet_saves_them(tmp_path):
    (tmp_path / "mine.csv").write_bytes(b"\xef\xbb\xbfwnids,label,remark\r\nn03793489, mouse ,mine\r\n,,\r\n")
    assert meant("cat", "mouse", corrections=tmp_path / "mine.csv") == ((CAT,), (COMPUTER_MOUSE,))


@pytest.fixture
def mapped(tmp_path):
    """Four classes mapped, borrowed and written."""
    vocabulary = Vocabulary([DOG, CAT, APPLE], [50, 30, 20], num_captions=100)
    label_set = map_classes(["mouse", "apple", "cat_dog", "xyzzy"])
    return label_set, borrow(label_set, vocabulary), vocabulary, tmp_path / "label_mapping.csv"


def rows_of(path):
    with open(path, newline="", encoding="utf-8") as file:
        return {row["label"]: row for row in csv.DictReader(file)}


def test_a_mapping_tells_what_labels_mean_and_borrow(mapped):
    rows = rows_of(write_mapping(*mapped))
    assert rows["apple"] == {
        "label": "apple",
        "wnids": APPLE,
        "meaning": "apple: fruit with red or yellow or green skin and sweet to tart crisp whitish flesh",
        "in_vocabulary": "yes",
        "borrows": "apple",
        "kind": "own",
        "captions": "20",
    }
    assert (rows["cat_dog"]["borrows"], rows["cat_dog"]["captions"]) == ("dog, cat", "80")
    assert (rows["xyzzy"]["wnids"], rows["xyzzy"]["in_vocabulary"], rows["xyzzy"]["kind"]) == ("", "no", "none")


def test_a_mapping_with_one_row_edited_comes_back_with_that_edit(mapped):
    path = write_mapping(*mapped)
    path.write_text(path.read_text().replace(ANIMAL_MOUSE, COMPUTER_MOUSE))
    label_set = mapped[0]
    again = map_classes(label_set.names, corrections=path)
    assert again.wnids == ((COMPUTER_MOUSE,), *label_set.wnids[1:])


def test_a_mapping_that_a_person_corrected_is_kept_and_the_new_one_goes_beside_it(mapped):
    path = write_mapping(*mapped)
    corrected = path.read_text().replace(ANIMAL_MOUSE, COMPUTER_MOUSE)
    path.write_text(corrected)
    beside = path.with_name("label_mapping-1.csv")
    assert [write_mapping(*mapped), write_mapping(*mapped)] == [beside, beside]
    assert path.read_text() == corrected


def test_a_mapping_with_a_persons_column_is_kept(mapped):
    path = write_mapping(*mapped)
    path.write_text(path.read_text().replace("captions\n", "captions,remark\n", 1))
    assert write_mapping(*mapped) != path


def test_the_same_meanings_with_other_captions_are_written_over(mapped):
    label_set, _, _, path = mapped
    write_mapping(*mapped)
    more = Vocabulary([APPLE], [77], num_captions=100)
    assert write_mapping(label_set, borrow(label_set, more), more, path) == path
    assert rows_of(path)["apple"]["captions"] == "77"


def test_positions_of_classes_that_a_set_lacks_are_minus_one():
    assert np.array_equal(class_positions(["zebra", "quokka", "person"], LabelSet.load("coco-80")), [22, -1, 0])
