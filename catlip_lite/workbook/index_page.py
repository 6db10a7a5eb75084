"""The front page of a run: a card for each notebook, in order, with its question, a picture and what it found.

Reads the executed notebooks in outputs/<run>/notebooks/ and, for those not yet run, the notebooks themselves; gives
outputs/<run>/index.html, one file without scripts or anything from the network.
"""

from __future__ import annotations

import base64
import io
import re
from dataclasses import dataclass
from datetime import UTC, datetime
from html import escape
from pathlib import Path

import nbformat
from nbconvert.filters import markdown2html

from ..artefacts import atomic_path
from .parameters import notebook_paths

THUMBNAIL_WIDTH = 840
INTRODUCTION = (
    "Captions become labels, labels become a pretrained vision transformer, and the transformer becomes classifiers for other "
    "tasks: the path of <a href='https://arxiv.org/abs/2404.15653'>CatLIP</a>, one notebook a step."
)


@dataclass(frozen=True)
class Card:
    """What the front page shows of one notebook."""

    name: str
    title: str
    question: str  # HTML, as is the finding
    finding: str = ""
    thumbnail: bytes = b""  # PNG
    seconds: float = 0.0
    finished: datetime | None = None  # None: not yet run
    machine: str = ""
    failed: bool = False  # the last attempt

    @property
    def number(self) -> str:
        """The notebook's number, from its file name."""
        return self.name.split("_")[0]


def write_index(folder: Path, notebooks: Path) -> Path:
    """Write `folder`/index.html for the executed notebooks in `folder`/notebooks and those waiting in `notebooks`."""
    executed = {p.name: p for p in notebook_paths(folder / "notebooks")}
    names = sorted({p.name for p in notebook_paths(notebooks)} | {n for n in executed if not n.endswith(".failed.ipynb")})
    cards = []
    for name in names:
        failed = name.replace(".ipynb", ".failed.ipynb") in executed
        cards.append(read_card(executed.get(name, notebooks / name), failed=failed))
    with atomic_path(folder / "index.html") as staging:
        staging.write_text(index_page(folder.name, cards), encoding="utf-8")
    return folder / "index.html"


def read_card(notebook: Path, *, failed: bool = False) -> Card:
    """The card of an executed or a waiting notebook."""
    content = nbformat.read(notebook, as_version=4)
    record = content.metadata.get("papermill", {})
    return Card(
        name=notebook.stem,
        title=_title(content) or notebook.stem,
        question=_as_html(_question(content)),
        finding=_as_html(_finding(content)),
        thumbnail=_shrink(key_picture(content)),
        seconds=record.get("duration") or 0.0,
        finished=datetime.fromisoformat(record["end_time"]) if record.get("end_time") else None,
        machine=content.metadata.get("catlip_lite", {}).get("machine", ""),
        failed=failed,
    )


def notebook_title(notebook: Path) -> str:
    """The heading of a notebook; its file name if it has none."""
    return _title(nbformat.read(notebook, as_version=4)) or notebook.stem


def _first_text(content: nbformat.NotebookNode) -> str:
    return next(
        (c.source for c in content.cells if c.cell_type == "markdown" and "papermill" not in str(c.metadata.get("tags"))), ""
    )


def _title(content: nbformat.NotebookNode) -> str:
    heading = re.search(r"^#\s+(.+)$", _first_text(content), re.MULTILINE)
    return re.sub(r"^\d+\s*[-–—:·.]?\s*", "", heading[1]).replace("`", "").strip() if heading else ""


def _question(content: nbformat.NotebookNode) -> str:
    """The first paragraph of the first text cell, without its heading and the word "Question"."""
    blocks = re.split(r"\n\s*\n", re.sub(r"^#+\s.*$", "", _first_text(content), flags=re.MULTILINE))
    return re.sub(r"^\*\*Question[.:]?\*\*[.:]?\s*", "", next((block.strip() for block in blocks if block.strip()), ""))


def _finding(content: nbformat.NotebookNode) -> str:
    """The last Markdown that a cell put out."""
    outputs = [o for c in content.cells if c.cell_type == "code" for o in c.get("outputs", [])]
    texts = [o.data["text/markdown"] for o in outputs if "text/markdown" in o.get("data", {})]
    return "".join(texts[-1]) if texts else ""


