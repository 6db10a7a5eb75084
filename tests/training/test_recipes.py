"""A parameter left at None takes the paper's value for the chosen model and corpus."""

from dataclasses import fields
from pathlib import Path

import pytest
import yaml

from catlip_lite.models.vit import MODELS
from catlip_lite.training.recipes import Recipe, finetune_recipe_for, recipe_for, scales

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
        ("lr", "fast", "must be a number"),
        ("epochs", 2, "give its num_samples"),
    ],
)
def test_impossible_values_are_refused(name, value, told):
    with pytest.raises(ValueError, match=rf"{name}=.*{told}"):
        recipe_for("vit_b16", **{name: value})


@pytest.mark.parametrize("of", [{"num_samples": 1000}, {"num_images": 1000}], ids=["pre-training", "fine-tuning"])
def test_steps_win_over_epochs_with_a_word(of, caplog):
    make = recipe_for if "num_samples" in of else finetune_recipe_for
    assert make("vit_s16", **of, epochs=2, max_steps=3).max_steps == 3
    assert "epochs=2 does not count: max_steps=3 is given, too" in caplog.text


def test_a_number_in_powers_of_ten_which_yaml_reads_as_a_string_is_a_number():
    given = {"lr": "1e-3", "max_steps": "2e2", "epochs": "1e1"}
    recipe = recipe_for("vit_s16", num_samples=1000, **given)
    assert (recipe.lr, recipe.max_steps) == (1e-3, 200)
    assert isinstance(recipe.max_steps, int)
    tuned = finetune_recipe_for("vit_s16", num_images=1000, lr="1e-3", epochs="1e1")
    assert (tuned.lr, tuned.min_lr, tuned.epochs) == (1e-3, 1e-4, 10)


def test_a_batch_that_micro_batches_do_not_divide_is_refused():
    with pytest.raises(ValueError, match="batch_size=100 must be a multiple of micro_batch=30"):
        recipe_for("vit_s16", batch_size=100, micro_batch=30)


# --- objectives beside the paper's --------------------------------------------------------------------------------------------

BESIDE = ("clip", "siglip", "superclip")


@pytest.mark.parametrize("objective", BESIDE)
@pytest.mark.parametrize("model", ["vit_b16", "vit_l16", "vit_h16"])
def test_table_6_for_clip(model, objective):
    recipe = recipe_for(model, objective=objective, processes=64)
    assert (recipe.lr, recipe.min_lr, recipe.beta2, recipe.weight_decay) == (5e-4, pytest.approx(1e-6), 0.98, 0.2)
    assert (recipe.batch_size, recipe.max_steps, recipe.warmup_steps) == (65_536, 200_000, 10_000)
    assert (recipe.context_length, recipe.micro_batch) == (77, 1_024)


def test_a_smaller_batch_lowers_clips_rates_by_the_root_and_a_small_corpus_does_not_double_them():
    recipe = recipe_for("vit_s16", objective="clip", num_samples=6_470)
    assert (recipe.batch_size, recipe.micro_batch, recipe.max_steps) == (512, 512, 993)
    assert (recipe.lr, recipe.min_lr) == pytest.approx((2.5e-4, 5e-7))  # a quarter of CC3M's batch, half the rate


@pytest.mark.parametrize("objective", BESIDE)
def test_values_that_are_given_win_over_clips(objective):
    given = {"lr": 0.1, "min_lr": 0.01, "beta2": 0.9, "context_length": 16, "weight_decay": 0.3}
    for model in ("vit_nano8", "vit_s16"):
        recipe = recipe_for(model, objective=objective, **given)
        assert {name: getattr(recipe, name) for name in given} == given


def test_superclip_takes_its_authors_loss_unless_another_is_given():
    assert recipe_for("vit_b16", objective="superclip").loss == "superclass"
    assert recipe_for("vit_b16", objective="superclip", loss="bce").loss == "bce"


