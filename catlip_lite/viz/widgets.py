"""What chapters 01 to 03 let a reader try: captions with their nouns marked, label matches with captions and images.

A widget shows itself in JupyterLab; where nobody can use it (papermill, rendered pages) fixed examples stand in its place.
"""

from __future__ import annotations

import base64
import io
import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from html import escape

import ipywidgets as widgets
import numpy as np
import pandas as pd
from PIL import Image, UnidentifiedImageError

from ..data.captions import read_samples_at
from ..labels import CaptionLabeler, LabelSet, Vocabulary, load_nouns
from ..labels.labeler import clean_caption
from ..progress import is_interactive
from .tables import styled_table
from .theme import COLOURS

THUMBNAIL_PIXELS = 72
STEPS = (0, 1, 2, 3)  # hypernym steps that a slider offers; their path similarity is 1 / (1 + steps)
SHOWN = 6  # classes that a label matches


class Explorer(widgets.VBox):
    """Controls over what `draw` makes of their values, drawn again whenever one changes; else what it makes of examples.

    draw: a value of each control -> HTML. examples: tuples of such values, for where no person can use the controls.
    """

    def __init__(self, draw: Callable[..., str], controls: Sequence[widgets.Widget], examples: Sequence[tuple]):
        shown = widgets.HTML()
        super().__init__([*controls, shown])
        self.draw, self.examples = draw, examples

        def refresh(_=None):
            shown.value = draw(*(control.value for control in controls))

        for control in controls:
            control.observe(refresh, "value")
        refresh()

    def _repr_mimebundle_(self, **kwargs):
        if is_interactive():
            return super()._repr_mimebundle_(**kwargs)
        still = "<hr>".join(self.draw(*values) for values in self.examples)
        return {"text/html": still, "text/plain": "(a widget, shown as fixed examples)"}


# ---- captions with their nouns marked


def marked_caption(caption: str, mentions: Sequence[tuple[str, str]], colour: str = COLOURS["blue"]) -> str:
    """The cleaned caption as HTML, each of `CaptionLabeler.mentions` marked; where its synset has another name, that name
    follows it, small. Pointing at a mark shows WNID and gloss."""
    text, nouns = clean_caption(caption), load_nouns()
    parts, end = [], 0
    for word, wnid in mentions:
        pattern = r"[\W_]+".join(re.escape(part) for part in word.split(" "))
        whole = re.compile(rf"(?<![^\W_]){pattern}(?![^\W_])", re.IGNORECASE)
        found = whole.search(text, end) or re.compile(pattern, re.IGNORECASE).search(text, end)
        if found is None:  # the tokeniser wrote the word otherwise (quotes, contractions)
            continue
        name = nouns.name(wnid)
        other = "" if name.lower() == word.lower() else f'<small style="color:#555"> {escape(name)}</small>'
        look = f"background:{colour}40;border-bottom:2px solid {colour};padding:0 2px"
        mark = f'<mark title="{wnid} {escape(nouns.gloss(wnid))}" style="{look}">{escape(found.group())}{other}</mark>'
        parts += [escape(text[end : found.start()]), mark]
        end = found.end()
    return "".join(parts) + escape(text[end:])


def caption_explorer(
    labelers: Mapping[str, CaptionLabeler], examples: Sequence[tuple[str, str]], colour: str = COLOURS["blue"]
) -> Explorer:
    """Type a caption, pick who reads it, see its synsets: name, WNID, gloss.

    labelers: by what the picker calls them. examples: captions, each with one of these; the first stands in the box.
    """
    nouns = load_nouns()

    def draw(caption: str, reader: str) -> str:
        (mentions,) = labelers[reader].mentions([caption])
        marked = f'<p style="font-size:115%">{marked_caption(caption, mentions, colour) or "(nothing)"}</p>'
        marked += f'<p style="color:#555">{escape(reader)}</p>' if len(labelers) > 1 else ""
        if not mentions:
            return marked + "<p>No noun of WordNet: this caption has no label.</p>"
        rows = [(word, nouns.name(w), w, nouns.gloss(w)) for word, w in dict.fromkeys(mentions)]
        return marked + styled_table(pd.DataFrame(rows, columns=["mention", "synset", "WNID", "meaning"])).to_html()

    caption, reader = examples[0]
    box = widgets.Text(caption, description="caption", layout={"width": "90%"})
    return Explorer(draw, [box, widgets.Dropdown(options=[*labelers], value=reader, description="reader")], examples)


