"""WordNet's noun tables hold what NLTK's own reader finds in the same files."""

import random
import subprocess
import sys

import pytest

from catlip_lite.labels.wordnet import load_nouns, wordnet_folder


@pytest.fixture(scope="module")
def nltk_wordnet():
    wordnet_folder()  # puts the files where NLTK's reader looks
    from nltk.corpus import wordnet

    return wordnet


def test_wordnet_3_0_has_82115_noun_synsets():
    assert len(load_nouns().wnids) == 82_115


@pytest.mark.parametrize("wnid, name", [("n02084071", "dog"), ("n07739125", "apple"), ("n02099601", "golden retriever")])
def test_wnids_are_those_of_imagenet(wnid, name):
    assert load_nouns().name(wnid) == name


def test_morphy_is_nltks_on_3000_word_forms(nltk_wordnet):
    rng = random.Random(0)
    nouns = load_nouns()
    lemmas = rng.sample(sorted(nouns.senses), 2400)
    forms = [lemma + rng.choice(("", "s", "es", "ses", "men")) for lemma in lemmas] + rng.sample(sorted(nouns.exceptions), 600)
    ours = {form: set(nouns.morphy(form)) for form in forms}
    assert ours == {form: set(nltk_wordnet._morphy(form, "n")) for form in forms}


def test_lemmatize_is_nltks_lemmatizer_on_plurals(nltk_wordnet):
    from nltk.stem import WordNetLemmatizer

    forms = ["dogs", "boxes", "wolves", "men", "boss", "pass", "cookies", "glasses", "jeans", "geese", "xyzzys", "bus"]
    assert [load_nouns().lemmatize(f) for f in forms] == [WordNetLemmatizer().lemmatize(f) for f in forms]


def test_senses_are_in_nltks_order(nltk_wordnet):
    nouns = load_nouns()
    for lemma in random.Random(1).sample(sorted(nouns.senses), 300):
        ours = [nouns.wnids[row] for row in nouns.senses[lemma]]
        assert ours == [
            f"n{s.offset():08d}" for s in nltk_wordnet.synsets(lemma, "n") if lemma in map(str.lower, s.lemma_names())
        ]


def test_a_wnid_that_is_no_noun_says_how_to_write_one():
    with pytest.raises(KeyError, match="n02084071"):
        load_nouns().row_of("n2084071")


def test_labels_can_be_imported_and_used_without_torch():
    program = """
import sys
class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("torch", "torchvision", "timm"):
            raise ModuleNotFoundError(f"{name} is refused here", name=name)
sys.meta_path.insert(0, Refuse())
from catlip_lite.labels import CaptionLabeler, LabelSet, Vocabulary, match_labels
counts = {"n02084071": 9}
print(len(match_labels(LabelSet.load("imagenet-1k"), Vocabulary.from_counts(counts, 1), 0.25)))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout.strip() == "1000", done.stderr


def test_a_synset_is_filed_under_a_field_of_meaning():
    assert [load_nouns().field(wnid) for wnid in ("n02084071", "n07739125")] == ["animal", "food"]
