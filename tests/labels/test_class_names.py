"""What class names mean in the company of others: senses that the set tells, heads and modifiers, and what stays as it was."""

import pytest

from catlip_lite.labels import LabelSet, Vocabulary, load_nouns, name_to_wnids
from catlip_lite.labels.class_names import meanings
from catlip_lite.labels.gold import gold_names, score_names
from catlip_lite.labels.mapping import NAMED_SETS, map_classes

ANIMALS = ["Boxer", "Mole", "Crane", "Seal", "Kite", "Dog", "Cat", "Mouse", "Pelican", "Zebra"]
TOOLS = ["Crane", "Drill", "File", "Hammer", "Screwdriver", "Wrench", "Chisel", "Pliers"]
CLOTHES = ["Shirts", "Trousers", "Jackets", "Skirts", "Socks", "Sandals", "Shoes", "Hats", "Coats", "Sweaters"]
EXCAVATOR, BULLDOZER, TRACTOR = "n03996416", "n02916179", "n04465501"


def in_company(names, of):
    """WordNet's names for what each of some names means among others."""
    found = dict(zip([*names, *of], meanings([*names, *of]), strict=True))
    return {name: [load_nouns().lemmas[load_nouns().row[wnid]][0] for wnid in found[name]] for name in names}


def gloss(name, of):
    [wnid] = meanings([name, *of])[0]
    return load_nouns().gloss(wnid)


# --- the company decides -----------------------------------------------------------------------------------------------------


def test_what_a_shop_sells_is_worn():
    names = ["Mufflers", "Belts", "Boxers", "Gloves", "Clutches", "Tops", "Tunics", "Trunk", "Handbags", "Tshirts"]
    gold, found = gold_names(), dict(zip(gold_names(), meanings(list(gold_names())), strict=True))
    assert [found[name][0] in gold[name][0] and len(found[name]) == 1 for name in names] == [True] * len(names)


def test_most_of_a_shops_article_types_mean_what_a_person_says():
    gold = gold_names()
    alone, _ = score_names([name_to_wnids(name) for name in gold], gold.values())
    right, f1 = score_names(meanings(list(gold)), gold.values())
    assert alone < 0.7 and right > 0.85 and f1 > 0.88


@pytest.mark.parametrize("title", NAMED_SETS)
def test_names_of_known_sets_mean_more_often_what_these_show_than_each_alone(title):
    gold = gold_names(title)
    alone = score_names([name_to_wnids(name) for name in gold], gold.values())
    together = score_names(meanings(list(gold)), gold.values())
    assert together[0] > alone[0] and together[1] > alone[1]


def test_all_animals_are_animals_among_animals():
    assert [load_nouns().field(wnid) for [wnid] in meanings(ANIMALS)] == ["animal"] * len(ANIMALS)


def test_all_tools_are_things_among_tools():
    assert [load_nouns().field(wnid) for [wnid] in meanings(TOOLS)] == ["artifact"] * len(TOOLS)
    assert gloss("Bat", of=TOOLS) != gloss("Bat", of=ANIMALS)


def test_animals_that_are_also_fur_or_meat_by_their_names_stay_animals():
    also = ["beaver", "leopard", "otter", "raccoon", "rabbit", "fox", "sheep", "seal", "squirrel", "weasel"]
    animals = [*also, "antelope", "tiger", "elephant", "gorilla", "giraffe", "wolf", "zebra", "bobcat", "lion", "cow", "horse"]
    assert [load_nouns().field(wnid) for [wnid] in meanings(animals)] == ["animal"] * len(animals)


def test_one_other_label_is_no_company():
    assert meanings(["muffler", "scarf"])[0] == tuple(name_to_wnids("muffler"))


def test_the_order_of_names_does_not_matter():
    names = [*gold_names()]
    found = dict(zip(names, meanings(names), strict=True))
    assert meanings(names[::-1]) == [found[name] for name in names[::-1]]
    assert meanings(sorted(names, key=len)) == [found[name] for name in sorted(names, key=len)]


def test_names_that_are_known_are_company_and_stay():
    names, given = ["crane", "a", "b", "c"], [None, [EXCAVATOR], [BULLDOZER], [TRACTOR]]
    assert meanings(names, given)[1:] == [(EXCAVATOR,), (BULLDOZER,), (TRACTOR,)]
    assert load_nouns().field(meanings(names, given)[0][0]) == "artifact"
    assert meanings(names, [None, [], [], []])[0] == tuple(name_to_wnids("crane"))


