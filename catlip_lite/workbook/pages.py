"""The pages of a run: each executed notebook as one HTML file, and a front page with a card for each, in order.

Reads outputs/<run>/notebooks/, gives outputs/<run>/<name>.html and index.html; published, the same without pictures that belong
to others. Pictures are inside, widgets frozen at their first view; nothing is loaded from the network.
"""

from __future__ import annotations

import base64
import copy
import io
import re
from collections.abc import Collection, Mapping
from datetime import UTC, datetime
from pathlib import Path

import jinja2
import nbformat
from nbconvert import HTMLExporter
from nbconvert.filters import markdown2html
from nbformat.v4 import new_output
from PIL import Image

from ..artefacts import atomic_path
from ..cache import cache_folder
from .parameters import notebook_paths
from .run_folder import workbook_path, workbook_root

THUMBNAIL_WIDTH = 840
WIDGET = "application/vnd.jupyter.widget-{}+json"
ARTWORK_NOTE = "*Pictures by others stand here when you run this notebook; they are not ours to publish.*"
WIDGET_NOTE = "*A widget, frozen at its first view: open the notebook with `make lab` to use it.*"

# nbconvert's lab template loads scripts from the web in its header. Only MathJax stays, for notebooks with formulas: without
# a network these read as TeX.
NOTEBOOK_TEMPLATE = """\
{%- extends 'lab/index.html.j2' -%}
{%- from 'mathjax.html.j2' import mathjax -%}
{%- block html_head_js -%}{%- endblock -%} {%- block jupyter_widgets -%}{%- endblock -%}
{%- block html_head_js_mathjax -%}{{ mathjax(resources.mathjax_url) if resources.has_formulas }}{%- endblock -%}
{%- block html_head_js_mermaidjs -%}{%- endblock -%}
{%- block body_header -%}
<body class="jp-Notebook" data-jp-theme-light="true" data-jp-theme-name="JupyterLab Light">
<main style="max-width: 1080px; margin: 0 auto; font: 14px system-ui"><p style="padding: 10px 0 0 64px">
<a href="index.html" style="color: #0072b2; text-decoration: none">&larr; all notebooks of this run</a></p>
{%- endblock -%}
"""


# ---- a run's pages


def finished_notebooks(folder: Path) -> dict[str, nbformat.NotebookNode]:
    """The notebooks of a run that were executed to their ends, by name."""
    paths = [path for path in notebook_paths(folder / "notebooks") if not path.name.endswith(".failed.ipynb")]
    return {path.stem: nbformat.read(path, as_version=4) for path in paths}


def write_pages(folder: Path, pages: Mapping[str, str]) -> None:
    """Write HTML to `folder`/<name>.html; each page appears complete or stays as it was."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, html in pages.items():
        with atomic_path(folder / f"{name}.html") as staging:
            staging.write_text(html, encoding="utf-8")


def publish(folder: Path) -> Path:
    """Write a run's pages and key pictures to outputs/published/<run>/, artwork withheld. Gives that folder."""
    published, executed = workbook_path("outputs/published") / folder.name, finished_notebooks(folder)
    for content in executed.values():
        for cell in content.cells:
            if cell.cell_type == "code" and "artwork" in cell.metadata.get("tags", []):
                cell.outputs = [new_output("display_data", {"text/markdown": ARTWORK_NOTE})]
    pages = {"index": front_page(folder.name, executed)} | {name: notebook_page(name, executed[name]) for name in executed}
    here = re.compile("|".join(re.escape(f"{place}/") for place in (workbook_root(), cache_folder())))  # nothing elsewhere
    write_pages(published, {name: here.sub("", html) for name, html in pages.items()})
    for name, content in executed.items():
        if picture := key_picture(content):
            (published / f"{name}.png").write_bytes(picture)
    return published


# ---- a notebook


def notebook_page(name: str, content: nbformat.NotebookNode) -> str:
    """An executed notebook as HTML."""
    content = copy.deepcopy(content)
    freeze_widgets(content)
    content.metadata["title"] = opening(content)[0] or name
    formulas = any("$" in cell.source for cell in content.cells if cell.cell_type == "markdown")
    exporter = HTMLExporter(raw_template=NOTEBOOK_TEMPLATE, embed_images=True)
    return exporter.from_notebook_node(content, resources={"has_formulas": formulas})[0]


def freeze_widgets(content: nbformat.NotebookNode) -> None:
    """Replace each widget of an executed notebook by what it showed then."""
    state = content.metadata.pop("widgets", {}).get(WIDGET.format("state"), {}).get("state", {})
    for cell in content.cells:
        for output in list(cell.get("outputs", [])):
            if view := output.get("data", {}).get(WIDGET.format("view")):
                place, note = cell.outputs.index(output), new_output("display_data", {"text/markdown": WIDGET_NOTE})
                cell.outputs[place : place + 1] = [note, *_shown(view["model_id"], state)]


