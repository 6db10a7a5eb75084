"""Captions in other languages, by a few lemmas in the Open Multilingual WordNet's form: the same synsets as in English."""

import functools
import pickle
import zipfile

import nltk
import pytest

from catlip_lite.artefacts import read_table
from catlip_lite.labels import CaptionLabeler, Vocabulary, load_nouns
from catlip_lite.labels.labeler import labeler_of
from catlip_lite.labels.languages import FOLDER, load_lexicon

# Lemmas by language and English lemma; the synset is the English lemma's sense in captions.
LEMMAS = {
    "deu": {
        "dog": "Hund", "beach": "Strand", "blanket": "Decke", "table": "Tisch", "tablecloth": "Tischtuch", "shoe": "Schuh",
        "leather": "Leder", "ice_cream": "Eis", "apple": "Apfel", "berlin": "Berlin",
    },
    "fra": {
        "dog": "chien", "water": "eau", "potato": "pomme_de_terre", "apple": "pomme", "earth": "terre",
        "hand": "main", "wristwatch": "montre", "city": "ville",
    },
    "spa": {"surfboard": "tabla_de_surf", "board": "tabla", "dog": "perro", "sea": "mar"},
    "jpn": {"dog": "犬", "bridge": "橋", "chopstick": "箸", "steam_locomotive": "蒸気機関車"},
    "cmn": {"dog": "狗", "panda": "熊猫", "subway": "地铁", "map": "地图"},
}  # fmt: skip
MORE = {"fra": "01068012-v\tfra:lemma\tmontrer\n", "spa": "no line of it\n"}


@functools.cache
def wnid_of(name: str) -> str:
    (wnids,) = CaptionLabeler().label([name.replace("_", " ")])
    return wnids[0]


def tab(code: str) -> str:
    lines = "".join(f"{wnid_of(name)[1:]}-n\t{code}:lemma\t{lemma}\n" for name, lemma in LEMMAS[code].items())
    return f"# A WordNet\t{code}\thttps://example.org\tCC0\n{lines}{MORE.get(code, '')}"


@pytest.fixture(autouse=True)
def own_lexicons():
    for cache in (load_lexicon, labeler_of):
        cache.cache_clear()
    yield
    for cache in (load_lexicon, labeler_of):
        cache.cache_clear()


@pytest.fixture
def omw(tmp_path, monkeypatch):
    for code in LEMMAS:
        (tmp_path / f"wn-data-{code}.tab").write_text(tab(code), encoding="utf-8")
    monkeypatch.setenv(FOLDER, str(tmp_path))
    return tmp_path


def names(language, caption, **options) -> list[str]:
    (wnids,) = CaptionLabeler(language=language, **options).label([caption])
    return [load_nouns().name(wnid) for wnid in wnids]


@pytest.mark.parametrize(
    ("language", "caption", "expected"),
    [
        ("de", "Zwei Hunde am Strand", ["dog", "beach"]),
        ("de", "zwei hunde am strand", ["dog", "beach"]),  # written without any capital
        ("de", "Ein strand ist klein geschrieben, der Hund nicht", ["dog"]),
        ("de", "NEUE LEDERSCHUHE", ["leather", "shoe"]),  # a compound by its parts
        ("de", "Tischtücher und Äpfel", ["tablecloth", "apple"]),
        ("fr", "L'eau du chien", ["water", "dog"]),
        ("fr", "des pommes de terre et une pomme", ["potato", "apple"]),
        ("fr", "il montre la main", ["hand"]),  # a verb's form, though there is such a noun
        ("es", "Tablas de surf en el mar", ["surfboard", "sea"]),
        ("ja", "橋の上の犬", ["bridge", "dog"]),
        ("ja", "雪の中を走る蒸気機関車", ["steam locomotive"]),
        ("zh", "一只大熊猫和狗", ["giant panda", "dog"]),
        ("zh", "北京地铁地图", ["metro", "map"]),
    ],
)
@pytest.mark.usefixtures("omw")
def test_a_caption_gets_the_synsets_of_its_nouns(language, caption, expected):
    assert names(language, caption) == expected