def test_corrected_classes_are_company_of_the_others(tmp_path):
    (tmp_path / "mine.csv").write_text(f"label,wnids\na,{EXCAVATOR}\nb,{BULLDOZER}\nc,{TRACTOR}\n")
    [crane] = map_classes(["crane", "a", "b", "c"], corrections=tmp_path / "mine.csv").wnids[0]
    assert load_nouns().gloss(crane).startswith("lifts and moves heavy objects")


def test_a_list_of_names_is_a_label_set_whose_names_keep_company():
    assert LabelSet.load(["muffler", *CLOTHES]).wnids == tuple(meanings(["muffler", *CLOTHES]))
    assert gloss("muffler", of=CLOTHES) == "a scarf worn around the neck"


# --- parts of a name ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name", ["dog", "boxers", "ice_cream", "restaurant_kitchen", "Track Pants", "car_side", "men's hats", "n02084071"]
)
def test_alone_a_name_means_what_it_means_in_a_caption(name):
    assert meanings([name]) == [tuple(name_to_wnids(name))]


@pytest.mark.parametrize("name", ["xyzzy", "7up", "n99999999", "", "-", "/"])
def test_what_is_no_noun_means_nothing(name):
    assert meanings([name, "dog"])[0] == ()


def test_modifiers_that_are_strange_to_the_company_are_no_parts():
    found = in_company(["Sports Sandals", "Night suits", "Men's Hats"], of=CLOTHES)
    assert found == {"Sports Sandals": ["sandal"], "Night suits": ["suit"], "Men's Hats": ["hat"]}


def test_a_last_word_that_captions_rarely_use_as_a_noun_is_one_to_a_company_that_knows_it():
    assert in_company(["Crop Top", "car_side"], of=CLOTHES) == {"Crop Top": ["top"], "car_side": ["car"]}
    assert gloss("Crop Top", of=CLOTHES).startswith("a garment")


def test_modifiers_that_the_company_knows_as_well_are_parts():
    rooms = ["bedroom", "bathroom", "kitchen", "hotel", "restaurant", "museum", "church", "classroom"]
    assert in_company(["restaurant_kitchen"], of=rooms) == {"restaurant_kitchen": ["restaurant", "kitchen"]}


def test_both_sides_of_and_are_meant():
    assert in_company(["Mufflers and Gloves"], of=CLOTHES) == {"Mufflers and Gloves": ["muffler", "glove"]}
    assert in_company(["black and gold garden spider"], of=ANIMALS)["black and gold garden spider"] == [
        "black_and_gold_garden_spider"
    ]


def test_what_lies_behind_a_slash_is_a_kind():
    places = ["beach", "forest", "stadium", "bridge", "museum", "church", "temple", "airport", "harbor"]
    assert in_company(["temple/asia"], of=places) == {"temple/asia": ["temple"]}


def test_compounds_may_be_written_without_a_space_and_pairs_as_one():
    assert in_company(["Tshirts", "binocular"], of=[]) == {"Tshirts": ["jersey"], "binocular": ["binoculars"]}


# --- the captions of a vocabulary ---

SHEEP, BOXER_DOG, BOXER_SHORTS = "n02411705", "n02108089", "n03234164"


def vocabulary(**counts):
    return Vocabulary.from_counts(counts, threshold=0)


def test_what_captions_call_so_more_often_is_meant():
    names = [*CLOTHES, "Boxers"]
    assert meanings(names)[-1] == (BOXER_SHORTS,)
    assert meanings(names, vocabulary=vocabulary(**{BOXER_DOG: 9, BOXER_SHORTS: 2}))[-1] == (BOXER_DOG,)
    assert meanings(names, vocabulary=vocabulary(**{BOXER_DOG: 2, BOXER_SHORTS: 9}))[-1] == (BOXER_SHORTS,)
    assert meanings(names, vocabulary=vocabulary(**{SHEEP: 9}))[-1] == (BOXER_SHORTS,)


def test_what_a_person_gave_is_not_asked_again():
    given = [None] * len(CLOTHES) + [[BOXER_SHORTS]]
    found = meanings([*CLOTHES, "Boxers"], given, vocabulary(**{BOXER_DOG: 9}))
    assert found[-1] == (BOXER_SHORTS,)


def test_a_few_labels_are_no_company_for_hundreds_of_others():
    zodiac = ["Taurus", "Gemini", "Virgo", "Libra", "Scorpio", "Sagittarius", "Aquarius"]
    many = list(gold_names("imagenet-1k"))
    assert meanings(["crab", *zodiac])[0] != meanings(["crab", *zodiac, *many])[0]
    assert "decapod" in load_nouns().gloss(meanings(["crab", *zodiac, *many])[0][0])
