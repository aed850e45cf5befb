"""Criteria, by name: each a documented function, and a small module where it has state."""

from __future__ import annotations

import inspect
from typing import Any

import torch
from torch import nn

from opsin.errors import unknown
from opsin.losses.classification import BinaryCrossEntropy, CrossEntropy, binary_cross_entropy, cross_entropy

_LOSSES: dict[str, type[nn.Module]] = {"cross_entropy": CrossEntropy, "bce": BinaryCrossEntropy}

__all__ = [
    "BinaryCrossEntropy",
    "CrossEntropy",
    "binary_cross_entropy",
    "create_loss",
    "cross_entropy",
    "list_losses",
]


def list_losses() -> list[str]:
    """Names that `create_loss` knows."""
    return sorted(_LOSSES)


def create_loss(name: str, **options: Any) -> nn.Module:
    """The criterion of a recipe: a module of (logits, targets) -> scalar. Class weights may be plain lists.

    Raises InputError for an unknown name or option, with the nearest known ones.
    """
    if name not in _LOSSES:
        raise unknown("loss", name, _LOSSES)
    known = inspect.signature(_LOSSES[name]).parameters
    for option, value in options.items():
        if option not in known:
            raise unknown(f"option of {name}", option, known)
        if isinstance(value, (list, tuple)):
            options[option] = torch.tensor(value, dtype=torch.float32)
    return _LOSSES[name](**options)
