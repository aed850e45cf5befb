"""The report of a run: one HTML file that opens anywhere, without a network or a second file.

Nothing in it needs a script. Where it has `Frames`, a small one of our own, named by its hash, adds a slider.
"""

from __future__ import annotations

import base64
import datetime
import hashlib
import io
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, Protocol

import jinja2
from PIL import Image
from torch import Tensor

from opsin.data.drawing import to_pil
from opsin.engine import charts
from opsin.engine.environment import environment
from opsin.errors import printable
from opsin.files import atomic

__all__ = [
    "Code",
    "Figure",
    "Frames",
    "Gallery",
    "GalleryItem",
    "Own",
    "Section",
    "Table",
    "Text",
    "curves",
    "environment",
    "profile_section",
    "render",
    "write_report",
]

Cell = str | int | float | None
_LARGEST_IMAGE = 256  # pixels; larger ones are shrunk, so that a report with a gallery can be sent by mail
_LARGEST_DRAWN = 640  # pixels of an image with boxes and their labels, which must stay legible
_LARGEST_FRAME = 480  # pixels of one of many images behind a slider
_MOST_FRAMES = 60
_SMALLEST_SHARP = 96  # images below are shown as pixels instead of a blur
# "7" may well be a class; 1.5 GB and 1.81 G are counts in short
_MEASURED = re.compile(r"-?[\d,]+(\.\d+)?(e[-+]?\d+)? (%|[kMG]?B|[kMGT])|-?\d+\.\d+(e[-+]?\d+)?")


@dataclass
class Table:
    """Rows of cells. A float is written with four digits, None as a dash; in a column of `bars`, a share as a bar."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    note: str = ""
    bars: Sequence[str] = ()


@dataclass
class Figure:
    """An image: SVG or PNG. Narrow ones stand side by side."""

    title: str
    image: bytes
    caption: str = ""
    wide: bool = False


@dataclass
class GalleryItem:
    """One example. image: uint8 (C, H, W), C 1 or 3. The caption's first line stands out."""

    image: Tensor
    caption: str
    wrong: bool = False


@dataclass
class Gallery:
    """Examples side by side. large: shown with room for what is drawn on them, as photographs are."""

    title: str
    items: Sequence[GalleryItem] = field(default_factory=list)
    note: str = ""
    large: bool = False


@dataclass
class Frames:
    """Images that follow each other, of which a slider shows one at a time; without scripts they stand in a strip.

    images: uint8 (C, H, W), C 1 or 3; of more than 60 so many are shown, evenly spread. noun: what one of them is.
    """

    title: str
    images: Sequence[Tensor]
    note: str = ""
    noun: str = "image"


@dataclass
class Text:
    """Paragraphs, with an empty line between them."""

    title: str
    body: str


@dataclass
class Code:
    """Something to copy, in a fixed-width font."""

    title: str
    body: str


class Own(Protocol):
    """A section of a page that extends the report's template, and draws it in the block `own` by the class's name."""

    title: str

    def view(self) -> dict[str, Any]:
        """What the template prints of it."""
        ...


Section = Table | Figure | Gallery | Frames | Text | Code | Own


def write_report(
    path: str | Path, title: str, headline: Mapping[str, str], sections: Sequence[Section], subtitle: str = ""
) -> Path:
    """Write the report atomically. headline: the few numbers that matter, name -> value; the first is the largest.

    Raises JobError where the file cannot be written.
    """
    path = Path(path)
    page = render(title, headline, sections, subtitle)
    with atomic(path) as temporary:
        temporary.write_text(page, encoding="utf-8")
    return path


def render(
    title: str,
    headline: Mapping[str, str],
    sections: Sequence[Section],
    subtitle: str = "",
    template: Path | None = None,
    script: str = "",
    **variables: Any,
) -> str:
    """The report as HTML. Nothing of a name or a caption is taken as markup.

    template: of a page that extends `report.html.j2`, which gets `variables` too. script: the page's own, the only one
    that may run beside that of `Frames`.
    """
    views = _views(sections)
    if any(view["kind"] == "frames" for view in views):
        script += Path(__file__).with_name("report.js").read_text(encoding="utf-8")
    return _template(template).render(
        **variables,
        script=script,
        digest=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        title=title,
        subtitle=subtitle,
        headline=list(headline.items()),
        sections=views,
        groups=_side_by_side(views),
        opsin=environment()["opsin"],
        written=datetime.datetime.now().astimezone().strftime("%Y-%m-%d %H:%M"),
    )


