"""TrAdaBoost: boosting that trusts the few labelled examples of the target, and drops those sources that contradict.

Dai, Yang, Xue and Yu 2007, "Boosting for transfer learning", ICML.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from opsin.adapt.logistic_regression import LogisticRegression, fit_logistic
from opsin.adapt.weighting import InstanceMethod
from opsin.errors import InputError

_LARGEST_ERROR = 0.49  # an error of a half and more has no meaning for boosting


@dataclass
class Boosted:
    """What the boosting has learned. weights: of the sources' examples after the last round, (n,), of sum 1 with the
    target's. learners and betas: of each round; the second half of them answers.
    """

    weights: np.ndarray
    learners: list[LogisticRegression]
    betas: list[float]
    classes: np.ndarray

    def predict(self, features: np.ndarray) -> np.ndarray:
        """(M, D) -> (M,): the class with most votes, log(1 / beta_t) each, of rounds from ceil(N / 2) on. Algorithm 1.

        Of two classes that is the paper's rule.
        """
        votes = np.zeros((len(features), len(self.classes)))
        for learner, beta in list(zip(self.learners, self.betas, strict=True))[math.ceil(len(self.learners) / 2) :]:
            answers = np.searchsorted(self.classes, learner.predict(features))
            votes[np.arange(len(features)), answers] += math.log(1 / max(beta, 1e-10))
        return self.classes[votes.argmax(axis=1)]


def tradaboost(
    source: np.ndarray, labels: np.ndarray, target: np.ndarray, target_labels: np.ndarray, rounds: int = 20
) -> Boosted:
    """Algorithm 1, with logistic regressions as learners.

    In each round: a learner of all, by weights; eps, its weighted error on the target alone, at most 0.49;
    beta_t = eps / (1 - eps), beta = 1 / (1 + sqrt(2 ln n / N)). A source's weight times beta where it is wrong, a
    target's times 1 / beta_t where it is wrong. source: (n, D), labels: (n,), target: (m, D), all with labels.
    """
    n = len(source)
    features, classes = np.concatenate([source, target]), np.concatenate([labels, target_labels])
    weights = np.ones(len(features)) / len(features)
    fixed = 1 / (1 + math.sqrt(2 * math.log(max(n, 2)) / rounds))
    learners, betas = [], []
    for _ in range(rounds):
        weights /= weights.sum()
        learner = fit_logistic(features, classes, weights * len(weights))
        wrong = learner.predict(features) != classes
        error = float((weights[n:] * wrong[n:]).sum() / weights[n:].sum())
        error = min(max(error, 1e-6), _LARGEST_ERROR)
        beta = error / (1 - error)
        learners.append(learner)
        betas.append(beta)
        weights[:n] *= np.where(wrong[:n], fixed, 1.0)
        weights[n:] *= np.where(wrong[n:], 1 / beta, 1.0)
    weights /= weights.sum()
    return Boosted(weights[:n], learners, betas, np.unique(classes))


class TrAdaBoost(InstanceMethod):
    """The sources' examples count as much as a boosting with labelled target examples leaves of them. Dai et al. 2007.

    Boosting is of logistic regressions of the features; its weights then train the network. It needs labels of some of
    the target's images: adapt.target_labels. rounds: of boosting.
    """

    needs_labels = True

    def __init__(self, features: int, num_classes: int, num_sources: int, *, rounds: int = 20) -> None:
        super().__init__(features, num_classes, num_sources)
        if type(rounds) is not int or rounds < 2:
            raise InputError(f"rounds is {rounds!r}; expected a whole number of 2 or more")
        self.rounds = rounds

    def weigh(
        self, source: np.ndarray, target: np.ndarray, labels: np.ndarray, target_labels: np.ndarray
    ) -> np.ndarray:
        known = target_labels >= 0
        return tradaboost(source, labels, target[known], target_labels[known], self.rounds).weights