@pytest.mark.parametrize("objective", BESIDE)
@pytest.mark.parametrize("processes", [1, 2])
def test_captions_are_compared_over_a_whole_step_which_cannot_be_accumulated(objective, processes):
    whole = {"objective": objective, "batch_size": 64, "processes": processes}
    assert recipe_for("vit_s16", **whole).micro_batches == processes
    assert recipe_for("vit_s16", **whole, micro_batch=64 // processes) == recipe_for("vit_s16", **whole)
    with pytest.raises(ValueError, match=f"objective='{objective}' .* cannot be accumulated: micro_batch=16 .* batch_size=64"):
        recipe_for("vit_s16", **whole, micro_batch=16)


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"objective": "clip", "batch_size": 1}, "batch_size=1 leaves nothing to compare, give 2 or more"),
        ({"objective": "clip", "loss": "bce"}, "loss='bce' is of the synset head, which objective='clip' has not"),
        ({"objective": "siglip", "loss": "bce"}, "loss='bce' is of the synset head, which objective='siglip' has not"),
        ({"objective": "clip", "context_length": 2}, "context_length=2 must be at least 3"),
        ({"objective": "blip"}, "objective='blip' is unknown: choose one of catlip, clip, siglip, superclip"),
    ],
)
def test_impossible_values_of_objectives_are_refused(given, told):
    with pytest.raises(ValueError, match=told):
        recipe_for("vit_s16", **given)


# --- fine-tuning: table 7 -----------------------------------------------------------------------------------------------------


IMAGENET = 1_281_167


def sizes_of(recipe):
    patch = MODELS[recipe.model].patch
    return [scale.size for scale in scales(recipe.image_size, recipe.multi_scale, recipe.micro_batch, patch=patch)]


@pytest.mark.parametrize(
    ("model", "image_size", "task", "micro_batch"),
    [
        ("vit_b16", 224, "imagenet-1k", 512),
        ("vit_l16", 224, "imagenet-1k", 128),
        ("vit_h16", 224, "imagenet-1k", 128),
        ("vit_b16", 512, "imagenet-1k", 64),
        ("vit_l16", 512, "imagenet-1k", 64),
        ("vit_h16", 512, "imagenet-1k", 32),
        ("vit_b16", 224, "places365", 128),
    ],
)
def test_table_7_batches_of_512_images_in_a_gpus_share(model, image_size, task, micro_batch):
    recipe = finetune_recipe_for(model, num_images=IMAGENET, image_size=image_size, task=task)
    assert (recipe.batch_size, recipe.micro_batch) == (512, micro_batch)


def test_table_7_for_single_labels():
    recipe = finetune_recipe_for("vit_b16", num_images=IMAGENET)
    assert (recipe.image_size, recipe.epochs, recipe.warmup_steps, recipe.lr, recipe.min_lr) == (224, 10, 500, 3e-5, 3e-6)
    assert (recipe.weight_decay, recipe.label_smoothing, recipe.ema_momentum, recipe.clip) == (0.05, 0.1, 5e-4, 1.0)
    assert (recipe.loss, recipe.range_augment, recipe.layer_decay, recipe.drop_path) == ("softmax", True, 1.0, 0.0)


def test_table_7_for_coco():
    recipe = finetune_recipe_for("vit_b16", num_images=82_081, multi_label=True)
    assert (recipe.image_size, recipe.lr, recipe.min_lr, recipe.batch_size, recipe.micro_batch) == (512, 1e-5, 1e-6, 128, 32)
    assert (recipe.loss, recipe.label_smoothing) == ("bce", 0.0)
    assert (len(sizes_of(recipe)), min(sizes_of(recipe)), max(sizes_of(recipe))) == (25, 256, 768)


def test_the_rate_stands_still_within_an_epoch_and_ends_at_three_point_six_six_millionths():
    recipe = finetune_recipe_for("vit_b16", num_images=IMAGENET)
    last = [recipe.lr_at(step) for step in range(recipe.max_steps - recipe.steps_per_epoch, recipe.max_steps)]
    assert set(last) == {last[0]}
    assert last[0] == pytest.approx(3.66e-6, abs=5e-9)
    assert recipe.lr_at(0) == 1e-6
    assert recipe.lr_at(500) == pytest.approx(3e-5)


def test_by_step_the_cosine_ends_at_the_least_rate():
    recipe = finetune_recipe_for("vit_b16", num_images=IMAGENET, schedule="step")
    assert recipe.lr_at(recipe.max_steps - 1) == pytest.approx(3e-6)


