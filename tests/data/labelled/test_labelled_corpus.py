"""Labelled images as training batches: every image once an epoch, with its class, whoever decodes it."""

from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from catlip_lite.data.images import AUGMENTATIONS
from catlip_lite.data.labelled import load_labelled
from catlip_lite.data.labelled.corpus import LabelledCorpus
from catlip_lite.data.labelled.pointers import ImagePointers, stamp_of
from catlip_lite.data.loader import BatchSpec
from catlip_lite.data.shards import write_shards


@pytest.fixture
def images(shards):
    return load_labelled(shards)


def corpus_of(images, augmentation="drawings", **options) -> LabelledCorpus:
    return LabelledCorpus(images, 16, AUGMENTATIONS[augmentation], **{"workers": 0, **options})


def epoch(images, start=0, batch=8) -> list[BatchSpec]:
    return [BatchSpec(start + at, batch, 0, batch, 16) for at in range(0, len(images), batch)]


def classes_by_name(batches) -> dict[str, int]:
    return {name: int(index) for batch in batches for name, index in zip(batch.names, batch.indices, strict=True)}


@pytest.mark.parametrize("options", [{}, {"cache_gb": 0.0}], ids=["in memory", "streamed"])
def test_an_epoch_has_each_image_once_with_its_class(images, options):
    batches = list(corpus_of(images, **options).batches(epoch(images)))
    expected = {images.files.name(i): int(images.indices[i]) for i in range(len(images))}
    assert classes_by_name(batches) == expected
    assert sum(len(batch) for batch in batches) == len(images) == 24


def test_two_epochs_are_in_different_orders(images):
    corpus = corpus_of(images)
    first, second = ([n for b in corpus.batches(epoch(images, start)) for n in b.names] for start in (0, 24))
    assert sorted(first) == sorted(second)
    assert first != second


@pytest.mark.parametrize("augmentation", ["drawings", "paper"])
def test_any_number_of_workers_gives_the_same_batches(images, augmentation):
    alone, helped = (list(corpus_of(images, augmentation, cache_gb=0.0, workers=n).batches(epoch(images))) for n in (0, 2))
    for one, other in zip(alone, helped, strict=True):
        assert one.names == other.names
        assert torch.equal(one.images, other.images)
        assert torch.equal(one.indices, other.indices)


def test_an_unreadable_image_is_a_row_of_weight_0(shards, samples, caplog):
    samples[5].image = b"no picture"
    write_shards(samples, shards, samples_per_shard=16)
    images = load_labelled(shards)
    for options in ({}, {"cache_gb": 0.0}):
        corpus = corpus_of(images, **options)
        (batch,) = corpus.batches([BatchSpec(0, 24, 0, 24, 16)])
        (bad,) = np.flatnonzero(batch.weights == 0)
        assert batch.names[bad] == images.files.name(5)
        assert [name for name, _ in batch.skipped] == [batch.names[bad]]
        assert bad not in batch.rows.tolist()
        assert not batch.images[bad].any()
    assert "1 of 24 samples are skipped" in caplog.text


def test_images_with_several_labels_keep_them_all(images):
    counts = np.array([2, 0] * 12)
    many = replace(images, indices=np.tile([1, 3], 12), counts=counts, multi_label=True)
    (batch,) = corpus_of(many).batches([BatchSpec(0, 24, 0, 24, 16)])
    by_name = {name: batch.indices[batch.rows == row].tolist() for row, name in enumerate(batch.names)}
    assert by_name == {images.files.name(i): [1, 3] if i % 2 == 0 else [] for i in range(24)}


def test_row_groups_of_parquet_are_read_window_by_window(images, tmp_path, make_png):
    encoded = [{"bytes": make_png((i, 0, 0))} for i in range(200)]
    pq.write_table(pa.table({"image": encoded}), tmp_path / "train.parquet", row_group_size=5)
    group, row = np.divmod(np.arange(200, dtype=np.int32), 5)
    path, place = str(tmp_path / "train.parquet"), np.stack([group, row], axis=1)
    files = ImagePointers.of_tables([path], [stamp_of(path)], ["image"], np.zeros(200, np.int32), place)
    rows = replace(images, files=files, indices=np.arange(200) % 4, counts=np.ones(200, np.int64))
    corpus = corpus_of(rows, cache_gb=0.0)
    (batch,) = corpus.batches([BatchSpec(0, 80, 0, 80, 16)])
    assert corpus.order.windows == 2
    assert batch.weights.all()
    assert len({name.split("row group ")[1].split(",")[0] for name in batch.names}) <= 20
    assert classes_by_name([batch]).items() <= {files.name(i): i % 4 for i in range(200)}.items()


def test_joined_parquet_and_files_are_read_window_by_window(images, tmp_path, make_png):
    encoded = [{"bytes": make_png((i, 0, 0))} for i in range(100)]
    for name in "ab":
        table = pa.table({"image": encoded, "label": ["apple", "dog"] * 50})
        pq.write_table(table, tmp_path / f"{name}.parquet", row_group_size=5)
    joined = load_labelled([*(str(tmp_path / f"{name}.parquet") for name in "ab"), str(tmp_path / "shards")])
    corpus = corpus_of(joined, cache_gb=0.0)
    assert corpus.order.windows == 2
    batches = list(corpus.batches([BatchSpec(at, 112, 0, 112, 16) for at in (0, 112)]))
    for batch in batches:
        groups = [name.rpartition(",")[0] for name in batch.names if "row group" in name]
        assert len(set(groups)) <= 25  # of 40
        assert 10 <= len(batch) - len(groups) <= 14  # half of the 24 that are cheap alone
    assert classes_by_name(batches) == {joined.files.name(i): int(joined.indices[i]) for i in range(224)}


def test_other_images_are_another_identity(images):
    whole, half = (corpus_of(part).identity() for part in (images, images.take(np.arange(12))))
    assert whole["corpus"] != half["corpus"]
    assert whole["rule"]["seed"] == half["rule"]["seed"] == 0


def test_no_images_are_refused(images):
    with pytest.raises(ValueError, match="no labelled image to train on"):
        corpus_of(images.take(np.zeros(24, bool)))
