"""Front door of pre-training (paper section 3.2): shards + vocabulary → a ViT in `outputs/<run>/pretrain/`.

Notebook 04, torchrun and Ray Train run this one job. Without a notebook, one process a GPU:

    torchrun --nproc-per-node 8 -m catlip_lite.pretrain params/<run>.yaml
"""

from __future__ import annotations

import json
import logging
import math
import os
import shutil
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from .artefacts import atomic_path, provenance
from .data.addresses import Address
from .data.captions import Columns, columns_of, read_corpus
from .data.images import AUGMENTATIONS
from .data.loader import Corpus
from .data.shards import CAPTION
from .data.stream import OrderRule, ShardTable, open_shards
from .labels import CaptionLabeler, Vocabulary, count_synsets
from .models import PretrainedModel, load, save_pretrained
from .models.clip import ClipModel
from .models.precision import choose_device
from .progress import TrainingReporter, duration, progress
from .training import parallel
from .training.loop import LOG, RunOptions, train
from .training.memory import Fit, fit_to_device
from .training.objectives import Catlip, create_objective
from .training.ownership import WORKERS, claim_for_all, hold
from .training.plan import run_totals, shown, storage, towers_on_paper
from .training.recipes import Recipe, recipe_for
from .workbook.parameters import taken_by
from .workbook.run_folder import is_demo, open_run, own_or_demo, workbook_path
from .workbook.shell import run_from_shell

# --- the job ------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class PretrainJob:
    """A pre-training run as plain values, so that it can be sent to other processes: what notebook 04's parameters come to.

    folder: outputs/<run>, seen by all processes. vocabulary: a vocabulary.parquet; None where no synsets are learnt.
    micro_batch: the recipe's; None: up to that, what the devices take, see `fit_to_device`. workers: processes that train, one
    a GPU; 1 is this process. The rest: see `Corpus`; lanes None: as many as processes decode, where there are shards enough.
    """

    folder: str
    shards: str | list[str]
    vocabulary: str | None
    recipe: Recipe
    options: RunOptions = RunOptions()  # noqa: RUF009 (frozen)
    micro_batch: int | None = None
    workers: int = 1
    loader_workers: int = 2
    cache_gb: float = 2.0
    lanes: int | None = None
    download_to: str | None = None
    caption_column: str | list[str] = CAPTION

    def __post_init__(self):
        if self.options.checkpoint_every is None:
            raise ValueError("checkpoint_every=None must be at least 1: a run of days is not to be lost")
        if self.workers > 1 and self.recipe.optimiser == "muon" and self.options.spread(self.recipe.model) == "fsdp":
            raise ValueError("optimiser='muon' takes whole matrices, fsdp spreads them: choose parallel='ddp', or adamw")
        if self.recipe.micro_batches % self.workers:
            raise ValueError(
                f"{self.workers} workers cannot share {self.recipe.micro_batches} micro-batch(es) a step evenly: choose "
                "another micro_batch or batch_size"
            )

    @property
    def pretrain_folder(self) -> Path:
        """Where weights, checkpoints and logs go."""
        return Path(self.folder) / "pretrain"

    def objective(self) -> Catlip:
        """What is learnt, with the vocabulary."""
        return create_objective(self.recipe, Vocabulary.load(self.vocabulary) if self.vocabulary else None)


def job_from(values: Mapping) -> tuple[PretrainJob, ShardTable]:
    """The job that notebook 04's parameters come to, and its shards; a vocabulary that is not there is counted.

    values: the notebook's globals(), or a shell's parameters. Raises OSError or ValueError with advice, before long work.
    """
    shards, _ = data_of(values)
    columns = columns_of(values["caption_column"])
    table = open_shards(shards, lambda found: progress(found, "shards", unit="shards"), columns=columns)
    of_run = {"num_samples": table.num_samples, "processes": values["workers"]}
    recipe = recipe_for(values["model"], **{**taken_by(recipe_for, values), **of_run})
    options, folder = RunOptions(**taken_by(RunOptions, values)), open_run(values["run"])
    named, download_to = (values[name] and workbook_path(values[name]) for name in ("vocabulary", "download_to"))
    places = {"folder": str(folder), "shards": shards, "download_to": download_to and str(download_to)}
    job = PretrainJob(**{**taken_by(PretrainJob, values), **places, "vocabulary": None, "recipe": recipe, "options": options})
    if recipe.names_synsets:
        vocabulary = find_vocabulary(folder, named, shards, values["label_mode"], values["threshold"], values["caption_column"])
        job = replace(job, vocabulary=str(vocabulary))
    job.objective()  # that it can be had
    return job, table


