"""From shards and a vocabulary to batches: every sample once an epoch, labels from the captions, resumable at any step."""

import numpy as np
import pytest
import torch

from catlip_lite.data.corpus import Corpus, index_shards, sample_order
from catlip_lite.data.images import AUGMENTATIONS
from catlip_lite.data.shards import write_shards
from catlip_lite.labels import CaptionLabeler


@pytest.fixture
def index(shards, vocabulary):
    return index_shards(shards, CaptionLabeler(), vocabulary)


def test_every_sample_once_an_epoch():
    assert sorted(sample_order(10, 0, 10, seed=1)) == list(range(10))
    assert sorted(sample_order(10, 10, 10, seed=1)) == list(range(10))


def test_epochs_have_other_orders():
    assert sample_order(10, 0, 10, seed=1).tolist() != sample_order(10, 10, 10, seed=1).tolist()


def test_any_position_of_the_stream_can_be_entered():
    whole = sample_order(10, 0, 25, seed=1)
    assert np.concatenate([sample_order(10, 0, 7, seed=1), sample_order(10, 7, 18, seed=1)]).tolist() == whole.tolist()


def test_labels_are_the_captions_synsets(index, vocabulary):
    indices, rows = index.targets(np.array([1, 0]))
    assert [vocabulary.names[i] for i in indices] == ["dog", "apple"]
    assert rows.tolist() == [0, 1]


def test_images_are_found_in_the_tars(index, samples):
    assert [index.image(i) for i in range(len(index))] == [s.image for s in samples]


@pytest.mark.parametrize("workers", [0, 1])
def test_memory_and_worker_processes_give_the_same_batches(index, workers):
    cached = Corpus(index, 16, AUGMENTATIONS["paper"], seed=3)
    streamed = Corpus(index, 16, AUGMENTATIONS["paper"], seed=3, cache_gb=0, workers=workers)
    assert (cached.in_memory, streamed.in_memory) == (True, False)
    for a, b in zip(cached.batches(2, 5, 8), streamed.batches(2, 5, 8), strict=True):
        assert torch.equal(a.images, b.images)
        assert torch.equal(a.indices, b.indices)
        assert a.samples.tolist() == b.samples.tolist()


def test_unreadable_images_are_left_out_and_named(tmp_path, samples, vocabulary, caplog):
    samples[5].image = b"not an image"
    write_shards(samples, tmp_path / "damaged")
    corpus = Corpus(index_shards(tmp_path / "damaged", CaptionLabeler(), vocabulary), 16, AUGMENTATIONS["paper"])
    assert len(corpus) == 23
    assert "00000.tar:000000005" in caplog.text


def test_samples_without_image_or_caption_are_counted(tmp_path, samples, vocabulary):
    samples[0].image, samples[1].caption = None, ""
    write_shards(samples, tmp_path / "gaps")
    index = index_shards(tmp_path / "gaps", CaptionLabeler(), vocabulary)
    assert (len(index), index.skipped) == (22, {"no image": 1, "no caption": 1})


def test_a_shard_without_images_is_refused_before_training(shards, samples, vocabulary):
    for sample in samples:
        sample.image = None
    write_shards(samples, shards)
    with pytest.raises(ValueError, match="00000.tar holds no image with a caption: it needs members"):
        index_shards(shards, CaptionLabeler(), vocabulary)


def test_captions_foreign_to_the_vocabulary_are_refused(tmp_path, samples, vocabulary):
    for sample in samples:
        sample.caption = "qwertz"
    write_shards(samples, tmp_path / "foreign")
    with pytest.raises(ValueError, match="no caption of .* has a synset of this vocabulary"):
        index_shards(tmp_path / "foreign", CaptionLabeler(), vocabulary)
