"""WordNet's compounds ("golden retriever", "ice cream") in columns of words: the longest that starts at each word.

A trie over the surface forms of all compounds, singular and plural, held in sorted arrays, so that a whole batch of captions
walks it at once.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache

import numpy as np

from .senses import is_adverb
from .wordnet import PLURAL_RULES, load_nouns

NO_SYNSET = -1


@lru_cache(maxsize=1)
def compound_forms() -> dict[tuple[str, ...], str]:
    """Words of each compound as a caption may write it -> its lemma; the last word may be a plural.

    Hyphens count as spaces and periods not at all: "t-shirt", "t shirt"; "st. bernard", "st bernard".
    """
    nouns = load_nouns()
    lemmas = {}
    for lemma in nouns.senses:
        words = words_of(lemma)
        if len(words) > 1 and (words not in lemmas or lemma.count("_") + 1 == len(words)):
            lemmas[words] = lemma
    forms = dict(lemmas)
    for words, lemma in lemmas.items():
        for plural in _plurals(words[-1]):
            forms.setdefault((*words[:-1], plural), lemma)
    for plural, bases in nouns.exceptions.items():
        words = words_of(plural)
        base = next((b for b in bases if b in nouns.senses), None)
        if len(words) > 1 and base is not None:
            forms.setdefault(words, base)
    return forms


def words_of(lemma: str) -> tuple[str, ...]:
    """A lemma's words: 'st._bernard' -> ('st', 'bernard')."""
    return tuple(lemma.replace(".", "").replace("-", "_").strip("_").split("_"))


@lru_cache(maxsize=1)
def _irregular() -> dict[str, list[str]]:
    nouns = load_nouns()
    plurals = {}
    for plural, bases in nouns.exceptions.items():
        for base in bases:
            plurals.setdefault(base, []).append(plural)
    return plurals


def _plurals(word: str) -> Iterable[str]:
    """The forms from which morphy gets `word`: its rules the other way round."""
    yield from _irregular().get(word, ())
    for plural, singular in PLURAL_RULES:
        if word.endswith(singular):
            yield word[: len(word) - len(singular)] + plural


class CompoundTrie:
    """Compounds as paths of word ids. synset_of: the number to give a lemma's compound, 0 for none.

    Adverbs of several words ("upside down") are found, too, as NO_SYNSET: what their words mean alone is not in the caption.
    """

    def __init__(self, synset_of):
        adverbs = (words_of(adverb) for adverb in load_nouns().adverbs)
        numbers = {words: NO_SYNSET for words in adverbs if len(words) > 1 and is_adverb(words)}
        numbers |= {words: number for words, lemma in compound_forms().items() if (number := synset_of(lemma))}
        self.word_id = {"": 0}
        nodes: dict[tuple[int, int], int] = {}
        terminal = [0]
        for words, number in numbers.items():
            node = 0
            for word in words:
                key = (node, self.word_id.setdefault(word, len(self.word_id)))
                node = nodes.setdefault(key, len(nodes) + 1)
                if node == len(terminal):
                    terminal.append(0)
            terminal[node] = number
        self._terminal = np.array(terminal, dtype=np.int32)
        steps = np.array(list(nodes), dtype=np.int64)
        self._width = len(self.word_id)
        keys = steps[:, 0] * self._width + steps[:, 1]
        order = np.argsort(keys)
        self._keys, self._next = keys[order], np.array(list(nodes.values()), dtype=np.int64)[order]
        # Most pairs of words are no beginning of a compound; a small table tells so faster than a search for the pair.
        self._may_be = np.zeros(1 << _HASH_BITS, dtype=bool)
        self._may_be[_hash(keys)] = True
        self._first = np.zeros(self._width, dtype=np.int64)
        starts = steps[:, 0] == 0
        self._first[steps[starts, 1]] = np.array(list(nodes.values()))[starts]

    def longest(self, words: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Compounds in a sequence of word ids (0: no word of a compound, or a break), from left to right, none overlapping.

        words: int32 [P]. Returns their positions, lengths in words and synset numbers, int64, int64 and int32 [C].
        """
        words = np.append(words, 0)
        at = np.flatnonzero(words[:-1])
        at = at[words[at + 1] > 0]
        node = self._first[words[at]]
        at, node = at[node > 0], node[node > 0]
        best = np.zeros((len(words), 2), dtype=np.int32)  # length, synset number
        depth = 1
        while len(at):
            inside = at + depth < len(words)
            at, node = at[inside], node[inside]
            keys = node * self._width + words[at + depth]
            likely = self._may_be[_hash(keys)]
            at, keys = at[likely], keys[likely]
            found = np.minimum(np.searchsorted(self._keys, keys), len(self._keys) - 1)
            hit = (self._keys[found] == keys) & (words[at + depth] > 0)
            at, node = at[hit], self._next[found[hit]]
            depth += 1
            whole = self._terminal[node] != 0
            best[at[whole], 0] = depth
            best[at[whole], 1] = self._terminal[node[whole]]
        starts = np.flatnonzero(best[:, 0])
        starts = starts[_first_come(starts, starts + best[starts, 0])]
        return starts, best[starts, 0].astype(np.int64), best[starts, 1]


_HASH_BITS = 22


def _hash(keys: np.ndarray) -> np.ndarray:
    """Fibonacci hashing: the upper bits of a product with 2^64 over the golden ratio."""
    return (keys.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15)) >> np.uint64(64 - _HASH_BITS)


def _first_come(starts: np.ndarray, ends: np.ndarray) -> np.ndarray:
    """Which of several spans remain if each that overlaps a remaining one before it goes: bool [C]. starts are ascending."""
    kept = np.ones(len(starts), dtype=bool)
    # Only spans that overlap the one before them, or follow one that does, need to be looked at in turn.
    reach = 0
    for i in np.flatnonzero(np.append(False, starts[1:] < np.maximum.accumulate(ends)[:-1])):
        if kept[i - 1]:
            reach = ends[i - 1]
        kept[i] = starts[i] >= reach
        if kept[i]:
            reach = ends[i]
    return kept
