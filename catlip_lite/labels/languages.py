"""Words of other languages → WordNet synsets: lemmas of the Open Multilingual WordNet (OMW, Bond & Foster 2013), so that one
vocabulary, and one head, serve them all.

Reads the tab files in which OMW is published and NLTK has it; gives the labeler what it needs of a language instead of
English's rules: a synset for each noun form, its compounds, and, where words have no spaces between them, the words.
"""

from __future__ import annotations

import hashlib
import os
import zipfile
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from .senses import NEVER_TAGGED, CompoundTrie, in_captions, sense_of
from .wordnet import load_nouns

# ISO 639-1 code -> the code of OMW's files. Japanese and Chinese write no spaces.
LANGUAGES = {
    "de": "deu", "es": "spa", "fr": "fra", "it": "ita", "ja": "jpn", "nl": "nld", "pt": "por", "zh": "cmn",
}  # fmt: skip
UNSPACED = ("ja", "zh")
FOLDER = "CATLIP_OMW"  # environment variable: a folder with wn-*.tab files, to be read instead of NLTK's
CORPORA = ("omw-1.4", "extended_omw")  # NLTK's names of OMW's own files, and of Wiktionary's, which have German
MOST_UNKNOWN = 0.02  # share of a file's nouns that WordNet 3.0 may lack: those of another version lack most
LIKELIER_IN_ENGLISH = 4  # how much more a synset weighs that an English word of it means in a caption
INFINITIVES = {  # endings
    "es": ("ar", "er", "ir"), "fr": ("er", "ir", "re"), "it": ("are", "ere", "ire"), "nl": ("en",), "pt": ("ar", "er", "ir"),
}  # fmt: skip
JOINTS = ("", "s", "n", "en", "es", "e", "er")  # between the parts of a German compound
INSTALL = "reading {} needs more packages: run `pip install 'catlip-lite[languages]'`"


@dataclass(frozen=True)
class Lexicon:
    """Words of a language. rows: noun (lower case, a space between words) -> its synsets' rows in `load_nouns`, each as often
    as a file has it. verbs: lemmas. source: the files that it was read from, and a digest of these."""

    rows: dict[str, tuple[int, ...]]
    verbs: frozenset[str]
    source: str


@lru_cache(maxsize=len(LANGUAGES))
def load_lexicon(language: str) -> Lexicon:
    """Read all files of a language: those of NLTK's `omw-1.4` and `extended_omw`, or of the folder that CATLIP_OMW names.

    Lines that are none of OMW's are left out. Raises FileNotFoundError without a file, ValueError for one that is mostly such
    lines, or that numbers the synsets of another WordNet.
    """
    row_of, rows, verbs, digest, names = load_nouns().row, defaultdict(list), set(), hashlib.sha256(), []
    for name, content in _tab_files(LANGUAGES[language]):
        names.append(name)
        digest.update(content)
        for synset, lemma in _lemmas_of(name, content.decode("utf-8", errors="replace")):
            lemma, wnid = " ".join(lemma.replace("_", " ").lower().split()), f"n{synset[:8]}"
            if synset.endswith("v"):
                verbs.add(lemma)
            elif synset.endswith("n") and wnid in row_of and lemma:
                rows[lemma].append(row_of[wnid])
    if not names:
        raise FileNotFoundError(
            f"there are no lemmas of language={language!r}: run `python -m nltk.downloader {' '.join(CORPORA)}`, or "
            f"name a folder with OMW's wn-*-{LANGUAGES[language]}.tab in the environment variable {FOLDER}"
        )
    kept = {lemma: tuple(found) for lemma, found in rows.items()}
    return Lexicon(kept, frozenset(verbs), f"{', '.join(names)} ({digest.hexdigest()[:16]})")


def _lemmas_of(name: str, text: str) -> list[tuple[str, str]]:
    """Synset ("02084071-n") and lemma of each line of a file that is one of OMW's. Raises ValueError as `load_lexicon` does."""
    lines = [line.split("\t") for line in text.splitlines() if line and not line.startswith("#")]
    good = [line for line in lines if len(line) >= 3 and line[1].endswith("lemma") and line[0][:8].isdigit()]
    told = [f"n{synset[:8]}" for synset, *_ in good if synset.endswith("n")]
    if 2 * len(good) < sum(len(line) < 3 or line[1].endswith("lemma") for line in lines) or not told:
        raise ValueError(f"{name} has few lines of OMW's (offset-pos, language:lemma, lemma), or none: download it again")
    unknown = sum(wnid not in load_nouns().row for wnid in told)
    if unknown > MOST_UNKNOWN * len(told):
        raise ValueError(
            f"{name} numbers the synsets of another WordNet than 3.0 ({unknown:,} of {len(told):,} nouns are none of it): "
            "all labels would be wrong; use OMW's files for WordNet 3.0, omw-1.4"
        )
    return [(synset, lemma) for synset, _, lemma, *_ in good]


