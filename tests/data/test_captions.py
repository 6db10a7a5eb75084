"""Captions by address: tables, text files and shards give the same list; what is wrong is said before any is read."""

import json

import fsspec
import pandas as pd
import pytest
from files import one_line, write, write_tar

from catlip_lite.data import captions as reading
from catlip_lite.data.captions import check_captions, columns_of, fingerprint, label_captions, read_captions, read_samples_at
from catlip_lite.data.shards import Sample, write_shards
from catlip_lite.data.stream import ShardReader, open_shards
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


WRITERS = {
    "parquet": lambda table, path: table.to_parquet(path),
    "csv": lambda table, path: table.to_csv(path, index=False),
    "tsv": lambda table, path: table.to_csv(path, index=False, sep="\t"),
    "txt": lambda table, path: path.write_text("\n".join(table["caption"].fillna(""))),
}


@pytest.mark.parametrize("kind", WRITERS)
def test_files_of_every_kind_and_folders_of_them_give_the_same_captions_words_like_na_included(tmp_path, table, kind):
    WRITERS[kind](table, tmp_path / f"a.{kind}")
    assert read_captions(tmp_path / f"a.{kind}") == CAPTIONS
    WRITERS[kind](table.tail(1), tmp_path / f"b.{kind}")
    assert read_captions(tmp_path) == [*CAPTIONS, CAPTIONS[-1]]
    fsspec.filesystem("memory").put(str(tmp_path), f"/captions_{kind}", recursive=True)
    assert read_captions(f"memory://captions_{kind}") == [*CAPTIONS, CAPTIONS[-1]]


def test_captions_end_where_the_lines_of_a_text_file_do(tmp_path):
    write(tmp_path / "a.txt", "a dog\u2028a cat\x0b\x85\r\n\r\na cow\n")
    assert read_captions(tmp_path / "a.txt") == ["a dog\u2028a cat\x0b\x85", None, "a cow"]


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


def facts(**values) -> bytes:
    return json.dumps(values).encode()


FIELDS = facts(caption="é in json", title="a dog", alt="a cat", width=7)
PARTS = {"0.jpg": b"x", "0.txt": b" in \xff txt\n", "0.cap": b"in cap", "0.json": FIELDS}


@pytest.mark.parametrize(
    "column, captions",
    [
        ("caption", ["in \ufffd txt", "é in json"]),
        ("txt", ["in \ufffd txt", None]),
        ("cap", ["in cap", None]),
        ("title", ["a dog", "a dog"]),
        (["title", "alt"], ["a dog | a cat", "a dog | a cat"]),
        (["cap", "alt"], ["in cap | a cat", "a cat"]),
    ],
    ids=str,
)
def test_captions_of_shards_are_in_a_member_or_a_field_of_the_json(tmp_path, column, captions):
    path = write_tar(tmp_path / "a.tar", PARTS | {"1.jpg": b"x", "1.json": FIELDS})
    reader = ShardReader(open_shards(path, columns=columns_of(column)), columns_of(column))
    assert read_captions(path, column) == [reader.read(0, row).caption for row in range(2)] == captions


def test_several_columns_of_a_table_are_one_caption_of_those_there_are(tmp_path, table):
    table.to_parquet(tmp_path / "a.parquet")
    assert read_captions(tmp_path / "a.parquet", ["url", "caption"]) == ["x | a dog", "y", "z | NA, a cat"]


@pytest.mark.parametrize("read", [read_captions, lambda path, column: open_shards(path, columns=[column])])
def test_a_column_that_shards_lack_is_answered_with_what_they_have(tmp_path, read):
    path = write_tar(tmp_path / "a.tar", PARTS)
    with pytest.raises(ValueError) as error:
        read(path, "text")
    assert one_line(error).endswith("a.tar has no column 'text': choose one of caption, txt, cap, title, alt, width")


def test_a_tar_without_a_sample_to_look_at_does_not_hide_the_column_of_the_others(tmp_path):
    write(tmp_path / "0.tar", b"")
    write_tar(tmp_path / "1.tar", {"0.jpg": b"x", "0.json": FIELDS})
    told = []
    assert read_captions(tmp_path, "title", skipped=told) == ["a dog"] and told[0].startswith("0.tar: the tar breaks off")
    assert open_shards(tmp_path, columns=["title"]).counts.tolist() == [0, 1]


@pytest.mark.parametrize("column", ["", [], ["caption", None]])
def test_no_column_at_all_is_refused(shards, column):
    with pytest.raises(ValueError, match="give the name of a column, or a list of names"):
        read_captions(shards, column)


def test_the_fingerprint_is_the_sha256_of_the_captions():
    # printf 'a dog\0\0NA, a cat\0' | sha256sum
    assert fingerprint(CAPTIONS) == "7101e9c672a13f5c5501f4ea4723d809fad3f2aced293a3cac9387b14c5b3db7"


def test_the_fingerprint_sees_the_order_and_the_borders_of_captions():
    assert len({fingerprint(c) for c in (["ab", "c"], ["a", "bc"], ["c", "ab"], ["abc"])}) == 4


def test_the_captions_that_were_counted_are_taken_and_others_refused():
    with pytest.raises(ValueError, match="pass the same captions"):
        check_captions(["a dog"], {"corpus_fingerprint": fingerprint(CAPTIONS), "num_captions": 3})
    check_captions(CAPTIONS, {"corpus_fingerprint": fingerprint(CAPTIONS), "num_captions": 3})


def test_any_part_stands_for_a_corpus_that_was_counted_file_by_file():
    check_captions(["a dog"], {"corpus_fingerprint": "files-sha256:0"})


def test_captions_labelled_some_at_a_time_are_those_labelled_at_once(monkeypatch):
    monkeypatch.setattr(reading, "CHUNK", 2)
    assert label_captions(CAPTIONS, CaptionLabeler()) == CaptionLabeler().label(CAPTIONS)
