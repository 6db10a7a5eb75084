"""Rendering: parameters from one YAML, failures in one line, the front page of a run."""

from __future__ import annotations

import io
import re
import shutil
from contextlib import redirect_stdout
from html import escape
from pathlib import Path

import nbformat
import pytest

import catlip_lite
from catlip_lite.machine import describe_machine
from catlip_lite.workbook.__main__ import main
from catlip_lite.workbook.pages import finished_notebooks, freeze_widgets, front_page
from catlip_lite.workbook.parameters import parameters_by_notebook

FIGURE = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
PICTURED = """
from IPython.display import HTML, display
display(HTML('<img src="data:image/png;base64,AA"><b>its words</b>'), HTML('<p style="background:url(data:image/png)">'))"""
IMPORTS = "import sys\nsys.path.insert(0, '../mine')\nfrom catlip_lite.workbook import run_folder"
FINDING = "from IPython.display import Markdown, display\ndisplay(Markdown(f'**{threshold}** is the threshold of {run}'))"


def write_notebook(path, title, *code, parameters="run = 'smoke'"):
    tagged = nbformat.v4.new_code_cell(parameters, metadata={"tags": ["parameters"]})
    text = nbformat.v4.new_markdown_cell(f"# {title}\n\nIs {title} true?\n\nMore prose.")
    cells = [text, tagged, *map(nbformat.v4.new_code_cell, code)]
    metadata = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata=metadata), path)
    return path


def write_workbook(folder: Path, *code: str) -> Path:
    """A workbook of two notebooks; the parameter `threshold` belongs to the first, `lr` to the second."""
    for name in ("notebooks", "params"):
        (folder / name).mkdir()
    parameters = "run: str = 'smoke'  # run\nthreshold = 500"
    cells = ("print(f'threshold {threshold}')", FINDING, *code)
    write_notebook(folder / "notebooks/01_first.ipynb", "First", *cells, parameters=parameters)
    write_notebook(folder / "notebooks/02_second.ipynb", "Second", parameters="run = 'smoke'\nlr = 1e-3")
    (folder / "params/trial.yaml").write_text("threshold: 7\nlr: 0.1\n")
    return folder


@pytest.fixture
def workbook(tmp_path, monkeypatch):
    monkeypatch.chdir(write_workbook(tmp_path))
    return tmp_path


@pytest.fixture(scope="module")
def rendered(tmp_path_factory):
    """A workbook whose first notebook, which imports one of our modules, is rendered, and what was on the terminal."""
    folder = write_workbook(tmp_path_factory.mktemp("workbook"), IMPORTS)
    (folder / "mine").symlink_to(Path(catlip_lite.__file__).parents[1])
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(io.StringIO()) as said:
        patch.chdir(folder)
        assert render(folder) == 0
    return folder, said.getvalue()


@pytest.fixture
def again(rendered, tmp_path, monkeypatch):
    """A copy of it, to change."""
    shutil.copytree(rendered[0], tmp_path / "copy", symlinks=True)
    monkeypatch.chdir(tmp_path / "copy")
    return tmp_path / "copy"


def render(workbook, name="01_first"):
    return main([f"notebooks/{name}.ipynb", "--run", "trial", "--params", "params/trial.yaml"])


def shares(workbook):
    notebooks = sorted((workbook / "notebooks").glob("*.ipynb"))
    found = parameters_by_notebook(workbook / "params/trial.yaml", notebooks, "trial")
    return {notebook.stem: values for notebook, values in found.items()}


def test_each_notebook_gets_the_parameters_it_declares(workbook):
    assert shares(workbook) == {"01_first": {"threshold": 7, "run": "trial"}, "02_second": {"lr": 0.1, "run": "trial"}}


def test_the_run_given_wins_over_the_run_in_the_yaml(workbook):
    (workbook / "params/trial.yaml").write_text("run: demo\n")
    assert shares(workbook)["02_second"] == {"run": "trial"}


def test_a_parameter_that_no_notebook_declares_is_refused_with_the_nearest_name(workbook):
    (workbook / "params/trial.yaml").write_text("treshold: 7\n")
    with pytest.raises(ValueError, match=r"no notebook has a parameter treshold \(nearest: threshold\)"):
        shares(workbook)


