"""A pre-training job as plain values, and one process's part of it: what notebook 04, torchrun and Ray Train all run."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch

from ..data.corpus import Corpus
from ..data.images import AUGMENTATIONS
from ..data.sample_order import OrderRule
from ..data.shard_table import ShardTable, open_shards
from ..labels import CaptionLabeler, Vocabulary
from ..models import create_vit, save_pretrained
from ..models.heads import prior_logits
from ..models.precision import choose_device
from ..training.checkpoints import latest_facts
from ..training.distribution import SHARDED_MODELS, check_parallel, is_main, told_by_main, wait_for_all, world_size
from ..training.loop import RunOptions, train
from ..training.losses import create_loss
from ..training.recipes import Recipe
from .progress import LINE_EVERY_SECONDS, is_interactive, progress
from .run_folder import claim


@dataclass(frozen=True)
class PretrainJob:
    """A pre-training run as plain values, so that it can be sent to other processes: what notebook 04's parameters come to.

    folder: outputs/<run>, seen by all processes. vocabulary: a vocabulary.parquet. workers: processes that train, one a GPU;
    1 is this process. restarts: how often Ray Train may start them again after a failure. The rest: see `Corpus`,
    `RunOptions`; lanes None: as many as processes decode, where there are shards enough.
    """

    folder: str
    shards: str | list[str]
    vocabulary: str
    recipe: Recipe
    workers: int = 1
    restarts: int = 3
    loader_workers: int = 2
    cache_gb: float = 2.0
    lanes: int | None = None
    download_to: str | None = None
    device: str | None = None
    precision: str = "auto"
    compile: bool | None = None
    parallel: str | None = None
    activation_checkpointing: bool = False
    checkpoint_every: int = 1000
    keep_last: int = 2
    keep_every: int | None = None
    record_samples: bool = False

    def __post_init__(self):
        if self.recipe.augmentation not in AUGMENTATIONS:
            raise ValueError(f"augmentation={self.recipe.augmentation!r} is unknown: choose one of {', '.join(AUGMENTATIONS)}")
        check_parallel(self.parallel)
        for name in ("workers", "checkpoint_every", "keep_last"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)} must be at least 1")
        if self.recipe.micro_batches % self.workers:
            raise ValueError(
                f"{self.workers} workers cannot share {self.recipe.micro_batches} micro-batch(es) a step evenly: choose "
                "another micro_batch or batch_size"
            )

    @property
    def pretrain_folder(self) -> Path:
        """Where weights, checkpoints and logs go."""
        return Path(self.folder) / "pretrain"


def open_corpus(job: PretrainJob, table: ShardTable | None = None, vocabulary: Vocabulary | None = None) -> Corpus:
    """The job's corpus, in the order of its last checkpoint if there is one; what fits in memory is decoded.

    In a process group the first process looks at shards and checkpoint for all, so that all have one order.
    """
    if table is None:
        table = told_by_main(open_shards(job.shards, _shards_progress) if is_main() else None)
    vocabulary = vocabulary or Vocabulary.load(job.vocabulary)
    readers = job.workers * max(1, job.loader_workers)
    facts = told_by_main(latest_facts(job.pretrain_folder / "checkpoints") if is_main() else None)
    if facts is not None and job.lanes is None:
        lanes = facts["rule"]["lanes"]
    else:
        lanes = job.lanes or max(1, min(readers, len(table) // job.recipe.shuffle_shards))
    return Corpus(
        table,
        CaptionLabeler.from_card(vocabulary.card),
        vocabulary,
        job.recipe.image_size,
        AUGMENTATIONS[job.recipe.augmentation],
        rule=OrderRule(job.recipe.seed, job.recipe.shuffle_shards, lanes),
        cache_gb=job.cache_gb,
        workers=job.loader_workers,
        processes=job.workers,
        share=job.recipe.micro_batches // job.workers,
        download_to=Path(job.download_to) if job.download_to else None,
        progress=lambda shards: progress(shards, "decoded", unit="shards"),
    )


def _shards_progress(shards):
    return progress(shards, "shards", unit="shards")


def create_network(recipe: Recipe, vocabulary: Vocabulary) -> torch.nn.Module:
    """The ViT of a recipe, its head's bias set as the recipe says; the same weights for the same seed."""
    with torch.random.fork_rng():
        torch.manual_seed(recipe.seed)
        options = {"stem": recipe.stem, "pooling": recipe.pooling}
        network = create_vit(recipe.model, num_classes=len(vocabulary), image_size=recipe.image_size, **options)
    with torch.no_grad():
        if recipe.head_bias == "prior":
            network.head.bias.copy_(torch.from_numpy(prior_logits(vocabulary, recipe.loss)))
    return network


