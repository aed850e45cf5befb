"""Events and their causes, in scenes that can be worked out by hand, and counted as the CLEAR metrics count them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from tests.track.conftest import Call

from opsin.track.association import Pairs
from opsin.track.clear import count_clear
from opsin.track.event_images import FrameImages, draw_event, draw_gates
from opsin.track.events import Event, count_causes, find_events, of_kind, why_not_taken
from opsin.track.following import Look, follow_online, frames_of
from opsin.track.job import facts_of
from opsin.track.online import Round
from opsin.track.reading import read_sequences
from opsin.track.rules import compare, find_rules
from opsin.track.sort import Sort
from opsin.track.track_files import Asked
from opsin.track.tracks import Tracks

pytestmark = pytest.mark.rendered

Row = tuple[int, int, Sequence[float]]  # frame, identity, box
LEFT, RIGHT = [0.0, 0.0, 20.0, 40.0], [100.0, 0.0, 120.0, 40.0]


def tracks_of(rows: Sequence[Row], num_frames: int = 10) -> Tracks:
    frames, ids, boxes = zip(*rows, strict=True) if rows else ((), (), ())
    return Tracks.build(frames, list(boxes), ids=ids, num_frames=num_frames, classes=("object",))


def stay(identity: int, box: Sequence[float], *frames: int) -> list[Row]:
    return [(frame, identity, box) for frame in frames]


def events_of(truth: Sequence[Row], tracks: Sequence[Row], detections: Sequence[Row]) -> list[Event]:
    own, answers = tracks_of(truth), tracks_of(tracks)
    compared = compare(own, answers, "object", find_rules("plain"))
    return find_events(own, answers, compared, tracks_of(detections))


def short(events: Sequence[Event]) -> list[tuple[str, int, int, str]]:
    return [(one.kind, one.frame, one.last, one.cause) for one in events]


def test_two_who_swap_their_tracks() -> None:
    truth = stay(1, LEFT, *range(6)) + stay(2, RIGHT, *range(6))
    tracks = stay(7, LEFT, 0, 1, 2) + stay(8, RIGHT, 0, 1, 2) + stay(8, LEFT, 3, 4, 5) + stay(7, RIGHT, 3, 4, 5)
    found = events_of(truth, tracks, truth)
    assert short(found) == [("switch", 3, 3, "appearance")] * 2
    assert (found[0].object, found[0].before, found[0].track, found[0].earlier) == (1, 7, 8, 2)
    assert found[0].note == "track 7 went over to object 2"


def test_an_object_that_is_not_detected_for_two_frames() -> None:
    other = stay(2, RIGHT, *range(8))  # the metrics pass over frames in which nothing at all is given
    truth = stay(1, LEFT, *range(8)) + other
    tracks = stay(7, LEFT, 0, 1, 2, 3) + stay(9, LEFT, 6, 7) + other
    detected = stay(-1, LEFT, 0, 1, 2, 3, 6, 7) + other
    found = events_of(truth, tracks, detected)
    assert short(found) == [
        ("miss", 4, 5, "missed detection"),
        ("switch", 6, 6, "missed detection"),
        ("fragment", 6, 6, "missed detection"),
    ]
    assert found[0].shown in (4, 5) and found[0].frames == 2
    assert found[1].note == "no detection in 2 of 2 frames before"


def test_an_object_that_is_hidden_meanwhile() -> None:
    followed = stay(7, LEFT, 0, 1, 2, 3) + stay(9, LEFT, 6, 7)
    for cover, cause in (([0.0, 0.0, 42.0, 60.0], "occlusion"), ([0.0, -60.0, 42.0, 39.5], "missed detection")):
        hiding = stay(2, cover, 4, 5)  # its lower edge is further down than the object's; or not, so that it is behind
        tracks = followed + hiding
        found = events_of(stay(1, LEFT, *range(8)) + hiding, tracks, tracks)
        assert {("switch", 6, 6, cause), ("miss", 4, 5, cause)} <= set(short(found))


def test_a_track_that_begins_late_and_one_that_lets_go() -> None:
    truth = stay(1, LEFT, *range(6))
    assert short(events_of(truth, stay(7, LEFT, 2, 3, 4, 5), truth)) == [("miss", 0, 1, "late start")]
    assert short(events_of(truth, stay(7, LEFT, 0, 1, 2), truth)) == [("miss", 3, 5, "not taken")]


def test_what_follows_nobody() -> None:
    truth = stay(1, LEFT, *range(4))
    near = [6.0, 0.0, 30.0, 40.0]  # an IoU of 14 / 30 with the object
    tracks = truth + stay(2, [1.0, 0.0, 21.0, 40.0], 0) + stay(3, near, 1) + stay(4, RIGHT, 2) + stay(5, RIGHT, 3)
    detected = [(frame, -1, box) for frame, identity, box in tracks if identity != 5]
    found = events_of(truth, tracks, detected)
    assert short(found) == [
        ("false positive", 0, 0, "duplicate"),
        ("false positive", 1, 1, "misplaced box"),
        ("false positive", 2, 2, "false detection"),
        ("false positive", 3, 3, "prediction"),
    ]


def round_of(affinity: Sequence[Sequence[float]], least: float, *pairs: tuple[int, int]) -> Round:
    rows, columns = (np.array([pair[k] for pair in pairs], np.intp) for k in (0, 1))
    matrix = np.array(affinity)
    return Round("IoU", np.array([7, 8]), np.arange(matrix.shape[1]), matrix, least, Pairs(rows, columns))


def test_why_a_detection_was_not_taken() -> None:
    tight = round_of([[0.2, 0.0], [0.0, 0.9]], 0.3, (1, 1))
    assert why_not_taken([tight], 7, 0) == ("gate too tight", "IoU of track 7 is 0.20, and 0.30 is needed")
    assert why_not_taken([tight], 9, 0)[0] == "track ended"
    assert why_not_taken([tight], 7, 5)[0] == "low score"
    taken = round_of([[0.4], [0.6]], 0.3, (1, 0))
    assert why_not_taken([taken], 7, 0) == ("second track", "track 8 took it, IoU 0.60 against 0.40")
    assert why_not_taken([taken], 8, 0)[0] == "not given"


@pytest.mark.real_data
def test_events_are_what_the_metrics_count(data_dir: Path) -> None:
    truth, detections = (read_sequences(data_dir / "mot15", Asked(truth=one)) for one in (True, False))
    for name, own in truth.items():
        given = detections[name]
        course = follow_online(Sort(), frames_of(given), facts_of(given), keep=True)
        compared = compare(own, course.tracks, "pedestrian", find_rules("mot15"))
        rounds = {frame: look.rounds for frame, look in course.looks.items()}
        events, counted = find_events(own, course.tracks, compared, given, rounds), count_clear(compared.pairs)
        causes = {kind: one.total() for kind, one in count_causes(events).items()}
        assert causes == {
            "switch": counted.switches,
            "fragment": counted.fragments,
            "miss": counted.misses,
            "false positive": counted.false_positives,
        }
        if name == "TUD-Campus":  # track 7 had begun on a second detection of object 3
            first = of_kind(events, "switch")[0]
            assert (first.frame, first.object, first.cause) == (10, 3, "second track")


def test_an_event_is_drawn_with_what_was_before() -> None:
    truth = stay(1, LEFT, *range(8))
    tracks = stay(7, LEFT, 0, 1, 2, 3) + stay(9, LEFT, 6, 7)
    (event,) = of_kind(events_of(truth, tracks, tracks), "switch")
    images = FrameImages({}, (200, 100))
    drawn = draw_event(event, tracks_of(truth), tracks_of(tracks), images)
    alone = draw_event(
        of_kind(events_of(truth, tracks, tracks), "miss")[0], tracks_of(truth), tracks_of(tracks), images
    )
    assert drawn.shape[2] == 2 * alone.shape[2] + 6 and drawn.shape[1] == alone.shape[1]


def test_gates_join_what_was_matched() -> None:
    boxes = np.array([LEFT, RIGHT])
    one = round_of([[0.9, 0.0], [0.0, 0.2]], 0.3, (0, 0))
    look = Look([one], np.array([7, 8]), boxes + np.array([[4, 0, 4, 0], [30, 0, 30, 0]]))
    drawn = draw_gates(look, boxes, FrameImages({}, (640, 100))[0]).numpy()
    assert (drawn[:, 20, 11] == (0, 158, 115)).all()  # between the centres at x 10 and 14
    assert (drawn[:, 20, 125] == (213, 94, 0)).all()  # at x 110 and 140


@pytest.mark.real_data
def test_the_report_says_what_was_found(opsin: Call, data_dir: Path, tmp_path: Path) -> None:
    campus = data_dir / "mot15/TUD-Campus"
    done = opsin("track", campus / "det/det.txt", "--truth", campus, "--out", tmp_path / "out")
    assert "hota 45.26 %, mota 62.67 %" in done.out and "switches 6, fragments 9" in done.out
    page = (tmp_path / "out/report.html").read_text()
    for text in ("45.26 %", "Timeline of TUD-Campus", "object 3 goes from track 2 to 7", "track 7 took it", "IoU"):
        assert text in page
    assert "84.75 %" in page  # IDF1 of perfect identities on the matched detections, measured with TrackEval
    assert json.loads((tmp_path / "out/tracks.json").read_text())["metrics"]["switches"] == 6


def test_a_report_without_truth(opsin: Call, walkers: Path, tmp_path: Path) -> None:
    opsin("track", walkers, "--out", tmp_path / "out", "--set", "min_hits=0")
    page = (tmp_path / "out/report.html").read_text()
    assert "Tracks of walk" in page and "--set min_hits=0" in page
