"""EfficientNet: Rethinking Model Scaling for Convolutional Neural Networks.

Tan and Le 2019, arXiv:1905.11946. The idea: depth, width and resolution are worth more together than apart, so one
number phi scales all three, by 1.2^phi, 1.1^phi and 1.15^phi; a small net found by search, B0, so grows into B1 to B7.

efficientnet_b0 to b7 are torchvision's: they pad as torch does. tf_efficientnet_b0 to b7 are those of the authors'
code, which pads as TensorFlow does, and take its weights. B5 to B7 of torchvision and all of the authors' have norms
with epsilon 0.001; B0 to B4 of torchvision have torch's 1e-5, and so have their weights. The published coefficients are
rounded by hand: width 1.0, 1.0, 1.1, 1.2, ... and not the powers. The paper's sizes stand here; torchvision measures
its B2 at 288.
"""

from __future__ import annotations

from functools import partial
from math import ceil
from typing import Any

from torch import nn

from opsin.backbones.backbone import Backbone
from opsin.backbones.mobilenet_v2 import InvertedResidual, initialize, scale_channels
from opsin.backbones.weights import imagenet_weights
from opsin.checks import check_number, check_probability
from opsin.nn.conv import ConvNormActivation
from opsin.nn.padding import Framework
from opsin.registry import Published, Weights, register

# The paper's table 1: expansion, kernel size, channels, blocks, stride of the first. A stride of 2 begins a stage.
_BLOCKS = (
    (1, 3, 16, 1, 1),
    (6, 3, 24, 2, 2),
    (6, 5, 40, 2, 2),
    (6, 3, 80, 3, 2),
    (6, 5, 112, 3, 1),
    (6, 5, 192, 4, 2),
    (6, 3, 320, 1, 1),
)


