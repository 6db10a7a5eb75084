"""The demo's data: emoji drawings with their names and keywords, scenes composed of them, and photos made for speed tests."""

from __future__ import annotations

from pathlib import Path

from .drawings import demo_folder


def demo_path(address: str) -> str | None:
    """Where the data of `demo/<split>` or `demo/scenes_<split>` lie, made if need be: a folder of shards, or a COCO file.

    None for any other address. Raises ValueError for an unknown split, ModuleNotFoundError if a package is missing.
    """
    if not address.startswith("demo/") or Path(address).exists():
        return None
    name = address.removeprefix("demo/")
    if name.startswith("scenes_"):
        from .scenes import scenes_annotations  # here: it needs Pillow, which those who look at captions can do without

        return str(scenes_annotations(name.removeprefix("scenes_")))
    return str(demo_folder(name))
