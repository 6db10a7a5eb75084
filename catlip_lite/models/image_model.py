"""What any model of one folder does with images, whatever it was trained by: the evaluation view, the embedding.

`pretrained.PretrainedModel` adds the synset head to it, `clip.ClipModel` the text tower.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch
from PIL import Image
from torch import nn
from torch.nn import functional as F

from ..data.images import Evaluation, decode, to_rgb
from .precision import choose_device, choose_precision, prefer_plain_attention

ImageLike: TypeAlias = str | os.PathLike | bytes | Image.Image | np.ndarray | torch.Tensor
Images: TypeAlias = ImageLike | Sequence[ImageLike]


class ImageModel:
    """A trained ViT with its evaluation transform.

    Images may be paths, encoded bytes, PIL images, arrays [H, W, 3] or tensors [3, H, W]; one, a list, or a batch [B, ...].
    Arrays and tensors are uint8, or floats in 0..1, which are rounded to 8 bits. ValueError tells what else was given.
    """

    def __init__(self, network: nn.Module, config: dict, device: str | torch.device | None = None, precision: str = "fp32"):
        self.device = choose_device(device)
        self.dtype = choose_precision(self.device, precision)
        if self.device.type == "cpu" and self.dtype == torch.bfloat16:
            prefer_plain_attention(network)
        self.network, self.config = network.to(self.device).eval(), config

    @property
    def image_size(self) -> int:
        """Side of the square that the network sees."""
        return self.config["image_size"]

    @property
    def precision(self) -> str:
        """What it computes in, as it is asked for: bf16 or fp32."""
        return "bf16" if self.dtype == torch.bfloat16 else "fp32"

    @property
    def evaluation(self) -> Evaluation:
        """Which part of an image the network sees."""
        return Evaluation(self.image_size)

    def network_input(self, views: torch.Tensor) -> torch.Tensor:
        """Of uint8 views [B, 3, H, W] what the network takes: float32 in 0..1, as in the reference."""
        return views.to(self.device).float() / 255

    @torch.inference_mode()
    def embed(self, images: Images, batch_size: int = 256) -> np.ndarray:
        """Embeddings after the last norm, pooled: float32 [B, D]; [D] for a single image."""
        features = []
        for part in self.views(images).split(batch_size):
            with torch.autocast(self.device.type, self.dtype, enabled=self.dtype != torch.float32):
                tokens = self.network.forward_features(self.network_input(part))
                features.append(self.network.forward_head(tokens, pre_logits=True).float().cpu())
        found = torch.cat(features).numpy()
        return found[0] if is_single(images) else found

    @torch.inference_mode()
    def head_logits(self, features: np.ndarray) -> np.ndarray:
        """What the network's head says of embeddings float32 [N, D]: float32 [N, C], a column a class."""
        head = self.network.head
        return F.linear(torch.from_numpy(features).to(self.device), head.weight.float(), head.bias.float()).cpu().numpy()

    def views(self, images: Images) -> torch.Tensor:
        """The evaluation views the network sees: uint8 [B, 3, S, S]; a tensor of that shape is taken as it is, uncropped."""
        single = is_single(images)
        if isinstance(images, (np.ndarray, torch.Tensor)):
            uncropped = isinstance(images, torch.Tensor) and not single and images.shape[-2:] == (self.image_size,) * 2
            images = eight_bits(images)
            if uncropped and len(images):
                return images
        several: Any = [images] if single else images
        views = [self.evaluation.view(to_pil(image)) for image in several]
        if not views:
            raise ValueError("no images given")
        return torch.stack(views)


def is_single(images: Any) -> bool:
    """Whether it is one image, not a list or a batch of them."""
    pixels = isinstance(images, (np.ndarray, torch.Tensor))
    return images.ndim == 3 if pixels else isinstance(images, (str, os.PathLike, bytes, Image.Image))


def to_pil(image: ImageLike) -> Image.Image:
    """One image as RGB. Raises ValueError or FileNotFoundError, which say what was given instead."""
    if isinstance(image, Image.Image):
        return to_rgb(image)
    if isinstance(image, bytes):
        return decode(image)
    if isinstance(image, (str, os.PathLike)):
        if not Path(image).is_file():
            raise FileNotFoundError(f"no image at {image}")
        return decode(Path(image).read_bytes())
    if not isinstance(image, (np.ndarray, torch.Tensor)):
        raise ValueError(f"{type(image).__name__} is no type of image: give a path, bytes, a PIL image, an array or a tensor")
    return Image.fromarray(eight_bits(image, axes=(3,)).permute(1, 2, 0).cpu().numpy())


def eight_bits(images: np.ndarray | torch.Tensor, axes: Sequence[int] = (3, 4)) -> torch.Tensor:
    """Pixels as uint8 [..., 3, H, W], of an array [..., 3] or a tensor [..., 3, H, W] of uint8 or floats in 0..1.

    Raises ValueError, which says what it is, for any other.
    """
    is_tensor, why = isinstance(images, torch.Tensor), ""
    floats = images.is_floating_point() if isinstance(images, torch.Tensor) else images.dtype.kind == "f"
    if images.ndim not in axes:
        why = "one image has three axes, a batch has four"
    elif images.shape[-3 if is_tensor else -1] != 3:
        why = "three colours are an array's last axis or a tensor's third from the end; convert grey or transparent ones by PIL"
    elif not floats and images.dtype not in (np.uint8, torch.uint8):
        why = "pixels are uint8, or floats in 0..1"
    elif floats and not bool(((images >= 0) & (images <= 1)).all()):  # so that NaN is refused, too
        why = f"its values go from {float(images.min()):.4g} to {float(images.max()):.4g}, floats are 0..1, no mean taken off"
    if why:
        told = f"{'tensor' if is_tensor else 'array'} is {str(images.dtype).removeprefix('torch.')} {list(images.shape)}"
        raise ValueError(f"an image is an array [H, W, 3] or a tensor [3, H, W], this {told}: {why}")
    tensor = images if isinstance(images, torch.Tensor) else torch.from_numpy(np.ascontiguousarray(np.moveaxis(images, -1, -3)))
    pixels = tensor.detach()
    return pixels.float().mul(255).round().to(torch.uint8) if floats else pixels
