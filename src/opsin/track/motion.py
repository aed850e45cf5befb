"""Where tracks will be: Kalman filters of constant velocity, for all tracks at once and for any time between frames.

Boxes stand in columns here, (4, N) of x1, y1, x2, y2, and so do states: a few NumPy calls move every track.

A filter of constant velocity whose noise is independent from one coordinate to the next never correlates two of them:
its 8 x 8 covariance is four blocks of 2 x 2. A state is therefore (5, 4, N): value, velocity, variance of the value,
covariance of both, and variance of the velocity, of four coordinates. It equals the filter in matrix form.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

NUM_ROWS = 5  # of a state
MAHALANOBIS_GATE = 9.4877  # the 95 % point of chi-squared with four degrees of freedom (DeepSORT, section 2.2)


class ConstantVelocity:
    """A Kalman filter of constant velocity (Kalman 1960) on four coordinates of a box, which a subclass chooses.

    The noise of a longer step is that of its frames added up: predicting twice by 1 is predicting once by 2, and any
    real number between follows the same polynomial. Where noise depends on the size of a box, it is that at the start.
    """

    def measure(self, boxes: Floats) -> Floats:
        """The four coordinates of boxes (4, N), (4, N)."""
        raise NotImplementedError

    def boxes(self, state: Floats) -> Floats:
        """The boxes of states (5, 4, N), (4, N)."""
        raise NotImplementedError

    def first_noise(self, values: Floats) -> Floats:
        """Variances of value and velocity of a new track, (2, 4, N) or (2, 4, 1). values: (4, N), as measured."""
        raise NotImplementedError

    def step_noise(self, values: Floats) -> Floats:
        """Variances that a frame adds to value and velocity, (2, 4, N) or (2, 4, 1)."""
        raise NotImplementedError

    def measurement_noise(self, values: Floats) -> Floats:
        """Variances of a measurement, (4, N) or (4, 1). values: (4, N), as predicted."""
        raise NotImplementedError

    def start(self, boxes: Floats) -> Floats:
        """States (5, 4, N) of tracks that begin with boxes (4, N): at rest, with much doubt about it."""
        values = self.measure(boxes)
        state = np.zeros((NUM_ROWS, *values.shape))
        state[0] = values
        state[2:5:2] = self.first_noise(values)
        return state

    def predict(self, state: Floats, elapsed: float | Floats = 1.0) -> None:
        """Move states (5, 4, N) on in place. elapsed: frames since the last prediction, above 0, or (N,)."""
        noise = self.step_noise(state[0])
        if isinstance(elapsed, float) and elapsed == 1.0:
            state[0] += state[1]
            state[2:4] += state[3:5]
            state[2] += state[3]  # which has the variance of the velocity by now: v + 2 c + d altogether
            state[2:5:2] += noise
            return
        values, velocities, variance, covariance, doubt = state
        velocity_in_value = elapsed * (elapsed - 1.0) * (2.0 * elapsed - 1.0) / 6.0  # the sum of squares below elapsed
        values += elapsed * velocities
        variance += elapsed * (2.0 * covariance + elapsed * doubt + noise[0]) + velocity_in_value * noise[1]
        covariance += elapsed * doubt + 0.5 * elapsed * (elapsed - 1.0) * noise[1]
        doubt += elapsed * noise[1]

    def correct(self, state: Floats, boxes: Floats) -> Floats:
        """States (5, 4, N) after boxes (4, N) were seen, a new array."""
        gain = state[2:4] / (state[2] + self.measurement_noise(state[0]))
        corrected = np.empty_like(state)
        corrected[:2] = state[:2] + gain * (self.measure(boxes) - state[0])
        corrected[2:4] = state[2:4] * (1.0 - gain[0])
        corrected[4] = state[4] - gain[1] * state[3]
        return corrected

    def distances(self, state: Floats, boxes: Floats) -> Floats:
        """Squared Mahalanobis distances (N, M) of boxes (4, M) from where states (5, 4, N) expect measurements."""
        values = state[0]
        spread = 1.0 / (state[2] + self.measurement_noise(values))
        away = values[:, :, None] - self.measure(boxes)[:, None, :]
        away *= away
        return np.einsum("cnm,cn->nm", away, spread)


class AreaRatioFilter(ConstantVelocity):
    """SORT's (Bewley et al. 2016, arXiv 1602.00763, section 3.2): centre, area and aspect ratio, which has no velocity.

    The paper states no noise; these are the numbers that its results, and OC-SORT's, are known to be made with.
    """

    _FIRST = np.array([[10.0] * 4, [1e4, 1e4, 1e4, 0.0]])[:, :, None]
    _STEP = np.array([[1.0] * 4, [0.01, 0.01, 1e-4, 0.0]])[:, :, None]
    _MEASURED = np.array([[1.0], [1.0], [10.0], [10.0]])

    def measure(self, boxes: Floats) -> Floats:
        """Centre x and y, area, width over height."""
        values = np.empty_like(boxes)
        sides = boxes[2:] - boxes[:2]
        values[:2] = 0.5 * (boxes[:2] + boxes[2:])
        np.multiply(sides[0], sides[1], out=values[2])
        np.divide(sides[0], sides[1], out=values[3])
        return values

    def boxes(self, state: Floats) -> Floats:
        """The boxes (4, N) of states (5, 4, N); a track whose area or ratio fell to 0 has a box of hardly any size."""
        values = state[0]
        boxes = np.empty_like(values)
        shape = np.maximum(values[2:], 1e-9)
        half = np.empty_like(shape)
        np.sqrt(shape[0] * shape[1], out=half[0])
        np.divide(shape[0], half[0], out=half[1])
        half *= 0.5
        np.subtract(values[:2], half, out=boxes[:2])
        np.add(values[:2], half, out=boxes[2:])
        return boxes

    def predict(self, state: Floats, elapsed: float | Floats = 1.0) -> None:
        """As `ConstantVelocity.predict`; an area that would fall to 0 stays as it is."""
        area, growth = state[0, 2], state[1, 2]
        grown = elapsed * growth
        grown += area
        if grown.size and grown.min() <= 0.0:
            growth[grown <= 0.0] = 0.0
        super().predict(state, elapsed)

    def first_noise(self, values: Floats) -> Floats:
        """10 of each value; 10,000 of each velocity."""
        return self._FIRST

    def step_noise(self, values: Floats) -> Floats:
        """1 of each value; 0.01 of the centre's velocity, 0.0001 of the area's."""
        return self._STEP

    def measurement_noise(self, values: Floats) -> Floats:
        """1 of the centre, 10 of area and ratio."""
        return self._MEASURED


# Standard deviations that grow with a box: a twentieth of its size of a value in a frame, a 160th of a velocity. At the
# beginning of a track twice and ten times as much.
_VALUE, _VELOCITY = 1.0 / 20.0, 1.0 / 160.0
_STEP = np.array([_VALUE, _VELOCITY])[:, None, None] ** 2
_FIRST = np.array([2.0 * _VALUE, 10.0 * _VELOCITY])[:, None, None] ** 2


class RatioHeightFilter(ConstantVelocity):
    """DeepSORT's and ByteTrack's (Wojke et al. 2017, arXiv 1703.07402, section 2.1): centre, width / height, height.

    Noise is a share of the height; that of the ratio is constant: 0.01 a frame, 1e-5 of its velocity, 0.1 measured.
    """

    _HEIGHTS = np.array([1.0, 1.0, 0.0, 1.0])[:, None]
    _RATIO = np.array([[0.0, 0.0, 1e-4, 0.0], [0.0, 0.0, 1e-10, 0.0]])[:, :, None]
    _MEASURED = np.array([0.0, 0.0, 1e-2, 0.0])[:, None]
    _STEP = _STEP * _HEIGHTS
    _SHARE = _VALUE**2 * _HEIGHTS

    def measure(self, boxes: Floats) -> Floats:
        """Centre x and y, width over height, height."""
        values = np.empty_like(boxes)
        sides = boxes[2:] - boxes[:2]
        values[:2] = 0.5 * (boxes[:2] + boxes[2:])
        np.divide(sides[0], sides[1], out=values[2])
        values[3] = sides[1]
        return values

    def boxes(self, state: Floats) -> Floats:
        """The boxes (4, N) of states (5, 4, N); never of negative size."""
        values = state[0]
        half = np.empty_like(values[:2])
        np.maximum(values[3], 1e-9, out=half[1])
        np.multiply(half[1], np.maximum(values[2], 1e-9), out=half[0])
        half *= 0.5
        return np.concatenate((values[:2] - half, values[:2] + half))

    def first_noise(self, values: Floats) -> Floats:
        """Shares of the height; 0.01 and 1e-5 of the ratio, as standard deviations."""
        return _FIRST * self._HEIGHTS * np.square(values[3]) + self._RATIO

    def step_noise(self, values: Floats) -> Floats:
        """Shares of the height; 0.01 and 1e-5 of the ratio, as standard deviations."""
        return self._STEP * np.square(values[3]) + self._RATIO

    def measurement_noise(self, values: Floats) -> Floats:
        """A twentieth of the height; 0.1 of the ratio, as standard deviations."""
        return self._SHARE * np.square(values[3]) + self._MEASURED


class WidthHeightFilter(ConstantVelocity):
    """BoT-SORT's (Aharon et al. 2022, arXiv 2206.14651, section 3.1): centre, width and height."""

    def measure(self, boxes: Floats) -> Floats:
        """Centre x and y, width, height."""
        values = np.empty_like(boxes)
        values[:2] = 0.5 * (boxes[:2] + boxes[2:])
        np.subtract(boxes[2:], boxes[:2], out=values[2:])
        return values

    def boxes(self, state: Floats) -> Floats:
        """The boxes (4, N) of states (5, 4, N); never of negative size."""
        values = state[0]
        half = 0.5 * np.maximum(values[2:], 1e-9)
        return np.concatenate((values[:2] - half, values[:2] + half))

    def first_noise(self, values: Floats) -> Floats:
        """Shares of the width for x and width, of the height for y and height."""
        return _FIRST * _squared_sides(values)

    def step_noise(self, values: Floats) -> Floats:
        """Shares of the width for x and width, of the height for y and height."""
        return _STEP * _squared_sides(values)

    def measurement_noise(self, values: Floats) -> Floats:
        """A twentieth of the width for x and width, of the height for y and height, as standard deviations."""
        return _VALUE**2 * _squared_sides(values)

    def warp(self, state: Floats, motion: Floats) -> None:
        """Carry states (5, 4, N) of the last frame over to this one, in place (BoT-SORT, section 3.2).

        motion: (2, 3), an affine map of pixels from the last frame to this one; its linear part turns velocities and
        sides as well. Of the covariance that a rotation brings between x and y nothing is kept: 0 for shift and zoom.
        """
        linear = motion[:, :2]
        for first in (0, 2):
            state[:2, first : first + 2] = np.einsum("ij,rjn->rin", linear, state[:2, first : first + 2])
            state[2:, first : first + 2] = np.einsum("ij,rjn->rin", linear**2, state[2:, first : first + 2])
        state[0, :2] += motion[:, 2:]
        np.abs(state[0, 2:], out=state[0, 2:])


def _squared_sides(values: Floats) -> Floats:
    """The squares of width and height, twice, (4, N)."""
    square = np.square(values[2:])
    return np.concatenate((square, square))
