"""A detector: the reference's size, losses of images with and without objects, and objects found in an image's own pixels."""

import numpy as np
import pytest
import torch
from counting import counted
from PIL import Image

import catlip_lite
from catlip_lite.models import create_vit
from catlip_lite.models.dense import DenseViT
from catlip_lite.models.detector import (
    DetectionHeads,
    DetectionModel,
    PyramidBackbone,
    create_detector,
    detector_config,
)
from catlip_lite.models.pretrained import write_folder
from catlip_lite.models.vit import MODELS

CLASSES = ["apple", "dog", "cat"]
BACKBONE = {"model": "vit_nano8", "stem": None, "pooling": None}
OPTIONS = {"image_size": 64, "channels": 16}


def detector(size=64) -> tuple[PyramidBackbone, DetectionHeads]:
    torch.manual_seed(0)
    return create_detector(create_vit("vit_nano8", 5, 32), len(CLASSES), size, channels=16, proposals=64)


def model(**options) -> DetectionModel:
    network, heads = detector()
    return DetectionModel(network, heads, detector_config(BACKBONE, CLASSES, **OPTIONS, **options), "cpu")


def scene(size=64):
    """Two images: two rectangles in the first, none in the second; indices, rows, boxes, masks of the first, and weights."""
    images = torch.full((2, 3, size, size), 0.1)
    boxes = torch.tensor([[4.0, 8.0, 36.0, 40.0], [40.0, 12.0, 60.0, 56.0]])
    masks = torch.zeros(2, size, size, dtype=torch.uint8)
    for i, (left, top, right, bottom) in enumerate(boxes.int().tolist()):
        images[0, i, top:bottom, left:right] = 1.0
        masks[i, top:bottom, left:right] = 1
    return images, (torch.tensor([0, 2]), torch.tensor([0, 0]), boxes, masks, torch.ones(2))


def trained(images, objects, steps):
    """A detector after some steps on a few images."""
    network, heads = detector()
    optimiser = torch.optim.AdamW([*network.parameters(), *heads.parameters()], lr=2e-3)
    for _ in range(steps):
        loss = heads(network(images), *objects[:-1], torch.ones(len(images)))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    return network, heads


# ---------------------------------------------------------------- the networks


def test_vit_b16_with_80_classes_has_the_references_parameters():
    with torch.device("meta"):
        network = PyramidBackbone(DenseViT(MODELS["vit_b16"], 1024))
        heads = DetectionHeads(80, network.strides, 1024)
        positions = (64**2 - 14**2) * 768  # stored for 1,024 pixels, not 224
    found = sum(p.numel() for part in (network, heads) for p in part.parameters())
    assert found - positions == 111_559_099 - 6  # RangeAugment's six are the learner's here


def test_vit_b16_at_1024_pixels_has_maps_of_strides_4_to_64():
    with torch.device("meta"):
        network = PyramidBackbone(DenseViT(MODELS["vit_b16"], 1024))
        maps = network(torch.empty(1, 3, 1024, 1024))
    assert network.strides == [4, 8, 16, 32, 64]
    assert {name: found.shape for name, found in maps.items()} == {str(i): (1, 256, 256 >> i, 256 >> i) for i in range(5)}


