"""Nearest neighbours, whole and in parts."""

import numpy as np

from catlip_lite.transfer import neighbours
from catlip_lite.transfer.neighbours import nearest, neighbour_scores


def made(images, seed):
    return np.random.default_rng(seed).normal(size=(images, 6)).astype(np.float32)


def test_the_nearest_are_those_of_highest_cosine_in_order(monkeypatch):
    monkeypatch.setitem(neighbours.SIMILARITIES_AT_ONCE, "cpu", 7 * 5)
    monkeypatch.setattr(neighbours, "QUERIES_AT_ONCE", 5)
    reference, queries = made(40, 0), made(13, 1)
    cosines, rows = nearest(reference, queries, 6)
    similarity = (queries / np.linalg.norm(queries, axis=1)[:, None]) @ (
        reference / np.linalg.norm(reference, axis=1)[:, None]
    ).T
    np.testing.assert_array_equal(rows, np.argsort(-similarity, axis=1)[:, :6])
    np.testing.assert_allclose(cosines, np.take_along_axis(similarity, rows, 1), rtol=1e-5)


def test_fewer_references_than_asked_for_are_all_given():
    _, rows = nearest(made(3, 0), made(2, 1), 10)
    assert np.sort(rows).tolist() == [[0, 1, 2]] * 2


def test_an_image_of_zeros_is_no_nearer_to_one_than_to_another():
    cosines, _ = nearest(made(3, 0), np.zeros((1, 6), np.float32), 3)
    assert cosines.tolist() == [[0, 0, 0]]


def test_softmax_of_scores_is_the_share_of_the_vote():
    scores = neighbour_scores(np.array([[0.9, 0.8, 0.7]], np.float32), np.array([[1, 0, 1]]), 3, 3)
    votes = np.exp(np.array([0.8, 0.9, 0.7]) / 0.05)
    np.testing.assert_allclose(np.exp(scores[0, :2]), [votes[0], votes[1] + votes[2]], rtol=1e-4)


def test_classes_of_further_neighbours_rank_below_all_votes_and_the_rest_never():
    scores = neighbour_scores(np.array([[-0.9, -0.95, -0.97]], np.float32), np.array([[2, 0, 3]]), 1, 5)[0]
    assert scores[2] > scores[0] > scores[3]
    assert np.isneginf(scores[[1, 4]]).all()
