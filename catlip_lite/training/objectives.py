"""What is learnt from a sample: what its caption or class becomes in the loader. Its loss is in `losses`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..data.shards import Sample
from ..labels import CaptionLabeler, Vocabulary


@dataclass(frozen=True)
class SynsetTargets:
    """CatLIP's: the synsets of a caption that the vocabulary has (paper section 3, equation 1)."""

    labeler: CaptionLabeler
    vocabulary: Vocabulary

    def __call__(self, samples: Sequence[Sample]) -> tuple[np.ndarray, np.ndarray]:
        """Class indices of all, int32, end to end, and how many each has, int64."""
        captions = ["" if sample.skipped else sample.caption for sample in samples]
        return self.vocabulary.encode_column(self.labeler.label_column(captions))

    def __str__(self) -> str:
        return f"a synset of this vocabulary ({len(self.vocabulary):,} classes)"
