"""AdamW, warm-up and cosine, averaged weights."""

import pytest
import torch
from torch import nn

from catlip_lite.models import create_vit
from catlip_lite.training.loop import Learner
from catlip_lite.training.losses import bce
from catlip_lite.training.optimiser import Ema, create_adamw, learning_rate, lr_scale
from catlip_lite.training.range_augment import RangeAugment

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


def test_the_reference_decays_the_cls_token_positions_and_ranges_too():
    learner = Learner(create_vit("vit_ti16", num_classes=7, image_size=32), bce, RangeAugment())
    names = {id(p): n for n, p in learner.named_parameters()}
    embeddings = {
        "network.cls_token",
        "network.pos_embed",
        *(f"range_augment.{n}" for n in ("brightness", "contrast", "noise")),
    }
    ours, reference = (create_adamw(learner, 0.2, decay_embeddings=d).param_groups[0]["params"] for d in (False, True))
    assert {names[id(p)] for p in reference} - {names[id(p)] for p in ours} == embeddings
    assert {id(p) for p in ours} < {id(p) for p in reference}


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


def test_ema_moves_by_its_momentum_once_it_has_settled():
    model = nn.Linear(1, 1, bias=False)
    nn.init.zeros_(model.weight)
    ema = Ema(model, momentum=0.25)
    nn.init.ones_(model.weight)
    ema.update(step=1000)
    assert ema.state["weight"].item() == 0.25


def test_ema_copies_counters():
    model = nn.BatchNorm1d(2)
    ema = Ema(model, momentum=0.25)
    model(torch.zeros(3, 2))
    ema.update(step=1000)
    assert ema.state["num_batches_tracked"].item() == 1
