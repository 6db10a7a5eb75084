"""RangeAugment: the reference's ranges, changes and penalty, in one compiled graph."""

import itertools

import numpy as np
import pytest
import torch
from torch._dynamo.testing import CompileCounter

from catlip_lite.training.range_augment import RangeAugment, target_mse

TARGET = torch.tensor(100.0)


def some_images(count=8, size=16) -> torch.Tensor:
    return torch.rand(count, 3, size, size, generator=torch.Generator().manual_seed(0)) * 0.4 + 0.1


def fixed(brightness=1.0, contrast=1.0, noise=0.0) -> RangeAugment:
    """An augmentation whose ranges are single values, outside what the sigmoid allows."""
    augment = RangeAugment()
    values = torch.tensor([brightness, contrast, noise])
    augment._draw_changes = lambda count, device: torch.stack(
        [torch.stack([values[0], *torch.zeros(2)]), torch.stack([values[1], 1 - values[1], torch.zeros(())]),
         torch.stack([torch.ones(()), torch.zeros(()), values[2]])]
    )[:, :, None].expand(3, 3, count)  # fmt: skip
    return augment


def test_reference_start_is_the_references_real_range():
    ranges = RangeAugment().ranges()
    np.testing.assert_allclose(ranges["brightness"], (0.598, 8.376), atol=5e-4)
    np.testing.assert_allclose(ranges["contrast"], (0.598, 8.376), atol=5e-4)
    np.testing.assert_allclose(ranges["noise"], (2.5e-5, 0.525), atol=5e-4)


def test_parameters_are_three_vectors_of_low_and_high():
    assert {name: tuple(p.shape) for name, p in RangeAugment().named_parameters()} == {
        "brightness": (2,), "contrast": (2,), "noise": (2,),
    }  # fmt: skip


def test_eval_leaves_images_as_they_are():
    images = some_images()
    views, penalty = RangeAugment().eval()(images, TARGET)
    assert views is images
    assert penalty == 0


def test_target_runs_from_40_to_20_db_on_a_cosine_in_mse():
    assert target_mse(0, 1000) == pytest.approx(6.5025)
    assert target_mse(1000, 1000) == target_mse(2000, 1000) == pytest.approx(650.25)
    assert target_mse(500, 1000) == pytest.approx((6.5025 + 650.25) / 2)
    assert target_mse(250, 1000) == pytest.approx(650.25 - 643.7475 * (2 + 2**0.5) / 4)


def test_each_batch_is_the_three_changes_one_after_the_other_in_a_drawn_order():
    images, (m, k, sigma) = some_images(), (1.3, 0.7, 0.02)
    changes = {
        "b": lambda x, noise: x * m,
        "c": lambda x, noise: (1 - k) * x.mean(dim=(2, 3), keepdim=True) + k * x,
        "n": lambda x, noise: x + sigma * noise,
    }
    seen = set()
    for seed in range(40):
        torch.manual_seed(seed)
        noise = torch.randn_like(images)  # what the module draws first
        torch.manual_seed(seed)
        views, _ = fixed(m, k, sigma)(images, TARGET)
        same = set()
        for order in itertools.permutations(changes):
            x = images
            for name in order:
                x = changes[name](x, noise)
            if torch.allclose(x.clamp(0, 1), views, atol=1e-6, rtol=0):
                same.add("".join(order))
        seen.add(" ".join(sorted(same)))
    # Brightness and contrast commute, noise does not: the six orders give four results, and all of them are drawn.
    assert seen == {"nbc ncb", "bnc", "cnb", "bcn cbn"}


def test_each_change_takes_exactly_half_of_the_batch():
    torch.manual_seed(0)
    changes = RangeAugment()._draw_changes(10, torch.device("cpu"))
    untouched = (changes == torch.tensor([1.0, 0.0, 0.0])[:, None]).all(dim=1)
    assert untouched.sum(dim=1).tolist() == [5, 5, 5]
    assert not torch.equal(untouched[0], untouched[1]) or not torch.equal(untouched[1], untouched[2])


