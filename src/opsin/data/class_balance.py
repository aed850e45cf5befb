"""Batches in which every class comes equally often, whatever examples it has."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from opsin.checks import check_count
from opsin.data.decks import Deck
from opsin.data.loading import derive_seed
from opsin.errors import InputError

_ORDER = 0xBA1A_0000  # stands in the place of an index where the seed is that of an epoch's order


class BalancedBatches:
    """An order of `opsin.data.create_loader`: global batches of an epoch, whose examples are of all classes alike.

    classes: (N,) int64 of each example, as `Truth.strata` has them; -1 is left out. size: examples of a batch of all
    processes. An epoch is as long as it is without: N // size batches, or one. Classes are dealt in turn from a
    shuffled deck, and the examples of each from a deck of its own: those of a class with few come again and again, of
    one with many some come in a later epoch. The same for the same (seed, epoch).
    Raises InputError where there are not two classes.
    """

    def __init__(self, classes: np.ndarray, size: int, seed: int = 0) -> None:
        check_count("size", size)
        self.members = [np.flatnonzero(classes == k) for k in np.unique(classes[classes >= 0])]
        if len(self.members) < 2:
            raise InputError("train.sampling=balanced takes classes in turn, and this data has less than two")
        self.size, self.seed = size, seed
        self.count = max(1, sum(len(one) for one in self.members) // size)

    def __call__(self, epoch: int) -> Sequence[np.ndarray]:
        generator = torch.Generator().manual_seed(derive_seed(self.seed, epoch, _ORDER))
        turns = Deck(np.arange(len(self.members)), generator)
        decks = [Deck(one, generator) for one in self.members]
        return [
            np.array([int(decks[int(turns.deal(1)[0])].deal(1)[0]) for _ in range(self.size)])
            for _ in range(self.count)
        ]
