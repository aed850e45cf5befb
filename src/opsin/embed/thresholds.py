"""The threshold of a model: up to which distance two images are taken for the same identity, and how it was fitted."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from opsin.embed.comparison import Comparison
from opsin.embed.verification import describe_far
from opsin.errors import InputError

Array = np.ndarray
_ROUNDS, _TOLERANCE = 100, 1e-10


@dataclass(frozen=True)
class Threshold:
    """Saved with a model, as plain JSON.

    distance: pairs up to it are accepted. far: the false accept rate that it was fitted for; tar: the true accept rate
    that it had. different, people: how many pairs of two identities, and identities, it was fitted on. slope, offset:
    of the probability 1 / (1 + exp(slope * distance + offset)) that a pair is the same, if half of all pairs were.
    """

    distance: float
    far: float
    tar: float
    different: int
    people: int
    slope: float
    offset: float

    def probability(self, distance: float) -> float:
        """That a pair at this distance is the same, if half of all pairs were."""
        power = self.slope * distance + self.offset
        return 1 / (1 + math.exp(min(700.0, power)))

    def describe(self) -> str:
        """In a line."""
        return (
            f"pairs up to a distance of {self.distance:.4g} are accepted: {100 * self.tar:.1f} % of the same and at "
            f"most {describe_far(self.far)} of two identities, by {self.different:,} pairs of {self.people:,} people"
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Threshold:
        """Of plain values. Raises TypeError, ValueError or KeyError for those that cannot be."""
        floats = {name: float(values[name]) for name in ("distance", "far", "tar", "slope", "offset")}
        if not all(map(math.isfinite, floats.values())) or not 0 < floats["far"] <= 1:
            raise ValueError("a threshold has numbers that cannot be")
        return cls(**floats, different=int(values["different"]), people=int(values["people"]))


def fit_threshold(comparison: Comparison, far: float) -> Threshold:
    """The threshold for a false accept rate, on pairs of people who are not in the test.

    Raises InputError where there are too few pairs of two identities to tell such a rate.
    """
    roc = comparison.roc
    if not 0 < far < 1:
        raise InputError(f"far is {far:g}; a false accept rate is above 0 and below 1, such as 1e-3")
    if not roc.resolves(far):
        raise InputError(
            f"a false accept rate of {describe_far(far)} takes {math.ceil(1 / far):,} pairs of two identities to be "
            f"seen, and there are {roc.different:,}; give a higher --far, or --data with more people"
        )
    tar, distance = roc.accept(far)
    if tar == 0:
        raise InputError(
            f"no pair of the same identity is accepted at a false accept rate of {describe_far(far)}: the model does "
            "not tell these people apart; give a higher --far, or train longer"
        )
    slope, offset = fit_probability(comparison)
    return Threshold(distance, far, tar, roc.different, len(comparison.counts), slope, offset)


def fit_probability(comparison: Comparison) -> tuple[float, float]:
    """Slope and offset of the logistic curve that both kinds of pairs, weighing the same, are likeliest under.

    Platt 1999, "Probabilistic Outputs for Support Vector Machines", with its targets (n + 1) / (n + 2) and 1 / (n + 2),
    which keep the slope finite where a threshold tells all pairs apart. Of histograms of the distances, by Newton.
    """
    middle = (comparison.edges[:-1] + comparison.edges[1:]) / 2
    scale = float(middle.std()) or 1.0
    x = np.stack([middle / scale, np.ones_like(middle)], axis=1)
    same, different = (counts / max(1, counts.sum()) for counts in (comparison.same, comparison.different))
    high, low = (
        (comparison.same.sum() + 1) / (comparison.same.sum() + 2),
        1 / (comparison.different.sum() + 2),
    )
    weights, targets = same + different, same * high + different * low
    found = np.zeros(2)
    for _ in range(_ROUNDS):
        probability = 1 / (1 + np.exp(np.clip(x @ found, -500, 500)))
        slope = x.T @ (targets - weights * probability)
        curvature = (x.T * (weights * probability * (1 - probability))) @ x + 1e-9 * np.eye(2)
        step = np.linalg.solve(curvature, slope)
        found = found - step * min(1.0, 5.0 / max(1e-9, float(np.abs(step).max())))
        if float(np.abs(step).max()) < _TOLERANCE:
            break
    return float(found[0] / scale), float(found[1])
