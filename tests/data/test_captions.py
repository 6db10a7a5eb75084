"""Captions by address: tables, text files and shards give the same list; what is wrong is said before any is read."""

import pandas as pd
import pytest

from catlip_lite.data import captions as reading
from catlip_lite.data.captions import check_captions, fingerprint, label_captions, read_captions, read_samples_at
from catlip_lite.data.shards import Sample, write_shards
from catlip_lite.labels import CaptionLabeler

CAPTIONS = ["a dog", None, "NA, a cat"]


@pytest.fixture
def table():
    return pd.DataFrame({"caption": CAPTIONS, "url": ["x", "y", "z"]})


@pytest.fixture
def shards(tmp_path):
    samples = [Sample("", f"image {i}".encode(), "png", caption) for i, caption in enumerate(CAPTIONS)]
    write_shards(samples, tmp_path / "shards", samples_per_shard=2)
    return tmp_path / "shards"


def one_line(error) -> str:
    assert "\n" not in str(error.value)
    return str(error.value)


def test_captions_of_a_parquet_file(tmp_path, table):
    table.to_parquet(tmp_path / "a.parquet")
    assert read_captions(tmp_path / "a.parquet") == CAPTIONS


def test_captions_of_a_folder_of_parquets_come_in_the_order_of_their_names(tmp_path, table):
    table.tail(1).to_parquet(tmp_path / "b.parquet")
    table.head(2).to_parquet(tmp_path / "a.parquet")
    assert read_captions(tmp_path) == CAPTIONS


@pytest.mark.parametrize("suffix, separator", [("csv", ","), ("tsv", "\t")])
def test_captions_of_a_csv_keep_words_like_na(tmp_path, table, suffix, separator):
    table.to_csv(tmp_path / f"a.{suffix}", sep=separator, index=False)
    assert read_captions(tmp_path / f"a.{suffix}") == CAPTIONS


def test_a_text_file_has_a_caption_a_line(tmp_path):
    (tmp_path / "a.txt").write_text("a dog\n\nNA, a cat\n", encoding="utf-8")
    assert read_captions(tmp_path / "a.txt") == CAPTIONS


def test_captions_of_shards(shards):
    assert read_captions(shards) == CAPTIONS


def test_captions_of_a_list_of_addresses_follow_each_other(shards):
    assert read_captions([str(shards / "00001.tar"), str(shards / "00000.tar")]) == ["NA, a cat", "a dog", None]


def test_another_column_can_hold_the_captions(tmp_path, table):
    table.to_parquet(tmp_path / "a.parquet")
    assert read_captions(tmp_path / "a.parquet", "url") == ["x", "y", "z"]


def test_samples_are_found_by_the_position_of_their_caption(shards):
    assert {i: s.image for i, s in read_samples_at(shards, [2, 0]).items()} == {0: b"image 0", 2: b"image 2"}


def test_a_table_has_no_samples(tmp_path, table):
    table.to_parquet(tmp_path / "a.parquet")
    assert read_samples_at(tmp_path / "a.parquet", [0]) == {}


def test_a_missing_column_is_answered_with_the_columns_there_are(tmp_path, table):
    table.to_parquet(tmp_path / "a.parquet")
    with pytest.raises(ValueError) as error:
        read_captions(tmp_path / "a.parquet", "text")
    assert one_line(error).endswith("has no column 'text': choose one of caption, url")


def test_a_column_missing_in_the_last_of_many_files_is_noticed_before_any_is_read(tmp_path, table):
    table.to_parquet(tmp_path / "a.parquet")
    table[["url"]].to_parquet(tmp_path / "b.parquet")
    seen = []
    with pytest.raises(ValueError, match=r"b\.parquet has no column"):
        read_captions(tmp_path, progress=lambda files: seen.append(files) or files)
    assert seen == []


def test_an_empty_column_is_refused_with_its_count_and_the_other_columns(tmp_path):
    pd.DataFrame({"caption": [None, " ", ""], "alt": ["a", "b", "c"]}).to_parquet(tmp_path / "a.parquet")
    with pytest.raises(ValueError) as error:
        read_captions(tmp_path / "a.parquet")
    assert "all 3 rows" in one_line(error) and "(alt)" in one_line(error)


def test_shards_without_captions_are_refused(tmp_path):
    write_shards([Sample("", b"image", "png", None)], tmp_path)
    with pytest.raises(ValueError, match="all 1 rows"):
        read_captions(tmp_path)


def test_a_column_of_numbers_is_refused(tmp_path):
    pd.DataFrame({"caption": [1, 2]}).to_parquet(tmp_path / "a.parquet")
    with pytest.raises(ValueError, match="holds int64, not text"):
        read_captions(tmp_path / "a.parquet")


def test_shards_have_no_columns_to_choose_from(shards):
    with pytest.raises(ValueError, match="only tables have columns"):
        read_captions(shards, "alt_text")


def test_a_missing_file_is_answered_with_what_an_address_may_be(tmp_path):
    with pytest.raises(FileNotFoundError) as error:
        read_captions(tmp_path / "none.parquet")
    assert "none.parquet" in one_line(error) and "demo/pretrain" in one_line(error)


def test_a_parquet_file_cut_short_is_named(tmp_path, table):
    table.to_parquet(tmp_path / "a.parquet")
    (tmp_path / "a.parquet").write_bytes((tmp_path / "a.parquet").read_bytes()[:100])
    with pytest.raises(ValueError, match=r"a\.parquet is no readable parquet file"):
        read_captions(tmp_path / "a.parquet")


def test_a_file_of_another_kind_is_refused(tmp_path):
    (tmp_path / "a.docx").write_text("a dog")
    with pytest.raises(ValueError, match=r"a\.docx: captions are read from"):
        read_captions(tmp_path / "a.docx")


def test_the_fingerprint_is_the_sha256_of_the_captions():
    # printf 'a dog\0\0NA, a cat\0' | sha256sum
    assert fingerprint(CAPTIONS) == "7101e9c672a13f5c5501f4ea4723d809fad3f2aced293a3cac9387b14c5b3db7"


def test_the_fingerprint_sees_the_order_and_the_borders_of_captions():
    assert len({fingerprint(c) for c in (["ab", "c"], ["a", "bc"], ["c", "ab"], ["abc"])}) == 4


def test_other_captions_than_those_counted_are_refused():
    with pytest.raises(ValueError, match="pass the same captions"):
        check_captions(["a dog"], {"corpus_fingerprint": fingerprint(CAPTIONS), "num_captions": 3})


def test_any_part_stands_for_a_corpus_that_was_counted_file_by_file():
    check_captions(["a dog"], {"corpus_fingerprint": "files-sha256:0"})


def test_captions_labelled_some_at_a_time_are_those_labelled_at_once(monkeypatch):
    monkeypatch.setattr(reading, "CHUNK", 2)
    assert label_captions(CAPTIONS, CaptionLabeler()) == CaptionLabeler().label(CAPTIONS)
