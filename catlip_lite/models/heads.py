"""A linear classifier as plain tensors: what Transfer Init makes, probes train and fine-tuning starts from."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from ..labels import Vocabulary

GAMMA_NEG, MARGIN = 4.0, 0.05  # of the asymmetric loss, as its authors train
LEAST_IDF = 0.01  # weight of a class that nearly every caption names: next to nothing, but not negative


@dataclass
class Head:
    """A linear classifier: weight float32 [C, D], bias float32 [C]."""

    weight: torch.Tensor
    bias: torch.Tensor

    def scores(self, features: np.ndarray) -> np.ndarray:
        """Logits, float32 [N, C]."""
        return (torch.from_numpy(features) @ self.weight.T + self.bias).numpy()


def random_head(classes: int, width: int, seed: int) -> Head:
    """Random Init: truncated normal weights of std 0.02 as in the reference, zero bias."""
    generator = torch.Generator().manual_seed(seed)
    weight = torch.nn.init.trunc_normal_(torch.empty(classes, width), std=0.02, generator=generator)
    return Head(weight, torch.zeros(classes))


def prior_logits(vocabulary: Vocabulary, loss: str = "bce") -> np.ndarray:
    """What a head trained by a loss answers if it cannot see the image: float32 [V], the constant logits of least mean loss.

    Zero-shot takes them off, so that frequent synsets do not win for being frequent. bce: log odds of a class's share of the
    captions. softmax: log of its share of all labels; superclass: the same, labels weighted by rarity. asymmetric: where its
    slope is zero. Of the softmaxes it is right but for how many labels share a caption with a class, which counts don't tell.
    """
    counts = np.asarray(vocabulary.counts, np.float64)
    if loss in ("softmax", "superclass"):
        labels = counts * (idf_weights(counts, vocabulary.num_captions) if loss == "superclass" else 1.0)
        return np.log(np.maximum(labels, 1e-8) / labels.sum()).astype(np.float32)
    odds = vocabulary.log_prior_odds()
    if loss != "asymmetric":
        return odds
    logits = np.linspace(-12, 12, 24_001)
    p = 1 / (1 + np.exp(-logits))
    absent = np.minimum(1 - p + MARGIN, 1)
    slope = np.gradient((1 - absent) ** GAMMA_NEG * -np.log(absent), logits)  # of a negative; of a positive it is p - 1
    rising = slope > 0
    return np.interp(odds, np.log(slope[rising] / (1 - p[rising])), logits[rising]).astype(np.float32)


def idf_weights(counts: np.ndarray, num_captions: int) -> np.ndarray:
    """Inverse document frequency of each class, log(N / (1 + n_c)), at least LEAST_IDF: float64 [V].

    counts: int64 [V], captions that name the class (n_c). num_captions: captions counted (N).
    """
    return np.maximum(np.log(max(num_captions, 1) / (1.0 + np.asarray(counts, dtype=np.float64))), LEAST_IDF)
