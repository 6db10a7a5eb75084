"""The plan of the steps: which rows each process takes, at which size, with which random numbers."""

import pytest

from catlip_lite.training.recipes import recipe_for
from catlip_lite.training.steps import Place, StepPlan

RECIPE = recipe_for("vit_b16", batch_size=4096, max_steps=50)


def rows(plan, step):
    return [(s.start, s.size, s.first, s.stop, s.image_size) for s in plan.specs_of(step)]


def test_processes_share_the_micro_batches_of_a_step():
    alone = StepPlan(RECIPE, 16)
    shares = [StepPlan(RECIPE, 16, rank=r, processes=2) for r in range(2)]
    for step in range(50):
        assert [row for plan in shares for row in rows(plan, step)] == rows(alone, step)
    assert [p.seed_of(7, i) for p in shares for i in range(2)] == [alone.seed_of(7, i) for i in range(4)]


def test_steps_take_the_stream_without_gap_or_overlap():
    plan = StepPlan(RECIPE, 16)
    position = 0
    for step in range(50):
        specs = plan.specs_of(step)
        assert {s.start for s in specs} == {position}
        assert [(s.first, s.stop) for s in specs] == [(i * len(specs[0]), (i + 1) * len(specs[0])) for i in range(4)]
        position += plan.images(step)
        assert plan.place_after(step) == Place(step + 1, position)
    assert len({s.image_size for s in plan.specs()}) > 8


def test_a_plan_can_begin_at_any_place():
    plan = StepPlan(RECIPE, 16)
    later = StepPlan(RECIPE, 16, plan.place_after(20))
    assert [rows(later, s) for s in range(21, 50)] == [rows(plan, s) for s in range(21, 50)]


def test_random_seeds_differ_between_steps_and_micro_batches():
    plan = StepPlan(RECIPE, 16)
    assert len({plan.seed_of(s, i) for s in range(50) for i in range(4)}) == 200


def test_processes_that_cannot_share_evenly_are_refused():
    with pytest.raises(ValueError, match="3 processes cannot share 4 micro-batches"):
        StepPlan(RECIPE, 16, processes=3)


def test_of_small_micro_batches_a_large_size_takes_more_so_that_a_step_has_as_many_pixels():
    """At 320 pixels 1.47 images would fit in the place of three: 171 micro-batches of one would be a third too few."""
    recipe = recipe_for("vit_b16", batch_size=513, micro_batch=3, max_steps=50)
    plan = StepPlan(recipe, 16)
    for step in range(50):
        pixels = plan.images(step) * plan.scale(step).size ** 2
        assert pixels == pytest.approx(513 * 224**2, rel=0.01)
        assert len(plan.specs_of(step)) == plan.share(step)
