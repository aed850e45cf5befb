"""Xception: Deep Learning with Depthwise Separable Convolutions.

Chollet 2017, arXiv:1610.02357. The idea: an Inception module with as many branches as channels is a depthwise separable
convolution, so build the whole network of those, in residual blocks. Space and channels are looked at apart.

The order of the two, and that nothing stands between them, is as in its author's code (see `opsin.nn.conv`). timm,
Cadene and pytorchcv halve maps with a border on both sides and have batch norm's epsilon at 1e-5, where Keras has
TensorFlow's SAME and 1e-3: the ported weights live with that, and so do we. xception41, 65 and 71 elsewhere are other
networks, DeepLab's.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any, Literal

from torch import Tensor, nn

from opsin.backbones.backbone import Backbone
from opsin.backbones.googlenet import chain, convolution, inception_weights, initialize_he
from opsin.errors import unknown
from opsin.nn.activation import create_activation
from opsin.nn.conv import ConvNormActivation, SeparableConv
from opsin.registry import Published, register

Between = Literal["relu", "elu"] | None


class Block(nn.Module):
    """The sum of a shortcut and of separable convolutions, each behind its ReLU. Figure 5. No ReLU follows the sum."""

    def __init__(self, shortcut: nn.Module | None, body: nn.Sequential) -> None:
        super().__init__()
        self.shortcut = shortcut
        self.body = body

    def forward(self, x: Tensor) -> Tensor:
        y = self.body(x)
        return y if self.shortcut is None else y + self.shortcut(x)


class Xception(Backbone):
    """Entry flow of three blocks, a middle flow of eight at one size, an exit flow, global average pooling. Figure 5.

    The maps of the first three stages are sums without a ReLU. between: an activation between depthwise and pointwise
    convolution, which section 4.7 finds to cost accuracy. residual=False leaves the shortcuts out (section 4.6). depth:
    blocks of the middle flow. norm: "bn" or None.
    """

    min_size = 7

    def __init__(
        self,
        *,
        num_classes: int = 1000,
        in_channels: int = 3,
        depth: int = 8,
        residual: bool = True,
        between: Between = None,
        norm: Literal["bn"] | None = "bn",
        dropout: float = 0.5,
    ) -> None:
        super().__init__(num_classes, in_channels)
        if between not in ("relu", "elu", None):
            raise unknown("between", between, ("relu", "elu", "null"))
        conv = convolution(norm, eps=1e-5)
        self.channels, self.strides = (128, 256, 728, 2048), (4, 8, 16, 32)

        def block(widths: tuple[int, ...], stride: int = 2, *, first: bool = False) -> Block:
            return _block(widths, stride, first, residual, between, norm)

        self.stem = chain(conv, in_channels, (32, 3, 2, 0), (64, 3, 1, 0))
        middle = (block((728,) * 4, 1) for _ in range(depth))
        last = [
            layer
            for width, wider in ((1024, 1536), (1536, 2048))
            for layer in (_separable(width, wider, between, norm), nn.ReLU(inplace=True))
        ]
        self.stages = nn.ModuleList(
            [
                nn.Sequential(block((64, 128, 128), first=True)),
                nn.Sequential(block((128, 256, 256))),
                nn.Sequential(block((256, 728, 728)), *middle),
                nn.Sequential(block((728, 728, 1024)), *last),
            ]
        )
        self.head = nn.Sequential(
            nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(dropout), nn.Linear(2048, num_classes)
        )
        initialize_he(self)


def _separable(in_channels: int, out_channels: int, between: Between, norm: str | None) -> SeparableConv:
    kind = "batch" if norm else None
    conv = SeparableConv(in_channels, out_channels, order="xception", norm=kind, activation=None)
    if between is not None:
        depthwise = conv[0]
        assert isinstance(depthwise, ConvNormActivation)
        depthwise.append(create_activation(between, inplace=True))
    return conv


def _block(
    widths: tuple[int, ...], stride: int, first: bool, residual: bool, between: Between, norm: str | None
) -> Block:
    """Separable convolutions from width to width, then pooling if it strides. first: behind a ReLU already."""
    body: list[nn.Module] = []
    for place, (width, wider) in enumerate(pairwise(widths)):
        if place or not first:
            body.append(nn.ReLU(inplace=place > 0))  # not in place where the shortcut still needs its input
        body.append(_separable(width, wider, between, norm))
    if stride > 1:
        body.append(nn.MaxPool2d(3, stride, 1))
    shortcut: nn.Module | None = None
    if residual:
        changes = stride > 1 or widths[0] != widths[-1]
        kind = "batch" if norm else None
        project = ConvNormActivation(widths[0], widths[-1], 1, stride, norm=kind, activation=None) if changes else None
        shortcut = project or nn.Identity()
    return Block(shortcut, nn.Sequential(*body))


@register(
    "xception",
    task="classify",
    network=Xception,
    published=Published(
        paper="arXiv:1610.02357",
        year=2017,
        input=(3, 299, 299),
        params=22_855_952,
        macs=8_357_403_496,
        metrics={"imagenet1k top-1": 79.058, "imagenet1k top-5": 94.396},
        idea="Inception to its end: every channel a branch",
        source="counted: timm, and the paper's table 3; results read: timm's tf_in1k weights",
    ),
    weights={
        "imagenet1k": inception_weights(
            "https://github.com/rwightman/pytorch-image-models/releases/download/v0.1-cadene/xception-43020ad28.pth",
            "Apache-2.0",
            "timm, legacy_xception.tf_in1k, ported from Keras",
            79.058,
            94.396,
            size=299,
            crop_ratio=299 / 333,
            interpolation="bicubic",
        )
    },
)
def xception(**options: Any) -> Xception:
    return Xception(**options)
