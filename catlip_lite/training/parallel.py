"""Training by several processes: who is who, the learner spread over them (DDP or FSDP2), the checkpoints they write together.

Everything here asks torch.distributed alone, whoever started the processes: torchrun, Ray Train, or nobody (one process).
"""

from __future__ import annotations

import json
import logging
import os
import shutil
import warnings
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from datetime import timedelta
from functools import cache
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from torch import nn
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard

from ..orphans import stop_with_launcher

logger = logging.getLogger(__name__)

# --- who is who ---------------------------------------------------------------------------------------------------------------


def rank() -> int:
    """Number of this process, from 0."""
    return dist.get_rank() if dist.is_initialized() else 0


def world_size() -> int:
    """How many processes train."""
    return dist.get_world_size() if dist.is_initialized() else 1


def is_main() -> bool:
    """Whether this process writes logs and checkpoints' facts."""
    return rank() == 0


def processes_here() -> int:
    """How many of them are on this machine; all, where nobody says."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", world_size()))


def wait_for_all() -> None:
    """Go on when every process is here."""
    if dist.is_initialized():
        dist.barrier(_patient(dist.group.WORLD))


def told_by_main(value: Any) -> Any:
    """The first process's value, in all of them (any picklable)."""
    told = [value]
    if dist.is_initialized():
        dist.broadcast_object_list(told, src=0, group=_patient(dist.group.WORLD))
    return told[0]


def from_all(value: Any) -> list:
    """Every process's value (any picklable), by rank."""
    values = [value] * world_size()
    if dist.is_initialized():
        dist.all_gather_object(values, value, group=_patient(dist.group.WORLD))
    return values


@cache
def _patient(everyone: dist.ProcessGroup) -> dist.ProcessGroup:
    """All processes, on the CPU, willing to wait a day: the first may count 100,000 shards or write 10 GB meanwhile."""
    return dist.new_group(backend="gloo", timeout=timedelta(hours=24))


def summed_over_processes(tensor: torch.Tensor) -> torch.Tensor:
    """The sum over all processes, in each."""
    if dist.is_initialized():
        tensor = tensor.clone()
        dist.all_reduce(tensor)
    return tensor


@contextmanager
def process_group(device: str | None = None) -> Iterator[str]:
    """The processes that torchrun started, as a group (NCCL on GPUs, gloo on CPUs); gives the device of this one.

    They end with torchrun, so that none trains on beside a run that is started again. device: "cpu", "cuda" or None, the best.
    Raises ValueError for "cuda" where there is none, and for "mps", whose processes cannot talk to each other.
    """
    there = ("cuda", "cpu") if torch.cuda.is_available() else ("cpu",)
    if device and not device.startswith(there):
        raise ValueError(f"device={device!r} is not for several processes here: choose {' or '.join(there)}, or start one")
    stop_with_launcher()
    on_gpu = (device or there[0]).startswith("cuda")
    mine = torch.device("cuda", int(os.environ.get("LOCAL_RANK", 0))) if on_gpu else torch.device("cpu")
    if on_gpu:
        torch.cuda.set_device(mine)
    dist.init_process_group("nccl" if on_gpu else "gloo")
    yield str(mine)
    dist.destroy_process_group()  # not after an error: the others may be within a collective, which this would wait for


# --- the learner, spread ------------------------------------------------------------------------------------------------------

PARALLEL = ("ddp", "fsdp")
SHARDED_MODELS = ("vit_l16", "vit_h16")  # whose training state is worth spreading, where nothing else is asked for


