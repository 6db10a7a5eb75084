"""Notebook 06's answers: what zero-shot and each option of Transfer Init are worth, which labels gain, where it leads."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

from ..artefacts import provenance, write_table
from ..labels import LabelSet, Vocabulary
from ..labels.borrowing import BORROWING, Borrowed, borrow
from ..models import PretrainedModel
from ..models.heads import Head
from ..models.transfer import BIASES, fit_scale, transfer_head
from .features import model_fingerprint
from .scoring import top_k_hits
from .transfer_curves import ADDED, LP_FT, PEERS, RANDOM, TRANSFER, Curve, fit_heads
from .transfer_init import Budget, Part, Task, draw

KINDS = {"own": "own synset", "hyponyms": "synsets below it", "similar": "similar synsets", "none": "none: starts at random"}
CONFIDENCE = 0.95


def summarise_borrowing(label_set: LabelSet, borrowed: Sequence[Borrowed], vocabulary: Vocabulary) -> pd.DataFrame:
    """How many labels borrow what, with examples; the unmatched are named in full in the run's CSV."""
    rows = []
    for kind, told in KINDS.items():
        mine = [i for i, found in enumerate(borrowed) if found.kind == kind]
        captions = [int(vocabulary.counts[borrowed[i].rows].sum()) for i in mine]
        rows.append(
            {
                "borrows": told,
                "labels": len(mine),
                "rows a label": np.mean([len(borrowed[i].rows) for i in mine]) if mine else 0.0,
                "captions a label (median)": float(np.median(captions)) if mine else 0.0,
                "such as": ", ".join(label_set.names[i] for i in mine[:6]),
            }
        )
    return pd.DataFrame(rows)


def head_of(
    model: PretrainedModel, task: Task, *, scale: str = "as trained", bias: str = "prior"
) -> Callable[[int, Part], Head]:
    """How Transfer Init starts: (seed, images to train on) -> a head; see `transfer_head` for scale and bias.

    scale "fitted" is the one temperature that suits the images to train on best; without images, as trained.
    """

    def start(seed: int, train: Part) -> Head:
        if scale != "fitted":
            return transfer_head(model, task.borrowed, scale=scale, bias=bias, seed=seed)
        head = transfer_head(model, task.borrowed, bias=bias, seed=seed)
        if not len(train):
            return head
        fitted = fit_scale(head, train.features.features, task.targets(train))
        return Head(head.weight * fitted, head.bias * fitted)

    return start


# --- no labels --------------------------------------------------------------------------------------------------------------


def zero_shot_table(model: PretrainedModel, task: Task) -> pd.DataFrame:
    """Zero-shot from the synset head, with and without the prior correction, over the labels that borrow a row.

    Columns: test, prior correction, classes, images, top-1, top-5.
    """
    known = np.array([len(found.rows) > 0 for found in task.borrowed])
    if not known.any():
        return pd.DataFrame(columns=["test", "prior correction", "classes", "images", "top-1", "top-5"])
    rows = []
    for name, part in task.tests.items():
        targets = task.targets(part)
        for corrected in (True, False):
            # Of labels that borrow rows, the head that Transfer Init starts from scores as zero-shot does.
            head = transfer_head(model, task.borrowed, bias="prior" if corrected else "copied")
            scores = np.where(known, head.scores(part.features.features), -np.inf)
            hits = top_k_hits(scores[known[targets]], targets[known[targets]])
            facts = {"test": name, "prior correction": corrected, "classes": int(known.sum())}
            rows.append(facts | {"images": int(known[targets].sum())} | {f"top-{k}": hit for k, hit in hits.items()})
    return pd.DataFrame(rows)


# --- options ----------------------------------------------------------------------------------------------------------------


