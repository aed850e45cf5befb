"""Counting tracks: who crosses a line and which way, who is in a zone, for how long.

What is counted stands in a JSON file, in pixels of the frames:

    {"lines": [{"name": "door", "from": [100, 400], "to": [500, 400]}],
     "zones": [{"name": "platform", "polygon": [[0, 300], [320, 300], [320, 480], [0, 480]]}],
     "point": "bottom", "margin": 0}

point: which point of a box is where its object is: "bottom", the middle of its lower side, where people and cars touch
the ground, or "centre". margin: pixels on both sides of a line within which nobody has changed sides yet, so that a box
that trembles on the line is counted once.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from opsin.errors import InputError, unknown
from opsin.files import load_json, read_regular

if TYPE_CHECKING:
    from opsin.track.tracks import Tracks

POINTS = ("bottom", "centre")
_LARGEST = 1 << 20  # bytes of the file: some thousand lines and zones
_FURTHEST = 1e7  # of a coordinate
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class CountLine:
    """A line from one point to another, which are ends: who passes beyond them does not cross it. start, end: (2,)."""

    name: str
    start: Floats
    end: Floats

    def side(self, point: Floats) -> float:
        """Pixels to the right of one who walks from `start` to `end`, negative to the left; y points down."""
        along = self.end - self.start
        across = point - self.start
        return float(along[0] * across[1] - along[1] * across[0]) / float(np.hypot(*along))

    def cuts(self, before: Floats, after: Floats) -> bool:
        """Whether the way between two points, on different sides of the line's extension, meets it between its ends."""
        way = after - before
        ends = [float(way[0] * (end - before)[1] - way[1] * (end - before)[0]) for end in (self.start, self.end)]
        return min(ends) <= 0 <= max(ends)


@dataclass(frozen=True)
class CountZone:
    """A polygon, by the even-odd rule. corners: (K, 2), K at least 3."""

    name: str
    corners: Floats

    def holds(self, points: Floats) -> NDArray[np.bool_]:
        """Which of some points (N, 2) lie inside: (N,)."""
        x, y = points[:, :1], points[:, 1:]
        (x1, y1), (x2, y2) = self.corners.T, np.roll(self.corners, -1, axis=0).T
        spans = (y1 > y) != (y2 > y)
        with np.errstate(divide="ignore", invalid="ignore"):
            left = x < (x2 - x1) * (y - y1) / (y2 - y1) + x1
        return np.asarray((spans & left).sum(axis=1) % 2 == 1)


@dataclass(frozen=True)
class CountPlan:
    """What is counted: see the file's form above."""

    lines: tuple[CountLine, ...] = ()
    zones: tuple[CountZone, ...] = ()
    point: str = "bottom"
    margin: float = 0.0

    def points(self, boxes: Floats) -> Floats:
        """Where the objects of boxes (N, 4) are: (N, 2)."""
        x = (boxes[:, 0] + boxes[:, 2]) / 2
        y = boxes[:, 3] if self.point == "bottom" else (boxes[:, 1] + boxes[:, 3]) / 2
        return np.stack([x, y], axis=1)


@dataclass
class _OfLine:
    """What was counted at a line."""

    rightward: Counter[str] = field(default_factory=Counter)  # by class
    leftward: Counter[str] = field(default_factory=Counter)
    crossings: list[dict[str, Any]] = field(default_factory=list)
    sides: dict[int, tuple[float, Floats]] = field(default_factory=dict)  # id -> where it last was beyond the margin


@dataclass
class _OfZone:
    """What was counted in a zone."""

    inside: dict[int, str] = field(default_factory=dict)  # id -> class, in the last frame
    visitors: dict[int, str] = field(default_factory=dict)
    entered: Counter[str] = field(default_factory=Counter)
    most: int = 0
    seconds: dict[int, float] = field(default_factory=dict)  # id -> how long it was inside
    last: float | None = None  # the time of the frame before


