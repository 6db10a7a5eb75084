"""Notebook 07's answers: what each start reached, what fine-tuning adds to the probe, and which classes gain and lose by it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd

from ..artefacts import provenance, write_table
from ..models import PretrainedModel
from ..models.classifier import Classifier
from ..models.heads import Head
from ..models.precision import choose_device
from ..training.finetune_recipes import PAPER, PAPER_COCO, FinetuneRecipe, finetune_recipe_for
from ..transfer.linear_probe import Examples, logistic_probe
from .features import extract, model_fingerprint
from .finetune import RANDOM, TRANSFER, Downstream, evaluate
from .scoring import Answers, answers_of, standard_error

START, PROBE = "head from Transfer Init, untrained", "linear probe"
TUNED = {TRANSFER: f"fine-tuned from {TRANSFER}", RANDOM: f"fine-tuned from {RANDOM}"}
FORMATS = {"top-1": "{:.1%}", "top-5": "{:.1%}", "standard error": "{:.1%}"}
VALIDATING = 0.2  # share of the training images that choose the probe's penalty, before it is fitted to all
SETTINGS = (  # rows of the recipe's table
    "epochs", "max_steps", "warmup_steps", "batch_size", "micro_batch", "lr", "min_lr", "schedule", "weight_decay",
    "layer_decay", "drop_path", "loss", "label_smoothing", "clip", "ema_momentum", "image_size", "multi_scale", "augmentation",
    "range_augment",
)  # fmt: skip


def summarise_recipe(recipe: FinetuneRecipe, num_images: int) -> pd.DataFrame:
    """The recipe beside table 7's for ViT-B/16 and as many images: columns setting, here, table 7."""
    task = "coco" if recipe.loss == "bce" else "imagenet-1k"
    table = PAPER | (PAPER_COCO if task == "coco" else {})
    many = max(num_images, table["batch_size"])  # nobody is told again that a batch is lowered
    size = recipe.image_size if recipe.image_size in (224, 512) else None
    paper = finetune_recipe_for("vit_b16", num_images=many, image_size=size, task=task).as_dict()
    paper |= {"max_steps": "by epochs", "warmup_steps": table["warmup_steps"]}
    here = recipe.as_dict()
    return pd.DataFrame({"setting": n, "here": str(here[n]), "table 7": str(paper[n])} for n in SETTINGS)


# --- scores -----------------------------------------------------------------------------------------------------------------


def all_answers(
    model: PretrainedModel,
    downstream: Downstream,
    heads: Mapping[str, Head],
    tuned: Mapping[str, tuple[Classifier, pd.DataFrame]],
    cache: Path,
    workers: int = 0,
) -> dict[str, dict[str, Answers]]:
    """What each classifier says of each test's images: the untrained head, the probe, and what was fine-tuned, by start.

    Says so where these see images of different sizes.
    """
    size = tuned[TRANSFER][0].evaluation.image_size
    if size != model.image_size:
        pixels = (size / model.image_size) ** 2
        print(
            f"image sizes differ: {START} and {PROBE} at {model.image_size} px, "
            f"fine-tuned at {size} px ({pixels:.1f} × the pixels)"
        )
    still = {START: heads[TRANSFER], PROBE: probe_head(model, downstream, cache, workers)}
    found = {name: answers_of_head(model, head, downstream, cache, workers) for name, head in still.items()}
    for init, (classifier, _) in reversed(tuned.items()):
        found[TUNED[init]] = answers_of_network(classifier, downstream, workers)
    return found


def answers_of_network(classifier: Classifier, downstream: Downstream, workers: int = 0) -> dict[str, Answers]:
    """What a fine-tuned network says of each test's images; unreadable ones are left out."""
    found = {}
    for name, images in downstream.tests.items():
        rows, scores = evaluate(classifier, images, workers=workers)
        found[name] = answers_of(scores, images.indices[rows])
    return found


def answers_of_head(
    model: PretrainedModel, head: Head, downstream: Downstream, cache: Path, workers: int = 0
) -> dict[str, Answers]:
    """What a head on the untouched backbone says of them."""
    found = {}
    for name, images in downstream.tests.items():
        features = extract(model, images, cache, workers=workers)
        found[name] = answers_of(head.scores(features.features), images.indices[features.rows])
    return found


