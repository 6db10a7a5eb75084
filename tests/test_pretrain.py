"""The one job of notebook 04, torchrun and Ray: found or made vocabularies, runs continued or recognised, what it will take."""

import json
import re
import shutil
from dataclasses import fields, replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

import catlip_lite
from catlip_lite import pretrain as front
from catlip_lite.data.shards import write_shards
from catlip_lite.labels import CaptionLabeler, Vocabulary
from catlip_lite.models import ClipModel, PretrainedModel, create_vit
from catlip_lite.pretrain import (
    PretrainJob,
    check_disk,
    data_of,
    find_vocabulary,
    outlook,
    paced,
    pretrain,
)
from catlip_lite.progress import TrainingReporter, duration
from catlip_lite.training.loop import RunOptions
from catlip_lite.training.losses import create_loss
from catlip_lite.training.memory import Fit
from catlip_lite.training.objectives import create_objective
from catlip_lite.training.plan import run_totals
from catlip_lite.training.recipes import Recipe, recipe_for
from catlip_lite.workbook.parameters import declared_values

NOTEBOOKS = Path(__file__).resolve().parents[1] / "notebooks"
SMALL = {"image_size": 16, "batch_size": 8, "max_steps": 4}


def make_job(run, shards, vocabulary, **values):
    card = CaptionLabeler().card
    Vocabulary(vocabulary.wnids, vocabulary.counts, vocabulary.num_captions, card).save(run / "vocabulary.parquet")
    recipe = recipe_for("vit_nano8", **{**SMALL, **values})
    return PretrainJob(
        str(run), str(shards), str(run / "vocabulary.parquet"), recipe, RunOptions("cpu", "fp32"), loader_workers=0
    )


def start(run, shards, vocabulary, **values):
    return pretrain(make_job(run, shards, vocabulary, **values))


def test_without_a_vocabulary_one_is_counted_and_kept(tmp_path, shards):
    found = find_vocabulary(tmp_path, None, str(shards), "compound", threshold=2)
    assert found == tmp_path / "vocabulary.parquet"
    assert set(Vocabulary.load(found).names) == {"apple", "dog", "cat", "banana", "paper"}


def test_captions_of_remote_shards_are_not_counted_in_passing(tmp_path):
    with pytest.raises(ValueError, match="count the captions of s3://bucket/.* with `python -m catlip_lite.label_captions`"):
        find_vocabulary(tmp_path, None, "s3://bucket/shards", "compound", threshold=2)


def test_captions_of_ones_own_beside_a_vocabulary_of_the_demos_are_refused(tmp_path, vocabulary, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "outputs/mine").mkdir(parents=True)
    path = tmp_path / "outputs/mine/vocabulary.parquet"
    Vocabulary(vocabulary.wnids, vocabulary.counts, 24, {"captions": "demo/pretrain"}).save(path)
    values = {"run": "mine", "vocabulary": None, "captions": None, "shards": None}
    assert data_of(values) == ("demo/pretrain", ["demo/pretrain"] * 2)
    with pytest.raises(ValueError, match="vocabulary.parquet counts demo/pretrain, not captions='mine.csv': run notebooks 01"):
        data_of({**values, "captions": "mine.csv"})


def test_a_finished_run_is_recognised(tmp_path, shards, vocabulary, capsys):
    start(tmp_path, shards, vocabulary)
    start(tmp_path, shards, vocabulary)
    assert "nothing to train" in capsys.readouterr().out


def test_another_recipe_keeps_the_finished_run_under_a_new_name(tmp_path, shards, vocabulary, capsys):
    first = start(tmp_path, shards, vocabulary)
    start(tmp_path, shards, vocabulary, lr=0.5)
    assert "held another run (other recipe): it is kept as" in capsys.readouterr().out
    kept = catlip_lite.load(tmp_path / "pretrain-1")
    assert kept.network.head.weight.tolist() == first.network.head.weight.tolist()
    assert catlip_lite.load(tmp_path / "pretrain").config["recipe"]["lr"] == 0.5


