"""A newcomer's wrong first steps: each ends in one line that says what to do. In a folder with spaces in its path, too."""

from __future__ import annotations

import errno
import os
import re
import shutil
import subprocess
import sys
import tomllib
from itertools import chain
from pathlib import Path

import nbformat
import papermill
import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from catlip_lite.data.captions import read_captions
from catlip_lite.data.stream import open_shards
from catlip_lite.workbook import __main__ as command_line
from catlip_lite.workbook import doctor
from catlip_lite.workbook.run_folder import open_run

ROOT = Path(__file__).resolve().parents[2]
CAPTIONS = ["a dog, asleep", "two apples; red"]

# ---- set-up


@pytest.fixture
def clone(tmp_path):
    """A clone as far as set-up and `make doctor` look at it."""
    folder = tmp_path / "my first try"
    folder.mkdir()
    for name in ("Makefile", "pyproject.toml", "uv.lock"):
        shutil.copy(ROOT / name, folder)
    (folder / "catlip_lite").symlink_to(ROOT / "catlip_lite")
    return folder


def program(folder: Path, script: str, *names: str) -> None:
    """Put a shell script on the PATH of `make` under these names."""
    (folder / "bin").mkdir(exist_ok=True)
    for name in names:
        (folder / "bin" / name).write_text(f"#!/bin/sh\n{script}\n")
        (folder / "bin" / name).chmod(0o755)


def make(folder: Path, *arguments: str) -> str:
    """What `make` that fails says in front of its own last line."""
    path = f"{folder / 'bin'}:{os.environ['PATH']}"
    done = subprocess.run(["make", *arguments], cwd=folder, env={**os.environ, "PATH": path}, capture_output=True, text=True)
    assert done.returncode, done.stdout
    (line,) = [line for line in done.stderr.splitlines() if not line.startswith("make")]
    return line


@pytest.mark.parametrize("target", ["run", "doctor"])
def test_without_a_python_of_3_11_or_later(clone, target):
    program(clone, "exit 1", "python3", "python3.11", "python3.12", "python3.13")
    assert make(clone, "UV=", target).startswith("error: no Python 3.11 or later on PATH: install one")


NO_NETWORK = {
    "pip": "ERROR: Could not find a version that satisfies …\nERROR: No matching distribution found for setuptools>=68",
    "uv": "error: Request failed after 3 retries\n  cause: Failed to fetch: `https://…`\n  cause: dns error: failed to lookup",
}
NO_SPACE = {
    "pip": "ERROR: Could not install packages due to an OSError: [Errno 28] No space left on device",
    "uv": "error: Failed to install: a.whl\n  cause: failed to copy file: No space left on device (os error 28)",
}


@pytest.mark.parametrize("tool", ["pip", "uv"])
@pytest.mark.parametrize(
    ("said", "told"),
    [
        (
            NO_NETWORK,
            r"(pip|uv) cannot reach a package.*: check the network, or name your mirror in (PIP_INDEX_URL|UV_DEFAULT_INDEX)",
        ),
        (NO_SPACE, r"no space left: \.venv takes up to 8 GB, and (pip|uv) as much .*: make room, then again"),
    ],
    ids=["no network", "no space"],
)
def test_set_up_that_fails(clone, tool, said, told):
    if tool == "uv":
        program(clone, f"cat <<'SAID'\n{said[tool]}\nSAID\nexit 2", "uv")
    else:
        pip = f"cat <<'SAID'\n{said[tool]}\nSAID\nexit 1"
        program(clone, f'case "$2" in\nvenv) mkdir -p .venv/bin; cp "$0" .venv/bin/python;;\npip) {pip};;\nesac', "python3")
    assert re.match(f"error: {told}", make(clone, f"UV={clone / 'bin/uv' if tool == 'uv' else ''}", "run"))


def test_uv_lock_names_the_public_index_alone_and_meets_every_requirement():
    text = (ROOT / "uv.lock").read_text(encoding="utf-8")
    assert set(re.findall(r"\w+://[^/\"]*", text)) == {"https://pypi.org", "https://files.pythonhosted.org"}
    locked: dict[str, list[str]] = {}
    for package in tomllib.loads(text)["package"]:
        locked.setdefault(package["name"], []).append(package["version"])
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    wanted = [Requirement(line) for line in chain(project["dependencies"], *project["optional-dependencies"].values())]
    assert [
        str(one) for one in wanted if not any(map(one.specifier.contains, locked.get(canonicalize_name(one.name), ())))
    ] == []


# ---- what `make doctor` says


