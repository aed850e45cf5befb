"""Errors of points: a scene worked by hand, the area under the curve as an integral, and what is not known."""

from __future__ import annotations

import numpy as np
import pytest

from opsin.errors import InputError
from opsin.landmark.metrics import (
    Compared,
    area_under_curve,
    choose_normalizer,
    evaluate,
    failure_rate,
    lengths,
    normalized_mean_errors,
)

EYES = {"inter_ocular": ((0,), (1,)), "inter_pupil": ((0, 2), (1,))}
# Two eyes 10 apart, a third point; the box around them is 10 x 6.
SHAPE = np.array([[10.0, 5], [20, 5], [12, 11]])


def compared(found: np.ndarray, truth: np.ndarray = SHAPE, visible: object = True) -> Compared:
    seen = np.broadcast_to(visible, (3,))  # type: ignore[arg-type]
    return Compared(found, truth, seen, np.ones(3), diagonal=50.0)


def test_a_scene_worked_by_hand() -> None:
    off = SHAPE + np.array([[3, 4], [0, 0], [0, -1]])  # by 5, 0 and 1 pixels
    unknown = SHAPE.copy()
    unknown[2] = np.nan
    result = evaluate(
        [compared(off, visible=[True, True, False]), compared(SHAPE + np.array([0.5, 0]), unknown)], list("abc"), EYES
    )
    assert result.main == "inter_ocular"
    metrics = result.metrics
    assert metrics["nme_inter_ocular"] == pytest.approx((6 / 3 / 10 + 0.5 / 10) / 2)
    assert metrics["nme_box_diagonal"] == pytest.approx((2 / np.hypot(10, 6) + 0.5 / 10) / 2)
    assert metrics["nme_box_size"] == pytest.approx(2 / np.sqrt(60))  # the other's box has no height
    assert metrics["nme_inter_pupil"] == pytest.approx(2 / np.hypot(9, 3))  # which the other's eye of two points lacks
    assert metrics["nme_image_diagonal"] == pytest.approx((2 + 0.5) / 2 / 50)
    assert metrics["failure_rate_8_inter_ocular"] == 0.5 and metrics["failure_rate_10_inter_ocular"] == 0.5
    assert metrics["auc_10_inter_ocular"] == pytest.approx(0.25)  # half of one image's unit area
    assert metrics["nme_hidden_inter_ocular"] == pytest.approx(0.1)
    assert [row["mean"] for row in result.per_point] == pytest.approx([(0.5 + 0.05) / 2, 0.025, 0.1])
    assert [row["images"] for row in result.per_point] == [2, 2, 1] and result.worst == [0, 1]


def test_the_area_is_the_integral_of_the_share_below() -> None:
    errors = np.random.default_rng(0).gamma(2, 0.03, 200)
    grid = np.linspace(0, 0.08, 200_001)
    shares = np.searchsorted(np.sort(errors), grid, side="right") / len(errors)
    assert area_under_curve(errors, 0.08) == pytest.approx(np.trapezoid(shares, grid) / 0.08, abs=1e-4)
    assert area_under_curve(np.zeros(3), 0.1) == 1 and area_under_curve(np.full(3, 0.1), 0.1) == 0
    assert failure_rate(np.array([0.1, 0.1001]), 0.1) == 0.5


def test_what_is_not_known_counts_for_nothing() -> None:
    nothing = np.full((3, 2), np.nan)
    result = evaluate([compared(SHAPE), compared(SHAPE, nothing)], list("abc"), EYES)
    assert result.metrics["nme_inter_ocular"] == 0 and result.worst == [0]
    assert evaluate([compared(SHAPE, nothing)], list("abc"), {}).metrics == {}
    same = np.tile([[4.0, 4.0]], (3, 1))
    assert all(
        np.isnan(length).all() for length in list(lengths(same[None], EYES, [5.0]).values())[:-1]
    )  # no length to divide by
    assert np.isnan(normalized_mean_errors(np.full((1, 3), np.nan), np.ones(1))).all()


def test_normalizers_are_named_and_refused_where_points_lack_them() -> None:
    assert choose_normalizer(None, ["box_size", "box_diagonal"]) == "box_diagonal"
    with pytest.raises(InputError, match=r"distance between the pupils.*take one of box_diagonal, box_size"):
        choose_normalizer("inter_pupil", ["box_diagonal", "box_size"])
    with pytest.raises(InputError, match="normalizer is 'eyes'; expected one of inter_ocular"):
        choose_normalizer("eyes", ["box_size"])
