"""The reference's state dicts give the reference's logits; held against a second implementation that shares no code."""

import pickle
import re

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from corenet_checkpoints import CLASSES, SIDE, checkpoint
from safetensors.torch import save_file

import catlip_lite
from catlip_lite.labels import Vocabulary
from catlip_lite.models import MODELS, corenet_state_dict, create_vit, load_corenet, save_pretrained
from catlip_lite.models.corenet import shape_of_corenet

# ---------------------------------------------------------------- the second implementation


def layer_norm(x, weight, bias):
    """Over channels, eps 1e-6."""
    centred = x - x.mean(-1, keepdim=True)
    return centred / (centred.square().mean(-1, keepdim=True) + 1e-6).sqrt() * weight + bias


def gelu(x):
    """The exact one."""
    return x * 0.5 * (1 + torch.erf(x / 2**0.5))


def attention(x, state, name):
    """Heads of 64 channels; queries, keys and values from one projection, in this order."""
    batch, tokens, width = x.shape
    qkv = x @ state[f"{name}.qkv_proj.weight"].T + state[f"{name}.qkv_proj.bias"]
    q, k, v = (part.reshape(batch, tokens, width // 64, 64).transpose(1, 2) for part in qkv.split(width, dim=-1))
    mixed = ((q @ k.transpose(-2, -1)) / 8).softmax(dim=-1) @ v
    joined = mixed.transpose(1, 2).reshape(batch, tokens, width)
    return joined @ state[f"{name}.out_proj_attn.weight"].T + state[f"{name}.out_proj_attn.bias"]


def stem(images, state, first_stride=4):
    """Three convolutions, the first padded by one pixel; the first two with BatchNorm and GELU: [B, N, D]."""
    x = images
    for i, (stride, padding) in enumerate([(first_stride, 1), (2, 0)]):
        x = F.conv2d(x, state[f"patch_emb.{i}.block.conv.weight"], stride=stride, padding=padding)
        weight, bias, mean, var = (
            state[f"patch_emb.{i}.block.norm.{part}"][:, None, None]
            for part in ("weight", "bias", "running_mean", "running_var")
        )
        x = gelu((x - mean) / (var + 1e-5).sqrt() * weight + bias)
    x = F.conv2d(x, state["patch_emb.2.block.conv.weight"], state["patch_emb.2.block.conv.bias"], stride=2)
    return x.flatten(2).transpose(1, 2)


def along_the_raster(stored, tokens):
    """[N, D] -> [tokens, D], channel by channel: linear between the centres of N equal steps, constant beyond the ends."""
    rows = len(stored)
    at = (np.arange(tokens) + 0.5) * rows / tokens - 0.5
    columns = [np.interp(at, np.arange(rows), column) for column in stored.numpy().T]
    return torch.from_numpy(np.stack(columns, axis=1)).to(stored.dtype)


def reference_tokens(state, images, first_stride=4):
    """The reference's tokens after the last norm, of a state dict of its names: [B, N, D]."""
    x = stem(images, state, first_stride)
    positions = state["pos_embed.pos_embed.pos_embed"][0, 0]
    x = x + (positions if len(positions) == x.shape[1] else along_the_raster(positions, x.shape[1]))
    if "cls_token" in state:
        x = torch.cat([state["cls_token"].expand(len(x), 1, -1), x], dim=1)
    depth = len({name.split(".")[1] for name in state if name.startswith("transformer.")})
    for i in range(depth):
        mha, ffn = f"transformer.{i}.pre_norm_mha", f"transformer.{i}.pre_norm_ffn"
        normed = layer_norm(x, state[f"{mha}.0.weight"], state[f"{mha}.0.bias"])
        x = x + attention(normed, state, f"{mha}.1")
        normed = layer_norm(x, state[f"{ffn}.0.weight"], state[f"{ffn}.0.bias"])
        hidden = gelu(normed @ state[f"{ffn}.1.weight"].T + state[f"{ffn}.1.bias"])
        x = x + hidden @ state[f"{ffn}.4.weight"].T + state[f"{ffn}.4.bias"]
    return layer_norm(x, state["post_transformer_norm.weight"], state["post_transformer_norm.bias"])


def reference_logits(state, images):
    """The reference's forward pass on a state dict of its names, in the dtype of `images`: [B, classes]."""
    state = {name: value.to(images.dtype) for name, value in state.items()}
    x = reference_tokens(state, images)
    seen = x[:, 0] if "cls_token" in state else x.mean(dim=1)
    return seen @ state["classifier.weight"].T + state["classifier.bias"]


def pictures(size, dtype=torch.float64):
    return torch.rand(2, 3, size, size, generator=torch.Generator().manual_seed(1), dtype=dtype)


# ---------------------------------------------------------------- logits


@torch.no_grad()
@pytest.mark.parametrize("cls_token", [True, False], ids=["cls", "mean"])
@pytest.mark.parametrize(("width", "depth"), [(64, 1), (128, 2), (192, 3)])
def test_logits_are_the_references_at_the_stored_size(width, depth, cls_token):
    state = checkpoint(width, depth, cls_token)
    images = pictures(16 * SIDE)
    model = load_corenet(state, 16 * SIDE).double()
    torch.testing.assert_close(model(images), reference_logits(state, images), rtol=0, atol=1e-12)


@torch.no_grad()
@pytest.mark.parametrize("size", [16, 32, 64, 112])
def test_logits_are_the_references_at_other_sizes_with_its_positions(size):
    state = checkpoint()
    images = pictures(size)
    model = load_corenet(state, size, positions="reference").double()
    torch.testing.assert_close(model(images), reference_logits(state, images), rtol=0, atol=1e-6)


@torch.no_grad()
def test_float32_costs_less_than_1e_5():
    state = checkpoint(192, 3)
    images = pictures(16 * SIDE, torch.float32)
    expected = reference_logits(state, images.double()).float()
    torch.testing.assert_close(load_corenet(state, 16 * SIDE)(images), expected, rtol=0, atol=1e-5)


# ---------------------------------------------------------------- positions


@torch.no_grad()
def test_positions_in_two_dimensions_are_those_the_network_takes_for_that_size_by_itself():
    state = checkpoint()
    images = pictures(96, torch.float32)
    torch.testing.assert_close(load_corenet(state, 96)(images), load_corenet(state, 48)(images))


def test_positions_in_two_dimensions_keep_a_row_constant_along_its_columns():
    state = checkpoint()
    rows = torch.arange(SIDE).repeat_interleave(SIDE).float()
    state["pos_embed.pos_embed.pos_embed"] = rows.reshape(1, 1, -1, 1).expand(1, 1, -1, 128)
    grid = load_corenet(state, 96).pos_embed.reshape(6, 6, 128)
    torch.testing.assert_close(grid, grid[:, :1].expand(6, 6, 128))


def test_positions_of_the_reference_run_over_the_ends_of_rows():
    state = checkpoint()
    columns = torch.arange(SIDE).repeat(SIDE).float()
    state["pos_embed.pos_embed.pos_embed"] = columns.reshape(1, 1, -1, 1).expand(1, 1, -1, 128)
    grid = load_corenet(state, 96, positions="reference").pos_embed.reshape(6, 6, 128)
    assert not torch.allclose(grid, grid[:1].expand(6, 6, 128))


@pytest.mark.parametrize("positions", ["2d", "reference"])
def test_positions_at_the_stored_size_are_kept_to_the_bit(positions):
    state = checkpoint()
    model = load_corenet(state, 16 * SIDE, positions=positions)
    assert torch.equal(model.pos_embed, state["pos_embed.pos_embed.pos_embed"][0])


# ---------------------------------------------------------------- names and shapes


@pytest.mark.parametrize("name", ["vit_b16", "vit_l16", "vit_h16"])
def test_published_models_are_known_by_their_shapes(name):
    with torch.device("meta"):
        state = corenet_state_dict(create_vit(name, num_classes=CLASSES))
    assert shape_of_corenet(state) == MODELS[name]


@pytest.mark.parametrize(("name", "entries"), [("vit_b16", 170), ("vit_l16", 314), ("vit_h16", 410)])
def test_published_files_have_so_many_entries_six_of_them_the_augmentations(name, entries):
    with torch.device("meta"):
        assert len(corenet_state_dict(create_vit(name, num_classes=CLASSES))) + 6 == entries


@pytest.mark.parametrize("cls_token", [True, False], ids=["cls", "mean"])
def test_a_round_trip_is_exact(cls_token):
    state = checkpoint(cls_token=cls_token)
    back = corenet_state_dict(load_corenet(state, 16 * SIDE))
    kept = {name: value for name, value in state.items() if not name.startswith("neural_augmentor.")}
    assert back.keys() == kept.keys()
    assert all(torch.equal(back[name], value) for name, value in kept.items())


@torch.no_grad()
def test_a_classifiers_head_is_loaded_with_as_many_classes_as_it_has():
    state, images = checkpoint(width=64, depth=1, classes=1000), pictures(16 * SIDE, torch.float32)
    model = load_corenet(state, 16 * SIDE)
    assert model.num_classes == 1000
    torch.testing.assert_close(model(images), reference_logits(state, images), rtol=0, atol=1e-5)


def test_weights_in_half_precision_become_float32():
    state = {name: value.half() if value.is_floating_point() else value for name, value in checkpoint().items()}
    assert {p.dtype for p in load_corenet(state, 96).parameters()} == {torch.float32}


def test_another_stem_has_no_names_in_the_reference():
    with pytest.raises(ValueError, match="create it with stem='reference'"):
        corenet_state_dict(create_vit("vit_nano8", num_classes=CLASSES, image_size=16))


# ---------------------------------------------------------------- files


@pytest.mark.parametrize(("name", "save"), [("vit.pt", torch.save), ("vit.safetensors", save_file)])
def test_files_give_the_same_network_as_their_dict(tmp_path, name, save):
    state = checkpoint()
    save(state, tmp_path / name)
    found, expected = load_corenet(tmp_path / name, 48).state_dict(), load_corenet(state, 48).state_dict()
    assert all(torch.equal(found[tensor], value) for tensor, value in expected.items())


@pytest.mark.parametrize("name", ["vit.pt", "vit.safetensors"])
def test_a_file_of_something_else_is_refused_in_one_line(tmp_path, name):
    (tmp_path / name).write_text("<html>404</html>")
    with pytest.raises(ValueError, match=rf"{name} is no file of a state dict: [^\n]+$"):
        load_corenet(tmp_path / name)


def test_a_file_that_would_run_code_is_refused(tmp_path):
    torch.save({"classifier.weight": re.compile}, tmp_path / "vit.pt")
    with pytest.raises(ValueError, match=r"vit.pt is no file of a state dict: [^\n]+$"):
        load_corenet(tmp_path / "vit.pt")


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="no checkpoint at .*vit.pt"):
        load_corenet(tmp_path / "vit.pt")


def test_a_dict_around_the_state_dict_is_refused(tmp_path):
    with pytest.raises(ValueError, match="'epoch' is of type int: pass the dict of tensors itself"):
        load_corenet({"epoch": 3, "model": checkpoint()})


def test_a_tensor_is_no_state_dict(tmp_path):
    torch.save(torch.zeros(3), tmp_path / "vit.pt")
    with pytest.raises(ValueError, match="vit.pt is no state dict: it is a Tensor"):
        load_corenet(tmp_path / "vit.pt")


# ---------------------------------------------------------------- errors


def test_a_missing_tensor_is_named():
    state = checkpoint()
    del state["transformer.1.pre_norm_ffn.4.bias"]
    with pytest.raises(ValueError, match="missing: transformer.1.pre_norm_ffn.4.bias$"):
        load_corenet(state)


def test_an_unexpected_tensor_is_named():
    with pytest.raises(ValueError, match="unexpected: seg_head.weight$"):
        load_corenet(checkpoint() | {"seg_head.weight": torch.zeros(1)})


@pytest.mark.parametrize(
    ("prefix", "head", "task"),
    [
        ("encoder.", "seg_head.classifier.weight", "segmentation"),
        ("m_rcnn_model.backbone.", "m_rcnn_model.rpn", "detection"),
        ("model.backbone.encoder.", "model.rpn", "detection"),
    ],
)
def test_a_dense_tasks_checkpoint_is_refused_with_what_to_pass_instead(prefix, head, task):
    backbone = {
        f"{prefix}{name}": value for name, value in checkpoint(64, 1, cls_token=False).items() if "classifier" not in name
    }
    with pytest.raises(ValueError, match=rf"a {task} model \({prefix}.*no classifier: pass the pre-trained model's"):
        load_corenet(backbone | {head: torch.zeros(1)})


def test_of_many_missing_tensors_eight_are_named():
    with pytest.raises(ValueError, match="missing: .*patch_emb.1.block.conv.weight and 23 more$"):
        load_corenet({"cls_token": torch.zeros(1, 1, 64)})


def test_a_tensor_of_another_shape_is_named_with_both_shapes():
    state = checkpoint() | {"transformer.0.pre_norm_ffn.1.weight": torch.zeros(256, 128)}
    with pytest.raises(ValueError, match=r"pre_norm_ffn.1.weight has shape \(256, 128\): .* 128 has \(512, 128\)"):
        load_corenet(state, 48)


def test_positions_must_be_those_of_a_square():
    state = checkpoint() | {"pos_embed.pos_embed.pos_embed": torch.zeros(1, 1, 8, 128)}
    with pytest.raises(ValueError, match=r"pos_embed has shape \(1, 1, 8, 128\): expected .* a square grid"):
        load_corenet(state)


def test_a_width_of_no_whole_heads_is_refused():
    with pytest.raises(ValueError, match="width 96 is no multiple of 64"):
        load_corenet(checkpoint(width=96))


def test_a_size_that_the_patch_does_not_divide_is_refused_before_the_file_is_read():
    with pytest.raises(ValueError, match="image_size=230 is no multiple of the patch, 16: choose 224 or 240"):
        load_corenet("no/such.pt", 230)


def test_unknown_positions_list_the_known_ones():
    with pytest.raises(ValueError, match="positions='1d' is unknown: choose one of 2d, reference"):
        load_corenet(checkpoint(), positions="1d")


# ---------------------------------------------------------------- with a vocabulary


@pytest.fixture
def published(tmp_path):
    """A checkpoint of ViT-Ti's shape with four classes, and their vocabulary, as the reference would publish them."""
    torch.save(checkpoint(192, 12, classes=4), tmp_path / "vit.pt")
    counts = {"n7739125": 6, "n2084071": 5, "n2121620": 4, "n12352287": 3}
    (tmp_path / "vocab.pkl").write_bytes(pickle.dumps(counts))
    return load_corenet(tmp_path / "vit.pt", 48), Vocabulary.load_corenet(tmp_path / "vocab.pkl", num_captions=24)


@pytest.fixture
def folder(tmp_path, published):
    """Both as one folder of this project."""
    network, vocabulary = published
    return save_pretrained(tmp_path / "pretrain", network.state_dict(), vocabulary, model="vit_ti16", image_size=48)


@torch.no_grad()
def test_a_published_model_comes_back_from_its_folder_with_the_same_logits(folder, published, make_png):
    model = catlip_lite.load(folder)
    _, logits = model.outputs(make_png())
    expected = published[0](model.views(make_png()).float() / 255)
    np.testing.assert_allclose(logits, expected, atol=1e-5)


def test_a_published_model_tags_with_its_vocabularys_names(folder, make_png):
    tags = catlip_lite.load(folder).tag(make_png(), top_k=4)
    assert {wnid for _, wnid, _ in tags} == {"n07739125", "n02084071", "n02121620", "n12352287"}
