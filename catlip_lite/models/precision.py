"""Which device and which precision a network computes in."""

from __future__ import annotations

import torch
from torch import nn


def choose_device(device: str | None = None) -> torch.device:
    """The named device, or the best one there is; a GPU always with its number, which some calls insist on."""
    chosen = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    return torch.device("cuda", torch.cuda.current_device()) if chosen == torch.device("cuda") else chosen


def choose_precision(device: torch.device, precision: str = "auto") -> torch.dtype:
    """The dtype in which the model computes: bf16 where the device has it ("auto", "bf16"), else fp32 ("fp32").

    On CPUs "auto" takes bf16 where there are instructions for it, AMX tiles (Intel from Sapphire Rapids) or AVX-512's (AMD from
    Zen 4): either takes a third off a step of the demo. Raises ValueError for another name.
    """
    if precision not in ("auto", "bf16", "fp32"):
        raise ValueError(f"precision={precision!r} is unknown: choose auto, bf16 or fp32")
    if device.type == "cuda":
        has_bf16 = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        has_bf16 = torch.cpu._is_amx_tile_supported() or torch.cpu._is_avx512_bf16_supported()
    return torch.bfloat16 if precision == "bf16" or (precision == "auto" and has_bf16) else torch.float32


def prefer_plain_attention(model: nn.Module) -> None:
    """Have a timm ViT compute attention by matrix products: in bf16 on a CPU PyTorch's fused one doubles a step's time."""
    for module in model.modules():
        if hasattr(module, "fused_attn"):
            module.fused_attn = False