def curves(history: Sequence[Mapping[str, Any]], monitor: str = "val_accuracy", mode: str = "max") -> list[Figure]:
    """Charts of losses, validation metrics and learning rate over epochs. A dashed line marks the best epoch.

    history: a mapping an epoch (epoch, train_loss, val_loss, val_accuracy, lr...), values may be missing or not finite.
    monitor, mode: what made an epoch the best, "max" or "min"; without that column, the lowest val_loss.
    """
    columns = list(dict.fromkeys(name for row in history for name in row))
    series = {name: points for name in columns if (points := _points(history, name))[0]}
    monitor, mode = (monitor, mode) if monitor in series else ("val_loss", "min")
    best, praise = _best(series, monitor, mode)
    losses = [n for n in series if n.startswith("train_") or n in ("val_loss", "val_nll")]
    shares = [n for n in series if n.startswith("val_") and n not in losses and max(series[n][1]) <= 1]
    rates = [n for n in series if n == "lr" or n.startswith("lr-")]
    figures = []
    if losses:
        log = charts.spread([v for n in losses for v in series[n][1]]) > 50
        figures.append(_curve("Loss", series, losses, best, praise if monitor in losses else "", log=log))
    if shares:
        title = _words(shares[0]).capitalize() if len(shares) == 1 else "Validation"
        figures.append(_curve(title, series, shares, best, praise if monitor in shares else "", percent=True))
    if rates:
        log = charts.spread([v for n in rates for v in series[n][1] if v > 0]) > 50
        figures.append(_curve("Learning rate", series, rates, best, log=log))
    return figures


def draw_losses(history: Sequence[Mapping[str, Any]]) -> Image.Image | None:
    """A chart of the losses over epochs as an image; None where the history has none."""
    columns = list(dict.fromkeys(name for row in history for name in row))
    chosen = [name for name in columns if name.startswith("train_loss") or name == "val_loss"]
    series = {_words(name): points for name in chosen if (points := _points(history, name))[0]}
    if not series:
        return None
    log = charts.spread([value for _, values in series.values() for value in values]) > 50
    return charts.image(charts.draw_lines(series, log=log))


def profile_section(
    rows: Iterable[Any], totals: Mapping[str, int], title: str = "Network", *, counted_on: str = ""
) -> Table:
    """What each layer costs. rows: mappings or objects with name, type, output_shape, params, macs.

    totals: of the network, name -> number; they stand in the note. counted_on: what a second stage was counted on.
    """
    layers = [row if isinstance(row, Mapping) else vars(row) for row in rows]
    all_macs = sum(layer["macs"] for layer in layers) or 1
    all_params = sum(layer["params"] for layer in layers) or 1
    cells = [
        [
            layer["name"] or "(network)",
            layer["type"],
            " x ".join(map(str, layer["output_shape"])),
            layer["params"],
            layer["params"] / all_params,
            layer["macs"],
            layer["macs"] / all_macs,
        ]
        for layer in layers
    ]
    sums = ", ".join(f"{number:,} {'multiply-adds' if name == 'macs' else name}" for name, number in totals.items())
    note = f"In total {sums}, for one input{f' with {counted_on}' if counted_on else ''}." if sums else ""
    columns = ["layer", "type", "output", "parameters", "share", "multiply-adds", "share"]
    return Table(title, columns, cells, note, bars=("share",))


def _curve(
    title: str,
    series: Mapping[str, tuple[list[float], list[float]]],
    names: list[str],
    best: float | None,
    caption: str = "",
    **options: bool,
) -> Figure:
    chosen = {_words(name): series[name] for name in names[: len(charts.LINES)]}
    return Figure(title, charts.lines(chosen, best=best, **options), caption)


def _points(history: Sequence[Mapping[str, Any]], name: str) -> tuple[list[float], list[float]]:
    """(epochs, values) of a column, without what is missing or not finite."""
    x, y = [], []
    for place, row in enumerate(history):
        value = row.get(name)
        if isinstance(value, (int, float)) and math.isfinite(value):
            x.append(float(row.get("epoch", place + 1)))
            y.append(float(value))
    return x, y


def _best(series: Mapping[str, tuple[list[float], list[float]]], monitor: str, mode: str) -> tuple[float | None, str]:
    """The first epoch with the best value, and a sentence about it."""
    if monitor not in series:
        return None, ""
    epochs, values = series[monitor]
    value = max(values) if mode == "max" else min(values)
    epoch = epochs[values.index(value)]
    shown = f"{100 * value:.2f} %" if mode == "max" and value <= 1 else f"{value:.4g}"
    return epoch, f"Best {_words(monitor)} {shown}, after epoch {epoch:g} (dashed line)."


def _words(name: str) -> str:
    return name.replace("_", " ").replace("val ", "validation ").replace("train ", "training ")


@cache
def _template(path: Path | None) -> jinja2.Template:
    own = Path(__file__).with_name("report.html.j2")
    path = path or own
    loader = jinja2.FileSystemLoader([path.parent, own.parent])
    environment = jinja2.Environment(
        loader=loader,
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_printable,
    )
    return environment.get_template(path.name)


def _printable(value: Any) -> Any:
    """What a template prints: names of files and classes fit to be shown; markup as it is."""
    return printable(value, keep="\n\t") if type(value) is str else value


