"""A pre-trained model in one folder: weights, configuration, vocabulary; loaded as something that tags, embeds and classifies.

`save_pretrained` writes `model.safetensors`, `config.json`, `vocabulary.parquet`; `load` reads them.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import nn
from torch.nn import functional as F

from ..artefacts import atomic_path, provenance
from ..data.images import Evaluation, decode, to_rgb
from ..labels import LabelSet, Vocabulary
from ..labels.borrowing import borrow as borrow_rows
from .heads import prior_logits, zero_shot_head
from .precision import choose_device, choose_precision, prefer_plain_attention
from .vit import create_vit

FEATURES_AT_ONCE = 4096

ImageLike = str | os.PathLike | bytes | Image.Image | np.ndarray | torch.Tensor
Images = ImageLike | Sequence[ImageLike]


def save_pretrained(
    folder: Path, state: dict[str, torch.Tensor], vocabulary: Vocabulary, *,
    model: str, image_size: int, stem: str | None = None, pooling: str | None = None,
    mean: Sequence[float] | None = None, std: Sequence[float] | None = None, short_side: int | None = None, **facts,
) -> Path:  # fmt: skip
    """Write the folder that `load` reads; the weights last, so that a folder with weights is complete.

    model, image_size, stem, pooling: what `create_vit` was given. mean, std: of each colour, in 0..1, if the network was
    trained with (pixels / 255 - mean) / std; None: with plain pixels / 255. short_side: see `Evaluation`. facts: provenance.
    Raises ValueError for a mean without std, or others than three numbers.
    """
    mean, std = (None if values is None else [float(value) for value in values] for values in (mean, std))
    pixels = {"mean": mean, "std": std, "short_side": short_side}
    _colour_statistics(pixels)
    folder.mkdir(parents=True, exist_ok=True)
    config = {"model": model, "image_size": image_size, "stem": stem, "pooling": pooling, **pixels}
    config |= {"num_classes": len(vocabulary), **provenance(**facts)}
    vocabulary.save(folder / "vocabulary.parquet")
    with atomic_path(folder / "config.json") as staging:
        staging.write_text(json.dumps(config, indent=2))
    with atomic_path(folder / "model.safetensors") as staging:
        save_file({name: value.contiguous() for name, value in state.items()}, staging)
    return folder


def load(folder: str | os.PathLike, device: str | torch.device | None = None, precision: str = "fp32") -> PretrainedModel:
    """The model that notebook 04, or `save_pretrained`, wrote. precision: see `choose_precision`. Raises with advice."""
    folder, weights = Path(folder), Path(folder) / "model.safetensors"
    if not weights.is_file():
        raise FileNotFoundError(f"{folder} holds no finished model (no model.safetensors): run notebook 04_pretrain first")
    config = json.loads((folder / "config.json").read_text())
    vocabulary = Vocabulary.load(folder / "vocabulary.parquet")
    with safe_open(weights, "pt") as file:
        head = file.get_slice("head.weight").get_shape()[0]
    if head != len(vocabulary):
        told = f"{folder / 'vocabulary.parquet'} has {len(vocabulary):,} classes but the checkpoint's head has {head:,}"
        raise ValueError(f"{told}: pass the vocabulary the model was trained with")
    network = network_of(config, num_classes=head)
    network.load_state_dict(load_file(weights))
    return PretrainedModel(network, vocabulary, config, device, precision)


def network_of(config: dict, num_classes: int) -> nn.Module:
    """The network that a folder's config.json describes, randomly initialised."""
    name, size = config["model"], config["image_size"]
    return create_vit(name, num_classes, size, stem=config.get("stem"), pooling=config.get("pooling"))


