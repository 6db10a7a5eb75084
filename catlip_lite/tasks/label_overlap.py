"""Notebook 03: the labels of a task against the vocabulary, by identity and by path similarity (paper figures 2b, 2c).

Reads `vocabulary.parquet` and a label set, writes `label_matches.parquet`: which synsets' classifier rows each label can
borrow (Transfer Init).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from ..artefacts import provenance, write_table
from ..labels import LabelSet, Vocabulary, load_nouns
from ..labels.labeler import LABELER_FACTS
from ..labels.matching import UNREACHABLE, path_distances
from ..labels.wordnet import LEXICOGRAPHER_FILES
from ..workbook.run_folder import workbook_address
from .synset_analysis import COUNTS_FILE
from .vocab_pruning import VOCABULARY_FILE, read_counts, thresholds_to_try

MATCHES_FILE = "label_matches.parquet"
STEPS = (0, 1, 2, 3)  # hypernym steps between two synsets; their path similarity is 1 / (1 + steps)


def similarity_name(steps: int) -> str:
    """A path similarity as the figures write it: 1, 1/2, 1/3 …"""
    return "1 (same synset)" if steps == 0 else f"1/{steps + 1}"


@dataclass(frozen=True)
class Overlap:
    """A label set, a list of synsets with their counts, and the hypernym steps between them: uint8 [labels, synsets]."""

    label_set: LabelSet
    wnids: list[str]
    counts: np.ndarray
    steps: np.ndarray


def load_label_set(label_set: str | Sequence[str], allow_unknown: bool) -> LabelSet:
    """The labels behind a parameter: an address (see `LabelSet.load`), local paths counted from the top folder, or a list."""
    address = workbook_address(label_set) if isinstance(label_set, str) else label_set
    return LabelSet.load(address, allow_unknown=allow_unknown)


def load_vocabulary(folder: Path) -> Vocabulary:
    """The vocabulary that notebook 02 wrote."""
    return Vocabulary.load(folder / VOCABULARY_FILE)


def threshold_of(vocabulary: Vocabulary) -> int:
    """The threshold that a vocabulary was pruned with; if its card does not say, one below its rarest class."""
    return int(vocabulary.card.get("threshold", vocabulary.counts.min() - 1))


def counted_synsets(folder: Path, vocabulary: Vocabulary) -> tuple[list[str], np.ndarray]:
    """All counted synsets and their counts, if notebook 01's counts are in the run's folder; else the vocabulary's alone."""
    if (folder / COUNTS_FILE).is_file():
        counts, _ = read_counts(folder)
        return counts["wnid"].tolist(), counts["count"].to_numpy()
    return vocabulary.wnids, vocabulary.counts


def measure_overlap(label_set: LabelSet, wnids: Sequence[str], counts: np.ndarray) -> Overlap:
    """Steps between every label and every synset; a label of several parts is as near as its nearest part."""
    nouns = load_nouns()
    parts = list(dict.fromkeys(w for own in label_set.wnids for w in own if w in nouns.row))
    distance = dict(zip(parts, path_distances(parts, wnids), strict=True))
    far = np.full(len(wnids), UNREACHABLE, dtype=np.uint8)
    steps = [np.min([distance[w] for w in own if w in distance] or [far], axis=0) for own in label_set.wnids]
    return Overlap(label_set, list(wnids), np.asarray(counts), np.stack(steps))


# --- figures 2b and 2c --------------------------------------------------------------------------------------------------


def coverage_by_similarity(overlap: Overlap) -> pd.DataFrame:
    """Figure 2b, a row a similarity: columns steps, similarity, matched (labels), recall (share of labels), synsets_a_label
    (mean over the matched ones)."""
    rows = []
    for steps in STEPS:
        near = overlap.steps <= steps
        matched = near.any(axis=1)
        rows.append(
            {
                "steps": steps,
                "similarity": similarity_name(steps),
                "matched": int(matched.sum()),
                "recall": matched.mean(),
                "synsets_a_label": near.sum(axis=1)[matched].mean() if matched.any() else 0.0,
            }
        )
    return pd.DataFrame(rows)


def captions_per_label(overlap: Overlap) -> pd.DataFrame:
    """Figure 2c: columns label, steps, captions: the captions behind all synsets that are at most `steps` away, added up."""
    names = overlap.label_set.names
    behind = {s: ((overlap.steps <= s) * overlap.counts).sum(axis=1) for s in STEPS}
    tables = [pd.DataFrame({"label": names, "steps": s, "captions": n}) for s, n in behind.items()]
    return pd.concat(tables, ignore_index=True)


def coverage_by_threshold(overlap: Overlap, chosen: int) -> pd.DataFrame:
    """Coverage as synsets are pruned; a row a threshold and similarity.

    Columns threshold, steps, similarity and two shares.
    recall: share of the labels with a synset at least that similar among those with count > threshold.
    precision: share of those synsets that are at least that similar to some label.
    """
    least = int(overlap.counts.min()) - 1  # a pruned vocabulary says nothing about lower thresholds
    counts = pd.DataFrame({"count": overlap.counts})
    rows = []
    for threshold in (t for t in thresholds_to_try(counts, chosen) if t >= min(least, chosen)):
        kept = overlap.steps[:, overlap.counts > threshold]
        for steps in STEPS:
            near = kept <= steps
            found = {"recall": near.any(axis=1).mean(), "precision": near.any(axis=0).mean()}
            rows.append({"threshold": threshold, "steps": steps, "similarity": similarity_name(steps), **found})
    return pd.DataFrame(rows)


# --- what is missing ----------------------------------------------------------------------------------------------------


