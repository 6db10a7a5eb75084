"""Figures of notebook 10: crops with the labels that are left, average precision by classifier and by class, predictions."""

from __future__ import annotations

from collections.abc import Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch
from matplotlib.figure import Figure

from .theme import COLOURS, finished, use_theme

MEANS = {"macro": "blue", "micro": "orange", "weighted": "green"}


def show_crops(views: torch.Tensor, of_image: Sequence[Sequence[str]], of_view: Sequence[Sequence[str]] | None) -> Figure:
    """Training views float [N, 3, S, S] in 0..1 with the labels they keep, and those that the crop cut off in brackets.

    of_view: None where that is not known; the labels are then those of whole images.
    """
    use_theme()
    told = "Labels of whole images: without boxes nobody knows which things the crop cut off"
    if of_view is None:
        of_view = of_image
    else:
        lost = sum(len(whole) - len(left) for whole, left in zip(of_image, of_view, strict=True))
        share = lost / max(1, sum(map(len, of_image)))
        told = f"{share:.0%} of these views' labels name things that the crop cut off (in brackets)"
    figure, axes = _grid(len(views), 6, 2.9)
    for axis, view, whole, left in zip(axes, views, of_image, of_view, strict=False):
        axis.imshow(view.permute(1, 2, 0).numpy(), interpolation="nearest")
        names = [*left, *(f"({name})" for name in whole if name not in left)]
        axis.set_title("\n".join(names), fontsize=9, loc="center", fontweight="normal", verticalalignment="bottom")
    figure.suptitle(told, x=0.01, ha="left")
    return finished(figure)


def plot_average_precision(table: pd.DataFrame) -> Figure:
    """Macro, micro and weighted AP of each classifier; a panel a test and label protocol; whiskers: one standard error.

    table: as `tasks.multi_label.average_seeds` gives it.
    """
    use_theme()
    panels = list(table.groupby(["test", "labels of"], sort=False))
    figure, axes = plt.subplots(1, len(panels), figsize=(6.6 * len(panels), 4.4), sharey=True, squeeze=False)
    for axis, ((test, labels_of), part) in zip(axes[0], panels, strict=True):
        places = np.arange(len(part))
        for number, (mean, colour) in enumerate(MEANS.items()):
            bars = axis.bar(
                places + 0.27 * (number - 1), part[mean], 0.25, yerr=part[f"± {mean}"], label=mean, color=COLOURS[colour]
            )
            axis.bar_label(
                bars,
                [f"{value:.2f}"[1:] if value < 1 else "1" for value in part[mean]],
                fontsize=8,
                label_type="center",
                color="white",
            )
        best = part.loc[part["macro"].idxmax()]
        axis.set_title(f"{test}, labels of the {labels_of}:\nbest is {best['classifier']}, macro {best['macro']:.3f}")
        axis.set_xticks(places, [name.replace(", ", ",\n") for name in part["classifier"]], fontsize=9)
        axis.set(ylabel="average precision" if axis is axes[0, 0] else "")
        axis.grid(False, axis="x")
    handles, names = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles, names, title="mean", loc="outside right center")
    return finished(figure)


def plot_gains(classes: pd.DataFrame, most: int = 40) -> Figure:
    """AP of each class by two classifiers, the most gained on top: `tasks.multi_label.per_class`; of many, both ends."""
    use_theme()
    before, after = classes.columns[3:5]
    shown = classes if len(classes) <= most else pd.concat([classes.head(most // 2), classes.tail(most // 2)])
    places = np.arange(len(shown))[::-1]
    figure, axis = plt.subplots(figsize=(9, 1.4 + 0.21 * len(shown)))
    gained = (shown["gained"] > 0).to_numpy()
    axis.hlines(places, shown[before], shown[after], color=np.where(gained, COLOURS["blue"], COLOURS["red"]), linewidth=2)
    axis.plot(shown[before], places, "o", color=COLOURS["grey"], markersize=5, label=before)
    axis.plot(shown[after], places, "o", color=COLOURS["blue"], markersize=6, label=after)
    names = [f"{label} ({images})" for label, images in zip(shown["label"], shown["images"], strict=True)]
    axis.set_yticks(places, names, fontsize=8)
    axis.set(xlabel="average precision", ylabel="label (test images that show it)", xlim=(0, 1), ylim=(-1, len(shown)))
    axis.set_title(f"{after} gains on {(classes['gained'] > 0).sum()} of {len(classes)} labels over {before}")
    axis.legend(loc="lower right")
    return finished(figure)


def show_predictions(views: torch.Tensor, classes: Sequence[str], best: np.ndarray, targets: np.ndarray) -> Figure:
    """Test pictures uint8 [N, 3, S, S] with their best labels, int [N, k], right (✓) or wrong (✗); targets bool [N, C]."""
    use_theme()
    figure, axes = _grid(len(views), 6, 2.9)
    right = np.take_along_axis(targets, best, axis=1)
    for axis, view, labels, good in zip(axes, views, best, right, strict=False):
        axis.imshow(view.permute(1, 2, 0).numpy(), interpolation="nearest")
        names = [f"{'✓' if hit else '✗'} {classes[label]}" for label, hit in zip(labels, good, strict=True)]
        axis.set_title("\n".join(names), fontsize=9, loc="center", fontweight="normal", verticalalignment="bottom")
    figure.suptitle(
        f"Of each picture's {best.shape[1]} best-scored labels, {right.mean():.0%} are right (✓), the best one in "
        f"{right[:, 0].mean():.0%} of the pictures",
        x=0.01,
        ha="left",
    )  # fmt: skip
    return finished(figure)


def _grid(count: int, columns: int, height: float) -> tuple[Figure, list]:
    lines = max(1, -(-count // columns))
    figure, axes = plt.subplots(lines, columns, figsize=(2.2 * columns, height * lines), squeeze=False)
    for axis in axes.flat:
        axis.set_axis_off()
    return figure, list(axes.flat)
