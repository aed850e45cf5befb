"""What online trackers share: frames of detections in, the tracks that were seen in them out, nothing of the future."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import numpy as np
from numpy.typing import NDArray

from opsin.errors import InputError
from opsin.track.association import Pairs, hungarian
from opsin.track.motion import ConstantVelocity
from opsin.track.tracks import Tracks

if TYPE_CHECKING:
    from opsin.structures import Instances

Floats = NDArray[np.float64]
Integers = NDArray[np.intp]

_DIGITS = 6  # of frames: times in seconds, once they are counted in frames, are off by less
_SLACK = 10.0**-_DIGITS
_NEVER = -1e6  # the affinity of a track and a detection of different classes


@dataclass
class Detections:
    """The detections of a frame as trackers use them.

    boxes: (4, M) float64 of x1, y1, x2, y2. scores: (M,) float64, 1 where there are none. labels: (M,) int64, 0 where
    there are none. features: (M, D) float64, of how each looks. motion: (2, 3), an affine map of pixels from the last
    frame to this one, where the camera's motion is known.
    """

    boxes: Floats
    scores: Floats
    labels: NDArray[np.int64]
    features: Floats | None = None
    motion: Floats | None = None

    def __len__(self) -> int:
        return len(self.scores)


@dataclass(frozen=True)
class Round:
    """One matching of an update, kept for whoever explains it.

    name: what was compared. ids: (R,), of the tracks. detections: (C,), places in the frame. affinity: (R, C). least:
    what a pair must reach. pairs: the places (R, C) of those made.
    """

    name: str
    ids: NDArray[np.int64]
    detections: Integers
    affinity: Floats
    least: float
    pairs: Pairs


class Followed(NamedTuple):
    """The tracks seen in a frame: boxes (T, 4), identities (T,), and the places of their detections (T,)."""

    boxes: Floats
    ids: NDArray[np.int64]
    detections: Integers


class OnlineTracker:
    """Follows objects from frame to frame: `update` with the detections of each frame, in order.

    A subclass has `step`. Its constructor's keywords are the settings; `ranges` says between which values each is
    worth searching. Settings that count frames count those of `frame_rate`, however many there really were between two.
    """

    name: ClassVar[str]
    online: ClassVar[bool] = True
    takes_features: ClassVar[bool] = False  # whether `features` of an update are used
    takes_images: ClassVar[bool] = False  # whether `image` of an update is used
    ranges: ClassVar[Mapping[str, tuple[float, float]]] = {}

    def __init__(self, motion: ConstantVelocity | None, frame_rate: float = 1.0, **columns: NDArray[Any]) -> None:
        """motion: None of a tracker that predicts nothing. columns: empty ones of the subclass, the last axis 0."""
        if not frame_rate > 0:
            raise InputError(f"frame_rate is {frame_rate}, expected frames a second, above 0")
        self.motion = motion
        self.frame_rate = frame_rate
        self.keep_rounds = False
        self.rounds: list[Round] = []
        self._columns = columns
        self.reset()

    def reset(self) -> None:
        """Forget every track. The next update is the first of another sequence, and identities begin at 1 again."""
        self.clock = 0.0  # in frames
        self.num_frames = 0
        self._time: float | None = None
        self._last_id = 0
        self._first_label: int | None = None
        self._many_labels = False
        state = np.empty((5, 4, 0)) if self.motion else np.empty((0, 0))
        self.tracks: dict[str, NDArray[Any]] = {
            "ids": np.empty(0, np.int64),
            "labels": np.empty(0, np.int64),
            "state": state,
            "seen_at": np.empty(0),  # the clock when a detection was last matched
            "detection": np.empty(0, np.intp),  # which of this frame; -1: none
            **{name: column.copy() for name, column in self._columns.items()},
        }

    def step(self, seen: Detections, elapsed: float) -> tuple[NDArray[Any], Floats]:
        """Follow one frame further. elapsed: frames since the last one.

        Returns the rows of `tracks` that are given as seen in this frame, as places or (N,) bool, and the boxes (4, N)
        of all rows.
        """
        raise NotImplementedError

    def camera(self, image: Any, boxes: Floats) -> Floats | None:
        """How the camera moved from the last image to this one, (2, 3); None where that is not known.

        image: (H, W, 3) uint8. boxes: (4, M), what is likely to move by itself.
        """
        return None

    def update(
        self,
        instances: Instances,
        time: float | None = None,
        *,
        features: Any = None,
        image: Any = None,
        motion: Any = None,
    ) -> Instances:
        """The tracks that are seen in the next frame, each in the place of its detection.

        instances: the detections of the frame; scores and labels are optional, tracks never join two labels. time:
        when it was taken, in seconds, or in frames where `frame_rate` is 1; one frame after the last if not given.
        features: (N, D), how each detection looks. image: the frame, (H, W, 3) uint8. motion: (2, 3), an affine map of
        pixels from the last frame to this one, in the place of what the tracker finds in `image`.

        Returns the detections that belong to a track, with its identity (from 1 up) and the tracker's own box in the
        place of the detection's; their other fields are as they were.

        Raises:
            InputError: a time that is not after the last one; boxes without area; coordinates or scores that are no
                finite numbers; features or a motion of a wrong shape.
        """
        import torch

        from opsin.structures import Instances

        scores, labels = (
            None if one is None else one.numpy(force=True) for one in (instances.scores, instances.labels)
        )
        rows = self.follow(
            instances.boxes.numpy(force=True), scores, labels, time, features=features, image=image, motion=motion
        )
        chosen = rows.detections
        shown, ids = torch.from_numpy(rows.boxes).to(instances.boxes.dtype), torch.from_numpy(rows.ids)
        others = (instances.masks, instances.points, instances.polygons, instances.texts)
        if any(one is not None for one in others):
            return replace(instances[torch.from_numpy(chosen)], boxes=shown, ids=ids)
        return Instances(  # the same, and half the time of an update less
            shown,
            labels=None if labels is None else torch.from_numpy(labels[chosen]),
            scores=None if scores is None else torch.from_numpy(scores[chosen]),
            ids=ids,
        )

    def follow(
        self,
        boxes: NDArray[Any],
        scores: NDArray[Any] | None = None,
        labels: NDArray[Any] | None = None,
        time: float | None = None,
        *,
        features: Any = None,
        image: Any = None,
        motion: Any = None,
    ) -> Followed:
        """`update` on arrays, without torch. boxes: (M, 4). scores, labels: (M,)."""
        columns = np.array(boxes.T, np.float64, order="C")
        count = columns.shape[1]
        seen = Detections(
            columns,
            np.ones(count) if scores is None else np.asarray(scores, np.float64),
            np.zeros(count, np.int64) if labels is None else np.asarray(labels, np.int64),
            None if features is None or not np.size(features) else np.asarray(features, np.float64),
            None if motion is None else np.asarray(motion, np.float64),
        )
        check_detections(seen.boxes, seen.scores)
        _check_beside(seen)
        elapsed = self._elapsed(time)
        if seen.motion is None and image is not None:
            seen.motion = self.camera(image, columns)
        self.clock += elapsed
        self.num_frames += 1
        self.rounds = []
        if count and not self._many_labels:
            if self._first_label is None:
                self._first_label = int(seen.labels[0])
            self._many_labels = bool((seen.labels != self._first_label).any())
        self.tracks["detection"].fill(-1)
        rows, shown = self.step(seen, elapsed)
        return Followed(
            np.ascontiguousarray(shown[:, rows].T), self.tracks["ids"][rows], self.tracks["detection"][rows]
        )

    def run(self, detections: Tracks | Iterable[Instances], *, every: int = 1, timed: bool = True) -> Tracks:
        """The tracks of a whole sequence, frame by frame; the tracker is reset first.

        detections: of a file, or the frames one by one. every: only each so-many-th frame is looked at. timed: say to
        the tracker how many frames lie between two; without, it takes them for neighbours.
        """
        self.reset()
        source = detections if isinstance(detections, Tracks) else Tracks.of_instances(detections)
        return self.run_frames(source, range(0, source.num_frames, every), timed=timed)

    def run_frames(self, detections: Tracks, frames: Iterable[int], *, timed: bool = True) -> Tracks:
        """The tracks in some frames of a sequence, in ascending order; goes on from where the tracker is."""
        found: list[Followed] = []
        at, firsts = [], []
        for frame in frames:
            rows = detections.rows(frame)
            time = frame / self.frame_rate if timed else None
            found.append(self.follow(detections.boxes[rows], detections.scores[rows], detections.labels[rows], time))
            at.append(frame)
            firsts.append(rows.start)
        counts = [len(one.ids) for one in found]
        row = np.repeat(np.array(firsts, np.int64), counts) + _joined([one.detections for one in found])
        tracks = detections.select(row)
        return replace(
            tracks,
            frames=np.repeat(np.array(at, np.int64), counts),
            boxes=np.concatenate([np.empty((0, 4)), *(one.boxes for one in found)]),
            ids=_joined([one.ids for one in found]),
        )

    def match(
        self,
        name: str,
        affinity: Floats,
        least: float,
        seen: Detections,
        rows: Integers | None = None,
        columns: Integers | None = None,
        rule: Callable[[Floats, float], Pairs] = hungarian,
    ) -> Pairs:
        """Match tracks with detections of the same label. Pairs are places in all tracks and all detections.

        affinity: (R, C) of the tracks `rows` and the detections `columns`, all of them if not given.
        """
        affinity = self.apart(affinity, seen, rows, columns)
        pairs = rule(affinity, least)
        if self.keep_rounds:
            all_rows, all_columns = np.arange(len(self.tracks["ids"])), np.arange(len(seen))
            self.rounds.append(
                Round(
                    name,
                    self.tracks["ids"][all_rows if rows is None else rows],
                    all_columns if columns is None else columns,
                    affinity,
                    least,
                    pairs,
                )
            )
        return Pairs(
            pairs.rows if rows is None else rows[pairs.rows],
            pairs.columns if columns is None else columns[pairs.columns],
        )

    def apart(
        self, affinity: Floats, seen: Detections, rows: Integers | None = None, columns: Integers | None = None
    ) -> Floats:
        """An affinity as it is where labels are equal, and far below any gate elsewhere."""
        if not self._many_labels:
            return affinity
        own = self.tracks["labels"] if rows is None else self.tracks["labels"][rows]
        other = seen.labels if columns is None else seen.labels[columns]
        return np.where(own[:, None] == other, affinity, _NEVER)

    def observe(self, pairs: Pairs, seen: Detections) -> None:
        """Correct the tracks of pairs by their detections, and note that they were seen. Rows ascend."""
        tracks, rows = self.tracks, pairs.rows
        if not len(rows):
            return
        tracks["seen_at"][rows] = self.clock
        tracks["detection"][rows] = pairs.columns
        if self.motion is not None:
            state, boxes = tracks["state"], seen.boxes[:, pairs.columns]
            if len(rows) == state.shape[2]:
                tracks["state"] = self.motion.correct(state, boxes)
            else:
                state[..., rows] = self.motion.correct(state[..., rows], boxes)

    def begin(self, columns: Integers, seen: Detections, **values: NDArray[Any]) -> None:
        """Start a track with each of some detections. values: of the subclass's own columns, 0 where not given."""
        count = len(columns)
        if not count:
            return
        boxes, labels = seen.boxes[:, columns], seen.labels[columns]
        values = {
            **values,
            "ids": np.arange(self._last_id + 1, self._last_id + count + 1),
            "labels": labels,
            "state": np.empty((0, count)) if self.motion is None else self.motion.start(boxes),
            "seen_at": np.full(count, self.clock),
            "detection": columns,
        }
        self._last_id += count
        for name, column in self.tracks.items():
            added = values.get(name)
            if added is None:
                added = np.zeros((*column.shape[:-1], count), column.dtype)
            self.tracks[name] = np.concatenate((column, added), axis=-1)

    def keep(self, rows: NDArray[np.bool_]) -> None:
        """End all tracks but these, (N,) bool."""
        if not rows.all():
            for name, column in self.tracks.items():
                self.tracks[name] = column[..., rows]

    def missed(self) -> NDArray[np.bool_]:
        """(N,) whether each track had no detection in this frame."""
        return self.tracks["detection"] < 0

    def alive(self, max_age: float) -> NDArray[np.bool_]:
        """(N,) whether each track was seen within so many frames."""
        return self.tracks["seen_at"] >= self.clock - max_age - _SLACK

    def age(self) -> Floats:
        """(N,) frames since each track was last seen, 0 where it is seen now."""
        return np.round(self.clock - self.tracks["seen_at"], _DIGITS)

    def _elapsed(self, time: float | None) -> float:
        """Frames since the last update, and the time noted."""
        last, self._time = self._time, time
        if time is None:
            self._time = None if last is None else last + 1.0 / self.frame_rate
            return 1.0
        if last is None:
            return 1.0
        elapsed = round((time - last) * self.frame_rate, _DIGITS)
        if not 0 < elapsed < np.inf:
            self._time = last
            raise InputError(
                f"a frame of time {time:g} came after one of {last:g}; frames must be given in order of time"
            )
        return elapsed


