"""Tables are read group by group, whatever wrote them, and tell which of their columns holds the images."""

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from catlip_lite.data.addresses import TABLES, find_files
from catlip_lite.data.tables import class_names, image_column, open_table

ROWS = pa.table({"caption": list("abcdefg"), "number": range(7)})


@pytest.fixture(params=TABLES)
def written(request, tmp_path):
    """A table of groups of 3, 3 and 1 rows."""
    path = tmp_path / f"a{request.param}"
    if request.param == ".parquet":
        pq.write_table(ROWS, path, row_group_size=3)
    else:
        with pa.ipc.new_stream(path, ROWS.schema) as stream:
            stream.write_table(ROWS, max_chunksize=3)
    return path


def test_groups_and_batches_hold_the_columns_asked_for(written):
    (file,) = find_files(written)
    with open_table(file) as table:
        assert (table.groups, table.schema.names) == ([3, 3, 1], ["caption", "number"])
        assert table.read(["caption"], 1).to_pydict() == {"caption": ["d", "e", "f"]}
        assert table.read(["number"]).to_pydict() == {"number": [*range(7)]}
        assert [x for batch in table.batches(["caption"], 2) for x in batch.column("caption").to_pylist()] == list("abcdefg")


def test_a_table_that_is_cut_short_is_named(written):
    written.write_bytes(written.read_bytes()[:100])
    (file,) = find_files(written)
    with pytest.raises(ValueError, match=r"/a\.\w+ is no readable (parquet|Arrow) file"), open_table(file):
        pass


BYTES, STRUCT, TEXT = pa.binary(), pa.struct({"bytes": pa.binary(), "path": pa.string()}), pa.string()


@pytest.mark.parametrize(
    "columns, described, expected",
    [
        ({"embedding": BYTES, "jpg": BYTES}, None, "jpg"),
        ({"photo": BYTES, "caption": TEXT}, None, "photo"),
        ({"photo": STRUCT, "caption": TEXT}, None, "photo"),
        ({"file_name": TEXT, "caption": TEXT}, None, "file_name"),
        ({"image": BYTES, "photo": STRUCT}, "photo", "photo"),
    ],
)
def test_images_are_in_the_described_column_or_in_one_of_a_usual_name_or_the_only_one_of_bytes(columns, described, expected):
    info = json.dumps({"info": {"features": {described: {"_type": "Image"}}}}).encode()
    schema = pa.schema(columns).with_metadata({b"huggingface": info} if described else None)
    assert image_column("a", schema) == expected


@pytest.mark.parametrize("columns", [{"one": BYTES, "other": BYTES}, {"text": TEXT}])
def test_no_column_of_images_or_several_are_answered_with_those_there_are(columns):
    with pytest.raises(ValueError, match=rf"which column holds the images\?.*; there are {next(iter(columns))} \("):
        image_column("a", pa.schema(columns))


@pytest.mark.parametrize(
    "feature",
    [
        {"_type": "ClassLabel", "names": ["b", "a"]},
        {"_type": "List", "feature": {"_type": "ClassLabel", "names": ["b", "a"]}},
        [{"_type": "ClassLabel", "names": ["b", "a"]}],
    ],
    ids=["column", "list", "old list"],
)
def test_class_names_keep_their_order(feature):
    assert class_names(feature) == ["b", "a"]
