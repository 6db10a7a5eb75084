"""Runs live in outputs/<run>/ of the workbook, wherever a notebook is started."""

import errno
import platform
import subprocess
import sys

import pytest

from catlip_lite.training.ownership import WORKERS, claim
from catlip_lite.workbook.run_folder import open_run, own_or_demo, workbook_address, workbook_root


@pytest.fixture
def workbook(tmp_path, monkeypatch):
    for name in ("notebooks", "params"):
        (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path / "notebooks")
    return tmp_path


def test_the_workbook_is_found_from_its_notebooks_folder(workbook):
    assert workbook_root() == workbook


def test_a_run_gets_its_folder(workbook):
    assert open_run("mine") == workbook / "outputs" / "mine"


def test_a_run_that_cannot_be_written_is_refused_with_advice(workbook):
    (workbook / "outputs").write_text("a file in the way")
    with pytest.raises(PermissionError, match="cannot write to .*outputs/mine.*choose another `run`"):
        open_run("mine")


@pytest.mark.parametrize("run", ["", "a/b", "..", "published"])
def test_a_run_must_be_a_plain_name(workbook, run):
    with pytest.raises(ValueError, match="must be a plain folder name"):
        open_run(run)


def test_addresses_stay_or_are_counted_from_the_top(workbook):
    assert workbook_address("demo/pretrain") == "demo/pretrain"
    assert workbook_address("imagenet-1k") == "imagenet-1k"
    assert workbook_address("s3://bucket/x.tar") == "s3://bucket/x.tar"
    assert workbook_address(["data/a.csv"]) == [str(workbook / "data" / "a.csv")]


@pytest.mark.parametrize(
    ("named", "beside", "found"),
    [
        (None, [], "demo/x"),
        (None, ["demo/pretrain", ["demo/a", "demo/b"]], "demo/x"),
        (None, ["demo/pretrain", "photos"], []),
        ([], ["demo/pretrain"], []),
        ("demo/y", ["photos"], "demo/y"),
    ],
)
def test_what_nobody_named_is_the_demos_beside_the_demos_data_alone(workbook, named, beside, found):
    assert own_or_demo("shards", named, "demo/x", beside, optional=True) == found
    if not found:
        with pytest.raises(ValueError, match="`shards` names no images"):
            own_or_demo("shards", named, "demo/x", beside)


@pytest.fixture
def begun(tmp_path):
    """A training's folder with a checkpoint."""
    with claim(tmp_path / "finetune", {"recipe": 1, "corpus": "a"}):
        pass
    (tmp_path / "finetune" / "checkpoints" / "step_3").mkdir(parents=True)
    return tmp_path / "finetune"


def test_an_unfinished_run_waits_for_the_data_it_began_with(begun):
    with pytest.raises(ValueError, match="begun with other data .*give it the data it began with"):
        claim(begun, {"recipe": 1, "corpus": "b"}).__enter__()
    with claim(begun, {"recipe": 1, "corpus": "a"}) as finished:
        assert not finished


def test_a_finished_run_over_other_data_is_kept_under_a_new_name(begun):
    (begun / "model.safetensors").touch()
    with claim(begun, {"recipe": 1, "corpus": "b"}) as finished:
        assert not finished
    assert (begun.with_name("finetune-1") / "model.safetensors").is_file()
    assert not (begun / "checkpoints").exists()


def test_a_selection_does_not_keep_a_folder_from_being_found(workbook):
    (workbook / "shards").mkdir()
    assert workbook_address("shards#split=a/b.c") == str(workbook / "shards#split=a/b.c")
    assert workbook_address("imagenet-1k#split=train") == "imagenet-1k#split=train"


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
        claim(begun, {"recipe": 2, "corpus": "a"}).__enter__()
    assert (begun / "checkpoints" / "step_3").is_dir()
    other.communicate("\n")
    with claim(begun, {"recipe": 1, "corpus": "a"}) as finished:
        assert not finished


def test_the_folder_of_a_killed_process_is_free_and_a_process_forked_from_it_is_waited_for(begun):
    other = in_another_process(begun, "import os, time; os.fork() or time.sleep(0.5) or os._exit(0); time.sleep(600)")
    other.kill()
    other.communicate()
    with claim(begun, {"recipe": 1, "corpus": "a"}) as finished:
        assert not finished


def test_a_folder_is_free_when_its_training_failed(begun, monkeypatch):
    monkeypatch.setattr("catlip_lite.training.ownership.PATIENCE", 0.0)
    with pytest.raises(KeyboardInterrupt), claim(begun, {"recipe": 1, "corpus": "a"}):
        raise KeyboardInterrupt
    in_another_process(begun, "pass").communicate()


def test_where_files_cannot_be_locked_a_run_goes_on_with_a_warning(begun, monkeypatch, caplog):
    def no_locks(*_):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr("catlip_lite.training.ownership.fcntl.flock", no_locks)
    with claim(begun, {"recipe": 1, "corpus": "a"}) as finished:
        assert not finished
    assert "finetune cannot be locked (No locks available): take care that no other process trains in it" in caplog.text
