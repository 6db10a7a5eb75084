"""What is learnt: what a sample's caption becomes in the loader, the network that sees its image, and the loss between them.

One class an objective, each with `targets`, `network` and `loss`; the loop knows none of them. `catlip` is the paper's, the
others are what it is compared with.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from ..data.loader import CaptionTargets
from ..data.shards import BETWEEN, Sample
from ..labels import CaptionLabeler, Vocabulary
from ..models.clip import CONTEXT, START, TOKENS, add_projection, open_clip, text_tower, tokenise
from ..models.heads import prior_logits
from ..models.vit import create_vit
from .contrastive import Contrastive, ContrastiveWithSynsets
from .losses import Loss, create_loss
from .recipes import Recipe

# --- in the loader ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class SynsetTargets:
    """CatLIP's: the synsets of a caption that the vocabulary has (paper section 3, equation 1)."""

    labeler: CaptionLabeler
    vocabulary: Vocabulary

    def __call__(self, samples: Sequence[Sample]) -> tuple[np.ndarray, np.ndarray]:
        """Class indices of all, int32, end to end, and how many each has, int64."""
        captions = ["" if sample.skipped else sample.caption for sample in samples]
        return self.vocabulary.encode_column(self.labeler.label_column(captions))

    def look(self, indices: np.ndarray, counts: np.ndarray) -> dict[str, float]:
        """What the targets of some samples, as a call gives them, are like."""
        return {"labels an image (mean)": float(counts.mean()), "captions without a label": int((counts == 0).sum())}

    def __str__(self) -> str:
        return f"a synset of this vocabulary ({len(self.vocabulary):,} classes)"


@dataclass(frozen=True)
class TokenTargets:
    """CLIP's: the tokens of all captions of an image, end to end; the loss takes one of them a step.

    Captions are lines, or parted by " | ". An image without one is skipped: it would be paired with nothing.
    """

    context_length: int = CONTEXT

    def __post_init__(self):
        open_clip()  # here, where it can still be told in words

    def __call__(self, samples: Sequence[Sample]) -> tuple[np.ndarray, np.ndarray]:
        """Tokens of all, int32, end to end, and how many each has, int64."""
        found = []
        for sample in samples:
            said = "" if sample.skipped else (sample.caption or "").replace(BETWEEN, "\n")
            captions = [line for line in said.splitlines() if line.strip()]
            found.append([token for caption in tokenise(captions, self.context_length) for token in caption])
            if not captions:
                sample.skipped = sample.skipped or "no caption"
        return np.array([token for of_one in found for token in of_one], np.int32), np.array(list(map(len, found)), np.int64)

    def look(self, indices: np.ndarray, counts: np.ndarray) -> dict[str, float]:
        """What the targets of some samples, as a call gives them, are like."""
        begins = np.flatnonzero(indices == START)
        lengths = np.diff(begins, append=len(indices))
        filled = f"captions of {self.context_length} tokens (longer ones are cut)"
        captions = {"captions an image (mean)": len(begins) / max(1, len(counts)), "tokens a caption (mean)": lengths.mean()}
        return {**captions, filled: int((lengths >= self.context_length).sum())}

    def __str__(self) -> str:
        return "a caption"


@dataclass(frozen=True)
class TokensAndSynsets:
    """SuperCLIP's: tokens, and after an image's tokens its synsets, numbered on from TOKENS."""

    tokens: CaptionTargets
    synsets: CaptionTargets

    def __call__(self, samples: Sequence[Sample]) -> tuple[np.ndarray, np.ndarray]:
        """Both of all, int32, image after image, and how many each has, int64."""
        (tokens, of_tokens), (synsets, of_synsets) = self.tokens(samples), self.synsets(samples)
        image = np.arange(len(samples))
        order = np.argsort(np.concatenate([image.repeat(of_tokens), image.repeat(of_synsets)]), kind="stable")
        return np.concatenate([tokens, synsets + np.int32(TOKENS)])[order], of_tokens + of_synsets

    def look(self, indices: np.ndarray, counts: np.ndarray) -> dict[str, float]:
        """What the targets of some samples, as a call gives them, are like."""
        token, image = indices < TOKENS, np.arange(len(counts)).repeat(counts)
        of_tokens, of_synsets = (np.bincount(image[kind], minlength=len(counts)) for kind in (token, ~token))
        return self.tokens.look(indices[token], of_tokens) | self.synsets.look(indices[~token], of_synsets)

    def __str__(self) -> str:
        return f"a caption and {self.synsets}"


# --- all of an objective ------------------------------------------------------------------------------------------------------


class Catlip:
    """Classify which synsets a caption names (the paper's); recipe.loss says by which loss."""

    def __init__(self, recipe: Recipe, vocabulary: Vocabulary | None):
        if vocabulary is None and recipe.names_synsets:
            raise ValueError(f"objective={recipe.objective!r} learns synsets: give a vocabulary, as notebook 02 writes it")
        self.recipe, self.vocabulary = recipe, vocabulary if recipe.names_synsets else None

    def targets(self) -> CaptionTargets:
        """What makes the loader's targets of captions, read as those were that the vocabulary counts."""
        assert self.vocabulary is not None  # of all that name synsets
        return SynsetTargets(CaptionLabeler.from_card(self.vocabulary.card), self.vocabulary)

    def network(self) -> nn.Module:
        """The image tower, a synset head's bias set as the recipe says; the same weights for the same seed."""
        recipe, classes = self.recipe, len(self.vocabulary or ())
        with torch.random.fork_rng():
            torch.manual_seed(recipe.seed)
            network = create_vit(recipe.model, classes, recipe.image_size, stem=recipe.stem, pooling=recipe.pooling)
            if recipe.contrastive:
                add_projection(network, recipe.model)
        if self.vocabulary and recipe.head_bias == "prior":
            with torch.no_grad():
                network.head.bias.copy_(torch.from_numpy(prior_logits(self.vocabulary, recipe.loss)))
        return network

    def loss(self) -> Loss:
        """Between the network's outputs and the targets; a contrastive one has the text tower in it."""
        return create_loss(self.recipe.loss, self.vocabulary)


class Clip(Catlip):
    """Find each image's caption among those of the step, and the other way round (`clip`, Radford et al., ICML 2021), or say of
    each pair of a step whether it is one (`siglip`, Zhai et al., ICCV 2023)."""

    def targets(self) -> CaptionTargets:
        return TokenTargets(self.recipe.context_length)

    def loss(self) -> Contrastive:
        return Contrastive(self.text(), self.recipe.objective)

    def text(self) -> nn.Module:
        """The text tower; the same weights for the same seed."""
        with torch.random.fork_rng():
            torch.manual_seed(self.recipe.seed + 1)
            return text_tower(self.recipe.model, self.recipe.context_length)


class SuperClip(Clip):
    """CLIP, with CatLIP's head beside it (SuperCLIP, arXiv 2512.14480, with synsets in place of subwords)."""

    def targets(self) -> CaptionTargets:
        return TokensAndSynsets(super().targets(), Catlip.targets(self))

    def loss(self) -> ContrastiveWithSynsets:
        return ContrastiveWithSynsets(self.text(), Catlip.loss(self))


OF_RECIPE = {"catlip": Catlip, "clip": Clip, "siglip": Clip, "superclip": SuperClip}


def create_objective(recipe: Recipe, vocabulary: Vocabulary | None = None) -> Catlip:
    """The objective of a recipe. Raises ValueError where it needs a vocabulary, ImportError where open_clip is lacking."""
    return OF_RECIPE[recipe.objective](recipe, vocabulary)
