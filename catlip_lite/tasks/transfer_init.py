"""Notebook 06: Transfer Init against Random Init by labelled-data size (paper section 4.1, figure 5), and zero-shot.

A target label takes the pre-trained head's row of its synset, several synsets their mean, none a random row. Both heads are
then trained alike on frozen features; learning rates are chosen on labelled images set aside, never on test.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from ..artefacts import provenance, read_table, write_table
from ..data.labelled import load_labelled
from ..labels import LabelSet, Vocabulary, match_labels
from ..models import PretrainedModel, zero_shot_scores
from ..models.heads import Head, random_head
from ..training.heads import HeadRecipe, train_head
from .features import Features, extract, join, model_fingerprint
from .progress import progress
from .scoring import top_k_hits

LEARNING_RATES = (3e-5, 3e-4, 3e-3, 3e-2)  # the paper's, and what few images need


@dataclass
class Parts:
    """Features of the labelled images (in order of preference) and of each test set."""

    labelled: list[Features]
    tests: dict[str, Features]
    addresses: list[str]

    def labels(self) -> list[str]:
        """Labels of the task, sorted: those that both the labelled images and the first test set have."""
        first_test = next(iter(self.tests.values()))
        return sorted(set(first_test.labels) & {label for part in self.labelled for label in part.labels})

    def summary(self) -> pd.DataFrame:
        """Images, classes and origins of each part, a row each."""
        parts = dict(zip(self.addresses, [*self.labelled, *self.tests.values()], strict=True))
        rows = [
            {"images": len(p), "classes": len(set(p.labels)), "from": ", ".join(sorted(set(p.groups) - {""}))}
            for p in parts.values()
        ]
        return pd.DataFrame(rows, index=list(parts))


def load_parts(
    model: PretrainedModel, labelled: Sequence[str], tests: Sequence[str], *, label_field: str, group_field: str, cache: Path
) -> Parts:
    """Read, decode and embed all labelled images; a test is named by the last part of its address."""

    def features(address: str) -> Features:
        images = load_labelled(address, model.image_size, label_field=label_field, group_field=group_field)
        return extract(model, images, cache)

    found = {Path(address).stem: features(address) for address in tests}
    return Parts([features(address) for address in labelled], found, [*map(str, labelled), *map(str, tests)])


@dataclass
class Budget:
    """How much labelled data: `shots` images a class, or a `fraction` of all labelled images (exactly one is set)."""

    shots: int | None = None
    fraction: float | None = None

    @property
    def name(self) -> str:
        """'2 a class' or '10 %'."""
        return f"{self.shots} a class" if self.fraction is None else f"{100 * self.fraction:g} %"


def budgets(shots: Sequence[int] | None, fractions: Sequence[float] | None) -> list[Budget]:
    """The budgets of a curve. Raises ValueError unless exactly one of the two is given, with sensible values."""
    if bool(shots) == bool(fractions):
        raise ValueError("give either shots (images a class) or fractions (of the labelled images), not both")
    if any(k < 0 for k in shots or ()) or any(not 0 <= f <= 1 for f in fractions or ()):
        raise ValueError(f"shots {shots} must be 0 or more, fractions {fractions} within 0..1")
    return [Budget(shots=k) for k in shots] if shots else [Budget(fraction=f) for f in fractions]


@dataclass
class Task:
    """A downstream task as one backbone sees it.

    label_set: C labels, sorted. rows: for each the vocabulary rows it borrows. pool: labelled images to draw from, the
    preferred ones first (`priority` int [N], 0 before 1). validation: to choose learning rates on. tests: by name.
    """

    label_set: LabelSet
    rows: list[np.ndarray]
    pool: Features
    priority: np.ndarray
    validation: Features
    tests: dict[str, Features]

    def targets(self, part: Features) -> np.ndarray:
        """Class indices, int64 [N]."""
        position = {name: i for i, name in enumerate(self.label_set.names)}
        return np.array([position[label] for label in part.labels])


def match_task_labels(
    labels: Sequence[str], vocabulary: Vocabulary, min_similarity: float, label_matches=None, allow_unknown: bool = False
) -> pd.DataFrame:
    """Which vocabulary rows each label borrows (columns of `match_labels`), computed, or read from a table that a person has
    checked (`label_matches`: parquet with columns label, matches). Raises ValueError if that table lacks labels."""
    if label_matches is None:
        label_set = LabelSet.from_names(list(labels), title="labels of the task", allow_unknown=allow_unknown)
        return match_labels(label_set, vocabulary, min_similarity)
    table, _ = read_table(label_matches, columns=("label", "matches"), written_by="03_imagenet_overlap")
    lacking = sorted(set(labels) - set(table["label"]))
    if lacking:
        raise ValueError(f"{label_matches} lacks {len(lacking)} label(s) of the task ({', '.join(lacking[:8])}): add them")
    return table.set_index("label").loc[list(labels)].reset_index()


def prepare_task(
    matches: pd.DataFrame,
    vocabulary: Vocabulary,
    labelled: Sequence[Features],
    tests: Mapping[str, Features],
    validation_share: float = 0.2,
) -> Task:
    """Split the labelled images (in order of preference) into pool and validation; images of other labels are left out.

    Validation is a random share of the preferred images, drawn once with a fixed seed. Labels borrow their own synsets'
    rows where the vocabulary has them, else those of `matches`.
    Raises ValueError if no image is left in a part.
    """
    label_set = LabelSet("task", tuple(matches["label"]), tuple(tuple(w) for w in matches.get("wnids", matches["matches"])))
    own = matches["exact"] if "exact" in matches else matches["matches"]
    rows = [vocabulary.encode(e if len(e) else m) for e, m in zip(own, matches["matches"], strict=True)]
    priority = np.repeat(np.arange(len(labelled)), [len(part) for part in labelled])
    everything = join(labelled)
    wanted = np.isin(everything.labels, label_set.names)
    if not 0 < validation_share < 1:
        raise ValueError(f"validation_share={validation_share} must be between 0 and 1: it chooses the learning rates")
    validating = (priority == 0) & (np.random.default_rng(0).random(len(everything)) < validation_share)
    pool, validation = wanted & ~validating, wanted & validating
    tests = {name: part.take(np.isin(part.labels, label_set.names)) for name, part in tests.items()}
    if not pool.any() or not validation.any() or any(len(part) == 0 for part in tests.values()):
        raise ValueError(
            f"labelled images {pool.sum()}, validation {validation.sum()}, tests {[len(p) for p in tests.values()]}: none may "
            "be empty; do the labelled images and the tests have labels in common?"
        )
    return Task(label_set, rows, everything.take(pool), priority[pool], everything.take(validation), tests)


def transfer_head(model: PretrainedModel, rows: Sequence[np.ndarray], seed: int) -> Head:
    """Transfer Init: each label's weights are the mean of its rows of the pre-trained head, random where it has none.

    Its bias is the rows' mean bias less their log prior odds, so that an untrained head scores as zero-shot does.
    """
    head = random_head(len(rows), model.network.head.in_features, seed)
    weight = model.network.head.weight.detach().cpu()
    bias = model.network.head.bias.detach().cpu() - torch.from_numpy(model.vocabulary.log_prior_odds())
    for label, chosen in enumerate(rows):
        if len(chosen):
            head.weight[label] = weight[chosen.astype(np.int64)].mean(0)
            head.bias[label] = bias[chosen.astype(np.int64)].mean()
    unmatched = [i for i, chosen in enumerate(rows) if not len(chosen)]
    matched = [i for i, chosen in enumerate(rows) if len(chosen)]
    if unmatched and matched:
        head.bias[unmatched] = head.bias[matched].mean()
    return head


def draw(task: Task, budget: Budget, seed: int) -> np.ndarray:
    """Rows of the pool to train on: at random within a class, preferred images first; fewer where a class has fewer."""
    rng = np.random.default_rng(seed)
    if budget.fraction is not None:
        return rng.permutation(len(task.pool))[: round(budget.fraction * len(task.pool))]
    chosen = []
    for label in task.label_set.names:
        mine = rng.permutation(np.flatnonzero(task.pool.labels == label))
        chosen.append(mine[np.argsort(task.priority[mine], kind="stable")][: budget.shots])
    return np.concatenate(chosen).astype(np.int64)


def learning_curve(
    task: Task, model: PretrainedModel, sizes: Sequence[Budget], seeds: Sequence[int], epochs: int = 30
) -> pd.DataFrame:
    """Top-1 and top-5 of every classifier at every size, for every seed and test.

    Classifiers: Transfer Init, Random Init (the same training, another start), class means and nearest neighbour on the same
    features. Columns: budget, images (trained on), images a class, init, seed, lr, test, top-1, top-5.
    """
    rows = []
    for budget, seed in progress([(b, s) for b in sizes for s in seeds], "transfer init", unit="draws"):
        train = task.pool.take(draw(task, budget, seed))
        facts = {"budget": budget.name, "images": len(train), "images a class": len(train) / len(task.label_set), "seed": seed}
        starts = {
            "Transfer Init": transfer_head(model, task.rows, seed),
            "Random Init": random_head(len(task.rows), task.pool.features.shape[1], seed),
        }
        scored = {name: _train_and_score(task, train, start, epochs, seed) for name, start in starts.items()}
        if len(train):
            scored |= {name: (None, peer(task, train)) for name, peer in PEERS.items()}
        for init, (lr, scores) in scored.items():
            for test, found in scores.items():
                hits = top_k_hits(found, task.targets(task.tests[test]))
                rows.append(facts | {"init": init, "lr": lr, "test": test} | {f"top-{k}": v for k, v in hits.items()})
    return pd.DataFrame(rows)


def zero_shot_table(task: Task, vocabulary: Vocabulary) -> pd.DataFrame:
    """Zero-shot straight from the synset head, with and without the prior correction, on every test."""
    rows = []
    for name, test in task.tests.items():
        known = np.array([len(r) > 0 for r in task.rows])
        targets = task.targets(test)
        for corrected in (True, False):
            scores = zero_shot_scores(test.logits, task.rows, vocabulary, prior_corrected=corrected)
            hits = top_k_hits(scores[known[targets]], targets[known[targets]])
            facts = {
                "test": name,
                "prior correction": corrected,
                "classes": int(known.sum()),
                "images": int(known[targets].sum()),
            }
            rows.append(facts | {f"top-{k}": v for k, v in hits.items()})
    return pd.DataFrame(rows)


def summarise_matches(matches: pd.DataFrame) -> pd.DataFrame:
    """How many labels borrow one row, several, or none, with examples."""
    borrowed = [len(e) or len(m) for e, m in zip(matches.get("exact", matches["matches"]), matches["matches"], strict=True)]
    kind = pd.Series(["none: starts at random" if n == 0 else "one row" if n == 1 else "mean of several" for n in borrowed])
    examples = matches["label"].groupby(kind.to_numpy()).agg(lambda names: ", ".join(names[:6]))
    return pd.DataFrame({"labels": kind.value_counts(), "such as": examples})


def summarise_curve(curve: pd.DataFrame) -> pd.DataFrame:
    """Mean top-1 over seeds, a row a test and size, a column a classifier, with images trained on."""
    means = curve.pivot_table(index=["test", "budget"], columns="init", values="top-1", sort=False)
    images = curve.groupby(["test", "budget"], sort=False)["images"].mean().round().astype(int)
    return means.assign(images=images).round(3)


def write_results(path: Path, curve: pd.DataFrame, model: PretrainedModel) -> Path:
    """Store the curve with its provenance."""
    return write_table(curve, path, provenance(model=model_fingerprint(model)))


def findings(curve: pd.DataFrame, zero_shot: pd.DataFrame) -> str:
    """What Transfer Init gave, as Markdown."""
    lines = []
    corrected = zero_shot[zero_shot["prior correction"]].set_index("test")
    for test, part in curve.groupby("test", sort=False):
        means = part.pivot_table(index="budget", columns="init", values="top-1", sort=False)
        gain = means["Transfer Init"] - means["Random Init"]
        told = ", ".join(
            f"{size}: {means['Transfer Init'][size]:.3f} against {means['Random Init'][size]:.3f}" for size in means.index
        )
        lines.append(
            f"- {test}: zero-shot **{corrected.loc[test, 'top-1']:.3f}** over {corrected.loc[test, 'classes']} classes. "
            f"Transfer Init against Random Init: {told}. It leads at {int((gain > 0).sum())} of {len(gain)} sizes, by up to "
            f"{gain.max():.3f}."
        )
    return "\n".join(lines)


def _train_and_score(task: Task, train: Features, start: Head, epochs: int, seed: int) -> tuple[float | None, dict]:
    """The learning rate that validates best, and that head's scores on every test; no training on no images."""
    candidates = [(None, start)]
    if len(train):
        targets = task.targets(train)
        recipes = [(lr, HeadRecipe(epochs=epochs, lr=lr, min_lr=lr / 30)) for lr in LEARNING_RATES]
        candidates = [(lr, train_head(start, train.features, targets, recipe, seed)) for lr, recipe in recipes]
    wanted = task.targets(task.validation)
    lr, head = max(candidates, key=lambda pair: top_k_hits(pair[1].scores(task.validation.features), wanted)[1])
    return lr, {name: head.scores(test.features) for name, test in task.tests.items()}


