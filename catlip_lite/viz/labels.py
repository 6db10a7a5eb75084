"""Figures of notebooks 01 to 03: captions, synsets, vocabulary, label matches. Each function takes a table, gives a Figure."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, PercentFormatter

from .theme import COLOURS, finished, use_theme

LABELER_COLOURS = {"corenet": COLOURS["grey"], "pos": COLOURS["orange"], "compound": COLOURS["blue"]}
STEP_COLOURS = (COLOURS["blue"], COLOURS["green"], COLOURS["orange"], COLOURS["purple"])
STEP_MARKERS = ("o", "s", "^", "D")
_thousands = FuncFormatter(lambda value, _: f"{value:,.0f}")


def labeler_colour(name: str) -> str:
    """One colour a labeler in all figures and tables: 'pos-spacy' -> that of 'pos'."""
    return LABELER_COLOURS[name.partition("-")[0]]


# --- 01: captions and synsets -------------------------------------------------------------------------------------------


def plot_labelers(table: pd.DataFrame, agreement: pd.DataFrame) -> Figure:
    """How much the labelers agree (mean Jaccard index, a matrix) and how many captions/s each labels on one core."""
    use_theme()
    figure, (left, right) = plt.subplots(1, 2, figsize=(10.5, 3.6), gridspec_kw={"width_ratios": [1, 1.25]})
    names = list(agreement)
    values = agreement.loc[names].to_numpy()
    left.imshow(values, cmap="Blues", vmin=0, vmax=1)
    for (i, j), value in np.ndenumerate(values):
        left.text(j, i, f"{value:.2f}", ha="center", va="center", color="white" if value > 0.6 else "black", fontsize=13)
    ticks = [n.replace("-", "-\n") for n in names]
    left.set_xticks(range(len(names)), ticks)
    left.set_yticks(range(len(names)), ticks)
    left.grid(False)
    pairs = [(values[i, j], names[i], names[j]) for i in range(len(names)) for j in range(i)]
    most = max(pairs) if pairs else (1.0, names[0], names[0])
    left.set_title(f"{most[2]} and {most[1]} agree most\n(mean Jaccard index of label sets: {most[0]:.2f})")

    speed = table["captions/s of one core"].sort_values()
    right.barh(speed.index, speed, color=[labeler_colour(n) for n in speed.index])
    right.bar_label(right.containers[0], fmt="{:,.0f}", padding=4)
    right.set(xlabel="captions/s of one core", xlim=(0, speed.max() * 1.18))
    right.xaxis.set_major_formatter(_thousands)
    right.grid(axis="y", visible=False)
    right.set_title(f"{speed.index[-1]} is the quickest:\n{speed.iloc[-1] / speed.iloc[0]:.1f} times {speed.index[0]}")
    return finished(figure)


def plot_gold(table: pd.DataFrame, label_set: str = "ImageNet-1k", size: int = 1000) -> Figure:
    """Precision, recall and F1 of labelers on gold captions, and how many labels of a set each can give (`gold_table`)."""
    use_theme()
    figure, (left, right) = plt.subplots(1, 2, figsize=(10.5, 0.42 * len(table) + 1.4), sharey=True, width_ratios=[1.5, 1])
    rows = np.arange(len(table))
    colours = [labeler_colour(name) for name in table.index]
    left.hlines(rows, table["precision"], table["recall"], color=COLOURS["grey"], linewidth=1.5, alpha=0.6, zorder=1)
    for name, marker in (("precision", "<"), ("recall", ">"), ("F1", "o")):
        left.scatter(table[name], rows, c=colours, marker=marker, s=90 if name == "F1" else 45, label=name, zorder=2)
    for row, f1 in zip(rows, table["F1"], strict=True):
        left.annotate(f"{f1:.2f}", (f1, row), xytext=(0, 8), textcoords="offset points", ha="center", fontsize=11)
    left.set_yticks(rows, table.index)
    left.set(xlabel="share, 0 to 1", ylim=(-0.6, len(table) - 0.3))
    left.grid(axis="y", visible=False)
    handles = left.legend(loc="lower right", frameon=False).legend_handles
    for handle in handles:
        handle.set_color("black")
    best = table.iloc[-1]
    left.set_title(f"{table.index[-1]} reads as a person does most often:\nF1 {best['F1']:.2f}")
    right.barh(rows, table["reachable"], color=colours)
    right.bar_label(right.containers[0], fmt="{:,.0f}", padding=4)
    right.set(xlabel=f"labels of {label_set} within reach", xlim=(0, size * 1.18))
    right.grid(axis="y", visible=False)
    most = table["reachable"].max()
    right.set_title(f"and compounds reach the most labels:\n{most:,} of {size:,}")
    return finished(figure)


def plot_frequencies(counts: pd.DataFrame, threshold: int) -> Figure:
    """Figure 3a: captions that mention a synset against the synset's rank, on logarithmic axes."""
    use_theme()
    figure, axes = plt.subplots(figsize=(8.5, 4.6))
    n = counts["count"].to_numpy()
    rank = np.arange(1, len(n) + 1)
    axes.loglog(rank, n, color=COLOURS["blue"], linewidth=2.5)
    axes.fill_between(rank, n, 0.8, where=n > threshold, color=COLOURS["blue"], alpha=0.12, linewidth=0)
    axes.axhline(max(threshold, 0.8), color=COLOURS["red"], linestyle="--", linewidth=1.5)
    kept = int((n > threshold).sum())
    axes.annotate(
        f"threshold {threshold:,}: {kept:,} synsets above",
        (1.1, max(threshold, 0.8)),
        xytext=(0, 5),
        textcoords="offset points",
        color=COLOURS["red"],
    )
    for position in np.unique(np.geomspace(1, len(n), 7).astype(int))[:-1]:
        axes.plot(position, n[position - 1], "o", color=COLOURS["blue"])
        axes.annotate(
            counts["name"][position - 1], (position, n[position - 1]), xytext=(6, 5), textcoords="offset points", fontsize=11
        )
    axes.set(xlabel="rank of the synset", ylabel="captions that mention it", ylim=(0.8, n.max() * 2))
    axes.xaxis.set_major_formatter(_thousands)
    axes.yaxis.set_major_formatter(_thousands)
    top = max(1, round(len(n) / 100))
    axes.set_title(f"A hundredth of the {len(n):,} synsets holds {n[:top].sum() / n.sum():.0%} of all label occurrences")
    return finished(figure)


