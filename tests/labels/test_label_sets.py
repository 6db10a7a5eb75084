"""Label sets: benchmarks by name, or anybody's names and WNIDs from a list, a text file, a CSV or class folders."""

import pytest

from catlip_lite.labels import LabelSet, load_nouns
from catlip_lite.labels.label_sets import KNOWN_SETS

DOG, CAT = ("n02084071",), ("n02121620",)
TABLES = {"places365": 365, "coco-80": 80, "ade20k-150": 150, "caltech-101": 101}
each_table = pytest.mark.parametrize("name", TABLES)


def test_imagenet_1k_has_1000_synsets_in_its_class_order():
    labels = LabelSet.load("imagenet-1k")
    assert (len(labels), labels.wnids[0], labels.wnids[999]) == (1000, ("n01440764",), ("n15075141",))


def test_imagenets_two_cranes_have_two_names():
    names = LabelSet.load("imagenet-1k").names
    assert len(set(names)) == 1000
    assert {"crane (n02012849)", "crane (n03126707)"} <= set(names)


@each_table
def test_a_benchmark_has_all_its_classes(name):
    assert len(LabelSet.load(name)) == TABLES[name]


@each_table
def test_the_classes_of_a_benchmark_have_distinct_names(name):
    assert len(set(LabelSet.load(name).names)) == TABLES[name]


@each_table
def test_the_synsets_of_a_benchmark_are_nouns_of_wordnet_3_0(name):
    assert {wnid for wnids in LabelSet.load(name).wnids for wnid in wnids} <= set(load_nouns().wnids)


@pytest.mark.parametrize(
    ("name", "places"),
    [
        ("places365", {0: "airfield", 30: "badlands", 203: "kitchen", 255: "parking_garage/indoor", 364: "zen_garden"}),
        ("coco-80", {0: "person", 15: "cat", 46: "banana", 64: "mouse", 79: "toothbrush"}),
        ("ade20k-150", {0: "wall", 12: "person", 58: "screen door", 130: "screen", 149: "flag"}),
        ("caltech-101", {0: "Faces", 4: "accordion", 41: "flamingo", 56: "lamp", 100: "yin_yang"}),
    ],
)
def test_the_classes_of_a_benchmark_come_in_its_official_order(name, places):
    names = LabelSet.load(name).names
    assert {index: names[index] for index in places} == places


@pytest.mark.parametrize(
    ("name", "label", "wnids"),
    [
        ("places365", "watering_hole", "n09475827"),  # where animals drink, not a spa
        ("places365", "carrousel", "n02966193"),  # the merry-go-round, not the one for luggage
        ("places365", "berth", "n02831724"),  # the bunk, not the job
        ("places365", "home_office", "n04345028 n03841666"),  # study and office, not the government department
        ("places365", "restaurant_kitchen", "n04081281 n03619890"),  # WordNet has no compound: restaurant and kitchen
        ("coco-80", "mouse", "n03793489"),  # of a computer
        ("coco-80", "tie", "n03815615"),  # the necktie
        ("coco-80", "kite", "n03621473"),  # the plaything, not a bank check
        ("coco-80", "hot dog", "n07697537"),  # the sausage in a bun, not the daredevil
        ("ade20k-150", "plant", "n00017222"),  # flora, not a factory
        ("ade20k-150", "hood", "n03531546"),  # over a stove
        ("ade20k-150", "bar", "n02789487"),  # the counter, not the room
        ("ade20k-150", "screen", "n04152829"),  # for projection: "screen door" and "crt screen" are classes of their own
        ("caltech-101", "Leopards", "n02128385"),  # the animal, not its pelt
        ("caltech-101", "Motorbikes", "n03790512"),  # motorcycle: WordNet's "motorbike" is a minibike
        ("caltech-101", "sea_horse", "n01456756"),  # the fish, not the walrus
        ("caltech-101", "yin_yang", "n05915584 n05915356"),
    ],
)
def test_a_label_of_a_benchmark_means_what_its_pictures_show(name, label, wnids):
    labels = LabelSet.load(name)
    assert labels.wnids[labels.names.index(label)] == tuple(wnids.split())


def test_an_empty_cell_of_a_benchmarks_table_is_not_looked_up():
    assert LabelSet.load("caltech-101").unknown == ["garfield"]


def test_a_benchmarks_name_may_be_in_upper_case():
    assert LabelSet.load("Places365").title == "places365"


def test_names_from_a_list():
    assert LabelSet.load(["dog", "cat"]).wnids == (DOG, CAT)


def test_wnids_from_a_list_mean_themselves():
    assert LabelSet.load([*DOG, *CAT]).wnids == (DOG, CAT)


@pytest.mark.parametrize("mark", ["", "\ufeff"], ids=["plain", "with a byte order mark"])
def test_names_from_a_text_file(tmp_path, mark):
    (tmp_path / "pets.txt").write_text(f"{mark}dog\n\n cat \n", encoding="utf-8")
    labels = LabelSet.load(tmp_path / "pets.txt")
    assert (labels.title, labels.names, labels.wnids) == ("pets", ("dog", "cat"), (DOG, CAT))


@pytest.mark.parametrize("rest", ["cat,\n", "cat\n,\n"], ids=["whole", "a short row, and a spreadsheet's empty one"])
def test_a_csv_can_say_what_a_name_means(tmp_path, rest):
    (tmp_path / "pets.csv").write_text(f"label,wnids\nrex,n02084071\n{rest}")
    assert LabelSet.load(tmp_path / "pets.csv").wnids == (DOG, CAT)


def test_names_from_class_folders(tmp_path):
    for name in ("dog", "cat", ".cache"):
        (tmp_path / name).mkdir()
    assert LabelSet.load(tmp_path).names == ("cat", "dog")


def test_unknown_names_are_kept_without_a_synset():
    assert LabelSet.load(["dog", "xyzzy"]).unknown == ["xyzzy"]


def test_a_label_set_of_unknown_names_alone_is_refused():
    with pytest.raises(ValueError, match=r"no noun for any of 2 labels \(xyzzy, plugh\): rename them"):
        LabelSet.load(["xyzzy", "plugh"])


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
    with pytest.raises(FileNotFoundError, match=", ".join(KNOWN_SETS)):
        LabelSet.load("imagenet-2k")
