"""Notebook 02: synset counts → vocabulary: what a frequency threshold keeps and what it costs (paper section 3, figure 6).

Reads `synset_counts.parquet` and the captions it was made from, writes `vocabulary.parquet`: the classes of the head.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from ..artefacts import provenance, read_table
from ..data.captions import OF_FILES, fingerprint
from ..labels import Vocabulary, load_nouns
from ..labels.vocabulary import PAPER_THRESHOLD
from ..labels.wordnet import LEXICOGRAPHER_FILES
from .synset_analysis import COUNTS_FILE

VOCABULARY_FILE = "vocabulary.parquet"


def chosen_threshold(threshold: int | None) -> int:
    """The threshold to prune with; None takes the paper's. Raises ValueError for a negative one."""
    if threshold is not None and threshold < 0:
        raise ValueError(f"threshold={threshold} must be 0 or more: a synset stays if more captions than that mention it")
    return PAPER_THRESHOLD if threshold is None else threshold


def read_counts(folder: Path) -> tuple[pd.DataFrame, dict]:
    """The synset counts (wnid, name, count) that notebook 01 wrote, and their card."""
    return read_table(folder / COUNTS_FILE, columns=("wnid", "name", "count"), written_by="01_synset_analysis")


def check_captions(captions: Sequence[str | None], card: Mapping) -> None:
    """Raises ValueError if the captions are not those that an artefact was made from.

    Of a corpus that was counted file by file (`label_corpus`), any part will do: it stands for the whole.
    """
    expected, found = card.get("corpus_fingerprint"), fingerprint(captions)
    if expected != found and not str(expected).startswith(OF_FILES):
        raise ValueError(
            f"these {len(captions):,} captions (SHA-256 {found[:12]}…) are not the {card.get('num_captions', 0):,} that were "
            f"counted, of {card.get('captions')!r} ({str(expected)[:12]}…): pass the same captions, or run notebook 01 again"
        )


def thresholds_to_try(counts: pd.DataFrame, chosen: int) -> list[int]:
    """0, 1, 2, 5, 10, 20, 50 … below the highest count, with the chosen threshold among them."""
    steps = {0, *(digit * 10**power for power in range(10) for digit in (1, 2, 5))}
    return sorted({t for t in steps | {chosen} if t < counts["count"].max()})


def threshold_sweep(
    counts: pd.DataFrame, labels: Sequence[Sequence[str]], thresholds: Sequence[int], num_captions: int | None = None
) -> pd.DataFrame:
    """What each threshold keeps; a row a threshold. num_captions: how many were counted, if labels are of a part of them.

    Columns: threshold; classes (synsets with a greater count); kept (share of label occurrences that are of a kept synset);
    unlabelled (share of captions that have none, those without any synset at all included); labels_a_caption (mean).
    """
    count_of = dict(zip(counts["wnid"], counts["count"], strict=True))
    # A caption keeps a label as long as the most frequent of its synsets passes.
    best = np.array([max((count_of.get(w, 0) for w in wnids), default=0) for wnids in labels])
    n = counts["count"].to_numpy()
    rows = [
        {
            "threshold": t,
            "classes": int((n > t).sum()),
            "kept": n[n > t].sum() / n.sum(),
            "unlabelled": np.mean(best <= t),
            "labels_a_caption": n[n > t].sum() / (num_captions or len(labels)),
        }
        for t in thresholds
    ]
    return pd.DataFrame(rows)


def edge_of(counts: pd.DataFrame, threshold: int, each_side: int = 6) -> pd.DataFrame:
    """Synsets on both sides of the threshold: the rarest that stay, the most frequent that go (ties by WNID)."""
    nouns = load_nouns()
    stays = (counts["count"] > threshold).to_numpy()
    edge = pd.concat([counts[stays].tail(each_side), counts[~stays].head(each_side)])
    return pd.DataFrame(
        {
            "fate": np.where(edge["count"] > threshold, "stays", "goes"),
            "synset": edge["name"],
            "captions": edge["count"],
            "meaning": [nouns.gloss(w).split(";")[0] for w in edge["wnid"]],
        }
    ).reset_index(drop=True)


def fields_of(counts: pd.DataFrame, threshold: int) -> pd.DataFrame:
    """Synsets by WordNet's field of meaning (animal, artifact, food, …): columns field, stays, goes; the largest first."""
    nouns = load_nouns()
    field = [LEXICOGRAPHER_FILES[nouns.lexicographer[nouns.row_of(w)]] for w in counts["wnid"]]
    stays = counts["count"] > threshold
    table = pd.DataFrame({"field": field, "stays": stays, "goes": ~stays}).groupby("field").sum().astype(int)
    return table.assign(total=table.sum(axis=1)).sort_values("total", ascending=False).drop(columns="total").reset_index()


def captions_left_out(
    captions: Sequence[str | None], labels: Sequence[Sequence[str]], vocabulary: Vocabulary, most: int = 8
) -> pd.DataFrame:
    """The first captions that had synsets but none in the vocabulary: columns caption, lost (the names of its synsets)."""
    nouns = load_nouns()
    lost = [
        (caption, ", ".join(nouns.name(w) for w in wnids))
        for caption, wnids in zip(captions, labels, strict=True)
        if wnids and not any(w in vocabulary for w in wnids)
    ]
    return pd.DataFrame(lost[:most], columns=["caption", "lost"])


def prune(counts: pd.DataFrame, threshold: int, card: Mapping) -> Vocabulary:
    """The vocabulary of synsets with count > threshold, with the counts' provenance and this step's."""
    count_of = dict(zip(counts["wnid"], counts["count"], strict=True))
    facts = {key: value for key, value in card.items() if key not in ("num_captions", "date", "packages", "python", "machine")}
    return Vocabulary.from_counts(count_of, threshold, num_captions=card["num_captions"], card=provenance(**facts))


def findings(sweep: pd.DataFrame, vocabulary: Vocabulary, path: Path) -> str:
    """What notebook 02 found, as Markdown."""
    threshold = vocabulary.card["threshold"]
    row = sweep.set_index("threshold").loc[threshold]
    most, least = vocabulary.names[0], vocabulary.names[-1]
    return (
        f"- Threshold {threshold}: **{len(vocabulary):,} classes**, {row['classes'] / sweep['classes'].max():.0%} of the "
        f"synsets; they hold {row['kept']:.1%} of all label occurrences.\n"
        f"- {row['unlabelled']:.1%} of the captions are left without a label (at threshold 0: "
        f"{sweep['unlabelled'].iloc[0]:.1%}); over all, a caption has {row['labels_a_caption']:.1f} labels.\n"
        f"- From *{most}* ({vocabulary.counts[0]:,} captions) to *{least}* ({vocabulary.counts[-1]:,}): the rarest class has "
        f"1/{vocabulary.counts[0] / vocabulary.counts[-1]:,.0f} of the examples of the most frequent.\n"
        f"- Written: `outputs/{path.parent.name}/{path.name}`"
    )
