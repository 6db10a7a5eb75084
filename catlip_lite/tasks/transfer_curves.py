"""Notebook 06's training: heads and whole networks from three starts, on draws of labelled images (paper figures 5 and 7).

A setting (learning rate) is chosen on the task's validation images, for every start alike; tests are scored once.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import pandas as pd
import torch

from ..data.labelled import LabelledImages, all_views
from ..models import PretrainedModel
from ..models.heads import Head, random_head
from ..progress import progress
from ..training.finetune_recipes import FinetuneRecipe, finetune_recipe_for
from ..transfer.heads import HeadRecipe, train_heads
from ..transfer.neighbours import nearest, neighbour_scores
from .finetune import finetune
from .scoring import top_k_hits
from .transfer_init import Budget, Part, Task, draw

TRANSFER, RANDOM, LP_FT, ADDED = "Transfer Init", "Random Init", "LP-FT", "Transfer added"
SHARES = (0.0, 0.05, 0.1, 0.2, 0.35, 0.5, 0.75, 1.0, 1.5, 2.0, 4.0)  # of the borrowed rows in a head that they are added to
KEPT_BYTES = 4 << 30  # of a test set's views
MANY = 10**6  # images: more than any batch
LEARNING_RATES = (3e-5, 3e-4, 3e-3, 3e-2)  # the paper's, and what few images need


@dataclass
class Curve:
    """What was trained, a row a (method, init, budget, seed, test), and whom it got right.

    table: columns method ("linear probe" or "fine-tuning"), kind, budget, images (trained on), images a class, init, seed, lr,
    test, top-1, top-5. hits: float [C] by (method, init, budget, seed), accuracy of each label on the first test (NaN for
    labels without a test image).
    """

    table: pd.DataFrame
    hits: dict[tuple, np.ndarray] = field(default_factory=dict)


def probe_curve(
    task: Task,
    start: Callable[[int, Part], Head],
    budgets: Sequence[Budget],
    seeds: Sequence[int],
    epochs: int = 30,
    device: str | torch.device = "cpu",
) -> Curve:
    """Linear probes from Transfer Init and Random Init at every budget, and, on the same images, what needs no training.

    start: (seed, images to train on) -> the head of Transfer Init (see `transfer_report.head_of`). epochs: the paper's 30.
    Besides: Random Init's probe with the borrowed rows added (`add_borrowed`). Peers: cosine to class means, and to the nearest
    image.
    """
    if not seeds:
        raise ValueError("seeds=[]: give at least one; bands mean something from three")
    curve = _Gatherer(task, "linear probe")
    width = task.pool.features.features.shape[1]
    for budget, seed in progress([(b, s) for b in budgets for s in seeds], "linear probes", unit="draws"):
        train = task.pool.take(draw(task, budget, seed))
        borrowed = start(seed, train)
        fitted = fit_heads(task, train, [borrowed, random_head(len(task), width, seed)], epochs, seed, device)
        heads = {}
        for init, (lr, heads[init]) in zip((TRANSFER, RANDOM), fitted, strict=True):
            curve.add(budget, seed, init, lr, train, task.scores(heads[init]))
        if len(train):
            _, head = add_borrowed(task, heads[RANDOM], borrowed)
            curve.add(budget, seed, ADDED, lr, train, task.scores(head))
        known = train.features.features, task.targets(train)
        for init, peer in PEERS.items() if len(train) else ():
            scores = {name: peer(*known, part.features.features, len(task), device) for name, part in task.tests.items()}
            curve.add(budget, seed, init, None, train, scores)
    return curve.result()


def fit_heads(
    task: Task, train: Part, starts: Sequence[Head], epochs: int, seed: int, device: str | torch.device = "cpu"
) -> list[tuple[float | None, Head]]:
    """From each start the learning rate that validates best, and that head; 0 is the start itself, all there is without any."""
    if not len(train):
        return [(None, start) for start in starts]
    tried = [(lr, start) for start in starts for lr in LEARNING_RATES]
    recipes = [HeadRecipe(epochs=epochs, lr=lr, min_lr=lr / 30) for lr, _ in tried]
    heads = train_heads([start for _, start in tried], train.features.features, task.targets(train), recipes, seed, device)
    wanted, features = task.targets(task.validation), task.validation.features.features

    def top1(fitted: tuple[float, Head]) -> float:
        return top_k_hits(fitted[1].scores(features), wanted)[1]

    rates = len(LEARNING_RATES)
    fitted = [list(zip(LEARNING_RATES, heads[i : i + rates], strict=True)) for i in range(0, len(heads), rates)]
    return [max([(0.0, start), *found], key=top1) for start, found in zip(starts, fitted, strict=True)]


def add_borrowed(task: Task, probe: Head, borrowed: Head) -> tuple[float, Head]:
    """A trained probe with a share of the borrowed rows added to it, the share that validates best (0 of equals), and the head.

    Where a task's images are unlike the captions', training from borrowed rows soon leaves them, or is held back by them; added
    afterwards they say what they know, and no more of it than helps. Their scores are centred on the validation images; labels
    that borrow nothing get nothing.
    """
    features, wanted = task.validation.features.features, task.targets(task.validation)
    known = torch.tensor([len(found.rows) > 0 for found in task.borrowed])
    weight = torch.where(known[:, None], borrowed.weight, 0.0)
    bias = -(weight @ torch.from_numpy(features.mean(axis=0)))
    plain, told = probe.scores(features), Head(weight, bias).scores(features)
    share = max(SHARES, key=lambda share: top_k_hits(plain + share * told, wanted)[1])
    return share, Head(probe.weight + share * weight, probe.bias + share * bias)


@dataclass(frozen=True)
class FinetuneOptions:
    """How the curve's networks are fine-tuned. None: table 7's value (see `finetune_recipe_for`).

    lrs: peak learning rates to choose from, besides 0, the start itself. least_steps: however few the images. augmentation: see
    `FinetuneRecipe`. The rest: see `finetune`.
    """

    epochs: int | None = None
    least_steps: int = 100
    lrs: Sequence[float] | None = None
    augmentation: str | None = None
    precision: str = "auto"
    device: str | None = None
    loader_workers: int = 0

    def recipe(self, model: PretrainedModel, images: int, lr: float | None, seed: int) -> FinetuneRecipe:
        """The recipe for so many images."""
        name, given = model.config["model"], {"image_size": model.image_size, "lr": lr, "seed": seed}
        given["augmentation"] = self.augmentation
        usual = finetune_recipe_for(name, num_images=MANY, image_size=model.image_size).batch_size
        given |= {"num_images": images, "batch_size": min(usual, images)}
        recipe = finetune_recipe_for(name, epochs=self.epochs, **given)
        return (
            recipe if recipe.max_steps >= self.least_steps else finetune_recipe_for(name, max_steps=self.least_steps, **given)
        )


def finetune_curve(
    model: PretrainedModel,
    task: Task,
    start: Callable[[int, Part], Head],
    budgets: Sequence[Budget],
    seeds: Sequence[int],
    options: FinetuneOptions,
    head_epochs: int = 30,
) -> Curve:
    """Fine-tuning of the whole network from three heads at every budget that has images.

    Transfer Init and Random Init as in `probe_curve`; LP-FT starts from Random Init's linear probe on the same images (Kumar
    et al., "Fine-Tuning can Distort Pretrained Features", ICLR 2022).
    """
    curve = _Gatherer(task, "fine-tuning")
    width = task.pool.features.features.shape[1]
    draws = [(b, s, draw(task, b, s)) for b in budgets for s in seeds]
    draws = [d for d in draws if len(d[2])]
    parts = {**task.tests, None: task.validation} if draws else {}
    views = {name: _to_score(model, part, options.loader_workers) for name, part in parts.items()}
    for budget, seed, rows in progress(draws, "fine-tuning", unit="draws"):
        train = task.pool.take(rows)
        blank = random_head(len(task), width, seed)
        heads = {
            TRANSFER: start(seed, train),
            RANDOM: blank,
            LP_FT: fit_heads(task, train, [blank], head_epochs, seed, model.device)[0][1],
        }
        for init, head in heads.items():
            lr, scores = _finetuned(model, task, train, head, options, seed, views)
            curve.add(budget, seed, init, lr, train, scores)
    return curve.result()


def _to_score(model: PretrainedModel, part: Part, workers: int) -> torch.Tensor | LabelledImages:
    """What the curve's classifiers are scored on: views, uint8 [N, 3, S, S], decoded once; the images, if these are many."""
    if len(part) * 3 * model.image_size**2 > KEPT_BYTES:
        return part.images
    rows, views = all_views(part.images, model.evaluation, workers=workers)
    if len(rows) < len(part):
        raise ValueError(f"{len(part) - len(rows)} images of {part.name} can no longer be read: are the files still there?")
    return views


