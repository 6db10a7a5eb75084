"""Notebook 05: frozen features → linear probe and k-NN (paper section 4.2 and figure 5), beside pixels and an untrained ViT.

Regularisation is chosen on a validation split of the training images; test images are only scored.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from ..artefacts import provenance, write_table
from ..data.labelled import LabelledImages, load_labelled
from ..models import PretrainedModel
from ..models.heads import random_head
from ..training.heads import HeadRecipe, train_head
from .features import Features, extract, join, model_fingerprint, pixel_features, split_validation, untrained
from .progress import progress
from .scoring import per_class_accuracy, top_k_hits

TRAINED = "trained ViT"

logger = logging.getLogger(__name__)

LEARNING_RATES = (3e-5, 3e-4, 3e-3, 3e-2)  # the paper's, and what few images need
INVERSE_PENALTIES = (0.01, 0.1, 1.0, 10.0, 100.0)
NEIGHBOURS = (1, 3, 5, 9)


@dataclass
class ProbeData:
    """One backbone's features, split: `fit` to train on, `validation` to choose settings on, tests by name; C classes."""

    classes: list[str]
    fit: Features
    validation: Features
    tests: dict[str, Features]

    def targets(self, part: Features) -> np.ndarray:
        """Class indices int64 [N]; -1 for labels that training lacks, which no answer can hit."""
        position = {label: i for i, label in enumerate(self.classes)}
        return np.array([position.get(label, -1) for label in part.labels])

    @property
    def everything(self) -> Features:
        """Fit and validation together: what the final classifier, its settings chosen, is trained on."""
        return join([self.fit, self.validation])


@dataclass
class ProbeImages:
    """Labelled images of a probe: to train on, and the test sets by name."""

    train: LabelledImages
    tests: dict[str, LabelledImages]


def load_images(model: PretrainedModel, train, tests: Sequence[str], *, label_field: str, group_field: str) -> ProbeImages:
    """Read and decode all labelled images at the model's size; a test is named by the last part of its address."""
    fields = {"label_field": label_field, "group_field": group_field}
    loaded = {Path(address).stem: load_labelled(address, model.image_size, **fields) for address in tests}
    return ProbeImages(load_labelled(train, model.image_size, **fields), loaded)


def summarise_images(images: ProbeImages) -> pd.DataFrame:
    """Images, classes and origins of each part, a row each."""
    parts = {"train": images.train, **images.tests}
    rows = {
        name: {"images": len(part), "classes": len(part.classes), "from": ", ".join(sorted(set(part.groups) - {""}))}
        for name, part in parts.items()
    }
    return pd.DataFrame(rows).T


def backbone_features(
    model: PretrainedModel, images: ProbeImages, validation_group: str | None, cache: Path
) -> dict[str, ProbeData]:
    """The trained ViT's features, an untrained ViT's and the pixels themselves, each split for probing."""

    def probe_data(features_of) -> ProbeData:
        tests = {name: features_of(part) for name, part in images.tests.items()}
        return prepare(features_of(images.train), tests, validation_group)

    blank = untrained(model, images.train)
    return {
        TRAINED: probe_data(lambda part: extract(model, part, cache)),
        "untrained ViT": probe_data(lambda part: extract(blank, part, cache)),
        "pixels": probe_data(pixel_features),
    }


def prepare(train: Features, tests: Mapping[str, Features], validation_group: str | None = None) -> ProbeData:
    """Split the training images and standardise nothing; labels of the tests that training lacks are told."""
    chosen = split_validation(train, validation_group)
    classes = sorted(set(train.labels))
    for name, test in tests.items():
        lacking = sorted(set(test.labels) - set(classes))
        if lacking:
            logger.warning(
                "%s: %d label(s) that training lacks count as misses: %s", name, len(lacking), ", ".join(lacking[:8])
            )
    return ProbeData(classes, train.take(~chosen), train.take(chosen), dict(tests))


# --- classifiers: each chooses its setting on validation and returns scores for every test ---------------------------------


def paper_probe(data: ProbeData, seed: int = 0) -> tuple[float, dict[str, np.ndarray]]:
    """The paper's linear probe (30 epochs of AdamW on standardised features); its learning rate is the setting."""
    mean, std = data.fit.features.mean(0), data.fit.features.std(0) + 1e-6

    def fit(part: Features, lr: float):
        start = random_head(len(data.classes), part.features.shape[1], seed)
        return train_head(start, (part.features - mean) / std, data.targets(part), HeadRecipe(lr=lr, min_lr=lr / 30), seed)

    best = max(LEARNING_RATES, key=lambda lr: _top1(fit(data.fit, lr).scores((data.validation.features - mean) / std), data))
    head = fit(data.everything, best)
    return best, {name: head.scores((test.features - mean) / std) for name, test in data.tests.items()}


def logistic_probe(data: ProbeData) -> tuple[float, dict[str, np.ndarray]]:
    """Multinomial logistic regression to convergence (L-BFGS); its setting is C, the inverse of the L2 penalty."""
    from sklearn.linear_model import LogisticRegression

    mean, std = data.fit.features.mean(0), data.fit.features.std(0) + 1e-6

    def standardised(part: Features) -> np.ndarray:
        return (part.features - mean) / std

    def scores(model: LogisticRegression, part: Features) -> np.ndarray:
        return _spread(model.decision_function(standardised(part)), list(model.classes_), data.classes)

    # From strong to weak penalty, each fit starting from the last: a fraction of the iterations of separate fits.
    model = LogisticRegression(max_iter=1000, tol=1e-3, warm_start=True)
    validated = {}
    for penalty in INVERSE_PENALTIES:
        model.set_params(C=penalty / data.fit.features.shape[1]).fit(standardised(data.fit), data.fit.labels)
        validated[penalty] = _top1(scores(model, data.validation), data)
    best = max(validated, key=validated.get)
    everything = data.everything
    model = LogisticRegression(C=best / everything.features.shape[1], max_iter=1000, tol=1e-3)
    model.fit(standardised(everything), everything.labels)
    return best, {name: scores(model, test) for name, test in data.tests.items()}


