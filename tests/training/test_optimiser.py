"""AdamW and Muon, warm-up and cosine, averaged weights."""

import pytest
import torch
from torch import nn

from catlip_lite.models import create_vit
from catlip_lite.models.detector import create_detector
from catlip_lite.models.segmenter import create_segmenter
from catlip_lite.training.loop import Learner, RunOptions, start_training
from catlip_lite.training.losses import bce
from catlip_lite.training.objectives import create_objective
from catlip_lite.training.optimiser import Ema, Muon, create_adamw, create_optimisers, learning_rate, lr_scale, orthogonalised
from catlip_lite.training.range_augment import RangeAugment
from catlip_lite.training.recipes import recipe_for

SCHEDULE = {"max_steps": 101, "warmup_steps": 20, "lr": 1e-3, "min_lr": 1e-5}


def test_warm_up_starts_at_a_millionth_and_reaches_the_peak():
    assert learning_rate(0, **SCHEDULE) == 1e-6
    assert learning_rate(20, **SCHEDULE) == 1e-3


def test_the_cosine_is_half_way_in_the_middle_and_ends_at_the_least_rate():
    assert abs(learning_rate(60, **SCHEDULE) - (1e-3 + 1e-5) / 2) < 1e-9
    assert abs(learning_rate(100, **SCHEDULE) - 1e-5) < 1e-12


def test_norms_biases_and_positions_are_not_decayed():
    model = create_vit("vit_nano8", num_classes=7, image_size=32)
    decayed, kept = create_adamw(model, 0.2).param_groups
    names = {id(p): n for n, p in model.named_parameters()}
    assert {names[id(p)] for p in decayed["params"]} >= {"head.weight", "blocks.0.attn.qkv.weight", "patch_embed.conv1.weight"}
    assert {"pos_embed", "norm.weight", "head.bias"} <= {names[id(p)] for p in kept["params"]}
    assert (decayed["weight_decay"], kept["weight_decay"]) == (0.2, 0.0)


@pytest.mark.parametrize(
    ("name", "power"),
    [
        ("patch_embed.conv1.weight", 13),
        ("pos_embed", 13),
        ("cls_token", 13),
        ("blocks.0.norm1.weight", 12),
        ("blocks.5.attn.qkv.bias", 7),
        ("blocks.11.mlp.fc2.weight", 1),
        ("norm.weight", 1),
        ("head.weight", 0),
    ],
)
def test_layer_wise_decay_has_the_references_factors(name, power):
    assert lr_scale(f"network.{name}", depth=12, layer_decay=0.7) == pytest.approx(0.7**power, rel=1e-12)
    if power == 13:
        assert lr_scale(name, 12, 0.7) == pytest.approx(0.00969, abs=5e-6)


def test_layer_wise_decay_reaches_every_parameter_of_a_vit_with_a_cls_token():
    learner = Learner(create_vit("vit_ti16", num_classes=7, image_size=32), bce, RangeAugment())
    groups = create_adamw(learner, 0.2, layer_decay=0.7).param_groups
    names = {id(p): n for n, p in learner.named_parameters()}
    found = {names[id(p)]: group["lr_scale"] for group in groups for p in group["params"]}
    assert found.keys() == set(names.values())
    assert found == {name: lr_scale(name, 12, 0.7) for name in found}
    assert found["range_augment.noise"] == found["network.head.bias"] == 1.0


@pytest.mark.parametrize("task", ["segmentation", "detection"])
def test_what_a_dense_task_adds_to_a_vit_has_the_whole_rate_and_a_pyramids_deconvolutions_no_decay(task):
    network, loss = create_vit("vit_nano8", num_classes=0, image_size=32), bce
    if task == "segmentation":
        network = create_segmenter(network, 3, 32, channels=16)
    else:
        network, loss = create_detector(network, 3, 64, channels=16)
    learner = Learner(network, loss)
    groups = create_adamw(learner, 0.2, layer_decay=0.5).param_groups
    names = {id(p): n for n, p in learner.named_parameters()}
    found = {names[id(p)]: (group["lr_scale"], group["weight_decay"]) for group in groups for p in group["params"]}
    assert found.keys() == set(names.values())
    assert found["network.backbone.vit.patch_embed.conv1.weight"] == (0.5**5, 0.2)
    assert found["network.backbone.vit.blocks.3.mlp.fc1.weight"] == (0.5, 0.2)
    others = {name: how for name, how in found.items() if ".vit." not in name}
    assert {scale for scale, _ in others.values()} == {1.0}
    free = {name for name, (_, decay) in others.items() if not decay and learner.get_parameter(name).ndim > 1}
    assert all("pyramid.scales" in name for name in free) and len(free) == (3 if task == "detection" else 0)