def probe_head(model: PretrainedModel, downstream: Downstream, cache: Path, workers: int = 0) -> Head:
    """A linear probe on the untouched backbone: logistic regression, its penalty chosen on a fifth of the training images."""
    features = extract(model, downstream.train, cache, workers=workers)
    targets = downstream.train.indices[features.rows]
    validating = np.random.default_rng(0).permutation(len(targets)) < VALIDATING * len(targets)
    parts = [Examples(features.features[chosen], targets[chosen]) for chosen in (~validating, validating)]
    return logistic_probe(*parts, len(downstream.label_set), device=choose_device(str(model.device))).head


def accuracy_table(answers: Mapping[str, Mapping[str, Answers]]) -> pd.DataFrame:
    """A row a test and classifier: columns test, classifier, images, top-1, standard error, top-5."""
    rows = []
    for test in next(iter(answers.values())):
        for classifier, found in answers.items():
            mine = found[test]
            top1 = mine.top(1)
            facts = {"test": test, "classifier": classifier, "images": len(mine), "top-1": top1}
            rows.append(facts | {"standard error": standard_error(top1, len(mine)), "top-5": mine.top(5)})
    return pd.DataFrame(rows)


def class_changes(before: Answers, after: Answers, classes: list[str]) -> pd.DataFrame:
    """Accuracy of each class with test images under two classifiers, the largest gain first.

    Columns: label, images, before, after, change, taken_for (the wrong answer that `after` gives most often, or "").
    """
    rows = []
    for target in np.unique(after.targets):
        mine = after.targets == target
        wrong = after.predicted[mine & (after.ranks > 0)]
        accuracy = [float((found.ranks[mine] == 0).mean()) for found in (before, after)]
        facts = {"label": classes[target], "images": int(mine.sum()), "before": accuracy[0], "after": accuracy[1]}
        taken = classes[np.bincount(wrong).argmax()] if len(wrong) else ""
        rows.append(facts | {"change": accuracy[1] - accuracy[0], "taken_for": taken})
    return pd.DataFrame(rows).sort_values(["change", "images", "label"], ascending=[False, False, True], ignore_index=True)


def changes_from_probe(answers: Mapping[str, Mapping[str, Answers]], downstream: Downstream) -> pd.DataFrame:
    """`class_changes` from the probe to the fine-tuned network, on the first test."""
    first = next(iter(downstream.tests))
    return class_changes(answers[PROBE][first], answers[TUNED[TRANSFER]][first], downstream.train.classes)


def difference(first: Answers, second: Answers) -> tuple[float, float]:
    """Top-1 of the first less that of the second on the same images, and its standard error."""
    each = (first.ranks == 0).astype(float) - (second.ranks == 0)
    return float(each.mean()), float(each.std() / len(each) ** 0.5)


# --- what is kept and told --------------------------------------------------------------------------------------------------


def write_results(path: Path, table: pd.DataFrame, model: PretrainedModel, recipe: FinetuneRecipe) -> Path:
    """Store the scores with their provenance."""
    return write_table(table, path, provenance(model=model_fingerprint(model), recipe=recipe.as_dict()))


def findings(answers: Mapping[str, Mapping[str, Answers]], changes: pd.DataFrame) -> str:
    """What fine-tuning and the start of its head gave, as Markdown, a line a test."""
    lines = []
    tuned = TUNED[TRANSFER]
    for test, found in answers[tuned].items():
        told = [f"- {test}: {tuned} reaches **top-1 {found.top(1):.3f}**, top-5 {found.top(5):.3f} ({len(found):,} images)"]
        for peer, words in (
            (PROBE, "the linear probe on the untouched backbone"),
            (TUNED[RANDOM], "the same from Random Init"),
        ):
            if peer in answers:
                gain, error = difference(found, answers[peer][test])
                told.append(f"{gain:+.3f} ± {error:.3f} against {words} ({answers[peer][test].top(1):.3f})")
        lines.append("; ".join(told) + ".")
    gained, lost = int((changes["change"] > 0).sum()), int((changes["change"] < 0).sum())
    first = next(iter(answers[tuned]))
    lines.append(f"- Of {len(changes):,} classes in {first}, {gained:,} gain and {lost:,} lose by it.")
    return "\n".join(lines) + "\n\n± is one standard error of the difference, over test images."
