"""Features are computed once for a model and its images, part by part, and again when either changes."""

import dataclasses

import numpy as np
import pytest
import torch

from catlip_lite.data.images import Evaluation
from catlip_lite.data.labelled import all_views, load_labelled
from catlip_lite.data.shards import Sample, write_shards
from catlip_lite.models import PretrainedModel, create_vit
from catlip_lite.tasks import features as task
from catlip_lite.tasks.features import Features, extract, join, pixel_features, split_validation, untrained

VIEW = Evaluation(16)


def made_model(vocabulary, seed, **config):
    torch.manual_seed(seed)
    network = create_vit("vit_nano8", num_classes=len(vocabulary), image_size=16)
    return PretrainedModel(network, vocabulary, {"model": "vit_nano8", "image_size": 16} | config, "cpu")


def made_features(labels, groups=None):
    labels = np.array(labels)
    groups = np.full(len(labels), "") if groups is None else np.array(groups)
    return Features(np.zeros((len(labels), 2), np.float32), labels, groups, np.arange(len(labels)))


@pytest.fixture
def model(vocabulary):
    return made_model(vocabulary, 0)


@pytest.fixture
def images(shards):
    return load_labelled(shards)


def test_features_are_the_models_embeddings_in_the_images_order(model, images):
    found = extract(model, images)
    np.testing.assert_allclose(found.features, model.embed(all_views(images, VIEW)[1]), atol=1e-6)
    np.testing.assert_array_equal(found.labels, images.labels)
    np.testing.assert_array_equal(found.groups, images.groups)
    assert found.rows.tolist() == list(range(24))


def test_a_second_extraction_reads_what_the_first_computed(tmp_path, model, images, monkeypatch):
    first = extract(model, images, tmp_path)
    monkeypatch.setattr(model, "embed", None)
    np.testing.assert_array_equal(extract(model, images, tmp_path).features, first.features)


def test_images_that_were_out_of_reach_are_tried_again(tmp_path, model, make_png, caplog):
    for name in ("ant/1", "ant/2", "bee/1"):
        (tmp_path / "all" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "all" / f"{name}.png").write_bytes(make_png())
    images = load_labelled(tmp_path / "all")
    (tmp_path / "all/ant").rename(tmp_path / "away")
    assert extract(model, images, tmp_path / "cache").rows.tolist() == [2]
    caplog.clear()
    assert extract(model, images, tmp_path / "cache").rows.tolist() == [2]
    assert "2 images that could not be read before are left out again" in caplog.text
    (tmp_path / "away").rename(tmp_path / "all/ant")
    found = extract(model, images, tmp_path / "cache")
    assert (found.rows.tolist(), found.labels.tolist()) == ([0, 1, 2], ["ant", "ant", "bee"])
    np.testing.assert_allclose(found.features, extract(model, images).features, atol=1e-5)


def test_a_damaged_part_is_computed_again(tmp_path, model, images, caplog):
    first = extract(model, images, tmp_path)
    (part,) = tmp_path.glob("*/*.safetensors")
    part.write_bytes(part.read_bytes()[:50])
    np.testing.assert_array_equal(extract(model, images, tmp_path).features, first.features)
    assert "is damaged" in caplog.text


def test_lists_of_labels_are_refused_before_anything_is_read(model, images):
    with pytest.raises(ValueError, match="have lists of labels .* use notebook 10"):
        extract(model, dataclasses.replace(images, multi_label=True))


def test_an_extraction_that_was_killed_goes_on_where_it_stopped(tmp_path, model, images, monkeypatch):
    whole = extract(model, images, batch_size=5)
    monkeypatch.setattr(task, "IMAGES_A_PART", 10)
    embed, seen = model.embed, []

    def killed_in_the_second_part(views, batch_size):
        seen.append(len(views))
        if sum(seen) > 10:
            raise KeyboardInterrupt
        return embed(views, batch_size)

    monkeypatch.setattr(model, "embed", killed_in_the_second_part)
    with pytest.raises(KeyboardInterrupt):
        extract(model, images, tmp_path, batch_size=5)
    monkeypatch.setattr(model, "embed", lambda views, size: seen.append(-len(views)) or embed(views, size))
    resumed = extract(model, images, tmp_path, batch_size=5)
    assert -sum(n for n in seen if n < 0) == 14
    np.testing.assert_allclose(resumed.features, whole.features, atol=1e-6)
    np.testing.assert_array_equal(resumed.rows, whole.rows)


