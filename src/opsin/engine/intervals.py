"""How sure a mean of a few trainings is: Student's intervals, of a mean, of paired and of unpaired differences.

"Student", The probable error of a mean, Biometrika 1908; Welch, The generalization of "Student's" problem, 1947.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import stdtrit

from opsin.errors import InputError


@dataclass(frozen=True)
class Interval:
    """A mean of `count` values, and half the width of its interval of confidence `level`; None where one value is."""

    mean: float
    half: float | None
    count: int
    level: float = 0.95

    @property
    def low(self) -> float:
        """The lower end; -inf of a single value."""
        return -math.inf if self.half is None else self.mean - self.half

    @property
    def high(self) -> float:
        """The upper end; inf of a single value."""
        return math.inf if self.half is None else self.mean + self.half

    @property
    def beyond_noise(self) -> bool:
        """Whether the interval leaves zero out: of a difference, that it is more than noise."""
        return self.low > 0 or self.high < 0


def mean_interval(values: Sequence[float] | np.ndarray, level: float = 0.95) -> Interval:
    """The mean of values and its interval by Student's t with n - 1 degrees of freedom.

    level: between 0 and 1. Raises InputError for no values and for a level out of its range.
    """
    found = _values(values, level)
    count = len(found)
    if count == 1:
        return Interval(float(found[0]), None, 1, level)
    error = float(found.std(ddof=1)) / math.sqrt(count)
    return Interval(float(found.mean()), error * _quantile(count - 1, level), count, level)


def paired_difference(
    values: Sequence[float] | np.ndarray, reference: Sequence[float] | np.ndarray, level: float = 0.95
) -> Interval:
    """The mean of values[k] - reference[k], where k is one seed of both, and its interval.

    What a seed does to both sides alike, by the order of the images, say, is no part of it. Raises InputError for
    sequences of different lengths.
    """
    if len(values) != len(reference):
        raise InputError(f"{len(values)} values cannot be paired with {len(reference)}; give as many of each")
    return mean_interval([one - other for one, other in zip(values, reference, strict=True)], level)


def unpaired_difference(
    values: Sequence[float] | np.ndarray, reference: Sequence[float] | np.ndarray, level: float = 0.95
) -> Interval:
    """mean(values) - mean(reference) of samples that have nothing in common, and Welch's interval of it."""
    one, other = _values(values, level), _values(reference, level)
    mean, count = float(one.mean() - other.mean()), min(len(one), len(other))
    if count < 2:
        return Interval(mean, None, count, level)
    parts = [float(each.var(ddof=1)) / len(each) for each in (one, other)]
    if not sum(parts):
        return Interval(mean, 0.0, count, level)
    freedom = sum(parts) ** 2 / sum(p**2 / (len(each) - 1) for p, each in zip(parts, (one, other), strict=True))
    return Interval(mean, math.sqrt(sum(parts)) * _quantile(freedom, level), count, level)


def _values(values: Sequence[float] | np.ndarray, level: float) -> np.ndarray:
    if not 0 < level < 1:
        raise InputError(f"the level of confidence is {level}; expected a number between 0 and 1, such as 0.95")
    if not len(values):
        raise InputError("there are no values to take the mean of")
    return np.asarray(values, np.float64)


def _quantile(freedom: float, level: float) -> float:
    """Of Student's t: what |t| exceeds with probability 1 - level."""
    return float(stdtrit(freedom, (1 + level) / 2))
