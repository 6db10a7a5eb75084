"""Shards are written as img2dataset lays them out, and read as tarfile sees them: whole files, samples by key."""

import json
import tarfile
from contextlib import suppress

import pytest
from files import write_tar

from catlip_lite.data.captions import read_captions
from catlip_lite.data.shards import BreaksOff, index_shard, open_shard, read_shard, reader_of, tar_files, write_shards
from catlip_lite.data.stream import ShardReader, open_shards

# --- written and read ---------------------------------------------------------------------------------------------------------


def test_members_carry_img2datasets_keys_and_extensions(shards):
    with tarfile.open(shards / "00001.tar") as tar:
        assert tar.getnames()[:3] == ["000010000.png", "000010000.txt", "000010000.json"]
        facts = json.loads(tar.extractfile("000010000.json").read())
    assert (facts["uid"], facts["caption"], facts["key"]) == ("u16", "a apple on paper", "000010000")


def test_what_is_written_is_read(shards, samples):
    found = [sample for name in ("00000", "00001") for sample in read_shard(shards / f"{name}.tar")]
    assert [(s.image, s.extension, s.caption) for s in found] == [(s.image, "png", s.caption) for s in samples]
    assert [s.facts["uid"] for s in found] == [s.facts["uid"] for s in samples]


def test_a_tar_that_breaks_off_gives_what_it_has_and_is_named(shards, samples, caplog):
    whole = (shards / "00000.tar").read_bytes()
    (shards / "00000.tar").write_bytes(whole[: len(whole) // 2 + 100])
    found = list(read_shard(shards / "00000.tar"))
    assert 0 < len(found) < 16 and [s.image for s in found] == [s.image for s in samples[: len(found)]]
    assert "00000.tar: the tar breaks off" in caplog.text


def test_a_failed_write_leaves_no_half_shard(tmp_path, samples):
    samples[1].facts["bad"] = object()
    with pytest.raises(TypeError):
        write_shards(samples, tmp_path / "out")
    assert list((tmp_path / "out").iterdir()) == []


def test_neighbours_of_one_key_that_repeat_an_extension_are_two_samples(tmp_path):
    """As they are where shards with equal keys were put end to end."""
    files = [("0.jpg", b"one"), ("0.txt", b"a dog"), ("0.txt", b"a cat"), ("0.jpg", b"two"), ("1.jpg", b"x"), ("1.txt", b"t")]
    path = write_tar(tmp_path / "a.tar", files)
    expected = [(b"one", "a dog"), (b"two", "a cat"), (b"x", "t")]
    reader = ShardReader(open_shards(path))
    assert read_captions(path) == [caption for _, caption in expected]
    assert [(s.image, s.caption) for s in read_shard(path)] == expected
    assert [(s.image, s.caption) for s in (reader.read(0, row) for row in range(3))] == expected


# --- the walk over a tar's headers --------------------------------------------------------------------------------------------

PARTS = {f"{i:03d}.{e}": f"{i}{e}".encode() * (i + 1) for i in range(40) for e in ("jpg", "json", "txt")}
LONG = {"0.jpg": b"w", f"{'a' * 120}.jpg": b"x", "1.jpg": b"y"}
NAMES = {"./a/b/0.0.JPG": b"x", "./a/b/0.txt": b"t", "./c/0.png": b"", "é.json": b"{}"}


def walked(path) -> tuple[list, str]:
    """Name and place of each file, and why there are no more."""
    found = []
    with open(path, "rb") as file:
        try:
            for one in tar_files(file, reader_of(file)):
                found.append(one)
        except BreaksOff as error:
            return found, str(error)
    return found, ""


def listed(path) -> list:
    """Name and place of each file, as Python's tarfile has them."""
    found = []
    with suppress(tarfile.ReadError), tarfile.open(path, "r:") as tar:
        for member in tar:
            found += [(member.name, (member.offset_data, member.size))] if member.isfile() else []
    return found


@pytest.mark.parametrize(
    "files, options",
    [
        (PARTS, {"format": tarfile.PAX_FORMAT}),
        (PARTS, {"format": tarfile.PAX_FORMAT, "mtime": 1.5}),
        (PARTS, {"format": tarfile.GNU_FORMAT}),
        (PARTS, {"format": tarfile.USTAR_FORMAT}),
        (NAMES, {}),
        ({f"{'a' * 60}/{'b' * 60}/0.jpg": b"x"}, {"format": tarfile.USTAR_FORMAT}),
        (LONG, {"format": tarfile.PAX_FORMAT}),
        (LONG, {"format": tarfile.GNU_FORMAT}),
        ({"0.jpg": b"x" * 700_000, "0.txt": b"t", "1.jpg": b"y"}, {}),
    ],
    ids=["pax", "pax times", "gnu", "ustar", "names", "ustar folders", "pax long name", "gnu long name", "beyond a window"],
)
def test_the_walk_sees_the_files_that_tarfile_sees(tmp_path, files, options):
    path = write_tar(tmp_path / "a.tar", files, **options)
    assert walked(path) == (listed(path), "")
    assert [name for name, _ in listed(path)] == list(files)


@pytest.mark.parametrize("mtime", [1, 1.5])
def test_ordinary_tars_are_walked_without_tarfile(tmp_path, monkeypatch, mtime):
    path = write_tar(tmp_path / "a.tar", PARTS, mtime=mtime)
    monkeypatch.setattr(tarfile, "open", None)
    assert [name for name, _ in walked(path)[0]] == list(PARTS)


def test_folders_and_links_in_a_tar_are_no_files(tmp_path):
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        for name, kind in (("a", tarfile.DIRTYPE), ("a/0.jpg", tarfile.REGTYPE), ("1.jpg", tarfile.SYMTYPE)):
            info = tarfile.TarInfo(name)
            info.type = kind
            tar.addfile(info)
        tar.addfile(tarfile.TarInfo("2.jpg"))
    found, broken = walked(tmp_path / "a.tar")
    assert ([name for name, _ in found], broken) == (["a/0.jpg", "2.jpg"], "")


@pytest.mark.parametrize("size", [*range(40 * 1024, 40 * 1024 + 2048, 128), 100, 512])
def test_of_a_tar_that_breaks_off_samples_are_whole_files(tmp_path, size):
    path = write_tar(tmp_path / "a.tar", PARTS)
    whole = path.read_bytes()
    path.write_bytes(whole[:size])
    found, broken = walked(path)
    with open_shard(str(path)) as (samples, read):
        index = index_shard(samples)
        contents = [len(read(*place)) == place[1] for place in index.places.reshape(-1, 2).tolist() if place[0] >= 0]
    assert found == listed(path) and "breaks off" in broken and index.broken == broken
    assert len(found) // 3 - 1 <= len(index) <= len(found) // 3 + 1 < 40 and all(contents)


def test_the_walk_stops_at_a_damaged_header(tmp_path):
    path = write_tar(tmp_path / "a.tar", PARTS)
    content = bytearray(path.read_bytes())
    content[20 * 1024] ^= 1  # the first letter of a name
    path.write_bytes(content)
    found, broken = walked(path)
    assert found == listed(path) and 0 < len(found) < 60 and "breaks off" in broken


def test_a_compressed_tar_has_no_samples_and_says_what_to_do(tmp_path):
    found, broken = walked(write_tar(tmp_path / "a.tar", {"0.jpg": b"x"}, mode="w:gz"))
    assert not found and "compressed" in broken and "unpack it" in broken


def test_an_index_says_where_images_and_captions_lie(tmp_path):
    path = write_tar(tmp_path / "a.tar", {"0.jpg": b"image", "0.txt": b"caption", "1.json": b"{}", "2.webp": b"w"})
    with open_shard(str(path)) as (samples, read):
        index = index_shard(samples)
        found = [[read(*place) if place[0] >= 0 else None for place in row] for row in index.places.tolist()]
    assert found == [[b"image", b"caption"], [None, b"{}"], [b"w", None]]
    assert index.in_json[:2].tolist() == [[False], [True]] and index.key(2) == "2"
