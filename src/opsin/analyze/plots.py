"""Drawings of an explanation: charts as SVG, and images with something laid over them."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Canvas
from PIL import Image
from torch import Tensor

from opsin.data.drawing import to_pil
from opsin.engine import charts
from opsin.engine.report import data_uri
from opsin.nn.counting import short_count

_SHADE = (12, 14, 18)  # near black: what does not count is darkened, on a light page as on a dark one
# Evidence from none to much, from dark blue over red to yellow: five stops of matplotlib's inferno.
_HEAT = torch.tensor([[0, 0, 4], [87, 16, 110], [188, 55, 84], [249, 142, 9], [252, 255, 164]], dtype=torch.float32)


@dataclass(frozen=True)
class Point:
    """A model in the comparison: its accuracy in percent and its costs, by their names; None where unknown."""

    name: str
    accuracy: float | None
    costs: Mapping[str, float | None]


def compare(points: Sequence[Point], metric: str) -> bytes:
    """Accuracy against each cost, on logarithmic axes side by side, as SVG. Every point has an accuracy."""
    names = list(dict.fromkeys(cost for point in points for cost, value in point.costs.items() if value))
    columns = min(2, len(names))
    rows = -(-len(names) // columns)

    def draw(canvas: Canvas) -> None:
        grid = canvas.subplots(rows, columns, squeeze=False, sharey=True)
        for place, axes in enumerate(grid.flat):
            if place >= len(names):
                axes.set_axis_off()
                continue
            _scatter(axes, [(p.name, p.costs.get(names[place]) or 0, p.accuracy or 0) for p in points], names[place])
            if place % columns == 0:
                axes.set_ylabel(f"{metric}, %")

    return charts.svg(draw, 3.7 * columns + 0.6, 3.1 * rows)


def bars(points: Sequence[Point]) -> bytes:
    """Each cost of each model as a bar relative to the largest, as SVG: where there is no accuracy."""
    names = [n for n in points[0].costs if all(p.costs.get(n) for p in points)]

    def draw(canvas: Canvas) -> None:
        axes = canvas.add_subplot()
        height = 0.8 / len(names)
        for place, (name, colour) in enumerate(zip(names, charts.LINES * len(names), strict=False)):
            values = np.array([p.costs[name] for p in points], dtype=float)
            where = np.arange(len(points)) + (place - (len(names) - 1) / 2) * height
            axes.barh(where, values / values.max(), height * 0.86, color=colour, label=name)
        axes.set_yticks(range(len(points)), [_shorten(p.name) for p in points])
        axes.invert_yaxis()
        axes.grid(axis="x")
        axes.grid(visible=False, axis="y")
        axes.xaxis.set_major_formatter(lambda value, _: f"{100 * value:.0f} %")
        axes.set_xlabel("of the largest")
        canvas.legend(*axes.get_legend_handles_labels(), loc="outside upper left", ncols=4, handlelength=1.2)

    return charts.svg(draw, 8.4, 1.2 + 0.2 * len(points) * len(names) + 0.15 * len(points))


def memory(timelines: Mapping[str, Sequence[tuple[int, int]]]) -> bytes:
    """Bytes alive over the run of a pass, as SVG. timelines: name -> (operator call, bytes) pairs."""

    def draw(canvas: Canvas) -> None:
        axes = canvas.add_subplot()
        largest = max(count for line in timelines.values() for _, count in line)
        unit, scale = next((u, s) for u, s in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)) if largest >= s or s == 1e3)
        for colour, (name, line) in zip(charts.LINES, timelines.items(), strict=False):
            calls, counts = zip(*line, strict=True)
            x, y = 100 * np.array(calls) / max(calls[-1], 1), np.array(counts) / scale
            axes.fill_between(x, y, step="post", color=colour, alpha=0.15, linewidth=0)
            axes.plot(x, y, color=colour, label=name, drawstyle="steps-post", linewidth=1.5)
        axes.set_ylim(bottom=0)
        axes.set_xlim(0, 100)
        axes.set_xlabel("part of the pass, %")
        axes.set_ylabel(f"{unit} alive")
        canvas.legend(*axes.get_legend_handles_labels(), loc="outside upper left", ncols=3, handlelength=1.2)

    return charts.svg(draw, 7.6, 3.0)


def spotlight(strength: Tensor, largest: int = 256) -> str:
    """A shade that leaves bright what counts, as a data URI of a PNG. strength: (H, W) in [0, 1]."""
    alpha = (255 * 0.86 * (1 - strength.clamp(0, 1).sqrt())).round().to(torch.uint8)
    shade = torch.tensor(_SHADE, dtype=torch.uint8)[:, None, None].expand(3, *alpha.shape)
    image = Image.fromarray(torch.cat([shade, alpha[None]]).permute(1, 2, 0).contiguous().numpy(), "RGBA")
    return _png(image, largest)


def heat(image: Tensor, evidence: Tensor) -> Tensor:
    """Evidence (H, W) in [0, 1] as colours over the image in grey, uint8 (C, H, W): uint8 (3, H, W)."""
    place = evidence.clamp(0, 1) * (len(_HEAT) - 1)
    low = place.floor().long().clamp(max=len(_HEAT) - 2)
    colour = torch.lerp(_HEAT[low], _HEAT[low + 1], (place - low)[..., None]).permute(2, 0, 1)
    grey = image.float().mean(dim=0, keepdim=True)
    opacity = 0.25 + 0.6 * evidence.clamp(0, 1)
    return torch.lerp(grey.expand(3, -1, -1), colour, opacity).round().clamp(0, 255).to(torch.uint8)


def mosaic(images: Sequence[Tensor], columns: int = 3, side: int = 40, gap: int = 2) -> str:
    """Images uint8 (C, h, w) of any size in squares of `side` pixels, as a data URI of a PNG; clear between them."""
    step = side + gap
    rows = -(-len(images) // columns)
    sheet = Image.new("RGBA", (columns * step - gap, rows * step - gap))
    for place, image in enumerate(images):
        tile = to_pil(image)
        scale = side / max(tile.size)
        resample = Image.Resampling.NEAREST if scale >= 1 else Image.Resampling.LANCZOS
        tile = tile.resize((max(1, round(tile.width * scale)), max(1, round(tile.height * scale))), resample)
        left, top = place % columns * step, place // columns * step
        sheet.paste(tile.convert("RGB"), (left + (side - tile.width) // 2, top + (side - tile.height) // 2))
    return _png(sheet, max(sheet.size))


def image_uri(pixels: Tensor, largest: int = 256) -> str:
    """An image uint8 (C, H, W) as a data URI: PNG, or JPEG where that is a third of the size."""
    image = to_pil(pixels)
    png = _png(image, largest)
    if max(image.size) <= 64:
        return png
    image.thumbnail((largest, largest), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=85)
    jpeg = data_uri("image/jpeg", buffer.getvalue())
    return jpeg if 3 * len(jpeg) < len(png) else png


def _png(image: Image.Image, largest: int) -> str:
    image = image.copy()
    image.thumbnail((largest, largest), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    image.save(buffer, "PNG", optimize=True)
    return data_uri("image/png", buffer.getvalue())


def _scatter(axes: Axes, points: Sequence[tuple[str, float, float]], cost: str) -> None:
    shown = [point for point in points if point[1] > 0]
    colours = (charts.LINES * len(shown))[: len(shown)]
    axes.scatter([x for _, x, _ in shown], [y for _, _, y in shown], color=colours, s=26, zorder=3)
    values = [x for _, x, _ in shown]
    if charts.spread(values) > 3:
        axes.set_xscale("log")
    axes.margins(x=0.12, y=0.14)
    axes.xaxis.set_major_formatter(lambda value, _: short_count(value))
    axes.xaxis.set_minor_formatter("")
    axes.set_xlabel(cost)
    axes.grid(axis="x", alpha=0.6)
    _label(axes, shown)


def _label(axes: Axes, points: Sequence[tuple[str, float, float]]) -> None:
    """Names beside their points, left or right and one line up or down, wherever they cover the least."""
    axes.autoscale_view()
    to_pixels = axes.transData.transform
    taken: list[tuple[float, float, float, float]] = []
    width = axes.bbox.width
    for name, x, y in sorted(points, key=lambda point: point[2]):
        px, py = to_pixels((x, y))
        text = _shorten(name, 22)
        length = 6.2 * len(text) * axes.figure.dpi / 100
        best = None
        for up in (0, 11, -11, 22, -22, 33, -33):
            for right in (True, False):
                left = px + 8 if right else px - 8 - length
                box = (left, py + up - 6, left + length, py + up + 6)
                outside = max(0.0, left + length - axes.bbox.x0 - width) + max(0.0, axes.bbox.x0 - left)
                cost = 1000 * outside + sum(_overlap(box, other) for other in taken) + abs(up) * 2
                if best is None or cost < best[0]:
                    best = cost, box, up, right
        assert best is not None
        _, box, up, right = best
        taken.append(box)
        offset = (6 if right else -6, up * 72 / axes.figure.dpi)
        place = {"ha": "left" if right else "right", "va": "center", "fontsize": 8}
        axes.annotate(text, (x, y), offset, textcoords="offset points", color=charts.INK, **place)


def _overlap(a: tuple[float, ...], b: tuple[float, ...]) -> float:
    return max(0.0, min(a[2], b[2]) - max(a[0], b[0])) * max(0.0, min(a[3], b[3]) - max(a[1], b[1]))


def _shorten(text: str, length: int = 28) -> str:
    return text if len(text) <= length else text[: length - 1] + "…"
