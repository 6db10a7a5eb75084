"""A damaged sample among good ones costs itself alone, is counted and is named, in the same words by all who read shards."""

import pytest
from files import write_tar

from catlip_lite.data.captions import read_captions, read_corpus, read_samples_at
from catlip_lite.data.stream import ShardReader, open_shards
from catlip_lite.label_captions import label_corpus
from catlip_lite.labels import Vocabulary
from catlip_lite.pretrain import find_vocabulary

DAMAGED = {
    "truncated": b'{"caption": ',
    "utf8": b'{"caption": "a \xff dog"}',
    "deep": b"[" * 100_000,
    "number": b'{"caption": 7}',
    "list": b'{"caption": ["a dog", "a cat"]}',
    "no_object": b'"a dog"',
}


@pytest.fixture
def shard(tmp_path, make_png):
    """A good sample, the damaged ones, another good one."""
    contents = {"0": b'{"caption": "a dog"}'} | DAMAGED | {"1": b'{"caption": "a cat"}'}
    parts = {f"{key}.{e}": part for key, facts in contents.items() for e, part in (("png", make_png()), ("json", facts))}
    return str(write_tar(tmp_path / "0.tar", parts))


def test_each_is_named_with_its_reason(shard):
    told: list[str] = []
    assert read_captions(shard, skipped=told) == ["a dog", *[None] * len(DAMAGED), "a cat"]
    assert [line.split(" (")[0] for line in told] == [f"0.tar:{key}: damaged .json" for key in DAMAGED]
    assert told[0].endswith("(Expecting value: line 1 column 13 (char 12))")
    assert told[4].endswith("(its caption is a list, not text)")


def test_training_skips_the_same_for_the_same_reasons(shard):
    told: list[str] = []
    read_captions(shard, skipped=told)
    reader = ShardReader(open_shards(shard))
    read = [reader.read(0, row) for row in range(len(DAMAGED) + 2)]
    assert [f"{sample.key}: {sample.skipped}" for sample in read if sample.skipped] == told


def test_labels_of_a_corpus_leave_out_the_same_for_the_same_reasons(shard, tmp_path):
    told: list[str] = []
    read_captions(shard, skipped=told)
    report = label_corpus(shard, tmp_path / "labels", workers=1)
    assert (report.damaged, report.broken) == (told, [])
    assert (report.captions, report.unlabelled) == (len(DAMAGED) + 2, len(DAMAGED))


def test_uids_within_damaged_samples_cost_nothing_but_themselves(tmp_path):
    path = write_tar(tmp_path / "0.tar", {"0.json": b'{"caption": "a dog", "uid": "u"}', "1.json": b"{"})
    report = label_corpus(path, tmp_path / "labels", workers=1, uid_from_json=True)
    assert (report.captions, len(report.damaged), report.broken) == (2, 1, [])


def test_a_notebook_says_how_many_and_which(shard, capsys):
    read_corpus(shard, "caption")
    printed = capsys.readouterr().out
    assert f"{len(DAMAGED)} cannot be read" in printed and "0.tar:deep: damaged .json" in printed


def test_a_vocabulary_is_counted_from_the_others(shard, tmp_path, capsys):
    path = find_vocabulary(tmp_path, None, shard, "compound", 0)
    assert set(Vocabulary.load(path).wnids) == {"n02084071", "n02121620"}
    assert "0.tar:utf8: damaged .json" in capsys.readouterr().out


def test_pictures_keep_their_places(shard):
    assert read_samples_at(shard, [len(DAMAGED) + 1])[len(DAMAGED) + 1].caption == "a cat"


@pytest.mark.parametrize("keep, there", [(3 * 512, 0), (0, 0), (2048, 1)], ids=["first sample", "empty", "behind a sample"])
def test_a_tar_that_breaks_off_is_named_and_gives_what_it_has(shard, tmp_path, keep, there):
    whole = (tmp_path / "0.tar").read_bytes()
    (tmp_path / "1.tar").write_bytes(whole[:keep])
    told: list[str] = []
    captions = read_captions([shard, str(tmp_path / "1.tar")], skipped=told)
    assert len(captions) == len(DAMAGED) + 2 + there
    assert told[-1].startswith("1.tar: the tar breaks off")
