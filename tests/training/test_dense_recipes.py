"""Tables 8 and 9, and what is refused."""

import pytest

from catlip_lite.training.dense_recipes import dense_recipe_for


def test_table_8():
    recipe = dense_recipe_for("vit_b16", "segmentation", num_images=20_210)
    assert (recipe.epochs, recipe.batch_size, recipe.micro_batch, recipe.warmup_steps) == (50, 32, 4, 500)
    assert (recipe.lr, recipe.min_lr, recipe.weight_decay, recipe.ema_momentum) == (3e-5, 3e-6, 0.1, 1e-4)
    assert (recipe.image_size, recipe.output_stride, recipe.head, recipe.channels) == (512, 8, "deeplab", 512)
    assert recipe.max_steps == 50 * round(20_210 / 32)


@pytest.mark.parametrize(
    ("model", "layer_decay", "drop_path", "epochs"),
    [("vit_b16", 0.7, 0.1, 100), ("vit_l16", 0.8, 0.4, 100), ("vit_h16", 0.9, 0.5, 80)],
)
def test_table_9(model, layer_decay, drop_path, epochs):
    recipe = dense_recipe_for(model, "detection", num_images=118_287)
    assert (recipe.layer_decay, recipe.drop_path, recipe.epochs, recipe.output_stride) == (layer_decay, drop_path, epochs, 16)
    sizes = [scale.size for scale in recipe.scales]
    assert (sizes[0], sizes[-1], len(sizes), 1024 in sizes) == (512, 1280, 25, True)
    assert all(size % 32 == 0 for size in sizes)
    assert (recipe.lr, recipe.weight_decay, recipe.ema_momentum, recipe.warmup_steps) == (3e-4, 0.1, 1e-4, 250)
    assert (recipe.batch_size, recipe.micro_batch, recipe.schedule, recipe.channels) == (128, 2, "milestones", 256)
    assert {scale.batch for scale in recipe.scales} == {8, 7, 6, 5, 4, 3, 2, 1}


def test_a_detectors_rate_falls_to_a_tenth_twice():
    recipe = dense_recipe_for("vit_b16", "detection", num_images=12_800, multi_scale="none", epochs=25)
    rates = [recipe.lr_at(step) for step in (1000, 2199, 2200, 2399, 2400, recipe.max_steps - 1)]
    assert recipe.max_steps == 2500
    assert rates == pytest.approx([3e-4, 3e-4, 3e-5, 3e-5, 3e-6, 3e-6])
    huge = dense_recipe_for("vit_h16", "detection", num_images=12_800, multi_scale="none", epochs=20)
    assert [huge.lr_at(step) for step in (1699, 1700, 1900)] == pytest.approx([3e-4, 3e-5, 3e-6])


def test_a_frozen_backbone_has_a_linear_head_at_its_own_stride_unless_asked_otherwise():
    recipe = dense_recipe_for("vit_b16", "segmentation", num_images=1000, frozen=True)
    assert (recipe.head, recipe.output_stride, recipe.lr, recipe.range_augment) == ("linear", 16, 1e-3, False)
    assert dense_recipe_for("vit_b16", "segmentation", num_images=1000, head="linear") == recipe
    assert dense_recipe_for("vit_b16", "segmentation", num_images=1000, frozen=True, output_stride=8).output_stride == 8
    assert not dense_recipe_for("vit_b16", "segmentation", num_images=1000, head="linear", frozen=False).frozen


def test_windows_are_at_most_half_of_the_map():
    sizes = {14: 1024, 4: 128}
    recipes = [dense_recipe_for("vit_b16", "detection", num_images=100, image_size=size, windows=14) for size in sizes.values()]
    assert [recipe.windows for recipe in recipes] == list(sizes)


@pytest.mark.parametrize(
    ("task", "given", "told"),
    [
        ("pose", {}, "task='pose' is unknown: choose one of segmentation, detection"),
        ("segmentation", {"head": "fcn"}, "head='fcn' is unknown: choose one of deeplab, linear"),
        ("detection", {"views": "mosaic"}, "views='mosaic' is unknown: choose one of squash, jitter"),
        ("segmentation", {"output_stride": 4}, "output_stride=4 is none for segmentation with vit_b16: choose 16 or 8"),
        ("detection", {"output_stride": 8}, "output_stride=8 is none for detection with vit_b16: choose 16"),
        ("segmentation", {"batch_size": 7}, "normalises over the images of a micro-batch, of which batch_size=7 leaves one"),
        ("segmentation", {"image_size": 500}, "image_size=500 is no multiple of the model's patch, 16"),
    ],
)
def test_what_cannot_be_is_refused(task, given, told):
    with pytest.raises(ValueError, match=told):
        dense_recipe_for("vit_b16", task, num_images=1000, **given)
