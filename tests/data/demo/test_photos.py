"""Synthetic photos: as large as photos, as many bytes, and labelled by their captions."""

import io

import numpy as np
from PIL import Image

from catlip_lite.data.captions import read_captions
from catlip_lite.data.demo.photos import PHOTO, synthetic_photo, synthetic_shards
from catlip_lite.data.stream import open_shards
from catlip_lite.labels import CaptionLabeler


def test_synthetic_photos_have_the_size_and_the_bytes_of_photos():
    rng = np.random.default_rng(0)
    photos = [synthetic_photo(rng) for _ in range(6)]
    assert {Image.open(io.BytesIO(photo)).size for photo in photos} == {PHOTO}
    assert 40_000 < np.mean([len(photo) for photo in photos]) < 70_000
    assert len(set(photos)) == 6


def test_synthetic_shards_are_written_once_and_each_caption_has_labels(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("CATLIP_CACHE", str(tmp_path / "cache"))
    folder = synthetic_shards(20)
    assert len(open_shards(folder)) > 1
    captions = read_captions(folder)
    assert len(captions) == 20
    assert all(CaptionLabeler().label(captions))
    capsys.readouterr()
    assert synthetic_shards(20) == folder
    assert capsys.readouterr().out == ""
