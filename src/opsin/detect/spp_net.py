"""SPP-Net: Spatial Pyramid Pooling in Deep Convolutional Networks for Visual Recognition.

He, Zhang, Ren and Sun 2014, arXiv:1406.4729v4. The idea: convolutions take an image of any size, only the fully
connected layers do not. A spatial pyramid, the largest values of 6x6, 3x3, 2x2 and 1x1 bins, gives them a vector of one
length whatever the map. So a classification network can be trained on images of several sizes, and a detector
convolves the whole image once and pools each of 2,000 regions from its map: R-CNN 24 to 102 times faster.

What comes after the pyramid is R-CNN's (section 4.1): the fully connected layers are fine-tuned on regions, SVMs and
box regressions are fitted to their features. The convolutions are not fine-tuned, since the paper does not send
gradients through the pyramid. They come from a classification network: the paper's was trained on ImageNet, and where
none is given, `opsin.detect.spp_net_training` trains one on the regions of the training images, as R-CNN's, at one
size or at several.

spp_net is the paper's detector on ZF-5. zfnet_spp is the classification network, whose training gives it weights.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.ops import roi_pool

from opsin import registry
from opsin.backbones.backbone import Backbone
from opsin.checks import check_count
from opsin.detect.detector import Outputs
from opsin.detect.rcnn import RCNN
from opsin.detect.regions import Regions
from opsin.errors import InputError
from opsin.nn.counting import meta_twin
from opsin.nn.pooling import SpatialPyramidPooling
from opsin.registry import Published, register


class PyramidNetwork(Backbone):
    """A classification network's stem and stages, a spatial pyramid, and three fully connected layers.

    backbone: name of the classification network, with backbone_options. stride: of its map that is pooled, the last one
    by default; what lies behind it is left out. levels: bins of a side at each level of the pyramid. hidden_features:
    width of the two hidden layers.
    """

    def __init__(
        self,
        *,
        num_classes: int = 1000,
        in_channels: int = 3,
        backbone: str = "zfnet",
        backbone_options: Mapping[str, Any] | None = None,
        stride: int | None = None,
        levels: Sequence[int] = (6, 3, 2, 1),
        hidden_features: int = 4096,
        dropout: float = 0.5,
    ) -> None:
        super().__init__(num_classes, in_channels)
        inner = registry.create_model(backbone, in_channels=in_channels, **(backbone_options or {}))
        if not isinstance(inner, Backbone):
            raise InputError(f"{backbone} is no classification network; `opsin models --task classify` lists those")
        inner.drop_aux_heads()
        if stride not in (None, *inner.strides):
            raise InputError(f"{backbone} has no map of stride {stride}, only {', '.join(map(str, inner.strides))}")
        self.min_size = _smallest(inner)
        count = len(inner.strides) if stride is None else 1 + max(k for k, s in enumerate(inner.strides) if s == stride)
        self.stem, *stages = inner.layers()[: 1 + count]
        self.stages = nn.ModuleList(stages)
        self.channels, self.strides = inner.channels[:count], inner.strides[:count]
        self.preprocessing = inner.preprocessing
        pyramid = SpatialPyramidPooling(levels)
        hidden = check_count("hidden_features", hidden_features)
        self.head = nn.Sequential(
            pyramid,
            nn.Linear(self.channels[-1] * sum(n * n for n in pyramid.levels), hidden),
            nn.ReLU(inplace=True),
            nn.Dropout(dropout),
            nn.Linear(hidden, hidden),
            nn.ReLU(inplace=True),
            nn.Dropout(dropout),
            nn.Linear(hidden, num_classes),
        )
        for layer in self.head:
            if isinstance(layer, nn.Linear):
                nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
                nn.init.zeros_(layer.bias)


class SPPNet(RCNN):
    """R-CNN whose regions are pooled from maps of the whole image. Its options are R-CNN's, but for the following.

    backbone: name of any classification network; stride: of its map, the last one by default; levels,
    hidden_features, dropout: of the pyramid and what stands on it. sizes: of the regions that the classification
    network is trained on, drawn for each batch; the paper changes them with the epoch, 224 and 180 (section 2.3,
    multi-size training). scales: of the image's shorter side; a region is pooled at that where its area is nearest to
    the largest of `sizes`, squared (section 4.1). One scale alone is the fast mode (688 in the paper).
    """

    def __init__(
        self,
        *,
        num_classes: int = 20,
        in_channels: int = 3,
        backbone: str = "zfnet",
        backbone_options: Mapping[str, Any] | None = None,
        stride: int | None = None,
        levels: Sequence[int] = (6, 3, 2, 1),
        hidden_features: int = 4096,
        dropout: float = 0.5,
        scales: Sequence[int] = (480, 576, 688, 864, 1200),
        sizes: Sequence[int] = (224,),
        context: int = 16,
        proposals: str = "selective_search_fast",
        proposal_options: Mapping[str, Any] | None = None,
        windows: int = 128,
        positive_share: float = 0.25,
        match_threshold: float = 0.5,
        background_threshold: float = 0.1,
        negative_threshold: float = 0.3,
        svm_cost: float = 1e-3,
        mining_passes: int = 1,
        box_threshold: float = 0.6,
        box_penalty: float = 1000.0,
        precision: Literal["float16", "float32"] = "float16",
        chunk: int = 128,
    ) -> None:
        if not scales or not sizes:
            raise InputError("scales and sizes each need a number of pixels at least, such as [688] and [224]")
        for name, values in (("scales", scales), ("sizes", sizes)):
            for value in values:
                check_count(f"each of {name}", value)
        self._form = {"stride": stride, "levels": levels, "hidden_features": hidden_features, "dropout": dropout}
        super().__init__(
            num_classes=num_classes,
            in_channels=in_channels,
            backbone=backbone,
            backbone_options=backbone_options,
            side=max(sizes),
            context=context,
            proposals=proposals,
            proposal_options=proposal_options,
            windows=windows,
            positive_share=positive_share,
            match_threshold=match_threshold,
            background_threshold=background_threshold,
            negative_threshold=negative_threshold,
            svm_cost=svm_cost,
            mining_passes=mining_passes,
            box_threshold=box_threshold,
            box_penalty=box_penalty,
            precision=precision,
            chunk=chunk,
        )
        self.scales, self.sizes = tuple(scales), tuple(sizes)
        self.stride, self.first = self.network.strides[-1], first_centre(self.network)

    def _create_network(self, backbone: str, options: Mapping[str, Any]) -> Backbone:
        return PyramidNetwork(
            num_classes=self.num_classes + 1,
            in_channels=self.in_channels,
            backbone=backbone,
            backbone_options=options,
            **self._form,
        )

    def train(self, mode: bool = True) -> SPPNet:
        super().train(mode)
        self.network.stem.eval()  # batch norms of layers that are not trained keep their statistics
        self.network.stages.eval()
        return self

    def maps(self, images: Tensor) -> Outputs:
        """The last map of the image at each scale, as map_480, ..."""
        height, width = images.shape[-2:]
        found = {}
        with torch.no_grad():
            for scale in self.scales:
                size = [max(self.network.min_size, round(n * scale / min(height, width))) for n in (height, width)]
                scaled = F.interpolate(images, size, mode="bilinear", antialias=True)
                found[f"map_{scale}"] = self.network.features(scaled)[-1]
        return found

    def pool(self, outputs: Outputs, regions: Regions) -> Tensor:
        short = int(outputs["size"].min())
        areas = (regions.boxes[:, 2:] - regions.boxes[:, :2]).prod(dim=1)
        ratios = areas.new_tensor(self.scales) / short
        chosen = (areas[:, None] * ratios.square() - max(self.sizes) ** 2).abs().argmin(dim=1)
        levels = self.network.head[0].levels  # type: ignore[index]
        pooled = areas.new_zeros(len(areas), self.network.head[1].in_features)  # type: ignore[index]
        if pooled.is_meta:
            return pooled
        for place, scale in enumerate(self.scales):
            own = (chosen == place).nonzero()[:, 0]
            x = outputs[f"map_{scale}"].float()
            if not len(own):
                continue
            cells = window_cells(regions.boxes[own] * ratios[place], x.shape[-2:], self.stride, self.first)
            rois = torch.cat([regions.rows[own, None].to(cells), cells], dim=1).float()
            # Its bins of whole cells are those of adaptive pooling: floor(i h / n) to ceil((i + 1) h / n).
            pooled[own] = torch.cat([roi_pool(x, rois, level).flatten(1) for level in levels], dim=1)
        return pooled


def _smallest(network: Backbone) -> int:
    """The smallest side of an image that a network's stages take; its head may want more."""
    twin, images = meta_twin(network, (network.in_channels, network.min_size, network.min_size))
    assert isinstance(twin, Backbone)
    layers = twin.layers()
    for side in range(network.min_size - 1, 0, -1):
        try:
            nn.Sequential(*layers)(images[..., :side, :side])
        except RuntimeError:
            return side + 1
    return 1


