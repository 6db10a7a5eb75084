"""The class names of any labelled data set → a label set, and the table in which a person reads and corrects what they mean.

`map_classes` recognises known benchmarks, asks WordNet for other names and takes a person's corrections; `write_mapping` writes
what each class means and borrows as CSV, whose columns label,wnids are such corrections. Runs without torch.
"""

from __future__ import annotations

import csv
import os
import re
from collections import Counter
from collections.abc import Sequence
from functools import lru_cache
from itertools import count
from pathlib import Path

import numpy as np

from ..artefacts import atomic_path
from .borrowing import Borrowed
from .class_names import INITIAL, WNID, meanings
from .label_sets import LabelSet, listed, read_rows
from .vocabulary import Vocabulary
from .wordnet import load_nouns

NAMED_SETS = ("imagenet-1k", "places365", "coco-80", "ade20k-150", "caltech-101")  # those that names alone may tell
KNOWN_SHARE = 0.95  # of the classes must be in a set: data may have a class of their own, such as a background
COVERED_SHARE = 0.5  # of the set must be among the classes: cat, dog and mouse are names of COCO's, but not COCO
MAPPING_COLUMNS = ("label", "wnids", "meaning", "in_vocabulary", "borrows", "kind", "captions")


def map_classes(
    classes: Sequence[str],
    label_set: str | os.PathLike | LabelSet | None = None,
    corrections: str | os.PathLike | None = None,
    vocabulary: Vocabulary | None = None,
) -> LabelSet:
    """What each class of a data set means: a label set with these names, in this order.

    label_set: a known set by name or address, as `LabelSet.load` takes it, or a LabelSet; it must have every class, by name
    (case, "_", "-", "/" and a leading "/a/" do not count) or by WNID. None: `recognise` finds the known set, if there is one;
    what it lacks, and all names of other data, WordNet is asked for, and of a name's senses the other classes decide and the
    captions of a vocabulary, if it is given (`meanings`). corrections: a CSV with columns label,wnids (several WNIDs with
    spaces between them, none for a class that shall borrow nothing), which wins.

    Raises FileNotFoundError, or ValueError with the names of classes given twice or missing in label_set, and of
    corrections that are given twice, are for no class or name no synset.
    """
    repeated = [name for name, times in Counter(classes).items() if times > 1]
    if repeated or not classes:
        raise ValueError(f"classes given twice: {listed(repeated)}: keep each once" if repeated else "no classes given")
    corrected = read_corrections(corrections, classes) if corrections is not None else {}
    if label_set is None:
        known = recognise(classes)
    else:
        known = label_set if isinstance(label_set, LabelSet) else LabelSet.load(label_set)
    title, meant = ("labels", ()) if known is None else (known.title, known.wnids)
    positions = class_positions(classes, known) if known is not None else np.full(len(classes), -1)
    given = [corrected.get(name, meant[at] if at >= 0 else None) for name, at in zip(classes, positions, strict=True)]
    lacking = [name for name, wnids in zip(classes, given, strict=True) if wnids is None]
    if label_set is not None and lacking:
        raise ValueError(
            f"label set {title} has no class {listed(lacking)} ({len(lacking)} of {len(classes)}): say what they mean in "
            "corrections, a CSV with columns label,wnids, or leave label_set out"
        )
    return LabelSet(title, tuple(classes), tuple(meanings(classes, given, vocabulary)))


def recognise(classes: Sequence[str]) -> LabelSet | None:
    """The known set whose classes these are, by name or WNID: the one that has most in common with them; None if none has 95 %
    of them or they are not half of it."""
    alike = []
    for name in NAMED_SETS:
        known = LabelSet.load(name)
        shared = int((class_positions(classes, known) >= 0).sum())
        if shared >= KNOWN_SHARE * len(classes) and shared >= COVERED_SHARE * len(known):
            alike.append((shared / (len(classes) + len(known) - shared), known))
    return max(alike, key=lambda pair: pair[0], default=(0, None))[1]


def class_positions(classes: Sequence[str], label_set: LabelSet) -> np.ndarray:
    """Index of each class in a label set, by name or WNID: int64 [C]; -1 where it is not there."""
    exact, index = {name: i for i, name in enumerate(label_set.names)}, _index_of(label_set)
    positions = []
    for name in classes:
        wnid = WNID.match(name)
        found = (exact.get(name), index.get(_plain(name)), index.get(wnid[1]) if wnid else None)
        positions.append(next((at for at in found if at is not None), -1))
    return np.array(positions, dtype=np.int64)