def test_other_weights_images_or_views_are_extracted_anew(tmp_path, vocabulary, images):
    for model in (made_model(vocabulary, 0), made_model(vocabulary, 1), made_model(vocabulary, 0, short_side=20)):
        extract(model, images, tmp_path / "cache")
        extract(model, images.sample(5), tmp_path / "cache")
    assert len(list((tmp_path / "cache").iterdir())) == 6


def test_unreadable_images_are_left_out_and_the_rows_tell_which_stay(tmp_path, model, samples, caplog):
    broken = Sample("", b"no image", "png", "an apple", {"label": "apple", "vendor": "A"})
    write_shards([*samples[:3], broken, *samples[3:6]], tmp_path / "some", samples_per_shard=16)
    found = extract(model, load_labelled(tmp_path / "some"), tmp_path / "cache")
    assert found.rows.tolist() == [0, 1, 2, 4, 5, 6]
    assert found.labels.tolist() == [sample.facts["label"] for sample in samples[:6]]
    assert "unreadable" in caplog.text


def test_the_untrained_twin_has_other_weights_and_the_same_shape(model, images):
    twin = untrained(model, images, seed=7)
    shapes = [{name: value.shape for name, value in m.network.state_dict().items()} for m in (model, twin)]
    assert shapes[0] == shapes[1]
    assert not torch.equal(model.network.head.weight, twin.network.head.weight)
    assert not any(module.training for module in twin.network.modules())


def test_the_untrained_twin_is_normalised_by_the_images_statistics(model, images):
    stem = untrained(model, images).network.patch_embed
    with torch.no_grad():
        expected = stem.conv1(all_views(images, VIEW)[1].float() / 255).mean(dim=(0, 2, 3))
    torch.testing.assert_close(stem.bn1.running_mean, expected, rtol=1e-3, atol=1e-4)


def test_pixel_features_are_the_picture_itself(images):
    features = pixel_features(images, VIEW).features
    np.testing.assert_array_equal((features[3] * 255).round(), all_views(images, VIEW)[1][3].flatten().numpy())


def test_pixels_of_large_views_are_averaged_down(images):
    large = pixel_features(images, Evaluation(64)).features
    assert large.shape == (24, 3 * 32 * 32)
    mean = all_views(images, Evaluation(64))[1].float().mean(dim=(1, 2, 3)) / 255
    np.testing.assert_allclose(large.mean(1), mean, rtol=1e-4)


def test_joined_features_stand_one_after_the_other():
    assert join([made_features(["a", "b"]), made_features(["c"])]).labels.tolist() == ["a", "b", "c"]


def test_a_validation_group_must_be_among_the_training_images():
    with pytest.raises(ValueError, match="validation_group='Z'.*groups are A, B"):
        split_validation(made_features(["ant"] * 4, ["A", "B", "A", "B"]), "Z")


def test_a_random_split_takes_a_share_of_each_class_and_leaves_each_something_to_train_on():
    train = made_features(["ant"] * 3 + ["bee"] * 10 + ["cow"])
    chosen = split_validation(train)
    assert {label: int(chosen[train.labels == label].sum()) for label in ("ant", "bee", "cow")} == {
        "ant": 1,
        "bee": 2,
        "cow": 0,
    }


def test_of_many_training_images_only_so_many_validate():
    assert split_validation(made_features(["ant", "bee"] * 500), most=50).sum() == 50


def test_one_image_a_class_leaves_nothing_to_validate_on():
    with pytest.raises(ValueError, match="none of the 3 classes has more than one image"):
        split_validation(made_features(["ant", "bee", "cow"]))
