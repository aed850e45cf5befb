"""Batches of P identities with K examples each, which losses of pairs, triplets and episodes learn from.

Hermans et al. 2017, arXiv:1703.07737, section 2. The order of an epoch derives from (seed, epoch) alone, so that it is
the same for any number of processes and after a resume.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from opsin.checks import check_count
from opsin.data.decks import Deck
from opsin.data.loading import derive_seed
from opsin.errors import InputError

_ORDER = 0x1DE7_0000  # stands in the place of an index where the seed is that of an epoch's order


class IdentityBatches:
    """An order of `opsin.data.create_loader`: global batches of an epoch, in each the examples of an identity together.

    labels: (N,) int64, -1 of nobody known, which is left out. size: examples of a batch of all processes. images: of
    an identity in a batch; of one that has fewer all, and more of each where there are too few identities to fill it.
    An epoch has as many batches as examples fill; each deals the identities in turn from a shuffled deck, and the
    examples of each from a deck of its own, so that identities come equally often, whatever they have. A batch has no
    identity twice: where that leaves it short, it is smaller.
    Raises InputError where `size` is no multiple of `images`, and where it holds one identity alone.
    """

    def __init__(self, labels: np.ndarray, size: int, images: int, seed: int = 0) -> None:
        check_count("images", images)
        if check_count("size", size) % images or size // images < 2:
            raise InputError(
                f"a batch of {size} is not of two or more identities of {images} images; take a multiple of it"
            )
        known = np.flatnonzero(labels >= 0)
        order = known[np.argsort(labels[known], kind="stable")]
        starts = np.flatnonzero(np.diff(labels[order], prepend=-1))
        self.members: list[np.ndarray] = np.split(order, starts[1:])
        self.size, self.seed = size, seed
        self.images = max(images, -(-size // max(1, len(self.members))))
        full = sum(min(self.images, len(one)) for one in self.members)
        self.count = max(1, len(known) // max(1, min(size, full)))

    def __call__(self, epoch: int) -> Sequence[np.ndarray]:
        generator = torch.Generator().manual_seed(derive_seed(self.seed, epoch, _ORDER))
        people = Deck(np.arange(len(self.members)), generator)
        images = [Deck(one, generator) for one in self.members]
        return [self._batch(people, images) for _ in range(self.count)]

    def _batch(self, people: Deck, images: list[Deck]) -> np.ndarray:
        chosen: list[np.ndarray] = []
        taken: set[int] = set()
        room = self.size
        while room and len(taken) < len(self.members):
            one = people.deal_other(taken)
            taken.add(one)
            drawn = images[one].deal(min(self.images, len(self.members[one]), room))
            chosen.append(drawn)
            room -= len(drawn)
        return np.concatenate(chosen)
