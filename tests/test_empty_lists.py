"""Every list of a chapter may be empty: it leaves that part out and says so, or refuses at once what it is about.

The chapters' own cells, in this process, on a few one-coloured pictures.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import matplotlib.pyplot as plt
import nbformat
import numpy as np
import pytest
from IPython.core.interactiveshell import InteractiveShell
from IPython.utils.capture import capture_output
from traitlets.config import Config

from catlip_lite.artefacts import read_table
from catlip_lite.data.demo.composites import write_composites
from catlip_lite.data.demo.scenes import write_scenes
from catlip_lite.data.shards import Sample, write_shards
from catlip_lite.workbook.parameters import notebook_paths

ROOT = Path(__file__).resolve().parents[1]
COLOURS = {"apple": (200, 30, 30), "dog": (120, 80, 40), "cat": (90, 90, 90), "banana": (240, 220, 60)}
SMALL = {  # every list filled, and as little work as there can be
    "04_pretrain": {"image_size": 16, "batch_size": 8, "max_steps": 2, "warmup_steps": 1, "cache_gb": 1.0, "loader_workers": 0},
    "05_probe": {"baselines": ["pixels"]},
    "06_transfer_init": {
        "shots": [1], "fractions": [0.5], "finetune_shots": [1], "finetune_fractions": [0.5], "finetune_lrs": [1e-3],
        "finetune_epochs": 1,
    },
    "07_finetune": {"finetune_epochs": 1},
    "08_speed": {"speed_parts": ["labels"]},
    "09_catlip_vs_clip": {
        "image_size": 16, "versus_views": [8], "versus_lrs": [1e-3], "versus_batches": [8], "versus_budget": 8,
        "versus_losses": ["softmax"], "threshold": 1,
    },
    "10_multi_label": {
        "multi_label_image_size": 32, "multi_label_epochs": 1, "multi_label_batch_size": 16, "trained_on": ["image"],
    },
    "11_segmentation": {
        "segmentation_image_size": 32, "segmentation_batch_size": 8, "segmentation_heads": ["linear"],
        "segmentation_starts": ["pre-trained"], "segmentation_protocols": ["squash"],
    },
    "12_detection": {"detection_image_size": 64, "detection_batch_size": 8, "detection_arms": ["pre-trained"]},
    "13_open_questions": {
        "languages": ["en"], "senses": ["first"], "image_size": 16, "batch_size": 8, "epochs": 0.25, "threshold": 1,
    },
}  # fmt: skip
LESS = {  # of what stands in cells: by chapter, text and what takes its place
    "06_transfer_init": {"head_epochs = 30": "head_epochs = 1", "least_steps = 100": "least_steps = 1"},
    "10_multi_label": {'"weighted"], 100': '"weighted"], 2', "round(0.1 * len(images))": "round(0.3 * len(images))"},
}
NO_IMAGES, NONE = "names no images", "nothing is fine-tuned"
TOLD = {  # by chapter and execution: the lists that are empty in it, and what it says without each
    "04_pretrain": [{"labelled": "zero-shot reaches"}, {"tests": "No `tests` are named"}],
    "05_probe": [{"probe_tests": NO_IMAGES}, {"baselines": "trained ViT"}],
    "06_transfer_init": [
        {"labelled": NO_IMAGES}, {"tests": NO_IMAGES}, {"seeds": "`seeds` is empty"},
        {"shots": "50 %", "finetune_lrs": "fine-tuning"},
        {"fractions": "1 a class", "finetune_shots": NONE, "finetune_fractions": NONE},
    ],
    "07_finetune": [{"labelled": NO_IMAGES}, {"tests": NO_IMAGES}],
    "08_speed": [{"speed_parts": "speed_parts=.* is nothing to measure"}],
    "09_catlip_vs_clip": [
        {"probe_tests": NO_IMAGES}, {"seeds": "`seeds`, .* need a value each"}, {"versus_views": "need a value each"},
        {"versus_lrs": "need a value each"}, {"versus_batches": "need a value each"},
        {"tests": "At equal cost", "versus_labels": "At equal cost", "versus_losses": "At equal cost"},
        {"versus_parts": "written:"},
    ],
    "10_multi_label": [
        {"multi_label_train": NO_IMAGES}, {"multi_label_tests": NO_IMAGES},
        {"trained_on": "trained_on=.* must be a list of one"}, {"multi_label_seeds": "`multi_label_seeds` is empty"},
    ],
    "11_segmentation": [
        {"segmentation_heads": "`segmentation_heads` is .*: name one or more of deeplab, linear"},
        {"segmentation_starts": "`segmentation_starts` is .*: name one or more of pre-trained, untrained"},
        {"segmentation_protocols": "`segmentation_protocols` is .*: name one or more of squash, whole, slide"},
        {"segmentation_seeds": "`segmentation_seeds` is .*: name one or more"},
    ],
    "12_detection": [
        {"detection_arms": "`detection_arms` is .*: name one or more of pre-trained, untrained"},
        {"detection_seeds": "`detection_seeds` is .*: name one or more"},
    ],
    "13_open_questions": [
        {"tests": NO_IMAGES}, {"seeds": "seeds=.* trains nothing"},
        {"languages": "compared with en, whole captions", "senses": "compared with en, whole captions"},
    ],
}  # fmt: skip
# read by the part `objectives` alone, which takes minutes; without it that is of `speed_model`
UNTOLD = {"08_speed": {"speed_objective_models"}}


def emptied_in(chapter: str) -> dict:
    """Every list of a chapter, and what it says without it."""
    return {name: told for execution in TOLD.get(chapter, []) for name, told in execution.items()}


def cells_of(chapter: str) -> list:
    notebook = nbformat.read(ROOT / "notebooks" / f"{chapter}.ipynb", as_version=4)
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    for text, less in LESS.get(chapter, {}).items():
        (cell,) = [cell for cell in cells if text in cell.source]
        cell.source = cell.source.replace(text, less)
    return cells


@pytest.fixture(scope="module")
def data(tmp_path_factory, make_png):
    """A workbook's folder with captioned, labelled shards and scenes, and where they are by parameter."""
    folder, rng = tmp_path_factory.mktemp("workbook"), np.random.default_rng(0)
    for name in ("notebooks", "params", "annotations", "train", "test"):
        (folder / name).mkdir()
    found = {}
    for split, count in (("train", 32), ("test", 8)):
        samples = []
        for i in range(count):
            name = list(COLOURS)[i % 4]
            colour = tuple(int(c) for c in np.clip(np.array(COLOURS[name]) + rng.integers(-15, 15, 3), 0, 255))
            samples.append(Sample("", make_png(colour), "png", f"a {name} on paper", {"uid": f"u{i}", "label": name}))
        write_shards(samples, folder / "shards" / split, samples_per_shard=16)
        scenes = write_scenes(folder / split, {n: [make_png(c, (72, 72))] for n, c in COLOURS.items()}, count, split)
        found[split] = folder / "annotations" / f"instances_{split}.json"
        found[split].write_text(json.dumps(scenes))
        write_composites(folder / "composites", split, {n: [make_png(c, (72, 72))] for n, c in COLOURS.items()}, count)
    train, test = (str(folder / "shards" / split) for split in ("train", "test"))
    images = {"shards": train, "labelled": [train], "tests": [test], "probe_train": train, "probe_tests": [test]}
    images["language_shards"] = train
    images |= {f"multi_label_{name}": [str(found[split])] for name, split in (("train", "train"), ("tests", "test"))}
    for split in ("train", "test"):
        images[f"segmentation_{split}"] = str(folder / "composites" / "images" / split)
        images[f"detection_{split}"] = str(folder / "composites" / "annotations" / f"instances_{split}.json")
    return folder, images | {"run": "small", "precision": "fp32", "device": "cpu"}


