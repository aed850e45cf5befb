"""LeNet-5: Gradient-Based Learning Applied to Document Recognition.

LeCun, Bottou, Bengio and Haffner 1998, Proceedings of the IEEE 86(11), section II-B. The idea: convolutions that share
their weights, subsampling between them, and everything learned from the pixels on.

lenet5_1998: the paper's, to the parameter. Subsampling has a coefficient and a bias to learn, each map of C3 sees some
of the maps before it, and the outputs are distances to fixed codes.
lenet5: what is called LeNet-5 today, with full convolutions, pooling without parameters and a linear output.

Both take 32x32 images, with a digit of at most 20x20 in the middle, so that the ends of its strokes can stand in the
centre of what the units of C3 see.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from opsin.backbones.backbone import Backbone, Outputs
from opsin.errors import InputError, unknown
from opsin.registry import Published, register

_PAPER = "LeCun, Bottou, Bengio, Haffner: Gradient-Based Learning Applied to Document Recognition, Proc. IEEE 1998"

# Table I: the maps of S2 that each map of C3 sees. Three neighbours, four neighbours, two pairs apart, all.
_C3_SEES = (
    *((0, 1, 2), (1, 2, 3), (2, 3, 4), (3, 4, 5), (0, 4, 5), (0, 1, 5)),
    *((0, 1, 2, 3), (1, 2, 3, 4), (2, 3, 4, 5), (0, 3, 4, 5), (0, 1, 4, 5), (0, 1, 2, 5)),
    *((0, 1, 3, 4), (1, 2, 4, 5), (0, 2, 3, 5), (0, 1, 2, 3, 4, 5)),
)

# The codes of the ten digits: bitmaps of 7x12, in the manner of figure 3, whose pixels the paper does not list.
_BITMAPS = """
....... ....... ....... ....... ....... ....... ....... ....... ....... .......
..###.. ...#... ..###.. .#####. .....#. ####### ..####. ####### .#####. .#####.
.#...#. ..##... .#...#. #.....# ....##. #...... .#..... ......# #.....# #.....#
#.....# .#.#... #.....# ......# ...#.#. #...... #...... .....#. #.....# #.....#
#.....# ...#... ......# ......# ..#..#. #.####. #...... .....#. #.....# #.....#
#.....# ...#... .....#. ..####. .#...#. ##....# #.####. ....#.. .#####. #....##
#.....# ...#... ....#.. ......# #....#. ......# ##....# ....#.. #.....# .####.#
#.....# ...#... ...#... ......# ####### ......# #.....# ...#... #.....# ......#
#.....# ...#... ..#.... ......# .....#. ......# #.....# ...#... #.....# ......#
.#...#. ...#... .#..... #.....# .....#. #.....# #.....# ..#.... #.....# .....#.
..###.. .#####. ####### .#####. .....#. .#####. .#####. ..#.... .#####. .####..
....... ....... ....... ....... ....... ....... ....... ....... ....... .......
"""


class ScaledTanh(nn.Module):
    """1.7159 tanh(2/3 x), for which f(1) = 1 and f(-1) = -1, the points of largest curvature. Appendix A."""

    def forward(self, x: Tensor) -> Tensor:
        return 1.7159 * torch.tanh(2 / 3 * x)


class Subsampling(nn.Module):
    """The sum of each 2x2 square times a learned coefficient plus a learned bias, one pair a map. Layers S2 and S4."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(channels))
        self.bias = nn.Parameter(torch.empty(channels))
        self.mean = nn.AvgPool2d(2)

    def forward(self, x: Tensor) -> Tensor:
        return self.mean(x) * (4 * self.weight)[:, None, None] + self.bias[:, None, None]


