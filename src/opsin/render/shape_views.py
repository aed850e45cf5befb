"""Views of shapes: where rays meet the surface of a distance or an occupancy field, lit from the camera."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from opsin.ops.cameras import focal_length, image_rays, orbit
from opsin.ops.rays import intersect_box
from opsin.render.distance_field import field_gradient, first_crossings, trace_spheres
from opsin.render.radiance_field import Outputs
from opsin.render.rasterizer import AMBIENT, GREY
from opsin.render.shape_network import BoxedShape

_ANGLE, _SIDE = 0.6, 200  # radians that an image spans, and its pixels
_FILLED = 1 / 1.2  # of the box: the rest is the margin about the mesh, see `opsin.render.shape_source`
_ELEVATION = 20.0  # degrees
_STEPS = 128  # of a ray, at most
_CLOSE = 5e-4  # of half of the box's side, what counts as met


def shape_cameras(low: list[float], high: list[float]) -> tuple[dict[str, Any], float, float]:
    """Cameras that see what a box holds, less its margin, as a whole, with y upwards, and their near and far.

    low, high: two corners. As `opsin.render.camera_paths.known_cameras` says them.
    """
    centre = [(a + b) / 2 for a, b in zip(low, high, strict=True)]
    radius = math.dist(low, high) / 2 * _FILLED
    distance, focal = radius / math.sin(_ANGLE / 2), focal_length(_ANGLE, _SIDE)
    up = (0.0, 1.0, 0.0)
    middle = orbit(1, distance, _ELEVATION, (centre[0], centre[1], centre[2]), up)[0]
    known = {
        "size": [_SIDE, _SIDE],
        "intrinsics": [focal, focal, _SIDE / 2, _SIDE / 2],
        "centre": centre,
        "up": list(up),
        "radius": distance,
        "elevation": _ELEVATION,
        "middle": middle.tolist(),
        "spread": [radius] * 3,
    }
    return known, distance - radius, distance + radius


@torch.inference_mode(False)  # a prediction's, in which nothing has a gradient
@torch.no_grad()
def render_shape(model: BoxedShape, pose: Tensor, intrinsics: Tensor, size: tuple[int, int]) -> Outputs:
    """A view of a shape before white: color (H, W, 3), opacity and depth (H, W), normals (H, W, 3), on the CPU.

    A distance is followed by sphere tracing, `trace_spheres`; being inside has no distance, so its first change along
    evenly spaced places is found, `first_crossings`. opacity: 1 where the surface is met, where depth is along the
    camera's axis and normals, of the world, are those of the field's gradient; elsewhere 0, and NaN.
    """
    middle = model.middle
    origins, directions = (one.reshape(-1, 3).to(middle.device) for one in image_rays(size, pose.float(), intrinsics))
    lengths = torch.linalg.vector_norm(directions, dim=1)
    along = directions / lengths[:, None]
    near, far, _ = intersect_box(origins, along, middle - model.reach, middle + model.reach)
    if model.kind == "distance":
        t, met = trace_spheres(model, origins, along, near, far, steps=_STEPS, close=_CLOSE * model.reach)
    else:
        t, met = first_crossings(model.surface_values, origins, along, near, far, steps=_STEPS // 2)
    normals, color = torch.full_like(origins, math.nan), torch.ones_like(origins)
    if met.any():
        slope = -field_gradient(model.surface_values, origins[met] + t[met, None] * along[met])
        normals[met] = torch.nn.functional.normalize(slope, dim=1)
        cosine = (normals[met] * along[met]).sum(1, keepdim=True).abs()
        color[met] = color.new_tensor(GREY) * (AMBIENT + (1 - AMBIENT) * cosine)
    found = {
        "color": color,
        "opacity": met.float(),
        "depth": torch.where(met, t / lengths, torch.full_like(t, math.nan)),
        "normals": normals,
    }
    return {key: value.float().cpu().view(*size, *value.shape[1:]) for key, value in found.items()}
