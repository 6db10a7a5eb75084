"""Labels at corpus scale are the same whoever makes them and however often they are interrupted."""

import errno
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from files import one_line
from label_corpora import CAT, DOG, contents, labels_of, run, stems, truncated, write_parquet

from catlip_lite import label_captions
from catlip_lite.artefacts import read_table
from catlip_lite.data.addresses import find_files
from catlip_lite.data.shards import Sample, write_shards
from catlip_lite.labels import CaptionLabeler

# --- run again ----------------------------------------------------------------------------------------------------------


def test_what_is_complete_is_not_done_again(parquets, out):
    run(parquets, out)
    before = {path: path.stat().st_mtime_ns for path in out.iterdir()}
    report = run(parquets, out, workers=None)
    assert (report.files, report.skipped) == (0, 3)
    assert {path: path.stat().st_mtime_ns for path in out.iterdir()} == before


def test_a_source_that_has_changed_is_labelled_again(parquets, out):
    run(parquets, out)
    write_parquet(parquets / "1.parquet", ["a cat"])
    assert (run(parquets, out).files, labels_of(out, "1")["labels"].to_pylist()) == (1, [[int(CAT[1:])]])


def test_new_sources_join_the_old(parquets, out):
    run(parquets / "0.parquet", out)
    report = run(parquets, out)
    assert (report.files, report.skipped) == (2, 1)


@pytest.mark.parametrize("harm", [lambda p: p.unlink(), lambda p: truncated(p, 100)], ids=["missing", "cut short"])
def test_half_a_result_is_made_whole(parquets, out, harm):
    run(parquets, out)
    whole = contents(out)
    harm(next(out.glob("1-*.labels.parquet")))
    run(parquets, out)
    assert contents(out) == whole


@pytest.mark.parametrize("files", [[0, 1, 2], [1]], ids=["the same files", "other files"])
@pytest.mark.parametrize(
    ("option", "told"),
    [
        ({"mode": "corenet"}, "labeler='compound', not 'corenet'"),
        ({"column": "uid"}, "caption_column='caption', not 'uid'"),
        ({"uid_column": "caption"}, "uid_column='uid', not 'caption'"),
    ],
    ids=["labeler", "column", "uids"],
)
def test_labels_made_otherwise_are_neither_overwritten_nor_added_to(parquets, out, files, option, told):
    run([parquets / f"{i}.parquet" for i in files], out)
    with pytest.raises(ValueError) as error:
        run(parquets / "0.parquet", out, **option)
    assert f"labels made with {told}: use another destination" in one_line(error)


def test_a_killed_run_goes_on_where_it_was(parquets, out, tmp_path):
    run(parquets, tmp_path / "expected")
    killed = f"""
import os, signal
from pyarrow.parquet import ParquetWriter
from catlip_lite.label_captions import label_corpus
write = ParquetWriter.write_batch
def write_batch(self, batch):
    write(self, batch)
    if len(os.listdir({str(out)!r})) > 1:  # one result is there: this is the second file
        os.kill(os.getpid(), signal.SIGKILL)
ParquetWriter.write_batch = write_batch
label_corpus({str(parquets)!r}, {str(out)!r}, workers=1)
"""
    assert subprocess.run([sys.executable, "-c", killed]).returncode == -signal.SIGKILL
    report = run(parquets, out)
    whole = {name: content for name, content in contents(out).items() if not name.startswith(".catlip-")}
    assert (report.skipped, whole) == (1, contents(tmp_path / "expected"))


# --- what goes wrong ----------------------------------------------------------------------------------------------------


def break_parquet(folder: Path) -> None:
    truncated(folder / "1.parquet", 100)


def break_column(folder: Path) -> None:
    write_parquet(folder / "1.parquet", column="text")


def break_type(folder: Path) -> None:
    write_parquet(folder / "1.parquet", [1, 2])


@pytest.mark.parametrize(
    "harm, reason",
    [(break_parquet, "no readable parquet file"), (break_column, "choose one of text"), (break_type, "holds int64, not text")],
)
def test_a_broken_parquet_is_reported_and_the_others_go_on(parquets, out, harm, reason):
    harm(parquets)
    report = run(parquets, out)
    ((file, said),) = report.broken
    assert (file, reason in said, stems(out)) == (str(parquets / "1.parquet"), True, {"0", "2"})


