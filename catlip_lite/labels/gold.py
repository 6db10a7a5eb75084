"""Captions with the synsets a person gives them, and how well a labeler does on them: precision, recall, F1.

345 captions were written for this project in the manner of alt texts, photo captions and product titles, then annotated by hand
with WordNet senses (`tables/gold_captions.tsv`). They are harder than most captions of the web: words with several senses, and
nouns that are also verbs, are over-represented on purpose.

Two more: `gold_titles.tsv`, 200 titles of a fashion shop and alt texts of web pages, as noisy as these are, on which no labeler
was chosen; and `gold_languages.tsv`, sixty captions each in German, Spanish, French, Japanese and Chinese, on all of which the
rules of `languages` were. And, for class names, `gold_class_names.tsv`: the 79 article types of such a shop.
"""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from statistics import fmean, harmonic_mean

from .label_sets import LabelSet
from .labeler import CaptionLabeler
from .wordnet import load_nouns

KINDS = ("photo caption", "alt text", "product title")
TITLE_KINDS = ("shop title", "web alt text")  # of gold_titles.tsv


@dataclass(frozen=True)
class GoldCaption:
    """A caption, its kind (see KINDS and TITLE_KINDS), and what it names: for each thing, the WNIDs a person could equally well
    give. language: ISO code."""

    kind: str
    caption: str
    things: tuple[frozenset[str], ...]
    held_out: bool  # every other caption: labelers were chosen without looking at these
    language: str = "en"


@dataclass(frozen=True)
class Score:
    """precision: share of given synsets that are right. recall: share of named things with a right one. All in 0..1."""

    precision: float
    recall: float

    @property
    def f1(self) -> float:
        """The harmonic mean of precision and recall."""
        return harmonic_mean((self.precision, self.recall))


@lru_cache(maxsize=3)
def read_gold(table: str = "gold_captions") -> tuple[GoldCaption, ...]:
    """The captions of a gold table: "gold_captions", "gold_titles" or "gold_languages".

    In the file, a thing is a sense as NLTK writes it ("table.n.02"), "|" between equally good ones.
    """
    return tuple(
        GoldCaption(
            row["kind"], row["caption"], tuple(map(_wnids, row["synsets"].split())), i % 2 == 1, row.get("language", "en")
        )
        for i, row in enumerate(_rows(table))
    )


def gold_names(title: str = "shop") -> dict[str, tuple[frozenset[str], ...]]:
    """Class names, and for each thing that one names, the WNIDs a person could equally well give; none if WordNet has none.

    title: "shop", or a known label set (see `LabelSet.load`), of which names that two classes have are left out.
    """
    if title == "shop":
        return {row["name"]: tuple(map(_wnids, row["synsets"].split())) for row in _rows("gold_class_names")}
    label_set = LabelSet.load(title)
    names = [name.split(" (n")[0] for name in label_set.names]  # "crane (n02012849)" tells what it means
    times = Counter(names)
    return {
        name: tuple(frozenset((wnid,)) for wnid in wnids)
        for name, wnids in zip(names, label_set.wnids, strict=True)
        if times[name] == 1
    }


def score_names(given: Sequence[Sequence[str]], gold: Sequence[tuple[frozenset[str], ...]]) -> tuple[float, float]:
    """How well names are mapped: the share mapped as a person would, and the mean F1 over names, which gives partial credit.

    given: WNIDs of each name. A person gives something where WordNet has it, all of it right, though perhaps of one part alone.
    """
    right, f1 = [], []
    for wnids, things in zip(given, gold, strict=True):
        correct = [wnid in frozenset().union(*things) for wnid in wnids]
        found = [not thing.isdisjoint(wnids) for thing in things]
        right.append(all(correct) and bool(wnids) == bool(things))
        f1.append(harmonic_mean((fmean(correct), fmean(found))) if wnids and things else float(not wnids and not things))
    return fmean(right), fmean(f1)


def score_labeler(labeler: CaptionLabeler, gold: Sequence[GoldCaption]) -> Score:
    """Precision and recall of a labeler's synsets over several captions, each synset counted once a caption."""
    given = right = found = things = 0
    for entry, wnids in zip(gold, labeler.label([entry.caption for entry in gold]), strict=True):
        wnids = set(wnids)
        given += len(wnids)
        right += len(wnids & frozenset().union(*entry.things))
        found += sum(not wnids.isdisjoint(thing) for thing in entry.things)
        things += len(entry.things)
    return Score(right / max(given, 1), found / max(things, 1))


def reachable_labels(labeler: CaptionLabeler, label_set: LabelSet) -> int:
    """How many labels of a set the labeler can give at all: it is shown every name that WordNet has for each."""
    nouns = load_nouns()
    wanted = [[w for w in wnids if w in nouns.row] for wnids in label_set.wnids]
    names = [lemma.replace("_", " ") for wnids in wanted for w in wnids for lemma in nouns.lemmas[nouns.row_of(w)]]
    given = {wnid for wnids in labeler.label(names) for wnid in wnids}
    return sum(not given.isdisjoint(wnids) for wnids in wanted)


def _rows(table: str) -> list[dict[str, str]]:
    with open(Path(__file__).with_name("tables") / f"{table}.tsv", newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE))


def _wnids(thing: str) -> frozenset[str]:
    nouns = load_nouns()
    senses = (alternative.rsplit(".n.", 1) for alternative in thing.split("|"))
    return frozenset(nouns.wnids[nouns.senses[lemma][int(number) - 1]] for lemma, number in senses)
