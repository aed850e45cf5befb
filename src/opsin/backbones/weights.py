"""Weights from elsewhere, into our modules."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import zip_longest

import torch
from torch import Tensor, nn

from opsin.errors import InputError


def copy_in_order(model: nn.Module, reference_state: Mapping[str, Tensor]) -> None:
    """Fill a model from another implementation's state dict, tensor by tensor in order, so that names may differ.

    Every shape is checked before anything is copied. The criterion's tensors, which are the task's, stay as they are,
    and so do the batch counters of batch norm, which change no output and which old files lack.
    Raises InputError that names the first tensor that does not fit.
    """
    pairs = list(zip_longest(_weights(model.state_dict()), _weights(reference_state)))
    for place, (ours, theirs) in enumerate(pairs):
        if ours is None or theirs is None or ours[1].shape != theirs[1].shape:
            raise InputError(
                f"weights do not fit {type(model).__name__}: tensor {place} is {_describe(theirs)} in the file, "
                f"{_describe(ours)} in the model; they are of another architecture or other options"
            )
    with torch.no_grad():
        for ours, theirs in pairs:
            ours[1].copy_(theirs[1])


def _weights(state: Mapping[str, Tensor]) -> list[tuple[str, Tensor]]:
    return [
        (k, v) for k, v in state.items() if not k.endswith("num_batches_tracked") and not k.startswith("criterion.")
    ]


def _describe(entry: tuple[str, Tensor] | None) -> str:
    return "missing" if entry is None else f"{entry[0]} {tuple(entry[1].shape)}"
