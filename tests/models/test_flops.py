"""FLOPs of a ViT are those that PyTorch counts in its operations; peaks are the data sheets'; MFU is their ratio."""

import pytest
import torch
from counting import counted

from catlip_lite.models import create_vit
from catlip_lite.models.flops import forward_flops, mfu, peak_flops, peak_of_name, training_flops
from catlip_lite.models.vit import MODELS, VitShape, build_vit, shape_of

SHAPES = [
    VitShape(64, 2, 1),
    VitShape(192, 3, 3, pooling="avg"),
    VitShape(96, 1, 3, patch=8, stem="overlapping", pooling="token"),
    VitShape(48, 2, 2, patch=8, stem="overlapping", pooling="avg"),
    VitShape(128, 1, 2, patch=4, stem="patches"),
]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("size", [32, 80])
def test_a_forward_pass_costs_what_pytorch_counts(shape, size):
    network = build_vit(shape, num_classes=11, image_size=size).eval()
    assert forward_flops(shape, size, 11) == counted(network, torch.rand(1, 3, size, size))


@pytest.mark.parametrize("name", ["vit_b16", "vit_l16", "vit_h16"])
@pytest.mark.parametrize("size", [224, 320])
def test_the_papers_models_cost_what_pytorch_counts(name, size):
    with torch.device("meta"):
        network, images = create_vit(name, num_classes=24_320).eval(), torch.empty(1, 3, size, size)
    assert forward_flops(name, size, 24_320) == counted(network, images)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_training_costs_three_forward_passes_less_the_gradient_of_the_pixels(shape):
    network = build_vit(shape, num_classes=11, image_size=32)
    first = next(module for module in network.modules() if isinstance(module, torch.nn.Conv2d))
    outputs = first(torch.rand(1, 3, 32, 32)).numel()
    pixels = 2 * outputs * first.weight[0].numel()  # nobody asks for it, so PyTorch does not compute it
    images = torch.rand(2, 3, 32, 32)
    assert counted(network, images, backward=True) == 2 * (training_flops(shape, 32, 11) - pixels)


@pytest.mark.parametrize(
    ("stem", "classes", "gigaflop"),
    [("patches", 24_320, 105.490), ("patches", 1000, 105.383), ("reference", 24_320, 106.357), ("reference", 1000, 106.250)],
)
def test_a_training_image_of_b16(stem, classes, gigaflop):
    shape = VitShape(768, 12, 12, stem=stem)
    assert training_flops(shape, 224, classes) / 1e9 == pytest.approx(gigaflop, abs=5e-4)


def test_half_the_tokens_make_half_the_projections_and_the_same_stem():
    shape = VitShape(64, 3, 1, stem="patches", pooling="avg")
    stem, tokens = 2 * 64 * 64 * 3 * 64, 8  # of 16
    blocks = 3 * 2 * (tokens * 12 * 64**2 + 2 * tokens**2 * 64)
    assert forward_flops(shape, 64, 0, keep_tokens=0.5) == stem + blocks


def test_a_network_knows_its_classes_and_a_shape_does_not():
    network = create_vit("vit_nano8", num_classes=7, image_size=16)
    assert forward_flops(network, 16) == forward_flops("vit_nano8", 16, 7)
    with pytest.raises(ValueError, match="num_classes is missing"):
        forward_flops("vit_nano8", 16)


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        (("vit_xx", 224, 5), "model='vit_xx' is unknown: choose one of vit_nano8"),
        (("vit_b16", 230, 5), "image_size=230 is no multiple of the patch, 16"),
        (("vit_b16", 224, 5, 0), "keep_tokens=0 is a share of the patch tokens"),
        ((torch.nn.Linear(1, 1), 224, 5), "Linear is no ViT of create_vit: pass the bare network"),
    ],
    ids=["name", "size", "share", "network"],
)
def test_what_has_no_cost_is_refused(asked, message):
    with pytest.raises(ValueError, match=message):
        forward_flops(*asked)


@pytest.mark.parametrize("shape", [*SHAPES, MODELS["vit_b16"]], ids=str)
def test_a_network_tells_its_shape(shape):
    with torch.device("meta"):
        assert shape_of(build_vit(shape, num_classes=3, image_size=32)) == shape


# ---------------------------------------------------------------- devices


@pytest.mark.parametrize(
    ("name", "teraflops"),
    [
        ("NVIDIA H100 80GB HBM3", 989),
        ("NVIDIA H200", 989),
        ("NVIDIA GH200 480GB", 989),
        ("NVIDIA H100 PCIe", 756),
        ("NVIDIA H100 NVL", 835),
        ("NVIDIA H200 NVL", 835),
        ("NVIDIA B200", 2250),
        ("NVIDIA GB200", 2500),
        ("NVIDIA A100-SXM4-80GB", 312),
        ("NVIDIA A100 80GB PCIe", 312),
        ("NVIDIA A10", 125),
        ("NVIDIA L4", 121),
        ("NVIDIA L40S", 362),
        ("NVIDIA L40", 181),
        ("NVIDIA GeForce RTX 4090", 165.2),
        ("AMD Instinct MI300X", 1307),
    ],
)
def test_peaks_in_bf16_are_the_data_sheets(name, teraflops):
    assert peak_of_name(name) == teraflops * 1e12


@pytest.mark.parametrize(
    "name",
    ["NVIDIA A10G", "NVIDIA GeForce RTX 4090 Laptop GPU", "NVIDIA H100 80GB HBM3 MIG 1g.10gb", "NVIDIA A1000", "Apple M2"],
)
def test_other_devices_have_no_known_peak(name):
    assert peak_of_name(name) is None


def test_float32_is_measured_against_tf32():
    assert peak_of_name("NVIDIA A100-SXM4-40GB", torch.float32) == 156e12


def test_a_cpu_has_no_known_peak_and_so_no_mfu():
    assert peak_flops("cpu") is None
    assert mfu(100.0, 1e9, devices=1, peak=peak_flops("cpu")) is None


def test_mfu_is_the_share_of_all_devices_peak():
    assert mfu(images_per_second=1000, flops_per_image=100e9, devices=4, peak=100e12) == 0.25
