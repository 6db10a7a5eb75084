"""Words → synsets: which single words count as nouns where no tagger is asked, which of a noun's senses is meant, and
WordNet's compounds ("golden retriever", "ice cream").

Reads words or lemmas, gives WordNet rows (ints) or None; the labeler asks once for each distinct word. For compounds, a trie
over their surface forms is held in sorted arrays, so that a whole batch of captions walks it at once.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache

import numpy as np

from .wordnet import PLURAL_RULES, load_nouns

SENSES = ("first", "visual", "context")
_HASH_BITS = 22  # of a hash of two words: 4 MB for each trie
NO_SYNSET = -1  # the number of a compound that is no noun

# How much more often than in the sense-tagged text that orders WordNet's senses (SemCor: novels and newspapers) a caption means
# a sense of these fields (lexicographer files). Chosen on one half of the gold captions, see notebook 01. Persons are left at
# 1: where a word for something else also means a person ("mole", "mouse"), that is mostly a figure of speech.
VISIBLE = {"animal": 4, "artifact": 3, "body": 3, "food": 4, "location": 3, "object": 3, "plant": 3, "substance": 3}
NEVER_TAGGED = 0.5  # uses of a sense that the tagged text does not contain
SINGULAR_OUTWEIGHS = 9  # times as many uses as a plural that is a thing of its own

# Senses (numbered as WordNet does) of words that are frequent in captions and that those weights read wrongly: chosen by
# reading the most frequent labels of COCO's and CC3M's validation captions and of a sample of alt texts.
SENSE_IN_CAPTIONS = {
    "award": 2, "background": 2, "case": 5, "chain": 3, "image": 3, "kite": 3, "match": 2, "monitor": 4, "party": 4, "plate": 4,
    "poster": 1, "racket": 4, "ring": 8, "screen": 3, "sign": 2, "toilet": 2, "view": 2,
}  # fmt: skip

# Words that WordNet lists as nouns, too ("are" is a unit of area, "can" a tin) but that a caption almost never means so.
FUNCTION_WORDS = frozenset(
    """a about above across after again against ago all almost along already also although always am amid among an and
    another any anybody anyone anything are around as at away be became because been before behind being below beneath
    beside besides between beyond both but by can cannot could dare did do does doing done down during each either else
    enough even ever every everybody everyone everything except few first for from further get gets getting go goes going
    gone got had half has have having he hence her here hers herself him himself his how however i if in inside instead
    into is it its itself just last least less let like little long lot lots made make makes making many may me might mine more
    most much must my myself near nearly neither never no nobody none nor not nothing now of off often on once one ones
    only onto or other others otherwise ought our ours ourselves out outside over own past per perhaps please put puts
    quite rather really s same say says second see seen several shall she should since so some somebody someone something
    soon still such t than that the their theirs them themselves then there these they thing things this those though
    through throughout thus till to together too toward towards under underneath until up upon us use used uses using very
    via was way we well went were what whatever when where whether which while who whole whom whose why will with within
    without would yes yet you your yours yourself yourselves
    due plus ways works two three four five six seven eight nine ten eleven twelve hundred thousand million billion
    right left back front middle next top bottom side nan null
    custom mini round stock vector vintage wholesale""".split()  # noqa: SIM905
)
# Compounds that begin or end so are phrases, not names: "the street" is Wall Street to WordNet, "looking at" an act.
PARTICLES = frozenset("at by down for from in into of off on out over to up with".split())  # noqa: SIM905

# Most other nouns of two letters are symbols of elements, states and units.
TWO_LETTER_NOUNS = frozenset("ad ax dj hq lp ma ox pa pc rv tv uk".split())  # noqa: SIM905


def first_lemma_of_first_sense(word: str) -> int | None:
    """The reference's rule: the lemmatised word's first sense, kept only if the lemma is the first of that synset's lemmas."""
    nouns = load_nouns()
    lemma = nouns.lemmatize(word)
    row = sense_of(lemma)
    return row if row is not None and nouns.lemmas[row][0].lower() == lemma else None


