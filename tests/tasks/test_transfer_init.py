"""The task of notebook 06: what it consists of, and which labelled images each size draws (paper section 4.1)."""

import numpy as np
import pytest
from transfer_tasks import made_part, made_task

from catlip_lite.data.labelled import load_labelled
from catlip_lite.labels import Vocabulary
from catlip_lite.tasks import transfer_init as task
from catlip_lite.tasks.features import Features


@pytest.fixture
def downstream(tmp_path, make_png):
    return made_task(tmp_path, make_png)


def test_parts_hold_features_and_images_of_the_same_pictures(tmp_path, make_png):
    folder = tmp_path / "animals"
    for name, content in (("ant/1", make_png()), ("ant/2", b"broken"), ("bee/1", make_png())):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / f"{name}.png").write_bytes(content)
    images = load_labelled(folder)
    features = Features(np.zeros((2, 4), np.float32), np.array(["ant", "bee"]), np.array(["", ""]), np.array([0, 2]))
    part = task.Part("animals", images.take(features.rows), features)
    assert part.images.labels.tolist() == part.features.labels.tolist() == ["ant", "bee"]
    assert part.take([1]).images.labels.tolist() == part.take([1]).features.labels.tolist() == ["bee"]


def test_labels_that_one_side_lacks_are_told_and_left_out(tmp_path, make_png, caplog):
    labelled = made_part(tmp_path / "a", make_png, {"ant": 1, "bee": 1, "cat": 1})
    test = made_part(tmp_path / "b", make_png, {"bee": 1, "cat": 1, "dog": 1})
    assert task.task_labels([labelled], [test]) == ["bee", "cat"]
    assert "1 label(s) that only b has, whose images are left out: dog" in caplog.text
    assert "1 label(s) that only the labelled images have, which are left out: ant" in caplog.text


def test_fewer_than_two_labels_in_common_are_refused(tmp_path, make_png):
    labelled = made_part(tmp_path / "a", make_png, {"ant": 1, "bee": 1})
    test = made_part(tmp_path / "b", make_png, {"bee": 1, "cat": 1})
    with pytest.raises(ValueError, match=r"have 1 label.s. in common: a task needs two"):
        task.task_labels([labelled], [test])


def test_labels_that_wordnet_does_not_know_are_refused_by_name_unless_allowed():
    vocabulary = Vocabulary(["n02084071"], [5], num_captions=10)
    with pytest.raises(ValueError, match="WordNet has no noun for 1 of 2 labels .qwertz."):
        task.map_labels(["dog", "qwertz"], vocabulary)
    _, borrowed = task.map_labels(["dog", "qwertz"], vocabulary, allow_unknown=True)
    assert [found.kind for found in borrowed] == ["own", "none"]


def test_a_corrected_mapping_has_the_last_word(tmp_path):
    vocabulary = Vocabulary(["n02084071", "n07739125"], [5, 5], num_captions=10)
    path = tmp_path / "mapping.csv"
    path.write_text("label,wnids\ndog,n07739125\n")
    _, (found, _) = task.map_labels(["dog", "apple"], vocabulary, label_mapping=path)
    assert found.rows.tolist() == [1]


def test_validation_is_set_aside_from_the_preferred_images(downstream):
    assert set(downstream.validation.features.groups) == {"A"}
    assert len(downstream.validation) + (downstream.priority == 0).sum() == 9
    pool = {row.tobytes() for row in downstream.pool.features.features}
    assert not pool & {row.tobytes() for row in downstream.validation.features.features}


def test_validation_is_capped(downstream, tmp_path, make_png, monkeypatch):
    monkeypatch.setattr(task, "MOST_VALIDATION", 10)
    part = made_part(tmp_path / "many", make_png, {"apple": 50, "dog": 50})
    meant, borrowed = task.map_labels(["apple", "dog"], Vocabulary(["n02084071"], [5], num_captions=10))
    assert 3 <= len(task.prepare_task(meant, borrowed, [part], [part], 0.5).validation) <= 20


def test_an_empty_part_is_refused_with_all_sizes(tmp_path, make_png):
    part = made_part(tmp_path / "a", make_png, {"apple": 2, "dog": 2})
    meant, borrowed = task.map_labels(["apple", "dog"], Vocabulary(["n02084071"], [5], num_captions=10))
    with pytest.raises(ValueError, match=r"tests \[0\]: none may be empty"):
        task.prepare_task(meant, borrowed, [part], [part.take([])], 0.5)


def test_fewer_images_than_labels_are_told(tmp_path, make_png, caplog):
    part = made_part(tmp_path / "a", make_png, {"apple": 2, "dog": 1})
    meant, borrowed = task.map_labels(["apple", "dog"], Vocabulary(["n02084071"], [5], num_captions=10))
    share = np.sort(np.random.default_rng(0).random(3))[1] + 1e-6  # two of three validate
    task.prepare_task(meant, borrowed, [part], [part], share)
    assert "1 labelled images for 2 labels: some labels have none to learn from" in caplog.text


def test_draws_take_the_preferred_images_first(downstream):
    chosen = task.draw(downstream, task.Budget(shots=2), seed=0)
    targets = downstream.targets(downstream.pool)
    for label in range(len(downstream)):
        mine, preferred = chosen[targets[chosen] == label], ((targets == label) & (downstream.priority == 0)).sum()
        assert (downstream.priority[mine] == 0).sum() == min(2, preferred)


def test_draws_in_images_a_class_are_even(downstream):
    chosen = task.draw(downstream, task.Budget(shots=2), seed=1)
    assert np.bincount(downstream.targets(downstream.pool)[chosen]).tolist() == [2, 2, 2]


def test_draws_differ_between_seeds_and_repeat_for_one(downstream):
    draws = [task.draw(downstream, task.Budget(shots=1), seed=s).tolist() for s in (0, 0, 1, 2, 3)]
    assert draws[0] == draws[1]
    assert len({tuple(d) for d in draws}) > 1


@pytest.mark.parametrize("sizes", [task.budgets([1, 2, 4], None), task.budgets(None, [0.1, 0.5, 1.0])])
def test_a_larger_draw_holds_the_smaller_ones_of_its_seed(downstream, sizes):
    small, middle, large = (set(task.draw(downstream, size, seed=5).tolist()) for size in sizes)
    assert small < middle < large


def test_fractions_are_of_all_labelled_images(downstream):
    assert len(task.draw(downstream, task.Budget(fraction=0.25), seed=0)) == round(0.25 * len(downstream.pool))


def test_a_size_given_twice_counts_once():
    assert len(task.budgets([1, 1], [0.5, 0.5])) == 2


def test_sizes_are_named_as_a_reader_says_them():
    sizes = task.budgets([5, 0], [0.0001, 0.01])
    assert [size.name for size in sizes] == ["0 a class", "5 a class", "0.01 %", "1 %"]


@pytest.mark.parametrize(("shots", "fractions"), [(None, None), ([-1], None), ([0.5], None), (None, [1.5])])
def test_impossible_sizes_are_refused(shots, fractions):
    with pytest.raises(ValueError, match=r"shots|fractions"):
        task.budgets(shots, fractions)
