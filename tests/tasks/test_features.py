"""Features are computed once for a model and its images, and again when either changes."""

import numpy as np
import torch

from catlip_lite.data.labelled import load_labelled
from catlip_lite.models import PretrainedModel, create_vit
from catlip_lite.tasks.features import extract, pixel_features, untrained


def made_model(vocabulary, seed):
    torch.manual_seed(seed)
    network = create_vit("vit_nano8", num_classes=len(vocabulary), image_size=16)
    return PretrainedModel(network, vocabulary, {"model": "vit_nano8", "image_size": 16}, "cpu")


def test_a_second_extraction_reads_what_the_first_computed(tmp_path, shards, vocabulary, monkeypatch):
    model, images = made_model(vocabulary, 0), load_labelled(shards, 16)
    first = extract(model, images, tmp_path)
    monkeypatch.setattr(model, "outputs", None)
    again = extract(model, images, tmp_path)
    np.testing.assert_array_equal(first.features, again.features)
    np.testing.assert_array_equal(first.logits, again.logits)


def test_other_weights_or_images_are_extracted_anew(tmp_path, shards, vocabulary):
    images = load_labelled(shards, 16)
    for model in (made_model(vocabulary, 0), made_model(vocabulary, 1)):
        extract(model, images, tmp_path / "cache")
        extract(model, images.sample(5), tmp_path / "cache")
    assert len(list((tmp_path / "cache").iterdir())) == 4


def test_the_untrained_twin_has_other_weights_and_the_same_shape(shards, vocabulary):
    model = made_model(vocabulary, 7)
    twin = untrained(model, load_labelled(shards, 16))
    shapes = [{name: value.shape for name, value in m.network.state_dict().items()} for m in (model, twin)]
    assert shapes[0] == shapes[1]
    assert not torch.equal(model.network.head.weight, twin.network.head.weight)


def test_pixel_features_are_the_picture_itself(shards):
    images = load_labelled(shards, 16)
    features = pixel_features(images).features
    np.testing.assert_array_equal((features[3] * 255).round().astype(np.uint8), images.views[3].flatten().numpy())


def test_the_untrained_twin_is_normalised_by_the_images_statistics(shards, vocabulary):
    images = load_labelled(shards, 16)
    twin = untrained(made_model(vocabulary, 7), images)
    stem = twin.network.patch_embed
    with torch.no_grad():
        expected = stem.conv1(images.views.float() / 255).mean(dim=(0, 2, 3))
    torch.testing.assert_close(stem.bn1.running_mean, expected, rtol=1e-3, atol=1e-4)
