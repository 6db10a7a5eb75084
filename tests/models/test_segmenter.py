"""A segmenter: the reference's size, its own image size in, a class for each pixel out."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from counting import counted
from PIL import Image

import catlip_lite
from catlip_lite.models import create_vit
from catlip_lite.models.dense import DenseViT
from catlip_lite.models.pretrained import write_folder
from catlip_lite.models.segmenter import (
    PROTOCOLS,
    SegmentationModel,
    Segmenter,
    create_segmenter,
    places,
    segmenter_config,
)
from catlip_lite.models.vit import MODELS

CLASSES = ["ground", "apple", "dog"]
BACKBONE = {"model": "vit_nano8", "stem": None, "pooling": None}
OPTIONS = {"image_size": 32, "head": "deeplab", "channels": 16, "output_stride": 4, "windows": None}


def segmenter(head="deeplab", size=32):
    torch.manual_seed(0)
    return create_segmenter(create_vit("vit_nano8", 5, 32), len(CLASSES), size, head, channels=16, output_stride=4)


def model(head="deeplab") -> SegmentationModel:
    return SegmentationModel(segmenter(head), segmenter_config(BACKBONE, CLASSES, **OPTIONS), "cpu")


def picture(width=48, height=40) -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8))


# ---------------------------------------------------------------- the network


def test_vit_b16_with_deeplab_has_the_references_parameters():
    with torch.device("meta"):
        found = Segmenter(DenseViT(MODELS["vit_b16"], 512, output_stride=8), 150)
        positions = (64**2 - 14**2) * 768  # stored for 512 pixels, not 224
    # The six are RangeAugment's, which are the learner's here.
    assert sum(p.numel() for p in found.parameters()) - positions == 98_751_644 - 6
    assert sum(isinstance(module, torch.nn.BatchNorm2d) for module in found.head.modules()) == 6


def test_vit_b16_at_512_pixels_has_64_tokens_a_side_and_a_logit_for_each_pixel():
    with torch.device("meta"):
        found, images = Segmenter(DenseViT(MODELS["vit_b16"], 512, output_stride=8), 150), torch.empty(2, 3, 512, 512)
        assert found.backbone(images).shape == (2, 768, 64, 64)
        assert found(images).shape == (2, 150, 512, 512)


@torch.no_grad()
@pytest.mark.parametrize("head", ["deeplab", "linear"])
def test_logits_are_the_heads_upsampled_corner_to_corner(head):
    found, images = segmenter(head).eval(), torch.rand(1, 3, 32, 48)
    coarse = found.head(found.backbone(images))
    assert coarse.shape == (1, 3, 8, 12)
    logits = found(images)
    assert logits.shape == (1, 3, 32, 48)
    torch.testing.assert_close(logits[..., [0, 0, -1, -1], [0, -1, 0, -1]], coarse[..., [0, 0, -1, -1], [0, -1, 0, -1]])
    assert found(images, (5, 7)).shape == (1, 3, 5, 7)


@pytest.mark.parametrize("head", ["deeplab", "linear"])
def test_a_forward_pass_costs_what_pytorch_counts(head):
    found = segmenter(head).eval()
    assert found.forward_flops(32) == counted(found, torch.rand(1, 3, 32, 32))


def test_it_computes_in_bfloat16_forth_and_back():
    found = segmenter()
    with torch.autocast("cpu", torch.bfloat16):
        logits = found(torch.rand(2, 3, 32, 32))
        F.cross_entropy(logits, torch.zeros(2, 32, 32, dtype=torch.long)).backward()
    assert logits.dtype == torch.float32
    assert found.patch_embed.conv1.weight.grad.isfinite().all()


def test_an_unknown_head_is_refused():
    with pytest.raises(ValueError, match="head='fcn' is unknown: choose one of deeplab, linear"):
        segmenter("fcn")


# ---------------------------------------------------------------- a model that segments


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("size", [(48, 40), (20, 70), (32, 32), (33, 7)])
def test_every_pixel_of_an_image_of_any_size_gets_its_likeliest_class(protocol, size):
    found, image = model(), picture(*size)
    logits, classes = found.logits(image, protocol), found.segment(image, protocol)
    assert (logits.shape, logits.dtype) == ((3, size[1], size[0]), np.float32)
    assert (classes.shape, classes.dtype) == (size[::-1], np.int64)
    np.testing.assert_array_equal(classes, logits.argmax(axis=0))


def test_of_a_square_of_its_own_size_all_protocols_say_what_the_network_says():
    found, image = model(), picture(32, 32)
    pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1)[None] / 255
    with torch.no_grad():
        expected = found.network(pixels)[0]
    for protocol in PROTOCOLS:
        np.testing.assert_allclose(found.logits(image, protocol), expected, rtol=1e-4, atol=1e-5)


def test_whole_images_are_padded_on_the_right_and_below_only():
    found = model("linear")
    image = np.array(picture(44, 32))
    padded = np.pad(image, ((0, 0), (0, 4), (0, 0)))
    with torch.no_grad():
        expected = found.network(torch.from_numpy(padded).permute(2, 0, 1)[None] / 255)[0, :, :, :44]
    np.testing.assert_allclose(found.logits(image, "whole"), expected, rtol=1e-4, atol=1e-5)


def test_windows_that_slide_are_averaged_where_they_overlap():
    found, image = model(), np.array(picture(50, 32))
    parts = [found.logits(np.ascontiguousarray(image[:, left : left + 32])) for left in (0, 18)]
    slid = found.logits(image, "slide")
    np.testing.assert_allclose(slid[:, :, :18], parts[0][:, :, :18], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(slid[:, :, 18:32], (parts[0][:, :, 18:] + parts[1][:, :, :14]) / 2, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(slid[:, :, 32:], parts[1][:, :, 14:], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("side", "expected"), [(30, [0]), (31, [0, 1]), (51, [0, 20, 21]), (72, [0, 20, 40, 42])])
def test_windows_cover_a_side_two_thirds_apart(side, expected):
    assert places(side, 30) == expected


def test_images_may_be_files_bytes_arrays_or_tensors(tmp_path, make_png):
    found, content = model(), make_png((200, 30, 30), size=(40, 24))
    (tmp_path / "a.png").write_bytes(content)
    array = np.full((24, 40, 3), (200, 30, 30), np.uint8)
    expected = found.segment(content)
    for image in (tmp_path / "a.png", array, torch.from_numpy(array).permute(2, 0, 1)):
        np.testing.assert_array_equal(found.segment(image), expected)


def test_it_is_saved_and_read_with_its_classes(tmp_path):
    made = model()
    write_folder(tmp_path / "segmenter", made.network.state_dict(), made.config, recipe={"lr": 1e-3})
    read = catlip_lite.load_segmenter(tmp_path / "segmenter", "cpu")
    assert (read.classes, read.image_size, read.config["recipe"]) == (CLASSES, 32, {"lr": 1e-3})
    np.testing.assert_array_equal(read.logits(picture()), made.logits(picture()))


def test_it_computes_in_bfloat16_nearly_the_same():
    made = model()
    halved = SegmentationModel(segmenter(), made.config, "cpu", "bf16")
    assert np.abs(halved.logits(picture()) - made.logits(picture())).max() < 0.1 * np.abs(made.logits(picture())).max()


# ---------------------------------------------------------------- errors


def test_an_unknown_protocol_is_refused():
    with pytest.raises(ValueError, match="protocol='crop' is unknown: choose one of squash, whole, slide"):
        model().segment(picture(), "crop")


def test_an_image_of_other_channels_is_refused():
    with pytest.raises(ValueError, match="three colours are an array's last axis"):
        model().segment(np.zeros((8, 8, 4), np.uint8))


def test_a_missing_image_is_named():
    with pytest.raises(FileNotFoundError, match="no image at nowhere.png"):
        model().segment("nowhere.png")


def test_a_folder_without_weights_or_of_another_task_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="no finished model of segmentation .*: run notebook 11_segmentation"):
        catlip_lite.load_segmenter(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"")
    (tmp_path / "config.json").write_text('{"classes": ["dog"]}')
    with pytest.raises(ValueError, match="holds no model of segmentation, its config.json has task=None: catlip_lite.load"):
        catlip_lite.load_segmenter(tmp_path)
