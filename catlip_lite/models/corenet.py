"""The published CatLIP weights as this project's ViT: the reference's state dict -> `create_vit`'s, and back."""

from __future__ import annotations

import math
import os
import pickle
import re
import zipfile
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from timm.layers import resample_abs_pos_embed
from timm.models.vision_transformer import VisionTransformer
from torch import nn

from .vit import VitShape, build_vit, refuse_size, refuse_unknown

HEAD_WIDTH = 64  # channels of an attention head: the same in B, L and H, so the width tells the number of heads
DROPPED = "neural_augmentor."  # the six learnt ranges of RangeAugment, an augmentation of training
POSITIONS = "pos_embed.pos_embed.pos_embed"  # [1, 1, N, D], for the patches alone
DENSE = {"encoder.": "segmentation", "seg_head.": "segmentation", "m_rcnn": "detection"}  # tensors of the dense tasks' models
SHOWN = 8  # names listed in an error

# ---------------------------------------------------------------- names: the reference's -> ours

BATCH_NORM = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
OUTSIDE = {  # modules outside the blocks, and their tensors
    "patch_emb.0.block.conv": ("patch_embed.conv1", ("weight",)),
    "patch_emb.0.block.norm": ("patch_embed.bn1", BATCH_NORM),
    "patch_emb.1.block.conv": ("patch_embed.conv2", ("weight",)),
    "patch_emb.1.block.norm": ("patch_embed.bn2", BATCH_NORM),
    "patch_emb.2.block.conv": ("patch_embed.conv3", ("weight", "bias")),
    "post_transformer_norm": ("norm", ("weight", "bias")),
    "classifier": ("head", ("weight", "bias")),
}
BLOCK = {  # modules of a block, each with a weight and a bias
    "pre_norm_mha.0": "norm1",
    "pre_norm_mha.1.qkv_proj": "attn.qkv",
    "pre_norm_mha.1.out_proj_attn": "attn.proj",
    "pre_norm_ffn.0": "norm2",
    "pre_norm_ffn.1": "mlp.fc1",
    "pre_norm_ffn.4": "mlp.fc2",
}


def names(depth: int, cls_token: bool) -> dict[str, str]:
    """Name of each tensor in the reference -> its name here, for a ViT of `depth` blocks."""
    found = {"cls_token": "cls_token"} if cls_token else {}
    found[POSITIONS] = "pos_embed"
    for theirs, (ours, tensors) in OUTSIDE.items():
        found |= {f"{theirs}.{tensor}": f"{ours}.{tensor}" for tensor in tensors}
    for i in range(depth):
        for theirs, ours in BLOCK.items():
            found |= {f"transformer.{i}.{theirs}.{tensor}": f"blocks.{i}.{ours}.{tensor}" for tensor in ("weight", "bias")}
    return found


# ---------------------------------------------------------------- there and back


