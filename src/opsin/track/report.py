"""report.html of tracking: what came out, and where there is truth, what went wrong, when, to whom, and why."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from torch import Tensor

from opsin import rooms
from opsin.engine.environment import environment
from opsin.engine.report import Code, Figure, Gallery, GalleryItem, Section, Table, write_report
from opsin.track.evaluate import Evaluation, evaluate
from opsin.track.event_images import FrameImages, draw_event, draw_gates, extent_of, frames_of_event
from opsin.track.events import KINDS, Event, Scene, count_causes, detections_of, of_kind
from opsin.track.following import Course
from opsin.track.ladder import AS_IT_IS, ladder
from opsin.track.rules import Rules, compare
from opsin.track.timeline import matching_chart, track_timeline, truth_timeline
from opsin.track.tracks import NOBODY, Tracks

_METRICS = ("hota", "deta", "assa", "mota", "idf1", "switches", "fragments", "false_positives", "misses", "motp")
_HEADLINE = ("hota", "mota", "idf1", "switches")
_RUNG = ("hota", "deta", "assa", "mota", "idf1")
_MOST_EVENTS = 80  # rows of a table
_MOST_CROPS = 4  # of each kind
_MOST_MATRICES = 4  # of a sequence
_KIND = {
    "switch": "an object is followed by another track than before",
    "fragment": "an object is followed again after frames in which it was not; a switch may be one too",
    "miss": "frames in a row in which an object is not followed",
    "false positive": "frames in a row in which a track follows no object",
}


class Tracking(Protocol):
    """What a report is of: see `opsin.track.job.Tracking`."""

    job: Any
    courses: dict[str, Course]

    @property
    def tracks(self) -> dict[str, Tracks]:
        """Of each sequence, by its name."""
        ...


Images = Callable[[set[int]], Mapping[int, Tensor]]


@dataclass
class Studied:
    """One class of one sequence: its name, its course, what was matched, and its events."""

    name: str
    course: Course
    scene: Scene
    events: list[Event]


def study(course: Course, truth: Tracks, sequence: str, rules: Rules, classes: Sequence[str]) -> list[Studied]:
    """The events of each class of a sequence, with causes by what its tracker compared."""
    rounds = {frame: look.rounds for frame, look in course.looks.items()}
    found = []
    for name in classes:
        compared = compare(truth, course.tracks, name, rules)
        scene = Scene(truth, course.tracks, compared, course.detections, rounds)
        title = sequence if len(classes) == 1 else f"{sequence}, {name}"
        found.append(Studied(title, course, scene, scene.events()))
    return found


def write_track_report(
    path: Path,
    tracking: Tracking,
    truth: Mapping[str, Tracks] | None = None,
    rules: Rules | None = None,
    images: Images | None = None,
) -> Path:
    """Write the report. truth: by the names of the sequences that were tracked. images: gives those of some frames."""
    sections: list[Section] = [_runs_table(tracking)]
    headline = _plain_headline(tracking)
    if truth is not None and rules is not None:
        found = evaluate(truth, {name: tracking.tracks[name] for name in truth}, rules)
        headline = _headline(found)
        sections += _evaluated(found)
        studied = [
            one for name in truth for one in study(tracking.courses[name], truth[name], name, rules, found.classes)
        ]
        sections += [_ladder_table(tracking, truth, found, rules), _causes_table(studied)]
        sections += _explained(studied, images)
    else:
        sections += [_tracks_figure(name, course) for name, course in tracking.courses.items() if len(course.tracks)]
    sections += _counted(tracking)
    sections.append(Code("How it was made", _call(tracking)))
    sections.append(Table("Environment", ["what", "version"], [[k, v] for k, v in environment().items()]))
    names = ", ".join(list(tracking.courses)[:3]) + (", ..." if len(tracking.courses) > 3 else "")
    return write_report(path, f"{tracking.job.tracker} on {names}", headline, sections)


def _plain_headline(tracking: Tracking) -> dict[str, str]:
    courses = tracking.courses.values()
    tracks = sum(len(set(course.tracks.ids.tolist())) for course in courses)
    frames, seconds = (sum(getattr(course, name) for course in courses) for name in ("looked_at", "seconds"))
    return {"tracks": f"{tracks:,}", "frames": f"{frames:,}", "frames a second": f"{frames / max(seconds, 1e-9):,.0f}"}


def _headline(found: Evaluation) -> dict[str, str]:
    room, metrics = rooms.find_room("track"), found.metrics
    return {name.upper() if len(name) < 5 else name: room.format(name, metrics.get(name)) for name in _HEADLINE}


def _runs_table(tracking: Tracking) -> Table:
    rows = []
    for name, course in tracking.courses.items():
        tracks = course.tracks
        lengths = np.unique(tracks.ids, return_counts=True)[1]
        median = float(np.median(lengths)) if len(lengths) else 0.0
        remark = "; ".join(filter(None, ["stopped" * course.stopped, course.damage]))
        rows.append(
            [name, course.looked_at, len(lengths), len(tracks), median, round(course.frames_per_second), remark]
        )
    columns = ["sequence", "frames", "tracks", "boxes", "median length", "frames a second", "remark"]
    note = "Later frames were used: these tracks could not have been given online." * any(
        course.tracks.batch for course in tracking.courses.values()
    )
    return Table("Tracks", columns, rows, note)


def _evaluated(found: Evaluation) -> Iterator[Section]:
    room = rooms.find_room("track")
    each = [(name, found.of_sequence(name)) for name in found.sequences]
    if len(found.classes) > 1:
        each += [(f"all, {name}", found.of_class(name)) for name in found.classes]
    figures = [(name, counts.figures()) for name, counts in each]
    if len(found.sequences) > 1 or len(found.classes) > 1:
        figures.append(("all", found.metrics))
    rows = [[name, *(room.format(key, values.get(key)) for key in _METRICS)] for name, values in figures]
    yield Table("Metrics", ["sequence", *(key.replace("_", " ") for key in _METRICS)], rows, _rules_note(found))


def _rules_note(found: Evaluation) -> str:
    return f"By the rules of {found.rules}, at an IoU of 0.5; HOTA is the mean over nineteen thresholds."


def _ladder_table(tracking: Tracking, truth: Mapping[str, Tracks], found: Evaluation, rules: Rules) -> Table:
    """What the tracks would be worth if one stage had made no error, and what the detections allow."""
    room, several = rooms.find_room("track"), len(found.classes) > 1
    tracks = {name: tracking.tracks[name] for name in truth}
    best = {name: named_detections(own, tracking.courses[name].detections) for name, own in truth.items()}
    rows = []
    for name in found.classes:
        rungs = dict(ladder(truth, tracks, name, rules))
        rungs["the best of these detections"] = ladder(truth, best, name, rules)[AS_IT_IS]
        for rung, counts in rungs.items():
            figures = counts.figures()
            shown = [room.format(key, figures.get(key)) for key in _RUNG]
            rows.append([f"{rung}, {name}" if several else rung, *shown])
    note = (
        "One stage at a time repaired by the truth: how much a figure rises is what that stage costs. The last row is "
        "what a tracker could reach on the same detections: those that match an object, with the object's identity."
    )
    return Table("Where the error is", ["with", *_RUNG], rows, note)


def named_detections(truth: Tracks, detections: Tracks, threshold: float = 0.5) -> Tracks:
    """The detections that overlap an object by `threshold` or more, each object's best one, with its identity."""
    own = detections_of(truth, detections, threshold)
    rows = np.flatnonzero((own >= 0) & (truth.ids != NOBODY) & ~truth.ignored)
    chosen = np.searchsorted(detections.frames, truth.frames[rows]) + own[rows]
    order = np.argsort(chosen, kind="stable")
    return replace(detections.select(chosen[order]), ids=truth.ids[rows][order])