def _finetuned(
    model: PretrainedModel,
    task: Task,
    train: Part,
    head: Head,
    options: FinetuneOptions,
    seed: int,
    views: dict[str | None, torch.Tensor | LabelledImages],
) -> tuple[float, dict[str, np.ndarray]]:
    """The learning rate that validates best, and that network's scores of the tests; 0 is the start, not trained at all."""
    images, wanted = train.images.of_classes(task.label_set.names), task.targets(task.validation)
    placed = {"device": options.device, "precision": options.precision, "loader_workers": options.loader_workers}

    def top1(scores: np.ndarray) -> float:
        return top_k_hits(scores, wanted)[1]

    chosen, best, reached = 0.0, None, top1(head.scores(task.validation.features.features))
    for lr in options.lrs or [None]:
        recipe = options.recipe(model, len(train), lr, seed)
        classifier = finetune(model, head, images, recipe, quiet=True, **placed)
        found = top1(classifier.scores(views[None], workers=options.loader_workers))
        if found > reached:
            chosen, best, reached = recipe.lr, classifier, found
    if best is None:
        return chosen, task.scores(head)
    return chosen, {name: best.scores(views[name], workers=options.loader_workers) for name in task.tests}


class _Gatherer:
    """Scores of one method, gathered as they come."""

    def __init__(self, task: Task, method: str):
        self.task, self.method = task, method
        self.targets = {name: task.targets(part) for name, part in task.tests.items()}
        self.rows, self.hits = [], {}

    def add(self, budget: Budget, seed: int, init: str, lr: float | None, train: Part, scores: dict) -> None:
        """Take in one classifier's scores of every test."""
        facts = {"method": self.method, "kind": budget.kind, "budget": budget.name, "images": len(train)}
        facts |= {"images a class": len(train) / len(self.task), "init": init, "seed": seed, "lr": lr}
        for i, (name, targets) in enumerate(self.targets.items()):
            self.rows.append(facts | {"test": name} | {f"top-{k}": hit for k, hit in top_k_hits(scores[name], targets).items()})
            if i == 0:
                self.hits[self.method, init, budget.name, seed] = label_accuracy(scores[name], targets, len(self.task))

    def result(self) -> Curve:
        return Curve(pd.DataFrame(self.rows), self.hits)


