"""Verification: whether two images show the same identity, by a threshold on the distance of their embeddings.

A pair is accepted where its distance is at most the threshold. The true accept rate (TAR) is the share of pairs of the
same identity that are accepted, the false accept rate (FAR) that of pairs of two. Every number here is exact whatever
the number of pairs of two identities: they are only counted between the distances of the others, which are kept.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from opsin.errors import InputError

Array = np.ndarray
_SURE = 1.959964  # standard deviations around the mean that hold 95 % of a normal distribution


@dataclass(frozen=True)
class Roc:
    """A ROC curve by its corners.

    thresholds: (M,) the distances of pairs of the same identity, ascending, each once. same: (M,) how many of these
    pairs are at most so far. below, upto: (M,) how many pairs of two identities are nearer, and at most so far.
    different: all pairs of two identities. kept: a threshold that was asked for, and how many of these it accepts.
    """

    thresholds: Array
    same: Array
    below: Array
    upto: Array
    different: int
    kept: tuple[float, int] | None = None

    @classmethod
    def of(cls, distances: Array, same: Array, at: float | None = None) -> Roc:
        """That of pairs. distances: (P,) float. same: (P,) bool. at: a threshold at which `rates` are exact."""
        counts = PairCounts(distances[same], at)
        counts.add(distances[~same])
        return counts.roc()

    @property
    def auc(self) -> float:
        """The area under it: how often a pair of the same identity is nearer than one of two; equal ones count half."""
        new = np.diff(self.same, prepend=0)
        passed = self.different - (self.below + self.upto) / 2
        return float((new * passed).sum() / (self.same[-1] * self.different))

    @property
    def tar(self) -> Array:
        """(M,) the true accept rate at each threshold."""
        return self.same / self.same[-1]

    @property
    def far(self) -> Array:
        """(M,) the false accept rate at each threshold."""
        return self.upto / self.different

    def equal_error(self) -> tuple[float, float]:
        """The equal error rate, and the threshold where it is met: false accepts and false rejects are as frequent.

        Between two corners of the curve the rates are interpolated.
        """
        far = np.concatenate([[0.0], np.stack([self.below, self.upto], axis=1).ravel() / self.different, [1.0]])
        frr = 1 - np.concatenate(
            [[0.0], np.stack([_before(self.same), self.same], axis=1).ravel() / self.same[-1], [1.0]]
        )
        at = np.concatenate([self.thresholds[:1], np.repeat(self.thresholds, 2), self.thresholds[-1:]])
        place = int(np.argmax(far >= frr))
        left, right = max(0, place - 1), place
        gap, step = frr[left] - far[left], (far[right] - far[left]) - (frr[right] - frr[left])
        share = gap / step if step > 0 else 0.0
        rate = far[left] + share * (far[right] - far[left])
        return float(rate), float(at[left] + share * (at[right] - at[left]))

    def accept(self, far: float) -> tuple[float, float]:
        """The highest true accept rate at a false accept rate of at most `far`, and its threshold.

        The threshold is -infinity, which accepts nothing, where that of the nearest pair of the same accepts too many.
        """
        if not 0 < far <= 1:
            raise InputError(f"far is {far:g}; a false accept rate is above 0 and at most 1, such as 1e-3")
        place = int(np.searchsorted(self.upto, math.floor(far * self.different + 1e-9), side="right")) - 1
        return (0.0, -math.inf) if place < 0 else (float(self.tar[place]), float(self.thresholds[place]))

    def rates(self, threshold: float) -> tuple[float, float]:
        """The true and the false accept rate at a threshold, exact at corners and at the one that was asked for.

        At another the false accept rate is the highest that it can be there.
        """
        place = int(np.searchsorted(self.thresholds, threshold, side="right")) - 1
        if self.kept is not None and self.kept[0] == threshold:
            accepted = self.kept[1]
        elif place >= 0 and self.thresholds[place] == threshold:
            accepted = int(self.upto[place])
        else:
            accepted = int(self.below[place + 1]) if place + 1 < len(self.below) else self.different
        return (float(self.tar[place]) if place >= 0 else 0.0), accepted / self.different

    def resolves(self, far: float) -> bool:
        """Whether there are pairs enough for a false accept rate: one of two identities among 1 / far."""
        return far * self.different >= 1 - 1e-9


def _before(counts: Array) -> Array:
    return np.concatenate([[0], counts[:-1]])


class PairCounts:
    """Counts pairs of two identities between the distances of pairs of the same, any number of them, as they come.

    at: a threshold that those accepted are counted of, too.
    """

    def __init__(self, same: Array, at: float | None = None) -> None:
        if not len(same):
            raise InputError(
                "there is no pair of the same identity; verification needs identities of two images or more"
            )
        if not np.isfinite(same).all():
            raise InputError("a distance is not finite; the network that made the embeddings has diverged")
        self.thresholds, counts = np.unique(same, return_counts=True)
        self.same = counts.cumsum()
        self.below, self.upto = (np.zeros(len(counts) + 1, np.int64) for _ in range(2))
        self.different = self.accepted = 0
        self.at = at

    def add(self, different: Array) -> None:
        """Take the distances of pairs of two identities, (P,)."""
        if not np.isfinite(different).all():
            raise InputError("a distance is not finite; the network that made the embeddings has diverged")
        size = len(self.below)
        self.below += np.bincount(np.searchsorted(self.thresholds, different, side="right"), minlength=size)
        self.upto += np.bincount(np.searchsorted(self.thresholds, different, side="left"), minlength=size)
        self.different += len(different)
        if self.at is not None:
            self.accepted += int((different <= self.at).sum())

    def roc(self) -> Roc:
        """The curve of all that was taken."""
        if not self.different:
            raise InputError("there is no pair of two identities; verification needs two people or more")
        below, upto = self.below.cumsum()[:-1], self.upto.cumsum()[:-1]
        kept = None if self.at is None else (self.at, self.accepted)
        return Roc(self.thresholds, self.same, below, upto, self.different, kept)


def share_interval(right: int, count: int) -> tuple[float, float]:
    """Where a share that was seen as right / count lies with 95 % confidence, if the cases are independent.

    Wilson 1927, doi:10.1080/01621459.1927.10502953.
    """
    share, square = right / count, _SURE**2
    centre = (share + square / (2 * count)) / (1 + square / count)
    half = _SURE / (1 + square / count) * math.sqrt(share * (1 - share) / count + square / (4 * count**2))
    return max(0.0, centre - half), min(1.0, centre + half)


def interval_over_people(right: Array, count: Array, *, draws: int = 2000, seed: int = 0) -> tuple[float, float]:
    """The same where the cases of a person are not independent: 95 % of bootstrap draws of people.

    right, count: (K,) of each person, how many of their pairs are accepted, and how many there are.
    """
    random = np.random.RandomState(seed)
    chosen = random.randint(len(count), size=(draws, len(count)))
    shares = right[chosen].sum(axis=1) / np.maximum(1, count[chosen].sum(axis=1))
    low, high = np.quantile(shares, [0.025, 0.975])
    return float(low), float(high)


@dataclass(frozen=True)
class Folds:
    """Accuracy of verification over folds. accuracies, thresholds: (F,), of each fold and the one used on it."""

    accuracies: Array
    thresholds: Array

    @property
    def mean(self) -> float:
        """The mean accuracy of the folds."""
        return float(self.accuracies.mean())

    @property
    def error(self) -> float:
        """The standard error of the mean, as LFW reports it."""
        return float(self.accuracies.std(ddof=1) / math.sqrt(len(self.accuracies)))


def measure_folds(distances: Array, same: Array, folds: Array) -> Folds:
    """LFW's protocol: a threshold is chosen on all folds but one and used on that one, in turn.

    Huang et al. 2007, "Labeled Faces in the Wild", section III. distances: (P,). same: (P,) bool. folds: (P,) int64.
    The threshold is that of the highest accuracy; of several the middle one. Raises InputError for less than two folds.
    """
    names = np.unique(folds)
    if len(names) < 2:
        raise InputError(
            f"{len(names)} fold of pairs; a threshold is chosen on the others, so that it takes two or more"
        )
    accuracies, thresholds = [], []
    for name in names:
        inside = folds == name
        threshold = best_threshold(distances[~inside], same[~inside])
        accuracies.append(((distances[inside] <= threshold) == same[inside]).mean())
        thresholds.append(threshold)
    return Folds(np.array(accuracies), np.array(thresholds))


def best_threshold(distances: Array, same: Array) -> float:
    """The threshold of the highest accuracy, half-way to the next distance; of several the middle one."""
    order = np.argsort(distances, kind="stable")
    distances, same = distances[order], same[order]
    ends = np.flatnonzero(np.append(np.diff(distances) > 0, True))  # a threshold cannot part equal distances
    right = np.concatenate([[0], (np.cumsum(same) - np.cumsum(~same))[ends]])
    best = np.flatnonzero(right == right.max())
    place = int(best[len(best) // 2])
    if place == 0:
        return float(distances[0] - 1)
    at = ends[place - 1]
    return float(distances[at] if at + 1 == len(distances) else (distances[at] + distances[at + 1]) / 2)


def describe_far(far: float) -> str:
    """A false accept rate as it stands in the names of metrics: 1e-3, 0.02."""
    exponent = round(math.log10(far))
    return f"1e{exponent}" if math.isclose(far, 10.0**exponent, rel_tol=1e-9) else f"{far:g}"


def accept_rates(roc: Roc, rates: Sequence[float]) -> dict[str, float]:
    """The true accept rate at each false accept rate that there are pairs enough for, by the metric's name."""
    return {f"tar@far={describe_far(rate)}": roc.accept(rate)[0] for rate in rates if roc.resolves(rate)}
