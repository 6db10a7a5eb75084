"""Which rows of the pre-trained head a label borrows, and with what weight (paper section 4.1)."""

import numpy as np
import pytest

from catlip_lite.labels import LabelSet, Vocabulary, load_nouns
from catlip_lite.labels.borrowing import BORROWING, borrow

DOG, PUPPY, CAT, APPLE, PUG = "n02084071", "n01322604", "n02121620", "n07739125", "n02110958"
KITCHEN, RESTAURANT = "n03619890", "n04081281"


def found(labels, counts, how="own", **options):
    """What labels, given by their WNIDs, borrow of a vocabulary: (WNID -> weight, kind) of each."""
    vocabulary = Vocabulary(list(counts), list(counts.values()), num_captions=1000)
    label_set = LabelSet("labels", tuple(map(str, range(len(labels)))), tuple(labels))
    borrowed = borrow(label_set, vocabulary, how, **options)
    weights = [dict(zip((vocabulary.wnids[row] for row in b.rows), b.weights.tolist(), strict=True)) for b in borrowed]
    return [(w, b.kind) for w, b in zip(weights, borrowed, strict=True)]


def test_own_is_the_mean_of_all_synsets_of_the_label():
    assert found([(RESTAURANT, KITCHEN)], {KITCHEN: 9, RESTAURANT: 1}) == [({KITCHEN: 0.5, RESTAURANT: 0.5}, "own")]


def test_first_is_the_labels_first_synset_that_the_vocabulary_has():
    labels = [(APPLE, RESTAURANT, KITCHEN)]
    assert found(labels, {KITCHEN: 9, RESTAURANT: 1}, "first") == [({RESTAURANT: 1.0}, "own")]


def test_hyponyms_are_weighted_by_their_captions():
    [(weights, kind)] = found([(DOG,)], {DOG: 59, CAT: 40, PUG: 19, APPLE: 3}, "hyponyms")
    assert (weights, kind) == (pytest.approx({DOG: 0.75, PUG: 0.25}), "hyponyms")


def test_hyponyms_of_a_vocabulary_without_counts_weigh_the_same():
    [(weights, _)] = found([(DOG,)], {DOG: 0, PUG: 0}, "hyponyms")
    assert weights == {DOG: 0.5, PUG: 0.5}


def test_similar_synsets_are_weighted_by_their_similarity():
    [(weights, kind)] = found([(DOG,)], {DOG: 9, PUPPY: 9, CAT: 9}, "similar", min_similarity=0.5)
    assert (weights, kind) == (pytest.approx({DOG: 2 / 3, PUPPY: 1 / 3}), "similar")


def test_similar_at_one_is_the_label_itself():
    assert found([(DOG,)], {DOG: 9, PUPPY: 9}, "similar", min_similarity=1) == [({DOG: 1.0}, "own")]


def test_a_synset_as_near_as_the_threshold_is_similar():
    [(weights, _)] = found([(PUG,)], {PUPPY: 9}, "similar", min_similarity=1 / 3)
    assert weights == {PUPPY: 1.0}


def test_without_an_own_synset_hyponyms_come_before_what_is_near():
    assert found([(DOG,)], {PUPPY: 9, PUG: 9}) == [({PUG: 0.5, PUPPY: 0.5}, "hyponyms")]
    assert found([(PUG,)], {DOG: 9}) == [({DOG: 1.0}, "similar")]


def test_fallbacks_are_tried_in_the_order_given():
    assert found([(DOG,)], {PUG: 9, PUPPY: 1}, fallback=("similar", "hyponyms"))[0][1] == "similar"


def test_without_fallback_a_label_whose_synset_is_missing_borrows_nothing():
    assert found([(PUG,), (DOG,)], {DOG: 9}, fallback=()) == [({}, "none"), ({DOG: 1.0}, "own")]


@pytest.mark.parametrize("how", BORROWING)
def test_labels_without_a_noun_of_wordnet_borrow_nothing(how):
    assert found([(), ("n99999999",)], {DOG: 9}, how) == [({}, "none")] * 2


@pytest.mark.parametrize("how", BORROWING)
def test_weights_of_a_label_add_up_to_one_and_fall(how):
    counts = dict(zip(load_nouns().wnids[:8000:4], range(2000, 0, -1), strict=True))
    vocabulary = Vocabulary(list(counts), list(counts.values()), num_captions=9000)
    for b in borrow(LabelSet.load("imagenet-1k"), vocabulary, how, min_similarity=0.3):
        assert (b.rows.dtype, b.weights.dtype) == (np.int32, np.float32)
        assert (np.diff(b.weights) <= 0).all()
        assert b.weights.sum() == pytest.approx(1 if len(b.rows) else 0, abs=1e-5)


def test_all_labels_of_one_call_get_what_each_gets_alone():
    wnids = load_nouns().wnids[:8000:4]
    vocabulary = Vocabulary(wnids, range(len(wnids), 0, -1), num_captions=9000)
    names = LabelSet.load("imagenet-1k")
    together = borrow(names, vocabulary, min_similarity=0.3)
    for i in range(0, 1000, 111):
        [alone] = borrow(LabelSet("one", names.names[i : i + 1], names.wnids[i : i + 1]), vocabulary, min_similarity=0.3)
        assert (alone.rows.tolist(), alone.kind) == (together[i].rows.tolist(), together[i].kind)


def test_an_unknown_way_names_the_known_ones():
    with pytest.raises(ValueError, match="borrow='nearest' is unknown: choose one of first, own, hyponyms, similar"):
        found([(DOG,)], {DOG: 1}, "nearest")


@pytest.mark.parametrize("least", [0, 1.5])
def test_a_similarity_out_of_range_is_refused(least):
    with pytest.raises(ValueError, match=f"min_similarity={least} must be above 0 and at most 1"):
        found([(DOG,)], {DOG: 1}, min_similarity=least)
