"""Boxes of tracks as they were, given all that was seen before and after: the smoother of Rauch, Tung and Striebel."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from opsin.track.motion import ConstantVelocity, WidthHeightFilter
from opsin.track.tracks import Tracks

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]


def smooth(tracks: Tracks, motion: ConstantVelocity | None = None) -> Tracks:
    """The tracks with each box where a filter expects it once it has seen the whole track (Rauch et al. 1965).

    motion: BoT-SORT's filter if not given. Frames in which a track was not seen stay without it. It uses later frames:
    `batch` is set.
    """
    motion = WidthHeightFilter() if motion is None else motion
    boxes = tracks.boxes.copy()
    order = np.lexsort((tracks.frames, tracks.ids))
    starts = np.flatnonzero(np.diff(tracks.ids[order], prepend=np.int64(-2)))
    for rows in np.split(order, starts[1:]):
        if len(rows) > 1 and tracks.ids[rows[0]] >= 0:
            boxes[rows] = smooth_boxes(tracks.frames[rows], tracks.boxes[rows], motion)
    return replace(tracks, boxes=boxes, batch=True)


def smooth_boxes(frames: Integers, boxes: Floats, motion: ConstantVelocity) -> Floats:
    """The boxes (N, 4) of one track, smoothed. frames: (N,), ascending."""
    seen = np.ascontiguousarray(boxes.T)
    state = motion.start(seen[:, :1])
    filtered, predicted = [state], [state]
    steps = np.diff(frames).astype(np.float64).tolist()
    for place, step in enumerate(steps, 1):
        ahead = state.copy()
        motion.predict(ahead, step)
        predicted.append(ahead)
        state = motion.correct(ahead, seen[:, place : place + 1])
        filtered.append(state)
    smoothed = [filtered[-1][:2]]
    for place in range(len(frames) - 2, -1, -1):
        gain = _gain(filtered[place], predicted[place + 1], steps[place])
        away = smoothed[-1] - predicted[place + 1][:2]
        smoothed.append(filtered[place][:2] + np.einsum("ijcn,jcn->icn", gain, away))
    values = np.zeros((5, 4, len(frames)))
    values[:2] = np.concatenate(smoothed[::-1], axis=2)
    return motion.boxes(values).T


def _gain(state: Floats, ahead: Floats, step: float) -> Floats:
    """P F' (P ahead)^-1 of each coordinate, (2, 2, 4, 1)."""
    variance, covariance, doubt = state[2:]
    moved = np.array([[variance + step * covariance, covariance], [covariance + step * doubt, doubt]])  # P F'
    a, b, d = ahead[2:]
    determinant = a * d - b * b
    still = determinant <= 1e-12 * np.maximum(a * a, 1e-30)  # a value without a velocity: one number, not two
    safe = np.where(still, 1.0, determinant)
    inverse = np.array([[d, -b], [-b, a]]) / safe
    inverse = np.where(still, np.array([[1.0 / a, 0 * a], [0 * a, 0 * a]]), inverse)
    return np.einsum("ijcn,jkcn->ikcn", moved, inverse)
