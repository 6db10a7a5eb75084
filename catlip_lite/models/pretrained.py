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
from .heads import prior_logits
from .precision import choose_device, choose_precision, prefer_plain_attention
from .transfer import zero_shot_scores
from .vit import create_vit

FEATURES_AT_ONCE = 4096

ImageLike = str | os.PathLike | bytes | Image.Image | np.ndarray | torch.Tensor


def save_pretrained(
    folder: Path,
    state: dict[str, torch.Tensor],
    vocabulary: Vocabulary,
    *,
    model: str,
    image_size: int,
    stem: str | None = None,
    pooling: str | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    short_side: int | None = None,
    **facts,
) -> Path:
    """Write the folder that `load` reads; the weights last, so that a folder with weights is complete.

    model, image_size, stem, pooling: what `create_vit` was given. mean, std: of each colour, in 0..1, if the network was
    trained with (pixels / 255 - mean) / std; None, as here and in the reference, for plain pixels / 255. short_side: pixels of
    an evaluation image's short side before the crop; None: see `Evaluation`. facts: provenance.
    Raises ValueError for a mean without std, or others than three numbers.
    """
    network = {"model": model, "image_size": image_size, "stem": stem, "pooling": pooling}
    mean, std = (None if values is None else [float(value) for value in values] for values in (mean, std))
    _colour_statistics({"mean": mean, "std": std})
    pixels = {"mean": mean, "std": std, "short_side": short_side}
    folder.mkdir(parents=True, exist_ok=True)
    config = {**network, **pixels, "num_classes": len(vocabulary), **provenance(**facts)}
    vocabulary.save(folder / "vocabulary.parquet")
    with atomic_path(folder / "config.json") as staging:
        staging.write_text(json.dumps(config, indent=2))
    with atomic_path(folder / "model.safetensors") as staging:
        save_file({name: value.contiguous() for name, value in state.items()}, staging)
    return folder


def load(folder: str | os.PathLike, device: str | torch.device | None = None, precision: str = "fp32") -> PretrainedModel:
    """The model that notebook 04, or `save_pretrained`, wrote.

    precision: "fp32", "bf16" or "auto" (bf16 where the device has it). Raises FileNotFoundError or ValueError with advice.
    """
    folder = Path(folder)
    weights = folder / "model.safetensors"
    if not weights.is_file():
        raise FileNotFoundError(f"{folder} holds no finished model (no model.safetensors): run notebook 04_pretrain first")
    config = json.loads((folder / "config.json").read_text())
    vocabulary = Vocabulary.load(folder / "vocabulary.parquet")
    with safe_open(weights, "pt") as file:
        head = file.get_slice("head.weight").get_shape()[0]
    if head != len(vocabulary):
        raise ValueError(
            f"{folder / 'vocabulary.parquet'} has {len(vocabulary):,} classes but the checkpoint's head has {head:,}: "
            "pass the vocabulary the model was trained with"
        )
    network = network_of(config, num_classes=head)
    network.load_state_dict(load_file(weights))
    return PretrainedModel(network, vocabulary, config, device, precision)


def network_of(config: dict, num_classes: int) -> nn.Module:
    """The network that a folder's config.json describes, randomly initialised."""
    options = {name: config.get(name) for name in ("stem", "pooling")}
    return create_vit(config["model"], num_classes, config["image_size"], **options)