class EfficientNet(Backbone):
    """A 3x3 convolution, inverted residuals with squeezes in five resolutions, a 1x1, pooling, one linear layer.

    width, depth: multiply the channels of every layer, rounded to 8, and the blocks of every row, rounded up.
    small_images: for images of about 32x32, the stem and the first block that would halve the map keep it: strides up
    to 8 instead of 32. padding: "tf" pads as TensorFlow. dropout: before the last layer; 0.2 for B0 up to 0.5 for B7.
    stochastic_depth: probability to lose the last block for an example, falling linearly to 0 at the first.
    norm_eps: of batch norm; 0.001 averages with a decay of 0.99, as in the authors' code, 1e-5 with torch's 0.9.
    se=False leaves out the squeezes, residual=False the shortcuts.
    """

    def __init__(
        self,
        *,
        num_classes: int = 1000,
        in_channels: int = 3,
        width: float = 1.0,
        depth: float = 1.0,
        small_images: bool = False,
        se: bool = True,
        residual: bool = True,
        dropout: float = 0.2,
        stochastic_depth: float = 0.2,
        norm_eps: float = 1e-5,
        padding: Framework = "torch",
    ) -> None:
        super().__init__(num_classes, in_channels)
        check_number("depth", depth, above=True, hint="1.0 is B0")
        check_probability("stochastic_depth", stochastic_depth)
        norm = partial(nn.BatchNorm2d, eps=norm_eps, momentum=0.01 if norm_eps >= 1e-3 else 0.1)
        channels, stride = scale_channels(32, width), 1 if small_images else 2
        self.stem = ConvNormActivation(in_channels, channels, 3, stride, padding=padding, norm=norm, activation="silu")
        stages: list[list[nn.Module]] = []
        widths, strides, place = [], [], 0
        total = sum(ceil(depth * blocks) for _, _, _, blocks, _ in _BLOCKS)
        for expansion, kernel_size, base, blocks, step in _BLOCKS:
            out_channels = scale_channels(base, width)
            if step == 2 or not stages:
                stages.append([])
                widths.append(out_channels)
                step = 1 if small_images and len(stages) == 2 else step
                stride *= step
                strides.append(stride)
            for _ in range(ceil(depth * blocks)):
                expanded = expansion * channels
                stages[-1].append(
                    InvertedResidual(
                        *(channels, expanded, out_channels, kernel_size, step),
                        activation="silu",
                        squeeze=_squeeze(expanded, max(1, channels // 4)) if se else None,
                        norm=norm,
                        padding=padding,
                        residual=residual,
                        drop=stochastic_depth * place / total,
                    )
                )
                channels, step, place = out_channels, 1, place + 1
            widths[-1] = out_channels
        self.stages = nn.ModuleList(nn.Sequential(*blocks) for blocks in stages)
        self.channels, self.strides = tuple(widths), tuple(strides)
        last = scale_channels(1280, width)
        self.head = nn.Sequential(
            ConvNormActivation(channels, last, 1, norm=norm, activation="silu"),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Dropout(dropout),
            nn.Linear(last, num_classes),
        )
        initialize(self)


def _squeeze(channels: int, squeezed: int) -> nn.Module:
    """Squeeze and excitation with SiLU between; a quarter of the channels before the expansion, not behind it."""
    from torchvision.ops import SqueezeExcitation  # here: no backbone needs torchvision to be listed

    return SqueezeExcitation(channels, squeezed, activation=partial(nn.SiLU, inplace=True))


_TORCHVISION = "https://download.pytorch.org/models/efficientnet"
_TIMM = "https://github.com/rwightman/pytorch-image-models/releases/download/v0.1-weights/tf_efficientnet"

# Width, depth, side, dropout: the authors' code.
_SCALES: tuple[tuple[float, float, int, float], ...] = (
    (1.0, 1.0, 224, 0.2),
    (1.0, 1.1, 240, 0.2),
    (1.1, 1.2, 260, 0.3),
    (1.2, 1.4, 300, 0.3),
    (1.4, 1.8, 380, 0.4),
    (1.6, 2.2, 456, 0.4),
    (1.8, 2.6, 528, 0.5),
    (2.0, 3.1, 600, 0.5),
)
# Parameters, multiply-adds; of torchvision's file: name, size, size before the crop, top-1, top-5.
_PUBLISHED: tuple[tuple[int, int, str, int, int, float, float], ...] = (
    (5_288_548, 385_814_752, "rwightman-7f5810bc", 224, 256, 77.692, 93.532),
    (7_794_184, 686_802_832, "rwightman-bac287d4", 240, 256, 78.642, 94.186),
    (9_109_994, 993_561_872, "rwightman-c35c1473", 288, 288, 80.608, 95.31),
    (12_233_232, 1_827_141_392, "rwightman-b3899882", 300, 320, 82.008, 96.054),
    (19_341_616, 4_393_771_024, "rwightman-23ab8bcd", 380, 384, 83.384, 96.594),
    (30_389_784, 10_266_384_752, "lukemelas-1a07897c", 456, 456, 83.444, 96.628),
    (43_040_704, 19_067_593_536, "lukemelas-24a108a5", 528, 528, 84.008, 96.916),
    (66_347_960, 37_745_884_192, "lukemelas-c5b4e57e", 600, 600, 84.122, 96.908),
)
# Of the authors' files, as timm names and measures them: crop ratio; AutoAugment (the paper's training), AdvProp
# (arXiv:1911.09665), Noisy Student (arXiv:1911.04252), each with the start of its hash, top-1, top-5.
_TF_FILES: tuple[tuple[float, tuple[tuple[str, str, float, float], ...]], ...] = (
    (0.875, (("aa", "827b6e33", 76.834, 93.22), ("ap", "f262efe1", 77.09, 93.262), ("ns", "c0e6a31c", 78.67, 94.374))),
    (0.882, (("aa", "ea7a6ee0", 78.83, 94.198), ("ap", "44ef0a3d", 79.28, 94.308), ("ns", "99dd0c41", 81.394, 95.736))),
    (
        0.89,
        (("aa", "60c94f97", 80.084, 94.906), ("ap", "2f8e7636", 80.308, 95.028), ("ns", "00306e48", 82.378, 96.254)),
    ),
    (
        0.904,
        (("aa", "84b4657e", 81.644, 95.722), ("ap", "aad25bdd", 81.826, 95.626), ("ns", "9d44bf68", 84.056, 96.918)),
    ),
    (0.922, (("aa", "818f208c", 83.018, 96.3), ("ap", "dedb23e6", 83.25, 96.394), ("ns", "d6313a46", 85.162, 97.47))),
    (
        0.934,
        (("aa", "99018a74", 83.688, 96.712), ("ap", "9e82fae8", 84.258, 96.974), ("ns", "6f26d0cf", 86.088, 97.754)),
    ),
    (
        0.942,
        (("aa", "80ba17e4", 84.116, 96.88), ("ap", "4ffb161f", 84.786, 97.136), ("ns", "51548356", 86.456, 97.884)),
    ),
    (
        0.949,
        (("aa", "076e3472", 84.414, 96.906), ("ap", "ddb28fec", 85.122, 97.252), ("ns", "1dbc32de", 86.84, 98.094)),
    ),
)
_TF_NAMES = {"aa": "imagenet1k", "ap": "imagenet1k_advprop", "ns": "imagenet1k_noisy_student"}


def _torchvision_weights(place: int) -> dict[str, Weights]:
    _, _, file, size, before, top1, top5 = _PUBLISHED[place]
    url = f"{_TORCHVISION}_b{place}_{file}.pth"
    weights = partial(imagenet_weights, licence="BSD-3-Clause", source="torchvision")
    crop: dict[str, Any] = {"size": size, "crop_ratio": size / before, "interpolation": "bicubic"}
    found = {"imagenet1k": weights(url, top1=top1, top5=top5, **crop)}
    if place == 1:
        url = f"{_TORCHVISION}_b1-c27df63c.pth"
        found["imagenet1k_v2"] = weights(url, top1=79.838, top5=94.934, size=240, crop_ratio=240 / 255)
    return found


def _tf_weights(place: int) -> dict[str, Weights]:
    crop_ratio, files = _TF_FILES[place]
    size, found = _SCALES[place][2], {}
    for kind, digest, top1, top5 in files:
        url = f"{_TIMM}_b{place}_{kind}-{digest}.pth"
        found[_TF_NAMES[kind]] = imagenet_weights(
            url,
            "Apache-2.0",
            "tensorflow/tpu, converted by timm",
            top1,
            top5,
            size=size,
            crop_ratio=crop_ratio,
            interpolation="bicubic",
            symmetric=kind == "ap",  # as networks trained with adversarial examples expect
            data="ImageNet-1k and JFT-300M" if kind == "ns" else "ImageNet-1k",
        )
    return found


def _register(place: int, padding: Framework) -> None:
    ratio, blocks, size, rate = _SCALES[place]
    params, macs, _, _, _, top1, top5 = _PUBLISHED[place]
    weights, source = _torchvision_weights(place), "torchvision"
    if padding == "tf":
        weights, source = _tf_weights(place), "timm, results-imagenet.csv, of the AutoAugment file"
        top1, top5 = (weights["imagenet1k"].metrics[f"imagenet1k top-{k}"] for k in (1, 5))
    published = Published(
        paper="arXiv:1905.11946",
        year=2019,
        input=(3, size, size),
        params=params,
        macs=macs,
        metrics={"imagenet1k top-1": top1, "imagenet1k top-5": top5},
        idea="scale depth, width and resolution together, by one number",
        source=f"counted; weights' results read: {source}",
    )
    eps = 1e-3 if padding == "tf" or place >= 5 else 1e-5
    name = ("tf_" if padding == "tf" else "") + f"efficientnet_b{place}"

    @register(name, task="classify", network=EfficientNet, published=published, weights=weights)
    def build(
        *,
        width: float = ratio,
        depth: float = blocks,
        dropout: float = rate,
        norm_eps: float = eps,
        padding: Framework = padding,
        **options: Any,
    ) -> EfficientNet:
        form: dict[str, Any] = {"width": width, "depth": depth, "dropout": dropout, "norm_eps": norm_eps}
        return EfficientNet(padding=padding, **form, **options)


for _place in range(len(_SCALES)):
    _register(_place, "torch")
    _register(_place, "tf")
