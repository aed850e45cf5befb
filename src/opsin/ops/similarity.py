"""Similarity transforms of the plane: turned, scaled and moved, so that points come where they are wanted."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from opsin.errors import InputError

# Both eyes, the nose and both corners of the mouth in a crop of 112x112, the left of the image first, as ArcFace's
# aligned crops have them (Deng et al. 2019, arXiv:1801.07698); here in continuous pixels, in which a pixel's middle is
# at .5.
FIVE_POINTS = ((38.7946, 52.1963), (74.0318, 52.0014), (56.5252, 72.2366), (42.0493, 92.8655), (71.2299, 92.7041))
FACE = 112  # pixels of the side of such a crop


def fit_similarity(source: Tensor, target: Tensor) -> Tensor:
    """The similarity that brings points nearest to others, by the sum of squares: (2, 3), to apply to (x, y, 1).

    Umeyama 1991, doi:10.1109/34.88573, without reflection. source, target: (N, 2) float, N of at least 2. Raises
    InputError for points that are all the same.
    """
    if source.shape != target.shape or source.ndim != 2 or source.shape[1] != 2 or len(source) < 2:
        raise InputError(f"points are {tuple(source.shape)} and {tuple(target.shape)}; expected (N, 2) each, N >= 2")
    one, other = source.double(), target.double()
    means = one.mean(dim=0), other.mean(dim=0)
    one, other = one - means[0], other - means[1]
    spread = one.square().sum()
    if not bool(torch.isfinite(spread)) or float(spread) == 0:
        raise InputError("the points are all at one place, or not finite; a similarity takes two different ones")
    # As complex numbers the best factor is sum(conj(a) b) / sum |a|^2: its angle turns, its length scales.
    real = (one * other).sum() / spread
    imaginary = (one[:, 0] * other[:, 1] - one[:, 1] * other[:, 0]).sum() / spread
    turn = torch.stack([torch.stack([real, -imaginary]), torch.stack([imaginary, real])])
    return torch.cat([turn, (means[1] - turn @ means[0])[:, None]], dim=1)


def align_face(image: Tensor, points: Tensor, size: int = FACE) -> Tensor:
    """A crop of size x size in which eyes, nose and mouth are where `FIVE_POINTS` has them, in proportion.

    image: uint8 (C, H, W). points: (5, 2) as (x, y) in continuous pixels of the image: both eyes, the nose, both
    corners of the mouth, the left of the image first. Bilinear; what lies outside of the image is black. For crops much
    smaller than the face the image is to be shrunk before.
    """
    if points.shape != (5, 2):
        raise InputError(f"points are {tuple(points.shape)}; expected (5, 2): eyes, nose, corners of the mouth")
    target = torch.tensor(FIVE_POINTS, dtype=torch.float64) * (size / FACE)
    back = fit_similarity(target, points)  # where each pixel of the crop is taken from
    middle = torch.arange(size, dtype=torch.float64) + 0.5
    y, x = torch.meshgrid(middle, middle, indexing="ij")
    places = torch.stack([x, y, torch.ones_like(x)], dim=2) @ back.T  # (size, size, 2)
    height, width = image.shape[-2:]
    grid = places / torch.tensor([width, height], dtype=torch.float64) * 2 - 1
    found = F.grid_sample(image[None].float(), grid[None].float(), "bilinear", "zeros", align_corners=False)[0]
    return found.round().clamp(0, 255).to(torch.uint8)
