"""Notebook 04: shards + vocabulary → a pre-trained ViT in `outputs/<run>/pretrain/` (paper section 3.2, figure 8).

The same run from a shell, one process a GPU: `torchrun --nproc-per-node 8 -m catlip_lite.tasks.pretrain params/<run>.yaml`.
"""

from __future__ import annotations

import sys
from collections import Counter
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from ..artefacts import provenance
from ..data.batches import BatchSpec
from ..data.captions import DEFAULT_COLUMN
from ..data.corpus import Corpus
from ..data.images import Evaluation
from ..data.labelled import LabelledImages, all_views, batches_of_views, check_labelled
from ..data.shard_table import ShardTable, open_shards
from ..data.sources import find_source_files
from ..labels import CaptionLabeler, LabelSet, Vocabulary, count_synsets
from ..labels.borrowing import borrow
from ..labels.mapping import map_classes
from ..models import PretrainedModel, load, transfer_head
from ..models.vit import MODELS
from ..training.distribution import is_main, told_by_main, world_size
from ..training.recipes import Recipe, mean_batch, recipe_for
from ..workbook.run_folder import is_demo, open_run, own_or_demo, workbook_path
from ..workbook.shell import run_from_shell
from .pretrain_job import PretrainJob, claim_folder, open_corpus, train_job
from .scoring import top_k_hits
from .synset_analysis import read_corpus

__all__ = [  # what notebook 04 calls
    "PretrainJob",
    "captions_behind",
    "check_inputs",
    "find_vocabulary",
    "findings",
    "first_test_views",
    "first_views",
    "nearest_pixels_accuracy",
    "open_corpus",
    "open_shards",
    "pretrain",
    "read_log",
    "recipe_for",
    "recipe_in_words",
    "summarise_corpus",
    "summarise_recipe",
    "zero_shot_accuracy",
]


DEMO_SHARDS = "demo/pretrain"


def check_inputs(model: str, shards, labelled, tests, label_field: str) -> None:
    """Refuse an unknown model and addresses with nothing behind them now rather than after the training."""
    if model not in MODELS:
        raise ValueError(f"model={model!r} is unknown: choose one of {', '.join(MODELS)}")
    find_source_files(shards)
    for address in filter(None, (labelled, tests)):
        check_labelled(address, label_field=label_field)


def captions_behind(run: Path, vocabulary: Path | None, captions: str | None) -> list[str]:
    """Addresses of the captions that a run is known to rest on: as named, and as its vocabulary says, if it is there.

    Raises ValueError for captions of one's own beside a run's vocabulary of the demo's, or the other way round.
    """
    path = vocabulary or run / "vocabulary.parquet"
    counted = [Vocabulary.load(path).card.get("captions", str(path))] if path.is_file() else []
    if captions and not vocabulary and not all(is_demo(c) == is_demo(captions) for c in counted):
        raise ValueError(f"{path} counts {counted[0]}, not captions={captions!r}: run notebooks 01 and 02 first, or set `run`")
    return counted + ([captions] if captions else [])


def find_vocabulary(run: Path, vocabulary: str | Path | None, shards, label_mode: str, threshold: int) -> Path:
    """The named vocabulary's file; else the run's, written by notebook 02; else one counted from the shards' captions.

    label_mode and threshold are used in the last case alone.
    """
    path = Path(vocabulary) if vocabulary is not None else run / "vocabulary.parquet"
    if vocabulary is not None or path.is_file():
        return path
    if any("://" in address for address in ([shards] if isinstance(shards, str) else shards)):
        raise ValueError(
            f"{path} is not there: count the captions of {shards} with `python -m catlip_lite.data.label_corpus`, prune them "
            "in notebook 02, or pass a `vocabulary`"
        )
    print(f"{path} is not there: counting the synsets of the captions of {shards}", flush=True)
    labeler = CaptionLabeler(label_mode)
    captions = read_corpus(shards, DEFAULT_COLUMN)
    counts = count_synsets(labeler.label(captions))
    card = provenance(captions=str(shards), labeler=labeler.name, **labeler.card)
    Vocabulary.from_counts(counts, threshold, num_captions=len(captions), card=card).save(path)
    return path


def first_views(job: PretrainJob, corpus: Corpus, count: int) -> torch.Tensor:
    """Training views of the first samples, to look at: float32 [count, 3, S, S] in 0..1."""
    return corpus.views_of(BatchSpec(0, count, 0, count, job.recipe.image_size))


