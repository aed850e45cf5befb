"""The modified Hausdorff distance of two drawings: what one-shot learning is held against, for it learns nothing."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from opsin.errors import InputError
from opsin.progress import follow

Array = np.ndarray


def ink_points(image: Tensor) -> Tensor:
    """The pixels of a drawing's ink, less their mean: (P, 2) float32. image: uint8 (C, H, W), ink is darker than 128.

    Raises InputError for a drawing without ink.
    """
    points = (image[:1].amax(dim=0) < 128).nonzero().double()
    if not len(points):
        raise InputError("a drawing has no ink: no pixel is darker than 128; the Hausdorff distance is of dark strokes")
    return (points - points.mean(dim=0)).float()


def modified_hausdorff(first: Tensor, second: Tensor) -> float:
    """The larger of the mean distances from the points of one to the nearest of the other.

    Dubuisson and Jain 1994, doi:10.1109/ICPR.1994.576361, d22 with f2. first, second: (P, 2) and (Q, 2).
    """
    distances = torch.cdist(first, second, compute_mode="donot_use_mm_for_euclid_dist")
    return float(torch.maximum(distances.amin(dim=1).mean(), distances.amin(dim=0).mean()))


def hausdorff_distances(queries: Sequence[Tensor], supports: Sequence[Tensor], wanted: Array | None = None) -> Array:
    """(Q, S) float64 of points of `ink_points`. wanted: (Q, S) bool, of which pairs; the others are infinitely far."""
    wanted = np.ones((len(queries), len(supports)), bool) if wanted is None else wanted
    found = np.full(wanted.shape, np.inf)
    for i in follow(range(len(queries)), "Hausdorff distances", "drawings"):
        places = np.flatnonzero(wanted[i]).tolist()
        for at in range(0, len(places), 64):
            some = places[at : at + 64]
            found[i, some] = _to_many(queries[i], [supports[j] for j in some])
    return found


def _to_many(points: Tensor, others: Sequence[Tensor]) -> Array:
    """`modified_hausdorff` of a drawing to several, which are padded to as many points as the largest has."""
    padded = torch.nn.utils.rnn.pad_sequence(list(others), batch_first=True)
    there = torch.arange(padded.shape[1]) < torch.tensor([len(one) for one in others])[:, None]
    squares = (points[None, :, None] - padded[:, None]).square_().sum(dim=3)
    squares = squares.masked_fill_(~there[:, None], torch.inf)
    forth = squares.amin(dim=2).sqrt_().mean(dim=1)
    back = (squares.amin(dim=1).sqrt_() * there).nan_to_num_(0, 0, 0).sum(dim=1) / there.sum(dim=1)
    return torch.maximum(forth, back).double().numpy()
