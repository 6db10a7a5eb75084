"""Transfer Init: rows of the pre-trained head as the start of a classifier (paper section 4.1)."""

import numpy as np
import pytest
import torch

from catlip_lite.artefacts import write_table
from catlip_lite.labels import Vocabulary
from catlip_lite.models import PretrainedModel, create_vit, zero_shot_scores
from catlip_lite.tasks import transfer_init as task
from catlip_lite.tasks.features import Features

APPLE, DOG, CAT = "n07739125", "n02084071", "n02121620"


@pytest.fixture
def model():
    torch.manual_seed(0)
    vocabulary = Vocabulary([APPLE, DOG, CAT], [50, 30, 20], num_captions=100)
    network = create_vit("vit_nano8", num_classes=3, image_size=16)
    torch.nn.init.normal_(network.head.bias)
    return PretrainedModel(network, vocabulary, {"model": "vit_nano8", "image_size": 16}, "cpu")


def made_features(labels, groups, seed=0):
    rng = np.random.default_rng(seed)
    centres = {label: np.random.default_rng(i).normal(size=192) for i, label in enumerate(sorted(set(labels)))}
    features = np.stack([centres[label] + 0.3 * rng.normal(size=192) for label in labels]).astype(np.float32)
    return Features(features, np.zeros((len(labels), 3), np.float32), np.array(labels), np.array(groups))


@pytest.fixture
def downstream(model):
    matches = task.match_task_labels(["apple", "cat", "dog"], model.vocabulary, min_similarity=1.0)
    first = made_features(["apple", "cat", "dog"] * 3, ["A"] * 9)
    second = made_features(["apple", "cat", "dog"] * 2, ["B"] * 6, seed=1)
    test = made_features(["apple", "cat", "dog"] * 5, ["D"] * 15, seed=2)
    return task.prepare_task(matches, model.vocabulary, [first, second], {"test": test}, validation_share=0.4)


def test_a_label_takes_the_row_of_its_synset(model):
    head = task.transfer_head(model, [np.array([1])], seed=0)
    assert torch.equal(head.weight[0], model.network.head.weight[1])


def test_a_label_of_several_synsets_takes_their_mean(model):
    head = task.transfer_head(model, [np.array([0, 2])], seed=0)
    torch.testing.assert_close(head.weight[0], (model.network.head.weight[0] + model.network.head.weight[2]).detach() / 2)


def test_a_label_without_synset_starts_as_random_init_does(model):
    head = task.transfer_head(model, [np.array([1]), np.array([], int)], seed=3)
    assert torch.equal(head.weight[1], task.random_head(2, 192, seed=3).weight[1])


def test_an_untrained_transfer_head_scores_as_zero_shot_does(model):
    features = np.random.default_rng(0).normal(size=(5, 192)).astype(np.float32)
    with torch.no_grad():
        logits = model.network.head(torch.from_numpy(features)).numpy()
    rows = [np.array([2]), np.array([0, 1])]
    expected = zero_shot_scores(logits, rows, model.vocabulary)
    np.testing.assert_allclose(task.transfer_head(model, rows, seed=0).scores(features), expected, rtol=1e-4, atol=1e-5)


def test_restaurant_kitchen_borrows_two_rows_and_a_stranger_none():
    vocabulary = Vocabulary(["n04081281", "n03619890"], [9, 9], num_captions=20)
    matches = task.match_task_labels(["restaurant_kitchen", "zebra"], vocabulary, min_similarity=1.0)
    assert [len(exact) for exact in matches["exact"]] == [2, 0]


def test_draws_take_the_preferred_images_first(downstream):
    chosen = task.draw(downstream, task.Budget(shots=4), seed=0)
    preferred = (downstream.priority == 0).sum()
    assert [(downstream.priority[chosen] == 0).sum(), len(chosen)] == [preferred, 12]


def test_draws_differ_between_seeds_and_repeat_for_one(downstream):
    draws = [task.draw(downstream, task.Budget(shots=1), seed=s).tolist() for s in (0, 0, 1, 2, 3)]
    assert draws[0] == draws[1]
    assert len({tuple(d) for d in draws}) > 1


def test_fractions_are_of_all_labelled_images(downstream):
    assert len(task.draw(downstream, task.Budget(fraction=0.25), seed=0)) == round(0.25 * len(downstream.pool))


def test_validation_is_set_aside_from_the_preferred_images(downstream):
    assert set(downstream.validation.groups) == {"A"}
    assert len(downstream.validation) + (downstream.priority == 0).sum() == 9
    pool = {row.tobytes() for row in downstream.pool.features}
    assert not pool & {row.tobytes() for row in downstream.validation.features}


def test_without_images_nothing_is_trained(downstream, model):
    curve = task.learning_curve(downstream, model, task.budgets([0], None), seeds=[0])
    assert curve[["images", "lr"]].isna().sum().to_list() == [0, 2]
    assert set(curve["init"]) == {"Transfer Init", "Random Init"}


def test_heads_learn_separable_classes(downstream, model):
    curve = task.learning_curve(downstream, model, task.budgets([2], None), seeds=[0])
    assert curve.set_index("init").loc[["Transfer Init", "Random Init", "class means"], "top-1"].to_list() == [1, 1, 1]


def test_a_checked_table_replaces_the_automatic_matches(tmp_path, model):
    import pandas as pd

    path = write_table(pd.DataFrame({"label": ["apple"], "matches": [[DOG]]}), tmp_path / "m.parquet", {})
    found = task.match_task_labels(["apple"], model.vocabulary, 1.0, path)
    assert found["matches"].map(list).to_list() == [[DOG]]
    with pytest.raises(ValueError, match="lacks 1 label.*zebra"):
        task.match_task_labels(["zebra"], model.vocabulary, 1.0, path)


def test_shots_and_fractions_exclude_each_other():
    with pytest.raises(ValueError, match="either shots .* or fractions"):
        task.budgets([1], [0.5])


def test_labels_that_wordnet_does_not_know_are_refused_by_name(model):
    with pytest.raises(ValueError, match="labels of the task: WordNet has no noun for 1 of 2 labels .qwertz."):
        task.match_task_labels(["dog", "qwertz"], model.vocabulary, 1.0)
