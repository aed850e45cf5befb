"""A field in use: views along a path, and a mesh of its surface."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from opsin.engine.answers import Answer
from opsin.engine.predict import Predictor
from opsin.engine.program import Program
from opsin.errors import InputError
from opsin.ops.cameras import image_rays
from opsin.render.answers import RenderAnswer
from opsin.render.camera_paths import Cameras, path_cameras
from opsin.render.density_mesh import write_density_mesh
from opsin.render.program import field_inputs, field_program
from opsin.render.radiance_field import Outputs
from opsin.render.shape_network import BoxedShape
from opsin.render.shape_source import KEY as POINTS
from opsin.render.shape_views import render_shape, shape_cameras
from opsin.structures import Batch

_SEEN = 0.5  # opacity from which on a ray has a depth
_VIEWS = 30


class RenderPredictor(Predictor):
    """Renders views. It needs no input: the model is the scene."""

    takes: ClassVar[Any] = "nothing"
    answer_class: ClassVar[type[Answer]] = RenderAnswer

    def rays_of(self, pose: Tensor, intrinsics: Tensor, distortion: Tensor | None, size: tuple[int, int]) -> Tensor:
        """All rays of a view, row by row: (H W, 8)."""
        if distortion is not None and not bool(distortion.any()):
            distortion = None
        origins, directions = image_rays(size, pose.float(), intrinsics.float(), distortion)
        meaning = self.facts.meaning
        depths = torch.tensor([float(meaning["near"]), float(meaning["far"])]).expand(size[0] * size[1], 2)
        return torch.cat([origins.reshape(-1, 3), directions.reshape(-1, 3), depths], dim=1)

    @torch.no_grad()
    def render(
        self, pose: Tensor, intrinsics: Tensor, size: tuple[int, int], distortion: Tensor | None = None
    ) -> Outputs:
        """One view: color (H, W, 3), opacity and depth (H, W), on the CPU; of a shape normals (H, W, 3) too.

        size: (height, width).
        """
        if isinstance(self.model, BoxedShape):
            return render_shape(self.model, pose, intrinsics, size)
        rays = self.rays_of(pose, intrinsics, distortion, size).to(self.device)
        found = self.model.decode(self.model(rays))
        return {
            key: value.float().cpu().view(*size, *value.shape[1:]) for key, value in found.items() if key != "coarse"
        }

    def inputs(self, batch: Batch) -> tuple[Any, ...]:
        raise InputError("views are rendered ray by ray")

    def outputs(self, batch: Batch) -> Any:
        """Of each view of a loaded batch what is rendered from its camera; of points of a shape what the field says."""
        values: Any = batch
        if POINTS in values:
            return self.model(values[POINTS][..., :3].flatten(0, 1).to(self.device)).view(values[POINTS].shape[:2])
        return [
            self.render(pose, intrinsics, (int(image.shape[-2]), int(image.shape[-1])), distortion)
            for image, pose, intrinsics, distortion in zip(
                values["image"], values["pose"], values["intrinsics"], values["distortion"], strict=True
            )
        ]

    # What it says

    def collate(self, originals: Sequence[Any]) -> Tensor:
        """Of a prediction nothing; to compare an exported file with, as many places of the box as examples."""
        low, high = (torch.tensor(corner) for corner in self.box)
        draws = torch.rand(max(1, len(originals)), 3, generator=torch.Generator().manual_seed(0))
        return field_inputs(low + draws * (high - low), self.model)

    def programs(self) -> list[Program]:
        return [field_program(self.model)]

    def run(self, batch: Tensor, originals: Sequence[Any]) -> Any:
        return None

    def answers(
        self,
        outputs: Any,
        sizes: Sequence[tuple[int, int]],
        originals: Sequence[Any],
        path: str | None = None,
        views: int | None = None,
        side: int | None = None,
        mesh: str | None = None,
        resolution: int | None = None,
        level: float | None = None,
        **options: Any,
    ) -> list[dict[str, Any]]:
        """One answer, see `RenderAnswer`. path: "orbit", "spiral" or a JSON file of poses; an orbit if None, unless a
        mesh alone is asked for. views: of a path, 30. side: pixels of the longer side. mesh: a file, .ply, .obj or
        .stl, for the surface where the density is `level`, of resolution^3 places.
        """
        found: dict[str, Any] = {}
        if mesh is not None:
            found |= write_density_mesh(self.model, self.box, Path(mesh), resolution or 128, level)
        if path is not None or mesh is None:
            found |= self._views(path or "orbit", views or _VIEWS, side)
        return [found]

    @property
    def box(self) -> tuple[list[float], list[float]]:
        """The two corners of what the model knows."""
        low, high = self.facts.meaning["box"]
        own = self.facts.options.get("box") or self.recipe.model.options.get("box")
        return (list(own[:3]), list(own[3:])) if own else (list(low), list(high))

    def cameras(self, path: str, views: int, side: int | None) -> Cameras:
        """The cameras of a path, see `opsin.render.camera_paths`."""
        if isinstance(self.model, BoxedShape):
            return path_cameras(path, *shape_cameras(*self.box), views, side)
        known, meaning = getattr(self.model, "cameras", None), self.facts.meaning
        if not known:
            raise InputError("the model does not say which cameras saw its scene; give path=poses.json of a data set")
        return path_cameras(path, known, float(meaning["near"]), float(meaning["far"]), views, side)

    def _views(self, path: str, views: int, side: int | None) -> dict[str, Any]:
        cameras = self.cameras(path, views, side)
        started, parts = time.perf_counter(), []
        for pose in cameras.poses:
            parts.append(self.render(pose, cameras.intrinsics, cameras.size))
        seconds = time.perf_counter() - started
        color, opacity, depth = (torch.stack([one[key] for one in parts]) for key in ("color", "opacity", "depth"))
        depth = torch.where(opacity > _SEEN, depth, torch.nan)
        normals = torch.stack(
            [
                one["normals"] if "normals" in one else depth_normals(d, pose, cameras.intrinsics)
                for one, d, pose in zip(parts, depth, cameras.poses, strict=True)
            ]
        )
        height, width = cameras.size
        return {
            "views": len(color),
            "size": [height, width],
            "rays_per_second": round(len(color) * height * width / max(seconds, 1e-9)),
            "images": (color * 255).round().to(torch.uint8).numpy(),
            "depths": depth.numpy(),
            "normals": normals.numpy().astype(np.float32),
            "opacities": opacity.numpy(),
        }

    def describe(self, answer: Mapping[str, Any]) -> str:
        parts = []
        if "views" in answer:
            height, width = answer["size"]
            parts.append(f"{answer['views']} views of {height}x{width}, {answer['rays_per_second']:,} rays a second")
        if "mesh" in answer:
            parts.append(f"{answer['faces']:,} faces written to {answer['mesh']}")
        return "; ".join(parts)


def depth_normals(depth: Tensor, pose: Tensor, intrinsics: Tensor) -> Tensor:
    """Normals (H, W, 3) in the world of the surface that depths (H, W) show, towards the camera; NaN where unknown.

    The cross product of the differences of neighbouring places, one-sided: an edge of the surface has none.
    """
    origins, directions = image_rays((depth.shape[0], depth.shape[1]), pose.float(), intrinsics.float())
    points = origins + directions * depth[..., None]
    across = points[:, 1:] - points[:, :-1]
    down = points[1:] - points[:-1]
    normals = torch.linalg.cross(down[:, :-1], across[:-1], dim=-1)
    normals = normals / torch.linalg.vector_norm(normals, dim=-1, keepdim=True)
    away = (normals * directions[:-1, :-1]).sum(-1, keepdim=True) > 0
    found = torch.full((*depth.shape, 3), torch.nan)
    found[:-1, :-1] = torch.where(away, -normals, normals)
    return found
