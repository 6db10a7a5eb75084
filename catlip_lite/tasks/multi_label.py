"""Notebook 10: images with several labels each: Transfer Init, fine-tuning by BCE, average precision (paper table 3).

Between a pre-trained model with COCO-like annotations and `outputs/<run>/multi_label.parquet`. Scored on the labels of the
whole image, as the paper's figures are, and on those of what evaluation's view shows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from ..data.batches import BatchSpec
from ..data.boxes import LABELS_OF, LEAST_VISIBLE, check_boxes, labels_of_views
from ..data.images import AUGMENTATIONS
from ..data.labelled import Address, LabelledImages, address_name, batches_of_views, load_labelled, named_addresses
from ..data.labelled_corpus import LabelledCorpus
from ..labels import LabelSet
from ..labels.borrowing import Borrowed, borrow
from ..labels.mapping import map_classes
from ..models import PretrainedModel
from ..models.classifier import classifier_network
from ..models.heads import Head, random_head
from ..models.transfer import transfer_head
from ..training.finetune_recipes import FinetuneRecipe, finetune_recipe_for
from .finetune import evaluate, finetune, finetune_in, of_task_classes, tell_left_out
from .multi_label_scoring import dense_targets, score_multi_label

BIASES = ("shifted", "copied", "frequency", "zero")
COCO_SIZE, DEMO_SIZE = 512, 64  # pixels: the demo's model learnt single drawings at 32, a scene shows up to five
ZERO_SHOT, UNTRAINED, TRANSFER, RANDOM = "zero-shot", "Transfer Init, no step", "Transfer Init", "Random Init"


@dataclass(frozen=True)
class Task:
    """A multi-label task as one backbone sees it.

    at_size: the model at the resolution of the task. train, validation (set aside, for thresholds), tests: the same C classes,
    in one order. meant: their synsets; borrowed: what each takes from the pre-trained head.
    """

    at_size: PretrainedModel
    train: LabelledImages
    validation: LabelledImages
    tests: dict[str, LabelledImages]
    meant: LabelSet
    borrowed: list[Borrowed]

    @property
    def classes(self) -> list[str]:
        """Names of the C classes."""
        return self.train.classes

    def targets(self, test: str, labels_of: str, rows: np.ndarray, least_visible: float = LEAST_VISIBLE) -> np.ndarray:
        """Which labels these images of a test have: bool [n, C]."""
        images = self.tests[test]
        if labels_of == "view":
            images = labels_of_views(images, self.at_size.evaluation, least_visible=least_visible)
        return dense_targets(images)[rows]

    def summary(self) -> pd.DataFrame:
        """Images, labels an image and classes of each part, a row each."""
        parts = {"train": self.train, "validation": self.validation, **self.tests}
        facts = [
            {"part": name, "images": len(part), "labels an image": part.counts.mean(), "classes": len(part.present())}
            for name, part in parts.items()
        ]
        return pd.DataFrame(facts)


def load_task(
    model: PretrainedModel,
    labelled: Address,
    tests: Address | Sequence[Address],
    *,
    image_size: int,
    trained_on: Sequence[str] = ("image",),
    label_mapping: str | Path | None = None,
    how: str = "own",
    min_similarity: float = 0.5,
    validation_share: float = 0.1,
    most_images: int | None = None,
    most_test_images: int | None = None,
) -> Task:
    """Find the images, nothing is decoded; set validation aside; match the classes with the model's vocabulary.

    The classes are those that the labelled images and the first test both know; others' labels are left out, and told.
    trained_on: what `compare` will train on. Raises ValueError for images with a single label each, fewer than two classes in
    common, or what `check_trained_on` refuses.
    """
    if not 0 < validation_share < 1:
        raise ValueError(f"validation_share={validation_share} must be between 0 and 1: it chooses the thresholds")
    images = load_labelled(labelled)
    found = {name: load_labelled(address) for name, address in named_addresses(tests).items()}
    for name, part in [(address_name(labelled), images), *found.items()]:
        if not part.multi_label:
            raise ValueError(f"{name} has one label an image: give COCO annotations (instances_….json), or use notebook 07")
    check_trained_on(trained_on, images)
    images, found = _of_shared_classes(images, found)
    images = images.sample(most_images)
    found = {name: part.sample(most_test_images) for name, part in found.items()}
    order = np.random.default_rng(0).permutation(len(images))
    aside = max(1, round(validation_share * len(images)))
    meant = map_classes(images.classes, corrections=label_mapping)
    borrowed = borrow(meant, model.vocabulary, how, min_similarity=min_similarity)
    train, validation = images.take(np.sort(order[aside:])), images.take(np.sort(order[:aside]))
    return Task(model_at(model, image_size), train, validation, found, meant, borrowed)


def check_trained_on(trained_on: Sequence[str], images: LabelledImages) -> None:
    """Raises ValueError unless these are distinct names of `LABELS_OF`, and the images have the boxes that "view" needs."""
    names = list(trained_on or ())
    if isinstance(trained_on, str) or not names or len(set(names)) < len(names) or not set(names) <= set(LABELS_OF):
        raise ValueError(f"trained_on={trained_on!r} must be a list of one or more of {', '.join(LABELS_OF)}, each once")
    if "view" in names:
        check_boxes(images)


def _of_shared_classes(
    images: LabelledImages, tests: dict[str, LabelledImages]
) -> tuple[LabelledImages, dict[str, LabelledImages]]:
    """The labelled images and the tests over the classes that the first test has, too."""
    first = next(iter(tests))
    known = set(tests[first].classes)
    classes = [name for name in images.classes if name in known]
    tell_left_out(known - set(classes), f"only {first} has")
    tell_left_out(set(images.classes) - known, "only the training images have")
    if len(classes) < 2:
        raise ValueError(f"training images and {first} have {len(classes)} class(es) in common: a task needs two")
    if classes != images.classes:
        images = images.of_classes(classes)
    return images, {name: part if part.classes == classes else of_task_classes(part, classes) for name, part in tests.items()}


def model_at(model: PretrainedModel, image_size: int) -> PretrainedModel:
    """The same model for images of another size; `model` itself stays as it is."""
    head = model.network.head
    network = classifier_network(model, Head(head.weight.detach(), head.bias.detach()), image_size)
    config = {**model.config, "image_size": image_size, "short_side": None}
    precision = "fp32" if model.dtype.itemsize == 4 else "bf16"
    return PretrainedModel(network, model.vocabulary, config, model.device, precision)


def embed_images(model: PretrainedModel, images: LabelledImages, workers: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Rows int64 [n] of the images that can be read, and their features float32 [n, D]."""
    parts = [(rows, model.embed(views)) for rows, views in batches_of_views(images, model.evaluation, workers=workers)]
    return np.concatenate([rows for rows, _ in parts]), np.concatenate([features for _, features in parts])


