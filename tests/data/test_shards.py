"""Shards are read and written as img2dataset lays them out."""

import json
import tarfile

import pytest

from catlip_lite.data.shards import write_shards
from catlip_lite.data.sources import find_shards, read_samples


def test_members_carry_img2datasets_keys_and_extensions(shards):
    with tarfile.open(shards / "00001.tar") as tar:
        assert tar.getnames()[:3] == ["000010000.png", "000010000.txt", "000010000.json"]
        facts = json.loads(tar.extractfile("000010000.json").read())
    assert (facts["uid"], facts["caption"], facts["key"]) == ("u16", "a apple on paper", "000010000")


def test_what_is_written_is_read(shards, samples):
    found = list(read_samples(shards))
    assert [(s.image, s.caption, s.facts["uid"]) for s in found] == [(s.image, s.caption, s.facts["uid"]) for s in samples]


def test_a_tar_that_breaks_off_gives_what_it_has_and_is_named(shards, caplog):
    whole = (shards / "00000.tar").read_bytes()
    (shards / "00000.tar").write_bytes(whole[: len(whole) // 2 + 100])
    assert 0 < len(list(read_samples(shards / "00000.tar"))) < 16
    assert "00000.tar breaks off" in caplog.text


def test_brace_patterns_globs_and_lists_name_the_same_shards(shards):
    expected = [shards / "00000.tar", shards / "00001.tar"]
    assert find_shards(f"{shards}/{{00000..00001}}.tar") == expected
    assert find_shards(f"{shards}/*.tar") == expected
    assert find_shards([str(p) for p in expected]) == expected


def test_no_shards_is_said_with_the_address(tmp_path):
    with pytest.raises(FileNotFoundError, match="no shards at.*nowhere"):
        find_shards(tmp_path / "nowhere")


def test_a_failed_write_leaves_no_half_shard(tmp_path, samples):
    samples[1].facts["bad"] = object()
    with pytest.raises(TypeError):
        write_shards(samples, tmp_path / "out")
    assert list((tmp_path / "out").iterdir()) == []
