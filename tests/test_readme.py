"""Every command that the README gives is executed here, on little: what a person types works as it is written."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import pandas as pd
import pytest
import yaml
from torch.distributed.run import get_args_parser

from catlip_lite import pretrain
from catlip_lite.training import plan
from catlip_lite.workbook.parameters import declared_values, notebook_paths

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(\w*)\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)
PROGRAMS = ("make", "papermill", "python", "torchrun", "sbatch", "ray", "conda", "pip")
IN_SENTENCES = [code for code in re.findall(r"`([^`\n]+)`", README) if code.startswith(tuple(f"{p} " for p in PROGRAMS))]
IN_BLOCKS = [line.split("  #")[0].strip() for kind, block in BLOCKS if not kind for line in block.splitlines()]
COMMANDS = sorted({*IN_BLOCKS, *IN_SENTENCES})


def starting(*programs: str):
    """The commands of these programs, as a test's parameter."""
    found = [command for command in COMMANDS if re.match(rf"(cd notebooks && )?(\w+=\S+ )?({'|'.join(programs)})\b", command)]
    return pytest.mark.parametrize("command", found)


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """A checkout that is set up, with a run that has a vocabulary and a pre-trained model."""
    folder = tmp_path_factory.mktemp("project")
    for name in ("Makefile", "pyproject.toml"):
        shutil.copy(ROOT / name, folder)
    for name in ("notebooks", "params"):
        shutil.copytree(ROOT / name, folder / name)
    (own,) = [block for kind, block in BLOCKS if kind == "yaml"]
    for name in ("params/mine.yaml", "file.yaml"):
        (folder / name).write_text(own, encoding="utf-8")
    for name in ("ready", "outputs/mine/vocabulary.parquet", "outputs/mine/pretrain/model.safetensors"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    return folder


def run(command: str, folder: Path, **more) -> subprocess.CompletedProcess:
    return subprocess.run(command, shell=True, cwd=folder, capture_output=True, text=True, timeout=300, **more)


def test_no_command_is_left_out():
    tested = ("make", "papermill", "python -m catlip_lite", "torchrun", "sbatch")
    other = [command for command in COMMANDS if not re.match(rf"(cd notebooks && )?(\w+=\S+ )?({'|'.join(tested)})\b", command)]
    elsewhere = ["conda env create && conda activate catlip-lite", "pip install -e ."]  # set up what runs this test
    assert other == sorted([*elsewhere, *(c for c in COMMANDS if c.startswith(("ray start ", "python -m nltk.")))])


@starting("make")
def test_make_would_run_what_is_said(command, project):
    """`make -n` works out the notebooks for real, and prints what it would execute."""
    answer = run(command.replace("make", f"make -n UV= READY=ready PYTHON={shlex.quote(sys.executable)}", 1), project)
    assert answer.returncode == 0, answer.stderr
    if only := re.search(r'ONLY="?([\d ]+)', command):
        executed = re.findall(r"catlip_lite\.workbook notebooks/(\d\d)_", answer.stdout)
        assert list(dict.fromkeys(executed)) == only[1].split()
        named = re.search(r"RUN=(\w+)", command)
        assert f"--run '{named[1] if named else 'demo'}'" in answer.stdout


@starting("papermill")
def test_papermill_takes_the_parameters(command, project, tmp_path):
    there, papermill = shlex.quote(str(tmp_path / "out.ipynb")), f"{shlex.quote(sys.executable)} -m papermill"
    asked = re.sub(r"\bpapermill\b", papermill, command, count=1).replace("out.ipynb", f"{there} --prepare-only")
    answer = run(asked, project)
    assert answer.returncode == 0, answer.stderr
    assert "unknown parameter" not in answer.stderr or " -f " in command  # a file is for all notebooks
    if "--help-notebook" in command:
        assert "model: str" in answer.stdout
        return
    [injected] = [c.source for c in nbformat.read(tmp_path / "out.ipynb", 4).cells if "injected-parameters" in c.metadata.tags]
    if file := re.search(r"-f \S*/(\w+\.yaml)", command):
        wanted = yaml.safe_load((project / "params" / file[1]).read_text(encoding="utf-8"))
    else:
        wanted = dict(re.findall(r"-p (\w+) (\S+)", command))
    assert {name: f"{name} = {value!r}".replace("'", '"') for name, value in wanted.items()}.items() <= {
        line.split(" = ")[0]: line.replace("'", '"') for line in injected.splitlines()
    }.items()


@starting("torchrun", "sbatch")
def test_torchrun_understands_it(command, project):
    told = torchrun_arguments(command)
    assert told.module
    assert told.training_script == "catlip_lite.pretrain"
    assert all((project / file).is_file() for file in told.training_script_args)


def torchrun_arguments(command):
    inner = shlex.split(command)
    inner = shlex.split(inner[-1])[1:] if inner[0] == "sbatch" else inner  # --wrap 'srun torchrun …'
    return get_args_parser().parse_args(inner[1:])


def test_what_torchrun_starts_gets_as_far_as_the_images_which_are_not_here(project, monkeypatch, capsys):
    told = torchrun_arguments(next(command for command in COMMANDS if command.startswith("torchrun")))
    monkeypatch.chdir(project)
    assert pretrain.main(told.training_script_args) == 1
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "data/datacomp" in error


def test_labelling_a_corpus(project):
    (command,) = [command for command in COMMANDS if "label_captions" in command]
    pd.DataFrame({"uid": ["a", "b"], "text": ["a cat", "two dogs"]}).to_parquet(project / "captions.parquet")
    command = command.replace("s3://bucket/shards/*.parquet", "*.parquet").replace("--workers 64", "--workers 1")
    answer = run(command.replace("python", shlex.quote(sys.executable), 1), project)
    assert answer.returncode == 0, answer.stderr
    assert (project / "outputs/mine/synset_counts.parquet").is_file()


def test_a_plan(capsys):
    (command,) = [command for command in COMMANDS if "training.plan" in command]
    called, arguments = shlex.split(command)[:3], shlex.split(command)[3:]
    assert called == ["python", "-m", plan.__name__]
    plan.main(arguments)
    assert "device_hours" in capsys.readouterr().out


def test_the_parameters_that_people_are_told_to_set_exist():
    named = re.findall(r"`(\w+)`", README[README.index("What\npeople set most") : README.index("The rest are keywords")])
    parameters = {name for notebook in notebook_paths(ROOT / "notebooks") for name in declared_values(notebook)}
    (own,) = [block for kind, block in BLOCKS if kind == "yaml"]
    assert len(named) > 20
    assert {*named, *yaml.safe_load(own)} - parameters - {"de", "es", "fr"} == set()
