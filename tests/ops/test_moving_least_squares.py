"""Moving least squares: held against a plain loop that solves for each point's transformation, and hand-made moves."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from opsin.errors import InputError
from opsin.ops.moving_least_squares import KINDS, border_points, moving_least_squares


def slowly(v: np.ndarray, p: np.ndarray, q: np.ndarray, kind: str) -> np.ndarray:
    """Where one point goes: the weighted least squares of section 2.2 solved as such, in its two unknowns."""
    w = 1 / ((p - v) ** 2).sum(axis=1)
    ps, qs = (w[:, None] * p).sum(axis=0) / w.sum(), (w[:, None] * q).sum(axis=0) / w.sum()
    rows, wanted = [], []
    for weight, (x, y), target in zip(w, p - ps, q - qs, strict=True):
        rows += [
            np.sqrt(weight) * np.array([x, -y]),
            np.sqrt(weight) * np.array([y, x]),
        ]  # x' = a x - b y, y' = b x + a y
        wanted += list(np.sqrt(weight) * target)
    a, b = np.linalg.lstsq(np.array(rows), np.array(wanted), rcond=None)[0]
    if kind == "rigid":
        a, b = np.array([a, b]) / np.hypot(a, b)
    return np.array([[a, -b], [b, a]]) @ (v - ps) + qs


@pytest.mark.parametrize("kind", KINDS)
def test_equals_the_least_squares_of_each_point(kind: str) -> None:
    random = np.random.RandomState(0)
    controls = random.rand(7, 2) * 50
    moved, points = controls + random.randn(7, 2) * 4, random.rand(40, 2) * 60 - 5
    expected = [slowly(v, controls, moved, kind) for v in points]
    given = [torch.from_numpy(one) for one in (points, controls, moved)]
    np.testing.assert_allclose(moving_least_squares(*given, kind=kind), expected, atol=1e-4)  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", KINDS)
def test_controls_go_where_they_are_moved_and_rigid_motions_are_kept(kind: str) -> None:
    controls = border_points(3, 32, 100).double()
    assert controls.shape == (8, 2) and controls[0].tolist() == [0, 0] and controls[7].tolist() == [100, 32]
    moved = controls + torch.randn(8, 2, generator=torch.Generator().manual_seed(0)).double() * 3
    found = moving_least_squares(controls, controls, moved, kind=kind)  # type: ignore[arg-type]
    torch.testing.assert_close(found, moved, atol=1e-4, rtol=0)
    cos, sin = 0.8, 0.6
    turn = torch.tensor([[cos, sin], [-sin, cos]], dtype=torch.float64)
    points = torch.rand(30, 2, generator=torch.Generator().manual_seed(1)).double() * 80
    shifted = controls @ turn + torch.tensor([3.0, -7.0])
    found = moving_least_squares(points, controls, shifted, kind=kind)  # type: ignore[arg-type]
    torch.testing.assert_close(found, points @ turn + torch.tensor([3.0, -7.0]).double())
    doubled = moving_least_squares(points, controls, 2 * controls)
    torch.testing.assert_close(doubled, 2 * points)


def test_batches_are_each_by_itself() -> None:
    torch.manual_seed(0)
    controls, moved, points = torch.rand(3, 5, 2), torch.rand(3, 5, 2), torch.rand(11, 2)
    together = moving_least_squares(points, controls, moved)
    for k in range(3):
        torch.testing.assert_close(together[k], moving_least_squares(points, controls[k], moved[k]))


def test_degenerate_controls_and_wrong_calls() -> None:
    same = torch.full((4, 2), 5.0)
    assert torch.allclose(moving_least_squares(torch.zeros(3, 2), same, same + 2).isfinite().float(), torch.ones(3, 2))
    with pytest.raises(InputError, match="two or more"):
        moving_least_squares(torch.zeros(3, 2), torch.zeros(1, 2), torch.zeros(1, 2))
    with pytest.raises(InputError, match="unknown kind 'affine'"):
        moving_least_squares(torch.zeros(3, 2), same, same, kind="affine")  # type: ignore[arg-type]