def test_the_doctor_needs_the_standard_library_alone():
    bare = [sys.executable, "-S", "-m", "catlip_lite.workbook.doctor"]
    said = subprocess.run(bare, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert [line[:10].strip() for line in said.splitlines()] == [
        "Python", "machine", "set-up", "needs", "disk", "make run", "missing",
    ]  # fmt: skip


def test_windows_is_sent_to_its_linux(monkeypatch, capsys):
    monkeypatch.setattr(doctor.platform, "system", lambda: "Windows")
    assert doctor.main() == 1
    assert "`wsl --install`" in capsys.readouterr().err


def test_packages_are_missing_by_extra_with_the_line_that_brings_them(monkeypatch):
    monkeypatch.setattr(doctor, "is_installed", lambda wanted: wanted.name not in ("nltk", "ray", "spacy"))
    missing = doctor.missing_packages()
    assert missing == {"": ["nltk"], "spacy": ["spacy"], "languages": ["spacy"], "cluster": ["ray"]}
    assert doctor.advice(missing).endswith("-e '.[spacy,languages,cluster]'")


@pytest.mark.parametrize(("wanted", "there"), [("numpy>=1", True), ("numpy>=99", False), ("no-such-package", False)])
def test_a_package_that_is_too_old_is_missing(wanted, there):
    assert doctor.is_installed(Requirement(wanted)) == there


def test_the_readmes_machine_takes_the_readmes_minutes():
    assert re.findall(r"no GPU, (\d+) to \d+ minutes", (ROOT / "README.md").read_text()) == [str(doctor.KNOWN_MINUTES)]


def test_the_demos_training_is_timed():
    assert doctor.demo_rate(seconds=0) > 0


# ---- data


@pytest.mark.parametrize("suffix", [".csv", ".tsv"])
@pytest.mark.parametrize("separator", [",", ";", "\t", "|"])
def test_captions_are_read_whatever_parts_the_columns(tmp_path, suffix, separator):
    rows = [["id", "caption"], *([str(i), f'"{caption}"'] for i, caption in enumerate(CAPTIONS))]
    (tmp_path / f"captions{suffix}").write_text("".join(separator.join(row) + "\n" for row in rows))
    assert read_captions(tmp_path / f"captions{suffix}") == CAPTIONS


def test_one_column_of_captions_is_no_matter_of_separators(tmp_path):
    (tmp_path / "captions.csv").write_text("caption\ntwo apples; red\n")
    assert read_captions(tmp_path / "captions.csv") == ["two apples; red"]


@pytest.mark.parametrize("read", [read_captions, open_shards])
def test_a_folder_of_images_alone(tmp_path, make_png, read):
    (tmp_path / "0.png").write_bytes(make_png())
    with pytest.raises(
        FileNotFoundError, match=r"it holds images; with their captions beside them, 0\.jpg and 0\.txt, in folders"
    ):
        read(tmp_path)


def test_captions_alone_where_images_are_needed(tmp_path):
    (tmp_path / "captions.csv").write_text("caption\na dog\n")
    with pytest.raises(ValueError, match=r"shards are read from \.tar .*; captions without images are for `captions`"):
        open_shards(tmp_path / "captions.csv")


# ---- a run


def test_a_disk_that_is_full_in_a_run(tmp_path, monkeypatch, capsys):
    def fails(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(command_line, "render_notebook", fails)
    assert command_line.main(["notebooks/01_first.ipynb", "--run", "trial"]) == 1
    assert capsys.readouterr().err.endswith("make room on the disk, the next `make run` goes on from there\n")


def test_a_notebook_started_outside_the_workbook_says_where_its_outputs_go(tmp_path, monkeypatch, caplog):
    monkeypatch.chdir(tmp_path)
    assert open_run("trial") == tmp_path / "outputs/trial"
    assert f"outputs go to {tmp_path / 'outputs/trial'}" in caplog.text
    caplog.clear()
    for name in ("notebooks", "params"):
        (tmp_path / name).mkdir()
    open_run("trial")
    assert not caplog.text


def test_papermill_with_a_misspelt_parameter(tmp_path):
    for name in ("notebooks", "params"):
        (tmp_path / name).mkdir()
    cells = [
        nbformat.v4.new_code_cell("model: str = 'vit_b16'", metadata={"tags": ["parameters"]}),
        nbformat.v4.new_code_cell("from catlip_lite.workbook.run_folder import open_run\nprint(open_run('trial'))"),
    ]
    chapter, mine, out = tmp_path / "notebooks/01_first.ipynb", tmp_path / "notebooks/mine.ipynb", tmp_path / "out.ipynb"
    nbformat.write(nbformat.v4.new_notebook(cells=cells), chapter)
    given = {"kernel_name": "python3", "language": "python", "cwd": tmp_path, "progress_bar": False}
    with pytest.raises(papermill.PapermillExecutionError, match=r"no notebook has a parameter modle \(nearest: model\)"):
        papermill.execute_notebook(chapter, out, {"modle": "vit_h16"}, **given)
    cells[0].source = "crop: float = 0.9"  # a copy with a parameter of its own, beside the chapters'
    nbformat.write(nbformat.v4.new_notebook(cells=cells), mine)
    papermill.execute_notebook(mine, out, {"crop": 0.8, "model": "vit_h16"}, **given)