# ---- label matches with captions and images


def match_explorer(
    label_set: LabelSet,
    vocabulary: Vocabulary,
    distances: np.ndarray,
    captions: Sequence[str | None],
    captions_of: Mapping[str, Sequence[int]],
    address,
    show: Sequence[str],
    *,
    min_similarity: float = 0.5,
    pictures: int = 8,
) -> Explorer:
    """Pick a label, move the least similarity, see the classes it matches, their captions and, from shards, their images.

    distances: `label_distances` of the two. captions_of: synset -> positions of captions that mention it. address: where the
    captions came from. show: labels for the fixed examples. min_similarity: where the slider begins.
    """
    nouns = load_nouns()

    def draw(label: str, steps: int) -> str:
        if label not in label_set.names:
            return "<p>Pick one of the labels: type a part of its name.</p>"
        head = f'<p style="font-size:115%"><b>{escape(label)}</b>, path similarity {similarity_name(steps)} or more</p>'
        row = distances[label_set.names.index(label)]
        near = np.flatnonzero(row <= steps)
        near = near[np.lexsort((-vocabulary.counts[near], row[near]))]
        if not len(near):
            return (
                head + "<p>No class of the vocabulary is so near: lower the similarity, or this label starts from random.</p>"
            )
        columns = ["class", "WNID", "similarity", "captions", "meaning"]
        shown = [(vocabulary.wnids[i], similarity_name(row[i]), vocabulary.counts[i]) for i in near[:SHOWN]]
        rows = [(nouns.name(wnid), wnid, name, count, nouns.gloss(wnid).split(";")[0]) for wnid, name, count in shown]
        table = styled_table(pd.DataFrame(rows, columns=columns)).to_html()
        more = f"<p>… and {len(near) - SHOWN:,} more classes</p>" if len(near) > SHOWN else ""
        found = dict.fromkeys(i for column in near for i in captions_of.get(vocabulary.wnids[column], ()))
        positions = list(found)[:pictures]
        samples = read_samples_at(address, positions)
        figures = [_figure(samples[i].image if i in samples else None, captions[i] or "") for i in positions]
        return f"{head}{table}{more}<div>{''.join(figures)}</div>"

    start = min(STEPS[-1], int(1 / min_similarity - 1 + 1e-6))
    pick = widgets.Combobox(value=show[0], options=label_set.names, description="label", ensure_option=True)
    slider = widgets.SelectionSlider(
        options=[(similarity_name(s), s) for s in STEPS], value=start, description="similarity", continuous_update=False
    )
    return Explorer(draw, [pick, slider], [(label, start) for label in show])


def similarity_name(steps: int) -> str:
    """A path similarity as figures write it: 1, 1/2, 1/3 …"""
    return f"1/{steps + 1}" if steps else "1 (same synset)"


def _figure(image: bytes | None, caption: str) -> str:
    """An encoded image, small, over its caption; the caption alone if there is none that can be read."""
    picture = ""
    with suppress(UnidentifiedImageError, OSError):
        small = Image.open(io.BytesIO(image or b"")).convert("RGB")
        small.thumbnail((THUMBNAIL_PIXELS, THUMBNAIL_PIXELS))
        small.save(out := io.BytesIO(), "PNG")
        picture = f'<img src="data:image/png;base64,{base64.b64encode(out.getvalue()).decode()}" alt="">'
    look = "display:inline-block;width:104px;margin:4px;vertical-align:top;font-size:80%"
    return f'<figure style="{look}">{picture}<figcaption>{escape(caption)}</figcaption></figure>'
