"""Chapters in JupyterLab, as a person uses them: run from the menu, explorers answer, the training's bar moves."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from contextlib import contextmanager, suppress
from pathlib import Path

import nbformat
import pytest

from catlip_lite.pretrain import find_vocabulary

expect = pytest.importorskip("playwright.sync_api").expect

ROOT = Path(__file__).resolve().parents[1]
PATIENCE = 300_000  # milliseconds that a chapter may take on a busy machine
expect.set_options(timeout=30_000)  # and an answer
LESS = {  # of a chapter's text, and what takes its place: as little work as shows the widgets
    "01_synset_analysis": {
        "in installed_taggers()": 'in ["perceptron"]',
        'sorted({entry.language for entry in read_gold("gold_languages")})': "[]",
    },
    "03_imagenet_overlap": {'("shop", *NAMED_SETS)': '["shop"]'},
    "04_pretrain": {
        "max_steps: int = None": "max_steps: int = 80",  # a line of the log, and a move of the bar, every 20
        "batch_size: int = None": "batch_size: int = 8",
        "most_test_images: int = 256": "most_test_images: int = 24",
    },
}
SETTINGS = "CONFIG/lab/user-settings/@jupyterlab/apputils-extension/notification.jupyterlab-settings"
NO_NEWS = {"fetchNews": "false", "checkForUpdates": False}  # else Lab asks about them, over the notebook
CAN_BE_SEEN = "images => Promise.all(images.map(image => image.decode()))"  # an error if one cannot


@pytest.fixture(scope="module")
def workbook(tmp_path_factory):
    """A workbook's folder with copies of the chapters."""
    folder = tmp_path_factory.mktemp("lab")
    settings = folder / SETTINGS
    for made in (folder / "notebooks", folder / "params", folder / "outputs/smoke", settings.parent):
        made.mkdir(parents=True)
    settings.write_text(json.dumps(NO_NEWS))
    for chapter, less in LESS.items():
        notebook = nbformat.read(ROOT / f"notebooks/{chapter}.ipynb", as_version=4)
        for text, instead in less.items():
            (cell,) = [cell for cell in notebook.cells if text in cell.source]
            cell.source = cell.source.replace(text, instead)
        nbformat.write(notebook, folder / f"notebooks/{chapter}.ipynb")
    return folder


