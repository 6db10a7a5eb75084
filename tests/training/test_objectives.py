"""What captions become in the loader for each objective, and towers that start alike for the same seed."""

import numpy as np
import pytest
import torch

from catlip_lite.data.shards import Sample
from catlip_lite.labels import CaptionLabeler, Vocabulary
from catlip_lite.models.clip import TOKENS, tokenise
from catlip_lite.models.heads import prior_logits
from catlip_lite.training.objectives import SynsetTargets, TokensAndSynsets, TokenTargets, create_objective
from catlip_lite.training.recipes import OBJECTIVES, recipe_for

CAPTIONS = ["a dog | two cats on a lawn\n\n a cat \n", "", None, "nothing of note", "an apple and a dog"]
SAID = [["a dog", "two cats on a lawn", " a cat "], [], [], ["nothing of note"], ["an apple and a dog"]]
APPLE, DOG, CAT = range(3)  # of the vocabulary


@pytest.fixture
def spoken() -> list[Sample]:
    return [Sample(str(i), b"image", caption=caption) for i, caption in enumerate(CAPTIONS)]


@pytest.fixture
def tokens() -> TokenTargets:
    pytest.importorskip("open_clip")
    return TokenTargets(12)


@pytest.fixture
def synsets(vocabulary) -> SynsetTargets:
    return SynsetTargets(CaptionLabeler(), vocabulary)


def by_sample(targets) -> list[list[int]]:
    indices, counts = targets
    assert (indices.dtype, counts.dtype) == (np.int32, np.int64)
    return [part.tolist() for part in np.split(indices, np.cumsum(counts)[:-1])]


# --- in the loader ------------------------------------------------------------------------------------------------------------


def test_tokens_are_those_of_every_line_and_part_of_a_caption(tokens, spoken):
    found = by_sample(tokens(spoken))
    assert found == [[token for caption in tokenise(of_one, 12) for token in caption] for of_one in SAID]
    assert [len(part) > 0 for part in found] == [True, False, False, True, True]


def test_an_image_without_a_caption_is_skipped_where_captions_are_compared_and_kept_where_synsets_are_learnt(
    tokens, synsets, spoken
):
    assert by_sample(synsets(spoken)) == [[DOG, CAT], [], [], [], [APPLE, DOG]]
    assert [sample.skipped for sample in spoken] == [""] * 5
    tokens(spoken)
    assert [sample.skipped for sample in spoken] == ["", "no caption", "no caption", "", ""]


def test_what_is_skipped_for_another_reason_has_no_targets_and_keeps_the_reason(tokens, synsets, spoken):
    spoken[0].skipped = "unreadable image"
    for targets in (tokens, synsets, TokensAndSynsets(tokens, synsets)):
        assert by_sample(targets(spoken))[0] == []
        assert spoken[0].skipped == "unreadable image"


def test_superclip_has_each_images_tokens_and_then_its_synsets_beyond_the_alphabet(tokens, synsets, spoken):
    found = by_sample(TokensAndSynsets(tokens, synsets)(spoken))
    alone = by_sample(tokens(spoken))
    named = [[DOG, CAT], [], [], [], [APPLE, DOG]]
    assert found == [[*of_one, *(TOKENS + i for i in labels)] for of_one, labels in zip(alone, named, strict=True)]
    assert max(max(of_one, default=0) for of_one in alone) < TOKENS


def test_looks_tell_captions_tokens_and_labels(tokens, synsets, spoken):
    lengths = [len(caption) for of_one in SAID for caption in tokenise(of_one)]
    told = {
        "captions an image (mean)": 5 / 5,
        "tokens a caption (mean)": pytest.approx(sum(lengths) / 5),
        "captions of 12 tokens (longer ones are cut)": 0,
    }
    of_labels = {"labels an image (mean)": pytest.approx(4 / 5), "captions without a label": 3}
    assert tokens.look(*tokens(spoken)) == told
    assert synsets.look(*synsets(spoken)) == of_labels
    both = TokensAndSynsets(tokens, synsets)
    assert both.look(*both(spoken)) == told | of_labels
    short = TokenTargets(5)
    assert short.look(*short(spoken))["captions of 5 tokens (longer ones are cut)"] == sum(n >= 5 for n in lengths) == 3


# --- all of an objective ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", OBJECTIVES)
def test_what_learns_synsets_needs_a_vocabulary_and_what_does_not_takes_none(vocabulary, name):
    recipe = recipe_for("vit_nano8", objective=name)
    if name in ("catlip", "superclip"):
        assert create_objective(recipe, vocabulary).vocabulary is vocabulary
        with pytest.raises(ValueError, match=f"objective='{name}' learns synsets: give a vocabulary, as notebook 02 writes it"):
            create_objective(recipe)
    else:
        assert create_objective(recipe, vocabulary).vocabulary is None


@pytest.mark.parametrize("name", OBJECTIVES)
def test_towers_start_alike_for_a_seed_whatever_was_drawn_before(vocabulary, name):
    if name != "catlip":
        pytest.importorskip("open_clip")

    def start(seed):
        objective = create_objective(recipe_for("vit_nano8", image_size=16, objective=name, seed=seed), vocabulary)
        loss = objective.loss()
        return {**objective.network().state_dict(), **(loss.state_dict() if isinstance(loss, torch.nn.Module) else {})}

    before = torch.get_rng_state()
    first = start(0)
    assert torch.equal(torch.get_rng_state(), before)
    torch.rand(7)
    again, other = start(0), start(1)
    assert all(torch.equal(first[key], again[key]) for key in first)
    drawn = ["blocks.0.attn.qkv.weight", "head.weight", *(["text.text_projection"] if name != "catlip" else [])]
    drawn += ["head.projection"] if name == "superclip" else []
    assert not any(torch.equal(first[key], other[key]) for key in drawn)


def test_superclips_network_gives_the_projected_image_and_then_logits_that_start_at_the_prior(vocabulary):
    pytest.importorskip("open_clip")
    uneven = Vocabulary(vocabulary.wnids, [12, 6, 3, 1], num_captions=24)
    objective = create_objective(recipe_for("vit_nano8", image_size=16, objective="superclip"), uneven)
    network = objective.network()
    torch.nn.init.zeros_(network.head.weight)
    outputs = network(torch.rand(2, 3, 16, 16))
    assert outputs.shape == (2, objective.text().output_dim + 4)
    expected = torch.from_numpy(prior_logits(uneven, "superclass")).expand(2, 4)
    torch.testing.assert_close(outputs[:, -4:], expected)
    assert outputs[:, :-4].abs().min() > 0