def summarise_recipe(recipe: Recipe, micro_batch: int | None = None) -> pd.DataFrame:
    """The recipe as a table of one row a setting. micro_batch: as given."""
    values = recipe.as_dict()
    if micro_batch is None:
        values["micro_batch"] = f"what the device takes, up to {recipe.micro_batch:,}"
    own = {"stem": "the model's", "pooling": "the model's"}
    values.update({name: told for name, told in own.items() if values[name] is None})
    return pd.DataFrame({"value": pd.Series(values, dtype=object)})


def recipe_in_words(recipe: Recipe, num_samples: int) -> str:
    """How a recipe's steps and rates go with a corpus of so many images, in a line."""
    images = mean_batch(recipe.as_dict(), MODELS[recipe.model].patch)
    mean = "" if images == recipe.batch_size else f" (with other image sizes {images:,.0f} on average)"
    return (
        f"{num_samples:,} images: {recipe.max_steps:,} steps of {recipe.batch_size:,} images{mean} are "
        f"{recipe.max_steps * images / num_samples:,.3g} epochs; learning rate {recipe.lr:.2g}, {recipe.min_lr:.2g} at the end"
    )


def summarise_corpus(corpus: Corpus, vocabulary: Vocabulary) -> pd.Series:
    """What training will see, in a few figures; labels are those of the captions looked at."""
    look = corpus.first_look()
    reasons = Counter(reason.split(" (")[0] for _, reason in look.skipped)
    facts = {
        "shards": len(corpus.table),
        "images": len(corpus),
        "classes": len(vocabulary),
        "captions looked at": look.captions,
        "labels an image (mean)": round(look.labels_per_image, 2),
        "captions without a label": look.without_label,
        "decoded once, in memory": corpus.in_memory,
        **{f"skipped: {reason}": n for reason, n in reasons.items()},
    }
    return pd.Series(facts, name="corpus").astype(object)


def pretrain(job: PretrainJob, corpus: Corpus | None = None) -> PretrainedModel:
    """Train, or continue, or just load what is finished; the EMA's weights are kept in `outputs/<run>/pretrain/`.

    One worker trains in this process, more under Ray Train. A folder that holds another run (recipe, vocabulary or corpus) is
    kept under a new name, `pretrain-1` and so on. corpus: the job's, if it is open already.
    """
    with claim_folder(job, corpus.table if corpus else open_shards(job.shards)) as finished:
        if finished:
            print(f"{job.pretrain_folder} holds this very run, finished: nothing to train", flush=True)
        elif job.workers > 1:
            from .ray_pretrain import pretrain_under_ray

            pretrain_under_ray(job)
        else:
            train_job(job, corpus)
    return load(job.pretrain_folder, job.device, job.precision)


def read_log(run: Path) -> pd.DataFrame:
    """The training log: a row a line of `pretrain/log.jsonl`."""
    return pd.read_json(run / "pretrain" / "log.jsonl", lines=True)


def zero_shot_accuracy(model: PretrainedModel, images: LabelledImages, label_set: LabelSet | None = None) -> dict:
    """Top-1 and top-5 of zero-shot classification over the labels that the vocabulary knows, with and without the prior.

    label_set: None, the labels that the images have. Images of labels that have no row are left out and counted.
    """
    label_set = label_set or map_classes(images.present())
    borrowed = borrow(label_set, model.vocabulary, fallback=())
    known = [i for i, found in enumerate(borrowed) if found.kind != "none"]
    if not known:
        raise ValueError(
            f"none of the {len(label_set)} labels of the test images has a synset in the vocabulary: give other `tests`; "
            "the trained model is written all the same"
        )
    position = {label_set.names[i]: j for j, i in enumerate(known)}
    target = np.array([position.get(label, -1) for label in images.labels])
    biases = {"": "prior", " without prior correction": "copied"}
    heads = {suffix: transfer_head(model, [borrowed[i] for i in known], bias=bias) for suffix, bias in biases.items()}
    scores, targets = {}, []
    for batch, views in batches_of_views(images, model.evaluation):
        asked = target[batch] >= 0
        targets.append(target[batch])
        features = model.embed(views[torch.from_numpy(asked)]) if asked.any() else None
        for suffix, head in heads.items() if asked.any() else ():
            scores.setdefault(suffix, []).append(head.scores(features))
    targets = np.concatenate(targets)
    if not scores:
        raise ValueError("none of the test images has a label with a synset in the vocabulary: give other `tests`")
    result = {"classes": len(known), "images": int((targets >= 0).sum()), "left out": int((targets < 0).sum())}
    for suffix, parts in scores.items():
        for k, hit in top_k_hits(np.concatenate(parts), targets[targets >= 0]).items():
            result[f"top-{k}{suffix}"] = hit
    return result