def _tab_files(code: str) -> list[tuple[str, bytes]]:
    """Name and content of each file of a language, by name."""
    import nltk

    given, found = os.environ.get(FOLDER), {}
    for place in [given] if given else [f"{root}/corpora/{corpus}" for root in nltk.data.path for corpus in CORPORA]:
        packed = Path(f"{place}.zip")
        if packed.is_file():
            with zipfile.ZipFile(packed) as archive:
                inside = [name for name in archive.namelist() if name.endswith(f"-{code}.tab")]
                found |= {name.rsplit("/", 1)[-1]: archive.read(name) for name in inside}
        found |= {path.name: path.read_bytes() for path in Path(place).rglob(f"wn-*-{code}.tab")}
    return sorted(found.items())


class Language:
    """What a labeler asks of a language other than English. code: one of LANGUAGES. proper_nouns: whether names count.

    Raises ValueError for an unknown language, ModuleNotFoundError with what to install, and what `load_lexicon` raises.
    """

    def __init__(self, code: str, proper_nouns: bool = True):
        if code not in LANGUAGES:
            raise ValueError(f"language={code!r} is unknown: choose one of en, auto, {', '.join(LANGUAGES)}")
        self.code, lexicon = code, load_lexicon(code)
        self.source, self.cased = lexicon.source, code == "de"  # German writes nouns with capitals, and nothing else
        self.words = (_Segmented if code in UNSPACED else _Inflected)(code, lexicon)
        likeliest = {lemma: _likeliest(rows, proper_nouns) for lemma, rows in lexicon.rows.items()}
        self.numbers = {lemma: number for lemma, number in likeliest.items() if number}

    @cached_property
    def trie(self) -> CompoundTrie:
        """Compounds of several words, of which a caption may have each in another form."""
        return CompoundTrie({words: n for lemma, n in self.numbers.items() if len(words := self.words.key(lemma)) > 1})

    def prepared(self, texts: pa.Array) -> pa.Array:
        """Clean texts as they are cut at spaces: words apart, and German in capitals where it was written without any."""
        if isinstance(self.words, _Segmented):
            return pa.array([" ".join(self.words.split(text)) for text in texts.to_pylist()], pa.large_string())
        texts = pc.replace_substring(texts, "'", " ")  # "l'eau"
        if not self.cased:
            return texts
        return pc.if_else(pc.or_(pc.utf8_is_lower(texts), pc.utf8_is_upper(texts)), pc.utf8_title(texts), texts)

    def parts(self, word: str) -> tuple[str, ...]:
        """What a word is read as: itself, or the parts of a compound that is no noun of OMW."""
        return self.words.parts(word, self.numbers)

    def facts_of_word(self, word: str) -> tuple[int, int]:
        """The WNID number of the noun that a word is a form of, 0 without; its number in the trie, 0 without."""
        if not word:  # the end of a phrase
            return 0, 0
        path = self.trie.word_id
        in_compounds = path.get(word.lower(), 0) or path.get(self.words.normal(word), 0)
        lemma = self.words.noun(word, self.numbers)
        return self.numbers.get(lemma, 0), in_compounds


def _likeliest(rows: tuple[int, ...], proper_nouns: bool) -> int:
    """The WNID number of the synset that a caption most likely means of those that a lemma has; 0 if all are names and these
    do not count. OMW's lemmas come in no order: how often English means a synset stands in."""
    nouns, uses, weights = load_nouns(), _uses_of_synsets(), {}
    for row in rows:
        if proper_nouns or not nouns.named[row]:
            weights[row] = weights.get(row, 0) + uses[row] * in_captions(row)
    return int(nouns.wnids[max(weights, key=weights.__getitem__)][1:]) if weights else 0


@lru_cache(maxsize=1)
def _uses_of_synsets() -> np.ndarray:
    """How often sense-tagged English uses each synset, by the lemma that does so most: float64 [S]; more where it is what that
    lemma means in a caption."""
    nouns, uses = load_nouns(), np.full(len(load_nouns().wnids), NEVER_TAGGED)
    for lemma, rows in nouns.senses.items():
        counts = nouns.sense_uses.get(lemma, (0,) * len(rows))
        uses[list(rows)] = np.maximum(uses[list(rows)], np.array(counts) + NEVER_TAGGED)
    meant = np.unique([sense_of(lemma, "visual") for lemma in nouns.senses])
    uses[meant] *= LIKELIER_IN_ENGLISH
    return uses


