"""A pre-trained folder: saved, loaded, and asked to tag, embed and classify."""

import json
import re

import numpy as np
import pytest
import torch
from PIL import Image

import catlip_lite
from catlip_lite.labels import Vocabulary
from catlip_lite.models import PretrainedModel, create_vit, load, save_pretrained
from catlip_lite.models.heads import prior_logits


@pytest.fixture
def folder(tmp_path, vocabulary):
    torch.manual_seed(0)
    network = create_vit("vit_nano8", num_classes=len(vocabulary), image_size=16)
    return save_pretrained(tmp_path / "pretrain", network.state_dict(), vocabulary, model="vit_nano8", image_size=16)


def test_the_packages_own_functions_are_those_of_models_and_are_listed():
    assert catlip_lite.load is load
    assert {"load", "load_classifier", "load_detector", "load_segmenter"} <= set(dir(catlip_lite))


def test_weights_vocabulary_and_configuration_come_back(folder, vocabulary):
    model = catlip_lite.load(folder)
    torch.manual_seed(0)
    expected = create_vit("vit_nano8", num_classes=4, image_size=16).state_dict()
    assert all(torch.equal(value, model.network.state_dict()[name]) for name, value in expected.items())
    assert model.vocabulary.wnids == vocabulary.wnids
    assert model.config["packages"]["torch"]


KINDS = {  # of an image, made from its path
    "path": lambda path: path,
    "name": str,
    "bytes": lambda path: path.read_bytes(),
    "pil": Image.open,
    "array": lambda path: np.array(Image.open(path)),
    "tensor": lambda path: torch.from_numpy(np.array(Image.open(path))).permute(2, 0, 1),
    "float array": lambda path: np.array(Image.open(path)) / 255,
    "float tensor": lambda path: torch.from_numpy(np.array(Image.open(path))).permute(2, 0, 1) / 255,
    "half tensor": lambda path: (torch.from_numpy(np.array(Image.open(path))).permute(2, 0, 1) / 255).half(),
}
BATCHES = {"list": list, "tuple": tuple, "array": np.stack, "tensor": torch.stack}


@pytest.fixture(scope="module")
def loaded(tmp_path_factory):
    """One model for all tests that only ask it."""
    torch.manual_seed(0)
    network = create_vit("vit_nano8", num_classes=4, image_size=16)
    vocabulary = Vocabulary(["n07739125", "n02084071", "n02121620", "n07753592"], [6] * 4, num_captions=24)
    folder = tmp_path_factory.mktemp("pretrain")
    return catlip_lite.load(save_pretrained(folder, network.state_dict(), vocabulary, model="vit_nano8", image_size=16))


@pytest.fixture
def pictures(tmp_path):
    """Paths of two pictures of noise, 24 pixels wide and high, and of one of the size that the network sees."""
    paths = []
    for i, size in enumerate((24, 24, 16)):
        pixels = np.random.default_rng(i).integers(0, 256, (size, size, 3), dtype=np.uint8)
        paths.append(tmp_path / f"{i}.png")
        Image.fromarray(pixels).save(paths[-1])
    return paths


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_image_is_embedded_tagged_and_classified_like_its_file(loaded, pictures, kind):
    image = KINDS[kind](pictures[0])
    np.testing.assert_allclose(loaded.embed(image), loaded.embed(pictures[0]), atol=1e-6)
    names = ["dog", "apple"]
    np.testing.assert_allclose(loaded.zero_shot(image, names), loaded.zero_shot(pictures[0], names), atol=1e-5)
    found, expected = loaded.tag(image, top_k=2), loaded.tag(pictures[0], top_k=2)
    assert [tag[:2] for tag in found] == [tag[:2] for tag in expected]
    np.testing.assert_allclose([tag[2] for tag in found], [tag[2] for tag in expected], atol=1e-6)


