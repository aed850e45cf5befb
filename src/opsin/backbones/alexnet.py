"""AlexNet: ImageNet Classification with Deep Convolutional Neural Networks.

Krizhevsky, Sutskever and Hinton, NIPS 2012. The idea: a convolutional network made large, on ImageNet and two GPUs,
with ReLU, dropout and overlapping pooling. Two nets go by the name, and both are here:

alexnet_2012: the paper's. Convolutions 2, 4 and 5 see only the maps on their own GPU (two groups), and local response
normalisation follows the first two.
alexnet: the net without both of "One weird trick for parallelizing convolutional neural networks", Krizhevsky 2014,
arXiv:1404.5997, as torchvision has it, with other widths. Larger in weights, a little smaller in work.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from torch import nn

from opsin.backbones.backbone import Backbone
from opsin.backbones.weights import torchvision_weights
from opsin.checks import check_count
from opsin.errors import InputError, unknown
from opsin.nn.norm import alexnet_lrn
from opsin.registry import Published, register


@dataclass(frozen=True)
class Plan:
    """What differs between the two: widths of the convolutions, padding of the first, where dropout stands, init."""

    widths: tuple[int, int, int, int, int]
    padding: int
    min_size: int
    dropout_before_hidden: bool
    paper_init: bool


_2012 = Plan((96, 256, 384, 384, 256), padding=0, min_size=67, dropout_before_hidden=False, paper_init=True)
_2014 = Plan((64, 192, 384, 256, 256), padding=2, min_size=63, dropout_before_hidden=True, paper_init=False)


class AlexNet(Backbone):
    """Five convolutions and three fully connected layers.

    norm: "lrn" after the first two convolutions, or None. groups: 2 cuts convolutions 2, 4 and 5 into the two towers.
    hidden_features: width of the two hidden fully connected layers.
    """

    def __init__(
        self,
        plan: Plan,
        *,
        num_classes: int = 1000,
        in_channels: int = 3,
        norm: Literal["lrn"] | None = None,
        groups: int = 1,
        hidden_features: int = 4096,
        dropout: float = 0.5,
    ) -> None:
        super().__init__(num_classes, in_channels)
        if norm not in ("lrn", None):
            raise unknown("norm", norm, ("lrn", "null"))
        if check_count("groups", groups) and any(width % groups for width in plan.widths):
            raise InputError(f"groups={groups} does not divide the widths {plan.widths}; the paper's two towers are 2")
        one, two, three, four, five = plan.widths
        self.channels, self.strides, self.min_size = (two, five), (8, 16), plan.min_size
        self.stem = nn.Sequential(*_conv(in_channels, one, 11, stride=4, padding=plan.padding, norm=norm))
        self.stages = nn.ModuleList(
            [
                nn.Sequential(_pool(), *_conv(one, two, 5, padding=2, groups=groups, norm=norm)),
                nn.Sequential(
                    _pool(),
                    *_conv(two, three, 3, padding=1),  # the one that sees the maps of both towers
                    *_conv(three, four, 3, padding=1, groups=groups),
                    *_conv(four, five, 3, padding=1, groups=groups),
                ),
            ]
        )
        drop = [nn.Dropout(dropout)]
        before, after = (drop, []) if plan.dropout_before_hidden else ([], drop)
        self.head = nn.Sequential(
            _pool(),
            nn.AdaptiveAvgPool2d(6),  # the identity at the published input size
            nn.Flatten(),
            *before,
            nn.Linear(five * 6 * 6, check_count("hidden_features", hidden_features)),
            nn.ReLU(inplace=True),
            nn.Dropout(dropout),
            nn.Linear(hidden_features, hidden_features),
            nn.ReLU(inplace=True),
            *after,
            nn.Linear(hidden_features, num_classes),
        )
        if plan.paper_init:
            self._initialize()

    def _initialize(self) -> None:
        """Section 5: N(0, 0.01^2), and biases of 1 in convolutions 2, 4, 5 and the hidden linear layers: ReLUs fire."""
        layers = [m for m in self.modules() if isinstance(m, (nn.Conv2d, nn.Linear))]
        for layer, bias in zip(layers, (0, 1, 0, 1, 1, 1, 1, 0), strict=True):
            nn.init.normal_(layer.weight, std=0.01)
            nn.init.constant_(layer.bias, bias)  # type: ignore[arg-type]


def _conv(
    in_channels: int,
    out_channels: int,
    kernel_size: int,
    *,
    stride: int = 1,
    padding: int,
    groups: int = 1,
    norm: str | None = None,
) -> list[nn.Module]:
    conv = nn.Conv2d(in_channels, out_channels, kernel_size, stride, padding, groups=groups)
    return [conv, nn.ReLU(inplace=True), *([alexnet_lrn()] if norm == "lrn" else [])]


def _pool() -> nn.MaxPool2d:
    return nn.MaxPool2d(kernel_size=3, stride=2)  # wider than its stride: the paper's overlapping pooling, section 3.4


@register(
    "alexnet_2012",
    task="classify",
    network=AlexNet,
    published=Published(
        paper="Krizhevsky, Sutskever, Hinton: ImageNet Classification with Deep Convolutional Neural Networks, 2012",
        year=2012,
        input=(3, 227, 227),  # the paper says 224, which its layer sizes contradict
        params=60_965_224,
        macs=724_406_816,
        metrics={"ilsvrc2010 test top-1": 62.5, "ilsvrc2010 test top-5": 83.0},
        idea="a convolutional network made large: ReLU, dropout, two GPUs",
        source="counted: Caffe's prototxt of the net; results read: the paper's abstract",
    ),
)
def alexnet_2012(*, norm: Literal["lrn"] | None = "lrn", groups: int = 2, **options: Any) -> AlexNet:
    return AlexNet(_2012, norm=norm, groups=groups, **options)


@register(
    "alexnet",
    task="classify",
    network=AlexNet,
    published=Published(
        paper="arXiv:1404.5997",
        year=2014,
        input=(3, 224, 224),
        params=61_100_840,
        macs=714_188_480,
        metrics={"imagenet1k top-1": 56.522, "imagenet1k top-5": 79.066},
        idea="AlexNet in one tower, without response normalisation",
        source="counted and weights' results read: torchvision",
    ),
    weights=torchvision_weights(("alexnet-owt-7be5be79", 56.522, 79.066)),
)
def alexnet(**options: Any) -> AlexNet:
    return AlexNet(_2014, **options)
