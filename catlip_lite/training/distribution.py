"""Training by several processes: who is who, and the learner spread over them by DDP or FSDP2.

Everything here asks torch.distributed alone, whoever started the processes: torchrun, Ray Train, or nobody (one process).
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import contextmanager
from datetime import timedelta

import torch
import torch.distributed as dist
from torch import nn

from ..orphans import stop_with_launcher

PARALLEL = ("ddp", "fsdp")
SHARDED_MODELS = ("vit_l16", "vit_h16")  # whose training state is worth spreading, where nothing else is asked for


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
        dist.barrier(_patient_group())


def told_by_main(value):
    """The first process's value, in all of them (any picklable)."""
    if not dist.is_initialized():
        return value
    told = [value]
    dist.broadcast_object_list(told, src=0, group=_patient_group())
    return told[0]


def from_all(value) -> list:
    """Every process's value (any picklable), by rank."""
    if not dist.is_initialized():
        return [value]
    values = [None] * world_size()
    dist.all_gather_object(values, value, group=_patient_group())
    return values


def _patient_group() -> dist.ProcessGroup:
    """All processes, on the CPU, willing to wait a day: the first may count 100,000 shards or write 10 GB meanwhile."""
    if _patient.get("of") is not dist.group.WORLD:
        _patient.update(of=dist.group.WORLD, group=dist.new_group(backend="gloo", timeout=timedelta(hours=24)))
    return _patient["group"]


_patient: dict = {}


def summed_over_processes(tensor: torch.Tensor) -> torch.Tensor:
    """The sum over all processes, in each."""
    if dist.is_initialized():
        tensor = tensor.clone()
        dist.all_reduce(tensor)
    return tensor


@contextmanager
def process_group(device: str | None = None):
    """The processes that torchrun started, as a group (NCCL on GPUs, gloo on CPUs); gives the device of this one.

    They end with torchrun, so that none trains on beside a run that is started again.
    """
    stop_with_launcher()
    on_gpu = (device or "cuda").startswith("cuda") and torch.cuda.is_available()
    mine = torch.device("cuda", int(os.environ.get("LOCAL_RANK", 0))) if on_gpu else torch.device("cpu")
    if on_gpu:
        torch.cuda.set_device(mine)
    dist.init_process_group("nccl" if on_gpu else "gloo")
    yield str(mine)
    dist.destroy_process_group()  # not after an error: the others may be within a collective, which this would wait for


def check_parallel(parallel: str | None) -> None:
    """Raises ValueError for an unknown way of sharing."""
    if parallel is not None and parallel not in PARALLEL:
        raise ValueError(f"parallel={parallel!r} is unknown: choose ddp (each process has the model) or fsdp (they share it)")


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
    from torch.distributed.fsdp import fully_shard

    mesh = _mesh(device)
    for block in blocks:
        fully_shard(block, mesh=mesh)
    return fully_shard(learner, mesh=mesh)


def _mesh(device: torch.device):
    """Machines by processes of a machine: what is gathered all the time stays within one. One row, where that is unknown."""
    from torch.distributed.device_mesh import init_device_mesh

    sizes = from_all(processes_here())
    here = sizes[0]
    if len(set(sizes)) > 1 or world_size() % here or here == world_size():  # one row, too, where machines differ
        return init_device_mesh(device.type, (world_size(),))
    return init_device_mesh(device.type, (world_size() // here, here), mesh_dim_names=("machine", "process"))


@contextmanager
def gradients_shared(spread: nn.Module, share: bool):
    """Whether this backward pass averages gradients over the processes: under DDP only the last micro-batch of a step need.

    Under FSDP each does: to wait, a process would have to hold the gradient of all parameters.
    """
    if share or not isinstance(spread, nn.parallel.DistributedDataParallel):
        yield
        return
    with spread.no_sync():
        yield


def local(tensor: torch.Tensor) -> torch.Tensor:
    """This process's part of a tensor that FSDP spreads; any other as it is."""
    return tensor.to_local() if hasattr(tensor, "to_local") else tensor


def whole(tensor: torch.Tensor) -> torch.Tensor:
    """A tensor that FSDP spreads, gathered (every process must ask); any other as it is."""
    return tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor
