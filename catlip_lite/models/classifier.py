"""A fine-tuned classifier in one folder: weights, classes and evaluation; loaded as something that scores and names images.

Its network is a `PretrainedModel`'s backbone with a `Head`: see `classifier_network`.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file
from timm.layers import resample_abs_pos_embed
from torch import nn

from ..data.labelled import LabelledImages, batches_of_views
from .heads import Head
from .image_model import ImageLike, ImageModel
from .pretrained import PretrainedModel, network_of
from .vit import build_vit, shape_of

OF_BACKBONE = ("model", "stem", "pooling")  # what a classifier's configuration keeps of its backbone's


def classifier_network(
    model: PretrainedModel, head: Head, image_size: int | None = None, *, drop_path: float = 0.0
) -> nn.Module:
    """A model's backbone with another head, as a network of its own on the CPU; positions are resampled for image_size, in 2-D.

    image_size: pixels, None: the model's. drop_path: stochastic depth's rate at the last block. Raises ValueError for a head of
    another width, or a size that the patch does not divide.
    """
    width = model.network.head.in_features
    if head.weight.shape[1] != width:
        raise ValueError(f"the head takes {head.weight.shape[1]} features, the backbone gives {width}: make it for this model")
    network = build_vit(shape_of(model.network), len(head.weight), image_size or model.image_size, drop_path=drop_path)
    state = {name: value.detach().cpu() for name, value in model.network.state_dict().items() if not name.startswith("head.")}
    grid = list(network.patch_embed.grid_size)
    state["pos_embed"] = resample_abs_pos_embed(state["pos_embed"], grid, num_prefix_tokens=0)
    state |= {"head.weight": head.weight.cpu(), "head.bias": head.bias.cpu()}
    network.load_state_dict(state)
    return network


def classifier_config(backbone: Mapping, classes: Sequence[str], image_size: int) -> dict:
    """What `Classifier` and `load_classifier` need to know of a network."""
    kept = {name: backbone.get(name) for name in OF_BACKBONE}
    return {**kept, "image_size": image_size, "num_classes": len(classes), "classes": list(classes)}


def load_classifier(folder: str | os.PathLike, device: str | torch.device | None = None, precision: str = "fp32") -> Classifier:
    """The classifier that notebook 07 wrote.

    precision: "fp32", "bf16" or "auto" (bf16 where the device has it). Raises FileNotFoundError or ValueError with advice.
    """
    folder = Path(folder)
    if not (folder / "model.safetensors").is_file():
        raise FileNotFoundError(f"{folder} holds no finished classifier (no model.safetensors): run notebook 07_finetune first")
    config = json.loads((folder / "config.json").read_text())
    if "classes" not in config:
        raise ValueError(f"{folder} holds no classifier, its config.json names no classes: catlip_lite.load may read it")
    network = network_of(config, num_classes=len(config["classes"]))
    network.load_state_dict(load_file(folder / "model.safetensors"))
    return Classifier(network, config, device, precision)


class Classifier(ImageModel):
    """A fine-tuned ViT with its classes."""

    @property
    def classes(self) -> list[str]:
        """Names of the C classes."""
        return self.config["classes"]

    def scores(
        self, images: ImageLike | Sequence[ImageLike] | LabelledImages, batch_size: int = 256, workers: int = 0
    ) -> np.ndarray:
        """Logits of each class, float32 [B, C]; [C] for one image. A uint8 batch [B, 3, S, S] is taken as views, uncropped.

        `LabelledImages` are read as they are scored, by `workers` processes; rows of those that cannot be read are NaN.
        """
        if isinstance(images, LabelledImages):
            found = np.full((len(images), len(self.classes)), np.nan, np.float32)
            for rows, views in batches_of_views(images, self.evaluation, batch_size=batch_size, workers=workers):
                found[rows] = self.scores(views)
            return found
        features = self.embed(images, batch_size)
        scores = self.head_logits(np.atleast_2d(features))
        return scores[0] if features.ndim == 1 else scores

    def classify(self, images: ImageLike | Sequence[ImageLike], top_k: int = 5) -> list:
        """The likeliest classes: a list of (name, probability), best first; for a list of images, a list of those."""
        scores = torch.from_numpy(self.scores(images))
        found = [
            [(self.classes[i], row[i].item()) for i in row.argsort(descending=True, stable=True)[:top_k].tolist()]
            for row in torch.atleast_2d(scores).softmax(dim=1)
        ]
        return found[0] if scores.ndim == 1 else found
