"""OC-SORT: SORT that trusts what was seen more than what was predicted while nothing was."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from opsin.track.affinity import direction_consistency, iou
from opsin.track.association import Pairs, compete, hungarian_then_gate, joined
from opsin.track.motion import AreaRatioFilter
from opsin.track.online import Detections, Integers, OnlineTracker, unmatched

Floats = NDArray[np.float64]


class OcSort(OnlineTracker):
    """Observation-centric SORT (Cao et al. 2023, arXiv 2203.14360).

    min_score: of the detections that are used. max_age: frames that a track lives on without a detection. min_hits:
    detections in consecutive frames after its first that a track needs before it is given, except in a sequence's first
    frames. min_iou: of a match. delta_t: frames between the two observations that say in which direction a track
    moves. inertia: weight of that direction beside the IoU. What is given is the detection's box.
    """

    name = "oc_sort"
    ranges: ClassVar[Mapping[str, tuple[float, float]]] = {
        "min_score": (0.1, 0.8),
        "max_age": (5, 60),
        "min_hits": (0, 5),
        "min_iou": (0.1, 0.6),
        "delta_t": (1, 6),
        "inertia": (0.0, 1.0),
    }

    def __init__(
        self,
        *,
        min_score: float = 0.6,
        max_age: int = 30,
        min_hits: int = 3,
        min_iou: float = 0.3,
        delta_t: int = 3,
        inertia: float = 0.2,
        frame_rate: float = 1.0,
    ) -> None:
        self.min_score, self.max_age, self.min_hits, self.min_iou = min_score, max_age, min_hits, min_iou
        self.delta_t, self.inertia = delta_t, inertia
        self.filter = AreaRatioFilter()
        super().__init__(
            self.filter,
            frame_rate,
            streak=np.empty(0, np.int64),
            lost=np.empty(0, np.bool_),
            observed=np.empty((delta_t, 4, 0)),  # boxes, the newest first
            moments=np.empty((delta_t, 0)),  # when; -inf of what was not yet
            heading=np.empty((2, 0)),  # of length 1; 0 before the second observation
            anchor=np.empty((5, 4, 0)),  # the state after the last observation
        )

    def step(self, seen: Detections, elapsed: float) -> tuple[NDArray[Any], Floats]:
        """As `OnlineTracker.step`."""
        tracks = self.tracks
        self.filter.predict(tracks["state"], elapsed)
        used = np.flatnonzero(seen.scores >= self.min_score)
        boxes = seen.boxes if len(used) == len(seen) else seen.boxes[:, used]
        earlier = self._earlier()
        overlap = self.apart(iou(self.filter.boxes(tracks["state"]), boxes), seen, columns=used)
        affinity = overlap
        if self.keep_rounds or compete(overlap, self.min_iou):  # else the direction has nothing to decide
            turned = direction_consistency(earlier, tracks["heading"], boxes)
            turned *= self.inertia * seen.scores[used]
            affinity = overlap + turned
        rule = partial(hungarian_then_gate, gated=overlap)
        first = self.match("IoU and direction", affinity, self.min_iou, seen, columns=used, rule=rule)

        gone = unmatched(Pairs(first.columns, first.rows), overlap.shape[0])
        left = unmatched(first, len(seen), used)
        if len(gone) and len(left):
            again = iou(tracks["observed"][0][:, gone], seen.boxes[:, left])
            second = self.match("last observations", again, self.min_iou, seen, gone, left, rule=hungarian_then_gate)
            left = unmatched(second, len(seen), left)
            first = joined(first, second)
        self._note(first, seen, earlier)
        self._begin_and_end(seen, left)
        shown = self.tracks["detection"] >= 0
        if self.num_frames > self.min_hits:
            shown &= self.tracks["streak"] >= self.min_hits
        return shown, self.tracks["observed"][0]

    def _earlier(self) -> Floats:
        """The oldest observation within `delta_t` frames of each track, its last one where there is none, (4, N)."""
        observed, moments = self.tracks["observed"], self.tracks["moments"]
        within = (moments >= self.clock - self.delta_t - 1e-6).sum(0)
        return observed[np.maximum(within - 1, 0), :, np.arange(observed.shape[2])].T

    def _note(self, pairs: Pairs, seen: Detections, earlier: Floats) -> None:
        """Correct the matched tracks, and remember what was seen of them."""
        tracks, rows = self.tracks, pairs.rows
        boxes = seen.boxes[:, pairs.columns]
        back = tracks["lost"][rows]
        if back.any():
            self._walk(rows[back], boxes[:, back])
        self.observe(pairs, seen)
        if len(rows):
            way = (boxes[:2] + boxes[2:]) - (earlier[:2, rows] + earlier[2:, rows])
            tracks["heading"][:, rows] = way / (np.hypot(way[0], way[1]) + 1e-6)
            observed, moments = tracks["observed"], tracks["moments"]
            observed[1:, :, rows] = observed[:-1, :, rows]
            moments[1:, rows] = moments[:-1, rows]
            observed[0, :, rows] = boxes.T
            moments[0, rows] = self.clock
            tracks["anchor"][..., rows] = tracks["state"][..., rows]
        streak = tracks["streak"]
        streak += 1
        missed = self.missed()
        streak[missed] = 0
        tracks["lost"] = missed

    def _walk(self, rows: Integers, boxes: Floats) -> None:
        """Observation-centric re-update (section 4.1): as if lost tracks had been seen on a straight way to here.

        From the last observation on, the filter is given boxes on the line to the new one, one a frame, so that what
        it made up while nothing was seen is forgotten. As in the authors' code the new box is the end of that line,
        and is seen once more as the box of this frame.
        """
        tracks = self.tracks
        gaps = self.age()[rows]
        order = np.argsort(-gaps, kind="stable")  # the longest walks first, so that those under way are the first ones
        rows, gaps, end = rows[order], gaps[order], boxes[:, order]
        start, state = tracks["observed"][0][:, rows], tracks["anchor"][..., rows]
        steps = np.maximum(np.rint(gaps), 1.0)
        elapsed, whole = gaps / steps, bool((gaps == steps).all())
        for number in range(1, int(steps[0]) + 1):
            under_way = int((steps >= number).sum())
            own = state[..., :under_way]
            self.filter.predict(own, 1.0 if whole else elapsed[:under_way])
            part = number / steps[:under_way]
            way = start[:, :under_way] + (end[:, :under_way] - start[:, :under_way]) * part
            state[..., :under_way] = self.filter.correct(own, way)
        tracks["state"][..., rows] = state

    def _begin_and_end(self, seen: Detections, left: Integers) -> None:
        count = len(left)
        if count:
            observed = np.zeros((self.delta_t, 4, count))
            observed[0] = seen.boxes[:, left]
            moments = np.full((self.delta_t, count), -np.inf)
            moments[0] = self.clock
            anchor = self.filter.start(observed[0])
            self.begin(left, seen, observed=observed, moments=moments, anchor=anchor)
        self.keep(self.alive(self.max_age))
