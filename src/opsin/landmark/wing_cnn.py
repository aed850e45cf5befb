"""Wing loss: CNN-6 and CNN-7, which regress the coordinates of facial landmarks.

Feng, Kittler, Awais, Huber and Wu 2018, arXiv:1711.06753, section 5. The idea is the loss: L2 looks at large errors
alone, so that small ones, of which there are most once the network has learned something, hardly count; Wing weighs
them most. The networks are plain on purpose: 3x3 convolutions with ReLU, each before a 2x2 max pooling, 32 channels and
twice as many each time up to 512; a hidden layer of 1,024; and a layer of two numbers a point. CNN-6 takes 64x64
pixels and has five convolutions, CNN-7 takes 128x128 and has six. No batch norm: the paper has none, and the counts of
parameters are of networks without.

The last layer's numbers are in units of a side of the input, from its middle, and forward gives pixels. A training
begins with the mean shape as its answer to every image (`start_at`), which the paper does not say.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from opsin.checks import check_number, check_probability
from opsin.landmark.localizer import Outputs, Regressor
from opsin.nn.capabilities import ClassRows
from opsin.registry import Published, register

_HIDDEN = 1024


class WingCNN(Regressor):
    """`depth` - 1 convolutions for an input of 2 to the power of `depth` pixels a side, and two linear layers.

    width: channels of the first convolution, 32 in the paper; at most 16 times as many. unit: of the last layer's
    numbers, in sides of the input. dropout: before the last layer; 0 in the paper.
    """

    def __init__(
        self,
        depth: int,
        *,
        num_points: int = 68,
        in_channels: int = 3,
        width: int = 32,
        unit: float = 0.05,
        dropout: float = 0.0,
    ) -> None:
        super().__init__(num_points, in_channels)
        self.fixed_size = 1 << depth
        self.unit = check_number("unit", unit, above=True)
        layers: list[nn.Module] = []
        before = in_channels
        for place in range(depth - 1):
            after = width * min(1 << place, 16)
            layers += [nn.Conv2d(before, after, 3, padding=1), nn.ReLU(inplace=True), nn.MaxPool2d(2)]
            before = after
        self.features = nn.Sequential(*layers)
        self.hidden = nn.Sequential(nn.Flatten(), nn.Linear(before * 4, _HIDDEN), nn.ReLU(inplace=True))
        self.dropout = nn.Dropout(check_probability("dropout", dropout))
        self.predict = nn.Linear(_HIDDEN, 2 * num_points)
        for layer in self.modules():
            if isinstance(layer, nn.Conv2d | nn.Linear):
                nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
                assert layer.bias is not None
                nn.init.zeros_(layer.bias)
        nn.init.normal_(self.predict.weight, std=0.0001 / self.unit)

    def forward(self, images: Tensor) -> Outputs:
        self.check_images(images)
        found = self.predict(self.dropout(self.hidden(self.features(images))))
        side = float(self.fixed_size or 0)
        return {"points": (found.unflatten(1, (self.num_points, 2)) * self.unit + 0.5) * side}

    @torch.no_grad()
    def start_at(self, shape: Tensor) -> None:
        self.predict.bias.copy_(((shape - 0.5) / self.unit).flatten())

    def class_rows(self) -> dict[str, ClassRows]:
        return {"predict.weight": ClassRows(width=2), "predict.bias": ClassRows(width=2)}

    def reset_head(self, num_points: int) -> None:
        """A fresh last layer for other points."""
        self.num_points = num_points
        self.predict = nn.Linear(_HIDDEN, 2 * num_points)


# Published networks

_published = partial(
    Published,
    "arXiv:1711.06753",
    2018,
    source="counted by the paper's section 5, for the 68 points of 300-W",
)


@register(
    "wing_cnn6",
    task="landmark",
    network=WingCNN,
    published=_published(
        (3, 64, 64), 3_806_152, None, idea="a loss that weighs small errors most, on a plain network of 64x64 pixels"
    ),
)
def wing_cnn6(**options: Any) -> WingCNN:
    return WingCNN(6, **options)


@register(
    "wing_cnn7",
    task="landmark",
    network=WingCNN,
    published=_published(
        (3, 128, 128),
        6_165_960,
        None,
        {"300W NME full, inter-pupil": 4.04},
        idea="the same with one convolution more, on 128x128 pixels",
    ),
)
def wing_cnn7(**options: Any) -> WingCNN:
    return WingCNN(7, **options)