def _views(sections: Sequence[Section]) -> list[dict[str, Any]]:
    """What the template prints: everything formatted, nothing left to decide."""
    views: list[dict[str, Any]] = []
    taken: set[str] = set()
    for section in sections:
        anchor = re.sub(r"[^a-z0-9]+", "-", section.title.lower()).strip("-") or "section"
        while anchor in taken:
            anchor += "-more"
        taken.add(anchor)
        kind = type(section).__name__.lower()
        views.append({"kind": kind, "title": section.title, "anchor": anchor, "wide": False} | _view(section))
    return views


def _view(section: Section) -> dict[str, Any]:
    match section:
        case Table():
            return {"note": section.note, **_table(section)}
        case Figure():
            return {"source": _figure_uri(section.image), "caption": section.caption, "wide": section.wide}
        case Gallery():
            items = [_gallery_item(item, section.large) for item in section.items]
            return {"note": section.note, "items": items, "large": section.large}
        case Frames():
            return {"note": section.note, "frames": _frames(section)}
        case Text():
            return {"paragraphs": [p for p in re.split(r"\n\s*\n", section.body.strip()) if p]}
        case Code():
            return {"body": section.body.strip("\n")}
        case _:
            return section.view()


def _side_by_side(views: list[dict[str, Any]]) -> list[list[dict[str, Any]]]:
    """Runs of narrow figures stand together, everything else alone."""
    groups: list[list[dict[str, Any]]] = []
    for view in views:
        narrow = view["kind"] == "figure" and not view["wide"]
        if narrow and groups and groups[-1][-1]["kind"] == "figure" and not groups[-1][-1]["wide"]:
            groups[-1].append(view)
        else:
            groups.append([view])
    return groups


def _table(table: Table) -> dict[str, Any]:
    barred = [name in table.bars for name in table.columns]
    rows = [[_cell(cell, bar) for cell, bar in zip(row, barred, strict=True)] for row in table.rows]
    numeric = [_is_numeric([row[i] for row in table.rows]) for i in range(len(table.columns))]
    columns = [
        {"name": name, "numeric": number, "bar": bar}
        for name, number, bar in zip(table.columns, numeric, barred, strict=True)
    ]
    return {"columns": columns, "rows": rows}


def _is_numeric(cells: Sequence[Cell]) -> bool:
    """Whether a column holds numbers: those stand right-aligned."""
    filled = [c for c in cells if c not in (None, "-", "")]
    return bool(filled) and all(
        _MEASURED.fullmatch(c) if isinstance(c, str) else not isinstance(c, bool) for c in filled
    )


def _cell(cell: Cell, bar: bool) -> dict[str, Any]:
    share = None
    if cell is None:
        text = "-"
    elif bar and isinstance(cell, (int, float)) and math.isfinite(cell):
        share = round(100 * min(1.0, max(0.0, cell)), 2)
        text = f"{100 * cell:.1f} %"
    elif isinstance(cell, (bool, str)):
        text = str(cell)
    elif isinstance(cell, int):
        text = f"{cell:,}"
    else:
        text = f"{cell:.4g}"
    return {"text": text, "share": share}


def _gallery_item(item: GalleryItem, large: bool) -> dict[str, Any]:
    first, _, rest = item.caption.partition("\n")
    embedded = _embedded(item.image, _LARGEST_DRAWN if large else _LARGEST_IMAGE, photograph=large)
    return {**embedded, "first": first, "rest": rest, "wrong": item.wrong, "alt": item.caption}


def _frames(section: Frames) -> list[dict[str, Any]]:
    count, step = len(section.images), max(1, -(-len(section.images) // _MOST_FRAMES))
    found = []
    for place in range(0, count, step):
        image = section.images[place]
        embedded = _embedded(image, _LARGEST_FRAME, photograph=min(image.shape[-2:]) >= _SMALLEST_SHARP)
        found.append({**embedded, "alt": f"{section.noun} {place + 1} of {count}"})
    return found


def _embedded(pixels: Tensor, largest: int, *, photograph: bool) -> dict[str, Any]:
    """An image within a page, no side of it larger than so many pixels, and whether it is shown as pixels.

    photograph: as JPEG.
    """
    image = to_pil(pixels)
    tiny = min(image.size) < _SMALLEST_SHARP
    image.thumbnail((largest, largest), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    if photograph:
        image.save(buffer, "JPEG", quality=85)
    else:
        image.save(buffer, "PNG", optimize=True)
    return {"source": data_uri("image/jpeg" if photograph else "image/png", buffer.getvalue()), "tiny": tiny}


def _figure_uri(image: bytes) -> str:
    return data_uri("image/png" if image.startswith(b"\x89PNG") else "image/svg+xml", image)


def data_uri(kind: str, content: bytes) -> str:
    """Bytes as a link that holds them. kind: their MIME type, "image/png"."""
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"
