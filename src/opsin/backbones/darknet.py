"""Darknet: the classification networks of Redmon and Farhadi, made to stand under YOLO.

darknet19: YOLO9000, arXiv:1612.08242, section 3. VGG's 3x3 convolutions with a 1x1 between two of them that halves the
maps, batch norm everywhere, and a 1x1 convolution with global average pooling for a head: VGG-16's accuracy for a fifth
of its work. darknet53: YOLOv3, arXiv:1804.02767, section 2.4. Its pairs of 1x1 and 3x3 become residual blocks, and
convolutions of stride 2 take the place of pooling: ResNet-101's accuracy, 1.5 times as fast on a GPU.

resnet50_darknet and resnext50_darknet are ResNet-50 and ResNeXt-50 (32x4d) as Darknet has them, which CSPNet's tables
call by the plain names: no projections, a 2x2 pooling in the stem, leaky ReLU. They are 2.8 M parameters smaller.

All of them have leaky ReLU of slope 0.1. timm's darknet53 is the same but for a slope of 0.01, which its weights
expect: darknet53_timm. Darknet itself adds 1e-6 to the deviation in batch norm, where torch adds 1e-5 to the variance.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any, Literal, TypeAlias

from torch import Tensor, nn

from opsin.backbones.backbone import Backbone
from opsin.backbones.resnet import ZeroPad
from opsin.backbones.weights import imagenet_weights
from opsin.errors import unknown
from opsin.nn.activation import create_activation, works_inplace
from opsin.nn.conv import ConvNormActivation
from opsin.registry import Published, Weights, register

Norm: TypeAlias = Literal["bn"] | None


class Layers:
    """Builds the layers of a Darknet: convolution, batch norm or none, activation.

    activation: a name of `opsin.nn.activation`; negative_slope: of "leaky_relu" alone. Raises InputError for a norm or
    an activation that there is not.
    """

    def __init__(self, norm: Norm, activation: str, negative_slope: float) -> None:
        if norm not in ("bn", None):
            raise unknown("norm", norm, ("bn", "null"))
        options: dict[str, Any] = {"negative_slope": negative_slope} if activation == "leaky_relu" else {}
        if works_inplace(activation):
            options["inplace"] = True
        self.norm = "batch" if norm == "bn" else None
        self.activation = partial(create_activation, activation, **options)
        self.activation()  # a wrong name is an error here, also where no layer follows

    def __call__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        stride: int = 1,
        *,
        groups: int = 1,
        linear: bool = False,
    ) -> ConvNormActivation:
        """A layer that keeps the size at stride 1. linear: without the activation."""
        activation = None if linear else self.activation
        return ConvNormActivation(
            in_channels, out_channels, kernel_size, stride, groups=groups, norm=self.norm, activation=activation
        )


def he_initialize(network: nn.Module) -> None:
    """Darknet's start: N(0, 2 / fan_in) for convolutions, biases of zero; batch norm starts as the identity."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)


class Residual(nn.Module):
    """activation(body(x) + x). Darknet's own blocks have no activation behind the sum, its ResNets have.

    Where the body changes the shape, x loses places and gains zeros, as Darknet's shortcut layer does: ResNet's option
    A. residual=False leaves x out.
    """

    def __init__(
        self,
        body: nn.Module,
        in_channels: int,
        out_channels: int,
        stride: int = 1,
        *,
        activation: nn.Module | None = None,
        residual: bool = True,
    ) -> None:
        super().__init__()
        same = stride == 1 and in_channels == out_channels
        self.body = body
        self.shortcut = (nn.Identity() if same else ZeroPad(out_channels - in_channels, stride)) if residual else None
        self.activation = nn.Identity() if activation is None else activation

    def forward(self, x: Tensor) -> Tensor:
        y = self.body(x)
        if self.shortcut is not None:
            y = y + self.shortcut(x)  # not in place: the body ends in an activation that needs its own output
        return self.activation(y)


def dark_block(layers: Layers, in_channels: int, hidden: int, out_channels: int, residual: bool = True) -> Residual:
    """Darknet-53's block: 1x1 to fewer maps, 3x3, plus the input. arXiv:1804.02767, table 1."""
    body = nn.Sequential(layers(in_channels, hidden, 1), layers(hidden, out_channels, 3))
    return Residual(body, in_channels, out_channels, residual=residual)