def plot_growth(growth: pd.DataFrame, threshold: int) -> Figure:
    """Figure 3b: distinct synsets against captions read."""
    use_theme()
    figure, axes = plt.subplots(figsize=(8.5, 4.2))
    for column, label, colour in (
        ("seen", "in at least one caption", COLOURS["blue"]),
        ("above_threshold", f"in more than {threshold:,} captions", COLOURS["red"]),
    ):
        axes.plot(growth["captions"], growth[column], color=colour, linewidth=2.5)
        axes.annotate(
            f"{growth[column].iloc[-1]:,}\n{label}",
            (growth["captions"].iloc[-1], growth[column].iloc[-1]),
            xytext=(8, 0),
            textcoords="offset points",
            va="center",
            color=colour,
        )
    total = growth["captions"].iloc[-1]
    at_half = np.interp(total / 2, growth["captions"], growth["seen"])
    axes.set(xlabel="captions read, in random order", ylabel="distinct synsets", xlim=(0, total * 1.02), ylim=(0, None))
    axes.xaxis.set_major_formatter(_thousands)
    axes.yaxis.set_major_formatter(_thousands)
    axes.set_title(f"The second half of the captions adds {1 - at_half / growth['seen'].iloc[-1]:.0%} of the synsets")
    return finished(figure)


# --- 02: the vocabulary -------------------------------------------------------------------------------------------------


def plot_sweep(sweep: pd.DataFrame, threshold: int) -> Figure:
    """Classes, label occurrences kept and captions left without a label, against the pruning threshold."""
    use_theme()
    figure, panels = plt.subplots(1, 3, figsize=(12, 3.9), sharex=True)
    at = sweep.set_index("threshold").loc[threshold]
    what = (
        ("classes", "classes in the vocabulary", f"{at['classes']:,.0f} classes", COLOURS["blue"]),
        ("kept", "label occurrences kept", f"{at['kept']:.1%} of labels kept", COLOURS["green"]),
        ("unlabelled", "captions without a label", f"{at['unlabelled']:.1%} of captions without", COLOURS["red"]),
    )
    for axes, (column, ylabel, title, colour) in zip(panels, what, strict=True):
        axes.plot(sweep["threshold"], sweep[column], marker="o", color=colour, linewidth=2)
        axes.axvline(threshold, color=COLOURS["grey"], linestyle="--", linewidth=1.2)
        axes.plot(
            threshold, at[column], "o", markersize=12, markerfacecolor="none", markeredgewidth=2, color="black", clip_on=False
        )
        axes.set_xscale("symlog", linthresh=1)
        axes.set_xlim(-0.2, max(sweep["threshold"].max(), 1) * 1.6)
        axes.xaxis.set_major_formatter(_thousands)
        axes.set(xlabel="threshold (captions)", ylabel=ylabel, ylim=(0, 1.04 if column != "classes" else None))
        axes.yaxis.set_major_formatter(_thousands if column == "classes" else PercentFormatter(1.0))
        axes.set_title(f"Threshold {threshold:,}:\n{title}")
    return finished(figure)


