"""Addresses of a corpus name its files, local or remote, and nothing else."""

import os
import sys

import fsspec
import pytest
from files import one_line

from catlip_lite.data.addresses import find_files


@pytest.fixture
def folder(tmp_path):
    for name in ("00000.tar", "00001.tar", "00003.tar", "a.parquet", "notes.txt", "x/b.parquet", "y/b.parquet"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"content")
    return tmp_path


@pytest.fixture
def remote(folder):
    fsspec.filesystem("memory").put(str(folder), f"/{folder.name}", recursive=True)
    return f"memory://{folder.name}"


def names(source, root) -> list[str]:
    return [file.address.removeprefix(f"{root}/") for file in find_files(source)]


@pytest.mark.parametrize(
    "pattern, expected",
    [
        ("", ["00000.tar", "00001.tar", "00003.tar"]),
        ("/a.parquet", ["a.parquet"]),
        ("/x", ["x/b.parquet"]),
        ("/*.parquet", ["a.parquet"]),
        ("/**/*.parquet", ["a.parquet", "x/b.parquet", "y/b.parquet"]),
        ("/{00000..00001}.tar", ["00000.tar", "00001.tar"]),
        ("/0000[13].tar", ["00001.tar", "00003.tar"]),
    ],
)
def test_an_address_names_the_same_files_locally_and_remotely(folder, remote, pattern, expected):
    assert names(f"{folder}{pattern}", folder) == names(f"{remote}{pattern}", remote.replace("//", "///")) == expected


def test_a_list_names_each_file_once(folder):
    assert names([folder / "a.parquet", f"{folder}/*.parquet", folder / "x"], folder) == ["a.parquet", "x/b.parquet"]


def test_a_relative_path_is_the_same_file_as_an_absolute_one(folder, monkeypatch):
    monkeypatch.chdir(folder)
    assert find_files("a.parquet") == find_files(folder / "a.parquet") == find_files(f"file://{folder}/a.parquet")


def test_files_of_one_name_have_results_of_two_names(folder):
    results = {file.result_name for file in find_files(f"{folder}/*/b.parquet")}
    assert len(results) == 2 and {name.partition("-")[0] for name in results} == {"b"}


def test_what_labelling_writes_is_no_source(folder):
    for name in ("a-1.labels.parquet", ".part.parquet", "_metadata.parquet"):
        (folder / "x" / name).write_bytes(b"")
    assert names(folder / "x", folder) == ["x/b.parquet"]


def test_a_file_that_is_written_anew_is_another(folder):
    before = find_files(folder / "a.parquet")
    os.utime(folder / "a.parquet", (1, 1))
    assert find_files(folder / "a.parquet") != before


def test_shards_missing_from_a_brace_pattern_are_counted_in_a_warning(folder, caplog):
    assert names(f"{folder}/{{00000..00003}}.tar", folder) == ["00000.tar", "00001.tar", "00003.tar"]
    assert "1 of the 4 files" in caplog.text


def test_the_demo_corpus_is_a_source():
    assert [file.suffix for file in find_files("demo/pretrain")][:1] == [".tar"]


@pytest.mark.parametrize("address", ["nowhere", "nowhere/*.tar", "memory://nowhere", "{00005..00006}.tar"])
def test_an_address_without_files_is_answered_with_what_it_may_be(folder, monkeypatch, address):
    monkeypatch.chdir(folder)
    with pytest.raises(FileNotFoundError) as error:
        find_files(address)
    assert f"no captions at {address!r}: give a .tar or .parquet or .arrow file, a folder of them" in one_line(error)


def test_a_file_of_another_kind_is_refused(folder):
    with pytest.raises(ValueError, match=r"notes\.txt: captions are read from \.tar or \.parquet or \.arrow files"):
        find_files(folder / "notes.txt")


def test_an_unknown_protocol_is_named(folder):
    with pytest.raises(ValueError, match="nonsense"):
        find_files("nonsense://bucket/a.parquet")


def test_a_hub_address_without_its_library_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(ImportError, match=r"hf:// addresses need .*: pip install 'catlip-lite\[hf\]'"):
        find_files("hf://ILSVRC/imagenet-1k#split=validation")


def test_a_hash_in_the_name_of_a_remote_file_is_no_selection(remote):
    memory = fsspec.filesystem("memory")
    memory.pipe_file("/hash/a#1.tar", b"content")
    assert [file.address for file in find_files("memory://hash/a#1.tar")] == ["memory:///hash/a#1.tar"]


def test_what_chooses_nothing_behind_a_hash_is_refused():
    with pytest.raises(ValueError, match="#train: only split and config are chosen here, as #split=train"):
        find_files("hf://some/set#train")