def missing_labels(matches: pd.DataFrame) -> pd.DataFrame:
    """Labels whose own synset is not in the vocabulary, the most similar first: columns label, nearest, similarity."""
    nouns = load_nouns()
    missing = matches[matches["exact"].map(len) == 0].sort_values("similarity", ascending=False, kind="stable")
    nearest = [nouns.name(w) if isinstance(w, str) else None for w in missing["nearest"]]
    table = pd.DataFrame({"label": missing["label"], "nearest": nearest, "similarity": missing["similarity"]})
    return table.reset_index(drop=True)


def some_at_each_similarity(missing: pd.DataFrame, each: int = 2) -> pd.DataFrame:
    """The first `each` of the missing labels at every similarity."""
    return missing.groupby("similarity", sort=False).head(each).reset_index(drop=True)


def lenders(missing: pd.DataFrame, most: int = 12) -> pd.DataFrame:
    """Synsets that most missing labels would borrow: columns nearest, labels (how many), similarity (mean), such_as."""
    groups = missing.dropna(subset="nearest").groupby("nearest")
    table = groups.agg(
        labels=("label", "size"), similarity=("similarity", "mean"), such_as=("label", lambda names: ", ".join(list(names)[:4]))
    )
    return table.sort_values("labels", ascending=False, kind="stable").head(most).reset_index()


def coverage_by_field(matches: pd.DataFrame) -> pd.DataFrame:
    """Labels by WordNet's field of meaning: columns field, exact, near (not exact, but similar enough), missing."""
    nouns = load_nouns()

    def field_of(wnids):
        return LEXICOGRAPHER_FILES[nouns.lexicographer[nouns.row_of(wnids[0])]] if len(wnids) else "not in WordNet"

    exact, near = matches["exact"].map(len) > 0, matches["matches"].map(len) > 0
    table = pd.DataFrame(
        {"field": matches["wnids"].map(field_of), "exact": exact, "near": near & ~exact, "missing": ~near & ~exact}
    )
    table = table.groupby("field").sum().astype(int)
    return table.assign(n=table.sum(axis=1)).sort_values("n", ascending=False).drop(columns="n").reset_index()


# --- looking at single labels -------------------------------------------------------------------------------------------


def captions_by_synset(labels: Sequence[Sequence[str]], most: int = 50) -> dict[str, list[int]]:
    """For each synset, the positions of the first `most` captions that mention it."""
    positions = defaultdict(list)
    for i, wnids in enumerate(labels):
        for wnid in set(wnids):
            if len(positions[wnid]) < most:
                positions[wnid].append(i)
    return dict(positions)


def synsets_near(overlap: Overlap, label: str, steps: int) -> pd.DataFrame:
    """Synsets at most `steps` from a label, the nearest first, then the most frequent: wnid, name, steps, captions, gloss."""
    nouns = load_nouns()
    row = overlap.steps[overlap.label_set.names.index(label)]
    near = np.flatnonzero(row <= steps)
    near = near[np.lexsort((-overlap.counts[near], row[near]))]
    rows = [(w := overlap.wnids[i], nouns.name(w), int(row[i]), int(overlap.counts[i]), nouns.gloss(w)) for i in near]
    return pd.DataFrame(rows, columns=["wnid", "name", "steps", "captions", "gloss"])


def labels_to_show(matches: pd.DataFrame) -> list[str]:
    """Three labels worth a look: the one with most captions of its own, one with relatives only, the farthest of all."""
    exact, near = matches["exact"].map(len) > 0, matches["matches"].map(len) > 0
    picks = [
        matches[exact].sort_values("count", kind="stable", ascending=False)["label"].head(1),
        matches[near & ~exact].sort_values("count", kind="stable", ascending=False)["label"].head(1),
        matches[~near].sort_values("similarity", kind="stable")["label"].head(1),
    ]
    return [label for pick in picks for label in pick]


# --- what is written ----------------------------------------------------------------------------------------------------


def write_matches(
    matches: pd.DataFrame, folder: Path, label_set: LabelSet, vocabulary: Vocabulary, min_similarity: float
) -> Path:
    """Write `label_matches.parquet` with the vocabulary's provenance and this step's."""
    inherited = ("labeler", *LABELER_FACTS, "captions", "corpus_fingerprint", "threshold")
    facts: Mapping = {key: vocabulary.card[key] for key in inherited if key in vocabulary.card}
    card = provenance(label_set=label_set.title, min_similarity=min_similarity, vocabulary_size=len(vocabulary), **facts)
    return write_table(matches, folder / MATCHES_FILE, card)


def findings(matches: pd.DataFrame, label_set: LabelSet, vocabulary: Vocabulary, min_similarity: float, path: Path) -> str:
    """What notebook 03 found, as Markdown."""
    exact, near = matches["exact"].map(len) > 0, matches["matches"].map(len) > 0
    lending = lenders(missing_labels(matches), most=1)
    behind = matches.loc[exact, "count"]
    text = (
        f"- Of the {len(label_set):,} labels of {label_set.title}, **{exact.sum():,}** ({exact.mean():.1%}) are themselves "
        f"among the {len(vocabulary):,} classes; {near.sum():,} ({near.mean():.1%}) have a class at similarity "
        f"{min_similarity:.2g} or more.\n"
    )
    if len(behind):
        text += f"- A label that is itself a class has {behind.median():,.0f} captions behind its matches (median).\n"
    if len(lending):
        name, labels, _, _ = lending.iloc[0]
        text += (
            f"- {labels:,} of the {(~exact).sum():,} missing labels have the same nearest class, *{name}*: its classifier row "
            "alone cannot tell them apart.\n"
        )
    return text + f"- Written: `outputs/{path.parent.name}/{path.name}`"
