"""IoU, suppression and bilinear sampling written out, against torchvision and torch."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from numpy.testing import assert_allclose
from torchvision import ops

from opsin.scratch.bilinear import resize, sample, sample_backward
from opsin.scratch.iou import iou
from opsin.scratch.nms import nms
from opsin.scratch.upsampling import bilinear_kernel, upsample, upsample_backward, upsample_by_convolution

Witness = Callable[..., tuple[np.ndarray, list[np.ndarray]]]
Rng = np.random.Generator


def random_boxes(count: int, rng: Rng) -> np.ndarray:
    corner = rng.uniform(0, 60, (count, 2))
    return np.concatenate([corner, corner + rng.uniform(1, 40, (count, 2))], axis=1)


def test_iou(rng: Rng) -> None:
    a, b = random_boxes(30, rng), random_boxes(20, rng)
    assert_allclose(iou(a, b), ops.box_iou(torch.tensor(a), torch.tensor(b)).numpy(), rtol=1e-12)
    assert iou(a, np.zeros((0, 4))).shape == (30, 0)


def test_iou_by_hand() -> None:
    a = np.array([[0, 0, 4, 4]], float)
    others = np.array([[0, 0, 4, 4], [2, 2, 6, 6], [4, 0, 8, 4], [9, 9, 12, 12], [1, 1, 3, 3], [2, 2, 2, 2]], float)
    assert_allclose(iou(a, others)[0], [1, 4 / 28, 0, 0, 4 / 16, 0])
    point = np.array([[1, 1, 1, 1]], float)
    assert iou(point, point)[0, 0] == 0


@pytest.mark.parametrize("threshold", [0.1, 0.3, 0.5, 0.9])
def test_nms(threshold: float, rng: Rng) -> None:
    boxes, scores = random_boxes(200, rng), rng.random(200)
    theirs = ops.nms(torch.tensor(boxes), torch.tensor(scores), threshold).numpy()
    assert nms(boxes, scores, threshold).tolist() == theirs.tolist()


def test_nms_of_nothing() -> None:
    assert nms(np.zeros((0, 4)), np.zeros(0)).tolist() == []


def by_grid(points: torch.Tensor, height: int, width: int) -> torch.Tensor:
    """Points in pixels, (N, 2), as grid_sample counts: -1 and 1 are the outer edges of the image."""
    return (2 * points / torch.tensor([width, height], dtype=torch.float64) - 1)[None, None]


def test_bilinear_sampling(rng: Rng, by_torch: Witness) -> None:
    image = rng.normal(size=(3, 5, 7))
    points = rng.uniform(-1.5, [8.5, 6.5], (60, 2))  # some half, some wholly outside
    dvalues = rng.normal(size=(3, 60))

    def theirs(image: torch.Tensor, points: torch.Tensor) -> torch.Tensor:
        return F.grid_sample(image[None], by_grid(points, 5, 7), align_corners=False)[0, :, 0]

    values, gradients = by_torch(theirs, dvalues, image, points)
    assert_allclose(sample(image, points), values, atol=1e-12)
    for own, other in zip(sample_backward(dvalues, image, points), gradients, strict=True):
        assert_allclose(own, other, atol=1e-11)


def test_a_pixel_taken_twice_gets_both_gradients() -> None:
    points = np.array([[1.5, 1.5], [1.5, 1.5]])
    dimage, _ = sample_backward(np.array([[2.0, 3.0]]), np.zeros((1, 3, 3)), points)
    assert dimage[0, 1, 1] == 5
    assert dimage.sum() == 5


@pytest.mark.parametrize("size", [(20, 20), (8, 8), (16, 9), (7, 5)])
def test_resize(size: tuple[int, int], rng: Rng) -> None:
    images = rng.normal(size=(2, 8, 8))
    theirs = F.interpolate(torch.tensor(images)[None], size, mode="bilinear", align_corners=False)[0]
    assert_allclose(resize(images, *size), theirs.numpy(), atol=1e-12)


@pytest.mark.parametrize("factor", [1, 2, 3, 4, 8])
def test_upsampling(factor: int, rng: Rng, by_torch: Witness) -> None:
    x = rng.normal(size=(2, 3, 3, 4))
    own = upsample(x, factor)
    dy = rng.normal(size=own.shape)
    y, (dx,) = by_torch(lambda x: F.interpolate(x, scale_factor=factor, mode="bilinear"), dy, x)
    assert_allclose(own, y, atol=1e-12)
    assert_allclose(upsample_backward(dy, factor), dx, atol=1e-12)
    assert_allclose(upsample_by_convolution(x, factor), y, atol=1e-12)


def test_the_bilinear_kernel_by_hand() -> None:
    assert_allclose(bilinear_kernel(2) * 16, np.outer([1, 3, 3, 1], [1, 3, 3, 1]))
    assert_allclose(bilinear_kernel(3)[2] * 3, [1, 2, 3, 2, 1])