@pytest.mark.usefixtures("omw")
def test_mentions_are_words_as_they_stand_in_the_caption():
    labeler = CaptionLabeler(language="ja")
    assert [word for word, _ in labeler.mentions(["雪の中の蒸気機関車"])[0]] == ["蒸気機関車"]
    assert [word for word, _ in CaptionLabeler(language="fr").mentions(["Pommes de terre"])[0]] == ["pommes de terre"]


@pytest.mark.usefixtures("omw")
def test_names_can_be_left_out():
    assert names("de", "Hunde in Berlin") == ["dog", "Berlin"]
    assert names("de", "Hunde in Berlin", proper_nouns=False) == ["dog"]


@pytest.mark.parametrize("language", ["de", "fr", "ja", "zh"])
@pytest.mark.usefixtures("omw")
def test_the_labels_of_a_caption_do_not_hang_on_its_neighbours(language):
    captions = [
        "Zwei Hunde",
        "des pommes de terre",
        "橋の上の犬",
        "一只大熊猫",
        None,
        "",
        "ein hund",
        "A dog 😍",
        "كلب على الشاطئ",
        "🐶",
    ]
    labeler = CaptionLabeler(language=language)
    assert labeler.label(captions) == [labeler.label([caption])[0] for caption in captions]


@pytest.mark.usefixtures("omw")
def test_a_labeler_travels_and_comes_back_from_its_card():
    labeler = CaptionLabeler(language="fr")
    assert labeler.name == "compound-fr"
    for same in (pickle.loads(pickle.dumps(labeler)), CaptionLabeler.from_card(labeler.card)):
        assert (same.card, same.label(["un chien"])) == (labeler.card, labeler.label(["un chien"]))
    assert labeler.card["lemmas"].startswith("wn-data-fra.tab (")
    assert set(CaptionLabeler().card) == {"label_mode", "label_sense", "proper_nouns", "tagger"}


def test_a_vocabulary_of_another_language_loads_where_its_lemmas_are_not(omw, tmp_path, monkeypatch):
    labeler = CaptionLabeler(language="de")
    vocabulary = Vocabulary.from_counts({wnid_of("dog"): 3}, threshold=1, num_captions=4, card=labeler.card)
    path = vocabulary.save(tmp_path / "vocabulary.parquet")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.setenv(FOLDER, str(tmp_path / "elsewhere"))
    for cache in (load_lexicon, labeler_of):
        cache.cache_clear()
    loaded = Vocabulary.load(path)
    assert (loaded.card["label_language"], read_table(path)[1]["lemmas"]) == ("de", labeler.card["lemmas"])
    with pytest.raises(FileNotFoundError, match="there are no lemmas of language='de'"):
        CaptionLabeler.from_card(loaded.card)
    (tmp_path / "elsewhere" / "wn-data-deu.tab").write_text(tab("deu").replace("Schuh", "Stiefel"))
    with pytest.raises(ValueError, match=r"made from wn-data-deu.tab \(\w{16}\), here is wn-data-deu.tab"):
        CaptionLabeler.from_card(loaded.card)


def test_what_nltk_has_is_found_packed_or_not(tmp_path, monkeypatch):
    monkeypatch.delenv(FOLDER, raising=False)
    monkeypatch.setattr(nltk.data, "path", [*nltk.data.path, str(tmp_path)])
    (tmp_path / "corpora").mkdir()
    with zipfile.ZipFile(tmp_path / "corpora" / "omw-1.4.zip", "w") as archive:
        archive.writestr("omw-1.4/fra/wn-data-fra.tab", tab("fra"))
    assert names("fr", "un chien") == ["dog"]
    with zipfile.ZipFile(tmp_path / "corpora" / "extended_omw.zip", "w") as archive:
        archive.writestr("extended_omw/wikt/wn-wikt-deu.tab", tab("deu"))  # OMW's own files have no German
    assert names("de", "ein Hund") == ["dog"]
    load_lexicon.cache_clear()
    (tmp_path / "corpora" / "omw-1.4" / "fra").mkdir(parents=True)
    (tmp_path / "corpora" / "omw-1.4" / "fra" / "wn-data-fra.tab").write_text(tab("fra").replace("chien", "cabot"))
    assert names("fr", "un cabot") == ["dog"]


