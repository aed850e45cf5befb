"""Any classification network that finds points: by regression from its last map, or by heat maps on its pyramid.

Regression: Feng et al. 2018 (Wing loss, arXiv:1711.06753), section 7, on ResNet-50 at 256x256: the last map averaged,
and a layer of two numbers a point. Heat maps: Lin et al. 2016 (FPN, arXiv:1612.03144) brings all maps to the finest,
and a convolution makes one map a point there, as pose estimators do (Xiao et al. 2018, arXiv:1804.06208, with
deconvolutions in the place of the pyramid).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from opsin.backbones.extraction import create_extractor
from opsin.checks import check_count, check_number
from opsin.landmark.heatmap_localizer import HeatmapLocalizer, Learns
from opsin.landmark.localizer import Outputs, Regressor
from opsin.necks import create_neck
from opsin.nn.capabilities import ClassRows
from opsin.nn.conv import ConvNormActivation
from opsin.registry import Published, register


class PointRegression(Regressor):
    """backbone -> mean over its last map -> two numbers a point, in sides of the input from its middle.

    backbone: name of a classification network; backbone_options: its own; backbone_weights: published ones. unit: of
    the last layer's numbers, in sides of the input.
    """

    def __init__(
        self,
        *,
        num_points: int = 98,
        in_channels: int = 3,
        backbone: str = "resnet50",
        backbone_options: Mapping[str, Any] | None = None,
        backbone_weights: str | None = None,
        unit: float = 0.05,
    ) -> None:
        super().__init__(num_points, in_channels)
        self.unit = check_number("unit", unit, above=True)
        options = {"in_channels": in_channels, "weights": backbone_weights, **(backbone_options or {})}
        self.backbone = create_extractor(backbone, (32,), **options)
        self.min_size = self.backbone.backbone.min_size
        self.fixed_size = self.backbone.backbone.fixed_size
        self.predict = nn.Linear(self.backbone.channels[-1], 2 * num_points)
        nn.init.normal_(self.predict.weight, std=0.0001 / self.unit)
        nn.init.zeros_(self.predict.bias)

    def forward(self, images: Tensor) -> Outputs:
        self.check_images(images)
        found = self.predict(self.backbone(images)[-1].mean(dim=(2, 3))).unflatten(1, (self.num_points, 2))
        sides = found.new_tensor([images.shape[-1], images.shape[-2]])
        return {"points": (found * self.unit + 0.5) * sides}

    @torch.no_grad()
    def start_at(self, shape: Tensor) -> None:
        self.predict.bias.copy_(((shape - 0.5) / self.unit).flatten())

    def initialize_from(self, state: Mapping[str, Tensor]) -> list[str]:
        """Copy what fits of a classification network's tensors, or of this one's. Returns the names not filled."""
        return fill(self, state)

    def class_rows(self) -> dict[str, ClassRows]:
        return {"predict.weight": ClassRows(width=2), "predict.bias": ClassRows(width=2)}

    def learned_parts(self) -> list[nn.Module]:
        return [self.backbone]


class PyramidHeatmaps(HeatmapLocalizer):
    """backbone -> neck -> its maps, brought to the finest and added -> `convs` 3x3 convolutions -> a map of each point.

    backbone, backbone_options, backbone_weights: as of `PointRegression`. strides: of the maps taken from it, the
    finest first, which is that of the heat maps. neck: a name that `opsin.necks` knows, with neck_options. channels: of
    the pyramid and the convolutions. learns, sigma, divergence: see `HeatmapLocalizer`.
    """

    def __init__(
        self,
        *,
        num_points: int = 98,
        in_channels: int = 3,
        backbone: str = "resnet18",
        backbone_options: Mapping[str, Any] | None = None,
        backbone_weights: str | None = None,
        strides: Sequence[int] = (4, 8, 16, 32),
        neck: str | None = "fpn",
        neck_options: Mapping[str, Any] | None = None,
        channels: int = 128,
        convs: int = 2,
        learns: Learns = "heatmaps",
        sigma: float = 1.5,
        divergence: float = 10.0,
    ) -> None:
        super().__init__(num_points, in_channels, learns=learns, sigma=sigma, divergence=divergence)
        check_count("channels", channels)
        check_count("convs", convs, 0)
        options = {"in_channels": in_channels, "weights": backbone_weights, **(backbone_options or {})}
        self.backbone = create_extractor(backbone, strides, **options)
        self.neck = create_neck(
            neck, self.backbone.channels, self.backbone.strides, **{"out_channels": channels, **(neck_options or {})}
        )
        self.stride = self.neck.strides[0]
        self.divisor = max(self.backbone.strides)
        self.min_size = max(self.divisor, self.backbone.backbone.min_size)
        layers = [ConvNormActivation(self.neck.channels[0], channels, 3, norm="batch")] if convs else []
        layers += [ConvNormActivation(channels, channels, 3, norm="batch") for _ in range(convs - 1)]
        self.head = nn.Sequential(*layers)
        self.predict = nn.Conv2d(channels if convs else self.neck.channels[0], num_points, 1)

    def forward(self, images: Tensor) -> Outputs:
        self.check_images(images)
        finest, *others = self.neck(self.backbone(images))
        for level in others:
            finest = finest + F.interpolate(level, size=finest.shape[-2:], mode="bilinear")
        return {"heatmaps": self.predict(self.head(finest))[:, None]}

    def initialize_from(self, state: Mapping[str, Tensor]) -> list[str]:
        """Copy what fits of a classification network's tensors, or of this one's. Returns the names not filled."""
        return fill(self, state)

    def class_rows(self) -> dict[str, ClassRows]:
        return {"predict.weight": ClassRows(), "predict.bias": ClassRows()}

    def learned_parts(self) -> list[nn.Module]:
        return [self.backbone]


def fill(model: nn.Module, state: Mapping[str, Tensor]) -> list[str]:
    """Copy into a network with an extractor what fits of its own kind's tensors or a classification network's."""
    own = model.state_dict()
    found = {f"backbone.backbone.{name}": value for name, value in state.items()} | dict(state)
    fitting = {k: v for k, v in found.items() if k in own and own[k].shape == v.shape}
    model.load_state_dict(fitting, strict=False)
    return [name for name in own if name not in fitting]


@register(
    "point_regression",
    task="landmark",
    network=PointRegression,
    published=Published(
        "arXiv:1711.06753",
        2018,
        (3, 256, 256),
        23_909_636,
        metrics={"WFLW NME, inter-ocular": 4.99, "COFW NME, inter-pupil": 5.07},
        idea="the last map of any backbone, averaged, and two numbers a point",
        source="derived: ResNet-50 without its classifier, and a layer for the 98 points of WFLW",
    ),
)
def point_regression(**options: Any) -> PointRegression:
    return PointRegression(**options)


@register(
    "heatmap_fpn",
    task="landmark",
    network=PyramidHeatmaps,
    published=Published(
        "arXiv:1612.03144",
        2016,
        (3, 256, 256),
        12_198_306,
        idea="heat maps on the finest map of any backbone's pyramid",
        source="counted here: the pyramid is the paper's, the head for points is opsin's",
    ),
)
def heatmap_fpn(**options: Any) -> PyramidHeatmaps:
    return PyramidHeatmaps(**options)