def first_test_views(model: PretrainedModel, images: LabelledImages, count: int) -> tuple[torch.Tensor, np.ndarray]:
    """Evaluation views of the first images, uint8 [n, 3, S, S], and their labels, to look at."""
    some = images.take(np.arange(min(count, len(images))))
    rows, views = all_views(some, model.evaluation)
    return views, some.labels[rows]


def nearest_pixels_accuracy(
    train_images: LabelledImages, test_images: LabelledImages, evaluation: Evaluation, most_train_images: int = 20_000
) -> float:
    """Top-1 of the nearest labelled image by pixels: what a user gets with no training at all.

    most_train_images: of a larger set, so many are drawn at random. The test images' views must fit in memory.
    """
    train_images = train_images.sample(most_train_images)
    kept, views = all_views(test_images, evaluation)
    queries = views.flatten(1).float() / 255
    nearest, least = np.zeros(len(kept), np.int64), torch.full((len(kept),), torch.inf)
    for rows, reference in batches_of_views(train_images, evaluation):
        distance, which = torch.cdist(queries, reference.flatten(1).float() / 255).min(dim=1)
        closer = distance < least
        nearest[closer.numpy()] = rows[which[closer].numpy()]
        least = torch.minimum(least, distance)
    return float((train_images.labels[nearest] == test_images.labels[kept]).mean())


def findings(recipe: Recipe, log: pd.DataFrame, accuracy: dict | None, nearest_pixels: float | None) -> str:
    """What the run found, as Markdown. accuracy, nearest_pixels: None without tests, or without labelled images."""
    seen = log["samples_seen"]
    minutes = (seen.diff().fillna(seen.iloc[0]) / log["images_per_second"]).sum() / 60
    told = (
        f"**{recipe.model}** saw {seen.iloc[-1]:,} images in {minutes:.1f} minutes "
        f"({log['images_per_second'].median():,.0f} a second); the loss fell from {log['loss'].iloc[0]:.1f} to "
        f"{log['loss'].iloc[-1]:.1f}."
    )
    if accuracy is None:
        return f"{told} No `tests` are named: there is no zero-shot to tell."
    told += (
        f" On test images, zero-shot reaches **top-1 {accuracy['top-1']:.3f}, top-5 {accuracy['top-5']:.3f}** over "
        f"{accuracy['classes']} classes ({accuracy['images']:,} images); without the prior correction it is "
        f"{accuracy['top-1 without prior correction']:.3f}."
    )
    return told if nearest_pixels is None else f"{told} The nearest labelled picture by pixels gives {nearest_pixels:.3f}."


# --- from a shell -----------------------------------------------------------------------------------------------------------


def job_from_parameters(values: dict, processes: int) -> tuple[PretrainJob, ShardTable]:
    """The job that notebook 04 makes of these parameters, for so many processes, and its shards; the vocabulary must be there.

    values: every parameter of the notebook. Raises what the notebook would raise.
    """
    folder, download_to = open_run(values["run"]), values["download_to"]
    named = workbook_path(values["vocabulary"]) if values["vocabulary"] else None
    shards = own_or_demo("shards", values["shards"], DEMO_SHARDS, captions_behind(folder, named, values["captions"]))
    vocabulary = find_vocabulary(folder, named, shards, values["label_mode"], values["threshold"])
    of_recipe = {f.name: values[f.name] for f in fields(Recipe)}
    table = open_shards(shards)
    recipe = recipe_for(**of_recipe, epochs=values["epochs"], num_samples=table.num_samples, processes=processes)
    places = {"folder": str(folder), "shards": shards, "vocabulary": str(vocabulary), "recipe": recipe, "workers": processes}
    places["download_to"] = str(workbook_path(download_to)) if download_to else None  # from the top, as in the notebook
    return PretrainJob(**places, **{f.name: values[f.name] for f in fields(PretrainJob) if f.name not in places}), table


def main(arguments: list[str] | None = None) -> int:
    """Train as a member of torchrun's processes, or alone; 1 after a one-line error."""
    return run_from_shell("04_pretrain", _pretrain_here, "Pre-train as notebook 04 does, without a notebook.", arguments)


def _pretrain_here(values: dict) -> None:
    """One process's part; what only one may do, the first does for all."""
    job, table = told_by_main(job_from_parameters(values, world_size()) if is_main() else None)
    job = replace(job, device=values["device"])
    with claim_folder(job, table) as finished:
        if not finished:
            train_job(job, open_corpus(job, table))
        elif is_main():
            print(f"{job.pretrain_folder} holds this very run, finished: nothing to train", flush=True)


if __name__ == "__main__":
    sys.exit(main())
