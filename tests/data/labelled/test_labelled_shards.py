"""Labelled images of shards: labels, groups and places, here and in a store; what is left out."""

import gzip
import json

import fsspec
import pytest
from files import write_tar

from catlip_lite.data.labelled import load_labelled
from catlip_lite.data.shards import Sample, write_shards

pytestmark = pytest.mark.usefixtures("own_cache")


def test_shards_give_labels_and_groups(shards):
    images = load_labelled(shards)
    assert len(images) == 24
    assert images.classes == ["apple", "banana", "cat", "dog"]
    assert images.labels[:4].tolist() == ["apple", "dog", "cat", "banana"]
    assert set(images.groups) == {"A", "B"}


def test_a_shards_images_are_read_by_their_place(shards, samples):
    files = load_labelled(shards).files
    assert [files.read(i) for i in (17, 3)] == [samples[17].image, samples[3].image]
    assert files.name(17) == f"{shards / '00001.tar'}:000010001"


def test_a_list_of_tars_is_one_set(shards):
    assert load_labelled(sorted(map(str, shards.glob("*.tar")))).fingerprint == load_labelled(shards).fingerprint


@pytest.mark.parametrize("address", ["memory://labelled", "memory://labelled/{00000..00001}.tar"])
def test_remote_shards_are_read_in_place(shards, samples, address):
    fsspec.filesystem("memory").put(str(shards), "/labelled", recursive=True)
    images = load_labelled(address)
    assert images.labels.tolist() == load_labelled(shards).labels.tolist()
    assert [images.files.read(i) for i in range(24)] == [sample.image for sample in samples]


def test_samples_without_an_image_are_left_out_and_counted(tmp_path, make_png, caplog):
    good = {f"{k}.{e}": c for k in "ab" for e, c in (("png", make_png()), ("json", json.dumps({"label": k}).encode()))}
    write_tar(tmp_path / "0.tar", {**good, "c.json": b'{"label": "a"}', "d.png": b"", "d.json": b'{"label": "a"}'})
    assert len(load_labelled(tmp_path)) == 2
    assert "2 sample(s) without an image, or with an empty one, are left out" in caplog.text


def test_what_samples_have_instead_of_an_image_is_told(tmp_path, make_png, caplog):
    kinds = ["png", "svg", "png", "svg", "heic"]
    samples = [Sample("", make_png(), kind, None, {"label": "ab"[i // 2 % 2]}) for i, kind in enumerate(kinds)]
    write_shards(samples, tmp_path / "s")
    assert len(load_labelled(tmp_path / "s")) == 2
    assert "3 sample(s) without an image, or with an empty one, are left out (they have .svg (2), .heic (1))" in caplog.text


def test_a_compressed_tar_is_called_that(shards, caplog):
    path = shards / "00001.tar"
    path.write_bytes(gzip.compress(path.read_bytes()))
    assert len(load_labelled(shards)) == 16
    assert "00001.tar gives no sample: the tar is compressed" in caplog.text
    with pytest.raises(ValueError, match=r"no image in 1 shard\(s\), the first: the tar is compressed, .*: unpack it"):
        load_labelled(path)
