"""The same shape as a mesh, as points and as voxels: bytes on disk, error, seconds for an image of 256 x 256.

    python benchmarks/shapes.py meshes/spot.obj

Error is the Chamfer distance to the mesh, the mean of both directions over 50,000 samples, as a share of its diagonal;
that of the mesh itself is what sampling alone gives. Voxels are counted as bits, and drawn as the surface between them.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from opsin.render.conversions import marching_cubes, sample_surface, voxelize
from opsin.render.meshes import Mesh, centred, read_mesh, write_mesh
from opsin.render.one_image import side_camera
from opsin.render.rasterizer import rasterize, splat
from opsin.render.shape_metrics import chamfer_distance, compare_meshes

SAMPLES = 50_000
SIZE = (256, 256)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("mesh", type=Path)
    given = parser.parse_args()
    mesh = centred(read_mesh(given.mesh, faces=True))
    truth = sample_surface(mesh, SAMPLES, seed=1)[0]
    import torch

    pose, intrinsics = side_camera(torch.full((3,), -1.0), torch.full((3,), 1.0), SIZE[0], 30, 20, "y")
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        size = write_mesh(Path(folder) / "a.ply", mesh).stat().st_size
        error = chamfer_distance(sample_surface(mesh, SAMPLES, seed=0)[0], truth)
        rows.append(
            (
                f"mesh, {len(mesh.faces):,} triangles",
                size,
                error,
                clock(lambda: rasterize(mesh, pose, intrinsics, SIZE)),
            )
        )
        for count in (5_000, 50_000):
            points = Mesh(sample_surface(mesh, count, seed=2)[0], np.zeros((0, 3), np.int64))
            size = write_mesh(Path(folder) / "a.ply", points).stat().st_size
            error = chamfer_distance(points.vertices, truth)
            rows.append((f"{count:,} points", size, error, clock(lambda p=points: splat(p, pose, intrinsics, SIZE))))
        for resolution in (32, 64, 128):
            box = np.full(3, -1.0), np.full(3, 1.0)
            inside = voxelize(mesh, resolution, box)
            half = 1 - 1 / resolution
            back = marching_cubes(0.5 - inside, (np.full(3, -half), np.full(3, half)))
            score = compare_meshes(back, mesh, samples=SAMPLES, resolution=64)
            rows.append(
                (
                    f"voxels, {resolution}^3",
                    resolution**3 // 8,
                    score.chamfer,
                    clock(lambda b=back: rasterize(b, pose, intrinsics, SIZE)),
                )
            )
    print(f"{'form':<28}{'bytes':>12}{'Chamfer, % of diagonal':>26}{'seconds an image':>20}")
    for name, size, error, seconds in rows:
        print(f"{name:<28}{size:>12,}{100 * error / mesh.diagonal:>26.3f}{seconds:>20.3f}")


def clock(run: Callable[[], object]) -> float:
    start = time.process_time()
    run()
    return time.process_time() - start


if __name__ == "__main__":
    main()
