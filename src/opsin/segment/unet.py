"""U-Net: Convolutional Networks for Biomedical Image Segmentation.

Ronneberger, Fischer and Brox 2015, arXiv:1505.04597. The idea: a contracting path finds out what there is, an expanding
one of the same depth brings it back to full resolution, and at each step the map of the same size from the way down is
laid beside, which still knows where. Few images suffice, with much deformation of each.

unet_valid is the paper's net: convolutions without padding, so that what it says of a pixel has been seen whole, and
its output is 184 pixels smaller than its input. unet is the form that most ports have: padded, with batch norms, for
any size of image; with transposed convolutions or, `upsampling="bilinear"`, with interpolation and half of the weights.
`backbone` puts any classification network in the place of the contracting path.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from itertools import pairwise
from typing import Any, Literal, TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from opsin.checks import check_count, check_probability
from opsin.errors import InputError, unknown
from opsin.nn.conv import ConvNormActivation, Norm
from opsin.registry import Published, register
from opsin.segment.encoder import Encoder, create_encoder
from opsin.segment.segmenter import Outputs, Segmenter, Size, centre, resize_logits
from opsin.segment.sizes import cut, pad_to_multiple

Upsampling: TypeAlias = Literal["transposed", "bilinear", "nearest"]
UPSAMPLING = ("transposed", "bilinear", "nearest")
DEPTH = 4  # poolings of the paper


class DoubleConv(nn.Sequential):
    """Two 3x3 convolutions, each with its norm and ReLU."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        middle: int | None = None,
        *,
        norm: Norm = "batch",
        padded: bool = True,
    ) -> None:
        middle = middle or out_channels
        border = None if padded else 0
        super().__init__(
            ConvNormActivation(in_channels, middle, 3, border=border, norm=norm),
            ConvNormActivation(middle, out_channels, 3, border=border, norm=norm),
        )


class ContractingPath(nn.Module):
    """(B, C, H, W) -> maps of stride 1, 2, ..., 2^n, the finest first: two convolutions, a 2x2 pooling, and so on.

    dropout: behind the two deepest steps.
    """

    def __init__(self, in_channels: int, widths: Sequence[int], *, norm: Norm, padded: bool, dropout: float) -> None:
        super().__init__()
        widths = [in_channels, *widths]
        self.steps = nn.ModuleList(DoubleConv(a, b, norm=norm, padded=padded) for a, b in pairwise(widths))
        self.channels = tuple(widths[1:])
        self.strides = tuple(2**step for step in range(len(self.steps)))
        self.dropout = nn.Dropout(check_probability("dropout", dropout))

    def forward(self, images: Tensor) -> list[Tensor]:
        maps, x = [], images
        for place, step in enumerate(self.steps):
            x = step(F.max_pool2d(x, 2) if place else x)
            if place >= len(self.steps) - 2:
                x = self.dropout(x)
            maps.append(x)
        return maps


class UpStep(nn.Module):
    """A coarse map, upsampled by 2, beside the map of the way down, if there is one; then two convolutions.

    upsampling: "transposed", a 2x2 convolution of stride 2 that halves the channels, "bilinear" or "nearest".
    exact: twice the coarse map is as large as the other; not so with a backbone that loses its border.
    """

    def __init__(
        self,
        in_channels: int,
        skip_channels: int,
        out_channels: int,
        middle: int | None = None,
        *,
        upsampling: Upsampling,
        norm: Norm,
        padded: bool = True,
        exact: bool = True,
    ) -> None:
        super().__init__()
        self.mode, self.exact = upsampling, exact
        width = in_channels // 2 if upsampling == "transposed" else in_channels
        self.up = nn.ConvTranspose2d(in_channels, width, 2, 2) if upsampling == "transposed" else nn.Identity()
        self.convs = DoubleConv(width + skip_channels, out_channels, middle, norm=norm, padded=padded)
        self.padded = padded

    def forward(self, x: Tensor, skip: Tensor | None) -> Tensor:
        # An exported program, whose sizes may be open, cannot know that twice the one is the other.
        fit = skip is not None and self.padded and (not self.exact or torch.compiler.is_compiling())
        size = list(skip.shape[-2:]) if skip is not None and fit else None
        if self.mode == "transposed":
            x = self.up(x)
            x = x if size is None else F.interpolate(x, size, mode="nearest")
        else:
            x = F.interpolate(x, size, scale_factor=2.0 if size is None else None, mode=self.mode)
        if skip is not None and not self.padded:
            skip = centre(skip, x.shape[-2:])
        return self.convs(x if skip is None else torch.cat([x, skip], dim=1))


