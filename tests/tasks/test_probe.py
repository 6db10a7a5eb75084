"""Probes: settings come from validation, test images are only scored."""

import numpy as np
import pytest

from catlip_lite.tasks import probe as task
from catlip_lite.tasks.features import Features, split_validation
from catlip_lite.tasks.scoring import per_class_accuracy, top_k_hits


def made(per_class, groups, seed, noise=0.5, classes=("ant", "bee", "cow")):
    rng = np.random.default_rng(seed)
    labels = np.repeat(classes, per_class)
    centres = {label: np.random.default_rng(i).normal(size=8) for i, label in enumerate(classes)}
    features = np.stack([centres[label] + noise * rng.normal(size=8) for label in labels]).astype(np.float32)
    return Features(features, np.zeros((len(labels), 0), np.float32), labels, np.resize(groups, len(labels)))


@pytest.fixture
def data():
    return task.prepare(made(12, ["A", "B", "C"], seed=0), {"test": made(10, ["D"], seed=1)}, validation_group="C")


@pytest.mark.parametrize("method", task.METHODS)
def test_every_method_separates_what_is_separable(data, method):
    _, scores = task.METHODS[method](data)
    assert task.test_hits(scores["test"], data.targets(data.tests["test"]))[1] >= 0.9


@pytest.mark.parametrize("method", task.METHODS)
def test_test_labels_do_not_influence_what_is_learned(data, method):
    _, before = task.METHODS[method](data)
    data.tests["test"].labels[:] = "ant"
    _, after = task.METHODS[method](data)
    np.testing.assert_array_equal(before["test"], after["test"])


def test_labels_that_training_lacks_count_as_misses_and_are_named(caplog):
    tests = {"test": made(10, ["D"], seed=1, classes=("ant", "bee", "cow", "yak"))}
    data = task.prepare(made(12, ["A", "B", "C"], seed=0), tests, validation_group="C")
    _, scores = task.logistic_probe(data)
    assert "labels that training lacks" in caplog.text.replace("label(s)", "labels")
    assert "yak" in caplog.text
    assert 0.65 < task.test_hits(scores["test"], data.targets(tests["test"]))[1] <= 0.75


def test_a_validation_group_must_be_among_the_training_images():
    with pytest.raises(ValueError, match="validation_group='Z'.*groups are A, B, C"):
        split_validation(made(12, ["A", "B", "C"], seed=0), "Z")


def test_a_random_split_leaves_every_class_something_to_train_on():
    train = made(3, [""], seed=0)
    chosen = split_validation(train)
    assert {label: int((~chosen)[train.labels == label].sum()) for label in ("ant", "bee", "cow")} == {
        "ant": 2,
        "bee": 2,
        "cow": 2,
    }


def test_top_k_counts_targets_among_the_k_best():
    scores = np.array([[3.0, 2, 1], [1, 2, 3]])
    assert top_k_hits(scores, np.array([1, 0]), ks=(1, 2, 3)) == {1: 0.0, 2: 0.5, 3: 1.0}


def test_per_class_accuracy_names_what_a_class_is_taken_for():
    table = per_class_accuracy(np.array(["bee", "bee", "ant"]), np.array(["ant", "ant", "ant"]))
    assert table.to_dict("records") == [{"label": "ant", "images": 3, "accuracy": 1 / 3, "taken_for": "bee"}]
