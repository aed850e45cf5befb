"""Activations by name: torch's, and Swish with its beta."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, nn

from opsin.nn.naming import build


class Swish(nn.Module):
    """x * sigmoid(beta x), elementwise: half of x at beta = 0, SiLU at 1, near ReLU where it is large.

    learned: beta is a parameter, one for the layer, that begins at the value given. Ramachandran, Zoph and Le 2017,
    "Searching for Activation Functions", arXiv:1710.05941, section 3.
    """

    def __init__(self, beta: float = 1.0, learned: bool = False) -> None:
        super().__init__()
        self.beta: nn.Parameter | float = nn.Parameter(torch.tensor(float(beta))) if learned else float(beta)

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.sigmoid(self.beta * x)

    def extra_repr(self) -> str:
        return "learned" if isinstance(self.beta, nn.Parameter) else f"beta={self.beta}"


def _swish(beta: float = 1.0, learned: bool = False, inplace: bool = False) -> nn.Module:
    return nn.SiLU(inplace) if beta == 1 and not learned else Swish(beta, learned)


def _softmax(dim: int = 1) -> nn.Softmax:
    return nn.Softmax(dim)  # 1: the classes of (B, K), the channels of (B, C, H, W); torch has no default


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
        "swish": _swish,
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
    swish is silu unless it is given a `beta`, or a `learned` one.
    Raises InputError for an unknown name or option, with the nearest known ones.
    """
    return build("activation", _ACTIVATIONS, name, **options)


def works_inplace(name: str) -> bool:
    """Whether the activation of that name can write into its input."""
    return name in _ACTIVATIONS and "inplace" in inspect.signature(_ACTIVATIONS[name]).parameters