def test_other_captions_of_the_same_shards_are_another_run(tmp_path, shards, vocabulary, capsys):
    job = make_job(tmp_path, shards, vocabulary)
    for column in ("caption", "label", ["caption"]):
        pretrain(replace(job, caption_column=column))
    assert capsys.readouterr().out.count("held another run (other caption_column): it is kept as") == 2


def test_the_run_of_other_shards_is_not_moved_away(tmp_path, shards, samples, vocabulary):
    start(tmp_path, shards, vocabulary)
    (tmp_path / "pretrain" / "model.safetensors").unlink()
    write_shards(samples[:20], shards, samples_per_shard=16)
    with pytest.raises(ValueError, match="begun with other data or other numbers of samples"):
        start(tmp_path, shards, vocabulary)
    assert (tmp_path / "pretrain" / "checkpoints" / "step_00000004").is_dir()


def test_the_head_starts_at_the_log_prior_odds_or_the_given_bias(vocabulary):
    by_prior = create_objective(recipe_for("vit_nano8", image_size=16), vocabulary).network()
    assert by_prior.head.bias.tolist() == vocabulary.log_prior_odds().tolist()
    paper = create_objective(recipe_for("vit_nano8", image_size=16, head_bias="zero"), vocabulary).network()
    assert paper.head.bias.tolist() == [0, 0, 0, 0]


def test_unknown_augmentation_lists_the_known_ones(tmp_path, shards, vocabulary):
    with pytest.raises(ValueError, match="augmentation='wild' is unknown.*paper, drawings, none"):
        start(tmp_path, shards, vocabulary, augmentation="wild")


# --- objectives beside the paper's --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("objective", ["clip", "superclip"])
def test_a_finished_run_of_another_objective_is_a_model_that_chooses_by_prompts(
    tmp_path, shards, vocabulary, make_png, objective
):
    pytest.importorskip("open_clip")
    job = make_job(tmp_path, shards, vocabulary, objective=objective, context_length=12)
    pretrain(job if objective == "superclip" else replace(job, vocabulary=None))
    found = catlip_lite.load(tmp_path / "pretrain")
    clip = found.clip if objective == "superclip" else found
    assert isinstance(clip, ClipModel)
    assert isinstance(found, PretrainedModel) == (objective == "superclip")
    assert clip.zero_shot(make_png(), ["dog", "apple", "cat"]).shape == (3,)
    assert (found.config["objective"], found.config["context_length"]) == (objective, 12)


def test_a_finished_clip_run_is_recognised_and_the_papers_objective_is_another_run(tmp_path, shards, vocabulary, capsys):
    pytest.importorskip("open_clip")
    job = replace(make_job(tmp_path, shards, vocabulary, objective="clip"), vocabulary=None)
    first = pretrain(job)
    again = pretrain(job)
    assert "nothing to train" in capsys.readouterr().out
    assert torch.equal(first.projection, again.projection)
    assert isinstance(start(tmp_path, shards, vocabulary), PretrainedModel)
    assert "held another run (other recipe, wnids): it is kept as" in capsys.readouterr().out
    assert torch.equal(catlip_lite.load(tmp_path / "pretrain-1").projection, first.projection)


@pytest.mark.parametrize("objective", ["catlip", "clip"])
def test_images_without_a_caption_are_skipped_and_counted(tmp_path, shards, samples, vocabulary, objective):
    pytest.importorskip("open_clip")
    for sample in samples[:3]:
        sample.caption = " "
    write_shards(samples, shards, samples_per_shard=16)
    pretrain(make_job(tmp_path, shards, vocabulary, objective=objective, max_steps=3))  # three steps are an epoch
    entry = json.loads((tmp_path / "pretrain/log.jsonl").read_text().splitlines()[-1])
    assert entry["skipped"] == 3
    reasons = [json.loads(line)["reason"] for line in (tmp_path / "pretrain/skipped/rank0.jsonl").read_text().splitlines()]
    assert reasons == ["no caption"] * 3


# --- without a notebook -------------------------------------------------------------------------------------------------------


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