def _causes_table(studied: Sequence[Studied]) -> Table:
    counts = count_causes(event for one in studied for event in one.events)
    causes = list(dict.fromkeys(cause for kind in KINDS for cause, _ in counts[kind].most_common()))
    rows = [[cause, *(counts[kind][cause] or None for kind in KINDS)] for cause in causes]
    rows.append(["all", *(counts[kind].total() for kind in KINDS)])
    note = "Switches and fragments are counted each, misses and false positives by frames. " + "; ".join(
        f"{kind}: {meaning}" for kind, meaning in _KIND.items()
    )
    return Table("Why", ["cause", "switches", "fragments", "missed boxes", "false boxes"], rows, f"{note}.")


def _explained(studied: Sequence[Studied], images: Images | None) -> Iterator[Section]:
    for one in studied:
        if not len(one.scene.object_rows):
            continue
        caption = "A row is an object, coloured by the track that follows it, grey where none does; black is a switch."
        yield Figure(f"Timeline of {one.name}", truth_timeline(one.scene, one.events), caption, wide=True)
        yield _event_table(one)
        shown = _chosen(one.events)
        frames = _matrix_frames(one)
        wanted = {*frames, *(frame for event in shown for frame in frames_of_event(event))}
        scene = one.scene
        size = extent_of(scene.tracks, scene.truth)
        pixels = FrameImages({} if images is None else images(wanted), size)
        items = [
            GalleryItem(draw_event(event, scene.truth, scene.tracks, pixels), _caption(event), wrong=True)
            for event in shown
        ]
        note = "Truth is dashed, tracks are in their colours. At the left, where the object was last followed before."
        yield Gallery(f"Events of {one.name}", items, note, large=True)
        yield from _matrices(one, frames, pixels)


