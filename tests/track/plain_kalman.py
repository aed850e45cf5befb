"""Kalman's filter of one track as the textbook has it, in matrices of 8 x 8."""

from __future__ import annotations

import numpy as np

from opsin.track.motion import AreaRatioFilter, ConstantVelocity, RatioHeightFilter, WidthHeightFilter


class PlainKalman:
    """One track, 8 x 8: x' = F x, P' = F P F' + Q; K = P H' (H P H' + R)^-1 (Kalman 1960)."""

    def __init__(self, kind: type[ConstantVelocity], box: np.ndarray) -> None:
        self.kind = kind
        z = self.measure(box)
        self.x = np.concatenate([z, np.zeros(4)])
        if kind is AreaRatioFilter:
            self.covariance = np.diag([10.0, 10, 10, 10, 1e4, 1e4, 1e4, 0])
        else:
            value, velocity = self.deviations(z)
            self.covariance = np.diag(np.concatenate([2 * value, 10 * velocity]) ** 2)
            if kind is RatioHeightFilter:
                self.covariance[2, 2], self.covariance[6, 6] = 1e-2**2, 1e-5**2

    def measure(self, box: np.ndarray) -> np.ndarray:
        x1, y1, x2, y2 = box
        w, h = x2 - x1, y2 - y1
        shape = {AreaRatioFilter: (w * h, w / h), RatioHeightFilter: (w / h, h), WidthHeightFilter: (w, h)}[self.kind]
        return np.array([x1 + w / 2, y1 + h / 2, *shape])

    def deviations(self, z: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        if self.kind is WidthHeightFilter:
            unit = np.array([z[2], z[3], z[2], z[3]])
            return unit / 20, unit / 160
        value, velocity = np.full(4, z[3] / 20), np.full(4, z[3] / 160)
        value[2], velocity[2] = 1e-2, 1e-5
        return value, velocity

    def predict(self) -> None:
        if self.kind is AreaRatioFilter:
            noise = np.diag([1, 1, 1, 1, 0.01, 0.01, 1e-4, 0])
        else:
            noise = np.diag(np.concatenate(self.deviations(self.x)) ** 2)
        step = np.eye(8) + np.eye(8, k=4)
        self.x = step @ self.x
        self.covariance = step @ self.covariance @ step.T + noise

    def correct(self, box: np.ndarray) -> None:
        if self.kind is AreaRatioFilter:
            noise = np.diag([1.0, 1, 10, 10])
        else:
            deviation = self.deviations(self.x)[0]
            if self.kind is RatioHeightFilter:
                deviation[2] = 1e-1
            noise = np.diag(deviation**2)
        seen = np.eye(4, 8)
        self.spread = seen @ self.covariance @ seen.T + noise
        gain = self.covariance @ seen.T @ np.linalg.inv(self.spread)
        self.x = self.x + gain @ (self.measure(box) - seen @ self.x)
        self.covariance = (np.eye(8) - gain @ seen) @ self.covariance

    def box(self) -> np.ndarray:
        """Where the track is, x1, y1, x2, y2."""
        x, y, one, two = self.x[:4]
        if self.kind is AreaRatioFilter:
            w = np.sqrt(one * two)
            h = one / w
        else:
            w, h = (one * two, two) if self.kind is RatioHeightFilter else (one, two)
        return np.array([x - w / 2, y - h / 2, x + w / 2, y + h / 2])
