"""What batch trackers share: all frames of a sequence in, its tracks out, with the future of every frame in view."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar, NoReturn

import numpy as np
from numpy.typing import NDArray

from opsin.errors import InputError
from opsin.track.gaps import FILLINGS, fill_gaps
from opsin.track.online import check_detections
from opsin.track.smoothing import smooth
from opsin.track.tracks import NOBODY, Tracks

if TYPE_CHECKING:
    from opsin.structures import Instances

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]


class BatchTracker:
    """Tracks a whole sequence at once. A subclass has `link`, and more settings beside those here.

    min_score: of the detections that are used. min_length: detections of a track; shorter ones are left out. fill: how
    the frames between two detections of a track are filled: "linear", "gaussian" or "none"; see `opsin.track.gaps`.
    max_fill: frames that are filled at most. smooth: whether boxes are smoothed, see `opsin.track.smoothing`.
    """

    name: ClassVar[str]
    online: ClassVar[bool] = False
    takes_features: ClassVar[bool] = False
    takes_images: ClassVar[bool] = False
    ranges: ClassVar[Mapping[str, tuple[float, float]]] = {}

    def __init__(self, min_score: float, min_length: int, fill: str, max_fill: int, smooth: bool) -> None:
        if fill not in FILLINGS:
            raise InputError(f"fill is {fill!r}, expected one of {', '.join(FILLINGS)}")
        self.min_score, self.min_length = min_score, min_length
        self.fill, self.max_fill, self.smooth = fill, max_fill, smooth

    def link(self, detections: Tracks) -> Integers:
        """Which detection follows each in its track, (N,) rows of `detections`, -1 behind the last of a track.

        detections: of one class, sorted by frame. A detection that belongs to no track has nothing before and behind
        it, and is a track of length 1.
        """
        raise NotImplementedError

    def run(self, detections: Tracks | Iterable[Instances], *, every: int = 1, timed: bool = True) -> Tracks:
        """The tracks of a sequence, each class by itself. `batch` of what is returned is set: it used later frames.

        detections: of a file, or the frames one by one. every: only each so-many-th frame is looked at, the others are
        filled where `fill` says so. timed: for the form of online trackers; batch trackers know every frame's place.

        Raises:
            InputError: boxes without area, coordinates or scores that are no finite numbers.
        """
        source = detections if isinstance(detections, Tracks) else Tracks.of_instances(detections)
        check_detections(source.boxes.T, source.scores)
        used = source.select((source.scores >= self.min_score) & ~source.ignored & (source.frames % every == 0))
        following = np.full(len(used), NOBODY, np.int64)
        for label in np.unique(used.labels):
            rows = np.flatnonzero(used.labels == label)
            own = self.link(used.select(rows))
            following[rows] = np.where(own < 0, NOBODY, rows[own])
        tracks = _long_enough(replace(used, ids=identities(following), batch=True), self.min_length)
        if self.smooth:
            tracks = smooth(tracks)
        return fill_gaps(tracks, self.max_fill, self.fill)

    def update(self, *arguments: Any, **options: Any) -> NoReturn:
        """Refused: a batch tracker cannot say anything before it has seen everything. Raises InputError."""
        raise InputError(f"{self.name} uses later frames and cannot follow a video frame by frame; use run, or `sort`")


def identities(following: Integers) -> Integers:
    """The identity of each detection, from 1 up in order of the first ones. following: as of `BatchTracker.link`."""
    first = np.ones(len(following), np.bool_)
    first[following[following >= 0]] = False
    ids = np.zeros(len(following), np.int64)
    ids[first] = np.arange(1, first.sum() + 1)
    for row in np.flatnonzero(following >= 0).tolist():  # rows ascend in time, so that each is known before its next
        ids[following[row]] = ids[row]
    return ids


def _long_enough(tracks: Tracks, min_length: int) -> Tracks:
    """Tracks of at least so many detections, their identities from 1 up without gaps."""
    _, places, counts = np.unique(tracks.ids, return_inverse=True, return_counts=True)
    kept = tracks.select(counts[places] >= min_length)
    return replace(kept, ids=np.unique(kept.ids, return_inverse=True)[1].reshape(-1).astype(np.int64) + 1)