def test_every_parameter_of_the_notebook_is_taken_by_the_job_or_used_in_a_cell():
    names = set(declared_values(NOTEBOOKS / "04_pretrain.ipynb"))
    taken = {f.name for kind in (Recipe, RunOptions, front.PretrainJob) for f in fields(kind)} | {"epochs"}
    of_the_data = {"run", "captions", "shards", "vocabulary", "label_mode", "threshold"}
    assert names - taken - of_the_data == {"labelled", "tests", "most_test_images", "label_field"}


def test_the_yaml_decides_and_the_shell_overrules(workbook):
    assert front.main(["params/mine.yaml", "-p", "max_steps", "2"]) == 0
    config = catlip_lite.load(workbook / "outputs/mine/pretrain").config
    assert (config["recipe"]["max_steps"], config["recipe"]["batch_size"]) == (2, 8)


def test_relative_folders_count_from_the_workbooks_top(workbook):
    values = {**declared_values(NOTEBOOKS / "04_pretrain.ipynb"), "shards": str(workbook / "shards")}
    job, _ = front.job_from({**values, "vocabulary": "mine.parquet", "download_to": "tars"})
    assert (job.download_to, job.vocabulary) == (str(workbook / "tars"), str(workbook / "mine.parquet"))


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (["max_step", "2"], r"max_step \(nearest: max_steps\)"),
        (["parallel", "tensor"], "parallel='tensor' is unknown"),
        (["micro_batch", "3"], "batch_size=8 must be a multiple of micro_batch=3"),
        (["shards", "nowhere"], "nowhere"),
        (["run", "@x"], "-p run @x: the value must be YAML"),
        (["shards", "null"], "`shards` names no images, and the demo's go with the demo's data alone, not with .*mine.parquet"),
    ],
)
def test_errors_are_one_line(workbook, capsys, given, told):
    assert front.main(["params/mine.yaml", "-p", *given]) == 1
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert len(error.splitlines()) == 1
    assert re.search(told, error)