def test_ema_moves_by_its_momentum_once_it_has_settled():
    model = nn.Linear(1, 1, bias=False)
    nn.init.zeros_(model.weight)
    ema = Ema(model.state_dict(), momentum=0.25)
    nn.init.ones_(model.weight)
    ema.update(step=1000)
    assert ema.state["weight"].item() == 0.25


def test_ema_copies_counters():
    model = nn.BatchNorm1d(2)
    ema = Ema(model.state_dict(), momentum=0.25)
    model(torch.zeros(3, 2))
    ema.update(step=1000)
    assert ema.state["num_batches_tracked"].item() == 1


def test_muon_takes_the_matrices_of_the_blocks_and_adamw_the_rest():
    model = create_vit("vit_nano8", num_classes=7, image_size=32)
    names = {id(p): n for n, p in model.named_parameters()}
    adamw, muon = (
        {names[id(p)] for group in optimiser.param_groups for p in group["params"]}
        for optimiser in create_optimisers(model, 0.2, "muon")
    )
    assert muon == {f"blocks.{i}.{part}.weight" for i in range(4) for part in ("attn.qkv", "attn.proj", "mlp.fc1", "mlp.fc2")}
    assert adamw == set(names.values()) - muon


def test_muon_takes_the_matrices_of_a_text_towers_blocks_too_and_the_scale_is_not_decayed():
    pytest.importorskip("open_clip")
    recipe = recipe_for("vit_nano8", image_size=16, objective="clip", optimiser="muon")
    objective = create_objective(recipe)
    training = start_training(objective.network(), objective.loss(), recipe, RunOptions("cpu", "fp32"))
    names = {id(p): name for name, p in training.learner.named_parameters()}
    adamw, muon = training.optimisers
    decay = {names[id(p)]: group["weight_decay"] for group in adamw.param_groups for p in group["params"]}
    assert {group["betas"] for group in adamw.param_groups} == {(0.9, 0.98)}
    assert decay["loss.logit_scale"] == 0 < decay["loss.text.token_embedding.weight"]
    of_text = {names[id(p)] for group in muon.param_groups for p in group["params"] if "text" in names[id(p)]}
    parts = ("attn.in_proj_weight", "attn.out_proj.weight", "mlp.c_fc.weight", "mlp.c_proj.weight")
    assert of_text == {f"loss.text.transformer.resblocks.{i}.{part}" for i in range(3) for part in parts}


@pytest.mark.parametrize("shape", [(6, 20), (20, 6)])
def test_orthogonalised_matrices_keep_their_directions_and_lose_their_scales(shape):
    u, _, v = torch.linalg.svd(torch.randn(3, *shape, generator=torch.Generator().manual_seed(0)), full_matrices=False)
    scales = torch.tensor([1.0, 3.0, 0.5, 2.0, 0.2, 0.1])
    made = orthogonalised(u * scales @ v)
    inner = u.mT @ made @ v.mT
    torch.testing.assert_close(inner, torch.diag_embed(inner.diagonal(dim1=1, dim2=2)), atol=1e-5, rtol=0)
    assert ((inner.diagonal(dim1=1, dim2=2) > 0.6) & (inner.diagonal(dim1=1, dim2=2) < 1.25)).all()


def test_muon_steps_as_torchs_does():
    ours, theirs = ([nn.Parameter(torch.ones(8, 24)), nn.Parameter(torch.ones(24, 8))] for _ in range(2))
    optimisers = [
        Muon(ours, 0.1, dtype=torch.bfloat16),
        torch.optim.Muon(theirs, lr=0.01, weight_decay=0.1, adjust_lr_fn="match_rms_adamw"),
    ]
    for seed in range(3):
        for matrices, optimiser in zip((ours, theirs), optimisers, strict=True):
            generator = torch.Generator().manual_seed(seed)
            for matrix in matrices:
                matrix.grad = torch.randn(matrix.shape, generator=generator)
            for group in optimiser.param_groups:
                group["lr"] = 0.01
            optimiser.step()
    for mine, torchs in zip(ours, theirs, strict=True):
        torch.testing.assert_close(mine, torchs, atol=2e-4, rtol=0)  # steps are 0.01 large, in bf16
