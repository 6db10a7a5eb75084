"""Pages in a browser: explorers answer without a kernel, nothing is wider than a phone, the night is dark and legible."""

from __future__ import annotations

import re
from pathlib import Path

import nbformat
import pytest

from catlip_lite.data.shards import Sample, write_shards
from catlip_lite.labels import CaptionLabeler, LabelSet, Vocabulary
from catlip_lite.labels.matching import label_distances
from catlip_lite.viz import widgets
from catlip_lite.workbook.pages import front_page, notebook_page

PUBLISHED = sorted((Path(__file__).parents[2] / "outputs/published").rglob("*.html"))
MOST_BYTES = 5_000_000
PHONE = {"width": 390, "height": 800}
LEAST_CONTRAST = 4.5  # of text, WCAG 2.2 AA
CAPTIONS = ["a mouse beside a keyboard", "an apple", "two dogs"]

# Text whose colour is too near to what lies behind it (the colours of ancestors, blended), by tag and class.
PALE_TEXT = """least => {
  const parts = text => { const [r, g, b, a = 1] = text.match(/[\\d.]+/g).map(Number); return [r, g, b, a]; };
  const over = ([r, g, b, a], below) => [r, g, b].map((c, i) => c * a + below[i] * (1 - a));
  const ground = e => e ? over(parts(getComputedStyle(e).backgroundColor), ground(e.parentElement)) : [255, 255, 255];
  const light = rgb => rgb.map(c => c / 255).map(c => c <= .04045 ? c / 12.92 : ((c + .055) / 1.055) ** 2.4)
    .reduce((sum, c, i) => sum + c * [.2126, .7152, .0722][i], 0);
  const pale = e => {
    const {color, opacity} = getComputedStyle(e), [r, g, b, alpha] = parts(color);
    const [above, below] = [over([r, g, b, alpha * opacity], ground(e)), ground(e)].map(light);
    return (Math.max(above, below) + .05) / (Math.min(above, below) + .05) < least;
  };
  const own = e => [...e.childNodes].some(node => node.nodeType === 3 && node.data.trim());
  return [...document.body.querySelectorAll("*")].filter(e => e.checkVisibility() && own(e) && pale(e)).map(e => e.outerHTML);
}"""


@pytest.fixture(scope="module")
def explorers(tmp_path_factory, make_png) -> list[str]:
    """Three explorers as papermill keeps them: two of captions, one of labels."""
    folder = tmp_path_factory.mktemp("shards")
    write_shards([Sample("", make_png(), "png", caption) for caption in CAPTIONS], folder)
    readers = {"visual": CaptionLabeler(), "context": CaptionLabeler(sense="context")}
    recorded = {"visual": CAPTIONS[:2], "context": CAPTIONS[::2]}
    classes, labels = Vocabulary(["n02084071", "n07739125"], [5, 4], num_captions=9), LabelSet.load(["pug", "apple"])
    steps, mentioned = label_distances(labels, classes.wnids), {"n02084071": [2], "n07739125": [1]}
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("JPY_SESSION_NAME", raising=False)
        made = [widgets.caption_explorer(readers, [(CAPTIONS[0], "visual")], recorded=recorded) for _ in range(2)]
        made.append(widgets.match_explorer(labels, classes, steps, CAPTIONS, mentioned, folder, ["apple"]))
        return [explorer._repr_mimebundle_()["text/html"] for explorer in made]


@pytest.fixture(scope="module")
def pages(explorers, tmp_path_factory) -> Path:
    """A page of the explorers beside what is too wide for a phone, and a front page."""
    word = "w" * 90
    table = "\n".join(f"|{cell * 12}" for cell in (f"{word[:20]}|", "---|", "w|"))
    text = nbformat.v4.new_markdown_cell(f"# Wide\n\nIs `{word}` wide?\n\n{table}")
    html = [*explorers, f"<table><tr>{'<td>column</td>' * 60}</tr></table>"]
    outputs = [nbformat.v4.new_output("display_data", {"text/html": part}) for part in html]
    outputs.append(nbformat.v4.new_output("stream", text=5 * word))
    code = nbformat.v4.new_code_cell(f"def f(x):\n    return {'x + 1.5 + ' * 40}'{word}'  # {word}", outputs=outputs)
    notebook = nbformat.v4.new_notebook(cells=[text, code])
    notebook.metadata.papermill = {"duration": 1.0, "end_time": "2030-01-02T03:04:05+00:00"}
    folder = tmp_path_factory.mktemp("pages")
    (folder / "01_wide.html").write_text(notebook_page("01_wide", notebook))
    (folder / "index.html").write_text(front_page("trial", {"01_wide": notebook}))
    return folder


