"""The reference's state dicts of dense tasks give its logits; held against a second implementation that shares no code.

The names are those of its modules in its code: no published file was at hand.
"""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from corenet_checkpoints import (
    BRANCHES,
    CHANNELS,
    ENCODER,
    SIDE,
    STRIDES,
    WIDTH,
    checkpoint,
    detection_checkpoint,
    segmentation_checkpoint,
)  # fmt: skip
from test_corenet import gelu, layer_norm, pictures, reference_tokens

from catlip_lite.models.corenet import load_corenet, load_corenet_detector, load_corenet_segmenter
from catlip_lite.models.detector import DetectionModel, detector_config

SIZE = 64  # pixels: 8 x 8 tokens of the segmenter, 4 x 4 of the detector; positions are stored for 3 x 3


# ---------------------------------------------------------------- segmentation


def reference_segmentation(state, images):
    """Logits of each pixel, on a map of stride 8."""
    state = {name: value.to(images.dtype) for name, value in state.items()}
    tokens = reference_tokens({name.removeprefix("encoder."): value for name, value in state.items()}, images, first_stride=2)
    side = images.shape[-1] // 8
    x = tokens.transpose(1, 2).reshape(len(images), WIDTH, side, side)

    def branch(name, x, rate=0):
        y = F.conv2d(x, state[f"{name}.block.conv.weight"], padding=rate, dilation=max(1, rate))
        of_norm = (state[f"{name}.block.norm.{part}"] for part in ("running_mean", "running_var", "weight", "bias"))
        mean, var, weight, bias = (part[:, None, None] for part in of_norm)
        return gelu((y - mean) / (var + 1e-5).sqrt() * weight + bias)

    seen = [branch(name, x, rate) for name, rate in zip(BRANCHES, (0, 12, 24, 36), strict=False)]
    seen.append(branch(BRANCHES[4], x.mean(dim=(2, 3), keepdim=True)).expand_as(seen[0]))
    classifier = "seg_head.classifier.block.conv"
    logits = F.conv2d(branch(BRANCHES[5], torch.cat(seen, dim=1)), state[f"{classifier}.weight"], state[f"{classifier}.bias"])
    return F.interpolate(logits, scale_factor=8, mode="bilinear", align_corners=True)


@torch.no_grad()
def test_a_segmenters_logits_are_the_references():
    state, images = segmentation_checkpoint(), pictures(SIZE)
    found = load_corenet_segmenter(state, SIZE).double()(images)
    expected = reference_segmentation(state, images)
    assert found.shape == (2, 5, SIZE, SIZE)
    torch.testing.assert_close(found.double(), expected, rtol=1e-5, atol=1e-5)


# ---------------------------------------------------------------- detection


class Reference:
    """The reference's modules as functions of a state dict of its names."""

    def __init__(self, state):
        self.state = state

    def of(self, name):
        return self.state[f"{name}.weight"], self.state.get(f"{name}.bias")

    def normed(self, x, name):
        return layer_norm(x.movedim(1, -1), *self.of(name)).movedim(-1, 1)

    def layer(self, x, name, padding=0, stride=1):
        return self.normed(F.conv2d(x, *self.of(f"{name}.conv"), padding=padding, stride=stride), f"{name}.norm")

    def maps(self, images):
        """The five that the heads see, finest first."""
        tokens = reference_tokens({n.removeprefix(f"{ENCODER}."): value for n, value in self.state.items()}, images)
        side, fpn = images.shape[-1] // 16, f"{ENCODER}.simple_fpn"
        x = tokens.transpose(1, 2).reshape(len(images), WIDTH, side, side)
        finest = F.conv_transpose2d(x, *self.of(f"{fpn}.out_l2.0.block.conv"), stride=2)
        finest = gelu(self.normed(finest, f"{fpn}.out_l2.0.block.norm"))
        finest = F.conv_transpose2d(finest, *self.of(f"{fpn}.out_l2.1.block.conv"), stride=2)
        scales = [finest, F.conv_transpose2d(x, *self.of(f"{fpn}.out_l3.block.conv"), stride=2), x, F.max_pool2d(x, 2)]
        seen = [self.layer(y, f"model.backbone.backbone_proj_layers.{s}.block") for s, y in zip(STRIDES, scales, strict=True)]
        above = self.layer(seen[3], "model.backbone.fpn_proj_layers.32.block", padding=1)
        for i in (2, 1, 0):
            above = above.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3)
            above = self.layer(seen[i] + above, f"model.backbone.fpn_proj_layers.{STRIDES[i]}.block", padding=1)
            seen[i] = above
        return [*seen, self.layer(seen[3], "model.backbone.extra_layers.64.block", padding=1, stride=2)]

    def tower(self, x, name, count):
        for i in range(count):
            x = F.conv2d(x, *self.of(f"{name}.{3 * i}.block.conv"), padding=1)
            x = self.normed(x, f"{name}.{3 * i + 1}").clamp(min=0)
        return x

    def proposals(self, x):
        """Of a map: how likely each anchor is an object, and how it is moved."""
        x = self.tower(x, "model.rpn.head.conv", 2)
        return [F.conv2d(x, *self.of(f"model.rpn.head.{name}.block.conv")) for name in ("cls_logits", "bbox_pred")]

    def boxes(self, x):
        """Of what was pooled of boxes: logits of classes, and how each class moves the box."""
        x = self.tower(x, "model.roi_heads.box_head", 4).flatten(1)
        x = F.linear(x, *self.of("model.roi_heads.box_head.13")).clamp(min=0)
        return [F.linear(x, *self.of(f"model.roi_heads.box_predictor.{name}")) for name in ("cls_score", "bbox_pred")]

    def masks(self, x):
        x, predictor = self.tower(x, "model.roi_heads.mask_head", 4), "model.roi_heads.mask_predictor"
        x = F.conv_transpose2d(x, *self.of(f"{predictor}.0.block.conv"), stride=2)
        return F.conv2d(self.normed(x, f"{predictor}.1").clamp(min=0), *self.of(f"{predictor}.3.block.conv"))


