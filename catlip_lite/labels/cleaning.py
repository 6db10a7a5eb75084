"""Captions as they come → clean text: the first step from a caption to its labels, the reference code's steps in its order.

Reads any values or an Arrow column, gives text. Captions that the steps would leave as they are, nine in ten on the web, are
recognised by their bytes, a whole column at a time; only the others are worked on one by one.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from urllib.parse import unquote

import ftfy
import ftfy.badness
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

_TAG = re.compile(r"<[^>\n]*>")
_SPACES = re.compile(" +")
_ENTITY = re.compile(r"&#?[0-9a-zA-Z]{1,24};")
# Text that ftfy can only change by undoing an encoding error, which it looks for where `is_bad` says so. Left out are
# controls, ligatures, full-width forms and quotes; straightened quotes are put in before it is asked.
_ORDINARY = re.compile("[ -~\xa0-¬®-ıĴ-ňŊ-ǃǍ-ǰǴ-ɏͰ-ԯ\u0600-\u06ff぀-ヿ一-鿿가-힣‐-―†-•…‰′″€№™←-⇿∀-⋿─-➿]*")
_CURLY = dict.fromkeys(map(ord, "ʼ‘’‚‛"), "'") | dict.fromkeys(map(ord, "“”„‟"), '"')

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
    if value is None or value != value:  # NaN is how pandas writes a missing caption
        return ""
    if isinstance(value, bytes):
        return value.decode("utf-8", errors="replace")
    if isinstance(value, (list, tuple, np.ndarray)):
        return " | ".join(map(_text_of, value))
    return str(value)


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
        if (
            _ORDINARY.fullmatch(straight)
            and unicodedata.is_normalized("NFC", straight)
            and not ftfy.badness.is_bad(text)
            and (straight == text or not ftfy.badness.is_bad(straight))
        ):
            return straight
    return ftfy.fix_text(text, _FTFY)


_FTFY = ftfy.TextFixerConfig(explain=False)
