"""Synset counts → vocabulary: the classes of the pre-training head (paper section 3, figures 3 and 6).

Reads how many captions each synset occurs in, keeps those above a threshold, and turns WNIDs into class indices. A
vocabulary is one parquet file: WNID, name, count; its provenance, the card, is in the file's metadata. The vocabulary that the
reference published, a pickle, is read, too.
"""

from __future__ import annotations

import pickle
import re
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa

from ..artefacts import read_table, write_table
from .labeler import CaptionLabeler
from .ragged import keys_by_row
from .tagging import PlainUnpickler
from .wordnet import load_nouns

PAPER_THRESHOLD = 500
CORENET_CLASSES = 24_320  # of its published vocabulary, the reference takes the first so many


class Vocabulary:
    """An ordered list of synsets, the most frequent first; the position of a synset is its class index.

    wnids: the classes. counts: int64 [V], captions in which each occurs. num_captions: captions counted, labelled or not (None,
    where nobody knows: the greatest count). card: provenance (labeler, corpus fingerprint, threshold, …), any JSON values.
    """

    def __init__(
        self, wnids: Sequence[str], counts: Sequence[int], num_captions: int | None = None, card: Mapping | None = None
    ):
        self.wnids = list(wnids)
        self.counts = np.asarray(counts, dtype=np.int64)
        self.num_captions = int(self.counts.max(initial=0) if num_captions is None else num_captions)
        self.card = dict(card or {})
        if len(set(self.wnids)) != len(self.wnids) or len(self.wnids) != len(self.counts):
            raise ValueError(f"a vocabulary needs distinct WNIDs with a count each: got {len(self.wnids)}, {len(self.counts)}")

    @classmethod
    def from_counts(
        cls,
        counts: Mapping[str, int],
        threshold: int | None = None,
        *,
        num_captions: int | None = None,
        card: Mapping | None = None,
    ) -> Vocabulary:
        """Keep the synsets with count > threshold (the paper's rule; None: its 500), by falling count, ties by WNID.

        Raises ValueError if none is left, or if the threshold is negative.
        """
        threshold = PAPER_THRESHOLD if threshold is None else threshold
        if threshold < 0:
            raise ValueError(f"threshold={threshold} must be 0 or more: a synset stays if more captions than that mention it")
        kept = sorted(((n, w) for w, n in counts.items() if n > threshold), key=lambda pair: (-pair[0], pair[1]))
        if not kept:
            most = max(counts.values(), default=0)
            raise ValueError(f"no synset occurs more than {threshold} times (the most frequent: {most}): lower the threshold")
        return cls([w for _, w in kept], [n for n, _ in kept], num_captions, {**(card or {}), "threshold": threshold})

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
        return [load_nouns().name(w) for w in self.wnids]

    def encode(self, wnids: Iterable[str]) -> np.ndarray:
        """Class indices of a caption's synsets: int32, sorted, each once; synsets outside the vocabulary are skipped."""
        index = self.index
        return np.array(sorted({index[w] for w in wnids if w in index}), dtype=np.int32)

    def encode_column(self, labels: pa.ListArray) -> tuple[np.ndarray, np.ndarray]:
        """`encode` of each row of a column, list<int32> [N] of WNID numbers as `CaptionLabeler.label_column` gives it.

        Returns the class indices of all rows end to end, int32, and how many each row has, int64 [N].
        """
        numbers, classes = self._classes_by_number
        offsets = labels.offsets.to_numpy()  # of a slice, its own; `values` are those of the whole column
        ends = offsets[1:].astype(np.int64) - offsets[0]
        wanted = labels.values.to_numpy()[offsets[0] : offsets[-1]]
        at = np.searchsorted(numbers, wanted)
        keys = np.sort(keys_by_row(classes[at], ends)[numbers[at] == wanted], kind="stable")  # fast: rows are in order
        keys = keys[np.diff(keys, prepend=-1) > 0]
        return (keys & 0xFFFFFFFF).astype(np.int32), np.bincount(keys >> 32, minlength=len(labels))

    @cached_property
    def _classes_by_number(self) -> tuple[np.ndarray, np.ndarray]:
        """The WNID numbers of all classes, ascending, and these classes, both int32 [V + 1]; last comes what is none."""
        numbers = np.array([int(wnid[1:]) for wnid in self.wnids], dtype=np.int32)
        order = np.argsort(numbers).astype(np.int32)
        return np.append(numbers[order], np.iinfo(np.int32).max), np.append(order, np.int32(0))

    def log_prior_odds(self) -> np.ndarray:
        """log p/(1-p) of each class, p being the share of captions it occurs in: float32 [V]."""
        p = np.clip(self.counts / max(self.num_captions, 1), 1e-8, 1 - 1e-3)
        return np.log(p / (1 - p)).astype(np.float32)

    def save(self, path: str | Path) -> Path:
        """Write parquet (wnid, name, count), atomically, with the card as metadata; returns the file's path."""
        table = pd.DataFrame({"wnid": self.wnids, "name": self.names, "count": self.counts})
        return write_table(table, path, {**self.card, "num_captions": self.num_captions})

    @classmethod
    def load(cls, path: str | Path) -> Vocabulary:
        """Read what `save` wrote, or (a .pkl) what the reference published: see `load_corenet`.

        Raises FileNotFoundError or ValueError, saying which notebook writes it.
        """
        if Path(path).suffix == ".pkl":
            return cls.load_corenet(path)
        table, card = read_table(path, columns=("wnid", "count"), written_by="02_vocab_pruning")
        return cls(table["wnid"], table["count"], card.pop("num_captions", None), card)

    @classmethod
    def load_corenet(
        cls, path: str | Path, size: int | None = CORENET_CLASSES, *, num_captions: int | None = None
    ) -> Vocabulary:
        """The reference's published vocabulary: a pickled dict from its keys ("n2084071") to counts, in the classes' order.

        size: how many to keep, the first ones; None keeps all. num_captions: captions behind the counts, which the file does
        not tell; None takes the greatest count. The file can hold nothing but such a dict: anything else is refused unread.
        Raises FileNotFoundError, or ValueError if the file is no such dict.
        """
        with open(path, "rb") as file:
            try:
                counts = PlainUnpickler(file).load()
            except (pickle.UnpicklingError, EOFError, AttributeError, ImportError, IndexError) as error:
                raise ValueError(f"{path} is no pickled dict of counts: {error}") from error
        if not isinstance(counts, dict) or not all(isinstance(n, int) for n in counts.values()):
            raise ValueError(f"{path} is no pickled dict of counts: it holds a {type(counts).__name__}")
        counts = dict(list(counts.items())[:size])
        wnids = [wnid_of_corenet_key(key) for key in counts]
        card = {"labeler": "corenet", **CaptionLabeler("corenet").card, "source": Path(path).name, "wordnet": "3.0"}
        return cls(wnids, list(counts.values()), num_captions, card)


def thresholds_to_try(counts: Sequence[int], chosen: int) -> list[int]:
    """0, 1, 2, 5, 10, 20, 50 … below the highest count, with the chosen threshold among them."""
    steps = {0, chosen, *(digit * 10**power for power in range(10) for digit in (1, 2, 5))}
    return sorted(t for t in steps if t < max(counts))


def corenet_key(wnid: str) -> str:
    """A WNID as the reference writes it: part of speech and offset without leading zeros, "n02084071" -> "n2084071"."""
    return f"n{int(wnid[1:])}"


def wnid_of_corenet_key(key: object) -> str:
    """The way back: "n2084071" -> "n02084071". Raises ValueError for anything but a noun of WordNet 3.0."""
    match = re.fullmatch(r"n(\d{1,8})", key) if isinstance(key, str) else None
    wnid = load_nouns().wnid_of_number.get(int(match[1])) if match else None
    if wnid is None:
        raise ValueError(f"{key!r} is no key of a noun in WordNet 3.0: the reference writes n2084071 for n02084071")
    return wnid
