"""The CLEAR metrics: matches frame by frame, switches of identity, fragments.

Bernardin & Stiefelhagen 2008, "Evaluating multiple object tracking performance: the CLEAR MOT metrics", and for
mostly tracked and mostly lost Li et al. 2009, "Learning to associate: HybridBoosted multi-target tracker". Where the
papers leave it open, as TrackEval decides: what was matched in the frame before is matched again where it still may,
by a score that outweighs all others and not by a rule of its own, and a frame in which nothing is, of objects or of
answers, is passed over: a match before it and one after it are in a row.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, fields

import numpy as np

from opsin.track.pairs import EPSILON, Pairs, assign_frame, contested, count_each
from opsin.track.tracks import Flags, Integers

_KEEP = 1000.0  # the score of staying matched, above any sum of overlaps in a frame
_MOSTLY, _HARDLY = 0.8, 0.2  # shares of an object's frames: above is mostly tracked, below mostly lost


@dataclass(frozen=True, eq=False)
class ClearMatches:
    """Who is matched with whom. pairs: those that overlap enough, of which `chosen`, (P,) bool, are matches.

    switched: (P,) bool, a match whose object was last matched with another track. resumed: (P,) bool, a match whose
    object was matched before, and not in the frame before.
    """

    pairs: Pairs
    chosen: Flags
    switched: Flags
    resumed: Flags


@dataclass(frozen=True)
class Clear:
    """What the CLEAR metrics of a sequence, or of several, are computed from; all but the last are counts.

    frames: of those sequences that have both objects and answers. similarity: the sum of the overlaps of all matches.
    """

    matches: int = 0
    misses: int = 0
    false_positives: int = 0
    switches: int = 0
    fragments: int = 0
    mostly_tracked: int = 0
    partly_tracked: int = 0
    mostly_lost: int = 0
    frames: int = 0
    similarity: float = 0.0

    def figures(self) -> dict[str, float]:
        """The metrics. Shares in [0, 1] but mota, moda, smota and motal, which may be below 0; a few are counts.

        motp: the mean overlap of matches. motp_distance: 1 less that, as the paper has it. false_positives_per_frame,
        mota_log: MOTA with the logarithm of switches. smota: MOTA in which each match counts by its overlap.
        """
        objects, found = self.matches + self.misses, self.matches + self.false_positives
        tracks = max(1, self.mostly_tracked + self.partly_tracked + self.mostly_lost)
        log_switches = math.log10(self.switches) if self.switches else 0.0
        motp = self.similarity / max(1, self.matches)
        return {
            "mota": (self.matches - self.false_positives - self.switches) / max(1, objects),
            "motp": motp,
            "motp_distance": 1 - motp,
            "recall": self.matches / max(1, objects),
            "precision": self.matches / max(1, found),
            "f1": self.matches / max(1.0, self.matches + 0.5 * self.misses + 0.5 * self.false_positives),
            "moda": (self.matches - self.false_positives) / max(1, objects),
            "smota": (self.similarity - self.false_positives - self.switches) / max(1, objects),
            "mota_log": (self.matches - self.false_positives - log_switches) / max(1, objects),
            "false_positives_per_frame": self.false_positives / max(1, self.frames),
            "mostly_tracked_share": self.mostly_tracked / tracks,
            "partly_tracked_share": self.partly_tracked / tracks,
            "mostly_lost_share": self.mostly_lost / tracks,
            **{one.name: getattr(self, one.name) for one in fields(self)[:8]},
        }


def combine_clear(parts: Iterable[Clear]) -> Clear:
    """Several sequences as one."""
    each = list(parts)
    return Clear(**{one.name: sum(getattr(part, one.name) for part in each) for one in fields(Clear)})


def match_clear(pairs: Pairs, threshold: float = 0.5) -> ClearMatches:
    """Match objects and answers. threshold: the least IoU of a match."""
    near = pairs.where(pairs.similarity >= threshold - EPSILON)
    chosen = np.ones(len(near.truth), np.bool_)
    visited, objects = _visited(near), near.num_truth_ids
    starts = near.starts
    before = np.concatenate([[-1], np.maximum.accumulate(np.where(visited, np.arange(len(visited)), -1))])
    for frame in np.flatnonzero(contested(near)).tolist():
        rows = slice(int(starts[frame]), int(starts[frame + 1]))
        scores = near.similarity[rows].copy()
        if (last := int(before[frame])) >= 0:
            earlier = np.arange(starts[last], starts[last + 1])
            earlier = earlier[chosen[earlier]]
            kept = np.full(objects, -1)
            kept[near.truth_ids[near.truth[earlier]]] = near.track_ids[near.track[earlier]]
            scores += _KEEP * (kept[near.truth_ids[near.truth[rows]]] == near.track_ids[near.track[rows]])
        chosen[rows] = assign_frame(near, frame, rows, scores)
    return ClearMatches(near, chosen, *_events(near, chosen, np.cumsum(visited, dtype=np.int64)))


def _visited(pairs: Pairs) -> Flags:
    """(F,): the frames in which there are both objects and answers."""
    return (np.diff(pairs.truth_starts) > 0) & (np.diff(pairs.track_starts) > 0)


def _events(pairs: Pairs, chosen: Flags, order: Integers) -> tuple[Flags, Flags]:
    """Which matches are switches, and which resume after a gap. order: (F,), of the frames that are not passed over."""
    rows = np.flatnonzero(chosen)
    objects = pairs.truth_ids[pairs.truth[rows]]
    rows = rows[np.argsort(objects, kind="stable")]
    objects, tracks = pairs.truth_ids[pairs.truth[rows]], pairs.track_ids[pairs.track[rows]]
    when = order[pairs.frames[rows]]
    again = objects[1:] == objects[:-1]
    found = np.zeros((2, len(chosen)), np.bool_)
    found[0, rows[1:]] = again & (tracks[1:] != tracks[:-1])
    found[1, rows[1:]] = again & (np.diff(when) != 1)
    return found[0], found[1]


def count_clear(pairs: Pairs, threshold: float = 0.5) -> Clear:
    """The counts of a sequence; see `match_clear`."""
    objects, answers, matched = len(pairs.truth_ids), len(pairs.track_ids), match_clear(pairs, threshold)
    rows = np.flatnonzero(matched.chosen)
    own = pairs.truth_ids[matched.pairs.truth[rows]]
    share = count_each(own, pairs.num_truth_ids) / np.maximum(1, count_each(pairs.truth_ids, pairs.num_truth_ids))
    mostly = int((share > _MOSTLY).sum())
    partly = int((share >= _HARDLY).sum()) - mostly
    return Clear(
        matches=len(rows),
        misses=objects - len(rows),
        false_positives=answers - len(rows),
        switches=int(matched.switched.sum()),
        fragments=int(matched.resumed.sum()),
        mostly_tracked=mostly,
        partly_tracked=partly,
        mostly_lost=pairs.num_truth_ids - mostly - partly,
        frames=pairs.num_frames if objects and answers else 0,
        similarity=float(matched.pairs.similarity[rows].sum()),
    )
