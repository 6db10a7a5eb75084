"""Probes: settings come from validation, test images are only scored."""

import numpy as np
import pytest
import torch

from catlip_lite.data.images import Evaluation
from catlip_lite.data.labelled import load_labelled
from catlip_lite.labels import Vocabulary
from catlip_lite.models import PretrainedModel, create_vit
from catlip_lite.tasks import probe as task
from catlip_lite.tasks import probe_report as report
from catlip_lite.tasks.features import Features
from catlip_lite.tasks.scoring import top_k_hits

CLASSES = ("ant", "bee", "cow")


def made(per_class, groups, seed, noise=0.5, classes=CLASSES):
    rng = np.random.default_rng(seed)
    labels = np.repeat(classes, per_class)
    centres = {label: np.random.default_rng(i).normal(size=8) for i, label in enumerate(classes)}
    features = np.stack([centres[label] + noise * rng.normal(size=8) for label in labels]).astype(np.float32)
    return Features(features, labels, np.resize(groups, len(labels)), np.arange(len(labels)))


@pytest.fixture
def data():
    return task.prepare(made(12, ["A", "B", "C"], seed=0), {"test": made(10, ["D"], seed=1)}, validation_group="C")


def top1(data, scores):
    return top_k_hits(scores, data.targets(data.tests["test"]))[1]


@pytest.mark.parametrize("method", task.METHODS)
def test_every_method_separates_what_is_separable(data, method):
    assert top1(data, task.METHODS[method](data).tests["test"]) >= 0.9


@pytest.mark.parametrize("method", task.METHODS)
def test_test_labels_do_not_influence_what_is_learned(data, method):
    before = task.METHODS[method](data).tests["test"]
    data.tests["test"].labels[:] = "ant"
    np.testing.assert_array_equal(before, task.METHODS[method](data).tests["test"])


@pytest.mark.parametrize("method", task.METHODS)
def test_scores_on_validation_are_of_a_classifier_that_has_not_seen_it(method):
    train = made(12, ["A", "B", "C"], seed=0, noise=0.05)
    train.labels[(train.groups == "C") & (train.labels != "ant")] = "ant"  # wrong on purpose: only who looks can follow
    outcome = task.METHODS[method](task.prepare(train, {}, validation_group="C"))
    assert sorted(set(np.array(CLASSES)[outcome.validation.argmax(1)])) == list(CLASSES)


@pytest.mark.parametrize("method", task.METHODS)
def test_fewer_images_than_classes_and_classes_of_one_image_are_probed(method):
    names = tuple(f"class {i:02}" for i in range(9))
    train = made(1, ["A"], seed=0, noise=0.01, classes=names)
    more = made(1, ["B"], seed=1, noise=0.01, classes=names[:2])
    data = task.prepare(task.join([train, more]), {"test": made(2, ["D"], seed=2, noise=0.01, classes=names)})
    assert top1(data, task.METHODS[method](data).tests["test"]) >= 0.6


def test_labels_that_training_lacks_count_as_misses_and_are_named(caplog):
    tests = {"test": made(10, ["D"], seed=1, classes=(*CLASSES, "yak"))}
    data = task.prepare(made(12, ["A", "B", "C"], seed=0), tests, validation_group="C")
    assert "1 label(s) that training lacks count as misses (10 of 40 images): yak" in caplog.text
    assert 0.65 < top1(data, task.logistic_probe(data).tests["test"]) <= 0.75


def test_a_single_class_is_refused():
    with pytest.raises(ValueError, match="all 12 training images are of one class, 'ant'"):
        task.prepare(made(12, ["A", "B"], seed=0, classes=("ant",)), {})


def test_classes_that_only_validation_has_are_named(caplog):
    train = made(12, ["A", "B", "C"], seed=0)
    train.groups[train.labels == "cow"] = "C"
    task.prepare(train, {}, validation_group="C")
    assert "1 class(es) have validation images alone until the final fit: cow" in caplog.text