class TrackCounter:
    """Counts while frames come: `update` for each, `result` at the end.

    Crossings are left to right or right to left as one sees them who walks from the line's first point to its second.
    One who is inside a zone at its first sight has entered it. Seconds add up the times between frames in both of which
    an object is inside.
    """

    def __init__(self, plan: CountPlan, classes: Sequence[str]) -> None:
        self.plan, self.classes = plan, tuple(classes)
        self._lines = [_OfLine() for _ in plan.lines]
        self._zones = [_OfZone() for _ in plan.zones]

    def update(self, frame: int, time: float, ids: Sequence[int], boxes: Floats, labels: Sequence[int]) -> None:
        """The tracks of one frame. time: in seconds. ids: N of them. boxes: (N, 4). labels: places in `classes`."""
        points = self.plan.points(np.asarray(boxes, np.float64).reshape(-1, 4))
        names = [self.classes[label] if 0 <= label < len(self.classes) else "" for label in labels]
        for line, counted in zip(self.plan.lines, self._lines, strict=True):
            for identity, point, name in zip(ids, points, names, strict=True):
                self._cross(
                    line, counted, int(identity), point, {"frame": frame, "time": round(time, 3), "class": name}
                )
        for zone, counted in zip(self.plan.zones, self._zones, strict=True):
            held = zone.holds(points)
            inside = {int(i): name for i, name, one in zip(ids, names, held, strict=True) if one}
            _stay(counted, inside, time)

    def _cross(self, line: CountLine, counted: _OfLine, identity: int, point: Floats, facts: dict[str, Any]) -> None:
        side = line.side(point)
        if side == 0 or abs(side) < self.plan.margin:
            return
        before = counted.sides.get(identity)
        counted.sides[identity] = (side, point)
        if before is None or (before[0] > 0) == (side > 0) or not line.cuts(before[1], point):
            return
        (counted.rightward if side > 0 else counted.leftward)[facts["class"]] += 1
        direction = "left_to_right" if side > 0 else "right_to_left"
        counted.crossings.append({"id": identity, **facts, "direction": direction})

    def shown(self) -> list[tuple[int, int]]:
        """The numbers that are drawn: of each line (left to right, right to left), then of each zone (now, most)."""
        lines = [(one.rightward.total(), one.leftward.total()) for one in self._lines]
        return [*lines, *((len(one.inside), one.most) for one in self._zones)]

    def result(self) -> dict[str, Any]:
        """Everything that was counted, plain values for JSON."""
        lines = [
            {
                "name": line.name,
                "left_to_right": one.rightward.total(),
                "right_to_left": one.leftward.total(),
                "by_class": _by_class(left_to_right=one.rightward, right_to_left=one.leftward),
                "crossings": one.crossings,
            }
            for line, one in zip(self.plan.lines, self._lines, strict=True)
        ]
        zones = [
            {
                "name": zone.name,
                "entered": one.entered.total(),
                "objects": len(one.visitors),
                "inside_at_end": len(one.inside),
                "most_at_once": one.most,
                "mean_seconds": round(sum(one.seconds.values()) / max(1, len(one.visitors)), 3),
                "by_class": _by_class(entered=one.entered, objects=Counter(one.visitors.values())),
            }
            for zone, one in zip(self.plan.zones, self._zones, strict=True)
        ]
        return {"lines": lines, "zones": zones}


def _stay(counted: _OfZone, inside: dict[int, str], time: float) -> None:
    """A frame of a zone, with who is inside."""
    for identity, name in inside.items():
        if identity not in counted.inside:
            counted.entered[name] += 1
        elif counted.last is not None:
            counted.seconds[identity] = counted.seconds.get(identity, 0.0) + time - counted.last
    counted.visitors |= inside
    counted.inside, counted.last = inside, time
    counted.most = max(counted.most, len(inside))


def _by_class(**counts: Counter[str]) -> dict[str, dict[str, int]]:
    names = sorted({name for one in counts.values() for name in one})
    return {name: {key: one[name] for key, one in counts.items()} for name in names}


