"""What a callback may keep in a checkpoint: what is read again without running code."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from opsin.errors import InputError

# What `torch.load(weights_only=True)` makes again, all by itself; subclasses are objects of their own.
_PLAIN = (type(None), bool, int, float, complex, str, bytes, torch.dtype, torch.device, torch.Size)
_HOLDING = (list, tuple, set, dict, OrderedDict)


def check_state(key: str, state: Any) -> None:
    """Raise InputError for the state of a callback that a resumed run could not read, naming what is wrong in it.

    key: of the callback, as Lightning has it.
    """
    for place, value in _objects(state, "state_dict()"):
        kind = f"{type(value).__module__}.{type(value).__qualname__}"
        name = key.partition("{")[0]
        raise InputError(
            f"the callback {name} keeps a {kind} at {place}, and a checkpoint holds plain values and tensors alone: "
            "numbers, texts, lists, tuples, sets and dicts of them"
        )


def _objects(value: Any, place: str) -> Iterator[tuple[str, Any]]:
    """What is neither plain nor a tensor, with where it is."""
    if type(value) in (dict, OrderedDict):
        for key, one in value.items():
            yield from _objects(key, f"{place}, in its keys")
            yield from _objects(one, f"{place}[{key!r}]")
    elif type(value) in _HOLDING:
        for i, one in enumerate(value):
            yield from _objects(one, f"{place}[{i}]")
    elif type(value) not in _PLAIN and not isinstance(value, Tensor):
        yield place, value
