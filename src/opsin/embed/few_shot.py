"""Few-shot learning: which of some new classes an image is of, of each of which a few images are shown."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from opsin.checks import check_count
from opsin.errors import InputError

Array = np.ndarray
EPISODES = 10_000


@dataclass(frozen=True)
class Shots:
    """How often the class was found. right: (T,) float64, of each trial, or the share of each episode."""

    right: Array

    @property
    def accuracy(self) -> float:
        """The share that was right."""
        return float(self.right.mean())

    @property
    def errors(self) -> int:
        """How many trials were wrong."""
        return round(float((1 - self.right).sum()))

    @property
    def interval(self) -> float:
        """Half the width of its 95 % interval over trials or episodes."""
        spread = float(self.right.std(ddof=1)) if len(self.right) > 1 else 0.0
        return 1.96 * spread / math.sqrt(len(self.right))

    def to_dict(self) -> dict[str, float]:
        """Plain values."""
        return {"accuracy": self.accuracy, "interval": self.interval, "trials": len(self.right)}


def run_trials(distances: Array, labels: Array, answers: Array, allowed: Array) -> Shots:
    """Each query is of the class of its nearest support. Lake et al. 2015, doi:10.1126/science.aab3050, one-shot runs.

    distances: (Q, S). labels: (Q,) and answers: (S,) int64, their classes. allowed: (Q, S) bool, the supports that each
    query is held against. Of equal distances the first counts.
    """
    nearest = np.where(allowed, distances, np.inf).argmin(axis=1)
    return Shots((answers[nearest] == labels).astype(np.float64))


def run_mixed(distances: Array, *, ways: int = 5, episodes: int = EPISODES, seed: int = 0) -> Shots:
    """Episodes over pairs of one query and one support of a class: `ways` pairs are drawn, each query is answered.

    distances: (P, P), of the i-th query to the j-th support; the i-th pair is of the i-th class.
    """
    check_count("ways", ways, 2)
    if ways > len(distances):
        raise InputError(f"{ways} ways of {len(distances)} classes; give as many at most")
    random = np.random.RandomState(seed)
    right = np.empty(episodes)
    for number in range(episodes):
        drawn = random.choice(len(distances), ways, replace=False)
        right[number] = (distances[np.ix_(drawn, drawn)].argmin(axis=1) == np.arange(ways)).mean()
    return Shots(right)


def run_episodes(
    embeddings: Tensor,
    labels: Array,
    *,
    ways: int = 5,
    shots: int = 1,
    queries: int = 5,
    episodes: int = 1000,
    seed: int = 0,
) -> Shots:
    """Episodes over identities: `ways` are drawn, `shots` images of each are shown, and `queries` others are answered.

    A query is of the identity whose shown images have the nearest mean: Snell et al. 2017, arXiv:1703.05175, eq. 1 and
    2, with Euclidean distances. embeddings: (N, D), as they are compared. labels: (N,) int64, -1 is nobody. An identity
    takes part that has more than `shots` images; one with fewer than `queries` others is asked for those that it has.
    """
    check_count("ways", ways, 2)
    for option, value in (("shots", shots), ("queries", queries)):
        check_count(option, value)
    members = {k: np.flatnonzero(labels == k) for k in np.unique(labels[labels >= 0]).tolist()}
    able = [k for k, places in members.items() if len(places) > shots]
    if len(able) < ways:
        raise InputError(
            f"{len(able)} identities have more than {shots} image{'s' * (shots > 1)}, and an episode takes {ways}; "
            "give fewer --ways or --shots"
        )
    random, right = np.random.RandomState(seed), np.empty(episodes)
    for number in range(episodes):
        chosen = [able[k] for k in random.choice(len(able), ways, replace=False)]
        drawn = [random.permutation(members[k])[: shots + queries] for k in chosen]
        centres = torch.stack([embeddings[places[:shots]].mean(dim=0) for places in drawn])
        asked = np.concatenate([places[shots:] for places in drawn])
        truth = np.repeat(np.arange(ways), [len(places) - shots for places in drawn])
        nearest = torch.cdist(embeddings[asked], centres).argmin(dim=1).cpu().numpy()
        right[number] = (nearest == truth).mean()
    return Shots(right)
