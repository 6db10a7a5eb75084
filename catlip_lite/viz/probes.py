"""Figures of notebook 05: probes by backbone, reliability, and the classes that a probe confuses, as pictures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from ..tasks.probe_report import Confusion
from .theme import COLOURS, finished, use_theme

BACKBONE_COLOURS = {"trained ViT": "blue", "untrained ViT": "orange", "pixels": "grey"}


def plot_probes(table: pd.DataFrame) -> Figure:
    """Top-1 of every probe, by backbone; a panel a test set; whiskers are a standard error either way."""
    use_theme()
    tests, backbones = list(table["test"].unique()), list(table["backbone"].unique())
    colours = [COLOURS[BACKBONE_COLOURS.get(name, "purple")] for name in backbones]
    figure, axes = plt.subplots(1, len(tests), figsize=(1.5 + 6.4 * len(tests), 4.2), sharey=True, squeeze=False)
    axes[0, 0].set_ylim(0, min(1.0, 1.1 * (table["top-1"] + table["standard error"]).max()))
    for axis, test in zip(axes[0], tests, strict=True):
        part = table[table["test"] == test]
        sns.barplot(part, x="method", y="top-1", hue="backbone", hue_order=backbones, ax=axis, palette=colours)
        for container, backbone in zip(list(axis.containers), backbones, strict=True):
            mine = part[part["backbone"] == backbone]
            centres = [bar.get_x() + bar.get_width() / 2 for bar in container]
            axis.errorbar(centres, mine["top-1"], mine["standard error"], fmt="none", color="black", linewidth=1)
            for centre, value in zip(centres, mine["top-1"], strict=True):
                tall = value > 0.08 * axis.get_ylim()[1]
                place, colour = ((0, 3), "white") if tall else ((0, -11), "black")
                axis.annotate(
                    f"{value:.0%}", (centre, 0), place, textcoords="offset points", ha="center", color=colour, fontsize=9
                )
        best = part.loc[part["top-1"].idxmax()]
        axis.set_title(f"{test}: best is {best['backbone']}, {best['top-1']:.0%}")
        axis.set(xlabel="", ylabel="top-1")
        axis.tick_params(axis="x", pad=12)
        axis.set_xticks(axis.get_xticks(), [t.get_text().replace(" (", "\n(") for t in axis.get_xticklabels()], fontsize=10)
        axis.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
        axis.grid(False, axis="x")
        handles, names = axis.get_legend_handles_labels()
        axis.get_legend().remove()
    figure.legend(handles, names, title="features", loc="outside right center")
    return finished(figure)


def plot_reliability(tables: Mapping[str, pd.DataFrame], errors: Mapping[str, float]) -> Figure:
    """Accuracy against confidence in bins of equally many images, a line a version of a probe's probabilities.

    tables: what `scoring.reliability` gives, by name; errors: their expected calibration error, by name.
    """
    use_theme()
    figure, axis = plt.subplots(figsize=(6.8, 4.8))
    axis.plot([0, 1], [0, 1], color="black", linewidth=1, linestyle="--", label="as sure as right")
    lines = zip(tables.items(), ("orange", "blue", "green", "purple"), ("s", "o", "^", "D"), strict=False)
    for (name, table), colour, marker in lines:
        error = (table["accuracy"] * (1 - table["accuracy"]) / table["images"]) ** 0.5
        label = f"{name}: off by {errors[name]:.1%}"
        axis.errorbar(
            table["confidence"], table["accuracy"], error, fmt=f"{marker}-", color=COLOURS[colour], capsize=2, label=label
        )
    first = next(iter(tables.values()))
    sign = (first["images"] * (first["confidence"] - first["accuracy"])).sum()
    axis.set_title(f"As it is, the probe is too {'sure' if sign > 0 else 'modest'} of its answers")
    axis.set(xlabel="confidence (mean of a bin)", ylabel="accuracy (share of the bin)", xlim=(0, 1), ylim=(0, 1.02))
    for scale in (axis.xaxis, axis.yaxis):
        scale.set_major_formatter(PercentFormatter(1, decimals=0))
    axis.legend(loc="best")
    return finished(figure)


def show_confusions(confusions: Sequence[Confusion]) -> Figure:
    """A row a class: training pictures of it, test pictures of it that are mistaken, training pictures of what they are taken
    for."""
    use_theme()
    if not confusions:
        figure, axis = plt.subplots(figsize=(6, 1))
        axis.set_axis_off()
        axis.set_title("No class is mistaken for another")
        return finished(figure)
    groups = (("own", "{0.label} (to learn from)"), ("missed", "test: {0.right} of {0.images} right, {0.times} taken for …"))
    groups = (*groups, ("other", "… {0.taken_for}"))
    wide = {name: max(1, *(len(getattr(found, name)) for found in confusions)) for name, _ in groups}
    ratios = [1] * wide["own"] + [0.35] + [1] * wide["missed"] + [0.35] + [1] * wide["other"]
    figure, axes = plt.subplots(
        len(confusions), len(ratios), figsize=(1.25 * sum(ratios), 1.55 * len(confusions)), width_ratios=ratios, squeeze=False
    )
    for axis in axes.flat:
        axis.set_axis_off()
    for line, found in zip(axes, confusions, strict=True):
        first = 0
        for name, title in groups:
            for place, view in enumerate(getattr(found, name)):
                line[first + place].imshow(view.permute(1, 2, 0).numpy(), interpolation="nearest")
            line[first].set_title(title.format(found), fontsize=10, loc="left", fontweight="normal")
            first += wide[name] + 1
    worst = confusions[0]
    figure.suptitle(f"Hardest is {worst.label}: {worst.right} of {worst.images} right", x=0.01, ha="left", fontweight="bold")
    return finished(figure)
