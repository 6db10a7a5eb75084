"""The pages of a run: each executed notebook as one HTML file, and a front page with a card for each, in order.

Reads outputs/<run>/notebooks/, gives outputs/<run>/<name>.html and index.html; published, the same without pictures that belong
to others, and a list of all published runs. Pictures are inside, widgets frozen at their first view; nothing is loaded from the
network.
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
from ..progress import duration
from .parameters import notebook_paths
from .run_folder import workbook_path, workbook_root

HERE = Path(__file__).parent
THUMBNAIL_WIDTH = 840
WIDGET = "application/vnd.jupyter.widget-{}+json"
ARTWORK_NOTE = "*Pictures by others stand here when you run this notebook; they are not ours to publish.*"
PICTURE, OTHER_PICTURE = re.compile(r"<img\b[^>]*>"), re.compile("data:image|<svg|<canvas|<video")
WIDGET_NOTE = "*A widget, frozen at its first view: open the notebook with `make lab` to use it.*"


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
                cell.outputs = [new_output("display_data", {"text/markdown": ARTWORK_NOTE}), *_words(cell.outputs)]
    pages = {name: notebook_page(name, executed[name]) for name in executed}
    pages["index"] = front_page(folder.name, executed, shared=True)
    here = re.compile("|".join(re.escape(f"{place}/") for place in (workbook_root(), cache_folder())))  # nothing elsewhere
    write_pages(published, {name: here.sub("", html) for name, html in pages.items()})
    for name, content in executed.items():
        if picture := key_picture(content):
            (published / f"{name}.png").write_bytes(picture)
    write_pages(published.parent, {"index": runs_page(published.parent)})
    return published


def runs_page(published: Path) -> str:
    """The list of published runs as HTML: each with the first lines of its YAML and its pages."""
    runs = {}
    for index in sorted(published.glob("*/index.html")):
        params = workbook_path(f"params/{index.parent.name}.yaml")
        head = re.match(r"(?:# .+\n)+", params.read_text(encoding="utf-8")) if params.is_file() else None
        pages = sorted(page.stem for page in index.parent.glob("*.html") if page != index)
        runs[index.parent.name] = re.sub(r"^# |`", "", head[0], flags=re.MULTILINE) if head else "", pages
    return _filled("runs.html.j2", runs=runs)


def _words(outputs: list[nbformat.NotebookNode]) -> list[nbformat.NotebookNode]:
    """The HTML among outputs, without its pictures; nothing of what has them in another form."""
    found = [PICTURE.sub("", "".join(output.get("data", {}).get("text/html", ""))) for output in outputs]
    return [new_output("display_data", {"text/html": html}) for html in found if html and not OTHER_PICTURE.search(html)]


def _filled(template: str, **values: object) -> str:
    """A template of this folder filled in, `values` escaped."""
    environment = jinja2.Environment(loader=jinja2.FileSystemLoader(HERE), autoescape=True, keep_trailing_newline=True)
    return environment.get_template(template).render(css=(HERE / "page.css").read_text(encoding="utf-8"), **values)


# ---- a notebook


def notebook_page(name: str, content: nbformat.NotebookNode) -> str:
    """An executed notebook as HTML."""
    content = copy.deepcopy(content)
    freeze_widgets(content)
    content.metadata["title"] = opening(content)[0] or name
    formulas = any("$" in cell.source for cell in content.cells if cell.cell_type == "markdown")
    template, *css = [(HERE / name).read_text(encoding="utf-8") for name in ("notebook.html.j2", "page.css", "notebook.css")]
    resources = {"has_formulas": formulas, "page_css": "".join(css)}
    return HTMLExporter(raw_template=template, embed_images=True).from_notebook_node(content, resources=resources)[0]


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


def front_page(
    run: str, executed: Mapping[str, nbformat.NotebookNode], failed: Collection[str] = (), *, shared: bool = False
) -> str:
    """The front page of a run as HTML: a card for each notebook that was executed or waits; shared, a link to all runs."""
    waiting = {path.stem: nbformat.read(path, as_version=4) for path in notebook_paths(workbook_path("notebooks"))}
    cards = [read_card(name, content) | {"failed": name in failed} for name, content in sorted({**waiting, **executed}.items())]
    finished = [card for card in cards if card["finished"]]
    last = max((card["finished"] for card in finished), default=None)
    facts = {
        "Run": run,
        "Notebooks": f"{len(finished)} of {len(cards)}",
        "Time": duration(sum(card["seconds"] for card in finished)) if finished else "",
        "Finished": f"{last.astimezone(UTC):%-d %B %Y, %H:%M} UTC" if last else "",
        "Machine": "; ".join(dict.fromkeys(card["machine"] for card in finished if card["machine"])),
    }
    return _filled("index.html.j2", run=run, facts=facts, cards=cards, duration=duration, shared=shared)


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
