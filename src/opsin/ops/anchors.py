"""Anchors: the boxes that a detector starts from, laid out on a grid or found by clustering."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from opsin.errors import InputError, unknown


def cell_anchors(scales: Sequence[float], ratios: Sequence[float]) -> Tensor:
    """One anchor for each scale and ratio, centred on the origin: (S * R, 4), xyxy, ratios within scales.

    scale: the square root of the area, in pixels. ratio: height / width. Ren et al. 2015, arXiv:1506.01497, sec. 3.1.1.
    """
    for name, values in (("scales", scales), ("ratios", ratios)):
        if len(values) == 0 or not all(value > 0 for value in values):
            raise InputError(f"{name} must be numbers above 0, at least one, got {tuple(values)}")
    scale = torch.tensor(scales, dtype=torch.float64)[:, None]
    ratio = torch.tensor(ratios, dtype=torch.float64)
    sides = torch.stack([scale / ratio.sqrt(), scale * ratio.sqrt()], dim=-1).view(-1, 2)
    return torch.cat([-sides / 2, sides / 2], dim=1).float()


def grid_anchors(anchors: Tensor, size: Sequence[int], stride: float | Sequence[float], offset: float = 0.5) -> Tensor:
    """Anchors (A, 4) at every cell of a feature map: (H * W * A, 4), row by row, cell by cell.

    size: (H, W) of the map. stride: of the map in pixels, one number or (down, across). Cell i is centred on
    (i + offset) * stride: 0.5 is the middle of the pixels it covers; Faster R-CNN and torchvision have 0, its corner.
    """
    if anchors.ndim != 2 or anchors.shape[1] != 4:
        raise InputError(f"anchors must be (A, 4), got {tuple(anchors.shape)}; see cell_anchors")
    strides = (stride, stride) if isinstance(stride, int | float) else tuple(stride)
    if len(size) != 2 or min(size) < 0 or len(strides) != 2 or min(strides) <= 0:
        raise InputError(f"size must be (H, W) and stride above 0, got {tuple(size)} and {stride}")
    y, x = ((torch.arange(n, device=anchors.device) + offset) * step for n, step in zip(size, strides, strict=True))
    y, x = torch.meshgrid(y.to(anchors), x.to(anchors), indexing="ij")
    centres = torch.stack([x, y, x, y], dim=-1).view(-1, 1, 4)
    return (centres + anchors).view(-1, 4)


class AnchorClusters(NamedTuple):
    """sizes: (k, 2), width and height, by rising area. mean_iou: of each box with its best anchor. counts: (k,)."""

    sizes: Tensor
    mean_iou: float
    counts: Tensor


def kmeans_anchors(
    sizes: Tensor,
    k: int,
    *,
    centre: Literal["mean", "median"] = "mean",
    seed: int = 0,
    restarts: int = 3,
    max_iterations: int = 300,
) -> AnchorClusters:
    """Anchor sizes for a data set: k-means over boxes with the distance 1 - IoU. Redmon and Farhadi 2016,
    arXiv:1612.08242, section 2, "dimension clusters".

    sizes: (N, 2), widths and heights. IoU is that of boxes on one centre, so that only their shapes count; with squared
    distances large boxes would count more. It starts by k-means++ (Arthur and Vassilvitskii 2007) with this distance; a
    cluster that empties takes the box that fits its anchor worst. A mean of boxes does not minimise 1 - IoU exactly, so
    that a step may lose: the best step of all restarts is given. centre="median" comes nearer where sizes spread over
    several octaves, as those of most data sets do.
    Raises InputError for sizes that are not finite and above 0, and for fewer different ones than k.
    """
    if sizes.ndim != 2 or sizes.shape[1] != 2:
        raise InputError(f"sizes must be (N, 2), widths and heights, got {tuple(sizes.shape)}")
    points = sizes.detach().double()
    if not bool((points > 0).all() and points.isfinite().all()):
        wrong = points[~((points > 0) & points.isfinite()).all(dim=1)][0].tolist()
        raise InputError(f"size {wrong} is not finite and above 0; leave such boxes out")
    different = len(points.unique(dim=0))
    if not 1 <= k <= different:
        raise InputError(f"k={k} must be from 1 to {different}, the number of different sizes")
    if centre not in _CENTRES:
        raise unknown("centre of clusters", centre, _CENTRES)
    generator = torch.Generator().manual_seed(seed)
    starts = [_spread(points, k, generator) for _ in range(max(1, restarts))]
    runs = [_cluster(points, start, _CENTRES[centre], max_iterations) for start in starts]
    mean_iou, centres = max(runs, key=lambda run: run[0])
    centres = centres[centres.prod(dim=1).argsort()]
    counts = torch.bincount(_shape_iou(points, centres).argmax(dim=1), minlength=k)
    return AnchorClusters(centres.to(torch.float32), mean_iou, counts)


def _means(points: Tensor, nearest: Tensor, counts: Tensor) -> Tensor:
    sums = points.new_zeros(len(counts), 2).index_add_(0, nearest, points)
    return sums / counts.clamp(min=1)[:, None]


def _medians(points: Tensor, nearest: Tensor, counts: Tensor) -> Tensor:
    """The middle width and the middle height of each cluster: sorted by value, then by cluster."""
    starts = counts.cumsum(0) - counts
    middle = (starts + (counts - 1).clamp(min=0) // 2).clamp(max=len(points) - 1)
    sides = []
    for side in points.unbind(1):
        order = side.argsort()
        order = order[nearest[order].argsort(stable=True)]
        sides.append(side[order[middle]])
    return torch.stack(sides, dim=1)


_CENTRES = {"mean": _means, "median": _medians}


def _spread(points: Tensor, k: int, generator: torch.Generator) -> Tensor:
    """k-means++: each next centre is a box drawn with the probability of its squared distance to the nearest one."""
    chosen = [int(torch.randint(len(points), (), generator=generator))]
    nearest = 1 - _shape_iou(points, points[chosen])[:, 0]
    for _ in range(k - 1):
        weights = nearest.square().cumsum(0)
        place = torch.rand((), generator=generator, dtype=torch.float64).to(points.device) * weights[-1]
        chosen.append(int(torch.searchsorted(weights, place, right=True).clamp(max=len(points) - 1)))
        nearest = torch.minimum(nearest, 1 - _shape_iou(points, points[chosen[-1:]])[:, 0])
    return points[chosen]


def _cluster(
    points: Tensor, centres: Tensor, centre: Callable[[Tensor, Tensor, Tensor], Tensor], max_iterations: int
) -> tuple[float, Tensor]:
    """Lloyd's iterations from some centres: the best mean IoU on the way, and the centres that had it."""
    best = (-1.0, centres)
    assigned = None
    for _ in range(max_iterations):
        fit, nearest = _shape_iou(points, centres).max(dim=1)
        best = max(best, (float(fit.mean()), centres), key=lambda step: step[0])
        if assigned is not None and torch.equal(nearest, assigned):
            break
        assigned = nearest
        counts = torch.bincount(nearest, minlength=len(centres))
        centres = centre(points, nearest, counts)
        empty = (counts == 0).nonzero()[:, 0]
        if len(empty):
            centres[empty] = points[fit.argsort()[: len(empty)]]
    return best


def _shape_iou(points: Tensor, centres: Tensor) -> Tensor:
    """IoU of boxes on one centre, by their sides: (N, 2), (k, 2) -> (N, k)."""
    shared = torch.minimum(points[:, None, 0], centres[:, 0]) * torch.minimum(points[:, None, 1], centres[:, 1])
    return shared / (points.prod(dim=1)[:, None] + centres.prod(dim=1) - shared)
