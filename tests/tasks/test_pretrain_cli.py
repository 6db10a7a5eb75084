"""The run of notebook 04 without a notebook: the same parameters, from a shell or under Ray."""

import re
from dataclasses import fields
from pathlib import Path

import pytest

import catlip_lite
from catlip_lite.labels import CaptionLabeler, Vocabulary
from catlip_lite.tasks import pretrain as task
from catlip_lite.training.recipes import Recipe
from catlip_lite.workbook.parameters import declared_values

NOTEBOOKS = Path(__file__).resolve().parents[2] / "notebooks"


@pytest.fixture
def workbook(tmp_path, shards, vocabulary, monkeypatch):
    """A folder with notebooks and parameters of its own, in it a vocabulary and a YAML."""
    (tmp_path / "notebooks").symlink_to(NOTEBOOKS)
    (tmp_path / "params").mkdir()
    card = CaptionLabeler().card
    Vocabulary(vocabulary.wnids, vocabulary.counts, vocabulary.num_captions, card).save(tmp_path / "mine.parquet")
    lines = [f"shards: {shards}", "vocabulary: mine.parquet", "image_size: 16", "batch_size: 8", "max_steps: 3", "device: cpu"]
    (tmp_path / "params/mine.yaml").write_text("\n".join([*lines, "precision: fp32", "loader_workers: 0"]))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_every_setting_of_recipe_and_job_is_a_parameter_of_the_notebook():
    names = set(declared_values(NOTEBOOKS / "04_pretrain.ipynb"))
    settings = {f.name for f in fields(Recipe)} | {f.name for f in fields(task.PretrainJob)}
    assert settings - names == {"folder", "recipe"}


def test_the_yaml_decides_and_the_shell_overrules(workbook):
    assert task.main(["params/mine.yaml", "-p", "max_steps", "2"]) == 0
    config = catlip_lite.load(workbook / "outputs/mine/pretrain").config
    assert (config["recipe"]["max_steps"], config["recipe"]["batch_size"]) == (2, 8)


def test_relative_folders_count_from_the_workbooks_top(workbook):
    values = {**declared_values(NOTEBOOKS / "04_pretrain.ipynb"), "shards": str(workbook / "shards")}
    job, _ = task.job_from_parameters({**values, "vocabulary": "mine.parquet", "download_to": "tars"}, 1)
    assert (job.download_to, job.vocabulary) == (str(workbook / "tars"), str(workbook / "mine.parquet"))


def test_a_finished_run_is_recognised(workbook, capsys):
    assert task.main(["params/mine.yaml"]) == task.main(["params/mine.yaml"]) == 0
    assert "finished: nothing to train" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (["max_step", "2"], r"max_step \(nearest: max_steps\)"),
        (["parallel", "tensor"], "parallel='tensor' is unknown"),
        (["micro_batch", "3"], "batch_size=8 must be a multiple of micro_batch=3"),
        (["shards", "nowhere"], "nowhere"),
        (["shards", "null"], "`shards` names no images, and the demo's go with the demo's data alone, not with .*mine.parquet"),
    ],
)
def test_errors_are_one_line(workbook, capsys, given, told):
    assert task.main(["params/mine.yaml", "-p", *given]) == 1
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert len(error.splitlines()) == 1
    assert re.search(told, error)


def test_workers_train_under_ray_and_more_than_there_are_cores_for_are_refused(workbook, ray_cluster):
    values = {**declared_values(NOTEBOOKS / "04_pretrain.ipynb"), "run": "ray", "shards": str(workbook / "shards")}
    values |= {"vocabulary": "mine.parquet", "image_size": 16, "batch_size": 8, "max_steps": 3, "precision": "fp32"}
    model = task.pretrain(task.job_from_parameters(values, 2)[0])
    assert model.config["recipe"]["micro_batch"] == 4
    assert list(task.read_log(workbook / "outputs/ray")["step"]) == [3]
    with pytest.raises(ValueError, match=r"workers=64, but Ray sees 2 CPU core.s.: set workers to 2"):
        task.pretrain(task.job_from_parameters({**values, "run": "many", "batch_size": 64}, 64)[0])
