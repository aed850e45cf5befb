"""BiFPN: EfficientDet, Scalable and Efficient Object Detection.

Tan et al. 2019, arXiv:1911.09070, section 3. The idea: paths down and up as in PANet, but without nodes that only one
map enters, with an edge from a level's input to its output, repeated as a layer, and with a learned weight on every map
that enters a node, since maps of other scales do not count alike.
Where the paper is silent this is the authors' release, whose counts are the published ones: every edge on which the
channels change has a 1x1 convolution and a norm of its own, so a backbone's map that enters two nodes has two.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from opsin.checks import check_count
from opsin.errors import InputError, unknown
from opsin.necks.neck import Neck, SteadyBatchNorm2d, extra_strides, resize
from opsin.nn.activation import create_activation
from opsin.nn.conv import create_conv
from opsin.nn.padding import Framework
from opsin.nn.pooling import create_pool

Fusion: TypeAlias = Literal["fast", "softmax", "sum"]

_FUSIONS = ("fast", "softmax", "sum")


class BiFPN(Neck):
    """`repeats` layers of a top-down and a bottom-up path with weighed sums, all maps with `out_channels`.

    extra_levels: coarser maps than the backbone's, the first by 1x1, norm and max-pooling of C5, the next by pooling
    alone. D0 is out_channels=64, repeats=3, extra_levels=2 on strides 8, 16, 32.
    fusion: "fast", w_i / (eps + sum w) of weights behind a ReLU, section 3.3; "softmax" of the weights; "sum" without
    weights, which the release takes for D6 and D7 to train stably. single_input_nodes: with those nodes that the paper
    leaves out, a convolution without fusion at the two ends.
    bias: of convolutions before a norm. It is redundant, and the release has it; its parameter counts need it.
    padding: "tf" pools as the release does, "torch" as ports without published weights.
    """

    def __init__(
        self,
        channels: Sequence[int],
        strides: Sequence[int],
        *,
        out_channels: int = 64,
        repeats: int = 3,
        extra_levels: int = 0,
        fusion: Fusion = "fast",
        single_input_nodes: bool = False,
        activation: str = "silu",
        bias: bool = True,
        padding: Framework = "tf",
    ) -> None:
        super().__init__(channels, strides)
        check_count("repeats", repeats)
        check_count("extra_levels", extra_levels, least=0)
        if fusion not in _FUSIONS:
            raise unknown("fusion", fusion, _FUSIONS)
        levels = len(channels) + extra_levels
        if levels < 2:
            raise InputError("BiFPN fuses at least two levels, got one; give it more maps or extra_levels=1")
        widths = [*channels, *[out_channels] * extra_levels]
        self.extra = nn.ModuleList()
        width = channels[-1]
        for _ in range(extra_levels):
            self.extra.append(_Edge(width, out_channels, 1, bias, padding))
            width = out_channels
        self.layers = nn.ModuleList()
        for _ in range(repeats):
            self.layers.append(_Layer(widths, out_channels, fusion, single_input_nodes, activation, bias, padding))
            widths = [out_channels] * levels
        self.channels = tuple(widths)
        self.strides = extra_strides(strides, extra_levels)
        self._initialize()

    def forward(self, maps: Sequence[Tensor]) -> list[Tensor]:
        self._check(maps)
        levels = list(maps)
        for edge in self.extra:
            levels.append(edge(levels[-1]))
        for layer in self.layers:
            levels = layer(levels)
        return levels

    def _initialize(self) -> None:
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.xavier_uniform_(module.weight)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)


class _Layer(nn.Module):
    """One pass down and one up. Nodes in the order in which they run: down to the finest, up to the coarsest."""

    def __init__(
        self,
        widths: Sequence[int],
        out_channels: int,
        fusion: Fusion,
        single_input_nodes: bool,
        activation: str,
        bias: bool,
        padding: Framework,
    ) -> None:
        super().__init__()
        top, single = len(widths) - 1, single_input_nodes

        def node(*edges: tuple[int, int]) -> _Node:
            """edges: the channels of each map that enters and by how many levels it goes up, negative for down."""
            made = [_Edge(width, out_channels, steps, bias, padding) for width, steps in edges]
            return _Node(made, out_channels, fusion, activation, bias)

        self.top = node((widths[top], 0)) if single else None
        self.down = nn.ModuleList(
            node((widths[i], 0), (out_channels if single or i + 1 < top else widths[top], -1))
            for i in range(top - 1, -1, -1)
        )
        self.bottom = node((out_channels, 0)) if single else None
        self.up = nn.ModuleList(
            node((widths[i], 0), *([(out_channels, 0)] if single or i < top else []), (out_channels, 1))
            for i in range(1, top + 1)
        )

    def forward(self, given: list[Tensor]) -> list[Tensor]:
        top = len(given) - 1
        levels = list(given)  # of the way down; below it becomes that of the way up
        if self.top is not None:
            levels[top] = self.top([given[top]], given[top])
        for place, node in zip(range(top - 1, -1, -1), self.down, strict=True):
            levels[place] = node([given[place], levels[place + 1]], given[place])
        if self.bottom is not None:
            levels[0] = self.bottom([levels[0]], levels[0])
        for place, node in enumerate(self.up, start=1):
            middle = [levels[place]] if place < top or self.top is not None else []
            levels[place] = node([given[place], *middle, levels[place - 1]], given[place])
        return levels


class _Node(nn.Module):
    """Fuse the maps that enter, then activation, separable 3x3, norm. One map alone is only convolved."""

    def __init__(self, edges: Sequence[_Edge], out_channels: int, fusion: Fusion, activation: str, bias: bool) -> None:
        super().__init__()
        self.weights = nn.Parameter(torch.ones(len(edges))) if fusion != "sum" and len(edges) > 1 else None
        self.fusion: Fusion = fusion
        self.edges = nn.ModuleList(edges)
        self.activation = create_activation(activation)
        self.conv = nn.Sequential(
            create_conv(out_channels, out_channels, 3, groups=out_channels, bias=False),
            create_conv(out_channels, out_channels, 1, bias=bias),
            _norm(out_channels),
        )

    def forward(self, maps: Sequence[Tensor], like: Tensor) -> Tensor:
        entering = [resize(edge(x), like) for edge, x in zip(self.edges, maps, strict=True)]
        if self.weights is None:
            fused = sum(entering[1:], entering[0])
        else:
            shares = fusion_shares(self.weights.to(like.dtype), self.fusion).unbind()
            fused = sum((x * share for x, share in zip(entering[1:], shares[1:], strict=True)), entering[0] * shares[0])
        return self.conv(self.activation(fused))


class _Edge(nn.Module):
    """A map on its way to a node: 1x1 and norm where the channels change, max-pooling on the way up.

    steps: levels that it goes up. Upsampling on the way down is the node's, which knows the size.
    """

    def __init__(self, in_channels: int, out_channels: int, steps: int, bias: bool, padding: Framework) -> None:
        super().__init__()
        if in_channels != out_channels:
            self.conv = nn.Sequential(create_conv(in_channels, out_channels, 1, bias=bias), _norm(out_channels))
        else:
            self.conv = nn.Identity()
        border = None if padding == "tf" else 1
        self.pool: nn.Module = nn.Identity()
        if steps > 0:
            self.pool = create_pool("max", kernel_size=3, stride=2, padding=padding, border=border)

    def forward(self, x: Tensor) -> Tensor:
        return self.pool(self.conv(x))


def fusion_shares(weights: Tensor, fusion: Fusion) -> Tensor:
    """What each map that enters a node counts. arXiv:1911.09070, section 3.3. weights: (N,), learned."""
    if fusion == "softmax":
        return weights.softmax(dim=0)
    positive = F.relu(weights)
    return positive / (positive.sum() + 1e-4)


def _norm(channels: int) -> nn.BatchNorm2d:
    return SteadyBatchNorm2d(channels, eps=1e-3, momentum=0.01)  # 0.99 and 1e-3 in the release's TensorFlow
