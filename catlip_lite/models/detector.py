"""A detector (table 9): a pre-trained ViT's feature map with a pyramid and Mask R-CNN's heads, trained, saved, used."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

import torch
from timm.layers import LayerNorm2d
from timm.models.vision_transformer import VisionTransformer
from torch import nn
from torch.nn import functional as F
from torchvision.models.detection.faster_rcnn import FastRCNNConvFCHead, FastRCNNPredictor
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.mask_rcnn import MaskRCNNHeads
from torchvision.models.detection.roi_heads import RoIHeads, paste_masks_in_image
from torchvision.models.detection.rpn import AnchorGenerator, RegionProposalNetwork, RPNHead
from torchvision.ops import Conv2dNormActivation, MultiScaleRoIAlign
from torchvision.ops.poolers import initLevelMapper

from .dense import DenseViT, OnViT, backbone_of, dense_config, dense_vit, read_folder, resized
from .image_model import ImageLike, ImageModel, to_pil
from .vit import refuse_unknown

# From which overlap with an object an anchor is one, and below which it is background, as everywhere; the reference has 0.7 for
# both, by a fault of its options.
RPN_IOU = (0.7, 0.3)
PROTOCOLS = ("squash", "keep")  # an image as a square whatever its aspect, the reference's; or its long side, padded

# ---------------------------------------------------------------- a pyramid of maps

normed = partial(Conv2dNormActivation, norm_layer=LayerNorm2d)  # convolution, norm over the channels of a place, ReLU


class Pyramid(nn.Module):
    """The reference's simple feature pyramid: one map [B, D, H, W] -> five of `channels`, by name "0" (finest) to "4".

    Their strides are a quarter, half, once, twice and four times the map's. As in the reference, and unlike in torchvision's
    pyramids, what goes down to a finer map has been through the coarser one's 3x3 convolution, and the fourth map has not.
    """

    def __init__(self, width: int, channels: int = 256):
        super().__init__()
        up = partial(nn.ConvTranspose2d, kernel_size=2, stride=2)
        half, quarter, plain = width // 2, width // 4, {"activation_layer": None, "bias": True}
        finest = nn.Sequential(up(width, half), LayerNorm2d(half), nn.GELU(), up(half, quarter))
        self.scales = nn.ModuleList([finest, up(width, half), nn.Identity(), nn.MaxPool2d(2)])
        self.lateral = nn.ModuleList(normed(w, channels, kernel_size=1, **plain) for w in (quarter, half, width, width))
        self.smooth = nn.ModuleList(normed(channels, channels, kernel_size=3, **plain) for _ in range(4))
        self.coarsest = normed(channels, channels, kernel_size=3, stride=2, **plain)

    def forward(self, features: torch.Tensor) -> dict[str, torch.Tensor]:
        maps = [lateral(scale(features)) for scale, lateral in zip(self.scales, self.lateral, strict=True)]
        coarser = self.smooth[3](maps[3])
        for i in (2, 1, 0):
            coarser = maps[i] = self.smooth[i](maps[i] + F.interpolate(coarser, maps[i].shape[-2:], mode="nearest"))
        return {str(i): found for i, found in enumerate([*maps, self.coarsest(maps[3])])}


class PyramidBackbone(OnViT):
    """A detector's network: float [B, 3, H, W] in 0..1 -> the five maps of a `Pyramid`, what `DetectionHeads` takes.

    Its FLOPs, and so a detector's MFU in the log, are without those of the heads, about a fifth of all at 1,024 pixels.
    """

    def __init__(self, backbone: DenseViT, channels: int = 256):
        super().__init__()
        self.backbone, self.pyramid = backbone, Pyramid(backbone.embed_dim, channels)

    @property
    def vit(self) -> VisionTransformer:
        """The backbone's."""
        return self.backbone.vit

    @property
    def strides(self) -> list[int]:
        """Pixels between the places of each map."""
        return [self.backbone.stride * 2**i // 4 for i in range(5)]

    def forward(self, images: torch.Tensor) -> dict[str, torch.Tensor]:
        return self.pyramid(self.backbone(images))

    def forward_flops(self, image_size: int) -> int:
        """FLOPs of one square image's forward pass, without those of the heads."""
        sides, pyramid = [image_size // stride for stride in self.strides], self.pyramid
        found = sides[2] ** 2 * (pyramid.scales[0][0].weight.numel() + pyramid.scales[1].weight.numel())
        found += sides[1] ** 2 * pyramid.scales[0][3].weight.numel()
        for side, lateral, smooth in zip(sides, pyramid.lateral, pyramid.smooth, strict=False):
            found += side**2 * (lateral[0].weight.numel() + smooth[0].weight.numel())
        coarsest = (sides[3] + 1) // 2
        return self.backbone.forward_flops(image_size) + 2 * (found + coarsest**2 * pyramid.coarsest[0].weight.numel())


# ---------------------------------------------------------------- Mask R-CNN's heads
# What they compute of boxes is in float32 whatever autocast says: 1,000 pixels have no place in the 8 bits of a bfloat16.


class Anchors(AnchorGenerator):
    """torchvision's, at the maps' true strides; it takes those from sizes, which are off where a map has an odd side."""

    def __init__(self, sizes: Sequence[float], strides: Sequence[int]):
        super().__init__(tuple((size,) for size in sizes), ((0.5, 1.0, 2.0),) * len(sizes))
        self.strides = [(stride, stride) for stride in strides]

    def forward(self, images: ImageList, maps: list[torch.Tensor]) -> list[torch.Tensor]:
        self.set_cell_anchors(torch.float32, maps[0].device)
        found = torch.cat(self.grid_anchors([part.shape[-2:] for part in maps], self.strides))
        return [found] * len(images.image_sizes)


class ProposalHead(RPNHead):
    """torchvision's with two convolutions, normed."""

    def __init__(self, channels: int, anchors: int):
        super().__init__(channels, anchors)
        self.conv = nn.Sequential(*(normed(channels, channels, kernel_size=3) for _ in range(2)))
        for conv in self.conv:
            nn.init.normal_(conv[0].weight, std=0.01)

    def forward(self, x: list[torch.Tensor]) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
        scores, boxes = ([part.float() for part in found] for found in super().forward(x))
        return scores, boxes


class BoxPredictor(FastRCNNPredictor):
    """torchvision's, in float32."""

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return tuple(found.float() for found in super().forward(x))


class MaskPredictor(nn.Sequential):
    """A mask for each class at twice the resolution, as torchvision's but normed, in float32."""

    def __init__(self, channels: int, classes: int):
        up = nn.ConvTranspose2d(channels, channels, 2, stride=2, bias=False)
        super().__init__(up, LayerNorm2d(channels), nn.ReLU(), nn.Conv2d(channels, classes, 1))
        for conv in (up, self[3]):
            nn.init.kaiming_normal_(conv.weight, mode="fan_out", nonlinearity="relu")
        nn.init.zeros_(self[3].bias)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x).float()


class DetectionHeads(nn.Module):
    """Mask R-CNN on the maps of a `PyramidBackbone`, of torchvision's parts with the reference's sizes and norms.

    In training mode it is the loss: (features, indices, rows, boxes, masks, weights) -> float32 scalar, torchvision's five as a
    sum; in evaluation mode, `detect` finds objects. classes: C, without the background. strides: of the five maps, pixels.
    image_size: of training, pixels; anchors are 32 to 512 pixels at 1024, proportionally smaller in smaller images, but no
    smaller than two strides of their map, as none would be between them. channels: of the maps and of all convolutions.
    proposals: boxes of an image that the box and mask heads learn from at a step, drawn from the best of four times as many, or
    of the reference's 2,000 if that is less.
    """

    def __init__(
        self, classes: int, strides: Sequence[int], image_size: int, *,
        channels: int = 256, proposals: int = 512,
    ):  # fmt: skip
        super().__init__()
        self.strides = list(strides)
        sizes = [max(32 * 2**i * image_size / 1024, 2 * stride) for i, stride in enumerate(strides)]
        kept = {"training": min(2000, 4 * proposals), "testing": 1000}
        head = ProposalHead(channels, anchors=3)
        self.rpn = RegionProposalNetwork(Anchors(sizes, strides), head, *RPN_IOU, 256, 0.5, kept, kept, nms_thresh=0.7)
        self.roi_heads = RoIHeads(
            self._pool(7),
            FastRCNNConvFCHead((channels, 7, 7), [channels] * 4, [4 * channels], LayerNorm2d),
            BoxPredictor(4 * channels, 1 + classes),
            fg_iou_thresh=0.5, bg_iou_thresh=0.5, batch_size_per_image=proposals, positive_fraction=0.25,
            bbox_reg_weights=None, score_thresh=0.05, nms_thresh=0.5, detections_per_img=100,
            mask_roi_pool=self._pool(14),
            mask_head=MaskRCNNHeads(channels, [channels] * 4, 1, LayerNorm2d),
            mask_predictor=MaskPredictor(channels, 1 + classes),
        )  # fmt: skip

    def _pool(self, size: int) -> MultiScaleRoIAlign:
        """Boxes as `size` x `size` places, each from the map that fits it; of padded images it would guess wrong strides."""
        found = MultiScaleRoIAlign([str(i) for i in range(len(self.strides))], size, sampling_ratio=2)
        found.scales = [1 / stride for stride in self.strides]
        found.map_levels = initLevelMapper(round(math.log2(self.strides[0])), round(math.log2(self.strides[-1])))
        return found

    def forward(
        self, features: Mapping[str, torch.Tensor], indices: torch.Tensor, rows: torch.Tensor, boxes: torch.Tensor,
        masks: torch.Tensor, weights: torch.Tensor,
    ) -> torch.Tensor:  # fmt: skip
        """The loss of B images with N objects in all, some perhaps without any: a scalar, that times the mean of the weights is
        the mean over the images that count.

        features: of `PyramidBackbone`. indices: classes int64 [N]; rows: the image of each, int64 [N]; boxes: float32 [N, 4],
        left, top, right, bottom in pixels; masks: uint8 [N, H, W], 0 or 1. weights: float [B], 0 for an image that could not be
        used, from which nothing is learnt; where none could be, the loss has no weight either.
        """
        used = (weights > 0).nonzero().flatten().tolist() or list(range(len(weights)))
        features, images = self._inputs({name: part[used] for name, part in features.items()}, None)
        targets = [
            {"boxes": boxes[rows == i].float(), "labels": 1 + indices[rows == i], "masks": masks[rows == i]} for i in used
        ]
        proposals, of_proposals = self.rpn(images, features, targets)
        _, of_objects = self.roi_heads(features, proposals, images.image_sizes, targets)
        return torch.stack([*of_proposals.values(), *of_objects.values()]).sum() * len(weights) / len(used)

    def detect(
        self, features: Mapping[str, torch.Tensor], image_sizes: Sequence[tuple[int, int]] | None = None
    ) -> list[dict[str, torch.Tensor]]:
        """The objects of each image, best first, at most 100: boxes float32 [n, 4], left, top, right, bottom in pixels of the
        network's image; class indices int64 [n]; scores float32 [n], above 0.05; masks float32 [n, 1, 28, 28], probabilities
        over the box, see torchvision's `paste_masks_in_image`.
        """
        features, images = self._inputs(features, image_sizes)
        proposals, _ = self.rpn(images, features)
        found, _ = self.roi_heads(features, proposals, images.image_sizes)
        return [objects | {"labels": objects["labels"] - 1} for objects in found]

    def _inputs(
        self, features: Mapping[str, torch.Tensor], image_sizes: Sequence[tuple[int, int]] | None
    ) -> tuple[dict[str, torch.Tensor], ImageList]:
        finest = features["0"]
        whole = tuple(side * self.strides[0] for side in finest.shape[-2:])
        sizes = [whole] * len(finest) if image_sizes is None else list(image_sizes)
        return {name: part.float() for name, part in features.items()}, ImageList(finest, sizes)


def create_detector(
    network: VisionTransformer, classes: int, image_size: int, *, channels: int = 256, proposals: int = 512,
    windows: int | None = None, drop_path: float = 0.0,
) -> tuple[PyramidBackbone, DetectionHeads]:  # fmt: skip
    """A detector's network, on a copy of a pre-trained ViT, and its heads: see there, `dense_vit` and `DenseViT`."""
    backbone = PyramidBackbone(dense_vit(network, image_size, windows=windows, drop_path=drop_path), channels)
    return backbone, DetectionHeads(classes, backbone.strides, image_size, channels=channels, proposals=proposals)


# ---------------------------------------------------------------- folders


def detector_config(
    backbone: Mapping, classes: Sequence[str], *, image_size: int, channels: int = 256, windows: int | None = None,
    protocol: str = "squash",
) -> dict:  # fmt: skip
    """What `DetectionModel` and `load_detector` need to know of a network; options: as `create_detector` was given them.

    protocol: how it has seen images in training, and sees them, see `DetectionModel`.
    """
    refuse_unknown("protocol", protocol, PROTOCOLS)
    options = {"channels": channels, "windows": windows, "protocol": protocol}
    return dense_config("detection", backbone, classes, image_size, **options)


def load_detector(
    folder: str | os.PathLike, device: str | torch.device | None = None, precision: str = "fp32"
) -> DetectionModel:
    """The detector that notebook 12 wrote.

    precision: "fp32", "bf16" or "auto" (bf16 where the device has it). Raises FileNotFoundError or ValueError with advice.
    """
    config, state = read_folder(Path(folder), "detection", "12_detection")
    network = PyramidBackbone(backbone_of(config), config["channels"])
    heads = DetectionHeads(len(config["classes"]), network.strides, config["image_size"], channels=config["channels"])
    for part in (network, heads):
        part.load_state_dict({name: state[name] for name in part.state_dict()})
    return DetectionModel(network, heads, config, device, precision)


# ---------------------------------------------------------------- a model that finds objects


class DetectionModel:
    """A detector with its classes; images, of any size, are given as to an `ImageModel`, one at a time.

    protocol, of its configuration: "squash", the reference's: the image as a square of the model's size S, aspect not kept;
    "keep": its long side S, padded with black to the square.
    """

    def __init__(
        self, network: PyramidBackbone, heads: DetectionHeads, config: dict, device: str | torch.device | None = None,
        precision: str = "fp32",
    ):  # fmt: skip
        self._model = ImageModel(network, config, device, precision)
        self.network, self.config, self.classes = self._model.network, config, list(config["classes"])
        self.device, self.image_size = self._model.device, self._model.image_size
        self.heads = heads.to(self.device).eval()

    @torch.inference_mode()
    def detect(self, image: ImageLike, least_score: float = 0.5) -> dict:
        """The objects of an image, best first, at most 100 that score 0.05 and `least_score`, in the image's own size.

        boxes: float32 [n, 4], left, top, right, bottom in pixels. labels: n names. class_indices: int64 [n], of `classes`.
        scores: float32 [n]. masks: bool [n, H, W].
        """
        image, size = to_pil(image), self.image_size
        width, height = (size, size)
        if self.config["protocol"] == "keep":
            width, height = (max(1, round(side * size / max(image.size))) for side in image.size)
        pixels = F.pad(resized(image, width, height), (0, size - width, 0, size - height))
        with torch.autocast(self.device.type, self._model.dtype, enabled=self._model.dtype != torch.float32):
            features = self.network(self._model.network_input(pixels[None]))
            found = {name: part.cpu() for name, part in self.heads.detect(features, [(height, width)])[0].items()}
        found = {name: part[found["scores"] >= least_score] for name, part in found.items()}
        boxes = found["boxes"] * torch.tensor([image.width / width, image.height / height] * 2)
        masks = paste_masks_in_image(found["masks"], boxes, (image.height, image.width))[:, 0] >= 0.5
        indices = found["labels"].numpy()
        return {
            "boxes": boxes.numpy(), "labels": [self.classes[i] for i in indices], "class_indices": indices,
            "scores": found["scores"].numpy(), "masks": masks.numpy(),
        }  # fmt: skip
