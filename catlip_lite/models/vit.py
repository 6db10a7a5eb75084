"""Vision transformers by name, on timm's VisionTransformer: the paper's B, L and H, smaller ones, and the demo's.

`create_vit("vit_b16", num_classes=24320)` gives an nn.Module: float images [B, 3, H, W] in 0..1 -> logits [B, num_classes].
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import partial
from typing import ClassVar

import torch
from timm.layers import PatchEmbed
from timm.models.vision_transformer import VisionTransformer
from torch import nn


@dataclass(frozen=True)
class VitShape:
    """Width, depth, heads of a ViT and how it cuts an image into tokens."""

    width: int
    depth: int
    heads: int
    patch: int = 16
    stem: str = "reference"  # see `ConvStem`; "patches": one convolution, timm's plain patch embedding
    pooling: str = "token"  # "token": a CLS token without position; "avg": mean of the patch tokens


MODELS = {
    "vit_nano8": VitShape(192, 4, 3, patch=8, stem="overlapping", pooling="avg"),  # the demo's: learns on two CPU cores
    "vit_ti16": VitShape(192, 12, 3),
    "vit_s16": VitShape(384, 12, 6),
    "vit_b16": VitShape(768, 12, 12),
    "vit_l16": VitShape(1024, 24, 16),
    "vit_h16": VitShape(1280, 32, 20),
}


class ConvStem(nn.Module):
    """Three convolutions from pixels to tokens: [B, 3, H, W] -> [B, H/patch, W/patch, width].

    kind "reference": the reference code's 4x4, 2x2, 2x2 without overlap, stride 4 * 2 * 2 (reference padding of 1 included).
    kind "overlapping": 3x3 with stride 2 each, for patch 8.
    """

    LAYERS: ClassVar = {  # kind -> (kernel, stride, padding) of each convolution
        "reference": ((4, 4, 1), (2, 2, 0), (2, 2, 0)),
        "overlapping": ((3, 2, 1), (3, 2, 1), (3, 2, 1)),
    }

    def __init__(self, img_size: int, patch_size: int, in_chans: int, embed_dim: int, kind: str, **_: object):  # timm's call
        super().__init__()
        layers, channels = self.LAYERS[kind], self.channels(kind, embed_dim, in_chans)
        stride = math.prod(step for _, step, _ in layers)
        if stride != patch_size:
            raise ValueError(f"stem={kind!r} cuts patches of {stride} pixels, this model's have {patch_size}: choose another")
        self.kind, self.patch_size = kind, (patch_size, patch_size)
        self.grid_size, self.num_patches = (img_size // patch_size,) * 2, (img_size // patch_size) ** 2
        for i, (kernel, step, padding) in enumerate(layers, start=1):
            last = i == len(layers)
            setattr(self, f"conv{i}", nn.Conv2d(channels[i - 1], channels[i], kernel, step, padding, bias=last))
            if not last:
                setattr(self, f"bn{i}", nn.BatchNorm2d(channels[i]))
        for conv in (self.conv1, self.conv2, self.conv3):
            nn.init.kaiming_normal_(conv.weight, mode="fan_out")

    @staticmethod
    def channels(kind: str, width: int, in_chans: int = 3) -> tuple[int, int, int, int]:
        """Channels before, between and after the three convolutions."""
        narrow = max(32, width // 4)
        # As in the reference for its own stem; the overlapping one widens step by step.
        return in_chans, narrow, narrow if kind == "reference" else 2 * narrow, width

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        x = nn.functional.gelu(self.bn1(self.conv1(images)))
        x = nn.functional.gelu(self.bn2(self.conv2(x)))
        return self.conv3(x).permute(0, 2, 3, 1)


STEMS = (*ConvStem.LAYERS, "patches")
POOLINGS = ("token", "avg")


def refuse_unknown(name: str, value: str, known: Iterable[str]) -> None:
    """Raises ValueError, with what is known, for another value of an option."""
    if value not in known:
        raise ValueError(f"{name}={value!r} is unknown: choose one of {', '.join(known)}")


def refuse_size(image_size: int, patch: int) -> None:
    """Raises ValueError, with the nearest that fit, for an image size that is no multiple of the patch."""
    if image_size < patch or image_size % patch:
        below = image_size // patch * patch
        near = f"{below} or {below + patch}" if below else patch
        raise ValueError(f"image_size={image_size} is no multiple of the patch, {patch}: choose {near}")


def create_vit(
    name: str, num_classes: int, image_size: int = 224, *,
    stem: str | None = None, pooling: str | None = None, drop_path: float = 0.0,
) -> VisionTransformer:  # fmt: skip
    """A ViT by name (a key of `MODELS`), randomly initialised: linear layers and stem as in the reference (truncated normal of
    std 0.02; Kaiming's), positions and CLS token as in timm (std 0.02 and 1e-6; the reference's are width^-0.5 and 0.02).

    forward: float [B, 3, H, W] in 0..1, no mean or std taken off -> logits float [B, num_classes]. Positions are stored for
    image_size and interpolated in two dimensions for other H, W (multiples of the patch). `forward_features` and
    `forward_head(x, pre_logits=True)` are timm's.

    stem: how pixels become tokens, "reference" (patches of 16), "overlapping" (of 8) or "patches" (any); None, the model's
    own. pooling: what the head sees, "token" (a CLS token) or "avg" (the mean of the patch tokens); None, the model's own.
    Raises ValueError for an unknown name, a stem for other patches, or a size that the patch does not divide.
    """
    refuse_unknown("model", name, MODELS)
    shape = replace(MODELS[name], stem=stem or MODELS[name].stem, pooling=pooling or MODELS[name].pooling)
    return build_vit(shape, num_classes, image_size, drop_path=drop_path)


def build_vit(shape: VitShape, num_classes: int, image_size: int = 224, *, drop_path: float = 0.0) -> VisionTransformer:
    """`create_vit` for a shape that has no name."""
    refuse_size(image_size, shape.patch)
    refuse_unknown("stem", shape.stem, STEMS)
    refuse_unknown("pooling", shape.pooling, POOLINGS)
    model = VisionTransformer(
        **timm_arguments(shape, image_size),
        num_classes=num_classes,
        norm_layer=partial(nn.LayerNorm, eps=1e-6),
        embed_layer=PatchEmbed if shape.stem == "patches" else partial(ConvStem, kind=shape.stem),
        drop_path_rate=drop_path,
    )
    if num_classes:
        nn.init.trunc_normal_(model.head.weight, std=0.02)
        nn.init.zeros_(model.head.bias)
    return model


def timm_arguments(shape: VitShape, image_size: int) -> dict:
    """What timm's VisionTransformer is told of a shape: plain values."""
    return {
        "img_size": image_size, "patch_size": shape.patch, "embed_dim": shape.width, "depth": shape.depth,
        "num_heads": shape.heads, "class_token": shape.pooling == "token", "no_embed_class": True,
        "global_pool": shape.pooling, "fc_norm": False, "dynamic_img_size": True,
    }  # fmt: skip


def shape_of(network: VisionTransformer) -> VitShape:
    """The way back from `build_vit`. Raises ValueError for a network that it does not make."""
    embed, blocks = getattr(network, "patch_embed", None), getattr(network, "blocks", [])
    if not isinstance(embed, (ConvStem, PatchEmbed)) or not len(blocks):
        raise ValueError(f"{type(network).__name__} is no ViT of create_vit: pass the bare network")
    stem = embed.kind if isinstance(embed, ConvStem) else "patches"
    heads = blocks[0].attn.num_heads
    return VitShape(network.embed_dim, len(blocks), heads, embed.patch_size[0], stem, network.global_pool)
