"""The published CatLIP weights as this project's networks: the reference's state dict -> `create_vit`'s, and back.

Those of dense tasks, too, as a `Segmenter` or a detector's network and heads.
"""

from __future__ import annotations

import math
import os
import pickle
import re
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from timm.layers import resample_abs_pos_embed
from timm.models.vision_transformer import VisionTransformer
from torch import nn

from .dense import DenseViT
from .detector import DetectionHeads, PyramidBackbone
from .segmenter import Segmenter
from .vit import VitShape, build_vit, refuse_size, refuse_unknown

HEAD_WIDTH = 64  # channels of an attention head: the same in B, L and H, so the width tells the number of heads
DROPPED = "neural_augmentor."  # the six learnt ranges of RangeAugment, an augmentation of training
POSITIONS = "pos_embed.pos_embed.pos_embed"  # [1, 1, N, D], for the patches alone
# Beginnings of the names of dense tasks' tensors, and what loads these.
DENSE = {"encoder.": "segmentation", "seg_head.": "segmentation", "model.": "detection", "m_rcnn": "detection"}
LOADERS = {"segmentation": "load_corenet_segmenter", "detection": "load_corenet_detector"}
SHOWN = 8  # names listed in an error

# ---------------------------------------------------------------- names: the reference's -> ours

