"""Batches of two domains: one half of the sources, each as often as another, one half of the target."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from opsin.checks import check_count
from opsin.data.decks import Deck
from opsin.data.loading import derive_seed
from opsin.errors import InputError

_ORDER = 0xADA9_0000  # stands in the place of an index where the seed is that of an epoch's order


class DomainBatches:
    """An order of `opsin.data.create_loader`: global batches of an epoch, half of them of the domains that teach.

    domains: (N,) int64, -1 of the target. labelled: (N,) bool. size: examples of a batch of all processes, half of each
    side; without a target that half is left out, so that a training with it sees the same labelled images as one
    without. An epoch has as many batches as the sources fill. Where a part of the target is labelled, those images come
    as often as those of one source more. Sources and target alternate, so that each process gets some of both.
    The same for the same (seed, epoch). Raises InputError for a side with fewer images than half a batch.
    """

    def __init__(
        self, domains: np.ndarray, labelled: np.ndarray, size: int, seed: int = 0, *, target: bool = True
    ) -> None:
        half = check_count("size", size) // 2
        groups = [np.flatnonzero((domains == k) & labelled) for k in np.unique(domains[labelled])]
        self.sources = [group for group in groups if len(group)]
        self.target = np.flatnonzero((domains < 0) & ~labelled) if target else np.arange(0)
        if target and not len(self.target):
            self.target = np.flatnonzero(domains < 0)
        taught = sum(len(one) for one in self.sources)
        if half < max(1, len(self.sources)):
            raise InputError(
                f"train.batch_size is {size}, half of which is for {len(self.sources)} labelled domains; take "
                f"{2 * max(1, len(self.sources))} or more"
            )
        for name, count in (("sources have", taught), *((("target has", len(self.target)),) if target else ())):
            if count < half:
                raise InputError(
                    f"the {name} {count} images to train on, fewer than the {half} that are its half of a batch of "
                    f"{size}; set train.batch_size={max(2, 2 * count)} or lower, or give more images"
                )
        self.half, self.seed = half, seed
        self.count = max(1, taught // half)

    def __call__(self, epoch: int) -> Sequence[np.ndarray]:
        generator = torch.Generator().manual_seed(derive_seed(self.seed, epoch, _ORDER))
        decks = [Deck(one, generator) for one in self.sources]
        of_target = torch.Generator().manual_seed(derive_seed(self.seed, epoch, _ORDER + 1))
        deck = Deck(self.target, of_target)
        batches = []
        for step in range(self.count):
            taught = self._taught(decks, step)
            if not len(self.target):
                batches.append(taught)
                continue
            batches.append(np.stack([taught, deck.deal(self.half)], axis=1).reshape(-1))
        return batches

    def _taught(self, decks: Sequence[Deck], step: int) -> np.ndarray:
        """Half a batch of labelled examples, of each domain as many; what is left over goes around."""
        share, rest = divmod(self.half, len(decks))
        dealt = []
        for place, deck in enumerate(decks):
            wanted = share + ((place - step) % len(decks) < rest)
            while wanted:
                part = deck.deal(min(wanted, len(deck.cards)))
                dealt.append(part)
                wanted -= len(part)
        return np.concatenate(dealt)