def plot_fields(fields: pd.DataFrame, most: int = 12) -> Figure:
    """Synsets that stay and that go, by WordNet's field of meaning."""
    use_theme()
    shown = fields.head(most).iloc[::-1]
    figure, axes = plt.subplots(figsize=(8.5, 0.36 * len(shown) + 1.3))
    axes.barh(shown["field"], shown["stays"], color=COLOURS["blue"], label="stays")
    axes.barh(shown["field"], shown["goes"], left=shown["stays"], color="#C9D6DF", label="goes")
    for y, (stays, goes) in enumerate(zip(shown["stays"], shown["goes"], strict=True)):
        axes.text(stays + goes, y, f"  {stays / (stays + goes):.0%} stay", va="center", fontsize=10)
    axes.set(xlabel="synsets", xlim=(0, (shown["stays"] + shown["goes"]).max() * 1.15))
    axes.legend(loc="lower right")
    axes.grid(axis="y", visible=False)
    most_kept = fields.sort_values("stays", ascending=False)
    axes.set_title(
        f"{most_kept['field'].iloc[0]} gives {most_kept['stays'].iloc[0] / fields['stays'].sum():.0%} of the classes"
    )
    return finished(figure)


# --- 03: the labels of a task -------------------------------------------------------------------------------------------


def plot_coverage(coverage: pd.DataFrame, labels: int, title: str) -> Figure:
    """Figure 2b: share of labels that have a class in the vocabulary, at several path similarities."""
    use_theme()
    figure, axes = plt.subplots(figsize=(8, 3.8))
    axes.bar(coverage["similarity"], coverage["recall"], color=STEP_COLOURS[: len(coverage)], width=0.65)
    for x, row in enumerate(coverage.itertuples()):
        axes.text(
            x,
            row.recall + 0.02,
            f"{row.matched:,} labels\n{row.synsets_a_label:.1f} classes each",
            ha="center",
            va="bottom",
            fontsize=11,
            bbox={"facecolor": "white", "edgecolor": "none", "pad": 1},
        )
    axes.set(
        xlabel="least path similarity that counts as a match", ylabel=f"share of {labels:,} labels matched", ylim=(0, 1.25)
    )
    axes.set_yticks(np.arange(0, 1.01, 0.25))
    axes.yaxis.set_major_formatter(PercentFormatter(1.0))
    axes.grid(axis="x", visible=False)
    first, second = coverage["recall"].iloc[:2]
    axes.set_title(
        f"{title}: {first:.0%} of the labels are classes themselves,\n{second:.0%} have at least a parent or child there"
    )
    return finished(figure)


def plot_captions_per_label(per_label: pd.DataFrame) -> Figure:
    """Figure 2c: captions behind each matched label, the labels sorted by them; a line for each similarity."""
    use_theme()
    figure, axes = plt.subplots(figsize=(8.5, 4.4))
    medians = {}
    for steps, group in per_label.groupby("steps"):
        found = np.sort(group["captions"][group["captions"] > 0].to_numpy())[::-1]
        if not len(found):
            continue
        medians[steps] = np.median(found)
        name = "same synset" if steps == 0 else f"1/{steps + 1} or more"
        colour = STEP_COLOURS[steps]
        axes.step(
            np.arange(1, len(found) + 1), found, where="mid", color=colour, linewidth=2.2, label=f"{name}: {len(found):,}"
        )
    axes.set_yscale("log")
    axes.yaxis.set_major_formatter(_thousands)
    axes.xaxis.set_major_formatter(_thousands)
    axes.set(xlabel="matched labels, the best covered first", ylabel="captions behind a label", xlim=(0, None))
    axes.legend(title="similarity: labels matched", loc="upper right")
    if medians:
        least = min(medians)
        which = "that are classes themselves" if least == 0 else f"with a class at 1/{least + 1} or more"
        axes.set_title(f"Of the labels {which}, half have {medians[least]:,.0f} captions or fewer")
    return finished(figure)


