"""Notebook 04: shards + vocabulary → a pre-trained ViT in `outputs/<run>/pretrain/` (paper section 3.2, figure 8)."""

from __future__ import annotations

import itertools
import json
import logging
import time
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from ..artefacts import atomic_path, provenance
from ..data.corpus import Corpus, ShardIndex, index_shards
from ..data.images import AUGMENTATIONS
from ..data.labelled import check_labelled
from ..data.shards import find_shards, read_samples
from ..labels import CaptionLabeler, LabelSet, Vocabulary, count_synsets
from ..models import PretrainedModel, create_vit, label_rows, load, save_pretrained, zero_shot_scores
from ..models.precision import choose_device
from ..training.loop import train
from ..training.recipes import Recipe, recipe_for
from .progress import LINE_EVERY_SECONDS, is_interactive, progress
from .scoring import top_k_hits

logger = logging.getLogger(__name__)


def check_inputs(model: str, shards, labelled, tests, label_field: str) -> None:
    """Refuse an unknown model and addresses with nothing behind them now rather than after the training."""
    recipe_for(model)
    find_shards(shards)
    for address in (labelled, tests):
        check_labelled(address, label_field=label_field)


def find_vocabulary(run: Path, vocabulary: str | Path | None, shards, label_mode: str, threshold: int) -> Vocabulary:
    """The named vocabulary; else the run's, written by notebook 02; else one counted from the shards' captions and stored.

    label_mode and threshold are used in the last case alone.
    """
    path = Path(vocabulary) if vocabulary is not None else run / "vocabulary.parquet"
    if vocabulary is not None or path.is_file():
        return Vocabulary.load(path)
    print(f"{path} is not there: counting the synsets of the captions of {shards}", flush=True)
    labeler = CaptionLabeler(label_mode)
    captions = [sample.caption for sample in progress(read_samples(shards), "captions", unit="captions")]
    counts = count_synsets(labeler.label(captions))
    card = provenance(captions=str(shards), labeler=labeler.name, **labeler.card)
    found = Vocabulary.from_counts(counts, threshold, num_captions=len(captions), card=card)
    found.save(path)
    return found


def index_corpus(shards, labeler: CaptionLabeler, vocabulary: Vocabulary) -> ShardIndex:
    """Locate the images of all shards and label their captions: see `index_shards` for what it raises."""
    return index_shards(shards, labeler, vocabulary, lambda paths: progress(paths, "shards", unit="shards"))


def open_corpus(index: ShardIndex, recipe: Recipe, *, cache_gb: float, loader_workers: int) -> Corpus:
    """Decode what fits in memory. Raises ValueError for an unknown augmentation."""
    if recipe.augmentation not in AUGMENTATIONS:
        raise ValueError(f"augmentation={recipe.augmentation!r} is unknown: choose one of {', '.join(AUGMENTATIONS)}")
    augmentation = AUGMENTATIONS[recipe.augmentation]
    return Corpus(index, recipe.image_size, augmentation, seed=recipe.seed, cache_gb=cache_gb, workers=loader_workers)


def summarise_recipe(recipe: Recipe) -> pd.DataFrame:
    """The recipe as a table of one row a setting."""
    values = {k: "log prior odds" if v is None else v for k, v in recipe.as_dict().items()}
    return pd.DataFrame({"value": pd.Series(values, dtype=object)})


def summarise_corpus(corpus: Corpus, vocabulary: Vocabulary) -> pd.Series:
    """What training will see, in a few figures."""
    index = corpus.index
    labels = np.diff(index.label_ends)
    facts = {
        "shards": len(index.paths),
        "images": len(corpus),
        "classes": len(vocabulary),
        "labels an image (mean)": round(float(labels.mean()), 2),
        "images without a label": int((labels == 0).sum()),
        "decoded once, in memory": corpus.in_memory,
        **{f"skipped: {reason}": n for reason, n in index.skipped.items() if n},
    }
    return pd.Series(facts, name="corpus").astype(object)


def create_network(recipe: Recipe, vocabulary: Vocabulary) -> torch.nn.Module:
    """The ViT of a recipe, its head's bias set as the recipe says; the same weights for the same seed."""
    torch.manual_seed(recipe.seed)
    network = create_vit(recipe.model, num_classes=len(vocabulary), image_size=recipe.image_size)
    with torch.no_grad():
        if recipe.head_bias is None:
            network.head.bias.copy_(torch.from_numpy(vocabulary.log_prior_odds()))
        else:
            network.head.bias.fill_(recipe.head_bias)
    return network


def pretrain(
    run: Path,
    corpus: Corpus,
    vocabulary: Vocabulary,
    recipe: Recipe,
    *,
    device: str | None = None,
    precision: str = "auto",
    checkpoint_every: int = 1000,
) -> PretrainedModel:
    """Train, or continue, or just load what is finished; the EMA's weights are kept in `run/pretrain/`.

    A folder that holds another run (recipe, vocabulary or corpus) is kept under a new name, `pretrain-1` and so on.
    """
    folder = run / "pretrain"
    facts = {"recipe": recipe.as_dict(), "shards": [p.name for p in corpus.index.paths], "images": len(corpus)}
    _claim(folder, {**facts, "wnids": vocabulary.wnids})
    if (folder / "model.safetensors").is_file():
        print(f"{folder} holds this very run, finished: nothing to train", flush=True)
        return load(folder, device, precision)
    network = create_network(recipe, vocabulary)
    where = choose_device(device)
    print(f"training {recipe.model} for {recipe.max_steps:,} steps on {where}", flush=True)
    state = train(
        network,
        corpus,
        recipe,
        folder,
        device=where,
        precision=precision,
        checkpoint_every=checkpoint_every,
        on_log=TrainingReporter(recipe.max_steps),
    )
    save_pretrained(folder, state, vocabulary, model=recipe.model, image_size=recipe.image_size, **facts)
    return load(folder, device, precision)