# --- bad input ---


def test_lemmas_of_another_wordnet_are_refused(omw):
    text = "".join(f"{int(line[:8]) + 1:08d}{line[8:]}" for line in tab("fra").splitlines(True) if line[0].isdigit())
    (omw / "wn-data-fra.tab").write_text(text)
    with pytest.raises(ValueError, match=r"wn-data-fra.tab numbers the synsets of another WordNet than 3.0 \(.* none of it\)"):
        CaptionLabeler(language="fr")


def test_a_file_of_other_lines_is_refused(omw):
    (omw / "wn-data-fra.tab").write_text("chien\tdog\nchat\tcat\n")
    with pytest.raises(ValueError, match="wn-data-fra.tab has few lines of OMW's"):
        CaptionLabeler(language="fr")


def test_an_unknown_language_names_those_there_are():
    with pytest.raises(ValueError, match="language='xx' is unknown: choose one of en, auto, de, es, fr"):
        CaptionLabeler(language="xx")


@pytest.mark.parametrize("options", [{"mode": "pos"}, {"mode": "corenet"}, {"sense": "first"}])
def test_other_modes_and_senses_are_englishs_alone(options):
    with pytest.raises(ValueError, match="language='de' is read by mode='compound' with sense='visual' alone"):
        CaptionLabeler(language="de", **options)


# --- each caption in its own language ---

SEVERAL = {
    "A dog runs on the beach": ["dog", "beach"],
    "Zwei Hunde laufen am Strand entlang": ["dog", "beach"],
    "Un chien boit de l'eau dans la ville": ["dog", "water", "city"],
    "El perro nada en el mar con su dueño": ["dog", "sea"],
    "橋の上の犬": ["bridge", "dog"],
    "地铁里的熊猫": ["metro", "giant panda"],
    "Il cane corre sulla spiaggia con il bambino": [],  # there are no lemmas of Italian
    "собака на пляже": [],
    "כלב על החוף": [],
    "": [],
    "IMG_4021 🐶": [],
}


def test_each_caption_is_read_in_its_own_language(omw):
    pytest.importorskip("eldc")
    reader = CaptionLabeler(language="auto")
    read = [[load_nouns().name(wnid) for wnid in own] for own in reader.label([*SEVERAL])]
    assert dict(zip(SEVERAL, read, strict=True)) == SEVERAL
    assert reader.label([*SEVERAL][::-1]) == reader.label([*SEVERAL])[::-1]
    assert [word for word, _ in reader.mentions([*SEVERAL])[1]] == ["Hunde", "Strand"]


def test_english_captions_among_others_are_read_as_alone(omw):
    pytest.importorskip("eldc")
    captions = ["A mouse beside a keyboard", "Ein Hund am Strand und sonst nichts", "two dogs", None]
    for sense in ("visual", "context"):
        read = CaptionLabeler(language="auto", sense=sense).label(captions)
        alone = CaptionLabeler(sense=sense).label(captions)
        assert read[0] == alone[0] and read[2:] == alone[2:] and read[1] == [wnid_of("dog"), wnid_of("beach")]


def test_auto_says_whose_lemmas_are_missing(omw, caplog):
    pytest.importorskip("eldc")
    reader = CaptionLabeler(language="auto")
    assert "captions in it, nl, pt will have no labels" in caplog.text and "nltk.downloader" in caplog.text
    assert reader.name == "compound-auto" and reader.card["lemmas"].startswith("de: wn-data-deu.tab")
    again = CaptionLabeler.from_card(reader.card)
    assert again.label([*SEVERAL]) == pickle.loads(pickle.dumps(reader)).label([*SEVERAL]) == reader.label([*SEVERAL])


def test_auto_without_any_lemmas_is_refused(tmp_path, monkeypatch):
    monkeypatch.setenv(FOLDER, str(tmp_path))
    with pytest.raises(FileNotFoundError, match=r"nltk\.downloader"):
        CaptionLabeler(language="auto")