@torch.no_grad()
def test_a_detectors_maps_and_heads_are_the_references():
    state, images = detection_checkpoint(), pictures(SIZE, torch.float32)
    (network, heads), reference = load_corenet_detector(state, SIZE), Reference(state)
    maps, expected = list(network(images).values()), reference.maps(images)
    for found, wanted in zip(maps, expected, strict=True):
        torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-4)
    close = {"rtol": 1e-3, "atol": 1e-3}
    for found, wanted in zip(heads.rpn.head(expected), zip(*map(reference.proposals, expected), strict=True), strict=True):
        torch.testing.assert_close(found, list(wanted), **close)
    roi, pooled = heads.roi_heads, torch.randn(3, CHANNELS, 7, 7)
    torch.testing.assert_close(list(roi.box_predictor(roi.box_head(pooled))), reference.boxes(pooled), **close)
    torch.testing.assert_close(roi.mask_predictor(roi.mask_head(pooled)), reference.masks(pooled), **close)


def test_a_detector_finds_objects():
    network, heads = load_corenet_detector(detection_checkpoint(), SIZE)
    config = detector_config({"model": "vit_b16"}, ["apple", "dog"], image_size=SIZE, channels=CHANNELS)
    found = DetectionModel(network, heads, config, "cpu").detect(np.full((30, 40, 3), 200, np.uint8), least_score=0.0)
    assert set(found["labels"]) <= {"apple", "dog"}
    assert found["boxes"].max() <= 40


# ---------------------------------------------------------------- positions and errors

LOADERS = {
    "segmenter": (load_corenet_segmenter, segmentation_checkpoint),
    "detector": (load_corenet_detector, detection_checkpoint),
}


def positions(loaded):
    return (loaded[0] if isinstance(loaded, tuple) else loaded).vit.pos_embed


@pytest.mark.parametrize(("kind", "side"), [("segmenter", 8), ("detector", 4)])
def test_positions_are_interpolated_as_the_reference_does_or_in_two_dimensions(kind, side):
    load, make = LOADERS[kind]
    state = make()
    stored = next(value for name, value in state.items() if name.endswith("pos_embed.pos_embed.pos_embed"))
    grid = stored[0].transpose(1, 2).reshape(1, WIDTH, SIDE, SIDE)
    across = F.interpolate(grid, (side, side), mode="bicubic", antialias=True).flatten(2).transpose(1, 2)
    torch.testing.assert_close(positions(load(state, SIZE, positions="2d")), across)
    assert not torch.allclose(positions(load(state, SIZE)), across, atol=0.1)


@pytest.mark.parametrize("kind", LOADERS)
def test_missing_and_unexpected_tensors_are_named(kind):
    load, make = LOADERS[kind]
    state = make()
    lost = list(state)[-1]
    del state[lost]
    with pytest.raises(ValueError, match=f"no state dict of a CatLIP {kind}; missing: {lost}; unexpected: other.weight"):
        load(state | {"other.weight": torch.zeros(1)}, SIZE)


@pytest.mark.parametrize("kind", LOADERS)
def test_a_tensor_of_another_shape_is_named(kind):
    load, make = LOADERS[kind]
    state = make()
    name = next(name for name in state if name.endswith("transformer.1.pre_norm_ffn.1.weight"))
    with pytest.raises(ValueError, match=rf"{name} has shape \(1,\): a ViT of width {WIDTH} has"):
        load(state | {name: torch.zeros(1)}, SIZE)


@pytest.mark.parametrize("kind", LOADERS)
def test_a_classifiers_state_dict_is_refused(kind):
    with pytest.raises(ValueError, match=f"this is no state dict of a CatLIP {kind}; missing: "):
        LOADERS[kind][0](checkpoint(), SIZE)


def test_a_dense_file_says_which_loader_reads_it():
    for kind, (load, make) in LOADERS.items():
        with pytest.raises(ValueError, match=f"or load it by {load.__name__}"):
            load_corenet(make(), SIZE)
        assert kind in load.__name__


def test_a_size_that_the_patch_does_not_divide_is_refused():
    with pytest.raises(ValueError, match="image_size=70 is no multiple of the patch, 16"):
        load_corenet_segmenter(segmentation_checkpoint(), 70)