def image_size_for(model: PretrainedModel, image_size: int | None = None) -> int:
    """Side of the views, pixels; None: table 7's for COCO, the demo's for its model."""
    return image_size or (DEMO_SIZE if model.config["model"] == "vit_nano8" else COCO_SIZE)


def recipe_for(task: Task, *, least_visible: float = LEAST_VISIBLE, **given) -> FinetuneRecipe:
    """Table 7's recipe for COCO; values given and not None replace it."""
    model = task.at_size.config["model"]
    if model == "vit_nano8":  # the reference's crops, for it is they that cut labels off
        given["augmentation"] = given.get("augmentation") or "paper"
    given |= {"image_size": task.at_size.image_size, "task": "coco", "least_visible": least_visible}
    return finetune_recipe_for(model, num_images=len(task.train), **given)


# --- where training starts ----------------------------------------------------------------------------------------------------


def label_log_odds(images: LabelledImages) -> np.ndarray:
    """log p/(1-p) of each class, p being its share of the images, half an image added either way: float32 [C]."""
    shown = dense_targets(images).sum(axis=0)
    return np.log((shown + 0.5) / (len(images) - shown + 0.5)).astype(np.float32)


def start_head(task: Task, init: str, *, bias: str = "shifted", seed: int = 0) -> Head:
    """The head that fine-tuning begins with; init: "Transfer Init" or "Random Init".

    bias: what an image has to outweigh. "copied": the rows' own, which hold how often the captions name the synsets.
    "shifted": these less the corpus' log prior odds, plus those of the labelled images: Bayes' rule where the labels of a
    task are more frequent than in captions, or rarer. "frequency": the labelled images' log prior odds alone. "zero": the
    reference's. Random rows have no bias of their own, so "copied" is "zero" there and "shifted" is "frequency".
    On the demo's scenes, two epochs, two seeds, Random Init comes to a macro AP of 0.24 from "frequency" and 0.14 from "zero",
    Transfer Init to 0.27 from "shifted", 0.26 from "copied" and 0.27 from "zero": borrowed rows need the right bias less.
    Raises ValueError for another name.
    """
    if bias not in BIASES:
        raise ValueError(f"bias={bias!r} is unknown: choose one of {', '.join(BIASES)}")
    if init == RANDOM:
        head = random_head(len(task.classes), task.at_size.network.head.in_features, seed)
    else:
        of_rows = {"shifted": "prior", "copied": "copied"}.get(bias, "zero")
        head = transfer_head(task.at_size, task.borrowed, bias=of_rows, seed=seed)
    if bias in ("shifted", "frequency"):
        head.bias += torch.from_numpy(label_log_odds(task.train))
    return head


def compare_starts(task: Task, workers: int = 0) -> pd.DataFrame:
    """Each start's loss on the validation images before any step (nats an image, as BCE trains on), and its micro AP.

    Columns: init, bias, loss, macro, micro. A class's bias moves all its scores alike: AP by class, and its macro mean, stay.
    """
    rows, features = embed_images(task.at_size, task.validation, workers)
    targets = dense_targets(task.validation)[rows]
    found = []
    for init in (TRANSFER, RANDOM):
        for bias in BIASES if init == TRANSFER else ("frequency", "zero"):
            scores = start_head(task, init, bias=bias).scores(features)
            loss = (np.logaddexp(0, scores) - targets * scores).sum(axis=1).mean()
            means = score_multi_label(scores, targets, task.classes)
            found.append({"init": init, "bias": bias, "loss": loss, "macro": means.macro, "micro": means.micro})
    return pd.DataFrame(found)