class PretrainedModel:
    """A trained ViT with its vocabulary and its evaluation transform.

    Images may be paths, encoded bytes, PIL images, arrays [H, W, 3] or tensors [3, H, W]; one, a list, or a batch [B, ...].
    Arrays and tensors are uint8, or floats in 0..1, which are rounded to 8 bits. ValueError tells what else was given.
    """

    def __init__(self, network: nn.Module, vocabulary: Vocabulary, config: dict, device=None, precision: str = "fp32"):
        self.device = choose_device(device)
        self.dtype = choose_precision(self.device, precision)
        if self.device.type == "cpu" and self.dtype == torch.bfloat16:
            prefer_plain_attention(network)
        self.network = network.to(self.device).eval()
        self.vocabulary, self.config = vocabulary, config
        self._colours = _colour_statistics(config, self.device)

    @property
    def image_size(self) -> int:
        """Side of the square that the network sees."""
        return self.config["image_size"]

    @property
    def precision(self) -> str:
        """What it computes in, as it is asked for: bf16 or fp32."""
        return "bf16" if self.dtype == torch.bfloat16 else "fp32"

    @property
    def loss(self) -> str:
        """What the head was trained by; published weights, which don't say, by the paper's."""
        return self.config.get("recipe", {}).get("loss", "bce")

    @cached_property
    def prior(self) -> np.ndarray:
        """What the head answers whatever the image: float32 [V], see `prior_logits`."""
        return prior_logits(self.vocabulary, self.loss)

    @property
    def evaluation(self) -> Evaluation:
        """Which part of an image the network sees: config.json's image_size and short_side."""
        return Evaluation(self.image_size, self.config.get("short_side"))

    def network_input(self, views: torch.Tensor) -> torch.Tensor:
        """Of uint8 views [B, 3, H, W] what the network takes: float32 in 0..1, less the mean, over the std if it has them."""
        pixels = views.to(self.device).float() / 255
        return pixels if self._colours is None else (pixels - self._colours[0]) / self._colours[1]

    @torch.inference_mode()
    def embed(self, images: Images, batch_size: int = 256) -> np.ndarray:
        """Embeddings after the last norm, pooled: float32 [B, D]; [D] for a single image."""
        features = []
        for part in self.views(images).split(batch_size):
            with torch.autocast(self.device.type, self.dtype, enabled=self.dtype != torch.float32):
                tokens = self.network.forward_features(self.network_input(part))
                features.append(self.network.forward_head(tokens, pre_logits=True).float().cpu())
        found = torch.cat(features).numpy()
        return found[0] if _is_single(images) else found

    @torch.inference_mode()
    def head_logits(self, features: np.ndarray, rows: np.ndarray | None = None) -> np.ndarray:
        """Logits of embeddings float32 [N, D], some images at a time: float32 [N, V], or [N, len(rows)] for some classes."""
        chosen = slice(None) if rows is None else torch.as_tensor(np.asarray(rows, dtype=np.int64), device=self.device)
        weight, bias = (values.float()[chosen] for values in (self.network.head.weight, self.network.head.bias))
        logits = np.empty((len(features), len(bias)), dtype=np.float32)
        for start in range(0, len(features), FEATURES_AT_ONCE):
            part = torch.from_numpy(features[start : start + FEATURES_AT_ONCE]).to(self.device)
            logits[start : start + FEATURES_AT_ONCE] = F.linear(part, weight, bias).cpu().numpy()
        return logits

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
        return found[0] if _is_single(images) else found

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
        label_set = names if isinstance(names, LabelSet) else LabelSet.from_names(list(names))
        borrowed = borrow_rows(label_set, self.vocabulary, borrow, min_similarity=min_similarity)
        lost = [name for name, found in zip(label_set.names, borrowed, strict=True) if found.kind == "none"]
        if lost:
            raise ValueError(f"no synset of {', '.join(lost[:8])} is in the vocabulary ({len(lost)} name(s)): use other names")
        head = zero_shot_head(self, borrowed, prior_corrected=prior_corrected)
        scores = head.scores(np.atleast_2d(self.embed(images)))
        return scores[0] if _is_single(images) else scores

    def views(self, images: Images) -> torch.Tensor:
        """The evaluation views the network sees: uint8 [B, 3, S, S]; a tensor of that shape is taken as it is, uncropped."""
        single = _is_single(images)
        if isinstance(images, (np.ndarray, torch.Tensor)):
            uncropped = isinstance(images, torch.Tensor) and not single and images.shape[-2:] == (self.image_size,) * 2
            images = eight_bits(images)
            if uncropped and len(images):
                return images
        views = [self.evaluation.view(_to_pil(image)) for image in ([images] if single else images)]
        if not views:
            raise ValueError("no images given")
        return torch.stack(views)


def _colour_statistics(config: Mapping, device: torch.device | None = None) -> tuple[torch.Tensor, torch.Tensor] | None:
    """Mean and std of a configuration, each float32 [3, 1, 1]; None if it has none. Raises ValueError for half of them."""
    mean, std = config.get("mean"), config.get("std")
    if mean is None and std is None:
        return None
    if any(values is None or len(values) != 3 for values in (mean, std)) or min(std) <= 0:
        raise ValueError(f"mean={mean} and std={std} must be three numbers each, a colour each, std above 0; or both None")
    return tuple(torch.tensor(values, dtype=torch.float32, device=device)[:, None, None] for values in (mean, std))


def _is_single(images) -> bool:
    pixels = isinstance(images, (np.ndarray, torch.Tensor))
    return images.ndim == 3 if pixels else isinstance(images, (str, os.PathLike, bytes, Image.Image))


def _to_pil(image: ImageLike) -> Image.Image:
    if isinstance(image, Image.Image):
        return to_rgb(image)
    if isinstance(image, bytes):
        return decode(image)
    if isinstance(image, (str, os.PathLike)):
        if not Path(image).is_file():
            raise FileNotFoundError(f"no image at {image}")
        return decode(Path(image).read_bytes())
    if not isinstance(image, (np.ndarray, torch.Tensor)):
        raise ValueError(f"{type(image).__name__} is no type of image: give a path, bytes, a PIL image, an array or a tensor")
    return Image.fromarray(eight_bits(image, axes=(3,)).permute(1, 2, 0).cpu().numpy())


def eight_bits(images: np.ndarray | torch.Tensor, axes: Sequence[int] = (3, 4)) -> torch.Tensor:
    """Pixels as uint8 [..., 3, H, W], of an array [..., 3] or a tensor [..., 3, H, W] of uint8 or floats in 0..1.

    Raises ValueError, which says what it is, for any other.
    """
    is_tensor, why = isinstance(images, torch.Tensor), ""
    floats = images.is_floating_point() if is_tensor else images.dtype.kind == "f"
    if images.ndim not in axes:
        why = "one image has three axes, a batch has four"
    elif images.shape[-3 if is_tensor else -1] != 3:
        why = "three colours are an array's last axis or a tensor's third from the end; convert grey or transparent ones by PIL"
    elif not floats and images.dtype not in (np.uint8, torch.uint8):
        why = "pixels are uint8, or floats in 0..1"
    elif floats and not bool(((images >= 0) & (images <= 1)).all()):  # so that NaN is refused, too
        why = f"its values go from {float(images.min()):.4g} to {float(images.max()):.4g}, floats are 0..1, no mean taken off"
    if why:
        told = f"{'tensor' if is_tensor else 'array'} is {str(images.dtype).removeprefix('torch.')} {list(images.shape)}"
        raise ValueError(f"an image is an array [H, W, 3] or a tensor [3, H, W], this {told}: {why}")
    pixels = images.detach() if is_tensor else torch.from_numpy(np.ascontiguousarray(np.moveaxis(images, -1, -3)))
    return pixels.float().mul(255).round().to(torch.uint8) if floats else pixels
