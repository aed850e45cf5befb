"""Counts at lines and in zones, worked by hand."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from opsin.errors import InputError
from opsin.track.counting import TrackCounter, count_tracks, plan_of, read_plan
from opsin.track.tracks import Tracks

DOOR = {"name": "door", "from": [0, 50], "to": [100, 50]}  # walked from left to right: its right side is below
SQUARE = {"name": "hall", "polygon": [[0, 0], [10, 0], [10, 10], [0, 10]]}


def walk(values: Any, *points: Sequence[float], classes: Sequence[str] = ("person",)) -> dict[str, Any]:
    """One object whose box ends at each point, one frame a second."""
    counter = TrackCounter(plan_of(values), classes)
    for frame, (x, y) in enumerate(points):
        counter.update(frame, float(frame), [7], np.array([[x - 2, y - 8, x + 2, y]]), [0])
    return counter.result()


def sides(*points: Sequence[float], **more: Any) -> tuple[int, int]:
    line = walk({"lines": [DOOR], **more}, *points)["lines"][0]
    return line["left_to_right"], line["right_to_left"]


def test_a_line_counts_both_ways() -> None:
    assert sides((50, 40), (50, 60)) == (1, 0)
    assert sides((50, 60), (50, 40)) == (0, 1)
    assert sides((50, 40), (50, 60), (50, 40), (50, 60)) == (2, 1)


def test_who_passes_beyond_its_ends_does_not_cross_it() -> None:
    assert sides((120, 40), (120, 60)) == (0, 0)
    assert sides((90, 40), (130, 60)) == (0, 0)  # meets the extension at x = 110
    assert sides((90, 40), (105, 60)) == (1, 0)  # at 97.5


def test_a_point_on_the_line_has_crossed_when_it_leaves_it() -> None:
    assert sides((50, 40), (50, 50), (50, 50), (50, 60)) == (1, 0)
    assert sides((50, 40), (50, 50), (50, 40)) == (0, 0)


def test_a_margin_counts_a_trembling_box_once() -> None:
    trembling = [(50, 40), (50, 51), (50, 49), (50, 51), (50, 60)]
    assert sides(*trembling) == (2, 1)
    assert sides(*trembling, margin=5) == (1, 0)


def test_the_point_of_a_box_is_its_lower_middle_or_its_centre() -> None:
    assert sides((50, 46), (50, 53)) == (1, 0)
    assert sides((50, 46), (50, 53), point="centre") == (0, 0)  # 42 and 49


def test_a_crossing_is_listed_with_its_frame_and_class() -> None:
    found = walk({"lines": [DOOR]}, (50, 40), (50, 60))["lines"][0]
    assert found["crossings"] == [{"id": 7, "frame": 1, "time": 1.0, "class": "person", "direction": "left_to_right"}]
    assert found["by_class"] == {"person": {"left_to_right": 1, "right_to_left": 0}}


def test_a_zone_counts_entries_visitors_and_seconds() -> None:
    counter = TrackCounter(plan_of({"zones": [SQUARE], "point": "centre"}), ["person"])
    inside, outside = [4.0, 4.0, 6.0, 6.0], [40.0, 4.0, 42.0, 6.0]
    for frame, boxes in enumerate([[inside, outside], [inside, inside], [outside, inside], [inside, inside]]):
        counter.update(frame, frame / 2, [1, 2], np.array(boxes), [0, 0])
    (zone,) = counter.result()["zones"]
    assert zone["entered"] == 3 and zone["objects"] == 2  # 1 came back
    assert zone["most_at_once"] == 2 and zone["inside_at_end"] == 2
    assert zone["mean_seconds"] == 0.75  # 0.5 of 1, between frames 0 and 1; 1.0 of 2, from frame 1 to frame 3


def test_a_zone_may_be_concave() -> None:
    corner = {"name": "L", "polygon": [[0, 0], [10, 0], [10, 4], [4, 4], [4, 10], [0, 10]]}
    zone = plan_of({"zones": [corner]}).zones[0]
    assert zone.holds(np.array([[2, 2], [8, 2], [2, 8], [8, 8], [-1, 2]])).tolist() == [True, True, True, False, False]


def test_finished_tracks_are_counted_alike() -> None:
    boxes = [[48, 32, 52, 40], [48, 52, 52, 60]]
    tracks = Tracks.build([0, 5], boxes, ids=[3, 3], classes=("car",), num_frames=6)
    (line,) = count_tracks(plan_of({"lines": [DOOR]}), tracks, fps=10).result()["lines"]
    assert line["crossings"] == [{"id": 3, "frame": 5, "time": 0.5, "class": "car", "direction": "left_to_right"}]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([], "expected an object such as"),
        ({}, "no line and no zone"),
        ({"line": []}, "did you mean lines"),
        ({"lines": {}}, "lines has to be a list"),
        ({"lines": [{"name": "a", "from": [0, 0]}]}, "line 1 has no 'to'"),
        ({"lines": [{"from": [0, 0], "to": [0, 0]}]}, "begins and ends at the same point"),
        ({"lines": [{"from": [0, "1"], "to": [0, 5]}]}, r"expected \[x, y\] in pixels"),
        ({"lines": [{"from": [0, float("nan")], "to": [0, 5]}]}, "lies in no image"),
        ({"lines": [DOOR, DOOR]}, "two are called 'door'"),
        ({"zones": [{"polygon": [[0, 0], [1, 1]]}]}, "three corners"),
        ({"lines": [DOOR], "point": "top"}, "expected bottom or centre"),
        ({"lines": [DOOR], "margin": -1}, "number of pixels"),
    ],
)
def test_what_is_wrong_in_a_plan_is_named(values: Any, message: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=message):
        plan_of(values)
    (tmp_path / "line.json").write_text(json.dumps(values))
    with pytest.raises(InputError, match=r"line\.json"):
        read_plan(tmp_path / "line.json")


def test_a_plan_that_is_no_file_or_no_json(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot read"):
        read_plan(tmp_path / "none.json")
    (tmp_path / "line.json").write_text("{")
    with pytest.raises(InputError, match="is no JSON"):
        read_plan(tmp_path / "line.json")
