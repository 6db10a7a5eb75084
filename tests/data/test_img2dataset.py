"""What img2dataset writes is one corpus, whether as "webdataset", as "files" or as "parquet"."""

import json
import shutil

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from catlip_lite.data.captions import read_captions, read_samples_at
from catlip_lite.data.images import AUGMENTATIONS
from catlip_lite.data.loader import BatchSpec, Corpus
from catlip_lite.data.shards import read_shard
from catlip_lite.data.stream import ShardReader, open_shards
from catlip_lite.label_captions import label_corpus
from catlip_lite.labels import CaptionLabeler
from catlip_lite.training.objectives import SynsetTargets

pytestmark = pytest.mark.usefixtures("own_cache")


@pytest.fixture
def tars(shards):
    """Two shards of 16 and 8 samples."""
    return sorted(shards.glob("*.tar"))


@pytest.fixture(params=["webdataset", "files", "parquet"])
def written(request, tars, tmp_path):
    """The folder of the same two shards in one of img2dataset's output formats, with the tables that it notes them in."""
    folder = tmp_path / request.param
    folder.mkdir()
    for path in tars:
        samples = list(read_shard(path))
        columns = {
            "url": ["https://x"] * len(samples),
            "key": [s.key for s in samples],
            "caption": [s.caption for s in samples],
        }
        if request.param == "webdataset":
            shutil.copy(path, folder)
        elif request.param == "files":
            shutil.unpack_archive(path, folder / path.stem, filter="data")
        else:
            columns["jpg"] = [s.image for s in samples]
        pq.write_table(pa.table(columns), folder / f"{path.stem}.parquet", row_group_size=5)
        (folder / f"{path.stem}_stats.json").write_text(json.dumps({"count": 20, "successes": len(samples)}))
    return folder


def read_all(address) -> list[tuple]:
    reader = ShardReader(open_shards(address))
    places = [(shard, row) for shard, count in enumerate(reader.table.counts) for row in range(count)]
    return [(s.image, s.caption, s.key.partition(":")[2], s.skipped) for s in (reader.read(*place) for place in places)]


def test_its_captions_are_those_of_the_tars(written, tars):
    assert read_captions(written) == read_captions(tars)


def test_its_samples_are_those_of_the_tars(written, tars):
    assert read_all(written) == read_all(tars)


def test_its_labels_are_those_of_the_tars(written, tars, tmp_path):
    for name, source in (("one", tars), ("other", written)):
        label_corpus(source, tmp_path / name, workers=1, uid_column="key")
    one, other = (
        [pq.read_table(path).to_pylist() for path in sorted((tmp_path / name).glob("*.labels.parquet"))]
        for name in ("one", "other")
    )
    assert one == other and len(one) == 2


def test_an_epoch_has_each_of_its_samples_once(written, vocabulary):
    targets = SynsetTargets(CaptionLabeler(), vocabulary)
    corpus = Corpus(open_shards(written), targets, 16, AUGMENTATIONS["paper"], cache_gb=0, workers=2)
    batches = list(corpus.batches([BatchSpec(start, 8, 0, 8, 16) for start in (0, 8, 16)]))
    keys = sorted(name.partition(":")[2] for batch in batches for name in batch.names)
    assert keys == [f"{shard:05d}{i:04d}" for shard, count in ((0, 16), (1, 8)) for i in range(count)]
    assert all(batch.weights.all() and len(batch.indices) == 8 for batch in batches)


def test_each_row_group_of_a_table_is_a_shard(written):
    expected = [5, 5, 5, 1, 5, 3] if written.name == "parquet" else [16, 8]
    assert open_shards(written).counts.tolist() == expected


def test_pictures_are_found_by_the_position_of_their_caption(written, samples):
    found = read_samples_at(written, [17])
    assert {i: s.image for i, s in found.items()} == ({} if written.name == "parquet" else {17: samples[17].image})


@pytest.mark.parametrize("written", ["files"], indirect=True)
def test_a_file_that_goes_from_a_folder_costs_its_sample_alone(written, caplog):
    (written / "00000" / "000000001.txt").unlink()
    (written / "00000" / "000000001.txt").symlink_to("nowhere")  # it is listed, and cannot be read
    told = []
    captions, read = read_captions(written, skipped=told), read_all(written)
    assert [i for i, caption in enumerate(captions) if caption is None] == [1] and len(told) == 1
    assert [(key, why) for _, _, key, why in read if why] == [("000000001", "missing")]
    assert "00000:000000001: " in told[0] and len(list(read_shard(written / "00000"))) == 16
    assert "000000001: [Errno 2] No such file" in caplog.text


@pytest.mark.parametrize("written", ["parquet"], indirect=True)
def test_a_table_that_has_gone_is_skipped_and_named(written, caplog):
    reader = ShardReader(open_shards(written))
    (written / "00000.parquet").unlink()
    assert [reader.read(shard, 0).skipped for shard in (0, 4)] == ["shard unreadable", ""]
    assert "00000.parquet cannot be read (FileNotFoundError" in caplog.text


def test_what_goes_while_captions_are_read_is_told_and_the_others_go_on(written):
    def without_the_last(files):
        yield files[0]
        path = written / files[1].name
        path.unlink() if path.is_file() else shutil.rmtree(path)
        yield files[1]

    told = []
    assert len(read_captions(written, progress=without_the_last, skipped=told)) == 16
    assert len(told) == 1 and told[0].startswith("00001")
