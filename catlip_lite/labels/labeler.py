"""Captions → nouns → WordNet synsets (paper section 3, equation 1): everything between a caption and its labels.

Reads strings or Arrow columns, gives WNIDs. Three modes: `corenet` (the reference code's function, for comparison and for its
published vocabulary), `pos` (the paper's equation: words that a tagger calls nouns) and `compound` (ours, the default).
A batch of captions is worked on as a whole: cleaned by its bytes, cut at its spaces, and each distinct piece looked up once.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import compress

import numpy as np
import pyarrow as pa

from .cleaning import as_text_column, clean_caption, clean_column
from .compounds import CompoundTrie, compound_forms, words_of
from .memo import Memo
from .ragged import ends_of, first_in_row, replace_rows, rows_at, spans, take_rows
from .senses import (
    SENSES,
    first_lemma_of_first_sense,
    is_name_of_a_thing,
    is_noun_in_captions,
    likeliest_noun,
    sense_of,
    singular_instead,
)
from .tagging import NOUN_TAGS, has_tag, load_tagger
from .tokenising import Pieces, cut, piece_tokens, tokenize
from .wordnet import load_nouns

MODES = ("corenet", "pos", "compound")
LABELER_FACTS = ("label_mode", "label_sense", "proper_nouns", "tagger")  # what a card tells of a labeler
SENSE_OF_MODE = {"corenet": "first", "pos": "first", "compound": "visual"}
BATCH = 1 << 15  # captions worked on at a time: enough to share lookups, few enough to stay in the processor's cache
BATCH_BYTES = 1 << 26

_WORD = re.compile(r"(?:[^\W\d_]\.){2,}|[^\W_]+(?:'[^\W_]+)?")
_JOINS = frozenset(("-", "_", ""))


@dataclass(frozen=True)
class _Found:
    """Synsets of N captions: those of caption i are numbers[ends[i - 1] : ends[i]], int32 WNID numbers, in order of mention."""

    numbers: np.ndarray
    ends: np.ndarray
    words: list[str] | None = None  # what the caption calls each of them


class CaptionLabeler:
    """Maps captions to WordNet 3.0 noun synsets; deterministic, and the same whatever captions stand beside a caption.

    mode: "compound" (default): the longest WordNet compound first ("golden retriever", "ice cream"), any lemma of a sense,
        words that captions rarely use as nouns out (`is_noun_in_captions`). "pos": words tagged as nouns (equation 1),
        lemmatised. "corenet": what the reference code returns; it tags but never filters, keeps a word only if it is the first
        lemma of its first sense, keeps duplicates, and makes a string of anything (None is "none", which WordNet knows).
    sense: "first", WordNet's first sense of a word, as the paper has it, or "visual", the likeliest that a photograph can show
        ("table" is furniture; see `sense_of`). None: "visual" for compound, "first" for the others.
    proper_nouns: whether names count: what WordNet has as an instance ("Paris") or writes with capitals ("Christmas"), for
        "pos" also what is tagged NNP or NNPS. corenet has neither option.
    tagger: for mode "pos": "perceptron", "spacy" or "nltk".

    A caption that is None, NaN or empty has no labels, bytes are UTF-8, and a list is the union of its members (but see
    corenet). Sentences, tokens and lemmas of corenet and pos are those of NLTK 3.8.1, which the reference names, whatever NLTK
    is installed.
    """

    def __init__(
        self, mode: str = "compound", *, sense: str | None = None, proper_nouns: bool = True, tagger: str = "perceptron"
    ):
        if mode not in MODES:
            raise ValueError(f"mode={mode!r} is unknown: choose one of {', '.join(MODES)}")
        sense = sense or SENSE_OF_MODE[mode]
        if sense not in SENSES:
            raise ValueError(f"sense={sense!r} is unknown: choose one of {', '.join(SENSES)}")
        if mode == "corenet" and (sense != "first" or not proper_nouns):
            raise ValueError("mode='corenet' is what the reference does: it takes neither sense nor proper_nouns")
        self.mode, self.sense, self.proper_nouns = mode, sense, bool(proper_nouns)
        self.tagger = tagger if mode == "pos" else None
        self._tag = load_tagger(tagger) if mode == "pos" else None
        self._trie = _compound_trie(sense, self.proper_nouns) if mode == "compound" else None
        self._find = {"corenet": self._find_first_lemmas, "pos": self._find_tagged, "compound": self._find_compounds}[mode]
        piece = {"corenet": self._synsets_of_piece, "pos": piece_tokens, "compound": self._words_of_piece}[mode]
        self._pieces = Memo(piece)
        word = {
            "corenet": self._number_by_first_lemma,
            "pos": self._number_of_noun,
            "compound": self._number_of_word,
        }[mode]
        self._words = Memo(word)

    @property
    def name(self) -> str:
        """Mode and options in one word, for file names, legends and provenance: 'compound', 'pos-spacy', 'compound-first'."""
        parts = [self.mode, self.tagger, self.sense if self.sense != SENSE_OF_MODE[self.mode] else None]
        return "-".join(p for p in (*parts, None if self.proper_nouns else "common") if p)

    @property
    def card(self) -> dict:
        """What makes this labeler again, as artefacts store it: JSON values under the names of the notebooks' parameters."""
        return dict(zip(LABELER_FACTS, (self.mode, self.sense, self.proper_nouns, self.tagger), strict=True))

    @classmethod
    def from_card(cls, card: Mapping) -> CaptionLabeler:
        """The labeler that made the labels behind an artefact. Raises ValueError if the artefact's card does not name it."""
        if not card.keys() >= set(LABELER_FACTS):
            raise ValueError("the artefact does not say how its labels were made: run notebook 01_synset_analysis again")
        return _labeler_of(*(card[name] for name in LABELER_FACTS))

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
        for found in self._batches(captions):
            offsets = pa.array(np.append(0, found.ends).astype(np.int32))
            parts.append(pa.ListArray.from_arrays(offsets, pa.array(found.numbers, pa.int32())))
        return pa.concat_arrays(parts)

    def mentions(self, captions: Sequence) -> list[list[tuple[str, str]]]:
        """What `label` gives, with the words each synset came from: [[("apple", "n07739125"), …], …]; repeated ones, too."""
        wnid = load_nouns().wnid_of_number
        result = []
        for found in self._batches(captions, with_words=True):
            pairs = [(word, wnid[number]) for word, number in zip(found.words, found.numbers.tolist(), strict=True)]
            starts = np.append(0, found.ends[:-1])
            result += [pairs[start:end] for start, end in zip(starts, found.ends, strict=True)]
        return result

    def _batches(self, captions, with_words: bool = False) -> Iterable[_Found]:
        if isinstance(captions, (str, bytes)):
            raise TypeError(f"label() takes a list of captions, not one string: pass [{captions[:60]!r}]")
        for column in _parts(captions, literal=self.mode == "corenet"):
            found = self._find(clean_column(column, lower=self.mode != "pos"), with_words)
            if not with_words and self.mode != "corenet":
                first = first_in_row(found.numbers, found.ends)
                found = _Found(found.numbers[first], np.append(0, np.cumsum(first))[found.ends])
            yield found

    # --- corenet --------------------------------------------------------------------------------------------------------

    def _find_first_lemmas(self, texts: pa.Array, with_words: bool) -> _Found:
        pieces = cut(texts)
        found = self._pieces(pieces.distinct)
        flat, ends = _spread(pieces, [entry[0] if entry else () for entry in found])
        rows = _rows_with(pieces, [entry is None for entry in found])
        whole = [self._synsets_of_tokens(tokenize(text)) for text in texts.take(pa.array(rows)).to_pylist()]
        flat, ends = replace_rows(flat, ends, rows, [numbers for numbers, _ in whole])
        if not with_words:
            return _Found(flat, ends)
        instead = {row: entry[1] for row, entry in zip(rows.tolist(), whole, strict=True)}
        starts = np.append(0, pieces.ends[:-1])
        words = []
        for row, (start, end) in enumerate(zip(starts, pieces.ends, strict=True)):
            words += instead.get(row, (word for i in pieces.ids[start:end] if found[i] for word in found[i][1]))
        return _Found(flat, ends, words)

    def _synsets_of_piece(self, piece: str) -> tuple[tuple[int, ...], tuple[str, ...]] | None:
        tokens = piece_tokens(piece, cased=False)
        return None if tokens is None else self._synsets_of_tokens(tokens)

    def _synsets_of_tokens(self, tokens: Sequence[str]) -> tuple[tuple[int, ...], tuple[str, ...]]:
        """The synsets' numbers of the tokens that have one, and these tokens."""
        numbers = self._words(tokens)
        return tuple(filter(None, numbers)), tuple(compress(tokens, numbers))

    def _number_by_first_lemma(self, token: str) -> int:
        return _number(first_lemma_of_first_sense(token))

    # --- pos ------------------------------------------------------------------------------------------------------------

    def _find_tagged(self, texts: pa.Array, with_words: bool) -> _Found:
        pieces = cut(texts)
        tokens_of = self._pieces(pieces.distinct)
        rows = _rows_with(pieces, [tokens is None for tokens in tokens_of])
        whole = [tokenize(text) for text in texts.take(pa.array(rows)).to_pylist()]
        ids: dict[str, int] = {}
        flat, ends = _spread(pieces, [[ids.setdefault(t, len(ids)) for t in tokens or ()] for tokens in tokens_of])
        flat, ends = replace_rows(flat, ends, rows, [[ids.setdefault(t, len(ids)) for t in tokens] for tokens in whole])
        words = list(ids)
        numbers = np.array(self._words(words), dtype=np.int32)[flat]
        nouns = has_tag(self._tag, words, flat, ends, self._noun_tags, numbers > 0)
        at = np.flatnonzero(nouns)
        ends = np.append(0, np.cumsum(nouns))[ends]
        return _Found(numbers[at], ends, [words[i] for i in flat[at]] if with_words else None)

    @property
    def _noun_tags(self) -> frozenset[str]:
        return NOUN_TAGS if self.proper_nouns else NOUN_TAGS - {"NNP", "NNPS"}

    def _number_of_noun(self, token: str) -> int:
        nouns = load_nouns()
        return self._number_of_lemma(nouns.lemmatize(token.lower()))

    def _number_of_lemma(self, lemma: str) -> int:
        return _number(sense_of(lemma, self.sense, self.proper_nouns))

    # --- compound -------------------------------------------------------------------------------------------------------

    def _find_compounds(self, texts: pa.Array, with_words: bool) -> _Found:
        pieces = cut(texts)
        found = self._pieces(pieces.distinct)
        ids, ends = _spread(pieces, [ids for ids, _, _ in found])
        numbers, _ = _spread(pieces, [numbers for _, numbers, _ in found])
        starts, lengths, compounds = self._trie.longest(ids)
        inside, _ = spans(starts, lengths)
        numbers[inside] = 0
        numbers[starts] = compounds
        kept = numbers > 0
        result_ends = np.append(0, np.cumsum(kept))[ends]
        if not with_words:
            return _Found(numbers[kept], result_ends)
        words = [word for i in pieces.ids for word in found[i][2]]
        span = np.ones(len(numbers), dtype=np.int64)
        span[starts] = lengths
        named = [" ".join(words[i : i + span[i]]) for i in np.flatnonzero(kept)]
        return _Found(numbers[kept], result_ends, named)

    def _words_of_piece(self, piece: str) -> tuple[tuple, tuple, tuple]:
        """Words of a piece: their ids in the trie, their synsets' numbers, themselves; a break between phrases is 0, 0, ""."""
        ids, word = self._trie.word_id, piece[:-1]
        if piece[-1] == " " and word.isalnum():
            return (ids.get(word, 0),), (self._words.of(word),), (word,)
        words, plain = _split_at_breaks(piece)
        return tuple([ids.get(word, 0) for word in plain]), tuple(self._words(words)), tuple(plain)

    def _number_of_word(self, word: str) -> int:
        if word.endswith("'s") and _lemma_of(word[:-2]):
            word = word[:-2]
        lemma = _lemma_of(word)
        row = sense_of(lemma, self.sense, self.proper_nouns)
        return _number(row) if row is not None and is_noun_in_captions(word, lemma, row) else 0


