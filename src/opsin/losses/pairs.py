"""Which pairs of a batch a loss learns from, where not all do."""

from __future__ import annotations

import torch
from torch import Tensor


def neighbouring_pairs(labels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Each example with the next of its own identity in the batch, and with the next of another.

    labels: (B,) int64, -1 is left out. Returns the places of the first and of the second, (M,) int64, and whether they
    are the same, (M,) bool. The batch is a ring, so that an identity of K has K pairs; M is 2 B where each example has
    one of its own and one of another. So as many are the same as are not, and each example counts as often as another.
    """
    count = len(labels)
    places = torch.arange(count, device=labels.device)
    ahead = (places[None, :] - places[:, None]) % max(count, 1)  # how far j is ahead of i
    known = (labels >= 0)[:, None] & (labels >= 0)[None, :]
    equal = labels[:, None] == labels[None, :]
    found = []
    for wanted, same in ((equal & known & (ahead > 0), True), (~equal & known, False)):
        nearest, partner = torch.where(wanted, ahead, count).min(dim=1) if count else (places, places)
        there = nearest < count
        found.append((places[there], partner[there], places.new_full((int(there.sum()),), int(same))))
    first, second, same = (torch.cat(column) for column in zip(*found, strict=True))
    return first, second, same.bool()
