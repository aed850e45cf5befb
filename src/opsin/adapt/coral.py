"""Correlation alignment: the second moments of two domains are brought together.

Sun, Feng and Saenko 2016, "Return of frustratingly easy domain adaptation", arXiv:1511.05547; Sun and Saenko 2016,
"Deep CORAL", arXiv:1607.01719.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from opsin.adapt.features import Seen
from opsin.adapt.method import Method
from opsin.errors import InputError


def covariance(features: Tensor) -> Tensor:
    """C = (X^T X - (1^T X)^T (1^T X) / n) / (n - 1) of (n, D): (D, D). Deep CORAL, eq. 2 and 3."""
    if len(features) < 2:
        raise InputError(f"{len(features)} example has no covariance; take two or more of each domain")
    centred = features - features.mean(dim=0)
    return centred.T @ centred / (len(features) - 1)


def coral_loss(source: Tensor, target: Tensor) -> Tensor:
    """|C_S - C_T|_F^2 / (4 D^2). Deep CORAL, eq. 1. source: (n, D), target: (m, D)."""
    difference = covariance(source) - covariance(target)
    return difference.square().sum() / (4 * source.shape[1] ** 2)


def coral_map(source: np.ndarray, target: np.ndarray, regularization: float = 1.0) -> np.ndarray:
    """The source's features with the target's covariance: X_S (C_S + r I)^(-1/2) (C_T + r I)^(1/2).

    CORAL, algorithm 1, whose r is 1. source: (n, D), target: (m, D) float, both of mean 0: means are not brought
    together, as in the paper, which normalises each domain first. A classifier of the result is one for the target.
    """
    own = np.cov(source, rowvar=False) + regularization * np.eye(source.shape[1])
    other = np.cov(target, rowvar=False) + regularization * np.eye(target.shape[1])
    return source @ _power(own, -0.5) @ _power(other, 0.5)


def _power(matrix: np.ndarray, exponent: float) -> np.ndarray:
    """Of a symmetric matrix with eigenvalues above 0."""
    values, vectors = np.linalg.eigh(matrix)
    if values.min() <= 0:
        raise InputError("the covariance has no inverse; set the regularization above 0")
    return (vectors * values**exponent) @ vectors.T


class DeepCORAL(Method):
    """The distance of the covariances of the features as a loss. Sun and Saenko 2016.

    The paper takes the last layer, of classes; here the layer before, as most ports do. Its weight is to end near the
    classification loss: with features that are many or small, raise it.
    """

    def losses(self, seen: Seen) -> Mapping[str, Tensor]:
        source, target = seen.halves(seen.features.float())
        return {"coral": coral_loss(source, target)}


def coral_over_domains(features: Tensor, domains: Tensor) -> Tensor:
    """The mean over pairs of domains of |mean_a - mean_b|^2 / D + |C_a - C_b|_F^2 / D^2; 0 of fewer than two.

    As DomainBed has it (Gulrajani and Lopez-Paz 2020, arXiv:2007.01434), with means over entries for both terms.
    Domains with one example in the batch are left out.
    """
    groups = [features[domains == k] for k in domains.unique()]
    groups = [group for group in groups if len(group) > 1]
    terms = [
        (one.mean(0) - other.mean(0)).square().mean() + (covariance(one) - covariance(other)).square().mean()
        for i, one in enumerate(groups)
        for other in groups[i + 1 :]
    ]
    return torch.stack(terms).mean() if terms else features.sum() * 0.0
