"""CLIP's and SigLIP's losses on a batch over all processes (arXiv 2103.00020, 2303.15343), SuperCLIP's beside a synset head.

Called as all losses are, `loss(outputs, indices, rows)` -> float32 [B]: outputs are the image tower's, the sparse targets
captions' tokens (see `models.clip.one_caption_each`). The text tower is part of the loss: it is trained with it, and goes with
it to the device, into the checkpoint and the average of the weights.
"""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.nn import functional as F

from ..models.clip import TOKENS, WARMEST, embed_tokens, one_caption_each, text_flops
from . import parallel
from .losses import Loss

UNLIKE = -1e4  # logit of what is not there: as good as minus infinity, but with a gradient
STARTS = {"clip": (math.log(1 / 0.07), None), "siglip": (math.log(10), -10.0)}  # logarithm of the scale, bias: the authors'


class Contrastive(nn.Module):
    """Which caption belongs to which image, among those of all processes.

    text: see `text_tower`. kind: "clip", a softmax over captions and one over images, the mean of both; "siglip", a sigmoid for
    each pair. Images without a caption are left out, as images and as captions. Raises ValueError for another kind.
    """

    def __init__(self, text: nn.Module, kind: str = "clip"):
        super().__init__()
        if kind not in STARTS:
            raise ValueError(f"kind={kind!r} is unknown: choose one of {', '.join(STARTS)}")
        self.text, self.kind = text, kind
        scale, bias = STARTS[kind]
        self.logit_scale = nn.Parameter(torch.tensor([scale]))  # with an axis, as FSDP takes it
        self.logit_bias = None if bias is None else nn.Parameter(torch.tensor([bias]))

    @property
    def training_flops(self) -> int:
        """Of a caption, forward and backward."""
        return 3 * text_flops(self.text)

    def forward(self, images: torch.Tensor, indices: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
        tokens, there = one_caption_each(indices, rows, len(images), self.text.context_length)
        texts = embed_tokens(self.text, tokens)
        with torch.autocast(images.device.type, enabled=False):  # a logit of 100 in bf16 is off by a quarter
            return self.compare(F.normalize(images.float(), dim=-1), texts, there)

    def compare(self, images: torch.Tensor, texts: torch.Tensor, there: torch.Tensor) -> torch.Tensor:
        """Losses of this process's images: float32 [B], 0 where there is no caption. images, texts: [B, joint], of length 1."""
        everyone = images, texts, there
        all_images, all_texts, all_there = gathered(*everyone) if parallel.world_size() > 1 else everyone
        own = torch.arange(len(images), device=images.device) + parallel.rank() * len(images)
        # Capped, but with a gradient beyond the cap, so that it can come down again.
        scale = (self.logit_scale + (self.logit_scale.clamp(max=WARMEST) - self.logit_scale).detach()).exp()
        to_texts = (scale * images @ all_texts.T).masked_fill(~all_there, UNLIKE)
        if self.kind == "siglip":
            pairs = to_texts + self.logit_bias
            losses = F.softplus(pairs).sum(1) - pairs.gather(1, own[:, None])[:, 0]
        else:
            to_images = (scale * texts @ all_images.T).masked_fill(~all_there, UNLIKE)
            losses = (F.cross_entropy(to_texts, own, reduction="none") + F.cross_entropy(to_images, own, reduction="none")) / 2
        return torch.where(there, losses, 0.0)


class ContrastiveWithSynsets(Contrastive):
    """CLIP's loss and, beside it, that of a synset head (SuperCLIP, arXiv 2512.14480, has subwords in place of synsets).

    synsets: a loss of `create_loss`; both count alike. outputs: see `JointHead`. indices: tokens, and synsets plus TOKENS.
    """

    def __init__(self, text: nn.Module, synsets: Loss):
        super().__init__(text)
        self.synsets, self.joint = synsets, text.output_dim

    def forward(self, outputs: torch.Tensor, indices: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
        images, logits = outputs[:, : self.joint], outputs[:, self.joint :]
        labels = indices >= TOKENS
        # A row more, for the tokens: no shape depends on how many labels there are.
        rows_of_labels = torch.where(labels, rows, len(outputs))
        named = self.synsets(F.pad(logits, (0, 0, 0, 1)), torch.where(labels, indices - TOKENS, 0), rows_of_labels)
        return super().forward(images, indices, rows) + named[:-1]


@torch.compiler.disable
def gathered(images: torch.Tensor, texts: torch.Tensor, there: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """The three of all processes, by rank, with gradients; each process has as many images. A compiled graph breaks here."""
    everyone, width = Gathered.apply(torch.cat([images, texts, there.float()[:, None]], dim=1)), images.shape[1]
    return everyone[:, :width], everyone[:, width : 2 * width], everyone[:, -1] > 0.5


class Gathered(torch.autograd.Function):
    """The rows of all processes, by rank; the gradient of a process's rows is the sum of what all make of them."""

    @staticmethod
    def forward(ctx: Any, mine: torch.Tensor) -> torch.Tensor:
        parts = [torch.empty_like(mine) for _ in range(parallel.world_size())]
        dist.all_gather(parts, mine)
        return torch.cat(parts)

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> torch.Tensor:
        return parallel.summed_over_processes(gradient.contiguous()).chunk(parallel.world_size())[parallel.rank()]
