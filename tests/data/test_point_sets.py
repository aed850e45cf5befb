"""Pairs of points in mirror images: found as the published sets have them, and refused where they are wrong."""

from __future__ import annotations

import numpy as np
import pytest

from opsin.data.point_sets import (
    SETS,
    check_flip,
    eyes_of_names,
    find_flip,
    flip_of_names,
    flip_of_pairs,
    mean_shape,
    recognize_set,
)
from opsin.errors import InputError

BODY = ["head", "left_hand", "right_hand", "left_foot", "right_foot"]
SHAPE = np.array([[5.0, 0], [9, 4], [1, 4], [7, 9], [3, 9]])


def face68() -> np.ndarray:
    """A frontal face by the drawing of 300-W's 68 points: (68, 2), symmetric about x = 0."""
    half = {8: (0, 9), 27: (0, -1), 28: (0, 0.5), 29: (0, 2), 30: (0, 3), 33: (0, 4)}
    half |= {51: (0, 5.6), 57: (0, 7.4), 62: (0, 6.2), 66: (0, 6.6)}
    left = {k: (-6.5 * np.cos(k / 8 * np.pi / 2), -1 + 10 * np.sin(k / 8 * np.pi / 2)) for k in range(8)}
    left |= {17 + k: (-5.2 + k, -2.4 - 0.5 * k * (3.2 - k) / 2) for k in range(5)}
    left |= {36: (-4.3, 0), 37: (-3.5, -0.6), 38: (-2.5, -0.6), 39: (-1.7, 0), 40: (-2.5, 0.5), 41: (-3.5, 0.5)}
    left |= {31: (-1.3, 3.6), 32: (-0.6, 3.9), 48: (-2.6, 6.4), 49: (-1.7, 5.8), 50: (-0.7, 5.5)}
    left |= {59: (-1.7, 7.1), 58: (-0.8, 7.35), 60: (-2.2, 6.4), 61: (-0.9, 6.2), 67: (-0.9, 6.6)}
    # Written down once more, from the drawing of the annotation, as the test's own truth.
    right = {16 - k: k for k in range(8)} | {26 - k: 17 + k for k in range(5)}
    right |= {45: 36, 44: 37, 43: 38, 42: 39, 47: 40, 46: 41, 35: 31, 34: 32}
    right |= {54: 48, 53: 49, 52: 50, 55: 59, 56: 58, 64: 60, 63: 61, 65: 67}
    places = half | left | {k: (-left[other][0], left[other][1]) for k, other in right.items()}
    assert sorted(places) == list(range(68))
    return np.array([places[k] for k in range(68)], float)


def test_flipping_twice_gives_the_original_in_every_published_set() -> None:
    for one in SETS:
        flip = np.array(one.flip)
        assert (
            len(flip) == one.count and (flip[flip] == np.arange(one.count)).all() and (flip != range(one.count)).any()
        )
        for left, right in one.eyes.values():
            assert sorted(flip[list(left)]) == sorted(right)  # an eye becomes the other


def test_the_pairs_of_68_points_are_found_from_their_mean_shape() -> None:
    shape = face68()
    known = next(one for one in SETS if one.name == "ibug68")
    assert find_flip(shape) == known.flip and recognize_set(shape) is known
    random = np.random.default_rng(0)
    shapes = np.stack([shape * random.uniform(5, 30) + random.uniform(-50, 50, 2) for _ in range(40)])
    shapes += random.normal(0, 0.3, shapes.shape)
    shapes[::3, :20] = np.nan  # not known in a third of them
    assert find_flip(mean_shape(shapes)) == known.flip


def test_a_shape_without_a_mirror_has_no_pairs_and_is_no_face() -> None:
    leaf = np.random.default_rng(1).uniform(0, 9, (68, 2)) * (1, 4)
    leaf[:, 0] += leaf[:, 1] ** 2
    assert find_flip(leaf) is None and recognize_set(leaf) is None
    assert find_flip(np.array([[0, 0], [np.nan, 1]])) is None


def test_the_mean_shape_is_that_of_boxes_of_diagonal_one() -> None:
    one = np.array([[0.0, 0], [3, 4], [3, 0]])
    shapes = np.stack([one, 10 * one + 7, np.full((3, 2), np.nan)])
    assert np.allclose(mean_shape(shapes), (one - (1.5, 2)) / 5)


def test_pairs_are_given_by_name_or_number_or_said_by_the_names() -> None:
    assert flip_of_pairs([("left_hand", "right_hand"), (3, 4)], BODY) == (0, 2, 1, 4, 3)
    assert flip_of_names(BODY) == (0, 2, 1, 4, 3)
    assert flip_of_names(["left_hand", "tail"]) is None and flip_of_names(["0", "1"]) is None
    assert eyes_of_names(["Left_Eye", "nose", "right_eye"]) == {"inter_pupil": ((0,), (2,))}
    assert eyes_of_names(["right_eye_outer", "left_eye_outer"]) == {"inter_ocular": ((1,), (0,))}


def test_a_wrong_pairing_is_refused_with_its_points_named() -> None:
    with pytest.raises(InputError, match="left_hand is paired with right_hand and with right_foot; a point has one"):
        flip_of_pairs([("left_hand", "right_hand"), ("left_hand", "right_foot")], BODY)
    with pytest.raises(InputError, match="unknown point of a flip pair 'left_han'; did you mean left_hand"):
        flip_of_pairs([("left_han", "right_hand")], BODY)
    with pytest.raises(InputError, match="two points each"):
        flip_of_pairs([("left_hand",)], BODY)
    check_flip((0, 2, 1, 4, 3), SHAPE, BODY)
    with pytest.raises(InputError, match=r"left_hand and right_foot do not change places .* nearest to right_hand"):
        check_flip((0, 4, 3, 2, 1), SHAPE, BODY)
    with pytest.raises(InputError, match="left_hand and left_hand do not change places"):
        check_flip((0, 1, 2, 4, 3), SHAPE, BODY)
    names = [str(k) for k in range(68)]
    shifted = flip_of_pairs([(k, 15 - k) for k in range(8)], names)  # the jaw, counted from the wrong end
    with pytest.raises(InputError, match=r"0 and 15 do not change places .* nearest to 16"):
        check_flip(shifted, face68(), names)
