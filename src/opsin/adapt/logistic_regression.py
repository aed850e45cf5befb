"""Logistic regression of features, as discriminators of domains and learners of boosting need it, by scipy alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.optimize import minimize
from scipy.special import log_softmax, softmax

from opsin.errors import InputError


@dataclass(frozen=True)
class LogisticRegression:
    """softmax(x W + b). weight: (D, K). bias: (K,). classes: (K,), what the columns stand for."""

    weight: np.ndarray
    bias: np.ndarray
    classes: np.ndarray

    def probabilities(self, features: np.ndarray) -> np.ndarray:
        """(N, D) -> (N, K)."""
        return softmax(features @ self.weight + self.bias, axis=1)

    def predict(self, features: np.ndarray) -> np.ndarray:
        """(N, D) -> (N,), of `classes`."""
        return self.classes[(features @ self.weight + self.bias).argmax(axis=1)]


def fit_logistic(
    features: np.ndarray,
    labels: np.ndarray,
    weights: np.ndarray | None = None,
    *,
    inverse_penalty: float = 1.0,
    steps: int = 300,
) -> LogisticRegression:
    """The W and b that minimise |W|^2 / 2 + C sum_i w_i cross-entropy_i, by L-BFGS.

    features: (N, D). labels: (N,), of two values or more. weights: (N,), the w; 1 if None. inverse_penalty: C. That is
    scikit-learn's objective with its multinomial loss; of two classes its binary one has a penalty half as strong for
    the same C. Raises InputError for labels of one value.
    """
    classes, targets = np.unique(labels, return_inverse=True)
    if len(classes) < 2:
        raise InputError("a logistic regression separates classes, and there is one alone; give examples of two")
    x, count = features.astype(np.float64), len(classes)
    share = np.ones(len(x)) if weights is None else weights.astype(np.float64)
    hot = np.eye(count)[targets]

    def objective(flat: np.ndarray) -> tuple[float, np.ndarray]:
        matrix = flat.reshape(-1, count)
        logits = x @ matrix[:-1] + matrix[-1]
        logs: Any = log_softmax(logits, axis=1)
        residual = share[:, None] * (np.exp(logs) - hot)
        slope = np.concatenate(
            [inverse_penalty * x.T @ residual + matrix[:-1], inverse_penalty * residual.sum(0)[None]]
        )
        loss = -inverse_penalty * (share[:, None] * hot * logs).sum() + np.square(matrix[:-1]).sum() / 2
        return float(loss), slope.ravel()

    start = np.zeros((x.shape[1] + 1) * count)
    found = minimize(objective, start, jac=True, method="L-BFGS-B", options={"maxiter": steps})
    matrix = found.x.reshape(-1, count)
    return LogisticRegression(matrix[:-1], matrix[-1], classes)
