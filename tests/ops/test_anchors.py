"""Anchors: torchvision's grid, shapes worked by hand, and clusters that are there."""

from __future__ import annotations

import math

import pytest
import torch
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.image_list import ImageList

from opsin.errors import InputError
from opsin.ops import anchors, box_area, cell_anchors, grid_anchors, kmeans_anchors


def test_shapes_by_hand() -> None:
    shapes = cell_anchors([16, 32], [0.25, 1, 4])
    sides = (shapes[:, 2:] - shapes[:, :2]).tolist()
    assert sides == [[32, 8], [16, 16], [8, 32], [64, 16], [32, 32], [16, 64]]  # height / width: 1 / 4 is wide
    assert box_area(shapes).tolist() == [256] * 3 + [1024] * 3
    assert (shapes[:, :2] == -shapes[:, 2:]).all()


def test_grid_by_hand() -> None:
    grid = grid_anchors(cell_anchors([2], [1]), (2, 3), (10, 20))
    centres = ((grid[:, :2] + grid[:, 2:]) / 2).tolist()
    assert centres == [[10, 5], [30, 5], [50, 5], [10, 15], [30, 15], [50, 15]]  # x first; across before down
    assert grid_anchors(cell_anchors([2], [1, 1]), (0, 3), 8).shape == (0, 4)


def test_is_torchvisions_grid() -> None:
    scales, ratios = (32.0, 64.0), (0.5, 1.0, 2.0)
    generator = AnchorGenerator((scales,), (ratios,))
    images = ImageList(torch.zeros(1, 3, 64, 96), [(64, 96)])
    (expected,) = generator(images, [torch.zeros(1, 8, 4, 6)])
    # torchvision puts ratios first, rounds to whole pixels and centres a cell on its corner
    shapes = cell_anchors(scales, ratios).view(2, 3, 4).transpose(0, 1).reshape(-1, 4)
    torch.testing.assert_close(grid_anchors(shapes.round(), (4, 6), 16, offset=0), expected)