@pytest.mark.parametrize("size", [512, 2_000, 10_240])
def test_a_tar_that_breaks_off_is_reported_and_the_others_go_on(shards, out, size):
    truncated(shards / "00000.tar", size)
    report = run(shards, out)
    assert ([file for file, _ in report.broken], stems(out)) == ([str(shards / "00000.tar")], {"00001"})


def test_a_broken_file_leaves_nothing(shards, out):
    truncated(shards / "00000.tar", 5_000)
    run(shards, out)
    assert len(contents(out)) == 1


def test_a_broken_file_is_logged(shards, out, caplog):
    truncated(shards / "00000.tar", 5_000)
    run(shards, out)
    assert "00000.tar is left out: " in caplog.text


def test_a_broken_file_is_tried_again(parquets, out):
    whole = (parquets / "1.parquet").read_bytes()
    break_parquet(parquets)
    run(parquets, out)
    (parquets / "1.parquet").write_bytes(whole)
    assert run(parquets, out).files == 1


def test_a_sample_without_the_uid_asked_for_breaks_its_tar(shards, tmp_path, out):
    write_shards([Sample("", b"x", "png", "a dog")], tmp_path / "more")
    report = run([shards, tmp_path / "more"], out, uid_from_json=True)
    assert [reason for _, reason in report.broken] == [
        "sample 000000000 has no 'uid' in its .json: label without uid_from_json"
    ]


def test_tars_that_are_all_broken_are_an_error(shards, out):
    for path in shards.iterdir():
        truncated(path, 5_000)
    with pytest.raises(ValueError) as error:
        run(shards, out)
    assert "none of the 2 files could be labelled" in one_line(error)


def test_a_column_that_no_file_has_is_answered_with_those_there_are(parquets, out):
    with pytest.raises(ValueError) as error:
        run(parquets, out, column="text")
    assert "no column 'text': choose one of caption, uid" in one_line(error) and not out.exists()


@pytest.fixture
def full_disk(monkeypatch):
    """A disk that is full once a result is there."""
    write = pq.ParquetWriter.write_batch
    written = []

    def write_batch(self, batch, *args):
        written.append(batch)
        if len(written) == 2:
            raise OSError(errno.ENOSPC, "No space left on device")
        write(self, batch, *args)

    monkeypatch.setattr(pq.ParquetWriter, "write_batch", write_batch)


def test_a_full_disk_stops_the_run_and_says_what_is_done(parquets, out, full_disk):
    with pytest.raises(OSError) as error:
        run(parquets, out)
    assert error.value.errno == errno.ENOSPC
    assert "1 of 3 files are done; run again with the same arguments" in one_line(error)


def test_after_a_full_disk_only_whole_results_are_there(parquets, out, full_disk):
    with pytest.raises(OSError):
        run(parquets, out)
    assert sorted(name.split(".", 1)[1] for name in contents(out)) == ["labels.parquet"]


@pytest.fixture
def ctrl_c(monkeypatch):
    """Ctrl-C after the first file."""

    def interrupted(reports, *_):
        yield next(reports)
        raise KeyboardInterrupt

    monkeypatch.setattr(label_captions, "progress", interrupted)


def test_ctrl_c_keeps_what_is_done_and_says_so(parquets, out, ctrl_c):
    with pytest.raises(KeyboardInterrupt, match="stopped: 1 of 3 files are done; run again"):
        run(parquets, out)


def test_ctrl_c_counts_what_other_processes_have_finished_and_leaves_no_staging_file(parquets, out, ctrl_c):
    with pytest.raises(KeyboardInterrupt) as stopped:
        run(parquets, out, workers=2)
    done = int(str(stopped.value).split()[1])
    assert len(contents(out)) == done


