"""GoogLeNet, or Inception v1: Going Deeper with Convolutions.

Szegedy et al. 2014, arXiv:1409.4842. The idea: look at every place with several kernel sizes side by side, and pay for
it with 1x1 convolutions that first bring the channels down. Two auxiliary classifiers feed gradient into the middle.

googlenet_naive: the module of figure 2a, without the 1x1 reductions, with the widths of table 1. Its pooling branch
keeps all channels, so every module is wider than the one before: the blow-up that the reductions are there to stop.
googlenet: the paper's table 1, with local response normalisation and rounding up in pooling as in Caffe, where its
published weights came from.
googlenet_bn: torchvision's port. Batch norm instead of LRN, 3x3 where the paper has 5x5 (a mistake that its weights
have made permanent), a 2x2 last pooling, and auxiliary heads that pool to 4x4 with other windows.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Literal, TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from opsin.backbones.backbone import Backbone
from opsin.backbones.weights import imagenet_weights
from opsin.errors import unknown
from opsin.nn.conv import ConvNormActivation
from opsin.nn.norm import create_norm
from opsin.registry import Published, register

Conv: TypeAlias = Callable[..., nn.Module]  # (in_channels, out_channels, kernel_size, stride, ...) with norm and ReLU
Norm: TypeAlias = Literal["lrn", "bn"] | None

# Table 1, by stage: 1x1, 3x3 reduce, 3x3, 5x5 reduce, 5x5, pool projection.
_MODULES = (
    ((64, 96, 128, 16, 32, 32), (128, 128, 192, 32, 96, 64)),
    (
        (192, 96, 208, 16, 48, 64),
        (160, 112, 224, 24, 64, 64),
        (128, 128, 256, 24, 64, 64),
        (112, 144, 288, 32, 64, 64),
        (256, 160, 320, 32, 128, 128),
    ),
    ((256, 160, 320, 32, 128, 128), (384, 192, 384, 48, 128, 128)),
)
_TAPS = {"aux1": (1, 1), "aux2": (1, 4)}  # behind modules 4a and 4d; block 0 of a stage is its pooling


class Branches(nn.ModuleList):
    """Modules side by side on the same map, their outputs concatenated: (B, C, H, W) -> (B, sum of theirs, H', W')."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([branch(x) for branch in self], dim=1)


def convolution(norm: str | None, eps: float = 1e-3, **options: Any) -> Conv:
    """What the Inception nets are built from: a convolution, batch norm ("bn") or none, ReLU. eps: TensorFlow's."""
    if norm not in ("bn", None):
        raise unknown("norm", norm, ("bn", "null"))
    return partial(ConvNormActivation, norm=partial(nn.BatchNorm2d, eps=eps) if norm else None, **options)


def chain(conv: Conv, in_channels: int, *layers: tuple[Any, ...]) -> nn.Module:
    """Convolutions one behind another: each (out_channels, kernel_size), and where it needs them stride and border."""
    convs: list[nn.Module] = []
    for out_channels, kernel_size, *placing in layers:
        stride, border = placing or (1, None)
        convs.append(conv(in_channels, out_channels, kernel_size, stride, border=border))
        in_channels = out_channels
    return nn.Sequential(*convs) if len(convs) > 1 else convs[0]


def initialize_he(model: nn.Module) -> None:
    """He's weights for every convolution, for the Inception papers that do not say, or say what batch norm undoes.

    By fan in, and not out as in ResNet: 1x1 convolutions to far fewer channels would else raise the scale in each
    module, and a network with fresh statistics of batch norm would overflow.
    """
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)


# Ported from TensorFlow: torchvision's `transform_input` undoes ImageNet's mean and deviation and makes images in
# [-1, 1] of them. With a mean and deviation of 0.5 in their place the network sees the same.
inception_weights = partial(imagenet_weights, symmetric=True)


