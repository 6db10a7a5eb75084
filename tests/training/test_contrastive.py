"""Contrastive losses are open_clip's, image by image; several processes compare as one would; synsets are learnt beside."""

import math
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch
from runs import in_processes, open_corpus, read_log, run
from torch import nn
from torch._dynamo.utils import counters
from torch.nn import functional as F

from catlip_lite.labels import Vocabulary
from catlip_lite.models.clip import TEXT_TOWERS, TOKENS, text_tower, tokenise
from catlip_lite.models.vit import MODELS
from catlip_lite.training.contrastive import Contrastive, ContrastiveWithSynsets
from catlip_lite.training.losses import create_loss
from catlip_lite.training.objectives import TokenTargets
from catlip_lite.training.parallel import is_main, world_size

EVERY = torch.ones(6, dtype=torch.bool)


def pairs() -> tuple[torch.Tensor, torch.Tensor]:
    """Six images and their captions in the joint space."""
    generator = torch.Generator().manual_seed(0)
    return tuple(F.normalize(torch.randn(6, 16, generator=generator), dim=1).requires_grad_() for _ in range(2))


@pytest.mark.parametrize("kind", ["clip", "siglip"])
def test_the_mean_over_images_is_open_clips_loss_with_its_gradients(kind):
    of_package = pytest.importorskip("open_clip").loss
    ours, (images, texts) = Contrastive(nn.Identity(), kind), pairs()
    inputs = (images, texts, *ours.parameters())  # scale, and the bias of siglip
    theirs = of_package.ClipLoss() if kind == "clip" else of_package.SigLipLoss()
    expected = theirs(images, texts, ours.logit_scale.exp(), *([] if kind == "clip" else [ours.logit_bias]))
    found = ours.compare(images, texts, EVERY)
    torch.testing.assert_close(found.mean(), expected)
    for mine, reference in zip(*(torch.autograd.grad(loss, inputs) for loss in (found.mean(), expected)), strict=True):
        torch.testing.assert_close(mine, reference, atol=1e-6, rtol=1e-4)


@pytest.mark.parametrize("kind", ["clip", "siglip"])
def test_an_image_without_a_caption_is_not_there(kind):
    loss, (images, texts) = Contrastive(nn.Identity(), kind), pairs()
    there = torch.tensor([True, True, False, True, False, True])
    found = loss.compare(images, texts, there)
    torch.testing.assert_close(found[there], loss.compare(images[there], texts[there], EVERY[:4]))
    assert found[~there].tolist() == [0, 0]
    found.sum().backward()
    for tower in (images, texts):
        assert tower.grad[~there].abs().max() == 0 < tower.grad[there].abs().min(dim=0).values.min()


@pytest.mark.parametrize("kind", ["clip", "siglip"])
def test_the_scale_is_capped_at_100(kind):
    loss, (images, texts) = Contrastive(nn.Identity(), kind), pairs()
    found = []
    for scale in (90, 100, 1000):
        nn.init.constant_(loss.logit_scale, math.log(scale))
        found.append(loss.compare(images, texts, EVERY))
    torch.testing.assert_close(found[2], found[1])
    assert (found[0] - found[1]).abs().max() > 0.01


def test_an_unknown_kind_is_refused_with_the_known_ones():
    with pytest.raises(ValueError, match="kind='triplet' is unknown: choose one of clip, siglip"):
        Contrastive(nn.Identity(), "triplet")


# --- with a text tower --------------------------------------------------------------------------------------------------------

CAPTIONS = ["a dog", "a cat and a dog on a lawn", None, "an apple"]
SYNSETS = [[1], [0, 1], [], [2]]  # of four: nobody shows the last


def sparse(captions, synsets=None) -> tuple[torch.Tensor, torch.Tensor]:
    """Indices and rows of a batch, tokens and then synsets of each image."""
    found = []
    for image, caption in enumerate(captions):
        found += [(token, image) for token in (tokenise([caption], 24)[0] if caption else ())]
        found += [(TOKENS + synset, image) for synset in (synsets[image] if synsets else ())]
    return tuple(torch.tensor(found).T.contiguous())


def small_tower() -> nn.Module:
    pytest.importorskip("open_clip")
    torch.manual_seed(0)
    return text_tower("vit_nano8", 24)


