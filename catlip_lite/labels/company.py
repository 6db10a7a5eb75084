"""Which sense of a noun a caption means, told by the company it keeps: "a mouse beside a keyboard" is no animal.

What words stand with a class of things is counted twice: in WordNet's glosses, of which each is about one synset, and in 91,302
captions that nobody has tagged (`tables/company.parquet`), where a noun counts for each of its senses as far as captions mean
it (`tables/caption_senses.tsv`, and how often SemCor does). A synset's words are smoothed by its hypernyms', up to the root, as
are those of Roget's categories in Yarowsky (1992, Word-sense disambiguation using statistical models of Roget's categories
trained on large corpora), and how much likelier a word is beside a sense than anywhere is its vote for that sense. A noun's own
captions have no say in its own senses, or the sense that counts most would draw all others in.

All votes are integers in one table, made on first use (some 20 seconds) and kept in the cache folder.
"""

from __future__ import annotations

import csv
import hashlib
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np
import pandas as pd

from ..artefacts import atomic_path
from ..cache import cache_folder
from .ragged import spans
from .senses import FUNCTION_WORDS, compound_forms, is_name, lemma_of, visible_uses
from .tokenising import clean_caption
from .wordnet import load_nouns

TABLES = Path(__file__).with_name("tables")
GLOSSES_COUNT = 3  # times as much as a caption: each is about one synset
SMOOTHING = 500  # words of its hypernym that each synset's are mixed with
LEAST = 0.5  # log ratio below which a word's vote is not counted
WEIGHT = 0.6  # of a vote against the logarithm of how often captions mean a sense: votes of words are not independent
UNIT = 10  # votes are tenths
MOST_SENSES = 8  # of a noun, the likeliest
UNDECIDED = 1 << 28  # more than any WNID number
NOUNS_AT_ONCE = 1 << 15  # whose votes are counted: memory stays flat, however long captions are
NEIGHBOURS = 12  # context words that vote, on each side
CONTEXT_WORDS = 6000  # the most frequent of captions and glosses,
GLOSS_SEEN = 0.3  # of which a gloss is so much of a caption

_WORD = re.compile(r"[^\W_]+(?:'[^\W_]+)?")


@lru_cache(maxsize=1 << 19)
def context_of(word: str) -> str:
    """The lemma under which a word (lower case) counts as company; empty for function words, numbers and single letters."""
    word = word.removesuffix("'s")
    if word in FUNCTION_WORDS or len(word) < 2 or word.isdigit():
        return ""
    nouns = load_nouns()
    noun, verbs = lemma_of(word), nouns.verb_lemmas(word)
    as_verb = max((nouns.uses.get(verb, (0, 0, 0))[1] for verb in verbs), default=0)
    return noun if noun and nouns.uses.get(noun, (0, 0, 0))[0] >= as_verb else verbs[-1] if verbs else word


@lru_cache(maxsize=1)
def senses_in_captions() -> dict[str, dict[int, float]]:
    """How often captions mean each sense (numbered as WordNet does) of 480 nouns that are frequent in them, in tenths: by the
    judgement of who has read some fifteen captions of each."""
    with open(TABLES / "caption_senses.tsv", newline="", encoding="utf-8") as file:
        rows = csv.DictReader(file, delimiter="\t")
        return {r["lemma"]: {int(s): float(n) for s, n in (pair.split(":") for pair in r["senses"].split())} for r in rows}


def prior_of(lemma: str) -> np.ndarray:
    """How often captions mean each sense of a noun, whatever stands beside it: float64, one a sense, they add up to 1."""
    senses = load_nouns().senses[lemma]
    uses = np.array([visible_uses(lemma)[row] for row in senses])
    prior = uses / uses.sum()
    read = senses_in_captions().get(lemma)
    if read is None:
        return prior
    judged = np.zeros(len(senses))
    judged[np.array(list(read)) - 1] = list(read.values())
    return (prior + judged / judged.sum()) / 2


