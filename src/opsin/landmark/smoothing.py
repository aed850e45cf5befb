"""Points of a video that tremble less: the one-euro filter, and how much they tremble.

Casiez, Roussel and Vogel 2012, 1 EUR Filter (doi:10.1145/2207676.2208639). A low pass whose cutoff rises with speed:
what stands still is smoothed much, what moves is smoothed little and lags little.
"""

from __future__ import annotations

import math

import numpy as np

from opsin.checks import check_number


class OneEuroFilter:
    """x_t = a x + (1 - a) x_{t-1}, a of a cutoff min_cutoff + beta |speed|; the speed is smoothed at `speed_cutoff`.

    Cutoffs are in Hz and speeds in units of the values a second, where `rate` is how many come in a second. Any array
    is filtered element by element; NaN is a value that is not known, and leaves the filter of its element as it was.
    """

    def __init__(self, rate: float, min_cutoff: float = 1.0, beta: float = 0.007, speed_cutoff: float = 1.0) -> None:
        self.rate = check_number("rate", rate, above=True)
        self.min_cutoff = check_number("min_cutoff", min_cutoff, above=True)
        self.beta = check_number("beta", beta)
        self.speed_cutoff = check_number("speed_cutoff", speed_cutoff, above=True)
        self._raw: np.ndarray | None = None
        self._value: np.ndarray | None = None
        self._speed: np.ndarray | None = None

    def __call__(self, values: np.ndarray) -> np.ndarray:
        """The next values, filtered."""
        values = np.asarray(values, np.float64)
        if self._raw is None or self._value is None or self._speed is None:
            self._raw, self._value, self._speed = values.copy(), values.copy(), np.zeros_like(values)
            return values.copy()
        known, fresh = ~np.isnan(values), np.isnan(self._value)
        speed = np.where(known & ~fresh, (values - self._raw) * self.rate, 0.0)
        weight = self._weight(np.full_like(values, self.speed_cutoff))
        new_speed = np.where(known & ~fresh, weight * speed + (1 - weight) * self._speed, self._speed)
        weight = self._weight(self.min_cutoff + self.beta * np.abs(new_speed))
        filtered = np.where(fresh, values, weight * values + (1 - weight) * self._value)
        self._raw = np.where(known, values, self._raw)
        self._value, self._speed = np.where(known, filtered, self._value), new_speed
        return np.where(known, filtered, np.nan)

    def _weight(self, cutoff: np.ndarray) -> np.ndarray:
        """a = 1 / (1 + tau / T), tau = 1 / (2 pi cutoff), T = 1 / rate."""
        return 1 / (1 + self.rate / (2 * math.pi * cutoff))


def measure_jitter(points: np.ndarray) -> float:
    """How much points (T, P, 2) of T frames tremble: the standard deviation of a coordinate around a steady motion.

    That of the second differences x_{t-1} - 2 x_t + x_{t+1} over sqrt(6), which is that of white noise on anything that
    moves at a constant speed. 0 for fewer than three frames; NaN are left out.
    """
    if len(points) < 3:
        return 0.0
    second = points[:-2] - 2 * points[1:-1] + points[2:]
    known = second[~np.isnan(second)]
    return float(np.sqrt((known**2).mean() / 6)) if known.size else 0.0
