"""CLIP's text tower, tokens and joint space are open_clip's; a folder of such a run chooses among names by prompts."""

import sys

import numpy as np
import pytest
import torch
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

import catlip_lite
from catlip_lite.labels import LabelSet
from catlip_lite.models import PretrainedModel, create_vit, save_pretrained
from catlip_lite.models.clip import (
    CONTEXT,
    END,
    START,
    TOKENS,
    ClipModel,
    add_projection,
    embed_tokens,
    one_caption_each,
    text_flops,
    text_tower,
    tokenise,
)
from catlip_lite.training.loop import Learner
from catlip_lite.training.objectives import TokenTargets, create_objective
from catlip_lite.training.plan import towers_on_paper
from catlip_lite.training.recipes import recipe_for


def padded(rows: list[list[int]], context_length: int) -> torch.Tensor:
    tokens = torch.zeros(len(rows), context_length, dtype=torch.int64)
    for row, found in zip(tokens, rows, strict=True):
        row[: len(found)] = torch.tensor(found)
    return tokens


@pytest.fixture
def model() -> ClipModel:
    """A small one, for pictures of 16 pixels."""
    pytest.importorskip("open_clip")
    torch.manual_seed(0)
    network = add_projection(create_vit("vit_nano8", 0, 16), "vit_nano8")
    return ClipModel(network, text_tower("vit_nano8", 24), 20.0, {"model": "vit_nano8", "image_size": 16}, "cpu")


