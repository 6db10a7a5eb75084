"""The batched perceptron gives the tags that NLTK's perceptron gives with the same weights."""

import pickle
import random

import numpy as np
import pytest

from catlip_lite.labels.reference import nltk_tagger as reference_tagger
from catlip_lite.labels.tagging import PlainUnpickler, has_tag, load_tagger

SENTENCES = [
    "a red apple on the table .",
    "two dogs play with a ball in the park",
    "man riding a wave on top of a surfboard",
    "Eiffel Tower at night , Paris , 2019",
    "the well-known 35mm camera lens is n't for sale",
    "running shoes for women 's feet",
    "",
    "x",
]


@pytest.fixture(scope="module")
def nltk_tagger():
    return reference_tagger()


def nltk_tags(tagger, sentence):
    return [tag for _, tag in tagger.tag(sentence)]


def test_tags_are_nltks_on_captions(nltk_tagger):
    sentences = [s.split() for s in SENTENCES]
    assert load_tagger("perceptron")(sentences) == [nltk_tags(nltk_tagger, s) for s in sentences]


def test_tags_are_nltks_on_shuffled_words(nltk_tagger):
    rng = random.Random(0)
    words = sorted({w for s in SENTENCES for w in s.split()} | {"saw", "light", "can", "fish", "round", "pink", "oranges"})
    sentences = [rng.choices(words, k=rng.randint(1, 15)) for _ in range(300)]
    assert load_tagger("perceptron")(sentences) == [nltk_tags(nltk_tagger, s) for s in sentences]


def test_tags_of_a_caption_do_not_depend_on_its_batch():
    tag = load_tagger("perceptron")
    sentences = [s.split() for s in SENTENCES]
    assert tag(sentences) == [tag([s])[0] for s in sentences]


def test_a_weights_file_cannot_run_code():
    import io

    with pytest.raises(pickle.UnpicklingError, match="only plain containers"):
        PlainUnpickler(io.BytesIO(pickle.dumps(print))).load()


def test_a_wanted_tag_is_the_same_when_others_are_not_asked_for():
    rng = np.random.default_rng(0)
    words = sorted({w for s in SENTENCES for w in s.split()} | {"saw", "light", "can", "fish", "round", "pink", "oranges"})
    ids = rng.integers(0, len(words), 2000).astype(np.int32)
    ends = np.sort(rng.choice(np.arange(1, 2000), 300, replace=False))
    ends[-1] = 2000
    wanted = rng.random(2000) < 0.2
    tag = load_tagger("perceptron").tag
    assert (tag(words, ids, ends, wanted)[wanted] == tag(words, ids, ends)[wanted]).all()


def test_other_taggers_are_asked_for_sentences_with_a_wanted_word_alone():
    asked = []

    def tagger(sentences):
        asked.extend(sentences)
        return [["NN"] * len(s) for s in sentences]

    ids, ends = np.array([0, 1, 0, 1], dtype=np.int32), np.array([1, 2, 4])
    mask = has_tag(tagger, ["dog", "runs"], ids, ends, frozenset({"NN"}), np.array([False, True, True, False]))
    assert (asked, mask.tolist()) == ([["runs"], ["dog", "runs"]], [False, True, True, False])


def test_an_unknown_tagger_is_answered_with_the_known_ones():
    with pytest.raises(ValueError, match="perceptron, spacy"):
        load_tagger("stanford")
