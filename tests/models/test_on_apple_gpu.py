"""A model on Apple's GPU answers as on the CPU: embeddings, tags, zero-shot, pixels and objects."""

import numpy as np
import pytest
import torch
from apple_gpu import APPLE, apple_gpu

from catlip_lite.models import PretrainedModel, create_vit
from catlip_lite.models.clip import ClipModel, add_projection, text_tower
from catlip_lite.models.detector import DetectionModel, create_detector, detector_config
from catlip_lite.models.segmenter import SegmentationModel, create_segmenter, segmenter_config

CONFIG = {"model": "vit_nano8", "image_size": 32}


@pytest.fixture
def picture() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (40, 56, 3), dtype=np.uint8)


def answers(make, ask, monkeypatch):
    """What `ask` gets from a model of the same weights on the CPU and on Apple's GPU."""
    torch.manual_seed(0)
    on_cpu = ask(make("cpu"))
    torch.manual_seed(0)
    with apple_gpu(monkeypatch) as recorded:
        model = make(None)
        assert model.device == APPLE
        there = ask(model)
    assert not recorded.without_kernel()
    return on_cpu, there


def test_embeddings_tags_and_zero_shot(vocabulary, picture, monkeypatch):
    def make(device):
        return PretrainedModel(create_vit("vit_nano8", len(vocabulary), 32), vocabulary, CONFIG, device)

    def ask(model):
        return model.embed(picture), model.zero_shot([picture], ["dog", "banana"]), model.tag(picture)

    (features, scores, tags), found = answers(make, ask, monkeypatch)
    np.testing.assert_allclose(found[0], features, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(found[1], scores, rtol=1e-4, atol=1e-5)
    assert [one[:2] for one in found[2]] == [one[:2] for one in tags]


def test_clips_choice_among_names(picture, monkeypatch):
    pytest.importorskip("open_clip")

    def make(device):
        network = add_projection(create_vit("vit_nano8", 0, 32), "vit_nano8")
        return ClipModel(network, text_tower("vit_nano8", 24), 20.0, CONFIG, device)

    expected, found = answers(make, lambda model: model.zero_shot(picture, ["dog", "banana"]), monkeypatch)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("protocol", ["squash", "slide"])
def test_the_classes_of_pixels(picture, monkeypatch, protocol):
    def make(device):
        config = segmenter_config(CONFIG, ["ground", "apple", "dog"], image_size=32, channels=16)
        return SegmentationModel(create_segmenter(create_vit("vit_nano8", 1, 32), 3, 32, channels=16), config, device)

    expected, found = answers(make, lambda model: model.logits(picture, protocol), monkeypatch)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


def test_objects(picture, monkeypatch):
    def make(device):
        config = detector_config(CONFIG, ["apple", "dog"], image_size=32, channels=16)
        return DetectionModel(*create_detector(create_vit("vit_nano8", 1, 32), 2, 32, channels=16), config, device)

    expected, found = answers(make, lambda model: model.detect(picture, least_score=0.0), monkeypatch)
    assert len(expected["scores"])
    for name in ("boxes", "scores", "class_indices"):
        np.testing.assert_allclose(found[name], expected[name], rtol=1e-3, atol=1e-3)
