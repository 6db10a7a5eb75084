"""corenet gives what the reference gives under NLTK 3.8.1, which it names, whatever NLTK is installed.

`reference_labels.tsv` holds labels that straight NLTK 3.8.1 (word_tokenize, WordNetLemmatizer) gave for strings of our own.
"""

import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from catlip_lite.cache import cache_folder
from catlip_lite.labels import CaptionLabeler
from catlip_lite.labels.reference import reference_label
from catlip_lite.labels.wordnet import wordnet_folder

TABLE = Path(__file__).with_name("reference_labels.tsv")


def recorded() -> dict[str, list[str]]:
    """Caption -> WNIDs."""
    rows = [line.split("\t") for line in TABLE.read_text(encoding="utf-8").rstrip("\n").split("\n")[1:]]
    return {json.loads(caption): wnids.split() for caption, wnids in rows}


def nltk_of(version: str) -> Path:
    """A folder with this NLTK alone, from the cache or the package index."""
    folder = cache_folder() / "tests" / f"nltk-{version}"
    if not folder.is_dir():
        wheels = folder.with_name(f"wheel-{version}-{os.getpid()}")
        pip = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--retries", "0", "--timeout", "5", "-d", wheels]
        if subprocess.run([*pip, f"nltk=={version}"], capture_output=True).returncode:
            pytest.skip(f"NLTK {version} is neither in {folder} nor to be had from the package index")
        with zipfile.ZipFile(next(wheels.glob("*.whl"))) as wheel:
            wheel.extractall(wheels / "unpacked")
        (wheels / "unpacked").rename(folder)
    return folder


def test_corenet_gives_the_labels_recorded_from_nltk_3_8_1():
    table = recorded()
    assert dict(zip(table, CaptionLabeler("corenet").label(list(table)), strict=True)) == table


def test_the_reference_gives_the_labels_recorded_from_nltk_3_8_1():
    assert {caption: reference_label(caption, tag=False) for caption in recorded()} == recorded()


def test_labels_are_the_same_under_nltk_3_8_1():
    code = """if True:
        import json, sys, nltk
        from catlip_lite.labels import CaptionLabeler
        from catlip_lite.labels.reference import reference_label
        captions = json.load(sys.stdin)
        labels = CaptionLabeler("corenet").label(captions), [reference_label(c, tag=False) for c in captions]
        json.dump([nltk.__version__, *labels], sys.stdout)
    """
    table = recorded()
    data = wordnet_folder().parent.parent
    path = os.pathsep.join([str(nltk_of("3.8.1")), *sys.path])
    child = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | {"PYTHONPATH": path, "NLTK_DATA": str(data)},
        input=json.dumps(list(table)), capture_output=True, text=True,
    )  # fmt: skip
    assert child.returncode == 0, child.stderr
    found, labels, reference = json.loads(child.stdout)
    assert found == "3.8.1"
    assert labels == reference == list(table.values())