# ---------------------------------------------------------------- words


class _Inflected:
    """Words with spaces between them, in many forms: lemmas by simplemma, function words by spaCy's lists."""

    def __init__(self, code: str, lexicon: Lexicon):
        try:
            import simplemma
            import spacy
        except ModuleNotFoundError as error:
            raise ModuleNotFoundError(INSTALL.format(code)) from error
        self.code, self._lemmatize = code, lru_cache(1 << 16)(lambda word: simplemma.lemmatize(word, code).lower())
        self._lexicon = lexicon
        self._function_words = frozenset(spacy.util.get_lang_class(code).Defaults.stop_words)

    def key(self, lemma: str) -> tuple[str, ...]:
        """A lemma's words, as they stand in the trie."""
        return tuple(lemma.replace("-", " ").replace("'", " ").split())

    def normal(self, word: str) -> str:
        """The form under which a word stands in a compound."""
        return self._lemmatize(word)

    def noun(self, word: str, nouns: dict[str, int]) -> str:
        """The noun that a word is a form of; empty if there is none."""
        small = word.lower()
        if len(word) < 2 or not word.isalpha() or small in self._function_words or (self.code == "de" and word[0].islower()):
            return ""
        forms = dict.fromkeys((small, self._lemmatize(word), self._lemmatize(small)))
        found = next((form for form in forms if form in nouns), "")
        return "" if found and self.code != "de" and self._is_a_verbs(forms) else found

    def _is_a_verbs(self, forms: Iterable[str]) -> bool:
        """Whether forms of a word are a verb's: one of them is its infinitive."""
        return any(form in self._lexicon.verbs and form.endswith(INFINITIVES[self.code]) for form in forms)

    def parts(self, word: str, nouns: dict[str, int]) -> tuple[str, ...]:
        """The word; of a German compound that is no noun here its two parts, the second the longest end that is a noun."""
        if self.code != "de" or len(word) < 6 or not word[:1].isupper() or self.noun(word, nouns):
            return (word,)
        small = word.lower()
        for start in range(3, len(word) - 2):
            head, before = small[start:].capitalize(), small[:start]
            part = self.noun(head, nouns) and next(filter(None, (self._part(before, joint, nouns) for joint in JOINTS)), "")
            if part:
                return part.capitalize(), head
        return (word,)

    def _part(self, before: str, joint: str, nouns: dict[str, int]) -> str:
        """The noun that stands before a joint; empty if there is none."""
        stem = before.removesuffix(joint)
        if not before.endswith(joint) or len(stem) < 3:
            return ""
        return next((form for form in (stem, stem + "e", self._lemmatize(stem)) if form in nouns), "")


class _Segmented:
    """Words without spaces: cut by jieba or MeCab (fugashi), which also say which are nouns."""

    def __init__(self, code: str, lexicon: Lexicon):
        try:
            if code == "zh":
                import jieba.posseg

                jieba.setLogLevel(60)
                jieba.initialize()
                tags = jieba.posseg.dt.word_tag_tab
                self.split, self._is_noun = jieba.lcut, lambda word: tags.get(word, "n")[0] in "nst"
            else:
                import fugashi

                tagger = fugashi.Tagger()
                self.split = lambda text: [word.surface for word in tagger(text)]
                self._is_noun = lambda word: tagger(word)[-1].feature.pos1 == "名詞"
        except ModuleNotFoundError as error:
            raise ModuleNotFoundError(INSTALL.format(code)) from error
        self.code = code

    def key(self, lemma: str) -> tuple[str, ...]:
        """A lemma's words, as they stand in the trie."""
        return tuple(word for word in self.split(lemma) if word.strip())

    def normal(self, word: str) -> str:
        """The form under which a word stands in a compound: there is only one."""
        return word

    def parts(self, word: str, nouns: dict[str, int]) -> tuple[str, ...]:
        """The word: it was cut before."""
        return (word,)

    def noun(self, word: str, nouns: dict[str, int]) -> str:
        """The word, or of a Chinese compound that is no noun of OMW its longest end that is one. Empty if there is none."""
        if not self._is_noun(word):
            return ""
        ends = (word[start:] for start in range(len(word) if self.code == "zh" else 1))
        return next((end for end in ends if end in nouns), "")
