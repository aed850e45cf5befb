"""DeepSORT: SORT that knows how its objects look."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from opsin.track.affinity import iou, mahalanobis
from opsin.track.association import cascade, hungarian
from opsin.track.motion import MAHALANOBIS_GATE, RatioHeightFilter
from opsin.track.online import Detections, Integers, OnlineTracker, unmatched

Floats = NDArray[np.float64]

_FAR = -2.0  # an appearance beyond the gate of motion: below every cosine


class DeepSort(OnlineTracker):
    """Simple online and realtime tracking with a deep association metric (Wojke et al. 2017, arXiv 1703.07402).

    min_score: of the detections that are used. max_age: frames that a track lives on without a detection. n_init:
    detections in consecutive frames that make a track; before it is tentative and not given. max_distance: cosine
    distance of a detection from the nearest of a track's last `gallery` appearances. min_iou: of tentative tracks and
    of those seen in the last frame, in the round after the cascade. Where an update has no features, the cascade
    compares by motion alone, squared Mahalanobis distances within the gate of 9.4877: lambda is 1 then, else 0.
    """

    name = "deep_sort"
    takes_features = True
    ranges: ClassVar[Mapping[str, tuple[float, float]]] = {
        "min_score": (0.0, 0.8),
        "max_age": (5, 90),
        "n_init": (1, 5),
        "max_distance": (0.05, 0.6),
        "min_iou": (0.1, 0.6),
    }

    def __init__(
        self,
        *,
        min_score: float = 0.3,
        max_age: int = 30,
        n_init: int = 3,
        max_distance: float = 0.2,
        min_iou: float = 0.3,
        gallery: int = 100,
        frame_rate: float = 1.0,
    ) -> None:
        self.min_score, self.max_age, self.n_init = min_score, max_age, n_init
        self.max_distance, self.min_iou, self.gallery = max_distance, min_iou, gallery
        self.filter = RatioHeightFilter()
        self._galleries: dict[int, Floats] = {}  # (G, D) of each track, vectors of length 1
        super().__init__(self.filter, frame_rate, hits=np.empty(0, np.int64), confirmed=np.empty(0, np.bool_))

    def reset(self) -> None:
        """As `OnlineTracker.reset`."""
        super().reset()
        self._galleries = {}

    def step(self, seen: Detections, elapsed: float) -> tuple[NDArray[Any], Floats]:
        """As `OnlineTracker.step`."""
        tracks = self.tracks
        last_seen = self.age() - elapsed  # 0 of those seen in the last frame
        self.filter.predict(tracks["state"], elapsed)
        used = np.flatnonzero(seen.scores >= self.min_score)
        sure = np.flatnonzero(tracks["confirmed"])
        left = used
        if len(sure) and len(left):
            ranks = np.ceil(last_seen[sure]).astype(np.int64)
            rule = partial(_cascade, ranks=ranks)
            affinity, least, name = self._likeness(seen, sure, left)
            pairs = self.match(name, affinity, least, seen, sure, left, rule=rule)
            left = unmatched(pairs, len(seen), left)
            self.observe(pairs, seen)
        recent = np.flatnonzero(self.missed() & (~tracks["confirmed"] | (last_seen <= 0)))
        if len(recent) and len(left):
            boxes = self.filter.boxes(tracks["state"][..., recent])
            pairs = self.match("IoU", iou(boxes, seen.boxes[:, left]), self.min_iou, seen, recent, left)
            left = unmatched(pairs, len(seen), left)
            self.observe(pairs, seen)
        tracks["hits"] += ~self.missed()
        tracks["confirmed"] |= tracks["hits"] >= self.n_init
        self.keep((tracks["confirmed"] | ~self.missed()) & self.alive(self.max_age))
        ones = np.ones(len(left), np.int64)
        self.begin(left, seen, hits=ones, confirmed=ones >= self.n_init)
        if seen.features is not None:
            self._remember(seen.features)
        tracks = self.tracks
        return tracks["confirmed"] & (tracks["detection"] >= 0), self.filter.boxes(tracks["state"])

    def _likeness(self, seen: Detections, rows: Integers, columns: Integers) -> tuple[Floats, float, str]:
        """What the cascade compares, the least that it takes, and its name."""
        boxes = seen.boxes[:, columns]
        distances = self.filter.distances(self.tracks["state"][..., rows], boxes)
        if seen.features is None:
            return mahalanobis(distances), 0.0, "motion"
        features = _unit(seen.features[columns])
        alike = np.full(distances.shape, _FAR)
        for place, one in enumerate(self.tracks["ids"][rows].tolist()):
            if one in self._galleries:
                alike[place] = (self._galleries[one] @ features.T).max(0)
        alike[distances > MAHALANOBIS_GATE] = _FAR
        return alike, 1.0 - self.max_distance, "appearance"

    def _remember(self, features: Floats) -> None:
        kept: dict[int, Floats] = {}
        ids, detections = self.tracks["ids"].tolist(), self.tracks["detection"].tolist()
        for one, detection in zip(ids, detections, strict=True):
            own = self._galleries.get(one)
            if detection >= 0:
                new = _unit(features[detection : detection + 1])
                own = new if own is None else np.concatenate((own, new))[-self.gallery :]
            if own is not None:
                kept[one] = own
        self._galleries = kept


def _cascade(affinity: Floats, least: float, ranks: NDArray[np.int64]) -> Any:
    return cascade(affinity, least, ranks, hungarian)


def _unit(features: Floats) -> Floats:
    return features / np.maximum(np.linalg.norm(features, axis=1, keepdims=True), 1e-12)