def bottleneck(
    layers: Layers,
    in_channels: int,
    hidden: int,
    out_channels: int,
    *,
    stride: int = 1,
    groups: int = 1,
    residual: bool = True,
) -> Residual:
    """ResNet's block as Darknet builds it: 1x1, 3x3 with the stride, linear 1x1; the activation follows the sum."""
    body = nn.Sequential(
        layers(in_channels, hidden, 1),
        layers(hidden, hidden, 3, stride, groups=groups),
        layers(hidden, out_channels, 1, linear=True),
    )
    return Residual(body, in_channels, out_channels, stride, activation=layers.activation(), residual=residual)


class Darknet19(Backbone):
    """Stages of 3x3 and 1x1 convolutions in turn, each behind a 2x2 max pooling; the head is a 1x1 convolution.

    An odd row or column at the border is pooled by itself, as Darknet pads, so that any size is taken.
    """

    def __init__(
        self,
        widths: Sequence[Sequence[int]],
        *,
        num_classes: int = 1000,
        in_channels: int = 3,
        norm: Norm = "bn",
        activation: str = "leaky_relu",
        negative_slope: float = 0.1,
    ) -> None:
        super().__init__(num_classes, in_channels)
        layers = Layers(norm, activation, negative_slope)
        self.stem = layers(in_channels, 32, 3)
        self.stages = nn.ModuleList()
        channels = 32
        for stage in widths:
            modules: list[nn.Module] = [nn.MaxPool2d(2, ceil_mode=True)]
            for place, width in enumerate(stage):
                modules.append(layers(channels, width, 1 if place % 2 else 3))
                channels = width
            self.stages.append(nn.Sequential(*modules))
        self.head = nn.Sequential(nn.Conv2d(channels, num_classes, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.channels = tuple(stage[-1] for stage in widths)
        self.strides = tuple(2 ** (stage + 1) for stage in range(len(widths)))
        he_initialize(self)

    def _replace_output(self) -> None:
        last = self.head.get_submodule("0")
        assert isinstance(last, nn.Conv2d)
        fresh = nn.Conv2d(last.in_channels, self.num_classes, 1, device=last.weight.device, dtype=last.weight.dtype)
        self.head.set_submodule("0", fresh)


class Darknet53(Backbone):
    """A 3x3 stem, then stages of a convolution of stride 2 and residual blocks; global average pooling; a linear layer.

    depths: blocks of each stage. residual=False leaves the sums out: 53 plain layers. norm: "bn" or None.
    activation: a name of `opsin.nn.activation`; negative_slope: of "leaky_relu".
    """

    def __init__(
        self,
        depths: Sequence[int],
        *,
        num_classes: int = 1000,
        in_channels: int = 3,
        residual: bool = True,
        norm: Norm = "bn",
        activation: str = "leaky_relu",
        negative_slope: float = 0.1,
    ) -> None:
        super().__init__(num_classes, in_channels)
        layers = Layers(norm, activation, negative_slope)
        self.stem = layers(in_channels, 32, 3)
        self.stages = nn.ModuleList()
        for stage, depth in enumerate(depths):
            narrow, wide = 32 * 2**stage, 64 * 2**stage
            blocks = [dark_block(layers, wide, narrow, wide, residual) for _ in range(depth)]
            self.stages.append(nn.Sequential(layers(narrow, wide, 3, 2), *blocks))
        self.channels = tuple(64 * 2**stage for stage in range(len(depths)))
        self.strides = tuple(2 ** (stage + 1) for stage in range(len(depths)))
        self.head = pooled_linear(self.channels[-1], num_classes)
        he_initialize(self)


class DarknetResNet(Backbone):
    """ResNet of Darknet's cfg files: bottlenecks, shortcuts without parameters, 2x2 max pooling in the stem.

    depths: blocks of each stage. hidden: width of the first stage inside its blocks. groups: of the 3x3 convolutions.
    The switches are those of `Darknet53`.
    """

    def __init__(
        self,
        depths: Sequence[int],
        hidden: int,
        groups: int,
        *,
        num_classes: int = 1000,
        in_channels: int = 3,
        residual: bool = True,
        norm: Norm = "bn",
        activation: str = "leaky_relu",
        negative_slope: float = 0.1,
    ) -> None:
        super().__init__(num_classes, in_channels)
        layers = Layers(norm, activation, negative_slope)
        self.stem = nn.Sequential(layers(in_channels, 64, 7, 2), nn.MaxPool2d(2, ceil_mode=True))
        self.stages = nn.ModuleList()
        channels = 64
        for stage, depth in enumerate(depths):
            blocks = []
            for place in range(depth):
                stride, width = (2 if stage and not place else 1), 256 * 2**stage
                inner = hidden * 2**stage
                blocks.append(
                    bottleneck(layers, channels, inner, width, stride=stride, groups=groups, residual=residual)
                )
                channels = width
            self.stages.append(nn.Sequential(*blocks))
        self.channels = tuple(256 * 2**stage for stage in range(len(depths)))
        self.strides = tuple(4 * 2**stage for stage in range(len(depths)))
        self.head = pooled_linear(channels, num_classes)
        he_initialize(self)


def pooled_linear(channels: int, num_classes: int) -> nn.Sequential:
    """The usual head: the mean of every map, then one linear layer."""
    return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, num_classes))


