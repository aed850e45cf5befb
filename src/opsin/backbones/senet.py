"""SENet: Squeeze-and-Excitation Networks.

Hu, Shen, Albanie, Sun and Wu 2017, arXiv:1709.01507. The idea: channels are not equally worth having in every image,
so the mean of each over the whole map goes through a small network that weighs them all. It takes 10 % more parameters
and under 0.1 % more multiply-adds in a ResNet-50.

se_resnet50 to se_resnet152, se_resnext* and senet154 are the authors' Caffe nets, and timm's legacy_* of them: the
bottlenecks of the ResNets halve the map in the first 1x1 (v1), and the stem's pooling is Caffe's. senet154 changes
more: three 3x3 convolutions for the 7x7, 3x3 projections, half as many maps in the first 1x1 of a bottleneck,
and dropout. The paper has se_resnet18 and se_resnet34 too, and the authors published none; pytorchcv has them with
torch's pooling. legacy_seresnet18 and legacy_seresnet34 are timm's, which weigh what a ReLU lets through, and so does
whoever uses its weights. Newer ports have torchvision's v1.5 bottlenecks; timm rounds the hidden channels to 8.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import nn

from opsin.backbones.resnet import Bottleneck, ResNet
from opsin.backbones.weights import imagenet_weights
from opsin.checks import check_count
from opsin.nn.attention import squeeze_excitation
from opsin.registry import Published, Weights, register

_TIMM = "https://github.com/rwightman/pytorch-image-models/releases/download/"
_AUTHORS = "counted: the authors' prototxt; result read: their README, 1 crop"


def _register(
    name: str,
    depths: tuple[int, ...],
    bottleneck: Bottleneck,
    published: Published,
    weights: Weights | None = None,
    *,
    groups: int = 1,
    width_per_group: int = 64,
    relu_before: bool = False,
    dropout: float = 0.0,
) -> Callable[..., ResNet]:
    """Enter a net of Caffe's stem, and of blocks that end in squeeze-and-excitation."""
    plan = depths, bottleneck, (64, 128, 256, 512), "deep" if bottleneck == "senet154" else "caffe"
    head_dropout = dropout

    @register(name, task="classify", network=ResNet, published=published, weights=weights and {"imagenet1k": weights})
    def build(*, se: bool = True, ratio: int = 16, dropout: float = head_dropout, **options: Any) -> ResNet:
        check_count("ratio", ratio)

        def attention(channels: int) -> nn.Module:
            weigh = squeeze_excitation(channels, ratio=ratio)
            return nn.Sequential(nn.ReLU(inplace=True), weigh) if relu_before else weigh

        return ResNet(*plan, groups, width_per_group, attention if se else None, dropout=dropout, **options)

    return build


def _published(params: int, macs: int, source: str, *errors: float) -> Published:
    names = "imagenet1k top-1", "imagenet1k top-5"
    return Published(
        paper="arXiv:1709.01507",
        year=2017,
        input=(3, 224, 224),
        params=params,
        macs=macs,
        metrics={name: round(100 - error, 3) for name, error in zip(names, errors, strict=False)},
        idea="weigh the channels by what the whole map holds",
        source=source,
    )


def _weights(file: str, name: str, top1: float, top5: float, interpolation: str = "bilinear") -> Weights:
    source = f"timm, legacy_{name}.in1k"
    return imagenet_weights(f"{_TIMM}{file}.pth", "Apache-2.0", source, top1, top5, interpolation=interpolation)


se_resnet18 = _register(
    "se_resnet18",
    (2, 2, 2, 2),
    None,
    _published(11_778_592, 1_814_160_384, "counted: pytorchcv"),
)
se_resnet34 = _register(
    "se_resnet34",
    (3, 4, 6, 3),
    None,
    _published(21_958_868, 3_663_918_592, "counted: pytorchcv"),
)
legacy_seresnet18 = _register(
    "legacy_seresnet18",
    (2, 2, 2, 2),
    None,
    _published(11_778_592, 1_814_160_384, "counted and result read: timm", 28.234, 9.668),
    _weights("v0.1-weights/seresnet18-4bb0ce65", "seresnet18", 71.766, 90.332, "bicubic"),
    relu_before=True,
)
legacy_seresnet34 = _register(
    "legacy_seresnet34",
    (3, 4, 6, 3),
    None,
    _published(21_958_868, 3_663_918_592, "counted and result read: timm", 25.192, 7.874),
    _weights("v0.1-weights/seresnet34-a4004e63", "seresnet34", 74.808, 92.126),
    relu_before=True,
)
se_resnet50 = _register(
    "se_resnet50",
    (3, 4, 6, 3),
    "v1",
    _published(28_088_024, 3_860_488_192, _AUTHORS, 22.37, 6.36),
    _weights("v0.1-cadene/se_resnet50-ce0d4300", "seresnet50", 77.644, 93.758),
)
se_resnet101 = _register(
    "se_resnet101",
    (3, 4, 23, 3),
    "v1",
    _published(49_326_872, 7_574_937_600, _AUTHORS, 21.75, 5.72),
    _weights("v0.1-cadene/se_resnet101-7e38fcc6", "seresnet101", 78.386, 94.262),
)
se_resnet152 = _register(
    "se_resnet152",
    (3, 8, 36, 3),
    "v1",
    _published(66_821_848, 11_288_993_792, _AUTHORS, 21.34, 5.54),
    _weights("v0.1-cadene/se_resnet152-d17c99b7", "seresnet152", 78.66, 94.37),
)
se_resnext50_32x4d = _register(
    "se_resnext50_32x4d",
    (3, 4, 6, 3),
    "v1.5",
    _published(27_559_896, 4_232_994_816, _AUTHORS, 20.97, 5.54),
    _weights("v0.1-weights/legacy_se_resnext50_32x4d-f3651bad", "seresnext50_32x4d", 79.076, 94.432),
    groups=32,
    width_per_group=4,
)
se_resnext101_32x4d = _register(
    "se_resnext101_32x4d",
    (3, 4, 23, 3),
    "v1.5",
    _published(48_955_416, 7_974_739_968, _AUTHORS, 19.81, 4.96),
    _weights("v0.1-weights/legacy_se_resnext101_32x4d-37725eac", "seresnext101_32x4d", 80.23, 95.026),
    groups=32,
    width_per_group=4,
)
senet154 = _register(
    "senet154",
    (3, 8, 36, 3),
    "senet154",
    _published(115_088_984, 20_688_363_520, _AUTHORS, 18.68, 4.47),
    _weights("v0.1-weights/legacy_senet154-e9eb9fe6", "senet154", 81.308, 95.492),
    groups=64,
    width_per_group=4,
    dropout=0.2,
)