def distribute(learner: nn.Module, blocks: Sequence[nn.Module], parallel: str, device: torch.device) -> nn.Module:
    """The learner as all processes step it together; itself, if there is one process.

    parallel: "ddp", or "fsdp" (weights, gradients, optimiser and EMA spread over the processes of a machine, every machine
    with a copy; the learner itself is changed). blocks: what FSDP gathers at a time; in float32, so that autocast chooses the
    precision of each operation as it does under DDP.
    """
    if not dist.is_initialized():
        return learner
    if parallel == "ddp":
        devices = [device] if device.type == "cuda" else None
        # Without the views, DDP's buckets are a second copy of the gradients.
        return nn.parallel.DistributedDataParallel(learner, device_ids=devices, gradient_as_bucket_view=True)
    sizes, processes = from_all(processes_here()), world_size()
    if len(set(sizes)) > 1 or processes % sizes[0] or sizes[0] == processes:  # one machine, or machines that differ
        mesh = init_device_mesh(device.type, (processes,))
    else:  # what is gathered all the time stays within a machine
        mesh = init_device_mesh(device.type, (processes // sizes[0], sizes[0]), mesh_dim_names=("machine", "process"))
    for block in blocks:
        fully_shard(block, mesh=mesh)
    return fully_shard(learner, mesh=mesh)


def gradients_shared(spread: nn.Module, share: bool) -> AbstractContextManager[None]:
    """A context: whether its backward pass averages gradients over the processes. Under DDP only a step's last one need.

    Under FSDP each does: to wait, a process would have to hold the gradient of all parameters.
    """
    waits = not share and isinstance(spread, nn.parallel.DistributedDataParallel)
    return spread.no_sync() if waits else nullcontext()


def whole(tensor: torch.Tensor) -> torch.Tensor:
    """A tensor that FSDP spreads, gathered (every process must ask); any other as it is."""
    return tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor


# --- checkpoints --------------------------------------------------------------------------------------------------------------
# One is a folder `step_<n>` of torch.distributed.checkpoint, the same whether one process or many wrote it; any number of them
# can go on from it. `checkpoint.json` in it holds the facts, and the sizes its files must have.

FACTS = "checkpoint.json"
FULL = ("inline_container", "No space left", "os error 28", "quota exceeded")  # how PyTorch, Python and safetensors say so

warnings.filterwarnings("ignore", message="torch.distributed is disabled, unavailable or uninitialized")  # one process is fine


KEPT = 2  # of the newest checkpoints: should the last be damaged, there is one more


def save_checkpoint(folder: Path, step: int, state: dict, facts: dict | None = None, *, keep_every: int | None = None) -> Path:
    """Write `step_<n>`, whole or not at all, and delete old ones. Every process calls it; `folder` is one that all of them see.

    state: nested dict of tensors (spread by FSDP or not). facts: JSON values. The newest two stay; keep_every: and
    those whose step is a multiple of this.
    """
    path, staging = folder / f"step_{step:08d}", folder / f".step_{step:08d}"
    if is_main():
        _sweep(folder)
        staging.mkdir(parents=True)
    wait_for_all()
    # Of what all processes hold, the first one's is kept: batch norms' statistics differ between them.
    planner = dcp.DefaultSavePlanner(dedup_save_to_lowest_rank=True)
    dcp.save(state, checkpoint_id=staging, planner=planner, no_dist=world_size() == 1)
    if is_main():
        sizes = {file.name: file.stat().st_size for file in staging.iterdir()}
        with open(staging / FACTS, "w") as file:
            json.dump({"step": step, **(facts or {}), "files": sizes}, file)
            file.flush()
            os.fsync(file.fileno())
        if path.exists():
            shutil.rmtree(path)
        staging.rename(path)
        newest_first = _by_step(folder)
        at = newest_first.index(path)
        later, old = newest_first[:at], newest_first[at + KEPT :]  # later ones were damaged: the run went on before them
        for gone in later + [p for p in old if not keep_every or int(p.name.removeprefix("step_")) % keep_every]:
            shutil.rmtree(gone)
    wait_for_all()
    return path


def load_latest(folder: Path, state: dict) -> dict | None:
    """Load the newest readable checkpoint into `state`, in place; its facts, or None if there is none.

    Every process calls it. What a damaged one has overwritten, the one before overwrites again; if none can be read, that is an
    error (OSError): the state is then neither new nor old.
    """
    for path, facts in told_by_main(list(_whole(folder)) if is_main() else None):
        try:
            dcp.load(state, checkpoint_id=path, no_dist=world_size() == 1)
            return facts
        except (Exception, CheckpointException) as error:  # a damaged archive or pickle raises one of many kinds
            _tell_damage(path, _causes(error)[0])
    if told_by_main(_by_step(folder)):
        raise OSError(f"none of the checkpoints in {folder} can be read: delete the folder to start anew")
    return None


def latest_facts(folder: Path) -> dict | None:
    """The facts of the newest checkpoint that looks whole, None if there is none."""
    return next((facts for _, facts in _whole(folder)), None)


def _whole(folder: Path) -> Iterator[tuple[Path, dict]]:
    """The checkpoints whose files are all there, in the sizes they were given, with their facts; the newest first."""
    for path in _by_step(folder):
        try:
            facts = json.loads((path / FACTS).read_text())
            for name, size in facts["files"].items():
                if (found := (path / name).stat().st_size) != size:
                    raise ValueError(f"{name} has {found:,} bytes instead of {size:,}")
        except (OSError, ValueError) as error:
            _tell_damage(path, error)
        else:
            yield path, facts


def _tell_damage(path: Path, error: BaseException) -> None:
    told = str(error).partition("\n")[0]
    logger.warning("checkpoint %s is damaged (%s: %s): going on from the one before", path, type(error).__name__, told)


def _causes(error: BaseException) -> list[BaseException]:
    """What went wrong, in each process if several tell."""
    return [of_one[0] for of_one in error.failures.values()] if isinstance(error, CheckpointException) else [error]


def _by_step(folder: Path) -> list[Path]:
    """The checkpoints, the newest first."""
    return sorted(folder.glob("step_*"), reverse=True)


def _sweep(folder: Path) -> None:
    """Away with what a killed or failed save began."""
    for left_over in folder.glob(".step_*"):
        shutil.rmtree(left_over)


@contextmanager
def full_disk_told(folder: Path, checkpoint: str) -> Iterator[None]:
    """What cannot be written below `folder` for want of room is an OSError of one line; what was begun of it goes.

    checkpoint: how much one takes, to be read.
    """
    try:
        yield
    except (Exception, CheckpointException) as error:
        if not any(told in str(cause) for cause in _causes(error) for told in FULL):
            raise
        if is_main():
            _sweep(folder / "checkpoints")
        raise OSError(
            f"the disk of {folder} is full: {shutil.disk_usage(folder).free / 1e6:,.0f} MB are free, a checkpoint takes "
            f"{checkpoint}; make room or link outputs/ to a larger disk, then run again: it goes on from the last checkpoint"
        ) from error