def _caption(event: Event) -> str:
    return f"frame {event.shown}: {event.sentence()}\n{event.cause}{': ' if event.note else ''}{event.note}"


def _chosen(events: Sequence[Event]) -> list[Event]:
    """Some events of each kind, those that cost most frames first."""
    return [event for kind in KINDS for event in of_kind(events, kind)[:_MOST_CROPS]]


def _event_table(one: Studied) -> Table:
    worst = sorted(one.events, key=lambda event: (KINDS.index(event.kind) > 0, -event.frames))[:_MOST_EVENTS]
    rows = [
        [f"{event.frame}" if event.last == event.frame else f"{event.frame} to {event.last}", event.kind,
         event.sentence(), event.cause, event.note]
        for event in sorted(worst, key=lambda event: event.frame)
    ]  # fmt: skip
    left = len(one.events) - len(worst)
    note = f"{left:,} more that cost less are left out." if left else ""
    return Table(f"What happened in {one.name}", ["frames", "kind", "what", "cause", "seen by"], rows, note)


def _matrix_frames(one: Studied) -> list[int]:
    """Frames whose comparisons are shown: those in which an object got or lost its track."""
    wanted = [event.frame for event in one.events if event.kind in ("switch", "fragment")]
    compared = [frame for frame in dict.fromkeys(wanted) if one.course.looks.get(frame) is not None]
    return [frame for frame in compared if any(each.affinity.size for each in one.course.looks[frame].rounds)][
        :_MOST_MATRICES
    ]


def _matrices(one: Studied, frames: Sequence[int], pixels: FrameImages) -> Iterator[Section]:
    detections, scene = one.course.detections, one.scene
    gates = []
    for frame in frames:
        look, objects = one.course.looks[frame], scene.truth.rows(frame)
        names = {
            int(scene.detection_of[row]): f"{scene.detection_of[row]} (object {scene.truth.ids[row]})"
            for row in range(objects.start, objects.stop)
            if scene.detection_of[row] >= 0
        }
        for each in look.rounds:
            if each.affinity.size:
                title = f"{one.name}, frame {frame}: {each.name}"
                caption = f"Of tracks and detections; a match is framed, and needs {each.least:.2f}."
                yield Figure(title, matching_chart(each, names), caption)
        boxes = detections.boxes[detections.rows(frame)]
        gates.append(GalleryItem(draw_gates(look, boxes, pixels[frame]), f"frame {frame}"))
    note = (
        "Dashed is where a track was expected, white are the detections by their places. Green is a match, orange the "
        "best detection of a track that got none."
    )
    if gates:
        yield Gallery(f"Gates of {one.name}", gates, note, large=True)


def _tracks_figure(name: str, course: Course) -> Figure:
    return Figure(f"Tracks of {name}", track_timeline(course.tracks), "A row is a track.", wide=True)


def _counted(tracking: Tracking) -> Iterator[Section]:
    lines, zones = [], []
    for name, course in tracking.courses.items():
        counts = course.counts or {"lines": [], "zones": []}
        lines += [[name, one["name"], one["left_to_right"], one["right_to_left"]] for one in counts["lines"]]
        keys = ("name", "entered", "objects", "most_at_once", "inside_at_end", "mean_seconds")
        zones += [[name, *(one[key] for key in keys)] for one in counts["zones"]]
    if lines:
        note = "Left and right as one sees them who walks from the line's first point to its second."
        yield Table("Lines", ["sequence", "line", "left to right", "right to left"], lines, note)
    if zones:
        columns = ["sequence", "zone", "entered", "objects", "at once at most", "inside at the end", "seconds each"]
        yield Table("Zones", columns, zones)


def _call(tracking: Tracking) -> str:
    job = tracking.job
    settings = "".join(f" --set {key}={value}" for key, value in job.settings.items())
    every = f" --every {job.every}" if job.every > 1 else ""
    look = f" --appearance {job.appearance}" if job.appearance else ""
    given = f" {job.frames}" if job.frames else ""
    return f"opsin track {job.source}{given} --tracker {job.tracker}{settings}{every}{look}"
