"""Retrieval against pytorch-metric-learning, clusters against scikit-learn, and both by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.metrics import normalized_mutual_info_score

from opsin.embed.clusters import cluster, mutual_information
from opsin.embed.retrieval import retrieve, search_by, search_faiss
from opsin.errors import InputError


def make_embeddings(seed: int = 0) -> tuple[torch.Tensor, np.ndarray]:
    """400 of 60 identities of 1 to 12 images each, in disorder."""
    random = np.random.RandomState(seed)
    labels = np.repeat(np.arange(60), random.randint(1, 13, 60))
    random.shuffle(labels)
    centres = random.randn(60, 8)
    return torch.from_numpy((centres[labels] + 0.8 * random.randn(len(labels), 8)).astype(np.float32)), labels


def test_equal_to_pytorch_metric_learning() -> None:
    calculator = pytest.importorskip("pytorch_metric_learning.utils.accuracy_calculator").AccuracyCalculator
    embeddings, labels = make_embeddings()
    wanted = ("precision_at_1", "r_precision", "mean_average_precision_at_r")
    theirs = calculator(include=wanted, k="max_bin_count").get_accuracy(embeddings, torch.from_numpy(labels))
    metrics = retrieve(embeddings, labels).metrics()
    assert metrics["recall@1"] == pytest.approx(theirs["precision_at_1"], abs=1e-9)
    assert metrics["r_precision"] == pytest.approx(theirs["r_precision"], abs=1e-9)
    assert metrics["map@r"] == pytest.approx(theirs["mean_average_precision_at_r"], abs=1e-9)


@pytest.mark.parametrize("search", ["faiss", "distances"])
def test_other_searches_find_the_same(search: str) -> None:
    if search == "faiss":
        pytest.importorskip("faiss")
    embeddings, labels = make_embeddings(1)
    chosen = search_faiss if search == "faiss" else search_by(torch.cdist)
    one, two = retrieve(embeddings, labels), retrieve(embeddings, labels, search=chosen)
    assert one.metrics() == two.metrics()
    assert (one.nearest == two.nearest).all()
    np.testing.assert_allclose(one.distances, two.distances, atol=1e-4)
    others = retrieve(embeddings[:200], labels[:200], embeddings[200:], labels[200:], search=chosen)
    assert others.metrics() == retrieve(embeddings[:200], labels[:200], embeddings[200:], labels[200:]).metrics()


def test_a_scene_worked_by_hand() -> None:
    # on a line: a0 b1 a2 a4 b7 c20
    embeddings = torch.tensor([[0.0], [1.0], [2.0], [4.0], [7.0], [20.0]])
    found = retrieve(embeddings, np.array([0, 1, 0, 0, 1, 2]))
    assert found.queries.tolist() == [0, 1, 2, 3, 4]
    assert found.lone == 1
    # nearest of each: b1; a0 (as near as a2, and first); b1; a2; a4
    assert found.nearest.tolist() == [1, 0, 1, 2, 3]
    assert found.right.tolist() == [False, False, False, True, False]
    # R = 2 for a: of a0 b1 a2; of a2 b1 a0 (as near as a4); of a4 a2 and b1, as near as b7: 1/2 each. R = 1 for b: 0
    assert found.r_precision.tolist() == [0.5, 0, 0.5, 0.5, 0]
    assert found.average_precision.tolist() == [0.25, 0, 0.25, 0.5, 0]
    # the first right one of each: rank 2, b1 sees a0 a2 a4 and then b7 at 4, 2, 1, b7 sees a4 a2 b1 at 3
    assert found.matches[:4].tolist() == [0.2, 0.6, 0.8, 1.0]


def test_those_of_no_identity_are_answers_and_no_queries() -> None:
    found = retrieve(torch.tensor([[0.0], [1.0], [5.0], [0.1]]), np.array([0, 0, 1, -1]))
    assert found.queries.tolist() == [0, 1]
    assert found.nearest.tolist() == [3, 3]
    assert found.lone == 1
    assert found.metrics()["recall@2"] == 1
    with pytest.raises(InputError, match="no image has another of its identity"):
        retrieve(torch.zeros(2, 1), np.array([0, 1]))


def test_mutual_information_is_scikit_learns() -> None:
    random = np.random.RandomState(0)
    for groups in (1, 2, 30):
        labels, clusters = random.randint(0, groups, 200), random.randint(3, 9, 200)
        expected = normalized_mutual_info_score(labels, clusters)
        assert mutual_information(labels, clusters) == pytest.approx(expected, abs=1e-12)
    assert mutual_information(np.zeros(4, np.int64), np.zeros(4, np.int64)) == 1
    assert mutual_information(np.array([0, 1, 2]), np.array([5, 3, 9])) == pytest.approx(1)


def test_clusters_that_lie_apart_are_found() -> None:
    random = np.random.RandomState(1)
    labels = random.randint(0, 7, 300)
    embeddings = torch.from_numpy(np.eye(7)[labels] * 20 + random.randn(300, 7))
    assert mutual_information(labels, cluster(embeddings, 7)) == pytest.approx(1)
    assert (cluster(embeddings, 7, seed=3) == cluster(embeddings, 7, seed=3)).all()
    assert (cluster(torch.zeros(5, 2), 2) == 0).all()  # nobody is near the second
    with pytest.raises(InputError, match="8 clusters of 5"):
        cluster(torch.zeros(5, 2), 8)
