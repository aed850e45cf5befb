"""ResNeXt: Aggregated Residual Transformations for Deep Neural Networks.

Xie, Girshick, Dollar, Tu and He 2016, arXiv:1611.05431. The idea: make a residual the sum of many small ones of the
same shape, for more of them (cardinality) help more than wider or deeper ones of the same cost. Their sum is a ResNet
bottleneck whose 3x3 convolution has groups (figure 3c), and that is how it is written here and everywhere.

The name tells the groups and the channels of each in the first stage: 32x4d is 32 groups of 4. The nets for ImageNet
halve the map in the 3x3 convolution, in the paper as in torchvision: there is no v1. resnext29_* are those for CIFAR of
section 5.3, whose text has pre-activation blocks; the authors' released code says that the plain ones are better, and
has them, as pytorchcv and we do. resnext101_32x8d is torchvision's and resnext152_32x4d pycls', after the paper.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from opsin.backbones.resnet import ResNet
from opsin.backbones.weights import imagenet_weights, torchvision_weights
from opsin.registry import Published, Weights, register

_TORCHVISION = "counted and weights' results read: torchvision"
_GLUON = "https://github.com/rwightman/pytorch-pretrained-gluonresnet/releases/download/v0.1/gluon_"


def _register(
    name: str,
    depths: tuple[int, ...],
    groups: int,
    width_per_group: int,
    published: Published,
    weights: Mapping[str, Weights] | None = None,
) -> Callable[..., ResNet]:
    """Enter a net with so many blocks in each stage: four stages are for ImageNet, three for CIFAR."""
    imagenet = len(depths) == 4
    plan = depths, "v1.5", (64, 128, 256, 512)[: len(depths)], "imagenet" if imagenet else "cifar"
    classes, cardinality, width = 1000 if imagenet else 10, groups, width_per_group

    @register(name, task="classify", network=ResNet, published=published, weights=weights)
    def build(
        *, num_classes: int = classes, groups: int = cardinality, width_per_group: int = width, **options: Any
    ) -> ResNet:
        return ResNet(*plan, groups, width_per_group, num_classes=num_classes, **options)

    return build


def _published(params: int, macs: int, metrics: Mapping[str, float], source: str, size: int = 224) -> Published:
    return Published(
        paper="arXiv:1611.05431",
        year=2016,
        input=(3, size, size),
        params=params,
        macs=macs,
        metrics=metrics,
        idea="many small residuals side by side: a bottleneck of 3x3 groups",
        source=source,
    )


def _imagenet(top1: float, top5: float | None = None) -> dict[str, float]:
    return {"imagenet1k top-1": top1} | ({} if top5 is None else {"imagenet1k top-5": top5})


resnext50_32x4d = _register(
    "resnext50_32x4d",
    (3, 4, 6, 3),
    32,
    4,
    _published(25_028_904, 4_230_479_872, _imagenet(77.618, 93.698), _TORCHVISION),
    torchvision_weights(("resnext50_32x4d-7cdf4587", 77.618, 93.698), ("resnext50_32x4d-1a0047aa", 81.198, 95.34)),
)
resnext101_32x4d = _register(
    "resnext101_32x4d",
    (3, 4, 23, 3),
    32,
    4,
    _published(44_177_704, 7_969_996_800, _imagenet(78.8), "counted: timm; result read: the authors' README"),
    {
        "imagenet1k": imagenet_weights(
            f"{_GLUON}resnext101_32x4d-b253c8c4.pth",
            "Apache-2.0",
            "timm, resnext101_32x4d.gluon_in1k: converted from GluonCV",
            80.34,
            94.93,
            interpolation="bicubic",
        )
    },
)
resnext101_32x8d = _register(
    "resnext101_32x8d",
    (3, 4, 23, 3),
    32,
    8,
    _published(88_791_336, 16_414_015_488, _imagenet(79.312, 94.526), _TORCHVISION),
    torchvision_weights(("resnext101_32x8d-8ba56ff5", 79.312, 94.526), ("resnext101_32x8d-110c445d", 82.834, 96.228)),
)
resnext101_64x4d = _register(
    "resnext101_64x4d",
    (3, 4, 23, 3),
    64,
    4,
    _published(83_455_272, 15_460_270_080, _imagenet(79.6), "counted: torchvision; result read: the authors' README"),
    {
        "imagenet1k": imagenet_weights(
            "https://download.pytorch.org/models/resnext101_64x4d-173b62eb.pth",
            "BSD-3-Clause",
            "torchvision, IMAGENET1K_V1: its long recipe of 2021, unlike the V1 of the others",
            83.246,
            96.454,
            crop_ratio=224 / 232,
        )
    },
)
resnext152_32x4d = _register(
    "resnext152_32x4d",
    (3, 8, 36, 3),
    32,
    4,
    _published(59_951_400, 11_709_513_728, _imagenet(79.6), "counted; result read: pycls' model zoo, mean of 5"),
)

_PAPER = "result: the paper's table 7, as longrootchen/cifar10-pytorch quotes it"
resnext29_32x4d = _register(
    "resnext29_32x4d", (3, 3, 3), 32, 4, _published(4_775_754, 774_055_936, {}, "counted: pytorchcv", 32)
)
resnext29_8x64d = _register(
    "resnext29_8x64d",
    (3, 3, 3),
    8,
    64,
    _published(34_426_698, 5_387_266_048, {"cifar10 accuracy": 96.35}, f"counted on the paper's text; {_PAPER}", 32),
)
resnext29_16x64d = _register(
    "resnext29_16x64d",
    (3, 3, 3),
    16,
    64,
    _published(68_155_210, 10_688_866_304, {"cifar10 accuracy": 96.42}, f"counted: pytorchcv; {_PAPER}", 32),
)
