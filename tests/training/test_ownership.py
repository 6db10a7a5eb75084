"""A training's folder is its own: it goes on with the data it began with, and no other process trains in it."""

import errno
import platform
import subprocess
import sys

import pytest

from catlip_lite.training.ownership import WORKERS, claim_for_all


@pytest.fixture
def begun(tmp_path):
    """A training's folder with a checkpoint."""
    with claim_for_all(tmp_path / "finetune", {"recipe": 1, "corpus": "a"}):
        pass
    (tmp_path / "finetune" / "checkpoints" / "step_3").mkdir(parents=True)
    return tmp_path / "finetune"


def test_an_unfinished_run_waits_for_the_data_it_began_with(begun):
    with pytest.raises(ValueError, match="begun with other data .*give it the data it began with"):
        claim_for_all(begun, {"recipe": 1, "corpus": "b"}).__enter__()
    with claim_for_all(begun, {"recipe": 1, "corpus": "a"}) as finished:
        assert not finished


def test_a_finished_run_over_other_data_is_kept_under_a_new_name(begun):
    (begun / "model.safetensors").touch()
    with claim_for_all(begun, {"recipe": 1, "corpus": "b"}) as finished:
        assert not finished
    assert (begun.with_name("finetune-1") / "model.safetensors").is_file()
    assert not (begun / "checkpoints").exists()


def in_another_process(folder, then: str, part: str = "") -> subprocess.Popen:
    """A process that holds a folder, once it says so."""
    told = (
        f"import pathlib; from catlip_lite.training.ownership import hold; lock = hold(pathlib.Path({str(folder)!r}), {part!r})"
    )
    script = f"{told}; lock.__enter__(); print('held', flush=True); {then}"
    process = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, stdin=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "held\n"
    return process


@pytest.mark.parametrize("part", ["", WORKERS])
def test_a_folder_that_another_process_trains_in_is_neither_taken_nor_moved(begun, monkeypatch, part):
    monkeypatch.setattr("catlip_lite.training.ownership.PATIENCE", 0.0)
    other = in_another_process(begun, "input()", part)
    told = f"finetune is being trained by process {other.pid} of {platform.node()}, since .*: wait for it, end it, or choose"
    with pytest.raises(BlockingIOError, match=told):
        claim_for_all(begun, {"recipe": 2, "corpus": "a"}).__enter__()
    assert (begun / "checkpoints" / "step_3").is_dir()
    other.communicate("\n")
    with claim_for_all(begun, {"recipe": 1, "corpus": "a"}) as finished:
        assert not finished


def test_the_folder_of_a_killed_process_is_free_and_a_process_forked_from_it_is_waited_for(begun):
    other = in_another_process(begun, "import os, time; os.fork() or time.sleep(0.5) or os._exit(0); time.sleep(600)")
    other.kill()
    other.communicate()
    with claim_for_all(begun, {"recipe": 1, "corpus": "a"}) as finished:
        assert not finished


def test_a_folder_is_free_when_its_training_failed(begun, monkeypatch):
    monkeypatch.setattr("catlip_lite.training.ownership.PATIENCE", 0.0)
    with pytest.raises(KeyboardInterrupt), claim_for_all(begun, {"recipe": 1, "corpus": "a"}):
        raise KeyboardInterrupt
    in_another_process(begun, "pass").communicate()


def test_where_files_cannot_be_locked_a_run_goes_on_with_a_warning(begun, monkeypatch, caplog):
    def no_locks(*_):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr("catlip_lite.training.ownership.fcntl.flock", no_locks)
    with claim_for_all(begun, {"recipe": 1, "corpus": "a"}) as finished:
        assert not finished
    assert "finetune cannot be locked (No locks available): take care that no other process trains in it" in caplog.text