def auxiliary_last(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """torchvision's state dict with the auxiliary heads between the last stage and the head, where ours are."""
    ranks = {"aux1": 1, "aux2": 1, "AuxLogits": 1, "fc": 2}
    return dict(sorted(state.items(), key=lambda item: ranks.get(item[0].partition(".")[0], 0)))


class AtLeast(nn.Module):
    """Stretches a map whose sides are shorter than `size` pixels to that; longer ones pass. (B, C, H, W) in and out."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.size = size

    def forward(self, x: Tensor) -> Tensor:
        # not `if`: an exported program may leave the size open
        height, width = (torch.sym_max(n, self.size) for n in x.shape[2:])
        return F.adaptive_avg_pool2d(x, (height, width))  # type: ignore[arg-type]

    def extra_repr(self) -> str:
        return f"size={self.size}"


class GoogLeNet(Backbone):
    """A stem, nine Inception modules in three stages, global average pooling, one linear layer.

    port: torchvision's changes (see above) instead of the paper's own form. norm: "lrn" twice in the stem, "bn" behind
    every convolution, or None. reduction=False leaves out the 1x1 convolutions before 3x3 and 5x5 and behind the
    pooling: figure 2a. aux_heads: the two auxiliary classifiers, in training alone if None, see `training_options`;
    aux_weight: of their losses, section 5.
    """

    def __init__(
        self,
        port: bool = False,
        *,
        num_classes: int = 1000,
        in_channels: int = 3,
        norm: Norm = "lrn",
        reduction: bool = True,
        aux_heads: bool | None = None,
        aux_weight: float = 0.3,
        dropout: float = 0.4,
        aux_dropout: float = 0.7,
    ) -> None:
        super().__init__(num_classes, in_channels)
        if norm not in ("lrn", "bn", None):
            raise unknown("norm", norm, ("lrn", "bn", "null"))
        conv = convolution("bn" if norm == "bn" else None)
        self.min_size = 15 if port else 31
        self.strides = (8, 16, 32)
        self.stem = _stem(conv, in_channels, lrn=norm == "lrn")
        self.stages, channels, widths = nn.ModuleList(), 192, [[192]]
        for stage, modules in enumerate(_MODULES):
            blocks: list[nn.Module] = [_pool(2 if port and stage == 2 else 3)]
            widths.append([])
            for plan in modules:
                blocks.append(_inception(conv, channels, plan, 3 if port else 5, reduction))
                channels = plan[0] + plan[2] + plan[4] + (plan[5] if reduction else channels)
                widths[-1].append(channels)
            self.stages.append(nn.Sequential(*blocks))
        self.channels = tuple(stage[-1] for stage in widths[1:])
        if aux_heads:
            self.aux_taps, self.aux_weight = _TAPS, aux_weight
            read = {name: widths[stage + 1][block - 1] for name, (stage, block) in _TAPS.items()}
            self.aux_heads = nn.ModuleDict(
                {name: _aux_head(conv, width, num_classes, aux_dropout, port) for name, width in read.items()}
            )
        self.head = nn.Sequential(
            nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(dropout), nn.Linear(channels, num_classes)
        )
        self._initialize(norm)

    @classmethod
    def suggest(cls, state: Mapping[str, Tensor]) -> str:
        if not any(name.startswith("inception3a.") for name in state):
            return ""
        return "torchvision's googlenet is googlenet_bn here"

    def _initialize(self, norm: Norm) -> None:
        """The paper does not say. Without batch norm as Caffe's GoogLeNet, with it He's.

        torchvision's is N(0, 0.01^2), with which a network in evaluation says nothing before batch norm has statistics.
        """
        if norm == "bn":
            return initialize_he(self)
        for module in self.modules():
            if isinstance(module, (nn.Conv2d, nn.Linear)):
                nn.init.kaiming_uniform_(module.weight, nonlinearity="linear")  # what Caffe calls xavier
                # 0.2: without a norm every unit should begin alive; the layers that make the logits begin at 0
                hidden = isinstance(module, nn.Conv2d) or module.out_features != self.num_classes
                nn.init.constant_(module.bias, 0.2 if hidden else 0.0)  # type: ignore[arg-type]


def _stem(conv: Conv, in_channels: int, *, lrn: bool) -> nn.Sequential:
    def norm(channels: int) -> list[nn.Module]:
        return [create_norm("lrn", channels)] if lrn else []

    layers = [conv(in_channels, 64, 7, 2), _pool(3), *norm(64), conv(64, 64, 1), conv(64, 192, 3), *norm(192)]
    return nn.Sequential(*layers)


def _pool(kernel_size: int) -> nn.MaxPool2d:
    return nn.MaxPool2d(kernel_size, 2, ceil_mode=True)  # Caffe's rounding: 112, 56, 28, 14, 7 for 224


def _inception(conv: Conv, in_channels: int, plan: tuple[int, ...], large: int, reduction: bool) -> Branches:
    """1x1, 3x3, `large` x `large` and pooling side by side: figure 2b, or 2a without reduction."""
    one, reduce3, three, reduce5, five, projection = plan
    pool = nn.MaxPool2d(3, 1, 1)
    if not reduction:
        direct = [chain(conv, in_channels, (width, size)) for width, size in ((one, 1), (three, 3), (five, large))]
        return Branches([*direct, pool])
    return Branches(
        [
            chain(conv, in_channels, (one, 1)),
            chain(conv, in_channels, (reduce3, 1), (three, 3)),
            chain(conv, in_channels, (reduce5, 1), (five, large)),
            nn.Sequential(pool, conv(in_channels, projection, 1)),
        ]
    )


def _aux_head(conv: Conv, in_channels: int, num_classes: int, dropout: float, port: bool) -> nn.Sequential:
    """Section 5: pooling to 4x4, 1x1 to 128 channels, 1024 hidden units, the classes."""
    # The paper pools 5x5 with stride 3, which makes 4x4 of 14x14; the adaptive pooling is for other images than 224.
    pool = [] if port else [AtLeast(5), nn.AvgPool2d(5, 3)]
    return nn.Sequential(
        *pool,
        nn.AdaptiveAvgPool2d(4),
        conv(in_channels, 128, 1),
        nn.Flatten(),
        nn.Linear(128 * 4 * 4, 1024),
        nn.ReLU(inplace=True),
        nn.Dropout(dropout),
        nn.Linear(1024, num_classes),
    )


_PAPER = "arXiv:1409.4842"
_IDEA = "several kernel sizes side by side, 1x1 convolutions to pay for it"


@register(
    "googlenet_naive",
    task="classify",
    network=GoogLeNet,
    published=Published(
        paper=_PAPER,
        year=2014,
        input=(3, 224, 224),
        params=97_526_008,
        macs=12_568_061_056,
        idea="several kernel sizes side by side, without reductions: the blow-up",
        source="counted on the paper's figure 2a with the widths of its table 1; it gives no number",
    ),
)
def googlenet_naive(*, reduction: bool = False, aux_heads: bool = False, **options: Any) -> GoogLeNet:
    return GoogLeNet(reduction=reduction, aux_heads=aux_heads, **options)


@register(
    "googlenet",
    task="classify",
    network=GoogLeNet,
    published=Published(
        paper=_PAPER,
        year=2014,
        input=(3, 224, 224),
        params=13_378_280,
        macs=1_582_671_872,
        metrics={"imagenet1k top-1": 68.7, "imagenet1k top-5": 88.9},
        idea=_IDEA,
        source="counted and results of its weights read: Caffe's bvlc_googlenet; MACs without the auxiliary heads",
    ),
)
def googlenet(**options: Any) -> GoogLeNet:
    return GoogLeNet(**options)


@register(
    "googlenet_bn",
    task="classify",
    network=GoogLeNet,
    published=Published(
        paper=_PAPER,
        year=2014,
        input=(3, 224, 224),
        params=13_004_888,
        macs=1_498_376_192,
        metrics={"imagenet1k top-1": 69.778, "imagenet1k top-5": 89.53},
        idea=_IDEA,
        source="counted and weights' results read: torchvision; MACs without the auxiliary heads",
    ),
    weights={
        "imagenet1k": inception_weights(
            "https://download.pytorch.org/models/googlenet-1378be20.pth",
            "BSD-3-Clause",
            "torchvision, IMAGENET1K_V1, ported from TensorFlow",
            69.778,
            89.53,
            arrange=auxiliary_last,
        )
    },
)
def googlenet_bn(*, norm: Norm = "bn", dropout: float = 0.2, **options: Any) -> GoogLeNet:
    return GoogLeNet(True, norm=norm, dropout=dropout, **options)
