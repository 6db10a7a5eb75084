"""What chapters 01 to 03 let a reader try: captions with their nouns marked, label matches with captions and images.

A widget shows itself in JupyterLab; where no kernel answers (papermill, rendered pages) a script shows what was recorded in its
place, and without scripts fixed examples stand there.
"""

from __future__ import annotations

import base64
import io
import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from html import escape
from pathlib import Path
from typing import Any

import ipywidgets as widgets
import numpy as np
from PIL import Image, UnidentifiedImageError

from ..data.addresses import Address
from ..data.captions import read_samples_at
from ..labels import CaptionLabeler, LabelSet, Vocabulary, load_nouns
from ..labels.labeler import clean_caption
from ..progress import is_interactive
from .tables import table_pieces
from .theme import COLOURS

THUMBNAIL_PIXELS = 72
STEPS = (0, 1, 2, 3)  # hypernym steps that a slider offers; their path similarity is 1 / (1 + steps)
SHOWN = 6  # classes that a label matches
PICTURES = 8  # captions, with their images, of these
# JupyterLab styles tables of outputs, not those of widgets, whose lines are as high as its buttons.
LAB_STYLE = (
    "<style>.explored { line-height: 1.4 } .explored :is(td, th) { padding: 2px 14px 2px 0; vertical-align: top }</style>"
)
MOST_RECORDED = 1000  # labels in a page without a kernel


class Explorer(widgets.VBox):
    """A box for text and a choice beside it, over what `draw` makes of their values; without a kernel, over what was recorded.

    draw: values of both -> pieces of HTML; what many drawings share is a piece of its own. controls: the choice's options are
    pairs (name, value). examples: values of both, drawn where no script runs, too. record: gives what a page keeps, pairs of
    values and pieces; called only for one.
    """

    def __init__(
        self,
        draw: Callable[..., list[str]],
        controls: tuple[widgets.Widget, widgets.Widget],
        examples: Sequence[tuple],
        record: Callable[[], Iterable[tuple[tuple, list[str]]]],
    ):
        shown = widgets.HTML()
        super().__init__([*controls, shown])
        self.draw, self.examples, self.record = draw, examples, record

        def refresh(_: object = None) -> None:
            drawn = draw(*(control.value for control in controls))
            shown.value = f'{LAB_STYLE}<div class="explored">{"".join(drawn)}</div>'

        for control in controls:
            control.observe(refresh, "value")
        refresh()

    def _repr_mimebundle_(self, **kwargs: Any) -> Any:
        if is_interactive():
            return super()._repr_mimebundle_(**kwargs)
        return {"text/html": self._page(), "text/plain": "(a widget, shown as recorded)"}

    def _page(self) -> str:
        """The recordings as HTML with a script, each piece kept once; the examples for where no script runs."""
        box, choice, _ = self.children
        names = {value: name for name, value in choice.options}
        pieces: dict[str, int] = {}
        views: dict[str, dict[str, list[int]]] = {}
        for (text, value), parts in self.record():
            views.setdefault(text, {})[names[value]] = [pieces.setdefault(part, len(pieces)) for part in parts]
        examples = [(json.dumps([text, names[value]]), "".join(self.draw(text, value))) for text, value in self.examples]
        data = {
            "names": [box.description, choice.description],
            "choices": [*names.values()],
            "slider": isinstance(choice, widgets.SelectionSlider),
            "start": [box.value, names[choice.value]],
            "pieces": [*pieces],
            "views": views,
        }
        data = json.dumps(data, ensure_ascii=False, separators=(",", ":")).replace("</", "<\\/").replace("<!--", "\\u003c!--")
        still = "<hr>".join(f'<div data-values="{escape(values)}">{html}</div>' for values, html in examples)
        page = Path(__file__).with_name("explorer.html").read_text(encoding="utf-8")
        return page.replace("DATA", data, 1).replace("EXAMPLES", still, 1)


# ---- captions with their nouns marked


def marked_caption(caption: str, mentions: Sequence[tuple[str, str]], colour: str = COLOURS["blue"]) -> str:
    """The cleaned caption as HTML, each of `CaptionLabeler.mentions` marked; where its synset has another name, that name
    follows it, small. Pointing at a mark shows WNID and gloss."""
    return "".join(_marked(caption, mentions, colour))


def _marked(caption: str, mentions: Sequence[tuple[str, str]], colour: str) -> list[str]:
    """`marked_caption` in pieces: text and marks."""
    text, nouns = clean_caption(caption), load_nouns()
    parts, end = [], 0
    for word, wnid in mentions:
        pattern = r"[\W_]+".join(re.escape(part) for part in word.split(" "))
        whole = re.compile(rf"(?<![^\W_]){pattern}(?![^\W_])", re.IGNORECASE)
        found = whole.search(text, end) or re.compile(pattern, re.IGNORECASE).search(text, end)
        if found is None:  # the tokeniser wrote the word otherwise (quotes, contractions)
            continue
        name = nouns.name(wnid)
        other = "" if name.lower() == word.lower() else f'<small style="opacity:.75"> {escape(name)}</small>'
        look = f"background:{colour}40;border-bottom:2px solid {colour};color:inherit;padding:0 2px"
        mark = f'<mark title="{wnid} {escape(nouns.gloss(wnid))}" style="{look}">{escape(found.group())}{other}</mark>'
        parts += [escape(text[end : found.start()]), mark]
        end = found.end()
    return [*parts, escape(text[end:])]