def training_views(
    task: Task, recipe: FinetuneRecipe, most: int = 12
) -> tuple[torch.Tensor, list[list[str]], list[list[str]] | None]:
    """Training views to look at: float32 [n, 3, S, S] in 0..1, labels of the whole image, and those of them left in view.

    Without boxes nobody knows what is left: None in its place.
    """
    spec, labels = BatchSpec(0, most, 0, most, recipe.image_size), {}
    for labels_of in LABELS_OF if task.train.boxes is not None else LABELS_OF[:1]:
        corpus = LabelledCorpus(
            task.train.sample(256), recipe.image_size, AUGMENTATIONS[recipe.augmentation], labels_of=labels_of, workers=0
        )
        batch = next(iter(corpus.batches([spec])))
        labels[labels_of] = [[task.classes[c] for c in batch.indices[batch.rows == row].tolist()] for row in range(most)]
    views = batch.images if batch.images.is_floating_point() else batch.images.float() / 255
    return views, labels["image"], labels.get("view")


# --- training and scores ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Scored:
    """What one classifier says of every test. labels_of: what it was trained on, "" if it was not.

    scores: by test, the rows int64 [n] of the images that could be read, and logits float32 [n, C]; `validation` likewise.
    """

    init: str
    labels_of: str
    seed: int
    scores: dict[str, tuple[np.ndarray, np.ndarray]]
    validation: tuple[np.ndarray, np.ndarray]

    @property
    def name(self) -> str:
        """'Transfer Init', and what it was trained on, if it is not the labels of whole images."""
        return f"{self.init}, labels of the view" if self.labels_of == "view" else self.init


def untrained(task: Task, *, bias: str = "shifted", workers: int = 0) -> list[Scored]:
    """Zero-shot (no label at all), and Transfer Init before its first step, which knows how frequent each label is."""
    heads = {ZERO_SHOT: transfer_head(task.at_size, task.borrowed), UNTRAINED: start_head(task, TRANSFER, bias=bias)}
    parts = {name: embed_images(task.at_size, part, workers) for name, part in {**task.tests, "": task.validation}.items()}
    found = []
    for name, head in heads.items():
        scores = {part: (rows, head.scores(features)) for part, (rows, features) in parts.items()}
        found.append(Scored(name, "", 0, {test: scores[test] for test in task.tests}, scores[""]))
    return found


def train_and_score(
    task: Task,
    recipe: FinetuneRecipe,
    init: str,
    *,
    bias: str = "shifted",
    folder: Path | None = None,
    loader_workers: int = 0,
    **options,
) -> Scored:
    """Fine-tune backbone and head, and score all tests; options go to `finetune`. folder: continued, or loaded if finished."""
    head = start_head(task, init, bias=bias, seed=recipe.seed)
    given = {"loader_workers": loader_workers, **options}
    if folder is None:
        classifier = finetune(task.at_size, head, task.train, recipe, **given)
    else:
        classifier, _ = finetune_in(folder, task.at_size, head, task.train, recipe, **given)
    scores = {name: evaluate(classifier, part, workers=loader_workers) for name, part in task.tests.items()}
    return Scored(init, recipe.labels_of, recipe.seed, scores, evaluate(classifier, task.validation, workers=loader_workers))


def compare(
    task: Task,
    recipe: FinetuneRecipe,
    *,
    trained_on: Sequence[str] = ("image",),
    seeds: Sequence[int] = (0,),
    bias: str = "shifted",
    folder: Path | None = None,
    loader_workers: int = 0,
    **options,
) -> list[Scored]:
    """The untrained classifiers, and those fine-tuned by one recipe, for each seed: Transfer Init and Random Init on the first
    of `trained_on` ("image", "view"), Transfer Init on the others. folder: of a folder for each, such as `transfer_image_0`.
    Raises ValueError, before any training, for what `check_trained_on` refuses, or no seed."""
    check_trained_on(trained_on, task.train)
    if not seeds:
        raise ValueError("seeds is empty: give at least one, e.g. [0]")
    found = untrained(task, bias=bias, workers=loader_workers)
    for seed in seeds:
        for number, labels_of in enumerate(trained_on):
            for init in (TRANSFER, RANDOM) if number == 0 else (TRANSFER,):
                kept = folder / f"{init.split()[0].lower()}_{labels_of}_{seed}" if folder else None
                chosen = replace(recipe, seed=seed, labels_of=labels_of)
                found.append(
                    train_and_score(task, chosen, init, bias=bias, folder=kept, loader_workers=loader_workers, **options)
                )
    return found
