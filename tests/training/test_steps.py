"""The plan of the steps: which rows each process takes, at which size, with which random numbers."""

import numpy as np
import pytest

from catlip_lite.training.recipes import Scale, recipe_for, scales
from catlip_lite.training.steps import Place, StepPlan

RECIPE = recipe_for("vit_b16", batch_size=4096, max_steps=50)


def rows(plan, step):
    return [(s.start, s.size, s.first, s.stop, s.image_size) for s in plan.specs_of(step)]


def test_processes_share_the_micro_batches_of_a_step():
    alone = StepPlan(RECIPE)
    shares = [StepPlan(RECIPE, rank=r, processes=2) for r in range(2)]
    for step in range(50):
        assert [row for plan in shares for row in rows(plan, step)] == rows(alone, step)
    assert [p.seed_of(7, i) for p in shares for i in range(2)] == [alone.seed_of(7, i) for i in range(4)]


def test_steps_take_the_stream_without_gap_or_overlap():
    plan = StepPlan(RECIPE)
    position = 0
    for step in range(50):
        specs = plan.specs_of(step)
        assert {s.start for s in specs} == {position}
        assert [(s.first, s.stop) for s in specs] == [(i * len(specs[0]), (i + 1) * len(specs[0])) for i in range(4)]
        position += plan.images(step)
        assert plan.place_after(step) == Place(step + 1, position)
    assert len({s.image_size for s in plan.specs()}) > 8


def test_a_plan_can_begin_at_any_place():
    plan = StepPlan(RECIPE)
    later = StepPlan(RECIPE, plan.place_after(20))
    assert [rows(later, s) for s in range(21, 50)] == [rows(plan, s) for s in range(21, 50)]


def test_random_seeds_differ_between_steps_and_micro_batches():
    plan = StepPlan(RECIPE)
    assert len({plan.seed_of(s, i) for s in range(50) for i in range(4)}) == 200


def test_processes_that_cannot_share_evenly_are_refused():
    with pytest.raises(ValueError, match="3 processes cannot share 4 micro-batches"):
        StepPlan(RECIPE, processes=3)


def test_of_small_micro_batches_a_large_size_takes_more_so_that_a_step_has_as_many_pixels():
    """At 320 pixels 1.47 images would fit in the place of three: 171 micro-batches of one would be a third too few."""
    recipe = recipe_for("vit_b16", batch_size=513, micro_batch=3, max_steps=50)
    plan = StepPlan(recipe)
    for step in range(50):
        pixels = plan.images(step) * plan.scale(step).size ** 2
        assert pixels == pytest.approx(513 * 224**2, rel=0.01)
        assert len(plan.specs_of(step)) == plan.share(step)


# --- image sizes, and which step takes which ----------------------------------------------------------------------------------


PAPER = (
    (128, 3136), (144, 2477), (160, 2007), (176, 1658), (192, 1393), (208, 1187), (224, 1024), (240, 892), (256, 784),
    (272, 694), (288, 619), (304, 555), (320, 501),
)  # fmt: skip


def test_the_papers_thirteen_sizes_and_batches():
    assert scales(224, "paper", 1024) == PAPER


def test_the_papers_mean_batch_is_1302():
    assert np.mean([scale.batch for scale in scales(224, "paper", 1024)]) == pytest.approx(1302, abs=0.5)


def test_none_is_the_base_alone():
    assert scales(224, "none", 1024) == (Scale(224, 1024),)


def test_buckets_are_five_sizes_in_batches_of_whole_tiles():
    assert scales(224, "buckets", 1024) == ((144, 2472), (176, 1656), (224, 1024), (272, 688), (304, 552))


def test_buckets_have_about_the_papers_mean_size_and_mean_batch():
    paper, buckets = (np.array(scales(224, kind, 1024)).mean(axis=0) for kind in ("paper", "buckets"))
    np.testing.assert_allclose(buckets, paper, rtol=0.03)


@pytest.mark.parametrize(
    ("base", "kind", "sizes"),
    [
        (224, "finetune", range(128, 321, 32)),
        (512, "finetune", range(256, 513, 32)),
        (32, "finetune", range(24, 49, 8)),
    ],
)
def test_fine_tuning_has_seven_sizes_around_224_nine_up_to_512_and_four_around_the_demos_32(base, kind, sizes):
    assert [scale.size for scale in scales(base, kind, 64, patch=8 if base == 32 else 16)] == list(sizes)


def test_coco_has_25_sizes_from_256_to_768_in_batches_of_as_many_pixels():
    found = scales(512, "multi_label", 32)
    assert (len(found), found[0], found[-1]) == (25, Scale(256, 128), Scale(768, 14))
    assert Scale(512, 32) in found


@pytest.mark.parametrize("kind", ["paper", "buckets"])
@pytest.mark.parametrize(
    ("size", "patch", "micro_batch"), [(224, 16, 256), (224, 14, 96), (64, 8, 32), (32, 8, 64), (448, 16, 1)]
)
def test_sizes_are_multiples_of_the_patch_around_the_base(kind, size, patch, micro_batch):
    found = scales(size, kind, micro_batch, patch=patch)
    assert Scale(size, micro_batch) in found
    assert list(found) == sorted(set(found))
    assert all(scale.size % patch == 0 for scale in found)
    assert found[0].size >= size * 128 / 224 * 0.9
    assert found[-1].size <= size * 320 / 224 + patch / 2


@pytest.mark.parametrize("kind", ["paper", "buckets"])
def test_no_step_holds_more_pixels_than_one_at_the_base(kind):
    assert all(1 <= scale.batch * scale.size**2 <= 256 * 224**2 for scale in scales(224, kind, 256))


def test_a_micro_batch_of_one_stays_one_at_large_sizes():
    assert scales(224, "paper", 1)[-1] == Scale(320, 1)


def test_small_batches_are_not_rounded_to_tiles():
    assert scales(224, "buckets", 12) == ((144, 29), (176, 19), (224, 12), (272, 8), (304, 6))


def test_unknown_kinds_are_refused():
    with pytest.raises(ValueError, match="multi_scale='many' is unknown: choose one of none, paper, buckets"):
        scales(224, "many", 1024)


def test_a_base_between_patches_is_refused():
    with pytest.raises(ValueError, match="image_size=225 must be a multiple of the patch, 16"):
        scales(225, "paper", 1024)
