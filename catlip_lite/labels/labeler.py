"""Captions → nouns → WordNet synsets (paper section 3, equation 1): everything between a caption and its labels.

Reads strings or Arrow columns, gives WNIDs. Three modes: `corenet` (the reference code's function, for comparison and for its
published vocabulary), `pos` (the paper's equation: words that a tagger calls nouns) and `compound` (ours, the default).
A batch of captions is worked on as a whole: cleaned by its bytes, cut at its spaces, and each distinct piece looked up once.
"""

from __future__ import annotations

import logging
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from itertools import chain, pairwise
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from .company import UNDECIDED, Company, lemma_named, verbs_in_place
from .detecting import detect_languages
from .languages import LANGUAGES, UNSPACED, Language
from .ragged import ends_of_kept, first_in_row, lengths_of, spans, take_rows
from .senses import SENSES, compound_forms, compound_trie, first_lemma_of_first_sense, lemma_of, noun_of, number_of, sense_of
from .tagging import NOUN_TAGS, REMEMBERED, has_tag, load_tagger
from .tokenising import as_text_column, clean_caption, clean_column, cut, piece_tokens, tokenize
from .wordnet import load_nouns

logger = logging.getLogger(__name__)

MODES = ("corenet", "pos", "compound")
LABELER_FACTS = ("label_mode", "label_sense", "proper_nouns", "tagger")  # what a card tells of a labeler
LANGUAGE_FACTS = ("label_language", "lemmas")  # and of one that reads another language than English
SENSE_OF_MODE = {"corenet": "first", "pos": "first", "compound": "visual"}
BATCH = 1 << 15  # captions worked on at a time: enough to share lookups, few enough to stay in the processor's cache
BATCH_BYTES = 1 << 26

_WORD = re.compile(r"(?:[^\W\d_]\.){2,}|[^\W_]+(?:'[^\W_]+)?")
_JOINS = frozenset(("-", "_", ""))


