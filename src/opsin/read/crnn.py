"""CRNN: An End-to-End Trainable Neural Network for Image-based Sequence Recognition.

Shi, Bai and Yao 2015, arXiv:1507.05717. The idea: convolutions turn a line of text into a row of feature vectors, one
for every few columns of pixels; a recurrent layer in both directions lets each see the whole word; and CTC learns from
the text alone, without knowing where its letters are. Any width is read, with as many steps as it has room for.

The last two poolings halve the height and keep the width (2x2 windows, stride (2, 1), a column of padding on each
side), so that 32x100 pixels give 26 steps. crnn is the authors' own program: batch norm on convolutions 3, 5 and 7, and
a linear layer between the two LSTMs. crnn_stacked is the paper's table 1 read literally, one LSTM right on the other.
`backbone` puts any classification network in the place of the convolutions: behind its stride of 4 it strides no more
along the width, and the rows of its last map are averaged.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from opsin import registry
from opsin.backbones.backbone import Backbone
from opsin.backbones.extraction import Extractor
from opsin.checks import check_count
from opsin.errors import InputError
from opsin.nn.counting import meta_twin
from opsin.nn.padding import pair
from opsin.nn.recurrent import BidirectionalLSTM
from opsin.read.ctc import BlankPlace, CTCRecognizer
from opsin.read.recognizer import Outputs, Size
from opsin.registry import Published, register

HEIGHT = 32  # of the paper's input: its convolutions leave one row of it
COLUMNS = 4  # pixels of width that a step of a backbone's map stands for


class ConvolutionalLayers(nn.Sequential):
    """(B, in_channels, H, W) -> (B, 8 x width, H // 16 - 1, W // 4 + 1), the paper's table 1.

    width: channels of the first convolution, 64 in the paper.
    """

    def __init__(self, in_channels: int, width: int) -> None:
        # Channels in units of `width`, kernel, padding, batch norm, and what the pooling behind halves.
        rows: tuple[tuple[int, int, int, bool, str], ...] = (
            (1, 3, 1, False, "both"),
            (2, 3, 1, False, "both"),
            (4, 3, 1, True, ""),
            (4, 3, 1, False, "height"),
            (8, 3, 1, True, ""),
            (8, 3, 1, False, "height"),
            (8, 2, 0, True, ""),
        )
        layers: list[nn.Module] = []
        before = in_channels
        for times, kernel, padding, norm, pooling in rows:
            layers.append(nn.Conv2d(before, times * width, kernel, padding=padding))
            before = times * width
            if norm:
                layers.append(nn.BatchNorm2d(before))
            layers.append(nn.ReLU(inplace=True))
            if pooling:
                layers.append(nn.MaxPool2d(2, (2, 1), (0, 1)) if pooling == "height" else nn.MaxPool2d(2))
        super().__init__(*layers)
        self.out_channels = before


class BackboneColumns(Extractor):
    """The last map of a classification network, (B, C, about H / its stride, about W / 4)."""

    def __init__(self, backbone: Backbone) -> None:
        if backbone.fixed_size is not None:
            raise InputError(f"{backbone.label} takes square images of one size; take another backbone")
        super().__init__(backbone, strides=backbone.strides[-1:])
        keep_columns(self, (backbone.in_channels, 4 * max(backbone.strides), 8 * max(backbone.strides)))
        self.out_channels = self.channels[-1]

    def forward(self, images: Tensor) -> Tensor:  # type: ignore[override]
        return super().forward(images)[-1]


def keep_columns(network: nn.Module, input_size: tuple[int, int, int]) -> None:
    """Take out the strides along the width of every layer that sees the image at a stride of 4 already.

    Weights and their names stay. Raises InputError for a network that strides in layers of its own.
    """
    twin, images = meta_twin(network, input_size)
    widths: dict[str, int] = {}

    def note(name: str, given: Tensor) -> None:
        widths.setdefault(name, given.shape[3])

    for name, layer in twin.named_modules():
        if isinstance(layer, nn.Conv2d | nn.MaxPool2d | nn.AvgPool2d):
            layer.register_forward_hook(lambda _, inputs, __, name=name: note(name, inputs[0]))
    with torch.no_grad():
        twin(images)
    most = input_size[2] / COLUMNS
    for name, width in widths.items():
        layer: Any = network.get_submodule(name)
        down, across = pair(layer.stride, "stride")
        if across > 1 and width <= most:
            layer.stride = (down, 1)
    twin, images = meta_twin(network, input_size)
    with torch.no_grad():
        more = twin(torch.cat([images, images], dim=3)).shape[3] - twin(images).shape[3]
    if more != most:
        raise InputError(
            f"{type(network).__name__} gives {more} columns for {input_size[2]} pixels more, not {most:g}: "
            "the backbone strides in layers of its own; take another one"
        )


class CRNN(CTCRecognizer):
    """Convolutions, or any backbone; two LSTMs in both directions; scores of characters and a blank at each step.

    hidden: of the LSTMs, in each direction. width: channels of the first convolution. stacked: no linear layer between
    the LSTMs. blank: "first" or "last" among the classes. fused_lstm: False runs the LSTMs step by step.

    backbone: name of a classification network instead, backbone_options: its own, backbone_weights: published ones.

    Images are 32 to 47 pixels high, as the paper's convolutions leave one row of those; of a higher one, or on a
    backbone, the rows are averaged. Any width from 4 pixels on is read in W // 4 + 1 steps, on a backbone W / 4.
    """

    free_width = True
    class_layers = ("predict",)

    def __init__(
        self,
        *,
        num_classes: int = 37,
        in_channels: int = 1,
        hidden: int = 256,
        width: int = 64,
        stacked: bool = False,
        blank: BlankPlace = "first",
        fused_lstm: bool = True,
        backbone: str | None = None,
        backbone_options: Mapping[str, Any] | None = None,
        backbone_weights: str | None = None,
    ) -> None:
        super().__init__(num_classes, in_channels, blank)
        check_count("hidden", hidden)
        check_count("width", width)
        self.min_size = (HEIGHT, COLUMNS)
        if backbone is None:
            refuse_without_backbone(backbone_options=backbone_options, backbone_weights=backbone_weights)
            columns: ConvolutionalLayers | BackboneColumns = ConvolutionalLayers(in_channels, width)
        else:
            columns = create_columns(backbone, in_channels, backbone_weights, backbone_options or {})
            least = max(columns.backbone.min_size, HEIGHT)
            self.min_size = (least, max(columns.backbone.min_size, COLUMNS))
        self.backbone = columns
        between = None if stacked else hidden
        first = BidirectionalLSTM(columns.out_channels, hidden, between, fused=fused_lstm)
        second = BidirectionalLSTM(first.out_channels, hidden, None, fused=fused_lstm)
        self.recurrent = nn.Sequential(first, second)
        self.predict = nn.Linear(2 * hidden, num_classes)

    def forward(self, images: Tensor) -> Outputs:
        self.check_images(images)
        rows = self.backbone(images).mean(dim=2)  # (B, C, T); of one row, that row
        return {"logits": self.predict(self.recurrent(rows.transpose(1, 2)))}

    def steps(self, size: Size) -> int:
        """Raises InputError for a (height, width) that it cannot take."""
        self.check_size(size)
        if isinstance(self.backbone, ConvolutionalLayers):
            return size[1] // 4 + 1
        twin, images = meta_twin(self.backbone, (self.in_channels, *size))
        with torch.no_grad():
            return twin(images).shape[3]


def refuse_without_backbone(**options: Any) -> None:
    """Raise InputError for an option of a backbone, given to a reader that has none."""
    for name, value in options.items():
        if value is not None:
            raise InputError(f"{name}={value!r} is of a reader on a backbone; name one too: backbone='resnet18'")


def create_columns(name: str, in_channels: int, weights: str | None, options: Mapping[str, Any]) -> BackboneColumns:
    """The columns of a registered classification network, by its name and options."""
    given = {**options, **({} if weights is None else {"weights": weights})}
    model = registry.create_model(name, in_channels=in_channels, **given)
    if not isinstance(model, Backbone):
        raise InputError(f"{name} is no classification network; `opsin models --task classify` lists those")
    columns = BackboneColumns(model)
    columns.name = name
    return columns


# Published networks

_published = partial(
    Published,
    "arXiv:1507.05717",
    2015,
    idea="a recurrent layer reads the columns of a map of convolutions, taught by CTC",
)
_METRICS = {"IIIT5K accuracy": 81.2, "SVT accuracy": 82.7, "IC03 accuracy": 91.9, "IC13 accuracy": 89.6}


@register(
    "crnn",
    task="read",
    network=CRNN,
    published=_published(
        (1, 32, 100), 8_331_301, 705_143_808, _METRICS, source="counted: the authors' program and its port"
    ),
)
def crnn(**options: Any) -> CRNN:
    return CRNN(**options)


@register(
    "crnn_stacked",
    task="read",
    network=CRNN,
    published=_published((1, 32, 100), 8_724_261, source="derived: the paper's table 1, LSTM right on LSTM"),
)
def crnn_stacked(*, stacked: bool = True, **options: Any) -> CRNN:
    return CRNN(stacked=stacked, **options)
