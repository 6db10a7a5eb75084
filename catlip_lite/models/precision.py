"""Which device and which precision a network computes in, and what is different on each kind of device."""

from __future__ import annotations

import torch
from torch import nn

KINDS = ("cuda", "mps", "cpu")  # of devices, the best first: GPUs of NVIDIA and, under the same name, AMD (ROCm); Apple's


def devices_here() -> list[torch.device]:
    """The devices that this machine has and PyTorch was built for, each with its number, the best first."""
    return [torch.device(kind, i) for kind in KINDS for i in range(torch.get_device_module(kind).device_count())]


def choose_device(device: str | torch.device | None = None) -> torch.device:
    """The named device, or the best one there is; a GPU always with its number, which some calls insist on.

    Raises ValueError for a device that is not there, or that nobody knows.
    """
    here = devices_here()
    try:
        chosen = torch.device(device or here[0].type)
    except RuntimeError:
        chosen = None
    if chosen is None or torch.device(chosen.type, chosen.index or 0) not in here:
        told = ", ".join(str(one) if one.type == "cuda" else one.type for one in here)
        raise ValueError(f"device={str(device)!r} is not there: PyTorch finds {told} here, name one of these or none")
    if chosen.type == "cpu" or chosen.index is not None:
        return chosen
    return torch.device(chosen.type, torch.cuda.current_device() if chosen.type == "cuda" else 0)


def exact_device(device: str | torch.device) -> torch.device:
    """Where float64 of a device is: there, but for Apple's GPU, which has none; its processor has the same memory."""
    return torch.device("cpu" if torch.device(device).type == "mps" else device)


def arranged(images: torch.Tensor) -> torch.Tensor:
    """Images or maps [B, C, H, W] with channels side by side in memory, as the convolutions of GPUs and CPUs take them.

    Not on Apple's GPU: batch norms then fail or have wrong gradients in PyTorch 2.11 (pytorch/pytorch#175189).
    """
    plain = images.device.type == "mps"
    return images.contiguous(memory_format=torch.contiguous_format if plain else torch.channels_last)


def choose_precision(device: torch.device, precision: str = "auto") -> torch.dtype:
    """The dtype in which the model computes, "bf16" or "fp32"; "auto": bf16 where the device has it.

    On CPUs "auto" takes bf16 where there are instructions for it, AMX tiles (Intel from Sapphire Rapids) or AVX-512's (AMD from
    Zen 4): either takes a third off a step of the demo. On Apple's GPUs it takes fp32: bf16 saves memory there, not time.
    Raises ValueError for another name.
    """
    if precision not in ("auto", "bf16", "fp32"):
        raise ValueError(f"precision={precision!r} is unknown: choose auto, bf16 or fp32")
    if precision == "auto" and device.type == "cuda":
        has_bf16 = torch.cuda.is_bf16_supported(including_emulation=False)
    elif precision == "auto" and device.type == "cpu":
        has_bf16 = any(torch.cpu.get_capabilities().get(name) for name in ("amx_tile", "avx512_bf16"))
    else:
        has_bf16 = precision == "bf16"
    return torch.bfloat16 if has_bf16 else torch.float32


def prefer_plain_attention(model: nn.Module) -> None:
    """Have a timm ViT compute attention by matrix products: in bf16 on a CPU PyTorch's fused one doubles a step's time."""
    for module in model.modules():
        if hasattr(module, "fused_attn"):
            module.fused_attn = False
