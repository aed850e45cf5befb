"""Images out of a source again: a contact sheet of its classes, and PNG files in class folders."""

from __future__ import annotations

import colorsys
import math
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from opsin.data.images import UnreadableImage
from opsin.data.source import Source, Split
from opsin.data.splits import stratified
from opsin.errors import InputError, JobError, unknown
from opsin.structures import Instances

_MARGIN, _WIDEST = 4, 140  # pixels between cells, and the most for the class names at the left
_MOST_ROWS = 100


def contact_sheet(
    source: Source,
    path: str | Path,
    *,
    per_class: int | None = None,
    cell: int | None = None,
    below: Image.Image | None = None,
) -> Path:
    """Write an image with one labelled row of examples for each class, evenly spaced over the training split.

    In images of detection data every box is drawn, in its class's colour and with its name; regions to ignore are
    grey. per_class: examples, 10 unless set, 4 with boxes. cell: the longer side of an image in pixels, 64 or 256. At
    most 100 classes are drawn. An image that cannot be read is a crossed cell. below: is set under the rows, such as a
    chart of the data. The file's ending sets its format.
    """
    split = next(source.splits[key] for key in ("train", "all", *source.splits) if key in source.splits)
    per_class, cell = (per_class or 4, cell or 256) if split.instances is not None else (per_class or 10, cell or 64)
    classes, font = source.classes[:_MOST_ROWS], ImageFont.load_default(13)
    names = [_shortened(name, font) for name in classes]
    rows = [
        [_draw(split, index, cell, source.classes) for index in _examples(split, k, per_class)]
        for k in range(len(classes))
    ]
    sizes = [drawn.size for row in rows for drawn in row if drawn is not None] or [(cell, cell)]
    width, height = (max(sides) for sides in zip(*sizes, strict=True))
    left = 2 * _MARGIN + math.ceil(max((font.getlength(name) for name in names), default=0))
    across, down = width + _MARGIN, height + _MARGIN
    sheet = Image.new("RGB", (left + per_class * across, len(classes) * down + _MARGIN), "white")
    draw = ImageDraw.Draw(sheet)
    for row, (name, drawn) in enumerate(zip(names, rows, strict=True)):
        top = _MARGIN + row * down
        draw.text((_MARGIN, top + height // 2 - 8), name, fill="black", font=font)
        for column, one in enumerate(drawn):
            x = left + column * across
            if one is None:
                draw.line((x, top, x + width, top + height), fill="red", width=2)
                draw.line((x, top + height, x + width, top), fill="red", width=2)
            else:
                sheet.paste(one, (x + (width - one.width) // 2, top + (height - one.height) // 2))
    return _save(sheet if below is None else _stack(sheet, below), Path(path))


def _stack(upper: Image.Image, lower: Image.Image) -> Image.Image:
    """Two images on white, one under the other."""
    both = Image.new("RGB", (max(upper.width, lower.width), upper.height + lower.height), "white")
    both.paste(upper, (0, 0))
    both.paste(lower, (0, upper.height))
    return both


def export(source: Source, path: str | Path, *, split: str | None = None, limit: int | None = None) -> list[Path]:
    """Write images as PNG files into folders: class folders of one split, or of every split in a folder of its name.

    limit: how many of each split, stratified. Returns the files. Raises InputError for multi-label data.
    """
    if source.multi_label:
        raise InputError(f"{source.name} is multi-label: its images belong to no single class folder")
    if split is not None and split not in source.splits:
        raise unknown(f"split of {source.name}", split, source.splits)
    written = []
    for key in source.splits if split is None else [split]:
        part = source.splits[key]
        root = Path(path) if split is not None or key == "all" else Path(path) / key
        for index in stratified(part.labels, limit if limit is not None else len(part)).tolist():
            label = int(part.labels[index])
            name = _safe(source.classes[label]) if label >= 0 else "unlabelled"
            written.append(_save(to_pillow(part.read(index)), root / name / f"{index:06d}.png"))
    return written


def to_pillow(image: Tensor) -> Image.Image:
    """uint8 (C, H, W), C = 1 or 3 -> a Pillow image."""
    array = image.permute(1, 2, 0).contiguous().numpy()
    return Image.fromarray(array[..., 0] if image.shape[0] == 1 else array)


def _examples(split: Split, label: int, most: int) -> list[int]:
    """Some images of a class, evenly spaced."""
    of_class = split.labels[:, label] > 0 if split.labels.ndim == 2 else split.labels == label
    members = np.flatnonzero(of_class)
    return members[np.unique(np.linspace(0, len(members) - 1, min(most, len(members))).astype(int))].tolist()


def _draw(split: Split, index: int, longest: int, classes: Sequence[str]) -> Image.Image | None:
    """An image with its boxes, its longer side brought to `longest`; None where it cannot be read."""
    try:
        image = to_pillow(split.read(index)).convert("RGB")
    except UnreadableImage:
        return None
    scale = longest / max(image.size)
    if scale >= 2:  # small images grow by whole factors, to show their pixels
        scale, way = math.floor(scale), Image.Resampling.NEAREST
    else:
        way = Image.Resampling.BILINEAR
    width, height = (max(1, round(side * scale)) for side in image.size)
    drawn = image.resize((width, height), way)
    if split.instances is not None:
        one = split.instances[index]
        factors = one.boxes.new_tensor([width / image.width, height / image.height] * 2)
        draw_boxes(drawn, Instances(one.boxes * factors, one.labels), classes)
    return drawn


def draw_boxes(image: Image.Image, instances: Instances, classes: Sequence[str]) -> None:
    """Draw instances, in pixels of the image, upon it: boxes in their class's colour, and names."""
    draw, font = ImageDraw.Draw(image), ImageFont.load_default(10)
    labels = instances.labels.tolist() if instances.labels is not None else [-1] * len(instances)
    for (x1, y1, x2, y2), label in zip(instances.boxes.tolist(), labels, strict=True):
        # A box spans whole pixels to its exclusive end; Pillow draws up to and with the last.
        corners = (round(x1), round(y1), max(round(x1), round(x2) - 1), max(round(y1), round(y2) - 1))
        colour = class_colour(label)
        draw.rectangle(corners, outline=colour)
        name = _shortened(classes[label], font) if label >= 0 else "ignored"
        width = math.ceil(font.getlength(name))
        left = max(0, min(corners[0], image.width - width))
        top = corners[1] - 11 if corners[1] >= 11 else corners[1]
        draw.rectangle((left, top, left + width, top + 11), fill=colour)
        draw.text((left, top), name, fill="white", font=font)


def class_colour(label: int) -> tuple[int, int, int]:
    """A colour of a class that white letters show upon, far from its neighbours'; grey for -1."""
    if label < 0:
        return 128, 128, 128
    red, green, blue = colorsys.hsv_to_rgb(label * 0.618034 % 1, 0.85, 0.75)  # the golden ratio spreads any number
    return round(255 * red), round(255 * green), round(255 * blue)


def _shortened(name: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont) -> str:
    if font.getlength(name) <= _WIDEST:
        return name
    while name and font.getlength(f"{name}...") > _WIDEST:
        name = name[:-1]
    return f"{name}..."


def _safe(name: str) -> str:
    """A class name as a folder's name on every system."""
    return re.sub(r'[<>:"/\\|?*\x00-\x1f]', "_", name).strip(". ") or "_"


def _save(image: Image.Image, path: Path) -> Path:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        image.save(path)
    except ValueError as error:  # Pillow's answer to an ending that it does not know
        raise InputError(f"cannot write an image to {path}: {error}; end its name in .png or .jpg") from error
    except OSError as error:
        raise JobError(f"cannot write {path}: {error.strerror or error}") from error
    return path