def label_accuracy(scores: np.ndarray, targets: np.ndarray, classes: int) -> np.ndarray:
    """Share of each label's images that it is the best-scored label of: float64 [C], NaN for labels without an image."""
    right = np.bincount(targets[scores.argmax(axis=1) == targets], minlength=classes).astype(float)
    images = np.bincount(targets, minlength=classes)
    return np.divide(right, images, out=np.full(classes, np.nan), where=images > 0)


# --- peers that need no training --------------------------------------------------------------------------------------------


def class_means(
    features: np.ndarray, targets: np.ndarray, queries: np.ndarray, classes: int, device: str | torch.device = "cpu"
) -> np.ndarray:
    """Cosine to the mean unit feature of each class, float32 [Q, C]; a class without images scores -inf."""
    sums = np.zeros((classes, features.shape[1]), np.float32)
    np.add.at(sums, targets, _unit(features))
    length = np.linalg.norm(sums, axis=1, keepdims=True)
    return np.where(length.T > 0, _unit(queries) @ (sums / np.maximum(length, 1e-9)).T, -np.inf)


def nearest_image(
    features: np.ndarray, targets: np.ndarray, queries: np.ndarray, classes: int, device: str | torch.device = "cpu"
) -> np.ndarray:
    """Cosine to the nearest image of each class among the 128 nearest, scaled, float32 [Q, C]; -inf for the other classes."""
    cosines, rows = nearest(features, queries, NEIGHBOURS, device)
    return neighbour_scores(cosines, targets[rows], 1, classes)


NEIGHBOURS = 128
PEERS = {"class means": class_means, "nearest image": nearest_image}


def _unit(features: np.ndarray) -> np.ndarray:
    return features / np.maximum(np.linalg.norm(features, axis=1, keepdims=True), 1e-12)