class TestClusters:
    def test_finds_the_shapes_that_are_there(self) -> None:
        generator = torch.Generator().manual_seed(0)
        shapes = torch.tensor([[10.0, 10], [20, 60], [90, 30], [200, 150]])
        which = torch.randint(0, 4, (2000,), generator=generator)
        sizes = shapes[which] * torch.exp(torch.randn(2000, 2, generator=generator) * 0.05)
        found = kmeans_anchors(sizes, 4)
        torch.testing.assert_close(found.sizes, shapes[[0, 1, 2, 3]], rtol=0.02, atol=0)
        assert found.counts.tolist() == torch.bincount(which).tolist()
        assert found.mean_iou > 0.9

    def test_by_hand(self) -> None:
        sizes = torch.tensor([[10.0, 10], [10, 12], [10, 14], [100, 100]])
        for centre in ("mean", "median"):
            found = kmeans_anchors(sizes, 2, centre=centre)
            assert found.sizes.tolist() == [[10, 12], [100, 100]]
            assert found.mean_iou == pytest.approx((10 / 12 + 1 + 12 / 14 + 1) / 4)
            assert found.counts.tolist() == [3, 1]
            everything = kmeans_anchors(sizes, 4, centre=centre)
            assert everything.mean_iou == 1 and everything.counts.tolist() == [1] * 4

    def test_medians_fit_sizes_of_several_octaves_better(self) -> None:
        sizes = torch.exp(torch.randn(3000, 2, generator=torch.Generator().manual_seed(1)) + 4)
        assert kmeans_anchors(sizes, 5).mean_iou > kmeans_anchors(sizes, 5, centre="mean").mean_iou + 0.005

    def test_the_centre_of_one_cluster(self) -> None:
        sizes = torch.tensor([[1.0, 40], [2, 30], [6, 20]])
        generator = torch.Generator().manual_seed(0)
        sizes = sizes * (1 + 0.01 * torch.rand(3, 2, generator=generator))
        nearest, counts = torch.zeros(3, dtype=torch.int64), torch.tensor([3, 0])
        medians, means = anchors._Medians(sizes)(nearest, counts), anchors._Means(sizes)(nearest, counts)
        assert torch.equal(medians[0], sizes.median(dim=0).values)
        torch.testing.assert_close(means[0], sizes.mean(dim=0))
        assert medians.isfinite().all() and means.isfinite().all()

    def test_more_anchors_fit_better(self) -> None:
        sizes = torch.exp(torch.randn(3000, 2, generator=torch.Generator().manual_seed(1)) + 4)
        fits = [kmeans_anchors(sizes, k).mean_iou for k in (1, 2, 4, 8)]
        assert fits == sorted(fits)

    def test_the_same_seed_gives_the_same(self) -> None:
        sizes = torch.rand(500, 2, generator=torch.Generator().manual_seed(1)) + 0.1
        one, other = kmeans_anchors(sizes, 5, seed=3), kmeans_anchors(sizes, 5, seed=3)
        assert torch.equal(one.sizes, other.sizes)

    def test_no_cluster_stays_empty(self) -> None:
        """Many equal boxes and few others: k-means++ takes care, and what empties is filled again."""
        sizes = torch.cat(
            [torch.full((500, 2), 10.0), torch.rand(20, 2, generator=torch.Generator().manual_seed(0)) * 300]
        )
        for seed in range(10):
            found = kmeans_anchors(sizes, 8, seed=seed, restarts=1)
            assert found.counts.min() > 0 and found.counts.sum() == 520

    def test_second_centres_are_drawn_by_their_squared_distance(self) -> None:
        """k-means++ (Arthur and Vassilvitskii 2007), the distance 1 - IoU; the last box as well as the others."""
        sides = [8.0, 4.0, 2.0]  # nested squares: the IoU of two is the ratio of their areas
        expected = torch.zeros(3, 3, dtype=torch.float64)
        for i, one in enumerate(sides):
            squares = [(1 - (min(one, other) / max(one, other)) ** 2) ** 2 for other in sides]
            expected[i] = torch.tensor(squares) / sum(squares) / 3
        points, drawn = torch.tensor(sides)[:, None].expand(3, 2), torch.zeros(3, 3, dtype=torch.float64)
        generator = torch.Generator().manual_seed(0)
        for _ in range(3000):
            first, second = anchors._spread(points, 2, generator)[:, 0].tolist()
            drawn[sides.index(first), sides.index(second)] += 1 / 3000
        torch.testing.assert_close(drawn, expected, rtol=0, atol=0.025)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: cell_anchors([], [1]), r"scales must be numbers above 0, at least one, got \(\)"),
        (lambda: cell_anchors([1], [0.0]), "ratios must be numbers above 0"),
        (lambda: grid_anchors(torch.zeros(3), (2, 2), 8), r"anchors must be \(A, 4\)"),
        (lambda: grid_anchors(torch.zeros(3, 4), (2, 2), 0), r"stride above 0, got \(2, 2\) and 0"),
        (lambda: kmeans_anchors(torch.zeros(3, 4), 2), r"sizes must be \(N, 2\)"),
        (lambda: kmeans_anchors(torch.tensor([[1.0, 2], [0, 3]]), 1), r"size \[0.0, 3.0\] is not finite and above 0"),
        (lambda: kmeans_anchors(torch.tensor([[math.nan, 2]]), 1), "leave such boxes out"),
        (lambda: kmeans_anchors(torch.ones(5, 2), 2), "k=2 must be from 1 to 1, the number of different sizes"),
        (lambda: kmeans_anchors(torch.zeros(0, 2), 2), "k=2 must be from 1 to 0"),
        (lambda: kmeans_anchors(torch.rand(5, 2), 2, centre="middle"), "unknown centre of clusters 'middle'; "),  # type: ignore[arg-type]
    ],
)
def test_wrong_calls_are_named(call, message: str) -> None:
    with pytest.raises(InputError, match=message):
        call()
