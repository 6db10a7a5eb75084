"""Notebooks 01 to 03 on a corpus of a few captions whose labels can be counted by hand."""

import pandas as pd
import pytest

from catlip_lite.artefacts import read_table
from catlip_lite.labels import CaptionLabeler, LabelSet, Vocabulary, load_nouns, match_labels
from catlip_lite.tasks import label_overlap as overlaps
from catlip_lite.tasks import synset_analysis as analysis
from catlip_lite.tasks import vocab_pruning as pruning

DOG, PUPPY, CAT, APPLE = "n02084071", "n01322604", "n02121620", "n07739125"
CORPUS = ["a dog and a cat", "a dog, dogs!", "the dog", "an apple", None, "cat with an apple", "puppy", "are you there"]


@pytest.fixture(scope="module")
def labels():
    return analysis.label_captions(CORPUS, CaptionLabeler("compound"))


@pytest.fixture(scope="module")
def counts(labels):
    return analysis.synset_counts(labels)


@pytest.fixture(scope="module")
def side():
    return analysis.compare_labelers(CORPUS, 100, analysis.labelers_to_compare(CaptionLabeler()), seed=0)


@pytest.fixture
def card():
    return {"num_captions": 8, **CaptionLabeler("compound").card, "labeler": "compound", "captions": "x"}


# --- 01 ---


def test_a_synset_counts_once_a_caption(counts):
    assert counts[["wnid", "count"]].values.tolist() == [[DOG, 3], [CAT, 2], [APPLE, 2], [PUPPY, 1]]


def test_a_corpus_without_nouns_is_refused():
    with pytest.raises(ValueError, match="none of 1 captions names a WordNet noun"):
        analysis.synset_counts([[]])


def test_only_captions_that_are_there_are_compared(side):
    assert sorted(side.captions) == sorted(c for c in CORPUS if c)


def test_a_labeler_agrees_fully_with_itself(side):
    assert [analysis.agreement(side).loc[n, n] for n in side.mentions] == [1.0, 1.0, 1.0]


def test_agreement_is_the_mean_jaccard_index():
    mentions = {"a": [[("x", "n1"), ("y", "n2")], []], "b": [[("x", "n1")], []]}
    side = analysis.SideBySide(["x y", "z"], mentions, {"a": 1.0, "b": 1.0})
    assert analysis.agreement(side).loc["a", "b"] == (1 / 2 + 1) / 2


def test_corenet_reads_nouns_where_compound_reads_none(side):
    words = analysis.word_differences(side, "corenet", "compound")["word"]
    assert {"are", "there"} <= set(words)


def test_growth_ends_with_all_synsets_and_those_above_the_threshold(labels):
    last = analysis.synset_growth(labels, threshold=1).iloc[-1]
    assert last.to_dict() == {"captions": 8, "seen": 4, "above_threshold": 3}


def test_counts_are_stored_with_what_made_them(tmp_path, counts):
    path = analysis.write_counts(counts, tmp_path, CaptionLabeler("compound"), CORPUS, {"captions": "x.txt"})
    table, card = read_table(path)
    assert table.columns.tolist() == ["wnid", "name", "count"]
    assert (card["num_captions"], card["label_mode"], card["captions"], card["wordnet"]) == (8, "compound", "x.txt", "3.0")


def test_the_labeler_of_an_artefact_is_made_again():
    labeler = CaptionLabeler("compound", sense="first", proper_nouns=False)
    assert CaptionLabeler.from_card({**labeler.card, "num_captions": 3}).card == labeler.card


def test_an_artefact_without_its_labeler_is_refused():
    with pytest.raises(ValueError, match="run notebook 01_synset_analysis again"):
        CaptionLabeler.from_card({})


# --- 02 ---


def test_no_threshold_takes_the_papers():
    assert pruning.chosen_threshold(None) == 500


def test_a_negative_threshold_is_refused():
    with pytest.raises(ValueError, match="threshold=-1"):
        pruning.chosen_threshold(-1)


def test_the_sweep_counts_classes_label_occurrences_and_bare_captions(counts, labels):
    sweep = pruning.threshold_sweep(counts, labels, [0, 1, 2]).set_index("threshold")
    assert sweep["classes"].tolist() == [4, 3, 1]
    assert sweep["kept"].tolist() == [1, 7 / 8, 3 / 8]
    assert sweep["unlabelled"].tolist() == [2 / 8, 3 / 8, 5 / 8]


def test_thresholds_to_try_hold_the_chosen_one_and_leave_a_class(counts):
    assert pruning.thresholds_to_try(counts, chosen=1) == [0, 1, 2]


def test_the_edge_shows_what_stays_and_what_goes(counts):
    edge = pruning.edge_of(counts, threshold=1, each_side=1)
    assert edge[["fate", "synset"]].values.tolist() == [["stays", "apple"], ["goes", "puppy"]]