def _shown(model: str, state: Mapping) -> list[nbformat.NotebookNode]:
    """What the HTML and Image widgets below a widget hold, in order."""
    entry = state.get(model, {})
    values = entry.get("state", {})
    if entry.get("model_name") == "HTMLModel":
        return [new_output("display_data", {"text/html": values.get("value", "")})]
    if entry.get("model_name") == "ImageModel":
        pictures = [buffer["data"] for buffer in entry.get("buffers", ()) if buffer["path"] == ["value"]]  # base64
        return [new_output("display_data", {f"image/{values.get('format', 'png')}": picture}) for picture in pictures]
    children = [child.removeprefix("IPY_MODEL_") for child in values.get("children", ()) if isinstance(child, str)]
    return [output for child in children for output in _shown(child, state)]


def key_picture(content: nbformat.NotebookNode) -> bytes:
    """The picture that stands for a notebook, PNG: that of the cell tagged `thumbnail`, else the last; empty without one."""
    cells = sorted(content.cells, key=lambda cell: "thumbnail" in cell.metadata.get("tags", []))
    outputs = [output for cell in cells for output in cell.get("outputs", []) if "image/png" in output.get("data", {})]
    return base64.b64decode("".join(outputs[-1].data["image/png"])) if outputs else b""


# ---- the front page


def front_page(run: str, executed: Mapping[str, nbformat.NotebookNode], failed: Collection[str] = ()) -> str:
    """The front page of a run as HTML: a card for each notebook that was executed or waits."""
    waiting = {path.stem: nbformat.read(path, as_version=4) for path in notebook_paths(workbook_path("notebooks"))}
    cards = [read_card(name, content) | {"failed": name in failed} for name, content in sorted((waiting | executed).items())]
    finished = [card for card in cards if card["finished"]]
    last = max((card["finished"] for card in finished), default=None)
    facts = {
        "Run": run,
        "Notebooks": f"{len(finished)} of {len(cards)}",
        "Time": duration(sum(card["seconds"] for card in finished)) if finished else "",
        "Finished": f"{last.astimezone(UTC):%-d %B %Y, %H:%M} UTC" if last else "",
        "Machine": "; ".join(dict.fromkeys(card["machine"] for card in finished if card["machine"])),
    }
    template = Path(__file__).with_name("index.html.j2").read_text(encoding="utf-8")
    page = jinja2.Environment(autoescape=True, keep_trailing_newline=True).from_string(template)
    return page.render(run=run, facts=facts, cards=cards, duration=duration)


def read_card(name: str, content: nbformat.NotebookNode) -> dict:
    """What the front page shows of a notebook: its title, question, finding (the last Markdown it put out) and picture."""
    title, question = opening(content)
    record, outputs = content.metadata.get("papermill", {}), [o for cell in content.cells for o in cell.get("outputs", [])]
    findings = [output.data["text/markdown"] for output in outputs if "text/markdown" in output.get("data", {})]
    return {
        "name": name,
        "title": title or name,
        "question": markdown2html(question),
        "finding": markdown2html("".join(findings[-1])) if findings else "",
        "thumbnail": _thumbnail(key_picture(content)),
        "seconds": record.get("duration") or 0.0,
        "finished": datetime.fromisoformat(record["end_time"]) if record.get("end_time") else None,
        "machine": content.metadata.get("catlip_lite", {}).get("machine", ""),
    }


def opening(content: nbformat.NotebookNode) -> tuple[str, str]:
    """A notebook's title, without its number, and its question: heading and first paragraph of the first text cell."""
    text = next((cell.source for cell in content.cells if cell.cell_type == "markdown"), "")
    heading, _, rest = text.strip().partition("\n")
    title = re.sub(r"^#+\s+(\d+\s*[-–—:·.]?\s*)?", "", heading).replace("`", "")
    return title, rest.strip().split("\n\n")[0].removeprefix("**Question.** ")


def _thumbnail(png: bytes) -> str:
    """A picture small enough for a card, base64; empty if there is none."""
    if not png:
        return ""
    image, small = Image.open(io.BytesIO(png)).convert("RGB"), io.BytesIO()
    image.thumbnail((THUMBNAIL_WIDTH, THUMBNAIL_WIDTH), Image.Resampling.LANCZOS)
    image.quantize(256, dither=Image.Dither.NONE).save(small, "PNG", optimize=True)
    return base64.b64encode(small.getvalue()).decode()


def duration(seconds: float) -> str:
    """A time as people say it: 8 s, 1 min 20 s, 2 h 5 min."""
    minutes, left = divmod(max(1, round(seconds)), 60)
    if minutes >= 60:
        return f"{minutes // 60} h {minutes % 60} min"
    return " ".join([f"{minutes} min"] * (minutes > 0) + [f"{left} s"] * (left > 0))
