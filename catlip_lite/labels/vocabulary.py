"""Synset counts → vocabulary: the classes of the pre-training head (paper section 3, figures 3 and 6).

Reads how many captions each synset occurs in, keeps those above a threshold, and turns WNIDs into class indices. A
vocabulary is one parquet file: WNID, name, count; its provenance is in the file's metadata.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd

from ..artefacts import read_table, write_table
from .wordnet import load_nouns

PAPER_THRESHOLD = 500


class Vocabulary:
    """An ordered list of synsets, the most frequent first; the position of a synset is its class index.

    wnids: the classes. counts: int64 [V], captions in which each occurs. num_captions: captions counted, labelled or not.
    card: provenance (labeler, corpus fingerprint, threshold, …), any JSON values.
    """

    def __init__(self, wnids: Sequence[str], counts: Sequence[int], num_captions: int, card: Mapping | None = None):
        self.wnids = list(wnids)
        self.counts = np.asarray(counts, dtype=np.int64)
        self.num_captions = int(num_captions)
        self.card = dict(card or {})
        if len(set(self.wnids)) != len(self.wnids) or len(self.wnids) != len(self.counts):
            raise ValueError(f"a vocabulary needs distinct WNIDs with a count each: got {len(self.wnids)}, {len(self.counts)}")

    @classmethod
    def from_counts(
        cls,
        counts: Mapping[str, int],
        threshold: int = PAPER_THRESHOLD,
        *,
        num_captions: int | None = None,
        card: Mapping | None = None,
    ) -> Vocabulary:
        """Keep the synsets with count > threshold (the paper's rule), by falling count, ties by WNID.

        Raises ValueError if none is left.
        """
        kept = sorted(((n, w) for w, n in counts.items() if n > threshold), key=lambda pair: (-pair[0], pair[1]))
        if not kept:
            most = max(counts.values(), default=0)
            raise ValueError(f"no synset occurs more than {threshold} times (the most frequent: {most}): lower the threshold")
        total = num_captions if num_captions is not None else max(counts.values())
        return cls([w for _, w in kept], [n for n, _ in kept], total, {**(card or {}), "threshold": threshold})

    def __len__(self) -> int:
        return len(self.wnids)

    def __contains__(self, wnid: str) -> bool:
        return wnid in self.index

    @cached_property
    def index(self) -> dict[str, int]:
        """WNID -> class index."""
        return {wnid: i for i, wnid in enumerate(self.wnids)}

    @cached_property
    def names(self) -> list[str]:
        """A readable name for each class: its synset's first lemma."""
        nouns = load_nouns()
        return [nouns.name(w) for w in self.wnids]

    def encode(self, wnids: Iterable[str]) -> np.ndarray:
        """Class indices of a caption's synsets: int32, sorted, each once; synsets outside the vocabulary are skipped."""
        index = self.index
        return np.array(sorted({index[w] for w in wnids if w in index}), dtype=np.int32)

    def log_prior_odds(self) -> np.ndarray:
        """log p/(1-p) of each class, p being the share of captions it occurs in: float32 [V]."""
        p = np.clip(self.counts / max(self.num_captions, 1), 1e-8, 1 - 1e-3)
        return np.log(p / (1 - p)).astype(np.float32)

    def save(self, path: str | Path) -> Path:
        """Write parquet (wnid, name, count), atomically, with the card as metadata."""
        table = pd.DataFrame({"wnid": self.wnids, "name": self.names, "count": self.counts})
        return write_table(table, path, {**self.card, "num_captions": self.num_captions})

    @classmethod
    def load(cls, path: str | Path) -> Vocabulary:
        """Read what `save` wrote. Raises FileNotFoundError or ValueError, saying which notebook writes it."""
        table, card = read_table(path, columns=("wnid", "count"), written_by="02_vocab_pruning")
        return cls(table["wnid"], table["count"], card.pop("num_captions", table["count"].max()), card)
