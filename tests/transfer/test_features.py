"""Features are computed once for a model and its images, part by part, and again when either changes."""

import numpy as np
import pytest

from catlip_lite.data.images import Evaluation
from catlip_lite.data.labelled import all_views, load_labelled
from catlip_lite.data.shards import Sample, write_shards
from catlip_lite.models import PretrainedModel
from catlip_lite.transfer import features
from catlip_lite.transfer.features import extract


@pytest.fixture
def images(shards):
    return load_labelled(shards)


def test_features_are_the_models_embeddings_in_the_images_order(model, images):
    found, rows = extract(model, images)
    np.testing.assert_allclose(found, model.embed(all_views(images, Evaluation(16))[1]), atol=1e-6)
    assert rows.tolist() == list(range(24))


def test_a_second_extraction_reads_what_the_first_computed(tmp_path, model, images, monkeypatch):
    first, _ = extract(model, images, tmp_path)
    monkeypatch.setattr(model, "embed", None)
    np.testing.assert_array_equal(extract(model, images, tmp_path)[0], first)


def test_images_that_were_out_of_reach_are_tried_again(tmp_path, model, make_png, caplog):
    for name in ("ant/1", "ant/2", "bee/1"):
        (tmp_path / "all" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "all" / f"{name}.png").write_bytes(make_png())
    images = load_labelled(tmp_path / "all")
    (tmp_path / "all/ant").rename(tmp_path / "away")
    assert extract(model, images, tmp_path / "cache")[1].tolist() == [2]
    caplog.clear()
    assert extract(model, images, tmp_path / "cache")[1].tolist() == [2]
    assert "2 images that could not be read before are left out again" in caplog.text
    (tmp_path / "away").rename(tmp_path / "all/ant")
    found, rows = extract(model, images, tmp_path / "cache")
    assert rows.tolist() == [0, 1, 2]
    np.testing.assert_allclose(found, extract(model, images)[0], atol=1e-5)


def test_a_damaged_part_is_computed_again(tmp_path, model, images, caplog):
    first, _ = extract(model, images, tmp_path)
    (part,) = tmp_path.glob("*/*.safetensors")
    part.write_bytes(part.read_bytes()[:50])
    np.testing.assert_array_equal(extract(model, images, tmp_path)[0], first)
    assert "is damaged" in caplog.text


def test_an_extraction_that_was_killed_goes_on_where_it_stopped(tmp_path, model, images, monkeypatch):
    whole, _ = extract(model, images, batch_size=5)
    monkeypatch.setattr(features, "IMAGES_A_PART", 10)
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
    resumed, rows = extract(model, images, tmp_path, batch_size=5)
    assert -sum(n for n in seen if n < 0) == 14
    np.testing.assert_allclose(resumed, whole, atol=1e-6)
    assert rows.tolist() == list(range(24))


def test_other_weights_images_or_views_are_extracted_anew(tmp_path, model, images):
    larger = PretrainedModel(model.network, model.vocabulary, {**model.config, "image_size": 24}, "cpu")
    for seen_by, part in ((model, images), (model, images.sample(5)), (larger, images)):
        extract(seen_by, part, tmp_path)
    model.network.head.weight.data.mul_(2)
    extract(model, images, tmp_path)
    assert len(list(tmp_path.glob("*/*.safetensors"))) == 4


def test_unreadable_images_are_left_out_and_the_rows_tell_which_stay(tmp_path, model, samples, caplog):
    broken = Sample("", b"no image", "png", "an apple", {"label": "apple", "vendor": "A"})
    write_shards([*samples[:3], broken, *samples[3:6]], tmp_path / "some", samples_per_shard=16)
    images = load_labelled(tmp_path / "some")
    found, rows = extract(model, images, tmp_path / "cache")
    assert rows.tolist() == [0, 1, 2, 4, 5, 6]
    np.testing.assert_allclose(found, extract(model, images.take(rows))[0], atol=1e-5)
    assert "unreadable" in caplog.text
