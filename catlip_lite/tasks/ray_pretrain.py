"""Pre-training by several processes from the notebook: Ray Train starts them, again after a failure; each runs `train_job`."""

from __future__ import annotations

import json
import logging
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import asdict
from pathlib import Path

from ..training.distribution import is_main, rank
from ..training.ownership import WORKERS, hold
from ..training.recipes import Recipe
from ..training.run_log import LOG
from .pretrain_job import OUTLOOK, PretrainJob, TrainingReporter, train_job

LOST = "loss_not_finite.txt"  # how the workers tell that starting them again would not help


def pretrain_under_ray(job: PretrainJob) -> None:
    """Train with `job.workers` processes, on a Ray cluster if one is connected, else on this machine; a GPU each if there are.

    Their warnings go to `worker<rank>.log`. Workers that die are started again, up to `job.restarts` times, and go on from the
    last checkpoint. `job.folder` must be seen by all machines. Raises ImportError if Ray Train is not installed, ValueError if
    there are too few GPUs or cores, FloatingPointError if the loss is lost (to start again would lose it again), RuntimeError
    if training fails for good.
    """
    try:
        import ray
        from ray.train import FailureConfig, RunConfig, ScalingConfig
        from ray.train.torch import TorchConfig, TorchTrainer
    except ImportError as error:
        raise ImportError("workers > 1 trains under Ray: pip install 'ray[train]', or start the run with torchrun") from error
    started = not ray.is_initialized()
    if started:
        ray.init(log_to_driver=False, include_dashboard=False, runtime_env={"env_vars": _environment()})
    try:
        on_gpu = _wants_gpu(job, ray.cluster_resources())
        folder = job.pretrain_folder
        for left_over in (LOST, OUTLOOK):
            (folder / left_over).unlink(missing_ok=True)
        trainer = TorchTrainer(
            _train_worker,
            train_loop_config={**asdict(job), "on_gpu": on_gpu},
            scaling_config=ScalingConfig(num_workers=job.workers, use_gpu=on_gpu),
            torch_config=TorchConfig(backend="nccl" if on_gpu else "gloo"),
            run_config=RunConfig(
                name="ray", storage_path=str(folder.resolve()), failure_config=FailureConfig(max_failures=job.restarts)
            ),
        )
        with _reported(folder / LOG, job.recipe.max_steps):
            trainer.fit()
        if (folder / LOST).is_file():
            raise FloatingPointError((folder / LOST).read_text())
    except (ValueError, FloatingPointError):
        raise
    except Exception as error:
        raise RuntimeError(f"training under Ray failed: {_last_line(error)}") from error
    finally:
        if started:
            ray.shutdown()


def _train_worker(config: dict) -> None:
    """What Ray Train runs in each process, its process group ready."""
    from ray.train.torch import get_device

    device = str(get_device()) if config.pop("on_gpu") else "cpu"
    job = PretrainJob(**{**config, "recipe": Recipe(**config["recipe"]), "device": device})
    told = logging.FileHandler(job.pretrain_folder / f"worker{rank()}.log")  # what was damaged or out of reach
    told.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    logging.getLogger("catlip_lite").addHandler(told)
    try:
        with hold(job.pretrain_folder, WORKERS) if is_main() else nullcontext():
            train_job(job)
    except FloatingPointError as error:  # in all workers at once; raised where the run was started
        if is_main():
            (job.pretrain_folder / LOST).write_text(str(error))


def _wants_gpu(job: PretrainJob, resources: dict) -> bool:
    """Whether each worker gets a GPU. Raises ValueError if there are too few of what they need."""
    gpus, cores = int(resources.get("GPU", 0)), int(resources.get("CPU", 0))
    on_gpu = gpus > 0 and not (job.device or "").startswith("cpu")
    kind, there = ("GPU", gpus) if on_gpu else ("CPU core", cores)
    if there < job.workers:
        raise ValueError(f"workers={job.workers}, but Ray sees {there} {kind}(s): set workers to {there} or connect a cluster")
    return on_gpu


def _environment() -> dict[str, str]:
    """For workers on this machine: they share its cores."""
    return {"OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "1")}


@contextmanager
def _reported(log: Path, max_steps: int) -> Iterator[None]:
    """Shows what the workers expect, and the lines that they add to their log, as they come."""
    report, finished = TrainingReporter(max_steps), threading.Event()

    def follow() -> None:
        seen, told = 0, ""
        while not finished.wait(1.0):
            outlook = log.with_name(OUTLOOK)
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


def _last_line(error: BaseException) -> str:
    """What went wrong, in a line: the last of the worker's traceback."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__
