"""Several processes train as one would, kill them or change their number; checkpoints are whole or not there."""

import errno
import resource
import signal
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch
from runs import in_processes, kill_this_process, open_corpus, read_log, run, samples_by_step

from catlip_lite.labels import Vocabulary
from catlip_lite.models.vit import MODELS
from catlip_lite.training.parallel import full_disk_told, latest_facts, load_latest, save_checkpoint

PLAIN = {"model": "vit_ti16", "micro_batch": 4, "max_steps": 5, "range_augment": True, "multi_scale": "none"}
SHORT = {**PLAIN, "batch_size": 16, "max_steps": 3}
WAYS = ("ddp", "fsdp", "fsdp, two machines")


def train_once(root: str, name: str, parallel: str, values: dict, stop_at: int | None = None, lanes: int = 1, **how):
    """One process's part of a run over root/shards, by two blocks."""
    vocabulary = Vocabulary.load(Path(root) / "vocabulary.parquet")
    corpus = open_corpus(Path(root) / "shards", vocabulary, "paper", lanes=lanes, cache_gb=0)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(MODELS, "vit_ti16", replace(MODELS["vit_ti16"], depth=2))
        if parallel == "fsdp, two machines":
            patch.setenv("LOCAL_WORLD_SIZE", "1")
            parallel = "fsdp"
        options = {"parallel": parallel, "record_samples": True, **how}
        state = run(corpus, Path(root) / name, stop_at=stop_at, stop=kill_this_process, options=options, **values)
    if not torch.distributed.is_initialized() or torch.distributed.get_rank() == 0:
        torch.save(state, Path(root) / f"{name}.pt")


def train_each_way(root: str):
    for parallel in WAYS:
        train_once(root, parallel, parallel, PLAIN)


@pytest.fixture
def root(tmp_path, shards, vocabulary):
    vocabulary.save(tmp_path / "vocabulary.parquet")
    return tmp_path


def test_two_processes_give_the_losses_of_one(root):
    train_once(str(root), "one", "ddp", PLAIN)
    assert in_processes(2, train_each_way, str(root)) == [0, 0]
    one, averaged = read_log(root / "one"), torch.load(root / "one.pt")
    for parallel in WAYS:
        two, spread = read_log(root / parallel), torch.load(root / f"{parallel}.pt")
        assert len(one) == len(two) == 5
        for a, b in zip(one, two, strict=True):
            assert b["loss"] == pytest.approx(a["loss"], rel=1e-5)
            assert b["grad_norm"] == pytest.approx(a["grad_norm"], rel=1e-4)
        assert samples_by_step(root / "one") == samples_by_step(root / parallel)
        for name in averaged:
            if "bn" not in name:  # each process's batch norms have seen their own images
                torch.testing.assert_close(spread[name], averaged[name], rtol=1e-4, atol=1e-5)


def train_as_on_gpus(root: str):
    """bf16, compiled (but for the generation of code), activations computed twice."""
    torch.compile = partial(torch.compile, backend="aot_eager")
    how = {"precision": "bf16", "compile": True, "activation_checkpointing": True}
    for parallel in ("ddp", "fsdp"):
        train_once(root, parallel, parallel, SHORT, **how)


def test_two_processes_that_compile_in_bf16_give_the_losses_of_one_in_fp32_roughly(root):
    train_once(str(root), "one", "ddp", SHORT)
    assert in_processes(2, train_as_on_gpus, str(root)) == [0, 0]
    for parallel in ("ddp", "fsdp"):
        for a, b in zip(read_log(root / "one"), read_log(root / parallel), strict=True):
            assert b["loss"] == pytest.approx(a["loss"], rel=2e-2)


def test_killed_and_continued_by_other_numbers_of_processes_every_sample_is_seen_once_an_epoch(root):
    """24 samples, 6 a step: an epoch is four steps, three epochs twelve. Checkpoints are of every third step."""
    values = {**PLAIN, "batch_size": 6, "max_steps": 12}
    for processes, parallel, stop_at in ((2, "fsdp", 5), (1, "ddp", 8), (3, "ddp", None)):
        mine = {**values, "micro_batch": 6 // processes}
        ends = in_processes(processes, train_once, str(root), "run", parallel, mine, stop_at, 2)
        assert ends == [-signal.SIGKILL if stop_at else 0] * processes
    steps = samples_by_step(root / "run")
    everything = sorted(f"{s:05d}.tar:{s:05d}{i:04d}" for s, n in ((0, 16), (1, 8)) for i in range(n))
    for epoch in range(3):
        assert sorted(name for step in range(4) for name in steps[4 * epoch + step + 1]) == everything
    assert [entry["step"] for entry in read_log(root / "run")] == list(range(1, 13))


# --- checkpoints --------------------------------------------------------------------------------------------------------------


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
    save_checkpoint(tmp_path, 15, state(1.5))
    assert names(tmp_path) == ["step_00000010", "step_00000015"]


def test_if_none_can_be_read_that_is_an_error(tmp_path):
    (save_checkpoint(tmp_path, 1, state()) / "checkpoint.json").unlink()
    with pytest.raises(OSError, match="none of the checkpoints in .* can be read: delete the folder"):
        load_latest(tmp_path, state())


def test_the_newest_are_kept_and_those_of_every_so_many_steps(tmp_path):
    for step in range(1, 10):
        save_checkpoint(tmp_path, step, state(), keep_every=4)
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
    with pytest.raises(OSError, match="make room or link outputs/"), full_disk_told(tmp_path, "1 GB"):
        raise OSError(errno.ENOSPC, "No space left on device")
    with pytest.raises(ValueError, match="something else"), full_disk_told(tmp_path, "1 GB"):
        raise ValueError("something else")