@pytest.mark.parametrize(
    ("text", "told"),
    [("- threshold\n", "must be a mapping"), ("a: [1\n", "no readable YAML"), (None, "has other.yaml")],
    ids=["a list", "broken YAML", "no file"],
)
def test_bad_parameters_are_one_line_and_nothing_runs(workbook, capsys, text, told):
    (workbook / "params/other.yaml").write_text("")
    (workbook / "params/trial.yaml").unlink() if text is None else (workbook / "params/trial.yaml").write_text(text)
    assert render(workbook) == 1
    error = capsys.readouterr().err
    assert told in error
    assert error.count("\n") == 1
    assert not (workbook / "outputs").exists()


def test_shares_whose_values_stay_are_not_written_again(workbook):
    arguments = ["--choose", "--run", "trial", "--params", "params/trial.yaml"]
    assert main(arguments) == 0
    before = {p.name: p.stat().st_mtime_ns for p in (workbook / "outputs/trial/params").iterdir()}
    (workbook / "params/trial.yaml").write_text("threshold: 7\nlr: 0.2\n")
    assert main(arguments) == 0
    after = {p.name: p.stat().st_mtime_ns for p in (workbook / "outputs/trial/params").iterdir()}
    assert [name for name in sorted(before) if before[name] != after[name]] == ["02_second.yaml"]


def test_what_papermill_wrote_beside_the_chapters_changes_nothing(workbook):
    (workbook / "notebooks/out.ipynb").write_text("half a notebook")
    assert main(["--choose", "--run", "trial", "--params", "params/trial.yaml"]) == 0
    assert sorted(path.stem for path in (workbook / "outputs/trial/params").iterdir()) == ["01_first", "02_second"]
    assert re.findall(r'<li class="card waiting"><div class="number">(\d+)', front_page("trial", {})) == ["01", "02"]


def test_captions_that_nobody_named_are_the_shards_own(workbook):
    (workbook / "notebooks/01_first.ipynb").unlink()
    write_notebook(workbook / "notebooks/01_first.ipynb", "First", parameters="captions = 'demo/pretrain'\nshards = None")
    (workbook / "params/trial.yaml").write_text("shards: photos\n")
    assert shares(workbook)["01_first"]["captions"] == "photos"


def test_a_rendered_notebook_has_the_parameters_and_its_lines_are_on_the_terminal(rendered):
    workbook, said = rendered
    assert re.search(r"^01 +0:\d\d  threshold 7$", said, re.MULTILINE)
    folder = workbook / "outputs/trial"
    assert "threshold 7" in (folder / "notebooks/01_first.ipynb").read_text()
    assert "<strong>7</strong> is the threshold of trial" in (folder / "index.html").read_text()


def test_pages_load_nothing_from_the_network(rendered):
    for page in ("01_first.html", "index.html"):
        text = (rendered[0] / "outputs/trial" / page).read_text()
        assert not re.findall(r"<(?:script|img|link)[^>]+(?:src|href)=[\"']http[^>]*", text), page


def test_a_failed_notebook_keeps_the_earlier_render_and_says_why_in_one_line(again, capsys):
    folder = again / "outputs/trial"
    earlier = (folder / "notebooks/01_first.ipynb").read_bytes(), (folder / "01_first.html").read_bytes()
    write_notebook(
        again / "notebooks/01_first.ipynb",
        "First",
        "raise ValueError('captions are empty:\\ngive another column')",
        parameters="run = 'smoke'\nthreshold = 500",
    )
    assert render(again) == 1
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "01_first failed at In [3]: ValueError: captions are empty: give another column" in error
    assert ((folder / "notebooks/01_first.ipynb").read_bytes(), (folder / "01_first.html").read_bytes()) == earlier
    assert (folder / "notebooks/01_first.failed.ipynb").is_file()
    assert "the last attempt failed" in (folder / "index.html").read_text()


