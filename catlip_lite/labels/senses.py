"""One word → one synset: which words count as nouns where no tagger is asked, and which of a noun's senses is meant.

Reads single words or lemmas, gives WordNet rows (ints) or None; the labeler asks once for each distinct word.
"""

from __future__ import annotations

from collections.abc import Sequence

from .wordnet import LEXICOGRAPHER_FILES, load_nouns

SENSES = ("first", "visual")

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
ARTICLES = frozenset(("a", "an", "the"))
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
        uses = nouns.sense_uses.get(lemma, (0,) * len(senses))
        weights = {row: (n + NEVER_TAGGED) * _visibility(row) for row, n in zip(senses, uses, strict=True)}
        senses = sorted(senses, key=weights.__getitem__, reverse=True)  # stable: WordNet's order where weights are equal
    return next((row for row in senses if proper_nouns or not _is_name(lemma, row)), None)


def _is_name(lemma: str, row: int) -> bool:
    nouns = load_nouns()
    written = next((form for form in nouns.lemmas[row] if form.lower() == lemma), lemma)
    capitals = all(word[:1].isupper() for word in written.replace("-", "_").split("_"))
    return bool(nouns.named[row]) or (capitals and not written.isupper())


def _visibility(row: int) -> float:
    nouns = load_nouns()
    field = LEXICOGRAPHER_FILES[nouns.lexicographer[row]]
    # Of things with names, captions mean places.
    return VISIBLE.get(field, 1) * (1 / 3 if nouns.named[row] and field != "location" else 1)


def is_noun_in_captions(word: str, lemma: str, row: int) -> bool:
    """Whether a single word (lower case) counts as a noun where no tagger is asked; lemma and row are its noun and sense.

    Out are function words, digits, single letters, quantities and units ("inch"), most words of two letters ("ct"), and words
    that sense-tagged text (SemCor's counts in WordNet) uses far more often as adjective ("red") or verb ("takes") than as noun,
    or that are made to be adjectives ("wireless").
    """
    if word in FUNCTION_WORDS or len(word) == 1 or word.isdigit() or (word == lemma and word.endswith("less")):
        return False
    nouns = load_nouns()
    field = LEXICOGRAPHER_FILES[nouns.lexicographer[row]]
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


def is_name_of_a_thing(words: tuple[str, ...]) -> bool:
    """Whether a compound of WordNet names something in a caption: not "so long", "the street" or "looking at"."""
    if FUNCTION_WORDS.issuperset(words) or words[0] in ARTICLES:
        return False
    return not (words[0].endswith("ing") and words[-1] in PARTICLES)


def singular_instead(plural: str) -> str | None:
    """The singular, where a plural with an entry of its own ("eyes": opinion, "men": work force) is the rarer word.

    Plurals that name a thing or a dish ("glasses", "scissors", "fries") keep their own, unless it is far rarer ("rooms": a
    flat) or the singular is a part of a body ("arms": weapons).
    """
    nouns = load_nouns()
    if not plural.endswith(("s", "men")) and plural not in nouns.exceptions:
        return None
    own = nouns.senses.get(plural)
    if not own:
        return None
    uses = {form: nouns.uses.get(form, (0, 0, 0))[0] for form in nouns.morphy(plural)}
    most = max(uses, key=uses.__getitem__)
    if uses[most] <= uses[plural]:
        return None
    if LEXICOGRAPHER_FILES[nouns.lexicographer[own[0]]] not in ("artifact", "food"):
        return most
    other_thing = own[0] not in nouns.senses[most]  # unlike "eggs"
    of_a_body = LEXICOGRAPHER_FILES[nouns.lexicographer[sense_of(most, "visual")]] in ("animal", "body")
    far_rarer = uses[most] > SINGULAR_OUTWEIGHS * (uses[plural] + 1)
    return most if other_thing and (of_a_body or far_rarer) else None


def likeliest_noun(lemmas: Sequence[str]) -> str:
    """The lemma that a form of several most likely is, their senses weighed as in `sense_of`: "soles" are of sole, not of sol,
    a colloid; "lenses" of lens, not of lense. The first of equals, empty if there are no lemmas."""
    nouns = load_nouns()

    def weight(lemma: str) -> float:
        senses = nouns.senses[lemma]
        uses = nouns.sense_uses.get(lemma, (0,) * len(senses))
        common = [(row, n + NEVER_TAGGED) for row, n in zip(senses, uses, strict=True) if not _is_name(lemma, row)]
        return sum(n * _visibility(row) for row, n in common)

    return max(lemmas, key=weight, default="")


def is_adverb(words: Sequence[str]) -> bool:
    """Whether an adverb of WordNet's with several words ("upside down", "hand in hand") names nothing in a caption: all but
    those of which captions mostly mean the words, "in the air" and "her head on his shoulder"."""
    return words[0] not in FUNCTION_WORDS and words[-1] != "on"
