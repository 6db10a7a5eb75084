"""The language of each caption of a corpus that has several, so that each goes to the labeler that reads it.

Reads captions as they come, gives codes of `LANGUAGES`. By eldc, which knows 60 languages by pieces of their words (Chinese and
Japanese by characters); where little speaks for another language, as in names and part numbers, a caption is English.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import pyarrow as pa

from .languages import LANGUAGES
from .tokenising import as_text_column

# A score is about the mean of what a text's words say for a language, 0 to 1; in sentences 0.8 to 0.95. What another language
# than English must have was chosen on captions cut to their first two words: 1.4% of English ones are lost, and 8% of others;
# with a lead of 0.1, 4.6% and 7%.
LEAST_SCORE = 0.5
LEAST_LEAD = 0.2  # over English's score
LATIN_PER_LETTER = 3  # Latin letters that say what one of another script does: a character of Chinese is half a word

_LATIN = re.compile("[A-Za-zÀ-ɏḀ-ỿ]")
_OTHER_SCRIPT = re.compile(r"[^\W\d_A-Za-zÀ-ɏḀ-ỿ]")
_KANA = re.compile("[ぁ-ゖァ-ヺｦ-ﾝ]")


def detect_languages(captions: pa.Array | pa.ChunkedArray | Sequence) -> np.ndarray:
    """The language of each caption: one of `LANGUAGES`, "en", or "" for any other; array of str [N].

    Captions are all that a labeler takes, each judged alone, by its first 1,000 bytes. One without words, or with none that
    tell, is "en"; of two languages in one, that counts which says more of it.
    Raises ModuleNotFoundError with what to install.
    """
    return np.array([*map(_language_of, as_text_column(captions, literal=False).to_pylist())], dtype="U2")


def _language_of(text: str) -> str:
    detector = _detector()
    found = detector.detect(text)
    if found in ("en", "und"):
        return "en"
    others = _OTHER_SCRIPT.findall(text)
    if others and len(_LATIN.findall(text)) > LATIN_PER_LETTER * len(others):
        return _language_of(_OTHER_SCRIPT.sub(" ", text))  # "Pencil, pen, calculator, ruler — ストックベクタ"
    scores = detector.detect_details(text).scores
    if scores[found] < max(LEAST_SCORE, scores.get("en", 0) + LEAST_LEAD):
        return "en"
    if found == "zh" and _KANA.search(text):  # eldc takes kana for one character of many
        return "ja"
    return found if found in LANGUAGES else ""


@lru_cache(maxsize=1)
def _detector():
    try:
        import eldc
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError("telling languages needs eldc: run `pip install 'eldc==0.4.*'`") from error
    eldc.init()
    detector = eldc.instance()  # its settings are its own
    detector.set_scores(20)  # the most there are: English should be among them
    return detector
