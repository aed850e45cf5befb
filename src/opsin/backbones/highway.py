"""Highway networks: Training Very Deep Networks.

Srivastava, Greff and Schmidhuber 2015, arXiv:1505.00387 and arXiv:1507.06228. The idea, half a year before ResNet: a
gate T(x) decides for every unit how much of a layer's work to take, y = H(x) T(x) + x (1 - T(x)). With biases of the
gates that start negative the network starts as nearly the identity, however deep, and gradients get through.

highway_a and highway_b follow FitNets of 11 and 19 layers (table 2), highway_c has 32 layers of 3x3 and 1x1 in turn,
highway10_16 and highway10_32 are the nets for MNIST (table 1). The paper gives layers, rounded parameters and results,
no plan: these are readings that meet the numbers. Of its two forms of the nets for CIFAR we have the one of section
3.3.2, with a 1x1 convolution and global average pooling for FitNet's fully connected layer. Where the width changes no
identity fits, and the layer is a plain one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from opsin.backbones.backbone import Backbone
from opsin.registry import Published, register


class Highway(nn.Module):
    """y = H(x) T(x) + x (1 - T(x)). arXiv:1507.06228, eq. 3, around any layers that keep the shape of x.

    transform: H, with its activation. gate: T before its sigmoid. Both see x; `highway_conv` and `highway_linear` make
    them, with the gate's bias negative.
    """

    def __init__(self, transform: nn.Module, gate: nn.Module) -> None:
        super().__init__()
        self.transform, self.gate = transform, gate

    def forward(self, x: Tensor) -> Tensor:
        return torch.lerp(x, self.transform(x), torch.sigmoid(self.gate(x)))


def highway_conv(channels: int, kernel_size: int = 3, gate_bias: float = -2.0, gates: bool = True) -> nn.Module:
    """A convolutional highway layer with ReLU, twice the weights of a plain one. gates=False: the plain layer, H(x)."""
    transform = nn.Sequential(_conv(channels, channels, kernel_size), nn.ReLU(inplace=True))
    if not gates:
        return transform
    gate = _conv(channels, channels, kernel_size)
    nn.init.constant_(gate.bias, gate_bias)  # type: ignore[arg-type]
    return Highway(transform, gate)


def highway_linear(features: int, gate_bias: float = -2.0, gates: bool = True) -> nn.Module:
    """A fully connected highway layer with ReLU: (..., features) in and out. gates=False: the plain layer."""
    layers = [nn.Linear(features, features) for _ in range(2 if gates else 1)]
    for layer in layers:
        _initialize(layer)
    transform = nn.Sequential(layers[0], nn.ReLU(inplace=True))
    if not gates:
        return transform
    nn.init.constant_(layers[1].bias, gate_bias)
    return Highway(transform, layers[1])


@dataclass(frozen=True)
class Plan:
    """What tells the networks of the file apart.

    kernel_sizes: of every layer, by stage. widths: of the stages. hidden: maps of the 1x1 convolution in the head, or
    None for the nets for MNIST, which end in one more pooling and a linear layer over what is left, 3x3 of 28x28.
    """

    kernel_sizes: Sequence[Sequence[int]]
    widths: tuple[int, ...]
    hidden: int | None


_ALTERNATING = (3, 1) * 5
_A = Plan(((3,) * 3,) * 3, (16, 32, 64), hidden=250)
_B = Plan(((3,) * 5, (3,) * 6, (3,) * 6), (32, 80, 128), hidden=250)
_C = Plan((_ALTERNATING,) * 3, (32, 64, 96), hidden=96)


class HighwayNet(Backbone):
    """Stages of highway layers, each but the first behind a 2x2 max pooling, and a plain layer where the width changes.

    gates=False: the plain network, which has half the weights and does not train when it is deep. gate_bias: what the
    gates start from; the paper searches between -1 and -10, and deeper nets want less.
    """

    def __init__(
        self,
        plan: Plan,
        *,
        num_classes: int = 10,
        in_channels: int = 3,
        gates: bool = True,
        gate_bias: float = -2.0,
    ) -> None:
        super().__init__(num_classes, in_channels)
        self.stages = nn.ModuleList()
        channels = in_channels
        for sizes, width in zip(plan.kernel_sizes, plan.widths, strict=True):
            modules: list[nn.Module] = [nn.MaxPool2d(2)] if self.stages else []
            for size in sizes:
                if channels == width:
                    modules.append(highway_conv(width, size, gate_bias, gates))
                else:
                    modules += [_conv(channels, width, size), nn.ReLU(inplace=True)]
                channels = width
            self.stages.append(nn.Sequential(*modules))
        self.stem = nn.Identity()  # the first stage sees the image, through its plain layer
        self.head = _head(channels, plan.hidden, num_classes)
        self.channels = plan.widths
        self.strides = tuple(2**stage for stage in range(len(plan.widths)))
        self.min_size = 2 ** (len(plan.widths) - (plan.hidden is not None))


def _head(channels: int, hidden: int | None, num_classes: int) -> nn.Sequential:
    if hidden is None:
        return nn.Sequential(
            nn.MaxPool2d(2), nn.AdaptiveAvgPool2d(3), nn.Flatten(), nn.Linear(9 * channels, num_classes)
        )
    return nn.Sequential(
        _conv(channels, hidden, 1),
        nn.ReLU(inplace=True),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(hidden, num_classes),
    )


def _conv(in_channels: int, out_channels: int, kernel_size: int) -> nn.Conv2d:
    return _initialize(nn.Conv2d(in_channels, out_channels, kernel_size, padding=kernel_size // 2))


def _initialize(layer: Any) -> Any:
    """The paper's normalised start: He et al. 2015, arXiv:1502.01852; biases of zero."""
    nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
    nn.init.zeros_(layer.bias)
    return layer


