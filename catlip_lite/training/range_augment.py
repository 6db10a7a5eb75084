"""RangeAugment (arXiv 2212.10553), between decoded batches and the network: brightness, contrast and noise of learned range.

How far each change may go is a parameter: a penalty steers the difference between images and their augmented versions along
a curriculum from 40 dB (hardly visible) to 20 dB (strong), and the classification loss, too, reaches the ranges. The
published CatLIP models were pre-trained and fine-tuned with it.
"""

from __future__ import annotations

import math

import torch
from torch import nn
from torch.nn import functional as F

PEAK = 255.0**2  # the targets are on the scale of 8-bit images, images on 0..1
WEIGHT = 100 / PEAK  # of the penalty, beside a classification loss
TARGET_PSNR = 40.0, 20.0  # dB, first and last

# Real values that each end of a range can take: a sigmoid maps the raw parameter in between.
BOUNDS = {
    "brightness": ((0.1, 0.9), (1.1, 10.0)),
    "contrast": ((0.1, 0.9), (1.1, 10.0)),
    "noise": ((0.0, 5e-5), (1e-4, 1.0)),
}
# Raw values at the start. The reference's are written as if they were real ranges, but pass through the sigmoid like any
# other: brightness and contrast start at 0.60 to 8.38, noise at 0.00003 to 0.53, on photos 9 dB, far beyond the last target.
START = {"brightness": (0.5, 1.5), "contrast": (0.5, 1.5), "noise": (0.0, 0.1)}


def target_mse(step: int, max_steps: int) -> float:
    """The mean squared difference to aim at, on the 0..255 scale: 6.5 at step 0, 650 from max_steps on, a cosine between.

    PSNR = 10 log10(255^2 / MSE). In the reference's form: the cosine runs in MSE, not in dB.
    """
    first, last = (PEAK / 10 ** (psnr / 10) for psnr in TARGET_PSNR)
    done = min(max(step / max_steps, 0.0), 1.0)
    return last + (first - last) * 0.5 * (1 + math.cos(math.pi * done))


class RangeAugment(nn.Module):
    """Random brightness, contrast and noise in a random order, each on a random half of the batch, of learned magnitude.

    Parameters: `brightness`, `contrast`, `noise`, each float32 [2], the raw low and high end of the range (1-D, as FSDP
    cannot shard a scalar). In eval mode images pass unchanged.
    """

    def __init__(self):
        super().__init__()
        for name, raw in START.items():
            setattr(self, name, nn.Parameter(torch.tensor(raw)))

    def ranges(self) -> dict[str, tuple[float, float]]:
        """The real low and high end of each range, for logs; every rank must call it where parameters are sharded."""
        ends = {}
        for name in BOUNDS:
            raw = getattr(self, name).detach()
            raw = raw.full_tensor() if hasattr(raw, "full_tensor") else raw
            ends[name] = tuple(_real_ends(raw, name).tolist())
        return ends

    def forward(self, images: torch.Tensor, target_mse: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Augmented images, float32 [B, 3, H, W] in 0..1, and the penalty, a float32 scalar to add to the loss.

        images: float [B, 3, H, W] in 0..1. target_mse: a scalar tensor (a tensor, so that a new value is no new graph).
        Draws from the default generator of the images' device. Computed in float32, also of half-precision images and under
        autocast (which lowers none of its operations).
        """
        if not self.training:
            return images, images.new_zeros((), dtype=torch.float32)
        images = images.float()
        views = self._augment(images)
        mse = (views - images).square().mean(dim=(1, 2, 3)) * PEAK
        penalty = F.smooth_l1_loss(mse, target_mse.float().expand_as(mse)) * WEIGHT
        return views, penalty

    def _augment(self, images: torch.Tensor) -> torch.Tensor:
        """The three changes as one: float32 [B, 3, H, W].

        Each is affine in the image x, its channel means and a noise image e: scale * x + to_mean * mean(x) + sigma * e. So
        is any sequence of them, a * x + c + s * e, and only the few numbers a, c and s depend on the order. Images are read
        once for their means and once for the result, and every order is the same compiled graph.
        """
        noise = torch.randn_like(images)
        means, noise_means = images.mean(dim=(2, 3)), noise.mean(dim=(2, 3))
        changes = self._draw_changes(len(images), images.device)
        a, c, s = torch.ones_like(means[:, :1]), torch.zeros_like(means), torch.zeros_like(means[:, :1])
        for scale, to_mean, sigma in changes[torch.rand(3, device=images.device).argsort()].unsqueeze(-1):
            now = a * means + c + s * noise_means
            a, c, s = scale * a, scale * c + to_mean * now, scale * s + sigma
        return (a[..., None, None] * images + c[..., None, None] + s[..., None, None] * noise).clamp(0, 1)

    def _draw_changes(self, count: int, device: torch.device) -> torch.Tensor:
        """What each change does to each image, magnitudes drawn: float32 [3 changes, (scale, to_mean, sigma), count]."""
        ends = torch.stack([_real_ends(getattr(self, name), name) for name in BOUNDS])
        low, high = ends[:, :1], ends[:, 1:]
        brightness, contrast, noise = low + (high - low) * torch.rand(3, count, device=device)
        one, zero = torch.ones_like(noise), torch.zeros_like(noise)
        changes = torch.stack([brightness, zero, zero, contrast, 1 - contrast, zero, one, zero, noise]).unflatten(0, (3, 3))
        # Ranks below half the count: exactly half of the batch. The fraction decides the odd image of an odd count.
        rank = torch.rand(3, 1, count, device=device).argsort(dim=-1) + torch.rand((), device=device)
        return torch.where(rank < count / 2, changes, torch.stack([one, zero, zero]))


def _real_ends(raw: torch.Tensor, name: str) -> torch.Tensor:
    """Raw low and high, [2], as real values inside their bounds: float32 [2]."""
    (low_least, low_most), (high_least, high_most) = BOUNDS[name]
    low, high = torch.sigmoid(raw.float())
    return torch.stack([low_least + low * (low_most - low_least), high_least + high * (high_most - high_least)])
