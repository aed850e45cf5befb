"""Identities with what is asked of them: pairs that are the same or not, or runs of one-shot learning.

A split of such a truth is evaluated by its own questions, see the task that embeds.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np

from opsin.data.identities import Identities
from opsin.data.truth import Problem, Size, Summary


@dataclass(frozen=True, eq=False)
class ListedPairs(Identities):
    """Identities of images that stand in pairs. pairs: (P, 2) int64, places of both images in the split.

    is_same: (P,) bool. folds: (P,) int64, of each pair its fold, of which a threshold is chosen on the others; all 0
    where there are none. Images whose identity no list names have the label -1.
    """

    pairs: np.ndarray = field(default_factory=lambda: np.zeros((0, 2), np.int64))
    is_same: np.ndarray = field(default_factory=lambda: np.zeros(0, bool))
    folds: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))

    def select(self, places: np.ndarray) -> ListedPairs:
        """Those pairs are kept of which both images are."""
        new = np.full(len(self), -1, np.int64)
        new[places] = np.arange(len(places))
        pairs = new[self.pairs]
        kept = (pairs >= 0).all(axis=1)
        return replace(
            self, labels=self.labels[places], pairs=pairs[kept], is_same=self.is_same[kept], folds=self.folds[kept]
        )

    def problems(self, sizes: Mapping[int, Size], training: bool = False) -> list[Problem]:
        if training:
            return super().problems(sizes, training)
        found = []
        keys = [tuple(sorted(pair)) for pair in self.pairs.tolist()]
        if twice := len(keys) - len(set(keys)):
            found.append(Problem("pairs_twice", "", f"{twice:,} pairs stand in {{split}} more than once", "warning"))
        if len(self.is_same) and (self.is_same.all() or not self.is_same.any()):
            kind = "the same identity" if self.is_same.all() else "two identities"
            found.append(Problem("pairs_of_one_kind", "", f"all pairs of {{split}} are of {kind}; nothing tells apart"))
        return found

    def summary(self) -> Summary:
        same = int(self.is_same.sum())
        folds = len(np.unique(self.folds)) if len(self.folds) else 0
        words = f"{len(self.pairs):,} pairs, {same:,} the same" + (f", {folds} folds" if folds > 1 else "")
        return Summary(kind=words, section="identities")


@dataclass(frozen=True, eq=False)
class OneShotRuns(Identities):
    """Identities in runs of one-shot learning: each query is held against all the supports of its run.

    run: (N,) int64, of each image its run. query: (N,) bool, whether it is asked, else it is shown.
    """

    run: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))
    query: np.ndarray = field(default_factory=lambda: np.zeros(0, bool))

    def select(self, places: np.ndarray) -> OneShotRuns:
        return replace(self, labels=self.labels[places], run=self.run[places], query=self.query[places])

    def problems(self, sizes: Mapping[int, Size], training: bool = False) -> list[Problem]:
        return super().problems(sizes, training) if training else []

    def summary(self) -> Summary:
        trials, runs = int(self.query.sum()), len(np.unique(self.run))
        return Summary(kind=f"{runs} one-shot runs, {trials:,} trials", section="identities")
