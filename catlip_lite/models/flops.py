"""What an image costs: FLOPs of a ViT's forward pass and training step, the peak of a device, and the share used (MFU).

Reads shapes alone, so that plans need no network; `catlip_lite.training.plan` and the speed benchmark build on it.
"""

from __future__ import annotations

import re
from typing import Any, TypeAlias

import torch
from timm.models.vision_transformer import VisionTransformer

from .vit import MODELS, ConvStem, VitShape, refuse_size, refuse_unknown, shape_of

Model: TypeAlias = str | VitShape | VisionTransformer  # a name of `MODELS`, a shape, or a network
MLP_RATIO = 4  # hidden width of a block's MLP, in widths


def forward_flops(model: Model, image_size: int = 224, num_classes: int | None = None, keep_tokens: float = 1.0) -> int:
    """FLOPs of one square image's forward pass, two for each multiply-add; agrees exactly with torch.utils.flop_counter.

    Counted: the stem's convolutions, the blocks' projections and MLPs, attention's two products (QK^T and AV), the head; what
    is left out (biases, norms, activations, softmax) is well below one per cent. num_classes: rows of the head, 0 for none; a
    network knows its own. keep_tokens: share of the patch tokens that enter the blocks, rounded down, at least one; the stem
    always computes all. ViT-B/16 at 224 with 24,320 classes: 35.45 GFLOP with the reference's stem, 35.16 with plain patches.
    A network of a dense task counts for itself.
    Raises ValueError for an unknown name, a size that the patch does not divide, or a share outside (0, 1].
    """
    if hasattr(model, "forward_flops"):
        return model.forward_flops(image_size)
    if isinstance(model, str):
        refuse_unknown("model", model, MODELS)
    shape = MODELS[model] if isinstance(model, str) else model if isinstance(model, VitShape) else shape_of(model)
    num_classes = getattr(model, "num_classes", None) if num_classes is None else num_classes
    if num_classes is None:
        raise ValueError("num_classes is missing: a shape has no head, pass the vocabulary's size (0: no head)")
    refuse_size(image_size, shape.patch)
    if not 0 < keep_tokens <= 1:
        raise ValueError(f"keep_tokens={keep_tokens} is a share of the patch tokens: choose it above 0 and up to 1")
    patches = (image_size // shape.patch) ** 2
    tokens = max(1, int(patches * keep_tokens)) + (shape.pooling == "token")
    projections = (4 + 2 * MLP_RATIO) * shape.width**2  # multiply-adds a token: query, key, value, output, and the MLP
    attention = 2 * tokens * shape.width
    blocks = shape.depth * tokens * (projections + attention)
    return 2 * (_stem_multiply_adds(shape, image_size) + blocks + shape.width * num_classes)


def training_flops(model: Model, image_size: int = 224, num_classes: int | None = None, keep_tokens: float = 1.0) -> int:
    """FLOPs of an image in training: three forward passes, as the backward pass has two products for each of the forward's.

    The usual convention: what activation checkpointing computes again is not counted, so that the share of the peak is one of
    useful work (MFU). ViT-B/16 at 224 with 24,320 classes: 106.4 GFLOP; the 105.5 often used are those of plain patches.
    """
    backbone: Any = getattr(model, "backbone", None)
    frozen = getattr(backbone, "frozen", False)  # nothing goes back through it
    spared = 2 * backbone.forward_flops(image_size) if frozen else 0
    return 3 * forward_flops(model, image_size, num_classes, keep_tokens) - spared


def _stem_multiply_adds(shape: VitShape, image_size: int) -> int:
    """Of all convolutions from pixels to tokens: outputs times the weights that each one sees."""
    if shape.stem == "patches":
        return image_size**2 * 3 * shape.width
    side, found, channels = image_size, 0, ConvStem.channels(shape.stem, shape.width)
    for i, (kernel, stride, padding) in enumerate(ConvStem.LAYERS[shape.stem]):
        side = (side + 2 * padding - kernel) // stride + 1
        found += side**2 * kernel**2 * channels[i] * channels[i + 1]
    return found


# ---------------------------------------------------------------- devices

# Name as the driver gives it -> dense TFLOP/s of bfloat16 and of TF32 on the tensor cores, with sums in float32. From the
# makers' data sheets, halved where these tell the rate with 2:4 sparsity; for the RTX cards from the white papers of their
# architectures (GA102, Ada, RTX Blackwell).
PEAK_TFLOPS = (
    (r"GB200\b", (2500, 1250)), (r"B200\b", (2250, 1100)), (r"H200 NVL", (835, 417)), (r"H100 NVL", (835, 417)),
    (r"H100 PCIe", (756, 378)), (r"(H100|H200|GH200)\b", (989, 494)),  # last: SXM
    (r"A100\b", (312, 156)), (r"A40\b", (149.7, 74.8)), (r"A30\b", (165, 82)),
    (r"A10\b", (125, 62.5)),  # not the A10G, another card
    (r"L40S\b", (362, 183)), (r"L40\b", (181, 90.5)), (r"L4\b", (121, 60)), (r"RTX A6000$", (154.8, 77.4)),
    (r"MI300X\b", (1307, 653)), (r"RTX 5090$", (209.5, 104.8)),  # neither the laptops' 5090 nor the 5090 D
    (r"RTX 4090$", (165.2, 82.6)), (r"RTX 3090$", (71, 35.6)),
)  # fmt: skip


def peak_flops(device: torch.device | str, dtype: torch.dtype = torch.bfloat16) -> float | None:
    """Dense peak of a device in FLOP/s, see `peak_of_name`; None for a CPU."""
    return peak_of_name(torch.cuda.get_device_name(device), dtype) if torch.device(device).type == "cuda" else None


def peak_of_name(name: str, dtype: torch.dtype = torch.bfloat16) -> float | None:
    """Dense peak in FLOP/s of a device such as "NVIDIA H100 80GB HBM3"; None if its data sheet is not in the table.

    dtype: what matrix products are computed in, bfloat16 or float32, which means TF32: PyTorch uses it after
    `torch.set_float32_matmul_precision("high")`. A MIG slice does not tell its share: None.
    """
    fitting = (peaks for pattern, peaks in PEAK_TFLOPS if re.search(rf"(?<![A-Za-z0-9]){pattern}", name.strip()))
    peaks = None if " MIG " in name else next(fitting, None)
    return None if peaks is None else peaks[dtype == torch.float32] * 1e12


def mfu(images_per_second: float, flops_per_image: float, devices: int = 1, peak: float | None = None) -> float | None:
    """Model FLOPs utilisation, the share of the devices' dense peak that went into the model: 1 is all of it.

    images_per_second: of all devices together. flops_per_image: `training_flops`, or `forward_flops` of inference. peak: of one
    device, FLOP/s; None if it is not known, and so is the share.
    """
    return None if peak is None else images_per_second * flops_per_image / (devices * peak)
