"""One image of a volume, a mesh or points in a file, from one side: what `opsin render` does."""

from __future__ import annotations

import math
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from opsin.errors import InputError
from opsin.ops.cameras import focal_length, look_at
from opsin.render.transfer import automatic, load_transfer
from opsin.render.volume_rendering import render_volume
from opsin.render.volumes import read_volume

_ANGLE = 0.6  # radians that an image spans
_AXES = {
    "z": ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0)),
    "y": ((0.0, 0.0, 1.0), (1.0, 0.0, 0.0), (0.0, 1.0, 0.0)),
}


def side_camera(
    low: Tensor, high: Tensor, size: int, azimuth: float, elevation: float, up: str
) -> tuple[Tensor, Tensor]:
    """Pose (4, 4) and intrinsics (4,) of a camera that sees a box as a whole. azimuth, elevation: degrees."""
    first, second, above = (torch.tensor(axis) for axis in _AXES[up])
    turn, rise = math.radians(azimuth), math.radians(elevation)
    way = math.cos(rise) * (math.cos(turn) * first + math.sin(turn) * second) + math.sin(rise) * above
    middle = (low + high) / 2
    radius = float((high - low).norm()) / 2
    eye = middle + radius / math.sin(0.5 * _ANGLE) * way
    focal = focal_length(_ANGLE, size)
    return look_at(eye, middle, above), torch.tensor([focal, focal, size / 2, size / 2])


def render_volume_file(
    file: str, out: Path, size: int, azimuth: float, elevation: float, up: str, *,
    transfer: str, mode: str, shading: bool, step: float | None,
) -> dict[str, Any]:  # fmt: skip
    """Render a volume into an image file. Returns what was done, plain values. Raises InputError."""
    volume = read_volume(file)
    low, high = volume.box
    function = automatic(volume.values, float((high - low).norm())) if transfer == "auto" else load_transfer(transfer)
    pose, intrinsics = side_camera(low, high, size, azimuth, elevation, up)
    start = time.perf_counter()
    with torch.no_grad():
        image = render_volume(
            volume,
            function,
            pose,
            intrinsics,
            (size, size),
            step=step,
            shading=shading,
            mode=mode,  # type: ignore[arg-type]
        )
    took = time.perf_counter() - start
    values = image.values
    if mode != "composite":
        top = float(values.max())
        values = ((values - float(values.min())) / max(top - float(values.min()), 1e-12))[..., None].expand(-1, -1, 3)
    write_image(out, values)
    shape = "x".join(map(str, volume.values.shape))
    return {"what": f"a volume of {shape}", "rendering": took, "asked": image.asked, "image": str(out)}


def write_image(out: Path, values: Tensor) -> None:
    """Write colours (H, W, 3) in [0, 1]. Raises InputError where that cannot be."""
    from PIL import Image

    pixels = (values.clamp(0, 1) * 255).round().to(torch.uint8).numpy()
    try:
        Image.fromarray(np.ascontiguousarray(pixels)).save(out)
    except OSError as error:
        raise InputError(f"cannot write {out}: {(error.strerror or str(error)).lower()}") from None


def render_mesh_file(file: str, out: Path, size: int, azimuth: float, elevation: float, up: str) -> dict[str, Any]:
    """Render a mesh, or points, into an image file. Returns what was done, plain values. Raises InputError."""
    from opsin.render.meshes import read_mesh
    from opsin.render.rasterizer import rasterize, splat

    mesh = read_mesh(file)
    vertices = torch.from_numpy(mesh.vertices.astype(np.float32))
    pose, intrinsics = side_camera(vertices.amin(0), vertices.amax(0), size, azimuth, elevation, up)
    start = time.perf_counter()
    if len(mesh.faces):
        drawn = rasterize(mesh, pose, intrinsics, (size, size))
        what = f"a mesh of {len(mesh.faces):,} triangles"
    else:
        drawn = splat(mesh, pose, intrinsics, (size, size))
        what = f"{len(mesh.vertices):,} points"
    took = time.perf_counter() - start
    write_image(out, torch.from_numpy(drawn.colours))
    return {"what": what, "rendering": took, "covered": float(np.isfinite(drawn.depth).mean()), "image": str(out)}
