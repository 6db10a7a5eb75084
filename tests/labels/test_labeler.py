"""Captions → synsets: the paper's equation 1, the reference code's function with its artefacts, and compounds."""

import pickle

import pyarrow as pa
import pytest
from nasty_captions import HAND_PICKED, random_captions

from catlip_lite.labels import CaptionLabeler, count_synsets, load_nouns, name_to_wnids
from catlip_lite.labels import labeler as labeler_module
from catlip_lite.labels.reference import nltk_lemma, nltk_tagger, reference_label
from catlip_lite.labels.tagging import NOUN_TAGS
from catlip_lite.labels.tokenising import clean_caption, tokenize


def names(mode, caption, **options):
    (wnids,) = CaptionLabeler(mode, **options).label([caption])
    return [load_nouns().name(w) for w in wnids]


def test_a_caption_becomes_imagenets_wnids():
    assert CaptionLabeler("compound").label(["A red apple for my dog."]) == [["n07739125", "n02084071"]]


# --- corenet: for comparison, with its artefacts ---


def test_corenet_gives_what_the_reference_gives():
    captions = [*HAND_PICKED, *random_captions(1500), None, ["a dog", "two cats"], b"a dog", float("nan"), 3, "x" * 100_000]
    assert CaptionLabeler("corenet").label(captions) == [reference_label(c, tag=False) for c in captions]


def test_tags_change_nothing_of_what_the_reference_gives():
    assert [reference_label(c) for c in HAND_PICKED] == [reference_label(c, tag=False) for c in HAND_PICKED]


@pytest.mark.parametrize("option", [{"sense": "visual"}, {"proper_nouns": False}])
def test_corenet_refuses_options_that_the_reference_does_not_have(option):
    with pytest.raises(ValueError, match="takes neither sense nor proper_nouns"):
        CaptionLabeler("corenet", **option)


@pytest.mark.parametrize("word", ["automobile", "tv", "couch", "kitty", "photo", "bike", "phone", "fridge", "cookies"])
def test_corenet_drops_words_that_are_not_the_first_lemma_of_their_synset(word):
    assert names("corenet", word) == []


@pytest.mark.parametrize("word", ["are", "can", "may", "over", "there", "here", "now", "one", "six", "free", "old", "none"])
def test_corenet_takes_words_of_any_part_of_speech_for_nouns(word):
    assert [n.lower() for n in names("corenet", word)] == [word]


def test_corenet_reads_are_as_a_unit_of_area():
    (wnids,) = CaptionLabeler("corenet").label(["are"])
    assert "unit of surface area" in load_nouns().gloss(wnids[0])


@pytest.mark.parametrize("word, lemma", [("boss", "bos"), ("glasses", "glass"), ("jeans", "jean"), ("spectacles", "spectacle")])
def test_corenet_lemmatises_to_the_shortest_candidate(word, lemma):
    assert [n.lower() for n in names("corenet", word)] == [lemma]


def test_corenet_knows_single_words_and_hyphenated_entries_only():
    assert names("corenet", "ice cream merry-go-round") == ["ice", "cream", "merry-go-round"]


def test_corenet_keeps_duplicates():
    assert names("corenet", "a dog and a dog") == ["dog", "dog"]


# --- pos: equation 1 ---


def test_pos_keeps_nouns_and_drops_other_words():
    assert names("pos", "the dogs are running over there") == ["dog"]


def test_pos_takes_any_lemma_of_the_first_sense():
    assert names("pos", "an automobile") == ["car"]


def test_pos_is_equation_1_with_nltks_tagger_and_lemmatiser():
    captions = [c for c in [*HAND_PICKED, *random_captions(500)] if c]
    nouns = load_nouns()

    def straight(caption):
        tagged = nltk_tagger().tag(tokenize(clean_caption(caption, lower=False)))
        lemmas = [nltk_lemma(word.lower()) for word, tag in tagged if tag in NOUN_TAGS]
        return list(dict.fromkeys(nouns.wnids[nouns.senses[lemma][0]] for lemma in lemmas if lemma in nouns.senses))

    assert CaptionLabeler("pos").label(captions) == [straight(c) for c in captions]


def test_pos_can_leave_out_what_is_tagged_as_a_name():
    assert names("pos", "A dog in Paris") == ["dog", "Paris"]
    assert names("pos", "A dog in Paris", proper_nouns=False) == ["dog"]


# --- compound: ours ---


