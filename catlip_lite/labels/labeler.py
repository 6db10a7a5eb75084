"""Captions → nouns → WordNet synsets (paper section 3, equation 1): everything between a caption and its labels.

Reads strings, gives WNIDs. Three modes: `corenet` (the reference code's function, for comparison and for its published
vocabulary), `pos` (the paper's equation: words that a tagger calls nouns) and `compound` (ours, the default).
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from functools import lru_cache
from urllib.parse import unquote

import ftfy
from nltk.tokenize import NLTKWordTokenizer

from .tagging import NOUN_TAGS, load_tagger
from .wordnet import LEXICOGRAPHER_FILES, load_nouns

MODES = ("corenet", "pos", "compound")

# Words that WordNet lists as nouns, too ("are" is a unit of area, "can" a tin) but that a caption almost never means so.
FUNCTION_WORDS = frozenset(
    """a about above across after again against ago all almost along already also although always am amid among an and
    another any anybody anyone anything are around as at away be became because been before behind being below beneath
    beside besides between beyond both but by can cannot could dare did do does doing done down during each either else
    enough even ever every everybody everyone everything except few first for from further get gets getting go goes going
    gone got had half has have having he hence her here hers herself him himself his how however i if in inside instead
    into is it its itself just last least less let like little lot lots made make makes making many may me might mine more
    most much must my myself near nearly neither never no nobody none nor not nothing now of off often on once one ones
    only onto or other others otherwise ought our ours ourselves out outside over own past per perhaps please put puts
    quite rather really s same say says second see seen several shall she should since so some somebody someone something
    soon still such t than that the their theirs them themselves then there these they thing things this those though
    through throughout thus till to together too toward towards under underneath until up upon us use used uses using very
    via was way we well went were what whatever when where whether which while who whole whom whose why will with within
    without would yes yet you your yours yourself yourselves
    two three four five six seven eight nine ten eleven twelve hundred thousand million billion
    right left back front next top bottom side nan null""".split()  # noqa: SIM905
)

_TAG = re.compile(r"<.*?>")
_SPACES = re.compile(" +")
_WORD = re.compile(r"[^\W_]+(?:'[^\W_]+)?")
_NEEDS_REPAIR = re.compile(r"[^ -~]|&[#a-zA-Z]")
_NEEDS_CLEANING = re.compile(r"[^ -%',-;=?-~]|[%<&]|  ")
_BREAK = re.compile(r"[.,;:!?()\[\]{}\"|/\\]")
_tokenizer = NLTKWordTokenizer()


def clean_caption(caption: object) -> str:
    """The reference's cleaning, in its order: percent-decoding, '+' to space, tags out, one space, ftfy, lower case.

    Tags go without a space in their place ("dog<br>cat" becomes "dogcat") and before entities are decoded, as there.
    """
    text = str(caption)
    if _NEEDS_CLEANING.search(text):
        text = _TAG.sub("", unquote(text).replace("+", " "))
        text = _SPACES.sub(" ", text.strip("\n"))
        if _NEEDS_REPAIR.search(text):
            text = ftfy.fix_text(text)
    return text.strip().lower()


class CaptionLabeler:
    """Maps captions to WordNet 3.0 noun synsets; deterministic, and each distinct word is looked up only once.

    mode: "compound" (default): the longest WordNet compound first ("golden retriever", "ice cream"), any lemma of a sense,
        words that captions rarely use as nouns out (`is_noun_in_captions`), first sense. "pos": words tagged as nouns
        (equation 1), lemmatised, first noun sense. "corenet": what the reference code does; it tags but never filters,
        and keeps a word only if it is the first lemma of its sense.
    tagger: for mode "pos": "perceptron", "spacy" or "nltk".

    A caption that is None or empty has no labels. corenet keeps duplicates, as the reference does; the others give each
    synset once, in order of first mention. Sentence splitting with punkt, which the reference does before it tokenises, is
    left out (its data is not to be had by pip): labels then differ only where a period ends a sentence within a caption and
    clings to its word.
    """

    def __init__(self, mode: str = "compound", *, tagger: str = "perceptron"):
        if mode not in MODES:
            raise ValueError(f"mode={mode!r} is unknown: choose one of {', '.join(MODES)}")
        self.mode = mode
        self.tagger = tagger if mode == "pos" else None
        self._tag = load_tagger(tagger) if mode == "pos" else None
        self._memo: dict[str, str | None] = {}

    @property
    def name(self) -> str:
        """Mode and options in one word, for file names, legends and provenance: 'compound', 'pos-spacy'."""
        return self.mode if self.mode != "pos" else f"pos-{self.tagger}"

    def label(self, captions: Sequence[str | None]) -> list[list[str]]:
        """WNIDs of each caption, one list a caption: `["A red apple on a table."]` -> `[["n07739125", "n08266235"]]`.

        Raises TypeError for a single string: pass a list of captions.
        """
        mentions = self.mentions(captions)
        if self.mode == "corenet":
            return [[wnid for _, wnid in found] for found in mentions]
        return [list(dict.fromkeys(wnid for _, wnid in found)) for found in mentions]

    def mentions(self, captions: Sequence[str | None]) -> list[list[tuple[str, str]]]:
        """What `label` gives, with the words each synset came from: [[("apple", "n07739125"), …], …]."""
        if isinstance(captions, (str, bytes)):
            raise TypeError(f"label() takes a list of captions, not one string: pass [{captions!r}]")
        if self.mode == "compound":
            return [_compounds("" if c is None else clean_caption(c)) for c in captions]
        # The reference turns None into the word "None", whose synset is then a label; a missing caption has none here.
        tokens = [_tokenizer.tokenize("" if c is None else clean_caption(c)) for c in captions]
        if self.mode == "corenet":
            return [self._lookup_all(words, _first_lemma_of_first_sense) for words in tokens]
        nouns = (
            [word for word, tag in zip(words, tags, strict=True) if tag in NOUN_TAGS]
            for words, tags in zip(tokens, self._tag(tokens), strict=True)
        )
        return [self._lookup_all(words, _first_sense) for words in nouns]

    def _lookup_all(self, words: list[str], lookup) -> list[tuple[str, str]]:
        memo = self._memo
        found = []
        for word in words:
            if word not in memo:
                memo[word] = lookup(word)
            if memo[word] is not None:
                found.append((word, memo[word]))
        return found


def count_synsets(labels: Iterable[Sequence[str]]) -> Counter:
    """In how many captions each synset occurs (a synset named twice in a caption counts once)."""
    counts = Counter()
    for wnids in labels:
        counts.update(set(wnids))
    return counts


def name_to_wnids(name: str) -> list[str]:
    """Synsets of a class name, most specific reading first: the whole name if WordNet has it, else its parts.

    "ice_cream" -> one synset, "restaurant_kitchen" -> two, "n02084071" -> itself, an unknown name -> none.
    """
    nouns = load_nouns()
    if re.fullmatch(r"n\d{8}", name):
        return [name] if name in nouns.row else []
    text = clean_caption(name.replace("_", " "))
    whole = _compound_key(text.replace(" ", "_").replace("-", "_"))
    if whole is not None:
        return [whole]
    return list(dict.fromkeys(wnid for _, wnid in _compounds(text.replace("-", " "))))


@lru_cache(maxsize=1 << 20)
def is_noun_in_captions(word: str) -> bool:
    """Whether a single word (lower case) counts as a noun where no tagger is asked.

    Out are function words, digits, single letters, words that sense-tagged text (SemCor's counts in WordNet) uses at least
    twice as often as adjective or adverb than as noun ("red", "young"), and verbs it never uses as noun ("take", "wear").
    """
    if word in FUNCTION_WORDS or len(word) == 1 or word.isdigit():
        return False
    noun, verb, adjective = load_nouns().uses.get(word, (0, 0, 0))
    return adjective < max(2 * noun, 1) and not (noun == 0 and verb >= 10)


# --- one word or compound to one synset ---------------------------------------------------------------------------------


def _first_sense(word: str) -> str | None:
    nouns = load_nouns()
    senses = nouns.senses.get(nouns.lemmatize(word.replace(" ", "_")))
    return nouns.wnids[senses[0]] if senses else None


def _first_lemma_of_first_sense(word: str) -> str | None:
    nouns = load_nouns()
    lemma = nouns.lemmatize(word)
    senses = nouns.senses.get(lemma)
    if not senses or nouns.lemmas[senses[0]][0].lower() != lemma:
        return None
    return nouns.wnids[senses[0]]


@lru_cache(maxsize=1)
def _compound_index() -> tuple[dict[str, str], dict[str, int]]:
    """Lemma with '-' read as '_' and periods dropped -> WNID of its first sense; first word -> most words a compound has."""
    nouns = load_nouns()
    first_sense, longest = {}, {}
    for lemma, senses in nouns.senses.items():
        key = lemma.replace("-", "_").replace(".", "")
        if key != lemma and key in nouns.senses:
            continue
        first_sense[key] = nouns.wnids[senses[0]]
        head, *rest = key.split("_")
        longest[head] = max(longest.get(head, 1), 1 + len(rest))
    return first_sense, longest


@lru_cache(maxsize=1 << 20)
def _compound_key(key: str) -> str | None:
    """WNID of a compound whose last word may be a plural."""
    first_sense, _ = _compound_index()
    nouns = load_nouns()
    if key in first_sense:
        return _singular_sense(key) or first_sense[key]
    *front, last = key.split("_")
    for form in (key, last):
        for base in nouns.morphy(form):
            whole = base if form == key else "_".join([*front, base])
            wnid = first_sense.get(whole.replace("-", "_").replace(".", ""))
            if wnid is not None:
                return wnid
    return None


def _singular_sense(plural: str) -> str | None:
    """First sense of the singular, where a plural with an entry of its own ("eyes": opinion, "men": work force) is rarer.

    Plurals that name a thing or a dish ("glasses", "scissors", "fries") keep their own.
    """
    nouns = load_nouns()
    own = nouns.senses.get(plural)
    if not own or LEXICOGRAPHER_FILES[nouns.lexicographer[own[0]]] in ("artifact", "food"):
        return None
    uses = {form: nouns.uses.get(form, (0, 0, 0))[0] for form in nouns.morphy(plural)}
    most = max(uses, key=uses.__getitem__)
    return nouns.wnids[nouns.senses[most][0]] if most != plural and uses[most] > uses.get(plural, 0) else None


def _compounds(text: str) -> list[tuple[str, str]]:
    """Longest compounds from left to right over cleaned text; no compound reaches across punctuation."""
    _, longest = _compound_index()
    found = []
    for phrase in _BREAK.split(text):
        words = _WORD.findall(phrase)
        i = 0
        while i < len(words):
            most = min(longest.get(words[i], 1), len(words) - i)
            for size in range(most, 0, -1):
                key = "_".join(words[i : i + size])
                wnid = _compound_key(key) if size > 1 or is_noun_in_captions(key) else None
                if wnid is not None:
                    found.append((" ".join(words[i : i + size]), wnid))
                    break
            i += size
    return found