@pytest.mark.parametrize(
    ("kind", "batch"),
    [(kind, batch) for kind in KINDS for batch in BATCHES if batch in ("list", "tuple") or kind.endswith(batch)],
)
def test_every_kind_of_batch_gives_a_row_an_image(loaded, pictures, kind, batch):
    images = BATCHES[batch]([KINDS[kind](path) for path in pictures[:2]])
    singles = [loaded.embed(path) for path in pictures[:2]]
    np.testing.assert_allclose(loaded.embed(images), singles, atol=1e-5)
    assert loaded.zero_shot(images, ["dog", "apple", "cat"]).shape == (2, 3)
    tags = loaded.tag(images, top_k=3)
    assert [len(found) for found in tags] == [3, 3]
    assert [found[0][1] for found in tags] == [loaded.tag(path, top_k=1)[0][1] for path in pictures[:2]]


def test_a_batch_of_one_keeps_its_axis(loaded, pictures):
    assert loaded.embed([pictures[0]]).shape == (1, 192)
    assert loaded.zero_shot([pictures[0]], ["dog", "apple"]).shape == (1, 2)
    assert len(loaded.tag([pictures[0]])) == 1


def test_kinds_and_sizes_may_mix_in_a_list(loaded, pictures):
    mixed = [pictures[0], KINDS["float tensor"](pictures[1]), KINDS["pil"](pictures[2])]
    np.testing.assert_allclose(loaded.embed(mixed), [loaded.embed(path) for path in pictures], atol=1e-5)


