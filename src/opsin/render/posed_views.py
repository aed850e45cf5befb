"""Views of a scene whose cameras are known: where their images come from, and what is known of each."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from opsin.data.images import decode_alpha
from opsin.data.inputs import ImageFiles
from opsin.data.truth import Problem, Size, Summary, Truth
from opsin.errors import InputError
from opsin.ops.cameras import project
from opsin.render.near_far import scene_centre

if TYPE_CHECKING:
    from PIL.Image import Image

BACKGROUNDS: Mapping[str, int] = {"white": 255, "black": 0}
ALPHAS = ("straight", "premultiplied")
_ROTATION = 1e-3  # by which a rotation may be off, R R^T from 1: files round to 4 digits


@dataclass(frozen=True, eq=False)
class ViewFiles(ImageFiles):
    """Images in files, or in a zip, laid over a background where they have alpha.

    background: of `BACKGROUNDS`. alpha: "straight", colours are as they are without alpha; or "premultiplied", they are
    multiplied by it already.
    """

    background: str = "white"
    alpha: str = "straight"

    def read(self, i: int) -> Tensor:
        """uint8 (3, H, W)."""
        return self._flatten(self.encoded(i), i)

    def read_encoded(self, i: int) -> tuple[Tensor, bytes]:
        encoded = self.encoded(i)
        return self._flatten(encoded, i), encoded

    def select(self, places: np.ndarray) -> ViewFiles:
        return replace(self, files=[self.files[i] for i in places.tolist()])

    def _flatten(self, encoded: bytes, i: int) -> Tensor:
        colours, alpha = decode_alpha(encoded, self.name(i))
        return colours if alpha is None else over_background(colours, alpha, self.alpha, self.background)


def over_background(colours: Tensor, alpha: Tensor, kind: str, background: str) -> Tensor:
    """Colours uint8 (3, H, W) with alpha (H, W) laid over a background: uint8 (3, H, W). kind: of `ALPHAS`."""
    share = alpha.float() / 255
    own = colours.float() * (share if kind == "straight" else 1.0)
    return (own + (1 - share) * BACKGROUNDS[background]).round().clamp(0, 255).to(torch.uint8)


def guess_alpha(colours: Tensor, alpha: Tensor) -> str | None:
    """How colours uint8 (3, H, W) and alpha (H, W) go together; None where nothing shows it.

    A colour above its alpha cannot have been multiplied by it, which a compressed or rounded one exceeds by 2 at most.
    """
    edge = (alpha > 8) & (alpha < 247)
    empty = (alpha == 0) & (colours.amax(0) > 2)
    if bool(empty.any()) or bool((colours.amax(0)[edge].int() > alpha[edge].int() + 2).any()):
        return "straight"
    return "premultiplied" if int(edge.sum()) >= 20 else None


@dataclass(frozen=True)
class ViewSummary(Summary):
    """values: near, far, background; distances: of the cameras from the scene's centre, (N,); focal: (N,) in pixels."""

    values: Mapping[str, Any] = field(default_factory=dict)
    distances: np.ndarray = field(default_factory=lambda: np.zeros(0))
    focal: np.ndarray = field(default_factory=lambda: np.zeros(0))

    def facts(self, others: Sequence[ViewSummary] = ()) -> dict[str, Any]:
        distances = np.concatenate([one.distances for one in (self, *others)])
        focal = np.concatenate([one.focal for one in (self, *others)])
        facts = dict(self.values)
        if len(distances):
            facts["distance"] = [round(float(f(distances)), 4) for f in (np.min, np.median, np.max)]
            facts["focal"] = [round(float(focal.min()), 3), round(float(focal.max()), 3)]
        return facts

    def lines(self, facts: Mapping[str, Any]) -> list[str]:
        lines = [f"near {facts['near']:.4g}, far {facts['far']:.4g}, over {facts['background']}"]
        if "distance" in facts:
            least, median, most = facts["distance"]
            lines.append(f"cameras {least:.4g} to {most:.4g} from the scene's centre, {median:.4g} in the middle")
            lines.append("focal length {:.5g} to {:.5g} pixels".format(*facts["focal"]))
        return lines