def window_cells(boxes: Tensor, size: Sequence[int], stride: int, first: float) -> Tensor:
    """The cells of a map that windows are pooled from: the first and the last of each, (R, 4) xyxy, both inclusive.

    Appendix A: those whose centres lie inside the window; where none does, the one nearest to its middle. boxes: (R, 4)
    in pixels of the image that the map was made of. size: (rows, columns) of the map, whose cell i is centred on
    pixel `first` + i * stride.
    """
    cells = (boxes - first) / stride
    low, high = cells[:, :2].floor() + 1, cells[:, 2:].ceil() - 1
    nearest = (cells[:, :2] + cells[:, 2:]).div(2).round()
    empty = high < low
    low, high = torch.where(empty, nearest, low), torch.where(empty, nearest, high)
    last = torch.tensor([size[1] - 1, size[0] - 1], device=boxes.device, dtype=boxes.dtype)
    return torch.cat([low.clamp(min=0).minimum(last), high.clamp(min=0).minimum(last)], dim=1)


def first_centre(network: Backbone) -> float:
    """Where in an image the first cell of a network's last map is centred, in continuous pixels.

    From kernels, strides and paddings where stem and stages are plain chains. Else from the smallest image whose map
    has some number of cells: no border of it is left over, so that the cells lie in its middle.
    """
    parts = network.layers()
    if all(isinstance(m, nn.Sequential) or not any(True for _ in m.children()) for p in parts for m in p.modules()):
        centre, jump = 0.5, 1
        for part in parts:
            for layer in part.modules():
                if isinstance(layer, (nn.Conv2d, nn.MaxPool2d, nn.AvgPool2d)):
                    kernel, stride, padding, dilation = (
                        value[0] if isinstance(value, tuple) else value
                        for value in (layer.kernel_size, layer.stride, layer.padding, getattr(layer, "dilation", 1))
                    )
                    centre += jump * (dilation * (kernel - 1) / 2 - padding)  # type: ignore[operator]
                    jump *= stride  # type: ignore[operator]
        return centre
    stride = network.strides[-1]
    large = stride * (8 + math.ceil(network.min_size / stride))
    twin, images = meta_twin(network, (network.in_channels, large, large))

    def cells(side: int) -> int:
        return twin.features(images[..., :side, :side])[-1].shape[-1]  # type: ignore[operator]

    # One more than a multiple of 8: of a dilated network the last of these cells is one that it had without dilation,
    # which no window that hangs over makes.
    count = cells(large) - (cells(large) - 1) % 8
    small = bisect_left(range(large + 1), count, lo=large - 8 * stride, key=cells)
    return (small - stride * (count - 1)) / 2


# Published networks


@register(
    "zfnet_spp",
    task="classify",
    network=PyramidNetwork,
    published=Published(
        "arXiv:1406.4729",
        2014,
        (3, 224, 224),
        77_037_672,
        idea="pool maps of any size into a pyramid of fixed length",
        source="derived: ZF-5 with 50 bins in front of fc6",
    ),
)
def zfnet_spp(**options: Any) -> PyramidNetwork:
    return PyramidNetwork(**options)


@register(
    "spp_net",
    task="detect",
    network=SPPNet,
    published=Published(
        "arXiv:1406.4729",
        2014,
        (3, 500, 500),
        73_026_709,
        idea="convolve the image once, pool each region from its map",
        source="derived: ZF-5 with 50 bins in front of fc6 and 21 outputs",
    ),
)
def spp_net(**options: Any) -> SPPNet:
    return SPPNet(**options)
