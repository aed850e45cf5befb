"""The identity metrics: how long each object is followed by the one track that follows it best.

Ristani et al. 2016, "Performance measures and a data set for multi-target, multi-camera tracking", arXiv:1609.01775.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, fields

import numpy as np

from opsin.track.pairs import Pairs
from opsin.track.tracks import Floats


@dataclass(frozen=True)
class Identity:
    """Boxes of objects and of answers: those of the same identity, and the rest of either, over the whole sequence."""

    id_true_positives: int = 0
    id_false_negatives: int = 0
    id_false_positives: int = 0

    def figures(self) -> dict[str, float]:
        """idf1, idp (precision), idr (recall), in [0, 1]."""
        right, missed, wrong = self.id_true_positives, self.id_false_negatives, self.id_false_positives
        return {
            "idf1": right / max(1.0, right + 0.5 * wrong + 0.5 * missed),
            "idp": right / max(1, right + wrong),
            "idr": right / max(1, right + missed),
            **{one.name: getattr(self, one.name) for one in fields(self)},
        }


def combine_identity(parts: Iterable[Identity]) -> Identity:
    """Several sequences as one; identities are not carried from one to the next."""
    each = list(parts)
    return Identity(**{one.name: sum(getattr(part, one.name) for part in each) for one in fields(Identity)})


def shared_frames(pairs: Pairs, threshold: float = 0.5) -> Floats:
    """(objects, tracks): in how many frames each object and each track overlap enough."""
    near = pairs.similarity >= threshold
    shape = pairs.num_truth_ids, pairs.num_track_ids
    places = pairs.truth_ids[pairs.truth[near]] * shape[1] + pairs.track_ids[pairs.track[near]]
    return np.bincount(places, minlength=shape[0] * shape[1]).reshape(shape).astype(np.float64)


def count_identity(pairs: Pairs, threshold: float = 0.5) -> Identity:
    """The counts of a sequence. threshold: the least IoU of boxes that may be the same.

    Objects and tracks are assigned one to one so that most boxes agree, which is the paper's minimum of boxes that do
    not: an object whose n boxes and a track whose m boxes agree k times leave n + m - 2k.
    """
    from scipy.optimize import linear_sum_assignment

    shared = shared_frames(pairs, threshold)
    right = int(shared[linear_sum_assignment(shared, maximize=True)].sum())
    return Identity(right, len(pairs.truth_ids) - right, len(pairs.track_ids) - right)