def timm_weights(
    path: str, name: str, top1: float, top5: float, size: int, crop_ratio: float, interpolation: str
) -> dict[str, Weights]:
    """timm's file for ImageNet-1k. path: in its releases. top1, top5: of its results-imagenet.csv, at this size."""
    url = f"https://github.com/rwightman/pytorch-image-models/releases/download/{path}.pth"
    options = {"size": size, "crop_ratio": crop_ratio, "interpolation": interpolation}
    return {"imagenet1k": imagenet_weights(url, "Apache-2.0", f"timm, {name}", top1, top5, **options)}


_19 = (64,), (128, 64, 128), (256, 128, 256), (512, 256, 512, 256, 512), (1024, 512, 1024, 512, 1024)
_53 = 1, 2, 8, 8, 4
_YOLOV3 = "counted: the author's cfg; results read: arXiv:1804.02767, table 2, at 256x256"
_CSP = "counted: the author's cfg; results read: the README of WongKinYiu/CrossStagePartialNetworks, at 256x256"


def _published(
    paper: str, year: int, params: int, macs: int, result: tuple[float, float], idea: str, source: str
) -> Published:
    metrics = {"imagenet1k top-1": result[0], "imagenet1k top-5": result[1]}
    return Published(paper, year, (3, 256, 256), params, macs, metrics, idea, source)


@register(
    "darknet19",
    task="classify",
    network=Darknet19,
    published=_published(
        "arXiv:1612.08242",
        2016,
        20_842_376,
        3_645_374_464,
        (74.1, 91.8),
        "3x3 convolutions with a 1x1 between two of them that halves the maps",
        _YOLOV3,
    ),
)
def darknet19(**options: Any) -> Darknet19:
    return Darknet19(_19, **options)


@register(
    "darknet53",
    task="classify",
    network=Darknet53,
    published=_published(
        "arXiv:1804.02767",
        2018,
        41_609_928,
        9_285_115_904,
        (77.2, 93.8),
        "residual pairs of 1x1 and 3x3, convolutions of stride 2 for pooling",
        _YOLOV3,
    ),
)
def darknet53(**options: Any) -> Darknet53:
    return Darknet53(_53, **options)


@register(
    "darknet53_timm",
    task="classify",
    network=Darknet53,
    published=_published(
        "arXiv:1804.02767",
        2018,
        41_609_928,
        9_285_115_904,
        (80.536, 95.434),
        "darknet53 with timm's leaky ReLU, of slope 0.01",
        "counted: timm; results read: its results-imagenet.csv, at 288x288",
    ),
    weights=timm_weights(
        "v0.1-tpu-weights/darknet53_256_c2ns-3aeff817", "darknet53.c2ns_in1k", 80.536, 95.434, 288, 1.0, "bicubic"
    ),
)
def darknet53_timm(*, negative_slope: float = 0.01, **options: Any) -> Darknet53:
    return Darknet53(_53, negative_slope=negative_slope, **options)


@register(
    "resnet50_darknet",
    task="classify",
    network=DarknetResNet,
    published=_published(
        "arXiv:1512.03385",
        2015,
        22_780_456,
        4_870_586_368,
        (75.8, 92.9),
        "ResNet-50 without projections, which CSPNet is measured against",
        _CSP,
    ),
)
def resnet50_darknet(**options: Any) -> DarknetResNet:
    return DarknetResNet((3, 4, 6, 3), 64, 1, **options)


@register(
    "resnext50_darknet",
    task="classify",
    network=DarknetResNet,
    published=_published(
        "arXiv:1611.05431",
        2016,
        22_252_328,
        5_055_135_744,
        (77.8, 94.2),
        "ResNeXt-50 without projections, which CSPNet is measured against",
        _CSP,
    ),
)
def resnext50_darknet(**options: Any) -> DarknetResNet:
    return DarknetResNet((3, 4, 6, 3), 128, 32, **options)
