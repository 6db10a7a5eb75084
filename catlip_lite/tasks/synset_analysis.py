"""Notebook 01: captions → synsets, with three labelers side by side, and how often each synset occurs (paper figure 3).

Reads captions, writes `synset_counts.parquet`: in how many captions each synset occurs.
"""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from ..artefacts import provenance, write_table
from ..data.captions import fingerprint, read_captions
from ..labels import CaptionLabeler, count_synsets, load_nouns
from ..labels.labeler import MODES
from .progress import progress
from .run_folder import workbook_address

COUNTS_FILE = "synset_counts.parquet"
CHUNK = 4096  # captions labelled at a time


# --- the corpus ---------------------------------------------------------------------------------------------------------


def read_corpus(captions: str | Sequence[str], column: str) -> list[str | None]:
    """The captions behind a notebook's parameters (see `read_captions`), reporting progress."""
    return read_captions(workbook_address(captions), column, lambda files: progress(files, "reading captions", unit="files"))


def describe_captions(captions: Sequence[str | None]) -> pd.DataFrame:
    """What the corpus is, a row a figure: captions, how many are missing, distinct ones, their length, their fingerprint."""
    present = [c for c in captions if c is not None]
    words = [len(c.split()) for c in present]
    return pd.DataFrame(
        {
            "captions": [f"{len(captions):,}"],
            "missing": [f"{len(captions) - len(present):,}"],
            "distinct": [f"{len(set(present)):,}"],
            "words a caption (median)": [f"{np.median(words):.0f}"],
            "longest, in words": [f"{max(words):,}"],
            "SHA-256 of the captions": [fingerprint(captions)[:12] + "…"],
        },
        index=["corpus"],
    ).T


# --- three labelers side by side ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class SideBySide:
    """The same captions as several labelers see them: N captions; by labeler, N lists of (word, WNID) and its CPU seconds."""

    captions: list[str]
    mentions: dict[str, list[list[tuple[str, str]]]]
    seconds: dict[str, float]

    def label_sets(self, labeler: str) -> list[frozenset[str]]:
        """The distinct WNIDs that a labeler gives each caption."""
        return [frozenset(wnid for _, wnid in found) for found in self.mentions[labeler]]


def compare_labelers(
    captions: Sequence[str | None], count: int, *, tagger: str = "perceptron", seed: int = 0, modes: Sequence[str] = MODES
) -> SideBySide:
    """Label `count` random captions with each mode; `tagger` is the one that mode "pos" asks."""
    present = [c for c in captions if c is not None]
    chosen = random.Random(seed).sample(present, min(count, len(present)))
    mentions, seconds = {}, {}
    for mode in modes:
        labeler = CaptionLabeler(mode, tagger=tagger)
        labeler.label(["a warm-up caption"])  # reads WordNet and the tagger's weights before the clock starts
        started = time.process_time()
        mentions[labeler.name] = [found for part in _parts(chosen, labeler.name) for found in labeler.mentions(part)]
        seconds[labeler.name] = time.process_time() - started
    return SideBySide(chosen, mentions, seconds)


def labeler_table(side: SideBySide) -> pd.DataFrame:
    """A row a labeler: captions/s of one core, labels a caption, distinct synsets, captions without a label (%)."""
    rows = {}
    for name, mentions in side.mentions.items():
        sets = side.label_sets(name)
        rows[name] = {
            "captions/s of one core": len(mentions) / max(side.seconds[name], 1e-9),
            "labels a caption": np.mean([len(s) for s in sets]),
            "distinct synsets": len(frozenset().union(*sets)),
            "captions without a label (%)": 100 * np.mean([not s for s in sets]),
        }
    return pd.DataFrame(rows).T.astype({"distinct synsets": int}).rename_axis("labeler")


def agreement(side: SideBySide) -> pd.DataFrame:
    """Mean Jaccard index of two labelers' label sets over all captions, for every pair; two empty sets agree fully."""
    sets = {name: side.label_sets(name) for name in side.mentions}
    return pd.DataFrame({a: {b: np.mean([*map(_jaccard, sets[a], sets[b])]) for b in sets} for a in sets})


