"""A pre-training job as plain values, and one process's part of it: what notebook 04, torchrun and Ray Train all run."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from ..artefacts import atomic_path
from ..data.corpus import Corpus
from ..data.images import AUGMENTATIONS
from ..data.sample_order import OrderRule
from ..data.shard_table import ShardTable, open_shards
from ..labels import CaptionLabeler, Vocabulary
from ..models import create_vit, save_pretrained
from ..models.heads import prior_logits
from ..models.precision import choose_device
from ..progress import LINE_EVERY_SECONDS, is_interactive, progress
from ..training.checkpoints import full_disk_told, latest_facts
from ..training.distribution import (
    SHARDED_MODELS,
    check_parallel,
    is_main,
    processes_here,
    told_by_main,
    wait_for_all,
    world_size,
)
from ..training.loop import RunOptions, train
from ..training.losses import create_loss
from ..training.memory import fit_to_device
from ..training.ownership import claim
from ..training.plan import shown, storage
from ..training.recipes import Recipe
from .outlook import check_disk, outlook, paced, run_seconds

OUTLOOK = "outlook.txt"  # in the run's pretrain/: what the run will take, as it was told
OF_A_READER = 0.5e9  # bytes of a process that decodes


@dataclass(frozen=True)
class PretrainJob:
    """A pre-training run as plain values, so that it can be sent to other processes: what notebook 04's parameters come to.

    folder: outputs/<run>, seen by all processes. vocabulary: a vocabulary.parquet. workers: processes that train, one a GPU;
    1 is this process. restarts: how often Ray Train may start them again after a failure. micro_batch: the recipe's; None: up
    to that, what the devices take, and so activation_checkpointing (see `fit_to_device`). The rest: see `Corpus`, `RunOptions`;
    lanes None: as many as processes decode, where there are shards enough.
    """

    folder: str
    shards: str | list[str]
    vocabulary: str
    recipe: Recipe
    micro_batch: int | None = None
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
    activation_checkpointing: bool | None = None
    checkpoint_every: int = 1000
    keep_last: int = 2
    keep_every: int | None = None
    record_samples: bool = False

    def __post_init__(self):
        if self.recipe.augmentation not in AUGMENTATIONS:
            raise ValueError(f"augmentation={self.recipe.augmentation!r} is unknown: choose one of {', '.join(AUGMENTATIONS)}")
        check_parallel(self.parallel)
        if self.workers > 1 and self.recipe.optimiser == "muon" and self.spread_by == "fsdp":
            raise ValueError("optimiser='muon' takes whole matrices, fsdp spreads them: choose parallel='ddp', or adamw")
        for name in ("workers", "checkpoint_every", "keep_last"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)} must be at least 1")
        if self.recipe.micro_batches % self.workers:
            raise ValueError(
                f"{self.workers} workers cannot share {self.recipe.micro_batches} micro-batch(es) a step evenly: choose "
                "another micro_batch or batch_size"
            )

    @property
    def spread_by(self) -> str:
        """How several processes share the model."""
        return self.parallel or ("fsdp" if self.recipe.model in SHARDED_MODELS else "ddp")

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


@contextmanager
def claim_folder(job: PretrainJob, table: ShardTable) -> Iterator[bool]:
    """Hold the folder as this run's, see `claim_for_all`; gives whether the run is finished, else it has room: `check_disk`."""
    folder, vocabulary = job.pretrain_folder, Vocabulary.load(job.vocabulary)
    identity = {"recipe": job.recipe.identity(), "corpus": table.fingerprint, "wnids": vocabulary.wnids}
    with claim_for_all(folder, identity) as finished:
        if not finished and is_main():
            check_disk(job, vocabulary)
        yield finished


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
    network, loss = create_network(recipe, vocabulary), create_loss(recipe.loss, vocabulary)
    options = RunOptions(
        device=device,
        precision=job.precision,
        compile=job.compile,
        parallel=job.spread_by,
        checkpoint_every=job.checkpoint_every,
        keep_last=job.keep_last,
        keep_every=job.keep_every,
        record_samples=job.record_samples,
    )
    recipe, options = _fitted(job, corpus, network, loss, options)
    report = TrainingReporter(recipe.max_steps)
    tell = {"on_log": report, "on_progress": report.within} if is_main() else {}
    with full_disk_told(job.pretrain_folder, shown(storage(network).checkpoint, "B")):
        state = train(network, loss, corpus, recipe, job.pretrain_folder, options, **tell)
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


def _fitted(job: PretrainJob, corpus: Corpus, network, loss, options: RunOptions) -> tuple[Recipe, RunOptions]:
    """Recipe and options as the devices take them; the first process tells what that comes to."""
    facts = told_by_main(latest_facts(job.pretrain_folder / "checkpoints") if is_main() else None) or {"step": 0}
    done = facts["step"]
    if done >= job.recipe.max_steps:  # only the model is to be written
        return job.recipe, options
    given = {"micro_batch": job.micro_batch, "checkpointing": job.activation_checkpointing}
    reserve = 0.0 if corpus.in_memory else OF_A_READER * job.loader_workers * processes_here()
    fit = fit_to_device(network, loss, job.recipe, options, **given, before=facts.get("micro_batch"), reserve=reserve)
    recipe = replace(job.recipe, micro_batch=fit.micro_batch)
    corpus.share_among(world_size(), recipe.micro_batches // world_size())
    seconds = run_seconds(network, recipe, fit, done)
    options = replace(options, activation_checkpointing=fit.activation_checkpointing)
    options = paced(options, seconds / (recipe.max_steps - done))
    if is_main():
        lines = outlook(network, recipe, options, fit, len(corpus), done)
        print(*lines, sep="\n", flush=True)
        with atomic_path(job.pretrain_folder / OUTLOOK) as staging:
            staging.write_text("\n".join(lines))
    return recipe, options


class TrainingReporter:
    """Shows the training log as it comes: a bar in JupyterLab, a line every few seconds headless."""

    def __init__(self, max_steps: int, title: str = "pretrain"):
        self.max_steps, self.title = max_steps, title
        self.last = self.last_log = -LINE_EVERY_SECONDS  # when a line was printed
        self.bar = None

    def __call__(self, entry: dict) -> None:
        """A line of the log."""
        told = f"loss {entry['loss']:.3f}, {entry['images_per_second']:,.3g} img/s"
        if is_interactive():
            self._shown(entry["step"], told)
        elif time.monotonic() - self.last_log >= LINE_EVERY_SECONDS or entry["step"] == self.max_steps:
            self.last = self.last_log = time.monotonic()
            print(f"step {entry['step']:,} of {self.max_steps:,}: {told}, {entry['eta_seconds']:,.0f} s left", flush=True)

    def within(self, step: int, images: int, of: int) -> None:
        """So many images of a step are done."""
        if images == of or time.monotonic() - self.last < LINE_EVERY_SECONDS:
            return
        self.last = time.monotonic()
        told = f"{images:,} of {of:,} images"
        if is_interactive():
            self._shown(step - 1, f"step {step:,}: {told}")
        else:
            print(f"step {step:,} of {self.max_steps:,}: {told}", flush=True)

    def _shown(self, done: int, told: str) -> None:
        if self.bar is None:
            from tqdm.auto import tqdm

            self.bar = tqdm(total=self.max_steps, desc=self.title, unit="step")
        self.bar.update(done - self.bar.n)
        self.bar.set_postfix_str(told)