def data_of(values: Mapping) -> tuple[str | list[str], list]:
    """A run's shards, the demo's where nothing else is meant; and addresses of all data that it rests on: captions and shards.

    Raises ValueError for captions of one's own beside a run's vocabulary of the demo's, or the other way round.
    """
    named, captions = values["vocabulary"], values["captions"]
    path = workbook_path(named) if named else open_run(values["run"]) / "vocabulary.parquet"
    beside = [Vocabulary.load(path).card.get("captions", str(path))] if path.is_file() else []
    if captions and not named and not all(is_demo(counted) == is_demo(captions) for counted in beside):
        raise ValueError(f"{path} counts {beside[0]}, not captions={captions!r}: run notebooks 01 and 02 first, or set `run`")
    beside += [captions] if captions else []
    shards = own_or_demo("shards", values["shards"], "demo/pretrain", beside)
    return shards, [*beside, shards]


def find_vocabulary(
    run: Path, vocabulary: Path | None, shards: Address, label_mode: str, threshold: int, column: Columns = CAPTION
) -> Path:
    """The named vocabulary's file; else the run's, written by notebook 02; else one counted from the shards' captions.

    label_mode and threshold are used in the last case alone.
    """
    path = vocabulary or run / "vocabulary.parquet"
    if vocabulary is not None or path.is_file():
        return path
    if any("://" in str(address) for address in ([shards] if isinstance(shards, (str, Path)) else shards)):
        raise ValueError(
            f"{path} is not there: count the captions of {shards} with `python -m catlip_lite.label_captions`, prune them "
            "in notebook 02, or pass a `vocabulary`"
        )
    print(f"{path} is not there: counting the synsets of the captions of {shards}", flush=True)
    labeler = CaptionLabeler(label_mode)
    captions = read_corpus(shards, column)
    counts = count_synsets(labeler.label(captions))
    card = provenance(captions=str(shards), caption_column=column, labeler=labeler.name, **labeler.card)
    Vocabulary.from_counts(counts, threshold, num_captions=len(captions), card=card).save(path)
    return path


def pretrain(job: PretrainJob, corpus: Corpus | None = None) -> PretrainedModel | ClipModel:
    """Train, or continue, or just load what is finished; the EMA's weights are kept in `outputs/<run>/pretrain/`.

    One worker trains in this process, more under Ray Train. A folder that holds another run (recipe, vocabulary or corpus) is
    kept under a new name, `pretrain-1` and so on. corpus: the job's, if it is open already.
    """
    with claim_folder(job, corpus.table if corpus else shards_of(job)) as finished:
        if not finished and job.workers > 1:
            pretrain_under_ray(job)
        elif not finished:
            train_job(job, corpus)
    return load(job.pretrain_folder, job.options.device, job.options.precision)


@contextmanager
def claim_folder(job: PretrainJob, table: ShardTable) -> Iterator[bool]:
    """Hold the folder as this run's, see `claim_for_all`; gives whether the run is finished, else it has room: `check_disk`."""
    folder, vocabulary = job.pretrain_folder, job.objective().vocabulary
    identity: dict[str, Any] = {
        "recipe": job.recipe.identity(),
        "corpus": table.fingerprint,
        "wnids": vocabulary and vocabulary.wnids,
    }
    columns = columns_of(job.caption_column)
    identity["caption_column"] = None if columns == (CAPTION,) else columns  # None: so are runs from before there was a choice
    with claim_for_all(folder, identity) as finished:
        if parallel.is_main() and not finished:
            check_disk(job, len(vocabulary or ()))
        yield finished


# --- what it will take: images, memory, time, room on the disk ----------------------------------------------------------------

OUTLOOK = "outlook.txt"  # in the run's pretrain/: what the run will take, as it was told
SAVE_SECONDS, LOG_SECONDS = 900.0, 60.0  # a checkpoint, a line of the log: as often, if a step is no longer
LONG = 3 * 86_400.0  # seconds that a run may take without advice


def paced(options: RunOptions, step_seconds: float) -> RunOptions:
    """Where steps are slow, more checkpoints and lines of the log than every so many steps."""
    also, log = (max(1, int(seconds / step_seconds)) for seconds in (SAVE_SECONDS, LOG_SECONDS))
    also_every = also if also < (options.checkpoint_every or 0) else None
    return replace(options, also_every=also_every, log_every=min(options.log_every, log))


