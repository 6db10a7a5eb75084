"""One file's labels: those of its captions, in their order, with a uid each, however the file keeps them."""

import json

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from files import write_tar
from label_corpora import CAPTIONS, CAT, DOG, all_captions, labels_of, run, stems, write_parquet

from catlip_lite.label_captions import merge_counts
from catlip_lite.labels import CaptionLabeler, count_synsets

# --- what is written ----------------------------------------------------------------------------------------------------


def test_labels_are_wnid_numbers_as_the_labeler_orders_them(parquets, out):
    run(parquets, out)
    expected = [[int(wnid[1:]) for wnid in wnids] for wnids in CaptionLabeler().label(CAPTIONS)]
    assert labels_of(out, "0")["labels"].to_pylist() == expected


def test_the_columns_are_uid_and_a_list_of_int32(parquets, out):
    run(parquets, out)
    schema = labels_of(out, "0").schema
    assert [(field.name, str(field.type)) for field in schema] == [("uid", "string"), ("labels", "list<element: int32>")]


def test_many_batches_give_the_labels_of_one(parquets, out, tmp_path, monkeypatch):
    run(parquets, out)
    monkeypatch.setattr("catlip_lite.data.captions.BATCH", 3)
    run(parquets, tmp_path / "small")
    assert labels_of(tmp_path / "small", "0").equals(labels_of(out, "0"))


def test_a_batch_is_a_row_group(parquets, out, monkeypatch):
    monkeypatch.setattr("catlip_lite.data.captions.BATCH", 3)
    run(parquets, out)
    assert pq.ParquetFile(next(out.glob("0-*.labels.parquet"))).num_row_groups == 3


def test_the_counts_of_a_file_are_the_captions_that_mention_a_synset(parquets, out):
    run(parquets / "0.parquet", out)
    counts, _ = merge_counts(out)
    assert dict(zip(counts["wnid"], counts["count"], strict=True)) == count_synsets(CaptionLabeler().label(CAPTIONS))


def test_a_synset_that_corenet_gives_twice_is_counted_once(tmp_path, out):
    write_parquet(tmp_path / "a.parquet", ["a dog, a dog and a dog"])
    run(tmp_path / "a.parquet", out, mode="corenet")
    table, _ = merge_counts(out)
    assert dict(zip(table["wnid"], table["count"], strict=True)) == {DOG: 1}


def test_the_report_counts_files_captions_and_those_without_a_label(parquets, out):
    report = run(parquets, out)
    unlabelled = sum(not wnids for wnids in CaptionLabeler().label(all_captions(parquets)))
    assert (report.files, report.skipped, report.broken) == (3, 0, [])
    assert (report.captions, report.unlabelled) == (15, unlabelled)


# --- uids ---------------------------------------------------------------------------------------------------------------


def test_a_parquets_uids_are_kept(parquets, out):
    run(parquets, out)
    assert labels_of(out, "1")["uid"].to_pylist() == ["u1-0", "u1-1", "u1-2", "u1-3"]


def test_uids_that_are_numbers_become_strings(tmp_path, out):
    run(write_parquet(tmp_path / "a.parquet", uids=range(8)), out)
    assert labels_of(out, "a")["uid"].to_pylist() == list("01234567")


def test_without_a_uid_column_it_is_the_files_stem_and_the_row(tmp_path, out, monkeypatch):
    monkeypatch.setattr("catlip_lite.data.captions.BATCH", 3)
    run(write_parquet(tmp_path / "a.parquet"), out)
    assert labels_of(out, "a")["uid"].to_pylist() == [f"a:{row}" for row in range(8)]


def test_a_tars_uid_is_the_samples_key(shards, out):
    run(shards, out)
    assert labels_of(out, "00001")["uid"].to_pylist() == [f"00001{i:04d}" for i in range(8)]


def test_a_tars_uid_can_be_that_of_its_json(shards, out):
    run(shards, out, uid_from_json=True)
    assert labels_of(out, "00001")["uid"].to_pylist() == [f"u{i}" for i in range(16, 24)]


def test_another_uid_column_must_be_there(parquets, out):
    with pytest.raises(ValueError, match="no column 'key': choose one of caption, uid"):
        run(parquets, out, uid_column="key")


# --- what is read -------------------------------------------------------------------------------------------------------


def test_half_a_surrogate_pair_in_a_json_is_no_error(tmp_path, out):
    write_tar(tmp_path / "a.tar", {"0.json": json.dumps({"caption": "a dog \ud83d"}).encode()})
    run(tmp_path / "a.tar", out)
    assert labels_of(out, "a")["labels"].to_pylist() == [[int(DOG[1:])]]


def test_bytes_that_are_no_utf8_are_no_error(tmp_path, out):
    bad = pa.StringArray.from_buffers(2, pa.py_buffer(b"\0\0\0\0\6\0\0\0\13\0\0\0"), pa.py_buffer(b"dog \xff\xfea cat"))
    pq.write_table(pa.table({"caption": bad}), tmp_path / "a.parquet")
    run(tmp_path / "a.parquet", out)
    assert labels_of(out, "a")["labels"].to_pylist() == [[int(DOG[1:])], [int(CAT[1:])]]


@pytest.mark.parametrize("kind", [pa.large_string(), pa.dictionary(pa.int32(), pa.string())])
def test_text_of_any_arrow_type_is_read(tmp_path, out, kind):
    pq.write_table(pa.table({"caption": pa.array(["a dog", None, "a cat"]).cast(kind)}), tmp_path / "a.parquet")
    run(tmp_path / "a.parquet", out)
    assert labels_of(out, "a")["labels"].to_pylist() == [[int(DOG[1:])], [], [int(CAT[1:])]]


def test_another_column_can_hold_the_captions(tmp_path, out):
    run(write_parquet(tmp_path / "a.parquet", ["a dog"], column="text"), out, column="text")
    assert labels_of(out, "a")["labels"].to_pylist() == [[int(DOG[1:])]]


def test_files_of_one_name_in_two_folders_do_not_collide(tmp_path, out):
    write_parquet(tmp_path / "x" / "0.parquet", ["a dog"])
    write_parquet(tmp_path / "y" / "0.parquet", ["a cat"])
    run([tmp_path / "x", tmp_path / "y"], out)
    found = [pq.read_table(path)["labels"].to_pylist() for path in out.glob("0-*.labels.parquet")]
    assert sorted(found) == [[[int(DOG[1:])]], [[int(CAT[1:])]]]


def test_a_corpus_can_lie_at_any_fsspec_address(parquets, out):
    memory = fsspec.filesystem("memory")
    memory.put(str(parquets), "/corpus", recursive=True)
    run("memory://corpus/*.parquet", out)
    assert stems(out) == {"0", "1", "2"}


def test_remote_labels_are_those_of_local_files(shards, out, tmp_path):
    fsspec.filesystem("memory").put(str(shards), "/shards", recursive=True)
    run(shards, out)
    run("memory://shards/{00000..00001}.tar", tmp_path / "remote")
    assert labels_of(tmp_path / "remote", "00001").equals(labels_of(out, "00001"))


def test_results_can_go_to_any_fsspec_address(parquets):
    run(parquets, "memory://results/labels")
    assert run(parquets, "memory://results/labels").skipped == 3


def test_nothing_remains_in_the_temporary_folder_after_an_upload(parquets, tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    run(parquets, "memory://uploaded")
    assert [path.name for path in tmp_path.iterdir()] == ["corpus"]
