"""Drawing tracks on frames: boxes with identities, the trail of each, and the lines and zones that are counted."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, ImageDraw
from torch import Tensor

from opsin.data.drawing import DARK, LIGHT, NARROWEST, PALETTE, Color, Mark, draw_marks, enlarge, font, shorten, to_pil
from opsin.track.counting import CountPlan

if TYPE_CHECKING:
    from opsin.structures import Instances
    from opsin.track.counting import TrackCounter

_COUNTED: Color = (240, 228, 66)
_TRAIL = 2.0  # seconds


def color_of_id(identity: int) -> Color:
    """The colour of a track, the same in every frame."""
    return PALETTE[identity % len(PALETTE)]


class TrackDrawer:
    """Draws frame after frame: call it with each, in the order of time.

    classes: their names; beside an identity only where there are several. fps: frames a second. seconds: of the trails;
    a track that is not seen any more takes its trail with it after as long. plan: the lines and zones to draw.
    """

    def __init__(
        self, classes: Sequence[str], fps: float = 25.0, seconds: float = _TRAIL, plan: CountPlan | None = None
    ) -> None:
        self.classes, self.plan = tuple(classes), plan
        self.length = max(2, round(seconds * fps))
        self._trails: dict[int, deque[tuple[int, float, float]]] = {}  # id -> frame, x, y

    def __call__(
        self, image: Tensor, frame: int, tracked: Instances, counter: TrackCounter | None = None
    ) -> Image.Image:
        """The frame, uint8 (C, H, W), with its tracks; tiny ones are enlarged by a whole factor.

        tracked: with ids. counter: what was counted up to this frame.
        """
        assert tracked.ids is not None
        drawn, factor = enlarge(to_pil(image).convert("RGB"), NARROWEST)
        boxes, ids = tracked.boxes.double().numpy(), tracked.ids.tolist()
        self._follow(frame, ids, (self.plan or CountPlan()).points(boxes))
        self._draw_trails(drawn, frame, factor)
        names = [""] * len(ids)
        if len(self.classes) > 1 and tracked.labels is not None:
            names = [f" {self.classes[label]}" if label >= 0 else "" for label in tracked.labels.tolist()]
        marks = [
            Mark(box, f"{identity}{name}", color_of_id(identity))
            for box, identity, name in zip((factor * boxes).tolist(), ids, names, strict=True)
        ]
        drawn, _ = draw_marks(drawn, marks, narrowest=0)
        if self.plan is not None:
            _draw_plan(drawn, self.plan, factor, None if counter is None else counter.shown())
        return drawn

    def _follow(self, frame: int, ids: Sequence[int], points: np.ndarray) -> None:
        for identity, (x, y) in zip(ids, points.tolist(), strict=True):
            self._trails.setdefault(identity, deque(maxlen=self.length)).append((frame, x, y))
        gone = [identity for identity, trail in self._trails.items() if frame - trail[-1][0] > self.length]
        for identity in gone:
            del self._trails[identity]

    def _draw_trails(self, drawn: Image.Image, frame: int, factor: int) -> None:
        canvas = ImageDraw.Draw(drawn, "RGBA")
        width = max(2, round(min(drawn.size) / 200))
        for identity, trail in self._trails.items():
            points = [(at, factor * x, factor * y) for at, x, y in trail if frame - at <= self.length]
            for (_, *one), (at, *other) in pairwise(points):
                alpha = round(255 * (1 - (frame - at) / (self.length + 1)))
                canvas.line((*one, *other), fill=(*color_of_id(identity), alpha), width=width)


def _draw_plan(drawn: Image.Image, plan: CountPlan, factor: int, shown: Sequence[tuple[int, int]] | None) -> None:
    canvas = ImageDraw.Draw(drawn, "RGBA")
    width = max(2, round(min(drawn.size) / 240))
    numbers = shown or [(0, 0)] * (len(plan.lines) + len(plan.zones))
    for line, (right, left) in zip(plan.lines, numbers, strict=False):
        start, end = factor * line.start, factor * line.end
        canvas.line((*start, *end), fill=_COUNTED, width=width)
        across = np.array([-(end - start)[1], (end - start)[0]]) / np.hypot(*(end - start))  # to the right of it
        middle, reach = (start + end) / 2, 5.0 * width
        canvas.line((*middle, *(middle + reach * across)), fill=_COUNTED, width=width)
        _write(canvas, drawn, middle + reach * across, f"{shorten(line.name, 24)}: {right} / {left}")
    for zone, (now, most) in zip(plan.zones, numbers[len(plan.lines) :], strict=True):
        corners = [(float(x), float(y)) for x, y in factor * zone.corners]
        canvas.line([*corners, corners[0]], fill=_COUNTED, width=width)
        _write(canvas, drawn, factor * zone.corners.mean(axis=0), f"{shorten(zone.name, 24)}: {now} (most {most})")


def _write(canvas: ImageDraw.ImageDraw, drawn: Image.Image, at: np.ndarray, text: str) -> None:
    letters = font(round(min(22, max(11, min(drawn.size) / 30))))
    room, height = letters.getlength(text) + 8, letters.size + 6
    x = min(max(0.0, float(at[0]) - room / 2), max(0.0, drawn.width - room))
    y = min(max(0.0, float(at[1])), max(0.0, drawn.height - height))
    canvas.rectangle((x, y, x + room, y + height), fill=(*DARK, 190))
    canvas.text((x + 4, y + height / 2), text, LIGHT, letters, anchor="lm")