@dataclass(frozen=True, eq=False)
class PosedViews(Truth):
    """The cameras of views. Axes, pixels and distortion are as `opsin.ops.cameras` has them.

    poses: (N, 4, 4) float64, camera to world, OpenGL axes. intrinsics: (N, 4) fx, fy, cx, cy in pixels of the image.
    distortion: (N, 4) k1, k2, p1, p2; zeros for none. sizes: (N, 2) int64, height and width that each camera is of.
    near, far: depths between which the scene lies, along each camera's axis. scene: the name of a built-in scene, which
    knows depths, normals and distances exactly; "" for what was photographed. points: (P, 3) of the scene that are
    known, as from COLMAP; none else. background: of `BACKGROUNDS`.
    """

    poses: np.ndarray
    intrinsics: np.ndarray
    distortion: np.ndarray
    sizes: np.ndarray
    near: float
    far: float
    background: str = "white"
    scene: str = ""
    points: np.ndarray = field(default_factory=lambda: np.zeros((0, 3)))

    @property
    def meaning(self) -> Mapping[str, Any]:
        """{"near", "far", "background", "box": the corners of the box that the views look into}."""
        low, high = self.box
        return {
            "near": float(self.near),
            "far": float(self.far),
            "background": self.background,
            "box": [[round(float(value), 6) for value in corner] for corner in (low, high)],
        }

    @functools.cached_property
    def box(self) -> tuple[np.ndarray, np.ndarray]:
        """Two corners (3,) of a box that holds what the views see between near and far, about the scene's centre.

        For cameras all around, a cube that reaches as far as half of far - near; else around the ends of the rays.
        """
        good = self.usable
        centre = scene_centre(self.poses[good]) if good.any() else None
        if centre is not None:
            reach = 0.5 * (self.far - self.near)
            return centre - reach, centre + reach
        ends = [self._corners(i, depth) for i in np.flatnonzero(good).tolist() for depth in (self.near, self.far)]
        stacked = np.concatenate(ends) if ends else np.array([[-1.0] * 3, [1.0] * 3])
        return stacked.min(0), stacked.max(0)

    def _corners(self, i: int, depth: float) -> np.ndarray:
        height, width = self.sizes[i]
        fx, fy, cx, cy = self.intrinsics[i]
        plane = np.array([[(x - cx) / fx, (cy - y) / fy, -1.0] for x in (0, width) for y in (0, height)])
        return self.poses[i, :3, 3] + depth * plane @ self.poses[i, :3, :3].T

    @property
    def usable(self) -> np.ndarray:
        """(N,) bool: whose pose is finite and turns without scaling or mirroring."""
        numbers = np.concatenate([self.poses.reshape(-1, 16), self.intrinsics], axis=1)
        finite: np.ndarray = np.logical_and.reduce(np.isfinite(numbers), axis=1)
        turns = np.where(finite[:, None, None], self.poses[:, :3, :3], np.eye(3))
        off = np.abs(turns @ turns.transpose(0, 2, 1) - np.eye(3)).max((1, 2))
        return finite & (off <= _ROTATION) & (np.linalg.det(turns) > 0)

    def __len__(self) -> int:
        return len(self.poses)

    def select(self, places: np.ndarray) -> PosedViews:
        own = {name: getattr(self, name)[places] for name in ("poses", "intrinsics", "distortion", "sizes")}
        return replace(self, **own)

    def match(self, meaning: Mapping[str, Any]) -> PosedViews:
        """With the near, far and background that a model was trained with. Raises InputError for another background."""
        background = str(meaning.get("background", self.background))
        if background != self.background:
            raise InputError(
                f"the model was trained over {background}, this data is over {self.background}; "
                f"open it with background={background}"
            )
        return replace(self, near=float(meaning.get("near", self.near)), far=float(meaning.get("far", self.far)))

    def read(self, i: int, size: Size | None) -> dict[str, Any]:
        """`pose` (4, 4), `intrinsics` (4,) and `distortion` (4,), float32."""
        own = {"pose": self.poses[i], "intrinsics": self.intrinsics[i], "distortion": self.distortion[i]}
        return {name: torch.from_numpy(np.asarray(value, np.float32)) for name, value in own.items()}

    def depth(self, i: int) -> Tensor | None:
        """The exact depth of each pixel, (H, W) float32, NaN where nothing is; None where it is not known."""
        return None if not self.scene else self._exact(i)[1]

    def normals(self, i: int) -> Tensor | None:
        """The exact normal at what each pixel shows, (H, W, 3) in the world, NaN where nothing is; None if unknown."""
        return None if not self.scene else self._exact(i)[2]

    def _exact(self, i: int) -> tuple[Tensor, Tensor, Tensor]:
        from opsin.render.scenes import render_scene

        height, width = map(int, self.sizes[i])
        return render_scene(self.scene, (height, width), self.poses[i], self.intrinsics[i])

    def misfit(self, i: int, size: Size) -> str | None:
        height, width = map(int, self.sizes[i])
        if (height, width) == tuple(size):
            return None
        return (
            f"the image has {size[0]}x{size[1]} pixels and its camera is of {height}x{width}; "
            "scale the camera's numbers to the image, or give the images at their first size"
        )

    def problems(self, sizes: Mapping[int, Size], training: bool = False) -> list[Problem]:
        """What makes training impossible, and what is odd in the cameras, see `opsin.render.view_check`."""
        from opsin.render.view_check import find_problems

        return find_problems(self, training)

    def summary(self) -> ViewSummary:
        good = self.usable
        centre = scene_centre(self.poses[good]) if good.any() else None
        middle = np.mean(self.box, axis=0) if centre is None else centre
        return ViewSummary(
            kind="posed views",
            section="views",
            noun="views",
            values={"near": float(self.near), "far": float(self.far), "background": self.background},
            distances=np.linalg.norm(self.poses[good, :3, 3] - middle, axis=1),
            focal=self.intrinsics[good, 0],
        )

    def same(self, i: int, other: Any, j: int) -> str | None:
        """Equal images may be of several cameras, where they show nothing."""
        return None

    def draw(self, image: Image, i: int, scale: tuple[float, float] = (1.0, 1.0)) -> Image:
        """Where the scene's centre is seen, as a cross."""
        from PIL import ImageDraw

        if not self.usable[i]:
            return image
        middle = torch.from_numpy(np.mean(self.box, axis=0))
        parts = (self.poses, self.intrinsics, self.distortion)
        pose, intrinsics, lens = (torch.from_numpy(np.asarray(one[i], np.float64)) for one in parts)
        pixel, depth = project(middle, pose, intrinsics, lens)
        if float(depth) <= 0:
            return image
        x, y = float(pixel[0]) * scale[0], float(pixel[1]) * scale[1]
        pen, arm = ImageDraw.Draw(image), max(3, min(image.size) // 20)
        pen.line([(x - arm, y), (x + arm, y)], fill=(230, 30, 30))
        pen.line([(x, y - arm), (x, y + arm)], fill=(230, 30, 30))
        return image
