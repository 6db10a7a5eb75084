"""A pre-trained ViT as a feature map, what tables 8 and 9 put their heads on, and the folders of such models.

`segmenter` and `detector` build their networks on it, and load them as something that segments images and finds objects.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from safetensors.torch import load_file
from timm.layers import Attention, resample_abs_pos_embed
from timm.models import checkpoint_seq
from timm.models.vision_transformer import VisionTransformer
from timm.models.vision_transformer_sam import window_partition, window_unpartition
from torch import nn

from .classifier import OF_BACKBONE
from .flops import MLP_RATIO
from .precision import arranged
from .vit import MODELS, ConvStem, VitShape, build_vit, refuse_size, shape_of

GLOBAL_BLOCKS = 4  # blocks that see the whole image where the others see windows, as in ViTDet
NOT_DENSE = ("cls_token", "head.")  # tensors of a pre-trained ViT that its feature map has no use for

# ---------------------------------------------------------------- the networks


class OnViT(nn.Module):
    """A network on `vit`, with what the training loop asks of any network."""

    vit: VisionTransformer

    @property
    def blocks(self) -> nn.Sequential:
        """The transformer blocks."""
        return self.vit.blocks

    @property
    def patch_embed(self) -> nn.Module:
        """Pixels to tokens."""
        return self.vit.patch_embed

    @property
    def embed_dim(self) -> int:
        """Width of a token."""
        return self.vit.embed_dim

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Whether the backward pass computes the blocks' activations again instead of keeping them."""
        self.vit.set_grad_checkpointing(enable)


class MapAttention(Attention):
    """timm's attention over a map of tokens, [B, H, W, D], within windows of so many tokens a side; 0: over all of it."""

    windows = 0

    def forward(self, x: torch.Tensor, **_: object) -> torch.Tensor:  # a block also hands on masks, which nothing here has
        if not self.windows:
            return super().forward(x.flatten(1, 2)).view(x.shape)
        parts, padded = window_partition(x, self.windows)
        parts = super().forward(parts.flatten(1, 2)).view(parts.shape)
        return window_unpartition(parts, self.windows, x.shape[1:3], padded)