def test_anchors_are_the_papers_at_1024_pixels_and_at_least_two_strides():
    def sizes(size, patch):
        heads = DetectionHeads(1, [patch * 2**i // 4 for i in range(5)], size, channels=8)
        return [side for (side,) in heads.rpn.anchor_generator.sizes]

    assert sizes(1024, 16) == [32, 64, 128, 256, 512]
    assert sizes(512, 16) == [16, 32, 64, 128, 256]
    assert sizes(64, 8) == [4, 8, 16, 32, 64]


def test_anchors_are_a_stride_apart_where_maps_have_odd_sides():
    network, heads = detector()
    maps = network(torch.rand(1, 3, 72, 40))
    assert [tuple(found.shape[2:]) for found in maps.values()] == [(36, 20), (18, 10), (9, 5), (4, 2), (2, 1)]
    _, images = heads._inputs(maps, None)
    assert images.image_sizes == [(72, 40)]
    (anchors,) = heads.rpn.anchor_generator(images, list(maps.values()))
    coarsest = anchors[-6:].view(2, 3, 4)
    assert (coarsest[1] - coarsest[0]).tolist() == [[0, 32, 0, 32]] * 3


def test_a_box_is_pooled_from_the_map_that_fits_it_even_in_a_padded_image():
    _, heads = detector()
    pool = heads.roi_heads.box_roi_pool
    assert pool.scales == [1 / 2, 1 / 4, 1 / 8, 1 / 16, 1 / 32]
    boxes = torch.tensor([[0.0, 0, 30, 30], [0, 0, 60, 60], [0, 0, 120, 120], [0, 0, 230, 230], [0, 0, 900, 900]])
    assert pool.map_levels([boxes]).tolist() == [0, 1, 2, 3, 4]


def test_the_maps_cost_what_pytorch_counts():
    network, _ = detector()
    assert network.forward_flops(64) == counted(network.eval(), torch.rand(1, 3, 64, 64))


# ---------------------------------------------------------------- losses


def test_nothing_is_learnt_from_an_image_that_could_not_be_used():
    images, objects = scene()
    network, heads = detector()
    network.eval()  # else the stem's batch norms see it
    torch.manual_seed(0)
    alone = heads(network(images[:1]), *objects[:-1], torch.ones(1))
    weights = torch.tensor([1.0, 0.0])
    torch.manual_seed(0)
    beside = heads(network(images), *objects[:-1], weights)
    assert ((beside * weights).sum() / 2).item() == pytest.approx(alone.item(), rel=1e-5)  # as the learner weighs it
    none = heads(network(images), *objects[:-1], torch.zeros(2))
    (none * torch.zeros(2)).sum().backward()
    assert all(p.grad is not None for part in (network, heads) for p in part.parameters())  # as DDP wants it


def test_images_without_objects_are_background():
    network, heads = detector()
    nothing = torch.zeros(0, dtype=torch.long), torch.zeros(0, dtype=torch.long), torch.zeros(0, 4)
    masks = torch.zeros(0, 64, 64, dtype=torch.uint8)
    loss = heads(network(torch.rand(2, 3, 64, 64)), *nothing, masks, torch.ones(2))
    loss.backward()
    assert loss > 0
    assert not heads.roi_heads.mask_predictor[3].weight.grad.any()
    assert all(p.grad is not None for part in (network, heads) for p in part.parameters())  # as DDP wants it


def test_it_computes_in_bfloat16_forth_and_back():
    images, objects = scene()
    network, heads = detector()
    with torch.autocast("cpu", torch.bfloat16):
        loss = heads(network(images), *objects)
        loss.backward()
    torch.manual_seed(0)
    expected = heads(network(images), *objects)
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(expected.item(), rel=0.1)
    assert network.patch_embed.conv1.weight.grad.isfinite().all()


# ---------------------------------------------------------------- a model that finds objects


@pytest.fixture(scope="module")
def taught():
    """A model that has seen one scene often enough to find its objects, and that scene as an image."""
    images, objects = scene()
    network, heads = trained(images[:1], objects, steps=120)
    pixels = (images[0] * 255).round().byte()
    return network, heads, Image.fromarray(pixels.permute(1, 2, 0).numpy())


@pytest.mark.parametrize("width", [64, 128], ids=["square", "stretched"])
def test_objects_are_found_in_the_images_own_pixels(taught, width):
    network, heads, image = taught
    found = DetectionModel(network, heads, detector_config(BACKBONE, CLASSES, **OPTIONS), "cpu").detect(
        image.resize((width, 64), Image.Resampling.NEAREST)
    )
    assert set(found["labels"]) == {"apple", "cat"}
    for name, box in (("apple", [4, 8, 36, 40]), ("cat", [40, 12, 60, 56])):
        best, expected = found["labels"].index(name), np.array(box) * np.tile([width // 64, 1], 2)
        np.testing.assert_allclose(found["boxes"][best], expected, atol=5 * width // 64)
        left, top, right, bottom = expected
        within = np.zeros((64, width), bool)
        within[top:bottom, left:right] = True
        assert (found["masks"][best] & within).sum() / (found["masks"][best] | within).sum() > 0.7


@torch.no_grad()
def test_an_image_that_keeps_its_aspect_is_seen_above_a_black_border(taught):
    network, heads, image = taught
    small = image.crop((0, 0, 64, 40)).resize((32, 20), Image.Resampling.NEAREST)
    config = detector_config(BACKBONE, CLASSES, **OPTIONS, protocol="keep")
    found = DetectionModel(network, heads, config, "cpu").detect(small, least_score=0.0)
    pixels = torch.zeros(1, 3, 64, 64)
    pixels[0, :, :40] = torch.from_numpy(np.array(small.resize((64, 40), Image.Resampling.BILINEAR))).permute(2, 0, 1) / 255
    (expected,) = heads.detect(network(pixels), [(40, 64)])
    np.testing.assert_allclose(found["boxes"], expected["boxes"] / 2, rtol=1e-5)
    assert found["boxes"][:, 3].max() <= 20
    assert found["masks"].shape[1:] == (20, 32)


def test_objects_are_told_best_first_and_down_to_a_score():
    found, image = model(), Image.new("RGB", (40, 30), "red")
    everything = found.detect(image, least_score=0.0)
    scores = everything["scores"]
    assert 0 < len(scores) <= 100
    assert (np.diff(scores) <= 0).all() and scores.min() > 0.05
    assert {name: part.dtype for name, part in everything.items() if name != "labels"} == {
        "boxes": np.float32, "class_indices": np.int64, "scores": np.float32, "masks": np.bool_,
    }  # fmt: skip
    assert everything["labels"] == [CLASSES[i] for i in everything["class_indices"]]
    middle = float(np.median(scores))
    assert len(found.detect(image, least_score=middle)["labels"]) == (scores >= middle).sum()


def test_where_nothing_is_found_there_are_no_boxes_and_no_masks():
    found = model().detect(Image.new("RGB", (40, 30), "red"), least_score=1.1)
    assert found["labels"] == []
    assert (found["boxes"].shape, found["masks"].shape) == ((0, 4), (0, 30, 40))


def test_it_is_saved_and_read_with_its_classes(tmp_path):
    made, image = model(protocol="keep"), Image.new("RGB", (40, 30), "red")
    state = {**made.network.state_dict(), **made.heads.state_dict()}
    assert len(state) == len(made.network.state_dict()) + len(made.heads.state_dict())
    write_folder(tmp_path / "detector", state, made.config, recipe={"lr": 1e-3})
    read = catlip_lite.load_detector(tmp_path / "detector", "cpu")
    assert (read.classes, read.image_size, read.config["protocol"]) == (CLASSES, 64, "keep")
    found, expected = (it.detect(image, least_score=0.05) for it in (read, made))
    assert found["labels"] == expected["labels"]
    for name in ("boxes", "scores", "masks"):
        np.testing.assert_array_equal(found[name], expected[name])


def test_it_finds_the_same_objects_in_bfloat16(taught):
    network, heads, image = taught
    config = detector_config(BACKBONE, CLASSES, **OPTIONS)
    expected, found = (DetectionModel(network, heads, config, "cpu", how).detect(image) for how in ("fp32", "bf16"))
    for name in ("apple", "cat"):
        boxes = [objects["boxes"][objects["labels"].index(name)] for objects in (found, expected)]
        np.testing.assert_allclose(*boxes, atol=5)


# ---------------------------------------------------------------- errors


def test_an_unknown_protocol_is_refused():
    with pytest.raises(ValueError, match="protocol='crop' is unknown: choose one of squash, keep"):
        detector_config(BACKBONE, CLASSES, **OPTIONS, protocol="crop")


def test_an_image_of_other_channels_is_refused():
    with pytest.raises(ValueError, match="three colours are an array's last axis"):
        model().detect(np.zeros((8, 8, 1), np.uint8))


def test_a_folder_without_weights_or_of_another_task_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="no finished model of detection .*: run notebook 12_detection"):
        catlip_lite.load_detector(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"")
    (tmp_path / "config.json").write_text('{"task": "segmentation"}')
    with pytest.raises(ValueError, match="holds no model of detection, its config.json has task='segmentation'"):
        catlip_lite.load_detector(tmp_path)
