"""Which epoch is best where the target has no labels: three criteria of what a network answers for its images."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from opsin.adapt.logistic_regression import fit_logistic
from opsin.errors import InputError

_MOST = 2000  # examples whose similarities to each other are looked at: their square is held in memory


def mean_entropy(answers: Tensor) -> float:
    """The mean over the target of H(p) = -sum_k p_k log p_k, in nats; lower is surer, and may be surely wrong.

    Morerio et al. 2018, arXiv:1711.10288. answers: (N, K), rows that sum to 1.
    """
    if not len(answers):
        raise InputError("the entropy of no answers is not defined; give images of the target")
    return float(-(answers * answers.clamp(min=1e-12).log()).sum(dim=1).mean())


def neighbourhood_density(answers: Tensor, temperature: float = 0.05) -> float:
    """SND: the entropy of the similarities of each answer to all others; higher: images lie in denser groups.

    S_ij = cos(p_i, p_j), P_ij = exp(S_ij / tau) / sum_{k != i} exp(S_ik / tau) for j != i,
    SND = -(1/N) sum_i sum_{j != i} P_ij log P_ij. Saito et al. 2021, arXiv:2108.10860, eq. 2 to 4, tau 0.05.

    answers: (N, K), rows that sum to 1, N at least 2. Of more than 2,000 those evenly spaced are taken.
    Raises InputError for fewer than two.
    """
    if len(answers) < 2:
        raise InputError("the density of neighbourhoods takes two or more answers; give more images of the target")
    if len(answers) > _MOST:
        answers = answers[torch.linspace(0, len(answers) - 1, _MOST).round().long()]
    units = torch.nn.functional.normalize(answers.double(), dim=1)
    scaled = units @ units.T / temperature
    scaled.fill_diagonal_(-torch.inf)
    shares = scaled.softmax(dim=1)
    return float(-torch.xlogy(shares, shares).sum(dim=1).mean())


def density_ratio(train: np.ndarray, target: np.ndarray, at: np.ndarray) -> np.ndarray:
    """w(x) = (n_S / n_T) p(target | x) / p(source | x), by a logistic regression between the domains.

    train: (n_S, D) of the sources, target: (n_T, D), at: (M, D) where it is wanted; returns (M,), at least 0.
    Features are brought to mean 0 and variance 1 of all. Bickel et al. 2007; You et al. 2019, eq. 4.
    """
    both = np.concatenate([train, target]).astype(np.float64)
    mean, scale = both.mean(axis=0), both.std(axis=0) + 1e-8
    of_target = np.concatenate([np.zeros(len(train)), np.ones(len(target))])
    model = fit_logistic((both - mean) / scale, of_target)
    share = model.probabilities((at - mean) / scale)[:, 1].clip(1e-6, 1 - 1e-6)
    return len(train) / len(target) * share / (1 - share)


def controlled_risk(weights: np.ndarray, losses: np.ndarray) -> float:
    """mean(w l) + eta mean(w) - eta, eta = -Cov(w l, w) / Var(w): the weighted risk with less variance.

    You et al. 2019, algorithm 1. weights, losses: (M,). Where all weights are equal eta is 0.
    """
    weighed = weights * losses
    variance = weights.var(ddof=1) if len(weights) > 1 else 0.0
    eta = 0.0 if variance == 0 else -np.cov(weighed, weights, ddof=1)[0, 1] / variance
    return float(weighed.mean() + eta * weights.mean() - eta)


def deep_embedded_validation(train: Tensor, target: Tensor, validated: Tensor, losses: Tensor) -> float:
    """DEV: what the risk on the target is likely to be, by the sources' validation images, weighed. Lower is better.

    You et al. 2019, "Towards accurate model selection in deep unsupervised domain adaptation", ICML. train: (n_S, D)
    features of the sources' training images; target: (n_T, D) of the target; validated: (M, D) of the sources'
    validation images, and losses: (M,) of these.
    """
    ratio = density_ratio(train.numpy(), target.numpy(), validated.numpy().astype(np.float64))
    return controlled_risk(ratio, losses.numpy().astype(np.float64))
