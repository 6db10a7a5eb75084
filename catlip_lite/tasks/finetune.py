"""Notebook 07: a pre-trained ViT, labelled images → a fine-tuned classifier in `outputs/<run>/finetune/` (tables 1, 2 and 7).

From a shell, one process a GPU: `torchrun --nproc-per-node 8 -m catlip_lite.tasks.finetune params/<run>.yaml`.
"""

from __future__ import annotations

import hashlib
import logging
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd

from ..data.images import AUGMENTATIONS
from ..data.labelled import LabelledImages, all_views, load_labelled, named_addresses
from ..data.labelled_corpus import LabelledCorpus
from ..labels import LabelSet
from ..labels.borrowing import Borrowed
from ..models import PretrainedModel, fit_scale, load, transfer_head
from ..models.classifier import Classifier, classifier_config, classifier_network, load_classifier, save_classifier
from ..models.heads import Head, random_head
from ..models.precision import choose_device
from ..progress import progress
from ..training.checkpoints import full_disk_told
from ..training.distribution import SHARDED_MODELS, check_parallel, is_main, told_by_main, wait_for_all, world_size
from ..training.finetune_recipes import FinetuneRecipe, finetune_recipe_for
from ..training.loop import RunOptions, train
from ..training.losses import create_loss
from ..training.plan import shown, storage
from ..workbook.run_folder import data_behind, open_run, own_or_demo, workbook_address, workbook_path
from ..workbook.shell import run_from_shell
from .features import model_fingerprint
from .pretrain_job import TrainingReporter, claim_for_all
from .transfer_init import map_labels

__all__ = [  # what notebook 07 and others call
    "Downstream",
    "evaluate",
    "finetune",
    "finetune_all",
    "finetune_in",
    "finetune_recipe_for",
    "open_downstream",
    "recipe_from",
    "start_head",
    "start_heads",
]

logger = logging.getLogger(__name__)

TRANSFER, RANDOM = "Transfer Init", "Random Init"
FOLDERS = {TRANSFER: "finetune", RANDOM: "finetune_random"}
OF_TASK = ("label_field", "group_field", "allow_unknown", "borrow", "borrow_similarity")  # parameters of notebook 07, by use
OF_RUN = (
    "device",
    "precision",
    "compile",
    "parallel",
    "activation_checkpointing",
    "loader_workers",
    "cache_gb",
    "checkpoint_every",
)
OF_RECIPE = (
    "task", "image_size", "epochs", "max_steps", "batch_size", "micro_batch", "lr", "min_lr", "warmup_steps", "schedule",
    "weight_decay", "layer_decay", "drop_path", "label_smoothing", "ema_momentum", "multi_scale", "augmentation",
    "range_augment",
)  # fmt: skip
OF_IMAGES = {  # and the demo's
    "labelled": ["demo/held_out_train"],
    "tests": ["demo/held_out_test", "demo/held_out_style_test"],
}
PARAMETERS = (*OF_TASK, *OF_RUN, *(f"finetune_{name}" for name in OF_RECIPE), "label_set", "label_mapping", "seed")
SCALED_ON = 2_000  # images that a fitted scale of borrowed rows is fitted to
SHOWN = 8  # names in a warning


@dataclass(frozen=True)
class Downstream:
    """A task to fine-tune for. train, tests (by name): images of the same C classes. label_set: what these mean. borrowed: the
    rows of the pre-trained head that each takes."""

    train: LabelledImages
    tests: dict[str, LabelledImages]
    label_set: LabelSet
    borrowed: list[Borrowed]

    def summary(self) -> pd.DataFrame:
        """Images, classes and origins of each part, a row each."""
        parts = [("training", "", self.train), *(("test", name, part) for name, part in self.tests.items())]
        return pd.DataFrame(
            {
                "use": use,
                "name": name,
                "images": len(part),
                "classes": len(part.present()),
                "from": ", ".join(sorted(set(part.groups) - {""})[:SHOWN]),
            }
            for use, name, part in parts
        )


