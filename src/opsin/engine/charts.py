"""Charts of the report: drawn by matplotlib as SVG, coloured by the page that shows them, light or dark."""

from __future__ import annotations

import io
import math
import re
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Canvas
from matplotlib.text import Text
from matplotlib.ticker import MaxNLocator
from PIL import Image

from opsin.errors import is_printable, printable

# Okabe and Ito's palette, which the colour-blind can tell apart, and brighter twins for a dark page: (light, dark).
INK, MUTED, GRID, PAPER = "#1f2329", "#656d77", "#d9dee4", "#fefefe"
BLUE, ORANGE, GREEN, PURPLE, SKY = "#0072b2", "#d55e00", "#009e73", "#b0609a", "#56b4e9"
LINES = (BLUE, ORANGE, GREEN, PURPLE, SKY)
_DARK = {
    INK: "#e6e9ee",
    MUTED: "#98a1ad",
    GRID: "#363d47",
    PAPER: "#0f1216",
    BLUE: "#4aa3e0",
    ORANGE: "#f0883e",
    GREEN: "#3fbf95",
    PURPLE: "#d592c0",
    SKY: "#8fd0f5",
}
_FONT = "system-ui, 'Segoe UI', Roboto, Arial, sans-serif"
_NO_METADATA = {"Date": None, "Creator": None, "Format": None, "Type": None}
_STYLE: Any = {
    "svg.fonttype": "none",  # text stays text: small, sharp, and in the reader's fonts
    "svg.hashsalt": "opsin",  # the same chart is the same bytes
    "text.parse_math": False,  # a class may be called $5
    "font.family": "DejaVu Sans",  # comes with matplotlib, wider than most: what fits here fits anywhere
    "font.size": 10,
    "text.color": INK,
    "axes.labelcolor": MUTED,
    "axes.edgecolor": GRID,
    "axes.facecolor": "none",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "axes.axisbelow": True,
    "grid.color": GRID,
    "grid.linewidth": 0.8,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.major.size": 0,
    "ytick.major.size": 0,
    "xtick.minor.size": 0,
    "ytick.minor.size": 0,
    "figure.facecolor": "none",
    "legend.frameon": False,
    "lines.linewidth": 2,
    "lines.solid_capstyle": "round",
}


def svg(draw: Callable[[Canvas], None], width: float = 6.0, height: float = 3.4) -> bytes:
    """What `draw` puts on a canvas of width x height inches, as an SVG that follows the reader's colour scheme.

    Colours of this module turn into their dark twins; text keeps the reader's fonts. No pyplot, so no global figures.
    """
    buffer = io.StringIO()
    with matplotlib.rc_context(_STYLE), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from")  # the reader's fonts have them
        canvas = Canvas(figsize=(width, height), layout="constrained")
        draw(canvas)
        _clean(canvas)
        canvas.savefig(buffer, format="svg", metadata=_NO_METADATA)
    return _adapt(buffer.getvalue()).encode()


def image(draw: Callable[[Canvas], None], width: float = 6.0, height: float = 3.4) -> Image.Image:
    """What `draw` puts on a white canvas of width x height inches, as an image of 100 pixels an inch."""
    buffer = io.BytesIO()
    with matplotlib.rc_context(_STYLE):
        canvas = Canvas(figsize=(width, height), layout="constrained", facecolor="white")
        draw(canvas)
        _clean(canvas)
        canvas.savefig(buffer, format="png", dpi=100)
    return Image.open(buffer).convert("RGB")


def _clean(canvas: Canvas) -> None:
    """Make every name on a canvas fit to be drawn: fonts refuse half characters, and XML control characters."""
    for text in canvas.findobj(Text):
        if not is_printable(shown := text.get_text()):
            text.set_text(printable(shown, keep="\n"))


def lines(
    series: Mapping[str, tuple[Sequence[float], Sequence[float]]],
    *,
    best: float | None = None,
    log: bool = False,
    percent: bool = False,
) -> bytes:
    """Curves over epochs as SVG. series: name -> (epochs, values), finite. best: the epoch to mark."""
    return svg(draw_lines(series, best=best, log=log, percent=percent))


def draw_lines(
    series: Mapping[str, tuple[Sequence[float], Sequence[float]]],
    *,
    best: float | None = None,
    log: bool = False,
    percent: bool = False,
) -> Callable[[Canvas], None]:
    """What draws curves over epochs on a canvas, as `lines` has them."""

    def draw(canvas: Canvas) -> None:
        axes = canvas.add_subplot()
        for colour, (name, (x, y)) in zip(LINES * len(series), series.items(), strict=False):
            few = len(x) <= 30
            axes.plot(x, y, color=colour, label=name, marker="o" if few else None, markersize=3.5)
        if best is not None:
            axes.axvline(best, color=MUTED, linewidth=1, linestyle=(0, (4, 3)), zorder=1)
        _scale(axes, log, percent)
        axes.set_xlabel("epoch")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        if len(epochs := {e for x, _ in series.values() for e in x}) == 1:
            axes.set_xlim(min(epochs) - 1, min(epochs) + 1)
        if len(series) > 1:
            canvas.legend(loc="outside upper left", ncols=min(3, len(series)), handlelength=1.2, columnspacing=1.4)

    return draw


def _scale(axes: Axes, log: bool, percent: bool) -> None:
    if log:
        axes.set_yscale("log")
        axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
    if percent:
        axes.yaxis.set_major_formatter(lambda value, _: f"{100 * value:.4g} %")


def spread(values: Sequence[float]) -> float:
    """The largest over the smallest, 1 where that means nothing: what decides on a logarithmic axis."""
    low, high = min(values, default=0), max(values, default=0)
    return high / low if low > 0 and math.isfinite(high) else 1.0


def _adapt(text: str) -> str:
    """Colours become variables with a light and a dark value; fonts become the reader's."""
    start = text.index("<svg")
    light = ";".join(f"--c{i}:{colour}" for i, colour in enumerate(_DARK))
    dark = ";".join(f"--c{i}:{colour}" for i, colour in enumerate(_DARK.values()))
    for i, colour in enumerate(_DARK):
        text = text.replace(colour, f"var(--c{i},{colour})")
    text = re.sub(r"'DejaVu Sans'(, [^;\"]+)?", _FONT, text)
    sheet = f"<style>:root{{{light}}}@media(prefers-color-scheme:dark){{:root{{{dark}}}}}</style>"
    head_end = text.index(">", start) + 1
    return text[start:head_end] + sheet + text[head_end:]
