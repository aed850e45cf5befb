"""Activations by name, all of them torch's."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from torch import nn

from opsin.nn.naming import build


def _softmax(dim: int = 1) -> nn.Softmax:
    return nn.Softmax(dim)  # 1: the classes of (B, K), the channels of (B, C, H, W); torch has no default


# Where the field has two names for one thing, both are here: swish with beta = 1 is SiLU.
_ACTIVATIONS: Mapping[str, Any] = MappingProxyType(
    {
        "sigmoid": nn.Sigmoid,
        "tanh": nn.Tanh,
        "relu": nn.ReLU,
        "leaky_relu": nn.LeakyReLU,
        "prelu": nn.PReLU,
        "elu": nn.ELU,
        "relu6": nn.ReLU6,
        "silu": nn.SiLU,
        "swish": nn.SiLU,
        "hard_sigmoid": nn.Hardsigmoid,
        "hard_swish": nn.Hardswish,
        "mish": nn.Mish,
        "gelu": nn.GELU,
        "softmax": _softmax,
    }
)


def list_activations() -> list[str]:
    """Names that `create_activation` knows."""
    return sorted(_ACTIVATIONS)


def create_activation(name: str, **options: Any) -> nn.Module:
    """An activation by name: relu, leaky_relu, prelu, relu6, elu, silu or swish, mish, gelu, hard_swish, hard_sigmoid,
    sigmoid, tanh, softmax.

    Options are those of the torch class: leaky_relu's `negative_slope` is 0.01 unless given, 0.1 in Darknet's networks.
    Raises InputError for an unknown name or option, with the nearest known ones.
    """
    return build("activation", _ACTIVATIONS, name, **options)


def works_inplace(name: str) -> bool:
    """Whether the activation of that name can write into its input."""
    return name in _ACTIVATIONS and "inplace" in inspect.signature(_ACTIVATIONS[name]).parameters