class UNet(Segmenter):
    """A contracting path, or any backbone, and an expanding path with a skip at every resolution that there is.

    width: of the plain net's finest maps; it doubles with each of 4 poolings. upsampling: "transposed", "bilinear" or
    "nearest"; None is the first, on a backbone the last. Interpolating, the plain net has half the width at the bottom
    and in each step up. norm: of all its convolutions, see `opsin.nn.create_norm`, or None. dropout: behind the two
    deepest steps of the plain net.

    backbone: name of a classification network instead, backbone_options: its own, backbone_weights: published ones,
    frozen_norm: its batch norms keep their statistics. channels: of each step up, the coarsest first; None gives 256,
    128, 64, 32, 16 from stride 32, and fewer from less. overlapping: see `Segmenter`.

    An image of any size is padded below and to the right by its own border, to whole cells of the coarsest map.
    """

    def __init__(
        self,
        *,
        num_classes: int = 1,
        in_channels: int = 3,
        width: int = 64,
        upsampling: Upsampling | None = None,
        norm: str | None = "batch",
        dropout: float = 0.0,
        backbone: str | None = None,
        backbone_options: Mapping[str, Any] | None = None,
        backbone_weights: str | None = None,
        frozen_norm: bool = False,
        channels: Sequence[int] | None = None,
        overlapping: bool | None = None,
    ) -> None:
        super().__init__(num_classes, in_channels, overlapping)
        if upsampling is not None and upsampling not in UPSAMPLING:
            raise unknown("upsampling", upsampling, UPSAMPLING)
        mode: Upsampling = upsampling or ("transposed" if backbone is None else "nearest")
        exact = halve = True
        if backbone is None:
            _refuse(backbone_options, backbone_weights, frozen_norm, channels)
            halve = mode != "transposed"
            widths, outs = _widths(width, halved=halve), _outs(width, halved=halve)
            encoder: Encoder | ContractingPath = ContractingPath(
                in_channels, widths, norm=norm, padded=True, dropout=dropout
            )
        else:
            options = {"in_channels": in_channels, "weights": backbone_weights, "frozen_norm": frozen_norm}
            encoder = create_encoder(backbone, **{**options, **(backbone_options or {})})
            outs, halve, exact = _decoder_channels(channels, max(encoder.strides)), False, encoder.exact
            self.min_size = encoder.min_size
        self.backbone, self.coarsest, self.exact = encoder, max(encoder.strides), exact
        skips = dict(zip(encoder.strides, encoder.channels, strict=True))
        self.steps, width = nn.ModuleList(), skips[self.coarsest]
        self.skips: list[int | None] = []
        for place, out in enumerate(outs):
            stride = self.coarsest >> (place + 1)
            beside = skips.get(stride, 0)
            middle = (width + beside) // 2 if halve else None
            self.steps.append(UpStep(width, beside, out, middle, upsampling=mode, norm=norm, exact=exact))
            self.skips.append(encoder.strides.index(stride) if beside else None)
            width = out
        size = 1 if backbone is None else 3
        self.predict = nn.Conv2d(width, num_classes, size, padding=size // 2)
        self.class_layers = ("predict",)

    def forward(self, images: Tensor) -> Outputs:
        self._check(images)
        padded = pad_to_multiple(images, self.coarsest)
        maps = self.backbone(padded)
        x = maps[-1]
        for step, place in zip(self.steps, self.skips, strict=True):
            x = step(x, None if place is None else maps[place])
        logits = self.predict(x)
        if not self.exact:
            logits = resize_logits(logits, padded.shape[-2:])
        return {"logits": cut(logits, images.shape[-2:])}


class ValidUNet(Segmenter):
    """The paper's: no padding, so that the output is the middle of the input, 92 pixels less on each side.

    Inputs are 16k + 12 pixels high and wide, at least 188; 572 gives 388. width: of the finest maps. dropout: at the
    end of the contracting path, where the paper has some and does not say how much; the authors' code has 0.5.
    Weights start from N(0, 2 / fan-in), biases from 0 (section 3).
    """

    margin = 92  # pixels that each side of an input has more than its output
    min_size = 188

    def __init__(
        self,
        *,
        num_classes: int = 2,
        in_channels: int = 1,
        width: int = 64,
        dropout: float = 0.5,
        overlapping: bool | None = None,
    ) -> None:
        super().__init__(num_classes, in_channels, overlapping)
        widths = _widths(width)
        self.backbone = ContractingPath(in_channels, widths, norm=None, padded=False, dropout=dropout)
        form: dict[str, Any] = {"upsampling": "transposed", "norm": None, "padded": False}
        self.steps = nn.ModuleList(UpStep(2 * out, out, out, **form) for out in widths[-2::-1])
        self.predict = nn.Conv2d(width, num_classes, 1)
        self.class_layers = ("predict",)
        for layer in self.modules():
            if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d):
                # A pixel that a 2x2 transposed convolution of stride 2 makes has seen one place of each channel.
                fan_in = layer.in_channels * (layer.kernel_size[0] ** 2 if isinstance(layer, nn.Conv2d) else 1)
                nn.init.normal_(layer.weight, std=(2 / fan_in) ** 0.5)
                nn.init.zeros_(layer.bias)  # type: ignore[arg-type]

    def output_size(self, size: Size) -> Size:
        fitting = self.next_size(size)
        if tuple(size) != fitting:
            raise InputError(
                f"{type(self).__name__} has no padding and takes sides of 16k + 12 pixels from {self.min_size} on, got "
                f"{size[0]}x{size[1]}; the next size is {fitting[0]}x{fitting[1]}: mirror the image's borders, or "
                f"resize it (data.size=[{fitting[0]}, {fitting[1]}])"
            )
        return size[0] - 2 * self.margin, size[1] - 2 * self.margin

    def next_size(self, size: Size) -> Size:
        """The smallest (height, width) that it takes, not below this."""
        height, width = (max(self.min_size, -(-(side - 12) // 16) * 16 + 12) for side in size)
        return height, width

    def forward(self, images: Tensor) -> Outputs:
        self._check(images)
        *maps, x = self.backbone(images)
        for step, skip in zip(self.steps, maps[::-1], strict=True):
            x = step(x, skip)
        return {"logits": self.predict(x)}


def _widths(width: int, *, halved: bool = False) -> list[int]:
    check_count("width", width, least=2)
    widths = [width << step for step in range(DEPTH + 1)]
    return [*widths[:-1], widths[-1] // 2] if halved else widths


def _outs(width: int, *, halved: bool) -> list[int]:
    """Channels of each step up of the plain net, the coarsest first: those of the skip, or of the next one."""
    outs = [width << step for step in range(DEPTH)][::-1]
    return [*(out // 2 for out in outs[:-1]), width] if halved else outs


def _decoder_channels(channels: Sequence[int] | None, coarsest: int) -> list[int]:
    steps = coarsest.bit_length() - 1
    if coarsest != 1 << steps or not steps:
        raise InputError(f"a U-Net doubles its maps, and this backbone's have a stride of {coarsest}; take another one")
    found = [min(256, 16 << step) for step in range(steps)][::-1] if channels is None else list(channels)
    if len(found) != steps:
        raise InputError(f"channels must be {steps} numbers, one for each step from stride {coarsest} up, got {found}")
    for value in found:
        check_count("channels", value)
    return found


def _refuse(options: Any, weights: Any, frozen: bool, channels: Any) -> None:
    given = {"backbone_options": options, "backbone_weights": weights, "frozen_norm": frozen, "channels": channels}
    for name, value in given.items():
        if value not in (None, False):
            raise InputError(f"{name}={value!r} is of a U-Net on a backbone; name one too: backbone='resnet34'")


# Published networks

_IDEA = "on the way up, the map of the same size from the way down is laid beside"
_published = partial(Published, "arXiv:1505.04597", 2015, idea=_IDEA)


@register(
    "unet",
    task="segment",
    network=UNet,
    published=_published((3, 512, 512), 31_037_633, source="derived: the paper's widths, padded, with batch norm"),
)
def unet(**options: Any) -> UNet:
    return UNet(**options)


@register(
    "unet_bilinear",
    task="segment",
    network=UNet,
    published=_published(
        (3, 512, 512), 17_262_977, source="derived: as unet, interpolated, half as wide at the bottom"
    ),
)
def unet_bilinear(*, upsampling: Upsampling | None = "bilinear", **options: Any) -> UNet:
    return UNet(upsampling=upsampling, **options)


@register(
    "unet_resnet34",
    task="segment",
    network=UNet,
    published=_published((3, 512, 512), 24_436_369, source="counted: segmentation-models-pytorch"),
)
def unet_resnet34(*, backbone: str | None = "resnet34", **options: Any) -> UNet:
    return UNet(backbone=backbone, **options)


@register(
    "unet_valid",
    task="segment",
    network=ValidUNet,
    published=_published(
        (1, 572, 572),
        31_030_658,
        150_428_424_448,
        {"PhC-U373 IoU": 92.03, "DIC-HeLa IoU": 77.56},
        source="derived: the paper's figure 1",
    ),
)
def unet_valid(**options: Any) -> ValidUNet:
    return ValidUNet(**options)
