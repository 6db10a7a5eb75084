"""Data sets as `datasets` saves and pushes them: labels, captions and shards by the folder's address, or by hf://."""

import pickle
import shutil
import sys
from types import SimpleNamespace

import pytest
from fsspec.implementations.memory import MemoryFileSystem

from catlip_lite.data.captions import read_captions
from catlip_lite.data.labelled import load_labelled
from catlip_lite.data.stream import ShardReader, open_shards

datasets = pytest.importorskip("datasets")
pytestmark = pytest.mark.usefixtures("own_cache")
SPLITS = {"train": range(20), "test": range(20, 24)}
CARD = """---
configs:
- config_name: default
  data_files:
  - {split: train, path: data/train-*}
  - {split: test, path: data/test-*}
---
"""


@pytest.fixture(scope="module")
def folders(tmp_path_factory, unchanged_samples):
    """The 24 samples as `datasets` keeps them: a set, a set of splits, and what is on the hub."""
    tmp_path = tmp_path_factory.mktemp("sets")
    names = ["dog", "cat", "banana", "apple"]
    features = datasets.Features(
        image=datasets.Image(), caption=datasets.Value("string"), label=datasets.ClassLabel(names=names)
    )
    columns = {
        "image": [{"bytes": sample.image, "path": None} for sample in unchanged_samples],
        "caption": [sample.caption for sample in unchanged_samples],
        "label": [sample.facts["label"] for sample in unchanged_samples],
    }
    whole = datasets.Dataset.from_dict(columns, features=features)
    splits = datasets.DatasetDict({split: whole.select(rows) for split, rows in SPLITS.items()})
    whole.save_to_disk(tmp_path / "saved")
    splits.save_to_disk(tmp_path / "saved_splits", num_shards={"train": 2, "test": 1})
    (tmp_path / "pushed" / "data").mkdir(parents=True)
    (tmp_path / "pushed" / "README.md").write_text(CARD)
    for split, rows in splits.items():
        rows.to_parquet(tmp_path / "pushed" / "data" / f"{split}-00000-of-00001.parquet", batch_size=8)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "hf"))
        yield tmp_path


ADDRESSES = {
    "saved": range(24),
    "saved_splits#split=train": SPLITS["train"],
    "saved_splits/test": SPLITS["test"],
    "pushed#split=test": SPLITS["test"],
    "pushed/data/train-*.parquet": SPLITS["train"],
    "hf://pushed#split=train": SPLITS["train"],
}


@pytest.fixture(params=ADDRESSES)
def address(request, folders):
    """An address, and the samples that it should give."""
    hub = "hf://" if request.param.startswith("hf://") else ""
    return f"{hub}{folders}/{request.param.removeprefix('hf://')}", ADDRESSES[request.param]


def test_labels_have_the_names_and_the_order_of_the_features(address, samples):
    address, rows = address
    images = load_labelled(address)
    assert images.classes == ["dog", "cat", "banana", "apple"]
    assert images.labels.tolist() == [samples[i].facts["label"] for i in rows]
    assert [images.files.read(i) for i in range(len(images))] == [samples[i].image for i in rows]


def test_captions_are_those_of_the_column(address, samples):
    address, rows = address
    assert read_captions(address) == [samples[i].caption for i in rows]


def test_samples_are_read_as_from_shards(address, samples):
    address, rows = address
    reader = ShardReader(open_shards(address))
    read = [reader.read(shard, row) for shard, count in enumerate(reader.table.counts) for row in range(count)]
    assert [(s.image, s.caption) for s in read] == [(samples[i].image, samples[i].caption) for i in rows]


ASK = {"labels": load_labelled, "captions": read_captions}


@pytest.mark.parametrize("ask", ASK.values(), ids=ASK)
@pytest.mark.parametrize("where", ["{}/saved_splits", "{}/pushed", "hf://{}/pushed"])
def test_several_splits_are_asked_which(folders, where, ask):
    with pytest.raises(ValueError, match=r"holds the splits .*t.*, t.*: give one of them, e.g. .*#split=t"):
        ask(where.format(folders))


@pytest.mark.parametrize("ask", ASK.values(), ids=ASK)
@pytest.mark.parametrize("where", ["{}/saved_splits", "{}/pushed", "hf://{}/pushed"])
def test_a_split_that_is_not_there_is_answered_with_those_there_are(folders, where, ask):
    with pytest.raises(ValueError, match=r"(?=.*train)(?=.*test).*: give one of them"):
        ask(f"{where.format(folders)}#split=validation")


def test_a_choice_that_is_none_of_split_and_config_is_refused(folders):
    with pytest.raises(ValueError, match="only split and config are chosen here"):
        read_captions(f"{folders}/pushed#fold=1")


def test_an_address_without_a_name_is_answered_with_one():
    with pytest.raises(ValueError, match="hf:// names no data set: write hf://ILSVRC"):
        load_labelled("hf://")


def test_a_folder_without_splits_has_none_to_choose(folders, tmp_path):
    shutil.copytree(folders / "saved", tmp_path / "saved")
    shutil.copy(folders / "pushed" / "data" / "test-00000-of-00001.parquet", tmp_path / "saved" / "x.parquet")
    with pytest.raises(ValueError, match="has no splits to choose from: leave out what follows #"):
        read_captions(f"{tmp_path}/saved#split=train")


class Hub(MemoryFileSystem):
    """The hub's files, as huggingface_hub offers them to fsspec."""

    protocol = "hf"
    store, pseudo_dirs = {}, [""]

    @classmethod
    def _strip_protocol(cls, path):
        return super()._strip_protocol(path.replace("hf://", "memory://"))

    def unstrip_protocol(self, name):
        return f"hf://{name.lstrip('/')}"


def test_files_of_the_hub_are_read_in_place(folders, samples, monkeypatch):
    """The addresses that `datasets` finds are read through fsspec, also by a process that knows no more than the address."""
    monkeypatch.setitem(sys.modules["fsspec.registry"]._registry, "hf", Hub)
    at = "hf://datasets/some/set@1a2b/data/train-00000-of-00001.parquet"
    Hub().pipe_file(at, (folders / "pushed" / "data" / "train-00000-of-00001.parquet").read_bytes())
    asked = []
    found = SimpleNamespace(config=SimpleNamespace(data_files={"train": [at], "validation": []}))
    monkeypatch.setattr(datasets, "load_dataset_builder", lambda *name: asked.append(name) or found)
    address = "hf://some/set#split=train"
    images = pickle.loads(pickle.dumps(load_labelled(address)))
    assert images.files.read(19) == samples[19].image and images.files.name(0).startswith(at)
    table = open_shards(address)
    assert table.addresses == (at,) and ShardReader(table).read(0, 2).image == samples[2].image
    assert read_captions(address)[:2] == [sample.caption for sample in samples[:2]]
    assert asked == [("some/set", None)] * 3