@pytest.fixture(scope="module")
def shell():
    main = sys.modules["__main__"]
    yield InteractiveShell.instance(config=Config({"HistoryManager": {"enabled": False}}))
    InteractiveShell.clear_instance()
    sys.modules["__main__"] = main  # which the shell has put itself in the place of, and processes are started from


@pytest.fixture
def execute(data, shell, monkeypatch):
    """Execute a chapter's cells with a few of its parameters changed, up to a cell with `before`: what it showed."""
    folder, images = data
    monkeypatch.chdir(folder / "notebooks")

    def run(chapter: str, before: str | None = None, **changed) -> str:
        values = {**images, **SMALL[chapter], **changed}
        shell.reset(new_session=False)
        with capture_output() as captured:
            for cell in cells_of(chapter):
                if before is not None and before in cell.source:
                    break
                shell.run_cell(cell.source).raise_error()
                if "parameters" in cell.metadata.get("tags", []):
                    shell.push({name: value for name, value in values.items() if name in shell.user_ns})
        plt.close("all")
        return "".join([captured.stdout, *(str(output.data) for output in captured.outputs)])

    if not (folder / "outputs/small/pretrain/model.safetensors").is_file():
        run("04_pretrain")
    return run


EMPTIED = [(chapter, emptied) for chapter, executions in TOLD.items() for emptied in executions]


@pytest.mark.parametrize(("chapter", "emptied"), EMPTIED, ids=[f"{chapter}-{'-'.join(lists)}" for chapter, lists in EMPTIED])
def test_a_list_may_be_empty(execute, chapter, emptied):
    try:
        shown = execute(chapter, **dict.fromkeys(emptied))
    except ValueError as error:
        shown = str(error)
        assert "\n" not in shown
    assert all(re.search(told, shown) for told in emptied.values())


def test_every_list_of_every_chapter_is_among_these():
    for path in notebook_paths(ROOT / "notebooks"):
        (cell,) = [cell for cell in cells_of(path.stem) if "parameters" in cell.metadata.get("tags", [])]
        lists = set(re.findall(r"^(\w+): list = ", cell.source, re.MULTILINE))
        assert lists == set(emptied_in(path.stem)) | UNTOLD.get(path.stem, set())


def test_make_knows_which_parameters_must_name_images():
    rows = re.findall(r"\(call notebook,(\d\w+),[^,]*,[^,]*,([^,)]*)", (ROOT / "Makefile").read_text())
    lists = {chapter: {name for name, told in emptied_in(chapter).items() if told == NO_IMAGES} for chapter, _ in rows}
    single = {"shards", "probe_train", "segmentation_train", "segmentation_test", "detection_train", "detection_test"}
    assert {chapter: set(names.split()) - single for chapter, names in rows} == lists


@pytest.mark.parametrize(
    ("chapter", "then", "written"),
    [
        ("05_probe", "zero_shot = pd.DataFrame(rows)", "probe"),
        ("06_transfer_init", "def fine_tuned(", "transfer_init"),
        ("07_finetune", "changes = pd.DataFrame(", "finetune"),
        ("10_multi_label", "def by_class(", "multi_label"),
    ],
)
def test_what_was_measured_is_written_before_the_next_thing_is_begun(execute, data, chapter, then, written):
    path = data[0] / f"outputs/small/{written}.parquet"
    path.unlink(missing_ok=True)
    execute(chapter, before=then)
    assert len(read_table(path)[0])