def outlook(
    network: torch.nn.Module, loss: Callable, recipe: Recipe, options: RunOptions, fit: Fit, num_images: int, start: int = 0
) -> tuple[list[str], RunOptions]:
    """Three lines, what a run will do, in what memory and for how long; and its options, `paced`.

    At the speed of the trial, without reading, optimiser and evaluation. start: steps that are done already, fewer than all.
    """
    processes, left, device = parallel.world_size(), recipe.max_steps - start, choose_device(options.device)
    images, flops = run_totals(network, recipe, processes, start, of_caption=getattr(loss, "training_flops", 0))
    seconds = flops / (fit.speed * processes)
    step, rate = seconds / left, f"{images / seconds:,.3g} images a second"
    options = paced(options, step)
    weights = sum(p.numel() for part in (network, loss) if isinstance(part, torch.nn.Module) for p in part.parameters())
    to_go = f"steps {start + 1:,} to {recipe.max_steps:,}" if start else f"{left:,} steps"
    shared = f" by {processes} processes" if processes > 1 else ""
    what = (
        f"{recipe.model}, {weights / 1e6:,.1f}M parameters, on {num_images:,} images: {to_go}, {images / num_images:.3g} "
        f"epochs; a step is {recipe.batch_size:,} images = {recipe.micro_batches:,} x {recipe.micro_batch:,}{shared}"
    )
    kept = "computed twice, to keep fewer" if fit.activation_checkpointing else "kept for the backward pass"
    too_much = ": more than there is" if fit.state + fit.activations > fit.free else ""
    memory = (
        f"memory of {device}: {shown(fit.state, 'B')} of weights, gradients, moments and EMA, {shown(fit.activations, 'B')} of "
        f"activations ({kept}), of {shown(fit.free, 'B')} free{too_much}"
    )
    how_long = f"about {duration(seconds)} at the rate of the first micro-batches, {rate}"
    if seconds > LONG:
        faster = {"cuda": "more GPUs (`workers`)", "mps": "a larger GPU", "cpu": "a GPU"}[device.type]
        smaller = {"vit_nano8": f"image_size {recipe.image_size // 2}", "vit_ti16": "model vit_nano8"}
        smaller = smaller.get(recipe.model, "model vit_ti16")
        fewer = max(1, min(10, int(LONG / step)))
        shorter = f"{faster}, `-p {smaller}` or `-p max_steps {fewer}` would not"
        how_long = f"this takes about {duration(seconds)} here, {rate}: {shorter}"
    between = min(n for n in (options.checkpoint_every, options.also_every, left) if n)
    under_way = "the step under way, " if between == 1 else "at most "
    lost = f": it loses {under_way}{duration(60 * round(between * step / 60))}" if between * step >= 60 else ""
    return [what, memory, f"{how_long}; it can be killed at any time, and goes on when run again{lost}"], options


def check_disk(job: PretrainJob, num_classes: int) -> None:
    """Raises OSError where the checkpoints of a run that are there at the same time do not fit, with the trained model."""
    folder, options = job.pretrain_folder, job.options
    model, checkpoint, _ = storage(*towers_on_paper(job.recipe, num_classes))
    saves = math.ceil(job.recipe.max_steps / (options.checkpoint_every or job.recipe.max_steps))
    last = min(parallel.KEPT, saves)
    at_once = max(min(last + 1, saves) * checkpoint, last * checkpoint + model)  # one is written before one goes
    there = sum(file.stat().st_size for file in folder.glob("checkpoints/step_*/*"))
    free = shutil.disk_usage(folder).free + there
    if at_once > free:
        raise OSError(
            f"{folder}: a checkpoint takes {shown(checkpoint, 'B')}, {last} of them, another while it is written and the model "
            f"{shown(at_once, 'B')}; {shown(free, 'B')} are free on this disk: make room, or link outputs/ to a larger disk"
        )


# --- one process's part -------------------------------------------------------------------------------------------------------

OF_NETWORK = ("model", "image_size", "stem", "pooling", "objective", "context_length")  # of a recipe, what `load` must know
OF_A_READER = 0.5e9  # bytes of a process that decodes


def shards_of(job: PretrainJob) -> ShardTable:
    """The job's shards, with their counts."""
    return open_shards(job.shards, columns=columns_of(job.caption_column))


