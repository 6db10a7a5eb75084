"""The demo's data: emoji drawings with their names and keywords, or with names of other languages; scenes composed of them,
some with masks; and photos made for speed tests."""

from __future__ import annotations

from pathlib import Path

from .drawings import demo_folder


def demo_path(address: str, *, masks: bool = False) -> str | None:
    """Where the data of `demo/<split>`, `demo/pretrain_<language>`, `demo/scenes_<split>` or `demo/composites_<split>` lie,
    made if need be: a folder of shards, or a COCO file.

    masks: the folder of the composites' images instead, whose masks lie where ADE20k's do. None for any other address.
    Raises ValueError for an unknown split or language, or one without masks if these are asked for, ModuleNotFoundError if a
    package is missing.
    """
    if not address.startswith("demo/") or Path(address).exists():
        return None
    name = address.removeprefix("demo/")
    if name.startswith("composites_"):
        from .composites import composites_annotations, composites_images  # here, as those below

        return str((composites_images if masks else composites_annotations)(name.removeprefix("composites_")))
    if masks:
        raise ValueError(
            f"{address} has no masks: those of the demo that have are demo/composites_train and demo/composites_test"
        )
    if name.startswith("scenes_"):
        from .scenes import scenes_annotations  # here: it needs Pillow, which those who look at captions can do without

        return str(scenes_annotations(name.removeprefix("scenes_")))
    if name.startswith("pretrain_"):
        from .names import named_drawings  # here: it needs the package emoji

        return str(named_drawings(name.removeprefix("pretrain_")))
    return str(demo_folder(name))
