"""What R-CNN puts on the features of a network: a linear SVM and a ridge regression of the box for every class.

Girshick, Donahue, Darrell and Malik 2014, arXiv:1311.2524, section 2.3 and appendices B and C. Boxes of background are
too many to hold, so the SVMs see them shard by shard and keep the hard ones: those on the wrong side of the margin. A
negative beyond it adds nothing to the hinge loss, so that what is left out does not move the optimum.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from opsin.checks import check_count, check_number
from opsin.errors import InputError

Array = NDArray[Any]

_HARD, _EASY = -1.0001, -1.2  # margins at which a negative enters and leaves, as in the authors' code
_NEVER = -100.0  # the margin of a class that has no examples


class Shard(NamedTuple):
    """Features (n, D) of proposals, and for which classes each may stand as background: (n, K) bool."""

    features: Tensor
    background: Tensor


class Linear(NamedTuple):
    """K linear functions of features: weights (K, D), biases (K,), float32."""

    weights: Tensor
    biases: Tensor


@dataclass(frozen=True)
class Margin:
    """How an SVM is trained; the defaults are the authors' code's, but for a finer tolerance.

    cost: of the hinge loss of an example, beside half the squared norm of the weights; that of a positive times
    `positive_weight`. bias_scale: the constant feature that the bias is the weight of; the larger, the less the bias is
    held down. tolerance: liblinear's, at which it stops. retrain: new negatives of a class after which it is trained
    anew. passes: over all negatives; mining ends before where a pass finds no hard one.
    """

    cost: float = 1e-3
    positive_weight: float = 2.0
    bias_scale: float = 10.0
    tolerance: float = 1e-3
    retrain: int = 2000
    passes: int = 1

    def __post_init__(self) -> None:
        check_count("passes", self.passes)
        check_count("retrain", self.retrain)
        for name in ("cost", "positive_weight", "bias_scale", "tolerance"):
            check_number(name, getattr(self, name), above=True)


class _Miner:
    """The SVM of one class, and the examples that it holds."""

    def __init__(self, positives: Array, margin: Margin) -> None:
        self.positives, self.margin = positives, margin
        self.negatives = positives[:0]
        self.ids = np.empty(0, np.int64)
        self.weights: Array = np.zeros(positives.shape[1], np.float32)
        self.bias = 0.0
        self.waiting: list[tuple[Array, Array]] = []

    def look(self, features: Array, ids: Array) -> int:
        """Take the hard negatives that are not held yet; how many there were."""
        if not len(self.positives):
            return 0
        hard = features @ self.weights + self.bias > _HARD
        hard &= ~np.isin(ids, self.ids)
        if found := int(hard.sum()):
            self.waiting.append((features[hard], ids[hard]))
            if sum(len(new) for _, new in self.waiting) >= self.margin.retrain:
                self.train()
        return found

    def train(self) -> None:
        """Train on all that is held, then let the easy negatives go."""
        features, ids = zip(*self.waiting, strict=True) if self.waiting else ((), ())
        self.negatives = np.concatenate([self.negatives, *features])
        self.ids = np.concatenate([self.ids, *ids])
        self.waiting = []
        if not len(self.negatives):
            return
        self.weights, self.bias = fit_svm(self.positives, self.negatives, self.margin)
        held = self.negatives @ self.weights + self.bias >= _EASY
        self.negatives, self.ids = self.negatives[held], self.ids[held]


def load_solver() -> tuple[Any, type[Warning]]:
    """scikit-learn's LinearSVC, which is liblinear, and its warning; InputError where scikit-learn is not installed.

    It is imported here alone: detectors are listed, loaded and used without.
    """
    try:
        from sklearn.exceptions import ConvergenceWarning
        from sklearn.svm import LinearSVC
    except ImportError as error:
        raise InputError(f"linear SVMs need scikit-learn: pip install 'opsin[svm]' ({error})") from None
    return LinearSVC, ConvergenceWarning


def fit_svm(positives: Array, negatives: Array, margin: Margin) -> tuple[Array, float]:
    """Weights (D,) float32 and bias of one SVM with hinge loss, by liblinear's dual coordinate descent."""
    solver, warning = load_solver()
    machine = solver(
        loss="hinge",
        C=margin.cost,
        class_weight={1: margin.positive_weight},
        intercept_scaling=margin.bias_scale,  # type: ignore[arg-type]
        tol=margin.tolerance,
        max_iter=20_000,
        random_state=0,
    )
    wanted = np.repeat([1, 0], [len(positives), len(negatives)])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", warning)  # the weights it ends with are as good as the rest
        machine.fit(np.concatenate([positives, negatives]), wanted)
    return machine.coef_[0].astype(np.float32), float(machine.intercept_[0])  # type: ignore[index]


def mine_svms(
    positives: Sequence[Tensor], shards: Callable[[], Iterable[Shard]], margin: Margin | None = None
) -> Linear:
    """One SVM a class from its positives, (P_k, D) each, and the hard ones among all negatives.

    shards: starts a pass over the proposals, in the same order each time. A class without positives is never found.
    Raises InputError where a class has positives and no background at all.
    """
    margin = margin or Margin()
    miners = [_Miner(_array(one), margin) for one in positives]
    seen = np.zeros(len(miners), np.int64)
    for _ in range(margin.passes):
        start, found = 0, 0
        for features, background in shards():
            values, free = _array(features), background.numpy()
            ids = np.arange(start, start + len(values))
            start += len(values)
            seen += free.sum(axis=0)
            for place, miner in enumerate(miners):
                rows = free[:, place]
                found += miner.look(values[rows], ids[rows])
        for miner in miners:
            if miner.waiting:
                miner.train()
        if not found:
            break
    for place, miner in enumerate(miners):
        if len(miner.positives) and not seen[place]:
            raise InputError(
                f"class {place} has {len(miner.positives)} objects and no background to tell them from; "
                "take more proposals an image"
            )
    weights = np.stack([miner.weights for miner in miners])
    biases = [miner.bias if len(miner.positives) else _NEVER for miner in miners]
    return Linear(torch.from_numpy(weights), torch.tensor(biases, dtype=torch.float32))


def fit_ridge(features: Tensor, targets: Tensor, penalty: float = 1000.0) -> tuple[Tensor, Tensor]:
    """Weights (D, T) and intercepts (T,) that minimise ||features w + b - targets||^2 + penalty ||w||^2.

    Appendix C: features (N, D) are of pool5, targets (N, T) the offsets from proposals to their truth, penalty 1000.
    The intercept is free. Solved in float64, by the smaller of the two systems, D x D or N x N; zeros where N is 0.
    """
    check_number("penalty", penalty, above=True)
    x, y = features.double(), targets.double()
    if not len(x):
        return features.new_zeros(x.shape[1], y.shape[1]), features.new_zeros(y.shape[1])
    middle, mean = x.mean(dim=0), y.mean(dim=0)
    x, y = x - middle, y - mean
    if len(x) > x.shape[1]:
        weights = _solve(x.T @ x, x.T @ y, penalty)
    else:
        weights = x.T @ _solve(x @ x.T, y, penalty)
    return weights.to(features.dtype), (mean - middle @ weights).to(features.dtype)


def _solve(square: Tensor, right: Tensor, penalty: float) -> Tensor:
    square.diagonal().add_(penalty)
    return torch.cholesky_solve(right, torch.linalg.cholesky(square))


def _array(values: Tensor) -> Array:
    return values.float().numpy()