def neighbour_probe(data: ProbeData) -> tuple[int, dict[str, np.ndarray]]:
    """k nearest neighbours by cosine, votes weighted by similarity; the setting is k."""

    def scores(part: Features, queries: Features, k: int) -> np.ndarray:
        reference = part.features / np.linalg.norm(part.features, axis=1, keepdims=True)
        wanted = queries.features / np.linalg.norm(queries.features, axis=1, keepdims=True)
        similarity = wanted @ reference.T
        k = min(k, similarity.shape[1])
        nearest = np.argpartition(-similarity, k - 1, axis=1)[:, :k]
        votes = np.exp(np.take_along_axis(similarity, nearest, 1) / 0.05)
        # A class without a vote is ranked by its nearest image, below all classes with votes.
        result = np.full((len(queries), len(data.classes)), -2.0, dtype=np.float64)
        targets = data.targets(part)
        for label in np.unique(targets):
            result[:, label] = similarity[:, targets == label].max(axis=1) - 2.0
        np.add.at(result, (np.arange(len(queries))[:, None], targets[nearest]), votes)
        return result

    best = max(NEIGHBOURS, key=lambda k: _top1(scores(data.fit, data.validation, k), data))
    return best, {name: scores(data.everything, test, best) for name, test in data.tests.items()}


METHODS = {
    "linear probe (AdamW, 30 epochs)": paper_probe,
    "linear probe (L-BFGS)": logistic_probe,
    "k-NN": neighbour_probe,
}


def compare_backbones(backbones: Mapping[str, ProbeData]) -> tuple[pd.DataFrame, dict]:
    """Every method on every backbone: a table (backbone, method, setting, test, images, top-1, top-5, standard error of top-1)
    and the scores behind it.

    Scores are keyed by (backbone, method, test): float [N, C].
    """
    rows, all_scores = [], {}
    jobs = [(backbone, method) for backbone in backbones for method in METHODS]
    for backbone, method in progress(jobs, "probes", unit="probes"):
        data = backbones[backbone]
        setting, scores = METHODS[method](data)
        for name, test in data.tests.items():
            hits = test_hits(scores[name], data.targets(test))
            rows.append(
                {"backbone": backbone, "method": method, "setting": setting, "test": name, "images": len(test)}
                | {f"top-{k}": hit for k, hit in hits.items()}
                | {"standard error": (hits[1] * (1 - hits[1]) / len(test)) ** 0.5}
            )
            all_scores[backbone, method, name] = scores[name]
    return pd.DataFrame(rows), all_scores


def test_hits(scores: np.ndarray, targets: np.ndarray) -> dict[int, float]:
    """Top-1 and top-5, images whose label training lacks counted as misses."""
    known = targets >= 0
    if not known.any():
        return {1: 0.0, 5: 0.0}
    return {k: hit * known.mean() for k, hit in top_k_hits(scores[known], targets[known]).items()}


def best_on_trained(table: pd.DataFrame) -> dict:
    """The row of the probe that does best on trained features, on the first test set."""
    part = table[(table["backbone"] == TRAINED) & (table["test"] == table["test"].iloc[0])]
    return part.loc[part["top-1"].idxmax()].to_dict()


def per_class(backbones: Mapping[str, ProbeData], scores: Mapping, best: Mapping) -> tuple[pd.DataFrame, np.ndarray]:
    """Accuracy a class of one probe (a row of the table), and the label it gives each test image."""
    data = backbones[best["backbone"]]
    predicted = np.array(data.classes)[scores[best["backbone"], best["method"], best["test"]].argmax(axis=1)]
    return per_class_accuracy(predicted, data.tests[best["test"]].labels), predicted


def write_results(path: Path, table: pd.DataFrame, model: PretrainedModel) -> Path:
    """Store the table with its provenance."""
    return write_table(table.astype({"setting": float}), path, provenance(model=model_fingerprint(model)))


def findings(table: pd.DataFrame) -> str:
    """What the probes found, as Markdown."""
    lines = []
    for test, part in table.groupby("test", sort=False):
        best = part.loc[part.groupby("backbone", sort=False)["top-1"].idxmax()]
        told = [f"{r['backbone']} **{r['top-1']:.3f}** ± {r['standard error']:.3f} ({r['method']})" for _, r in best.iterrows()]
        lines.append(f"- {test}, {part['images'].iloc[0]} images, best top-1: {', '.join(told)}.")
    return "\n".join(lines)


def _top1(scores: np.ndarray, data: ProbeData) -> float:
    return test_hits(scores, data.targets(data.validation))[1]


def _spread(scores: np.ndarray, columns: list[str], classes: list[str]) -> np.ndarray:
    """Scores of some classes in the columns of all classes; the others get the lowest."""
    if scores.ndim == 1:  # two classes
        scores = np.stack([-scores, scores], axis=1)
    result = np.full((len(scores), len(classes)), scores.min() - 1)
    result[:, [classes.index(c) for c in columns]] = scores
    return result
