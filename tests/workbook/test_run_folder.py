"""Runs live in outputs/<run>/ of the workbook, wherever a notebook is started."""

import pytest

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


def test_a_selection_does_not_keep_a_folder_from_being_found(workbook):
    (workbook / "shards").mkdir()
    assert workbook_address("shards#split=a/b.c") == str(workbook / "shards#split=a/b.c")
    assert workbook_address("imagenet-1k#split=train") == "imagenet-1k#split=train"
