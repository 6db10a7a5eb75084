"""Figures of notebook 07: training from each start, accuracy of every classifier, classes that gain and lose."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from ..data.images import decode
from ..data.labelled import LabelledImages
from ..tasks.finetune import RANDOM, TRANSFER
from ..tasks.finetune_report import PROBE, START, TUNED
from .theme import COLOURS, finished, use_theme

LOOKS = {START: "sky", PROBE: "orange", TUNED[RANDOM]: "red", TUNED[TRANSFER]: "blue", TRANSFER: "blue", RANDOM: "red"}
SHOWN = 10  # classes at either end


def plot_logs(logs: Mapping[str, pd.DataFrame]) -> Figure:
    """Loss by start, and the learning rate they share, against the step."""
    use_theme()
    figure, (left, right) = plt.subplots(1, 2, figsize=(12, 3.8), width_ratios=[1.6, 1])
    for init, log in logs.items():
        left.plot(log["step"], log["loss"], color=COLOURS[LOOKS[init]], linewidth=2, label=init)
    starts = {init: log["loss"].iloc[0] for init, log in logs.items()}
    ends = {init: log["loss"].iloc[-1] for init, log in logs.items()}
    told = "; ".join(f"{init}: {starts[init]:.2f} to {ends[init]:.2f}" for init in logs)
    left.set(title=f"The loss falls ({told})", xlabel="step", ylabel="loss (nats an image)")
    left.legend()
    log = next(iter(logs.values()))
    right.plot(log["step"], log["lr"], color=COLOURS["grey"], linewidth=2)
    right.set(title=f"The learning rate peaks at {log['lr'].max():.2g}", xlabel="step", ylabel="learning rate", ylim=(0, None))
    right.ticklabel_format(axis="y", style="sci", scilimits=(0, 0))
    return finished(figure)


def plot_accuracy(table: pd.DataFrame) -> Figure:
    """Top-1 of every classifier, a panel a test; whiskers are a standard error either way."""
    use_theme()
    tests = list(table["test"].unique())
    figure, axes = plt.subplots(1, len(tests), figsize=(6.6 * len(tests), 3.4), sharex=True, sharey=True, squeeze=False)
    for axis, test in zip(axes[0], tests, strict=True):
        part = table[table["test"] == test]
        colours = [COLOURS[LOOKS[name]] for name in part["classifier"]]
        bars = axis.barh(part["classifier"], part["top-1"], xerr=part["standard error"], color=colours, height=0.65)
        axis.bar_label(bars, [f"{value:.1%}" for value in part["top-1"]], padding=6)
        best = part.loc[part["top-1"].idxmax(), "classifier"]
        axis.set_title(f"{test}: best is the {best}" if best == PROBE else f"{test}: best is {best}")
        axis.set_xlabel(f"top-1 ({part['images'].iloc[0]:,} images)")
        axis.xaxis.set_major_formatter(PercentFormatter(1, decimals=0))
        axis.grid(False, axis="y")
    axes[0, 0].set_xlim(0, 1.18 * (table["top-1"] + table["standard error"]).max())
    axes[0, 0].invert_yaxis()
    return finished(figure)


def show_classified(images: LabelledImages, found: Sequence[Sequence[tuple[str, float]]]) -> Figure:
    """Pictures with what a classifier takes them for, best first, and what they are."""
    use_theme()
    figure, axes = plt.subplots(1, len(images), figsize=(2.1 * len(images), 3.1), squeeze=False)
    for i, (axis, names) in enumerate(zip(axes[0], found, strict=True)):
        axis.set_axis_off()
        axis.imshow(decode(images.files.read(i)))
        axis.set_title(images.labels[i][:22], fontsize=10, loc="center")
        told = "\n".join(f"{name[:18]} {share:.0%}" for name, share in names)
        axis.text(0.5, -0.05, told, transform=axis.transAxes, ha="center", va="top", fontsize=9)
    right = sum(names[0][0] == label for names, label in zip(found, images.labels, strict=True))
    figure.suptitle(f"{right} of these {len(images)} pictures are named right at first", x=0.01, ha="left")
    return finished(figure)


def plot_changes(changes: pd.DataFrame, before: str, after: str) -> Figure:
    """Classes whose accuracy changes most, before → after (see `class_changes`)."""
    use_theme()
    gained, lost = changes[changes["change"] > 0], changes[changes["change"] < 0]
    shown = pd.concat([gained.head(SHOWN), lost.tail(SHOWN)])
    figure, axis = plt.subplots(figsize=(9, 1.2 + 0.26 * max(1, len(shown))))
    colours = [COLOURS["blue"] if change > 0 else COLOURS["red"] for change in shown["change"]]
    places = range(len(shown))
    axis.barh(places, shown["change"], color=colours, height=0.7)
    names = [f"{label} ({images})" for label, images in zip(shown["label"], shown["images"], strict=True)]
    axis.set_yticks(places, names, fontsize=10)
    axis.invert_yaxis()
    axis.axvline(0, color="black", linewidth=0.8)
    axis.set_title(f"{len(gained)} of {len(changes)} classes gain, {len(lost)} lose: {after} against {before}")
    axis.set_xlabel("change of accuracy; behind each class its test images")
    axis.xaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    axis.grid(False, axis="y")
    return finished(figure)
