"""Numbers as sines and cosines of rising frequencies, so that a small network can tell near ones apart."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from opsin.checks import check_count


def encode_positions(points: Tensor, frequencies: int, *, identity: bool = True, pi: bool = False) -> Tensor:
    """gamma(x) = (x, sin x, cos x, sin 2x, cos 2x, ..., sin 2^(L-1) x, cos 2^(L-1) x): (..., D (1 + 2 L)).

    Mildenhall et al. 2020, arXiv:2003.08934, eq. 4, which has no x and a factor of pi; the code published with it has x
    (`identity`) and no pi. points: (..., D). frequencies: L; 0 leaves x alone. Of each frequency all D sines come
    before all D cosines, as in that code: 63 numbers of 3 with L = 10, 27 with L = 4.
    """
    check_count("frequencies", frequencies, 0 if identity else 1)
    factor = math.pi if pi else 1.0
    powers = factor * 2.0 ** torch.arange(frequencies, dtype=points.dtype, device=points.device)
    angles = points[..., None, :] * powers[:, None]  # (..., L, D)
    waves = torch.stack([torch.sin(angles), torch.cos(angles)], dim=-2).flatten(-3)
    return torch.cat([points, waves], dim=-1) if identity else waves


def encoded_size(numbers: int, frequencies: int, *, identity: bool = True) -> int:
    """How many numbers `encode_positions` makes of so many."""
    return numbers * (2 * frequencies + bool(identity))
