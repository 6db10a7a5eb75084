"""The order of a corpus is a pure function of the position: every sample once an epoch, wherever one enters."""

import numpy as np
import pytest

from catlip_lite.data.stream import OrderRule, SampleOrder

COUNTS = np.array([5, 0, 7, 3, 11, 4, 9, 2, 6])
TOTAL = int(COUNTS.sum())


def stream(start, stop, **rule):
    order = SampleOrder(COUNTS, OrderRule(**rule))
    shards, rows = order.locate(np.arange(start, stop))
    return list(zip(shards.tolist(), rows.tolist(), strict=True))


@pytest.mark.parametrize("rule", [{}, {"shuffle_shards": 2}, {"shuffle_shards": 2, "lanes": 3}, {"lanes": 100}])
@pytest.mark.parametrize("epoch", [0, 1])
def test_every_sample_once_an_epoch(rule, epoch):
    everything = [(s, r) for s, n in enumerate(COUNTS) for r in range(n)]
    assert sorted(stream(epoch * TOTAL, (epoch + 1) * TOTAL, **rule)) == everything


def test_any_position_can_be_entered():
    whole = stream(0, 3 * TOTAL, shuffle_shards=2, lanes=4)
    for start, stop in ((0, 1), (17, 90), (TOTAL - 1, TOTAL + 1), (100, 141)):
        assert stream(start, stop, shuffle_shards=2, lanes=4) == whole[start:stop]


def test_epochs_and_seeds_have_other_orders():
    assert stream(0, TOTAL) != stream(TOTAL, 2 * TOTAL)
    assert stream(0, TOTAL) != stream(0, TOTAL, seed=1)


def test_a_lane_reads_its_windows_one_after_the_other():
    lane = stream(0, TOTAL, shuffle_shards=2, lanes=3)[1::3]
    shards = [s for s, _ in lane]
    windows = SampleOrder(COUNTS, OrderRule(shuffle_shards=2, lanes=3))
    groups = [set(windows.window_shards(1, ahead=i).tolist()) for i in range(3)]
    changes = [next(i for i, g in enumerate(groups) if s in g) for s in shards]
    assert changes == sorted(changes)
    assert set(changes) >= {0, 1}


def test_the_windows_of_an_epoch_hold_every_shard_with_samples_once():
    order = SampleOrder(COUNTS, OrderRule(shuffle_shards=2))
    shards = np.concatenate([order.window_shards(0, ahead=i) for i in range(order.windows)])
    assert sorted(shards) == [0, 2, 3, 4, 5, 6, 7, 8]
    assert not len(order.window_shards(0, ahead=order.windows))


def test_memory_stays_flat_over_many_windows():
    order = SampleOrder(np.full(1000, 3), OrderRule(shuffle_shards=2, lanes=4))
    for start in range(0, 6000, 50):
        order.locate(np.arange(start, start + 50))
    assert len(order._permutations) <= 6
    assert len(order._epochs) <= 2


def test_rows_of_a_step_are_its_positions_sorted_by_lane_also_over_several_epochs():
    for lanes, start, size in ((1, 5, 9), (3, 0, 8), (4, TOTAL - 3, 3 * TOTAL), (7, 2 * TOTAL, 50), (TOTAL + 2, 1, 2 * TOTAL)):
        order = SampleOrder(COUNTS, OrderRule(lanes=lanes))
        positions = sorted(range(start, start + size), key=lambda p: p % TOTAL % lanes)
        assert order.rows_of_step(start, size, 0, size).tolist() == positions
        assert order.rows_of_step(start, size, 2, 5).tolist() == positions[2:5]


def test_a_process_remembers_the_windows_of_the_lanes_it_meets():
    order = SampleOrder(np.full(1000, 3), OrderRule(shuffle_shards=2, lanes=50), lanes_met=2)
    order.locate(np.arange(500))
    assert len(order._permutations) <= 4


def test_impossible_rules_are_refused():
    with pytest.raises(ValueError, match="lanes=0 must be at least 1"):
        OrderRule(lanes=0)