@lru_cache(maxsize=16)
def _index_of(label_set: LabelSet) -> dict[str, int]:
    """Everything a class may be called, plainly -> its index. A name goes before a lemma; what two have in common, a cardigan
    that is a dog and one that is knitted, is left out."""
    nouns = load_nouns()
    names, lemmas, wnids = [], [], []
    for i, (name, own) in enumerate(zip(label_set.names, label_set.wnids, strict=True)):
        names.append((_plain(name), i))
        if len(own) == 1:
            wnids.append((own[0], i))
        if label_set.title.startswith("imagenet") and own and own[0] in nouns.row:
            of_synset = nouns.lemmas[nouns.row[own[0]]]
            lemmas += [(_plain(called), i) for called in (", ".join(of_synset), *of_synset)]  # "tench, Tinca tinca"
    return {called: i for part in (wnids, lemmas, names) for called, i in _alone(part).items()}


def _alone(pairs: Sequence[tuple[str, int]]) -> dict[str, int]:
    times = Counter(called for called, _ in set(pairs))
    return {called: i for called, i in pairs if times[called] == 1}


def _plain(name: str) -> str:
    return re.sub(r"[\s_/-]+", " ", INITIAL.sub("", name)).strip().lower()


# --- a person's table -------------------------------------------------------------------------------------------------------


def read_corrections(path: str | os.PathLike, classes: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """What a person says classes mean: label -> WNIDs, from a CSV with the columns label and wnids; others are ignored.

    Raises FileNotFoundError, or ValueError for columns that are missing, labels given twice or that are no class, and for
    what is no WNID of WordNet 3.0, each with names.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"no corrections at {path}: give a CSV with columns label,wnids, or None")
    columns, rows = read_rows(path)
    if not {"label", "wnids"} <= set(columns):
        there = ", ".join(columns) or "nothing"
        raise ValueError(f"{path}: corrections need the columns label and wnids, separated by commas; it has {there}")
    labels = [row["label"].strip() for row in rows]
    known, there = load_nouns().row, set(classes)
    wnids = [tuple(row["wnids"].split()) for row in rows]
    for wrong, told in (
        ([name for name, times in Counter(labels).items() if times > 1], "label(s) given twice"),
        ([name for name in labels if name not in there], "label(s) that are no class of the data"),
        ([w for own in wnids for w in own if w not in known], "WNID(s) that are no noun of WordNet 3.0 (n02084071 is one)"),
    ):
        if wrong:
            raise ValueError(f"{path}: {told}: {listed(wrong)}")
    return dict(zip(labels, wnids, strict=True))


def write_mapping(label_set: LabelSet, borrowed: Sequence[Borrowed], vocabulary: Vocabulary, path: str | os.PathLike) -> Path:
    """Write, as CSV, what each label means and borrows, for a person to read and to correct; returns the file's path.

    A row a label: label; wnids; meaning (names and definitions); in_vocabulary ("yes", "no" or "1 of 2"); borrows (synsets,
    the heaviest first); kind; captions (behind all that is borrowed, added up). The columns label,wnids can be corrected and
    read again by `map_classes`. A file whose columns or label,wnids are others may hold a person's work: it stays, and the
    table goes to `<name>-1.csv` and so on.
    """
    path = Path(path)
    rows = [_mapping_row(*row, vocabulary) for row in zip(label_set.names, label_set.wnids, borrowed, strict=True)]
    places = (path.with_name(f"{path.stem}-{number}{path.suffix}") if number else path for number in count())
    place = next(place for place in places if not place.is_file() or _says_the_same(place, rows))
    with atomic_path(place) as staging, open(staging, "w", newline="", encoding="utf-8") as file:
        csv.writer(file, lineterminator="\n").writerows([MAPPING_COLUMNS, *rows])
    return place


def _says_the_same(path: Path, wanted: list[tuple]) -> bool:
    try:
        columns, rows = read_rows(path)
    except ValueError:  # a person's all the more
        return False
    return columns == [*MAPPING_COLUMNS] and [(row["label"], row["wnids"]) for row in rows] == [row[:2] for row in wanted]


def _mapping_row(name: str, wnids: Sequence[str], borrowed: Borrowed, vocabulary: Vocabulary) -> tuple:
    """A label's cells, in the order of MAPPING_COLUMNS."""
    nouns, there = load_nouns(), sum(wnid in vocabulary for wnid in wnids)
    meanings = [f"{nouns.name(w)}: {nouns.gloss(w).split('; ')[0]}" if w in nouns.row else w for w in wnids]
    known = "yes" if wnids and there == len(wnids) else f"{there} of {len(wnids)}" if there else "no"
    borrows = listed([vocabulary.names[row] for row in borrowed.rows.tolist()])
    captions = vocabulary.counts[borrowed.rows].sum()
    return name, " ".join(wnids), " | ".join(meanings), known, borrows, borrowed.kind, captions
