"""Checkpoints: whole or not there, the right ones kept, a damaged one passed over."""

import errno
import resource

import pytest
import torch

from catlip_lite.training.checkpoints import full_disk_told, latest_facts, load_latest, save_checkpoint


def state(value=0.0):
    return {"learner": {"weight": torch.full((3,), value)}, "optimiser": {"weight": {"step": torch.tensor(value)}}}


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_what_was_saved_comes_back_in_place(tmp_path):
    save_checkpoint(tmp_path, 7, state(2.5), {"position": 56})
    target = state()
    weight = target["learner"]["weight"]
    facts = load_latest(tmp_path, target)
    assert (facts["step"], facts["position"]) == (7, 56)
    assert weight.tolist() == [2.5] * 3
    assert target["optimiser"]["weight"]["step"] == 2.5


def test_no_checkpoint_is_none(tmp_path):
    assert load_latest(tmp_path, state()) is None
    assert latest_facts(tmp_path) is None


@pytest.mark.parametrize("damage", ["cut", "gone", "facts", "bytes"])
def test_a_damaged_checkpoint_falls_back_to_the_one_before(tmp_path, caplog, damage):
    save_checkpoint(tmp_path, 1, state(1.0))
    broken = save_checkpoint(tmp_path, 2, state(2.0))
    data = next(broken.glob("*.distcp"))
    if damage == "cut":
        data.write_bytes(data.read_bytes()[:100])
    elif damage == "gone":
        data.unlink()
    elif damage == "facts":
        (broken / "checkpoint.json").write_text("{")
    else:
        data.write_bytes(b"x" * data.stat().st_size)
    target = state()
    assert load_latest(tmp_path, target)["step"] == 1
    assert target["learner"]["weight"].tolist() == [1.0] * 3
    assert "step_00000002 is damaged" in caplog.text


def test_what_is_newer_than_the_step_just_saved_was_damaged_and_goes(tmp_path):
    save_checkpoint(tmp_path, 10, state(1.0))
    (save_checkpoint(tmp_path, 20, state(2.0)) / "checkpoint.json").unlink()
    save_checkpoint(tmp_path, 15, state(1.5), keep_last=1)
    assert names(tmp_path) == ["step_00000015"]


def test_if_none_can_be_read_that_is_an_error(tmp_path):
    (save_checkpoint(tmp_path, 1, state()) / "checkpoint.json").unlink()
    with pytest.raises(OSError, match="none of the 1 checkpoint.s. .* can be read: delete the folder"):
        load_latest(tmp_path, state())


def test_the_newest_are_kept_and_those_of_every_so_many_steps(tmp_path):
    for step in range(1, 10):
        save_checkpoint(tmp_path, step, state(), keep_last=2, keep_every=4)
    assert names(tmp_path) == [f"step_{n:08d}" for n in (4, 8, 9)]


def test_what_a_killed_save_left_is_no_checkpoint_and_is_swept(tmp_path):
    (tmp_path / ".step_00000003").mkdir()
    assert load_latest(tmp_path, state()) is None
    save_checkpoint(tmp_path, 4, state())
    assert names(tmp_path) == ["step_00000004"]


@pytest.fixture
def full_disk():
    """No file may grow beyond 10 kB."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, limits[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def test_a_full_disk_is_one_line_that_says_what_to_do_and_leaves_the_checkpoints_before(tmp_path, full_disk):
    folder = tmp_path / "checkpoints"
    save_checkpoint(folder, 1, state(1.0))
    large = {"learner": {"weight": torch.zeros(100_000)}}
    refused = pytest.raises(OSError, match=r"the disk of .* is full: .* MB are free, a checkpoint takes 400 kB; make room")
    with refused as told, full_disk_told(tmp_path, "400 kB"):
        save_checkpoint(folder, 2, large)
    assert "\n" not in str(told.value)
    assert names(folder) == ["step_00000001"]


def test_a_log_that_cannot_be_written_is_told_alike_and_other_errors_stay(tmp_path):
    with pytest.raises(OSError, match="make room or lower keep_last"), full_disk_told(tmp_path, "1 GB"):
        raise OSError(errno.ENOSPC, "No space left on device")
    with pytest.raises(ValueError, match="something else"), full_disk_told(tmp_path, "1 GB"):
        raise ValueError("something else")
