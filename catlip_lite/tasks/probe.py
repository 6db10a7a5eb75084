"""Notebook 05: frozen features → linear probes and k-NN (paper section 4.2 and figure 5), beside pixels and an untrained ViT.

Settings are chosen on a validation split of the training images; then each classifier is fitted to all of them. Test images are
only scored. `probe_report` says what came of it.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd

from ..data.labelled import LabelledImages, load_labelled, named_addresses
from ..models import PretrainedModel
from ..models.calibration import fit_temperature
from ..models.heads import Head, random_head
from ..progress import progress
from ..transfer.heads import HeadRecipe, train_heads
from ..transfer.linear_probe import Examples, Fit
from ..transfer.linear_probe import logistic_probe as fit_logistic
from ..transfer.linear_probe import ridge_probe as fit_ridge
from ..transfer.neighbours import nearest, neighbour_scores
from .features import Features, extract, join, pixel_features, split_validation, untrained
from .scoring import Answers, answers_of, standard_error, top_k_hits

logger = logging.getLogger(__name__)

TRAINED, UNTRAINED, PIXELS = "trained ViT", "untrained ViT", "pixels"
LEARNING_RATES = (3e-5, 3e-4, 3e-3, 3e-2)  # the paper's, and what few images need
NEIGHBOURS = (1, 3, 5, 10, 20, 50)
RANKED_NEIGHBOURS = 128  # beyond the k that vote, so that there are second to fifth answers
SHOWN = 8  # names in a warning


@dataclass
class ProbeImages:
    """Labelled images of a probe: to train on, and the test sets by name."""

    train: LabelledImages
    tests: dict[str, LabelledImages]


def load_images(train, tests: Sequence[str], *, label_field: str, group_field: str) -> ProbeImages:
    """Index all labelled images; none is decoded yet. A test has its address's short name, see `named_addresses`."""
    fields = {"label_field": label_field, "group_field": group_field}
    found = {name: load_labelled(address, **fields) for name, address in named_addresses(tests).items()}
    return ProbeImages(load_labelled(train, **fields), found)


def summarise_images(images: ProbeImages) -> pd.DataFrame:
    """Images, classes, images a class and origins of each part, a row each."""
    rows = []
    for name, part in {"train": images.train, **images.tests}.items():
        counts = np.bincount(part.indices, minlength=len(part.classes))
        counts = counts[counts > 0]
        origins = sorted(set(np.unique(part.groups)) - {""})
        told = ", ".join(origins[:SHOWN]) + (f" and {len(origins) - SHOWN:,} more" if len(origins) > SHOWN else "")
        sizes = f"{counts.min():,} to {counts.max():,}" if counts.min() < counts.max() else f"{counts.min():,}"
        rows.append({"part": name, "images": len(part), "classes": len(counts), "images a class": sizes, "from": told})
    return pd.DataFrame(rows)


@dataclass
class ProbeData:
    """One backbone's features, split: `fit` to train on, `validation` to choose settings on, tests by name; C classes.

    device: where the probes are fitted.
    """

    classes: list[str]
    fit: Features
    validation: Features
    tests: dict[str, Features]
    device: str = "cpu"

    def targets(self, part: Features) -> np.ndarray:
        """Class indices int64 [N]; -1 for labels that training lacks, which no answer can hit."""
        position = {label: i for i, label in enumerate(self.classes)}
        names, which = np.unique(part.labels, return_inverse=True)
        return np.array([position.get(name, -1) for name in names], dtype=np.int64)[which]

    @cached_property
    def fit_examples(self) -> Examples:
        """Features and targets of `fit`."""
        return Examples(self.fit.features, self.targets(self.fit))

    @cached_property
    def validation_examples(self) -> Examples:
        """Features and targets of `validation`."""
        return Examples(self.validation.features, self.targets(self.validation))

    def everything(self) -> Examples:
        """Fit and validation together: what the final classifier, its settings chosen, is trained on."""
        both = join([self.fit, self.validation])
        return Examples(both.features, self.targets(both))