@pytest.fixture
def views() -> torch.Tensor:
    return torch.randint(0, 256, (5, 3, 16, 16), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


# --- captions -----------------------------------------------------------------------------------------------------------------

CAPTIONS = [
    "a dog",
    "A  Dog's DINNER, 3 kg!",
    "a café in Zürich 🍎",
    "",
    "one two three four five six seven eight nine ten " * 9,
]


@pytest.mark.parametrize("context_length", [77, 12])
def test_tokens_are_open_clips_and_of_a_long_caption_the_last_is_the_end(context_length):
    open_clip = pytest.importorskip("open_clip")
    rows = tokenise(CAPTIONS, context_length)
    assert torch.equal(padded(rows, context_length), open_clip.get_tokenizer("ViT-B-16")(CAPTIONS, context_length))
    assert [row[0] for row in rows] == [START] * 5
    assert [row[-1] for row in rows] == [END] * 5
    assert len(rows[-1]) == context_length


def targets_of(captions: list[list[str]], synsets: dict[int, list[int]] | None = None):
    """Indices and rows of images with these captions' tokens, and after them synsets."""
    found = []
    for image, of_one in enumerate(captions):
        found += [(token, image) for caption in tokenise(of_one) for token in caption]
        found += [(TOKENS + synset, image) for synset in (synsets or {}).get(image, ())]
    return torch.tensor(found).T.contiguous()


def test_each_image_gets_one_whole_caption_of_its_own_and_each_of_them_at_some_seed():
    pytest.importorskip("open_clip")
    captions = [["a dog", "two dogs on a lawn", "dog"], [], ["a cat"], ["an apple, red", "fruit"], []]
    indices, rows = targets_of(captions)
    seen = [set() for _ in captions]
    for seed in range(40):
        torch.manual_seed(seed)
        tokens, there = one_caption_each(indices, rows, len(captions), 24)
        assert tokens.shape == (5, 24)
        assert there.tolist() == [True, False, True, True, False]
        for image, row in enumerate(tokens.tolist()):
            seen[image].add(tuple(row))
    for found, of_one in zip(seen, captions, strict=True):
        assert found == {tuple(row) for row in padded(tokenise(of_one) or [[]], 24).tolist()}


def test_synsets_after_an_images_tokens_are_no_tokens():
    pytest.importorskip("open_clip")
    captions = [["a dog", "puppy"], [], ["a cat"]]
    alone, beside = targets_of(captions), targets_of(captions, {0: [0, 7], 1: [3], 2: [5]})
    for seed in range(6):
        found = []
        for indices, rows in (alone, beside):
            torch.manual_seed(seed)
            found.append(one_caption_each(indices, rows, 3, 24))
        assert torch.equal(found[0][0], found[1][0])
        assert found[1][1].tolist() == [True, False, True]


# --- towers -------------------------------------------------------------------------------------------------------------------


def test_b16_has_open_clips_parameters_but_for_stem_first_norm_and_cls_position():
    open_clip = pytest.importorskip("open_clip")
    towers = towers_on_paper(recipe_for("vit_b16", objective="clip"), 0)
    ours = 1 + sum(p.numel() for tower in towers for p in tower.parameters())  # 1: the scale
    with torch.device("meta"):
        theirs = open_clip.model.CLIP(**open_clip.get_model_config("ViT-B-16"))
    assert sum(p.numel() for p in theirs.parameters()) == 149_620_737
    # The stem has 748,032 instead of 589,824; the norm before the first block (1,536) and the CLS token's position (768) are
    # not there.
    assert ours == 149_620_737 + (748_032 - 589_824) - 1_536 - 768 == 149_776_641


def test_features_and_logits_are_those_of_open_clips_model_on_the_same_weights():
    open_clip = pytest.importorskip("open_clip")
    torch.manual_seed(0)
    vision = {"timm_model_name": "vit_tiny_patch16_224", "timm_pool": "token", "timm_proj": "linear", "image_size": 224}
    theirs = open_clip.model.CustomTextCLIP(192, vision, {"width": 192, "heads": 3, "layers": 12}).eval()
    trunk = theirs.visual.trunk
    trunk.pos_embed.data[:, 0] = 0  # the CLS token's position, which ours has not
    network, text = (
        add_projection(create_vit("vit_ti16", 0, stem="patches", pooling="token"), "vit_ti16"),
        text_tower("vit_ti16"),
    )
    weights = {**trunk.state_dict(), "pos_embed": trunk.pos_embed[:, 1:], "head.weight": theirs.visual.head.proj.weight}
    network.load_state_dict(weights)
    text.load_state_dict(theirs.text.state_dict())
    scale = theirs.logit_scale.exp().item()
    ours = ClipModel(network, text, scale, {"model": "vit_ti16", "image_size": 224}, "cpu")

    views = torch.randint(0, 256, (2, 3, 224, 224), dtype=torch.uint8)
    images, captions = views.float() / 255, ["a dog on a lawn", "two apples", "nothing at all"]
    tokens = open_clip.get_tokenizer("ViT-B-16")(captions)
    with torch.no_grad():
        torch.testing.assert_close(network(images), theirs.encode_image(images), atol=1e-5, rtol=0)
        torch.testing.assert_close(embed_tokens(text, tokens), theirs.encode_text(tokens, normalize=True), atol=1e-5, rtol=0)
        logits = theirs.get_logits(images, tokens)[0].numpy()
    np.testing.assert_allclose(ours.zero_shot(views, captions, prompts=["{}"]) / scale, logits / scale, atol=1e-5)


@pytest.mark.parametrize(("model", "context_length"), [("vit_nano8", 24), ("vit_b16", CONTEXT)])
def test_a_caption_costs_what_pytorch_counts(model, context_length):
    pytest.importorskip("open_clip")
    with torch.device("meta"):
        tower, tokens = text_tower(model, context_length), torch.zeros(1, context_length, dtype=torch.int64)
        with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:  # fused attention is not counted
            tower(tokens)
    assert text_flops(tower) == counter.get_total_flops()


def test_without_open_clip_the_error_names_the_extra_and_the_papers_objective_does_without(monkeypatch, vocabulary):
    monkeypatch.setitem(sys.modules, "open_clip", None)
    for needing in (TokenTargets, lambda: text_tower("vit_nano8")):
        with pytest.raises(ImportError, match=r"open_clip's: pip install 'catlip-lite\[clip\]'"):
            needing()
    catlip = create_objective(recipe_for("vit_nano8"), vocabulary)
    assert catlip.loss() is not None
    assert catlip.network().num_classes == 4


# --- choosing among names -----------------------------------------------------------------------------------------------------

NAMES, PROMPTS = ["sea_lion", "dog", "cat", "Red apple"], ["{}", "a photo of the large {}.", "a {} in a video game."]


def test_zero_shot_is_the_cosine_of_image_and_mean_prompt_times_the_scale(model, views):
    texts = [[prompt.format(name.replace("_", " ")) for prompt in PROMPTS] for name in NAMES]
    with torch.no_grad():
        means = torch.stack([embed_tokens(model.text, padded(tokenise(of_one), 24)).mean(0) for of_one in texts])
        cosines = F.cosine_similarity(model.network(views / 255)[:, None], means[None], dim=2).numpy()
    scores = model.zero_shot(views, NAMES, prompts=PROMPTS)
    np.testing.assert_allclose(scores, 20 * cosines, atol=1e-4)
    single, listed = (model.zero_shot(image, NAMES, prompts=PROMPTS) for image in (views[1], [views[1]]))
    np.testing.assert_allclose(single, listed[0], atol=1e-4)
    np.testing.assert_allclose(model.zero_shot(views, LabelSet.from_names(NAMES), prompts=PROMPTS), scores, atol=1e-4)


def test_the_zero_shot_head_ranks_names_as_the_cosines_do(model, views):
    head = model.zero_shot_head(NAMES, PROMPTS)
    ranked = [
        np.argsort(found, axis=1) for found in (head.scores(model.embed(views)), model.zero_shot(views, NAMES, prompts=PROMPTS))
    ]
    np.testing.assert_array_equal(*ranked)
    assert len({tuple(row) for row in ranked[0].tolist()}) > 1  # not one order for all


def test_texts_have_length_one_however_many_pass_at_a_time(model):
    texts = model.embed_texts(CAPTIONS)
    np.testing.assert_allclose(np.linalg.norm(texts, axis=1), 1, rtol=1e-6)
    np.testing.assert_allclose(model.embed_texts(CAPTIONS, batch_size=2), texts, atol=1e-6)


def test_one_name_instead_of_a_list_is_refused(model, views):
    with pytest.raises(ValueError, match="names='cat' is one name: give a list of those to choose from"):
        model.zero_shot(views, "cat")


# --- in a folder --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["clip", "siglip", "superclip"])
def test_a_folder_gives_back_towers_scale_and_head(tmp_path, vocabulary, views, name):
    pytest.importorskip("open_clip")
    recipe = recipe_for("vit_nano8", image_size=16, context_length=20, objective=name)
    objective = create_objective(recipe, vocabulary)
    learner = Learner(objective.network(), objective.loss()).eval()
    with torch.no_grad():
        learner.loss.logit_scale.fill_(3.0)
    facts = {"model": "vit_nano8", "image_size": 16, "objective": name, "context_length": 20}
    save_pretrained(tmp_path, learner.averaged(), objective.vocabulary, **facts)
    found = catlip_lite.load(tmp_path, "cpu")
    clip = found.clip if name == "superclip" else found
    assert isinstance(found, PretrainedModel if name == "superclip" else ClipModel)
    assert isinstance(clip, ClipModel)
    assert (tmp_path / "vocabulary.parquet").exists() == (name == "superclip")
    for back, tower in ((clip.network, learner.network), (clip.text, learner.loss.text)):
        assert all(torch.equal(value, tower.state_dict()[key]) for key, value in back.state_dict().items())
        assert back.state_dict().keys() == tower.state_dict().keys()
    assert clip.logit_scale == pytest.approx(np.exp(3.0), rel=1e-6)
    if name == "superclip":
        with torch.no_grad():
            projected, logits = learner.network(views / 255).split([128, 4], dim=1)
        np.testing.assert_allclose(found.outputs(views)[1], logits, atol=1e-5)
        np.testing.assert_allclose(clip.embed(views) @ clip.projection.T.numpy(), projected, atol=1e-5)
        assert {wnid for _, wnid, _ in found.tag(views[0])} == set(vocabulary.wnids)


def test_a_scale_above_the_cap_comes_back_as_training_used_it(tmp_path):
    pytest.importorskip("open_clip")
    objective = create_objective(recipe_for("vit_nano8", image_size=16, objective="clip"))
    learner = Learner(objective.network(), objective.loss())
    with torch.no_grad():
        learner.loss.logit_scale.fill_(4.7)  # e^4.7 is 110
    facts = {"model": "vit_nano8", "image_size": 16, "objective": "clip", "context_length": 24}
    assert catlip_lite.load(save_pretrained(tmp_path, learner.averaged(), None, **facts)).logit_scale == pytest.approx(100)
