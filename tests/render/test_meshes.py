"""Meshes and points: files by hand, a z-buffer held equal to rays, and conversions to their closed forms."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest
import torch

from opsin.errors import InputError
from opsin.ops.cameras import image_rays, look_at
from opsin.render import conversions, shape_metrics
from opsin.render.meshes import Mesh, centred, check_closed, face_normals, read_mesh, write_mesh
from opsin.render.rasterizer import rasterize, splat

CUBE = np.array([[x, y, z] for x in (-1.0, 1) for y in (-1.0, 1) for z in (-1.0, 1)])
SIDES = np.array([[0, 1, 3, 2], [4, 6, 7, 5], [0, 4, 5, 1], [2, 3, 7, 6], [0, 2, 6, 4], [1, 5, 7, 3]])


def cube(scale: float = 1.0) -> Mesh:
    faces = np.concatenate([SIDES[:, [0, 1, 2]], SIDES[:, [0, 2, 3]]])
    return Mesh(CUBE * scale, faces.astype(np.int64))


def a_ball(resolution: int = 24, radius: float = 0.7) -> Mesh:
    steps = np.linspace(-1, 1, resolution)
    grid = np.linalg.norm(np.stack(np.meshgrid(steps, steps, steps, indexing="ij"), -1), axis=-1) - radius
    return conversions.marching_cubes(grid, (np.full(3, -1.0), np.full(3, 1.0)))


@pytest.mark.parametrize("ending", [".obj", ".ply", ".stl"])
def test_what_is_written_is_read_again(tmp_path: Path, ending: str) -> None:
    colours = None if ending == ".stl" else np.random.default_rng(0).integers(0, 256, (8, 3)) / 255
    mesh = Mesh(CUBE, cube().faces, colours)
    found = read_mesh(write_mesh(tmp_path / f"a{ending}", mesh))
    np.testing.assert_allclose(np.sort(found.corners, axis=0), np.sort(mesh.corners, axis=0))
    assert (found.euler_number(), found.open_edges(), len(found.vertices)) == (2, 0, 8)
    if colours is not None:
        assert found.colours is not None
        np.testing.assert_allclose(found.colours, colours, atol=1e-7)
    np.testing.assert_allclose((face_normals(found) * found.corners.mean(1)).sum(1), 1)  # they turn outwards


def test_files_by_hand(tmp_path: Path) -> None:
    (tmp_path / "q.obj").write_text("# a square\nv 0 0 0 1 0 0\nv 1 0 0 1 0 0\nv 1 1 0 0 0 1\nv 0 1 0 0 0 1\n"
                                    "vt 0 0\nf 1/1 2/1 3/1 -1/1\n")  # fmt: skip
    found = read_mesh(tmp_path / "q.obj")
    assert found.faces.tolist() == [[0, 1, 2], [0, 2, 3]] and found.colours is not None and found.colours[2, 2] == 1
    header = "ply\nformat {} 1.0\nelement vertex 3\nproperty double x\nproperty double y\nproperty double z\n"
    header += "property uchar red\nproperty uchar green\nproperty uchar blue\nelement face 1\n"
    header += "property list uchar int vertex_indices\nend_header\n"
    rows = [(0, 0, 0, 255, 0, 0), (1, 0, 0, 255, 0, 0), (0, 2, 0, 0, 0, 51)]
    text = header.format("ascii") + "".join(" ".join(map(str, row)) + "\n" for row in rows) + "3 0 1 2\n"
    (tmp_path / "a.ply").write_text(text)
    big = b"".join(struct.pack(">3d3B", *row) for row in rows) + struct.pack(">B3i", 3, 0, 1, 2)
    (tmp_path / "b.ply").write_bytes(header.format("binary_big_endian").encode() + big)
    for name in ("a.ply", "b.ply"):
        found = read_mesh(tmp_path / name)
        assert found.vertices[2].tolist() == [0, 2, 0] and found.faces.tolist() == [[0, 1, 2]]
        assert found.colours is not None and found.colours[2].tolist() == [0, 0, 0.2]
    (tmp_path / "a.stl").write_text("solid x\nfacet normal 0 0 1\nouter loop\nvertex 0 0 0\nvertex 1 0 0\n"
                                    "vertex 0 1 0\nendloop\nendfacet\nendsolid x\n")  # fmt: skip
    assert read_mesh(tmp_path / "a.stl").faces.shape == (1, 3)
    (tmp_path / "p.xyz").write_text("0 0 0 255 0 0\n1, 2, 3, 0, 0, 255\n")
    points = read_mesh(tmp_path / "p.xyz")
    assert points.vertices.tolist() == [[0, 0, 0], [1, 2, 3]] and len(points.faces) == 0


def test_bad_meshes_are_refused_in_a_line(tmp_path: Path) -> None:
    for name, content, message in (
        ("empty.obj", "# nothing\n", "holds 0 vertices and 0 faces; there is nothing in it"),
        ("word.obj", "v 0 0 0\nv 0 x 0\n", "line 2: expected v x y z"),
        ("lost.obj", "v 0 0 0\nv 1 0 0\nf 1 2 9\n", "has a face of vertex 8 or 0, counted from 0, and 2 vertices"),
        ("nan.obj", "v 0 0 nan\n", "not finite numbers"),
        ("cut.ply", "ply\nformat ascii 1.0\nelement vertex 2\nproperty float x\nproperty float y\nproperty float z\n"
         "end_header\n1 2 3 4\n", "ends too early"),
        ("many.ply", "ply\nformat ascii 1.0\nelement vertex 99999999999\nend_header\n", "in its header is not"),
        ("a.stl", "hello", "is no STL file"),
        ("a.xyz", "1 2 3\n1 2\n", "line 2: expected 3 or 6 numbers"),
        ("a.glb", "x", "is no mesh; expected .obj"),
    ):  # fmt: skip
        (tmp_path / name).write_text(content)
        with pytest.raises(InputError, match=message):
            read_mesh(tmp_path / name)
    open_cube = Mesh(CUBE, cube().faces[1:])
    with pytest.raises(InputError, match="the cube has holes: 3 of its edges do not have two faces, so that inside"):
        check_closed(open_cube, "the cube")
    with pytest.raises(InputError, match="has holes"):
        conversions.voxelize(open_cube, 8, (np.full(3, -2.0), np.full(3, 2.0)))


def test_the_z_buffer_is_what_rays_see() -> None:
    """Every triangle against every ray, Moeller and Trumbore 1997, in a plain loop."""
    mesh = cube()
    colours = np.random.default_rng(1).random((8, 3))
    mesh = Mesh(mesh.vertices, mesh.faces, colours)
    pose = look_at(torch.tensor([4.0, -3.0, 2.0]).double(), torch.zeros(3), torch.tensor([0.0, 0, 1]))
    intrinsics = torch.tensor([30.0, 30, 10, 8]).double()
    drawn = rasterize(mesh, pose, intrinsics, (16, 20))
    origins, directions = (one.numpy() for one in image_rays((16, 20), pose, intrinsics))
    for row in range(16):
        for column in range(20):
            best, colour = np.inf, np.ones(3)
            for face, (a, b, c) in zip(mesh.faces, mesh.corners, strict=True):
                matrix = np.stack([b - a, c - a, -directions[row, column]], axis=-1)
                if abs(np.linalg.det(matrix)) < 1e-12:
                    continue
                u, v, t = np.linalg.solve(matrix, origins[row, column] - a)
                if u >= 0 and v >= 0 and u + v <= 1 and 0 < t < best:
                    best = t
                    normal = np.cross(b - a, c - a)
                    cosine = abs(normal @ directions[row, column])
                    cosine /= np.linalg.norm(normal) * np.linalg.norm(directions[row, column])
                    colour = np.array([1 - u - v, u, v]) @ colours[face] * (0.25 + 0.75 * cosine)
            assert drawn.depth[row, column] == pytest.approx(best, rel=1e-9)
            np.testing.assert_allclose(drawn.colours[row, column], colour, atol=1e-6)
    assert 20 < int(np.isfinite(drawn.depth).sum()) < 260


def test_points_are_discs_and_the_nearest_is_seen() -> None:
    pose, intrinsics = torch.eye(4).double(), torch.tensor([20.0, 20, 10, 10]).double()
    points = np.array([[0.0, 0, -4], [0.05, 0, -2], [0, 0, 3]])  # the last is behind the camera
    mesh = Mesh(points, np.zeros((0, 3), np.int64), np.eye(3))
    drawn = splat(mesh, pose, intrinsics, (20, 20), radius=0.4)
    assert drawn.faces[10, 10] == 1 and drawn.depth[10, 10] == 2 and drawn.colours[10, 10].tolist() == [0, 1, 0]
    rows, columns = np.nonzero(drawn.faces >= 0)
    assert set(np.unique(drawn.faces)) == {-1, 1}
    assert np.hypot(columns + 0.5 - 10.5, rows + 0.5 - 10).max() <= 4 < np.hypot(columns - 10, rows - 10).max() + 1.5


def test_a_surface_of_a_grid_is_measured_by_its_sphere() -> None:
    ball = a_ball()
    assert ball.euler_number() == 2 and ball.open_edges() == 0
    assert abs(np.linalg.norm(ball.vertices, axis=1) - 0.7).max() < 0.01
    assert ((face_normals(ball) * ball.corners.mean(1)).sum(1) > 0).all()  # outwards
    points, normals = conversions.sample_surface(ball, 5000)
    np.testing.assert_allclose((points / np.linalg.norm(points, axis=1, keepdims=True) * normals).sum(1), 1, atol=0.05)
    assert np.linalg.norm(points.mean(0)) < 0.03
    steps = (np.arange(20) + 0.5) / 20 * 2 - 1
    expected = np.linalg.norm(np.stack(np.meshgrid(steps, steps, steps, indexing="ij"), -1), axis=-1) < 0.7
    inside = conversions.voxelize(ball, 20, (np.full(3, -1.0), np.full(3, 1.0)))
    assert shape_metrics.grid_iou(inside, expected) > 0.95  # flat triangles lie within the sphere
    whole = conversions.voxelize(cube(), 8, (np.full(3, -2.0), np.full(3, 2.0)))
    assert whole[2:6, 2:6, 2:6].all() and whole.sum() == 64
    with pytest.raises(InputError, match="there is no surface at 5: the values go from"):
        conversions.marching_cubes(np.random.default_rng(0).random((4, 4, 4)), (np.zeros(3), np.ones(3)), 5.0)


def test_scores_of_two_cubes_by_hand() -> None:
    """A cube of side 2 in one of side 2.2: 0.1 between the faces, and (2 / 2.2)^3 of the larger one inside."""
    score = shape_metrics.compare_meshes(cube(1.1), cube(), samples=8000, threshold=0.2, resolution=44)
    assert 0.1 < score.chamfer < 0.125 and score.chamfer_share == pytest.approx(score.chamfer / np.sqrt(12))
    assert score.iou == pytest.approx((40 / 44) ** 3, abs=0.03) and score.f_score > 0.99
    assert score.normal_consistency > 0.9 and score.euler_number == 2
    points, others = np.array([[0.0, 0, 0], [1, 0, 0]]), np.array([[0.0, 0, 3]])
    expected = 0.5 * ((3 + np.sqrt(10)) / 2 + 3)
    assert shape_metrics.chamfer_distance(points, others) == pytest.approx(expected)
    assert shape_metrics.f_score(points, others, 3.1) == pytest.approx(2 * 0.5 * 1 / 1.5)
    assert shape_metrics.grid_iou(np.zeros((2, 2, 2), bool), np.zeros((2, 2, 2), bool)) == 1


@pytest.mark.real_data
def test_spot_is_closed_and_survives_its_voxels(data_dir: Path) -> None:
    spot = centred(read_mesh(data_dir / "meshes/spot.obj", faces=True))
    assert (len(spot.faces), spot.euler_number(), spot.open_edges()) == (5856, 2, 0)
    inside = conversions.voxelize(spot, 48, (np.full(3, -1.0), np.full(3, 1.0)))
    back = conversions.marching_cubes(0.5 - inside, (np.full(3, -1 + 1 / 48), np.full(3, 1 - 1 / 48)))
    score = shape_metrics.compare_meshes(back, spot, samples=10_000, resolution=64)
    assert score.chamfer_share < 0.01 and score.iou is not None and score.iou > 0.9 and score.f_score > 0.9
