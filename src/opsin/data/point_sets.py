"""Which of an object's named points change places in a mirror image, and the sets of points that publications share.

A horizontal flip moves a point to width - x, and turns the left eye into the right one: whoever flips an image has to
exchange the names too. The pairs are given, or found: the mean shape, mirrored, must lie on itself.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.optimize import linear_sum_assignment
from scipy.spatial.distance import cdist

from opsin.errors import InputError, printable, unknown

Pairs = Sequence[Sequence[Any]]

_LOPSIDED = 0.06  # of the shape's diagonal: the mean distance of mirrored points at which it is no mirror image
_WRONG = 0.05  # the same, by which a given pair may be worse than the best partner
_ROUNDS = 4  # in which the axis of the mirror is found


def known_points(points: np.ndarray) -> np.ndarray:
    """Which of points (..., P, 2) are known, (..., P) bool: those whose coordinates are both numbers."""
    return np.isfinite(points[..., 0]) & np.isfinite(points[..., 1])


def mean_shape(points: np.ndarray) -> np.ndarray:
    """The mean of shapes (N, P, 2), each moved and scaled so that its box is centred at 0 with a diagonal of 1: (P, 2).

    NaN are points that are not known; shapes of which fewer than half are known are left out, unless all are. What no
    shape knows stays NaN.
    """
    known = known_points(points)
    whole = known.mean(axis=1) >= 0.5
    chosen = points[whole if whole.any() else known.any(axis=1)].astype(np.float64)
    if not len(chosen):
        return np.full(points.shape[1:], np.nan)
    low, high = np.nanmin(chosen, axis=1, keepdims=True), np.nanmax(chosen, axis=1, keepdims=True)
    diagonal = np.maximum(np.linalg.norm(high - low, axis=2, keepdims=True), 1e-9)
    scaled = (chosen - (low + high) / 2) / diagonal
    counts = (~np.isnan(scaled)).sum(axis=0)
    return np.where(counts > 0, np.nansum(scaled, axis=0) / np.maximum(counts, 1), np.nan)


def find_flip(shape: np.ndarray) -> tuple[int, ...] | None:
    """Of each point of a mean shape (P, 2) the one that it becomes in a mirror image, itself on the axis.

    Matched so that the sum of distances is least (Kuhn 1955), and made an involution: what changes places changes back.
    None where the shape, mirrored, does not lie on itself, or a point of it is not known.
    """
    if np.isnan(shape).any():
        return None
    axis = float(shape[:, 0].mean())
    flip = np.arange(len(shape))
    for _ in range(_ROUNDS):
        distances = _mirrored_distances(shape, axis)
        flip = _involution(linear_sum_assignment(distances)[1], distances)
        axis = float((shape[:, 0] + shape[flip, 0]).mean() / 2)
    distances = _mirrored_distances(shape, axis)
    off = distances[np.arange(len(flip)), flip].mean()
    return None if off > _LOPSIDED * _diagonal(shape) else tuple(flip.tolist())


def _diagonal(shape: np.ndarray) -> float:
    return max(float(np.linalg.norm(shape.max(axis=0) - shape.min(axis=0))), 1e-9)


def _mirrored_distances(shape: np.ndarray, axis: float) -> np.ndarray:
    return cdist(shape * (-1, 1) + (2 * axis, 0), shape)


def _involution(matched: np.ndarray, distances: np.ndarray) -> np.ndarray:
    """A matching in which every two are each other's: of those that are not, the nearest first."""
    flip = matched.copy()
    odd = np.flatnonzero(flip[flip] != np.arange(len(flip))).tolist()
    while odd:
        inner = distances[np.ix_(odd, odd)]
        row, column = np.unravel_index(int(inner.argmin()), inner.shape)
        one, other = odd[row], odd[column]
        flip[one], flip[other] = other, one
        odd = [place for place in odd if place not in (one, other)]
    return flip


def flip_of_names(names: Sequence[str]) -> tuple[int, ...] | None:
    """The pairs that names say, as left_eye and right_eye; None where none has a side, or a side lacks its other."""
    places = {name.lower(): k for k, name in enumerate(names)}
    flip, sided = list(range(len(names))), False
    for name, place in places.items():
        for side, other in (("left", "right"), ("right", "left")):
            if side in name:
                partner = places.get(name.replace(side, other))
                if partner is None:
                    return None
                flip[place], sided = partner, True
    return tuple(flip) if sided and [flip[k] for k in flip] == list(range(len(flip))) else None


def flip_of_pairs(pairs: Pairs, names: Sequence[str]) -> tuple[int, ...]:
    """The pairs that were given, each two points by name or number; all others lie on the axis.

    Raises InputError for what is no pair of two known points, and for a point in two pairs, naming both.
    """
    flip = list(range(len(names)))
    paired: dict[int, int] = {}
    for pair in pairs:
        if isinstance(pair, str) or len(pair) != 2:
            raise InputError(f"flip pairs are two points each, by name or number; got {pair!r}")
        one, other = (_place(point, names) for point in pair)
        for place, partner in ((one, other), (other, one)):
            if paired.get(place, partner) != partner:
                shown = [printable(names[k]) for k in (place, paired[place], partner)]
                raise InputError(
                    f"flip pairs: {shown[0]} is paired with {shown[1]} and with {shown[2]}; a point has one partner, "
                    "so that flipping twice gives the original"
                )
            paired[place] = partner
        flip[one], flip[other] = other, one
    return tuple(flip)


def _place(point: Any, names: Sequence[str]) -> int:
    if isinstance(point, str) and point in names:
        return list(names).index(point)
    if isinstance(point, int) and not isinstance(point, bool) and 0 <= point < len(names):
        return point
    raise unknown("point of a flip pair", str(point), names)