@pytest.mark.parametrize(
    "caption, expected",
    [
        ("a golden retriever with ice cream", ["golden retriever", "ice cream"]),
        ("golden retrievers", ["golden retriever"]),
        ("a t-shirt", ["jersey"]),
        ("the TV and the automobile", ["television", "car"]),
        ("ice, cream", ["ice", "cream"]),  # no compound reaches across punctuation
        ("what are you over there for? so long", []),
        ("two red young dogs", ["dog"]),
        ("men's shoes, dogs' leashes", ["man", "shoe", "dog", "leash"]),
        ("a St. Bernard of the U.S. team", ["Saint Bernard", "United States", "team"]),
        ("5 inch 16 oz ct", []),
        ("looking at the city, laying on the street", ["city", "street"]),
        ("mens vintage jacket", ["man", "jacket"]),
        ("men with blue eyes, fries and glasses", ["man", "eye", "french fries", "spectacles"]),
        ("shoes with leather soles, lenses and bunches of flowers", ["shoe", "leather", "sole", "lens", "bunch", "flower"]),
        ("arms, bones, rooms, colors and weeds", ["arm", "bone", "room", "color", "weed"]),
        ("boys in red trunks, eggs, baby booties", ["male child", "short pants", "egg", "baby", "bootee"]),
        ("a wireless mouse on a stainless steel table", ["mouse", "stainless steel", "table"]),
        (
            "a cup upside down, an upside-down face, pineapple upside-down cake",
            ["cup", "face", "pineapple", "upside-down cake"],
        ),
        ("two girls hand in hand, his shirt inside out, a sign right side up", ["girl", "shirt", "sign"]),
        ("her head on his shoulder, birds in the air", ["head", "shoulder", "bird", "air"]),
    ],
)
def test_compound_reads_longest_compounds_and_drops_function_words(caption, expected):
    assert names("compound", caption) == expected


@pytest.mark.parametrize("caption", ["a dog plays", "she holds it", "standing and running", "it takes off"])
def test_compound_drops_verbs_that_are_nouns_elsewhere(caption):
    assert set(names("compound", caption)) <= {"dog"}


@pytest.mark.parametrize("caption", ["a building", "a painting", "a play", "a drawing"])
def test_compound_keeps_nouns_that_look_like_verbs(caption):
    assert len(names("compound", caption)) == 1


@pytest.mark.parametrize(
    "word, first, visual",
    [
        ("table", "group", "artifact"),
        ("mouse", "animal", "animal"),
        ("crane", "person", "animal"),
        ("banana", "plant", "food"),
        ("kite", "possession", "artifact"),
    ],
)
def test_visual_takes_the_sense_that_a_photograph_can_show(word, first, visual):

    def field(sense):
        ((wnid,),) = CaptionLabeler("compound", sense=sense).label([word])
        return load_nouns().field(wnid)

    assert (field("first"), field("visual")) == (first, visual)


def test_compound_can_leave_out_names():
    assert names("compound", "a dog in Paris, France") == ["dog", "Paris", "France"]
    assert names("compound", "a dog in Paris, France", proper_nouns=False)[0] == "dog"
    assert not {"Paris", "France"} & set(names("compound", "a dog in Paris, France", proper_nouns=False))


def test_compound_gives_each_synset_once_in_order_of_first_mention():
    assert names("compound", "cat, dog, cats") == ["cat", "dog"]


# --- all modes ---


@pytest.mark.parametrize("mode", ["pos", "compound"])
def test_missing_and_empty_captions_have_no_label(mode):
    assert CaptionLabeler(mode).label([None, float("nan"), "", "  ", "😀🎂", "dog"]) == [[], [], [], [], [], ["n02084071"]]


@pytest.mark.parametrize("mode", ["pos", "compound"])
def test_several_captions_of_one_image_are_labelled_together(mode):
    assert CaptionLabeler(mode).label([["a dog", "a cat", None, "the dog"]]) == [["n02084071", "n02121620"]]


@pytest.mark.parametrize("mode", ["corenet", "pos", "compound"])
def test_no_captions_have_no_labels(mode):
    assert CaptionLabeler(mode).label([]) == []
    assert len(CaptionLabeler(mode).label_column(pa.array([], pa.string()))) == 0


@pytest.mark.parametrize("mode", ["corenet", "pos", "compound"])
def test_a_caption_of_a_megabyte_is_labelled(mode):
    (wnids,) = CaptionLabeler(mode).label(["a dog, " * 150_000])
    assert set(wnids) == {"n02084071"}


@pytest.mark.parametrize("mode", ["corenet", "pos", "compound"])
def test_a_column_holds_the_integers_of_the_wnids(mode):
    labeler, captions = CaptionLabeler(mode), [c for c in HAND_PICKED if c]
    column = labeler.label_column(pa.chunked_array([captions[:5], captions[5:]]))
    assert column.type == pa.list_(pa.int32())
    assert [[f"n{n:08d}" for n in row] for row in column.to_pylist()] == labeler.label(captions)


