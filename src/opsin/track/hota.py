"""HOTA: detection and association weighed alike, at every strictness of localisation.

Luiten et al. 2020, "HOTA: a higher order metric for evaluating multi-object tracking", arXiv:2009.07736. As TrackEval
has it, objects and answers are matched once a frame, by overlap times how well the two identities go together over the
whole sequence, and each threshold takes those matches that overlap enough.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np

from opsin.track.pairs import EPSILON, Pairs, assign, count_each
from opsin.track.tracks import Floats

ALPHAS = np.arange(0.05, 0.99, 0.05)  # the thresholds of overlap, (19,)
_TINY = 1e-10  # so that the localisation of no match at all is 1


def _zeros() -> Floats:
    return np.zeros(len(ALPHAS))


@dataclass(frozen=True, eq=False)
class Hota:
    """What HOTA is computed from, at each of `ALPHAS`: (19,) float64 each.

    matches, misses, false_positives: counts. similarity: the sum of the overlaps of matches. association, its recall
    and its precision: the sum over matches of how well the track of a match covers its object, and the reverse.
    """

    matches: Floats = field(default_factory=_zeros)
    misses: Floats = field(default_factory=_zeros)
    false_positives: Floats = field(default_factory=_zeros)
    similarity: Floats = field(default_factory=_zeros)
    association: Floats = field(default_factory=_zeros)
    association_recall: Floats = field(default_factory=_zeros)
    association_precision: Floats = field(default_factory=_zeros)

    def curves(self) -> dict[str, Floats]:
        """Each metric at each of `ALPHAS`, in [0, 1], (19,)."""
        matches, objects, found = self.matches, self.matches + self.misses, self.matches + self.false_positives
        some = np.maximum(1, matches)
        deta, recall = matches / np.maximum(1, objects + self.false_positives), matches / np.maximum(1, objects)
        assa = self.association / some
        return {
            "hota": np.sqrt(deta * assa),
            "deta": deta,
            "assa": assa,
            "detre": recall,
            "detpr": matches / np.maximum(1, found),
            "assre": self.association_recall / some,
            "asspr": self.association_precision / some,
            "loca": np.maximum(_TINY, self.similarity) / np.maximum(_TINY, matches),
            "owta": np.sqrt(recall * assa),
        }

    def figures(self) -> dict[str, float]:
        """The means of the curves over `ALPHAS`; hota_0 and loca_0 are at the first, hotaloca_0 is their product."""
        curves = self.curves()
        first = {"hota_0": float(curves["hota"][0]), "loca_0": float(curves["loca"][0])}
        means = {name: float(np.mean(curve)) for name, curve in curves.items()}
        return {**means, **first, "hotaloca_0": first["hota_0"] * first["loca_0"]}


def combine_hota(parts: Iterable[Hota]) -> Hota:
    """Several sequences as one: every match counts alike, in whichever it is."""
    each = list(parts)
    return Hota(**{name: sum((getattr(part, name) for part in each), _zeros()) for name in Hota.__dataclass_fields__})


def count_hota(pairs: Pairs) -> Hota:
    """The sums of a sequence."""
    objects, answers = len(pairs.truth_ids), len(pairs.track_ids)
    width = max(1, pairs.num_track_ids)
    both = pairs.truth_ids[pairs.truth] * width + pairs.track_ids[pairs.track]
    own, other = count_each(pairs.truth_ids, pairs.num_truth_ids), count_each(pairs.track_ids, width)
    which, inverse = np.unique(both, return_inverse=True)
    lengths = own[which // width].astype(np.float64), other[which % width].astype(np.float64)
    together = np.bincount(inverse, _normalised(pairs), len(which))
    alignment = together / (lengths[0] + lengths[1] - together)
    chosen = assign(pairs, alignment[inverse] * pairs.similarity)
    overlap, joint = pairs.similarity[chosen], inverse[chosen]
    enough = overlap[None] >= ALPHAS[:, None] - EPSILON
    matches = enough.sum(axis=1).astype(np.float64)
    counts = np.stack([np.bincount(joint[row], minlength=len(which)) for row in enough]).astype(np.float64)
    shares = [(counts * counts / np.maximum(1, of)).sum(axis=1)
              for of in (lengths[0] + lengths[1] - counts, lengths[0], lengths[1])]  # fmt: skip
    return Hota(matches, objects - matches, answers - matches, enough @ overlap, *shares)


def _normalised(pairs: Pairs) -> Floats:
    """(P,): the overlap of each pair, by all overlap that its two have in that frame, so that crowds weigh no more."""
    rows, columns = np.zeros(len(pairs.truth_ids)), np.zeros(len(pairs.track_ids))
    starts = pairs.starts
    for frame in np.flatnonzero(np.diff(starts)).tolist():
        part = slice(int(starts[frame]), int(starts[frame + 1]))
        first, last = pairs.truth_starts[frame : frame + 2]
        begin, end = pairs.track_starts[frame : frame + 2]
        matrix = np.zeros((last - first, end - begin))
        matrix[pairs.truth[part] - first, pairs.track[part] - begin] = pairs.similarity[part]
        rows[first:last], columns[begin:end] = matrix.sum(1), matrix.sum(0)
    total = columns[pairs.track] + rows[pairs.truth] - pairs.similarity
    return pairs.similarity / total
