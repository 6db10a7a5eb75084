"""CLIP and SigLIP, the baseline (arXiv 2103.00020, 2303.15343): open_clip's text tower and tokeniser beside a ViT.

Trained by `training.contrastive`; a folder of such a run is loaded as a `ClipModel`, which embeds images as any model does, and
chooses among names by prompts.
"""

from __future__ import annotations

import importlib
import math
from collections.abc import Sequence
from contextlib import nullcontext
from functools import cache
from types import ModuleType
from typing import NamedTuple

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

from ..labels import LabelSet
from .heads import Head
from .image_model import ImageModel, Images, is_single
from .vit import refuse_unknown

CONTEXT = 77  # tokens of a caption, its first and last marks included; the rest is cut
START, END, TOKENS = 49406, 49407, 49408  # marks of a caption in CLIP's alphabet, and how many tokens that has
WARMEST = math.log(100)  # the logit scale's logarithm is no larger, as in CLIP


class TextShape(NamedTuple):
    """A text tower; joint: width of the space that images and captions share."""

    width: int
    heads: int
    depth: int
    joint: int


TEXT_TOWERS = {  # S to H are open_clip's configurations of these names; the small ones are in the same proportion to their ViT
    "vit_nano8": TextShape(128, 2, 3, 128),
    "vit_ti16": TextShape(192, 3, 12, 192),
    "vit_s16": TextShape(384, 6, 12, 384),
    "vit_b16": TextShape(512, 8, 12, 512),
    "vit_l16": TextShape(768, 12, 12, 768),
    "vit_h16": TextShape(1024, 16, 24, 1024),
}
# Those of open_clip's short list for ImageNet, and the bare name, as captions of drawings have it.
PROMPTS = (
    "{}", "itap of a {}.", "a bad photo of the {}.", "a origami {}.", "a photo of the large {}.", "a {} in a video game.",
    "art of the {}.", "a photo of the small {}.",
)  # fmt: skip


def open_clip() -> ModuleType:
    """The package, which only contrastive objectives need. Raises ImportError with advice."""
    try:
        return importlib.import_module("open_clip")
    except ImportError as error:
        raise ImportError("CLIP's text tower and tokeniser are open_clip's: pip install 'catlip-lite[clip]'") from error


# ---------------------------------------------------------------- captions


@cache
def _tokeniser():
    return open_clip().tokenizer.SimpleTokenizer()


def tokenise(captions: Sequence[str], context_length: int = CONTEXT) -> list[list[int]]:
    """Tokens of each caption from START to END, cut to context_length, as CLIP reads them (lower case, byte pairs)."""
    encoded = ([token for token in _tokeniser().encode(caption) if token < START] for caption in captions)  # marks are ours
    return [[START, *tokens[: context_length - 2], END] for tokens in encoded]


def text_tower(model: str, context_length: int = CONTEXT) -> nn.Module:
    """The text tower beside a ViT of this name, randomly initialised: int64 [B, context_length], zeros after END -> [B, joint].

    Raises ValueError for an unknown name, ImportError without open_clip.
    """
    refuse_unknown("model", model, TEXT_TOWERS)
    width, heads, depth, joint = TEXT_TOWERS[model]
    return open_clip().model.TextTransformer(context_length, TOKENS, width, heads, depth, output_dim=joint)


def text_flops(tower: nn.Module) -> int:
    """FLOPs of a caption's forward pass, counted as `forward_flops` does."""
    width, tokens, depth = tower.width, tower.context_length, len(tower.transformer.resblocks)
    return 2 * (depth * tokens * (12 * width**2 + 2 * tokens * width) + width * tower.output_dim)


def embed_tokens(tower: nn.Module, tokens: torch.Tensor) -> torch.Tensor:
    """Captions as float32 [B, joint] of length 1; tokens: int64 [B, context_length]."""
    # In bf16 on a CPU PyTorch's fused attention takes longer than matrix products, see `prefer_plain_attention`.
    plain = tokens.device.type == "cpu" and torch.is_autocast_enabled("cpu")
    with sdpa_kernel(SDPBackend.MATH) if plain else nullcontext():
        return F.normalize(tower(tokens).float(), dim=-1)


# ---------------------------------------------------------------- images


class JointHead(nn.Linear):
    """The synset head, and CLIP's projection beside it: float [B, D] -> [B, joint + V], the projected image first."""

    def __init__(self, width: int, joint: int, classes: int):
        super().__init__(width, classes)
        self.projection = nn.Parameter(torch.randn(joint, width) * width**-0.5)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        return torch.cat([F.linear(features, self.projection), super().forward(features)], dim=1)