def _class_means(task: Task, train: Features) -> dict[str, np.ndarray]:
    """Cosine to the mean feature of each class; a class without images scores lowest."""
    targets = task.targets(train)
    unit = train.features / np.linalg.norm(train.features, axis=1, keepdims=True)
    sums = np.zeros((len(task.label_set), unit.shape[1]), np.float32)
    np.add.at(sums, targets, unit)
    length = np.linalg.norm(sums, axis=1, keepdims=True)
    scores = {name: test.features @ (sums / np.maximum(length, 1e-9)).T for name, test in task.tests.items()}
    return {name: np.where(length.T > 0, found, -np.inf) for name, found in scores.items()}


def _nearest_neighbour(task: Task, train: Features) -> dict[str, np.ndarray]:
    """Cosine to the nearest image of each class."""
    targets = task.targets(train)
    unit = train.features / np.linalg.norm(train.features, axis=1, keepdims=True)
    result = {}
    for name, test in task.tests.items():
        similarity = test.features @ unit.T
        scores = np.full((len(test), len(task.label_set)), -np.inf, np.float32)
        for column, target in enumerate(targets):
            np.maximum(scores[:, target], similarity[:, column], out=scores[:, target])
        result[name] = scores
    return result


PEERS = {"class means": _class_means, "nearest neighbour": _nearest_neighbour}
