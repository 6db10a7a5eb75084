"""A downstream task: its classes, what they borrow, which images validate and which are drawn (paper section 4)."""

import numpy as np
import pytest
import torch

from catlip_lite.data.labelled import load_labelled
from catlip_lite.data.shards import Sample, write_shards
from catlip_lite.models import fit_scale, random_head
from catlip_lite.transfer.task import KINDS, RANDOM, Part, draw, embedded, open_task, split_validation


@pytest.fixture
def folders(tmp_path, make_png):
    """`make(name, {label: images})`: a folder of class folders, by its address."""

    def make(name, counts):
        for label, count in counts.items():
            (tmp_path / name / label).mkdir(parents=True)
            for i in range(count):
                (tmp_path / name / label / f"{i}.png").write_bytes(make_png((i, 0, 0)))
        return str(tmp_path / name)

    return make


@pytest.fixture
def lists(tmp_path, make_png):
    """`make(name, [labels of an image, …])`: shards of images with lists of labels."""

    def make(name, labels):
        samples = [Sample("", make_png(), "png", "", {"uid": f"u{i}", "label": these}) for i, these in enumerate(labels)]
        write_shards(samples, tmp_path / name, samples_per_shard=16)
        return str(tmp_path / name)

    return make


# --- classes ------------------------------------------------------------------------------------------------------------------


def test_the_classes_are_those_that_the_labelled_images_and_the_first_test_have(model, folders, caplog):
    labelled = [folders("a", {"apple": 2, "cat": 1}), folders("b", {"dog": 3, "banana": 1})]
    tests = [folders("photos", {"apple": 1, "dog": 2, "zebra": 1}), folders("sketches", {"dog": 1, "banana": 1})]
    task = open_task(model, labelled, tests)
    assert task.classes == ["apple", "dog"]
    assert "1 class(es) that only photos has are left out: zebra" in caplog.text
    assert "2 class(es) that only the labelled images have are left out: banana, cat" in caplog.text
    assert (task.labelled.indices.tolist(), task.source.tolist()) == ([0, 0, 1, 1, 1], [0, 0, 1, 1, 1])
    assert task.place.tolist() == [0, 1, 4, 5, 6]
    assert {name: part.indices.tolist() for name, part in task.tests.items()} == {"photos": [0, 1, 1], "sketches": [1]}


def test_of_images_with_several_labels_all_stay_with_the_labels_that_are_classes(model, lists, caplog):
    labelled = lists("train", [["apple", "cat"], ["banana"], ["apple", "banana"], ["dog"]])
    tests = [lists("test", [["dog", "apple"], ["apple", "cat"]]), lists("more", [["dog"], []])]
    task = open_task(model, labelled, tests, multi_label=True)
    assert task.classes == ["apple", "cat", "dog"]
    assert "only the labelled images have are left out: banana" in caplog.text
    assert (len(task.labelled), task.labelled.counts.tolist(), len(task.source)) == (4, [2, 0, 1, 1], 4)
    assert [part.classes for part in task.tests.values()] == [task.classes] * 2
    assert task.tests["more"].indices.tolist() == [2]


def test_boxes_follow_the_classes(model, scenes):
    tests = [scenes("test", 16), scenes("rare", 16, without="banana")]
    task = open_task(model, scenes("train", 16), tests, multi_label=True)
    assert task.classes == ["apple", "banana", "dog"]
    for address, part in zip(tests, task.tests.values(), strict=True):
        own = load_labelled(address)
        names = [np.array(images.classes)[images.boxes.class_index].tolist() for images in (own, part)]
        assert names[0] == names[1]


def test_fewer_than_two_classes_in_common_are_refused(model, folders):
    labelled, test = folders("a", {"apple": 1, "dog": 1}), folders("b", {"dog": 1, "cat": 1})
    with pytest.raises(ValueError, match=r"such as apple, dog.* and b .*have 1 class.es. in common: a task needs two"):
        open_task(model, labelled, test)


def test_classes_that_differ_in_case_alone_are_told_before_they_are_left_out(model, folders):
    labelled, test = folders("a", {"apple": 1, "Dog": 1, "cat": 1}), folders("b", {"apple": 1, "dog": 1, "cat": 1})
    with pytest.raises(ValueError, match="the labelled images and b: the classes 'Dog' and 'dog' differ only in spelling"):
        open_task(model, labelled, test)


def test_a_further_test_without_any_class_is_refused(model, folders):
    parts = folders("a", {"apple": 1, "dog": 1}), folders("b", {"apple": 1, "dog": 1}), folders("c", {"zebra": 1, "yak": 1})
    with pytest.raises(ValueError, match="c has no image of the task's 2 classes, its own are such as yak, zebra"):
        open_task(model, parts[0], parts[1:])


