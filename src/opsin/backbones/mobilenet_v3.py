"""MobileNetV3: Searching for MobileNetV3.

Howard, Sandler, Chu, Chen, Chen, Tan, Wang, Zhu, Pang, Vasudevan, Le and Adam 2019, arXiv:1905.02244. The idea: search
the kernel, the width and the squeeze of every inverted residual for the latency of a real phone, then remove by hand
what is slow: activations that need no exponential, a thinner stem, and a last wide layer computed on one place only.

Large and small are the paper's tables 1 and 2. The minimalistic ones, published beside TensorFlow's code, have 3x3
kernels and ReLU everywhere and no squeeze, for processors where those cost most. mobilenet_v3_* pad as torch does and
are torchvision's where it has them; tf_mobilenet_v3_* pad as TensorFlow does, and take its published weights.
The small net's last hidden layer has 1024 features; the first version of the paper had 1280, and pytorchcv still does.
A reduced width leaves that layer as it is and expands the rounded channels by the table's ratio, as TensorFlow does;
torchvision's `width_mult` shrinks the layer, and rounds the expanded channels apart.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, TypeAlias

from torch import Tensor, nn

from opsin.backbones.backbone import Backbone
from opsin.backbones.mobilenet_v2 import InvertedResidual, initialize, scale_channels
from opsin.backbones.weights import imagenet_weights, torchvision_weights
from opsin.nn.attention import squeeze_excitation
from opsin.nn.conv import ConvNormActivation
from opsin.nn.padding import Framework
from opsin.registry import Published, Weights, register

Row: TypeAlias = tuple[int, int, int, bool, str, int]

# The paper's tables 1 and 2: kernel size, expanded channels, channels, squeeze, activation, stride.
LARGE: tuple[Row, ...] = (
    (3, 16, 16, False, "relu", 1),
    (3, 64, 24, False, "relu", 2),
    (3, 72, 24, False, "relu", 1),
    (5, 72, 40, True, "relu", 2),
    (5, 120, 40, True, "relu", 1),
    (5, 120, 40, True, "relu", 1),
    (3, 240, 80, False, "hard_swish", 2),
    (3, 200, 80, False, "hard_swish", 1),
    (3, 184, 80, False, "hard_swish", 1),
    (3, 184, 80, False, "hard_swish", 1),
    (3, 480, 112, True, "hard_swish", 1),
    (3, 672, 112, True, "hard_swish", 1),
    (5, 672, 160, True, "hard_swish", 2),
    (5, 960, 160, True, "hard_swish", 1),
    (5, 960, 160, True, "hard_swish", 1),
)
# Under SSDlite and in segmentation the last stage has half the channels: section 6.3.
LARGE_REDUCED: tuple[Row, ...] = (
    *LARGE[:12],
    (5, 672, 80, True, "hard_swish", 2),
    (5, 480, 80, True, "hard_swish", 1),
    (5, 480, 80, True, "hard_swish", 1),
)
SMALL: tuple[Row, ...] = (
    (3, 16, 16, True, "relu", 2),
    (3, 72, 24, False, "relu", 2),
    (3, 88, 24, False, "relu", 1),
    (5, 96, 40, True, "hard_swish", 2),
    (5, 240, 40, True, "hard_swish", 1),
    (5, 240, 40, True, "hard_swish", 1),
    (5, 120, 48, True, "hard_swish", 1),
    (5, 144, 48, True, "hard_swish", 1),
    (5, 288, 96, True, "hard_swish", 2),
    (5, 576, 96, True, "hard_swish", 1),
    (5, 576, 96, True, "hard_swish", 1),
)
_NORM = partial(nn.BatchNorm2d, eps=0.001, momentum=0.01)  # section 6.1.1: an average decay of 0.99; TensorFlow's eps


class MobileNetV3(Backbone):
    """A 3x3 convolution, inverted residuals in four or five resolutions, a 1x1, pooling, two linear layers.

    table: kernel size, expanded channels, channels, squeeze, activation and stride of every block. hidden_features: of
    the layer behind the pooling; it grows with the width, but never shrinks.
    width: multiplies the channels of every layer. small_images: for images of about 32x32, the stem and the first
    block that would halve the map keep it: strides up to 8 instead of 32. padding: "tf" pads as TensorFlow.
    se=False leaves out the squeezes, hard_swish=False puts ReLU in its place, large_kernels=False has no 5x5: all three
    make the minimalistic net. residual=False leaves out the shortcuts.
    """

    def __init__(
        self,
        table: Sequence[Row],
        hidden_features: int,
        *,
        num_classes: int = 1000,
        in_channels: int = 3,
        width: float = 1.0,
        small_images: bool = False,
        se: bool = True,
        hard_swish: bool = True,
        large_kernels: bool = True,
        residual: bool = True,
        dropout: float = 0.2,
        padding: Framework = "torch",
    ) -> None:
        super().__init__(num_classes, in_channels)
        late = "hard_swish" if hard_swish else "relu"
        base, channels, stride = 16, scale_channels(16, width), 1 if small_images else 2
        self.stem = ConvNormActivation(in_channels, channels, 3, stride, padding=padding, norm=_NORM, activation=late)
        stages: list[list[nn.Module]] = []
        widths, strides, halvings = [], [], 1
        for kernel_size, expanded, next_base, squeezed, activation, step in table:
            expanded, out_channels = scale_channels(channels * expanded / base), scale_channels(next_base, width)
            base, halvings = next_base, halvings + (step == 2)
            if step == 2 or not stages:
                stages.append([])
                widths.append(out_channels)
                step = 1 if small_images and halvings <= 2 else step
                stride *= step
                strides.append(stride)
            stages[-1].append(
                InvertedResidual(
                    channels,
                    expanded,
                    out_channels,
                    kernel_size if large_kernels else 3,
                    step,
                    activation=activation if hard_swish else "relu",
                    squeeze=_squeeze(expanded) if squeezed and se else None,
                    norm=_NORM,
                    padding=padding,
                    residual=residual,
                )
            )
            channels = widths[-1] = out_channels
        self.stages = nn.ModuleList(nn.Sequential(*blocks) for blocks in stages)
        self.channels, self.strides = tuple(widths), tuple(strides)
        last, hidden = scale_channels(table[-1][1], width), scale_channels(hidden_features, max(1.0, width))
        self.head = nn.Sequential(
            ConvNormActivation(channels, last, 1, norm=_NORM, activation=late),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(last, hidden),
            nn.Hardswish(inplace=True) if hard_swish else nn.ReLU(inplace=True),
            nn.Dropout(dropout),
            nn.Linear(hidden, num_classes),
        )
        initialize(self)


def _squeeze(channels: int) -> nn.Module:
    """Section 5.3: a quarter of the expanded channels between, and a gate without an exponential."""
    return squeeze_excitation(channels, scale_channels(channels // 4), gate="hard_sigmoid")


def _published(params: int, macs: int, top1: float | None, top5: float | None, source: str) -> Published:
    metrics = {"imagenet1k top-1": top1, "imagenet1k top-5": top5}
    return Published(
        paper="arXiv:1905.02244",
        year=2019,
        input=(3, 224, 224),
        params=params,
        macs=macs,
        metrics={key: value for key, value in metrics.items() if value is not None},
        idea="inverted residuals searched for a phone's latency, with squeezes and hard swish",
        source=source,
    )


def _timm(file: str, top1: float, top5: float) -> dict[str, Weights]:
    url = f"https://github.com/rwightman/pytorch-image-models/releases/download/v0.1-weights/tf_mobilenetv3_{file}.pth"
    source, options = "tensorflow/models, converted by timm", {"symmetric": True, "arrange": _flatten_hidden_layer}
    return {"imagenet1k": imagenet_weights(url, "Apache-2.0", source, top1, top5, **options)}


def _flatten_hidden_layer(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """timm's is a 1x1 convolution over the one place that pooling leaves, ours a linear layer."""
    return {k: v.flatten(1) if k == "conv_head.weight" else v for k, v in state.items()}


