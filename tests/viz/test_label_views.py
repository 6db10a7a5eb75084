"""What notebooks 01 to 03 show: marked captions, explorers, figures whose titles are computed."""

import ipywidgets
import pytest

from catlip_lite.data.shards import Sample, write_shards
from catlip_lite.labels import CaptionLabeler, LabelSet, Vocabulary, match_labels
from catlip_lite.tasks import label_overlap as overlaps
from catlip_lite.tasks import synset_analysis as analysis
from catlip_lite.tasks import vocab_pruning as pruning
from catlip_lite.viz import label_widgets
from catlip_lite.viz import labels as figures

CORPUS = ["a dog and a cat", "dogs <3", "the dog & an automobile", "an apple"]
PNG = bytes.fromhex(  # one white pixel
    "89504e470d0a1a0a0000000d4948445200000001000000010802000000907753de0000000c49444154789c63f8ffff3f0005fe02fe0def46b80000"
    "000049454e44ae426082"
)


@pytest.fixture(scope="module")
def labels():
    return CaptionLabeler().label(CORPUS)


@pytest.fixture(scope="module")
def vocabulary(labels):
    return Vocabulary.from_counts(analysis.count_synsets(labels), 0, num_captions=4)


@pytest.fixture(scope="module")
def overlap(vocabulary):
    return overlaps.measure_overlap(LabelSet.load(["dog", "pug", "xyzzy"]), vocabulary.wnids, vocabulary.counts)


def still(explorer) -> str:
    return explorer._repr_mimebundle_()["text/html"]


def marked(caption: str) -> str:
    (mentions,) = CaptionLabeler().mentions([caption])
    return label_widgets.mark_mentions(caption, mentions, "#0072B2")


def test_a_mention_is_marked_where_it_stands():
    assert marked("carts and a cart").count("<mark") == 2
    assert marked("a concatenated cat").startswith("a concatenated <mark")


def test_a_synset_of_another_name_is_shown_beside_its_mention():
    assert "> car</small>" in marked("an automobile")


def test_captions_cannot_inject_html():
    assert "<script" not in marked("a dog &lt;script>alert(1)&lt;/script>")


def test_a_typed_caption_shows_its_synsets():
    explorer = label_widgets.caption_explorer(CaptionLabeler(), ["a dog"])
    box, out = explorer.children
    box.value = "an apple"
    assert "n07739125" in out.value


def test_headless_an_explorer_is_its_fixed_examples(monkeypatch):
    monkeypatch.delenv("JPY_SESSION_NAME", raising=False)
    html = still(label_widgets.caption_explorer(CaptionLabeler(), ["a dog", "an apple"]))
    assert "n02084071" in html and "n07739125" in html


def test_in_jupyterlab_an_explorer_is_a_widget(monkeypatch):
    monkeypatch.setenv("JPY_SESSION_NAME", "x.ipynb")
    explorer = label_widgets.caption_explorer(CaptionLabeler(), ["a dog"])
    assert "application/vnd.jupyter.widget-view+json" in explorer._repr_mimebundle_()


@pytest.fixture
def explorer(tmp_path, overlap, labels):
    write_shards([Sample("", PNG, "png", caption) for caption in CORPUS], tmp_path)
    return label_widgets.match_explorer(overlap, CORPUS, overlaps.captions_by_synset(labels), tmp_path, ["dog", "xyzzy"])


def test_a_label_shows_its_captions_with_their_images(explorer):
    assert still(explorer).count("<img") == 3


def test_a_label_without_a_match_says_so(explorer):
    assert "starts from random" in still(explorer)


def test_the_slider_changes_what_matches(explorer):
    controls, out = explorer.children
    pick, slider = controls.children
    pick.value, slider.value = "pug", 0
    assert "starts from random" in out.value
    slider.value = 1
    assert "n02084071" in out.value


def test_an_explorer_can_be_laid_out_with_other_widgets(explorer):
    assert isinstance(explorer, ipywidgets.VBox)


# --- figures ---


@pytest.fixture(scope="module")
def counts(labels):
    return analysis.synset_counts(labels)


def titles(figure) -> str:
    return " ".join(axes.get_title(loc="left") for axes in figure.axes).replace("\n", " ")


def test_figure_3a_states_the_share_of_the_top(counts):
    assert "of the 4 synsets" in titles(figures.plot_frequencies(counts, 0))


def test_figure_3b_states_what_more_captions_add():
    growth = analysis.synset_growth([["n1"], ["n1"], ["n1"], ["n1"]], 0)
    assert "adds 0% of the synsets" in titles(figures.plot_growth(growth, 0))


def test_the_sweep_states_what_the_threshold_keeps(counts, labels):
    sweep = pruning.threshold_sweep(counts, labels, [0, 1])
    assert "1 classes" in titles(figures.plot_sweep(sweep, 1))


def test_figure_2b_states_exact_coverage(overlap):
    assert "33% of the labels are classes" in titles(figures.plot_coverage(overlaps.coverage_by_similarity(overlap), 3, "pets"))


def test_figure_2c_states_the_median(overlap):
    assert "half have 3 captions or fewer" in titles(figures.plot_captions_per_label(overlaps.captions_per_label(overlap)))


def test_the_threshold_figure_states_recall_and_precision(overlap):
    figure = figures.plot_coverage_by_threshold(overlaps.coverage_by_threshold(overlap, 0), 0, "pets")
    assert "to 33.3% and exact precision from 25.0%" in titles(figure)


def test_lenders_are_named_in_the_title(vocabulary):
    missing = overlaps.missing_labels(match_labels(LabelSet.load(["pug", "dog"]), vocabulary, 0.5))
    assert "1 of the 1 missing labels would borrow from dog" in titles(figures.plot_lenders(overlaps.lenders(missing), 1))


def test_where_no_label_is_missing_the_lenders_figure_says_so(vocabulary):
    missing = overlaps.missing_labels(match_labels(LabelSet.load(["dog"]), vocabulary, 0.5))
    assert titles(figures.plot_lenders(overlaps.lenders(missing), 0)).strip() == "No label is missing"


def test_fields_are_named_in_the_title(counts):
    assert "animal gives 50% of the classes" in titles(figures.plot_fields(pruning.fields_of(counts, 0)))


def test_labelers_that_agree_most_are_named_in_the_title():
    side = analysis.compare_labelers(CORPUS, 4, analysis.labelers_to_compare(CaptionLabeler()))
    assert "agree most" in titles(figures.plot_labelers(analysis.labeler_table(side), analysis.agreement(side)))