def sense_of(lemma: str, sense: str = "first", proper_nouns: bool = True) -> int | None:
    """The sense of a lemma (lower case, words joined by '_') that a caption means: WordNet's first, as in equation 1, or
    ("visual") the likeliest of those a photograph can show. None if it is no noun.

    visual weighs how often sense-tagged text uses a sense by whether one can see it: "table" is furniture, "mouse" an animal,
    "crane" a bird before it is an author. proper_nouns: False leaves out names: WordNet's instances (Paris, Stephen Crane) and
    what it writes with capitals (Christmas, but not "T-shirt" or "DVD").
    """
    nouns = load_nouns()
    senses = nouns.senses.get(lemma, ())
    if sense == "visual" and lemma in SENSE_IN_CAPTIONS:
        return senses[SENSE_IN_CAPTIONS[lemma] - 1]
    if sense == "visual" and len(senses) > 1:
        senses = sorted(senses, key=visible_uses(lemma).__getitem__, reverse=True)  # stable: of equals, WordNet's order
    return next((row for row in senses if proper_nouns or not is_name(lemma, row)), None)


def is_name(lemma: str, row: int) -> bool:
    """Whether a lemma (lower case) is a name in this sense: WordNet's instances, and what it writes with capitals."""
    nouns = load_nouns()
    written = next((form for form in nouns.lemmas[row] if form.lower() == lemma), lemma)
    capitals = all(word[:1].isupper() for word in written.replace("-", "_").split("_"))
    return bool(nouns.named[row]) or (capitals and not written.isupper())


def visible_uses(lemma: str) -> dict[int, float]:
    """How often sense-tagged text uses each sense of a lemma, times how much more often captions mean its field."""
    nouns = load_nouns()
    senses = nouns.senses[lemma]
    weights = {}
    for row, uses in zip(senses, nouns.sense_uses.get(lemma, (0,) * len(senses)), strict=True):
        weights[row] = (uses + NEVER_TAGGED) * in_captions(row)
    return weights


def in_captions(row: int) -> float:
    """How much more often captions mean a synset's field than sense-tagged text; of things with names, they mean places."""
    nouns = load_nouns()
    a_name = nouns.named[row] and nouns.fields[row] != "location"
    return VISIBLE.get(nouns.fields[row], 1) * (1 / 3 if a_name else 1)


def noun_of(word: str, sense: str, proper_nouns: bool) -> int | None:
    """The synset that a single word (lower case) of a caption names, where no tagger is asked; None if it is no noun there."""
    if word.endswith("'s") and lemma_of(word[:-2]):
        word = word[:-2]
    lemma = lemma_of(word)
    row = sense_of(lemma, sense, proper_nouns)
    return row if row is not None and _is_noun_in_captions(word, lemma, row) else None


def lemma_of(word: str) -> str:
    """The noun that a word is a form of; empty if WordNet knows none."""
    nouns = load_nouns()
    word = {"mens": "men", "womens": "women", "weeds": "weed"}.get(word, word)  # as shops write men's; not a widow's dress
    if word in nouns.senses:
        return _singular_instead(word) or word
    return _likeliest_noun(nouns.morphy(word))


def _is_noun_in_captions(word: str, lemma: str, row: int) -> bool:
    """Whether a single word (lower case) counts as a noun where no tagger is asked; lemma and row are its noun and sense.

    Out are function words, digits, single letters, quantities and units ("inch"), most words of two letters ("ct"), and words
    that sense-tagged text (SemCor's counts in WordNet) uses far more often as adjective ("red") or verb ("takes") than as noun,
    or that are made to be adjectives ("wireless").
    """
    if word in FUNCTION_WORDS or len(word) == 1 or word.isdigit() or (word == lemma and word.endswith("less")):
        return False
    nouns = load_nouns()
    field = nouns.fields[row]
    noun, _, adjective = nouns.uses.get(word, (0, 0, 0))
    if field == "quantity" or (len(word) == 2 and word not in TWO_LETTER_NOUNS):
        return False
    return adjective < max(2 * noun, 1) and not _is_rather_a_verb(word, lemma, field)


# How many uses as a verb outweigh one as a noun. Captions describe what is seen to happen in forms with an ending ("plays",
# "holding"), while a bare form is more often the noun ("a play"). Chosen like the weights above.
VERB_OUTWEIGHS_NOUN = {"bare": 10, "s": 2, "ing": 1, "other": 1}


