"""The oracle ladder: how good tracks would be if one stage had made no error, so that it shows where the error is.

Each rung repairs one thing by the truth, and leaves the rest as the tracker has it:

    as it is            the tracks themselves
    perfect linking     tracks stay whole, and those that follow the same object for most of their time are one
    perfect association each box has the identity of the object that it is matched with in its frame
    perfect detections  every object has its true box in every frame, with the identity that the tracker gives it, and
                        nothing else is there; where it was not matched, that which it had last, or gets next

What detections alone allow is perfect association on them: give them as `tracks`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

import numpy as np

from opsin.track.evaluate import Counts, combine
from opsin.track.pairs import EPSILON, Pairs, assign, find_pairs, number
from opsin.track.rules import Compared, Rules, compare
from opsin.track.tracks import NOBODY, Integers, Tracks

AS_IT_IS = "as it is"


def ladder(
    truth: Mapping[str, Tracks], tracks: Mapping[str, Tracks], name: str, rules: Rules, threshold: float = 0.5
) -> dict[str, Counts]:
    """What each rung is worth, of one class in several sequences together, from "as it is" on.

    Detections take part as tracks of one frame each. threshold: the least IoU of a match.
    """
    rungs: dict[str, list[Counts]] = {rung: [] for rung in RUNGS}
    for sequence, own in truth.items():
        found = tracks.get(sequence, Tracks.build([], [], num_frames=own.num_frames))
        if len(found) and not found.has_ids:
            found = replace(found, ids=np.arange(len(found)))
        compared = compare(own, found, name, rules)
        for rung, repair in RUNGS.items():
            rungs[rung].append(Counts.of(repair(compared, own, threshold), threshold))
    return {rung: combine(each) for rung, each in rungs.items()}


def _owners(pairs: Pairs, threshold: float) -> Integers:
    """(T,): the object that each answer is matched with, frame by frame alone; -1 for none."""
    near = pairs.where(pairs.similarity >= threshold - EPSILON)
    chosen = assign(near, near.similarity)
    owners = np.full(len(pairs.track_ids), NOBODY)
    owners[near.track[chosen]] = near.truth_ids[near.truth[chosen]]
    return owners


def _unchanged(compared: Compared, truth: Tracks, threshold: float) -> Pairs:
    return compared.pairs


def link(compared: Compared, truth: Tracks, threshold: float = 0.5) -> Pairs:
    """Whole tracks of the same object as one; of two in a frame the matched one, else the first, has its identity."""
    pairs = compared.pairs
    owners = _owners(pairs, threshold)
    votes = np.zeros((pairs.num_track_ids, pairs.num_truth_ids + 1), np.int64)
    np.add.at(votes, (pairs.track_ids, owners), 1)  # the last column is of nobody
    votes = votes[:, :-1]
    best = votes.argmax(axis=1) if votes.size else np.zeros(len(votes), np.int64)
    followed = votes.max(axis=1, initial=0) > 0
    wanted = np.where(followed[pairs.track_ids], best[pairs.track_ids], NOBODY)
    return replace(pairs, track_ids=_given(pairs, wanted, owners == wanted))


def _given(pairs: Pairs, wanted: Integers, first: np.ndarray) -> Integers:
    """Identities as wanted, each once in a frame, to `first` before others; who gets none keeps its own."""
    frames = np.repeat(np.arange(pairs.num_frames), np.diff(pairs.track_starts))
    rows = np.flatnonzero(wanted != NOBODY)
    rows = rows[np.lexsort((rows, ~first[rows], wanted[rows], frames[rows]))]
    again = np.zeros(len(rows), np.bool_)
    again[1:] = (frames[rows[1:]] == frames[rows[:-1]]) & (wanted[rows[1:]] == wanted[rows[:-1]])
    ids = pairs.num_truth_ids + pairs.track_ids
    ids[rows[~again]] = wanted[rows[~again]]
    return number(ids)


def associate(compared: Compared, truth: Tracks, threshold: float = 0.5) -> Pairs:
    """Each answer with the identity of the object that it is matched with."""
    pairs = compared.pairs
    owners = _owners(pairs, threshold)
    return replace(pairs, track_ids=number(np.where(owners == NOBODY, pairs.num_truth_ids + pairs.track_ids, owners)))


def find_all(compared: Compared, truth: Tracks, threshold: float = 0.5) -> Pairs:
    """The true boxes with the tracker's identities, and nothing else."""
    pairs, rows = compared.pairs, compared.truth
    near = pairs.where(pairs.similarity >= threshold - EPSILON)
    chosen = assign(near, near.similarity)
    ids = np.full(len(pairs.truth_ids), NOBODY)
    ids[near.truth[chosen]] = near.track_ids[near.track[chosen]]
    matched = ids != NOBODY
    for one in range(pairs.num_truth_ids):
        own = np.flatnonzero(pairs.truth_ids == one)
        known = np.flatnonzero(matched[own])
        if len(known):
            last = np.searchsorted(known, np.arange(len(own)), side="right") - 1
            ids[own] = ids[own[known[np.maximum(last, 0)]]]
    frames = truth.frames[rows]
    boxes = truth.boxes[rows]
    whole = find_pairs((frames, pairs.truth_ids, boxes), (frames, np.arange(len(rows)), boxes), pairs.num_frames)
    whole = replace(whole, track_ids=pairs.truth_ids + pairs.num_track_ids)
    return replace(whole, track_ids=_kept(whole, ids, matched))


def _kept(whole: Pairs, ids: Integers, matched: np.ndarray) -> Integers:
    """Each track once in a frame, with the object that it is matched with there; the other one is nobody's track."""
    frames = np.repeat(np.arange(whole.num_frames), np.diff(whole.track_starts))
    rows = np.flatnonzero(ids != NOBODY)
    rows = rows[np.lexsort((rows, ~matched[rows], ids[rows], frames[rows]))]
    again = np.zeros(len(rows), np.bool_)
    again[1:] = (frames[rows[1:]] == frames[rows[:-1]]) & (ids[rows[1:]] == ids[rows[:-1]])
    found = whole.track_ids.copy()
    found[rows[~again]] = ids[rows[~again]]
    return number(found)


RUNGS: Mapping[str, Callable[[Compared, Tracks, float], Pairs]] = {
    AS_IT_IS: _unchanged,
    "perfect linking": link,
    "perfect association": associate,
    "perfect detections": find_all,
}
