"""A classifier: a backbone with another head, written and read as one folder."""

from dataclasses import replace

import numpy as np
import pytest
import torch

import catlip_lite
from catlip_lite.data.labelled import load_labelled
from catlip_lite.models import create_vit
from catlip_lite.models.classifier import Classifier, classifier_config, classifier_network
from catlip_lite.models.clip import ClipModel, add_projection, text_tower
from catlip_lite.models.heads import random_head
from catlip_lite.models.pretrained import PretrainedModel, write_folder

CLASSES = ["apple", "banana", "dog"]


@pytest.fixture
def model(vocabulary) -> PretrainedModel:
    torch.manual_seed(0)
    config = {"model": "vit_nano8", "image_size": 32, "stem": None, "pooling": None}
    return PretrainedModel(create_vit("vit_nano8", num_classes=4, image_size=32), vocabulary, config, "cpu")


def classifier_of(model, image_size=32) -> Classifier:
    network = classifier_network(model, random_head(3, 192, seed=1), image_size)
    return Classifier(network, classifier_config(model.config, CLASSES, image_size), "cpu")


def test_at_the_models_own_size_it_is_the_head_on_the_models_features(model, make_png):
    images = [make_png((200, 30, 30)), make_png((0, 90, 0), size=(40, 30))]
    expected = random_head(3, 192, seed=1).scores(model.embed(images))
    np.testing.assert_allclose(classifier_of(model).scores(images), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("classes", [0, 4])
def test_a_backbone_that_was_trained_with_captions_takes_a_head_as_any_other(model, make_png, classes):
    pytest.importorskip("open_clip")
    beside = add_projection(create_vit("vit_nano8", num_classes=classes, image_size=32), "vit_nano8")
    beside.load_state_dict({n: v for n, v in model.network.state_dict().items() if not n.startswith("head.")}, strict=False)
    trained = ClipModel(beside, text_tower("vit_nano8", 24), 10.0, {**model.config, "objective": "clip"}, "cpu")
    np.testing.assert_array_equal(classifier_of(trained).scores(make_png()), classifier_of(model).scores(make_png()))


def test_at_another_size_positions_are_resampled_once_as_the_network_would_each_time(model):
    views = torch.randint(0, 256, (2, 3, 48, 48), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    with torch.no_grad():
        tokens = model.network.forward_features(views.float() / 255)
        expected = random_head(3, 192, seed=1).scores(model.network.forward_head(tokens, pre_logits=True).numpy())
    np.testing.assert_allclose(classifier_of(model, image_size=48).scores(views), expected, rtol=1e-4, atol=1e-5)


def test_the_model_is_left_as_it_is(model):
    before = {name: value.clone() for name, value in model.network.state_dict().items()}
    network = classifier_network(model, random_head(3, 192, seed=1))
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.zero_()
    assert all(torch.equal(before[name], value) for name, value in model.network.state_dict().items())


def test_it_is_saved_and_read_with_classes_and_evaluation(model, tmp_path, make_png):
    made = classifier_of(model, image_size=48)
    write_folder(tmp_path / "tuned", made.network.state_dict(), made.config)
    read = catlip_lite.load_classifier(tmp_path / "tuned", "cpu")
    assert (read.classes, read.evaluation) == (CLASSES, made.evaluation)
    np.testing.assert_array_equal(read.scores(make_png()), made.scores(make_png()))


def test_classify_gives_the_best_names_with_probabilities_that_sum_to_one(model, make_png):
    classifier = classifier_of(model)
    found, scores = classifier.classify(make_png(), top_k=3), classifier.scores(make_png())
    assert [name for name, _ in found] == [CLASSES[i] for i in np.argsort(-scores)]
    assert sum(share for _, share in found) == pytest.approx(1)
    (best, share) = found[0]
    for ((name, its_share),) in classifier.classify([make_png(), make_png()], top_k=1):
        assert (name, its_share) == (best, pytest.approx(share, rel=1e-5))


def test_scores_of_labelled_images_are_nan_where_an_image_cannot_be_read(model, shards, monkeypatch):
    images = load_labelled(shards).take(np.arange(4))

    class OneMissing:
        def __len__(self):
            return 4

        def name(self, i):
            return images.files.name(i)

        def read(self, i):
            if i == 2:
                raise OSError("gone")
            return images.files.read(i)

    scores = classifier_of(model).scores(replace(images, files=OneMissing()))
    assert np.isnan(scores).all(axis=1).tolist() == [False, False, True, False]


def test_a_head_for_another_backbone_is_refused(model):
    with pytest.raises(ValueError, match="the head takes 384 features, the backbone gives 192"):
        classifier_network(model, random_head(3, 384, seed=0))


def test_a_folder_without_weights_or_classes_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="run notebook 07_finetune first"):
        catlip_lite.load_classifier(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"")
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(ValueError, match=r"names no classes: catlip_lite\.load may read it"):
        catlip_lite.load_classifier(tmp_path)
