"""The part of the report that view synthesis has: views that turn, the worst views, their errors and depths."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib import colormaps
from matplotlib.figure import Figure as Canvas
from PIL import Image

from opsin.data import Split
from opsin.data.drawing import shorten
from opsin.engine import charts
from opsin.engine.report import Figure, Frames, Gallery, GalleryItem, Section, Table, Text
from opsin.errors import InputError

_WORST = 6
_TURN, _FEWEST = 36, 8  # views of an orbit, and the least where they take long
_LARGE, _SMALL, _PROBE = 160, 32, 24  # pixels of a side: the most, the least, and of what is timed
_SECONDS = 10.0  # that an orbit may take
_SEEN = 0.5  # opacity from which on a ray has a depth
_LARGEST = 0.25  # error that is shown brightest
_GAP = 4  # pixels between panels
_MEANING = {
    "psnr": "-10 log10 of the mean squared error of the colours in [0, 1], the mean over views; 6 dB: half the error",
    "ssim": "structural similarity, Wang et al. 2004; 1 for equal images",
    "depth_error": "mean absolute error of the depth, where the scene's is known and the field has one",
    "floor_white": "PSNR of a white image",
    "floor_mean": "PSNR of the mean training view",
    "floor_nearest": "PSNR of the training view whose camera is nearest",
}


def sections(found: Sequence[Any], split: Split, predictor: Any) -> list[Section]:
    """An orbit, the scores of the views, the worst of them, and what the numbers mean. found: `RenderedView`s."""
    parts: list[Section] = [*turning(predictor)]
    if len(found) > 1:
        parts.append(scores(found))
    parts.append(worst_views(found, split))
    parts.append(Table("How to read the numbers", ["metric", "meaning"], [[k, v] for k, v in _MEANING.items()]))
    return parts


def turning(predictor: Any) -> list[Section]:
    """The scene from all around behind a slider, the depth of each view beside it.

    As many views, and as large, as take some seconds by the time that a small one takes.
    """
    known = getattr(predictor.model, "cameras", {}).get("size", [_LARGE])
    try:
        started = time.monotonic()
        _render(predictor, _PROBE, 1)
        rate = _PROBE**2 / max(time.monotonic() - started, 1e-6)
    except InputError:
        return []
    side = int(min(_LARGE, max(known), max(_SMALL, (rate * _SECONDS / _TURN) ** 0.5)))
    views = _render(predictor, side, int(min(_TURN, max(_FEWEST, rate * _SECONDS / side**2))))
    depths = np.stack([np.where(one["opacity"] > _SEEN, one["depth"], np.nan) for one in views])
    images = [
        _row([(one["color"] * 255).round().to(torch.uint8).numpy(), depth])
        for one, depth in zip(views, depth_image(depths), strict=True)
    ]
    rows = [torch.from_numpy(np.array(image)).permute(2, 0, 1) for image in images]
    return [Frames("Views that nobody took", rows, "Around the scene, with depths: near is bright.", noun="view")]


def _render(predictor: Any, side: int, count: int) -> list[dict[str, torch.Tensor]]:
    """So many views of an orbit. Raises InputError where nothing says how the scene is looked at."""
    cameras = predictor.cameras("orbit", count, side)
    return [predictor.render(pose, cameras.intrinsics, cameras.size) for pose in cameras.poses]


def depth_image(depth: np.ndarray) -> np.ndarray:
    """Depths (..., H, W) as colours (..., H, W, 3) uint8, near bright, nothing white."""
    known = np.isfinite(depth)
    low, high = (float(depth[known].min()), float(depth[known].max())) if known.any() else (0.0, 1.0)
    share = 1 - (np.where(known, depth, high) - low) / max(high - low, 1e-6)
    colours = (colormaps["viridis"](share)[..., :3] * 255).astype(np.uint8)
    colours[~known] = 255
    return colours


def error_image(color: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """The mean absolute error of each pixel of two images (H, W, 3) uint8, (H, W, 3): black is none."""
    error = np.abs(color.astype(np.float32) - truth.astype(np.float32)).mean(-1) / 255
    return (colormaps["inferno"](np.clip(error / _LARGEST, 0, 1))[..., :3] * 255).astype(np.uint8)


def _row(panels: Sequence[np.ndarray]) -> Image.Image:
    height = max(one.shape[0] for one in panels)
    width = sum(one.shape[1] for one in panels) + _GAP * (len(panels) - 1)
    whole, left = Image.new("RGB", (width, height), "white"), 0
    for one in panels:
        whole.paste(Image.fromarray(one), (left, 0))
        left += one.shape[1] + _GAP
    return whole


def scores(found: Sequence[Any]) -> Figure:
    """PSNR of each view, in the order of the split."""

    def paint(canvas: Canvas) -> None:
        axes = canvas.add_subplot()
        axes.plot(range(1, len(found) + 1), [one.psnr for one in found], color=charts.BLUE, marker="o", markersize=3)
        nearest = [one.floors.get("nearest") for one in found]
        if all(value is not None for value in nearest):
            axes.plot(range(1, len(found) + 1), nearest, color=charts.MUTED, linewidth=1, label="nearest training view")
            axes.legend()
        axes.set(xlabel="view", ylabel="PSNR, in dB")

    return Figure("Views", charts.svg(paint), "A view that is far from every training view is mostly worse.")


def worst_views(found: Sequence[Any], split: Split) -> Section:
    """The views with the lowest PSNR: the true image, what was rendered, the error, the depth."""
    items = []
    for place in np.argsort([one.psnr for one in found], kind="stable")[:_WORST].tolist():
        one = found[place]
        try:
            truth = split.read(place).expand(3, -1, -1).permute(1, 2, 0).numpy()
        except InputError:  # moved or lost since it was evaluated
            continue
        whole = _row([truth, one.color, error_image(one.color, truth), depth_image(one.depth)])
        caption = f"PSNR {one.psnr:.2f} dB\n{shorten(Path(split.name(place)).name, 40)}"
        items.append(GalleryItem(torch.from_numpy(np.array(whole)).permute(2, 0, 1), caption, wrong=True))
    if not items:
        return Text("Worst views", "No image could be read again.")
    note = f"True, rendered, error (brightest from {_LARGEST:g} on), depth (near is bright)."
    return Gallery("Worst views", items, note, large=True)
