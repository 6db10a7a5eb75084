"""WordNet's compounds in sequences of words: the longest, from left to right, none overlapping."""

import numpy as np
import pytest

from catlip_lite.labels import load_nouns
from catlip_lite.labels.senses import NO_SYNSET, CompoundTrie, compound_forms, compound_numbers


@pytest.fixture(scope="module")
def trie():
    nouns = load_nouns()
    return CompoundTrie(compound_numbers(lambda lemma: int(nouns.wnids[nouns.senses[lemma][0]][1:])))


def found(trie, text):
    """(words of the compound, its synset's name) for each compound of a text; "|" is a break."""
    words = text.split(" ")
    ids = np.array([trie.word_id.get(w, 0) if w != "|" else 0 for w in words], dtype=np.int32)
    nouns = load_nouns()
    return [
        (" ".join(words[at : at + length]), nouns.name(nouns.wnid_of_number[int(number)]))
        for at, length, number in zip(*trie.longest(ids), strict=True)
    ]


@pytest.mark.parametrize(
    "text, compounds",
    [
        ("a golden retriever with ice cream", [("golden retriever", "golden retriever"), ("ice cream", "ice cream")]),
        ("golden retrievers", [("golden retrievers", "golden retriever")]),
        ("men of war", [("men of war", "man-of-war")]),
        ("ice cream cone", [("ice cream cone", "ice-cream cone")]),  # the longest
        ("ice cream soda fountain", [("ice cream soda", "ice-cream soda")]),  # "soda fountain" comes too late
        ("ice | cream", []),
        ("xyzzy ice", []),
        ("ice", []),
        ("", []),
    ],
)
def test_longest_compounds_from_the_left(trie, text, compounds):
    assert found(trie, text) == compounds


def test_overlapping_compounds_give_way_in_turn(trie):
    # "ice cream" takes "cream", so "cream cheese" goes, and "cheese cutter" is free again.
    assert [words for words, _ in found(trie, "ice cream cheese cutter")] == ["ice cream", "cheese cutter"]


def test_an_adverb_of_several_words_has_no_synset(trie):
    at, length, number = trie.longest(np.array([trie.word_id[word] for word in ("ice", "cream", "upside", "down")], np.int32))
    assert (at.tolist(), length.tolist(), number[1]) == ([0, 2], [2, 2], NO_SYNSET)


def test_every_compound_of_wordnet_is_found(trie):
    forms = [words for words in compound_forms() if "" not in words]
    lengths = np.array([len(words) + 1 for words in forms])
    ids = np.array([i for words in forms for i in (*(trie.word_id[w] for w in words), 0)], dtype=np.int32)
    at, length, _ = trie.longest(ids)
    assert at.tolist() == (np.cumsum(lengths) - lengths).tolist()
    assert length.tolist() == (lengths - 1).tolist()
