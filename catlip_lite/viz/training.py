"""Figures of notebooks 04 to 06: training curves, tagged pictures, accuracy by labelled-data size."""

from __future__ import annotations

from collections.abc import Sequence

import matplotlib.pyplot as plt
import pandas as pd
import torch
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from .theme import COLOURS, finished, use_theme


def plot_training(log: pd.DataFrame) -> Figure:
    """Loss, learning rate and speed against the step (figure 8 of the paper shows the loss)."""
    use_theme()
    figure, axes = plt.subplots(1, 3, figsize=(13, 3.6))
    first, last = log["loss"].iloc[0], log["loss"].iloc[-1]
    axes[0].plot(log["step"], log["loss"], color=COLOURS["grey"], alpha=0.45, linewidth=1)
    axes[0].plot(log["step"], log["loss"].rolling(9, min_periods=1, center=True).mean(), color=COLOURS["blue"], linewidth=2)
    axes[0].set(title=f"The loss falls from {first:.1f} to {last:.1f}", ylabel="loss (nats an image)")
    axes[1].plot(log["step"], log["lr"], color=COLOURS["orange"], linewidth=2)
    axes[1].set(title="Warm-up, then half a cosine", ylabel="learning rate")
    axes[1].ticklabel_format(axis="y", style="sci", scilimits=(0, 0))
    speed, waited = log["images_per_second"], log["data_wait"].median()
    axes[2].plot(log["step"], speed, color=COLOURS["green"], linewidth=1.5)
    used = f", {log['mfu'].median():.0%} MFU" if log["mfu"].notna().any() else ""
    axes[2].set(title=f"{speed.median():,.0f} images a second{used}", ylabel="images a second", ylim=(0, None))
    axes[2].text(0.03, 0.06, f"{waited:.0%} of the time is spent waiting for data", transform=axes[2].transAxes)
    for axis in axes:
        axis.set_xlabel("step")
    return finished(figure)


def show_views(views: torch.Tensor) -> Figure:
    """Training views side by side: float [N, 3, S, S] in 0..1."""
    use_theme()
    columns = 9
    figure, axes = plt.subplots(
        -(-len(views) // columns), columns, figsize=(12, 1.45 * -(-len(views) // columns)), squeeze=False
    )
    for axis in axes.flat:
        axis.set_axis_off()
    for axis, view in zip(axes.flat, views, strict=False):
        axis.imshow(view.permute(1, 2, 0).numpy(), interpolation="nearest")
    return finished(figure)


def show_tags(views: torch.Tensor, tags: Sequence[Sequence[tuple[str, str, float]]], titles: Sequence[str]) -> Figure:
    """Pictures with their most probable synsets as bars. views: uint8 [N, 3, S, S]; titles: what each picture is."""
    use_theme()
    columns = 6
    lines = -(-len(views) // columns)
    figure, axes = plt.subplots(2 * lines, columns, figsize=(2.25 * columns, 3.5 * lines), height_ratios=[1.2, 1] * lines)
    for axis in axes.flat:
        axis.set_axis_off()
    for i, (view, found, title) in enumerate(zip(views, tags, titles, strict=True)):
        picture, bars = axes[2 * (i // columns), i % columns], axes[2 * (i // columns) + 1, i % columns]
        picture.imshow(view.permute(1, 2, 0).numpy(), interpolation="nearest")
        picture.set_title(title if len(title) < 22 else title[:20] + "…", fontsize=10, loc="center", fontweight="normal")
        bars.set_axis_on()
        names, probabilities = [name for name, _, _ in found], [p for _, _, p in found]
        bars.barh(range(len(found)), probabilities, color=COLOURS["sky"])
        for row, name in enumerate(names):
            bars.text(0.02, row, name, va="center", fontsize=9)
        bars.set(xlim=(0, 1), xticks=[0, 0.5, 1], yticks=[])
        bars.invert_yaxis()
        bars.tick_params(labelsize=8)
        bars.grid(False)
    figure.suptitle("What the model sees: the five most probable synsets (bar: probability, 0 to 1)", x=0.01, ha="left")
    return finished(figure)


def plot_zero_shot(accuracy: dict, nearest_pixels: float | None, chance: float) -> Figure:
    """Zero-shot top-1 with and without prior correction beside what pixels give (None: nobody knows)."""
    use_theme()
    bars = {
        "zero-shot": (accuracy["top-1"], COLOURS["blue"]),
        "zero-shot, prior\nnot corrected": (accuracy["top-1 without prior correction"], COLOURS["sky"]),
        "nearest pixels,\none vendor labelled": (nearest_pixels, COLOURS["orange"]),
        "chance": (chance, COLOURS["grey"]),
    }
    bars = {name: bar for name, bar in bars.items() if bar[0] is not None}
    figure, axis = plt.subplots(figsize=(7.5, 3.8))
    drawn = axis.bar(list(bars), [v for v, _ in bars.values()], color=[c for _, c in bars.values()], width=0.65)
    axis.bar_label(drawn, [f"{v:.1%}" for v, _ in bars.values()], padding=2)
    peer, least = ("chance", chance) if nearest_pixels is None else ("the nearest labelled picture", nearest_pixels)
    axis.set_title(f"Without a single label, the head {'beats' if accuracy['top-1'] > least else 'trails'} {peer}")
    axis.set(ylabel=f"top-1 over {accuracy['classes']} classes", ylim=(0, 1.12 * max(v for v, _ in bars.values())))
    axis.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    axis.grid(False, axis="x")
    return finished(figure)