def open_downstream(
    model: PretrainedModel,
    labelled,
    tests,
    *,
    label_field: str = "label",
    group_field: str = "vendor",
    label_set: str | None = None,
    label_mapping: Path | None = None,
    allow_unknown: bool = False,
    borrow: str = "own",
    borrow_similarity: float = 0.5,
) -> Downstream:
    """Index the labelled images (addresses, all of them trained on) and tests (one or several), over the classes that both have
    images of.

    The rest as in notebook 06: see `map_labels`. Images of other classes are left out, and told. Raises ValueError without a
    test, or if fewer than two classes are left.
    """
    fields = {"label_field": label_field, "group_field": group_field}
    train = load_labelled(labelled, **fields)
    parts = {name: load_labelled(address, **fields) for name, address in named_addresses(tests).items()}
    for part in (train, *parts.values()):
        part.expect_single_labels()
    first = next(iter(parts))
    asked = set(parts[first].present())
    classes = [name for name in train.present() if name in asked]
    tell_left_out(asked - set(classes), f"only {first} has")
    tell_left_out(set(train.present()) - asked, "only the training images have")
    if len(classes) < 2:
        raise ValueError(f"training images and {first} have {len(classes)} class(es) in common: a task needs two")
    meant, borrowed = map_labels(
        classes,
        model.vocabulary,
        label_set=label_set,
        label_mapping=label_mapping,
        allow_unknown=allow_unknown,
        how=borrow,
        min_similarity=borrow_similarity,
    )
    kept = {name: of_task_classes(part, classes) for name, part in parts.items()}
    return Downstream(train.of_classes(classes), kept, meant, borrowed)


def tell_left_out(classes: set[str], where: str) -> None:
    """Warn, in the main process, of classes that a task goes without; where: "only … has"."""
    if classes and is_main():
        some = ", ".join(sorted(classes)[:SHOWN])
        logger.warning("%d class(es) that %s are left out: %s", len(classes), where, some)


def of_task_classes(images: LabelledImages, classes: list[str]) -> LabelledImages:
    """The images of these classes, over all of these, known to the set or not; see `LabelledImages.of_classes`."""
    known = [name for name in classes if name in set(images.classes)]
    if not known:
        raise ValueError(f"a test has no image of the task's {len(classes)} classes, its own are such as {images.classes[:3]}")
    kept, place = images.of_classes(known), np.array([classes.index(name) for name in known])
    boxes = kept.boxes if kept.boxes is None else replace(kept.boxes, class_index=place[kept.boxes.class_index])
    return replace(kept, classes=classes, indices=place[kept.indices], boxes=boxes)


def start_head(
    model: PretrainedModel, downstream: Downstream, init: str = TRANSFER, *, scale="as trained", bias="prior", seed: int = 0
) -> Head:
    """Where fine-tuning starts: "Transfer Init" (scale and bias as `transfer_head` has them, or scale "fitted" to up to 2,000
    training images) or "Random Init"."""
    if init == RANDOM:
        return random_head(len(downstream.label_set), model.network.head.in_features, seed)
    if scale != "fitted":
        return transfer_head(model, downstream.borrowed, scale=scale, bias=bias, seed=seed)
    some = downstream.train.sample(SCALED_ON)
    rows, views = all_views(some, model.evaluation)
    head = transfer_head(model, downstream.borrowed, bias=bias, seed=seed)
    return transfer_head(
        model, downstream.borrowed, scale=fit_scale(head, model.embed(views), some.indices[rows]), bias=bias, seed=seed
    )


def start_heads(model: PretrainedModel, downstream: Downstream, *, compare: bool = True, **options) -> dict[str, Head]:
    """The heads to start from: Transfer Init, and Random Init to compare it with. options: see `start_head`."""
    return {init: start_head(model, downstream, init, **options) for init in ((TRANSFER, RANDOM) if compare else (TRANSFER,))}


def recipe_from(model: PretrainedModel, num_images: int, given: dict, processes: int = 1) -> FinetuneRecipe:
    """The recipe of notebook 07's parameters that begin with finetune_ (here without it); None takes table 7's value.

    image_size None is the model's own, so that fine-tuning is compared with a probe that sees the same pixels.
    """
    given = {**given, "image_size": given.get("image_size") or model.image_size}
    return finetune_recipe_for(model.config["model"], num_images=num_images, processes=processes, **given)