Modules = Mapping[str, tuple[str, tuple[str, ...]]]  # a module's name there -> its name here, and its tensors
BATCH_NORM = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
WEIGHT, BOTH = ("weight",), ("weight", "bias")
OUTSIDE: Modules = {  # modules outside the blocks, and their tensors
    "patch_emb.0.block.conv": ("patch_embed.conv1", WEIGHT),
    "patch_emb.0.block.norm": ("patch_embed.bn1", BATCH_NORM),
    "patch_emb.1.block.conv": ("patch_embed.conv2", WEIGHT),
    "patch_emb.1.block.norm": ("patch_embed.bn2", BATCH_NORM),
    "patch_emb.2.block.conv": ("patch_embed.conv3", BOTH),
    "post_transformer_norm": ("norm", BOTH),
    "classifier": ("head", BOTH),
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
    blocks = {f"transformer.{i}.{module}": (f"blocks.{i}.{own}", BOTH) for i in range(depth) for module, own in BLOCK.items()}
    return found | _tensors(OUTSIDE) | _tensors(blocks)


def _tensors(modules: Modules) -> dict[str, str]:
    return {f"{theirs}.{name}": f"{ours}.{name}" for theirs, (ours, tensors) in modules.items() for name in tensors}


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
    known = names(shape.depth, shape.pooling == "token")
    _check_shapes(state, known, model.state_dict(), shape.width)
    ours = {own: state[name] for name, own in known.items()}
    ours["pos_embed"] = RESAMPLINGS[positions](_positions(state, shape.width), image_size // VitShape.patch)
    model.to_empty(device="cpu").load_state_dict(ours)
    return model.eval()


def corenet_task(state_dict_or_path: Mapping[str, torch.Tensor] | str | os.PathLike) -> str:
    """What a state dict of the reference was trained for: "classification", pre-training too, "segmentation" or "detection"."""
    state = _read(state_dict_or_path)
    dense = [task for name in state for prefix, task in DENSE.items() if name.startswith(prefix)]
    return dense[0] if dense and "classifier.weight" not in state else "classification"


def shape_of_corenet(state: Mapping[str, torch.Tensor]) -> VitShape:
    """Which ViT a state dict of the reference holds; equal to `MODELS["vit_b16"]`, `["vit_l16"]`, `["vit_h16"]` for theirs.

    Raises ValueError for missing or unexpected tensors, a dense task's model, or a width that is no multiple of 64.
    """
    task = corenet_task(state)
    if task != "classification":
        first = next(name for name in state if name.startswith(tuple(DENSE)))
        told = f"this is the state dict of a {task} model ({first}, …), which has no classifier"
        raise ValueError(f"{told}: pass the pre-trained model's or an image classifier's, or load it by {LOADERS[task]}")
    depth = _depth("transformer", state)
    _check_names(state, names(depth, "cls_token" in state), "classifier")
    return _shape(state, depth, "token" if "cls_token" in state else "avg")


def _shape(state: Mapping[str, torch.Tensor], depth: int, pooling: str, encoder: str = "") -> VitShape:
    width = len(state[f"{encoder}patch_emb.2.block.conv.weight"])
    if width % HEAD_WIDTH:
        raise ValueError(f"width {width} is no multiple of {HEAD_WIDTH}, the channels of a head in all published models")
    return VitShape(width, depth, width // HEAD_WIDTH, pooling=pooling)


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


# ---------------------------------------------------------------- dense tasks
# No published file was at hand: the names follow from the reference's code, whose modules these are.

ASPP = "seg_head.aspp.aspp_layer"
SEGMENTER_HEAD: Modules = {
    **{f"{ASPP}.convs.{i}.block.conv": (f"head.0.convs.{i}.0", WEIGHT) for i in range(4)},
    **{f"{ASPP}.convs.{i}.block.norm": (f"head.0.convs.{i}.1", BATCH_NORM) for i in range(4)},
    f"{ASPP}.convs.4.aspp_pool.conv_1x1.block.conv": ("head.0.convs.4.1", WEIGHT),
    f"{ASPP}.convs.4.aspp_pool.conv_1x1.block.norm": ("head.0.convs.4.2", BATCH_NORM),
    f"{ASPP}.project.block.conv": ("head.0.project.0", WEIGHT),
    f"{ASPP}.project.block.norm": ("head.0.project.1", BATCH_NORM),
    "seg_head.classifier.block.conv": ("head.1", BOTH),
}
BACKBONE, ROI, ROI_HEADS = "model.backbone", "model.roi_heads", ("box_head", "mask_head")
STRIDES = ("4", "8", "16", "32")
PYRAMID: Modules = {
    f"{BACKBONE}.encoder.simple_fpn.out_l2.0.block.conv": ("pyramid.scales.0.0", BOTH),
    f"{BACKBONE}.encoder.simple_fpn.out_l2.0.block.norm": ("pyramid.scales.0.1", BOTH),
    f"{BACKBONE}.encoder.simple_fpn.out_l2.1.block.conv": ("pyramid.scales.0.3", BOTH),
    f"{BACKBONE}.encoder.simple_fpn.out_l3.block.conv": ("pyramid.scales.1", BOTH),
    **{f"{BACKBONE}.backbone_proj_layers.{s}.block.conv": (f"pyramid.lateral.{i}.0", BOTH) for i, s in enumerate(STRIDES)},
    **{f"{BACKBONE}.backbone_proj_layers.{s}.block.norm": (f"pyramid.lateral.{i}.1", BOTH) for i, s in enumerate(STRIDES)},
    **{f"{BACKBONE}.fpn_proj_layers.{s}.block.conv": (f"pyramid.smooth.{i}.0", BOTH) for i, s in enumerate(STRIDES)},
    **{f"{BACKBONE}.fpn_proj_layers.{s}.block.norm": (f"pyramid.smooth.{i}.1", BOTH) for i, s in enumerate(STRIDES)},
    f"{BACKBONE}.extra_layers.64.block.conv": ("pyramid.coarsest.0", BOTH),
    f"{BACKBONE}.extra_layers.64.block.norm": ("pyramid.coarsest.1", BOTH),
}
DETECTION_HEADS: Modules = {  # convolution, norm and activation follow each other there, and are one module here
    **{f"model.rpn.head.conv.{3 * i}.block.conv": (f"rpn.head.conv.{i}.0", WEIGHT) for i in range(2)},
    **{f"model.rpn.head.conv.{3 * i + 1}": (f"rpn.head.conv.{i}.1", BOTH) for i in range(2)},
    "model.rpn.head.cls_logits.block.conv": ("rpn.head.cls_logits", BOTH),
    "model.rpn.head.bbox_pred.block.conv": ("rpn.head.bbox_pred", BOTH),
    **{f"{ROI}.{head}.{3 * i}.block.conv": (f"roi_heads.{head}.{i}.0", WEIGHT) for head in ROI_HEADS for i in range(4)},
    **{f"{ROI}.{head}.{3 * i + 1}": (f"roi_heads.{head}.{i}.1", BOTH) for head in ROI_HEADS for i in range(4)},
    f"{ROI}.box_head.13": ("roi_heads.box_head.5", BOTH),
    f"{ROI}.box_predictor.cls_score": ("roi_heads.box_predictor.cls_score", BOTH),
    f"{ROI}.box_predictor.bbox_pred": ("roi_heads.box_predictor.bbox_pred", BOTH),
    f"{ROI}.mask_predictor.0.block.conv": ("roi_heads.mask_predictor.0", WEIGHT),
    f"{ROI}.mask_predictor.1": ("roi_heads.mask_predictor.1", BOTH),
    f"{ROI}.mask_predictor.3.block.conv": ("roi_heads.mask_predictor.3", BOTH),
}


def load_corenet_segmenter(
    state_dict_or_path: Mapping[str, torch.Tensor] | str | os.PathLike, image_size: int = 512, *, positions: str = "reference"
) -> Segmenter:
    """The reference's DeepLabv3 of ADE20k as a `Segmenter`, float32 on the CPU, in evaluation mode.

    See `load_corenet`; positions are by default the reference's, as the published weights were trained with these.
    """
    state = _read(state_dict_or_path)

    def build(shape: VitShape) -> list[nn.Module]:
        channels, classes = (len(state[f"{name}.block.conv.weight"]) for name in (f"{ASPP}.project", "seg_head.classifier"))
        return [Segmenter(DenseViT(shape, image_size, output_stride=shape.patch // 2), classes, channels=channels)]

    (segmenter,) = _load_dense(state, "segmenter", "encoder.", SEGMENTER_HEAD, build, positions)
    return segmenter


def load_corenet_detector(
    state_dict_or_path: Mapping[str, torch.Tensor] | str | os.PathLike, image_size: int = 1024, *, positions: str = "reference"
) -> tuple[PyramidBackbone, DetectionHeads]:
    """The reference's Mask R-CNN of COCO as a detector's network and heads: see `load_corenet_segmenter`."""
    state = _read(state_dict_or_path)

    def build(shape: VitShape) -> list[nn.Module]:
        channels = len(state[f"{BACKBONE}.extra_layers.64.block.conv.weight"])
        network = PyramidBackbone(DenseViT(shape, image_size), channels)
        classes = len(state[f"{ROI}.box_predictor.cls_score.bias"]) - 1
        return [network, DetectionHeads(classes, network.strides, image_size, channels=channels)]

    network, heads = _load_dense(state, "detector", f"{BACKBONE}.encoder.", {**PYRAMID, **DETECTION_HEADS}, build, positions)
    return network, heads


def _load_dense(
    state: Mapping[str, torch.Tensor],
    kind: str,
    encoder: str,
    head: Modules,
    build: Callable[[VitShape], list[nn.Module]],
    positions: str,
) -> list[nn.Module]:
    """The networks that `build` makes for the shape of a state dict whose ViT's names begin with `encoder`, filled with it."""
    refuse_unknown("positions", positions, RESAMPLINGS)
    depth = _depth(f"{encoder}transformer", state)
    vit = {encoder + theirs: f"backbone.vit.{ours}" for theirs, ours in names(depth, cls_token=False).items()}
    known = {theirs: ours for theirs, ours in vit.items() if not ours.startswith("backbone.vit.head.")} | _tensors(head)
    _check_names(state, known, kind)
    shape = _shape(state, depth, "avg", encoder)
    with torch.device("meta"):
        parts = build(shape)
    expected = {name: value for part in parts for name, value in part.state_dict().items()}
    _check_shapes(state, known, expected, shape.width)
    ours = {own: state[name] for name, own in known.items()}
    side = parts[0].patch_embed.grid_size[0]
    ours["backbone.vit.pos_embed"] = RESAMPLINGS[positions](_positions(state, shape.width, encoder), side)
    for part in parts:
        part.to_empty(device="cpu").load_state_dict({name: ours[name] for name in part.state_dict()})
        part.eval()
    return parts


# ---------------------------------------------------------------- positions


def _positions_2d(rows: torch.Tensor, side: int) -> torch.Tensor:
    old = math.isqrt(rows.shape[1])
    return resample_abs_pos_embed(rows, (side, side), (old, old), num_prefix_tokens=0)  # as the network at other sizes


def _positions_reference(rows: torch.Tensor, side: int) -> torch.Tensor:  # the same numbers where the size is
    return nn.functional.interpolate(rows[None], (side * side, rows.shape[2]), mode="bilinear", align_corners=False)[0]


RESAMPLINGS = {"2d": _positions_2d, "reference": _positions_reference}  # [1, N, D] -> [1, side * side, D]


def _positions(state: Mapping[str, torch.Tensor], width: int, encoder: str = "") -> torch.Tensor:
    shape = tuple(state[encoder + POSITIONS].shape)
    if len(shape) != 4 or shape[:2] != (1, 1) or shape[3] != width or math.isqrt(shape[2]) ** 2 != shape[2]:
        raise ValueError(f"{POSITIONS} has shape {shape}: expected (1, 1, N, {width}), N the tokens of a square grid")
    return state[encoder + POSITIONS][0].float()


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


def _check_names(state: Mapping[str, torch.Tensor], expected: Mapping[str, str], kind: str) -> None:
    strange = [name for name in state if name not in expected and DROPPED not in name]
    found = {"missing": [name for name in expected if name not in state], "unexpected": strange}
    if any(found.values()):
        more = {kind: f" and {len(of) - SHOWN:,} more" if len(of) > SHOWN else "" for kind, of in found.items()}
        told = [f"{kind}: {', '.join(of[:SHOWN])}{more[kind]}" for kind, of in found.items() if of]
        raise ValueError(f"this is no state dict of a CatLIP {kind}; {'; '.join(told)}")


def _check_shapes(
    state: Mapping[str, torch.Tensor], known: Mapping[str, str], expected: Mapping[str, torch.Tensor], width: int
) -> None:
    for name, own in known.items():
        if not name.endswith(POSITIONS) and state[name].shape != expected[own].shape:
            found, wanted = tuple(state[name].shape), tuple(expected[own].shape)
            raise ValueError(f"{name} has shape {found}: a ViT of width {width} has {wanted}")