def caption_explorer(
    labelers: Mapping[str, CaptionLabeler],
    examples: Sequence[tuple[str, str]],
    colour: str = COLOURS["blue"],
    *,
    recorded: Mapping[str, Sequence[str]],
) -> Explorer:
    """Type a caption, pick who reads it, see its synsets: name, WNID, gloss.

    labelers: by what the picker calls them. examples: captions, each with one of these; the first stands in the box. recorded:
    the captions that each of them reads for a page without a kernel.
    """
    nouns = load_nouns()

    def drawn(caption: str, reader: str, mentions: Sequence[tuple[str, str]]) -> list[str]:
        words = _marked(caption, mentions, colour) if caption.strip() else ["(nothing)"]
        marked = ['<p style="font-size:115%">', *words, "</p>"]
        marked += [f'<p style="opacity:.75">{escape(reader)}</p>'] if len(labelers) > 1 else []
        if not mentions:
            return [*marked, "<p>No noun of WordNet: this caption has no label.</p>"]
        rows = [(word, nouns.name(w), w, nouns.gloss(w)) for word, w in dict.fromkeys(mentions)]
        return marked + table_pieces(["mention", "synset", "WNID", "meaning"], rows)

    def draw(caption: str, reader: str) -> list[str]:
        return drawn(caption, reader, *labelers[reader].mentions([caption]))

    def record():
        for reader, captions in recorded.items():
            for caption, mentions in zip(captions, labelers[reader].mentions(captions), strict=True):
                yield (caption, reader), drawn(caption, reader, mentions)

    caption, reader = examples[0]
    box = widgets.Text(caption, description="caption", layout={"width": "90%"})
    picker = widgets.Dropdown(options=[(name, name) for name in labelers], value=reader, description="reader")
    return Explorer(draw, (box, picker), examples, record)


# ---- label matches with captions and images


def match_explorer(
    label_set: LabelSet,
    vocabulary: Vocabulary,
    distances: np.ndarray,
    captions: Sequence[str | None],
    captions_of: Mapping[str, Sequence[int]],
    address: Address,
    show: Sequence[str],
    *,
    min_similarity: float = 0.5,
) -> Explorer:
    """Pick a label, move the least similarity, see the classes it matches, their captions and, from shards, their images.

    distances: `label_distances` of the two. captions_of: synset -> positions of captions that mention it. address: where the
    captions came from. show: labels for the fixed examples. min_similarity: where the slider begins. A page without a kernel
    shows images with the examples alone, and MOST_RECORDED labels, evenly spaced.
    """
    nouns = load_nouns()

    def draw(label: str, steps: int, images: bool = True) -> list[str]:
        if label not in label_set.names:
            return ["<p>Pick one of the labels: type a part of its name.</p>"]
        head = [f'<p style="font-size:115%"><b>{escape(label)}</b>', f", path similarity {similarity_name(steps)} or more</p>"]
        row = distances[label_set.names.index(label)]
        near = np.flatnonzero(row <= steps)
        near = near[np.lexsort((-vocabulary.counts[near], row[near]))]
        if not len(near):
            told = "No class of the vocabulary is so near: lower the similarity, or this label starts from random."
            return [*head, f"<p>{told}</p>"]
        shown = [(similarity_name(row[i]), vocabulary.wnids[i], f"{vocabulary.counts[i]:,}") for i in near[:SHOWN]]
        rows = [(name, nouns.name(wnid), wnid, count, nouns.gloss(wnid).split(";")[0]) for name, wnid, count in shown]
        table = table_pieces(["similarity", "class", "WNID", "captions", "meaning"], rows)
        more = [f"<p>… and {len(near) - SHOWN:,} more classes</p>"] if len(near) > SHOWN else []
        positions = _first_captions([vocabulary.wnids[i] for i in near], captions_of, PICTURES)
        samples = read_samples_at(address, positions) if images else {}
        return head + table + more + [_figure(samples[i].image if i in samples else None, captions[i] or "") for i in positions]

    def record():
        for label in label_set.names[:: -(-len(label_set) // MOST_RECORDED)]:
            for steps in STEPS:
                yield (label, steps), draw(label, steps, images=False)

    start = min(STEPS[-1], int(1 / min_similarity - 1 + 1e-6))
    pick = widgets.Combobox(value=show[0], options=label_set.names, description="label", ensure_option=True)
    slider = widgets.SelectionSlider(
        options=[(similarity_name(s), s) for s in STEPS], value=start, description="similarity", continuous_update=False
    )
    return Explorer(draw, (pick, slider), [(label, start) for label in show], record)


def similarity_name(steps: int) -> str:
    """A path similarity as figures write it: 1, 1/2, 1/3 …"""
    return f"1/{steps + 1}" if steps else "1 (same synset)"


def _first_captions(wnids: Sequence[str], captions_of: Mapping[str, Sequence[int]], most: int) -> list[int]:
    """Positions of captions that mention a synset, those of the first synset first."""
    found: dict[int, None] = {}
    for wnid in wnids:
        found |= dict.fromkeys(captions_of.get(wnid, ()))
        if len(found) >= most:
            break
    return [*found][:most]


def _figure(image: bytes | None, caption: str) -> str:
    """An encoded image, small, over its caption; the caption alone if there is none that can be read."""
    picture, look = "", "margin:2px 0;font-size:90%"
    with suppress(UnidentifiedImageError, OSError):
        small = Image.open(io.BytesIO(image or b"")).convert("RGB")
        small.thumbnail((THUMBNAIL_PIXELS, THUMBNAIL_PIXELS))
        small.save(out := io.BytesIO(), "PNG")
        picture = f'<img src="data:image/png;base64,{base64.b64encode(out.getvalue()).decode()}" alt="">'
        look = "display:inline-block;width:104px;margin:4px;vertical-align:top;font-size:80%"
    return f'<figure style="{look}">{picture}<figcaption>{escape(caption)}</figcaption></figure>'