@pytest.mark.parametrize("name", ["bce", "superclass"])
def test_superclips_loss_is_clips_and_that_of_the_synsets(name):
    synsets = create_loss(name, Vocabulary([f"n{i:08d}" for i in range(4)], [9, 6, 3, 1], num_captions=20))
    both = ContrastiveWithSynsets(small_tower(), synsets)
    outputs = torch.randn(4, 128 + 4, generator=torch.Generator().manual_seed(0)).requires_grad_()
    images, logits = outputs.split([128, 4], dim=1)
    found = both(outputs, *sparse(CAPTIONS, SYNSETS))
    indices, rows = torch.tensor([1, 0, 1, 2]), torch.tensor([0, 1, 1, 3])
    expected = Contrastive(both.text)(images, *sparse(CAPTIONS)) + synsets(logits, indices, rows)
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(*(torch.autograd.grad(loss.sum(), outputs)[0] for loss in (found, expected)))


def test_a_caption_and_its_synsets_may_be_there_without_the_other():
    both = ContrastiveWithSynsets(small_tower(), create_loss("softmax"))
    outputs = torch.randn(4, 128 + 4, generator=torch.Generator().manual_seed(0))
    alone = create_loss("softmax")(outputs[:, 128:], torch.tensor([3]), torch.tensor([2]))
    found = both(outputs, *sparse(CAPTIONS, [[], [], [3], []]))
    torch.testing.assert_close(found[2], alone[2])
    torch.testing.assert_close(found[[0, 1, 3]], Contrastive(both.text)(outputs[:, :128], *sparse(CAPTIONS))[[0, 1, 3]])


# --- in the loop --------------------------------------------------------------------------------------------------------------

PLAIN = {"stem": "patches", "optimiser": "adamw", "context_length": 12, "max_steps": 4}
WAYS = (("clip", "ddp"), ("siglip", "fsdp"))


def train_once(root: str, name: str, kind: str, **options):
    """One process's part of a run over root/shards, whose images have a caption each."""
    vocabulary = Vocabulary.load(Path(root) / "vocabulary.parquet")
    corpus = open_corpus(Path(root) / "shards", vocabulary, "none", targets=TokenTargets(12))
    values = {**PLAIN, "objective": kind, "processes": world_size()}
    state = run(corpus, Path(root) / name, options={"checkpoint_every": None, **options}, **values)
    if is_main():
        torch.save(state, Path(root) / f"{name}.pt")


def train_each_way(root: str):
    for kind, parallel in WAYS:
        train_once(root, f"{kind} by two", kind, parallel=parallel)


@pytest.fixture
def root(tmp_path, shards, vocabulary):
    pytest.importorskip("open_clip")
    vocabulary.save(tmp_path / "vocabulary.parquet")
    return tmp_path


def assert_alike(root, one, other):
    lines = [read_log(root / name) for name in (one, other)]
    assert len(lines[0]) == len(lines[1]) == 4
    for a, b in zip(*lines, strict=True):
        assert b["loss"] == pytest.approx(a["loss"], rel=1e-5)
        assert b["grad_norm"] == pytest.approx(a["grad_norm"], rel=1e-5)
    whole, parts = (torch.load(root / f"{name}.pt") for name in (one, other))
    assert {"head.weight", "text.text_projection", "logit_scale"} < whole.keys() == parts.keys()
    for name in whole:
        if not name.endswith("in_proj_bias"):  # the keys' has no gradient but rounding, from which AdamW makes steps
            torch.testing.assert_close(parts[name], whole[name], rtol=1e-5, atol=1e-5)


def test_two_processes_give_the_losses_and_gradients_of_one(root):
    assert in_processes(2, train_each_way, str(root)) == [0, 0]
    for kind, _ in WAYS:
        train_once(str(root), f"{kind} alone", kind)
        assert_alike(root, f"{kind} alone", f"{kind} by two")


def test_a_compiled_step_agrees_with_an_eager_one_and_is_one_graph(root, monkeypatch):
    """Of one block a tower, without the slow generation of code, which is PyTorch's."""
    monkeypatch.setitem(MODELS, "vit_nano8", replace(MODELS["vit_nano8"], depth=1))
    monkeypatch.setitem(TEXT_TOWERS, "vit_nano8", TEXT_TOWERS["vit_nano8"]._replace(depth=1))
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="aot_eager"))
    torch._dynamo.reset()
    counters.clear()
    for name, compiled in (("eager", False), ("compiled", True)):
        train_once(str(root), name, "clip", compile=compiled)
    assert_alike(root, "eager", "compiled")
    assert (counters["stats"]["unique_graphs"], sum(counters["graph_break"].values())) == (1, 0)


def test_activation_checkpointing_changes_nothing(root):
    for name, checkpointing in (("kept", False), ("twice", True)):
        train_once(str(root), name, "clip", activation_checkpointing=checkpointing)
    kept, twice = (torch.load(root / f"{name}.pt") for name in ("kept", "twice"))
    assert all(torch.equal(kept[name], twice[name]) for name in kept)