class CaptionLabeler:
    """Maps captions to WordNet 3.0 noun synsets; deterministic, and the same whatever captions stand beside a caption.

    mode: "compound" (default): the longest WordNet compound first ("golden retriever", "ice cream"), any lemma of a sense,
        words that captions rarely use as nouns out (`noun_of`). "pos": words tagged as nouns (equation 1), lemmatised.
        "corenet": what the reference code returns; it tags but never filters, keeps a word only if it is the first
        lemma of its first sense, keeps duplicates, and makes a string of anything (None is "none", which WordNet knows).
    sense: "first", WordNet's first sense of a word, as the paper has it; "visual", the likeliest that a photograph can show
        ("table" is furniture; see `sense_of`); for compound also "context", the likeliest beside the words around it ("a mouse
        beside a keyboard" is no animal; see `Company`). None: "visual" for compound, "first" for the others.
    proper_nouns: whether names count: what WordNet has as an instance ("Paris") or writes with capitals ("Christmas"), for
        "pos" also what is tagged NNP or NNPS. corenet has neither option.
    tagger: for mode "pos": "perceptron" or "spacy".
    language: "en", or for mode "compound" another of `LANGUAGES`, whose words are those of the Open Multilingual WordNet and
        whose synsets the same ("de": "Ein Hund am Strand" is n02084071 and n09217230). "auto": each caption by the labeler of
        its language, as `detect_languages` tells it; one in a language without lemmas here has no labels.

    A caption that is None, NaN or empty has no labels, bytes are UTF-8, and a list is the union of its members (but see
    corenet). Sentences, tokens and lemmas of corenet and pos are those of NLTK 3.8.1, the reference's, whichever is installed.
    """

    def __init__(
        self, mode: str = "compound", *, sense: str | None = None, proper_nouns: bool = True, tagger: str = "perceptron",
        language: str = "en",
    ):  # fmt: skip
        if mode not in MODES:
            raise ValueError(f"mode={mode!r} is unknown: choose one of {', '.join(MODES)}")
        sense = sense or SENSE_OF_MODE[mode]
        if sense not in SENSES:
            raise ValueError(f"sense={sense!r} is unknown: choose one of {', '.join(SENSES)}")
        if sense == "context" and mode != "compound":
            raise ValueError(f"sense='context' is for mode='compound' alone, not {mode!r}")
        if mode == "corenet" and (sense != "first" or not proper_nouns):
            raise ValueError("mode='corenet' is what the reference does: it takes neither sense nor proper_nouns")
        if language != "en" and (
            mode != "compound" or sense not in (("visual", "context") if language == "auto" else ("visual",))
        ):
            raise ValueError(f"language={language!r} is read by mode='compound' with sense='visual' alone: leave both out")
        self.mode, self.sense, self.proper_nouns, self.language = mode, sense, bool(proper_nouns), language
        self._language = Language(language, self.proper_nouns) if language not in ("en", "auto") else None
        self._readers = _readers_of(sense, self.proper_nouns) if language == "auto" else {}
        self.tagger = tagger if mode == "pos" else None
        self._tag = load_tagger(tagger) if mode == "pos" else None
        self._cased = mode == "pos" or bool(self._language and self._language.cased)
        self._tags = NOUN_TAGS if self.proper_nouns else NOUN_TAGS - {"NNP", "NNPS"}
        self._company = _company_of(self.proper_nouns) if sense == "context" else None
        self._word_sense = "visual" if self._company else sense  # of a word alone
        undecided = self._company and self._company.undecided
        self._trie = compound_trie(self._word_sense, self.proper_nouns, undecided) if mode == "compound" else None
        self._trie = self._language.trie if self._language else self._trie
        split = {"corenet": self._nouns_of_piece, "pos": piece_tokens, "compound": _words_of_piece}[mode]
        split = self._parts_of_piece if self._language else split
        self._words_of = lru_cache(REMEMBERED)(split)
        self._facts_of = lru_cache(REMEMBERED)(self._facts_of_word)

    @property
    def name(self) -> str:
        """Mode and options in one word, for file names, legends and provenance: 'compound', 'pos-spacy', 'compound-de'."""
        parts = [self.mode, self.tagger, self.sense if self.sense != SENSE_OF_MODE[self.mode] else None]
        parts.append(self.language if self.language != "en" else None)
        return "-".join(p for p in (*parts, None if self.proper_nouns else "common") if p)

    @property
    def card(self) -> dict:
        """What makes this labeler again, as artefacts store it: JSON values under the names of the notebooks' parameters; of
        another language than English also this, and where its lemmas are from."""
        known = dict(zip(LABELER_FACTS, (self.mode, self.sense, self.proper_nouns, self.tagger), strict=True))
        if self.language == "en":
            return known
        readers = {code: reader for code, reader in self._readers.items() if code != "en"}
        lemmas = (
            self._language.source
            if self._language
            else "; ".join(f"{c}: {r._language.source}" for c, r in readers.items() if r._language)
        )
        return known | dict(zip(LANGUAGE_FACTS, (self.language, lemmas), strict=True))

    @classmethod
    def from_card(cls, card: Mapping) -> CaptionLabeler:
        """The labeler that made the labels behind an artefact.

        Raises ValueError if the artefact's card does not name it, or if its language's lemmas were others than are here.
        """
        if not card.keys() >= set(LABELER_FACTS):
            raise ValueError("the artefact does not say how its labels were made: run notebook 01_synset_analysis again")
        found = labeler_of(*(card[name] for name in LABELER_FACTS), card.get("label_language", "en"))
        if found.card.get("lemmas") != card.get("lemmas"):
            told = f"the artefact's labels were made from {card.get('lemmas')}, here is {found.card.get('lemmas')}"
            raise ValueError(f"{told}: install the same files, or make the labels again")
        return found

    def __reduce__(self):
        """Travels to other processes as its options: what it remembers, and what a tagger holds, stays here."""
        return type(self).from_card, (self.card,)

    def label(self, captions: Sequence) -> list[list[str]]:
        """WNIDs of each caption, one list a caption: `["A red apple for my dog."]` -> `[["n07739125", "n02084071"]]`.

        Each synset once, in order of first mention (corenet: as often as it is mentioned).
        Raises TypeError for a single string: pass a list of captions.
        """
        wnid = load_nouns().wnid_of_number
        return [[wnid[number] for number in numbers] for numbers in self.label_column(captions).to_pylist()]

    def label_column(self, captions: pa.Array | pa.ChunkedArray | Sequence) -> pa.ListArray:
        """Labels of a column of captions: string array [N] -> list<int32> array [N] of WNID numbers.

        A WNID number is the integer in a WNID: 2084071 for n02084071. Order and errors are those of `label`.
        """
        parts = []
        for numbers, ends, _ in self._batches(captions):
            if self.mode != "corenet":
                first = first_in_row(numbers, ends)
                numbers, ends = numbers[first], ends_of_kept(ends, first)
            parts.append(pa.ListArray.from_arrays(np.append(0, ends).astype(np.int32), numbers))
        return pa.concat_arrays(parts)

    def mentions(self, captions: Sequence) -> list[list[tuple[str, str]]]:
        """What `label` gives, with the words each synset came from: [[("apple", "n07739125"), …], …]; repeated ones, too."""
        wnid = load_nouns().wnid_of_number
        result = []
        for numbers, ends, named in self._batches(captions):
            pairs = list(zip(named, (wnid[number] for number in numbers.tolist()), strict=True))
            result += [pairs[start:end] for start, end in pairwise([0, *ends.tolist()])]
        return result

    def _batches(self, captions: Sequence) -> Iterable[tuple[np.ndarray, np.ndarray, Iterable[str]]]:
        """What `_find` gives, for some captions at a time."""
        if isinstance(captions, (str, bytes)):
            raise TypeError(f"label() takes a list of captions, not one string: pass [{captions[:60]!r}]")
        for start in range(0, max(len(captions), 1), BATCH):  # no captions are one empty column
            column = as_text_column(captions[start : start + BATCH], literal=self.mode == "corenet")
            # Where captions are long, fewer: memory stays flat, and positions fit 32 bits.
            rows = max(len(column) * BATCH_BYTES // max(column.nbytes, BATCH_BYTES), 1)
            for first in range(0, max(len(column), 1), rows):
                yield (self._find_by_language if self._readers else self._find)(column.slice(first, rows))

    def _find_by_language(self, texts: pa.Array) -> tuple[np.ndarray, np.ndarray, Iterable[str]]:
        """What `_find` gives, each text read by its language's labeler."""
        codes = detect_languages(texts)
        rows = [np.flatnonzero(codes == code) for code in self._readers]
        unread = np.flatnonzero(~np.isin(codes, [*self._readers]))
        found = [r._find(texts.take(pa.array(own))) for r, own in zip(self._readers.values(), rows, strict=True) if len(own)]
        numbers, lengths, named = zip(*((n, lengths_of(e), names) for n, e, names in found), strict=True) if found else [()] * 3
        order = np.argsort(np.concatenate([*rows, unread]))
        at, ends = take_rows(np.cumsum(np.concatenate([*lengths, np.zeros(len(unread), dtype=np.int64)])), order)
        return np.concatenate([np.zeros(0, np.int32), *numbers])[at], ends, _taken(chain.from_iterable(named), at)

    def _find(self, texts: pa.Array) -> tuple[np.ndarray, np.ndarray, Iterable[str]]:
        """Synsets of N texts: WNID numbers, int32, in order of mention; where each text's end among them, int64 [N]; and what
        the text calls each of them."""
        texts = clean_column(texts, lower=not self._cased)
        distinct, facts, words, ends = self._split(self._language.prepared(texts) if self._language else texts)
        numbers, length = facts[words, 0], np.ones(len(words), dtype=np.int64)
        if self._trie:
            starts, lengths, compounds = self._trie.longest(facts[words, 1])
            numbers[spans(starts, lengths)[0]] = 0
            numbers[starts], length[starts] = compounds, lengths
        if self._company:
            self._decide(numbers, length, facts[words], ends)
        kept = numbers > 0
        if self._tag:
            kept = has_tag(self._tag, distinct, words, ends, self._tags, kept)
        at = np.flatnonzero(kept)
        space = "" if self.language in UNSPACED else " "
        named = (space.join(distinct[word] for word in words[i : i + length[i]]) for i in at)
        named = (name.replace(".", "") for name in named) if self._trie else named  # "u.s."
        return numbers[at], ends_of_kept(ends, kept), named

    def _decide(self, numbers: np.ndarray, length: np.ndarray, facts: np.ndarray, ends: np.ndarray) -> None:
        """Choose senses in place, by what stands beside words: facts is what `_facts_of_word` gives for each, int32 [P, 4]."""
        numbers[(length == 1) & verbs_in_place(facts[:, 3], ends)] = 0
        at = np.flatnonzero(numbers >= UNDECIDED)
        numbers[at] = self._company.choose(numbers[at], at, facts[:, 2], ends)  # type: ignore[union-attr]  # sense="context"

    def _split(self, texts: pa.Array) -> tuple[list[str], np.ndarray, np.ndarray, np.ndarray]:
        """Words of N texts: those of distinct pieces; what `_facts_of_word` gives for these, int32 [D, 2 or 4]; an index into
        them for each word, int64; where each text's end, int64 [N]."""
        pieces, ids, ends = cut(texts)
        split: Any = [*map(self._words_of, pieces)]
        unclear = np.array([words is None for words in split], dtype=bool)[ids]
        if unclear.any():
            # A text with a piece that cannot be split alone is split whole: one more piece, in the place of its own.
            rows = np.unique(np.searchsorted(ends, np.flatnonzero(unclear), side="right"))
            more, chosen = np.arange(len(rows)), np.arange(len(texts))
            chosen[rows] = len(texts) + more
            at, ends = take_rows(np.append(ends, len(ids) + 1 + more), chosen)
            ids = np.append(ids, len(split) + more)[at]
            split = [words or () for words in split] + [*map(tokenize, texts.take(pa.array(rows)).to_pylist())]
        known = list(chain.from_iterable(split))
        words, piece_ends = take_rows(np.cumsum([*map(len, split)], dtype=np.int64), ids)
        if self._tag:  # which asks more of each
            codes, known = pd.factorize(np.array(known, dtype=object))
            words = codes[words]
        width = 4 if self._company else 2
        facts = np.fromiter(chain.from_iterable(map(self._facts_of, known)), np.int32, width * len(known)).reshape(-1, width)
        return known, facts, words, np.append(0, piece_ends)[ends]

    def _nouns_of_piece(self, piece: str) -> tuple[str, ...] | None:
        """The words of a piece that have a synset: mode corenet does not ask what stands beside them."""
        words = piece_tokens(piece, cased=False)
        return words and tuple(word for word in words if self._facts_of(word)[0])

    def _parts_of_piece(self, piece: str) -> tuple[str, ...]:
        """The words of a piece in another language, its compounds in parts."""
        parts = self._language.parts  # type: ignore[union-attr]  # it splits for other languages alone
        return tuple(chain.from_iterable(map(parts, _words_of_piece(piece))))

    def _facts_of_word(self, word: str) -> tuple[int, ...]:
        """The WNID number of a noun's meaning, 0 (which no synset has) of others; its number in the trie, 0 without. For sense
        "context" also what `Company.facts_of` says of it, and a noun of several senses is undecided."""
        if self._language:
            return self._language.facts_of_word(word)
        if self.mode == "corenet":
            return number_of(first_lemma_of_first_sense(word)), 0
        if self.mode == "pos":
            return number_of(sense_of(load_nouns().lemmatize(word.lower()), self.sense, self.proper_nouns)), 0
        number = number_of(noun_of(word, self._word_sense, self.proper_nouns))
        in_compounds = self._trie.word_id.get(word.replace(".", ""), 0)  # type: ignore[union-attr]  # mode="compound"
        if not self._company:
            return number, in_compounds
        undecided = number and self._company.undecided(lemma_named(word))
        return undecided or number, in_compounds, *self._company.facts_of(word)


def _words_of_piece(piece: str) -> tuple[str, ...]:
    """The words of a piece, with "" wherever a phrase ends."""
    if piece[-1] == " " and piece[:-1].isalnum():
        return (piece[:-1],)
    words, behind = [], 0
    for match in _WORD.finditer(piece):
        if piece[behind : match.start()] not in _JOINS:
            words.append("")
        words.append(match.group())
        behind = match.end()
    rest = piece[behind:]
    # The period of "st." and "mt." ends no phrase. What has no space behind it ends its caption.
    abbreviated = rest == ". " and words and len(words[-1]) == 2
    if (rest.strip(" '-") and not abbreviated) or not rest.endswith(" "):
        words.append("")
    return tuple(words)


def count_synsets(labels: Iterable[Sequence[str]]) -> Counter:
    """In how many captions each synset occurs (a synset named twice in a caption counts once)."""
    return Counter(wnid for wnids in labels for wnid in set(wnids))


def name_to_wnids(name: str) -> list[str]:
    """Synsets of a class name, most specific reading first: the whole name if WordNet has it, else its parts.

    "ice_cream" -> one synset, "restaurant_kitchen" -> two, "n02084071" -> itself, an unknown name -> none.
    """
    if re.fullmatch(r"n\d{8}", name):
        return [name] if name in load_nouns().row else []
    text = clean_caption(name.replace("_", " ").replace("-", " "))
    words = tuple(_WORD.findall(text))
    lemma = compound_forms().get(words) if len(words) > 1 else lemma_of(text)
    row = sense_of(lemma, "visual") if lemma else None
    return labeler_of("compound", None, True, None).label([text])[0] if row is None else [load_nouns().wnids[row]]


def _taken(names: Iterable[str], at: np.ndarray) -> Iterable[str]:
    """names[i] for each i of at, made when they are asked for."""
    names = [*names]
    yield from (names[i] for i in at)


def _readers_of(sense: str, proper_nouns: bool) -> dict[str, CaptionLabeler]:
    """A labeler for English and for each language that has lemmas here. Raises FileNotFoundError if none has."""
    readers, lacking = {"en": labeler_of("compound", sense, proper_nouns, None)}, {}
    for code in LANGUAGES:
        try:
            readers[code] = labeler_of("compound", None, proper_nouns, None, code)
        except FileNotFoundError as error:
            lacking[code] = error
    if len(lacking) == len(LANGUAGES):
        raise lacking["de"]
    if lacking:
        logger.warning("captions in %s will have no labels: %s", ", ".join(lacking), next(iter(lacking.values())))
    return readers


@lru_cache(maxsize=2)
def _company_of(proper_nouns: bool) -> Company:
    return Company(proper_nouns)


@lru_cache(maxsize=16)
def labeler_of(mode: str, sense: str | None, proper_nouns: bool, tagger: str | None, language: str = "en") -> CaptionLabeler:
    """One labeler for each set of options in this process: what it has looked up serves all who ask."""
    return CaptionLabeler(mode, sense=sense, proper_nouns=proper_nouns, tagger=tagger or "perceptron", language=language)
