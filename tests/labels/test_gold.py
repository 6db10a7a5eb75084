"""The gold captions, and what the default labeler has to be better at than the others."""

from collections import Counter

import pytest

from catlip_lite.labels import CaptionLabeler, LabelSet, load_nouns
from catlip_lite.labels.gold import (
    KINDS,
    TITLE_KINDS,
    GoldCaption,
    Score,
    gold_names,
    reachable_labels,
    read_gold,
    score_labeler,
    score_names,
)

TABLES = ("gold_captions", "gold_titles", "gold_languages")
DOG, CAT, BANK, SHORE = "n02084071", "n02121620", "n08420278", "n09213565"


def gold(caption, *things, held_out=False):
    return GoldCaption("alt text", caption, tuple(map(frozenset, things)), held_out)


def test_there_are_300_captions_of_each_kind_together():
    entries = read_gold()
    assert len(entries) >= 300
    assert {entry.kind for entry in entries} == set(KINDS)


def test_there_are_100_shop_titles_and_100_alt_texts_of_the_web():
    assert Counter(entry.kind for entry in read_gold("gold_titles")) == dict.fromkeys(TITLE_KINDS, 100)


def test_there_are_60_captions_of_five_languages_of_all_kinds():
    entries = read_gold("gold_languages")
    expected = {(language, kind): 20 for language in ("de", "es", "fr", "ja", "zh") for kind in KINDS}
    assert Counter((entry.language, entry.kind) for entry in entries) == expected


def test_no_gold_caption_is_there_twice():
    captions = [entry.caption for table in TABLES for entry in read_gold(table)]
    assert len(set(captions)) == len(captions)


def test_every_gold_synset_is_in_wordnet():
    things = [thing for table in TABLES for entry in read_gold(table) for thing in entry.things]
    assert all(wnid in load_nouns().row for thing in things for wnid in thing)


def test_a_shop_has_79_article_types_most_of_which_wordnet_has():
    things = gold_names().values()
    assert (len(things), sum(map(bool, things))) == (79, 72)
    assert all(wnid in load_nouns().row for named in things for thing in named for wnid in thing)


def test_names_that_two_classes_of_a_known_set_have_are_left_out():
    assert len(gold_names("imagenet-1k")) == 996  # without two cranes and two maillots
    assert gold_names("coco-80")["zebra"] == (frozenset({"n02391049"}),)


def test_a_name_is_mapped_as_a_person_would_if_all_that_it_is_given_is_right():
    both = (frozenset({DOG}), frozenset({CAT}))
    given = [[DOG, CAT], [DOG], [DOG, BANK], [BANK], [], [], [DOG]]
    gold = [both, both, both, both, both, (), ()]
    f1 = [1, 2 / 3, 1 / 2, 0, 0, 1, 0]
    assert [score_names([wnids], [things]) for wnids, things in zip(given, gold, strict=True)] == [
        (right, pytest.approx(credit)) for right, credit in zip([1, 1, 0, 0, 0, 1, 0], f1, strict=True)
    ]
    assert score_names(given, gold) == (pytest.approx(3 / 7), pytest.approx(sum(f1) / 7))


def test_precision_counts_given_synsets_and_recall_named_things():
    entries = [gold("a dog and a cat", {DOG}), gold("a dog", {DOG}, {CAT})]
    assert score_labeler(CaptionLabeler(), entries) == Score(precision=2 / 3, recall=2 / 3)


def test_any_of_equally_good_synsets_is_right():
    assert score_labeler(CaptionLabeler(), [gold("a dog", {DOG, CAT})]) == Score(1.0, 1.0)


def test_f1_is_the_harmonic_mean():
    assert Score(0.5, 1.0).f1 == pytest.approx(2 / 3)


def test_the_default_reads_the_held_out_captions_best():
    entries = [entry for entry in read_gold() if entry.held_out]
    others = [CaptionLabeler("corenet"), CaptionLabeler("pos"), CaptionLabeler(sense="first")]
    assert score_labeler(CaptionLabeler(), entries).f1 > max(score_labeler(other, entries).f1 for other in others)


def test_corenet_can_name_394_classes_of_imagenet():
    assert reachable_labels(CaptionLabeler("corenet"), LabelSet.load("imagenet-1k")) == 394


def test_compound_can_name_at_least_880_classes_of_imagenet():
    assert reachable_labels(CaptionLabeler("compound"), LabelSet.load("imagenet-1k")) >= 880
