"""NiN: Network In Network.

Lin, Chen and Yan 2013, arXiv:1312.4400. Two ideas: a small network slides over the image in place of a linear filter,
which is a convolution followed by 1x1 convolutions (mlpconv); and the last of these makes one map per class, whose mean
is the logit, so that nothing is fully connected.

nin_cifar10: the network of the paper's experiments, as its author's cuda-convnet file has it; its result is with shifts
and mirror images in training. nin_cifar100: the same for more classes, its result without. nin: the author's network
for ImageNet, from Caffe's model zoo; the paper has none. All pool as these frameworks do, with a smaller window at the
lower and right border. pytorchcv's nin_cifar10 pads all around instead: the same parameters, maps shifted by a pixel.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from torch import nn

from opsin.backbones.backbone import Backbone
from opsin.nn.conv import ConvNormActivation
from opsin.registry import Published, register


@dataclass(frozen=True)
class MlpConv:
    """A convolution and the 1x1 convolutions behind it. widths: of all of them. border: zeros on each side.

    pool: before it, 3x3 of stride 2. dropout: behind that.
    """

    kernel_size: int
    widths: tuple[int, ...]
    stride: int = 1
    border: int | None = None
    pool: Literal["max", "average"] | None = None
    dropout: bool = False


_IMAGENET = (
    MlpConv(11, (96, 96, 96), stride=4, border=0),
    MlpConv(5, (256, 256, 256), pool="max"),
    MlpConv(3, (384, 384, 384), pool="max"),
    MlpConv(3, (1024, 1024), pool="max", dropout=True),
)
_CIFAR = (
    MlpConv(5, (192, 160, 96)),
    MlpConv(5, (192, 192, 192), pool="max", dropout=True),
    MlpConv(3, (192, 192), pool="average", dropout=True),
)


class NiN(Backbone):
    """Mlpconv layers with pooling between; the last 1x1 convolution, its ReLU and global average pooling are the head.

    mlp=False leaves all other 1x1 convolutions out: plain convolutions of the same widths. dropout: where the network
    has it. norm: None, or a name of `opsin.nn.norm` for every layer but the last; the paper is older than batch norm.
    """

    def __init__(
        self,
        layers: Sequence[MlpConv],
        min_size: int,
        *,
        num_classes: int = 1000,
        in_channels: int = 3,
        mlp: bool = True,
        dropout: float = 0.5,
        norm: str | None = None,
    ) -> None:
        super().__init__(num_classes, in_channels)
        self.stem = nn.Identity()  # there is none: the first stage sees the image
        self.stages = nn.ModuleList()
        channels, stride = in_channels, 1
        widths, strides = [], []
        for layer in layers:
            modules: list[nn.Module] = []
            if layer.pool is not None:
                pool = nn.MaxPool2d if layer.pool == "max" else nn.AvgPool2d
                modules.append(pool(3, 2, ceil_mode=True))
                modules += [nn.Dropout(dropout)] if layer.dropout else []
                stride *= 2
            for place, width in enumerate(layer.widths if mlp else layer.widths[:1]):
                shape = (1,) if place else (layer.kernel_size, layer.stride)
                border = None if place else layer.border
                modules.append(ConvNormActivation(channels, width, *shape, border=border, norm=norm))
                channels = width
            stride *= layer.stride
            self.stages.append(nn.Sequential(*modules))
            widths.append(channels)
            strides.append(stride)
        self.head = nn.Sequential(
            nn.Conv2d(channels, num_classes, 1), nn.ReLU(inplace=True), nn.AdaptiveAvgPool2d(1), nn.Flatten()
        )
        self.channels, self.strides = tuple(widths), tuple(strides)
        self.min_size = min_size
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                # not the author's: standard deviations set by hand for each layer
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def _replace_output(self) -> None:
        last = self.head.get_submodule("0")
        assert isinstance(last, nn.Conv2d)
        fresh = nn.Conv2d(last.in_channels, self.num_classes, 1, device=last.weight.device, dtype=last.weight.dtype)
        self.head.set_submodule("0", fresh)


def _published(input_size: int, params: int, macs: int, metrics: dict[str, float], source: str) -> Published:
    idea = "1x1 convolutions after each convolution, and class maps averaged to logits"
    return Published("arXiv:1312.4400", 2013, (3, input_size, input_size), params, macs, metrics, idea, source)


@register(
    "nin",
    task="classify",
    network=NiN,
    published=_published(224, 7_595_176, 1_100_188_800, {}, "counted on the author's prototxt in Caffe's model zoo"),
)
def nin(**options: Any) -> NiN:
    return NiN(_IMAGENET, 39, **options)


_RESULT = "counted on the author's cuda-convnet file; result read: the paper's tables 1 and 2"


@register(
    "nin_cifar10",
    task="classify",
    network=NiN,
    published=_published(32, 966_986, 222_486_528, {"cifar10 accuracy": 91.19}, _RESULT),
)
def nin_cifar10(*, num_classes: int = 10, **options: Any) -> NiN:
    return NiN(_CIFAR, 4, num_classes=num_classes, **options)


@register(
    "nin_cifar100",
    task="classify",
    network=NiN,
    published=_published(32, 984_356, 223_592_448, {"cifar100 accuracy": 64.32}, _RESULT),
)
def nin_cifar100(*, num_classes: int = 100, **options: Any) -> NiN:
    return NiN(_CIFAR, 4, num_classes=num_classes, **options)