def backbone_features(
    model: PretrainedModel,
    images: ProbeImages,
    validation_group: str | None,
    cache: Path,
    *,
    baselines: Sequence[str] | None = ("untrained", "pixels"),
    workers: int = 0,
) -> dict[str, ProbeData]:
    """The trained ViT's features and, of the baselines asked for, an untrained ViT's and the pixels', each split for probing.

    Raises ValueError for another baseline.
    """
    baselines = baselines or ()
    unknown = [name for name in baselines if name not in ("untrained", "pixels")]
    if unknown:
        raise ValueError(f"baselines={list(baselines)}: {unknown[0]!r} is unknown, there are untrained and pixels")
    views = {TRAINED: lambda part: extract(model, part, cache, workers=workers)}
    if "untrained" in baselines:
        blank = untrained(model, images.train, workers=workers)
        views[UNTRAINED] = lambda part: extract(blank, part, cache, workers=workers)
    if "pixels" in baselines:
        views[PIXELS] = lambda part: pixel_features(part, model.evaluation, workers=workers)
    device = str(model.device) if model.device.type == "cuda" else "cpu"
    found = {}
    for name, features_of in views.items():
        tests = {test: features_of(part) for test, part in images.tests.items()}
        found[name] = prepare(features_of(images.train), tests, validation_group, device=device, tell=not found)
    return found


def prepare(
    train: Features,
    tests: Mapping[str, Features],
    validation_group: str | None = None,
    *,
    device: str = "cpu",
    tell: bool = True,
) -> ProbeData:
    """Split the training images; labels of the tests that training lacks are told. Raises ValueError for a single class."""
    chosen = split_validation(train, validation_group)
    classes = np.unique(train.labels).tolist()
    if len(classes) < 2:
        raise ValueError(f"all {len(train):,} training images are of one class, {classes[0]!r}: there is nothing to tell apart")
    absent = sorted(set(classes) - set(np.unique(train.labels[~chosen])))
    if absent and tell:
        logger.warning("%d class(es) have validation images alone until the final fit: %s", len(absent), _some(absent))
    for name, test in tests.items():
        lacking = sorted(set(np.unique(test.labels)) - set(classes))
        if lacking and tell:
            lost = int(np.isin(test.labels, lacking).sum())
            message = "%s: %d label(s) that training lacks count as misses (%s of %s images): %s"
            logger.warning(message, name, len(lacking), f"{lost:,}", f"{len(test):,}", _some(lacking))
    return ProbeData(classes, train.take(~chosen), train.take(chosen), dict(tests), device)


# --- classifiers: each chooses its setting on validation and scores every test ------------------------------------------------


@dataclass
class Outcome:
    """One classifier on one backbone. setting: what validation chose; validation: scores float32 [Nv, C] before it was trained
    on; tests: scores float32 [N, C] of the final classifier, by name."""

    setting: float
    validation: np.ndarray
    tests: dict[str, np.ndarray] = field(default_factory=dict)


def ridge_probe(data: ProbeData) -> Outcome:
    """Ridge regression in closed form; its setting is the penalty."""
    return _solved(fit_ridge(data.fit_examples, data.validation_examples, len(data.classes), device=data.device), data)


def logistic_probe(data: ProbeData) -> Outcome:
    """Multinomial logistic regression by L-BFGS; its setting is the penalty."""
    return _solved(fit_logistic(data.fit_examples, data.validation_examples, len(data.classes), device=data.device), data)


def paper_probe(data: ProbeData, seed: int = 0) -> Outcome:
    """The paper's linear probe, 30 epochs of AdamW, its learning rate the setting.

    Features are standardised, with the fit's mean and deviation: the paper does not say, but with 3e-5 as largest learning rate
    and features of any other scale the rate would mean another thing for every backbone.
    """
    mean, std = data.fit.features.mean(0), data.fit.features.std(0) + 1e-6

    def standardised(features: np.ndarray) -> np.ndarray:
        return (features - mean) / std

    def fit(part: Examples, *lrs: float) -> list[Head]:
        start = random_head(len(data.classes), part.features.shape[1], seed)
        recipes = [HeadRecipe(lr=lr, min_lr=lr / 30) for lr in lrs]
        return train_heads([start] * len(lrs), standardised(part.features), part.targets, recipes, seed, data.device)

    def rate(scores: np.ndarray) -> float:
        return top_k_hits(scores, data.validation_examples.targets)[1]

    heads, seen = fit(data.fit_examples, *LEARNING_RATES), standardised(data.validation.features)
    scores = {lr: head.scores(seen) for lr, head in zip(LEARNING_RATES, heads, strict=True)}
    best = max(scores, key=lambda lr: rate(scores[lr]))
    [head] = fit(data.everything(), best)
    return Outcome(best, scores[best], {name: head.scores(standardised(t.features)) for name, t in data.tests.items()})


