"""A pre-trained folder: saved, loaded, and asked to tag, embed and classify."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

import catlip_lite
from catlip_lite.labels import Vocabulary
from catlip_lite.models import create_vit, save_pretrained, zero_shot_scores


@pytest.fixture
def folder(tmp_path, vocabulary):
    torch.manual_seed(0)
    network = create_vit("vit_nano8", num_classes=len(vocabulary), image_size=16)
    return save_pretrained(tmp_path / "pretrain", network.state_dict(), vocabulary, model="vit_nano8", image_size=16)


def test_weights_vocabulary_and_configuration_come_back(folder, vocabulary):
    model = catlip_lite.load(folder)
    torch.manual_seed(0)
    expected = create_vit("vit_nano8", num_classes=4, image_size=16).state_dict()
    assert all(torch.equal(value, model.network.state_dict()[name]) for name, value in expected.items())
    assert model.vocabulary.wnids == vocabulary.wnids
    assert model.config["packages"]["torch"]


@pytest.mark.parametrize("kind", ["pil", "array", "tensor", "path", "bytes"])
def test_all_kinds_of_images_give_the_same_embedding(folder, tmp_path, make_png, kind):
    encoded = make_png((10, 200, 30))
    (tmp_path / "x.png").write_bytes(encoded)
    pil = Image.open(tmp_path / "x.png")
    array = np.asarray(pil)
    image = {
        "pil": pil,
        "array": array,
        "tensor": torch.from_numpy(array.copy()).permute(2, 0, 1),
        "path": tmp_path / "x.png",
        "bytes": encoded,
    }[kind]
    model = catlip_lite.load(folder)
    single, batch = model.embed(image), model.embed([image, image])
    assert (single.shape, batch.shape) == ((192,), (2, 192))
    np.testing.assert_allclose(single, model.embed(encoded), atol=1e-6)


def test_tags_are_the_most_probable_synsets_in_order(folder, make_png):
    model = catlip_lite.load(folder)
    tags = model.tag(make_png(), top_k=3)
    _, logits = model.outputs(make_png())
    best = np.argsort(-logits[0])[:3]
    assert [name for name, _, _ in tags] == [model.vocabulary.names[i] for i in best]
    np.testing.assert_allclose([p for _, _, p in tags], 1 / (1 + np.exp(-logits[0][best])), rtol=1e-5)


def test_zero_shot_takes_off_the_log_prior_odds():
    vocabulary = Vocabulary(["n07739125", "n02084071"], [90, 10], num_captions=100)
    logits = np.array([[2.0, 1.0]], np.float32)
    scores = zero_shot_scores(logits, [np.array([0]), np.array([1])], vocabulary)
    np.testing.assert_allclose(scores, [[2 - np.log(9), 1 + np.log(9)]], rtol=1e-5)


def test_a_label_of_several_synsets_scores_their_mean_and_one_of_none_minus_infinity():
    vocabulary = Vocabulary(["n07739125", "n02084071"], [50, 50], num_captions=100)
    logits = np.array([[3.0, 1.0]], np.float32)
    scores = zero_shot_scores(logits, [np.array([0, 1]), np.array([], int)], vocabulary)
    assert scores.tolist() == [[2.0, -np.inf]]


def test_zero_shot_accepts_synonyms_and_refuses_strangers_by_name(folder, make_png):
    model = catlip_lite.load(folder)
    assert model.zero_shot(make_png(), ["domestic dog", "apple"]).shape == (2,)
    with pytest.raises(ValueError, match="no synset of zebra is in the vocabulary"):
        model.zero_shot(make_png(), ["dog", "zebra"])


def test_a_vocabulary_that_does_not_fit_the_head_is_refused_with_both_sizes(folder):
    Vocabulary(["n07739125"], [3], num_captions=9).save(folder / "vocabulary.parquet")
    with pytest.raises(ValueError, match="has 1 classes but the checkpoint's head has 4"):
        catlip_lite.load(folder)


def test_an_unfinished_folder_says_which_notebook_to_run(tmp_path):
    with pytest.raises(FileNotFoundError, match="run notebook 04_pretrain first"):
        catlip_lite.load(tmp_path)


def test_stem_and_pooling_come_back(tmp_path, vocabulary):
    options = {"stem": "patches", "pooling": "token"}
    network = create_vit("vit_nano8", num_classes=4, image_size=16, **options)
    saved = save_pretrained(tmp_path, network.state_dict(), vocabulary, model="vit_nano8", image_size=16, **options)
    assert catlip_lite.load(saved).network.state_dict().keys() == network.state_dict().keys()


def test_a_folder_from_before_stems_were_stored_has_the_models_own(folder):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({k: v for k, v in config.items() if k not in ("stem", "pooling")}))
    assert catlip_lite.load(folder).network.patch_embed.conv1.kernel_size == (3, 3)