def add_projection(network: nn.Module, model: str) -> nn.Module:
    """A ViT of `create_vit`, its head made CLIP's projection; one with classes keeps its head and gets a `JointHead`."""
    joint, classes, width = TEXT_TOWERS[model].joint, network.num_classes, network.embed_dim
    if classes:
        head = JointHead(width, joint, classes)
        head.weight, head.bias = network.head.weight, network.head.bias
    else:
        head = nn.Linear(width, joint, bias=False)
        nn.init.normal_(head.weight, std=width**-0.5)
    network.head, network.num_classes = head, joint + classes
    return network


class ClipModel(ImageModel):
    """An `ImageModel` that was trained beside a text tower.

    logit_scale: what cosines are multiplied by, before a softmax over captions.
    """

    def __init__(
        self, network: nn.Module, text: nn.Module, logit_scale: float, config: dict, device: str | torch.device | None = None,
        precision: str = "fp32",
    ):  # fmt: skip
        super().__init__(network, config, device, precision)
        self.text, self.logit_scale = text.to(self.device).eval(), logit_scale

    @torch.inference_mode()
    def embed_texts(self, texts: Sequence[str], batch_size: int = 256) -> np.ndarray:
        """Texts in the joint space, float32 [N, joint] of length 1."""
        context, found = self.text.context_length, []
        for first in range(0, len(texts), batch_size):
            rows = tokenise(texts[first : first + batch_size], context)
            tokens = torch.zeros((len(rows), context), dtype=torch.int64)
            for row, of_one in zip(tokens, rows, strict=True):
                row[: len(of_one)] = torch.tensor(of_one)
            with torch.autocast(self.device.type, self.dtype, enabled=self.dtype != torch.float32):
                found.append(embed_tokens(self.text, tokens.to(self.device)).cpu())
        return torch.cat(found).numpy()

    def zero_shot_head(self, names: Sequence[str] | LabelSet, prompts: Sequence[str] = PROMPTS) -> Head:
        """A row for each name, the mean of its prompts, over the features of `embed`.

        Its scores rank names as the cosines in the joint space do; they are those times each image's own length there.
        """
        if isinstance(names, str):
            raise ValueError(f"names={names!r} is one name: give a list of those to choose from")
        names = [name.replace("_", " ") for name in (names.names if isinstance(names, LabelSet) else names)]
        texts = self.embed_texts([prompt.format(name) for name in names for prompt in prompts])
        means = F.normalize(torch.from_numpy(texts).view(len(names), len(prompts), -1).mean(1), dim=1)
        return Head(means @ self.projection, torch.zeros(len(names)))

    def zero_shot(self, images: Images, names: Sequence[str] | LabelSet, *, prompts: Sequence[str] = PROMPTS) -> np.ndarray:
        """Logits of each name, float32 [B, len(names)] ([len(names)] for one image): cosines of image and prompts, scaled.

        prompts: with {} where the name goes. Raises ValueError for one name instead of a list.
        """
        head, features = self.zero_shot_head(names, prompts), np.atleast_2d(self.embed(images))
        lengths = (torch.from_numpy(features) @ self.projection.T).norm(dim=1, keepdim=True).clamp_min(1e-12)
        scores = self.logit_scale * head.scores(features) / lengths.numpy()
        return scores[0] if is_single(images) else scores

    @property
    def projection(self) -> torch.Tensor:
        """From features to the joint space: float32 [joint, D], on the CPU."""
        head = self.network.head
        return (head.projection if isinstance(head, JointHead) else head.weight).detach().float().cpu()


# ---------------------------------------------------------------- on the device, from the sparse targets of a batch


def one_caption_each(indices: torch.Tensor, rows: torch.Tensor, images: int, context_length: int) -> tuple:
    """Of each image's captions one, drawn by the device's generator: tokens int64 [B, context_length], and if it has any.

    indices, rows: int64 [N], tokens of all captions from START to END, image after image, as `tokenise` gives them; what lies
    beyond the alphabet is no token. No shape depends on how many there are.
    """
    place = torch.arange(len(indices), device=indices.device)
    begins = indices == START
    begun = begins.cumsum(0)  # captions that have begun up to each token, over the whole batch
    first = torch.searchsorted(rows, torch.arange(images, device=rows.device)).clamp(max=max(0, len(rows) - 1))
    number = begun - (begun - begins.long())[first][rows] - 1  # of each token's caption within its image
    captions = torch.zeros(images, device=rows.device).index_add(0, rows, begins.float())
    chosen = (torch.rand(images, device=rows.device) * captions).long()
    position = place - torch.where(begins, place, 0).cummax(0).values
    used = (number == chosen[rows]) & (indices < TOKENS)
    tokens = torch.zeros((images, context_length + 1), dtype=torch.int64, device=rows.device)  # the last column: not used
    tokens[rows, torch.where(used, position, context_length)] = indices
    return tokens[:, :context_length], captions > 0
