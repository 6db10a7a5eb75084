"""Figures of notebook 06: accuracy by labelled data from each start, the margin between them, labels that gain and lose."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, PercentFormatter

from ..tasks.transfer_curves import ADDED, LP_FT, RANDOM, TRANSFER
from ..tasks.transfer_report import margins, summarise_gains, with_bands
from .theme import COLOURS, finished, use_theme

LOOKS = {  # colour, line style, width
    TRANSFER: ("blue", "o-", 2.4),
    RANDOM: ("red", "o-", 2.4),
    ADDED: ("sky", "s-", 1.8),
    LP_FT: ("purple", "s--", 1.4),
    "class means": ("green", "s--", 1.3),
    "nearest image": ("grey", "s--", 1.3),
}


def plot_curves(table: pd.DataFrame) -> Figure:
    """Top-1 against labelled data (paper figures 5 and 7): lines are means over seeds, bands their 95 % confidence.

    A row of panels for each way of counting labelled data, a column a test.
    """
    use_theme()
    bands, ahead = with_bands(table), margins(table)
    kinds, tests = list(bands["kind"].unique()), list(bands["test"].unique())
    figure, axes = plt.subplots(len(kinds), len(tests), figsize=(6.4 * len(tests), 4.2 * len(kinds)), squeeze=False)
    for row, kind in enumerate(kinds):
        for axis, test in zip(axes[row], tests, strict=True):
            part = bands[(bands["kind"] == kind) & (bands["test"] == test)]
            for init, (colour, style, width) in LOOKS.items():
                mine = part[part["init"] == init]
                where = _places(mine, part)
                axis.plot(where, mine["mean"], style, color=COLOURS[colour], linewidth=width, markersize=5, label=init)
                low, high = mine["low"].clip(lower=0), mine["high"].clip(upper=1)
                axis.fill_between(where, low, high, color=COLOURS[colour], alpha=0.15, linewidth=0)
            mine = ahead[(ahead["kind"] == kind) & (ahead["test"] == test)]
            method = part["method"].iloc[0]
            axis.set_title(f"{test}, {method}: Transfer Init leads at {int((mine['mean'] > 0).sum())} of {len(mine)} sizes")
            _label_sizes(axis, part)
            axis.set(ylabel="top-1", ylim=(0, None))
            axis.yaxis.set_major_formatter(PercentFormatter(1))
    for axis in axes.flat:
        handles = [h for h in axis.get_lines() if len(h.get_xdata())]
        axis.legend(handles=handles, loc="best")
    return finished(figure)


def plot_margins(tables: list[pd.DataFrame]) -> Figure:
    """What Transfer Init adds to Random Init on the same images, in points of top-1, with the 95 % band of that difference."""
    use_theme()
    ahead = pd.concat([margins(table) for table in tables if len(table)], ignore_index=True)
    kinds, tests = list(ahead["kind"].unique()), list(ahead["test"].unique())
    figure, axes = plt.subplots(1, len(kinds), figsize=(7.2 * len(kinds), 4.2), squeeze=False)
    for axis, kind in zip(axes[0], kinds, strict=True):
        part = ahead[ahead["kind"] == kind]
        for i, ((method, test), mine) in enumerate(part.groupby(["method", "test"], sort=False)):
            colour = COLOURS[("blue", "orange", "green", "purple")[tests.index(test) % 4]]
            where = np.array(_places(mine, part)) + 0.06 * (i - 1)
            style = "o-" if method == "linear probe" else "s--"
            axis.plot(where, 100 * mine["mean"], style, color=colour, linewidth=2, label=f"{test}, {method}")
            axis.vlines(where, 100 * mine["low"], 100 * mine["high"], color=colour, linewidth=1.4)
        axis.axhline(0, color="black", linewidth=0.8)
        best = part.loc[part["mean"].idxmax()]
        axis.set_title(f"Transfer Init adds up to {100 * best['mean']:.0f} points, with {best['budget']} labelled")
        _label_sizes(axis, part)
        axis.set(ylabel="Transfer Init less Random Init\n(points of top-1)")
        axis.yaxis.set_major_formatter(FuncFormatter(lambda v, _: f"{v:+.0f}" if v else "0"))
        axis.legend(loc="best")
    return finished(figure)


def plot_gains(gains: pd.DataFrame, budget: str) -> Figure:
    """What each label gains or loses by Transfer Init, by what it borrows; the most extreme are named."""
    use_theme()
    shares = summarise_gains(gains).set_index("borrows")
    figure, (left, right) = plt.subplots(1, 2, figsize=(13, 1.2 + 0.9 * max(len(shares), 3)), width_ratios=[1.25, 1])
    sides = {"gained": "blue", "as before": "grey", "lost": "red"}
    start = np.zeros(len(shares))
    for side, colour in sides.items():
        width = (shares[side] / shares["labels"]).to_numpy()
        bars = left.barh(range(len(shares)), width, left=start, color=COLOURS[colour], label=side, height=0.6)
        left.bar_label(
            bars, [f"{n}" if w > 0.04 else "" for n, w in zip(shares[side], width, strict=True)], label_type="center"
        )
        start += width
    names = [f"{kind}\n{row['labels']:.0f} labels, {100 * row['mean gain']:+.0f} points" for kind, row in shares.iterrows()]
    left.set_yticks(range(len(shares)), names)
    left.invert_yaxis()
    left.grid(False)
    left.legend(loc="upper center", bbox_to_anchor=(0.5, -0.18), ncols=3)
    left.xaxis.set_major_formatter(PercentFormatter(1))
    gained, lost = int((gains["gain"] > 0).sum()), int((gains["gain"] < 0).sum())
    left.set_title(f"With {budget} labelled, {gained} labels gain and {lost} lose")
    left.set(xlabel="share of the labels, by what they borrow", xlim=(0, 1))
    shown = gains.assign(gain=100 * gains["gain"])
    ends = pd.concat([shown.head(8), shown.tail(8)]).drop_duplicates("label")
    colours = [COLOURS["blue" if gain >= 0 else "red"] for gain in ends["gain"]]
    right.barh(ends["label"].astype(str), ends["gain"], color=colours)
    right.axvline(0, color="black", linewidth=0.8)
    right.invert_yaxis()
    right.tick_params(axis="y", labelsize=9)
    right.grid(False, axis="y")
    right.set_title("Largest gains and losses")
    right.set(xlabel="points")
    return finished(figure)


def _order(part: pd.DataFrame) -> pd.DataFrame:
    """The sizes of a panel, as they come: columns budget, images a class, images."""
    return part.drop_duplicates("budget")[["budget", "images a class", "images"]].sort_values("images").reset_index(drop=True)


def _places(mine: pd.DataFrame, part: pd.DataFrame) -> list[int]:
    place = {budget: i for i, budget in enumerate(_order(part)["budget"])}
    return [place[budget] for budget in mine["budget"]]


def _label_sizes(axis: Axes, part: pd.DataFrame) -> None:
    """Ticks at the sizes, with the number of images that they come to."""
    order = _order(part)
    axis.set_xticks(range(len(order)), [f"{b}\n{n:,.0f}" for b, n in zip(order["budget"], order["images"], strict=True)])
    axis.set_xlabel(f"labelled images: {part['kind'].iloc[0]}, and number")