class PretrainedModel:
    """A trained ViT with its vocabulary and its evaluation transform.

    Images may be paths, encoded bytes, PIL images, arrays [H, W, 3] or tensors [3, H, W]; one, a list, or a batch [B, ...].
    Arrays and tensors are uint8, or floats in 0..1, which are rounded to 8 bits. ValueError tells what else was given.
    """

    def __init__(
        self,
        network: nn.Module,
        vocabulary: Vocabulary,
        config: dict,
        device: str | torch.device | None = None,
        precision: str = "fp32",
    ):
        self.device = choose_device(device)
        self.dtype = choose_precision(self.device, precision)
        if self.device.type == "cpu" and self.dtype == torch.bfloat16:
            prefer_plain_attention(network)
        self.network = network.to(self.device).eval()
        self.vocabulary, self.config = vocabulary, config
        self._colours = _colour_statistics(config)

    @property
    def image_size(self) -> int:
        """Side of the square that the network sees."""
        return self.config["image_size"]

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
        """What the network takes: uint8 views [B, 3, H, W] -> float32 on the model's device, in 0..1, less config.json's mean
        and over its std if it has them."""
        pixels = views.to(self.device).float() / 255
        if self._colours is None:
            return pixels
        mean, std = (values.to(self.device) for values in self._colours)
        return (pixels - mean) / std

    @torch.inference_mode()
    def embed(self, images: ImageLike | Sequence[ImageLike], batch_size: int = 256) -> np.ndarray:
        """Embeddings after the last norm, pooled: float32 [B, D]; [D] for a single image."""
        features = []
        for part in self.views(images).split(batch_size):
            with torch.autocast(self.device.type, self.dtype, enabled=self.dtype != torch.float32):
                tokens = self.network.forward_features(self.network_input(part))
                feature = self.network.forward_head(tokens, pre_logits=True)
            features.append(feature.float().cpu())
        found = torch.cat(features).numpy()
        return found[0] if _is_single(images) else found

    @torch.inference_mode()
    def head_logits(self, features: np.ndarray, rows: np.ndarray | None = None) -> np.ndarray:
        """Logits of embeddings float32 [N, D], in float32: [N, V], or [N, len(rows)] for some rows of the vocabulary.

        Computed some images at a time: beyond the result itself it takes no more memory for a million images than for 4,096.
        """
        chosen = slice(None) if rows is None else torch.as_tensor(np.asarray(rows, dtype=np.int64), device=self.device)
        weight, bias = (values.float()[chosen] for values in (self.network.head.weight, self.network.head.bias))
        logits = np.empty((len(features), len(bias)), dtype=np.float32)
        for start in range(0, len(features), FEATURES_AT_ONCE):
            part = torch.from_numpy(features[start : start + FEATURES_AT_ONCE]).to(self.device)
            logits[start : start + FEATURES_AT_ONCE] = F.linear(part, weight, bias).cpu().numpy()
        return logits

    def outputs(self, images: ImageLike | Sequence[ImageLike], batch_size: int = 256) -> tuple[np.ndarray, np.ndarray]:
        """Embeddings float32 [B, D] (after the last norm, pooled) and logits float32 [B, V]."""
        features = self.embed(images, batch_size)
        features = features[None] if features.ndim == 1 else features
        return features, self.head_logits(features)

    def tag(self, images: ImageLike | Sequence[ImageLike], top_k: int = 5) -> list:
        """The most probable synsets: a list of (name, WNID, probability), best first; for a list of images, a list of those.

        The probability is that a caption names it; of a head trained by a softmax, the share of the caption's labels.
        """
        logits = torch.from_numpy(self.outputs(images)[1])
        likely = logits.softmax(1) if self.loss in ("softmax", "superclass") else logits.sigmoid()
        names, wnids = self.vocabulary.names, self.vocabulary.wnids
        best = likely.topk(min(top_k, len(wnids)))
        found = [
            [(names[i], wnids[i], value) for i, value in zip(indices, values, strict=True)]
            for indices, values in zip(best.indices.tolist(), best.values.tolist(), strict=True)
        ]
        return found[0] if _is_single(images) else found

    def zero_shot(
        self,
        images: ImageLike | Sequence[ImageLike],
        names: Sequence[str] | LabelSet,
        *,
        borrow: str = "own",
        min_similarity: float = 0.5,
        prior_corrected: bool = True,
    ) -> np.ndarray:
        """Scores of each name, float32 [B, len(names)] ([len(names)] for one image): see `zero_shot_scores`.

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
        _, logits = self.outputs(images)
        scores = zero_shot_scores(logits, borrowed, self.prior if prior_corrected else None)
        return scores[0] if _is_single(images) else scores

    def views(self, images: ImageLike | Sequence[ImageLike]) -> torch.Tensor:
        """The evaluation views the network sees: uint8 [B, 3, S, S]; a tensor of that shape is taken as it is, uncropped."""
        if isinstance(images, torch.Tensor) and images.ndim == 4 and images.shape[-2:] == (self.image_size,) * 2:
            views = eight_bits(images)
        elif _is_single(images):
            views = self.evaluation.view(_to_pil(images))[None]
        else:
            views = [self.evaluation.view(_to_pil(image)) for image in images]
        if not len(views):
            raise ValueError("no images given")
        return views if isinstance(views, torch.Tensor) else torch.stack(views)


def _colour_statistics(config: Mapping) -> tuple[torch.Tensor, torch.Tensor] | None:
    """Mean and std of a configuration, each float32 [3, 1, 1]; None if it has none. Raises ValueError for half of them."""
    mean, std = config.get("mean"), config.get("std")
    if mean is None and std is None:
        return None
    if any(values is None or len(values) != 3 for values in (mean, std)) or min(std) <= 0:
        raise ValueError(f"mean={mean} and std={std} must be three numbers each, a colour each, std above 0; or both None")
    return tuple(torch.tensor(values, dtype=torch.float32)[:, None, None] for values in (mean, std))


def _is_single(images) -> bool:
    if isinstance(images, (np.ndarray, torch.Tensor)):
        if images.ndim not in (3, 4):
            raise ValueError(_refusal(images, "one image has three axes, a batch has four"))
        return images.ndim == 3
    return isinstance(images, (str, os.PathLike, bytes, Image.Image))


def _to_pil(image: ImageLike) -> Image.Image:
    if isinstance(image, Image.Image):
        return to_rgb(image)
    if isinstance(image, bytes):
        return decode(image)
    if isinstance(image, (str, os.PathLike)):
        path = Path(image)
        if not path.is_file():
            raise FileNotFoundError(f"no image at {path}")
        return decode(path.read_bytes())
    if not isinstance(image, (np.ndarray, torch.Tensor)):
        raise ValueError(f"{type(image).__name__} is no type of image: give a path, bytes, a PIL image, an array or a tensor")
    if image.ndim != 3:
        raise ValueError(_refusal(image, "each image of a list has three axes"))
    pixels = eight_bits(image)
    return Image.fromarray(pixels.permute(1, 2, 0).cpu().numpy() if isinstance(pixels, torch.Tensor) else pixels)


def eight_bits(images: np.ndarray | torch.Tensor) -> np.ndarray | torch.Tensor:
    """Pixels as uint8: arrays [..., 3] or tensors [..., 3, H, W], of uint8 or of floats in 0..1; ValueError for any other."""
    is_tensor = isinstance(images, torch.Tensor)
    if images.shape[-3 if is_tensor else -1] != 3:
        where = "a tensor's third axis from the end" if is_tensor else "an array's last axis"
        raise ValueError(_refusal(images, f"the three colours are {where}; convert grey or transparent images by PIL"))
    if images.dtype in (np.uint8, torch.uint8):
        return images
    if not (images.is_floating_point() if is_tensor else np.issubdtype(images.dtype, np.floating)):
        raise ValueError(_refusal(images, "pixels are uint8, or floats in 0..1"))
    if not bool(((images >= 0) & (images <= 1)).all()):  # so that NaN is refused, too
        low, high = float(images.min()), float(images.max())
        raise ValueError(
            _refusal(images, f"its values go from {low:.4g} to {high:.4g}, floats are 0..1, no mean or std taken off")
        )
    if is_tensor:
        return images.detach().float().mul(255).round().to(torch.uint8)
    return (images.astype(np.float32) * 255).round().astype(np.uint8)


def _refusal(images: np.ndarray | torch.Tensor, why: str) -> str:
    kind = "tensor" if isinstance(images, torch.Tensor) else "array"
    found = f"{str(images.dtype).removeprefix('torch.')} {list(images.shape)}"
    return f"an image is an array [H, W, 3] or a tensor [3, H, W], this {kind} is {found}: {why}"
