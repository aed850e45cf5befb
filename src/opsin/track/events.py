"""What went wrong and why: every switch, fragment, miss and false positive of a sequence, with its likely cause.

Matches are those of the CLEAR metrics (`opsin.track.clear`), so that the events are exactly what these count. A cause
is read off truth, detections and tracks around the event, by the first of these that holds; the five after "late start"
need the tracker's own comparisons, without which they are "not taken":

    missed detection    no detection overlaps the object enough
    occlusion           none does, and another object covers more than half of it from in front, or it is stated to be
                        visible for less than half
    late start          it is detected, and never was followed before: its track was not confirmed yet
    gate too tight      its track was compared with its detection, and was less like it than a match has to be
    second track        another track took its detection
    track ended         it is detected, and its track had been given up
    low score           it is detected, with a score too low for any comparison
    not given           its track took the detection, and was not given out, or its own box lies elsewhere
    not taken           it is detected, and its track did not take the detection, for whatever reason
    appearance          its track went over to another object: by place alone they cannot be held apart
    false detection     a track where there is no object, on a detection
    duplicate           a second track on an object that another is matched with
    misplaced box       a track on an object that it overlaps too little
    prediction          a track without a detection
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby

import numpy as np

from opsin.track.clear import match_clear
from opsin.track.online import Round
from opsin.track.pairs import EPSILON, assign, find_pairs, share_inside
from opsin.track.rules import Compared
from opsin.track.tracks import NOBODY, Flags, Floats, Integers, Tracks

_COVERED = 0.5  # the share of an object from which on another hides it
_OVERLAPS = 0.1  # the IoU from which on a box is meant for an object
KINDS = ("switch", "fragment", "miss", "false positive")


@dataclass(frozen=True)
class Event:
    """Something that counts against a tracker.

    kind: one of `KINDS`. frame, last: from and to, the same of a switch. frames: in how many of these. object: the
    identity in the truth; None of a false positive. track: of the tracker, where there is one; before: the one that the
    object had before a switch. cause: see above; note: what it was seen by. box: (4,), where to look in frame `shown`;
    earlier: of a switch and a fragment, the frame in which the object was last followed.
    """

    kind: str
    frame: int
    last: int
    frames: int
    object: int | None
    track: int | None
    before: int | None
    cause: str
    note: str
    box: tuple[float, ...]
    shown: int
    earlier: int | None = None

    def sentence(self) -> str:
        """The event in words, without its cause."""
        if self.kind == "switch":
            return f"object {self.object} goes from track {self.before} to {self.track}"
        if self.kind == "fragment":
            return f"object {self.object} is followed again after {_frames(self.frames)} without"
        if self.kind == "miss":
            return f"object {self.object} is not followed in {_frames(self.frames)}"
        return f"track {self.track} follows no object in {_frames(self.frames)}"


class Scene:
    """One class of one sequence, matched: what events are read off.

    truth, tracks: of the sequence. compared: what is evaluated of them. detections: what the tracker was given; where
    they are not known, tracks stand for them. rounds: by frame, what the tracker compared in it. threshold: the least
    IoU of a match.
    """

    def __init__(
        self,
        truth: Tracks,
        tracks: Tracks,
        compared: Compared,
        detections: Tracks | None = None,
        rounds: Mapping[int, Sequence[Round]] | None = None,
        threshold: float = 0.5,
    ) -> None:
        self.truth, self.tracks, self.threshold = truth, tracks, threshold
        self.rounds = rounds or {}
        matched = match_clear(compared.pairs, threshold)
        rows = np.flatnonzero(matched.chosen)
        self.match_rows = compared.truth[matched.pairs.truth[rows]]
        self.match_answers = compared.tracks[matched.pairs.track[rows]]
        self.switched, self.resumed = matched.switched[rows], matched.resumed[rows]
        self.answer_of = dict(zip(self.match_rows.tolist(), self.match_answers.tolist(), strict=True))
        self.object_rows, self.answer_rows = compared.truth, compared.tracks
        given = tracks if detections is None else detections
        self.detection_of = detections_of(truth, given, threshold)
        self.detected = self.detection_of >= 0
        self.on_detection = detections_of(tracks, given, threshold) >= 0
        self.hidden = _hidden(truth)
        self.of_object = _by_identity(truth, compared.truth)
        self.of_track = _by_identity(tracks, compared.tracks)

    def events(self) -> list[Event]:
        """All of them, in the order of frames."""
        found = [*self._switches(), *self._misses(), *self._fragments(), *self._false_positives()]
        return sorted(found, key=lambda one: (one.frame, KINDS.index(one.kind), one.object or 0, one.track or 0))

    def _switches(self) -> Iterator[Event]:
        for row, answer in self._chosen(self.switched):
            last = self._matched_before(row)
            before, now = int(self.tracks.ids[self.answer_of[last]]), int(self.tracks.ids[answer])
            frame = int(self.truth.frames[row])
            cause, note = self._why_switched(row, last, before)
            identity, then = int(self.truth.ids[row]), int(self.truth.frames[last])
            yield Event(
                "switch", frame, frame, 1, identity, now, before, cause, note, _box(self.truth, row), frame, then
            )

    def _why_switched(self, row: int, last: int, before: int) -> tuple[str, str]:
        taken = [other for other, answer in self._with_track(before) if last < other and other != row]
        others = [other for other in taken if self.truth.ids[other] != self.truth.ids[row]]
        first = next((other for other in others if self.truth.frames[other] <= self.truth.frames[row]), None)
        if first is not None:
            return "appearance", f"track {before} went over to object {self.truth.ids[first]}"
        gap = self._rows_between(last, row)
        lost = [one for one in gap if not self.detected[one]]
        if any(self.hidden[one] for one in lost):
            return "occlusion", f"hidden in {sum(bool(self.hidden[one]) for one in lost)} of {len(gap)} frames before"
        if lost:
            return "missed detection", f"no detection in {len(lost)} of {len(gap)} frames before"
        return self._why_not_taken([*gap, row][0], before)

    def _fragments(self) -> Iterator[Event]:
        for row, answer in self._chosen(self.resumed):
            last = self._matched_before(row)
            gap = self._rows_between(last, row)
            causes = Counter(self._why_missed(one) for one in gap)
            cause = causes.most_common(1)[0][0] if causes else "missed detection"
            frame, identity = int(self.truth.frames[row]), int(self.truth.ids[row])
            yield Event(
                "fragment", frame, frame, len(gap), identity, int(self.tracks.ids[answer]), None, cause,
                _listed(causes), _box(self.truth, row), frame, int(self.truth.frames[last]),
            )  # fmt: skip

    def _misses(self) -> Iterator[Event]:
        missed = {row: self._why_missed(row) for row in self.object_rows.tolist() if row not in self.answer_of}
        for identity, rows in self.of_object.items():
            for gone, group in groupby(rows, key=lambda row: row in missed):
                run = list(group)
                if gone:
                    causes = Counter(missed[row] for row in run)
                    first, middle, last = (int(self.truth.frames[run[at]]) for at in (0, len(run) // 2, -1))
                    yield Event(
                        "miss", first, last, len(run), identity, None, None, causes.most_common(1)[0][0],
                        _listed(causes), _box(self.truth, run[len(run) // 2]), middle,
                    )  # fmt: skip

    def _why_missed(self, row: int) -> str:
        if not self.detected[row]:
            return "occlusion" if self.hidden[row] else "missed detection"
        before = [one for one in self.of_object[int(self.truth.ids[row])] if one < row and one in self.answer_of]
        if not before:
            return "late start"
        return self._why_not_taken(row, int(self.tracks.ids[self.answer_of[before[-1]]]))[0]

    def _why_not_taken(self, row: int, track: int) -> tuple[str, str]:
        """Why a track did not take the detection of an object, by what the tracker compared in that frame."""
        frame = int(self.truth.frames[row])
        if frame not in self.rounds:
            return "not taken", f"detected, and track {track} did not take it"
        return why_not_taken(self.rounds[frame], track, int(self.detection_of[row]))

    def _false_positives(self) -> Iterator[Event]:
        right = set(self.match_answers.tolist())
        for identity, rows in self.of_track.items():
            for free, group in groupby(rows, key=lambda row: row not in right):
                run = list(group)
                if free:
                    causes = Counter(self._why_false(row) for row in run)
                    first, last = (int(self.tracks.frames[row]) for row in (run[0], run[-1]))
                    yield Event(
                        "false positive", first, last, len(run), None, identity, None, causes.most_common(1)[0][0],
                        _listed(causes), _box(self.tracks, run[0]), first,
                    )  # fmt: skip

    def _why_false(self, answer: int) -> str:
        frame = self.truth.rows(int(self.tracks.frames[answer]))
        box = self.tracks.boxes[answer]
        overlaps = np.array([_iou(box, other) for other in self.truth.boxes[frame]])
        if np.any(overlaps >= self.threshold - EPSILON):
            return "duplicate"
        if not self.on_detection[answer]:
            return "prediction"
        return "misplaced box" if np.any(overlaps >= _OVERLAPS) else "false detection"

    def _chosen(self, flags: Flags) -> Iterator[tuple[int, int]]:
        """(row of the truth, row of the tracks) of some matches."""
        at = np.flatnonzero(flags)
        yield from zip(self.match_rows[at].tolist(), self.match_answers[at].tolist(), strict=True)

    def _matched_before(self, row: int) -> int:
        """The last row of the same object before one that was matched."""
        own = self.of_object[int(self.truth.ids[row])]
        return max(one for one in own if one < row and one in self.answer_of)

    def _rows_between(self, first: int, last: int) -> list[int]:
        """The rows of an object between two of its own, exclusively."""
        return [one for one in self.of_object[int(self.truth.ids[last])] if first < one < last]

    def _with_track(self, identity: int) -> Iterator[tuple[int, int]]:
        """The matches of a track: rows of the truth and of the tracks."""
        at = np.flatnonzero(self.tracks.ids[self.match_answers] == identity)
        yield from zip(self.match_rows[at].tolist(), self.match_answers[at].tolist(), strict=True)


def find_events(
    truth: Tracks,
    tracks: Tracks,
    compared: Compared,
    detections: Tracks | None = None,
    rounds: Mapping[int, Sequence[Round]] | None = None,
    threshold: float = 0.5,
) -> list[Event]:
    """The events of one class of a sequence, in the order of frames; see `Scene`."""
    return Scene(truth, tracks, compared, detections, rounds, threshold).events()


def why_not_taken(rounds: Sequence[Round], track: int, detection: int) -> tuple[str, str]:
    """The cause, and what it is seen by, of a track not taking a detection. detection: its place in the frame."""
    for one in rounds:
        row, column = np.flatnonzero(one.ids == track), np.flatnonzero(one.detections == detection)
        if not len(row) or not len(column):
            continue
        found = float(one.affinity[row[0], column[0]])
        winner = np.flatnonzero(one.pairs.columns == column[0])
        if found < one.least or not len(winner):
            return "gate too tight", f"{one.name} of track {track} is {found:.2f}, and {one.least:.2f} is needed"
        other = int(one.pairs.rows[winner[0]])
        if other != row[0]:
            by = float(one.affinity[other, column[0]])
            return "second track", f"track {one.ids[other]} took it, {one.name} {by:.2f} against {found:.2f}"
        return "not given", f"track {track} took it, and was not given out, or its own box lies elsewhere"
    if not any((one.ids == track).any() for one in rounds):
        return "track ended", f"track {track} had been given up"
    if not any((one.detections == detection).any() for one in rounds):
        return "low score", "its detection was compared with no track"
    return "not taken", f"track {track} was compared with other detections alone"


def count_causes(events: Iterable[Event]) -> dict[str, Counter[str]]:
    """How many frames of each kind of event have each cause; switches and fragments count once each."""
    found: dict[str, Counter[str]] = {kind: Counter() for kind in KINDS}
    for one in events:
        found[one.kind][one.cause] += 1 if one.kind in ("switch", "fragment") else one.frames
    return found


def detections_of(tracks: Tracks, detections: Tracks, threshold: float) -> Integers:
    """(N,): the place in its frame of the detection that is each row's own; -1 where it has none."""
    one, other = ((side.frames, np.arange(len(side)), side.boxes) for side in (tracks, detections))
    pairs = find_pairs(one, other, max(tracks.num_frames, detections.num_frames))
    near = pairs.where(pairs.similarity >= threshold - EPSILON)
    chosen = assign(near, near.similarity)
    own = near.track[chosen]
    found = np.full(len(tracks), -1)
    found[near.truth[chosen]] = own - np.searchsorted(detections.frames, detections.frames[own])
    return found


