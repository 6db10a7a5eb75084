"""Class names → synsets: which of a name's senses is meant, told by the company it keeps, the other labels of its set.

Reads the names of a label set, gives each its WNIDs; `LabelSet` and `map_classes` ask here. "Boxers" are dogs among dogs and
drawers among shirts. All senses of a name are candidates, weighed by how often text uses and captions show them, and each
label counts for what lies above its candidates in WordNet. A sense is likelier by as much as the other labels lie below one of
its ancestors more often than nouns do. One pass; alone, a name has the sense that a caption gives it. Where a vocabulary is
given, its captions have the last word: a row learnt what they call so, whatever a person would.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from functools import cache
from math import fsum
from typing import Any, NamedTuple

from .labeler import labeler_of, name_to_wnids
from .senses import compound_forms, in_captions, lemma_of, sense_of
from .tokenising import clean_caption
from .vocabulary import Vocabulary
from .wordnet import ancestors, load_nouns

# Chosen on the known label sets, a shop's article types and CIFAR-100; twice and half as much do about as well.
UNTAGGED = 1  # uses added to each sense: the sense-tagged text lacks most of what labels name
STRANGER = 4  # times less than a name's head the company knows a modifier that is no part of it
LEAST_COMPANY = 0.02  # of the other labels: fewer count for nobody, such as twelve signs of the zodiac among 659 labels

WNID = re.compile(r"(n\d{8})(?![0-9])")
_NUMBER = re.compile(r"^\d+[._ -]+(?=\D)")  # "001.Black_footed_Albatross"
INITIAL = re.compile(r"^/[a-z]/")  # Places365 writes "/a/airplane_cabin"
_INSIDE = re.compile(r"(?<=[a-z])(?=[A-Z])")  # "SeaLake"


class Part(NamedTuple):
    """One thing that a class name may name.

    senses: synsets that it may be -> weights, their sum 1; the one that a caption means first. head: whether it is the name's
    last word or compound. sure: whether captions use it as a noun.
    """

    senses: dict[int, float]
    head: bool = True
    sure: bool = True


def meanings(
    names: Sequence[str], given: Sequence[Sequence[str] | None] | None = None, vocabulary: Vocabulary | None = None
) -> list[tuple[str, ...]]:
    """Synsets of each class name of a set, in its order: WNIDs, none for what WordNet does not know.

    given: the WNIDs of names that are known already; they are company for the others, for which it has None. A name means its
    whole ("ice_cream") or its parts ("restaurant_kitchen"), but not those before its last that the company knows far less
    ("Sports Sandals"), on both sides of "and". WNIDs, numbers before names ("001.Albatross") and what lies behind a slash
    ("stadium/baseball": a kind) are understood. vocabulary: whose captions are asked, too: a name means what it means in them
    (`name_to_wnids`) unless they mention what the company says twice as often.
    """
    known = load_nouns().row
    given = given or [None] * len(names)
    labels = [
        _parts(name) if own is None else [Part({known[wnid]: 1.0}) for wnid in own if wnid in known]
        for name, own in zip(names, given, strict=True)
    ]
    shares, found = [_shares(parts) for parts in labels], defaultdict(list)
    for share in shares:
        for synset, part in share.items():
            found[synset].append(part)
    number = {synset: fsum(parts) for synset, parts in found.items()}  # exact: the order of names does not matter
    others = max(sum(map(bool, labels)) - 1, 1)
    chosen = [
        tuple(own) if own is not None else _chosen(parts, {s: round(number[s] - share[s], 9) for s in share}, others)
        for own, parts, share in zip(given, labels, shares, strict=True)
    ]
    if vocabulary is None:
        return chosen
    return [
        said if own is not None else _in_captions_of(vocabulary, said, tuple(name_to_wnids(name)))
        for own, name, said in zip(given, names, chosen, strict=True)
    ]


def _in_captions_of(vocabulary: Vocabulary, said: tuple[str, ...], read: tuple[str, ...]) -> tuple[str, ...]:
    """What the company says a name means, or what a caption means by it, unless the vocabulary's are half as many."""

    def captions(wnids: tuple[str, ...]) -> int:
        """How many mention the rarest of some synsets."""
        return min((int(vocabulary.counts[vocabulary.index[wnid]]) if wnid in vocabulary else 0 for wnid in wnids), default=0)

    return read if 2 * captions(read) > captions(said) else said


# --- the company ------------------------------------------------------------------------------------------------------------


def _shares(parts: Sequence[Part]) -> Mapping[int, float]:
    """How much of a label lies below each synset, 0..1.

    Weights are squared, so that mostly the likeliest senses count: many animals are also their meat or fur, by their names.
    """
    shares: Any = Counter()  # of floats
    for senses, *_ in parts:
        total = sum(weight**2 for weight in senses.values())
        for row, weight in senses.items():
            for synset in ancestors(row):
                shares[synset] += weight**2 / total / len(parts)
    return shares


