"""The filters against Kalman's equations in matrix form, and their times against steps of one frame."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from opsin.track.motion import AreaRatioFilter, ConstantVelocity, RatioHeightFilter, WidthHeightFilter

from .plain_kalman import PlainKalman

FILTERS: list[type[ConstantVelocity]] = [AreaRatioFilter, RatioHeightFilter, WidthHeightFilter]


def boxes(seed: int, count: int = 6) -> np.ndarray:
    random = np.random.default_rng(seed)
    corners = random.uniform(0, 200, (2, count))
    return np.concatenate([corners, corners + random.uniform(20, 90, (2, count))])


@pytest.mark.parametrize("kind", FILTERS)
def test_equals_the_matrix_form(kind: type[ConstantVelocity]) -> None:
    ours, first = kind(), boxes(0)
    state = ours.start(first)
    plain = [PlainKalman(kind, box) for box in first.T]
    for frame in range(1, 6):
        ours.predict(state)
        seen = boxes(0) + 3 * frame + np.random.default_rng(frame).normal(size=first.shape)
        distances = ours.distances(state, seen)
        if frame != 3:  # a frame in which nobody is seen
            state = ours.correct(state, seen)
        for track, one in enumerate(plain):
            one.predict()
            if frame != 3:
                away = one.measure(seen[:, track]) - one.x[:4]
                one.correct(seen[:, track])
                assert distances[track, track] == pytest.approx(away @ np.linalg.inv(one.spread) @ away)
            np.testing.assert_allclose(state[:2, :, track].ravel(), one.x, rtol=1e-10, atol=1e-9)
            blocks = [one.covariance[range(4), range(4)], one.covariance[range(4), range(4, 8)]]
            blocks.append(one.covariance[range(4, 8), range(4, 8)])
            np.testing.assert_allclose(state[2:, :, track], blocks, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("kind", FILTERS)
def test_boxes_are_the_inverse_of_measuring(kind: type[ConstantVelocity]) -> None:
    ours = kind()
    np.testing.assert_allclose(ours.boxes(ours.start(boxes(1))), boxes(1), atol=1e-9)


@pytest.mark.parametrize("steps", [[1.0, 1.0, 1.0], [0.5, 2.5], [0.75, 0.75, 1.5], [1 / 3] * 9])
def test_a_long_step_is_its_parts(steps: list[float]) -> None:
    ours = AreaRatioFilter()
    state = ours.correct(ours.start(boxes(2)), boxes(2) + 1)
    state[1] = np.random.default_rng(0).normal(size=state[1].shape)
    whole = state.copy()
    ours.predict(whole, 3.0)
    for step in steps:
        ours.predict(state, step)
    np.testing.assert_allclose(state, whole, rtol=1e-9, atol=1e-9)


def test_an_area_never_falls_to_nothing() -> None:
    ours = AreaRatioFilter()
    state = ours.start(boxes(3))
    state[1, 2] = -2 * state[0, 2]
    ours.predict(state)
    np.testing.assert_allclose(ours.boxes(state), boxes(3), atol=1e-9)


def test_the_motion_of_a_camera_carries_boxes_along() -> None:
    ours, seen = WidthHeightFilter(), boxes(4)
    state = ours.start(seen)
    state[1, :2] = [[1.0], [2.0]]
    ours.warp(state, np.array([[1.5, 0, 10], [0, 1.5, -20]]))
    shift: Any = np.array([[10.0], [-20], [10], [-20]])
    np.testing.assert_allclose(ours.boxes(state), 1.5 * seen + shift)
    np.testing.assert_allclose(state[1, :2], np.broadcast_to([[1.5], [3.0]], (2, 6)))
    np.testing.assert_allclose(state[2], 1.5**2 * ours.start(seen)[2])
    turned = ours.start(seen)
    ours.warp(turned, np.array([[0.0, -1, 0], [1, 0, 0]]))  # a quarter turn: x is where -y was
    np.testing.assert_allclose(turned[0, :2], [-state_centre(seen)[1], state_centre(seen)[0]])
    np.testing.assert_allclose(turned[0, 2:], (seen[2:] - seen[:2])[::-1])


def state_centre(seen: np.ndarray) -> np.ndarray:
    return (seen[:2] + seen[2:]) / 2
