"""Labels against a vocabulary, by WordNet path similarity (paper figures 2b and 2c)."""

import random

import numpy as np
import pandas as pd
import pytest

from catlip_lite.labels import LabelSet, Vocabulary, load_nouns, match_labels
from catlip_lite.labels.matching import UNREACHABLE, label_distances, path_distances, similarity
from catlip_lite.labels.wordnet import wordnet_folder

DOG, PUPPY, CAT, APPLE = "n02084071", "n01322604", "n02121620", "n07739125"


@pytest.fixture(scope="module")
def vocabulary():
    return Vocabulary.from_counts({DOG: 30, PUPPY: 20, CAT: 10}, threshold=0, num_captions=100)


def match(label, vocabulary, least):
    return match_labels(LabelSet.load([label]), vocabulary, least).iloc[0]


def test_path_similarity_is_nltks_on_ten_thousand_random_pairs():
    wordnet_folder()
    from nltk.corpus import wordnet

    wnids = random.Random(0).sample(load_nouns().wnids, 200)
    synsets = [wordnet.synset_from_pos_and_offset("n", int(w[1:])) for w in wnids]
    expected = [[a.path_similarity(b) for b in synsets[100:]] for a in synsets[:100]]
    assert np.allclose(similarity(path_distances(wnids[:100], wnids[100:])), expected)


def test_a_synset_has_similarity_one_with_itself_and_a_half_with_its_child():
    assert similarity(path_distances([DOG], [DOG, PUPPY])).tolist() == [[1.0, 0.5]]


def test_an_exact_match_is_the_labels_own_synset(vocabulary):
    assert (match("dog", vocabulary, 1.0)["exact"], match("dog", vocabulary, 1.0)["matches"]) == ([DOG], [DOG])


def test_a_missing_label_names_its_nearest_synset(vocabulary):
    row = match("pug", vocabulary, 1.0)
    assert (row["exact"], row["nearest"], row["similarity"]) == ([], DOG, 0.5)


def test_matches_come_nearest_first_and_their_captions_add_up(vocabulary):
    row = match("dog", vocabulary, 0.5)
    assert (row["matches"], row["count"]) == ([DOG, PUPPY], 50)


def test_a_label_of_two_parts_matches_both():
    vocabulary = Vocabulary.from_counts(dict.fromkeys(LabelSet.load(["restaurant_kitchen"]).wnids[0], 5), 0)
    assert len(match("restaurant_kitchen", vocabulary, 1.0)["exact"]) == 2


def test_a_label_that_wordnet_does_not_know_matches_nothing(vocabulary):
    table = match_labels(LabelSet.load(["dog", "xyzzy"]), vocabulary, 0.1)
    assert (table["matches"][1], table["count"][1], pd.isna(table["nearest"][1])) == ([], 0, True)


@pytest.mark.parametrize("least", [0, -1, 1.5])
def test_a_similarity_outside_its_range_is_refused(vocabulary, least):
    with pytest.raises(ValueError, match="above 0 and at most 1"):
        match("dog", vocabulary, least)


def test_a_label_is_as_far_from_a_synset_as_its_nearest_part():
    labels = LabelSet.from_names(["dog or apple", "pug", "xyzzy"], wnids=[[APPLE, DOG], [], []])
    assert label_distances(labels, [DOG, PUPPY]).tolist() == [[0, 1], [1, 2], [UNREACHABLE, UNREACHABLE]]
