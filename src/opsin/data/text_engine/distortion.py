"""Where the points of a flat text lie in an image: on an arc, in perspective, and in waves.

The distortion is known in both directions: an image is sampled through the inverse, and the corners of characters move
by the map itself, so that boxes stand where the ink is.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

_ROUNDS = 6  # of the fixed point that inverts the waves: each is at most 0.3 of the error before


@dataclass(frozen=True, eq=False)
class Distortion:
    """From pixels of a flat text to pixels of an image: an arc, then a projective map, then waves.

    centre: (x, y) of the text, the middle of its baseline. radius: of the circle that the baseline bends to, in pixels,
    negative with its ends up; 0 for none. matrix: (3, 3), of homogeneous points from the centre to the image. waves:
    rows of (amplitude x, amplitude y, frequency x, frequency y, phase): a point p of the image shows what lies at p +
    amplitude sin(2 pi f p + phase), in pixels and periods a pixel.
    """

    centre: tuple[float, float]
    radius: float
    matrix: np.ndarray
    waves: np.ndarray

    def apply(self, points: np.ndarray) -> np.ndarray:
        """Points of the flat text, (N, 2), in the image."""
        moved = self.flat(points)
        if not len(self.waves):
            return moved
        found = moved
        for _ in range(_ROUNDS):
            found = moved - self._wave(found[:, 0], found[:, 1]).T
        return found

    def flat(self, points: np.ndarray) -> np.ndarray:
        """The same without waves."""
        x, y = points[:, 0] - self.centre[0], points[:, 1] - self.centre[1]
        if self.radius:
            reach, angle = self.radius - y, x / self.radius
            x, y = reach * np.sin(angle), self.radius - reach * np.cos(angle)
        m = self.matrix
        depth = m[2, 0] * x + m[2, 1] * y + m[2, 2]
        return (
            np.stack([m[0, 0] * x + m[0, 1] * y + m[0, 2], m[1, 0] * x + m[1, 1] * y + m[1, 2]], axis=1)
            / depth[:, None]
        )

    def invert(self, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Of points of the image, x and y of one shape or broadcast to one, the points of the flat text."""
        if len(self.waves):
            dx, dy = self._wave(x, y)
            x, y = x + dx, y + dy
        m = np.linalg.inv(self.matrix).astype(x.dtype)
        depth = 1 / (m[2, 0] * x + m[2, 1] * y + m[2, 2])
        u = (m[0, 0] * x + m[0, 1] * y + m[0, 2]) * depth
        v = (m[1, 0] * x + m[1, 1] * y + m[1, 2]) * depth
        if self.radius:
            side = 1.0 if self.radius > 0 else -1.0
            away = self.radius - v
            reach = np.hypot(u, away)
            u, v = self.radius * np.arctan2(side * u, side * away), self.radius - side * reach
        return u + self.centre[0], v + self.centre[1]

    def _wave(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """Displacements x and y, (2, ...)."""
        total: np.ndarray = np.zeros((2, *np.broadcast_shapes(x.shape, y.shape)), x.dtype)
        for ax, ay, fx, fy, phase in self.waves.tolist():
            swing = np.sin((2 * np.pi * fx) * x + ((2 * np.pi * fy) * y + phase))
            total[0] += ax * swing
            total[1] += ay * swing
        return total


def outline_points(rects: np.ndarray, steps: int = 2) -> np.ndarray:
    """Points along the outlines of rectangles (N, 4), clockwise from the first corner: (N, 4 * steps, 2)."""
    along = np.arange(steps) / steps
    one, none, full = along, np.zeros(steps), np.ones(steps)
    x = np.concatenate([one, full, 1 - one, none])
    y = np.concatenate([none, one, full, 1 - one])
    x1, y1, x2, y2 = (rects[:, k, None] for k in range(4))
    return np.stack([x1 + (x2 - x1) * x, y1 + (y2 - y1) * y], axis=2)
