"""Labels of a task against a pre-training vocabulary, by identity and by WordNet path similarity (paper figures 2b, 2c).

Path similarity is 1 / (1 + least number of hypernym steps between two synsets); 1.0 is the same synset, 0.5 a parent or child.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from .label_sets import LabelSet
from .vocabulary import Vocabulary
from .wordnet import UNREACHABLE, ancestors, load_nouns


def path_distances(wnids: Sequence[str], others: Sequence[str]) -> np.ndarray:
    """Least number of hypernym steps through a common ancestor, for every pair: uint8 [len(wnids), len(others)].

    Raises KeyError for a WNID that is no noun of WordNet 3.0.
    """
    nouns = load_nouns()
    below: dict[int, list[tuple[int, int]]] = {}
    for column, wnid in enumerate(others):
        for ancestor, steps in ancestors(nouns.row_of(wnid)).items():
            below.setdefault(ancestor, []).append((column, steps))
    columns = {a: np.array(pairs, dtype=np.int64).T for a, pairs in below.items()}
    distances = np.full((len(wnids), len(others)), UNREACHABLE, dtype=np.uint8)
    for row, wnid in enumerate(wnids):
        line = distances[row]
        for ancestor, steps in ancestors(nouns.row_of(wnid)).items():
            if ancestor in columns:
                where, more = columns[ancestor]
                line[where] = np.minimum(line[where], more + steps)
    return distances


def similarity(distances: np.ndarray) -> np.ndarray:
    """Path similarity of synsets so many steps apart, as NLTK has it: float32, like distances; 0 if they are UNREACHABLE."""
    return np.where(distances < UNREACHABLE, 1.0 / (1.0 + distances), 0.0).astype(np.float32)


def label_distances(label_set: LabelSet, wnids: Sequence[str]) -> np.ndarray:
    """Least number of hypernym steps from each label to each synset: uint8 [len(label_set), len(wnids)].

    A label of several parts is as near as its nearest part; one without a synset of WordNet is UNREACHABLE.
    """
    known = load_nouns().row
    parts = list(dict.fromkeys(w for own in label_set.wnids for w in own if w in known))
    distance = dict(zip(parts, path_distances(parts, wnids), strict=True))
    far = np.full(len(wnids), UNREACHABLE, dtype=np.uint8)
    return np.stack([np.min([far, *(distance[w] for w in own if w in distance)], axis=0) for own in label_set.wnids])


def match_labels(label_set: LabelSet, vocabulary: Vocabulary, min_similarity: float = 1.0) -> pd.DataFrame:
    """Which vocabulary synsets each label may borrow from; a row a label, in the label set's order.

    Columns: label, wnids; exact (its own synsets that are in the vocabulary); similarity (of the nearest synset, 0..1);
    nearest (that synset); matches (synsets with similarity >= min_similarity, the nearest first); count (captions behind
    all matches, added up).
    Raises ValueError if min_similarity is not in (0, 1].
    """
    if not 0 < min_similarity <= 1:
        raise ValueError(f"min_similarity={min_similarity} must be above 0 and at most 1 (1: the same synset)")
    distances, rows = label_distances(label_set, vocabulary.wnids), []
    for name, wnids, steps in zip(label_set.names, label_set.wnids, distances, strict=True):
        nearness = similarity(steps)
        order = np.argsort(-nearness, kind="stable")
        matched = order[nearness[order] >= min_similarity]
        rows.append(
            {
                "label": name,
                "wnids": list(wnids),
                "exact": [w for w in wnids if w in vocabulary],
                "similarity": float(nearness[order[0]]),
                "nearest": vocabulary.wnids[order[0]] if nearness[order[0]] else None,
                "matches": [vocabulary.wnids[i] for i in matched],
                "count": int(vocabulary.counts[matched].sum()),
            }
        )
    return pd.DataFrame(rows)
