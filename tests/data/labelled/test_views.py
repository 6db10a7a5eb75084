"""Evaluation views of labelled images: in order, in batches, without those that cannot be read; the look before long work."""

import pytest
import torch

from catlip_lite.data.images import Evaluation
from catlip_lite.data.labelled import all_views, batches_of_views, check_labelled, load_labelled

pytestmark = pytest.mark.usefixtures("own_cache")
SMALL = Evaluation(8)


@pytest.mark.parametrize("workers", [0, 2])
def test_views_come_in_order_without_those_that_cannot_be_read(class_folders, workers, caplog):
    folder = class_folders({"ant": [f"{i}.png" for i in range(7)], "bee": ["0.png"]})
    (folder / "ant" / "2.png").write_bytes(b"no image")
    batches = list(batches_of_views(load_labelled(folder), SMALL, batch_size=3, workers=workers))
    assert [rows.tolist() for rows, _ in batches] == [[0, 1], [3, 4, 5], [6, 7]]
    assert [views.shape[1:] for _, views in batches] == [(3, 8, 8)] * 3
    assert batches[1][1][:, 1, 0, 0].tolist() == [30, 40, 50]
    (told,) = caplog.messages
    assert told.startswith("1 of 8 images are unreadable and left out: ")
    assert "ant/2.png (unreadable image of 8 bytes" in told


def test_a_batch_without_a_readable_image_is_passed_over(class_folders):
    folder = class_folders({"ant": ["0.png", "1.png"], "bee": ["0.png"]})
    for i in (0, 1):
        (folder / "ant" / f"{i}.png").write_bytes(b"no image")
    assert [rows.tolist() for rows, _ in batches_of_views(load_labelled(folder), SMALL, batch_size=2)] == [[2]]


def test_files_that_have_gone_are_unreadable_images(class_folders, caplog):
    folder = class_folders({"ant": ["0.png"], "bee": ["0.png"]})
    images = load_labelled(folder)
    (folder / "ant" / "0.png").unlink()
    assert [rows.tolist() for rows, _ in batches_of_views(images, SMALL)] == [[1]]
    assert "No such file" in caplog.text


def test_not_one_readable_image_is_an_error(class_folders):
    folder = class_folders({"ant": ["0.png"], "bee": ["0.png"]})
    for name in ("ant", "bee"):
        (folder / name / "0.png").write_bytes(b"no image")
    with pytest.raises(ValueError, match="none of 2 images can be read, the first: .*ant/0.png"):
        all_views(load_labelled(folder), SMALL)


def test_all_views_are_the_batches_end_to_end(shards):
    images = load_labelled(shards)
    rows, views = all_views(images, SMALL)
    assert rows.tolist() == list(range(24))
    assert torch.equal(views, torch.cat([part for _, part in batches_of_views(images, SMALL, batch_size=5)]))


def test_a_missing_label_field_is_told_before_long_work(shards):
    with pytest.raises(ValueError, match="its samples need 'species' in their .json, which has uid, label"):
        check_labelled([shards], label_field="species")


def test_a_damaged_first_image_is_no_reason_to_stop_before_long_work(class_folders):
    folder = class_folders({"ant": ["0.png"], "bee": ["0.png"]})
    (folder / "ant" / "0.png").write_bytes(b"no image")
    check_labelled(str(folder))


def test_a_set_without_a_readable_image_is_told_before_long_work(class_folders):
    folder = class_folders({"ant": [f"{i}.png" for i in range(30)], "bee": [f"{i}.png" for i in range(30)]})
    for path in folder.glob("*/*.png"):
        path.write_bytes(b"no image")
    with pytest.raises(ValueError, match="none of the 32 images looked at, of 60, can be read, the first: .*ant/0.png"):
        check_labelled(folder)


def test_parts_of_one_class_each_are_checked_together(tmp_path, pictures):
    for name, picture in zip(("ant", "bee"), pictures, strict=False):
        (tmp_path / name / name).mkdir(parents=True)
        (tmp_path / name / name / "0.png").write_bytes(picture)
    check_labelled([str(tmp_path / "ant"), str(tmp_path / "bee")])


def test_a_file_that_is_no_image_is_told_without_memory_addresses(class_folders, caplog):
    folder = class_folders({"ant": ["1.png", "2.png"], "bee": ["1.png"]})
    (folder / "ant" / "2.png").write_bytes(b"no image")
    all_views(load_labelled(folder), SMALL)
    assert "unreadable image of 8 bytes: no image that Pillow reads" in caplog.text
