"""Transfer by instances: examples of the sources count as much as they are like those of the target.

Shimodaira 2000, "Improving predictive inference under covariate shift by weighting the log-likelihood function".
"""

from __future__ import annotations

from abc import ABC, abstractmethod

import numpy as np

from opsin.adapt.method import Method
from opsin.adapt.selection import density_ratio


class InstanceMethod(Method, ABC):
    """The sources' examples get weights by what the network of the sources alone sees of them and of the target.

    Then the training begins anew with these. Weights have the mean 1.
    """

    family = "instances"
    mixes = False

    @abstractmethod
    def weigh(
        self, source: np.ndarray, target: np.ndarray, labels: np.ndarray, target_labels: np.ndarray
    ) -> np.ndarray:
        """The weights of the sources' examples, (n,), at least 0.

        source: (n, D), target: (m, D) float32 features. labels: (n,). target_labels: (m,), -1 where not known.
        """


def normalized_weights(weights: np.ndarray) -> np.ndarray:
    """Weights of mean 1; all 1 where they are 0 or not finite."""
    mean = weights.mean() if len(weights) else 0.0
    return weights / mean if np.isfinite(mean) and mean > 0 else np.ones_like(weights)


def effective_share(weights: np.ndarray) -> float:
    """(sum w)^2 / (n sum w^2): how much of the examples is left, 1 for equal weights. Kish 1965."""
    return float(weights.sum() ** 2 / (len(weights) * np.square(weights).sum()))


class DensityRatio(InstanceMethod):
    """Weights p(target | x) / p(source | x) of a logistic regression between the domains. Bickel et al. 2007.

    limit: the largest weight, beside a mean of 1: the ratio of domains that hardly meet is of few examples.
    """

    def __init__(self, features: int, num_classes: int, num_sources: int, *, limit: float = 10.0) -> None:
        super().__init__(features, num_classes, num_sources)
        self.limit = limit

    def weigh(
        self, source: np.ndarray, target: np.ndarray, labels: np.ndarray, target_labels: np.ndarray
    ) -> np.ndarray:
        return normalized_weights(density_ratio(source, target, source)).clip(0, self.limit)