def test_work_that_is_told_to_stop_leaves_nothing(parquets, out, monkeypatch):
    out.mkdir()
    how = {
        "labeler": "compound",
        **CaptionLabeler().card,
        "caption_column": "caption",
        "uid_column": "uid",
        "uid_from_json": False,
    }
    stop = threading.Event()
    stop.set()
    monkeypatch.setattr(label_captions, "_stop", stop)
    with pytest.raises(KeyboardInterrupt):
        label_captions.label_file(find_files(parquets)[0], label_captions.Destination.at(out), how)
    assert contents(out) == {}


# --- engines ------------------------------------------------------------------------------------------------------------


def test_two_processes_write_the_bytes_of_one(parquets, shards, out, tmp_path):
    run([parquets, shards], out, workers=1)
    run([shards, parquets], tmp_path / "two", workers=2)
    assert contents(tmp_path / "two") == contents(out)


def test_ray_writes_the_bytes_of_one_process(parquets, shards, out, tmp_path, ray_cluster):
    run([parquets, shards], out, workers=1)
    run([shards, parquets], tmp_path / "ray", workers=2, engine="ray")
    assert contents(tmp_path / "ray") == contents(out)


def test_ray_reports_broken_files_like_any_engine(shards, out, ray_cluster):
    truncated(shards / "00000.tar", 5_000)
    report = run(shards, out, workers=2, engine="ray")
    assert (report.files, [file for file, _ in report.broken]) == (1, [str(shards / "00000.tar")])


def test_a_file_whose_ray_worker_is_lost_is_labelled_again(parquets, out, tmp_path, ray_cluster, monkeypatch):
    run(parquets, out, workers=1)
    marker, label = tmp_path / "lost", label_captions.label_file

    def lost_once(file, **given):
        if not marker.exists():
            marker.touch()
            os._exit(1)
        return label(file, **given)

    monkeypatch.setattr(label_captions, "label_file", lost_once)
    assert run(parquets, tmp_path / "ray", workers=1, engine="ray").files == 3
    assert contents(tmp_path / "ray") == contents(out)


def test_a_ray_worker_that_is_always_lost_ends_the_run_and_keeps_the_rest(parquets, out, ray_cluster, monkeypatch):
    monkeypatch.setenv("RAY_TASK_MAX_RETRIES", "1")
    label = label_captions.label_file

    def lost_at_last(file, **given):
        return os._exit(1) if file.stem == "2" else label(file, **given)

    monkeypatch.setattr(label_captions, "label_file", lost_at_last)
    with pytest.raises(RuntimeError, match="labelling under Ray failed: .*: 2 of 3 files are done; run again"):
        run(parquets, out, workers=1, engine="ray")
    monkeypatch.setattr(label_captions, "label_file", label)
    assert (run(parquets, out).files, run(parquets, out).skipped) == (1, 3)


def test_without_ray_its_engine_is_refused_before_any_work(parquets, out, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'catlip-lite\[cluster\]'"):
        run(parquets, out, engine="ray")


@pytest.mark.parametrize("wrong", [{"engine": "spark"}, {"workers": 0}, {"mode": "nouns"}])
def test_wrong_arguments_are_refused_before_any_work(parquets, out, wrong):
    with pytest.raises(ValueError, match=f"{next(iter(wrong))}={next(iter(wrong.values()))!r}"):
        run(parquets, out, **wrong)


# --- command line -------------------------------------------------------------------------------------------------------


def test_the_command_line_prints_the_report(parquets, out, capsys):
    assert label_captions.main([str(parquets), str(out), "--workers", "1"]) == 0
    assert capsys.readouterr().out.startswith("3 files labelled, 0 complete already, 0 broken\n15 captions, ")


def test_the_command_line_can_write_the_synset_counts_that_notebook_02_reads(parquets, out, tmp_path):
    label_captions.main([str(parquets), str(out), "--workers", "1", "--counts", str(tmp_path / "run")])
    counts, card = read_table(tmp_path / "run" / "synset_counts.parquet", columns=("wnid", "name", "count"))
    assert (counts["wnid"][0], card["num_captions"], CaptionLabeler.from_card(card).name) == (DOG, 15, "compound")


def test_the_command_line_says_errors_in_one_line(parquets, out, capsys):
    assert label_captions.main([str(parquets), str(out), "--column", "text"]) == 1
    assert capsys.readouterr().err.startswith("error: ")
