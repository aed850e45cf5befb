"""Signed distances of meshes against closed forms, the first ball of a field, and rays that meet it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from opsin.errors import InputError
from opsin.render.density_mesh import grid_values, surface
from opsin.render.distance_field import ShapeField, eikonal_losses, field_gradient, trace_spheres
from opsin.render.meshes import Mesh, write_mesh
from opsin.render.signed_distance import MeshDistance, open_edges, surface_samples

_CUBE = np.array([[x, y, z] for x in (-1.0, 1) for y in (-1.0, 1) for z in (-1.0, 1)])
_FACES = np.array([
    [0, 1, 3], [0, 3, 2], [4, 6, 7], [4, 7, 5], [0, 4, 5], [0, 5, 1], [2, 3, 7], [2, 7, 6], [0, 2, 6], [0, 6, 4],
    [1, 5, 7], [1, 7, 3],
])  # fmt: skip


def box_distance(points: np.ndarray) -> np.ndarray:
    """Of a cube from -1 to 1."""
    q = np.abs(points) - 1
    return np.linalg.norm(np.maximum(q, 0), axis=1) + np.minimum(q.max(1), 0)


def test_distances_of_a_cube_are_exact_at_faces_edges_and_corners() -> None:
    points = np.random.RandomState(0).uniform(-2, 2, (2000, 3))
    points = np.concatenate([points, [[1.5, 1.5, 1.5], [1.5, 1.5, 0.2], [0, 0, 0.9], [-1.2, 0.3, 0.99]]])
    found = MeshDistance(_CUBE, _FACES)(points)
    away = np.abs(found - box_distance(points))
    # A point as far from two faces as from each other may be given to the one whose samples lie nearer.
    assert (away < 1e-9).mean() > 0.99 and away.max() < 1e-3 and away[-4:].max() < 1e-9


def test_a_mesh_with_holes_has_no_inside() -> None:
    assert open_edges(_FACES) == 0 and open_edges(_FACES[1:]) == 3
    with pytest.raises(InputError, match=r"3 edges.*holes.*not defined"):
        MeshDistance(_CUBE, _FACES[1:])
    with pytest.raises(InputError, match="no faces"):
        MeshDistance(_CUBE, np.zeros((0, 3), int))
    with pytest.raises(InputError, match="no area"):
        surface_samples(np.zeros((8, 3)), _FACES, 10, np.random.RandomState(0))


def test_samples_lie_evenly_on_the_surface() -> None:
    points, face = surface_samples(_CUBE, _FACES, 6000, np.random.RandomState(1))
    np.testing.assert_allclose(np.abs(points).max(1), 1)
    assert np.bincount(face, minlength=12).min() > 400 and abs(points.mean(0)).max() < 0.05


@pytest.mark.parametrize("kind", ["distance", "occupancy"])
def test_a_field_begins_as_a_ball(kind: str) -> None:
    torch.manual_seed(0)
    field = ShapeField(kind, width=256)  # type: ignore[arg-type]
    along = torch.nn.functional.normalize(torch.randn(500, 3), dim=-1)
    with torch.no_grad():
        assert (field.surface_values(along * 0.25) > 0).all() and (field.surface_values(along * 0.9) < 0).all()
    if kind == "distance":
        slope = field_gradient(field, along * 0.7)
        assert float((slope * along).sum(-1).mean()) == pytest.approx(1, abs=0.25)  # of 256 units, on the mean


def test_terms_vanish_for_a_true_distance_and_gradients_reach_all() -> None:
    def ball(points: torch.Tensor) -> torch.Tensor:
        return points.norm(dim=-1) - 0.5

    along = torch.nn.functional.normalize(torch.randn(50, 3), dim=-1)
    losses = eikonal_losses(ball, along * 0.5, along, torch.randn(50, 3))
    assert max(float(value) for value in losses.values()) < 1e-5
    twice = eikonal_losses(lambda points: 2 * ball(points), along * 0.75, along, torch.randn(50, 3))
    assert [round(float(twice[key]), 4) for key in ("surface", "normal", "eikonal")] == [0.5, 1.0, 1.0]
    field = ShapeField(width=16, depth=2)
    torch.stack(list(eikonal_losses(field, along, along, along).values())).sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in field.parameters())


def test_rays_meet_a_ball_where_they_should() -> None:
    origins = torch.tensor([[-3.0, 0, 0], [-3.0, 0.49, 0], [-3.0, 0.6, 0], [-3.0, 0, 0]])
    along = torch.tensor([[1.0, 0, 0]]).expand(4, 3)
    far = torch.tensor([10.0, 10, 10, 1])
    t, met = trace_spheres(lambda p: p.norm(dim=-1) - 0.5, origins, along, torch.zeros(4), far, close=1e-4, steps=200)
    assert met.tolist() == [True, True, False, False]
    assert float(t[0]) == pytest.approx(2.5, abs=2e-4)
    assert float(t[1]) == pytest.approx(3 - (0.25 - 0.49**2) ** 0.5, abs=2e-3)


@pytest.mark.parametrize("ending", [".ply", ".obj", ".stl"])
def test_a_surface_is_written(ending: str, tmp_path: Path) -> None:
    box = ([-1.0] * 3, [1.0] * 3)
    vertices, faces = surface(grid_values(lambda p: 0.6 - p.norm(dim=1), box, 24), box, 0.0)
    np.testing.assert_allclose(np.linalg.norm(vertices, axis=1), 0.6, atol=0.01)
    assert open_edges(faces) == 0
    edges = len(np.unique(np.sort(np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]]), 1), axis=0))
    assert len(vertices) - edges + len(faces) == 2  # Euler's number of a ball
    path = write_mesh(tmp_path / f"ball{ending}", Mesh(vertices, faces))
    content = path.read_bytes()
    counts = {".ply": f"element face {len(faces)}".encode(), ".obj": b"\nf ", ".stl": np.uint32(len(faces)).tobytes()}
    assert counts[ending] in content
    if ending == ".stl":
        assert len(content) == 84 + 50 * len(faces)
    with pytest.raises(InputError, match="no surface"):
        surface(np.zeros((4, 4, 4)), box, 0.5)
