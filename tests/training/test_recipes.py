"""A parameter left at None takes the paper's value for the chosen model and corpus."""

from dataclasses import fields
from pathlib import Path

import pytest
import yaml

from catlip_lite.training.recipes import Recipe, recipe_for

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize(
    ("model", "lr", "micro_batch"), [("vit_b16", 1e-3, 1024), ("vit_l16", 6e-4, 512), ("vit_h16", 4e-4, 256)]
)
def test_paper_values(model, lr, micro_batch):
    recipe = recipe_for(model)
    assert (recipe.lr, recipe.min_lr, recipe.micro_batch) == (lr, lr / 100, micro_batch)
    assert (recipe.batch_size, recipe.max_steps, recipe.warmup_steps, recipe.weight_decay) == (65_536, 200_000, 10_000, 0.2)


def test_given_values_win_and_micro_batch_never_exceeds_the_batch():
    recipe = recipe_for("vit_h16", batch_size=2, max_steps=1)
    assert (recipe.batch_size, recipe.micro_batch, recipe.max_steps, recipe.micro_batches) == (2, 2, 1, 1)


def test_epochs_become_steps():
    plain = {"epochs": 2, "num_samples": 1000, "batch_size": 100}
    assert recipe_for("vit_s16", multi_scale="none", **plain).max_steps == 20
    assert recipe_for("vit_s16", **plain).max_steps == 16  # the paper's sizes take 1.27 times as many images a step


@pytest.mark.parametrize(
    ("model", "images", "batch_size", "lr", "max_steps"),
    [
        ("vit_b16", 1_300_000_000, 65_536, 1e-3, 200_000),  # table 6
        ("vit_h16", 1_300_000_000, 65_536, 4e-4, 200_000),
        ("vit_h16", 10_000_000, 65_536, 4e-4, 11_996),  # 100 epochs
        ("vit_b16", 3_000_000, 2_048, 2e-3, 115_162),  # CC3M
        ("vit_l16", 3_000_000, 2_048, 1.2e-3, 115_162),
        ("vit_h16", 3_000_000, 2_048, 8e-4, 115_162),
        ("vit_b16", 6_470, 512, 1e-3, 993),  # an eighth: 808; a quarter of the batch, half the rate
        ("vit_ti16", 24, 2, 2e-3 / 32, 943),
    ],
)
def test_batch_rate_and_steps_follow_the_corpus(model, images, batch_size, lr, max_steps):
    recipe = recipe_for(model, num_samples=images)
    assert (recipe.batch_size, recipe.max_steps) == (batch_size, max_steps)
    assert (recipe.lr, recipe.min_lr) == pytest.approx((lr, lr / 100))


def test_what_is_given_stays_whatever_the_corpus():
    given = {"batch_size": 4_096, "max_steps": 7, "lr": 0.5}
    recipe = recipe_for("vit_b16", num_samples=6_470, **given)
    assert {name: getattr(recipe, name) for name in given} == given
    assert recipe_for("vit_b16", num_samples=6_470, batch_size=4_096).lr == 2e-3  # no more than the paper's
    assert recipe_for("vit_b16", num_samples=6_470, batch_size=128).lr == 5e-4


def test_the_demos_model_has_a_recipe_of_its_own():
    assert recipe_for("vit_nano8", num_samples=10**9) == recipe_for("vit_nano8")


@pytest.mark.parametrize(
    ("params", "images", "expected"),
    [
        ("datacomp_vit_b16", 1_300_000_000, (65_536, 200_000, 1e-3, 1e-5)),
        ("datacomp_vit_l16", 1_300_000_000, (65_536, 200_000, 6e-4, 6e-6)),
        ("datacomp_vit_h16", 1_300_000_000, (65_536, 200_000, 4e-4, 4e-6)),
        ("cc3m_vit_b16", 3_000_000, (2_048, 115_162, 2e-3, 2e-5)),
        ("flickr8k_vit_s16", 8_091, (512, 4_741, 1e-3, 1e-5)),
    ],
)
def test_the_params_files_are_the_recipes_that_they_say(params, images, expected):
    values = yaml.safe_load((ROOT / "params" / f"{params}.yaml").read_text())
    named = {f.name for f in fields(Recipe)} | {"epochs"}
    given = {name: value for name, value in values.items() if name in named}
    recipe = recipe_for(**given, num_samples=images, processes=values.get("workers", 1))
    assert (recipe.batch_size, recipe.max_steps, recipe.lr, recipe.min_lr) == pytest.approx(expected)


def test_unknown_model_is_refused_with_the_known_ones():
    with pytest.raises(ValueError, match="vit_g14.*choose one of.*vit_b16"):
        recipe_for("vit_g14")


def test_without_a_micro_batch_the_largest_that_divides_each_processs_share_is_taken():
    assert recipe_for("vit_b16", batch_size=1500).micro_batch == 750
    assert recipe_for("vit_b16", batch_size=1536, processes=3).micro_batch == 512


@pytest.mark.parametrize(
    ("name", "value", "told"),
    [
        ("loss", "hinge", "choose one of bce, softmax"),
        ("multi_scale", "wild", "choose one of none, paper"),
        ("patch_drop", 1.0, "from 0 to below 1"),
        ("unmasked_tail", 2, "from 0 to 1"),
        ("micro_batch", 0, "an image a step"),
        ("lr", 0.0, "must be above 0"),
    ],
)
def test_impossible_values_are_refused(name, value, told):
    with pytest.raises(ValueError, match=rf"{name}=.*{told}"):
        recipe_for("vit_b16", **{name: value})


def test_a_batch_that_micro_batches_do_not_divide_is_refused():
    with pytest.raises(ValueError, match="batch_size=100 must be a multiple of micro_batch=30"):
        recipe_for("vit_s16", batch_size=100, micro_batch=30)
