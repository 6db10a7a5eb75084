"""The demo's drawings under names of other languages: the same drawings, one name each, whose language is known."""

from collections import Counter

import pytest

from catlip_lite.data.addresses import find_files
from catlip_lite.data.demo.names import MIXED
from catlip_lite.data.shards import read_shard


@pytest.fixture(scope="module")
def corpora():
    names = ("pretrain", "pretrain_en", "pretrain_de", "pretrain_ja", "pretrain_mixed")
    return {name: [s for file in find_files(f"demo/{name}") for s in read_shard(file.path)] for name in names}


@pytest.mark.parametrize(
    ("language", "codepoint", "name"),
    [
        ("de", "1F3BA", "trompete"),
        ("de", "1FA94", "öllampe"),
        ("ja", "270F", "鉛筆"),
        ("en", "1F604", "grinning face with smiling eyes"),
    ],
)
def test_a_drawing_is_captioned_with_its_name_alone(corpora, language, codepoint, name):
    captions = {s.caption for s in corpora[f"pretrain_{language}"] if s.facts["codepoint"] == codepoint}
    assert captions == {name}


def test_the_drawings_are_those_of_the_english_corpus_in_its_order(corpora):
    keys = {name: [(s.key, s.image, s.facts["label"]) for s in samples] for name, samples in corpora.items()}
    assert all(found == keys["pretrain"] for found in keys.values())


def test_every_drawing_has_a_name(corpora):
    assert not [s.key for samples in corpora.values() for s in samples if not s.caption]


def test_the_mixed_corpus_names_an_equal_share_in_each_language_and_says_which(corpora):
    mixed = corpora["pretrain_mixed"]
    shares = Counter(s.facts["language"] for s in mixed)
    assert set(shares) == set(MIXED)
    assert all(0.9 < len(MIXED) * n / len(mixed) < 1.1 for n in shares.values())
    german = [s.caption for s in corpora["pretrain_de"]]
    assert all(s.caption == name for s, name in zip(mixed, german, strict=True) if s.facts["language"] == "de")


def test_the_languages_that_have_names_are_told():
    with pytest.raises(ValueError, match="no names in 'nl': choose one of ar, de, en,"):
        find_files("demo/pretrain_nl")