@pytest.fixture(scope="module")
def lab(browser, workbook):
    """A page with JupyterLab, the chapters in its file browser."""
    places = {f"JUPYTER_{name}_DIR": str(workbook / name) for name in ("CONFIG", "DATA", "RUNTIME")}
    with (workbook / "server.log").open("w") as log:
        server = subprocess.Popen(
            [sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root", "--port=0"],
            cwd=workbook / "notebooks",
            env={**os.environ, **places, "IPYTHONDIR": str(workbook / "ipython")},
            stdout=log,
            stderr=subprocess.STDOUT,
        )
    try:
        find_vocabulary(workbook / "outputs/smoke", None, "demo/pretrain", "compound", 2)  # that 03 and 04 read
        page = browser.new_page(viewport={"width": 1400, "height": 900})
        page.set_default_timeout(PATIENCE)
        page.goto(address_of(server, workbook))
        yield page
        page.close()
    finally:
        server.terminate()
        server.wait()


def address_of(server: subprocess.Popen, workbook: Path) -> str:
    """Where a server listens, with its token, as soon as it says so."""
    while server.poll() is None:
        with suppress(FileNotFoundError, json.JSONDecodeError):
            info = json.loads((workbook / f"RUNTIME/jpserver-{server.pid}.json").read_text())
            return f"{info['url']}lab?token={info['token']}"
        time.sleep(0.1)
    pytest.fail(f"JupyterLab did not start:\n{(workbook / 'server.log').read_text()}")


@pytest.fixture
def chapter(lab, tmp_path):
    """Open a chapter and run it from the menu, as a context with its panel; a failure leaves a picture of Lab."""

    @contextmanager
    def run(name: str):
        try:
            lab.locator(".jp-DirListing-item", has_text=name).dblclick()
            lab.get_by_title(f"Change kernel for {name}.ipynb").get_by_text("| Idle").wait_for()
            for item in ("Run", "Run All Cells"):
                lab.get_by_role("menuitem", name=item, exact=True).click()
            panel = lab.locator(".jp-NotebookPanel:visible")
            yield panel
            assert not errors_in(panel).all_text_contents()
            expect(lab.locator(".jp-LogConsoleStatusItem")).to_be_hidden()  # counts errors that widgets end in
        except BaseException as error:
            lab.screenshot(path=tmp_path / "lab.png")
            error.add_note(f"What JupyterLab showed then: {tmp_path / 'lab.png'}")
            raise

    return run


def errors_in(panel):
    return panel.locator(".jp-OutputArea-output", has_text="Traceback (most recent call last)")


def until(panel, there) -> None:
    """Wait until something is there; fail as soon as a cell ends in an error."""
    errors_in(panel).or_(there).first.wait_for()
    assert not errors_in(panel).all_text_contents()


def until_the_last_cell_has_run(panel) -> None:
    until(panel, panel.locator(".jp-CodeCell").last.locator(".jp-InputPrompt", has_text=re.compile(r"\[\d+\]")))


def test_a_typed_caption_is_marked_by_the_reader_who_is_picked(chapter):
    with chapter("01_synset_analysis") as panel:
        until_the_last_cell_has_run(panel)
        shown = panel.locator(".widget-html", has_text="mention")
        box = panel.get_by_label("caption", exact=True)
        box.fill("a mouse beside an apple")
        box.press("Enter")
        expect(shown.locator("mark")).to_have_text(["mouse", "apple"])
        expect(shown).to_contain_text("n02330245")  # the rodent
        box.fill("a mouse beside a keyboard")
        box.press("Enter")
        panel.get_by_label("reader", exact=True).select_option("compound-context")
        expect(shown.locator("mark")).to_have_text(["mouse", "keyboard"])
        expect(shown).to_contain_text("n03793489")  # the device


def test_a_lower_similarity_shows_more_classes_and_pictures(chapter):
    with chapter("03_imagenet_overlap") as panel:
        until_the_last_cell_has_run(panel)
        shown = panel.locator(".widget-html", has_text="path similarity")
        label = panel.get_by_label("label", exact=True)
        label.fill("zebra")
        label.press("Enter")
        expect(shown.locator("b")).to_have_text("zebra")
        expect(shown).to_contain_text("n02391049")
        expect(shown).not_to_contain_text("n02374451")  # horse, two steps away
        pictures = shown.locator("img")
        before = pictures.count()
        pictures.evaluate_all(CAN_BE_SEEN)
        panel.locator(".widget-slider", has_text="similarity").get_by_role("slider").press("ArrowRight")
        expect(shown).to_contain_text("n02374451")
        assert pictures.count() > before > 0


def test_the_training_s_bar_moves_and_the_figures_appear(chapter):
    with chapter("04_pretrain") as panel:
        bar = panel.locator(".jp-OutputArea-output", has_text="pretrain:").locator(".progress-bar")
        until(panel, bar)
        began = bar.get_attribute("style")
        assert "width: 100%" not in began
        expect(bar).not_to_have_attribute("style", began, timeout=PATIENCE)
        until_the_last_cell_has_run(panel)
        assert "width: 100%" in bar.get_attribute("style")
        figures = panel.locator(".jp-RenderedImage img")
        expect(figures).to_have_count(4)  # views, the loss, what it names, zero-shot
        figures.evaluate_all(CAN_BE_SEEN)
        assert "zero-shot reaches" in panel.locator(".jp-RenderedMarkdown").last.inner_text()