def open_corpus(job: PretrainJob, table: ShardTable | None = None) -> Corpus:
    """The job's corpus, in the order of its last checkpoint if there is one; what fits in memory is decoded.

    In a process group the first process looks at shards and checkpoint for all, so that all have one order.
    """
    recipe = job.recipe
    table = table or parallel.told_by_main(shards_of(job) if parallel.is_main() else None)
    facts = parallel.told_by_main(parallel.latest_facts(job.pretrain_folder / "checkpoints") if parallel.is_main() else None)
    readers = job.workers * max(1, job.loader_workers)
    lanes = facts["rule"]["lanes"] if facts else max(1, min(readers, len(table) // recipe.shuffle_shards))
    return Corpus(
        table,
        job.objective().targets(),
        recipe.image_size,
        AUGMENTATIONS[recipe.augmentation],
        columns=columns_of(job.caption_column),
        rule=OrderRule(recipe.seed, recipe.shuffle_shards, job.lanes or lanes),
        cache_gb=job.cache_gb,
        workers=job.loader_workers,
        processes=job.workers,
        share=recipe.micro_batches // job.workers,
        download_to=Path(job.download_to) if job.download_to else None,
        progress=lambda shards: progress(shards, "decoded", unit="shards"),
    )


def train_job(job: PretrainJob, corpus: Corpus | None = None) -> None:
    """One process's part of a job, alone or as a member of a process group; the first one writes the finished model."""
    corpus, folder = corpus or open_corpus(job), job.pretrain_folder
    recipe, objective = job.recipe, job.objective()
    network, loss = objective.network(), objective.loss()
    fitted, options = _fitted(job, corpus, network, loss)
    report = TrainingReporter(recipe.max_steps)
    tell: dict[str, Any] = {"on_log": report, "on_progress": report.within} if parallel.is_main() else {}
    checkpoint = storage(*towers_on_paper(recipe, len(objective.vocabulary or ()))).checkpoint
    with parallel.full_disk_told(folder, shown(checkpoint, "B")):
        state = train(network, loss, corpus, fitted, folder, options, **tell)
        if parallel.is_main():
            facts: dict[str, Any] = {
                "recipe": fitted.as_dict(),
                "images": len(corpus),
                "corpus": corpus.table.fingerprint,
                "shards": job.shards,
            }
            of_network: dict[str, Any] = {name: getattr(recipe, name) for name in OF_NETWORK}
            save_pretrained(folder, state, objective.vocabulary, **of_network, **facts)
    parallel.wait_for_all()


def _fitted(job: PretrainJob, corpus: Corpus, network: torch.nn.Module, loss: Callable) -> tuple[Recipe, RunOptions]:
    """Recipe and options as the devices take them; the first process tells what that comes to."""
    folder, recipe = job.pretrain_folder, job.recipe
    facts = parallel.told_by_main(parallel.latest_facts(folder / "checkpoints") if parallel.is_main() else None) or {"step": 0}
    if facts["step"] >= recipe.max_steps:  # only the model is to be written
        return recipe, job.options
    reserve = 0.0 if corpus.in_memory else OF_A_READER * job.loader_workers * parallel.processes_here()
    before = facts.get("micro_batch")
    whole = recipe.micro_batch if recipe.contrastive else job.micro_batch  # captions are compared over a whole step
    fit = fit_to_device(network, loss, recipe, job.options, micro_batch=whole, before=before, reserve=reserve)
    recipe = replace(recipe, micro_batch=fit.micro_batch)
    corpus.share_among(parallel.world_size(), recipe.micro_batches // parallel.world_size())
    options = replace(job.options, activation_checkpointing=fit.activation_checkpointing)
    lines, options = outlook(network, loss, recipe, options, fit, len(corpus), facts["step"])
    if parallel.is_main():
        print(*lines, sep="\n", flush=True)
        with atomic_path(folder / OUTLOOK) as staging:
            staging.write_text("\n".join(lines))
    return recipe, options


# --- under Ray Train, from the notebook ---------------------------------------------------------------------------------------

RESTARTS = 3  # of workers that died
LOST = "loss_not_finite.txt"  # how the workers tell that starting them again would not help


def pretrain_under_ray(job: PretrainJob) -> None:
    """Train with `job.workers` processes, on a Ray cluster if one is connected, else on this machine; a GPU each if there are.

    Their warnings go to `worker<rank>.log`. Workers that die are started again, up to RESTARTS times, and go on from the
    last checkpoint. `job.folder` must be seen by all machines. Raises ImportError if Ray Train is not installed, ValueError if
    there are too few GPUs or cores, FloatingPointError if the loss is lost (to start again would lose it again), RuntimeError
    if training fails for good.
    """
    try:  # here, as it is needed here alone and need not be installed
        import ray
        from ray.train import FailureConfig, RunConfig, ScalingConfig
        from ray.train.torch import TorchConfig, TorchTrainer
    except ImportError as error:
        raise ImportError("workers > 1 trains under Ray: pip install 'ray[train]', or start the run with torchrun") from error
    folder, started = job.pretrain_folder, not ray.is_initialized()
    if started:
        on_cores = {"env_vars": {"OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "1")}}  # workers here share the cores
        ray.init(log_to_driver=False, include_dashboard=False, runtime_env=on_cores)
    try:
        there = {kind: int(ray.cluster_resources().get(kind, 0)) for kind in ("GPU", "CPU")}
        named = str(job.options.device or ("cuda" if there["GPU"] else "cpu"))
        on_gpu = not named.startswith("cpu")
        if on_gpu and not there["GPU"]:
            raise ValueError(f"device={named!r}, but Ray sees no GPU: choose cpu, one worker, or connect a cluster with some")
        count, kind = (there["GPU"], "GPU(s)") if on_gpu else (there["CPU"], "CPU core(s)")
        if count < job.workers:
            told = f"workers={job.workers}, but Ray sees {count} {kind}"
            raise ValueError(f"{told}: set workers to {count} or connect a cluster")
        for left_over in (LOST, OUTLOOK):
            (folder / left_over).unlink(missing_ok=True)
        failures = FailureConfig(max_failures=RESTARTS)
        trainer = TorchTrainer(
            lambda: _train_worker(job, on_gpu),
            scaling_config=ScalingConfig(num_workers=job.workers, use_gpu=on_gpu),
            torch_config=TorchConfig(backend="nccl" if on_gpu else "gloo"),
            run_config=RunConfig(name="ray", storage_path=str(folder.resolve()), failure_config=failures),
        )
        with _reported(folder / LOG, job.recipe.max_steps):
            trainer.fit()
        if (folder / LOST).is_file():
            raise FloatingPointError((folder / LOST).read_text())
    except (ValueError, FloatingPointError):
        raise
    except Exception as error:  # the last line of the worker's traceback says what went wrong
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        raise RuntimeError(f"training under Ray failed: {lines[-1] if lines else type(error).__name__}") from error
    finally:
        if started:
            ray.shutdown()


def _train_worker(job: PretrainJob, on_gpu: bool) -> None:
    """What Ray Train runs in each process, its process group ready."""
    from ray.train.torch import get_device

    job = replace(job, options=replace(job.options, device=str(get_device()) if on_gpu else "cpu"))
    told = logging.FileHandler(job.pretrain_folder / f"worker{parallel.rank()}.log")  # what was damaged or out of reach
    told.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    logging.getLogger("catlip_lite").addHandler(told)
    try:
        with hold(job.pretrain_folder, WORKERS) if parallel.is_main() else nullcontext():
            train_job(job)
    except FloatingPointError as error:  # in all workers at once; raised where the run was started
        if parallel.is_main():
            (job.pretrain_folder / LOST).write_text(str(error))


@contextmanager
def _reported(log: Path, max_steps: int) -> Iterator[None]:
    """Shows what the workers expect, and the lines that they add to their log, as they come."""
    report, finished, outlook = TrainingReporter(max_steps), threading.Event(), log.with_name(OUTLOOK)

    def follow() -> None:
        seen, told = 0, ""
        while not finished.wait(1.0):
            if outlook.is_file() and (now := outlook.read_text()) != told:
                print(told := now, flush=True)
            lines = log.read_text().splitlines(keepends=True) if log.is_file() else []
            for line in lines[seen:]:
                if not line.endswith("\n"):  # being written
                    break
                seen += 1
                report(json.loads(line))
            seen = min(seen, len(lines))  # a restarted run has cut its log back

    thread = threading.Thread(target=follow, daemon=True)
    thread.start()
    try:
        yield
    finally:
        finished.set()
        thread.join()


# --- from a shell -------------------------------------------------------------------------------------------------------------


def main(arguments: list[str] | None = None) -> int:
    """Train as a member of torchrun's processes, or alone; 1 after a one-line error."""
    return run_from_shell("04_pretrain", _pretrain_here, "Pre-train as notebook 04 does, without a notebook.", arguments)


def _pretrain_here(values: dict) -> None:
    """One process's part; what only one may do, the first does for all."""
    job, table = parallel.told_by_main(job_from({**values, "workers": parallel.world_size()}) if parallel.is_main() else None)
    job = replace(job, options=replace(job.options, device=values["device"]))
    with claim_folder(job, table) as finished:
        if not finished:
            train_job(job, open_corpus(job, table))


if __name__ == "__main__":
    sys.exit(main())