def _is_rather_a_verb(word: str, lemma: str, field: str) -> bool:
    nouns = load_nouns()
    verbs = nouns.verb_lemmas(word)
    if not verbs:
        return False
    form = "bare" if word in nouns.verbs else next((end for end in ("s", "ing") if word.endswith(end)), "other")
    if form == "ing" and VISIBLE.get(field, 1) > 1:  # "building", "painting"
        return False
    as_verb = max(nouns.uses.get(verb, (0, 0, 0))[1] for verb in verbs)
    as_noun = nouns.uses.get(lemma, (0, 0, 0))[0]
    return as_verb >= 5 and as_verb > VERB_OUTWEIGHS_NOUN[form] * as_noun


def _is_name_of_a_thing(words: tuple[str, ...]) -> bool:
    """Whether a compound of WordNet names something in a caption: not "so long", "the street" or "looking at"."""
    a_phrase = FUNCTION_WORDS.issuperset(words) or words[0] in ("a", "an", "the")
    return not (a_phrase or (words[0].endswith("ing") and words[-1] in PARTICLES))


def _singular_instead(plural: str) -> str | None:
    """The singular, where a plural with an entry of its own ("eyes": opinion, "men": work force) is the rarer word.

    Plurals that name a thing or a dish ("glasses", "scissors", "fries") keep their own, unless it is far rarer ("rooms": a
    flat) or the singular is a part of a body ("arms": weapons).
    """
    nouns = load_nouns()
    own = nouns.senses.get(plural)
    if not own or not (plural.endswith(("s", "men")) or plural in nouns.exceptions):
        return None
    uses = {form: nouns.uses.get(form, (0, 0, 0))[0] for form in nouns.morphy(plural)}
    most = max(uses, key=uses.__getitem__)
    if uses[most] <= uses[plural]:
        return None
    if nouns.fields[own[0]] not in ("artifact", "food"):
        return most
    other_thing = own[0] not in nouns.senses[most]  # unlike "eggs"
    of_a_body = nouns.fields[sense_of(most, "visual")] in ("animal", "body")  # type: ignore[index]  # a form that has senses
    far_rarer = uses[most] > SINGULAR_OUTWEIGHS * (uses[plural] + 1)
    return most if other_thing and (of_a_body or far_rarer) else None


def _likeliest_noun(lemmas: Sequence[str]) -> str:
    """The lemma that a form of several most likely is, their senses weighed as in `sense_of`: "soles" are of sole, not of sol,
    a colloid; "lenses" of lens, not of lense. The first of equals, empty if there are no lemmas."""

    def weight(lemma: str) -> float:
        return sum(uses for row, uses in visible_uses(lemma).items() if not is_name(lemma, row))

    return max(lemmas, key=weight, default="")


def number_of(row: int | None) -> int:
    """A synset's WNID number; 0, which no synset has, for none."""
    return 0 if row is None else int(load_nouns().wnids[row][1:])


# --- compounds ----------------------------------------------------------------------------------------------------------


@lru_cache(maxsize=4)
def compound_trie(sense: str, proper_nouns: bool, undecided: Callable[[str], int] | None = None) -> CompoundTrie:
    """All compounds that name things, with their synsets; or with what undecided gives for a lemma, if that is not 0."""

    def number(lemma: str) -> int:
        noun = _singular_instead(lemma) or lemma
        found = number_of(sense_of(noun, sense, proper_nouns)) if _is_name_of_a_thing(words_of(lemma)) else 0
        return (found and undecided and undecided(noun)) or found

    return CompoundTrie(compound_numbers(number))


def compound_numbers(number: Callable[[str], int]) -> dict[tuple[str, ...], int]:
    """Words of each compound -> the number of its lemma, of those that have one; and of adverbs -> NO_SYNSET."""
    numbers = {
        words: NO_SYNSET
        for words in map(words_of, load_nouns().adverbs)
        # Left out are those of which captions mostly mean the words: "in the air" and "her head on his shoulder".
        if len(words) > 1 and all(words) and words[0] not in FUNCTION_WORDS and words[-1] != "on"
    }
    return numbers | {words: n for words, lemma in compound_forms().items() if all(words) and (n := number(lemma))}