def _claim(folder: Path, identity: dict) -> None:
    """Make `folder` the place of this run, moving another run's out of the way."""
    marker = folder / "run.json"
    if folder.is_dir() and any(folder.iterdir()):
        there = json.loads(marker.read_text()) if marker.is_file() else {}
        changed = [name for name, value in identity.items() if there.get(name) != json.loads(json.dumps(value))]
        if not changed:
            return
        free = next(p for n in itertools.count(1) if not (p := folder.with_name(f"{folder.name}-{n}")).exists())
        folder.rename(free)
        print(f"{folder} held another run (other {', '.join(changed)}): it is kept as {free}", flush=True)
    folder.mkdir(exist_ok=True)
    with atomic_path(marker) as staging:
        staging.write_text(json.dumps(identity))


class TrainingReporter:
    """Shows the training log as it comes: a bar in JupyterLab, a line every few seconds headless."""

    def __init__(self, max_steps: int):
        self.max_steps = max_steps
        self.last = -LINE_EVERY_SECONDS
        self.bar = None

    def __call__(self, entry: dict) -> None:
        told = f"loss {entry['loss']:.3f}, {entry['images_per_second']:,.0f} img/s"
        if is_interactive():
            if self.bar is None:
                from tqdm.auto import tqdm

                self.bar = tqdm(total=self.max_steps, desc="pretrain", unit="step")
            self.bar.update(entry["step"] - self.bar.n)
            self.bar.set_postfix_str(told)
        elif time.monotonic() - self.last >= LINE_EVERY_SECONDS or entry["step"] == self.max_steps:
            self.last = time.monotonic()
            print(f"step {entry['step']:,} of {self.max_steps:,}: {told}, {entry['eta_seconds']:,.0f} s left", flush=True)


def read_log(run: Path) -> pd.DataFrame:
    """The training log: a row a line of `pretrain/log.jsonl`."""
    return pd.read_json(run / "pretrain" / "log.jsonl", lines=True)


def zero_shot_accuracy(model: PretrainedModel, images, label_set: LabelSet | None = None) -> dict:
    """Top-1 and top-5 of zero-shot classification over the labels that the vocabulary knows, with and without the prior.

    images: `LabelledImages`. Images of labels that have no row are left out and counted.
    """
    label_set = label_set or LabelSet.from_names(images.classes)
    rows = label_rows(label_set, model.vocabulary)
    known = [i for i, r in enumerate(rows) if len(r)]
    if not known:
        raise ValueError(
            f"none of the {len(label_set)} labels of the test images has a synset in the vocabulary: give other `tests`; "
            "the trained model is written all the same"
        )
    position = {label_set.names[i]: j for j, i in enumerate(known)}
    target = np.array([position.get(label, -1) for label in images.labels])
    _, logits = model.outputs(images.views)
    result = {"classes": len(known), "images": int((target >= 0).sum()), "left out": int((target < 0).sum())}
    for suffix, corrected in (("", True), (" without prior correction", False)):
        scores = zero_shot_scores(logits, [rows[i] for i in known], model.vocabulary, prior_corrected=corrected)
        for k, hit in top_k_hits(scores[target >= 0], target[target >= 0]).items():
            result[f"top-{k}{suffix}"] = hit
    return result


def nearest_pixels_accuracy(train_images, test_images) -> float:
    """Top-1 of the nearest labelled image by pixels: what a user gets with no training at all."""
    reference = train_images.views.flatten(1).float() / 255
    queries = test_images.views.flatten(1).float() / 255
    nearest = torch.cdist(queries, reference).argmin(dim=1).numpy()
    return float((train_images.labels[nearest] == test_images.labels).mean())


def findings(recipe: Recipe, log: pd.DataFrame, accuracy: dict, nearest_pixels: float) -> str:
    """What the run found, as Markdown."""
    minutes = (log["step"].diff().fillna(log["step"].iloc[0]) * recipe.batch_size / log["images_per_second"]).sum() / 60
    return (
        f"**{recipe.model}** saw {recipe.max_steps * recipe.batch_size:,} images in {minutes:.1f} minutes "
        f"({log['images_per_second'].median():,.0f} a second); the loss fell from {log['loss'].iloc[0]:.1f} to "
        f"{log['loss'].iloc[-1]:.1f}. On test images, zero-shot reaches **top-1 {accuracy['top-1']:.3f}, top-5 "
        f"{accuracy['top-5']:.3f}** over {accuracy['classes']} classes ({accuracy['images']:,} images); without the prior "
        f"correction it is {accuracy['top-1 without prior correction']:.3f}. The nearest labelled picture by pixels gives "
        f"{nearest_pixels:.3f}."
    )