class PartialConv2d(nn.Module):
    """A convolution each of whose output maps sees some of the input maps only: `sees`, by output map. Layer C3.

    It learns a kernel for each pair that is connected, and runs as a full convolution with zeros for the others: on a
    CPU that is many times faster than grouped convolutions of the maps that are seen, for 1.6 times the multiply-adds.
    """

    kernel_of: Tensor

    def __init__(self, in_channels: int, sees: Sequence[Sequence[int]], kernel_size: int) -> None:
        super().__init__()
        pairs = [(output, seen) for output, maps in enumerate(sees) for seen in maps]
        self.weight = nn.Parameter(torch.empty(len(pairs), kernel_size, kernel_size))
        self.bias = nn.Parameter(torch.empty(len(sees)))
        # For each output and input map the place of their kernel; behind the last kernel comes one of zeros.
        place = {pair: place for place, pair in enumerate(pairs)}
        table = [[place.get((output, seen), len(pairs)) for seen in range(in_channels)] for output in range(len(sees))]
        self.register_buffer("kernel_of", torch.tensor(table))

    def forward(self, x: Tensor) -> Tensor:
        kernels = F.pad(self.weight, (0, 0, 0, 0, 0, 1)).index_select(0, self.kernel_of.flatten())
        return F.conv2d(x, kernels.unflatten(0, self.kernel_of.shape), self.bias)


class CodeDistance(nn.Module):
    """Minus the squared distance of (B, 84) features to the fixed code of every class: (B, num_classes). Eq. 7.

    Ten classes get the digits' bitmaps, any other number random codes, the same ones for the same class in every net.
    """

    codes: Tensor

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.register_buffer("codes", create_codes(num_classes))

    def forward(self, x: Tensor) -> Tensor:
        return -(x[:, None] - self.codes).square().sum(dim=2)


def create_codes(num_classes: int) -> Tensor:
    """The codes of the classes: (num_classes, 84) of 1 for ink and -1 for paper."""
    if num_classes == 10:
        rows = _BITMAPS.split()
        bits = ["".join(rows[digit::10]) for digit in range(10)]
    else:
        draw = random.Random(1998)
        bits = ["".join(draw.choice(".#") for _ in range(84)) for _ in range(num_classes)]
    return torch.tensor([[1.0 if bit == "#" else -1.0 for bit in row] for row in bits])


class RejectingLoss(nn.Module):
    """Push the distance of the right code down and the others up, averaged over examples. Eq. 9.

    y_right + log(exp(-j) + sum of exp(-y_i)), y the distances: cross-entropy with one class more, that of rubbish, at
    the constant distance j. It keeps codes that are far already from being pushed further. The paper gives no value.
    """

    def __init__(self, j: float = 0.1) -> None:
        super().__init__()
        self.j = j

    def forward(self, logits: Tensor, targets: Tensor) -> Tensor:
        """logits: (B, K), minus the distances. targets: (B,) int64, -1 is ignored, or (B, K) float, rows of sum 1."""
        logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
        rubbish = logits.new_full((len(logits), 1), -self.j)
        total = torch.logsumexp(torch.cat([logits, rubbish], dim=1), dim=1)
        if targets.is_floating_point():
            return (total - (logits * targets).sum(dim=1)).mean()
        known = targets >= 0
        right = logits.gather(1, targets.clamp(min=0)[:, None])[:, 0]
        return ((total - right) * known).sum() / known.sum().clamp(min=1)