class Company:
    """The votes of context words on the senses of nouns, and the choice for all nouns of a batch of captions at once.

    proper_nouns: whether names may be chosen. A noun and a context word are numbered from 1 on, 0 is none.
    """

    def __init__(self, proper_nouns: bool = True):
        nouns, (lemmas, words) = load_nouns(), company_words()
        self.noun = {lemma: number for number, lemma in enumerate(lemmas, start=1)}
        self.word = {word: number for number, word in enumerate(words, start=1)}
        rows = [_likeliest_senses(lemma) for lemma in lemmas]
        self._sizes = np.array([0, *map(len, rows)])
        self._first = np.cumsum(self._sizes) - self._sizes  # of a noun's senses among all
        self._numbers = np.array([int(nouns.wnids[row][1:]) for own in rows for row in own], dtype=np.int32)
        self._priors = np.concatenate([_prior_votes(*noun, proper_nouns) for noun in zip(lemmas, rows, strict=True)])
        self._votes = _votes()

    def choose(self, nouns: np.ndarray, at: np.ndarray, words: np.ndarray, ends: np.ndarray) -> np.ndarray:
        """The sense of each of M nouns: WNID numbers, int32 [M].

        nouns: number of each, with UNDECIDED added, int32 [M]. at: its place among the P words of a batch, int64 [M]. words:
        number of each word as context, int32 [P]. ends: where each caption ends among these, int64 [N].
        """
        nouns, counted = nouns - UNDECIDED, words > 0
        before, context = np.append(0, np.cumsum(counted)), words[counted] - 1
        caption = np.searchsorted(ends, at, side="right")
        starts = np.maximum(before[np.append(0, ends)[caption]], before[at] - NEIGHBOURS)
        lengths = np.minimum(before[ends[caption]], before[at] + NEIGHBOURS + 1) - starts
        chosen, sizes = np.empty(len(at), dtype=np.int32), self._sizes[nouns]
        for size in np.unique(sizes).tolist():
            mine = np.flatnonzero(sizes == size)
            for part in np.array_split(mine, len(mine) // NOUNS_AT_ONCE + 1):
                first, (pairs, pair_ends) = self._first[nouns[part]], spans(starts[part], lengths[part])
                places = np.repeat(first * len(self.word), lengths[part]) + context[pairs] * size
                best = self._votes_at(places, pair_ends, size) + self._priors[first[:, None] + np.arange(size)]
                chosen[part] = self._numbers[first + best.argmax(axis=1)]
        return chosen

    def _votes_at(self, places: np.ndarray, ends: np.ndarray, size: int) -> np.ndarray:
        """Sums of votes from some places of the table on, for nouns of `size` senses: int32 [M, size]; ends: of each noun's."""
        votes = np.cumsum(self._votes[places[:, None] + np.arange(size)], axis=0, dtype=np.int32)
        return np.diff(np.concatenate([np.zeros((1, size), np.int32), votes])[np.append(0, ends)], axis=0)

    def undecided(self, lemma: str) -> int:
        """What stands for the sense of a noun that has votes, until it is chosen; 0 for another lemma."""
        number = self.noun.get(lemma, 0)
        return number and UNDECIDED + number

    def facts_of(self, word: str) -> tuple[int, int]:
        """Number of a word (lower case) as context, 0 without, and its part in `verbs_in_place`."""
        return self.word.get(context_of(word), 0), _part_of(word)


# What a word may be to the word beside it: the beginning of a thing, "to", a verb as "lands", a verb as "land".
OPENS, TO, FINITE, BARE = 1, 2, 4, 8
_OPENERS = frozenset("a an the his her their its my our your him them you me us it this that these those".split())  # noqa: SIM905


def _part_of(word: str) -> int:
    nouns = load_nouns()
    bare = word in nouns.verbs
    finite = not bare and word.endswith("s") and bool(nouns.verb_lemmas(word))
    as_noun, as_verb, _ = nouns.uses.get(word, (0, 0, 0))
    return OPENS * (word in _OPENERS) | TO * (word == "to") | FINITE * finite | BARE * (bare and as_verb > as_noun)


def verbs_in_place(parts: np.ndarray, ends: np.ndarray) -> np.ndarray:
    """Which of the words of N captions are verbs, whatever nouns they could be: "the boxer lands a punch". bool [P].

    parts: what `Company.facts_of` says of each, int32 [P]. ends: where each caption ends, int64 [N].
    """
    before, behind = np.zeros((2, len(parts)), dtype=parts.dtype)
    before[1:], behind[:-1] = parts[:-1], parts[1:]
    filled = ends[ends > 0]
    behind[filled - 1] = 0
    before[filled[filled < len(parts)]] = 0
    acts = (parts & FINITE > 0) & (behind & OPENS > 0) & (before & OPENS == 0)
    return acts | ((parts & BARE > 0) & (before & TO > 0))


def _likeliest_senses(lemma: str) -> list[int]:
    """Rows of a noun's senses, those that captions mean most often first."""
    senses = load_nouns().senses[lemma]
    return [senses[i] for i in np.argsort(-prior_of(lemma), kind="stable")[:MOST_SENSES]]


def _prior_votes(lemma: str, rows: list[int], proper_nouns: bool) -> np.ndarray:
    """What a noun's senses have before any word votes: int32, one a sense; names that do not count less than any vote."""
    prior = np.sort(prior_of(lemma))[::-1][: len(rows)]
    votes = np.round(np.log(prior) / WEIGHT * UNIT).astype(np.int32)
    named = np.array([not proper_nouns and is_name(lemma, row) for row in rows])
    return np.where(named, np.iinfo(np.int32).min // 2, votes)


# --- counts -----------------------------------------------------------------------------------------------------------------


@lru_cache(maxsize=1)
def read_company() -> tuple[pd.DataFrame, tuple[str, ...], tuple[str, ...]]:
    """`company.parquet`, with its lemmas and words as numbers, and the lemmas and words."""
    table = pd.read_parquet(TABLES / "company.parquet")
    lemmas, words = (tuple(table[name].cat.categories) for name in ("lemma", "word"))
    return table.assign(lemma=table["lemma"].cat.codes, word=table["word"].cat.codes), lemmas, words


def company_words() -> tuple[list[str], tuple[str, ...]]:
    """Nouns of several senses that have votes, and the context words that have some."""
    _, lemmas, words = read_company()
    return [lemma for lemma in lemmas if len(load_nouns().senses[lemma]) > 1], words


class _Counts:
    """How often words stand with each synset or one below it (by the first of its hypernyms, so that synsets are a tree)."""

    def __init__(self):
        nouns, (table, lemmas, words) = load_nouns(), read_company()
        self.width, self.total = len(words), lru_cache(512)(self._total)
        self.parent = np.array([above[0] if above else -1 for above in nouns.hypernyms])
        self.of_lemma = {
            lemmas[number]: (own["word"].to_numpy(), own["captions"].to_numpy(np.float64))
            for number, own in table.groupby("lemma")
        }
        self._place, self._size = self._places()
        rows, self._columns, self._counts = self._entries({word: i for i, word in enumerate(words)})
        order = np.argsort(self._place[rows], kind="stable")
        self._at, self._columns, self._counts = self._place[rows][order], self._columns[order], self._counts[order]

    def _entries(self, number: dict[str, int]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Synsets' rows, words' numbers, and how often one stands with the other: in glosses, and in captions, where a noun's
        are its senses' by their prior."""
        nouns, parts = load_nouns(), [_gloss_words(number)]
        for lemma, (column, count) in self.of_lemma.items():
            for row, share in zip(nouns.senses[lemma], prior_of(lemma), strict=True):
                parts.append((np.full(len(column), row), column, share * count))
        rows, columns, counts = map(np.concatenate, zip(*parts, strict=True))
        return rows, columns, counts

    def _places(self) -> tuple[np.ndarray, np.ndarray]:
        """Numbers for synsets by which those below one follow it; and how many these are, itself included."""
        depth, above = np.zeros(len(self.parent), dtype=int), self.parent.copy()
        while (more := above >= 0).any():
            depth[more] += 1
            above[more] = self.parent[above[more]]
        size = np.ones(len(depth), dtype=int)
        for level in range(depth.max(), 0, -1):
            np.add.at(size, self.parent[depth == level], size[depth == level])
        place, free = np.zeros(len(depth), dtype=int), {-1: 0}
        for row in np.argsort(depth, kind="stable").tolist():
            above = self.parent[row]
            place[row] = free[above]
            free[above] += size[row]
            free[row] = place[row] + 1
        return place, size

    def _total(self, row: int) -> np.ndarray:
        start, end = np.searchsorted(self._at, (self._place[row], self._place[row] + self._size[row]))
        return np.bincount(self._columns[start:end], self._counts[start:end], self.width)

    def path(self, row: int) -> Iterator[int]:
        """A synset and its hypernyms, up to the root."""
        while row >= 0:
            yield row
            row = int(self.parent[row])

    def ratios(self, lemma: str, rows: Sequence[int]) -> np.ndarray:
        """Logarithm of how much likelier each word is beside each sense of a noun than anywhere, but for the noun's own
        captions: float64 [S, V]."""
        column, count = self.of_lemma[lemma]
        own = np.bincount(column, count, self.width)
        shares = Counter()
        for row, share in zip(load_nouns().senses[lemma], prior_of(lemma), strict=True):
            shares.update(dict.fromkeys(self.path(row), share))
        return np.stack([self._ratios(row, own, shares) for row in rows])

    def _ratios(self, row: int, own: np.ndarray, shares: Counter) -> np.ndarray:
        *below, root = self.path(row)
        anywhere = likely = (self.total(root) + 1e-3) / (self.total(root) + 1e-3).sum()
        for synset in (root, *reversed(below)):
            count = np.maximum(self.total(synset) - shares[synset] * own, 0)
            likely = (count + SMOOTHING * likely) / (count.sum() + SMOOTHING)
        return np.log(likely / anywhere)


def _gloss_words(number: dict[str, int]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Synset's row, context word's number and weight, for each word of each gloss that has a number."""
    pairs = [
        (row, number[word])
        for row, gloss in enumerate(load_nouns().glosses)
        for word in dict.fromkeys(map(context_of, _WORD.findall(gloss.lower())))
        if word in number
    ]
    rows, columns = np.array(pairs).T
    return rows, columns, np.full(len(rows), float(GLOSSES_COUNT))


@lru_cache(maxsize=1)
def _votes() -> np.ndarray:
    """The votes of all context words on all nouns, int8: of each noun [V, S], one after the other."""
    sources = [
        *(Path(__file__).with_name(f"{module}.py") for module in ("company", "senses", "wordnet")),
        *map(TABLES.joinpath, ("company.parquet", "caption_senses.tsv")),
    ]
    digest = hashlib.sha256(b"".join(source.read_bytes() for source in sources)).hexdigest()[:16]
    path = cache_folder() / f"company-{digest}.npy"
    if not path.is_file():
        with atomic_path(path) as staging, open(staging, "wb") as file:
            counts, (lemmas, words) = _Counts(), company_words()
            np.save(file, np.concatenate([_votes_on(lemma, counts, words) for lemma in lemmas]))
    return np.load(path, mmap_mode="r")


def _votes_on(lemma: str, counts: _Counts, words: Sequence[str]) -> np.ndarray:
    """The votes of all words on one noun's senses: int8 [V * S]; the noun itself has none."""
    ratios = counts.ratios(lemma, _likeliest_senses(lemma))
    voting = (ratios > LEAST) & (np.array(words) != lemma)
    return np.round(np.where(voting, ratios, 0) * UNIT).clip(max=127).astype(np.int8).T.ravel()


def count_company(captions: Sequence[str], mentions: Sequence[Sequence[tuple[str, str]]]) -> pd.DataFrame:
    """In how many captions each noun stands with each of the most frequent context words: columns lemma, word, captions; in
    order of lemma and word. mentions: as `CaptionLabeler().mentions(captions)` gives them. `company.parquet` was made so."""
    pairs, seen = Counter(), Counter()
    for caption, found in zip(captions, mentions, strict=True):
        words = {context_of(word) for word in _WORD.findall(clean_caption(caption))} - {""}
        seen.update(words)
        for lemma in {lemma_named(name) for name, _ in found} - {""}:
            pairs.update((lemma, word) for word in words if word != lemma)
    for gloss in load_nouns().glosses:
        seen.update(dict.fromkeys({context_of(word) for word in _WORD.findall(gloss.lower())} - {""}, GLOSS_SEEN))
    kept = {word for word, _ in sorted(seen.items(), key=lambda item: (-item[1], item[0]))[:CONTEXT_WORDS]}
    rows = [(*pair, count) for pair, count in sorted(pairs.items()) if pair[1] in kept]
    return pd.DataFrame(rows, columns=["lemma", "word", "captions"]).astype({"lemma": "category", "word": "category"})


def lemma_named(name: str) -> str:
    """The lemma of a mention as `CaptionLabeler.mentions` writes it."""
    words = tuple(name.split())
    return compound_forms().get(words, "") if len(words) > 1 else lemma_of(name.removesuffix("'s")) or lemma_of(name)