@lru_cache(maxsize=4)
def _compound_trie(sense: str, proper_nouns: bool) -> CompoundTrie:
    def number(lemma: str) -> int:
        if not is_name_of_a_thing(words_of(lemma)):
            return 0
        return _number(sense_of(singular_instead(lemma) or lemma, sense, proper_nouns))

    return CompoundTrie(number)


def _parts(captions, literal: bool) -> Iterable[pa.Array]:
    """Captions as text columns, some at a time; no captions are one empty column."""
    for start in range(0, max(len(captions), 1), BATCH):
        column = as_text_column(captions[start : start + BATCH], literal=literal)
        # Where captions are long, fewer: memory stays flat, and positions fit 32 bits.
        rows = max(len(column) * BATCH_BYTES // max(column.nbytes, BATCH_BYTES), 1)
        for first in range(0, max(len(column), 1), rows):
            yield column.slice(first, rows)


def _lemma_of(word: str) -> str:
    """The noun that a word is a form of; empty if WordNet knows none."""
    nouns = load_nouns()
    word = {"mens": "men", "womens": "women", "weeds": "weed"}.get(word, word)  # as shops write men's; not a widow's dress
    if word in nouns.senses:
        return singular_instead(word) or word
    return likeliest_noun(nouns.morphy(word))


def _split_at_breaks(piece: str) -> tuple[list[str], list[str]]:
    """The words of a piece, with "" wherever a phrase ends; the same without the periods of abbreviations ("u.s.")."""
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
    return words, [word.replace(".", "") for word in words]


def _number(row: int | None) -> int:
    """A synset's WNID number; 0, which no synset has, for none."""
    return 0 if row is None else int(load_nouns().numbers[row])


def _spread(pieces: Pieces, members: list[Sequence[int]]) -> tuple[np.ndarray, np.ndarray]:
    """Put each piece's members in its place: the members of all texts, int32, and where each text's end, int64 [N]."""
    lengths = np.fromiter(map(len, members), dtype=np.int64, count=len(members))
    flat = np.fromiter((m for row in members for m in row), dtype=np.int32, count=int(lengths.sum()))
    positions, ends = take_rows(ends_of(lengths), pieces.ids)
    return flat[positions], np.append(0, ends)[pieces.ends]


def _rows_with(pieces: Pieces, chosen: list[bool]) -> np.ndarray:
    """The texts that contain one of the chosen pieces, ascending."""
    return np.unique(rows_at(pieces.ends, np.flatnonzero(np.array(chosen, dtype=bool)[pieces.ids])))


def count_synsets(labels: Iterable[Sequence[str]]) -> Counter:
    """In how many captions each synset occurs (a synset named twice in a caption counts once)."""
    counts = Counter()
    for wnids in labels:
        counts.update(set(wnids))
    return counts


def name_to_wnids(name: str) -> list[str]:
    """Synsets of a class name, most specific reading first: the whole name if WordNet has it, else its parts.

    "ice_cream" -> one synset, "restaurant_kitchen" -> two, "n02084071" -> itself, an unknown name -> none.
    """
    if re.fullmatch(r"n\d{8}", name):
        return [name] if name in load_nouns().row else []
    labeler = _labeler_of("compound", None, True, None)
    text = clean_caption(name.replace("_", " ").replace("-", " "))
    words = tuple(_WORD.findall(text))
    lemma = compound_forms().get(words) if len(words) > 1 else _lemma_of(text)
    number = labeler._number_of_lemma(lemma) if lemma else 0
    return [load_nouns().wnid_of_number[number]] if number else labeler.label([text])[0]


@lru_cache(maxsize=8)
def _labeler_of(mode: str, sense: str | None, proper_nouns: bool, tagger: str | None) -> CaptionLabeler:
    """One labeler for each set of options in this process: what it has looked up serves all who ask."""
    return CaptionLabeler(mode, sense=sense, proper_nouns=proper_nouns, tagger=tagger or "perceptron")
