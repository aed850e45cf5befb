"""Random draws of steps, from torch's global CPU generator, and checks of what they draw from."""

from __future__ import annotations

from collections.abc import Sequence

import torch


def happens(p: float) -> bool:
    """Draw whether something of this probability happens."""
    return float(torch.rand(1)) < p


def between(bounds: Sequence[float]) -> float:
    """Draw a number from a range, uniformly."""
    return float(bounds[0] + torch.rand(1) * (bounds[1] - bounds[0]))


def check_range(name: str, bounds: Sequence[float], least: float, most: float = float("inf")) -> None:
    """Raise ValueError for bounds that are not two numbers in order within [least, most]."""
    if len(bounds) != 2 or not least <= bounds[0] <= bounds[1] <= most or not bounds[1] > 0:
        limit = f", {least:g} or more" if most == float("inf") else f", from {least:g} to {most:g}"
        raise ValueError(f"{name} must be two numbers in order{limit}, got {list(bounds)}")


def check_probability(p: float) -> None:
    """Raise ValueError for what is no probability."""
    if not 0 <= p <= 1:
        raise ValueError(f"p is a probability, from 0 to 1, got {p}")