def load_corenet(
    state_dict_or_path: Mapping[str, torch.Tensor] | str | os.PathLike, image_size: int = 224, *, positions: str = "2d"
) -> VisionTransformer:
    """The reference's classifier as `create_vit`'s network, float32 on the CPU, in evaluation mode.

    state_dict_or_path: a bare state dict, or a file of one: PyTorch's, read without running any code in it, or .safetensors.
    Width, depth, heads (64 channels each) and classes are read from its shapes. Without a CLS token, as in dense tasks, the
    head sees the mean of the patch tokens. The learnt ranges of RangeAugment are dropped.

    positions: how they become those of image_size where the file holds others (the reference always stores 224's). "2d": over
    the grid, as the network does by itself for any other size. "reference": as there, where the [N, D] matrix is taken for an
    image, so along the raster sequence; published weights were trained so at every size but 224.

    Raises FileNotFoundError, or ValueError for what is no such state dict (missing and unexpected names are listed), for a
    size that the patch, 16, does not divide, and for another value of `positions`.
    """
    refuse_unknown("positions", positions, RESAMPLINGS)
    refuse_size(image_size, VitShape.patch)
    state = _read(state_dict_or_path)
    shape = shape_of_corenet(state)
    with torch.device("meta"):  # no time for weights that are overwritten
        model = build_vit(shape, num_classes=len(state["classifier.weight"]), image_size=image_size)
    _check_shapes(state, shape, model.state_dict())
    ours = {own: state[name] for name, own in names(shape.depth, shape.pooling == "token").items()}
    ours["pos_embed"] = RESAMPLINGS[positions](_positions(state, shape.width), image_size // VitShape.patch)
    model.to_empty(device="cpu").load_state_dict(ours)
    return model.eval()


def shape_of_corenet(state: Mapping[str, torch.Tensor]) -> VitShape:
    """Which ViT a state dict of the reference holds; equal to `MODELS["vit_b16"]`, `["vit_l16"]`, `["vit_h16"]` for theirs.

    Raises ValueError for missing or unexpected tensors, a dense task's model, or a width that is no multiple of 64.
    """
    dense = [name for name in state if name.startswith(tuple(DENSE))]
    if dense and "classifier.weight" not in state:
        task = next(task for prefix, task in DENSE.items() if dense[0].startswith(prefix))
        told = f"this is the state dict of a {task} model ({dense[0]}, …), which has no classifier"
        raise ValueError(f"{told}: pass the pre-trained model's or an image classifier's")
    depth = _depth("transformer", state)
    expected = names(depth, "cls_token" in state)
    strange = [name for name in state if name not in expected and not name.startswith(DROPPED)]
    found = {"missing": [name for name in expected if name not in state], "unexpected": strange}
    if any(found.values()):
        more = {kind: f" and {len(of) - SHOWN:,} more" if len(of) > SHOWN else "" for kind, of in found.items()}
        told = [f"{kind}: {', '.join(of[:SHOWN])}{more[kind]}" for kind, of in found.items() if of]
        raise ValueError(f"this is no state dict of a CatLIP classifier; {'; '.join(told)}")
    width = len(state["patch_emb.2.block.conv.weight"])
    if width % HEAD_WIDTH:
        raise ValueError(f"width {width} is no multiple of {HEAD_WIDTH}, the channels of a head in all published models")
    return VitShape(width, depth, width // HEAD_WIDTH, pooling="token" if "cls_token" in state else "avg")


def corenet_state_dict(model: nn.Module) -> dict[str, torch.Tensor]:
    """The way back: weights of a ViT with the reference's stem, shared, under its names. Raises ValueError for another stem."""
    state = model.state_dict()
    known = names(_depth("blocks", state), "cls_token" in state)
    if set(known.values()) != set(state) or state["patch_embed.conv1.weight"].shape[2:] != (4, 4):
        raise ValueError("the reference has no names for this network's tensors: create it with stem='reference'")
    found = {name: state[own] for name, own in known.items()}
    found[POSITIONS] = found[POSITIONS].unsqueeze(0)
    return found


def _depth(blocks: str, state: Mapping[str, torch.Tensor]) -> int:
    return 1 + max((int(found[1]) for name in state if (found := re.match(rf"{blocks}\.(\d+)\.", name))), default=0)


# ---------------------------------------------------------------- positions


def _positions_2d(rows: torch.Tensor, side: int) -> torch.Tensor:
    old = math.isqrt(rows.shape[1])
    return resample_abs_pos_embed(rows, (side, side), (old, old), num_prefix_tokens=0)  # as the network at other sizes


def _positions_reference(rows: torch.Tensor, side: int) -> torch.Tensor:  # the same numbers where the size is
    return nn.functional.interpolate(rows[None], (side * side, rows.shape[2]), mode="bilinear", align_corners=False)[0]


RESAMPLINGS = {"2d": _positions_2d, "reference": _positions_reference}  # [1, N, D] -> [1, side * side, D]


def _positions(state: Mapping[str, torch.Tensor], width: int) -> torch.Tensor:
    shape = tuple(state[POSITIONS].shape)
    if len(shape) != 4 or shape[:2] != (1, 1) or shape[3] != width or math.isqrt(shape[2]) ** 2 != shape[2]:
        raise ValueError(f"{POSITIONS} has shape {shape}: expected (1, 1, N, {width}), N the tokens of a square grid")
    return state[POSITIONS][0].float()


# ---------------------------------------------------------------- files and errors


def _read(state_dict_or_path: Mapping[str, torch.Tensor] | str | os.PathLike) -> Mapping[str, torch.Tensor]:
    state, told = state_dict_or_path, "what was given"
    if isinstance(state, (str, os.PathLike)):
        path, told = Path(state), str(state)
        if not path.is_file():
            raise FileNotFoundError(f"no checkpoint at {path}")
        try:
            safe = path.suffix == ".safetensors"
            state = load_file(path) if safe else torch.load(path, map_location="cpu", weights_only=True)
        except (pickle.UnpicklingError, zipfile.BadZipFile, SafetensorError, RuntimeError, EOFError, ValueError, KeyError) as e:
            reason = re.split(r"\n|\. ", str(e).strip())[0]
            raise ValueError(f"{path} is no file of a state dict: {reason or type(e).__name__}") from e
    if not isinstance(state, Mapping):
        raise ValueError(f"{told} is no state dict: it is a {type(state).__name__}")
    for name, value in state.items():
        if not isinstance(name, str) or not isinstance(value, torch.Tensor):
            told = f"{told} is no bare state dict: {name!r} is of type {type(value).__name__}"
            raise ValueError(f"{told}: pass the dict of tensors itself")
    return state


def _check_shapes(state: Mapping[str, torch.Tensor], shape: VitShape, expected: Mapping[str, torch.Tensor]) -> None:
    for name, own in names(shape.depth, shape.pooling == "token").items():
        if name != POSITIONS and state[name].shape != expected[own].shape:
            found, wanted = tuple(state[name].shape), tuple(expected[own].shape)
            raise ValueError(f"{name} has shape {found}: a ViT of width {shape.width} has {wanted}")