def test_workers_train_under_ray_and_more_than_there_are_cores_for_are_refused(workbook, ray_cluster):
    values = {**declared_values(NOTEBOOKS / "04_pretrain.ipynb"), "run": "ray", "shards": str(workbook / "shards")}
    values |= {"vocabulary": "mine.parquet", "image_size": 16, "batch_size": 8, "max_steps": 3, "precision": "fp32"}
    model = front.pretrain(front.job_from({**values, "workers": 2})[0])
    assert model.config["recipe"]["micro_batch"] == 4
    log = (workbook / "outputs/ray/pretrain/log.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in log] == [3]
    with pytest.raises(ValueError, match=r"workers=64, but Ray sees 2 CPU core.s.: set workers to 2"):
        front.pretrain(front.job_from({**values, "run": "many", "batch_size": 64, "workers": 64})[0])


# --- what it will take --------------------------------------------------------------------------------------------------------


def told(seconds, *, model="vit_b16", start=0, **values):
    """The lines for a machine on which the run takes so many seconds."""
    recipe = recipe_for(model, num_samples=6_470, micro_batch=64, **values)
    with torch.device("meta"):
        network = create_vit(model, 1_552)
    _, flops = run_totals(network, recipe, 1, start)
    fit = Fit(64, True, 13.3e9, 4.2e9, 21e9, flops / seconds)
    return outlook(network, create_loss("bce"), recipe, RunOptions("cpu"), fit, 6_470, start)[0]


def test_three_lines_say_what_where_and_how_long():
    what, memory, time = told(7_200)
    assert what == ("vit_b16, 87.1M parameters, on 6,470 images: 993 steps, 99.5 epochs; a step is 512 images = 8 x 64")
    assert memory == (
        "memory of cpu: 13.3 GB of weights, gradients, moments and EMA, 4.2 GB of activations (computed twice, to keep fewer), "
        "of 21 GB free"
    )
    assert time == (
        "about 2 h at the rate of the first micro-batches, 89.4 images a second; it can be killed at any time, and goes "
        "on when run again: it loses at most 15 min"
    )


def test_what_takes_weeks_comes_with_what_would_not():
    day = 86_400
    time = told(40 * day)[2]
    assert time.startswith(
        "this takes about 40 days here, 0.186 images a second: a GPU, `-p model vit_ti16` or `-p max_steps 10`"
    )
    assert "`-p max_steps 1` would not" in told(40 * 993 * day)[2]


def test_where_a_step_takes_long_a_kill_costs_that_step():
    assert told(993 * 3_600)[2].endswith("goes on when run again: it loses the step under way, 1 h")


def test_a_run_that_goes_on_tells_what_is_left():
    assert "steps 894 to 993, 10 epochs" in told(7_200, start=893)[0]


@pytest.mark.parametrize(("step_seconds", "also", "log"), [(0.1, None, 20), (10, 90, 6), (100, 9, 1), (3600, 1, 1)])
def test_slow_steps_have_more_checkpoints_and_lines(step_seconds, also, log):
    options = paced(RunOptions(), step_seconds)
    assert (options.checkpoint_every, options.also_every, options.log_every) == (1000, also, log)


SAID = [
    (0.2, "1 s"), (7.6, "8 s"), (80, "1 min 20 s"), (120, "2 min"), (7500, "2 h 5 min"), (7200, "2 h"), (126_000, "35 h"),
    (3.4 * 86_400, "3.4 days"), (40 * 86_400, "40 days"),
]  # fmt: skip


@pytest.mark.parametrize(("seconds", "said"), SAID)
def test_times_are_said_as_people_say_them(seconds, said):
    assert duration(seconds) == said


# --- the disk ---------------------------------------------------------------------------------------------------------------


@pytest.fixture
def job(tmp_path):
    """A run of vit_b16 over two classes, with a checkpoint of 1.37 GB, 500 of them."""
    recipe = recipe_for("vit_b16", batch_size=8, max_steps=500_000)
    (tmp_path / "pretrain").mkdir()
    return PretrainJob(str(tmp_path), "shards", "vocabulary.parquet", recipe)


def with_free(monkeypatch, gigabytes):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=gigabytes * 1e9))


def test_checkpoints_that_do_not_fit_are_refused_with_the_figures(job, monkeypatch):
    with_free(monkeypatch, 4.0)
    with pytest.raises(OSError, match=r"a checkpoint takes 1.37\d GB, 2 of them, .* 4.126 GB; 4 GB are free .* larger"):
        check_disk(job, 2)
    with_free(monkeypatch, 4.2)
    check_disk(job, 2)


def test_what_this_run_has_written_already_counts(job, monkeypatch):
    with_free(monkeypatch, 4.1)
    with pytest.raises(OSError, match="4.1 GB are free"):
        check_disk(job, 2)
    (job.pretrain_folder / "checkpoints/step_00001000").mkdir(parents=True)
    (job.pretrain_folder / "checkpoints/step_00001000/data").write_bytes(bytes(40_000_000))
    check_disk(job, 2)


# --- within a step ----------------------------------------------------------------------------------------------------------


def test_progress_within_a_step_is_told_every_few_seconds(monkeypatch, capsys):
    clock = [100.0]
    monkeypatch.setattr("catlip_lite.progress.time", SimpleNamespace(monotonic=lambda: clock[0]))
    report = TrainingReporter(993)
    for images in range(64, 513, 64):
        report.within(3, images, 512)
        clock[0] += 6
    assert capsys.readouterr().out.splitlines() == [f"step 3 of 993: {images} of 512 images" for images in (64, 192, 320, 448)]


def test_the_bar_of_a_resumed_training_counts_from_where_it_goes_on(monkeypatch):
    monkeypatch.setenv("JPY_SESSION_NAME", "04_pretrain.ipynb")
    report = TrainingReporter(100)
    report.within(41, 64, 64)
    report({"step": 60, "loss": 1.0, "images_per_second": 10.0, "eta_seconds": 4.0})
    assert (report.bar.initial, report.bar.n) == (40, 60)
    report.bar.close()
