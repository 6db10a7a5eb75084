"""A pre-trained ViT as a feature map: the same tokens, windows as ViTDet's, and costs as PyTorch counts them."""

import pytest
import torch
import torch.nn.functional as F
from counting import counted
from timm.models.vision_transformer import VisionTransformer

from catlip_lite.models import create_vit
from catlip_lite.models.dense import DenseViT, dense_vit
from catlip_lite.models.flops import forward_flops
from catlip_lite.models.vit import MODELS, VitShape, build_vit

TINY = VitShape(48, 4, 3, patch=8, stem="overlapping", pooling="avg")
SHAPES = [TINY, VitShape(64, 2, 1), VitShape(32, 2, 2, patch=8, stem="patches", pooling="avg")]


def pictures(height=32, width=32, count=2):
    return torch.rand(count, 3, height, width, generator=torch.Generator().manual_seed(1))


def pretrained(shape=TINY, size=32):
    torch.manual_seed(0)
    return build_vit(shape, num_classes=5, image_size=size).eval()


# ---------------------------------------------------------------- the map


@torch.no_grad()
@pytest.mark.parametrize(("height", "width"), [(32, 32), (64, 40)])
@pytest.mark.parametrize("stem", ["overlapping", "patches"])
def test_without_a_cls_token_the_map_is_the_pretrained_networks_tokens(stem, height, width):
    network = pretrained(VitShape(48, 2, 3, patch=8, stem=stem, pooling="avg"))
    images = pictures(height, width)
    expected = network.forward_features(images).transpose(1, 2).reshape(2, 48, height // 8, width // 8)
    torch.testing.assert_close(dense_vit(network, 32).eval()(images), expected)


@torch.no_grad()
def test_positions_are_resampled_once_for_another_size():
    network, images = pretrained(), pictures(64, 64)
    expected = network.forward_features(images).transpose(1, 2).reshape(2, 48, 8, 8)
    found = dense_vit(network, 64).eval()
    assert found.vit.pos_embed.shape == (1, 64, 48)
    torch.testing.assert_close(found(images), expected)


def test_the_cls_token_and_the_head_are_left_behind_and_the_network_as_it_was():
    network = pretrained(VitShape(64, 2, 1))
    before = {name: value.clone() for name, value in network.state_dict().items()}
    found = dense_vit(network, 64)
    assert set(before) - set(found.vit.state_dict()) == {"cls_token", "head.weight", "head.bias"}
    torch.nn.init.zeros_(found.vit.norm.weight)
    assert all(torch.equal(before[name], value) for name, value in network.state_dict().items())


@torch.no_grad()
@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: shape.stem)
def test_at_half_the_stride_there_are_four_times_the_tokens(shape):
    found = dense_vit(pretrained(shape), 64, output_stride=shape.patch // 2).eval()
    assert found(pictures(64, 32)).shape == (2, shape.width, 2 * 64 // shape.patch, 2 * 32 // shape.patch)
    assert found.vit.pos_embed.shape[1] == (2 * 64 // shape.patch) ** 2


@torch.no_grad()
def test_at_half_the_stride_every_other_patch_is_one_of_the_image_a_quarter_patch_further():
    network, images = pretrained(VitShape(32, 2, 2, patch=8, stem="patches", pooling="avg")), pictures(64, 64)
    halved = dense_vit(network, 64, output_stride=4).patch_embed(images)
    shifted = F.pad(images, (2, 0, 2, 0))[..., :64, :64]
    torch.testing.assert_close(halved[:, ::2, ::2], network.patch_embed(shifted))


def test_timms_own_vit_has_positions_for_its_cls_token_left_out():
    network = VisionTransformer(img_size=32, patch_size=8, embed_dim=48, depth=2, num_heads=3, num_classes=5)
    found = dense_vit(network, 32)
    torch.testing.assert_close(found.vit.pos_embed, network.pos_embed[:, 1:])


# ---------------------------------------------------------------- windows


@torch.no_grad()
@pytest.mark.parametrize("windows", [4, 6], ids=["whole", "padded"])
def test_a_window_that_covers_the_map_sees_all_of_it(windows):
    network, images = pretrained(), pictures()
    everywhere = dense_vit(network, 32).eval()
    windowed = dense_vit(network, 32, windows=windows).eval()
    assert [block.attn.windows for block in windowed.blocks] == [windows] * 3 + [0]
    if windows == 4:
        torch.testing.assert_close(windowed(images), everywhere(images))
    else:  # zeros beyond the border are tokens, too, as in ViTDet
        assert not torch.allclose(windowed(images), everywhere(images))


@torch.no_grad()
def test_a_windowed_block_sees_nothing_outside_its_window():
    block = DenseViT(TINY, 32, windows=2).eval().blocks[0]
    tokens = torch.rand(1, 5, 4, 48)
    other = tokens.clone()
    other[:, 2, 1] += 1.0  # in the window of rows 2 and 3, columns 0 and 1
    changed = (block(tokens) != block(other)).any(dim=-1)[0]
    assert changed.nonzero().tolist() == [[2, 0], [2, 1], [3, 0], [3, 1]]


def test_blocks_that_see_everything_are_evenly_spaced_with_the_last_among_them():
    with torch.device("meta"):
        for name, expected in {"vit_b16": [2, 5, 8, 11], "vit_l16": [5, 11, 17, 23]}.items():
            blocks = DenseViT(MODELS[name], 64, windows=14).blocks
            assert [i for i, block in enumerate(blocks) if not block.attn.windows] == expected


# ---------------------------------------------------------------- training and costs


def test_checkpointed_activations_give_the_same_gradients():
    found, images, gradients = dense_vit(pretrained(), 32, windows=2), pictures(), []
    for enable in (False, True):
        found.set_grad_checkpointing(enable)
        found.zero_grad()
        found(images).square().sum().backward()
        gradients.append(found.blocks[0].attn.qkv.weight.grad.clone())
    torch.testing.assert_close(*gradients)


def test_a_frozen_map_stays_as_it_is_in_training_its_batch_norms_included():
    found = dense_vit(pretrained(), 32, drop_path=0.5)
    found.freeze()
    before = {name: value.clone() for name, value in found.state_dict().items()}
    first, second = (found.train()(pictures()) for _ in range(2))
    assert torch.equal(first, second) and not first.requires_grad
    assert all(torch.equal(before[name], value) for name, value in found.state_dict().items())


@pytest.mark.parametrize("windows", [None, 2, 3, 5])
@pytest.mark.parametrize("half", [1, 2])
@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: shape.stem)
def test_a_forward_pass_costs_what_pytorch_counts(shape, half, windows):
    found = DenseViT(shape, 32, output_stride=shape.patch // half, windows=windows).eval()
    assert found.forward_flops(32) == counted(found, pictures(count=1))


def test_the_papers_backbones_cost_what_pytorch_counts():
    with torch.device("meta"):
        found, images = DenseViT(MODELS["vit_b16"], 1024, windows=14).eval(), torch.empty(1, 3, 1024, 1024)
    assert found.forward_flops(1024) == counted(found, images)


def test_with_global_blocks_alone_it_costs_what_the_vit_does():
    assert DenseViT(TINY, 32).forward_flops(32) == forward_flops(TINY, 32, 0)


# ---------------------------------------------------------------- errors


def test_a_stride_of_neither_the_patch_nor_half_of_it_is_refused():
    with pytest.raises(ValueError, match="output_stride=2 is no stride of this model's tokens: choose 8, the patch, or half"):
        DenseViT(TINY, 32, output_stride=2)


def test_a_size_that_the_patch_does_not_divide_is_refused():
    with pytest.raises(ValueError, match="image_size=36 is no multiple of the patch, 8: choose 32 or 40"):
        dense_vit(pretrained(), 36)


def test_a_network_that_is_no_vit_is_refused():
    with pytest.raises(ValueError, match="Linear is no ViT of create_vit"):
        dense_vit(torch.nn.Linear(1, 1), 32)


def test_a_vit_with_other_parts_is_refused_with_their_names():
    network = VisionTransformer(img_size=32, patch_size=8, embed_dim=48, depth=1, num_heads=3, init_values=1e-5)
    with pytest.raises(ValueError, match=r"other parts than those of create_vit \(blocks.0.ls1.gamma, blocks.0.ls2.gamma\)"):
        dense_vit(network, 32)


@torch.no_grad()
def test_it_computes_in_bfloat16():
    found = dense_vit(create_vit("vit_nano8", 4, 32), 32, output_stride=4, windows=3).eval()
    with torch.autocast("cpu", torch.bfloat16):
        assert found(pictures()).isfinite().all()