def _published(
    input_size: tuple[int, int, int], params: int, macs: int, metrics: dict[str, float], stated: str
) -> Published:
    return Published(
        paper="arXiv:1507.06228",
        year=2015,
        input=input_size,
        params=params,
        macs=macs,
        metrics=metrics,
        idea="gates let what a layer has no use for pass by unchanged",
        source=f"counted on our reading of the paper, which states {stated} and no plan; result read: its tables",
    )


_CIFAR, _MNIST = (3, 32, 32), (1, 28, 28)


@register(
    "highway_a",
    task="classify",
    network=HighwayNet,
    published=_published(_CIFAR, 236_328, 32_139_716, {"cifar10 accuracy": 89.18}, "about 236K"),
)
def highway_a(**options: Any) -> HighwayNet:
    return HighwayNet(_A, **options)


@register(
    "highway_b",
    task="classify",
    network=HighwayNet,
    published=_published(_CIFAR, 2_277_688, 332_057_028, {"cifar10 accuracy": 92.46}, "about 2.3M"),
)
def highway_b(**options: Any) -> HighwayNet:
    return HighwayNet(_B, **options)


@register(
    "highway_c",
    task="classify",
    network=HighwayNet,
    published=_published(_CIFAR, 1_264_074, 230_065_088, {"cifar10 accuracy": 91.2}, "about 1.25M"),
)
def highway_c(**options: Any) -> HighwayNet:
    return HighwayNet(_C, **options)


@register(
    "highway10_16",
    task="classify",
    network=HighwayNet,
    published=_published(_MNIST, 38_730, 10_726_560, {"mnist accuracy": 99.43}, "39K"),
)
def highway10_16(*, in_channels: int = 1, **options: Any) -> HighwayNet:
    return HighwayNet(Plan(_A.kernel_sizes, (16, 16, 16), None), in_channels=in_channels, **options)


@register(
    "highway10_32",
    task="classify",
    network=HighwayNet,
    published=_published(_MNIST, 151_178, 42_677_568, {"mnist accuracy": 99.55}, "151K"),
)
def highway10_32(*, in_channels: int = 1, **options: Any) -> HighwayNet:
    return HighwayNet(Plan(_A.kernel_sizes, (32, 32, 32), None), in_channels=in_channels, **options)
