"""PyramidNet: Deep Pyramidal Residual Networks.

Han, Kim and Kim 2016, arXiv:1610.02915. The idea: other residual nets double their maps in the few blocks that halve
the image; here every block widens a little, so that no single one of them matters as much.

A block ends in a norm and begins with one that no ReLU follows, and its shortcut has no parameters: zeros for the new
maps, a mean of 2x2 where the image is halved. Additive widening adds alpha maps in all, in equal steps, and
multiplicative widening multiplies by alpha in all, in equal ratios.

pyramidnet110_a48 is 110 layers with alpha=48, and so on. 110 has basic blocks, all others bottlenecks, four times as
many maps as the pyramid's. *_mul_* widen by a factor. The paper rounds down (eq. 2 and 3), which is rounding="down"
here; the authors' code rounds to the nearest, pytorchcv and we with it, which is why their README's parameters differ
from ours only by how they are cut off.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, TypeAlias

import torch.nn.functional as F
from torch import Tensor, nn

from opsin.backbones.backbone import Backbone
from opsin.backbones.preact_resnet import initialize
from opsin.checks import check_probability
from opsin.errors import InputError, unknown
from opsin.registry import Published, register

Widening: TypeAlias = Literal["additive", "multiplicative"]
Rounding: TypeAlias = Literal["nearest", "down"]
_NOISE = 1e-9  # of sums that should be whole


class PyramidBlock(nn.Module):
    """body(x) + shortcut(x). Figure 6d."""

    def __init__(self, in_channels: int, body: nn.Sequential, out_channels: int, stride: int, residual: bool) -> None:
        super().__init__()
        self.body = body
        self.residual = residual
        self.new_channels = out_channels - in_channels
        self.pool = nn.Identity() if stride == 1 else nn.AvgPool2d(2, stride, ceil_mode=True)

    def forward(self, x: Tensor) -> Tensor:
        y = self.body(x)
        return y + F.pad(self.pool(x), (0, 0, 0, 0, 0, self.new_channels)) if self.residual else y


class PyramidNet(Backbone):
    """A stem; stages of ever wider blocks, each but the first halving the map; norm, ReLU, pooling, one linear layer.

    depths: blocks of each stage. bottleneck: 1x1, 3x3 and 1x1 to four times as many maps, in place of two 3x3.
    small_images: a 3x3 stem of 16 maps that keeps the size, instead of one of 64 maps and stride 4.

    alpha, widening: "additive" ends with alpha more maps than the stem's (times four in bottlenecks), "multiplicative"
    with alpha times as many. alpha=0, or 1, is a net of one width. rounding: of the maps of each block, to the
    "nearest" or "down". residual=False leaves the shortcuts out: a plain net. dropout: before the linear layer.
    """

    def __init__(
        self,
        depths: Sequence[int],
        bottleneck: bool = False,
        small_images: bool = False,
        *,
        alpha: float = 48,
        widening: Widening = "additive",
        rounding: Rounding = "nearest",
        num_classes: int = 1000,
        in_channels: int = 3,
        residual: bool = True,
        dropout: float = 0.0,
    ) -> None:
        super().__init__(num_classes, in_channels)
        check_probability("dropout", dropout)
        width = 16 if small_images else 64
        widths = iter(pyramid(width, sum(depths), alpha, widening, rounding))
        self.stem = _stem(in_channels, width, small_images)
        self.stages = nn.ModuleList()
        outputs = []
        channels = width
        for stage, depth in enumerate(depths):
            blocks = nn.Sequential()
            for place in range(depth):
                stride = 2 if stage > 0 and place == 0 else 1
                inner = next(widths)
                out_channels = 4 * inner if bottleneck else inner
                body = _body(channels, inner, stride, bottleneck)
                blocks.append(PyramidBlock(channels, body, out_channels, stride, residual))
                channels = out_channels
            self.stages.append(blocks)
            outputs.append(channels)
        self.head = nn.Sequential(
            nn.BatchNorm2d(channels),
            nn.ReLU(inplace=True),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Dropout(dropout),
            nn.Linear(channels, num_classes),
        )
        self.channels = tuple(outputs)
        self.strides = tuple((1 if small_images else 4) * 2**stage for stage in range(len(depths)))
        initialize(self)


def pyramid(
    width: int, blocks: int, alpha: float, widening: Widening = "additive", rounding: Rounding = "nearest"
) -> list[int]:
    """The maps of each block, in a pyramid on a stem of `width`. Eq. 2 and 3, whose sums are rounded once, at the end.

    Rounded down at every step, as they are printed, steps of less than one map would never widen anything.
    """
    if rounding not in ("nearest", "down"):
        raise unknown("rounding", rounding, ("nearest", "down"))
    if widening not in ("additive", "multiplicative"):
        raise unknown("widening", widening, ("additive", "multiplicative"))
    least = 0 if widening == "additive" else 1
    if alpha < least:
        raise InputError(f"alpha must be at least {least} in {widening} widening, got {alpha}")
    shares = [(block + 1) / blocks for block in range(blocks)]
    exact = [width + alpha * share if widening == "additive" else width * alpha**share for share in shares]
    return [math.floor(maps + _NOISE) if rounding == "down" else round(maps) for maps in exact]


def _stem(in_channels: int, width: int, small_images: bool) -> nn.Sequential:
    if small_images:  # no activation
        return nn.Sequential(nn.Conv2d(in_channels, width, 3, padding=1, bias=False), nn.BatchNorm2d(width))
    conv = nn.Conv2d(in_channels, width, 7, 2, 3, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(width), nn.ReLU(inplace=True), nn.MaxPool2d(3, 2, 1))


def _body(in_channels: int, width: int, stride: int, bottleneck: bool) -> nn.Sequential:
    """Norm, convolution, then norm, ReLU and convolution for each further one, and a last norm."""
    layers = (  # kernel size, stride, maps
        [(1, 1, width), (3, stride, width), (1, 1, 4 * width)] if bottleneck else [(3, stride, width), (3, 1, width)]
    )
    body = nn.Sequential()
    for place, (kernel_size, step, channels) in enumerate(layers):
        body.append(nn.BatchNorm2d(in_channels))
        if place > 0:
            body.append(nn.ReLU(inplace=True))
        body.append(nn.Conv2d(in_channels, channels, kernel_size, step, kernel_size // 2, bias=False))
        in_channels = channels
    return body.append(nn.BatchNorm2d(in_channels))


def _published(params: int, macs: int, metrics: Mapping[str, float], source: str, size: int) -> Published:
    return Published(
        paper="arXiv:1610.02915",
        year=2016,
        input=(3, size, size),
        params=params,
        macs=macs,
        metrics=metrics,
        idea="widen a little in every block, not at once in a few",
        source=source,
    )


def _cifar(
    depth: int, factor: float, params: int, macs: int, error: float, kind: Widening = "additive"
) -> Callable[..., PyramidNet]:
    """Enter a net of 6n + 2 layers (110), or of 9n + 2 with bottlenecks: three stages of n blocks."""
    bottleneck = depth != 110
    blocks = (depth - 2) // (9 if bottleneck else 6)
    counted = "counted: pytorchcv" if kind == "additive" else "counted on the authors' code"
    published = _published(
        params, macs, {"cifar10 accuracy": round(100 - error, 2)}, f"{counted}; result read: their README", size=32
    )
    name = f"pyramidnet{depth}_" + ("mul_" if kind == "multiplicative" else "") + f"a{factor:g}".replace(".", "_")

    @register(name, task="classify", network=PyramidNet, published=published)
    def build(*, num_classes: int = 10, alpha: float = factor, widening: Widening = kind, **options: Any) -> PyramidNet:
        plan = (blocks, blocks, blocks), bottleneck, True
        return PyramidNet(*plan, alpha=alpha, widening=widening, num_classes=num_classes, **options)

    return build


def _imagenet(
    depth: int,
    depths: tuple[int, ...],
    factor: float,
    counts: tuple[int, int],
    results: tuple[float, float],
    source: str,
    drop: float = 0.0,
) -> Callable[..., PyramidNet]:
    """Enter a net of bottlenecks. counts: parameters, MACs. results: top-1, top-5."""
    metrics = {"imagenet1k top-1": results[0], "imagenet1k top-5": results[1]}

    @register(
        f"pyramidnet{depth}_a{factor:g}",
        task="classify",
        network=PyramidNet,
        published=_published(*counts, metrics, source, 224),
    )
    def build(*, alpha: float = factor, dropout: float = drop, **options: Any) -> PyramidNet:
        return PyramidNet(depths, True, alpha=alpha, dropout=dropout, **options)

    return build


pyramidnet110_a48 = _cifar(110, 48, 1_772_706, 403_813_504, 4.62)
pyramidnet110_a84 = _cifar(110, 84, 3_904_446, 772_168_168, 4.27)
pyramidnet110_a270 = _cifar(110, 270, 28_485_477, 4_717_983_724, 3.73)
pyramidnet110_mul_a4_75 = _cifar(110, 4.75, 1_762_206, 333_659_128, 4.62, "multiplicative")
pyramidnet110_mul_a8 = _cifar(110, 8, 3_876_547, 564_216_896, 4.5, "multiplicative")
pyramidnet110_mul_a27 = _cifar(110, 27, 28_361_693, 2_646_677_664, 4.06, "multiplicative")
pyramidnet164_a48 = _cifar(164, 48, 1_715_442, 388_433_920, 4.21)
pyramidnet164_a84 = _cifar(164, 84, 3_757_494, 745_302_688, 3.96)
pyramidnet164_a270 = _cifar(164, 270, 27_216_021, 4_569_837_040, 3.48)
pyramidnet200_a240 = _cifar(200, 240, 26_752_702, 4_519_606_016, 3.44)
pyramidnet236_a220 = _cifar(236, 220, 26_969_046, 4_582_673_952, 3.4)
pyramidnet272_a200 = _cifar(272, 200, 26_210_842, 4_488_778_176, 3.31)
pyramidnet101_a360 = _imagenet(
    101,
    (3, 4, 23, 3),
    360,
    (42_455_070, 8_696_707_045),
    (79.57, 94.8),
    "counted: pytorchcv; result read: osmr/imgclsmob's README",
)
_AUTHORS = "counted on the authors' code; result read: their README"
pyramidnet200_a300 = _imagenet(200, (3, 24, 36, 3), 300, (62_368_168, 16_550_501_282), (79.53, 94.71), _AUTHORS)
pyramidnet200_a450 = _imagenet(
    200, (3, 24, 36, 3), 450, (116_775_213, 29_196_815_629), (79.89, 94.57), _AUTHORS, drop=0.5
)
