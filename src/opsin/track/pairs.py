"""Which object of the truth and which answer overlap, frame by frame: what every metric is counted from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from opsin.track.tracks import Flags, Floats, Integers

EPSILON = float(np.finfo(np.float64).eps)  # what a threshold gives way: 0.5 of a box and its half may come out below


@dataclass(frozen=True, eq=False)
class Pairs:
    """The pairs of an object and an answer of the same frame that overlap, sorted by frame, object and answer.

    Identities are numbered from 0, in the order of those that were given. truth_ids: (G,) of every object.
    truth_starts: (F + 1,), where each of F frames begins among them. track_ids, track_starts: the same of T answers.
    truth, track: (P,), the places of each pair's two among G and T. similarity: (P,) float64, IoU in (0, 1].
    """

    truth_ids: Integers
    truth_starts: Integers
    track_ids: Integers
    track_starts: Integers
    truth: Integers
    track: Integers
    similarity: Floats

    @property
    def num_frames(self) -> int:
        """How many frames the sequence has."""
        return len(self.truth_starts) - 1

    @property
    def num_truth_ids(self) -> int:
        """How many objects there are, each counted once."""
        return int(self.truth_ids.max(initial=-1)) + 1

    @property
    def num_track_ids(self) -> int:
        """How many tracks there are."""
        return int(self.track_ids.max(initial=-1)) + 1

    @cached_property
    def starts(self) -> Integers:
        """(F + 1,): where each frame begins among the pairs."""
        return np.searchsorted(self.truth, self.truth_starts)

    @cached_property
    def frames(self) -> Integers:
        """(P,): the frame of each pair."""
        return np.repeat(np.arange(self.num_frames), np.diff(self.starts))

    def where(self, kept: Flags) -> Pairs:
        """Some of the pairs; objects and answers stay all. kept: (P,)."""
        truth, track, similarity = self.truth[kept], self.track[kept], self.similarity[kept]
        return Pairs(self.truth_ids, self.truth_starts, self.track_ids, self.track_starts, truth, track, similarity)

    def within(self, truth: Flags, track: Flags) -> Pairs:
        """What is left of some objects and some answers. truth: (G,). track: (T,)."""
        kept = truth[self.truth] & track[self.track]
        return Pairs(
            number(self.truth_ids[truth]),
            _starts_within(self.truth_starts, truth),
            number(self.track_ids[track]),
            _starts_within(self.track_starts, track),
            (np.cumsum(truth) - 1)[self.truth[kept]],
            (np.cumsum(track) - 1)[self.track[kept]],
            self.similarity[kept],
        )


def number(ids: Integers) -> Integers:
    """Identities as numbers from 0, in ascending order of what they were."""
    return np.unique(ids, return_inverse=True)[1].astype(np.int64)


def _starts_within(starts: Integers, kept: Flags) -> Integers:
    return np.concatenate([[0], np.cumsum(kept)])[starts]


def find_pairs(
    truth: tuple[Integers, Integers, Floats], track: tuple[Integers, Integers, Floats], num_frames: int
) -> Pairs:
    """The pairs of a sequence. truth, track: frames, sorted; ids; and boxes, as of `opsin.track.tracks.Tracks`."""
    edges = np.arange(num_frames + 1)
    starts, other_starts = (np.searchsorted(frames, edges) for frames, _, _ in (truth, track))
    x1, y1, x2, y2 = np.ascontiguousarray(truth[2].T)[:, :, None]
    left, top, right, bottom = np.ascontiguousarray(track[2].T)
    own, other = [np.empty(0, np.int64)], [np.empty(0, np.int64)]
    bounds = (starts[:-1], starts[1:], other_starts[:-1], other_starts[1:])
    for first, last, begin, end in zip(*(bound.tolist() for bound in bounds), strict=True):
        if first < last and begin < end:
            a, b = slice(first, last), slice(begin, end)
            meeting = np.minimum(x2[a], right[b]) > np.maximum(x1[a], left[b])
            meeting &= np.minimum(y2[a], bottom[b]) > np.maximum(y1[a], top[b])
            rows, columns = meeting.nonzero()
            own.append(rows + first)
            other.append(columns + begin)
    places = np.concatenate(own), np.concatenate(other)
    overlaps = paired_iou(truth[2][places[0]], track[2][places[1]])
    kept = overlaps > 0
    return Pairs(
        number(truth[1]), starts, number(track[1]), other_starts, places[0][kept], places[1][kept], overlaps[kept]
    )


def paired_iou(one: Floats, other: Floats) -> Floats:
    """The IoU of each box with the other's box of the same place, (N,); 0 where one has no area."""
    sides = np.minimum(one[:, 2:], other[:, 2:]) - np.maximum(one[:, :2], other[:, :2])
    both = np.maximum(sides[:, 0], 0) * np.maximum(sides[:, 1], 0)
    areas = [(boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1]) for boxes in (one, other)]
    union = areas[0] + areas[1] - both
    valid = (areas[0] > EPSILON) & (areas[1] > EPSILON) & (union > EPSILON)
    return np.where(valid, both, 0) / np.where(valid, union, 1)


def share_inside(boxes: Floats, regions: Floats) -> Floats:
    """The share of each box's area that lies in each region, (N, R)."""
    sides = np.minimum(boxes[:, None, 2:], regions[None, :, 2:]) - np.maximum(boxes[:, None, :2], regions[None, :, :2])
    both = np.maximum(sides[..., 0], 0) * np.maximum(sides[..., 1], 0)
    area = ((boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1]))[:, None]
    return np.where(area > EPSILON, both, 0) / np.where(area > EPSILON, area, 1)


def contested(pairs: Pairs) -> Flags:
    """(F,): the frames in which an object or an answer is in several pairs, so that something has to be decided."""
    several = np.bincount(pairs.truth, minlength=len(pairs.truth_ids))[pairs.truth] > 1
    several |= np.bincount(pairs.track, minlength=len(pairs.track_ids))[pairs.track] > 1
    frames = np.zeros(pairs.num_frames, np.bool_)
    frames[pairs.frames[several]] = True
    return frames


def assign(pairs: Pairs, scores: Floats) -> Flags:
    """(P,): the pairs that are chosen so that the sum of their scores is the largest, each object and answer once.

    scores: (P,), all above 0. By the Hungarian algorithm, frame by frame, where there is anything to decide.
    """
    chosen = np.ones(len(scores), np.bool_)
    starts = pairs.starts
    for frame in np.flatnonzero(contested(pairs)).tolist():
        rows = slice(int(starts[frame]), int(starts[frame + 1]))
        chosen[rows] = assign_frame(pairs, frame, rows, scores[rows])
    return chosen


def assign_frame(pairs: Pairs, frame: int, rows: slice, scores: Floats) -> Flags:
    """The same within one frame. rows: those of its pairs."""
    from scipy.optimize import linear_sum_assignment

    truth, track = pairs.truth_starts, pairs.track_starts
    matrix = np.zeros((truth[frame + 1] - truth[frame], track[frame + 1] - track[frame]))
    own, other = pairs.truth[rows] - truth[frame], pairs.track[rows] - track[frame]
    matrix[own, other] = scores
    at, to = linear_sum_assignment(matrix, maximize=True)
    partner = np.full(len(matrix), -1)
    partner[at] = to
    return partner[own] == other


def count_each(places: Integers, among: Sequence[object] | int) -> Integers:
    """How often each place occurs. among: how many places there are, or what they are places in."""
    return np.bincount(places, minlength=among if isinstance(among, int) else len(among))
