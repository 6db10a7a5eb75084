"""Transfer Init and zero-shot: classifiers made of rows of the pre-trained head (paper section 4.1, figure 5).

Reads a pre-trained model and what `labels.borrowing.borrow` chose for each label; gives a `Head` to train, or scores.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch

from ..labels.borrowing import Borrowed
from .calibration import fit_temperature
from .heads import Head, random_head

if TYPE_CHECKING:
    from .pretrained import PretrainedModel

BIASES = ("prior", "copied", "zero")
FITTED_ON = 20_000  # images that a single number needs at most


def transfer_head(
    model: PretrainedModel,
    borrowed: Sequence[Borrowed],
    *,
    scale: str | float = "as trained",
    bias: str = "prior",
    seed: int = 0,
) -> Head:
    """Transfer Init: each label's row is the weighted mean of the rows it borrows; float32 weight [C, D] and bias [C].

    bias: "prior" (the rows' biases less their synsets' `prior_logits`: an untrained head then scores as `zero_shot_scores`
    does), "copied" (the rows' biases) or "zero". scale: how rows trained under a sigmoid each act under
    one softmax. "as trained" leaves them; "unit" multiplies each label's weight and bias so that the weights of all that
    borrow have these labels' mean norm; a number, `fit_scale`'s for instance, is a temperature that multiplies both.
    Labels that borrow nothing get a row of `random_head(C, D, seed)` and the mean bias of the others.

    Raises ValueError for another bias or scale.
    """
    if bias not in BIASES:
        raise ValueError(f"bias={bias!r} is unknown: choose one of {', '.join(BIASES)}")
    if isinstance(scale, str) and scale not in ("as trained", "unit"):
        raise ValueError(f"scale={scale!r} is unknown: choose 'as trained', 'unit' or a number")
    if not isinstance(scale, str) and not 0 < scale < float("inf"):
        raise ValueError(f"scale={scale} must be a positive number")
    trained = model.network.head
    head = random_head(len(borrowed), trained.in_features, seed)
    matched = torch.tensor([found.kind != "none" for found in borrowed], dtype=torch.bool)
    if not matched.any():
        return head
    weight, biases = trained.weight.detach().float().cpu(), trained.bias.detach().float().cpu()
    if bias == "prior":
        biases = biases - torch.from_numpy(model.prior)
    elif bias == "zero":
        biases = torch.zeros_like(biases)
    rows, biases = _means(weight, borrowed)[matched], _means(biases[:, None], borrowed)[matched, 0]
    factor = _factor(rows, scale)
    head.weight[matched], head.bias[matched] = rows * factor[:, None], biases * factor
    head.bias[~matched] = head.bias[matched].mean()
    return head


def _means(values: torch.Tensor, borrowed: Sequence[Borrowed]) -> torch.Tensor:
    """Weighted means of rows: [V, D] -> [C, D], zero where nothing is borrowed."""
    label = torch.repeat_interleave(torch.tensor([len(found.rows) for found in borrowed]))
    rows = torch.from_numpy(np.concatenate([found.rows for found in borrowed]).astype(np.int64))
    weights = torch.from_numpy(np.concatenate([found.weights for found in borrowed]))
    means = torch.zeros(len(borrowed), values.shape[1])
    for part in torch.arange(len(rows)).split(1 << 16):  # "animal" has thousands of hyponyms
        means.index_add_(0, label[part], values[rows[part]] * weights[part, None])
    return means


def _factor(rows: torch.Tensor, scale: str | float) -> torch.Tensor:
    """What each row is multiplied by, float32 [C]."""
    if scale == "unit":
        norms = rows.norm(dim=1).clamp(min=1e-12)
        return norms.mean() / norms
    return torch.full((len(rows),), 1.0 if scale == "as trained" else float(scale))


def fit_scale(head: Head, features: np.ndarray, targets: np.ndarray) -> float:
    """The temperature that makes `head` least surprised by labelled images: what its logits are to be multiplied by.

    features: float32 [N, D]; targets: int64 [N], class indices. It minimises the softmax cross-entropy, which is convex in
    the temperature; of more than 20,000 images so many are drawn, with a fixed seed. Between 0.001 and 1,000.
    Raises ValueError without images.
    """
    if not len(targets):
        raise ValueError("fit_scale needs labelled images: none given")
    chosen = np.random.default_rng(0).permutation(len(targets))[:FITTED_ON]
    return 1 / fit_temperature(head.scores(features[chosen]), targets[chosen])


def zero_shot_scores(logits: np.ndarray, borrowed: Sequence[Borrowed], prior: np.ndarray | None = None) -> np.ndarray:
    """Label scores straight from the synset head: logits float32 [B, V] -> float32 [B, C].

    A label's score is the weighted mean over the rows it borrows of logit less the synset's prior (float32 [V], see
    `prior_logits`; None: nothing): how much the image speaks for the synset, whatever its frequency. A label that borrows
    nothing scores -inf. For many images `transfer_head(model, borrowed).scores(features)` gives the same without [B, V] logits.
    """
    prior = np.zeros(logits.shape[1], np.float32) if prior is None else prior
    scores = np.full((len(logits), len(borrowed)), -np.inf, dtype=np.float32)
    for label, found in enumerate(borrowed):
        if len(found.rows):
            scores[:, label] = (logits[:, found.rows] - prior[found.rows]) @ found.weights
    return scores
