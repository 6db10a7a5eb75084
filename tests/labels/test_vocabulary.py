"""The vocabulary: synsets with a count greater than the threshold, most frequent first, stored with their provenance."""

import numpy as np
import pytest

from catlip_lite.artefacts import provenance
from catlip_lite.labels import Vocabulary

DOG, CAT, APPLE = "n02084071", "n02121620", "n07739125"


@pytest.fixture
def vocabulary():
    return Vocabulary.from_counts({CAT: 3, DOG: 7, APPLE: 3}, threshold=2, num_captions=10)


def test_a_synset_stays_if_its_count_is_greater_than_the_threshold():
    assert Vocabulary.from_counts({DOG: 501, CAT: 500}, threshold=500).wnids == [DOG]


def test_the_papers_threshold_is_the_default():
    assert Vocabulary.from_counts({DOG: 501, CAT: 500}).wnids == [DOG]


def test_classes_fall_by_count_with_ties_by_wnid(vocabulary):
    assert vocabulary.wnids == [DOG, CAT, APPLE]


def test_encode_gives_sorted_distinct_indices_and_skips_unknown_synsets(vocabulary):
    assert vocabulary.encode([APPLE, DOG, "n00000000", APPLE]).tolist() == [0, 2]


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
