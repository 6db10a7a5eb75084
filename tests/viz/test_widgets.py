"""What notebooks 01 to 03 let a reader try: marked captions, explorers and their form where nobody can use them."""

import json
import re

import numpy as np
import pandas as pd
import pytest

from catlip_lite.data.shards import Sample, write_shards
from catlip_lite.labels import CaptionLabeler, LabelSet, Vocabulary, count_synsets
from catlip_lite.labels.matching import label_distances
from catlip_lite.viz import tables, widgets
from catlip_lite.viz.pictures import picture_grid
from catlip_lite.viz.tables import show_table, styled_table

CORPUS = ["a dog and a cat", "dogs <3", "the dog & an automobile", "an apple"]
PNG = bytes.fromhex(  # one white pixel
    "89504e470d0a1a0a0000000d4948445200000001000000010802000000907753de0000000c49444154789c63f8ffff3f0005fe02fe0def46b80000"
    "000049454e44ae426082"
)


def still(explorer) -> str:
    return explorer._repr_mimebundle_()["text/html"]


def marked(caption: str) -> str:
    (mentions,) = CaptionLabeler().mentions([caption])
    return widgets.marked_caption(caption, mentions)


def test_a_mention_is_marked_where_it_stands():
    assert marked("carts and a cart").count("<mark") == 2
    assert marked("a concatenated cat").startswith("a concatenated <mark")


def test_a_synset_of_another_name_is_shown_beside_its_mention():
    assert "> car</small>" in marked("an automobile")


def test_captions_cannot_inject_html():
    assert "<script" not in marked("a dog &lt;script>alert(1)&lt;/script>")


def test_a_typed_caption_shows_its_synsets():
    explorer = widgets.caption_explorer({"compound": CaptionLabeler()}, [("a dog", "compound")], recorded={})
    box, _, out = explorer.children
    box.value = "an apple"
    assert "n07739125" in out.value


def test_another_reader_reads_the_same_caption():
    readers = {"visual": CaptionLabeler(), "context": CaptionLabeler(sense="context")}
    explorer = widgets.caption_explorer(readers, [("a mouse beside a keyboard", "visual")], recorded={})
    _, picker, out = explorer.children
    assert "n02330245" in out.value and "rodent" in out.value
    picker.value = "context"
    assert "n03793489" in out.value and len(explorer.examples) == 1


def test_a_mention_is_marked_however_it_is_written():
    assert "<mark" in widgets.marked_caption("Ein Hund am Strand", [("Hund", "n02084071")])


def test_headless_an_explorer_is_its_fixed_examples(monkeypatch):
    monkeypatch.delenv("JPY_SESSION_NAME", raising=False)
    examples = [("a dog", "compound"), ("an apple", "compound")]
    html = still(widgets.caption_explorer({"compound": CaptionLabeler()}, examples, recorded={}))
    assert "n02084071" in html and "n07739125" in html


def test_headless_an_explorer_keeps_what_was_recorded_and_each_piece_once(monkeypatch):
    monkeypatch.delenv("JPY_SESSION_NAME", raising=False)
    recorded = {"compound": ["an apple", "<b>an apple</b>", "a dog </script>"]}
    html = still(widgets.caption_explorer({"compound": CaptionLabeler()}, [("DATA", "compound")], recorded=recorded))
    text = re.search(r'<script type="application/json">(.*?)</script>', html)[1]
    kept = json.loads(text)
    drawn = {caption: "".join(kept["pieces"][i] for i in by["compound"]) for caption, by in kept["views"].items()}
    assert "n07739125" in drawn["an apple"] and "n02084071" in drawn["a dog </script>"]
    assert text.count("n07739125") == 2  # in the mark and in the table's row


def test_in_jupyterlab_an_explorer_is_a_widget(monkeypatch):
    monkeypatch.setenv("JPY_SESSION_NAME", "x.ipynb")
    explorer = widgets.caption_explorer({"compound": CaptionLabeler()}, [("a dog", "compound")], recorded={})
    assert "application/vnd.jupyter.widget-view+json" in explorer._repr_mimebundle_()


@pytest.fixture
def explorer(tmp_path):
    """Of the labels dog, pug and xyzzy, over captions that mention a dog three times."""
    write_shards([Sample("", PNG, "png", caption) for caption in CORPUS], tmp_path)
    labels = CaptionLabeler().label(CORPUS)
    vocabulary = Vocabulary.from_counts(count_synsets(labels), 0)
    wanted = LabelSet.load(["dog", "pug", "xyzzy"])
    captions_of = {wnid: [i for i, own in enumerate(labels) if wnid in own] for wnid in vocabulary.wnids}
    steps = label_distances(wanted, vocabulary.wnids)
    return widgets.match_explorer(wanted, vocabulary, steps, CORPUS, captions_of, tmp_path, ["dog", "xyzzy"])


def test_a_label_shows_its_captions_with_their_images(explorer):
    assert still(explorer).count("<img") == 3


def test_a_label_without_a_match_says_so(explorer):
    assert "starts from random" in still(explorer)


def test_the_slider_changes_what_matches(explorer):
    pick, slider, out = explorer.children
    pick.value, slider.value = "pug", 0
    assert "starts from random" in out.value
    slider.value = 1
    assert "n02084071" in out.value


def test_a_caption_whose_image_cannot_be_read_stands_alone():
    assert "<img" not in widgets._figure(b"no image", "a dog") and "a dog" in widgets._figure(None, "a dog")


def test_a_table_shows_html_as_it_is_written():
    assert "<b>" not in styled_table(pd.DataFrame({"caption": ["<b>dog"]})).to_html()


def test_pictures_of_any_kind_stand_side_by_side():
    torch = pytest.importorskip("torch")
    pictures = [np.zeros((4, 6, 3), np.uint8), None, torch.ones(3, 4, 4)]
    figure, axes = picture_grid(pictures, ["a", "b", "c\nd"], columns=2, title="three")
    assert [[image.get_array().shape for image in axis.images] for axis in axes] == [[(4, 6, 3)], [], [(4, 4, 3)]]
    assert ([axis.get_title() for axis in axes], figure.get_suptitle()) == (["a", "b", "c\nd"], "three")


def test_a_table_shows_itself_wherever_in_a_cell_it_stands(monkeypatch):
    shown = []
    monkeypatch.setattr(tables, "display", shown.append)
    show_table(pd.DataFrame({"caption": ["a dog"]}))
    assert "a dog" in shown[0].to_html()