def test_captions_left_out_had_a_label_and_lose_it(counts, labels, card):
    lost = pruning.captions_left_out(CORPUS, labels, pruning.prune(counts, 1, card))
    assert lost.values.tolist() == [["puppy", "puppy"]]


def test_the_vocabulary_remembers_its_corpus_and_threshold(counts, card):
    vocabulary = pruning.prune(counts, 1, card)
    assert (vocabulary.num_captions, vocabulary.card["threshold"], vocabulary.card["label_mode"]) == (8, 1, "compound")


def test_other_captions_than_those_counted_are_refused(card):
    with pytest.raises(ValueError, match="pass the same captions"):
        pruning.check_captions(["a dog"], card)


def test_counts_that_are_not_there_name_the_notebook_that_writes_them(tmp_path):
    with pytest.raises(FileNotFoundError, match="01_synset_analysis"):
        pruning.read_counts(tmp_path)


# --- 03 ---


@pytest.fixture
def vocabulary(counts, card):
    return pruning.prune(counts, 1, card)  # dog, cat, apple


@pytest.fixture
def overlap(vocabulary):
    return overlaps.measure_overlap(LabelSet.load(["dog", "pug", "xyzzy", "apple"]), vocabulary.wnids, vocabulary.counts)


def test_coverage_grows_as_the_similarity_falls(overlap):
    assert overlaps.coverage_by_similarity(overlap)["matched"].tolist() == [2, 3, 3, 3]


def test_captions_of_a_label_are_those_of_its_matches(overlap):
    behind = overlaps.captions_per_label(overlap).set_index(["label", "steps"])["captions"]
    assert (behind["pug", 0], behind["pug", 1], behind["xyzzy", 3]) == (0, 3, 0)


def test_recall_is_of_labels_and_precision_of_synsets(overlap):
    exact = overlaps.coverage_by_threshold(overlap, chosen=1).query("steps == 0").set_index("threshold")
    assert exact.loc[1, ["recall", "precision"]].tolist() == [2 / 4, 2 / 3]
    assert exact.loc[2, ["recall", "precision"]].tolist() == [1 / 4, 1]


def test_a_pruned_vocabulary_has_no_curve_below_its_threshold(overlap):
    assert overlaps.coverage_by_threshold(overlap, chosen=1)["threshold"].min() == 1


def test_missing_labels_come_with_their_nearest_class(vocabulary):
    missing = overlaps.missing_labels(match_labels(LabelSet.load(["dog", "xyzzy", "pug"]), vocabulary, 0.5))
    assert missing["label"].tolist() == ["pug", "xyzzy"]
    assert (missing["nearest"][0], pd.isna(missing["nearest"][1])) == ("dog", True)


def test_lenders_are_the_classes_that_most_missing_labels_would_borrow(vocabulary):
    matches = match_labels(LabelSet.load(["pug", "corgi", "tabby", "dog"]), vocabulary, 0.5)
    assert overlaps.lenders(overlaps.missing_labels(matches))[["nearest", "labels"]].values.tolist() == [["dog", 2], ["cat", 1]]


def test_labels_without_a_synset_are_a_field_of_their_own(vocabulary):
    table = overlaps.coverage_by_field(match_labels(LabelSet.load(["dog", "xyzzy"]), vocabulary, 0.5)).set_index("field")
    assert table.loc["not in WordNet"].tolist() == [0, 0, 1]


def test_synsets_near_a_label_come_nearest_first(overlap):
    near = overlaps.synsets_near(overlap, "pug", steps=4)
    assert near["name"].tolist()[0] == "dog"
    assert near["steps"].is_monotonic_increasing


def test_matches_are_stored_with_the_vocabularys_provenance(tmp_path, vocabulary):
    wanted = LabelSet.load(["dog", "pug"])
    path = overlaps.write_matches(match_labels(wanted, vocabulary, 0.5), tmp_path, wanted, vocabulary, 0.5)
    table, card = read_table(path)
    assert table["matches"].map(list).tolist() == [[DOG], [DOG]]
    assert (card["min_similarity"], card["vocabulary_size"], card["labeler"], card["threshold"]) == (0.5, 3, "compound", 1)


def test_an_unpruned_corpus_is_used_where_its_counts_are_there(tmp_path, counts, vocabulary):
    assert overlaps.counted_synsets(tmp_path, vocabulary)[0] == vocabulary.wnids
    analysis.write_counts(counts, tmp_path, CaptionLabeler("compound"), CORPUS, {})
    assert overlaps.counted_synsets(tmp_path, vocabulary)[0] == counts["wnid"].tolist()


def test_a_vocabulary_that_does_not_say_its_threshold_has_the_least_possible():
    assert overlaps.threshold_of(Vocabulary([DOG, CAT], [9, 4], 10)) == 3


def test_names_shown_are_wordnets(counts):
    assert counts["name"].tolist() == [load_nouns().name(w) for w in counts["wnid"]]
