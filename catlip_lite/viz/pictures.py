"""Pictures side by side, as all chapters show them: views, crops, what a model takes a picture for, what it confuses."""

from __future__ import annotations

from collections.abc import Sequence

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure


def picture_grid(
    pictures: torch.Tensor | Sequence,
    titles: Sequence[str] | None = None,
    *,
    columns: int = 6,
    size: float = 2.2,
    title: str = "",
) -> tuple[Figure, list[Axes]]:
    """Pictures row by row, without axes; the figure, which the cell shows at its end, and an Axes a picture.

    pictures: uint8 [N, 3, S, S], float [N, 3, S, S] in 0..1, or a list of such tensors [3, H, W], arrays [H, W, 3] and PIL
    images; None leaves a place empty. titles: one a picture, above it; may hold line breaks. size: inches of a place.
    title: of the whole.
    """
    titles = [""] * len(pictures) if titles is None else list(titles)
    columns = max(1, min(columns, len(titles)))
    rows = max(1, -(-len(titles) // columns))
    height = size + 0.16 * max((text.count("\n") + bool(text) for text in titles), default=0)
    figure, axes = plt.subplots(rows, columns, figsize=(size * columns, height * rows + 0.4 * bool(title)), squeeze=False)
    for axis in axes.flat:
        axis.set_axis_off()
    for axis, picture, text in zip(axes.flat, pictures, titles, strict=False):
        axis.set_title(text, fontsize=10, fontweight="normal", loc="center")
        if picture is not None:
            array = picture.permute(1, 2, 0).numpy(force=True) if torch.is_tensor(picture) else np.asarray(picture)
            axis.imshow(array, interpolation="nearest")
    figure.suptitle(title, x=0.01, horizontalalignment="left", fontsize=13, fontweight="bold")
    return figure, list(axes.flat[: len(titles)])