@pytest.mark.parametrize("mode", ["corenet", "pos", "compound"])
def test_mentions_are_the_labels_with_their_words(mode):
    labeler = CaptionLabeler(mode)
    mentions = [[wnid for _, wnid in found] for found in labeler.mentions(HAND_PICKED)]
    once = [found if mode == "corenet" else list(dict.fromkeys(found)) for found in mentions]
    assert once == labeler.label(HAND_PICKED)


def test_mentions_say_which_words_a_synset_came_from():
    ((first, second),) = CaptionLabeler().mentions(["Golden Retrievers on the beach"])
    assert (first[0], second[0]) == ("golden retrievers", "beach")


@pytest.mark.parametrize("mode", ["corenet", "pos", "compound"])
def test_labels_do_not_depend_on_the_size_of_a_batch(mode, monkeypatch):
    captions = [*HAND_PICKED, *random_captions(200)]
    at_once = CaptionLabeler(mode).label(captions)
    monkeypatch.setattr(labeler_module, "BATCH", 7)
    assert CaptionLabeler(mode).label(captions) == at_once
    monkeypatch.setattr(labeler_module, "BATCH_BYTES", 100)
    assert CaptionLabeler(mode).label(captions) == at_once


@pytest.mark.parametrize("mode", ["corenet", "pos", "compound"])
def test_words_that_are_forgotten_are_looked_up_again(mode, monkeypatch):
    captions = [*HAND_PICKED, *random_captions(200)]
    labels = CaptionLabeler(mode).label(captions)
    monkeypatch.setattr(labeler_module, "REMEMBERED", 3)
    forgetful = CaptionLabeler(mode)
    assert forgetful.label(captions) == labels
    assert forgetful._facts_of.cache_info().currsize == forgetful._words_of.cache_info().currsize == 3


@pytest.mark.parametrize("mode", ["corenet", "pos", "compound"])
def test_labels_of_a_caption_do_not_depend_on_the_captions_before_it(mode):
    captions = ["a dog", "wolves and geese", "an old dog's toy", "ice cream"]
    together = CaptionLabeler(mode).label(captions)
    assert together == [CaptionLabeler(mode).label([c])[0] for c in captions]


def test_one_string_is_refused_where_a_list_belongs():
    with pytest.raises(TypeError, match="pass \\['a dog'\\]"):
        CaptionLabeler().label("a dog")


def test_an_unknown_sense_is_answered_with_the_known_ones():
    with pytest.raises(ValueError, match="first, visual"):
        CaptionLabeler(sense="second")


def test_a_labeler_travels_to_another_process():
    labeler = CaptionLabeler("pos", sense="visual", proper_nouns=False)
    travelled = pickle.loads(pickle.dumps(labeler))
    assert (travelled.card, travelled.label(["a dog"])) == (labeler.card, labeler.label(["a dog"]))


@pytest.mark.parametrize(
    "options, name",
    [
        ({}, "compound"),
        ({"mode": "pos", "tagger": "perceptron"}, "pos-perceptron"),
        ({"sense": "first", "proper_nouns": False}, "compound-first-common"),
    ],
)
def test_a_labelers_name_tells_what_is_not_its_modes_own(options, name):
    assert CaptionLabeler(**options).name == name


def test_an_unknown_mode_is_answered_with_the_known_ones():
    with pytest.raises(ValueError, match="corenet, pos, compound"):
        CaptionLabeler("nouns")


def test_a_synset_named_twice_in_a_caption_counts_once():
    assert count_synsets([["n1", "n1", "n2"], ["n1"]]) == {"n1": 2, "n2": 1}


@pytest.mark.parametrize(
    "name, synsets",
    [
        ("ice_cream", ["ice cream"]),
        ("restaurant_kitchen", ["restaurant", "kitchen"]),
        ("n02084071", ["dog"]),
        ("xyzzy", []),
        ("n99999999", []),
    ],
)
def test_a_class_name_means_its_whole_or_its_parts(name, synsets):
    assert [load_nouns().name(w) for w in name_to_wnids(name)] == synsets


def test_the_labeler_of_an_artefact_is_made_again():
    labeler = CaptionLabeler("compound", sense="first", proper_nouns=False)
    assert CaptionLabeler.from_card({**labeler.card, "num_captions": 3}).card == labeler.card


def test_an_artefact_without_its_labeler_is_refused():
    with pytest.raises(ValueError, match="run notebook 01_synset_analysis again"):
        CaptionLabeler.from_card({})
