"""One YAML serves all notebooks, and what a function takes of it has its names from the function alone."""

from __future__ import annotations

import re
from dataclasses import dataclass

import pytest

from catlip_lite.workbook.make_run import choose
from catlip_lite.workbook.parameters import taken_by


@dataclass
class Recipe:
    model: str
    lr: float
    seed: int = 0


def recipe_for(model: str, *, num_samples: int, epochs: int | None = None, **given) -> Recipe:
    return Recipe(model, **given)


VALUES = {"model": "vit", "lr": 0.1, "epochs": 3, "num_samples": 9, "run": "mine", "finetune_lr": 0.2, "finetune_run": "other"}


@pytest.mark.parametrize(
    ("taker", "prefix", "taken"),
    [
        (Recipe, "", {"model": "vit", "lr": 0.1}),
        (Recipe, "finetune_", {"lr": 0.2}),
        (recipe_for, "", {"epochs": 3, "lr": 0.1}),
        (lambda lr, run=None: None, "", {"run": "mine"}),
    ],
    ids=["a dataclass", "a prefix", "a function that hands on", "a function"],
)
def test_a_function_is_given_the_parameters_it_takes_and_none_that_each_call_says_itself(taker, prefix, taken):
    assert taken_by(taker, VALUES, prefix) == taken


TABLE = [
    "01_count:counts:::",
    "02_train:model:counts:shards:",
    "03_probe:probe:model:labelled tests:",
    "08_speed:speed:::asked",
]
WHOLE = {"shards": "b", "labelled": ["c"], "tests": ["d"]}


@pytest.mark.parametrize(
    ("values", "only", "chosen", "told"),
    [
        ({}, "", ["01_count", "02_train", "03_probe"], ""),
        (
            {"captions": "a"},
            "",
            ["01_count"],
            "02_train: not run, `shards` names no images\n03_probe: .*`labelled` and `tests` name no images",
        ),
        (
            {"captions": "a", "shards": "b"},
            "",
            ["01_count", "02_train"],
            "03_probe: not run, `labelled` and `tests` name no images",
        ),
        (WHOLE, "", ["01_count", "02_train", "03_probe"], ""),
        (WHOLE | {"shards": None}, "", ["01_count", "02_train", "03_probe"], ""),
        ({"tests": []}, "", ["01_count", "02_train"], "03_probe: not run, `tests` names no images"),
        ({"shards": []}, "", ["01_count"], "02_train: .*\n03_probe: not run, .*/model is not there: 02_train writes it"),
        (WHOLE, "1 02", ["01_count", "02_train"], ""),
        ({"captions": "a"}, "8", ["08_speed"], ""),
    ],
)
def test_notebooks_that_lack_images_or_artefacts_are_left_out_and_say_what_they_want(
    tmp_path, capsys, values, only, chosen, told
):
    assert choose(TABLE, values, tmp_path, only) == chosen
    assert re.fullmatch(told, capsys.readouterr().err.strip())


@pytest.mark.parametrize(
    ("only", "told"),
    [("03", "03_probe: not run, .*model is not there: 02_train"), ("1 9", "no notebook 9: choose from 01, 02, 03, 08")],
)
def test_a_notebook_that_was_asked_for_and_cannot_be_run_is_refused(tmp_path, only, told):
    with pytest.raises(ValueError, match=told):
        choose(TABLE, WHOLE, tmp_path, only)
    (tmp_path / "model").touch()
    assert choose(TABLE, WHOLE, tmp_path, "03") == ["03_probe"]
