"""DeepLab: semantic segmentation with dilated convolutions and pyramids of them, v1 to v3+.

The idea: a classification network loses the place of things in its strides, so take the last strides out and dilate
what follows, which sees as much as before on a finer map; and look at each place through several dilations at once.

deeplabv1: Chen et al. 2014, arXiv:1412.7062, LargeFOV. VGG-16 without the strides of its last two poolings, fc6 a 3x3
of rate 12. deeplabv2: Chen et al. 2016, arXiv:1606.00915. Four such branches of rates 6 to 24, their scores summed
(ASPP); deeplabv2_resnet101 has branches of one layer. Both papers then sharpen borders by a fully connected CRF, which
is not built.
deeplabv3: Chen et al. 2017, arXiv:1706.05587. A ResNet held at stride 8 or 16, and ASPP with batch norms and the mean
of the whole map beside the dilated 3x3. This form is torchvision's, with its auxiliary head on the stage before.
deeplabv3plus: Chen et al. 2018, arXiv:1802.02611. A decoder of two 3x3, which sees a map of stride 4 too.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from opsin import registry
from opsin.backbones.backbone import Backbone
from opsin.backbones.vgg import VGG
from opsin.checks import check_count, check_number, check_probability
from opsin.errors import InputError
from opsin.nn.context import ASPP, SummedASPP
from opsin.nn.conv import ConvNormActivation, SeparableConv
from opsin.registry import Published, Weights, register
from opsin.segment.encoder import Encoder, create_encoder
from opsin.segment.segmenter import Outputs, Segmenter, Size, resize_logits
from opsin.segment.sizes import cut, pad_to_multiple

RATES = (6, 12, 18)  # of ASPP at output stride 16, arXiv:1706.05587 section 3.3


class Atrous(Segmenter):
    """A backbone held at an output stride, whose head is dilated to match.

    A subclass sets `rate_stride`, the output stride for which its rates are stated, and `aspp`, what holds them.
    `set_output_stride` changes it on the same weights: trained at 16, evaluated at 8 (arXiv:1706.05587, section 4.1).
    """

    rate_stride: int
    backbone: Encoder
    aspp: ASPP | SummedASPP

    def _set_backbone(self, backbone: str, output_stride: int | None, options: Mapping[str, Any]) -> None:
        self._form = (backbone, dict(options))
        self.backbone = create_encoder(backbone, output_stride=output_stride, **options)
        self.output_stride = max(self.backbone.strides)
        self.strides, self.min_size = (self.output_stride,), self.backbone.backbone.min_size

    def _rates(self, rates: Sequence[int]) -> tuple[int, ...]:
        """Rates stated for `rate_stride` at the output stride that there is."""
        if not rates:
            raise InputError(f"rates is empty; {list(RATES)} are the paper's")
        for rate in rates:
            check_count("a rate", rate)
        return tuple(max(1, rate * self.rate_stride // self.output_stride) for rate in rates)

    def set_output_stride(self, output_stride: int) -> None:
        """Hold the maps at another stride, 8, 16 or 32, on the same weights. Half the stride doubles the rates.

        The backbone's layers are built again and take over its parameters themselves, so that optimizers keep theirs.
        """
        name, options = self._form
        old, strides = self.backbone, self.backbone.strides[:-1]
        options = {key: value for key, value in options.items() if key != "weights"}
        with torch.random.fork_rng(devices=[]):
            fresh = create_encoder(name, output_stride=output_stride, **options)
        fresh.keep([*(stride for stride in strides if stride < output_stride), max(fresh.strides)])
        for (path, module), (_, other) in zip(fresh.named_modules(), old.named_modules(), strict=True):
            assert type(module) is type(other) or not list(module.parameters(recurse=False)), path
            module._parameters, module._buffers = other._parameters, other._buffers
            module.training = other.training
        ratio = self.output_stride / max(fresh.strides)
        self.backbone, self.output_stride = fresh, max(fresh.strides)
        self.strides = (self.output_stride,)
        for layer in self.aspp.modules():
            if isinstance(layer, nn.Conv2d) and layer.kernel_size[0] > 1:
                rate = max(1, round(layer.dilation[0] * ratio))
                layer.dilation = layer.padding = (rate, rate)

    def size_warnings(self, size: Size) -> list[str]:
        """Rates that reach beyond the map of an input of this size, whose 3x3 is no more than its middle."""
        sides = [-(-side // self.output_stride) for side in size]
        rates = {layer.dilation[0] for layer in self.aspp.modules() if isinstance(layer, nn.Conv2d)}
        wide = sorted(rate for rate in rates if rate > 1 and rate >= min(sides))
        if not wide:
            return []
        needed = wide[-1] * self.output_stride + 1
        return [
            f"{'rates' if len(wide) > 1 else 'the rate'} {', '.join(map(str, wide))} of {type(self).__name__} "
            f"{'reach' if len(wide) > 1 else 'reaches'} beyond its map of {sides[0]}x{sides[1]} for images of "
            f"{size[0]}x{size[1]}, where a 3x3 convolution is no more than a 1x1; take images of at least {needed} "
            "pixels a side, or smaller rates (model.rates)"
        ]


class DeepLabV2(Atrous):
    """A backbone at an output stride, and branches of dilated convolutions whose scores are summed, upsampled.

    backbone: name of a classification network; of a VGG the fully connected layers are taken along. backbone_options:
    its own; backbone_weights: published ones, of whose fully connected layers fc6 and fc7 take every fourth number and
    three of seven places, by decimation (arXiv:1412.7062, section 3.2). frozen_norm: its batch norms keep their
    statistics. output_stride: 8, 16 or 32, or None for the backbone's own. rates: of the branches at output stride 8;
    at 16 they are half. hidden_features: of fc6 and fc7 in every branch; None is 1024 on a VGG, and on others none,
    where a branch is one layer. dropout: behind fc6 and fc7. averaged: over 3x3 places, before the branches.
    overlapping: see `Segmenter`.
    On a VGG poolings are 3x3, as in the release, so that a map's places lie on every eighth pixel; images are padded
    below and to the right by their own border, to 8k + 1 pixels.
    """

    rate_stride = 8

    def __init__(
        self,
        *,
        num_classes: int = 21,
        in_channels: int = 3,
        backbone: str = "vgg16",
        backbone_options: Mapping[str, Any] | None = None,
        backbone_weights: str | None = None,
        frozen_norm: bool = False,
        output_stride: int | None = 8,
        rates: Sequence[int] = (6, 12, 18, 24),
        hidden_features: int | None = None,
        dropout: float = 0.5,
        averaged: bool = False,
        overlapping: bool | None = None,
    ) -> None:
        super().__init__(num_classes, in_channels, overlapping)
        options = {"in_channels": in_channels, **(backbone_options or {})}
        network = registry.find_model(backbone).network
        self.released = network is not None and issubclass(network, VGG)
        form = {"prepare": _wide_pools} if self.released else {"weights": backbone_weights}
        self._set_backbone(backbone, output_stride, {**options, **form, "frozen_norm": frozen_norm})
        self.backbone.keep([self.output_stride])
        if hidden_features is None and self.released:
            hidden_features = 1024
        width = self.backbone.channels[-1]
        if hidden_features is not None:
            check_count("hidden_features", hidden_features)
        self.pool = nn.Sequential(*[nn.MaxPool2d(3, 1, 1)] * self.released, *[nn.AvgPool2d(3, 1, 1)] * averaged)
        self.aspp = SummedASPP(
            width,
            num_classes,
            self._rates(rates),
            hidden_features=hidden_features,
            dropout=check_probability("dropout", dropout),
        )
        tail = "" if hidden_features is None else ".6"
        self.class_layers = tuple(f"aspp.branches.{place}{tail}" for place in range(len(rates)))
        for name in self.class_layers:
            nn.init.normal_(self.get_submodule(name).weight, std=0.01)  # type: ignore[arg-type]
        if self.released and backbone_weights is not None:
            source = registry.create_model(backbone, weights=backbone_weights, **options)
            self.initialize_from(source.state_dict())

    def forward(self, images: Tensor) -> Outputs:
        self._check(images)
        if not self.released:
            return {"logits": resize_logits(self.aspp(self.backbone(images)[0]), images.shape[-2:])}
        padded = pad_to_multiple(images, self.output_stride, 1)
        logits = self.aspp(self.pool(self.backbone(padded)[0]))
        logits = F.interpolate(logits, list(padded.shape[-2:]), mode="bilinear", align_corners=True)
        return {"logits": cut(logits, images.shape[-2:])}

    def _from_classifier(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """A VGG's tensors, its first two linear layers thinned out for every branch."""
        found = {f"backbone.backbone.{name}": tensor for name, tensor in state.items()}
        first, second = state.get("head.3.weight"), state.get("head.6.weight")
        own = self.aspp.state_dict()
        if not self.released or first is None or second is None or first.shape[1] % 49:
            return found
        step = max(1, len(first) // len(own["branches.0.0.bias"]))
        for place in range(len(self.aspp.branches)):
            branch = f"aspp.branches.{place}"
            found[f"{branch}.0.weight"] = first.unflatten(1, (-1, 7, 7))[::step, :, ::3, ::3]
            found[f"{branch}.0.bias"] = state["head.3.bias"][::step]
            found[f"{branch}.3.weight"] = second[::step, ::step, None, None]
            found[f"{branch}.3.bias"] = state["head.6.bias"][::step]
        return found


def _wide_pools(network: Backbone) -> None:
    """3x3 poolings with a border for 2x2, which lie symmetrically around every second place: the release's VGG."""
    for name, layer in list(network.stages.named_modules()):
        if isinstance(layer, nn.MaxPool2d):
            network.stages.set_submodule(name, nn.MaxPool2d(3, 2, 1))


class FCNHead(nn.Sequential):
    """3x3 to a quarter of the channels, batch norm, ReLU, dropout, 1x1 to the classes: torchvision's."""

    def __init__(self, in_channels: int, num_classes: int, dropout: float = 0.1) -> None:
        middle = max(1, in_channels // 4)
        super().__init__(
            ConvNormActivation(in_channels, middle, 3), nn.Dropout(dropout), nn.Conv2d(middle, num_classes, 1)
        )


class DeepLabV3(Atrous):
    """A backbone at an output stride, ASPP, a 3x3 and a 1x1, upsampled to the image.

    backbone: name of a classification network; backbone_options: its own; backbone_weights: published ones;
    frozen_norm: its batch norms keep their statistics, as the paper's second half of training does (section 4.1).
    output_stride: 8, 16 or 32, or None for the backbone's own. rates: of ASPP at output stride 16; at 8 they are twice
    that. channels: of every layer of the head. separable: its 3x3s. dropout: behind ASPP.
    aux_heads: logits from the stage before the last, in training; None leaves that to it. aux_weight: of their loss.
    overlapping: see `Segmenter`.
    """

    rate_stride = 16

    def __init__(
        self,
        *,
        num_classes: int = 21,
        in_channels: int = 3,
        backbone: str = "resnet50",
        backbone_options: Mapping[str, Any] | None = None,
        backbone_weights: str | None = None,
        frozen_norm: bool = False,
        output_stride: int | None = 8,
        rates: Sequence[int] = RATES,
        channels: int = 256,
        separable: bool = False,
        dropout: float = 0.5,
        aux_heads: bool | None = None,
        aux_weight: float = 0.5,
        overlapping: bool | None = None,
    ) -> None:
        super().__init__(num_classes, in_channels, overlapping)
        check_count("channels", channels)
        options = {"in_channels": in_channels, "weights": backbone_weights, "frozen_norm": frozen_norm}
        self._set_backbone(backbone, output_stride, {**options, **(backbone_options or {})})
        self.stage = len(self.backbone.backbone.strides) - 2  # whose map the auxiliary head sees
        self.backbone.keep([self.output_stride])
        self.aspp = ASPP(
            self.backbone.channels[-1],
            channels,
            self._rates(rates),
            dropout=check_probability("dropout", dropout),
            separable=separable,
        )
        self.convs = _convs(channels, channels, 1, separable)
        self.predict = nn.Conv2d(channels, num_classes, 1)
        self.aux_heads, self.class_layers = nn.ModuleDict(), ("predict",)
        if aux_heads:
            self.aux_heads["aux"] = FCNHead(self.backbone.channels_of(self.stage), num_classes)
            self.aux_weights = {"aux": check_number("aux_weight", aux_weight)}
            self.class_layers = ("predict", "aux_heads.aux.2")

    def forward(self, images: Tensor) -> Outputs:
        self._check(images)
        maps, size = self.backbone.run(images), images.shape[-2:]
        x = self.convs(self.aspp(maps[self.backbone.places[-1]]))
        outputs = {"logits": resize_logits(self.predict(x), size)}
        for name in self.aux_weights:
            outputs[name] = resize_logits(self.aux_heads[name](maps[self.stage]), size)
        return outputs


class DeepLabV3Plus(Atrous):
    """DeepLabV3's encoder, and a decoder: its map beside one of stride 4, two 3x3, a 1x1, upsampled to the image.

    The first eight options are DeepLabV3's. low_channels: to which a 1x1 brings the map of stride 4, the last of that
    stride that the backbone has, so that it does not outweigh the other (section 4.1).
    """

    rate_stride = 16

    def __init__(
        self,
        *,
        num_classes: int = 21,
        in_channels: int = 3,
        backbone: str = "resnet50",
        backbone_options: Mapping[str, Any] | None = None,
        backbone_weights: str | None = None,
        frozen_norm: bool = False,
        output_stride: int | None = 16,
        rates: Sequence[int] = RATES,
        channels: int = 256,
        low_channels: int = 48,
        separable: bool = False,
        dropout: float = 0.5,
        overlapping: bool | None = None,
    ) -> None:
        super().__init__(num_classes, in_channels, overlapping)
        check_count("channels", channels)
        check_count("low_channels", low_channels)
        options = {"in_channels": in_channels, "weights": backbone_weights, "frozen_norm": frozen_norm}
        self._set_backbone(backbone, output_stride, {**options, **(backbone_options or {})})
        if self.output_stride <= 4:
            raise InputError(
                f"the decoder of {type(self).__name__} adds a map of stride 4, and {backbone} has none coarser than "
                f"{self.output_stride}; take deeplabv3, or another backbone"
            )
        self.backbone.keep([4, self.output_stride])
        self.strides = (4,)
        low, deep = self.backbone.channels
        dropout = check_probability("dropout", dropout)
        self.aspp = ASPP(deep, channels, self._rates(rates), dropout=dropout, separable=separable)
        self.low = ConvNormActivation(low, low_channels, 1)
        self.convs = _convs(channels + low_channels, channels, 2, separable)
        self.predict = nn.Conv2d(channels, num_classes, 1)
        self.class_layers = ("predict",)

    def set_output_stride(self, output_stride: int) -> None:
        super().set_output_stride(output_stride)
        self.strides = (4,)

    def forward(self, images: Tensor) -> Outputs:
        self._check(images)
        fine, deep = self.backbone(images)
        x = resize_logits(self.aspp(deep), fine.shape[-2:])
        x = self.convs(torch.cat([x, self.low(fine)], dim=1))
        return {"logits": resize_logits(self.predict(x), images.shape[-2:])}


def _convs(in_channels: int, channels: int, count: int, separable: bool) -> nn.Sequential:
    widths = [in_channels, *(channels for _ in range(count - 1))]
    if separable:
        return nn.Sequential(*(SeparableConv(width, channels, 3, order="xception") for width in widths))
    return nn.Sequential(*(ConvNormActivation(width, channels, 3) for width in widths))


# Published networks

_v1 = Published(
    "arXiv:1412.7062",
    2014,
    (3, 321, 321),
    20_505_429,
    idea="take the last strides out and dilate what follows: fine maps, as wide a view",
    source="derived: the paper's section 3, VGG-16 with fc6 a 3x3 of rate 12 and 1,024 features",
)
_v2 = partial(
    Published,
    "arXiv:1606.00915",
    2016,
    (3, 321, 321),
    idea="look at every place through several dilations at once, and sum what they say",
)


@register("deeplabv1", task="segment", network=DeepLabV2, published=_v1)
def deeplabv1(*, rates: Sequence[int] = (12,), averaged: bool = True, **options: Any) -> DeepLabV2:
    return DeepLabV2(rates=rates, averaged=averaged, **options)


@register(
    "deeplabv2",
    task="segment",
    network=DeepLabV2,
    published=_v2(37_877_652, source="derived: the paper's figure 7 on VGG-16"),
)
def deeplabv2(**options: Any) -> DeepLabV2:
    return DeepLabV2(**options)


@register(
    "deeplabv2_resnet101",
    task="segment",
    network=DeepLabV2,
    published=_v2(44_048_532, source="derived: the paper's section 4.1.2 on ResNet-101, norms included"),
)
def deeplabv2_resnet101(*, backbone: str = "resnet101", **options: Any) -> DeepLabV2:
    return DeepLabV2(backbone=backbone, **options)


_v3 = partial(
    Published,
    "arXiv:1706.05587",
    2017,
    (3, 520, 520),
    idea="several dilations of one map and the mean of all of it, side by side",
)
_plus = partial(
    Published,
    "arXiv:1802.02611",
    2018,
    (3, 513, 513),
    idea="a small decoder that adds a map of stride 4 sharpens borders",
)


def _weights(file: str, miou: float, accuracy: float) -> dict[str, Weights]:
    """torchvision's file, trained on COCO's images that show one of VOC's 20 classes, with those and the background."""
    return {
        "coco_voc": Weights(
            url=f"https://download.pytorch.org/models/{file}.pth",
            sha256=file.rpartition("-")[2],
            licence="BSD-3-Clause; trained on COCO (annotations CC-BY-4.0, images under their owners' terms)",
            source="torchvision, COCO_WITH_VOC_LABELS_V1",
            preprocessing={
                "size": [520, 520],
                "channels": 3,
                "mean": [0.485, 0.456, 0.406],
                "std": [0.229, 0.224, 0.225],
                "fit": "pad",
            },
            metrics={"coco val2017 voc mIoU": miou, "coco val2017 voc pixel accuracy": accuracy},
            num_classes=21,
            classes="voc",
        )
    }


@register(
    "deeplabv3",
    task="segment",
    network=DeepLabV3,
    alias="deeplabv3_resnet50",
    published=_v3(42_004_074, 178_721_945_088, source="counted: torchvision"),
    weights=_weights("deeplabv3_resnet50_coco-cd0a2569", 66.4, 92.4),
)
def deeplabv3(**options: Any) -> DeepLabV3:
    return DeepLabV3(**options)


@register(
    "deeplabv3_resnet101",
    task="segment",
    network=DeepLabV3,
    published=_v3(60_996_202, source="counted: torchvision"),
    weights=_weights("deeplabv3_resnet101_coco-586e9e4e", 67.4, 92.4),
)
def deeplabv3_resnet101(*, backbone: str = "resnet101", **options: Any) -> DeepLabV3:
    return DeepLabV3(backbone=backbone, **options)


@register(
    "deeplabv3plus",
    task="segment",
    network=DeepLabV3Plus,
    alias="deeplabv3plus_resnet50",
    published=_plus(40_352_181, source="derived: the paper's section 3.1 and table 3 on ResNet-50"),
)
def deeplabv3plus(**options: Any) -> DeepLabV3Plus:
    return DeepLabV3Plus(**options)


@register(
    "deeplabv3plus_resnet101",
    task="segment",
    network=DeepLabV3Plus,
    published=_plus(59_344_309, source="derived: the paper's section 3.1 and table 3 on ResNet-101"),
)
def deeplabv3plus_resnet101(*, backbone: str = "resnet101", **options: Any) -> DeepLabV3Plus:
    return DeepLabV3Plus(backbone=backbone, **options)
