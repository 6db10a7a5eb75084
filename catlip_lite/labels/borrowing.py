"""Class names → rows of the pre-trained head: which vocabulary synsets each label borrows, and with what weight (section 4.1).

Reads a label set and a vocabulary, gives one `Borrowed` a label; zero-shot scores, Transfer Init and the table that a person
corrects are all made of these. Runs without torch.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from .label_sets import LabelSet
from .matching import label_distances, similarity
from .vocabulary import Vocabulary
from .wordnet import ancestors, load_nouns

LABELS_AT_ONCE = 1024  # labels compared with the whole vocabulary at a time: 100 MB for 24,320 classes


@dataclass(frozen=True)
class Borrowed:
    """What a label takes from the pre-trained head; the heaviest row first, of equal ones the more frequent synset.

    rows: int32 [k], vocabulary rows. weights: float32 [k], their sum 1. kind: "own" (synsets of the label itself),
    "hyponyms" (some of them lie below its own), "similar" (some are near its own in WordNet) or "none" (k = 0).
    """

    rows: np.ndarray
    weights: np.ndarray
    kind: str


NOTHING = Borrowed(np.zeros(0, np.int32), np.zeros(0, np.float32), "none")


def borrow(
    label_set: LabelSet,
    vocabulary: Vocabulary,
    how: str = "own",
    *,
    fallback: Sequence[str] = ("hyponyms", "similar"),
    min_similarity: float = 0.5,
) -> list[Borrowed]:
    """What each label borrows, in the label set's order.

    how: "first" (the first of its synsets that the vocabulary has), "own" (all its synsets that the vocabulary has, the
    paper's mean), "hyponyms" (these and all that lie below them in WordNet, weighted by captions: of kinds of dog, those that
    the corpus shows) or "similar" (all synsets with a path similarity of min_similarity or more to one of its own, weighted
    by it; min_similarity=1 is "own"). fallback: what is tried, in this order, for labels that get nothing so.

    Raises ValueError for another name of a way, or a min_similarity that is not in (0, 1].
    """
    unknown = [way for way in (how, *fallback) if way not in BORROWING]
    if unknown:
        raise ValueError(f"borrow={unknown[0]!r} is unknown: choose one of {', '.join(BORROWING)}")
    if not 0 < min_similarity <= 1:
        raise ValueError(f"min_similarity={min_similarity} must be above 0 and at most 1 (1: the same synset)")
    known = load_nouns().row
    own = [tuple(w for w in wnids if w in known) for wnids in label_set.wnids]
    result = [NOTHING] * len(own)
    for way in dict.fromkeys((how, *fallback)):
        waiting = [i for i, found in enumerate(result) if found.kind == "none" and own[i]]
        labels = LabelSet(label_set.title, tuple(label_set.names[i] for i in waiting), tuple(own[i] for i in waiting))
        shares = WAYS[way](labels, vocabulary, min_similarity)
        for label, share in zip(waiting, shares, strict=True):
            if share:
                itself = {vocabulary.index[w] for w in own[label] if w in vocabulary}
                kind = "own" if itself.issuperset(share) else way
                rows = sorted(share, key=lambda row: (-share[row], row))
                weights = np.array([share[row] for row in rows])
                result[label] = Borrowed(np.array(rows, np.int32), (weights / weights.sum()).astype(np.float32), kind)
    return result


# --- the ways: labels, vocabulary, min_similarity -> for each label its rows with their shares --------------------------


def _own(labels: LabelSet, vocabulary: Vocabulary, _: float, most: int | None = None) -> list[dict[int, float]]:
    return [{vocabulary.index[w]: 1.0 for w in [w for w in wnids if w in vocabulary][:most]} for wnids in labels.wnids]


def _hyponyms(labels: LabelSet, vocabulary: Vocabulary, _: float) -> list[dict[int, float]]:
    nouns = load_nouns()
    below: dict[int, list[int]] = {nouns.row[w]: [] for wnids in labels.wnids for w in wnids}
    for row, wnid in enumerate(vocabulary.wnids if below else ()):
        for ancestor in ancestors(nouns.row_of(wnid)):
            if ancestor in below:
                below[ancestor].append(row)
    # Never zero, so that a vocabulary without counts gives equal shares.
    return [{row: vocabulary.counts[row] + 1.0 for w in wnids for row in below[nouns.row[w]]} for wnids in labels.wnids]


def _similar(labels: LabelSet, vocabulary: Vocabulary, min_similarity: float) -> list[dict[int, float]]:
    found = []
    for start in range(0, len(labels), LABELS_AT_ONCE):
        some = slice(start, start + LABELS_AT_ONCE)
        part = LabelSet(labels.title, labels.names[some], labels.wnids[some])
        for line in similarity(label_distances(part, vocabulary.wnids)):
            rows = np.flatnonzero(line >= np.float32(min_similarity))
            found.append(dict(zip(rows.tolist(), line[rows].tolist(), strict=True)))
    return found


WAYS: dict[str, Callable] = {"first": partial(_own, most=1), "own": _own, "hyponyms": _hyponyms, "similar": _similar}
BORROWING = tuple(WAYS)