def neighbour_probe(data: ProbeData) -> Outcome:
    """k nearest neighbours by cosine, votes weighted by similarity; the setting is k."""
    classes, fit = len(data.classes), data.fit_examples

    def look_up(part: Examples, queries: Features) -> tuple[np.ndarray, np.ndarray]:
        cosines, rows = nearest(part.features, queries.features, RANKED_NEIGHBOURS, data.device)
        return cosines, part.targets[rows]

    found, wanted = look_up(fit, data.validation), data.validation_examples.targets
    ks = [k for k in NEIGHBOURS if k <= len(fit)]
    best = max(ks, key=lambda k: top_k_hits(neighbour_scores(*found, k, classes), wanted)[1])
    everything = data.everything()
    tests = {name: neighbour_scores(*look_up(everything, test), best, classes) for name, test in data.tests.items()}
    return Outcome(best, neighbour_scores(*found, best, classes), tests)


METHODS = {
    "linear probe (ridge)": ridge_probe,
    "linear probe (logistic)": logistic_probe,
    "linear probe (AdamW, 30 epochs)": paper_probe,
    "k-NN": neighbour_probe,
}
SETTINGS = dict(zip(METHODS, ("penalty", "penalty", "learning rate", "k"), strict=True))


def choose_methods(names: Sequence[str] | None) -> dict:
    """The methods whose names begin so or have it in brackets ("ridge", "k-NN"), all for None. Raises ValueError for others."""
    if names is None:
        return METHODS
    chosen = {method: f for method, f in METHODS.items() if any(name.lower() in method.lower() for name in names)}
    lost = [name for name in names if not any(name.lower() in method.lower() for method in METHODS)]
    if lost or not chosen:
        raise ValueError(
            f"probe_methods={list(names)}: {', '.join(lost) or 'nothing'} is no method, there are {', '.join(METHODS)}"
        )
    return chosen


@dataclass
class Scored:
    """What one probe says of one test set: as it is, and with the temperature that validation chose."""

    plain: Answers
    tempered: Answers
    temperature: float


def compare_backbones(
    backbones: Mapping[str, ProbeData], methods: Sequence[str] | None = None
) -> tuple[pd.DataFrame, dict[tuple[str, str, str], Scored]]:
    """Every method on every backbone: a table, a row a test set, and the answers behind it, keyed (backbone, method, test).

    Columns: backbone, method, setting, chosen (its value), test, images, top-1, top-5, standard error of top-1, seconds (choice
    and fit), temperature, and nll and calibration error with and without it.
    """
    rows, found = [], {}
    jobs = [(backbone, method) for backbone in backbones for method in choose_methods(methods)]
    for backbone, method in progress(jobs, "probes", unit="probes"):
        data, started = backbones[backbone], time.perf_counter()
        outcome = METHODS[method](data)
        seconds = time.perf_counter() - started
        temperature = fit_temperature(outcome.validation, data.validation_examples.targets)
        for name, scores in outcome.tests.items():
            targets = data.targets(data.tests[name])
            scored = Scored(answers_of(scores, targets), answers_of(scores, targets, temperature), temperature)
            found[backbone, method, name] = scored
            facts = {"backbone": backbone, "method": method, "setting": SETTINGS[method], "chosen": outcome.setting}
            rows.append(facts | {"test": name} | _figures(scored) | {"seconds": seconds})
    return pd.DataFrame(rows), found


def _figures(scored: Scored) -> dict[str, float]:
    plain, tempered, top1 = scored.plain, scored.tempered, scored.plain.top(1)
    return {
        "images": len(plain),
        "top-1": top1,
        "top-5": plain.top(5),
        "standard error": standard_error(top1, len(plain)),
        "nll": plain.nll,
        "calibration error": plain.calibration_error,
        "temperature": scored.temperature,
        "nll, tempered": tempered.nll,
        "calibration error, tempered": tempered.calibration_error,
    }


def _solved(fit: Fit, data: ProbeData) -> Outcome:
    tests = {name: fit.head.scores(test.features) for name, test in data.tests.items()}
    return Outcome(fit.penalty, fit.validated.scores(data.validation.features), tests)


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:SHOWN]) + (f" and {len(names) - SHOWN:,} more" if len(names) > SHOWN else "")
