"""Layers by name: a table of builders, and the errors of those who misspell."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from torch import Tensor

from opsin.errors import InputError, unknown

Layer = TypeVar("Layer")


def build(kind: str, table: Mapping[str, Callable[..., Layer]], name: str, *leading: Any, **options: Any) -> Layer:
    """What the builder of that name in a table makes of its leading arguments and options.

    kind: what the table holds, for the messages. Options are checked against the builder's signature.
    Raises InputError for an unknown name or option, with the nearest known ones, and for values that it refuses.
    """
    if name not in table:
        raise unknown(kind, name, table)
    known = [n for n in inspect.signature(table[name]).parameters if n not in ("device", "dtype")][len(leading) :]
    for option in options:
        if option not in known:
            raise unknown(f"option of {kind} {name}", option, known)
    try:
        return table[name](*leading, **options)
    except (TypeError, ValueError) as error:
        raise InputError(f"{kind} {name} cannot be built with {options}: {error}") from error


def check_map(layer: object, x: Tensor, channels: int | None = None) -> None:
    """Raise InputError unless x is a map of (B, C, H, W), with as many channels as the layer was built for."""
    name = type(layer).__name__
    if x.ndim != 4:
        raise InputError(f"{name} takes maps of shape (B, C, H, W), got {tuple(x.shape)}")
    if channels is not None and x.shape[1] != channels:
        raise InputError(f"{name} was built for {channels} channels, got a map of {tuple(x.shape)}")
