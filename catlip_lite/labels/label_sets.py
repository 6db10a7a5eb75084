"""The labels of a downstream task and their synsets: a known benchmark, or any list of names or WNIDs.

Reads timm's own ImageNet tables (by path, so that torch is not imported), the tables of other benchmarks in `tables/`, a text
or CSV file, a folder of class folders, or a list; gives each label its synsets. Names that mean several synsets get several;
names that WordNet does not know get none.

`tables/` holds class names and their order, which are facts about Places365 (Zhou et al. 2017), COCO (Lin et al. 2014), the
scene parsing benchmark of ADE20K (Zhou et al. 2017) and Caltech-101 (Fei-Fei et al. 2004), with WNIDs chosen by hand: what
the class shows in that dataset, not the name's most frequent sense (COCO's "mouse" belongs to a computer). Where WordNet has
no such compound, a label has its parts ("desert_road": desert and road) or what shows the same ("stop sign": street sign).
"""

from __future__ import annotations

import csv
import importlib.metadata
import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from .labeler import name_to_wnids
from .wordnet import load_nouns

# Known label sets and their tables: timm's have a WNID a line, ours in `tables/` the columns label,wnids.
KNOWN_SETS = {
    "imagenet-1k": "imagenet_synsets.txt",
    "imagenet-12k": "imagenet12k_synsets.txt",
    "imagenet-21k": "imagenet22k_synsets.txt",
    "places365": "places365.csv",
    "coco-80": "coco-80.csv",
    "ade20k-150": "ade20k-150.csv",
    "caltech-101": "caltech-101.csv",
}
LABEL_COLUMNS = ("label", "name", "class", "wnid")


@dataclass(frozen=True)
class LabelSet:
    """Labels of a task, in the order of their class indices, each with its synsets (none if WordNet has no such noun)."""

    title: str
    names: tuple[str, ...]
    wnids: tuple[tuple[str, ...], ...]

    def __len__(self) -> int:
        return len(self.names)

    @property
    def unknown(self) -> list[str]:
        """Labels without a synset."""
        return [name for name, wnids in zip(self.names, self.wnids, strict=True) if not wnids]

    @classmethod
    def load(cls, source: str | os.PathLike | Sequence[str], *, allow_unknown: bool = True) -> LabelSet:
        """A label set by address.

        source: a benchmark by name, in upper or lower case: "imagenet-1k", "imagenet-12k", "imagenet-21k", "places365",
        "coco-80", "ade20k-150" (the first of each class's names) or "caltech-101", each with the official names in the
        order of their class indices (Caltech-101 has none: its folders, sorted); a .txt with a label a line; a .csv with a
        column label, name, class or wnid (and, optionally, wnids: several joined by spaces, for names that should mean
        something else than WordNet's first sense); a folder whose sub-folders are the classes; or a list of names or WNIDs.
        allow_unknown: whether names that WordNet does not know (Caltech-101 has one, "garfield") are kept (with no synset)
        or refused.
        Raises FileNotFoundError or ValueError with advice.
        """
        if not isinstance(source, (str, os.PathLike)):
            return cls.from_names(list(source), allow_unknown=allow_unknown)
        if isinstance(source, str) and source.lower() in KNOWN_SETS:
            return _refuse_unknown(_known_set(source.lower()), allow_unknown)
        path = Path(source)
        if path.is_dir():
            names, given = sorted(p.name for p in path.iterdir() if p.is_dir() and not p.name.startswith(".")), None
        elif not path.is_file():
            raise FileNotFoundError(f"label set {str(source)!r} is neither a file, a folder nor one of {', '.join(KNOWN_SETS)}")
        elif path.suffix == ".csv":
            names, given = _read_csv(path)
        else:
            names, given = [line.strip() for line in path.read_text(encoding="utf-8").splitlines() if line.strip()], None
        return cls.from_names(names, wnids=given, title=path.stem, allow_unknown=allow_unknown)

    @classmethod
    def from_names(
        cls,
        names: Sequence[str],
        *,
        wnids: Sequence[Sequence[str]] | None = None,
        title: str = "labels",
        allow_unknown: bool = True,
    ) -> LabelSet:
        """Labels by name; `wnids` overrides what a name means, where it is not empty. Raises ValueError as `load` does."""
        if not names:
            raise ValueError(f"{title}: no labels: give one a line, a CSV column, class folders or a list")
        repeated = sorted(name for name, times in Counter(names).items() if times > 1)
        if repeated:
            raise ValueError(f"{title}: label(s) given twice: {_some(repeated)}: keep each once")
        given = wnids or [()] * len(names)
        found = tuple(tuple(w) or tuple(name_to_wnids(n)) for n, w in zip(names, given, strict=True))
        return _refuse_unknown(cls(title, tuple(names), found), allow_unknown)


def _refuse_unknown(labels: LabelSet, allow_unknown: bool) -> LabelSet:
    """The label set itself, if it may have the labels without a synset that it has."""
    unknown = labels.unknown
    if unknown and (not allow_unknown or len(unknown) == len(labels)):
        raise ValueError(
            f"{labels.title}: WordNet has no noun for {len(unknown)} of {len(labels)} labels ({_some(unknown)}): "
            "rename them, or say what they mean in a CSV with columns label,wnids"
            + ("" if allow_unknown else ", or set allow_unknown to keep them without a synset")
        )
    return labels


def _some(names: Sequence[str], most: int = 8) -> str:
    return ", ".join(names[:most]) + (f", … {len(names) - most} more" if len(names) > most else "")


# --- known sets and files -----------------------------------------------------------------------------------------------


def _known_set(name: str) -> LabelSet:
    table = KNOWN_SETS[name]
    if table.endswith(".csv"):
        # An empty cell means that WordNet has no such synset, so it is not looked up ("garfield" is not the president).
        names, wnids = _read_csv(Path(__file__).with_name("tables") / table)
    else:
        wnids = [[wnid] for wnid in _timm_table(table)]
        names = _distinct_names([wnid for (wnid,) in wnids])
    return LabelSet(name, tuple(names), tuple(tuple(own) for own in wnids))


def _distinct_names(wnids: Sequence[str]) -> list[str]:
    """Names of synsets; those that share one (ImageNet-1k has two cranes) with their WNID: 'crane (n02012849)'."""
    nouns = load_nouns()
    names = [nouns.name(w) if w in nouns.row else w for w in wnids]
    times = Counter(names)
    return [name if times[name] == 1 else f"{name} ({wnid})" for name, wnid in zip(names, wnids, strict=True)]


def _timm_table(name: str) -> list[str]:
    try:
        path = Path(str(importlib.metadata.distribution("timm").locate_file(f"timm/data/_info/{name}")))
    except importlib.metadata.PackageNotFoundError:
        raise ModuleNotFoundError(
            "ImageNet's class tables come with timm: run `pip install timm` (`pip install --no-deps timm` brings no torch)"
        ) from None
    return path.read_text(encoding="utf-8").split()


def _read_csv(path: Path) -> tuple[list[str], list[list[str]]]:
    with open(path, newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    column = next((c for c in LABEL_COLUMNS if rows and c in rows[0]), None)
    if column is None:
        raise ValueError(f"{path}: a CSV of labels needs one of the columns {', '.join(LABEL_COLUMNS)}")
    return [row[column].strip() for row in rows], [(row.get("wnids") or "").split() for row in rows]
