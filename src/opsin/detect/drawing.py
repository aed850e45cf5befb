"""Detection on images: what was found, what it should have been, and which anchors answered for which object."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageDraw
from torch import Tensor

from opsin.data.drawing import DARK, IGNORED, NARROWEST, Mark, add_legend, color_of, draw_marks, enlarge, tint, to_pil
from opsin.data.masks import decode_mask
from opsin.detect.detector import Assignment
from opsin.structures import Instances

RIGHT, WRONG, MISSED = (0, 158, 115), (213, 94, 0), (240, 228, 66)


def annotate(image: Tensor, answer: dict[str, Any], classes: Sequence[str]) -> Image.Image:
    """The image with a box, a class and a score for each instance, tinted where it has a mask; a class has a colour.

    image: uint8 (C, H, W), C 1 or 3. answer: {"instances": [{"box", "label", "score", "mask"}, ...]}, masks only where
    there are any; with a "polygon" in each these are drawn, without words. Words that would cover each other are left
    out, the least certain first, and a legend names the colours then. Tiny images are enlarged by a whole factor, pixel
    by pixel.
    """
    found = sorted(answer["instances"], key=lambda one: -one["score"])
    for one in reversed(found):
        if "mask" in one:
            image = tint(image, decode_mask(one["mask"]), color_of(one["label"], classes))
    if found and all("polygon" in one for one in found):
        return _outline_lines(image, found, classes)
    marks = [
        Mark(one["box"], f"{one['label']} {100 * one['score']:.0f} %", color_of(one["label"], classes)) for one in found
    ]
    drawn, complete = draw_marks(to_pil(image), marks)
    if complete:
        return drawn
    there = list(dict.fromkeys(one["label"] for one in found))
    return add_legend(drawn, [(name, color_of(name, classes)) for name in sorted(there, key=list(classes).index)])


def _outline_lines(image: Tensor, found: Sequence[dict[str, Any]], classes: Sequence[str]) -> Image.Image:
    """The image with the polygon of each line of text, the paler the less certain. Words would hide the text."""
    drawn, factor = enlarge(to_pil(image).convert("RGB"), NARROWEST)
    canvas = ImageDraw.Draw(drawn, "RGBA")
    width = max(2, round(min(drawn.size) / 320))
    for one in reversed(found):
        corners = [(factor * x, factor * y) for x, y in one["polygon"]]
        color = (*color_of(one["label"], classes), round(255 * (0.3 + 0.7 * one["score"])))
        canvas.line([*corners, corners[0], corners[1]], fill=color, width=width, joint="curve")
    return drawn


def compare(
    image: Tensor, truth: Instances, found: Instances, classes: Sequence[str], right: Sequence[int],
    wrong: Sequence[int], missed: Sequence[int],
) -> Image.Image:  # fmt: skip
    """Predictions and truth: right ones green, wrong ones orange, missed objects yellow and dashed, ignored ones grey.

    right, wrong: places in `found`; missed: places in `truth`.
    """
    assert found.labels is not None and found.scores is not None and truth.labels is not None

    def words(place: int) -> str:
        return f"{classes[int(found.labels[place])]} {100 * float(found.scores[place]):.0f} %"  # type: ignore[index]

    marks = [Mark(found.boxes[i].tolist(), words(i), WRONG) for i in wrong]
    marks += [Mark(truth.boxes[i].tolist(), classes[int(truth.labels[i])], MISSED, dashed=True) for i in missed]
    marks += [Mark(found.boxes[i].tolist(), "", RIGHT) for i in right]
    marks += [Mark(box.tolist(), "", IGNORED, dashed=True) for box in truth.boxes[truth.labels == -1]]
    return draw_marks(to_pil(image), marks)[0]


def draw_assignment(image: Tensor, assignment: Assignment, truth: Instances, classes: Sequence[str]) -> Image.Image:
    """Which anchors or cells are matched to which object of a network's input.

    A dot is the centre of an anchor or a cell: green if it is matched to an object, with its box; orange if the loss
    ignores it, grey if it is background. Objects are dashed.
    """
    drawn, factor = enlarge(to_pil(image).convert("RGB"), NARROWEST)
    drawn = Image.blend(drawn, Image.new("RGB", drawn.size, DARK), 0.35)
    boxes, matched = factor * assignment.boxes.cpu().numpy(), assignment.matched.cpu().numpy()
    centres = (boxes[:, :2] + boxes[:, 2:]) / 2
    width = max(1, round(min(drawn.size) / 320))
    positive = [Mark(box, "", RIGHT) for box in boxes[matched >= 0].tolist()]
    drawn, _ = draw_marks(drawn, positive, narrowest=0, width=width)
    canvas = ImageDraw.Draw(drawn)
    for chosen, color, radius in (
        (matched == -1, IGNORED, 0.5),
        (matched == -2, WRONG, 1.5),
        (matched >= 0, RIGHT, 2.0),
    ):
        for x, y in np.unique(centres[chosen].round(1), axis=0):
            reach = radius * width
            canvas.ellipse((x - reach, y - reach, x + reach, y + reach), fill=color)
    labels = truth.labels if truth.labels is not None else torch.zeros(len(truth)).long()
    objects = [
        Mark(box, "ignored" if label < 0 else classes[int(label)], MISSED, dashed=True)
        for box, label in zip((factor * truth.boxes).tolist(), labels.tolist(), strict=True)
    ]
    return draw_marks(drawn, objects, narrowest=0, width=width)[0]