def _chosen(parts: Sequence[Part], company: Mapping[int, float], others: int) -> tuple[str, ...]:
    """The likeliest sense of each part, less modifiers that are strange to a company which knows the head.

    company: synset -> how many of the other labels lie below it.
    """
    found = []
    for senses, head, sure in parts:
        fits = {row: _fit(row, company, others) for row in senses}
        row = max(senses, key=lambda sense: senses[sense] * fits[sense])
        if sure or fits[row] > STRANGER:
            found.append((row, fits[row], head))
    of_head = max((fit for _, fit, head in found if head), default=0)
    kept = [row for row, fit, head in found if head or of_head <= STRANGER * fit]
    return tuple(dict.fromkeys(load_nouns().wnids[row] for row in kept))


def _fit(row: int, company: Mapping[int, float], others: int) -> float:
    """How much more often the others lie below an ancestor of a synset than nouns do, of the ancestor that says most, plus 1.

    One label less is counted: it may be there by chance.
    """
    nouns, sizes = len(load_nouns().wnids), _sizes()
    known = (synset for synset in ancestors(row) if company[synset] > LEAST_COMPANY * others)
    return 1 + max(0, 0, *((company[synset] - 1) / others * nouns / sizes[synset] for synset in known))


@cache
def _sizes() -> Counter[int]:
    """How many synsets lie below each, itself included."""
    hypernyms = load_nouns().hypernyms
    sizes = Counter(range(len(hypernyms)))
    for parents, number in Counter(hypernyms).items():
        for synset in frozenset().union(*map(ancestors, parents)):
            sizes[synset] += number
    return sizes


# --- a name's candidates ----------------------------------------------------------------------------------------------------


def _parts(name: str) -> list[Part]:
    """What a class's name may name, however a folder writes it."""
    wnid, known = WNID.match(name), load_nouns().row
    if wnid and wnid[1] in known:
        return [Part({known[wnid[1]]: 1.0})]
    bare = _NUMBER.sub("", INITIAL.sub("", name))
    return _parts_of(bare) or _parts_of(_INSIDE.sub(" ", bare))


def _parts_of(name: str) -> list[Part]:
    """The parts of a name's things, and of the kind behind a slash, which is no head."""
    things, *kinds = (clean_caption(re.sub("[-_]", " ", part)) for part in name.split("/"))
    alternatives = [things] if _lemmas(things) else re.split(" (?:and|&) ", things)
    parts = [part for thing in alternatives for part in _parts_of_thing(thing.split())]
    return parts + [part for kind in kinds for part in _named_in(kind, head=False)]


def _parts_of_thing(words: list[str]) -> list[Part]:
    """The longest of its ends that WordNet knows as head, and what is named before it; else whatever is named."""
    for at in range(len(words)):
        before, head = " ".join(words[:at]), " ".join(words[at:])
        if lemmas := _lemmas(head):
            senses = _senses(lemmas, sense_of(lemmas[0], "visual"))  # type: ignore[arg-type]  # a noun has a sense
            return [*_named_in(before, head=False), Part(senses, sure=at == 0 or bool(_named_in(head)))]
    return _named_in(" ".join(words))


def _named_in(text: str, head: bool = True) -> list[Part]:
    """What a labeler finds in a text."""
    [mentions] = labeler_of("compound", None, True, None).mentions([text])
    return [Part(_senses(_lemmas(words), load_nouns().row[wnid]), head) for words, wnid in mentions]


def _lemmas(text: str) -> list[str]:
    """Nouns that a name may be a form of, the one that a caption means first; a shop's "trunk" may be trunks, its "tshirts" are
    T-shirts."""
    words = tuple(text.replace(".", "").split())
    if len(words) != 1:
        return [compound_forms()[words]] if words in compound_forms() else []
    [word] = words
    nouns = load_nouns()
    forms = dict.fromkeys((lemma_of(word), *nouns.morphy(word), word + "s"))
    return [form for form in forms if form in nouns.senses] or _closed_up().get(word, [])


@cache
def _closed_up() -> dict[str, list[str]]:
    """Compounds without their spaces -> lemmas."""
    return {"".join(words): [lemma] for words, lemma in compound_forms().items()}


def _senses(lemmas: Sequence[str], meant: int) -> dict[int, float]:
    """All senses of some lemmas, weighed by how often text uses and captions show them; none more than what a caption means."""
    nouns, weights = load_nouns(), {meant: 0.0}
    for lemma in lemmas:
        senses = nouns.senses[lemma]
        for row, uses in zip(senses, nouns.sense_uses.get(lemma, (0,) * len(senses)), strict=True):
            weights[row] = max(weights.get(row, 0), (uses + UNTAGGED) * in_captions(row))
    weights[meant] = max(*weights.values(), UNTAGGED)
    total = sum(weights.values())
    return {row: weight / total for row, weight in weights.items()}
