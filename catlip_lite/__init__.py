"""catlip-lite: classification-style image-text pre-training (CatLIP, arXiv 2404.15653) as a workbook over a thin library."""

from __future__ import annotations

import importlib.metadata
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import os

    import torch

    from .models import PretrainedModel
    from .models.classifier import Classifier
    from .models.clip import ClipModel
    from .models.detector import DetectionModel
    from .models.segmenter import SegmentationModel


def __getattr__(name: str) -> str:
    if name == "__version__":  # when it is asked for: a bare clone, which has none yet, can be asked what it needs
        return importlib.metadata.version("catlip-lite")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def load(
    folder: str | os.PathLike, device: str | torch.device | None = None, precision: str = "fp32"
) -> PretrainedModel | ClipModel:
    """A pre-trained model from the folder that notebook 04 wrote: see `catlip_lite.models.load`."""
    from .models import load as load_pretrained  # here, so that `catlip_lite.labels` needs no torch

    return load_pretrained(folder, device, precision)


def load_classifier(folder: str | os.PathLike, device: str | torch.device | None = None, precision: str = "fp32") -> Classifier:
    """A fine-tuned classifier from the folder that notebook 07 wrote: see `catlip_lite.models.classifier.load_classifier`."""
    from .models.classifier import load_classifier as load_finetuned

    return load_finetuned(folder, device, precision)


def load_segmenter(
    folder: str | os.PathLike, device: str | torch.device | None = None, precision: str = "fp32"
) -> SegmentationModel:
    """A segmenter from the folder that notebook 11 wrote: see `catlip_lite.models.segmenter.load_segmenter`."""
    from .models.segmenter import load_segmenter as load_finetuned

    return load_finetuned(folder, device, precision)


def load_detector(
    folder: str | os.PathLike, device: str | torch.device | None = None, precision: str = "fp32"
) -> DetectionModel:
    """A detector from the folder that notebook 12 wrote: see `catlip_lite.models.detector.load_detector`."""
    from .models.detector import load_detector as load_finetuned

    return load_finetuned(folder, device, precision)
