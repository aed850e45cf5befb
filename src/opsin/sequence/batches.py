"""Batches of sequences of about the same length, so that little of a batch is padding."""

from __future__ import annotations

import numpy as np
import torch

from opsin.data.loading import derive_seed

_POOL = 50  # batches that are sorted together: of random examples, so that batches differ from epoch to epoch
_BUCKETS = 0xB0C4_E750  # stands in the place of an index in the seed of an epoch's buckets


class Buckets:
    """Epoch -> its global batches. The examples are shuffled, sorted by length within pools, and the batches shuffled.

    lengths: (N,) int64. size: examples of a batch of all processes; the last of an epoch may have fewer.
    """

    def __init__(self, lengths: np.ndarray, size: int, seed: int) -> None:
        self.lengths, self.size, self.seed = lengths, size, seed

    def __call__(self, epoch: int) -> list[np.ndarray]:
        generator = torch.Generator().manual_seed(derive_seed(self.seed, epoch, _BUCKETS))
        places = torch.randperm(len(self.lengths), generator=generator).numpy()
        pool = self.size * _POOL
        pools = np.split(places, range(pool, len(places), pool))
        ordered = [one[np.argsort(self.lengths[one], kind="stable")] for one in pools]
        batches = [one[k : k + self.size] for one in ordered for k in range(0, len(one), self.size)]
        return [batches[k] for k in torch.randperm(len(batches), generator=generator).tolist()]
