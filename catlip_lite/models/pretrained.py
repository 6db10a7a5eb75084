"""A pre-trained model in one folder: weights, configuration, vocabulary; loaded as something that tags, embeds and classifies.

`save_pretrained` writes `model.safetensors`, `config.json`, `vocabulary.parquet` (CLIP has none); `load` reads them.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import nn

from ..artefacts import atomic_path, provenance
from ..labels import LabelSet, Vocabulary
from ..labels.borrowing import borrow as borrow_rows
from ..labels.mapping import map_classes
from .clip import CONTEXT, WARMEST, ClipModel, add_projection, text_tower
from .heads import prior_logits, zero_shot_head
from .image_model import ImageModel, Images, is_single
from .vit import create_vit


def save_pretrained(
    folder: Path, state: dict[str, torch.Tensor], vocabulary: Vocabulary | None, *,
    model: str, image_size: int, stem: str | None = None, pooling: str | None = None,
    objective: str = "catlip", context_length: int = CONTEXT, **facts: object,
) -> Path:  # fmt: skip
    """Write the folder that `load` reads; the weights last, so that a folder with weights is complete.

    vocabulary: None for `clip` and `siglip`. model, image_size, stem, pooling: what `create_vit` was given. objective,
    context_length: see `Recipe`. facts: provenance.
    """
    folder.mkdir(parents=True, exist_ok=True)
    config: dict[str, Any] = {"model": model, "image_size": image_size, "stem": stem, "pooling": pooling}
    if objective != "catlip":
        config |= {"objective": objective, "context_length": context_length}
    config["num_classes"] = 0 if vocabulary is None else len(vocabulary)
    if vocabulary is not None:
        vocabulary.save(folder / "vocabulary.parquet")
    return write_folder(folder, state, config, **facts)


def write_folder(folder: Path, state: Mapping[str, torch.Tensor], config: Mapping, **facts: object) -> Path:
    """Write config.json, with provenance, and model.safetensors; this last, so that a folder with weights is complete."""
    folder.mkdir(parents=True, exist_ok=True)
    with atomic_path(folder / "config.json") as staging:
        staging.write_text(json.dumps({**config, **provenance(**facts)}, indent=2))
    with atomic_path(folder / "model.safetensors") as staging:
        save_file({name: value.contiguous() for name, value in state.items()}, staging)
    return folder


def load(
    folder: str | os.PathLike, device: str | torch.device | None = None, precision: str = "fp32"
) -> PretrainedModel | ClipModel:
    """The model that notebook 04, or `save_pretrained`, wrote. precision: see `choose_precision`. Raises with advice.

    One trained as `superclip` is a `PretrainedModel` whose `clip` is the rest of it.
    """
    folder, weights = Path(folder), Path(folder) / "model.safetensors"
    if not weights.is_file():
        raise FileNotFoundError(f"{folder} holds no finished model (no model.safetensors): run notebook 04_pretrain first")
    config = json.loads((folder / "config.json").read_text())
    objective = config.get("objective", "catlip")
    classes = 0
    if objective not in ("clip", "siglip"):
        vocabulary = Vocabulary.load(folder / "vocabulary.parquet")
        with safe_open(weights, "pt") as file:
            classes = file.get_slice("head.weight").get_shape()[0]
        if classes != len(vocabulary):
            told = f"{folder / 'vocabulary.parquet'} has {len(vocabulary):,} classes but the checkpoint's head has {classes:,}"
            raise ValueError(f"{told}: pass the vocabulary the model was trained with")
    network, state = network_of(config, num_classes=classes), load_file(weights)
    network.load_state_dict({name: state[name] for name in network.state_dict()})
    if objective == "catlip":
        return PretrainedModel(network, vocabulary, config, device, precision)
    text = text_tower(config["model"], config["context_length"])
    text.load_state_dict({name: state[f"text.{name}"] for name in text.state_dict()})
    scale = float(state["logit_scale"].clamp(max=WARMEST).exp())  # as the loss has it
    clip = ClipModel(network, text, scale, config, device, precision)
    return PretrainedModel(network, vocabulary, config, device, precision, clip) if classes else clip


def network_of(config: dict, num_classes: int) -> nn.Module:
    """The network that a folder's config.json describes, randomly initialised."""
    name, size = config["model"], config["image_size"]
    network = create_vit(name, num_classes, size, stem=config.get("stem"), pooling=config.get("pooling"))
    return network if config.get("objective", "catlip") == "catlip" else add_projection(network, name)


