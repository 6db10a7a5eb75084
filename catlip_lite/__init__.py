"""catlip-lite: classification-style image-text pre-training (CatLIP, arXiv 2404.15653) as a workbook over a thin library."""

from __future__ import annotations

import importlib
import importlib.metadata
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .models import load
    from .models.classifier import load_classifier
    from .models.detector import load_detector
    from .models.segmenter import load_segmenter

__all__ = ["load", "load_classifier", "load_detector", "load_segmenter"]


def __getattr__(name: str) -> Any:
    """What is asked for is imported then: `catlip_lite.labels` needs no torch, and a bare clone has no version yet."""
    if name in __all__:
        module = "models" if name == "load" else f"models.{name.removeprefix('load_')}"
        return getattr(importlib.import_module(f".{module}", __name__), name)
    if name == "__version__":
        return importlib.metadata.version("catlip-lite")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
