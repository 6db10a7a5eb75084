"""Tokens are NLTK 3.8.1's, punkt's sentences included, though a column is tokenised piece by piece."""

from itertools import pairwise

import pyarrow as pa
import pytest
from nasty_captions import HAND_PICKED, random_captions

from catlip_lite.labels.reference import nltk_tokenizer
from catlip_lite.labels.tokenising import clean_column, cut, piece_tokens, sentence_splitter, tokenize

TEXTS = clean_column(pa.array([*HAND_PICKED, *random_captions(3000, seed=1)]))
CASED = clean_column(pa.array([c.title() for c in [*HAND_PICKED, *random_captions(3000, seed=2)]]), lower=False)


@pytest.mark.parametrize(
    "text, tokens",
    [
        ("a dog. a cat.", ["a", "dog", ".", "a", "cat", "."]),
        ("mr. smith of st. louis", ["mr.", "smith", "of", "st.", "louis"]),
        ("the dog's toy", ["the", "dog", "'s", "toy"]),
    ],
)
def test_sentences_end_where_punkt_says(text, tokens):
    assert tokenize(text) == tokens


def test_tokens_are_treebanks_within_each_sentence():
    for text in TEXTS.to_pylist():
        sentences = sentence_splitter().tokenize(text)
        assert tokenize(text) == [t for s in sentences for t in nltk_tokenizer().tokenize(s)]


@pytest.mark.parametrize("texts, cased", [(TEXTS, False), (CASED, True)], ids=["lower case", "title case"])
def test_tokens_of_pieces_are_those_of_the_whole_text(texts, cased):
    pieces, ids, ends = cut(texts)
    tokens = [piece_tokens(piece, cased=cased) for piece in pieces]
    start = compared = 0
    for text, end in zip(texts.to_pylist(), ends, strict=True):
        parts = [tokens[i] for i in ids[start:end]]
        start = end
        if None not in parts:  # those are tokenised whole
            compared += 1
            assert [t for part in parts for t in part] == tokenize(text), text
    assert compared > len(texts) / 2


def test_pieces_put_together_are_the_text():
    pieces, ids, ends = cut(TEXTS)
    joined = ["".join(pieces[i] for i in ids[a:b]) for a, b in pairwise([0, *ends])]
    assert joined == TEXTS.to_pylist()