@lru_cache(maxsize=1)
def compound_forms() -> dict[tuple[str, ...], str]:
    """Words of each compound as a caption may write it -> its lemma; the last word may be a plural.

    Hyphens count as spaces and periods not at all: "t-shirt", "t shirt"; "st. bernard", "st bernard".
    """
    nouns = load_nouns()
    lemmas = {}
    for lemma in nouns.senses:
        words = words_of(lemma)
        if len(words) > 1 and (words not in lemmas or lemma.count("_") + 1 == len(words)):
            lemmas[words] = lemma
    irregular = defaultdict(list)
    for plural, bases in nouns.exceptions.items():
        for base in bases:
            irregular[base].append(plural)
    forms = dict(lemmas)
    for (*before, last), lemma in lemmas.items():
        # The forms from which morphy gets the last word: its rules the other way round.
        regular = [last.removesuffix(singular) + plural for plural, singular in PLURAL_RULES if last.endswith(singular)]
        for plural in (*irregular.get(last, ()), *regular):
            forms.setdefault((*before, plural), lemma)
    for plural, bases in nouns.exceptions.items():
        words = words_of(plural)
        base = next((b for b in bases if b in nouns.senses), None)
        if len(words) > 1 and base is not None:
            forms.setdefault(words, base)
    return forms


def words_of(lemma: str) -> tuple[str, ...]:
    """A lemma's words: 'st._bernard' -> ('st', 'bernard')."""
    return tuple(lemma.replace(".", "").replace("-", "_").strip("_").split("_"))


class CompoundTrie:
    """Compounds, each a tuple of two words or more, as paths of word ids; with each its synset's number, or NO_SYNSET: adverbs
    of several words ("upside down") are found, too, as what their words mean alone is not in the caption."""

    def __init__(self, numbers: Mapping[tuple[str, ...], int]):
        self.word_id = {"": 0}
        nodes: dict[tuple[int, int], int] = {}  # (node, word id) -> the node behind it, numbered from 1 on as they come
        last = {}
        for words, number in numbers.items():
            node = 0
            for word in words:
                node = nodes.setdefault((node, self.word_id.setdefault(word, len(self.word_id))), len(nodes) + 1)
            last[node] = number
        self._terminal = np.zeros(len(nodes) + 1, dtype=np.int32)
        self._terminal[list(last)] = list(last.values())
        at, word = np.array(list(nodes), dtype=np.int64).reshape(-1, 2).T
        self._width = len(self.word_id)
        keys = at * self._width + word
        order = np.argsort(keys)
        self._keys, self._next = keys[order], order + 1
        # Most pairs of words are no beginning of a compound; a small table tells so faster than a search for the pair.
        self._may_be = np.zeros(1 << _HASH_BITS, dtype=bool)
        self._may_be[_hash(keys)] = True
        self._first = np.zeros(self._width, dtype=np.int64)
        self._first[word[at == 0]] = np.flatnonzero(at == 0) + 1

    def longest(self, words: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Compounds in a sequence of word ids (0: no word of a compound, or a break), from left to right, none overlapping.

        words: int32 [P]. Returns their positions, lengths in words and synset numbers, int64, int64 and int32 [C].
        """
        words = np.append(words, 0)
        at = np.flatnonzero(words[:-1])
        at = at[words[at + 1] > 0]
        node = self._first[words[at]]
        at, node = at[node > 0], node[node > 0]
        length, number = np.zeros((2, len(words)), dtype=np.int32)
        depth = 1
        while len(at):
            keys = node * self._width + words[at + depth]
            likely = self._may_be[_hash(keys)]
            at, keys = at[likely], keys[likely]
            found = np.minimum(np.searchsorted(self._keys, keys), len(self._keys) - 1)
            hit = self._keys[found] == keys
            at, node = at[hit], self._next[found[hit]]
            depth += 1
            whole = self._terminal[node] != 0
            length[at[whole]], number[at[whole]] = depth, self._terminal[node[whole]]
        starts = np.flatnonzero(length)
        kept, reach = [], 0  # a span goes if it overlaps one before it that stays
        for start, end in zip(starts.tolist(), (starts + length[starts]).tolist(), strict=True):
            kept.append(start >= reach)
            reach = end if start >= reach else reach
        starts = starts[np.array(kept, dtype=bool)]
        return starts, length[starts].astype(np.int64), number[starts]


def _hash(keys: np.ndarray) -> np.ndarray:
    """Fibonacci hashing: the upper bits of a product with 2^64 over the golden ratio."""
    return (keys.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15)) >> np.uint64(64 - _HASH_BITS)
