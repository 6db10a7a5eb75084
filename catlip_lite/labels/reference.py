"""The reference code's label function, straight with NLTK, a caption at a time: what `mode="corenet"` is held against.

Reads one caption, gives WNIDs. Slow by design: nothing here is shared with the labeler but WordNet's files, punkt's model and
the tagger's weights, so that tests and chapter 08 compare two implementations, not one with itself.
The reference names NLTK 3.8.1; what later ones do otherwise is undone here.
"""

from __future__ import annotations

import re
from functools import lru_cache
from urllib.parse import unquote

import ftfy
from nltk.corpus import wordnet
from nltk.tag.perceptron import PerceptronTagger
from nltk.tokenize import NLTKWordTokenizer

from .tagging import perceptron_weights
from .tokenising import sentence_splitter
from .wordnet import wordnet_folder


def reference_label(caption: object, *, tag: bool = True) -> list[str]:
    """WNIDs of a caption by the steps of the reference (its key for n02084071 is n2084071), duplicates and all.

    tag: also tag parts of speech and leave the tags unused, as the reference does; it costs most of the time.
    """
    wordnet_folder()  # puts WordNet where NLTK finds it
    text = unquote(str(caption)).replace("+", " ")
    text = re.sub(r"<.*?>", "", text).strip("\n")
    text = ftfy.fix_text(re.sub(r" +", " ", text)).strip().lower()
    tokens = [t for sentence in sentence_splitter().tokenize(text) for t in nltk_tokenizer().tokenize(sentence)]
    if tag:
        nltk_tagger().tag(tokens)
    wnids = []
    for token in tokens:
        lemma = nltk_lemma(token)
        try:
            synset = wordnet.synset(f"{lemma}.n.01")
        except Exception:  # as there: whatever goes wrong with a word, the word is left out
            continue
        if synset.name() == f"{lemma}.n.01":
            wnids.append(f"n{synset.offset():08d}")
    return wnids


def nltk_tokenizer() -> NLTKWordTokenizer:
    """NLTK 3.8.1's: without what NLTK 3.9 and 3.10 added, and with the rule for a quote before a word that 3.10 changed."""
    tokenizer = NLTKWordTokenizer()
    quote = (re.compile(r"(?i)(')(?!re|ve|ll|m|t|s|d|n)(\w)\b"), r"\1 \2")
    tokenizer.STARTING_QUOTES = [*tokenizer.STARTING_QUOTES[:-1], quote]
    tokenizer.ENDING_QUOTES = [rule for rule in tokenizer.ENDING_QUOTES if rule[0].pattern != r"\s+"]
    tokenizer.PUNCTUATION = [rule for rule in tokenizer.PUNCTUATION if "u2012" not in rule[0].pattern]
    return tokenizer


def nltk_lemma(word: str) -> str:
    """What WordNetLemmatizer of NLTK 3.8.1 gives: the rules are applied until they give a noun, in later ones once."""
    lemmas, forms = wordnet._morphy(word, "n"), [word]
    while forms and not lemmas and word not in wordnet._exception_map["n"]:
        rules = wordnet.MORPHOLOGICAL_SUBSTITUTIONS["n"]
        forms = [form.removesuffix(old) + new for form in forms for old, new in rules if form.endswith(old)]
        lemmas = [lemma for form in forms for lemma in wordnet._morphy(form, "n", False)]
    return min(lemmas, key=len, default=word)


@lru_cache(maxsize=1)
def nltk_tagger() -> PerceptronTagger:
    """NLTK's own averaged perceptron, with the weights that ours uses, as whole thousandths so that both sum exactly."""
    weights, known_tags, classes = perceptron_weights()
    tagger = PerceptronTagger(load=False)
    tagger.model.weights = {f: {t: round(w * 1000) for t, w in by_tag.items()} for f, by_tag in weights.items()}
    tagger.tagdict, tagger.classes, tagger.model.classes = known_tags, classes, classes
    return tagger
