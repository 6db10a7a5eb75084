"""Marked captions and widgets of notebooks 01 to 03: captions with their nouns marked, synsets, label matches with images.

A widget shows itself in JupyterLab; where nobody can use it (papermill, rendered pages) it shows fixed examples as HTML.
"""

from __future__ import annotations

import base64
import io
import re
from collections.abc import Callable, Mapping, Sequence
from html import escape

import ipywidgets as widgets
from IPython.display import HTML

from ..data.captions import read_samples_at
from ..data.shards import Sample
from ..labels import CaptionLabeler, load_nouns
from ..labels.labeler import clean_caption
from ..progress import is_interactive
from ..tasks.label_overlap import STEPS, Overlap, similarity_name, synsets_near
from ..tasks.synset_analysis import SideBySide
from .labels import labeler_colour

THUMBNAIL_PIXELS = 72
CELL = 'style="text-align:left;vertical-align:top;padding:4px 12px 4px 0"'


class Explorer(widgets.VBox):
    """A widget that takes the form of `still()`, an HTML text, wherever no person can use it."""

    def __init__(self, children: Sequence[widgets.Widget], still: Callable[[], str]):
        super().__init__(children)
        self.still = still

    def _repr_mimebundle_(self, **kwargs):
        if is_interactive():
            return super()._repr_mimebundle_(**kwargs)
        return {"text/html": self.still(), "text/plain": "(a widget, shown as fixed examples)"}


# --- captions with their nouns marked -----------------------------------------------------------------------------------


def mark_mentions(caption: str | None, mentions: Sequence[tuple[str, str]], colour: str) -> str:
    """The cleaned caption as HTML, each mention marked; where its synset has another name, that name follows it, small."""
    text, nouns = clean_caption(caption or ""), load_nouns()
    parts, end = [], 0
    for word, wnid in mentions:
        pattern = r"[\W_]+".join(re.escape(part) for part in word.split(" "))
        found = re.compile(rf"(?<![^\W_]){pattern}(?![^\W_])").search(text, end) or re.compile(pattern).search(text, end)
        if found is None:  # the tokeniser wrote the word otherwise (quotes, contractions)
            continue
        name = nouns.name(wnid)
        other = "" if name.lower() == word else f'<small style="color:#555"> {escape(name)}</small>'
        parts.append(escape(text[end : found.start()]))
        parts.append(
            f'<mark title="{wnid} {escape(nouns.gloss(wnid))}" style="background:{colour}40;border-bottom:2px solid {colour};'
            f'padding:0 2px">{escape(found.group())}{other}</mark>'
        )
        end = found.end()
    return "".join(parts) + escape(text[end:])


def mention_table(side: SideBySide, positions: Sequence[int]) -> HTML:
    """Captions with their nouns marked, a column a labeler. Pointing at a mark shows its WNID and gloss."""
    names = list(side.mentions)
    heads = "".join(f"<th {CELL}>{escape(n)}</th>" for n in names)
    rows = "".join(
        "<tr>"
        + "".join(f"<td {CELL}>{mark_mentions(side.captions[i], side.mentions[n][i], labeler_colour(n))}</td>" for n in names)
        + "</tr>"
        for i in positions
    )
    return HTML(f'<table style="width:100%;table-layout:fixed"><tr>{heads}</tr>{rows}</table>')


def caption_explorer(labeler: CaptionLabeler, captions: Sequence[str]) -> Explorer:
    """Type a caption, see its synsets: name, WNID, gloss. `captions`: the first stands in the box, all are fixed examples."""
    box = widgets.Text(captions[0], description="caption", layout={"width": "90%"})

    def draw(caption: str) -> str:
        return _caption_html(labeler, caption)

    return Explorer([box, _live_html(draw, box)], lambda: "<hr>".join(map(draw, captions)))


def _live_html(draw: Callable[..., str], *controls: widgets.Widget) -> widgets.HTML:
    """The HTML that `draw` gives for the controls' values, drawn again whenever one of them changes."""
    out = widgets.HTML()

    def refresh(_=None):
        out.value = draw(*(control.value for control in controls))

    for control in controls:
        control.observe(refresh, "value")
    refresh()
    return out