def test_the_front_page_has_a_card_for_each_notebook_in_order(workbook):
    executed = workbook / "outputs/trial/notebooks"
    executed.mkdir(parents=True)
    notebook = nbformat.read(workbook / "notebooks/02_second.ipynb", as_version=4)
    notebook.metadata.papermill = {"duration": 80.0, "end_time": "2030-01-02T03:04:05+00:00"}
    notebook.cells[-1].outputs = [nbformat.v4.new_output("display_data", {"image/png": FIGURE})]
    nbformat.write(notebook, executed / "02_second.ipynb")
    page = front_page("trial", finished_notebooks(executed.parent))
    assert re.findall(r'<li class="card([^"]*)"><div class="number">(\d+)', page) == [(" waiting", "01"), ("", "02")]
    second = page[page.index('"number">02') :]
    for expected in ('href="02_second.html"', "Second", "Is Second true?", "1 min 20 s", "data:image/png"):
        assert expected in second


def test_a_notebook_depends_on_the_modules_it_imported_and_its_pages_do_not_show_how_that_is_known(rendered):
    folder = rendered[0] / "outputs/trial/notebooks"
    rule = (folder / "01_first.d").read_text()
    modules = ["__init__", "orphans", "workbook/__init__", "workbook/parameters", "workbook/run_folder"]
    assert re.findall(r"^\S+/catlip_lite/(\S+)\.py:$", rule, re.MULTILINE) == modules
    assert "sys.modules" not in (folder / "01_first.ipynb").read_text()


def test_a_widget_is_frozen_to_what_it_showed():
    view = {"application/vnd.jupyter.widget-view+json": {"model_id": "box"}, "text/plain": "VBox(...)"}
    cell = nbformat.v4.new_code_cell("x", outputs=[nbformat.v4.new_output("display_data", view)])
    buffers = [{"path": ["value"], "encoding": "base64", "data": FIGURE}]
    state = {
        "box": {"model_name": "VBoxModel", "state": {"children": ["IPY_MODEL_text", "IPY_MODEL_picture"]}},
        "text": {"model_name": "HTMLModel", "state": {"value": "12 synsets"}},
        "picture": {"model_name": "ImageModel", "state": {"format": "png"}, "buffers": buffers},
    }
    metadata = {"widgets": {"application/vnd.jupyter.widget-state+json": {"state": state}}}
    notebook = nbformat.v4.new_notebook(cells=[cell], metadata=metadata)
    freeze_widgets(notebook)
    note, text, picture = notebook.cells[0].outputs
    assert "frozen at its first view" in note.data["text/markdown"]
    assert text.data["text/html"] == "12 synsets"
    assert picture.data["image/png"] == FIGURE


def test_published_pages_leave_out_artwork_and_keep_the_rest(workbook):
    path = workbook / "notebooks/01_first.ipynb"
    notebook = nbformat.read(path, as_version=4)
    notebook.cells[2].metadata["tags"] = ["artwork"]
    notebook.cells[2].source += PICTURED
    notebook.cells.append(nbformat.v4.new_code_cell("import pathlib\nprint(pathlib.Path.cwd() / 'file')"))
    nbformat.write(notebook, path)
    render(workbook)
    assert main(["--publish", "--run", "trial"]) == 0
    page = (workbook / "outputs/published/trial/01_first.html").read_text()
    assert "threshold 7" not in page
    assert "<b>its words</b>" in page and '<img src="data' not in page and '<p style="background' not in page
    assert "not ours to publish" in page
    assert "<strong>7</strong> is the threshold of trial" in page
    assert str(workbook) not in page
    assert "01_first.html" in (workbook / "outputs/published/trial/index.html").read_text()


def test_the_list_of_published_runs_says_what_each_is_about(again):
    (again / "params/trial.yaml").write_text("# A trial: of two\n# notebooks.\n#\n# Takes a minute.\nthreshold: 7\n")
    main(["--publish", "--run", "trial"])
    runs = (again / "outputs/published/index.html").read_text()
    assert "A trial: of two\nnotebooks.\n<" in runs and 'href="trial/01_first.html"' in runs


def test_a_card_names_the_machine_and_leads_to_the_parameters_of_its_notebook(rendered):
    folder = rendered[0] / "outputs/trial"
    told = f'<span>{escape(describe_machine())}</span><a href="01_first.html#parameters">'
    assert told in (folder / "index.html").read_text()
    _, _, there = (folder / "01_first.html").read_text().partition('id="parameters"')
    assert re.search(r"threshold = \S+", re.sub(r"<[^>]*>", "", there))[0] == "threshold = 7"