def test_an_epoch_counts_the_images_that_a_step_of_a_multi_scale_run_takes_on_average():
    recipe = finetune_recipe_for("vit_b16", num_images=IMAGENET)
    mean = 512 * sum((224 / size) ** 2 for size in sizes_of(recipe)) / 7
    assert recipe.steps_per_epoch == round(IMAGENET / mean)
    assert recipe.max_steps == 10 * recipe.steps_per_epoch


@pytest.mark.parametrize("model", ["vit_b16", "vit_l16", "vit_h16"])
@pytest.mark.parametrize(
    ("num_images", "given"),
    [
        (IMAGENET, {"image_size": 224}),
        (IMAGENET, {"image_size": 512}),
        (82_081, {"task": "coco"}),
        (300, {"image_size": 224}),  # fewer than a batch
    ],
    ids=["224", "512", "coco", "few"],
)
def test_however_many_processes_share_a_run_it_is_the_same_run(model, num_images, given):
    recipes = [finetune_recipe_for(model, num_images=num_images, processes=n, **given) for n in (1, 4, 8, 16)]
    first = recipes[0].identity()
    assert all(recipe.identity() == first for recipe in recipes)


def test_the_micro_batch_does_not_change_what_a_run_is():
    recipes = [finetune_recipe_for("vit_b16", num_images=IMAGENET, micro_batch=n) for n in (16, 64, 512)]
    assert len({recipe.max_steps for recipe in recipes}) == 1


def test_given_steps_become_the_epochs_they_are():
    recipe = finetune_recipe_for("vit_b16", num_images=1024, multi_scale="none", max_steps=5)
    assert (recipe.max_steps, recipe.steps_per_epoch, recipe.epochs) == (5, 2, 3)


def test_a_batch_of_more_than_all_images_is_lowered_and_told(caplog):
    recipe = finetune_recipe_for("vit_l16", num_images=300)
    assert (recipe.batch_size, recipe.micro_batch) == (288, 96)
    assert "batch_size=512 is lowered to 288: there are 300 images" in caplog.text


def test_a_given_micro_batch_is_kept_or_the_batch_refused():
    assert finetune_recipe_for("vit_l16", num_images=10_000, batch_size=257, micro_batch=1).batch_size == 257
    with pytest.raises(ValueError, match="batch_size=257 must be a multiple of micro_batch=64"):
        finetune_recipe_for("vit_l16", num_images=10_000, batch_size=257, micro_batch=64)


def test_processes_share_a_lowered_batch_evenly():
    recipe = finetune_recipe_for("vit_s16", num_images=101, processes=2)
    assert (recipe.batch_size, recipe.micro_batch) == (96, 48)


def test_layers_of_a_pre_training_run_learn_alike_and_its_recipe_has_no_field_for_it():
    recipe = recipe_for("vit_b16")
    assert recipe.layer_decay == 1.0
    assert "layer_decay" not in recipe.identity()
    assert isinstance(finetune_recipe_for("vit_b16", num_images=10), Recipe)


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"model": "vit_g14"}, "model='vit_g14' is unknown: choose one of .*vit_b16"),
        ({"task": "cifar"}, "task='cifar' is unknown: choose one of imagenet-1k, places365, coco"),
        ({"image_size": 225}, "image_size=225 is no multiple of the model's patch, 16: choose 224"),
        ({"epochs": 0}, "epochs=0 must be a whole number, at least 1"),
        ({"schedule": "linear"}, "schedule='linear' is unknown: choose one of epoch, step"),
        ({"label_smoothing": 1.5}, "label_smoothing=1.5 must be a share"),
        ({"drop_path": -0.1}, "drop_path=-0.1 must be a share"),
        ({"layer_decay": 0.0}, "layer_decay=0.0 must be above 0"),
        ({"loss": "bce"}, "label_smoothing=0.1 belongs to softmax: loss='bce' takes 0"),
        ({"lr": 1e-4, "min_lr": 1e-3}, "min_lr=0.001 must be from 0 to lr=0.0001"),
        ({"num_images": 0}, "0 training image.s. are too few"),
        ({"momentum": 0.9}, "a FinetuneRecipe has no momentum"),
        ({"multi_scale": "wild"}, "multi_scale='wild' is unknown"),
    ],
)
def test_impossible_values_of_fine_tuning_are_refused(given, told):
    with pytest.raises(ValueError, match=told):
        finetune_recipe_for(**{"model": "vit_b16", "num_images": 5000, **given})