def untrained(model: ImageModel, views: Iterable[torch.Tensor], seed: int = 0) -> ImageModel:
    """A model of the same architecture as it is drawn, but for the batch norms of its stem, without which it would be a weak
    baseline: they get the statistics of these images. views: batches, uint8 [b, 3, S, S]."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = network_of(model.config, model.config["num_classes"])
    blank = ImageModel(network, model.config, "cpu")  # where the same images give the same statistics on any machine
    norms = [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
    for norm in norms:
        norm.train()
        norm.momentum = None  # the plain mean over batches
    with torch.no_grad():
        for part in views if norms else ():
            network(blank.network_input(part))
    return ImageModel(network, model.config, model.device, model.precision)


class PretrainedModel(ImageModel):
    """An `ImageModel` with the head that it was trained by, a row for each synset of its vocabulary.

    clip: the `ClipModel` beside it, of one that was trained as `superclip`.
    """

    def __init__(
        self, network: nn.Module, vocabulary: Vocabulary, config: dict, device: str | torch.device | None = None,
        precision: str = "fp32", clip: ClipModel | None = None,
    ):  # fmt: skip
        super().__init__(network, config, device, precision)
        self.vocabulary, self.clip = vocabulary, clip

    @property
    def loss(self) -> str:
        """What the head was trained by; published weights, which don't say, by the paper's."""
        return self.config.get("recipe", {}).get("loss", "bce")

    @cached_property
    def prior(self) -> np.ndarray:
        """What the head answers whatever the image: float32 [V], see `prior_logits`."""
        return prior_logits(self.vocabulary, self.loss)

    def outputs(self, images: Images, batch_size: int = 256) -> tuple[np.ndarray, np.ndarray]:
        """Embeddings float32 [B, D] (after the last norm, pooled) and logits float32 [B, V]."""
        features = np.atleast_2d(self.embed(images, batch_size))
        return features, self.head_logits(features)

    def tag(self, images: Images, top_k: int = 5) -> list:
        """The most probable synsets: a list of (name, WNID, probability), best first; for a list of images, a list of those.

        The probability is that a caption names it; of a head trained by a softmax, the share of the caption's labels.
        """
        logits = torch.from_numpy(self.outputs(images)[1])
        likely = logits.softmax(1) if self.loss in ("softmax", "superclass") else logits.sigmoid()
        names, wnids = self.vocabulary.names, self.vocabulary.wnids
        best = likely.topk(min(top_k, len(wnids)))
        rows = zip(best.indices.tolist(), best.values.tolist(), strict=True)
        found = [[(names[i], wnids[i], value) for i, value in zip(*row, strict=True)] for row in rows]
        return found[0] if is_single(images) else found

    def zero_shot(
        self, images: Images, names: Sequence[str] | LabelSet, *,
        borrow: str = "own", min_similarity: float = 0.5, prior_corrected: bool = True,
    ) -> np.ndarray:  # fmt: skip
        """Scores of each name, float32 [B, len(names)] ([len(names)] for one image): see `zero_shot_head`.

        borrow, min_similarity: which synsets score a name; a name whose own the vocabulary lacks takes those below or near
        it: see `labels.borrowing.borrow`. Raises ValueError for names that have none even so, or one name instead of a list.
        """
        if isinstance(names, str):
            raise ValueError(f"names={names!r} is one name: give a list of those to choose from, or tag the image")
        label_set = names if isinstance(names, LabelSet) else map_classes(list(names), vocabulary=self.vocabulary)
        borrowed = borrow_rows(label_set, self.vocabulary, borrow, min_similarity=min_similarity)
        lost = [name for name, found in zip(label_set.names, borrowed, strict=True) if found.kind == "none"]
        if lost:
            raise ValueError(f"no synset of {', '.join(lost[:8])} is in the vocabulary ({len(lost)} name(s)): use other names")
        head = zero_shot_head(self, borrowed, prior_corrected=prior_corrected)
        scores = head.scores(np.atleast_2d(self.embed(images)))
        return scores[0] if is_single(images) else scores