def _caption_html(labeler: CaptionLabeler, caption: str) -> str:
    nouns = load_nouns()
    (mentions,) = labeler.mentions([caption])
    rows = [(word, nouns.name(w), w, nouns.gloss(w)) for word, w in dict.fromkeys(mentions)]
    marked = mark_mentions(caption, mentions, labeler_colour(labeler.name))
    if not rows:
        return f"<p>{marked or '(nothing)'}</p><p>No noun of WordNet: this caption has no label.</p>"
    return f'<p style="font-size:115%">{marked}</p>' + _html_table(("mention", "synset", "WNID", "meaning"), rows)


def _html_table(heads: Sequence[str], rows: Sequence[Sequence]) -> str:
    head = "".join(f"<th {CELL}>{escape(h)}</th>" for h in heads)
    body = "".join("<tr>" + "".join(f"<td {CELL}>{escape(str(v))}</td>" for v in row) + "</tr>" for row in rows)
    return f"<table><tr>{head}</tr>{body}</table>"


# --- label matches with captions and images -----------------------------------------------------------------------------


def match_explorer(
    overlap: Overlap,
    captions: Sequence[str | None],
    captions_of: Mapping[str, Sequence[int]],
    address,
    show: Sequence[str],
    *,
    min_similarity: float = 0.5,
    pictures: int = 10,
) -> Explorer:
    """Pick a label, move the least similarity, see the classes it matches, their captions and, from shards, their images.

    captions_of: synset -> positions of captions that mention it. address: where the captions came from. show: labels for
    the fixed examples; the first is picked to begin with. min_similarity: where the slider begins.
    """
    start = min(STEPS[-1], int(1 / min_similarity - 1 + 1e-6))

    def draw(label: str, steps: int) -> str:
        if label not in overlap.label_set.names:
            return "<p>Pick one of the labels: type a part of its name.</p>"
        near = synsets_near(overlap, label, steps)
        positions = list(dict.fromkeys(i for wnid in near["wnid"] for i in captions_of.get(wnid, ())))[:pictures]
        return _match_html(label, steps, near, captions, positions, read_samples_at(address, positions))

    pick = widgets.Combobox(value=show[0], options=list(overlap.label_set.names), description="label", ensure_option=True)
    slider = widgets.SelectionSlider(
        options=[(similarity_name(s), s) for s in STEPS], value=start, description="similarity", continuous_update=False
    )
    return Explorer(
        [widgets.HBox([pick, slider]), _live_html(draw, pick, slider)],
        lambda: "<hr>".join(draw(label, start) for label in show),
    )


def _match_html(label, steps, near, captions, positions: Sequence[int], samples: Mapping[int, Sample], most: int = 6) -> str:
    head = f'<p style="font-size:115%"><b>{escape(label)}</b>, path similarity {similarity_name(steps)} or more</p>'
    if not len(near):
        return head + "<p>No class of the vocabulary is so near: lower the similarity, or this label starts from random.</p>"
    rows = [
        (r.name, r.wnid, similarity_name(r.steps), f"{r.captions:,}", r.gloss.split(";")[0])
        for r in near.head(most).itertuples(index=False)
    ]
    more = f"<p>… and {len(near) - most:,} more classes</p>" if len(near) > most else ""
    figures = "".join(
        f'<figure style="display:inline-block;width:104px;margin:4px;vertical-align:top;font-size:80%">'
        f"{thumbnail(samples[i].image) if i in samples else ''}<figcaption>{escape(captions[i] or '')}</figcaption></figure>"
        for i in positions
    )
    return head + _html_table(("class", "WNID", "similarity", "captions", "meaning"), rows) + more + f"<div>{figures}</div>"


def thumbnail(image: bytes | None) -> str:
    """An <img> of an encoded image, at most THUMBNAIL_PIXELS high and wide; nothing if it can't be read."""
    from PIL import Image, UnidentifiedImageError

    if image is None:
        return ""
    try:
        picture = Image.open(io.BytesIO(image)).convert("RGB")
    except (UnidentifiedImageError, OSError):
        return ""
    picture.thumbnail((THUMBNAIL_PIXELS, THUMBNAIL_PIXELS))
    out = io.BytesIO()
    picture.save(out, "PNG")
    return f'<img src="data:image/png;base64,{base64.b64encode(out.getvalue()).decode()}" alt="">'
