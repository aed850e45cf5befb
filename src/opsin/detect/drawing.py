"""Boxes on images: what was found, what it should have been, and which anchors answered for which object."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageDraw
from torch import Tensor

from opsin.data.masks import decode_mask
from opsin.detect.detector import Assignment
from opsin.engine.report import to_pil
from opsin.engine.text_drawing import enlarge, font, shorten
from opsin.structures import Instances

Color = tuple[int, int, int]
Box = Sequence[float]

_NARROWEST = 320  # pixels: the least width in which boxes and their labels can be read
# Okabe and Ito's palette, which the colour-blind can tell apart; then lighter and darker ones of other hues.
PALETTE: tuple[Color, ...] = (
    (0, 114, 178), (230, 159, 0), (0, 158, 115), (204, 121, 167), (213, 94, 0), (86, 180, 233), (240, 228, 66),
    (148, 103, 189), (140, 86, 75), (23, 190, 207), (188, 189, 34), (127, 127, 127),
)  # fmt: skip
RIGHT, WRONG, MISSED, IGNORED = (0, 158, 115), (213, 94, 0), (240, 228, 66), (150, 150, 150)
_LIGHT, _DARK = (255, 255, 255), (16, 18, 22)


@dataclass(frozen=True)
class Mark:
    """A box to draw, in pixels of the image, with its words. Dashed ones are not there but should be."""

    box: Box
    text: str
    color: Color
    dashed: bool = False


def annotate(image: Tensor, answer: dict[str, Any], classes: Sequence[str]) -> Image.Image:
    """The image with a box, a class and a score for each instance, tinted where it has a mask; a class has a colour.

    image: uint8 (C, H, W), C 1 or 3. answer: {"instances": [{"box", "label", "score", "mask"}, ...]}, masks only where
    there are any. Words that would cover each other are left out, the least certain first, and a legend names the
    colours then. Tiny images are enlarged by a whole factor, pixel by pixel.
    """
    found = sorted(answer["instances"], key=lambda one: -one["score"])
    for one in reversed(found):
        if "mask" in one:
            image = _tint(image, decode_mask(one["mask"]), color_of(one["label"], classes))
    marks = [
        Mark(one["box"], f"{one['label']} {100 * one['score']:.0f} %", color_of(one["label"], classes)) for one in found
    ]
    drawn, complete = draw_marks(to_pil(image), marks)
    if complete:
        return drawn
    there = list(dict.fromkeys(one["label"] for one in found))
    return _with_legend(drawn, [(name, color_of(name, classes)) for name in sorted(there, key=list(classes).index)])


def color_of(label: str, classes: Sequence[str]) -> Color:
    """The colour of a class, the same in every image."""
    return PALETTE[list(classes).index(label) % len(PALETTE)]


def _tint(image: Tensor, mask: Tensor, color: Color) -> Tensor:
    """An image whose pixels under a mask (H, W) are half of a colour: uint8 (C, H, W) -> (3, H, W)."""
    half = (image.expand(3, -1, -1).int() + torch.tensor(color)[:, None, None]) // 2
    return torch.where(mask, half.to(torch.uint8), image)


def draw_marks(image: Image.Image, marks: Sequence[Mark]) -> tuple[Image.Image, bool]:
    """The image with boxes, the first on top, and whether all their words found room."""
    image, factor = enlarge(image.convert("RGB"), _NARROWEST)
    canvas = ImageDraw.Draw(image)
    width = max(2, round(min(image.size) / 240))
    scaled = [tuple(factor * float(v) for v in mark.box) for mark in marks]
    for mark, box in reversed(list(zip(marks, scaled, strict=True))):
        _outline(canvas, box, mark.color, width, dashed=mark.dashed)
    placed: list[Box] = []
    for mark, box in zip(marks, scaled, strict=True):
        if mark.text:
            _write(canvas, image.size, mark, box, placed)
    return image, len(placed) == sum(bool(mark.text) for mark in marks)


def compare(
    image: Tensor, truth: Instances, found: Instances, classes: Sequence[str], right: Sequence[int],
    wrong: Sequence[int], missed: Sequence[int],
) -> Image.Image:  # fmt: skip
    """Predictions and truth: right ones green, wrong ones orange, missed objects yellow and dashed, ignored ones grey.

    right, wrong: places in `found`; missed: places in `truth`.
    """
    assert found.labels is not None and found.scores is not None and truth.labels is not None

    def told(place: int) -> str:
        return f"{classes[int(found.labels[place])]} {100 * float(found.scores[place]):.0f} %"  # type: ignore[index]

    marks = [Mark(found.boxes[i].tolist(), told(i), WRONG) for i in wrong]
    marks += [Mark(truth.boxes[i].tolist(), classes[int(truth.labels[i])], MISSED, dashed=True) for i in missed]
    marks += [Mark(found.boxes[i].tolist(), "", RIGHT) for i in right]
    marks += [Mark(box.tolist(), "", IGNORED, dashed=True) for box in truth.boxes[truth.labels == -1]]
    return draw_marks(to_pil(image), marks)[0]


def draw_assignment(image: Tensor, assignment: Assignment, truth: Instances, classes: Sequence[str]) -> Image.Image:
    """Which anchors or cells answer for which object of a network's input.

    A dot is the centre of an anchor or a cell: green if it answers for an object, with its box; orange if the loss
    looks away, grey if it is background. Objects are dashed.
    """
    drawn, factor = enlarge(to_pil(image).convert("RGB"), _NARROWEST)
    drawn = Image.blend(drawn, Image.new("RGB", drawn.size, _DARK), 0.35)
    canvas = ImageDraw.Draw(drawn)
    boxes, matched = factor * assignment.boxes.cpu().numpy(), assignment.matched.cpu().numpy()
    centres = (boxes[:, :2] + boxes[:, 2:]) / 2
    width = max(1, round(min(drawn.size) / 320))
    for box in boxes[matched >= 0]:
        _outline(canvas, box.tolist(), RIGHT, width)
    for chosen, color, radius in (
        (matched == -1, IGNORED, 0.5),
        (matched == -2, WRONG, 1.5),
        (matched >= 0, RIGHT, 2.0),
    ):
        for x, y in np.unique(centres[chosen].round(1), axis=0):
            reach = radius * width
            canvas.ellipse((x - reach, y - reach, x + reach, y + reach), fill=color)
    labels = truth.labels if truth.labels is not None else torch.zeros(len(truth)).long()
    placed: list[Box] = []
    for box, label in zip(truth.boxes.tolist(), labels.tolist(), strict=True):
        scaled = [factor * v for v in box]
        mark = Mark(scaled, "ignored" if label < 0 else classes[int(label)], MISSED, dashed=True)
        _outline(canvas, scaled, MISSED, width, dashed=True)
        _write(canvas, drawn.size, mark, scaled, placed)
    return drawn


def cut_out(
    image: Tensor, boxes: Sequence[Box], context: float = 0.6, least: int = 48
) -> tuple[Tensor, tuple[int, int]]:
    """The part of an image around boxes, and its left upper corner (x, y) in the image.

    context: how much of the boxes' size to show around them; least: pixels of a side, where there are so many.
    """
    height, width = image.shape[-2:]
    x1, y1 = (min(box[i] for box in boxes) for i in (0, 1))
    x2, y2 = (max(box[i] for box in boxes) for i in (2, 3))
    sides = []
    for low, high, end in ((x1, x2, width), (y1, y2, height)):
        reach = max(least, (1 + 2 * context) * (high - low)) / 2
        middle = min(max((low + high) / 2, 0), end)
        start, stop = max(0, int(middle - reach)), min(end, round(middle + reach))
        sides.append((min(start, end - 1), max(stop, min(start, end - 1) + 1)))
    (left, right), (top, bottom) = sides
    return image[..., top:bottom, left:right], (left, top)


def to_tensor(image: Image.Image) -> Tensor:
    """A PIL image as uint8 (3, H, W)."""
    return torch.from_numpy(np.array(image.convert("RGB"))).permute(2, 0, 1)


def _outline(canvas: ImageDraw.ImageDraw, box: Box, color: Color, width: int, *, dashed: bool = False) -> None:
    x1, y1, x2, y2 = (round(value) for value in box)
    x2, y2 = max(x2 - 1, x1), max(y2 - 1, y1)  # x2 and y2 are exclusive
    if not dashed:
        canvas.rectangle((x1, y1, x2, y2), outline=color, width=width)
        return
    dash = 4 * width
    for x in range(x1, x2 + 1, 2 * dash):
        for y in (y1, max(y1, y2 - width + 1)):
            canvas.rectangle((x, y, min(x + dash, x2), y + width - 1), fill=color)
    for y in range(y1, y2 + 1, 2 * dash):
        for x in (x1, max(x1, x2 - width + 1)):
            canvas.rectangle((x, y, x + width - 1, min(y + dash, y2)), fill=color)


def _write(canvas: ImageDraw.ImageDraw, size: tuple[int, int], mark: Mark, box: Box, placed: list[Box]) -> None:
    """Write a mark's words at the first free place about its box: above, inside at the top, below, inside below."""
    letters = font(round(min(22, max(11, min(size) / 30))))
    text = shorten(mark.text, 32)
    room, height = letters.getlength(text) + 6, letters.size + 5
    left = min(max(0.0, box[0]), max(0.0, size[0] - room))
    right = min(max(0.0, box[2] - room), max(0.0, size[0] - room))
    rows = [box[1] - height, box[1], box[3], box[3] - height]
    for x, y in [(x, y) for y in rows for x in (left, right)]:
        tag = (x, y, x + room, y + height)
        if tag[1] < 0 or tag[3] > size[1] or any(_touch(tag, other) for other in placed):
            continue
        canvas.rectangle(tag, fill=mark.color)
        dark = sum(weight * part for weight, part in zip((0.299, 0.587, 0.114), mark.color, strict=True)) > 140
        canvas.text((x + 3, y + height / 2), text, _DARK if dark else _LIGHT, letters, anchor="lm")
        placed.append(tag)
        return


def _touch(one: Box, other: Box) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]


def _with_legend(image: Image.Image, entries: Sequence[tuple[str, Color]]) -> Image.Image:
    """The image over a strip with every class in its colour."""
    size = round(min(22, max(12, image.width / 40)))
    letters, height, rows, x = font(size), size + 10, 0, 8.0
    places = []
    for name, color in entries:
        text = shorten(name, 32)
        needed = size + 6 + letters.getlength(text) + 16
        if x > 8 and x + needed > image.width:
            rows, x = rows + 1, 8.0
        places.append((text, color, x, rows))
        x += needed
    canvas = Image.new("RGB", (image.width, image.height + (rows + 1) * height), _DARK)
    canvas.paste(image, (0, 0))
    draw = ImageDraw.Draw(canvas)
    for text, color, x, row in places:
        top = image.height + row * height + 5
        draw.rectangle((x, top, x + size, top + size), fill=color)
        draw.text((x + size + 6, top + size / 2), text, _LIGHT, letters, anchor="lm")
    return canvas
