"""Images out of a source again: a contact sheet of its classes, and PNG files in class folders."""

from __future__ import annotations

import math
import re
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from opsin.data.drawing import color_of, fit, font, save_image, stack, to_pil
from opsin.data.images import UnreadableImage
from opsin.data.source import Source, Split
from opsin.data.splits import stratified
from opsin.data.truth import Summary
from opsin.errors import InputError, unknown

_MARGIN, _WIDEST = 4, 140  # pixels between cells, and the most for the class names at the left
_CHIP = 12  # pixels: the side of the square of a class's colour beside its name
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

    What the truth draws is drawn: every box, in its class's colour, which stands beside the row's name too, and with
    its name where there is room; regions to ignore are grey. Where there are no classes, it is one row, of texts some.
    per_class: examples, 10 unless set, 4 with boxes, 5 with texts. cell: the longer side of an image in pixels, 64, 256
    or 200. At most 100 classes are drawn. An image that cannot be read is a crossed cell. below: is set under the rows,
    such as a chart of the data. The file's ending sets its format. Raises InputError for an ending that is no image's,
    and for data without images; JobError if the folder cannot be written.
    """
    split = next(source.splits[key] for key in ("train", "all", *source.splits) if key in source.splits)
    if split.inputs.key != "image":
        raise InputError(f"{source.name} holds no images to draw")
    summary = Summary() if split.truth is None else split.truth.summary()
    columns, side, most = (4, 256, 1) if summary.objects else summary.grid or (10, 64, 1)
    per_class, cell = per_class or columns, cell or side
    classes, chosen = _choose(split, list(summary.counts)[:_MOST_ROWS] or [""], per_class, most)
    letters, chip = font(13), _CHIP if summary.objects else 0
    names = [fit(name, letters, _WIDEST) for name in classes]
    rows = [[_draw(split, index, cell) for index in places] for places in chosen]
    sizes = [drawn.size for row in rows for drawn in row if drawn is not None] or [(cell, cell)]
    width, height = (max(sides) for sides in zip(*sizes, strict=True))
    indent = _MARGIN + (chip and chip + _MARGIN)
    left = indent + math.ceil(max((letters.getlength(name) for name in names), default=0)) + _MARGIN
    across, down = width + _MARGIN, height + _MARGIN
    sheet = Image.new("RGB", (left + per_class * across, len(classes) * down + _MARGIN), "white")
    draw = ImageDraw.Draw(sheet)
    for row, (name, drawn) in enumerate(zip(names, rows, strict=True)):
        top = _MARGIN + row * down
        middle = top + height // 2
        if chip:
            color = summary.colours[row] if summary.colours else color_of(classes[row], source.classes)
            draw.rectangle((_MARGIN, middle - chip // 2, _MARGIN + chip - 1, middle + chip // 2 - 1), fill=color)
        draw.text((indent, middle), name, fill="black", font=letters, anchor="lm")
        for column, one in enumerate(drawn):
            x = left + column * across
            if one is None:
                draw.line((x, top, x + width, top + height), fill="red", width=2)
                draw.line((x, top + height, x + width, top), fill="red", width=2)
            else:
                sheet.paste(one, (x + (width - one.width) // 2, top + (height - one.height) // 2))
    return save_image(sheet if below is None else stack(sheet, below), Path(path))


def export(source: Source, path: str | Path, *, split: str | None = None, limit: int | None = None) -> list[Path]:
    """Write images as PNG files into folders: class folders of one split, or of every split in a folder of its name.

    limit: how many of each split, stratified. Returns the files. Raises InputError for data that has no single class an
    image.
    """
    if any(split.inputs.key != "image" for split in source.splits.values()):
        raise InputError(f"{source.name} holds no images to write")
    summaries = [split.truth.summary() for split in source.splits.values() if split.truth is not None]
    if not all(summary.exclusive for summary in summaries):
        kinds = ", ".join(dict.fromkeys(summary.kind for summary in summaries))
        raise InputError(f"{source.name} is not of one class an image ({kinds}): its images belong to no class folder")
    if split is not None and split not in source.splits:
        raise unknown(f"split of {source.name}", split, source.splits)
    written = []
    for key in source.splits if split is None else [split]:
        part = source.splits[key]
        root = Path(path) if split is not None or key == "all" else Path(path) / key
        classes = np.full(len(part), -1) if part.truth is None else part.truth.strata()
        assert classes is not None  # since each example has one
        for index in stratified(classes, limit if limit is not None else len(part)).tolist():
            label = int(classes[index])
            name = _safe(source.classes[label]) if label >= 0 else "unlabelled"
            written.append(save_image(to_pil(part.read(index)), root / name / f"{index:06d}.png"))
    return written


def _choose(split: Split, classes: list[str], columns: int, rows: int) -> tuple[list[str], list[list[int]]]:
    """The name and the examples of each row. rows: over which one run of examples goes where there are no classes."""
    chosen = [_examples(split, name, columns * rows) for name in classes]
    if rows == 1:
        return classes, chosen
    chosen = [chosen[0][start : start + columns] for start in range(0, len(chosen[0]), columns)]
    return [""] * len(chosen), chosen


def _examples(split: Split, name: str, most: int) -> list[int]:
    """Some images of a class, evenly spaced."""
    members = np.arange(len(split)) if split.truth is None else split.truth.members(name)
    return members[np.unique(np.linspace(0, len(members) - 1, min(most, len(members))).astype(int))].tolist()


def _draw(split: Split, index: int, longest: int) -> Image.Image | None:
    """An image with its truth, its longer side brought to `longest`; None where it cannot be read."""
    try:
        image = to_pil(split.read(index)).convert("RGB")
    except UnreadableImage:
        return None
    scale = longest / max(image.size)
    if scale >= 2:  # small images grow by whole factors, to show their pixels
        scale, way = math.floor(scale), Image.Resampling.NEAREST
    else:
        way = Image.Resampling.BILINEAR
    width, height = (max(1, round(side * scale)) for side in image.size)
    drawn = image.resize((width, height), way)
    if split.truth is None:
        return drawn
    return split.truth.draw(drawn, index, (width / image.width, height / image.height))


def _safe(name: str) -> str:
    """A class name as a folder's name on every system."""
    return re.sub(r'[<>:"/\\|?*\x00-\x1f]', "_", name).strip(". ") or "_"
