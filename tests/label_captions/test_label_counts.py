"""Counts that were made file by file are those of all captions at once."""

import pytest
from label_corpora import DOG, all_captions, run, write_parquet

from catlip_lite.data.captions import fingerprint, read_captions
from catlip_lite.label_captions import merge_counts
from catlip_lite.labels import CaptionLabeler, Vocabulary, count_synsets
from catlip_lite.labels.labeler import LABELER_FACTS, labeler_of
from catlip_lite.labels.languages import load_lexicon


def test_merged_counts_are_those_of_all_captions_at_once(parquets, out):
    run(parquets, out)
    table, _ = merge_counts(out)
    expected = Vocabulary.from_counts(count_synsets(CaptionLabeler().label(all_captions(parquets))), 0)
    assert table.to_dict("list") == {"wnid": expected.wnids, "name": expected.names, "count": expected.counts.tolist()}


def test_counts_of_several_destinations_are_those_of_one(parquets, out, tmp_path):
    run(parquets, out)
    for i in range(3):
        run(parquets / f"{i}.parquet", tmp_path / f"part{i}")
    merged, _ = merge_counts([tmp_path / f"part{i}" for i in (2, 0, 1)])
    assert merged.to_dict("list") == merge_counts(out)[0].to_dict("list")


def test_the_card_says_what_was_counted_and_who_labelled(parquets, out):
    run(parquets, out, mode="pos")
    _, card = merge_counts(out)
    facts = {key: card[key] for key in ("num_captions", "labeler", *LABELER_FACTS, "captions", "caption_column")}
    assert facts == {
        "num_captions": 15,
        "labeler": "pos-perceptron",
        "label_mode": "pos",
        "label_sense": "first",
        "proper_nouns": True,
        "tagger": "perceptron",
        "captions": [f"{parquets}/*.parquet"],
        "caption_column": "caption",
    }


@pytest.fixture
def italian(tmp_path, monkeypatch):
    """`italian(source, destination, dog)`: label by lemmas that have this word for a dog."""
    monkeypatch.setenv("CATLIP_OMW", str(tmp_path))

    def label(source, destination, dog="cane"):
        (tmp_path / "wn-data-ita.tab").write_text(f"{DOG[1:]}-n\tita:lemma\t{dog}\n")
        load_lexicon.cache_clear()
        labeler_of.cache_clear()
        run(source, destination, language="it")

    return label


def test_the_card_names_another_language_and_where_its_lemmas_are_from(parquets, out, italian):
    write_parquet(parquets / "more.parquet", ["un cane"], ["u"])
    italian(parquets, out)
    _, card = merge_counts(out)
    assert (card["labeler"], card["label_language"]) == ("compound-it", "it")
    assert card["lemmas"] == CaptionLabeler(language="it").card["lemmas"]


def test_the_fingerprint_of_one_file_is_that_of_its_captions(parquets, out):
    run(parquets / "0.parquet", out)
    assert merge_counts(out)[1]["corpus_fingerprint"] == fingerprint(read_captions(parquets / "0.parquet"))


def test_the_fingerprint_of_many_files_names_its_scheme(parquets, out):
    run(parquets, out)
    assert merge_counts(out)[1]["corpus_fingerprint"].startswith("files-sha256:")


def test_the_fingerprint_does_not_depend_on_where_files_lie_or_in_which_order_they_come(parquets, out, tmp_path):
    run(parquets, out)
    moved = parquets.rename(tmp_path / "moved")
    for i in (2, 0, 1):
        run(moved / f"{i}.parquet", tmp_path / "again")
    assert merge_counts(tmp_path / "again")[1]["corpus_fingerprint"] == merge_counts(out)[1]["corpus_fingerprint"]


def test_the_fingerprint_sees_a_changed_caption(parquets, out):
    run(parquets, out)
    before = merge_counts(out)[1]["corpus_fingerprint"]
    write_parquet(parquets / "2.parquet", ["a cat"])
    run(parquets, out)
    assert merge_counts(out)[1]["corpus_fingerprint"] != before


def test_a_source_cannot_be_counted_twice(parquets, out, tmp_path):
    run(parquets, out)
    run(parquets / "1.parquet", tmp_path / "other")
    with pytest.raises(ValueError, match=r"1\.parquet would be counted twice"):
        merge_counts([out, tmp_path / "other"])


def test_captions_that_are_there_twice_are_named(parquets, out, tmp_path, caplog):
    run(parquets, out)
    run(parquets.rename(tmp_path / "moved"), out)
    merge_counts(out)
    assert "3 file(s) are counted twice, with equal names and captions in two folders" in caplog.text


def test_counts_of_two_labelers_are_not_merged(parquets, out, tmp_path):
    run(parquets, out)
    run(parquets, tmp_path / "other", mode="corenet")
    with pytest.raises(ValueError, match="different labelers cannot be merged: compound, corenet"):
        merge_counts([out, tmp_path / "other"])


def test_counts_by_other_lemmas_are_not_merged(parquets, out, tmp_path, italian):
    italian(parquets, out)
    italian(parquets, tmp_path / "other", "cagna")
    with pytest.raises(ValueError, match=r"cannot be merged: (compound-it by lemmas of wn-data-ita\.tab \(\w{16}\)(, |$)){2}"):
        merge_counts([out, tmp_path / "other"])


def test_labels_by_other_lemmas_are_not_added(parquets, out, italian):
    italian(parquets / "0.parquet", out)
    with pytest.raises(ValueError, match=r"holds labels made with lemmas='wn-data-ita\.tab .*: use another destination"):
        italian(parquets / "1.parquet", out, "cagna")


def test_a_folder_without_labels_is_named(tmp_path):
    with pytest.raises(ValueError, match="nowhere holds no complete labels: run label_corpus first"):
        merge_counts(tmp_path / "nowhere")
