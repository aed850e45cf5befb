"""What a track did while it was not seen: boxes between its detections, by a line or by a Gaussian process."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cho_solve, cholesky

from opsin.track.tracks import Tracks

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

_NOISE = 0.02  # standard deviation of a detection's corner as a share of the track's mean side
_SPREAD = 0.5  # of the track about its mean motion, likewise
_SPAN = 10.0  # frames over which a track keeps its direction
_MOST = 400  # detections that one process is fitted to; more are parted


def linear(frames: Integers, boxes: Floats, wanted: Integers) -> Floats:
    """Boxes at `wanted` frames on straight lines between those at `frames`. boxes: (N, 4). Returns (M, 4)."""
    return np.stack([np.interp(wanted, frames, boxes[:, corner]) for corner in range(4)], axis=1)


def gaussian(frames: Integers, boxes: Floats, wanted: Integers) -> Floats:
    """The same by the mean of a Gaussian process about the linear trend, as in StrongSORT's Gaussian smoothing.

    Du et al. 2023 (arXiv 2202.13514, section 3.4). The covariance of two frames is a squared exponential of ten frames;
    a detection's noise is 2 % of the track's mean side, so that boxes that were seen hardly move.
    """
    if len(frames) < 3:
        return linear(frames, boxes, wanted)
    if len(frames) > _MOST:
        middle = len(frames) // 2
        early = wanted <= frames[middle]
        found = np.empty((len(wanted), 4))
        found[early] = gaussian(frames[: middle + 1], boxes[: middle + 1], wanted[early])
        found[~early] = gaussian(frames[middle:], boxes[middle:], wanted[~early])
        return found
    side = float(np.mean(boxes[:, 2:] - boxes[:, :2]))
    design, design_wanted = (np.stack([np.ones(len(at)), at - frames[0]], 1) for at in (frames, wanted))
    trend = np.linalg.lstsq(design, boxes, rcond=None)[0]
    covariance = _covariance(frames, frames, side) + (_NOISE * side) ** 2 * np.eye(len(frames))
    weights = cho_solve((cholesky(covariance, lower=True), True), boxes - design @ trend)
    return design_wanted @ trend + _covariance(wanted, frames, side) @ weights


FILLINGS: Mapping[str, Callable[[Integers, Floats, Integers], Floats] | None] = {
    "linear": linear,
    "gaussian": gaussian,
    "none": None,
}


def fill_gaps(tracks: Tracks, max_gap: int = 30, how: str = "linear") -> Tracks:
    """The tracks with a box in each frame between two detections that lie at most `max_gap` missing frames apart.

    how: one of `FILLINGS`. Scores of filled boxes are the mean of the two beside them; `others` are dropped, and a
    visibility is 0. A box that a process makes of no area is left out. It uses later frames: `batch` is set.
    """
    fill = FILLINGS[how]
    if fill is None or not len(tracks):
        return replace(tracks, batch=True)
    order = np.lexsort((tracks.frames, tracks.ids))
    ids, frames = tracks.ids[order], tracks.frames[order]
    gap = np.diff(frames) - 1
    holes = np.flatnonzero((ids[1:] == ids[:-1]) & (ids[1:] >= 0) & (gap > 0) & (gap <= max_gap))
    rows, at, boxes, scores = [], [], [], []
    for who in np.unique(ids[holes]):
        own = order[ids == who]
        mine = holes[ids[holes] == who]
        wanted = np.concatenate([np.arange(int(frames[hole]) + 1, int(frames[hole + 1])) for hole in mine.tolist()])
        sizes = gap[mine]
        found = fill(tracks.frames[own], tracks.boxes[own], wanted)
        good = np.isfinite(found).all(1) & (found[:, 2:] > found[:, :2]).all(1)
        pair = 0.5 * (tracks.scores[order[mine]] + tracks.scores[order[mine + 1]])
        rows.append(np.repeat(order[mine], sizes)[good])
        at.append(wanted[good])
        boxes.append(found[good])
        scores.append(np.repeat(pair, sizes)[good])
    if not rows:
        return replace(tracks, batch=True)
    return _joined(tracks, np.concatenate(rows), np.concatenate(at), np.concatenate(boxes), np.concatenate(scores))


def _joined(tracks: Tracks, rows: Integers, frames: Integers, boxes: Floats, scores: Floats) -> Tracks:
    """Tracks with more rows, which are as `rows` of theirs but for frame, box and score."""
    all_frames = np.concatenate([tracks.frames, frames])
    order = np.argsort(all_frames, kind="stable")
    seen = tracks.visibility
    return replace(
        tracks,
        frames=all_frames[order],
        ids=np.concatenate([tracks.ids, tracks.ids[rows]])[order],
        boxes=np.concatenate([tracks.boxes, boxes])[order],
        scores=np.concatenate([tracks.scores, scores])[order],
        labels=np.concatenate([tracks.labels, tracks.labels[rows]])[order],
        ignored=np.concatenate([tracks.ignored, tracks.ignored[rows]])[order],
        visibility=None if seen is None else np.concatenate([seen, np.zeros(len(rows))])[order],
        others={},
        batch=True,
    )


def _covariance(one: Integers, other: Integers, side: float) -> Floats:
    apart = (one[:, None] - other[None, :]) / _SPAN
    return (_SPREAD * side) ** 2 * np.exp(-0.5 * apart * apart)
