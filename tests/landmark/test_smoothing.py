"""The one-euro filter by its formula, less jitter at a small lag, and jitter as it is defined."""

from __future__ import annotations

import math

import numpy as np
import pytest

from opsin.landmark.smoothing import OneEuroFilter, measure_jitter


def plain(values: list[float], rate: float, cutoff: float, beta: float, speed_cutoff: float) -> list[float]:
    """The filter of one number, written down from the paper's appendix."""

    def weight(at: float) -> float:
        tau = 1 / (2 * math.pi * at)
        return 1 / (1 + tau * rate)

    found, speed, raw = [values[0]], 0.0, values[0]
    for value in values[1:]:
        a = weight(speed_cutoff)
        speed = a * (value - raw) * rate + (1 - a) * speed
        a = weight(cutoff + beta * abs(speed))
        found.append(a * value + (1 - a) * found[-1])
        raw = value
    return found


def test_it_is_the_papers_filter() -> None:
    values = np.random.default_rng(0).normal(0, 1, (40, 3, 2)).cumsum(axis=0)
    smooth = OneEuroFilter(30.0, 1.5, 0.02, 1.2)
    found = np.stack([smooth(one) for one in values])
    for point in range(3):
        for axis in range(2):
            assert np.allclose(found[:, point, axis], plain(values[:, point, axis].tolist(), 30.0, 1.5, 0.02, 1.2))


def test_what_stands_still_trembles_less_and_what_moves_does_not_lag() -> None:
    random = np.random.default_rng(1)
    still = np.full((200, 5, 2), 50.0) + random.normal(0, 1, (200, 5, 2))
    moving = np.arange(200.0)[:, None, None] * 6 + np.zeros((200, 5, 2))
    smooth = OneEuroFilter(1.0, 0.03, 0.015, 0.1)
    found = np.stack([smooth(one) for one in still])
    assert measure_jitter(found) < 0.15 * measure_jitter(still)
    smooth = OneEuroFilter(1.0, 0.03, 0.015, 0.1)
    lag = (moving - np.stack([smooth(one) for one in moving]))[-1]
    fixed = OneEuroFilter(1.0, 0.03, 0.0, 0.1)
    assert lag.max() < 0.5 * (moving - np.stack([fixed(one) for one in moving]))[-1].min()


def test_jitter_is_the_noise_and_not_the_motion() -> None:
    random = np.random.default_rng(2)
    noise = random.normal(0, 0.7, (4000, 4, 2))
    steady = np.arange(4000.0)[:, None, None] * (3, -1)
    assert (
        measure_jitter(noise + steady) == pytest.approx(0.7, rel=0.03)
        and measure_jitter(steady + np.zeros((4000, 1, 2))) == 0
    )
    assert measure_jitter(noise[:2]) == 0


def test_a_point_that_is_lost_for_a_frame_goes_on() -> None:
    smooth = OneEuroFilter(30.0)
    smooth(np.array([1.0, 2.0]))
    assert np.isnan(smooth(np.array([np.nan, 2.0]))[0])
    assert 1.0 < smooth(np.array([2.0, 2.0]))[0] < 2.0
    fresh = OneEuroFilter(30.0)
    fresh(np.array([np.nan]))
    assert fresh(np.array([5.0]))[0] == 5.0
