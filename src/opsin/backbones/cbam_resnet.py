"""CBAM-ResNet: Convolutional Block Attention Module.

Woo, Park, Lee and Kweon 2018, arXiv:1807.06521. The idea: squeeze-and-excitation looks at means alone, and says what
matters and not where; so take the maximum beside the mean, and weigh places behind the channels.

The blocks stand at the end of the bodies of a ResNet, torchvision's v1.5. The paper's text has a bare 7x7 convolution
over the two maps of means and maxima: cbam_resnet18_paper, 34_paper and 50_paper. The authors' code, their results and
pytorchcv have a batch norm behind it: cbam_resnet18, 34 and 50. That code also takes the maxima first, a permutation
of the kernel, and starts the scale of that norm at 0, for gates of 1/2 everywhere; here it starts at 1, as any other.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from torch import nn

from opsin.backbones.resnet import ResNet
from opsin.nn.attention import CBAM
from opsin.registry import Published, register


def normed_cbam(channels: int, ratio: int = 16) -> CBAM:
    """`CBAM` as its authors' code has it: with a batch norm behind the convolution over places."""
    block = CBAM(channels, ratio)
    block.add_module("places", nn.Sequential(block.places, nn.BatchNorm2d(1, momentum=0.01)))  # the authors' momentum
    return block


def _register(
    depth: int, depths: tuple[int, ...], params: int, macs: int, source: str, *results: float, normed: bool = True
) -> Callable[..., ResNet]:
    """Enter a net as in the authors' code, or without the norm of the gates as in the paper. results: top-1, top-5."""
    published = Published(
        paper="arXiv:1807.06521",
        year=2018,
        input=(3, 224, 224),
        params=params,
        macs=macs,
        metrics=dict(zip(("imagenet1k top-1", "imagenet1k top-5"), results, strict=False)),
        idea="weigh channels, then places, by mean and maximum",
        source=source,
    )
    block = normed_cbam if normed else CBAM

    @register(
        f"cbam_resnet{depth}" + ("" if normed else "_paper"), task="classify", network=ResNet, published=published
    )
    def build(*, cbam: bool = True, ratio: int = 16, **options: Any) -> ResNet:
        attention = partial(block, ratio=ratio) if cbam else None
        return ResNet(depths, "v1.5" if depth >= 50 else None, attention=attention, **options)

    return build


_CODE = "counted: pytorchcv"
_TEXT = "counted: pytorchcv, less two parameters in each block"
cbam_resnet18 = _register(18, (2, 2, 2, 2), 11_779_392, 1_815_063_764, _CODE)
cbam_resnet34 = _register(34, (3, 4, 6, 3), 21_960_468, 3_665_434_742, _CODE)
cbam_resnet50 = _register(
    50, (3, 4, 6, 3), 28_089_624, 4_095_573_110, f"{_CODE}; result read: the authors' README", 77.622, 93.948
)
cbam_resnet18_paper = _register(18, (2, 2, 2, 2), 11_779_376, 1_815_063_764, _TEXT, normed=False)
cbam_resnet34_paper = _register(34, (3, 4, 6, 3), 21_960_436, 3_665_434_742, _TEXT, normed=False)
cbam_resnet50_paper = _register(50, (3, 4, 6, 3), 28_089_592, 4_095_573_110, _TEXT, normed=False)
