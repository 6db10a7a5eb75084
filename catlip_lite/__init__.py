"""catlip-lite: classification-style image-text pre-training (CatLIP, arXiv 2404.15653) as a workbook over a thin library."""

from __future__ import annotations

import importlib.metadata
import os

__version__ = importlib.metadata.version("catlip-lite")

# Threads that wait for one another spin for milliseconds: beside another program at work, training then falls to a quarter
# of its speed. These say how soon they sleep instead (GCC's OpenMP: turns; LLVM's and Intel's: milliseconds). They are read
# when torch is imported, so they stand before it. Chapter 08 measures what they cost and bring.
THREADS_WAIT = {"GOMP_SPINCOUNT": "1000", "KMP_BLOCKTIME": "1"}
if "OMP_WAIT_POLICY" not in os.environ:
    for _name, _value in THREADS_WAIT.items():
        os.environ.setdefault(_name, _value)


def load(folder, device=None, precision="fp32"):
    """A pre-trained model from the folder that notebook 04 wrote: see `catlip_lite.models.load`."""
    from .models import load as load_pretrained  # here, so that `catlip_lite.labels` needs no torch

    return load_pretrained(folder, device, precision)


def load_classifier(folder, device=None, precision="fp32"):
    """A fine-tuned classifier from the folder that notebook 07 wrote: see `catlip_lite.models.classifier.load_classifier`."""
    from .models.classifier import load_classifier as load_finetuned

    return load_finetuned(folder, device, precision)
