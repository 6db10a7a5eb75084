"""A segmenter (table 8): a pre-trained ViT's feature map with a head that tells each pixel's class, trained, saved, used."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from timm.models.vision_transformer import VisionTransformer
from torch import nn
from torch.nn import functional as F
from torchvision.models.segmentation.deeplabv3 import ASPP

from .dense import DenseViT, OnViT, backbone_of, dense_config, dense_vit, read_folder, resized
from .image_model import ImageLike, ImageModel, to_pil
from .vit import refuse_unknown

HEADS = ("deeplab", "linear")
PROTOCOLS = ("squash", "whole", "slide")  # how an image that is no square is segmented, see `SegmentationModel`

# ---------------------------------------------------------------- the network


class Segmenter(OnViT):
    """A feature map and a head: float [B, 3, H, W] in 0..1 -> logits float32 [B, C, H, W], a class for each pixel.

    head: "deeplab", the reference's (DeepLabv3's atrous convolutions, `channels` wide, then one of 1x1), or "linear",
    DINOv2's protocol: BatchNorm and a 1x1 convolution. Logits are upsampled bilinearly, corner to corner, as in the reference;
    size: to this (H, W) instead of the image's. Raises ValueError for an unknown head.
    """

    def __init__(self, backbone: DenseViT, classes: int, head: str = "deeplab", channels: int = 512):
        super().__init__()
        refuse_unknown("head", head, HEADS)
        self.backbone, width = backbone, backbone.embed_dim
        if head == "linear":
            self.head = nn.Sequential(nn.BatchNorm2d(width), nn.Conv2d(width, classes, 1))
            nn.init.normal_(self.head[1].weight, std=0.01)
        else:
            self.head = nn.Sequential(atrous_pyramid(width, channels), nn.Conv2d(channels, classes, 1))
            for module in self.head.modules():
                if isinstance(module, nn.Conv2d):
                    nn.init.kaiming_normal_(module.weight, mode="fan_out")
        nn.init.zeros_(self.head[1].bias)

    @property
    def vit(self) -> VisionTransformer:
        """The backbone's."""
        return self.backbone.vit

    def forward(self, images: torch.Tensor, size: Sequence[int] | None = None) -> torch.Tensor:
        logits = self.head(self.backbone(images)).float()
        return F.interpolate(logits, tuple(size or images.shape[-2:]), mode="bilinear", align_corners=True)

    def forward_flops(self, image_size: int) -> int:
        """FLOPs of one square image's forward pass; the upsampling is left out."""
        weights = {name: p.numel() for name, p in self.head.named_parameters() if p.ndim == 4}
        pooled = sum(count for name, count in weights.items() if ".convs.4." in name)  # sees one pixel, the map's mean
        tokens = (image_size // self.backbone.stride) ** 2
        return self.backbone.forward_flops(image_size) + 2 * (tokens * (sum(weights.values()) - pooled) + pooled)


def atrous_pyramid(width: int, channels: int) -> ASPP:
    """torchvision's, with the reference's rates, its GELU, and its dropout of whole channels."""
    found = ASPP(width, (12, 24, 36), channels)
    found.project[3] = nn.Dropout2d(0.1)
    for branch in (found.project, *found.convs):
        for i, module in enumerate(branch):
            if isinstance(module, nn.ReLU):
                branch[i] = nn.GELU()
    return found


def create_segmenter(
    network: VisionTransformer, classes: int, image_size: int, head: str = "deeplab", *,
    channels: int = 512, output_stride: int | None = None, windows: int | None = None, drop_path: float = 0.0,
) -> Segmenter:  # fmt: skip
    """A segmenter on a copy of a pre-trained ViT: see `Segmenter`, `dense_vit` and `DenseViT`."""
    options = {"output_stride": output_stride, "windows": windows, "drop_path": drop_path}
    return Segmenter(dense_vit(network, image_size, **options), classes, head, channels)


# ---------------------------------------------------------------- folders


def segmenter_config(
    backbone: Mapping, classes: Sequence[str], *, image_size: int, head: str = "deeplab", channels: int = 512,
    output_stride: int | None = None, windows: int | None = None,
) -> dict:  # fmt: skip
    """What `SegmentationModel` and `load_segmenter` need to know of a network; options: as `create_segmenter` has them."""
    options = {"head": head, "channels": channels, "output_stride": output_stride, "windows": windows}
    return dense_config("segmentation", backbone, classes, image_size, **options)


def load_segmenter(
    folder: str | os.PathLike, device: str | torch.device | None = None, precision: str = "fp32"
) -> SegmentationModel:
    """The segmenter that notebook 11 wrote.

    precision: "fp32", "bf16" or "auto" (bf16 where the device has it). Raises FileNotFoundError or ValueError with advice.
    """
    config, state = read_folder(Path(folder), "segmentation", "11_segmentation")
    network = Segmenter(backbone_of(config), len(config["classes"]), config["head"], config["channels"])
    network.load_state_dict(state)
    return SegmentationModel(network, config, device, precision)


# ---------------------------------------------------------------- a model that segments


class SegmentationModel:
    """A `Segmenter` with its classes; images, of any size, are given as to an `ImageModel`, one at a time.

    protocol: "squash", the reference's: the image as a square of the model's size S, aspect not kept; "whole": its short side
    S, padded with black to whole patches; "slide": its short side S, squares of S two thirds of S apart, logits averaged.
    """

    def __init__(self, network: Segmenter, config: dict, device: str | torch.device | None = None, precision: str = "fp32"):
        self._model = ImageModel(network, config, device, precision)
        self.network, self.config, self.classes = self._model.network, config, list(config["classes"])
        self.device, self.image_size = self._model.device, self._model.image_size

    def segment(self, image: ImageLike, protocol: str = "squash") -> np.ndarray:
        """The likeliest class of each pixel, an index of `classes`: int64 [H, W], in the image's own size."""
        return self._logits(image, protocol).argmax(dim=0).cpu().numpy()

    def logits(self, image: ImageLike, protocol: str = "squash") -> np.ndarray:
        """Logits of each class, float32 [C, H, W], in the image's own size."""
        return self._logits(image, protocol).cpu().numpy()

    @torch.inference_mode()
    def _logits(self, image: ImageLike, protocol: str) -> torch.Tensor:
        refuse_unknown("protocol", protocol, PROTOCOLS)
        image, size, cubic = to_pil(image), self.image_size, Image.Resampling.BICUBIC  # the reference's
        original = image.height, image.width
        if protocol == "squash":
            return self._of(resized(image, size, size, cubic), original)
        width, height = (round(side * size / min(image.size)) for side in image.size)
        pixels = resized(image, width, height, cubic)
        if protocol == "whole":
            patch = self.network.patch_embed.patch_size[0]
            logits = self._of(F.pad(pixels, (0, -width % patch, 0, -height % patch)))[:, :height, :width]
        else:
            logits = self._slide(pixels)
        return F.interpolate(logits[None], original, mode="bilinear", align_corners=True)[0]

    def _slide(self, pixels: torch.Tensor) -> torch.Tensor:
        size = self.image_size
        total = torch.zeros(len(self.classes), *pixels.shape[1:], device=self.device)
        seen = torch.zeros(pixels.shape[1:], device=self.device)
        for top in places(pixels.shape[1], size):
            for left in places(pixels.shape[2], size):
                here = slice(top, top + size), slice(left, left + size)
                total[:, *here] += self._of(pixels[:, *here])
                seen[here] += 1
        return total / seen

    def _of(self, pixels: torch.Tensor, size: tuple[int, int] | None = None) -> torch.Tensor:
        """Logits float32 [C, H, W] of an image as the network sees it, or of (H, W) size."""
        with torch.autocast(self.device.type, self._model.dtype, enabled=self._model.dtype != torch.float32):
            return self.network(self._model.network_input(pixels[None]), size)[0]


def places(side: int, window: int) -> list[int]:
    """Where windows begin that cover a side, two thirds of a window apart, the last one at its end."""
    step = max(1, 2 * window // 3)
    return [min(i * step, side - window) for i in range(1 + math.ceil((side - window) / step))]
