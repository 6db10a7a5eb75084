"""catlip-lite: classification-style image-text pre-training (CatLIP, arXiv 2404.15653) as a workbook over a thin library."""

from __future__ import annotations

import importlib.metadata

__version__ = importlib.metadata.version("catlip-lite")


def load(folder, device=None, precision="fp32"):
    """A pre-trained model from the folder that notebook 04 wrote: see `catlip_lite.models.load`."""
    from .models import load as load_pretrained  # here, so that `catlip_lite.labels` needs no torch

    return load_pretrained(folder, device, precision)


def load_classifier(folder, device=None, precision="fp32"):
    """A fine-tuned classifier from the folder that notebook 07 wrote: see `catlip_lite.models.classifier.load_classifier`."""
    from .models.classifier import load_classifier as load_finetuned

    return load_finetuned(folder, device, precision)


def load_segmenter(folder, device=None, precision="fp32"):
    """A segmenter from the folder that notebook 11 wrote: see `catlip_lite.models.segmenter.load_segmenter`."""
    from .models.segmenter import load_segmenter as load_finetuned

    return load_finetuned(folder, device, precision)


def load_detector(folder, device=None, precision="fp32"):
    """A detector from the folder that notebook 12 wrote: see `catlip_lite.models.detector.load_detector`."""
    from .models.detector import load_detector as load_finetuned

    return load_finetuned(folder, device, precision)