def count_tracks(plan: CountPlan, tracks: Tracks, fps: float) -> TrackCounter:
    """Everything that a plan counts in finished tracks. fps: frames a second."""
    counter = TrackCounter(plan, tracks.classes)
    for frame in range(tracks.num_frames):
        rows = tracks.rows(frame)
        counter.update(frame, frame / fps, tracks.ids[rows].tolist(), tracks.boxes[rows], tracks.labels[rows].tolist())
    return counter


def read_plan(path: str | Path) -> CountPlan:
    """What a file says is to be counted. Raises InputError, which names the file and what is wrong in it."""
    try:
        values = load_json(read_regular(path, _LARGEST))
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror or error}") from None
    except ValueError as error:
        raise InputError(f"{path} is no JSON: {error}") from None
    try:
        return plan_of(values)
    except InputError as error:
        raise InputError(f"{path}: {error}") from None


def plan_of(values: Any) -> CountPlan:
    """The plan that plain values are. Raises InputError for what is wrong in them."""
    form = 'an object such as {"lines": [{"name": "door", "from": [100, 400], "to": [500, 400]}]}'
    if not isinstance(values, Mapping):
        raise InputError(f"expected {form}")
    for key in values:
        if key not in ("lines", "zones", "point", "margin"):
            raise unknown("key", key, ("lines", "zones", "point", "margin"))
    lines = tuple(_line(one, place) for place, one in enumerate(_list(values, "lines")))
    zones = tuple(_zone(one, place) for place, one in enumerate(_list(values, "zones")))
    if not lines and not zones:
        raise InputError(f"there is no line and no zone in it; expected {form}")
    names = Counter(one.name for one in (*lines, *zones))
    if twice := [name for name, count in names.items() if count > 1]:
        raise InputError(f"two are called {twice[0]!r}; give each a name of its own")
    point, margin = values.get("point", "bottom"), values.get("margin", 0)
    if point not in POINTS:
        raise InputError(f"point is {point!r}; expected {' or '.join(POINTS)}")
    if isinstance(margin, bool) or not isinstance(margin, int | float) or not 0 <= margin < _FURTHEST:
        raise InputError(f"margin is {margin!r}; expected a number of pixels, 0 or more")
    return CountPlan(lines, zones, point, float(margin))


def _list(values: Mapping[str, Any], key: str) -> Sequence[Any]:
    found = values.get(key, [])
    if not isinstance(found, list):
        raise InputError(f"{key} has to be a list, and is {type(found).__name__}")
    return found


def _line(value: Any, place: int) -> CountLine:
    name = _name(value, place, "line", ("from", "to"))
    start, end = (_points([value[key]], f"line {name!r}")[0] for key in ("from", "to"))
    if np.array_equal(start, end):
        raise InputError(f"line {name!r} begins and ends at the same point")
    return CountLine(name, start, end)


def _zone(value: Any, place: int) -> CountZone:
    name = _name(value, place, "zone", ("polygon",))
    corners = value["polygon"]
    if not isinstance(corners, list) or len(corners) < 3:
        raise InputError(f"zone {name!r} needs a polygon of three corners [x, y] or more")
    return CountZone(name, _points(corners, f"zone {name!r}"))


def _name(value: Any, place: int, what: str, keys: Sequence[str]) -> str:
    if not isinstance(value, Mapping):
        raise InputError(f"{what} {place + 1} has to be an object with {', '.join(keys)} and a name")
    for key in value:
        if key not in ("name", *keys):
            raise unknown(f"key of a {what}", key, ("name", *keys))
    for key in keys:
        if key not in value:
            raise InputError(f"{what} {place + 1} has no {key!r}")
    return str(value.get("name", f"{what} {place + 1}"))


def _points(values: Sequence[Any], of: str) -> Floats:
    for one in values:
        good = isinstance(one, list) and len(one) == 2
        if not good or not all(isinstance(v, int | float) and not isinstance(v, bool) for v in one):
            raise InputError(f"{of} has the point {one!r}; expected [x, y] in pixels")
        if not all(abs(v) < _FURTHEST for v in one):  # NaN is not less either
            raise InputError(f"{of} has the point {one!r}, which lies in no image")
    return np.array(values, np.float64)