@pytest.fixture
def opened(browser):
    """Opens a page; closes it after the test. How: see Playwright's `new_page`."""
    contexts = []

    def open_page(path: Path, **how):
        contexts.append(browser.new_context(**how))
        page = contexts[-1].new_page()
        page.goto(path.as_uri())
        return page

    yield open_page
    for context in contexts:
        context.close()


# ---- explorers


def test_a_recorded_caption_is_marked_when_it_is_typed(opened, pages):
    first = opened(pages / "01_wide.html").locator(".explorer").first
    first.get_by_label("caption").fill("an apple")
    assert first.locator("mark").inner_text() == "apple" and "n07739125" in first.locator("td").all_inner_texts()


def test_a_part_of_a_caption_offers_those_that_have_it(opened, pages):
    first = opened(pages / "01_wide.html").locator(".explorer").first
    first.get_by_label("caption").fill("APP")
    first.get_by_role("button", name="an apple").click()
    assert first.get_by_label("caption").input_value() == "an apple" and first.locator("mark").count() == 1


def test_another_reader_has_recordings_of_its_own_and_leaves_other_explorers_alone(opened, pages):
    first, second, _ = opened(pages / "01_wide.html").locator(".explorer").all()
    first.get_by_label("reader").select_option("context")
    assert "n03793489" in first.locator("td").all_inner_texts() and "n02330245" in second.locator("td").all_inner_texts()
    options = "list => list.map(e => e.list.options.length)"
    assert first.page.eval_on_selector_all("input[list]", options)[:2] == [2, 2]
    first.get_by_label("caption").fill("an apple")
    assert first.locator("mark").count() == 0  # the other reader's


def test_keys_move_the_similarity_and_the_classes_follow(opened, pages):
    labels = opened(pages / "01_wide.html").locator(".explorer").last
    labels.get_by_label("label").fill("pug")
    slider = labels.get_by_role("slider")
    slider.press("Home")
    assert "starts from random" in labels.inner_text()
    slider.press("ArrowRight")
    assert "n02084071" in labels.locator("td").all_inner_texts() and "two dogs" in labels.inner_text()
    assert slider.get_attribute("aria-valuetext") == "1/2"


def test_without_scripts_the_examples_stand_there(opened, pages):
    page = opened(pages / "01_wide.html", java_script_enabled=False)
    assert [page.locator(".explorer").nth(i).locator("table").count() for i in range(3)] == [1, 1, 1]
    assert page.locator("form").count() == 0


# ---- phones, nights, sizes


def wider_than_its_window(page) -> int:
    return page.evaluate("document.documentElement.scrollWidth - innerWidth")


@pytest.mark.parametrize("name", ["01_wide", "index"])
def test_what_is_too_wide_for_a_phone_scrolls_within_itself(opened, pages, name):
    assert wider_than_its_window(opened(pages / f"{name}.html", viewport=PHONE)) == 0


def test_published_pages_fit_a_phone_and_the_night(opened):
    page = opened(PUBLISHED[0], viewport=PHONE, color_scheme="dark")
    wrong = {}
    for path in PUBLISHED:
        page.goto(path.as_uri())
        wrong[path.relative_to(PUBLISHED[0].parents[1])] = wider_than_its_window(page), page.evaluate(PALE_TEXT, LEAST_CONTRAST)
    assert {path: told for path, told in wrong.items() if told != (0, [])} == {}


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("name", ["01_wide", "index"])
def test_text_is_legible_by_day_and_by_night(opened, pages, name, scheme):
    page = opened(pages / f"{name}.html", color_scheme=scheme)
    red, green, blue = map(int, re.findall(r"\d+", page.evaluate("getComputedStyle(document.body).backgroundColor")))
    assert (max(red, green, blue) < 60) == (scheme == "dark")
    assert page.evaluate(PALE_TEXT, LEAST_CONTRAST) == []


def test_published_pages_are_small():
    assert {path.name: path.stat().st_size for path in PUBLISHED if path.stat().st_size > MOST_BYTES} == {}