def measure_options(
    model: PretrainedModel, task: Task, budget: Budget, seeds: Sequence[int], *, min_similarity: float, epochs: int = 30
) -> pd.DataFrame:
    """Each option of Transfer Init by itself, the others at their defaults: top-1 on the validation images.

    Columns: option, value, labels with rows, without labels, and top-1 after a linear probe on `budget` (mean over seeds).
    """
    settings = [("borrow", how, {}) for how in BORROWING]
    settings += [("bias", bias, {"bias": bias}) for bias in BIASES]
    settings += [("scale", scale, {"scale": scale}) for scale in ("as trained", "unit", "fitted")]
    wanted, features = task.targets(task.validation), task.validation.features.features
    draws = [(seed, task.pool.take(draw(task, budget, seed))) for seed in seeds]
    rows, starts = [], []
    for option, value, given in settings:
        tried = task
        if option == "borrow":
            lent = borrow(task.label_set, model.vocabulary, value, fallback=(), min_similarity=min_similarity)
            tried = replace(task, borrowed=lent)
        starts.append(head_of(model, tried, **given))
        untrained = starts[-1](seeds[0], task.pool.take(np.empty(0, np.int64)))
        facts = {"option": option, "value": value, "labels with rows": sum(len(found.rows) > 0 for found in tried.borrowed)}
        rows.append(facts | {"no labels": top_k_hits(untrained.scores(features), wanted)[1]})
    fitted = [fit_heads(task, part, [at(seed, part) for at in starts], epochs, seed, model.device) for seed, part in draws]
    hits = [[top_k_hits(head.scores(features), wanted)[1] for _, head in of_seed] for of_seed in fitted]
    return pd.DataFrame(rows).assign(**{budget.name: np.mean(hits, axis=0)})


# --- curves -----------------------------------------------------------------------------------------------------------------


def with_bands(table: pd.DataFrame, value: str = "top-1") -> pd.DataFrame:
    """Mean over seeds and its 95 % confidence band (Student's t; NaN for one seed): columns mean, low, high, seeds."""
    from scipy.stats import t

    keys = ["method", "kind", "test", "budget", "init"]
    found = table.groupby(keys, sort=False, observed=True)[value].agg(["mean", "std", "count"]).reset_index()
    spread = t.ppf((1 + CONFIDENCE) / 2, np.maximum(found["count"] - 1, 1)) * found["std"] / np.sqrt(found["count"])
    found = found.assign(low=found["mean"] - spread, high=found["mean"] + spread)
    images = table.groupby(["method", "kind", "test", "budget"], sort=False)[["images", "images a class"]].mean().reset_index()
    return found.rename(columns={"count": "seeds"}).drop(columns="std").merge(images, how="left")


def margins(table: pd.DataFrame, value: str = "top-1", init: str = TRANSFER) -> pd.DataFrame:
    """Transfer Init (or another start) less Random Init on the same images, with the band of that difference over seeds."""
    keys = ["method", "kind", "test", "budget", "seed", "images", "images a class"]
    wide = table[table["init"].isin((init, RANDOM))].pivot_table(index=keys, columns="init", values=value, sort=False)
    paired = (wide[init] - wide[RANDOM]).dropna().rename(value).reset_index().assign(init="margin")
    return with_bands(paired, value)


FORMATS = {
    "images": "{:.0f}",
    **dict.fromkeys((TRANSFER, RANDOM, LP_FT, *PEERS), "{:.1%}"),
    "margin": "{:+.1%}",
    "± 95 %": "{:.1%}",
}


