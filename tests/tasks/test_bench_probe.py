"""The probes' benchmark: its features are as hard as it says, and every method runs; how fast stands in no test."""

import numpy as np
import pytest
from safetensors.numpy import save_file

from catlip_lite.tasks import bench_probe as bench


def test_no_classifier_beats_what_is_said_to_be_best():
    data = bench.synthetic_features(2000, 10, 32)
    found = bench.top_1(bench.ridge(data, "cpu").head, data.test)
    assert data.best - 0.1 < found < data.best + 0.02
    assert 0.3 < data.best < 1


def test_parts_share_no_image():
    data = bench.synthetic_features(100, 4, 8)
    assert [len(part) for part in (data.train, data.validation, data.test)] == [80, 20, 20]
    everything = np.concatenate([part.features for part in (data.train, data.validation, data.test)])
    assert len(np.unique(everything, axis=0)) == 120


def test_every_method_has_its_line(capsys):
    bench.main(["--images", "200", "--classes", "4", "--width", "8", "--device", "cpu", "--methods", *bench.METHODS, "knn"])
    printed = capsys.readouterr().out
    assert [row.split()[0] for row in printed.splitlines()[2:]] == ["ridge", "logistic", "adamw", "k-NN"]


def test_stored_features_are_matched_with_labels_by_their_rows(tmp_path):
    (tmp_path / "features").mkdir()
    for start in (0, 50):
        rows = np.arange(start, start + 50)[1:]  # the first of each part was unreadable
        part = {"features": np.stack([rows, rows % 3], 1).astype(np.float32), "rows": rows}
        save_file(part, tmp_path / "features" / f"{start}-{start + 50}.safetensors")
    np.save(tmp_path / "targets.npy", np.arange(100) % 3)
    data = bench.stored_features(tmp_path / "features", tmp_path / "targets.npy")
    for part in (data.train, data.validation, data.test):
        np.testing.assert_array_equal(part.features[:, 1], part.targets)
    np.save(tmp_path / "targets.npy", np.arange(60) % 3)
    with pytest.raises(ValueError, match="has 60 class indices"):
        bench.stored_features(tmp_path / "features", tmp_path / "targets.npy")