_WEIGHTS = {
    "mobilenet_v3_large": torchvision_weights(
        ("mobilenet_v3_large-8738ca79", 74.042, 91.34), ("mobilenet_v3_large-5c1a4163", 75.274, 92.566)
    ),
    "mobilenet_v3_small": torchvision_weights(("mobilenet_v3_small-047dcff4", 67.668, 87.402)),
    "tf_mobilenet_v3_large": _timm("large_100-427764d5", 75.516, 92.594),
    "tf_mobilenet_v3_large_x0_75": _timm("large_075-150ee8b0", 73.432, 91.352),
    "tf_mobilenet_v3_large_minimalistic": _timm("large_minimal_100-8596ae28", 72.258, 90.638),
    "tf_mobilenet_v3_small": _timm("small_100-37f49e2b", 67.918, 87.674),
    "tf_mobilenet_v3_small_x0_75": _timm("small_075-da427f52", 65.728, 86.126),
    "tf_mobilenet_v3_small_minimalistic": _timm("small_minimal_100-922a7843", 62.89, 84.24),
}

# Parameters, multiply-adds, torchvision's top-1 and top-5, TensorFlow's top-1.
_PUBLISHED: dict[str, tuple[int, int, float | None, float | None, float]] = {
    "large": (5_483_032, 216_589_760, 74.042, 91.34, 75.2),
    "small": (2_542_856, 56_510_400, 67.668, 87.402, 67.5),
    "large_x0_75": (3_993_528, 154_560_624, None, None, 73.3),
    "small_x0_75": (2_041_872, 43_399_344, None, None, 65.4),
    "large_minimalistic": (3_924_288, 209_136_704, None, None, 72.3),
    "small_minimalistic": (2_044_736, 52_288_448, None, None, 61.9),
}


def _register(variant: str, padding: Framework) -> None:
    params, macs, top1, top5, tf_top1 = _PUBLISHED[variant]
    if padding == "tf":
        name, source = f"tf_mobilenet_v3_{variant}", "counted; results read: tensorflow/models, mobilenet README"
        published = _published(params, macs, tf_top1, None, source)
    else:
        name, source = f"mobilenet_v3_{variant}", "counted: torchvision" + ("" if top1 else " and timm")
        published = _published(params, macs, top1, top5, f"{source}; its weights' results read" if top1 else source)
    table, hidden_features = (LARGE, 1280) if variant.startswith("large") else (SMALL, 1024)
    ratio, full = 0.75 if variant.endswith("x0_75") else 1.0, not variant.endswith("minimalistic")

    @register(name, task="classify", network=MobileNetV3, published=published, weights=_WEIGHTS.get(name))
    def build(
        *,
        width: float = ratio,
        se: bool = full,
        hard_swish: bool = full,
        large_kernels: bool = full,
        padding: Framework = padding,
        **options: Any,
    ) -> MobileNetV3:
        form: dict[str, Any] = {"se": se, "hard_swish": hard_swish, "large_kernels": large_kernels}
        return MobileNetV3(table, hidden_features, width=width, padding=padding, **form, **options)


for _variant in _PUBLISHED:
    _register(_variant, "torch")
    _register(_variant, "tf")