def finetune_in(
    folder: Path, model: PretrainedModel, head: Head, images: LabelledImages, recipe: FinetuneRecipe, **options
) -> tuple[Classifier, pd.DataFrame]:
    """`finetune` with its outcome in a folder: continued if it was stopped, only loaded if it is finished; and its log.

    A folder that holds another run (recipe, model, start, classes or images) is kept under a new name.
    """
    identity = {
        "recipe": recipe.identity(),
        "corpus": images.fingerprint,
        "classes": images.classes,
        "model": model_fingerprint(model),
        "head": _fingerprint(head),
    }
    with claim_for_all(folder, identity) as finished:
        if finished:
            if is_main():
                print(f"{folder} holds this very run, finished: nothing to train", flush=True)
            classifier = load_classifier(folder, options.get("device"), options.get("precision", "auto"))
        else:
            with full_disk_told(folder, shown(storage(model.network).checkpoint, "B")):
                classifier = finetune(model, head, images, recipe, folder, **options)
    return classifier, pd.read_json(folder / "log.jsonl", lines=True)


def finetune_all(
    run: Path, model: PretrainedModel, heads: dict[str, Head], downstream: Downstream, recipe: FinetuneRecipe, **options
) -> dict[str, tuple[Classifier, pd.DataFrame]]:
    """Fine-tune from each head alike: its classifier and log. See `FOLDERS` for where in the run."""
    found = {}
    for init, head in heads.items():
        print(f"from {init}, on {len(downstream.train):,} images of {len(downstream.label_set):,} classes", flush=True)
        found[init] = finetune_in(run / FOLDERS[init], model, head, downstream.train, recipe, **options)
    return found


