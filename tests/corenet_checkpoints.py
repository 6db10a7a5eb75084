"""State dicts as the reference writes them, small, random, written out name by name: classifiers, segmenters, detectors."""

import numpy as np
import torch

SIDE = 3  # the stored grid of the small checkpoints: images of 48 pixels
CLASSES = 7
WIDTH, CHANNELS = 128, 16  # of dense tasks
ENCODER = "model.backbone.encoder"
STRIDES = ["4", "8", "16", "32"]
ASPP = "seg_head.aspp.aspp_layer"
BRANCHES = [f"{ASPP}.convs.{i}" for i in range(4)] + [f"{ASPP}.convs.4.aspp_pool.conv_1x1", f"{ASPP}.project"]


def checkpoint(width=128, depth=2, cls_token=True, classes=CLASSES) -> dict[str, torch.Tensor]:
    """A state dict as the reference writes it, written out name by name; every tensor random, statistics included."""
    torch.manual_seed(0)
    stem = max(32, width // 4)

    def weights(*shape):
        return torch.randn(*shape) / max(1, np.prod(shape[1:])) ** 0.5

    state = {"cls_token": torch.randn(1, 1, width)} if cls_token else {}
    state["pos_embed.pos_embed.pos_embed"] = torch.randn(1, 1, SIDE * SIDE, width)
    for i, (before, kernel) in enumerate([(3, 4), (stem, 2)]):
        state[f"patch_emb.{i}.block.conv.weight"] = weights(stem, before, kernel, kernel)
        state[f"patch_emb.{i}.block.norm.weight"] = 1 + 0.3 * torch.randn(stem)
        state[f"patch_emb.{i}.block.norm.bias"] = 0.3 * torch.randn(stem)
        state[f"patch_emb.{i}.block.norm.running_mean"] = 0.3 * torch.randn(stem)
        state[f"patch_emb.{i}.block.norm.running_var"] = 0.05 + torch.rand(stem)
        state[f"patch_emb.{i}.block.norm.num_batches_tracked"] = torch.tensor(200_000)
    linear = {"patch_emb.2.block.conv": (width, stem, 2, 2), "classifier": (classes, width)}
    norms = ["post_transformer_norm"]
    for i in range(depth):
        norms += [f"transformer.{i}.pre_norm_mha.0", f"transformer.{i}.pre_norm_ffn.0"]
        linear[f"transformer.{i}.pre_norm_mha.1.qkv_proj"] = (3 * width, width)
        linear[f"transformer.{i}.pre_norm_mha.1.out_proj_attn"] = (width, width)
        linear[f"transformer.{i}.pre_norm_ffn.1"] = (4 * width, width)
        linear[f"transformer.{i}.pre_norm_ffn.4"] = (width, 4 * width)
    for name, shape in linear.items():
        state |= {f"{name}.weight": weights(*shape), f"{name}.bias": 0.3 * torch.randn(shape[0])}
    for name in norms:
        state |= {f"{name}.weight": 1 + 0.3 * torch.randn(width), f"{name}.bias": 0.3 * torch.randn(width)}
    for op in ("brightness", "contrast", "noise"):
        state |= {f"neural_augmentor.{op}._{end}": torch.tensor(0.5) for end in ("low", "high")}
    return state


def encoder(prefix) -> dict[str, torch.Tensor]:
    return {f"{prefix}{n}": v for n, v in checkpoint(WIDTH, 2, cls_token=False).items() if not n.startswith("classifier")}


def weights(*shape):
    return torch.randn(*shape) / np.prod(shape[1:]) ** 0.5


def norm(channels):
    return {"weight": 1 + 0.3 * torch.randn(channels), "bias": 0.3 * torch.randn(channels)}


def named(modules) -> dict[str, torch.Tensor]:
    return {f"{module}.{name}": value for module, tensors in modules.items() for name, value in tensors.items()}


def segmentation_checkpoint(classes=5):
    """DeepLabv3: five branches of CHANNELS and what joins them, with BatchNorm, then a classifier."""
    state = encoder("encoder.")
    shapes = [(WIDTH, 1), (WIDTH, 3), (WIDTH, 3), (WIDTH, 3), (WIDTH, 1), (5 * CHANNELS, 1)]
    for branch, (before, kernel) in zip(BRANCHES, shapes, strict=True):
        statistics = {"running_mean": 0.3 * torch.randn(CHANNELS), "running_var": 0.1 + torch.rand(CHANNELS)}
        statistics["num_batches_tracked"] = torch.tensor(7)
        state |= named(
            {
                f"{branch}.block.conv": {"weight": weights(CHANNELS, before, kernel, kernel)},
                f"{branch}.block.norm": norm(CHANNELS) | statistics,
            }
        )
    return state | named(
        {"seg_head.classifier.block.conv": {"weight": weights(classes, CHANNELS, 1, 1), "bias": torch.randn(classes)}}
    )


def convolution(name, after, before, kernel, bias=True):
    return named({name: {"weight": weights(after, before, kernel, kernel)} | ({"bias": torch.randn(after)} if bias else {})})


def detection_checkpoint(classes=3):
    """Mask R-CNN, written out; classes: with the background."""
    half, quarter, box, roi = WIDTH // 2, WIDTH // 4, 4 * CHANNELS, "model.roi_heads"
    state, fpn = encoder(f"{ENCODER}."), f"{ENCODER}.simple_fpn"
    for name, (before, after) in {
        "out_l2.0": (WIDTH, half), "out_l2.1": (half, quarter), "out_l3": (WIDTH, half),
    }.items():  # fmt: skip
        state |= named({f"{fpn}.{name}.block.conv": {"weight": weights(before, after, 2, 2), "bias": torch.randn(after)}})
    state |= named({f"{fpn}.out_l2.0.block.norm": norm(half)})
    for stride, before in zip(STRIDES, (quarter, half, WIDTH, WIDTH), strict=True):
        for layers, width, kernel in (("backbone_proj_layers", before, 1), ("fpn_proj_layers", CHANNELS, 3)):
            layer = f"model.backbone.{layers}.{stride}.block"
            state |= convolution(f"{layer}.conv", CHANNELS, width, kernel) | named({f"{layer}.norm": norm(CHANNELS)})
    extra = "model.backbone.extra_layers.64.block"
    state |= convolution(f"{extra}.conv", CHANNELS, CHANNELS, 3) | named({f"{extra}.norm": norm(CHANNELS)})
    for head, count in (("model.rpn.head.conv", 2), (f"{roi}.box_head", 4), (f"{roi}.mask_head", 4)):
        for i in range(count):
            state |= convolution(f"{head}.{3 * i}.block.conv", CHANNELS, CHANNELS, 3, bias=False)
            state |= named({f"{head}.{3 * i + 1}": norm(CHANNELS)})
    state |= convolution("model.rpn.head.cls_logits.block.conv", 3, CHANNELS, 1)
    state |= convolution("model.rpn.head.bbox_pred.block.conv", 12, CHANNELS, 1)
    linear = {"box_head.13": (box, CHANNELS * 49), "box_predictor.cls_score": (classes, box)}
    for name, (after, before) in {**linear, "box_predictor.bbox_pred": (4 * classes, box)}.items():
        state |= named({f"{roi}.{name}": {"weight": weights(after, before), "bias": torch.randn(after)}})
    state |= convolution(f"{roi}.mask_predictor.0.block.conv", CHANNELS, CHANNELS, 2, bias=False)
    state |= named({f"{roi}.mask_predictor.1": norm(CHANNELS)})
    return state | convolution(f"{roi}.mask_predictor.3.block.conv", classes, CHANNELS, 1)
