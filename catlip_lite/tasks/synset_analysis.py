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
from ..labels import CaptionLabeler, LabelSet, count_synsets, load_nouns
from ..labels.gold import KINDS, reachable_labels, read_gold, score_labeler
from ..labels.labeler import MODES
from ..labels.senses import SENSES
from ..labels.tagging import installed_taggers
from ..progress import progress
from ..workbook.run_folder import workbook_address

COUNTS_FILE = "synset_counts.parquet"
CHUNK = 4096  # captions labelled at a time
SHOWN = 10  # damaged samples named


# --- the corpus ---------------------------------------------------------------------------------------------------------


def read_corpus(captions: str | Sequence[str], column: str) -> list[str | None]:
    """The captions behind a notebook's parameters (see `read_captions`), reporting progress and what cannot be read."""
    skipped: list[str] = []
    address = workbook_address(captions)
    found = read_captions(address, column, lambda files: progress(files, "reading captions", unit="files"), skipped)
    if skipped:
        more = f", the first {SHOWN}" if len(skipped) > SHOWN else ""
        print(f"{len(skipped):,} cannot be read and give no labels{more}:", *skipped[:SHOWN], sep="\n")
    return found


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


def labelers_to_compare(chosen: CaptionLabeler, tagger: str = "perceptron") -> list[CaptionLabeler]:
    """A labeler of each mode: the chosen one, and the other modes as they are by default. tagger: the one that "pos" asks."""
    return [chosen if mode == chosen.mode else CaptionLabeler(mode, tagger=tagger) for mode in MODES]


def compare_labelers(
    captions: Sequence[str | None], count: int, labelers: Sequence[CaptionLabeler], *, seed: int = 0
) -> SideBySide:
    """Label `count` random captions with each labeler. seconds: of a second time, as in a corpus whose words are known."""
    present = [c for c in captions if c is not None]
    chosen = random.Random(seed).sample(present, min(count, len(present)))
    mentions, seconds = {}, {}
    for labeler in labelers:
        mentions[labeler.name] = labeler.mentions(chosen)
        started = time.process_time()
        labeler.label_column(chosen)
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
    """Words that labeler `first` turns into a synset which `second` does not give that caption, the most frequent first.

    first, second: names of labelers, or modes.
    """
    nouns = load_nouns()
    first, second = (next(name for name in side.mentions if name.startswith(mode)) for mode in (first, second))
    tally = Counter()
    for found, other in zip(side.mentions[first], side.label_sets(second), strict=True):
        tally.update({(word, wnid) for word, wnid in found if wnid not in other})
    rows = [(word, nouns.name(wnid), nouns.gloss(wnid).split(";")[0], n) for (word, wnid), n in tally.most_common(most)]
    return pd.DataFrame(rows, columns=["word", f"{first} reads", "which is", "captions"])


def _jaccard(a: frozenset, b: frozenset) -> float:
    return len(a & b) / len(a | b) if a or b else 1.0


# --- against what a person gives ----------------------------------------------------------------------------------------


def labelers_for_gold() -> list[CaptionLabeler]:
    """Every mode with its options, and "pos" with every tagger that is installed."""
    tagged = [CaptionLabeler("pos", tagger=tagger, sense=s) for tagger in installed_taggers() for s in SENSES]
    ours = [CaptionLabeler("compound", sense=s) for s in SENSES]
    unnamed = [CaptionLabeler("pos", proper_nouns=False), CaptionLabeler("compound", proper_nouns=False)]
    return [CaptionLabeler("corenet"), *tagged, *ours, *unnamed]


def gold_table(labelers: Sequence[CaptionLabeler], label_set: str = "imagenet-1k") -> pd.DataFrame:
    """How labelers do on the gold captions (see `labels.gold`); a row a labeler, the best F1 last.

    Columns: precision, recall, F1 (all captions); F1 of each kind of caption; F1, held out (captions that no choice was made
    on); reachable (labels of `label_set` that the labeler can give).
    """
    gold, wanted = read_gold(), LabelSet.load(label_set)
    rows = {}
    for labeler in labelers:
        score = score_labeler(labeler, gold)
        rows[labeler.name] = {
            "precision": score.precision,
            "recall": score.recall,
            "F1": score.f1,
            **{f"F1, {kind}s": score_labeler(labeler, [g for g in gold if g.kind == kind]).f1 for kind in KINDS},
            "F1, held out": score_labeler(labeler, [g for g in gold if g.held_out]).f1,
            "reachable": reachable_labels(labeler, wanted),
        }
    return pd.DataFrame(rows).T.astype({"reachable": int}).sort_values("F1").rename_axis("labeler")


def gold_mistakes(labeler: CaptionLabeler, most: int = 10) -> pd.DataFrame:
    """Held-out gold captions on which a labeler errs most: columns caption, wrong (what it gives), missed (things named)."""
    nouns = load_nouns()
    rows = []
    gold = [entry for entry in read_gold() if entry.held_out]
    for entry, found in zip(gold, labeler.mentions([entry.caption for entry in gold]), strict=True):
        right = frozenset().union(*entry.things)
        given = {wnid for _, wnid in found}
        wrong = dict.fromkeys(f"{word} ({nouns.name(wnid)})" for word, wnid in found if wnid not in right)
        missed = [nouns.name(min(thing)) for thing in entry.things if given.isdisjoint(thing)]
        rows.append((entry.caption, ", ".join(wrong), ", ".join(missed), len(wrong) + len(missed)))
    rows.sort(key=lambda row: -row[-1])
    return pd.DataFrame([row[:3] for row in rows[:most]], columns=["caption", "wrong", "missed"])


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
        **labeler.card,
        corpus_fingerprint=fingerprint(captions),
        **parameters,
    )
    return write_table(counts, folder / COUNTS_FILE, card)


def findings(
    counts: pd.DataFrame, labels: Sequence[Sequence[str]], side: SideBySide, gold: pd.DataFrame, labeler: str, path: Path
) -> str:
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
        + f"- On captions that a person annotated, {gold.index[-1]} does best: F1 {gold['F1'].iloc[-1]:.2f} (the reference's "
        f"rule: {gold.loc['corenet', 'F1']:.2f}), {gold['reachable'].iloc[-1]:,} classes of ImageNet-1k within reach "
        f"({gold.loc['corenet', 'reachable']:,}).\n"
        + (f"- Agreement of {labeler} (mean Jaccard index): {others}.\n" if others else "")
        + f"- Written: `outputs/{path.parent.name}/{path.name}`"
    )
