"""The vocabulary: synsets with a count greater than the threshold, most frequent first, stored with their provenance."""

import pickle
from collections import OrderedDict

import numpy as np
import pyarrow as pa
import pytest
from nasty_captions import HAND_PICKED

from catlip_lite.artefacts import provenance
from catlip_lite.labels import CaptionLabeler, Vocabulary, corenet_key, count_synsets
from catlip_lite.labels.gold import read_gold
from catlip_lite.labels.vocabulary import thresholds_to_try, wnid_of_corenet_key

DOG, CAT, APPLE = "n02084071", "n02121620", "n07739125"


@pytest.fixture
def vocabulary():
    return Vocabulary.from_counts({CAT: 3, DOG: 7, APPLE: 3}, threshold=2, num_captions=10)


def test_a_synset_stays_if_its_count_is_greater_than_the_threshold():
    assert Vocabulary.from_counts({DOG: 501, CAT: 500}, threshold=500).wnids == [DOG]


def test_the_papers_threshold_is_the_default():
    assert Vocabulary.from_counts({DOG: 501, CAT: 500}).wnids == [DOG]
    assert Vocabulary.from_counts({DOG: 501, CAT: 500}, None).card["threshold"] == 500


def test_a_negative_threshold_is_refused():
    with pytest.raises(ValueError, match="threshold=-1"):
        Vocabulary.from_counts({DOG: 7}, -1)


def test_thresholds_to_try_hold_the_chosen_one_and_leave_a_class():
    assert thresholds_to_try([7, 3, 3], chosen=4) == [0, 1, 2, 4, 5]


def test_classes_fall_by_count_with_ties_by_wnid(vocabulary):
    assert vocabulary.wnids == [DOG, CAT, APPLE]


def test_encode_gives_sorted_distinct_indices_and_skips_unknown_synsets(vocabulary):
    assert vocabulary.encode([APPLE, DOG, "n00000000", APPLE]).tolist() == [0, 2]


CAPTIONS = [None, *HAND_PICKED, "", *(entry.caption for entry in read_gold()), "a dog, two dogs and a cat", None]


def encoded(vocabulary, labels):
    """The rows of `encode_column`."""
    indices, counts = vocabulary.encode_column(labels)
    assert (indices.dtype, counts.dtype, len(counts)) == (np.int32, np.int64, len(labels))
    return [row.tolist() for row in np.split(indices, np.cumsum(counts)[:-1])] if len(counts) else indices.tolist()


def by_encode(vocabulary, labels):
    return [vocabulary.encode(f"n{number:08d}" for number in row).tolist() for row in labels.to_pylist()]


@pytest.mark.parametrize("mode", ["corenet", "pos", "compound"])
def test_a_column_is_encoded_as_its_captions_are(mode):
    labeler = CaptionLabeler(mode)
    labels = labeler.label_column(CAPTIONS)
    half = Vocabulary.from_counts(count_synsets(labeler.label(CAPTIONS[::2])), threshold=0)
    rows = encoded(half, labels)
    assert rows == by_encode(half, labels)
    assert [] in rows and len(half) > max(map(max, filter(None, rows))) > 100


@pytest.mark.parametrize("part", [slice(0, 0), slice(0, 9), slice(3, 40), slice(-1, None)])
def test_a_slice_of_a_column_is_encoded_alone(part):
    labels = CaptionLabeler("corenet").label_column(CAPTIONS)[part]
    vocabulary = Vocabulary([APPLE, DOG, CAT], [1, 1, 1])
    assert encoded(vocabulary, labels) == by_encode(vocabulary, labels)


def test_a_column_without_captions_or_without_labels_has_no_classes(vocabulary):
    assert encoded(vocabulary, pa.array([], pa.list_(pa.int32()))) == []
    assert encoded(vocabulary, CaptionLabeler().label_column(["", "the", None])) == [[], [], []]
    assert encoded(Vocabulary([], [], 0), CaptionLabeler().label_column(["a dog"])) == [[]]


def test_prior_odds_are_those_of_the_share_of_captions(vocabulary):
    assert vocabulary.log_prior_odds()[0] == pytest.approx(np.log(7 / 3), rel=1e-6)


def test_a_threshold_that_leaves_nothing_names_the_highest_count():
    with pytest.raises(ValueError, match="most frequent: 7"):
        Vocabulary.from_counts({DOG: 7}, threshold=7)


def test_a_synset_twice_is_refused():
    with pytest.raises(ValueError, match="distinct"):
        Vocabulary([DOG, DOG], [1, 1], 2)


def test_a_saved_vocabulary_comes_back_with_its_card(tmp_path, vocabulary):
    vocabulary.card.update(provenance(labeler="compound"))
    loaded = Vocabulary.load(vocabulary.save(tmp_path / "vocabulary.parquet"))
    assert (loaded.wnids, loaded.counts.tolist(), loaded.num_captions) == ([DOG, CAT, APPLE], [7, 3, 3], 10)
    assert loaded.card == vocabulary.card


def test_a_missing_vocabulary_names_the_notebook_that_writes_it(tmp_path):
    with pytest.raises(FileNotFoundError, match="02_vocab_pruning"):
        Vocabulary.load(tmp_path / "vocabulary.parquet")


def test_a_file_cut_short_is_no_vocabulary(tmp_path, vocabulary):
    path = vocabulary.save(tmp_path / "vocabulary.parquet")
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(ValueError, match="no readable parquet"):
        Vocabulary.load(path)


# --- the reference's file ---


@pytest.mark.parametrize("wnid, key", [(DOG, "n2084071"), ("n00001740", "n1740")])
def test_the_references_keys_have_no_leading_zeros(wnid, key):
    assert (corenet_key(wnid), wnid_of_corenet_key(key)) == (key, wnid)


@pytest.mark.parametrize("key", ["v2084071", "n", "n99999999", 5])
def test_a_key_that_is_no_noun_is_refused(key):
    with pytest.raises(ValueError, match="is no key of a noun"):
        wnid_of_corenet_key(key)


@pytest.mark.parametrize("kind", [dict, OrderedDict])
def test_the_published_vocabulary_keeps_its_order_and_its_first_classes(tmp_path, kind):
    (tmp_path / "v.pkl").write_bytes(pickle.dumps(kind([("n2084071", 9), ("n7739125", 7), ("n2121620", 7)])))
    vocabulary = Vocabulary.load_corenet(tmp_path / "v.pkl", size=2, num_captions=20)
    assert (vocabulary.wnids, vocabulary.counts.tolist(), vocabulary.num_captions) == ([DOG, APPLE], [9, 7], 20)


def test_the_published_vocabulary_is_loaded_by_its_suffix(tmp_path):
    (tmp_path / "v.pkl").write_bytes(pickle.dumps({"n2084071": 9}))
    vocabulary = Vocabulary.load(tmp_path / "v.pkl")
    assert CaptionLabeler.from_card(vocabulary.card).name == "corenet"


@pytest.mark.parametrize("content", [pickle.dumps(print), pickle.dumps([1]), pickle.dumps({"n2084071": "x"}), b"", b"junk"])
def test_a_file_that_is_no_dict_of_counts_is_refused(tmp_path, content):
    (tmp_path / "v.pkl").write_bytes(content)
    with pytest.raises(ValueError, match="is no pickled dict of counts"):
        Vocabulary.load(tmp_path / "v.pkl")