def test_a_batch_of_one_is_changed_half_of_the_time():
    torch.manual_seed(0)
    augment = RangeAugment()
    changed = [(augment._draw_changes(1, torch.device("cpu"))[0, 0] != 1).item() for _ in range(400)]
    assert 0.4 < np.mean(changed) < 0.6


def test_magnitudes_are_uniform_between_the_ends():
    torch.manual_seed(0)
    scale = RangeAugment()._draw_changes(20_000, torch.device("cpu"))[0, 0].detach()
    scale = scale[scale != 1]
    assert scale.min() >= 0.598
    assert scale.max() <= 8.377
    np.testing.assert_allclose(np.quantile(scale, [0.25, 0.5, 0.75]), np.linspace(0.598, 8.376, 5)[1:4], atol=0.15)


def test_views_stay_between_zero_and_one_and_images_as_they_were():
    images = some_images()
    before = images.clone()
    torch.manual_seed(0)
    views, _ = RangeAugment()(images, TARGET)
    assert 0 <= views.min() < views.max() <= 1
    assert torch.equal(images, before)


def test_penalty_is_the_smooth_l1_distance_of_the_mse_to_its_target():
    images = torch.full((4, 3, 8, 8), 0.5)
    views, penalty = fixed(brightness=1.1)(images, torch.tensor(150.0))
    torch.testing.assert_close(views, torch.full_like(images, 0.55))
    mse = 0.05**2 * 255**2  # 162.6: more than 1 from the target, so the distance less a half
    np.testing.assert_allclose(penalty.item(), (mse - 150 - 0.5) * 100 / 65025, rtol=1e-4)
    _, near = fixed(brightness=1.1)(images, torch.tensor(mse + 0.5))
    np.testing.assert_allclose(near.item(), 0.5 * 0.5**2 * 100 / 65025, rtol=1e-2)


@pytest.mark.parametrize("through", ["penalty", "images"])
def test_gradients_reach_every_range(through):
    torch.manual_seed(0)
    augment = RangeAugment()
    views, penalty = augment(some_images(), TARGET)
    (penalty if through == "penalty" else views.square().mean()).backward()
    for name, parameter in augment.named_parameters():
        assert (parameter.grad != 0).all(), name


def test_penalty_alone_brings_the_ranges_to_the_target():
    torch.manual_seed(0)
    augment, images = RangeAugment(), some_images(32)
    optimiser = torch.optim.Adam(augment.parameters(), lr=0.1)
    for _ in range(150):
        optimiser.zero_grad()
        _, penalty = augment(images, torch.tensor(650.25))
        penalty.backward()
        optimiser.step()
    mse = np.mean([((augment(images, TARGET)[0] - images).square().mean() * 65025).item() for _ in range(20)])
    assert 300 < mse < 1000  # at the start it is about 10,000


def test_computes_in_float32_under_autocast():
    images = some_images()
    torch.manual_seed(0)
    expected, expected_penalty = RangeAugment()(images, TARGET)
    torch.manual_seed(0)
    with torch.autocast("cpu", torch.bfloat16):
        views, penalty = RangeAugment()(images, TARGET)
    assert views.dtype == penalty.dtype == torch.float32
    assert torch.equal(views, expected)
    assert penalty == expected_penalty


def test_the_same_seed_gives_the_same_views():
    images, augment = some_images(), RangeAugment()
    torch.manual_seed(3)
    first, _ = augment(images, TARGET)
    torch.manual_seed(3)
    again, _ = augment(images, TARGET)
    other, _ = augment(images, TARGET)
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_one_graph_serves_every_order_and_target():
    torch._dynamo.reset()
    graphs, augment = CompileCounter(), RangeAugment()
    compiled = torch.compile(augment, backend=graphs, fullgraph=True)
    for step in range(12):
        torch.manual_seed(step)
        views, _ = compiled(some_images(), torch.tensor(target_mse(step, 12)))
        torch.manual_seed(step)
        torch.testing.assert_close(views, augment(some_images(), TARGET)[0])
    assert graphs.frame_count == 1
