"""One sequence followed from its first frame to its last, or to where somebody stops it: frames in, tracks out."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from opsin.track.counting import CountPlan, TrackCounter, count_tracks
from opsin.track.online import Followed, OnlineTracker, Round
from opsin.track.tracks import Floats, Integers, Tracks

FPS = 25.0  # of a sequence that does not say it, where seconds are wanted


@dataclass
class Seen:
    """What is known of one frame.

    frame: its number, from 0. time: in seconds. boxes: (M, 4), xyxy. scores, labels: (M,). image: uint8 tensor
    (3, H, W), where there are images. features: (M, D), how each looks, where somebody says so.
    """

    frame: int
    time: float
    boxes: Floats
    scores: Floats
    labels: Integers
    image: Any = None
    features: NDArray[Any] | None = None


@dataclass(frozen=True)
class Look:
    """What a tracker compared in a frame.

    rounds: its matchings, in order. ids: (T,), of the tracks that there were; expected: (T, 4), where it expected each
    to be, by its motion alone; none of a tracker that expects nothing.
    """

    rounds: Sequence[Round]
    ids: Integers
    expected: Floats


@dataclass
class Course:
    """How a sequence was followed.

    tracks: what came out. detections: what went in. looked_at: how many frames were looked at. seconds: all of it;
    tracker_seconds: the tracker alone. counts: of lines and zones. stopped: whether somebody stopped it before its end.
    damage: what of a video could not be read. files: what was written of it. looks: by frame, what the tracker
    compared, where that was to be kept.
    """

    tracks: Tracks
    detections: Tracks
    looked_at: int = 0
    seconds: float = 0.0
    tracker_seconds: float = 0.0
    counts: dict[str, Any] | None = None
    stopped: bool = False
    damage: str = ""
    files: dict[str, str] = field(default_factory=dict)
    looks: dict[int, Look] = field(default_factory=dict)

    @property
    def frames_per_second(self) -> float:
        """Frames that were looked at in a second."""
        return self.looked_at / max(self.seconds, 1e-9)


class Rows:
    """Columns of `Tracks` that grow frame by frame."""

    def __init__(self) -> None:
        self._parts: list[tuple[int, NDArray[Any], NDArray[Any], NDArray[Any], NDArray[Any]]] = []

    def add(self, frame: int, ids: NDArray[Any], boxes: Floats, scores: Floats, labels: Integers) -> None:
        """The rows of a frame, which comes after those before it."""
        self._parts.append((frame, ids, boxes, scores, labels))

    def build(self, num_frames: int | None = None, **facts: Any) -> Tracks:
        """All rows as tracks of at least so many frames. facts: fields of `Tracks`."""
        counts = [len(part[1]) for part in self._parts]
        frames = np.repeat(np.array([part[0] for part in self._parts], np.int64), counts)
        empty = (np.empty(0, np.int64), np.empty((0, 4)), np.empty(0), np.empty(0, np.int64))
        ids, boxes, scores, labels = (
            np.concatenate([empty[at], *(part[at + 1] for part in self._parts)]) for at in range(4)
        )
        last = max([num_frames or 0, *(part[0] + 1 for part in self._parts[-1:])])
        return Tracks.build(frames, boxes, ids, scores, labels, num_frames=last, **facts)


@contextmanager
def stoppable() -> Iterator[Callable[[], bool]]:
    """Within the block Ctrl-C only makes the function that it gives true; a second one ends the block as ever.

    What is under way can so end between two frames, with all that it has. In other threads than the main one nothing
    is changed.
    """
    stopped = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield stopped.is_set
        return
    before = signal.getsignal(signal.SIGINT)

    def stop(number: int, frame: Any) -> None:
        stopped.set()
        signal.signal(signal.SIGINT, before)

    signal.signal(signal.SIGINT, stop)
    try:
        yield stopped.is_set
    finally:
        signal.signal(signal.SIGINT, before)


def follow_online(
    tracker: OnlineTracker | None,
    frames: Iterable[Seen],
    facts: dict[str, Any],
    *,
    plan: CountPlan | None = None,
    show: Callable[[Seen, Followed, TrackCounter | None], None] | None = None,
    keep: bool = False,
) -> Course:
    """Follow frames one by one, in order, until they end or Ctrl-C; no frame is kept.

    tracker: None to gather what was detected alone. facts: fields of the tracks: classes, num_frames, fps, size, name.
    plan: what to count. show: gets each frame with its tracks and what was counted up to it. keep: what was compared.
    """
    found, given = Rows(), Rows()
    counter = None if plan is None else TrackCounter(plan, facts["classes"])
    looked_at, spent, started = 0, 0.0, time.perf_counter()
    looks = _Looks(tracker if keep else None)
    if tracker is not None:
        tracker.reset()
    with stoppable() as stopped:
        for seen in frames:
            looks.before(seen)
            before = time.perf_counter()
            tracked = _NOBODY if tracker is None else _follow(tracker, seen)
            spent += time.perf_counter() - before
            looked_at += 1
            looks.after(seen)
            own = tracked.detections
            given.add(seen.frame, np.full(len(seen.boxes), -1), seen.boxes, seen.scores, seen.labels)
            found.add(seen.frame, tracked.ids, tracked.boxes, seen.scores[own], seen.labels[own])
            if counter is not None:
                counter.update(seen.frame, seen.time, tracked.ids.tolist(), tracked.boxes, seen.labels[own].tolist())
            if show is not None:
                show(seen, tracked, counter)
            if stopped():
                break
        halted = stopped()
    known = {**facts, "num_frames": 0, "open_ended": True} if halted else facts
    tracks, detections, seconds = found.build(**known), given.build(**known), time.perf_counter() - started
    counts = None if counter is None else counter.result()
    return Course(tracks, detections, looked_at, seconds, spent, counts, halted, looks=looks.kept)


_NOBODY = Followed(np.empty((0, 4)), np.empty(0, np.int64), np.empty(0, np.intp))


class _Looks:
    """Keeps what a tracker compares, where there is one."""

    def __init__(self, tracker: OnlineTracker | None) -> None:
        self.tracker, self.kept = tracker, dict[int, Look]()
        self._time: float | None = None
        self._expected: tuple[Integers, Floats] = (np.empty(0, np.int64), np.empty((0, 4)))
        if tracker is not None:
            tracker.keep_rounds = True

    def before(self, seen: Seen) -> None:
        """Note where the tracks are expected in a frame, by the motion of the tracker's filter."""
        if self.tracker is None or self.tracker.motion is None:
            return
        motion, tracks = self.tracker.motion, self.tracker.tracks
        elapsed = 1.0 if self._time is None else round((seen.time - self._time) * self.tracker.frame_rate, 6)
        state = tracks["state"].copy()
        if state.shape[-1] and elapsed > 0:
            motion.predict(state, elapsed)
        self._expected = tracks["ids"].copy(), motion.boxes(state).T.copy()
        self._time = seen.time

    def after(self, seen: Seen) -> None:
        """Keep what was compared in the frame."""
        if self.tracker is not None:
            self.kept[seen.frame] = Look(self.tracker.rounds, *self._expected)


def _follow(tracker: OnlineTracker, seen: Seen) -> Followed:
    image = None if seen.image is None or not tracker.takes_images else seen.image.permute(1, 2, 0).numpy()
    return tracker.follow(seen.boxes, seen.scores, seen.labels, seen.time, features=seen.features, image=image)


def frames_of(detections: Tracks, every: int = 1) -> Iterator[Seen]:
    """Every frame of a file of detections, those without any too, or each so-many-th alone; without images."""
    fps = detections.fps or 1.0
    for frame in range(0, detections.num_frames, every):
        rows = detections.rows(frame)
        yield Seen(frame, frame / fps, detections.boxes[rows], detections.scores[rows], detections.labels[rows])


def follow_batch(tracker: Any, detections: Tracks, *, every: int = 1, plan: CountPlan | None = None) -> Course:
    """Follow a whole sequence at once, by a tracker that uses the future of each frame."""
    started = time.perf_counter()
    tracks = tracker.run(detections, every=every)
    spent = time.perf_counter() - started
    counts = None if plan is None else count_tracks(plan, tracks, tracks.fps or FPS).result()
    kept = detections if every == 1 else detections.select(detections.frames % every == 0)
    return Course(tracks, kept, -(-detections.num_frames // every), spent, spent, counts)
