"""Regularisation that drops: numbers, connections, layers, blocks. All are inverted: evaluation needs no factor."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from opsin.checks import check_count, check_probability
from opsin.errors import InputError, unknown
from opsin.nn.naming import build, check_map


class DropConnectLinear(nn.Linear):
    """A linear layer each of whose weights and biases is dropped with probability p in training. Wan et al. 2013.

    "Regularization of Neural Networks using DropConnect", ICML, section 3. What is kept is divided by 1 - p, and
    evaluation uses the mean; the paper's is `gaussian_inference`. (B, ..., in) -> (B, ..., out).
    per_example: a mask of its own for each example, as in the paper, at the price of B copies of the weights; else one
    for the batch.
    """

    def __init__(
        self, in_features: int, out_features: int, bias: bool = True, *, p: float = 0.5, per_example: bool = True
    ) -> None:
        super().__init__(in_features, out_features, bias)
        check_probability("p", p)
        self.p, self.per_example = p, per_example

    def forward(self, input: Tensor) -> Tensor:
        if not self.training or self.p == 0:
            return super().forward(input)
        if not self.per_example:
            return F.linear(input, F.dropout(self.weight, self.p), _dropped(self.bias, self.p))
        rows = input[:, None] if input.ndim == 2 else input.flatten(1, -2)
        weight = F.dropout(self.weight.expand(len(input), -1, -1), self.p)
        y = rows @ weight.transpose(1, 2)
        if self.bias is not None:
            y = y + F.dropout(self.bias.expand(len(input), 1, -1), self.p)
        return y.reshape(*input.shape[:-1], self.out_features)

    def moments(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and variance of the output over all masks: `torch.normal(mean, variance.sqrt())` is section 3.2's."""
        squares = F.linear(x.square(), self.weight.square(), _squared(self.bias))
        return super().forward(x), squares * (self.p / (1 - self.p))

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, p={self.p}, per_example={self.per_example}"


class DropConnectConv2d(nn.Conv2d):
    """A convolution whose weights and biases are dropped as in `DropConnectLinear`: one mask for all its places.

    (B, C, H, W) -> (B, out, H', W'). Options are those of nn.Conv2d but for padding_mode, which is zeros.
    """

    def __init__(self, *arguments: Any, p: float = 0.5, per_example: bool = True, **options: Any) -> None:
        super().__init__(*arguments, **options)
        check_probability("p", p)
        if self.padding_mode != "zeros":
            raise InputError(f"DropConnectConv2d pads with zeros only, got padding_mode={self.padding_mode!r}")
        self.p, self.per_example = p, per_example

    def forward(self, input: Tensor) -> Tensor:
        if not self.training or self.p == 0 or len(input) == 0:
            return super().forward(input)
        check_map(self, input, self.in_channels)
        if not self.per_example:
            return self._conv_forward(input, F.dropout(self.weight, self.p), _dropped(self.bias, self.p))
        count = len(input)  # one convolution in which every example is a group of its own
        weight = F.dropout(self.weight.expand(count, *self.weight.shape), self.p).flatten(0, 1)
        bias = None if self.bias is None else F.dropout(self.bias.expand(count, -1), self.p).flatten()
        groups = count * self.groups
        y = F.conv2d(
            input.reshape(1, -1, *input.shape[2:]), weight, bias, self.stride, self.padding, self.dilation, groups
        )
        return y.reshape(count, self.out_channels, *y.shape[2:])

    def moments(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and variance of the output over all masks."""
        squares = self._conv_forward(x.square(), self.weight.square(), _squared(self.bias))
        return super().forward(x), squares * (self.p / (1 - self.p))

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, p={self.p}, per_example={self.per_example}"


def gaussian_inference(
    layer: DropConnectLinear | DropConnectConv2d,
    x: Tensor,
    activation: Callable[[Tensor], Tensor],
    samples: int = 1000,
    generator: torch.Generator | None = None,
) -> Tensor:
    """The mean of activation(u) over the masks of a layer, with u taken to be normal: the paper's algorithm 2.

    A layer in evaluation has activation(mean of u) instead, which differs where the activation bends. Of the shape of
    activation(layer(x)). samples: draws of u. Raises InputError for less than one.
    """
    check_count("samples", samples)
    mean, variance = layer.moments(x)
    deviation, total = variance.sqrt(), torch.zeros((), device=mean.device)
    for _ in range(samples):
        drawn = torch.empty_like(mean).normal_(generator=generator)
        total = total + activation(mean + deviation * drawn)
    return total / samples


def _dropped(bias: Tensor | None, p: float) -> Tensor | None:
    return None if bias is None else F.dropout(bias, p)


def _squared(bias: Tensor | None) -> Tensor | None:
    return None if bias is None else torch.square(bias)


def _dropout(p: float = 0.5) -> nn.Dropout:
    return nn.Dropout(p)


def _stochastic_depth(p: float, mode: str = "row") -> nn.Module:
    from torchvision.ops import StochasticDepth  # here: no backbone needs torchvision to be listed

    if mode not in ("row", "batch"):
        raise unknown("mode", mode, ("row", "batch"))
    return StochasticDepth(p, mode)


def _drop_block(p: float, block_size: int = 7) -> nn.Module:
    from torchvision.ops import DropBlock2d

    if block_size % 2 == 0:
        raise InputError(f"block_size must be odd to have a middle, got {block_size}")
    return DropBlock2d(p, block_size)


_REGULARIZERS: Mapping[str, Any] = MappingProxyType(
    {"dropout": _dropout, "stochastic_depth": _stochastic_depth, "drop_block": _drop_block}
)


def list_regularizers() -> list[str]:
    """Names that `create_regularizer` knows."""
    return sorted(_REGULARIZERS)


def create_regularizer(name: str, **options: Any) -> nn.Module:
    """What drops numbers, by name; p is the probability of being dropped. Nothing happens in evaluation.

    dropout: torch's, of single numbers, p = 0.5 unless given. Srivastava et al. 2014, JMLR 15.
    stochastic_depth: torchvision's, of a whole residual branch, mode "row" for each example or "batch" for all.
    Huang et al. 2016, arXiv:1603.09382. drop_block: torchvision's, of squares of block_size^2 places in a map.
    Ghiasi et al. 2018, arXiv:1810.12890.
    Raises InputError for an unknown name or option, with the nearest known ones, and for p out of range.
    """
    if "p" in options:
        check_probability("p", options["p"])
    return build("regularizer", _REGULARIZERS, name, **options)
