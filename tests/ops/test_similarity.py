"""Similarities against scikit-image's, and faces brought upright."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from skimage.transform import SimilarityTransform

from opsin.errors import InputError
from opsin.ops.similarity import FIVE_POINTS, align_face, fit_similarity


def test_equal_to_scikit_images() -> None:
    for seed in range(5):
        random = np.random.RandomState(seed)
        source, target = random.rand(5, 2) * 50, random.rand(5, 2) * 112
        reference = SimilarityTransform.from_estimate(source, target)
        found = fit_similarity(torch.from_numpy(source), torch.from_numpy(target))
        np.testing.assert_allclose(found.numpy(), reference.params[:2], atol=1e-9)


def test_an_exact_similarity_is_found() -> None:
    points = torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.0, 2.0]])
    found = fit_similarity(points, torch.tensor([[5.0, 1.0], [5.0, 4.0], [-1.0, 1.0]]))  # a quarter turn, 3 times
    np.testing.assert_allclose(found.numpy(), [[0, -3, 5], [3, 0, 1]], atol=1e-12)
    with pytest.raises(InputError, match="all at one place"):
        fit_similarity(torch.ones(5, 2), points[[0, 1, 2, 0, 1]])
    with pytest.raises(InputError, match="N >= 2"):
        fit_similarity(torch.ones(1, 2), torch.ones(1, 2))


def test_marks_come_where_they_belong() -> None:
    """Five bright spots on a turned and shrunk face are at the wanted places of the crop, to half a pixel."""
    wanted = torch.tensor(FIVE_POINTS, dtype=torch.float64)
    angle, scale = math.radians(25), 2.5
    turn = scale * torch.tensor([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    points = wanted @ turn.double().T + torch.tensor([160.0, 40.0])
    y, x = torch.meshgrid(torch.arange(420) + 0.5, torch.arange(500) + 0.5, indexing="ij")
    image = torch.zeros(1, 420, 500)
    for px, py in points.tolist():
        image[0] += 255 * torch.exp(-((x - px) ** 2 + (y - py) ** 2) / 18)
    crop = align_face(image.clamp(max=255).to(torch.uint8), points)
    assert crop.shape == (1, 112, 112)
    for px, py in FIVE_POINTS:
        top, left = int(py) - 5, int(px) - 5
        part = crop[0, top : top + 11, left : left + 11].double()
        rows, columns = torch.arange(11) + top + 0.5, torch.arange(11) + left + 0.5
        centre = (part.sum(0) @ columns.double() / part.sum(), part.sum(1) @ rows.double() / part.sum())
        assert centre == pytest.approx((px, py), abs=0.2)


def test_a_crop_that_is_aligned_stays() -> None:
    image = torch.from_numpy(np.random.RandomState(0).randint(0, 255, (3, 112, 112)).astype(np.uint8))
    crop = align_face(image, torch.tensor(FIVE_POINTS))
    assert (crop.int() - image.int()).abs().max() <= 1
    assert align_face(image, torch.tensor(FIVE_POINTS), 56).shape == (3, 56, 56)
    with pytest.raises(InputError, match="eyes, nose"):
        align_face(image, torch.zeros(4, 2))