def test_images_of_the_other_kind_are_refused(model, folders, lists):
    one, several = folders("one", {"apple": 1, "dog": 1}), lists("several", [["apple", "dog"]])
    with pytest.raises(ValueError, match=r"lists of labels .* use notebook 10"):
        open_task(model, one, several)
    with pytest.raises(ValueError, match=r"one has one label an image: .* use notebook 07"):
        open_task(model, one, one, multi_label=True)


def test_a_task_without_a_test_is_refused(model, folders):
    with pytest.raises(ValueError, match="no test set is given"):
        open_task(model, folders("a", {"apple": 1, "dog": 1}), [])


def test_tests_of_one_name_in_different_folders_stay_two(model, folders):
    addresses = [folders(name, {"apple": 1, "dog": 1}) for name in ("train", "photos/test", "sketches/test")]
    assert list(open_task(model, addresses[0], addresses[1:]).tests) == ["photos/test", "sketches/test"]


def test_tars_of_one_list_are_one_source(model, shards):
    task = open_task(model, sorted(map(str, shards.glob("*.tar"))), str(shards))
    assert (len(task.sources), len(task.labelled)) == (1, 24)


# --- what classes borrow ------------------------------------------------------------------------------------------------------


def test_labels_that_wordnet_does_not_know_are_refused_by_name_unless_allowed(model, folders):
    images = folders("a", {"dog": 1, "qwertz": 1})
    with pytest.raises(ValueError, match="WordNet has no noun for 1 of 2 labels .qwertz."):
        open_task(model, images, images)
    task = open_task(model, images, images, allow_unknown=True)
    assert [found.kind for found in task.borrowed] == ["own", "none"]


def test_a_corrected_mapping_has_the_last_word(model, folders, tmp_path):
    (tmp_path / "mapping.csv").write_text("label,wnids\ndog,n07739125\n")
    images = folders("a", {"cat": 1, "dog": 1})
    task = open_task(model, images, images, label_mapping=tmp_path / "mapping.csv")
    assert task.borrowed[1].rows.tolist() == [0]


def test_transfer_init_starts_from_the_synsets_rows_and_random_init_does_not(model, folders):
    images = folders("a", {"cat": 1, "dog": 1})
    task, (row,) = open_task(model, images, images), model.vocabulary.encode(["n02084071"])
    assert torch.equal(task.head().weight[1], model.network.head.weight[row])
    assert torch.equal(task.head(RANDOM, seed=3).weight, random_head(2, 192, seed=3).weight)


def test_a_fitted_scale_changes_confidence_and_not_the_order(model, shards):
    task = open_task(model, str(shards), str(shards))
    part, plain = embedded(model, task.labelled), task.head()
    fitted, scale = task.head(scale="fitted", train=part), fit_scale(plain, part.features, part.targets)
    assert scale != 1
    torch.testing.assert_close(fitted.weight, plain.weight * scale)
    torch.testing.assert_close(fitted.bias, plain.bias * scale)
    torch.testing.assert_close(task.head(scale="fitted", train=part.take([])).weight, plain.weight)


def test_tables_tell_what_the_parts_hold_and_what_labels_borrow(model, folders):
    labelled = [folders("a", {"dog": 2, "qwertz": 1}), folders("b", {"tabby": 3, "dog": 1})]
    test = folders("t", {"dog": 1, "qwertz": 1, "tabby": 2})
    task = open_task(model, labelled, test, allow_unknown=True, borrow="similar", borrow_similarity=0.3)
    summary = task.summary()[["use", "name", "images", "classes"]].to_numpy().tolist()
    assert summary == [["labelled", "a", 3, 2], ["labelled", "b", 4, 2], ["test", "t", 4, 3]]
    found = task.borrowing().set_index("borrows")[["labels", "such as"]]
    assert found.loc["own synset"].tolist() == [1, "dog"]
    assert found.loc["similar synsets"].tolist() == [1, "tabby"]
    assert found.loc["none: starts at random"].tolist() == [1, "qwertz"]


def test_of_a_clip_model_nothing_is_borrowed(clip_model, folders):
    images = folders("a", {"cat": 2, "dog": 1})
    task = open_task(clip_model, images, images)
    assert [(found.kind, len(found.rows)) for found in task.borrowed] == [("none", 0)] * 2
    table = task.borrowing().set_index("borrows")
    assert table["labels"].to_dict() == dict.fromkeys(KINDS.values(), 0) | {KINDS["none"]: 2}
    assert table.loc[KINDS["none"], ["captions a label (median)", "such as"]].tolist() == [0, "cat, dog"]
    assert torch.equal(task.head(RANDOM, seed=3).weight, random_head(2, 192, seed=3).weight)
    with pytest.raises(ValueError, match="a clip model has no head with rows of synsets to borrow: start at random"):
        task.head()


