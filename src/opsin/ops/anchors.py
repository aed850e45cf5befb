"""Anchors: the boxes that a detector starts from, laid out on a grid or found by clustering."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from opsin.errors import InputError, unknown
from opsin.ops.iou import shape_iou


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
    sizes: Tensor, k: int, *, centre: Literal["median", "mean"] = "median", seed: int = 0, restarts: int = 3
) -> AnchorClusters:
    """Anchor sizes for a data set: k-means over boxes with the distance 1 - IoU. Redmon and Farhadi 2016,
    arXiv:1612.08242, section 2, "dimension clusters".

    sizes: (N, 2), widths and heights. IoU is that of boxes on one centre, so that only their shapes count; with squared
    distances large boxes would count more. It starts by k-means++ (Arthur and Vassilvitskii 2007) with this distance; a
    cluster that empties takes the box that fits its anchor worst; the best step of all restarts is given.
    centre: the paper does not say what the centre of a cluster is. The mean, which minimises squared distances, does
    not minimise this one: its steps soon lose, where medians go on gaining.
    Raises InputError for sizes that are not finite and above 0, and for fewer different ones than k.
    """
    if sizes.ndim != 2 or sizes.shape[1] != 2:
        raise InputError(f"sizes must be (N, 2), widths and heights, got {tuple(sizes.shape)}")
    points = sizes.detach().float()
    if not bool((points > 0).all() and points.isfinite().all()):
        wrong = points[~((points > 0) & points.isfinite()).all(dim=1)][0].tolist()
        raise InputError(f"size {wrong} is not finite and above 0; leave such boxes out")
    different = len(points.unique(dim=0))
    if not 1 <= k <= different:
        raise InputError(f"k={k} must be from 1 to {different}, the number of different sizes")
    if centre not in ("median", "mean"):
        raise unknown("centre of clusters", centre, ("median", "mean"))
    find_centres = _Medians(points) if centre == "median" else _Means(points)
    generator = torch.Generator().manual_seed(seed)
    runs = [_cluster(points, _spread(points, k, generator), find_centres) for _ in range(max(1, restarts))]
    mean_iou, centres = max(runs, key=lambda run: run[0])
    centres = centres[centres.prod(dim=1).argsort()]
    return AnchorClusters(centres, mean_iou, torch.bincount(shape_iou(centres, points).argmax(dim=0), minlength=k))


class _Means:
    """The mean width and height of each cluster: nearest, (N,), and counts, (k,) -> (k, 2)."""

    def __init__(self, points: Tensor) -> None:
        self._points = points.double()

    def __call__(self, nearest: Tensor, counts: Tensor) -> Tensor:
        sums = self._points.new_zeros(len(counts), 2).index_add_(0, nearest, self._points)
        return (sums / counts.clamp(min=1)[:, None]).float()


class _Medians:
    """The median width and the median height of each cluster; the lower one of two."""

    def __init__(self, points: Tensor) -> None:
        self._sorted, self._order = points.T.sort(dim=1)  # once: each step counts along it

    def __call__(self, nearest: Tensor, counts: Tensor) -> Tensor:
        labels = torch.arange(len(counts), device=nearest.device)[:, None]
        middles = ((counts + 1) // 2).clamp(min=1)[:, None]
        sides = []
        for values, order in zip(self._sorted, self._order, strict=True):
            seen = (nearest[order] == labels).cumsum(dim=1)
            places = torch.searchsorted(seen, middles)[:, 0].clamp(max=len(values) - 1)
            sides.append(values[places])
        return torch.stack(sides, dim=1)


def _spread(points: Tensor, k: int, generator: torch.Generator) -> Tensor:
    """k-means++: each next centre is a box drawn with the probability of its squared distance to the nearest one."""
    chosen = [int(torch.randint(len(points), (), generator=generator))]
    nearest = 1 - shape_iou(points[chosen], points)[0].double()
    for _ in range(k - 1):
        weights = nearest.square().cumsum(0)
        place = torch.rand((), generator=generator, dtype=torch.float64).to(points.device) * weights[-1]
        chosen.append(int(torch.searchsorted(weights, place, right=True).clamp(max=len(points) - 1)))
        nearest = torch.minimum(nearest, 1 - shape_iou(points[chosen[-1:]], points)[0].double())
    return points[chosen]


def _cluster(points: Tensor, centres: Tensor, find_centres: _Means | _Medians) -> tuple[float, Tensor]:
    """Lloyd's iterations from some centres: the best mean IoU on the way, and the centres that had it."""
    best, since = (-1.0, centres), 0
    while since < _PATIENCE:
        fit, nearest = shape_iou(centres, points).max(dim=0)
        mean_iou = float(fit.double().mean())
        best, since = ((mean_iou, centres), 0) if mean_iou > best[0] else (best, since + 1)
        counts = torch.bincount(nearest, minlength=len(centres))
        centres = find_centres(nearest, counts)
        empty = (counts == 0).nonzero()[:, 0]
        if len(empty):
            centres[empty] = points[fit.argsort()[: len(empty)]]
    return best


# Steps without a better one after which there will be none: medians gain to the end, means lose after a few.
_PATIENCE = 10
