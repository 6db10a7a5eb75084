"""Apple's GPU on a machine without one: tensors that say they are there, in the CPU's memory, and refuse what fails there.

They hold real numbers, so that whatever runs on "mps" can be held against the CPU (PyTorch's own fake tensors can be neither
indexed nor differentiated on a device that it was not built for). `Recorded` asks PyTorch's own list which of the operations
that were carried out, backward ones included, that GPU cannot do.
"""

from __future__ import annotations

import importlib.resources
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

import torch
import yaml
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map_only

APPLE = torch.device("mps", 0)
DRIVER = {  # what `torch.mps` says on a Mac of 16 GB
    "device_count": lambda: 1,
    "get_rng_state": lambda device: None,
    "set_rng_state": lambda state, device: None,
    "synchronize": lambda: None,
    "empty_cache": lambda: None,
    "recommended_max_memory": lambda: 11_000_000_000,
    "driver_allocated_memory": lambda: 1_000_000_000,
}
BETWEEN_DEVICES = {"to", "copy_", "__get__", "__set__", "__getitem__", "__setitem__", "_has_compatible_shallow_copy_type"}


class AppleGpu(TorchFunctionMode):
    """Has `.to("mps")` and `device="mps"` give tensors that are there, and whatever is computed of them, too."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs, name = kwargs or {}, getattr(func, "__name__", "")
        if func is torch.device or name == "_parse_to":
            return func(*args, **kwargs)
        tensors = [one for one in tree_leaves((args, kwargs)) if isinstance(one, torch.Tensor)]
        there = any(map(is_there, tensors))
        if func == torch.Tensor.device.__get__:
            return APPLE if there else func(*args)
        refuse_what_fails(name, tensors, there)
        named = [one for one in (*args, *kwargs.values()) if is_device(one)]
        moved = bool(named) or name == "cpu"
        if moved:
            there = any(torch.device(one).type == "mps" for one in named)
            args = ["cpu" if is_device(one) else one for one in args]
            kwargs = {key: "cpu" if is_device(one) else one for key, one in kwargs.items()}
        if there and kwargs.get("non_blocking"):
            raise RuntimeError("Apple's GPU may read what is copied to it after it is gone: wait for it")
        found = func(*args, **kwargs)
        if moved and tensors and found is tensors[0] and is_there(found) != there:
            found = found.clone()
        if name == "__set__":  # parameters move by `parameter.data = moved`
            args[0].there = there
        return tree_map_only(torch.Tensor, lambda one: marked(one, there), found)


def refuse_what_fails(name: str, tensors: list[torch.Tensor], there: bool) -> None:
    if there and name not in BETWEEN_DEVICES and not all(is_there(one) for one in tensors if one.ndim):
        raise RuntimeError(f"{name}: some tensors are on mps, some on the CPU")
    if there and name in ("numpy", "__array__"):
        raise TypeError("an array is of the CPU's memory: copy the tensor there first")
    if there and name == "batch_norm" and not tensors[0].is_contiguous():
        raise RuntimeError("with channels side by side, batch norms have wrong gradients on Apple's GPU")


def is_there(tensor: torch.Tensor) -> bool:
    return tensor.__dict__.get("there", False)


def is_device(value: object) -> bool:
    return isinstance(value, torch.device) or (isinstance(value, str) and value in ("cpu", "mps", "mps:0"))


def marked(tensor: torch.Tensor, there: bool) -> torch.Tensor:
    if there and tensor.dtype == torch.float64:
        raise TypeError("Apple's GPU has no float64")
    tensor.there = there
    return tensor


@contextmanager
def apple_gpu(patch) -> Iterator[Recorded]:
    """A machine whose one GPU is Apple's; gives what it was asked to do. patch: pytest's monkeypatch."""
    patch.setattr(torch.cuda, "device_count", lambda: 0)
    for name, answer in DRIVER.items():
        patch.setattr(torch.mps, name, answer)
    with AppleGpu(), Recorded() as recorded:
        yield recorded


# ---------------------------------------------------------------- kernels

ANYWHERE = {"MPS", "CompositeImplicitAutograd", "CompositeExplicitAutograd", "CompositeExplicitAutogradNonFunctional"}


@cache
def backends() -> dict[str, set[str]]:
    """For which devices PyTorch has each of its operations, from the list that its wheel carries."""
    text = (importlib.resources.files("torchgen") / "packaged/ATen/native/native_functions.yaml").read_text()
    entries = {entry["func"].split("(")[0]: entry for entry in yaml.load(text, yaml.CSafeLoader)}
    found = {}
    for name, entry in entries.items():
        written = entries[entry["structured_delegate"]] if "structured_delegate" in entry else entry
        found[name] = {key.strip() for key in ",".join(written.get("dispatch", ANYWHERE)).split(",")}
    return found


class Recorded(TorchDispatchMode):
    """Which of PyTorch's operations are carried out."""

    def __init__(self):
        super().__init__()
        self.names = set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func.namespace == "aten":
            self.names.add(str(func).removeprefix("aten.").removesuffix(".default"))
        return func(*args, **(kwargs or {}))

    def without_kernel(self) -> set[str]:
        """Those that Apple's GPU cannot do; attention has kernels of its own on a CPU."""
        return {name for name in self.names if "_for_cpu" not in name and not backends()[name] & ANYWHERE}