def unmatched(pairs: Pairs, count: int, columns: Integers | None = None) -> Integers:
    """The columns below `count`, or of some in ascending order, that no pair has, in order."""
    if columns is None:
        free = np.ones(count, np.bool_)
    else:
        free = np.zeros(count, np.bool_)
        free[columns] = True
    free[pairs.columns] = False
    return free.nonzero()[0]


def _joined(parts: list[NDArray[Any]]) -> NDArray[np.int64]:
    return np.concatenate([np.empty(0, np.int64), *parts]).astype(np.int64)


def check_detections(boxes: Floats, scores: Floats) -> None:
    """Raise InputError for what no tracker may be given. boxes: (4, M). scores: (M,)."""
    if not ((boxes[2:] > boxes[:2]).all() and math.isfinite(boxes.sum() + scores.sum())):
        for place, (box, score) in enumerate(zip(boxes.T.tolist(), scores.tolist(), strict=True)):
            if not np.isfinite([*box, score]).all():
                shown = ", ".join(f"{value:g}" for value in box)
                raise InputError(f"detection {place} has box ({shown}) and score {score:g}; expected finite numbers")
            if not (box[2] > box[0] and box[3] > box[1]):
                shown = ", ".join(f"{value:g}" for value in box)
                raise InputError(f"detection {place} has box ({shown}), of no area; expected x1 < x2 and y1 < y2")


def _check_beside(seen: Detections) -> None:
    """Raise InputError for features or a motion of a wrong shape."""
    count = len(seen)
    if seen.features is not None and (seen.features.ndim != 2 or len(seen.features) != count):
        raise InputError(f"features are of shape {seen.features.shape}, expected a row for each of {count} detections")
    if seen.motion is not None and (seen.motion.shape != (2, 3) or not np.isfinite(seen.motion).all()):
        raise InputError(f"motion is {seen.motion.tolist()}, expected an affine map of pixels, finite numbers (2, 3)")
