"""Senses by company: what the words beside a noun say of it, and where a noun is a verb."""

import pickle

import numpy as np
import pyarrow as pa
import pytest

from catlip_lite.labels import CaptionLabeler, load_nouns
from catlip_lite.labels.company import Company, _Counts, count_company, prior_of, verbs_in_place
from catlip_lite.labels.gold import read_gold, score_labeler
from catlip_lite.labels.senses import sense_of

READER = CaptionLabeler(sense="context")


def field_of(word, caption):
    """The field of the synset that a word of a caption is read as; None if it is none."""
    (mentions,) = READER.mentions([caption])
    return next((load_nouns().field(wnid) for mention, wnid in mentions if mention == word), None)


@pytest.mark.parametrize(
    "word, animals, things",
    [
        ("mouse", "a mouse eats cheese in the field", "a mouse beside a keyboard"),
        ("mouse", "a mouse in the wheat and the grass", "Wireless Mouse for PC and Laptop"),
        ("bat", "a bat hangs in a cave", "the player swings his bat at the ball"),
        ("crane", "a crane wading in a marsh", "crane lifts a steel beam"),
        ("jersey", "Jersey cow in a field", "Women's Jersey Dress"),
    ],
)
def test_the_words_beside_a_noun_tell_its_sense(word, animals, things):
    assert (field_of(word, animals), field_of(word, things)) == ("animal", "artifact")


def test_a_compound_of_several_senses_is_told_too():
    (wnids,) = READER.label(["Red fox in the snow"])
    assert "vulpes" in str(load_nouns().lemmas[load_nouns().row[wnids[0]]]).lower()


def test_alone_a_noun_means_what_captions_mean_most_often():
    assert field_of("mouse", "mouse") == field_of("mouse", "the mouse 42") == "animal"


def test_a_gold_caption_is_read_better_than_by_the_one_sense_of_each_word():
    gold = [entry for entry in read_gold() if entry.held_out]
    context, visual = score_labeler(READER, gold), score_labeler(CaptionLabeler(), gold)
    assert context.f1 > visual.f1 + 0.03 and context.precision > visual.precision and context.recall > visual.recall


def test_labels_do_not_depend_on_the_captions_around():
    captions = [*(entry.caption for entry in read_gold()[:120]), "", None, "…", "mouse"]
    alone = [READER.label([caption])[0] for caption in captions]
    assert READER.label(captions) == alone
    assert READER.label(captions[::-1]) == alone[::-1]
    assert READER.label_column(pa.chunked_array([captions[:7], captions[7:]])).to_pylist() == [
        [int(wnid[1:]) for wnid in own] for own in alone
    ]


def test_only_neighbours_vote():
    far = "a mouse on the floor. " + "xyzzy " * 3 + "of the house with a red roof and a green door " * 4
    assert field_of("mouse", far) == field_of("mouse", far + "keyboard laptop computer usb wireless monitor")


def test_names_can_be_left_out():
    (wnids,) = CaptionLabeler(sense="context", proper_nouns=False).label(["Stephen Crane and a turkey, Ankara"])
    assert not load_nouns().named[[load_nouns().row[wnid] for wnid in wnids]].any()


def test_a_labeler_is_made_again_from_its_card_and_in_another_process():
    assert READER.card["label_sense"] == "context" and READER.name == "compound-context"
    caption = ["a mouse beside a keyboard"]
    assert CaptionLabeler.from_card(READER.card).label(caption) == READER.label(caption)
    assert pickle.loads(pickle.dumps(READER)).label(caption) == READER.label(caption)


@pytest.mark.parametrize("mode", ["pos", "corenet"])
def test_only_compound_has_it(mode):
    with pytest.raises(ValueError, match="for mode='compound' alone"):
        CaptionLabeler(mode, sense="context")


# --- nouns that are verbs ---


@pytest.mark.parametrize(
    "caption, word, is_noun",
    [
        ("The boxer lands a punch", "lands", False),
        ("graduates toss their caps", "caps", True),
        ("10 beaches and when to visit", "visit", False),
        ("he runs to market", "market", True),
        ("the steps a man sits on", "steps", True),
        ("she lands. A punch", "lands", True),
    ],
)
def test_a_verb_is_told_by_the_word_beside_it(caption, word, is_noun):
    assert (field_of(word, caption) is not None) == is_noun


def test_words_of_another_caption_say_nothing():
    opens, to, finite, bare = 1, 2, 4, 8
    parts = np.array([0, finite, opens, 0, to, bare, finite, opens], dtype=np.int32)
    assert verbs_in_place(parts, np.array([3, 6, 8])).tolist() == [False, True, False, False, False, True, True, False]
    assert not verbs_in_place(parts, np.array([2, 5, 7, 8])).any()
    assert not verbs_in_place(parts[:0], np.array([0, 0])).any()


# --- counts and priors ---


def test_a_prior_adds_up_and_follows_what_was_read():
    assert np.isclose(prior_of("plate").sum(), 1)
    bikes = load_nouns().senses["bike"]
    assert load_nouns().lemmas[bikes[prior_of("bike").argmax()]][0] == "bicycle"
    assert load_nouns().lemmas[sense_of("bike", "visual")][0] == "motorcycle"


def test_company_is_counted_once_a_caption():
    captions = ["Two dogs and a dog run on a beach", "dogs run", "", "a beach"]
    table = count_company(captions, CaptionLabeler().mentions(captions))
    counts = {(row.lemma, row.word): row.captions for row in table.itertuples()}
    assert counts["dog", "run"] == 2 and counts["dog", "beach"] == counts["beach", "dog"] == 1
    assert ("dog", "dog") not in counts


def test_a_synset_has_all_words_of_those_below_it_and_a_noun_no_say_in_its_own_senses():
    counts = _Counts()
    entity, animal, dog = (load_nouns().row[wnid] for wnid in ("n00001740", "n00015388", "n02084071"))
    assert counts.total(entity).sum() >= counts.total(animal).sum() > counts.total(dog).sum() > 0
    assert [*counts.path(dog)][-1] == entity
    senses = load_nouns().senses["mouse"]
    others = counts.ratios("mouse", senses)
    column, count = counts.of_lemma["mouse"]
    counts.of_lemma["mouse"] = column, 0 * count  # as if its captions were another noun's
    assert (counts.ratios("mouse", senses)[:, column] > others[:, column]).mean() > 0.9


def test_every_vote_is_for_a_sense_of_the_noun():
    company = Company()
    for lemma in ("mouse", "bat", "red_fox"):
        chosen = company.choose(np.array([company.undecided(lemma)]), np.array([0]), np.array([0]), np.array([1]))
        assert int(load_nouns().row[f"n{chosen[0]:08d}"]) in load_nouns().senses[lemma]
    assert company.undecided("xyzzy") == 0