def claim_folder(job: PretrainJob, table: ShardTable) -> AbstractContextManager[bool]:
    """Hold the folder as this run's, see `claim_for_all`; gives whether the run is finished already."""
    folder = job.pretrain_folder
    identity = {"recipe": job.recipe.identity(), "corpus": table.fingerprint, "wnids": Vocabulary.load(job.vocabulary).wnids}
    return claim_for_all(folder, identity)


@contextmanager
def claim_for_all(folder: Path, identity: dict) -> Iterator[bool]:
    """`claim`, by the first of the processes that train; gives all of them what it gives."""
    with ExitStack() as held:
        yield told_by_main(held.enter_context(claim(folder, identity)) if is_main() else None)


def train_job(job: PretrainJob, corpus: Corpus | None = None) -> None:
    """One process's part of a job, alone or as a member of a process group; the first one writes the finished model."""
    recipe, device = job.recipe, choose_device(job.device)
    corpus = corpus or open_corpus(job)
    vocabulary = corpus.stream.vocabulary
    network = create_network(recipe, vocabulary)
    options = RunOptions(
        device=device,
        precision=job.precision,
        compile=job.compile,
        parallel=job.parallel or ("fsdp" if recipe.model in SHARDED_MODELS else "ddp"),
        activation_checkpointing=job.activation_checkpointing,
        checkpoint_every=job.checkpoint_every,
        keep_last=job.keep_last,
        keep_every=job.keep_every,
        record_samples=job.record_samples,
    )
    if is_main():
        print(f"training {recipe.model} for {recipe.max_steps:,} steps on {world_size()} x {device}", flush=True)
    report = TrainingReporter(recipe.max_steps) if is_main() else lambda entry: None
    loss = create_loss(recipe.loss, vocabulary)
    state = train(network, loss, corpus, recipe, job.pretrain_folder, options, on_log=report)
    if is_main():
        facts = {"recipe": recipe.as_dict(), "images": len(corpus), "corpus": corpus.table.fingerprint}
        facts["shards"] = job.shards
        save_pretrained(
            job.pretrain_folder,
            state,
            vocabulary,
            model=recipe.model,
            image_size=recipe.image_size,
            stem=recipe.stem,
            pooling=recipe.pooling,
            **facts,
        )
    wait_for_all()


class TrainingReporter:
    """Shows the training log as it comes: a bar in JupyterLab, a line every few seconds headless."""

    def __init__(self, max_steps: int, title: str = "pretrain"):
        self.max_steps, self.title = max_steps, title
        self.last = -LINE_EVERY_SECONDS
        self.bar = None

    def __call__(self, entry: dict) -> None:
        told = f"loss {entry['loss']:.3f}, {entry['images_per_second']:,.0f} img/s"
        if is_interactive():
            if self.bar is None:
                from tqdm.auto import tqdm

                self.bar = tqdm(total=self.max_steps, desc=self.title, unit="step")
            self.bar.update(entry["step"] - self.bar.n)
            self.bar.set_postfix_str(told)
        elif time.monotonic() - self.last >= LINE_EVERY_SECONDS or entry["step"] == self.max_steps:
            self.last = time.monotonic()
            print(f"step {entry['step']:,} of {self.max_steps:,}: {told}, {entry['eta_seconds']:,.0f} s left", flush=True)