class DenseViT(OnViT):
    """A ViT of `build_vit` as a feature map, without CLS token and head: float [B, 3, H, W] -> [B, D, H/stride, W/stride].

    H and W are multiples of the patch; positions are those of image_size, interpolated in two dimensions for others.
    output_stride: pixels between tokens, the patch (None) or half of it: the first convolution takes steps half as long, as in
    the reference's segmenter. windows: tokens a side of the windows that blocks attend within, but for a third of them, at most
    four, evenly spaced, the last among them (ViTDet, arXiv 2203.16527; a border that is no whole window is padded with zeros);
    None: every block sees everything, as in the reference.
    Raises ValueError for another stride, or a size that the patch does not divide.
    """

    num_prefix_tokens = 0
    frozen = False

    def __init__(
        self, shape: VitShape, image_size: int, *, output_stride: int | None = None, windows: int | None = None,
        drop_path: float = 0.0,
    ):  # fmt: skip
        super().__init__()
        refuse_size(image_size, shape.patch)
        self.stride = output_stride or shape.patch
        if self.stride not in (shape.patch, shape.patch / 2):
            told = f"{shape.patch}, the patch, or half of it"
            raise ValueError(f"output_stride={output_stride} is no stride of this model's tokens: choose {told}")
        halved = self.stride < shape.patch
        self.vit = build_vit(replace(shape, pooling="avg"), 0, image_size * (1 + halved), drop_path=drop_path)
        if halved:
            halve_stride(self.patch_embed)
        depth = shape.depth
        whole = max(1, min(GLOBAL_BLOCKS, depth // 3))
        everywhere = {depth * (i + 1) // whole - 1 for i in range(whole)}
        for i, block in enumerate(self.blocks):
            block.attn = MapAttention(shape.width, shape.heads, qkv_bias=True)
            block.attn.windows = 0 if windows is None or i in everywhere else windows

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        vit = self.vit
        tokens = vit.patch_embed(images)
        tokens = vit._pos_embed(tokens).view(tokens.shape).contiguous()  # [B, H, W, D], so that windows can be cut from it
        tokens = checkpoint_seq(vit.blocks, tokens) if vit.grad_checkpointing else vit.blocks(tokens)
        return arranged(vit.norm(tokens).permute(0, 3, 1, 2))

    def freeze(self) -> None:
        """Have it stay as it is in training, the statistics of its batch norms included."""
        self.frozen = True
        self.requires_grad_(False).eval()

    def train(self, mode: bool = True) -> DenseViT:
        return super().train(mode and not self.frozen)

    def forward_flops(self, image_size: int) -> int:
        """FLOPs of one square image's forward pass, counted as `flops.forward_flops` does."""
        side, width, found, pixels = image_size // self.stride, self.embed_dim, 0, image_size
        for conv in self.patch_embed.modules():
            if isinstance(conv, nn.Conv2d):
                pixels = (pixels + 2 * conv.padding[0] - conv.kernel_size[0]) // conv.stride[0] + 1
                found += pixels**2 * conv.weight.numel()
        for block in self.blocks:
            window = block.attn.windows or side
            padded = math.ceil(side / window) * window
            found += padded**2 * (4 * width**2 + 2 * window**2 * width) + side**2 * 2 * MLP_RATIO * width**2
        return 2 * found


def halve_stride(embed: nn.Module) -> None:
    """Have a patch embedding cut its patches half a patch apart, twice as many a side."""
    first = embed.conv1 if isinstance(embed, ConvStem) else embed.proj
    first.stride = tuple(step // 2 for step in first.stride)
    if not isinstance(embed, ConvStem):  # a stem's own padding fits either way
        first.padding = tuple(side // 4 for side in first.kernel_size)


def dense_vit(network: VisionTransformer, image_size: int, **options: Any) -> DenseViT:
    """A pre-trained ViT's weights as a feature map of its own, on the CPU; positions are resampled in 2-D for its tokens.

    network: of `create_vit`, or a VisionTransformer of timm with the same parts; it is left as it is. options: `DenseViT`'s.
    Raises ValueError for a network with other parts.
    """
    found = DenseViT(shape_of(network), image_size, **options)
    state = {name: value.detach().cpu() for name, value in network.state_dict().items() if not name.startswith(NOT_DENSE)}
    odd = sorted(set(state) ^ set(found.vit.state_dict()))
    if odd:
        raise ValueError(f"this ViT has other parts than those of create_vit ({', '.join(odd[:4])}): pass one of these")
    before = network.patch_embed.grid_size
    positions = state["pos_embed"][:, -before[0] * before[1] :]  # some of timm's have one for the CLS token, too
    grid = found.patch_embed.grid_size
    state["pos_embed"] = resample_abs_pos_embed(positions, list(grid), list(before), num_prefix_tokens=0)
    found.vit.load_state_dict(state)
    return found


# ---------------------------------------------------------------- folders


def dense_config(task: str, backbone: Mapping, classes: Sequence[str], image_size: int, **architecture: object) -> dict:
    """What a folder's config.json tells of a network: the pre-trained model's part, classes, size, and how it is built."""
    kept = {name: backbone.get(name) for name in OF_BACKBONE}
    named = {"num_classes": len(classes), "classes": list(classes)}
    return {"task": task, **kept, "image_size": image_size, **architecture, **named}


def read_folder(folder: Path, task: str, notebook: str) -> tuple[dict, dict[str, torch.Tensor]]:
    """Configuration and weights of a model of this task, "segmentation" or "detection". Raises with advice."""
    if not (folder / "model.safetensors").is_file():
        told = f"{folder} holds no finished model of {task} (no model.safetensors)"
        raise FileNotFoundError(f"{told}: run notebook {notebook} first")
    config = json.loads((folder / "config.json").read_text())
    if config.get("task") != task:
        told = f"{folder} holds no model of {task}, its config.json has task={config.get('task')!r}"
        raise ValueError(f"{told}: catlip_lite.load, load_classifier, load_segmenter or load_detector may read it")
    return config, load_file(folder / "model.safetensors")


def backbone_of(config: Mapping) -> DenseViT:
    """The feature map that a configuration describes, randomly initialised."""
    shape = MODELS[config["model"]]
    options: dict[str, Any] = {name: config.get(name) for name in ("output_stride", "windows")}
    return DenseViT(replace(shape, stem=config.get("stem") or shape.stem), config["image_size"], **options)


def resized(image: Image.Image, width: int, height: int, how: Image.Resampling = Image.Resampling.BILINEAR) -> torch.Tensor:
    """An RGB image as uint8 [3, height, width]."""
    return torch.from_numpy(np.array(image.resize((width, height), how))).permute(2, 0, 1)
