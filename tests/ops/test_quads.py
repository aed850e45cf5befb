"""Quads: their order, the rectangle around an outline, and the image within one brought upright."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from opsin.ops.quads import (
    clockwise,
    convex_quad,
    cut_quad,
    homography,
    is_convex,
    map_points,
    quad_of,
    quad_of_box,
    quad_size,
    smallest_rectangle,
    turn_points,
)

BOX = np.array([(2, 1), (7, 1), (7, 4), (2, 4)], float)


def test_a_quad_on_whole_pixels_is_a_copy() -> None:
    image = torch.arange(3 * 6 * 9, dtype=torch.uint8).reshape(3, 6, 9)
    assert torch.equal(cut_quad(image, BOX), image[:, 1:4, 2:7])
    assert torch.equal(cut_quad(image, np.roll(BOX, -2, axis=0)), image[:, 1:4, 2:7].flip(1, 2))  # begins at the right
    assert torch.equal(cut_quad(image, np.roll(BOX, -1, axis=0)), image[:, 1:4, 2:7].rot90(1, (1, 2)))


def test_a_cut_is_that_of_pillow() -> None:
    """Its QUAD is bilinear in the corners and PERSPECTIVE a homography: on a parallelogram both are the same map."""
    noise = np.random.default_rng(0).integers(0, 256, (40, 60), np.uint8)
    image = Image.fromarray(np.asarray(Image.fromarray(noise).resize((60, 40), Image.Resampling.BICUBIC)))
    quad = np.array([(10, 5), (40, 15), (35, 30), (5, 20)], float)
    height, width = quad_size(quad)
    data = [float(value) for corner in (quad[0], quad[3], quad[2], quad[1]) for value in corner]
    theirs = image.transform((width, height), Image.Transform.QUAD, data, Image.Resampling.BILINEAR)
    ours = cut_quad(torch.from_numpy(np.array(image))[None], quad)[0].numpy()
    assert np.abs(ours.astype(int) - np.asarray(theirs).astype(int)).max() <= 2


def test_a_homography_takes_corners_to_corners() -> None:
    quad = np.array([(1, 2), (9, 1), (11, 7), (0, 6)], float)
    matrix = homography(BOX, quad)
    moved = np.c_[BOX, np.ones(4)] @ matrix.T
    assert np.allclose(moved[:, :2] / moved[:, 2:], quad)


def test_what_lies_outside_repeats_the_border() -> None:
    image = torch.arange(12, dtype=torch.uint8).reshape(1, 3, 4)
    cut = cut_quad(image, np.array([(2, 1), (6, 1), (6, 3), (2, 3)], float))
    assert cut.tolist() == [[[6, 7, 7, 7], [10, 11, 11, 11]]]


def test_orders_and_sizes() -> None:
    assert np.array_equal(clockwise(BOX[[0, 3, 2, 1]]), BOX)
    assert np.array_equal(clockwise(BOX), BOX)
    assert np.array_equal(quad_of(BOX[[2, 0]]), BOX)
    assert quad_size(BOX) == (3, 5)
    assert quad_size(np.array([(0, 0), (0.2, 0), (0.2, 0.1), (0, 0.1)])) == (1, 1)


def test_a_quad_whose_corners_fold_is_made_a_rectangle() -> None:
    assert np.array_equal(convex_quad(BOX[[1, 0, 3, 2]]), np.roll(BOX, -1, axis=0))  # the first corner is kept
    crossed = np.array([(2, 1), (7, 4), (7, 1), (2, 4)], np.float32)
    assert np.allclose(convex_quad(crossed), BOX) and convex_quad(crossed).dtype == np.float64
    assert np.allclose(convex_quad(np.roll(crossed, 2, axis=0)), BOX)  # from the upper left corner on


@pytest.mark.parametrize("turn", [0.0, 0.3, 1.2, 2.0])
def test_the_smallest_rectangle_of_a_turned_one_is_itself(turn: float) -> None:
    matrix = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    within = np.random.default_rng(1).uniform((2, 1), (7, 4), (30, 2))
    points = np.concatenate([within[:15], BOX, within[15:]]) @ matrix.T
    found = smallest_rectangle(points)
    ours, wanted = ({tuple(corner) for corner in np.round(some, 6).tolist()} for some in (found, BOX @ matrix.T))
    assert ours == wanted


def test_an_outline_of_many_corners_begins_where_it_did() -> None:
    outline = np.array([(0, 1), (4, 0), (8, 1), (8, 3), (4, 2), (0, 3)], float)
    assert np.array_equal(quad_of(outline), [(0, 0), (8, 0), (8, 3), (0, 3)])
    assert np.array_equal(quad_of(np.roll(outline, -3, axis=0)), [(8, 3), (0, 3), (0, 0), (8, 0)])


def test_a_cut_is_pillows_perspective() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (10, 12, 3), np.uint8)
    image = Image.fromarray(noise).resize((90, 40), Image.Resampling.BICUBIC)
    quad = np.array([[12.5, 9.0], [70.0, 4.5], [74.0, 31.0], [10.0, 27.5]])
    height, width = quad_size(quad)
    assert (height, width) == (27, 64)  # |(4, 26.5)| = 26.80, |(64, 3.5)| = 64.10
    matrix = homography(quad_of_box((0, 0, width, height)), quad)
    assert np.allclose(map_points(matrix, quad_of_box((0, 0, width, height))), quad)
    coefficients = tuple(matrix.ravel()[:8].tolist())
    theirs = image.transform((width, height), Image.Transform.PERSPECTIVE, coefficients, Image.Resampling.BILINEAR)
    ours = cut_quad(torch.from_numpy(np.array(image)).permute(2, 0, 1), quad).permute(1, 2, 0).numpy()
    assert np.abs(ours.astype(int) - np.array(theirs)).max() <= 1  # Pillow rounds in fixed point


@pytest.mark.parametrize(
    "quad",
    [
        [[5, 5], [5, 5], [5, 5], [5, 5]],
        [[3, 3], [40, 3], [3, 20], [40, 20]],  # crossed
        [[200, 200], [300, 200], [300, 300], [200, 300]],  # outside
        [[-90, -9], [-80, -9], [-80, -5], [-90, -5]],
    ],
)
def test_what_is_hardly_a_quad_is_cut_all_the_same(quad: list[list[float]]) -> None:
    found = cut_quad(torch.full((3, 40, 90), 7, dtype=torch.uint8), np.array(quad, float))
    assert found.dtype == torch.uint8 and min(found.shape) >= 1
    assert is_convex(np.array(quad, float)) == (quad[0] not in ([5, 5], [3, 3]))


def test_points_turn_as_the_image_does() -> None:
    image = torch.zeros(5, 7)
    image[3, 1] = 1
    for turns in range(-1, 5):
        (row, column) = image.rot90(turns, (-2, -1)).nonzero()[0].tolist()
        assert turn_points(np.array([1.5, 3.5]), turns, (5, 7)).tolist() == [column + 0.5, row + 0.5]


def test_the_smallest_rectangle_is_opencvs() -> None:
    cv2 = pytest.importorskip("cv2")
    generator = np.random.default_rng(1)
    for _ in range(50):
        points = generator.normal(size=(9, 2)) @ generator.normal(size=(2, 2)) * 30
        found = smallest_rectangle(points)
        _, sides, _ = cv2.minAreaRect(points.astype(np.float32))
        assert np.linalg.norm(np.diff(found[:3], axis=0), axis=1).prod() == pytest.approx(np.prod(sides), rel=1e-3)
        corner, across, down = found[0], found[1] - found[0], found[3] - found[0]
        shares = np.stack([(points - corner) @ side / (side @ side) for side in (across, down)])
        assert shares.min() > -1e-6 and shares.max() < 1 + 1e-6
