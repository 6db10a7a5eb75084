"""Which language a caption is in: known answers, and what counts as English."""

import sys
from itertools import chain

import numpy as np
import pyarrow as pa
import pytest
from nasty_captions import HAND_PICKED, random_captions

from catlip_lite.labels.detecting import _detector, detect_languages
from catlip_lite.labels.gold import read_gold

pytest.importorskip("eldc")  # which has no wheel for Linux on ARM

IN_A_LANGUAGE = {
    "en": ["A dog on the beach", "A man", "men's leather belt, brown"],
    "de": ["Ein Hund am Strand", "ein Hund", "Schneemann mit Hut und Möhre"],
    "es": ["Un perro en la playa", "un perro", "Zapatos de mujer"],
    "fr": ["Un chien sur la plage", "le chien", "L'eau du lac"],
    "it": ["Un cane sulla spiaggia", "un cane", "Scarpe da donna in pelle"],
    "nl": ["Een hond op het strand", "een hond", "Twee jongens voetballen"],
    "pt": ["Um cão na praia", "um cão", "Pôr do sol em Ipanema"],
    "ja": ["浜辺を走る犬", "カフェ", "東京駅"],
    "zh": ["海滩上的一只狗", "一只大熊猫", "北京地铁"],
}
NO_LANGUAGE_OF_OURS = [
    "كلب على الشاطئ", "כלב על החוף", "собака на пляже", "σκύλος στην παραλία", "강아지", "หมาบนชายหาด", "समुद्र तट पर कुत्ता",
    "En hund på stranden med en boll", "Pies na plaży z piłką", "Sahilde bir köpek", "Con chó trên bãi biển",
]  # fmt: skip
TELLS_NOTHING = ["", "  ", None, float("nan"), "123", "2019-04-05", "😀🐶", "IMG_1234.jpg", "DSC00312", "BMW X5", "pizza"]


def detect(caption) -> str:
    return detect_languages([caption]).item()


@pytest.mark.parametrize(("code", "caption"), [(code, caption) for code in IN_A_LANGUAGE for caption in IN_A_LANGUAGE[code]])
def test_short_captions_are_told_with_or_without_capitals(code, caption):
    assert [detect(caption), detect(caption.upper()), detect(caption.lower())] == [code] * 3


@pytest.mark.parametrize("caption", NO_LANGUAGE_OF_OURS)
def test_other_languages_have_no_code(caption):
    assert detect(caption) == ""


@pytest.mark.parametrize("caption", TELLS_NOTHING)
def test_what_tells_no_language_is_english(caption):
    assert detect(caption) == "en"


@pytest.mark.parametrize(
    ("caption", "code"),
    [
        ("Chinese character 福 meaning luck", "en"),
        ("Education icons. Pencil, pen, calculator, ruler — ストックベクタ", "en"),
        ("Chien qui court sur la plage — ストック写真", "fr"),
        ("iPhone 12 ケース 黒", "ja"),
        ("机の上にある眼鏡と鉛筆3本", "ja"),  # more of Chinese than kana
        ("سعر و مواصفات Xiaomi Redmi Note 7", ""),
    ],
)
def test_of_several_scripts_that_counts_which_says_more(caption, code):
    assert detect(caption) == code


def test_bytes_and_lists_of_captions_are_read_as_a_labeler_reads_them():
    captions = [b"ein Hund", ["ein Hund", "am Strand"], "\ud83d ein Hund am Strand"]
    assert detect_languages(captions).tolist() == ["de"] * 3


def test_no_captions_have_no_languages():
    assert detect_languages([]).shape == detect_languages(pa.array([], pa.string())).shape == (0,)


def test_a_caption_has_the_same_language_whatever_stands_beside_it():
    captions = np.array([*HAND_PICKED, *random_captions(200), *chain(*IN_A_LANGUAGE.values()), *NO_LANGUAGE_OF_OURS])
    order = np.random.default_rng(0).permutation(len(captions))
    alone = np.array([*map(detect, captions.tolist())])
    assert detect_languages(captions[order].tolist()).tolist() == alone[order].tolist()


@pytest.mark.parametrize(("table", "least"), [("gold_languages", 0.98), ("gold_captions", 0.99)])
def test_gold_captions_are_in_their_languages(table, least):
    entries = read_gold(table)
    found = detect_languages([entry.caption for entry in entries])
    assert np.mean(found == [entry.language for entry in entries]) >= least


def test_a_missing_detector_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "eldc", None)
    _detector.cache_clear()
    with pytest.raises(ModuleNotFoundError, match="telling languages needs eldc: run `pip install"):
        detect_languages(["ein Hund"])
