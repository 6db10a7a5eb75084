"""Labelled images by address: WebDataset shards with a label in their .json, or a folder of class folders.

Gives evaluation views (uint8 squares) with their class names, and a fingerprint of the data for caches and provenance.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from .images import centre_crop, decode
from .shards import find_shards, read_samples

logger = logging.getLogger(__name__)

FOLDER_EXTENSIONS = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff")


@dataclass
class LabelledImages:
    """N images with one label each, in the order in which they were read.

    views: uint8 [N, 3, S, S]. labels: class names [N]. groups: where each image comes from [N] (e.g. its artist; "" if
    unknown). fingerprint: of the encoded images, their labels and S.
    """

    views: torch.Tensor
    labels: np.ndarray
    groups: np.ndarray
    fingerprint: str

    def __len__(self) -> int:
        return len(self.labels)

    def sample(self, most: int | None) -> LabelledImages:
        """At most so many of the images, drawn at random with a fixed seed; None: all."""
        if most is None or most >= len(self):
            return self
        rows = np.sort(np.random.default_rng(0).permutation(len(self))[:most])
        return LabelledImages(self.views[rows], self.labels[rows], self.groups[rows], f"{self.fingerprint}-{most}")

    @property
    def classes(self) -> list[str]:
        """The distinct labels, sorted."""
        return sorted(set(self.labels))


def load_labelled(
    address: str | Path | Sequence[str],
    image_size: int,
    *,
    label_field: str = "label",
    group_field: str = "vendor",
    only: Collection[str] | None = None,
) -> LabelledImages:
    """Read and decode all labelled images behind an address (or several addresses, one after the other).

    address: shards (see `find_shards`) whose .json has `label_field`, or a folder with one folder a class. only: labels to
    keep. Unreadable images are skipped, with a warning that names them.
    Raises FileNotFoundError if there is nothing, ValueError if no image has a label.
    """
    views, labels, groups, unreadable = [], [], [], []
    digest = hashlib.sha256(str(image_size).encode())
    for name, encoded, facts in _labelled_files(address):
        label = facts.get(label_field)
        if not label or (only is not None and label not in only):
            continue
        try:
            views.append(centre_crop(decode(encoded), image_size))
        except ValueError as error:
            unreadable.append(f"{name} ({error})")
            continue
        labels.append(str(label))
        groups.append(str(facts.get(group_field, "")))
        digest.update(encoded + str(label).encode())
    if unreadable:
        logger.warning("%d unreadable image(s) are left out: %s", len(unreadable), "; ".join(unreadable[:5]))
    if not views:
        raise ValueError(
            f"{address}: no image has a label: shards need {label_field!r} in their .json, folders a folder a class"
        )
    return LabelledImages(torch.stack(views), np.array(labels), np.array(groups), digest.hexdigest()[:16])


def check_labelled(address: str | Path | Sequence[str], *, label_field: str = "label") -> None:
    """Look at the first image behind each address, before long work. Raises what loading would raise."""
    for part in [address] if isinstance(address, (str, Path)) else address:
        name, _, facts = next(_labelled_files(part), (None, None, {}))
        if name is None:
            raise ValueError(f"{part} holds no image")
        if label_field not in facts:
            raise ValueError(
                f"{part}: sample {name} has no {label_field!r} in its .json, which has {', '.join(facts) or 'nothing'}"
            )


def _labelled_files(address: str | Path | Sequence[str]) -> Iterator[tuple[str, bytes, dict]]:
    """Name, encoded image and facts of each image."""
    if not isinstance(address, (str, Path)):
        for part in address:
            yield from _labelled_files(part)
        return
    folder = Path(address)
    if folder.is_dir() and not any(folder.glob("*.tar")):
        files = sorted(p for p in folder.glob("*/*") if p.suffix.lower() in FOLDER_EXTENSIONS)
        if not files:
            raise FileNotFoundError(f"{address} has neither .tar shards nor class folders with images")
        for path in files:
            yield str(path), path.read_bytes(), {"label": path.parent.name}
        return
    for sample in read_samples(find_shards(address)):
        if sample.image is not None:
            yield sample.key, sample.image, sample.facts