def pick_examples(side: SideBySide, count: int) -> list[int]:
    """Positions of captions to show: the first half as drawn at random, the rest those on which the labelers differ most."""
    names = list(side.mentions)
    sets = [side.label_sets(name) for name in names]
    overlap = [sum(_jaccard(a[i], b[i]) for n, a in enumerate(sets) for b in sets[:n]) for i in range(len(side.captions))]
    random_half = list(range(min(count - count // 2, len(overlap))))
    # Of several that differ equally, the longest caption: it shows more.
    by_overlap = sorted(range(len(random_half), len(overlap)), key=lambda i: (overlap[i], -len(side.captions[i])))
    return random_half + by_overlap[: count // 2]


def word_differences(side: SideBySide, first: str, second: str, most: int = 10) -> pd.DataFrame:
    """Words that labeler `first` turns into a synset which `second` does not give that caption, the most frequent first."""
    nouns = load_nouns()
    tally = Counter()
    for found, other in zip(side.mentions[first], side.label_sets(second), strict=True):
        tally.update({(word, wnid) for word, wnid in found if wnid not in other})
    rows = [(word, nouns.name(wnid), nouns.gloss(wnid).split(";")[0], n) for (word, wnid), n in tally.most_common(most)]
    return pd.DataFrame(rows, columns=["word", f"{first} reads", "which is", "captions"])


def _jaccard(a: frozenset, b: frozenset) -> float:
    return len(a & b) / len(a | b) if a or b else 1.0


# --- synsets by frequency -----------------------------------------------------------------------------------------------


def label_captions(captions: Sequence[str | None], labeler: CaptionLabeler) -> list[list[str]]:
    """WNIDs of every caption, reporting progress."""
    return [wnids for part in _parts(captions, labeler.name) for wnids in labeler.label(part)]


def _parts(captions: Sequence, title: str) -> Iterator[Sequence]:
    parts = [captions[i : i + CHUNK] for i in range(0, len(captions), CHUNK)]
    return progress(parts, f"labelling ({title})", unit=f"x {CHUNK:,} captions")


def synset_counts(labels: Sequence[Sequence[str]]) -> pd.DataFrame:
    """Columns wnid, name, count (captions that mention the synset), the most frequent first, ties by WNID.

    Raises ValueError if no caption has a label.
    """
    nouns = load_nouns()
    ordered = sorted(count_synsets(labels).items(), key=lambda item: (-item[1], item[0]))
    if not ordered:
        raise ValueError(f"none of {len(labels):,} captions names a WordNet noun: are they English, and in the right column?")
    return pd.DataFrame([(w, nouns.name(w), n) for w, n in ordered], columns=["wnid", "name", "count"])


def synset_growth(labels: Sequence[Sequence[str]], threshold: int, *, seed: int = 0, points: int = 60) -> pd.DataFrame:
    """Distinct synsets in the first n captions of a random order (figure 3b): columns captions, seen, above_threshold.

    seen: synsets mentioned at least once; above_threshold: in more than `threshold` captions.
    """
    order = np.random.default_rng(seed).permutation(len(labels))
    tally, first, passing = Counter(), [], []
    for position, i in enumerate(order, start=1):
        for wnid in set(labels[i]):
            tally[wnid] += 1
            if tally[wnid] == 1:
                first.append(position)
            if tally[wnid] == threshold + 1:
                passing.append(position)
    sizes = np.unique(np.geomspace(1, len(labels), points).round().astype(int))
    counted = {name: np.searchsorted(at, sizes, side="right") for name, at in (("seen", first), ("above_threshold", passing))}
    return pd.DataFrame({"captions": sizes, **counted})


def write_counts(
    counts: pd.DataFrame, folder: Path, labeler: CaptionLabeler, captions: Sequence[str | None], parameters: Mapping
) -> Path:
    """Write `synset_counts.parquet` with what is needed to make the same labels again. parameters: the notebook's."""
    card = provenance(
        num_captions=len(captions),
        labeler=labeler.name,
        label_mode=labeler.mode,
        tagger=labeler.tagger,
        corpus_fingerprint=fingerprint(captions),
        **parameters,
    )
    return write_table(counts, folder / COUNTS_FILE, card)


def labeler_of(card: Mapping) -> CaptionLabeler:
    """The labeler that made the labels behind an artefact. Raises ValueError if its card names none."""
    if card.get("label_mode") not in MODES:
        raise ValueError("the artefact does not say which labeler made it: run notebook 01_synset_analysis again")
    return CaptionLabeler(card["label_mode"], tagger=card.get("tagger") or "perceptron")


def findings(counts: pd.DataFrame, labels: Sequence[Sequence[str]], side: SideBySide, labeler: str, path: Path) -> str:
    """What notebook 01 found, as Markdown."""
    table, overlap = labeler_table(side), agreement(side)
    once = (counts["count"] == 1).mean()
    top = ", ".join(f"{name} ({n:,})" for name, n in zip(counts["name"][:5], counts["count"][:5], strict=True))
    speeds = ", ".join(f"{name} {rate:,.0f}" for name, rate in table["captions/s of one core"].items())
    others = ", ".join(f"{overlap.loc[labeler, o]:.2f} with {o}" for o in overlap if o != labeler and labeler in overlap)
    empty = np.mean([not wnids for wnids in labels])
    return (
        f"- **{len(counts):,} synsets** in {len(labels):,} captions, {np.mean([*map(len, labels)]):.1f} labels a caption; "
        f"{empty:.1%} of the captions have none.\n"
        f"- The most frequent: {top}. {once:.0%} of the synsets occur only once.\n"
        f"- Captions a second on one core: {speeds}.\n"
        + (f"- Agreement of {labeler} (mean Jaccard index): {others}.\n" if others else "")
        + f"- Written: `outputs/{path.parent.name}/{path.name}`"
    )
