"""Wide ResNet: Wide Residual Networks.

Zagoruyko and Komodakis 2016, arXiv:1605.07146. The idea: make residual nets wider instead of deeper. 16 wide layers are
as good as a thousand thin ones, and far faster, for a wide convolution keeps a GPU busy and a long chain does not.

wrn16_8 is 16 layers, eight times as wide as a ResNet for CIFAR, and so on: pre-activation nets of basic blocks, with
room for dropout between a block's convolutions. wide_resnet50_2 and wide_resnet101_2 are the nets for ImageNet as
torchvision has them: ResNets, in their v1.5, whose 3x3 convolutions are twice as wide while the maps between the blocks
are not. pytorchcv's wrn50_2 is built otherwise, with biases in place of batch norms (68,849,128 parameters).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from opsin.backbones.preact_resnet import PreActResNet
from opsin.backbones.resnet import ResNet
from opsin.backbones.weights import torchvision_weights
from opsin.checks import check_count
from opsin.registry import Published, register


def _published(params: int, macs: int, metrics: Mapping[str, float], source: str, size: int) -> Published:
    return Published(
        paper="arXiv:1605.07146",
        year=2016,
        input=(3, size, size),
        params=params,
        macs=macs,
        metrics=metrics,
        idea="wider, not deeper",
        source=source,
    )


def _cifar(
    depth: int, widening: int, params: int, macs: int, error: float | None = None
) -> Callable[..., PreActResNet]:
    """Enter a net of 6n + 4 layers: three stages of n basic blocks, with 16, 32 and 64 maps times the widening."""
    blocks, factor = (depth - 4) // 6, widening
    quoted = "; result: the paper's, as gahaalt/cifar-vs-tensorflow2 quotes it"
    published = _published(
        params,
        macs,
        {} if error is None else {"cifar10 accuracy": round(100 - error, 2)},
        "counted on the paper's table 1" + (quoted if error else ""),
        size=32,
    )

    @register(f"wrn{depth}_{widening}", task="classify", network=PreActResNet, published=published)
    def build(*, num_classes: int = 10, widening: int = factor, **options: Any) -> PreActResNet:
        widths = tuple(width * check_count("widening", widening) for width in (16, 32, 64))
        return PreActResNet((blocks, blocks, blocks), False, widths, 16, True, num_classes=num_classes, **options)

    return build


def _imagenet(
    depth: int, depths: tuple[int, ...], published: Published, *files: tuple[str, float, float]
) -> Callable[..., ResNet]:
    """Enter a ResNet whose 3x3 convolutions are twice as wide."""

    @register(
        f"wide_resnet{depth}_2",
        task="classify",
        network=ResNet,
        published=published,
        weights=torchvision_weights(*files),
    )
    def build(*, width_per_group: int = 128, **options: Any) -> ResNet:
        return ResNet(depths, "v1.5", width_per_group=width_per_group, **options)

    return build


_TORCHVISION = "counted and weights' results read: torchvision"
wide_resnet50_2 = _imagenet(
    50,
    (3, 4, 6, 3),
    _published(
        68_883_240, 11_398_021_120, {"imagenet1k top-1": 78.468, "imagenet1k top-5": 94.086}, _TORCHVISION, size=224
    ),
    ("wide_resnet50_2-95faca4d", 78.468, 94.086),
    ("wide_resnet50_2-9ba9bcbe", 81.602, 95.758),
)
wide_resnet101_2 = _imagenet(
    101,
    (3, 4, 23, 3),
    _published(
        126_886_696, 22_753_050_624, {"imagenet1k top-1": 78.848, "imagenet1k top-5": 94.284}, _TORCHVISION, size=224
    ),
    ("wide_resnet101_2-32ee1156", 78.848, 94.284),
    ("wide_resnet101_2-d733dc28", 82.51, 96.02),
)
wrn16_8 = _cifar(16, 8, 10_961_370, 1_548_145_664, 4.27)
wrn28_10 = _cifar(28, 10, 36_479_194, 5_243_328_768, 4.0)
wrn40_4 = _cifar(40, 4, 8_949_210, 1_298_582_016, 4.53)
wrn40_8 = _cifar(40, 8, 35_748_314, 5_172_024_320)