class LeNet1998(Backbone):
    """C1, S2, C3, S4, C5, F6 and the distances to the codes. Its logits are minus the distances, its loss is eq. 9."""

    fixed_size = min_size = 32

    def __init__(self, *, num_classes: int = 10, in_channels: int = 1) -> None:
        super().__init__(num_classes, in_channels)
        self.channels, self.strides = (16, 120), (2, 4)
        self.stem = nn.Sequential(nn.Conv2d(in_channels, 6, 5), ScaledTanh())
        self.stages = nn.ModuleList(
            [
                nn.Sequential(Subsampling(6), ScaledTanh(), PartialConv2d(6, _C3_SEES, 5), ScaledTanh()),
                nn.Sequential(Subsampling(16), ScaledTanh(), nn.Conv2d(16, 120, 5), ScaledTanh()),
            ]
        )
        self.head = nn.Sequential(nn.Flatten(), nn.Linear(120, 84), ScaledTanh(), CodeDistance(num_classes))
        self.criterion = RejectingLoss()
        self._initialize()

    def loss(self, outputs: Outputs, targets: Tensor) -> dict[str, Tensor]:
        if self.multi_label:
            raise InputError("lenet5_1998 finds the one nearest code, it has no multi-label form; use lenet5")
        return super().loss(outputs, targets)

    def _replace_output(self) -> None:
        last = self.head.get_submodule("3")
        assert isinstance(last, CodeDistance)
        self.head.set_submodule("3", CodeDistance(self.num_classes).to(last.codes))

    @torch.no_grad()
    def _initialize(self) -> None:
        """Uniform in +-2.4 / fan-in, biases too. Appendix A."""
        for module in self.modules():
            if isinstance(module, (nn.Conv2d, nn.Linear)):
                _spread(module.weight, module.weight[0].numel())
                _spread(module.bias, module.weight[0].numel())  # type: ignore[arg-type]
            elif isinstance(module, Subsampling):
                _spread(module.weight, 4)
                _spread(module.bias, 4)
            elif isinstance(module, PartialConv2d):
                _spread(module.weight, torch.tensor([25.0 * len(s) for s in _C3_SEES for _ in s])[:, None, None])
                _spread(module.bias, torch.tensor([25.0 * len(s) for s in _C3_SEES]))


def _spread(parameter: Tensor, fan_in: Tensor | float) -> None:
    parameter.uniform_(-2.4, 2.4).div_(fan_in)


class LeNet5(Backbone):
    """C1, S2, C3, S4, C5, F6 and a linear output. activation "tanh" and pool "avg" are nearer to 1998."""

    fixed_size = min_size = 32

    def __init__(
        self,
        *,
        num_classes: int = 10,
        in_channels: int = 1,
        activation: Literal["relu", "tanh", "sigmoid"] = "relu",
        pool: Literal["max", "avg"] = "max",
    ) -> None:
        super().__init__(num_classes, in_channels)
        activations: dict[str, type[nn.Module]] = {"relu": nn.ReLU, "tanh": nn.Tanh, "sigmoid": nn.Sigmoid}
        pools: dict[str, type[nn.Module]] = {"max": nn.MaxPool2d, "avg": nn.AvgPool2d}
        if activation not in activations:
            raise unknown("activation", activation, activations)
        if pool not in pools:
            raise unknown("pool", pool, pools)
        act, shrink = activations[activation], pools[pool]
        self.channels, self.strides = (16, 120), (2, 4)
        self.stem = nn.Sequential(nn.Conv2d(in_channels, 6, 5), act())
        self.stages = nn.ModuleList(
            [
                nn.Sequential(shrink(2), nn.Conv2d(6, 16, 5), act()),
                nn.Sequential(shrink(2), nn.Conv2d(16, 120, 5), act()),
            ]
        )
        self.head = nn.Sequential(nn.Flatten(), nn.Linear(120, 84), act(), nn.Linear(84, num_classes))


@register(
    "lenet5_1998",
    task="classify",
    network=LeNet1998,
    published=Published(
        paper=_PAPER,
        year=1998,
        input=(1, 32, 32),
        params=60_000,
        macs=415_680,
        metrics={"mnist accuracy": 99.05},
        idea="convolution, subsampling, and everything learned from the pixels on",
        source="params: the paper; result: it, quoted; macs: counted here, C3 with its zeros (325,680 without)",
    ),
)
def lenet5_1998(**options: Any) -> LeNet1998:
    return LeNet1998(**options)


@register(
    "lenet5",
    task="classify",
    network=LeNet5,
    published=Published(
        paper=_PAPER,
        year=1998,
        input=(1, 32, 32),
        params=61_706,
        macs=416_520,
        idea="the 1998 net with today's layers",
        source="counted: the usual form, full C3, pooling without parameters, linear output",
    ),
)
def lenet5(**options: Any) -> LeNet5:
    return LeNet5(**options)
