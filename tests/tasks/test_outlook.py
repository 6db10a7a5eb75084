"""Before training: what it will do, in what memory, how long; checkpoints in time; whether they fit on the disk."""

import shutil
from types import SimpleNamespace

import pytest
import torch

from catlip_lite.labels import Vocabulary
from catlip_lite.models import create_vit
from catlip_lite.tasks.outlook import check_disk, duration, outlook, paced
from catlip_lite.tasks.pretrain_job import PretrainJob, TrainingReporter
from catlip_lite.training.loop import RunOptions
from catlip_lite.training.memory import Fit
from catlip_lite.training.plan import run_totals
from catlip_lite.training.recipes import recipe_for

CPU = torch.device("cpu")


def told(seconds, *, model="vit_b16", device=CPU, start=0, options=None, **values):
    """The lines for a machine on which the run takes so many seconds."""
    recipe = recipe_for(model, num_samples=6_470, micro_batch=64, **values)
    with torch.device("meta"):
        network = create_vit(model, 1_552)
    _, flops = run_totals(network, recipe, 1, start)
    fit = Fit(64, True, 13.3e9, 4.2e9, 21e9, flops / seconds)
    return outlook(network, recipe, options or RunOptions(device), fit, 6_470, start)


def test_three_lines_say_what_where_and_how_long():
    what, memory, time = told(7_200)
    assert what == ("vit_b16, 87.1M parameters, on 6,470 images: 993 steps, 99.5 epochs; a step is 512 images = 8 x 64")
    assert memory == (
        "memory of cpu: 13.3 GB of weights, gradients, moments and EMA, 4.2 GB of activations (computed twice, to keep fewer), "
        "of 21 GB free"
    )
    assert time == (
        "about 2.0 hours at the rate of the first micro-batches, 89.4 images a second; it can be killed at any time, and goes "
        "on when run again: it loses at most 2.0 hours"
    )


def test_what_takes_weeks_comes_with_what_would_not():
    day = 86_400
    time = told(40 * day)[2]
    assert time.startswith(
        "this takes about 40 days here, 0.19 images a second: a GPU, `-p model vit_ti16` or `-p max_steps 10`"
    )
    assert "more GPUs (`workers`)" in told(40 * day, device=torch.device("cuda"))[2]
    assert "`-p max_steps 1` would not" in told(40 * 993 * day)[2]


def test_where_a_step_takes_long_a_kill_costs_that_step():
    options = paced(RunOptions(CPU), 3_600.0)
    assert (options.also_every, options.log_every) == (1, 1)
    assert told(993 * 3_600, options=options)[2].endswith("goes on when run again: it loses the step under way, 60 minutes")


def test_a_run_that_goes_on_tells_what_is_left():
    assert "steps 894 to 993, 10 epochs" in told(7_200, start=893)[0]


@pytest.mark.parametrize(("step_seconds", "also", "log"), [(0.1, None, 20), (10, 90, 6), (100, 9, 1)])
def test_slow_steps_have_more_checkpoints_and_lines(step_seconds, also, log):
    options = paced(RunOptions(CPU), step_seconds)
    assert (options.checkpoint_every, options.also_every, options.log_every) == (1000, also, log)


@pytest.mark.parametrize(
    ("seconds", "text"), [(3, "3 seconds"), (150, "2.5 minutes"), (5 * 3600, "5.0 hours"), (40 * 86_400, "40 days")]
)
def test_durations_are_rough(seconds, text):
    assert duration(seconds) == text


# --- the disk ---------------------------------------------------------------------------------------------------------------


@pytest.fixture
def job(tmp_path):
    """A run of vit_b16 with a checkpoint of 1.33 GB, 500 of them."""
    recipe = recipe_for("vit_b16", batch_size=8, max_steps=500_000)
    (tmp_path / "pretrain").mkdir()
    return PretrainJob(str(tmp_path), "shards", "vocabulary.parquet", recipe)


VOCABULARY = Vocabulary(["n02084071", "n02121620"], [6, 6], num_captions=24)


def with_free(monkeypatch, gigabytes):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=gigabytes * 1e9))


def test_checkpoints_that_do_not_fit_are_refused_with_the_figures(job, monkeypatch):
    with_free(monkeypatch, 4.0)
    with pytest.raises(
        OSError, match=r"a checkpoint takes 1.37\d GB, keep_last=2 of them, .* 4.126 GB; 4 GB are free .* lower"
    ):
        check_disk(job, VOCABULARY)
    with_free(monkeypatch, 4.2)
    check_disk(job, VOCABULARY)


def test_what_this_run_has_written_already_counts(job, monkeypatch):
    with_free(monkeypatch, 4.1)
    with pytest.raises(OSError, match="4.1 GB are free"):
        check_disk(job, VOCABULARY)
    (job.pretrain_folder / "checkpoints/step_00001000").mkdir(parents=True)
    (job.pretrain_folder / "checkpoints/step_00001000/data").write_bytes(bytes(40_000_000))
    check_disk(job, VOCABULARY)


def test_those_kept_for_good_are_told_if_they_will_not_fit(job, monkeypatch, capsys):
    with_free(monkeypatch, 100)
    check_disk(job, VOCABULARY)
    assert capsys.readouterr().out == ""
    job = PretrainJob(job.folder, job.shards, job.vocabulary, job.recipe, keep_every=1_500)
    check_disk(job, VOCABULARY)  # every 3,000th step is both saved and kept
    assert "with the 166 that keep_every=1500 keeps" in capsys.readouterr().out


# --- within a step ----------------------------------------------------------------------------------------------------------


def test_progress_within_a_step_is_told_every_few_seconds(monkeypatch, capsys):
    clock = [100.0]
    monkeypatch.setattr("catlip_lite.tasks.pretrain_job.time", SimpleNamespace(monotonic=lambda: clock[0]))
    report = TrainingReporter(993)
    for images in range(64, 513, 64):
        report.within(3, images, 512)
        clock[0] += 6
    assert capsys.readouterr().out.splitlines() == [f"step 3 of 993: {images} of 512 images" for images in (64, 192, 320, 448)]
