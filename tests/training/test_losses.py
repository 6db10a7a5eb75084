"""The loss is the paper's: binary cross-entropy, summed over classes, averaged over images, on sparse targets."""

import math

import numpy as np
import torch

from catlip_lite.labels import Vocabulary
from catlip_lite.training.losses import bce


def test_equals_dense_bce_summed_over_classes_and_averaged_over_images():
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(4, 10, generator=generator) * 5
    rows, indices = torch.tensor([0, 0, 1, 3]), torch.tensor([2, 9, 0, 5])
    dense = torch.zeros(4, 10)
    dense[rows, indices] = 1
    expected = torch.nn.functional.binary_cross_entropy_with_logits(logits, dense, reduction="sum") / 4
    torch.testing.assert_close(bce(logits, indices, rows), expected)


def test_images_without_labels_still_count():
    nothing = torch.zeros(0, dtype=torch.long)
    np.testing.assert_allclose(bce(torch.zeros(2, 24320), nothing, nothing).item(), 24320 * math.log(2), rtol=1e-5)


def test_a_head_at_the_log_prior_odds_starts_at_the_entropy_of_the_labels():
    counts = np.array([60, 30, 10])
    vocabulary = Vocabulary(["n07739125", "n02084071", "n02121620"], counts, num_captions=100)
    odds = torch.from_numpy(vocabulary.log_prior_odds())
    rows = torch.cat([torch.arange(n) for n in counts])
    indices = torch.repeat_interleave(torch.arange(3), torch.from_numpy(counts))
    p = counts / 100
    entropy = -(p * np.log(p) + (1 - p) * np.log(1 - p)).sum()
    np.testing.assert_allclose(bce(odds.expand(100, 3), indices, rows).item(), entropy, rtol=1e-5)
