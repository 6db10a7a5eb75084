"""The demo corpus is honest: no drawing, vendor or held-out concept leaks from one split into another."""

from collections import Counter

import pytest

from catlip_lite.data.addresses import find_files
from catlip_lite.data.demo.drawings import HELD_OUT_CLASSES, PRETRAIN_VENDORS, SPLITS, demo_folder
from catlip_lite.data.shards import read_shard


@pytest.fixture(scope="module")
def splits():
    return {name: [s for file in find_files(f"demo/{name}") for s in read_shard(file.path)] for name in SPLITS}


def test_vendors_keep_to_their_splits(splits):
    vendors = {name: {s.facts["vendor"] for s in samples} for name, samples in splits.items()}
    assert vendors["pretrain"] == set(PRETRAIN_VENDORS)
    assert (vendors["labelled_train"], vendors["labelled_test"], vendors["style_test"]) == ({"Goog"}, {"Sams"}, {"OpenMoji"})
    assert vendors["held_out_train"] == {*PRETRAIN_VENDORS, "Goog"}


def test_held_out_concepts_are_in_no_other_split(splits):
    labels = {name: {s.facts["label"] for s in samples} for name, samples in splits.items()}
    held_out = labels["held_out_train"]
    assert len(held_out) == HELD_OUT_CLASSES
    assert labels["held_out_test"] == held_out
    assert not held_out & (labels["pretrain"] | labels["labelled_train"] | labels["labelled_test"] | labels["style_test"])


def test_no_picture_occurs_twice(splits):
    seen = Counter(s.image for samples in splits.values() for s in samples)
    assert [n for n in seen.values() if n > 1] == []


def test_skin_tones_and_flags_are_left_out(splits):
    codepoints = {part for samples in splits.values() for s in samples for part in s.facts["codepoint"].split("-")}
    assert not codepoints & {f"{c:X}" for c in (*range(0x1F3FB, 0x1F400), *range(0x1F1E6, 0x1F200), 0x1F3F4)}


def test_sizes(splits):
    assert 6_000 < len(splits["pretrain"]) < 7_000
    assert len({s.facts["label"] for s in splits["labelled_test"]}) >= 480


def test_captions_of_one_motif_differ_between_vendors(splits):
    captions = {}
    for sample in splits["pretrain"]:
        captions.setdefault(sample.facts["codepoint"], []).append(sample.caption)
    varied = [len(set(texts)) > 1 for texts in captions.values() if len(texts) == len(PRETRAIN_VENDORS)]
    assert sum(varied) / len(varied) > 0.95


def test_unknown_split_lists_the_known_ones():
    with pytest.raises(ValueError, match="no split 'test'.*labelled_test"):
        demo_folder("test")