def key_picture(content: nbformat.NotebookNode) -> bytes:
    """The picture that stands for a notebook, PNG: the last one, or that of the cell tagged `thumbnail`; empty if none."""
    cells = [c for c in content.cells if c.cell_type == "code"]
    tagged = [c for c in cells if "thumbnail" in c.metadata.get("tags", [])]
    for chosen in (tagged, cells):
        data = [o.data["image/png"] for c in chosen for o in c.get("outputs", []) if "image/png" in o.get("data", {})]
        if data:
            return base64.b64decode("".join(data[-1]))
    return b""


def _shrink(png: bytes) -> bytes:
    """The picture small enough for a card; empty if there is none."""
    from PIL import Image

    if not png:
        return b""

    image = Image.open(io.BytesIO(png)).convert("RGBA")
    ground = Image.new("RGBA", image.size, "white")
    image = Image.alpha_composite(ground, image).convert("RGB")
    image.thumbnail((THUMBNAIL_WIDTH, THUMBNAIL_WIDTH), Image.Resampling.LANCZOS)
    small = io.BytesIO()
    image.quantize(256, dither=Image.Dither.NONE).save(small, "PNG", optimize=True)
    return small.getvalue()


def _as_html(markdown: str) -> str:
    """Markdown as HTML, without the anchors that nbconvert puts beside headings."""
    return re.sub(r'<a class="anchor-link".*?</a>', "", markdown2html(markdown)) if markdown.strip() else ""


def index_page(run: str, cards: list[Card]) -> str:
    """The whole page as HTML."""
    finished = [card for card in cards if card.finished]
    machines = list(dict.fromkeys(card.machine for card in finished if card.machine))
    last = max((card.finished for card in finished), default=None)
    facts = {
        "Run": escape(run),
        "Notebooks": f"{len(finished)} of {len(cards)}",
        "Time": duration(sum(card.seconds for card in finished)) if finished else "",
        "Finished": f"{last.astimezone(UTC):%-d %B %Y, %H:%M} UTC" if last else "",
        "Machine": escape("; ".join(machines)),
    }
    rows = "".join(f"<div><dt>{name}</dt><dd>{value}</dd></div>" for name, value in facts.items() if value)
    style = Path(__file__).with_name("index.css").read_text(encoding="utf-8")
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1"><meta name="color-scheme" content="light dark">\n'
        f"<title>catlip-lite · {escape(run)}</title>\n<style>\n{style}</style></head>\n<body><main>\n"
        f'<header><p class="name">catlip-lite</p><h1>From captions to classifiers</h1>\n<p class="lead">{INTRODUCTION}</p>\n'
        f"<dl>{rows}</dl></header>\n<ol>\n{''.join(card_html(card) for card in cards)}</ol>\n"
        "<footer>The notebooks are in <code>notebooks/</code>: open them with <code>make lab</code>, change a parameter, run "
        "them again. <code>make run</code> redoes what changed.</footer>\n</main></body></html>\n"
    )


def card_html(card: Card) -> str:
    """One card: number, title, question, finding, runtime, picture."""
    link, state = f"{card.name}.html", "" if card.finished else " waiting"
    title, picture = escape(card.title), ""
    if card.thumbnail and card.finished:
        encoded = base64.b64encode(card.thumbnail).decode()
        image = f'<img alt="" src="data:image/png;base64,{encoded}">'
        picture = f'<a class="picture" href="{link}" tabindex="-1" aria-hidden="true">{image}</a>'
    note = f"<span>{duration(card.seconds)}</span>" if card.finished else "<span>not yet run</span>"
    if card.failed:
        note += f'<span class="failed">the last attempt failed: see notebooks/{card.name}.failed.ipynb</span>'
    if card.finished:
        title = f'<a href="{link}">{title}</a>'
        note += f'<a href="{link}">Open notebook &rarr;</a>'
    finding = f'<div class="finding">{card.finding}</div>' if card.finding and card.finished else ""
    return (
        f'<li class="card{state}"><div class="number">{escape(card.number)}</div><div class="text"><h2>{title}</h2>'
        f'<div class="question">{card.question}</div>{finding}<p class="note">{note}</p></div>{picture}</li>\n'
    )


def duration(seconds: float) -> str:
    """A time as people say it: 8 s, 1 min 20 s, 2 h 5 min."""
    whole = max(1, round(seconds))
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s" if whole % 60 else f"{whole // 60} min"
    return f"{whole // 3600} h {whole % 3600 // 60} min"