def check_flip(flip: Sequence[int], shape: np.ndarray, names: Sequence[str]) -> None:
    """Raise InputError, which names the two points, for a pair that a mirrored mean shape (P, 2) shows to be wrong.

    Nothing is checked of a shape that is no mirror image of itself, or not known as a whole.
    """
    best = find_flip(shape)
    if best is None:
        return
    axis = float((shape[:, 0] + shape[list(best), 0]).mean() / 2)
    distances = _mirrored_distances(shape, axis) / _diagonal(shape)
    for one, other in enumerate(flip):
        if distances[one, other] > distances[one].min() + _WRONG:
            right = printable(names[best[one]])
            pair = f"{printable(names[one])} and {printable(names[other])}"
            raise InputError(
                f"flip pairs: {pair} do not change places in a mirror image: mirrored, the mean {printable(names[one])}"
                f" lies {100 * distances[one, other]:.0f} % of the shape's diagonal from it, and nearest to {right}"
            )


@dataclass(frozen=True)
class PointSet:
    """A published set of points. pairs: that change places. eyes: by normaliser, of each eye the points whose mean is
    taken: "inter_ocular" between the outer corners, "inter_pupil" between the pupils, or the means of the lids.
    """

    name: str
    count: int
    pairs: tuple[tuple[int, int], ...]
    eyes: Mapping[str, tuple[tuple[int, ...], tuple[int, ...]]]

    @property
    def flip(self) -> tuple[int, ...]:
        return flip_of_pairs(self.pairs, [str(k) for k in range(self.count)])


def _pairs(*runs: tuple[Sequence[int], Sequence[int]]) -> tuple[tuple[int, int], ...]:
    return tuple(pair for left, right in runs for pair in zip(left, right, strict=True))


SETS = (
    # Sagonas et al. 2013, 300 Faces in-the-Wild: the 68 points of Multi-PIE, counted from 0.
    PointSet(
        "ibug68",
        68,
        _pairs(
            (range(8), range(16, 8, -1)), (range(17, 22), range(26, 21, -1)), ((31, 32), (35, 34)),
            ((36, 37, 38, 39, 40, 41), (45, 44, 43, 42, 47, 46)), ((48, 49, 50), (54, 53, 52)), ((55, 56), (59, 58)),
            ((60, 61), (64, 63)), ((65,), (67,)),
        ),
        {"inter_ocular": ((36,), (45,)), "inter_pupil": (tuple(range(36, 42)), tuple(range(42, 48)))},
    ),
    # Wu et al. 2018, Look at Boundary (WFLW), arXiv:1805.10483.
    PointSet(
        "wflw98",
        98,
        _pairs(
            (range(16), range(32, 16, -1)), (range(33, 42), (46, 45, 44, 43, 42, 50, 49, 48, 47)),
            ((55, 56), (59, 58)), ((60, 61, 62, 63, 64, 65, 66, 67), (72, 71, 70, 69, 68, 75, 74, 73)),
            ((76, 77, 78), (82, 81, 80)), ((83, 84), (87, 86)), ((88, 89), (92, 91)), ((93,), (95,)), ((96,), (97,)),
        ),
        {"inter_ocular": ((60,), (72,)), "inter_pupil": ((96,), (97,))},
    ),
    # Burgos-Artizzu et al. 2013, Robust face landmark estimation under occlusion (COFW).
    PointSet(
        "cofw29",
        29,
        _pairs(((0, 2, 4, 5, 8, 10, 12, 13, 16, 18, 22), (1, 3, 6, 7, 9, 11, 14, 15, 17, 19, 23))),
        {"inter_ocular": ((8,), (9,)), "inter_pupil": ((16,), (17,))},
    ),
    # Koestinger et al. 2011 (AFLW), without the ears, as Zhu et al. 2016 have it.
    PointSet(
        "aflw19",
        19,
        _pairs(((0, 1, 2, 6, 7, 8, 12, 15), (5, 4, 3, 11, 10, 9, 14, 17))),
        {"inter_ocular": ((6,), (11,)), "inter_pupil": ((7,), (10,))},
    ),
    PointSet("five", 5, ((0, 1), (3, 4)), {"inter_pupil": ((0,), (1,))}),
)  # fmt: skip


def recognize_set(shape: np.ndarray) -> PointSet | None:
    """The published set that a mean shape (P, 2) is of: one with as many points, whose pairs the shape has too."""
    known = next((one for one in SETS if one.count == len(shape)), None)
    found = None if known is None else find_flip(shape)
    if known is None or found is None:
        return None
    agreeing = sum(one == other for one, other in zip(known.flip, found, strict=True))
    return known if agreeing >= 0.9 * known.count else None


_CORNERS = ("{}_eye_outer", "{}_eye_outer_corner")
_PUPILS = ("{}_pupil", "{}_eye_center", "{}_eye")


def eyes_of_names(names: Sequence[str]) -> dict[str, tuple[tuple[int, ...], tuple[int, ...]]]:
    """The eyes that names say: left_eye_outer and right_eye_outer; left_eye and right_eye, which stand for pupils."""
    places = {name.lower(): k for k, name in enumerate(names)}
    found: dict[str, tuple[tuple[int, ...], tuple[int, ...]]] = {}
    for normalizer, ways in (("inter_ocular", _CORNERS), ("inter_pupil", _PUPILS)):
        for way in ways:
            left, right = (places.get(way.format(side)) for side in ("left", "right"))
            if left is not None and right is not None:
                found.setdefault(normalizer, ((left,), (right,)))
    return found
