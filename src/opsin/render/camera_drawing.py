"""The cameras of a source in space, as an image: each a small pyramid, its near and far, and the scene's box."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from opsin.data import Source
from opsin.data.truth import Problem
from opsin.errors import InputError
from opsin.render.near_far import scene_centre
from opsin.render.posed_views import PosedViews

_COLOURS = {"train": "#1f6fb4", "val": "#d98a00", "test": "#b3202a", "all": "#1f6fb4"}
_SUFFIXES = (".png", ".jpg", ".jpeg", ".pdf", ".svg")
_SIZE = 0.12  # of the cameras' extent, how long a pyramid is
_MOST = 300  # cameras that are drawn of a split


@dataclass
class Drawn:
    """What `opsin data --cameras` gives. path: of the image. counts: cameras drawn, by split."""

    path: str
    counts: dict[str, int]
    centre: list[float] | None
    problems: list[Problem] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        """Plain values."""
        return {"path": self.path, "counts": self.counts, "centre": self.centre}

    def render(self) -> str:
        """A line for a terminal."""
        middle = "" if self.centre is None else " around {:.3g}, {:.3g}, {:.3g}".format(*self.centre)
        return f"{sum(self.counts.values()):,} cameras{middle} drawn to {self.path}"

    def draw(self) -> None:
        """It is written to its own file."""
        return


def check(source: Source, name: str, split: str | None, options: Mapping[str, Any]) -> dict[str, Any]:
    """Findings by their key in JSON. options: cameras, the file to draw to; see the task's room."""
    target = options.get("cameras")
    return {} if target is None else {"cameras": draw_cameras(source, Path(target))}


def draw_cameras(source: Source, path: Path) -> Drawn:
    """Draw the cameras of all splits into an image. Raises InputError for an ending that is no image's."""
    if path.suffix.lower() not in _SUFFIXES:
        raise InputError(f"--cameras {path}: expected an image's name, ending in {', '.join(_SUFFIXES)}")
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    views: dict[str, PosedViews] = {key: one.kind for key, one in source.splits.items()}
    poses = np.concatenate([one.poses[one.usable] for one in views.values()])
    if not len(poses):
        raise InputError(f"{source.name} has no camera with a usable pose to draw")
    figure = Figure(figsize=(7, 6.2), dpi=110, layout="tight")
    FigureCanvasAgg(figure)
    axes: Any = figure.add_subplot(projection="3d")
    eyes, centre = poses[:, :3, 3], scene_centre(poses)
    first = next(iter(views.values()))
    low, high = first.box
    shown = np.concatenate([eyes, [low, high]])
    extent = float(np.max(shown.max(0) - shown.min(0))) or 1.0
    counts = {}
    for key, one in views.items():
        places = np.flatnonzero(one.usable)[:_MOST].tolist()
        counts[key] = len(places)
        for k, i in enumerate(places):
            _pyramid(axes, one, i, _SIZE * extent, _COLOURS.get(key, "black"), key if k == 0 else None)
    _box(axes, low, high)
    if centre is not None:
        axes.scatter(*centre, color="black", marker="+", s=60)
    middle = (shown.max(0) + shown.min(0)) / 2
    for axis, value in zip("xyz", middle, strict=True):
        getattr(axes, f"set_{axis}lim")(value - extent / 2, value + extent / 2)
        getattr(axes, f"set_{axis}label")(axis)
    axes.set_box_aspect((1, 1, 1))
    axes.set_title(f"{source.name}: near {first.near:.3g}, far {first.far:.3g}")
    axes.legend(loc="upper right")
    try:
        figure.savefig(path)
    except OSError as error:
        raise InputError(f"cannot write {path}: {(error.strerror or str(error)).lower()}") from None
    return Drawn(str(path), counts, None if centre is None else [round(float(one), 6) for one in centre])


def _pyramid(axes: Any, views: PosedViews, i: int, length: float, colour: str, label: str | None) -> None:
    height, width = views.sizes[i]
    fx, fy, cx, cy = views.intrinsics[i]
    corners = np.array(
        [[(x - cx) / fx, (cy - y) / fy, -1.0] for x, y in ((0, 0), (width, 0), (width, height), (0, height))]
    )
    corners *= length / np.linalg.norm(corners[0])
    turn, eye = views.poses[i, :3, :3], views.poses[i, :3, 3]
    points = eye + corners @ turn.T
    for k in range(4):
        ring = np.stack([points[k], points[(k + 1) % 4]])
        axes.plot(*np.stack([eye, points[k]]).T, color=colour, linewidth=0.6, label=label if k == 0 else None)
        axes.plot(*ring.T, color=colour, linewidth=1.4 if k == 0 else 0.6)  # the upper edge thicker: which way is up
    ray = np.stack([eye - views.near * turn[:, 2], eye - views.far * turn[:, 2]])
    axes.plot(*ray.T, color=colour, linewidth=0.3, alpha=0.5)


def _box(axes: Any, low: np.ndarray, high: np.ndarray) -> None:
    for axis in range(3):
        a, b = (k for k in range(3) if k != axis)
        for one in (low[a], high[a]):
            for other in (low[b], high[b]):
                ends = np.zeros((2, 3))
                ends[:, axis], ends[:, a], ends[:, b] = (low[axis], high[axis]), one, other
                axes.plot(*ends.T, color="grey", linewidth=0.5, linestyle=":")