def _hidden(truth: Tracks) -> Flags:
    """(N,): whether each object is hidden by another whose lower edge is further down, or is stated to be."""
    hidden = np.zeros(len(truth), np.bool_)
    people = np.flatnonzero(truth.ids != NOBODY)
    for frame in np.unique(truth.frames[people]).tolist():
        first, last = np.searchsorted(truth.frames[people], (frame, frame + 1))
        rows = people[first:last]
        boxes = truth.boxes[rows]
        shares = share_inside(boxes, boxes)
        in_front = boxes[None, :, 3] > boxes[:, None, 3]
        hidden[rows] = (shares * in_front > _COVERED).any(axis=1)
    if truth.visibility is not None:
        hidden |= truth.visibility < 1 - _COVERED
    return hidden


def _by_identity(tracks: Tracks, rows: np.ndarray) -> dict[int, list[int]]:
    found: dict[int, list[int]] = {}
    for row, identity in zip(rows.tolist(), tracks.ids[rows].tolist(), strict=True):
        found.setdefault(identity, []).append(row)
    return found


def _frames(count: int) -> str:
    return f"{count:,} frame{'' if count == 1 else 's'}"


def _iou(one: Floats, other: Floats) -> float:
    sides = np.minimum(one[2:], other[2:]) - np.maximum(one[:2], other[:2])
    both = float(np.prod(np.maximum(sides, 0)))
    areas = [float(np.prod(box[2:] - box[:2])) for box in (one, other)]
    return both / max(sum(areas) - both, 1e-9)


def _box(tracks: Tracks, row: int) -> tuple[float, ...]:
    return tuple(tracks.boxes[row].tolist())


def _listed(causes: Counter[str]) -> str:
    """How many frames have each cause; nothing where all have one."""
    if len(causes) < 2:
        return ""
    return ", ".join(f"{cause} {count}" for cause, count in causes.most_common())


def of_kind(events: Sequence[Event], kind: str) -> list[Event]:
    """Those of a kind, the ones that cost most frames first."""
    return sorted((one for one in events if one.kind == kind), key=lambda one: (-one.frames, one.frame))
