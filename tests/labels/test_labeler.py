"""Captions → synsets: the paper's equation 1, the reference code's function with its artefacts, and compounds."""

import pytest

from catlip_lite.labels import CaptionLabeler, count_synsets, load_nouns, name_to_wnids
from catlip_lite.labels.labeler import clean_caption


def names(mode, caption, **options):
    (wnids,) = CaptionLabeler(mode, **options).label([caption])
    return [load_nouns().name(w) for w in wnids]


@pytest.mark.parametrize(
    "raw, clean",
    [
        ("  A+Red%20Apple ", "a red apple"),
        ("dog<br>cat", "dogcat"),  # tags go without a space, as in the reference
        ("I <3 dogs > cats", "i cats"),
        ("&lt;b&gt;bold", "<b>bold"),  # entities are decoded after tags are removed
        ("it’s schÃ¶n", "it's schön"),
    ],
)
def test_cleaning_is_the_references(raw, clean):
    assert clean_caption(raw) == clean


def test_a_caption_becomes_imagenets_wnids():
    assert CaptionLabeler("compound").label(["A red apple for my dog."]) == [["n07739125", "n02084071"]]


def test_a_word_means_its_first_sense_whatever_the_caption():
    (wnids,) = CaptionLabeler("compound").label(["an apple on the table"])
    assert "a set of data arranged in rows and columns" in load_nouns().gloss(wnids[1])


# --- corenet: for comparison, with its artefacts ---


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


def test_corenet_can_name_394_imagenet_classes():
    from catlip_lite.labels import LabelSet

    nouns = load_nouns()
    wanted = [w for (w,) in LabelSet.load("imagenet-1k").wnids]
    captions = [word for w in wanted for word in nouns.lemmas[nouns.row_of(w)] if "_" not in word]
    emitted = {w for found in CaptionLabeler("corenet").label(captions) for w in found}
    # 394 before the lemmatiser, which loses a few that look like plurals.
    assert 385 <= len(emitted & set(wanted)) <= 394


# --- pos: equation 1 ---


def test_pos_keeps_nouns_and_drops_other_words():
    assert names("pos", "the dogs are running over there") == ["dog"]


def test_pos_takes_any_lemma_of_the_first_sense():
    assert names("pos", "an automobile") == ["car"]


# --- compound: ours ---


@pytest.mark.parametrize(
    "caption, expected",
    [
        ("a golden retriever with ice cream", ["golden retriever", "ice cream"]),
        ("golden retrievers", ["golden retriever"]),
        ("a t-shirt", ["jersey"]),
        ("the TV and the automobile", ["television", "car"]),
        ("ice, cream", ["ice", "cream"]),  # no compound reaches across punctuation
        ("what are you over there for?", []),
        ("two red young dogs", ["dog"]),
    ],
)
def test_compound_reads_longest_compounds_and_drops_function_words(caption, expected):
    assert names("compound", caption) == expected


def test_compound_gives_each_synset_once_in_order_of_first_mention():
    assert names("compound", "cat, dog, cats") == ["cat", "dog"]


def test_compound_reaches_more_than_850_imagenet_classes():
    from catlip_lite.labels import LabelSet

    nouns = load_nouns()
    wanted = [w for (w,) in LabelSet.load("imagenet-1k").wnids]
    captions = [lemma.replace("_", " ") for w in wanted for lemma in nouns.lemmas[nouns.row_of(w)]]
    emitted = {w for found in CaptionLabeler("compound").label(captions) for w in found}
    assert len(emitted & set(wanted)) > 850


# --- all modes ---


@pytest.mark.parametrize("mode", ["corenet", "pos", "compound"])
def test_missing_and_empty_captions_have_no_label(mode):
    assert CaptionLabeler(mode).label([None, "", "  ", "dog"]) == [[], [], [], ["n02084071"]]


@pytest.mark.parametrize("mode", ["corenet", "pos", "compound"])
def test_labels_of_a_caption_do_not_depend_on_the_captions_before_it(mode):
    captions = ["a dog", "wolves and geese", "an old dog's toy", "ice cream"]
    together = CaptionLabeler(mode).label(captions)
    assert together == [CaptionLabeler(mode).label([c])[0] for c in captions]


def test_one_string_is_refused_where_a_list_belongs():
    with pytest.raises(TypeError, match="pass \\['a dog'\\]"):
        CaptionLabeler().label("a dog")


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
