"""Images of what went wrong: an event where it happened, and what a tracker expected there and compared."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from PIL import Image, ImageDraw
from torch import Tensor

from opsin.data.drawing import LIGHT, NARROWEST, Color, Mark, cut_out, draw_marks, enlarge, to_pil, to_tensor
from opsin.track.drawing import color_of_id
from opsin.track.events import Event
from opsin.track.following import Look
from opsin.track.tracks import NOBODY, Floats, Tracks

RIGHT, REFUSED, TRUTH = (0, 158, 115), (213, 94, 0), (240, 240, 240)
_GREY = 96  # where there is no image
_CONTEXT = 0.5  # of a box around it that is shown too
_LEAST = 160  # pixels of a crop's sides
_WIDTH = 300  # pixels that a crop is enlarged to


class FrameImages:
    """The images of some frames, grey ones where there are none. images: by frame, uint8 (3, H, W)."""

    def __init__(self, images: Mapping[int, Tensor], size: tuple[int, int]) -> None:
        self.images, self.size = images, size

    def __getitem__(self, frame: int) -> Tensor:
        if frame in self.images:
            return self.images[frame].expand(3, -1, -1)
        width, height = self.size
        return torch.full((3, height, width), _GREY, dtype=torch.uint8)


def extent_of(*tracks: Tracks) -> tuple[int, int]:
    """Width and height that hold all boxes, where nobody says how large the frames are."""
    size = next((one.size for one in tracks if one.size is not None), None)
    if size is not None:
        return size
    corners = [one.boxes[:, 2:].max(axis=0) for one in tracks if len(one)]
    width, height = np.ceil(np.max(corners, axis=0)).astype(int).tolist() if corners else (64, 64)
    return max(64, min(width, 8192)), max(64, min(height, 8192))


def draw_event(event: Event, truth: Tracks, tracks: Tracks, images: FrameImages) -> Tensor:
    """The place of an event, uint8 (3, H, W): truth is dashed and white, tracks are coloured and have their numbers.

    Where the object had been followed before, the last frame of that stands at the left.
    """
    frames, boxes = [event.shown], [list(event.box)]
    if event.earlier is not None:
        own = np.flatnonzero((truth.frames == event.earlier) & (truth.ids == event.object))
        frames, boxes = [event.earlier, *frames], [*truth.boxes[own].tolist(), *boxes]
    crops = [_crop(images[frame], boxes, _marks(truth, tracks, frame, event)) for frame in frames]
    both = Image.new("RGB", (sum(one.width for one in crops) + 6 * (len(crops) - 1), crops[0].height), LIGHT)
    for place, one in enumerate(crops):
        both.paste(one, (place * (one.width + 6), 0))
    return to_tensor(both)


def frames_of_event(event: Event) -> set[int]:
    """The frames whose images `draw_event` shows."""
    return {event.shown} if event.earlier is None else {event.shown, event.earlier}


def _marks(truth: Tracks, tracks: Tracks, frame: int, event: Event) -> list[Mark]:
    answers, objects = tracks.rows(frame), truth.rows(frame)
    marks = [
        Mark(box, f"{identity}", color_of_id(identity))
        for box, identity in zip(tracks.boxes[answers].tolist(), tracks.ids[answers].tolist(), strict=True)
    ]
    for box, identity in zip(truth.boxes[objects].tolist(), truth.ids[objects].tolist(), strict=True):
        if identity != NOBODY:
            name = f"object {identity}" if identity == event.object else ""
            marks.append(Mark(box, name, TRUTH, dashed=True))
    return marks


def _crop(image: Tensor, boxes: Sequence[Sequence[float]], marks: Sequence[Mark]) -> Image.Image:
    part, (left, top) = cut_out(image, boxes, _CONTEXT, _LEAST)
    shift = np.array([left, top, left, top])
    moved = [Mark((np.array(one.box) - shift).tolist(), one.text, one.color, one.dashed) for one in marks]
    height, width = part.shape[-2:]
    inside = [one for one in moved if one.box[2] > 0 and one.box[3] > 0 and one.box[0] < width and one.box[1] < height]
    return draw_marks(to_pil(part), inside, narrowest=_WIDTH)[0]


def draw_gates(look: Look, detections: Floats, image: Tensor) -> Tensor:
    """What a tracker expected in a frame, and what it compared, uint8 (3, H, W).

    Dashed is where each track was expected, white are the detections by their places. A green line is a match, an
    orange one the best detection of a track that got none, with what it lacked.
    """
    large, factor = enlarge(to_pil(image), 2 * NARROWEST)
    detections = factor * detections
    found = {int(identity): factor * box for identity, box in zip(look.ids, look.expected, strict=True)}
    marks = [Mark(box.tolist(), f"{identity}", color_of_id(identity), dashed=True) for identity, box in found.items()]
    marks += [Mark(box, f"{place}", LIGHT) for place, box in enumerate(detections.tolist())]
    drawn, _ = draw_marks(large, marks, narrowest=0)
    canvas = ImageDraw.Draw(drawn)
    width = max(2, round(min(drawn.size) / 200))
    done: set[int] = set()
    for one in look.rounds:
        for row, column in zip(one.pairs.rows.tolist(), one.pairs.columns.tolist(), strict=True):
            done.add(int(one.ids[row]))
            _join(canvas, found.get(int(one.ids[row])), detections[one.detections[column]], RIGHT, width)
    for one in look.rounds:
        for row, identity in enumerate(one.ids.tolist()):
            if identity in done or not one.affinity.shape[1]:
                continue
            column = int(np.argmax(one.affinity[row]))
            if 0 < one.affinity[row, column] < one.least:
                _join(canvas, found.get(identity), detections[one.detections[column]], REFUSED, width)
    return to_tensor(drawn)


def _join(canvas: ImageDraw.ImageDraw, one: Floats | None, other: Floats, color: Color, width: int) -> None:
    if one is None:
        return
    ends = [((box[0] + box[2]) / 2, (box[1] + box[3]) / 2) for box in (one, other)]
    (x1, y1), (x2, y2) = ends
    canvas.line((x1, y1, x2, y2), fill=color, width=width)
    for x, y in ends:
        canvas.ellipse((x - 1.5 * width, y - 1.5 * width, x + 1.5 * width, y + 1.5 * width), fill=color)