def summarise_tables(tables: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """Mean top-1 over seeds, a row a method, test and size, a column a start."""
    table = pd.concat([table for table in tables if len(table)], ignore_index=True)
    means = with_bands(table)
    wide = means.pivot_table(index=["method", "test", "budget", "images"], columns="init", values="mean", sort=False)
    ahead = margins(table).set_index(["method", "test", "budget"])
    index = [key[:3] for key in wide.index]
    wide["margin"] = ahead.loc[index, "mean"].to_numpy()
    wide["± 95 %"] = (ahead["high"] - ahead["mean"]).loc[index].to_numpy()
    return wide.reset_index()


def label_gains(curve: Curve, task: Task, vocabulary: Vocabulary, budget: str, method: str = "linear probe") -> pd.DataFrame:
    """Accuracy of each label under both starts at one budget, mean over seeds, the largest gain first.

    Columns: label, borrows, captions (behind the rows it borrows), Transfer Init, Random Init, gain. Labels without a test
    image are left out.
    """

    def mean_of(init: str) -> np.ndarray:
        found = [hits for key, hits in curve.hits.items() if key[:3] == (method, init, budget)]
        return np.mean(found, axis=0)

    table = pd.DataFrame(
        {
            "label": task.label_set.names,
            "borrows": [KINDS[found.kind] for found in task.borrowed],
            "captions": [int(vocabulary.counts[found.rows].sum()) for found in task.borrowed],
            TRANSFER: mean_of(TRANSFER),
            RANDOM: mean_of(RANDOM),
        }
    )
    table = table.assign(gain=table[TRANSFER] - table[RANDOM]).dropna(subset="gain")
    return table.sort_values(["gain", "label"], ascending=[False, True], ignore_index=True)


def smallest_with_images(curve: Curve) -> str:
    """The smallest size that trained on an image for every other label, else the largest."""
    sizes = curve.table.drop_duplicates("budget").sort_values("images")
    enough = sizes[sizes["images a class"] >= 0.5]
    return (enough if len(enough) else sizes.tail(1))["budget"].iloc[0]


def budget_named(budgets: Sequence[Budget], name: str) -> Budget:
    """The budget of that name."""
    return next(budget for budget in budgets if budget.name == name)


def summarise_gains(gains: pd.DataFrame) -> pd.DataFrame:
    """Labels that gained, lost and stayed by what they borrow, with their mean gain."""
    grouped = gains.groupby("borrows", sort=False)["gain"]
    counts = {
        "labels": grouped.size(),
        "gained": grouped.apply(lambda g: int((g > 0).sum())),
        "lost": grouped.apply(lambda g: int((g < 0).sum())),
        "as before": grouped.apply(lambda g: int((g == 0).sum())),
        "mean gain": grouped.mean(),
    }
    return pd.DataFrame(counts).reset_index()


# --- results ----------------------------------------------------------------------------------------------------------------


def write_results(path: Path, curves: Sequence[Curve], model: PretrainedModel) -> Path:
    """Store the curves with their provenance."""
    table = pd.concat([curve.table for curve in curves if len(curve.table)], ignore_index=True)
    return write_table(table, path, provenance(model=model_fingerprint(model)))


def findings(curves: Sequence[Curve], zero_shot: pd.DataFrame, gains: pd.DataFrame) -> str:
    """What Transfer Init gave, as Markdown."""
    lines = []
    for _, row in zero_shot[zero_shot["prior correction"].astype(bool)].iterrows():
        lines.append(
            f"- {row['test']}: zero-shot **{row['top-1']:.3f}** (top-5 {row['top-5']:.3f}) over {row['classes']} classes."
        )
    for curve in curves:
        if len(curve.table):
            for init in (TRANSFER, ADDED):
                if init in set(curve.table["init"]):
                    lines += _told_margins(margins(curve.table, init=init), init)
    gained, lost = int((gains["gain"] > 0).sum()), int((gains["gain"] < 0).sum())
    lines.append(f"- Label by label at the smallest size: {gained} gain, {lost} lose, {len(gains) - gained - lost} stay.")
    return "\n".join(lines)


def _told_margins(table: pd.DataFrame, init: str) -> list[str]:
    """A line a method and test: the margin over Random Init at every size, and at how many it is beyond its band."""
    lines = []
    for (method, test), part in table.groupby(["method", "test"], sort=False):
        told = ", ".join(f"{row['budget']}: {row['mean']:+.3f}" for _, row in part.iterrows())
        drawn = part[part["images"] > 0]  # without images Transfer Init has no spread
        sure = int((drawn["low"] > 0).sum())
        beyond = f"; at {sure} of {len(drawn)} with images beyond the 95 % band of its seeds" if part["seeds"].max() > 1 else ""
        lines.append(
            f"- {method}, {test}: {init} less Random Init, top-1: {told}. It leads at "
            f"{int((part['mean'] > 0).sum())} of {len(part)} sizes{beyond}."
        )
    return lines