def plot_coverage_by_threshold(coverage: pd.DataFrame, threshold: int, title: str) -> Figure:
    """Recall and precision of coverage against the pruning threshold; a line for each similarity."""
    use_theme()
    figure, panels = plt.subplots(1, 2, figsize=(11, 4.1), sharex=True)
    for axes, column in zip(panels, ("recall", "precision"), strict=True):
        for (steps, group), marker in zip(coverage.groupby("steps"), STEP_MARKERS, strict=False):
            name = group["similarity"].iloc[0]
            axes.plot(group["threshold"], group[column], marker=marker, color=STEP_COLOURS[steps], linewidth=2, label=name)
        axes.axvline(threshold, color=COLOURS["grey"], linestyle="--", linewidth=1.2)
        axes.set_xscale("symlog", linthresh=1)
        axes.set_xlim(min(-0.2, coverage["threshold"].min()), max(coverage["threshold"].max(), 1) * 1.6)
        axes.xaxis.set_major_formatter(_thousands)
        axes.yaxis.set_major_formatter(PercentFormatter(1.0))
        axes.set(xlabel="pruning threshold (captions)", ylim=(0, 1.02))
    panels[0].set_ylabel("recall: labels with a match")
    panels[1].set_ylabel("precision: classes that match a label")
    panels[1].legend(title="path similarity at least", fontsize=10)
    exact = coverage[coverage["steps"] == 0].set_index("threshold")
    first, at = exact.iloc[0], exact.loc[threshold]
    panels[0].set_title(f"Pruning at {threshold:,} takes exact recall of\n{title} from {first.recall:.1%} to {at.recall:.1%}")
    panels[1].set_title(f"and exact precision from {first.precision:.1%}\nto {at.precision:.1%}")
    return finished(figure)


def plot_lenders(lenders: pd.DataFrame, missing: int) -> Figure:
    """Classes that most missing labels have as their nearest, with the similarity at which they would lend their row."""
    use_theme()
    shown = lenders.iloc[::-1]
    figure, axes = plt.subplots(figsize=(9.5, 0.38 * len(shown) + 1.3))
    if not len(lenders):
        axes.set_axis_off()
        axes.set_title(f"No class could lend to the {missing:,} missing labels" if missing else "No label is missing")
        return finished(figure)
    axes.barh(shown["nearest"], shown["labels"], color=COLOURS["blue"])
    for y, row in enumerate(shown.itertuples()):
        examples = row.such_as if len(row.such_as) < 62 else row.such_as[:60].rsplit(",", 1)[0] + ", …"
        axes.text(row.labels, y, f"  {row.similarity:.2f}   {examples}", va="center", fontsize=10)
    axes.set(xlabel="missing labels whose nearest class it is", xlim=(0, shown["labels"].max() * 2.1))
    axes.grid(visible=False)
    top = lenders.iloc[0]
    axes.set_title(
        f"{top.labels:,} of the {missing:,} missing labels would borrow from {top.nearest}\n"
        "(beside the bars: mean path similarity, some of the labels)"
    )
    return finished(figure)


def plot_coverage_by_field(fields: pd.DataFrame, min_similarity: float, most: int = 10) -> Figure:
    """Labels that are a class, have a near one or have none, by WordNet's field of meaning."""
    use_theme()
    shown = fields.head(most).iloc[::-1]
    figure, axes = plt.subplots(figsize=(8.5, 0.36 * len(shown) + 1.5))
    left = np.zeros(len(shown))
    for column, name, colour in (
        ("exact", "is a class", COLOURS["blue"]),
        ("near", f"has one at {min_similarity:.2g} or more", COLOURS["sky"]),
        ("missing", "has none so near", "#D9D9D9"),
    ):
        axes.barh(shown["field"], shown[column], left=left, color=colour, label=name)
        left += shown[column].to_numpy()
    axes.set(xlabel="labels", xlim=(0, left.max() * 1.02))
    axes.legend(loc="lower right")
    axes.grid(axis="y", visible=False)
    total = fields[["exact", "near", "missing"]].sum(axis=1)
    worst = fields[total >= max(10, 0.05 * total.sum())].assign(share=fields["missing"] / total).sort_values("share")
    if len(worst):
        axes.set_title(
            f"{worst['field'].iloc[-1]} is covered least ({1 - worst['share'].iloc[-1]:.0%}), "
            f"{worst['field'].iloc[0]} best ({1 - worst['share'].iloc[0]:.0%})"
        )
    return finished(figure)
