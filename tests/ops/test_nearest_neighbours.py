"""Exact neighbours, against distances that are all written out."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from opsin.errors import InputError
from opsin.ops.nearest_neighbours import nearest_neighbours


def plain(queries: np.ndarray, gallery: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """All distances in float64, sorted; of equal ones the first."""
    distances = np.sqrt(((queries[:, None].astype(np.float64) - gallery[None].astype(np.float64)) ** 2).sum(axis=2))
    order = np.argsort(distances, axis=1, kind="stable")[:, :k]
    return np.take_along_axis(distances, order, axis=1), order


@pytest.mark.parametrize(("count", "k"), [(1, 1), (5, 3), (1024, 7), (2500, 30), (2500, 2500), (40_000, 4)])
def test_equal_to_all_distances_sorted(count: int, k: int) -> None:
    random = np.random.RandomState(count + k)
    # far from the origin, where distances by a product of float32 are wrong in their third digit
    gallery, queries = (random.randn(n, 6).astype(np.float32) + 100 for n in (count, 9))
    found = nearest_neighbours(torch.from_numpy(queries), torch.from_numpy(gallery), k)
    distances, places = plain(queries, gallery, k)
    np.testing.assert_allclose(found.distances.numpy(), distances, rtol=1e-5, atol=1e-5)
    assert (found.places.numpy() == places).mean() > 0.999  # rounding may exchange two of thousands


def test_more_queries_than_are_compared_at_once() -> None:
    vectors = torch.from_numpy(np.random.RandomState(0).randn(2300, 4).astype(np.float32))
    found = nearest_neighbours(vectors, vectors, 3, leave_out=torch.arange(2300))
    distances, places = plain(vectors.numpy(), vectors.numpy(), 4)
    assert (places[:, 0] == np.arange(2300)).all()
    np.testing.assert_allclose(found.distances.numpy(), distances[:, 1:], rtol=1e-4)
    assert (found.places.numpy() == places[:, 1:]).all()


def test_equal_distances_come_in_the_order_of_their_places() -> None:
    gallery = torch.zeros(70, 3)
    gallery[50:] = 1
    found = nearest_neighbours(torch.zeros(1, 3), gallery, 9)
    assert found.places.tolist() == [list(range(9))]
    assert found.distances.tolist() == [[0.0] * 9]


def test_cosine_is_one_minus_the_cosine() -> None:
    gallery = torch.tensor([[3.0, 0.0], [1.0, 1.0], [0.0, 5.0], [-2.0, 0.0]])
    found = nearest_neighbours(torch.tensor([[0.5, 0.0]]), gallery, 4, measure="cosine")
    assert found.places.tolist() == [[0, 1, 2, 3]]
    assert found.distances[0].tolist() == pytest.approx([0, 1 - 2**-0.5, 1, 2], abs=1e-6)


def test_fewer_than_asked_for_are_infinitely_far() -> None:
    found = nearest_neighbours(torch.zeros(2, 3), torch.ones(2, 3), 4, leave_out=torch.tensor([0, -1]))
    assert found.places[:, 0].tolist() == [1, 0]
    assert torch.isfinite(found.distances).sum(dim=1).tolist() == [1, 2]
    assert torch.isinf(nearest_neighbours(torch.zeros(1, 3), torch.zeros(0, 3), 2).distances).all()
    assert nearest_neighbours(torch.zeros(0, 3), torch.zeros(4, 3), 2).places.shape == (0, 2)


def test_bad_vectors_are_refused() -> None:
    broken = torch.zeros(4, 2)
    broken[2, 1] = torch.nan
    with pytest.raises(InputError, match="1 of 4 vectors of the gallery are not finite, the first is number 2"):
        nearest_neighbours(torch.zeros(1, 2), broken, 1)
    with pytest.raises(InputError, match="queries have 3 numbers and the gallery 2"):
        nearest_neighbours(torch.zeros(1, 3), torch.zeros(1, 2), 1)
    with pytest.raises(InputError, match="vectors"):
        nearest_neighbours(torch.zeros(3), torch.zeros(1, 3), 1)