def test_a_clip_models_features_are_probed_like_any_others(clip_model, shards):
    task = open_task(clip_model, str(shards), str(shards))
    part = embedded(clip_model, task.labelled)
    np.testing.assert_allclose(part.features[0], clip_model.embed([task.labelled.files.read(0)])[0], atol=1e-5)
    assert part.features.shape == (24, 192)


# --- as a backbone sees it ----------------------------------------------------------------------------------------------------


def test_a_part_holds_features_and_images_of_the_same_pictures(model, tmp_path, make_png):
    blue = make_png((0, 0, 200), (8, 8))
    for name, content in (("ant/1", make_png()), ("ant/2", b"broken"), ("bee/1", blue)):
        (tmp_path / "animals" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "animals" / f"{name}.png").write_bytes(content)
    part = embedded(model, load_labelled(tmp_path / "animals"))
    assert (part.rows.tolist(), part.images.labels.tolist(), part.targets.tolist()) == ([0, 2], ["ant", "bee"], [0, 1])
    np.testing.assert_allclose(part.features[1], model.embed([blue])[0], atol=1e-5)
    last = part.take(np.array([False, True]))
    assert (last.rows.tolist(), last.images.labels.tolist(), len(last)) == ([2], ["bee"], 1)
    assert isinstance(last, Part)


# --- which images validate ----------------------------------------------------------------------------------------------------


def test_validation_is_one_group_which_must_be_among_the_images(shards):
    images = load_labelled(shards)
    np.testing.assert_array_equal(split_validation(images, "B"), images.groups == "B")
    with pytest.raises(ValueError, match="validation_group='Z'.*groups are A, B"):
        split_validation(images, "Z")


def test_a_random_split_takes_a_share_of_each_class_and_leaves_each_something_to_train_on(folders):
    images = load_labelled(folders("a", {"ant": 3, "bee": 10, "cow": 1}))
    assert np.bincount(images.indices[split_validation(images)], minlength=3).tolist() == [1, 2, 0]


def test_of_many_images_only_so_many_validate(folders):
    images = load_labelled(folders("a", {"ant": 50, "bee": 50}))
    assert split_validation(images, share=0.5, most=10).sum() == 10


def test_one_image_a_class_leaves_nothing_to_validate_on(folders):
    with pytest.raises(ValueError, match="none of the 3 classes has more than one image"):
        split_validation(load_labelled(folders("a", dict.fromkeys(("ant", "bee", "cow"), 1))))


# --- which images are drawn ---------------------------------------------------------------------------------------------------

TARGETS, SOURCE = np.tile([0, 1, 2], 20), np.repeat([0, 1], [9, 51])  # three images a class of the first source


@pytest.mark.parametrize("shots", [2, 5])
def test_draws_are_even_and_take_the_preferred_images_first(shots):
    chosen = draw(TARGETS, SOURCE, 0, shots=shots)
    assert np.bincount(TARGETS[chosen]).tolist() == [shots] * 3
    assert np.bincount(TARGETS[chosen][SOURCE[chosen] == 0]).tolist() == [min(shots, 3)] * 3


def test_a_class_with_fewer_images_gives_all_it_has():
    targets = np.array([0, 0, 0, 0, 1])
    assert np.bincount(targets[draw(targets, np.zeros(5, int), 0, shots=3)]).tolist() == [3, 1]


@pytest.mark.parametrize("sizes", [[{"shots": n} for n in (1, 2, 4)], [{"fraction": f} for f in (0.1, 0.5, 1.0)]], ids=str)
def test_a_larger_draw_holds_the_smaller_ones_of_its_seed(sizes):
    small, middle, large = (set(draw(TARGETS, SOURCE, 5, **size).tolist()) for size in sizes)
    assert small < middle < large


def test_draws_differ_between_seeds_and_repeat_for_one():
    draws = [tuple(draw(TARGETS, SOURCE, seed, shots=1)) for seed in (0, 0, 1, 2, 3)]
    assert draws[0] == draws[1]
    assert len(set(draws)) > 1


def test_fractions_are_of_all_labelled_images_and_nothing_of_none():
    assert [len(draw(TARGETS, SOURCE, 0, fraction=f)) for f in (0.0, 0.25, 1.0)] == [0, 15, 60]
    assert len(draw(TARGETS, SOURCE, 0, shots=0)) == 0