@pytest.mark.parametrize("kind", ["tensor", "float tensor"])
def test_a_batch_of_views_is_taken_uncropped_and_left_unchanged(loaded, pictures, kind):
    views = KINDS[kind](pictures[2])[None]
    before, pixels = views.clone(), torch.from_numpy(np.array(Image.open(pictures[2]))).permute(2, 0, 1)
    with torch.no_grad():
        expected = loaded.network(pixels[None].float() / 255)
    _, logits = loaded.outputs(views)
    np.testing.assert_allclose(logits, expected, atol=1e-5)
    assert torch.equal(views, before)


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (torch.full((3, 24, 24), 255.0), "tensor is float32 [3, 24, 24]: its values go from 255 to 255, floats are 0..1"),
        (torch.full((2, 3, 16, 16), -2.1), "tensor is float32 [2, 3, 16, 16]: its values go from -2.1 to -2.1"),
        (torch.full((3, 24, 24), torch.nan), "its values go from nan to nan"),
        (np.full((24, 24, 3), 1.5), "array is float64 [24, 24, 3]: its values go from 1.5 to 1.5"),
        (torch.zeros(3, 24, 24, dtype=torch.int64), "tensor is int64 [3, 24, 24]: pixels are uint8, or floats in 0..1"),
        (np.zeros((24, 24, 3), np.int32), "array is int32 [24, 24, 3]: pixels are uint8"),
        (np.zeros((24, 24), np.uint8), "array is uint8 [24, 24]: one image has three axes, a batch has four"),
        ([np.zeros((24, 24), np.uint8)], "array is uint8 [24, 24]: one image has three axes"),
        (np.zeros((24, 24, 4), np.uint8), "array is uint8 [24, 24, 4]: three colours are an array's last axis"),
        (np.zeros((3, 24, 24), np.uint8), "array is uint8 [3, 24, 24]: three colours are an array's last axis"),
        (torch.zeros(24, 24, 3, dtype=torch.uint8), "tensor is uint8 [24, 24, 3]: three colours are an"),
        (torch.zeros(2, 1, 16, 16, dtype=torch.uint8), "tensor is uint8 [2, 1, 16, 16]: three colours are"),
        ([3], "int is no type of image: give a path, bytes, a PIL image"),
        ([], "no images given"),
        (torch.zeros(0, 3, 16, 16), "no images given"),
    ],
    ids=lambda value: value[:40] if isinstance(value, str) else "",
)
def test_what_is_no_image_is_refused_with_what_it_is(loaded, image, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        loaded.embed(image)


def test_an_image_file_that_is_not_there_is_named(folder):
    with pytest.raises(FileNotFoundError, match="no image at no_such.png"):
        catlip_lite.load(folder).tag("no_such.png")


def test_tags_are_the_most_probable_synsets_in_order(folder, make_png):
    model = catlip_lite.load(folder)
    tags = model.tag(make_png(), top_k=3)
    _, logits = model.outputs(make_png())
    best = np.argsort(-logits[0])[:3]
    assert [name for name, _, _ in tags] == [model.vocabulary.names[i] for i in best]
    np.testing.assert_allclose([p for _, _, p in tags], 1 / (1 + np.exp(-logits[0][best])), rtol=1e-5)


@pytest.mark.parametrize("loss", ["softmax", "superclass"])
def test_a_head_trained_by_a_softmax_gives_shares_and_takes_off_the_prior_of_its_loss(animals, make_png, loss):
    model = PretrainedModel(animals.network, animals.vocabulary, {"image_size": 16, "recipe": {"loss": loss}}, "cpu")
    assert sum(share for _, _, share in model.tag(make_png(), top_k=3)) == pytest.approx(1)
    _, logits = model.outputs(make_png())
    expected = logits[0] - prior_logits(model.vocabulary, loss)
    np.testing.assert_allclose(model.zero_shot(make_png(), ["pug", "cat"]), expected[1:], rtol=1e-5)


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


# --- scoring names ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def animals():
    """A model that knows a puppy, a pug and a cat, and answers them with 1, 3 and 0, less their log prior odds."""
    vocabulary = Vocabulary(["n01322604", "n02110958", "n02121620"], [10, 30, 20], num_captions=100)
    network = create_vit("vit_nano8", num_classes=3, image_size=16)
    with torch.no_grad():
        network.head.weight.zero_()
        network.head.bias.copy_(torch.tensor([1.0, 3.0, 0.0]) + torch.from_numpy(vocabulary.log_prior_odds()))
    return PretrainedModel(network, vocabulary, {"image_size": 16}, "cpu")


@pytest.mark.parametrize(
    ("options", "dog"),
    [
        ({}, (11 * 1 + 31 * 3) / 42),  # both are hyponyms of dog, weighted by captions, none of them at zero
        ({"borrow": "similar"}, (1 + 3) / 2),  # both are its children
        ({"borrow": "similar", "min_similarity": 0.2}, (0.5 * 1 + 0.5 * 3 + 0.2 * 0) / 1.2),  # the cat is four steps away
    ],
)
def test_a_name_that_the_vocabulary_lacks_scores_as_what_it_borrows(animals, make_png, options, dog):
    np.testing.assert_allclose(animals.zero_shot(make_png(), ["dog", "cat"], **options), [dog, 0.0], atol=1e-5)


def test_zero_shot_without_the_prior_leaves_the_logits_as_they_are(animals, make_png):
    scores = animals.zero_shot(make_png(), ["pug", "cat"], prior_corrected=False)
    np.testing.assert_allclose(scores, animals.head_logits(np.zeros((1, 192), np.float32))[0, [1, 2]], atol=1e-5)


# --- what the network sees ----------------------------------------------------------------------------------------------------


def test_the_network_sees_pixels_over_255(loaded):
    seen = []
    forward = loaded.network.forward_features
    loaded.network.forward_features = lambda images: seen.append(images) or forward(images)
    views = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (2, 3, 16, 16), dtype=np.uint8))
    loaded.embed(views)
    torch.testing.assert_close(seen[0], (views.double() / 255).float(), rtol=0, atol=1e-6)


def test_one_name_instead_of_a_list_is_refused(loaded, pictures):
    with pytest.raises(ValueError, match="names='cat' is one name: give a list"):
        loaded.zero_shot(pictures[0], "cat")
