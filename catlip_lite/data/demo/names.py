"""The demo's drawings under names of other languages: what pre-training on captions that are not English needs, no download.

Between the demo corpus and every reader of shards ("demo/pretrain_de", "demo/pretrain_en", "demo/pretrain_mixed"): the drawings
of demo/pretrain in their order, each captioned with its emoji's name alone (the Unicode CLDR's, which the package emoji has),
without the keywords that demo/pretrain's captions have besides; a sample's .json says its `language`. Written once for each
language, in seconds, to `<cache>/demo-names-<language>-<version>/00000.tar …`; the artwork keeps its owners' licences and never
leaves the user's cache.
"""

from __future__ import annotations

import hashlib
from dataclasses import replace
from functools import lru_cache
from itertools import chain
from pathlib import Path

import emoji

from ...cache import cache_folder
from ..shards import Sample, read_shard, write_shards
from .drawings import VERSION as VERSION_OF_DRAWINGS
from .drawings import codepoint_of, demo_folder, whole_folder

VERSION = f"1-{VERSION_OF_DRAWINGS}"  # raise the first number when the captions change; each version has its own folders
MIXED = ("de", "en", "es", "fr", "it", "ja", "pt", "zh")  # of those that `CaptionLabeler` reads, all that have names


def named_drawings(language: str) -> Path:
    """The folder of shards of demo/pretrain with names of a language, ISO 639-1, or "mixed": each drawing's of one of MIXED.

    Raises ValueError for a language without names, and what `demo_folder` raises.
    """
    if language not in (*emoji.LANGUAGES, "mixed"):
        known = ", ".join(sorted(emoji.LANGUAGES))
        raise ValueError(f"the demo's drawings have no names in {language!r}: choose one of {known}, or mixed")
    folder = cache_folder() / f"demo-names-{language}-{VERSION}"
    if not folder.is_dir():
        drawings = chain.from_iterable(map(read_shard, sorted(demo_folder("pretrain").glob("*.tar"))))
        with whole_folder(folder) as staging:
            write_shards((named(drawing, language) for drawing in drawings), staging, samples_per_shard=1000)
    return folder


def named(drawing: Sample, language: str) -> Sample:
    """A drawing with its name in a language for a caption; none if it has no name there. mixed: the drawing's uid decides."""
    if language == "mixed":
        language = MIXED[int(hashlib.sha256(drawing.facts["uid"].encode()).hexdigest(), 16) % len(MIXED)]
    facts = drawing.facts | {"language": language}
    caption = facts["name"] if language == "en" else names_in(language).get(facts["codepoint"])
    return replace(drawing, caption=caption, facts=facts)


@lru_cache(maxsize=len(emoji.LANGUAGES))
def names_in(language: str) -> dict[str, str]:
    """Names of emoji in a language other than English, by codepoint as `Motif` has it; in German, too, in small letters."""
    emoji.config.load_language(language)
    whole = emoji.STATUS["fully_qualified"]  # the others are spellings of the same emoji, some under older names
    known = {character: facts[language] for character, facts in emoji.EMOJI_DATA.items() if facts["status"] == whole}
    return {codepoint_of(character): name.strip(":").replace("_", " ") for character, name in known.items()}
