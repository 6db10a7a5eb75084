"""Short names of labelled sets, for tables and figures."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from ..addresses import Address, split_address
from .images import some
from .values import Selection


def address_name(address: Address) -> str:
    """A short name for tables: "caltech101 test" of "data/caltech101#split=test", else the last part of the path."""
    return _with_folders(address, 0)


def named_addresses(addresses: Address | Sequence[Address]) -> dict[str, Address]:
    """Several test sets by names for tables, which are distinct: where two share one, the folders above are added.

    "photos/test" and "sketch/test" of "data/photos/test" and "data/sketch/test". Raises ValueError for none, and for the same
    address given twice.
    """
    addresses = parts_of(addresses)
    if not addresses:
        raise ValueError("no test set is given: give an address, or a list of them")
    same = Counter(tuple(os.path.normpath(str(part)) for part in parts_of(address)) for address in addresses)
    twice = [" + ".join(address) for address, times in same.items() if times > 1]
    if twice:
        raise ValueError(f"test set(s) given twice: {some(twice)}: keep each once")
    names, folders = [address_name(address) for address in addresses], 0
    while len(set(names)) < len(names):
        folders += 1
        times = Counter(names)
        longer = [_with_folders(address, folders) for address in addresses]
        if all(times[name] == 1 or name == more for name, more in zip(names, longer, strict=True)):
            longer = [" + ".join(map(str, parts_of(address))) for address in addresses]  # endings alone tell them apart
        names = [more if times[name] > 1 else name for name, more in zip(names, longer, strict=True)]
    return dict(zip(names, addresses, strict=True))


def parts_of(address: Address) -> list:
    """One address, or several, as a list."""
    return [address] if isinstance(address, (str, Path)) else list(address)


def _with_folders(address: Address, folders: int) -> str:
    if not isinstance(address, (str, Path)):
        return " + ".join(_with_folders(part, folders) for part in address)
    path, selection = split_address(address)
    place = Path(path.partition("://")[2] or path)
    name = place.name if place.is_dir() or "://" in path else place.stem
    above = [part for part in place.parts[:-1] if part != place.anchor]
    values = (value for _, value in Selection.parse(selection).wanted)
    return " ".join(["/".join([*above[max(0, len(above) - folders) :], name]), *values])
