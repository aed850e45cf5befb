"""Shapes to learn as functions: a closed mesh, of which the data are points with their signed distances."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from opsin.data.formats.format import Claim, Format
from opsin.data.inputs import Inputs
from opsin.data.source import Source, Split
from opsin.data.truth import Size, Summary, Truth
from opsin.render.meshes import read_mesh

KEY = "points"
_POOL, _VALIDATION = 200_000, 32_768  # points
_BLOCK = 4096  # points of an example of the validation
_NEAR = (0.005, 0.05)  # of the box's side: how far points about the surface are moved, each for a third of the points
_MARGIN = 0.1  # of the mesh's longest side, on every side of it
_ENDINGS = (".obj", ".ply", ".stl")


@dataclass(frozen=True, eq=False)
class PointDraws(Inputs):
    """Points with signed distances, float32 (size, 4). pool: (P, 4), from which each example is drawn at random.

    in_turn: instead, example k is the k-th block of the pool, as for a validation.
    """

    pool: Tensor
    size_: int
    count: int
    in_turn: bool = False

    key = KEY
    noun = "batch of points"

    @property
    def draws(self) -> bool:  # type: ignore[override]
        return not self.in_turn

    def __len__(self) -> int:
        return self.count

    def name(self, i: int) -> str:
        return f"points[{i}]"

    def read(self, i: int) -> Tensor:
        if self.in_turn:
            return self.pool[i * self.size_ : (i + 1) * self.size_]
        return self.pool[torch.randint(len(self.pool), (self.size_,))]

    def select(self, places: np.ndarray) -> PointDraws:
        if not self.in_turn:
            return replace(self, count=len(places))
        blocks = [self.pool[i * self.size_ : (i + 1) * self.size_] for i in places.tolist()]
        return replace(self, pool=torch.cat(blocks) if blocks else self.pool[:0], count=len(places))


@dataclass(frozen=True, eq=False)
class OfShape(Truth):
    """The mesh that points are of. vertices (V, 3), faces (F, 3). count: of the examples."""

    vertices: np.ndarray = field(repr=False)
    faces: np.ndarray = field(repr=False)
    count: int

    @property
    def box(self) -> tuple[np.ndarray, np.ndarray]:
        """Two corners of a cube around the mesh."""
        low, high = self.vertices.min(0), self.vertices.max(0)
        reach = (0.5 + _MARGIN) * (high - low).max()
        return (low + high) / 2 - reach, (low + high) / 2 + reach

    @property
    def diagonal(self) -> float:
        """Of the mesh's bounding box, by which errors are divided."""
        return float(np.linalg.norm(self.vertices.max(0) - self.vertices.min(0)))

    @property
    def meaning(self) -> Mapping[str, Any]:
        return {"box": [[round(float(value), 6) for value in corner] for corner in self.box]}

    def __len__(self) -> int:
        return self.count

    def select(self, places: np.ndarray) -> OfShape:
        return replace(self, count=len(places))

    def read(self, i: int, size: Size | None) -> dict[str, Any]:
        return {}

    def match(self, meaning: Mapping[str, Any]) -> OfShape:
        return self

    def summary(self) -> Summary:
        return Summary(kind=f"a closed mesh of {len(self.faces):,} faces", section="shape", noun="points")


def source_of_mesh(name: str, vertices: np.ndarray, faces: np.ndarray, seed: int = 0) -> Source:
    """A mesh as points with signed distances. Raises InputError for a mesh with holes.

    Training: a third of the points anywhere in the box, the others about the surface. Validation: anywhere.
    """
    # Here, since it needs SciPy, which listing formats can do without.
    from opsin.render.signed_distance import MeshDistance, surface_samples

    distance, random = MeshDistance(vertices, faces, seed), np.random.RandomState(seed)
    truth = OfShape(np.asarray(vertices, float), np.asarray(faces), _VALIDATION // _BLOCK)
    low, high = truth.box
    third = _POOL // 3
    parts = [random.uniform(low, high, (third, 3))]
    for share in _NEAR:
        points, _ = surface_samples(truth.vertices, truth.faces, third, random)
        parts.append(points + random.randn(third, 3) * (share * (high - low)[0]))
    anywhere = random.uniform(low, high, (_VALIDATION, 3))

    def pool(points: np.ndarray) -> Tensor:
        return torch.from_numpy(np.concatenate([points, distance(points)[:, None]], axis=1).astype(np.float32))

    train = PointDraws(pool(np.concatenate(parts)), _BLOCK, 1)
    val = PointDraws(pool(anywhere), _BLOCK, len(truth), in_turn=True)
    return Source(name, "mesh", {"train": Split(train, replace(truth, count=1)), "val": Split(val, truth)})


def _claims(path: Path) -> Claim:
    return 2 if path.suffix.lower() in _ENDINGS and path.is_file() else 0


def _open(path: Path) -> Source:
    mesh = read_mesh(path, faces=True)
    return source_of_mesh(str(path), mesh.vertices, mesh.faces)


FORMAT = Format("mesh", "signed distances", "a closed mesh, NAME.obj, .ply or .stl", _claims, _open)
