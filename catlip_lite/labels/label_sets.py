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
import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from .class_names import meanings
from .wordnet import load_nouns, packaged

TIMM_TABLES = {  # a WNID a line
    "imagenet-1k": "imagenet_synsets.txt",
    "imagenet-12k": "imagenet12k_synsets.txt",
    "imagenet-21k": "imagenet22k_synsets.txt",
}
KNOWN_SETS = (*TIMM_TABLES, "places365", "coco-80", "ade20k-150", "caltech-101")  # the latter in `tables/`: label,wnids
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
    def load(cls, source: str | os.PathLike | Sequence[str]) -> LabelSet:
        """A label set by address.

        source: a benchmark by name (one of KNOWN_SETS, in upper or lower case), with the official names in the order of their
        class indices (ade20k-150: the first of each class's names; Caltech-101, which has no order: its folders, sorted); a
        .txt with a label a line; a .csv with a column label, name, class or wnid (and, optionally, wnids: several joined by
        spaces, for names that should mean something else than WordNet's first sense); a folder whose sub-folders are the
        classes; or a list of names or WNIDs. Names that WordNet does not know (Caltech-101 has one, "garfield") have no synset.
        Raises FileNotFoundError or ValueError with advice, also if WordNet knows none of the names.
        """
        if not isinstance(source, (str, os.PathLike)):
            return cls.from_names(list(source))
        if isinstance(source, str) and source.lower() in KNOWN_SETS:
            return _known_set(source.lower())
        path = Path(source)
        if path.is_dir():
            names, given = sorted(p.name for p in path.iterdir() if p.is_dir() and not p.name.startswith(".")), None
        elif not path.is_file():
            raise FileNotFoundError(f"label set {str(source)!r} is neither a file, a folder nor one of {', '.join(KNOWN_SETS)}")
        elif path.suffix == ".csv":
            names, given = _read_csv(path)
        else:
            names, given = [line.strip() for line in path.read_text(encoding="utf-8-sig").splitlines() if line.strip()], None
        return cls.from_names(names, wnids=given, title=path.stem)

    @classmethod
    def from_names(
        cls, names: Sequence[str], *, wnids: Sequence[Sequence[str]] | None = None, title: str = "labels"
    ) -> LabelSet:
        """Labels by name; `wnids` overrides what a name means (`meanings`), where it is not empty. Raises as `load` does."""
        if not names:
            raise ValueError(f"{title}: no labels: give one a line, a CSV column, class folders or a list")
        repeated = sorted(name for name, times in Counter(names).items() if times > 1)
        if repeated:
            raise ValueError(f"{title}: label(s) given twice: {listed(repeated)}: keep each once")
        found = meanings(names, [tuple(own) or None for own in wnids] if wnids else None)
        if not any(found):
            raise ValueError(
                f"{title}: WordNet has no noun for any of {len(names)} labels ({listed(names)}): "
                "rename them, or say what they mean in a CSV with columns label,wnids"
            )
        return cls(title, tuple(names), tuple(found))


def listed(names: Sequence[object], most: int = 8) -> str:
    """The first of some names, for an error or a cell, and how many more there are."""
    return ", ".join(map(str, names[:most])) + (f", … {len(names) - most:,} more" if len(names) > most else "")


# --- known sets and files -----------------------------------------------------------------------------------------------


@cache
def _known_set(name: str) -> LabelSet:
    if name not in TIMM_TABLES:
        # An empty cell means that WordNet has no such synset, so it is not looked up ("garfield" is not the president).
        return LabelSet(name, *_read_csv(Path(__file__).with_name("tables") / f"{name}.csv"))
    path = packaged("timm --no-deps", f"timm/data/_info/{TIMM_TABLES[name]}")  # its dependencies would bring torch
    nouns, wnids = load_nouns(), path.read_text(encoding="utf-8").split()
    names = [nouns.name(w) if w in nouns.row else w for w in wnids]
    times = Counter(names)  # ImageNet-1k has two cranes
    names = [name if times[name] == 1 else f"{name} ({wnid})" for name, wnid in zip(names, wnids, strict=True)]
    return LabelSet(name, tuple(names), tuple((wnid,) for wnid in wnids))


def _read_csv(path: Path) -> tuple[tuple[str, ...], tuple[tuple[str, ...], ...]]:
    columns, rows = read_rows(path)
    column = next((c for c in LABEL_COLUMNS if rows and c in columns), None)
    if column is None:
        raise ValueError(f"{path}: a CSV of labels needs one of the columns {', '.join(LABEL_COLUMNS)}")
    return tuple(row[column].strip() for row in rows), tuple(tuple(row.get("wnids", "").split()) for row in rows)


def read_rows(path: str | os.PathLike) -> tuple[list[str], list[dict[str, str]]]:
    """The columns of a CSV with a head, and its rows but for empty ones. Raises ValueError if it is none in UTF-8."""
    try:
        with open(path, newline="", encoding="utf-8-sig") as file:  # spreadsheets put a mark before the first column's name
            reader = csv.DictReader(file, restval="")
            return list(reader.fieldnames or ()), [row for row in reader if any(row.values())]
    except (csv.Error, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is no CSV in UTF-8 ({error}): save it as one") from error