def test_methods_are_chosen_by_part_of_their_name():
    assert list(task.choose_methods(["ridge", "k-nn"])) == ["linear probe (ridge)", "k-NN"]
    with pytest.raises(ValueError, match="forest is no method"):
        task.choose_methods(["ridge", "forest"])


def test_the_table_has_a_row_for_each_backbone_method_and_test(data):
    table, found = task.compare_backbones({"trained ViT": data, "pixels": data}, ["ridge", "k-NN"])
    assert table[["backbone", "method", "test"]].apply(tuple, axis=1).tolist() == list(found)
    assert len(table) == 4
    answers = found["pixels", "k-NN", "test"]
    assert table["top-1"].iloc[3] == answers.plain.top(1) == answers.tempered.top(1)


def test_findings_name_the_best_of_each_backbone(data):
    table, _ = task.compare_backbones({"trained ViT": data}, ["ridge"])
    assert f"trained ViT **{table['top-1'].iloc[0]:.3f}**" in report.findings(table)


def test_the_worst_classes_come_with_pictures_of_both_classes(shards):
    images = load_labelled(shards)
    features = Features(np.eye(4, dtype=np.float32)[images.indices], images.labels, images.groups, np.arange(len(images)))
    asked = features.take(np.arange(len(images)))
    asked.features[images.labels == "dog"] = np.eye(4, dtype=np.float32)[images.classes.index("cat")]
    data = task.prepare(features, {"test": asked}, validation_group="A")
    _, found = task.compare_backbones({"trained ViT": data}, ["k-NN"])
    scored = found["trained ViT", "k-NN", "test"]
    (worst,) = report.worst_classes(data, scored, task.ProbeImages(images, {"test": images}), "test", Evaluation(8))
    assert (worst.label, worst.taken_for, worst.images, worst.right, worst.times) == ("dog", "cat", 6, 0, 6)
    colours = [part.float().mean((0, 2, 3)) for part in (worst.missed, worst.own, worst.other)]
    assert (colours[0] - colours[1]).abs().max() < 20  # both are brown dogs
    assert (colours[2] - torch.tensor([90.0, 90, 90])).abs().max() < 20  # grey cats


def test_zero_shot_stands_beside_the_probe_for_labels_that_the_head_knows():
    torch.manual_seed(0)
    vocabulary = Vocabulary(["n02084071", "n02121620"], [6, 6], num_captions=24)  # dog and cat
    network = create_vit("vit_nano8", num_classes=2, image_size=16)
    model = PretrainedModel(network, vocabulary, {"model": "vit_nano8", "image_size": 16}, "cpu")
    head = network.head.weight.detach().numpy()
    labels = np.array(["dog", "cat", "apple"] * 4)
    features = np.concatenate([10 * head, np.zeros((1, head.shape[1]), np.float32)])[np.arange(12) % 3]
    part = Features(features, labels, np.array(list("AB") * 6), np.arange(12))
    data = task.prepare(part, {"test": part}, validation_group="B")
    _, found = task.compare_backbones({"trained ViT": data}, ["ridge"])
    table = report.beside_zero_shot(model, data, {"test": found["trained ViT", "linear probe (ridge)", "test"]})
    assert table[["images", "classes", "zero-shot top-1", "probe top-1"]].iloc[0].tolist() == [8, 2, 1.0, 1.0]


def test_two_test_sets_of_the_same_last_name_stay_two(tmp_path, make_png):
    for folder in ("train", "photos/test", "sketches/test"):
        for name in ("ant", "bee"):
            (tmp_path / folder / name).mkdir(parents=True)
            (tmp_path / folder / name / "1.png").write_bytes(make_png())
    tests = [tmp_path / "photos/test", tmp_path / "sketches/test"]
    found = task.load_images(tmp_path / "train", tests, label_field="label", group_field="vendor")
    assert {name: len(part) for name, part in found.tests.items()} == {"photos/test": 2, "sketches/test": 2}
