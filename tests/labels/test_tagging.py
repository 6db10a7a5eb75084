"""The batched perceptron gives the tags that NLTK's perceptron gives with the same weights."""

import importlib.metadata
import pickle
import random

import pytest
from nltk.tag.perceptron import PerceptronTagger as NltkTagger

from catlip_lite.labels.tagging import _PlainUnpickler, load_tagger, perceptron_tagger

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
    path = importlib.metadata.distribution("textblob-aptagger").locate_file("textblob_aptagger/trontagger-0.1.0.pickle")
    with open(path, "rb") as file:
        weights, tags, classes = _PlainUnpickler(file, encoding="latin-1").load()
    tagger = NltkTagger(load=False)
    # NLTK sums in floating point; the weights as whole thousandths make its sums exact, as ours are.
    tagger.model.weights = {f: {t: round(w * 1000) for t, w in by_tag.items()} for f, by_tag in weights.items()}
    tagger.tagdict, tagger.classes, tagger.model.classes = tags, classes, classes
    return tagger


def nltk_tags(tagger, sentence):
    return [tag for _, tag in tagger.tag(sentence)]


def test_tags_are_nltks_on_captions(nltk_tagger):
    sentences = [s.split() for s in SENTENCES]
    assert perceptron_tagger()(sentences) == [nltk_tags(nltk_tagger, s) for s in sentences]


def test_tags_are_nltks_on_shuffled_words(nltk_tagger):
    rng = random.Random(0)
    words = sorted({w for s in SENTENCES for w in s.split()} | {"saw", "light", "can", "fish", "round", "pink", "oranges"})
    sentences = [rng.choices(words, k=rng.randint(1, 15)) for _ in range(300)]
    assert perceptron_tagger()(sentences) == [nltk_tags(nltk_tagger, s) for s in sentences]


def test_tags_of_a_caption_do_not_depend_on_its_batch():
    tag = perceptron_tagger()
    sentences = [s.split() for s in SENTENCES]
    assert tag(sentences) == [tag([s])[0] for s in sentences]


def test_a_weights_file_cannot_run_code():
    import io

    with pytest.raises(pickle.UnpicklingError, match="only plain containers"):
        _PlainUnpickler(io.BytesIO(pickle.dumps(print))).load()


def test_an_unknown_tagger_is_answered_with_the_known_ones():
    with pytest.raises(ValueError, match="perceptron, spacy, nltk"):
        load_tagger("stanford")