def finetune(
    model: PretrainedModel,
    head: Head,
    images: LabelledImages,
    recipe: FinetuneRecipe,
    folder: Path | None = None,
    *,
    device: str | None = None,
    precision: str = "auto",
    compile: bool | None = None,
    parallel: str | None = None,
    activation_checkpointing: bool = False,
    checkpoint_every: int | None = None,
    log_every: int | None = None,
    loader_workers: int = 2,
    cache_gb: float = 2.0,
    on_log: Callable[[dict], None] | None = None,
    quiet: bool = False,
) -> Classifier:
    """Train backbone and head on labelled images: the classifier of the averaged (EMA) weights, also kept in `folder`.

    model: left as it is. head: the start, a row for each of `images.classes`, in that order. folder None: nothing is written.
    Otherwise as `train`: every process of a group calls it alike, and with checkpoint_every a run goes on where it stopped.
    on_log: gets each line of the log. quiet: no lines on the way. loader_workers, cache_gb: see `LabelledCorpus`.
    Raises ValueError for a head with another number of classes, or a recipe for another model.
    """
    _check(model, head, images, recipe, quiet)
    check_parallel(parallel)
    where = choose_device(device)
    corpus = _corpus(images, recipe, cache_gb, loader_workers, quiet)
    options = RunOptions(
        device=where,
        precision=precision,
        compile=compile,
        parallel=parallel or ("fsdp" if recipe.model in SHARDED_MODELS else "ddp"),
        activation_checkpointing=activation_checkpointing,
        checkpoint_every=checkpoint_every,
        log_every=log_every or max(1, min(20, recipe.max_steps // 20)),
    )
    network = classifier_network(model, head, recipe.image_size, drop_path=recipe.drop_path)
    loss = create_loss(recipe.loss, label_smoothing=recipe.label_smoothing)
    mean, std = model.config.get("mean"), model.config.get("std")
    report = TrainingReporter(recipe.max_steps, "finetune") if is_main() and not quiet else None

    def tell(entry: dict) -> None:
        for listener in (report, on_log):
            if listener is not None:
                listener(entry)

    state = train(network, loss, corpus, recipe, folder, options, normalise=None if mean is None else (mean, std), on_log=tell)
    if folder is not None and is_main():
        facts = {"recipe": recipe.as_dict(), "images": len(images), "data": images.fingerprint}
        save_classifier(folder, state, images.classes, model.config, image_size=recipe.image_size, **facts)
    wait_for_all()
    tuned = classifier_network(model, head, recipe.image_size)
    tuned.load_state_dict(state)
    return Classifier(tuned, classifier_config(model.config, images.classes, recipe.image_size), where, precision)


def _corpus(images: LabelledImages, recipe: FinetuneRecipe, cache_gb: float, workers: int, quiet: bool) -> LabelledCorpus:
    """The batches that a recipe trains on."""
    return LabelledCorpus(
        images,
        recipe.image_size,
        AUGMENTATIONS[recipe.augmentation],
        seed=recipe.seed,
        labels_of=recipe.labels_of,
        least_visible=recipe.least_visible,
        cache_gb=cache_gb,
        workers=workers,
        progress=lambda runs: runs if quiet else progress(runs, "decoded", unit="runs"),
    )


def evaluate(
    classifier: Classifier, images: LabelledImages, *, workers: int = 0, batch_size: int = 256
) -> tuple[np.ndarray, np.ndarray]:
    """Scores of images: their rows int64 [n] and logits float32 [n, C]; unreadable images are left out, and told."""
    scores = classifier.scores(images, batch_size, workers)
    rows = np.flatnonzero(~np.isnan(scores[:, 0]))
    return rows, scores[rows]


def _fingerprint(head: Head) -> str:
    """16 hex digits of a head's numbers, in their order, to the last bit: rounded first, some of a million would still lie at
    an edge, and two devices that differ there, as they may with a fitted scale, do not begin the same run."""
    digest = hashlib.sha256(str(tuple(head.weight.shape)).encode())
    for part in (head.weight, head.bias):
        digest.update(part.detach().float().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]


def _check(model: PretrainedModel, head: Head, images: LabelledImages, recipe: FinetuneRecipe, quiet: bool) -> None:
    if recipe.model != model.config["model"]:
        raise ValueError(f"the recipe is for {recipe.model}, the model is {model.config['model']}: make a recipe for it")
    if recipe.augmentation not in AUGMENTATIONS:
        raise ValueError(f"augmentation={recipe.augmentation!r} is unknown: choose one of {', '.join(AUGMENTATIONS)}")
    if len(head.weight) != len(images.classes):
        raise ValueError(
            f"the head has {len(head.weight)} classes, the images {len(images.classes)}: a row for each of images.classes"
        )
    if recipe.loss == "softmax" and images.multi_label:
        raise ValueError("these images have several labels each: take a recipe with loss='bce' (task='coco')")
    if len(images) < len(images.classes) and is_main() and not quiet:
        logger.warning("%d training images for %d classes: some classes have none", len(images), len(images.classes))


# --- the notebook's parameters ----------------------------------------------------------------------------------------------


def of_images(values: dict, model: PretrainedModel) -> list:
    """Addresses of the labelled images and of the tests, see `own_or_demo`."""
    return [own_or_demo(name, values[name], demo, data_behind(model, values)) for name, demo in OF_IMAGES.items()]


def of_task(values: dict) -> dict:
    """What `open_downstream` takes of notebook 07's parameters."""
    named, mapping = values["label_set"], values["label_mapping"]
    places = {
        "label_set": workbook_address(named) if named else None,
        "label_mapping": workbook_path(mapping) if mapping else None,
    }
    return {name: values[name] for name in OF_TASK} | places


def of_recipe(values: dict) -> dict:
    """What `recipe_from` takes of them."""
    return {name: values[f"finetune_{name}"] for name in OF_RECIPE} | {"seed": values["seed"]}


def of_run(values: dict) -> dict:
    """What `finetune` takes of them, besides the task."""
    return {name: values[name] for name in OF_RUN}


# --- from a shell -----------------------------------------------------------------------------------------------------------


def finetune_from(values: dict) -> None:
    """One process's part of notebook 07's training from Transfer Init; values: every parameter of the notebook."""
    folder = told_by_main(open_run(values["run"]) if is_main() else None)
    pretrained = workbook_path(values["pretrained"]) if values["pretrained"] else folder / "pretrain"
    model = load(pretrained, values["device"], values["precision"])
    downstream = open_downstream(model, *of_images(values, model), **of_task(values))
    recipe = recipe_from(model, len(downstream.train), of_recipe(values), world_size())
    head = start_head(model, downstream, scale=values["row_scale"], bias=values["row_bias"], seed=recipe.seed)
    finetune_in(folder / FOLDERS[TRANSFER], model, head, downstream.train, recipe, **of_run(values))


def main(arguments: list[str] | None = None) -> int:
    """Train as a member of torchrun's processes, or alone; 1 after a one-line error."""
    return run_from_shell("07_finetune", finetune_from, "Fine-tune as notebook 07 does, without a notebook.", arguments)


if __name__ == "__main__":
    sys.exit(main())
