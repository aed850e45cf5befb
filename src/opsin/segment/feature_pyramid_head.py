"""Semantic FPN: Panoptic Feature Pyramid Networks, the branch that scores every pixel.

Kirillov, Girshick, He and Dollár 2019, arXiv:1901.02446. The idea: the pyramid that detectors stand on has fine maps
that know much already; bring its levels to one size, add them up, and there is a segmenter, light and without dilation.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from opsin.checks import check_count
from opsin.errors import InputError
from opsin.necks import create_neck
from opsin.nn.conv import ConvNormActivation
from opsin.registry import Published, register
from opsin.segment.encoder import create_encoder
from opsin.segment.segmenter import Outputs, Segmenter, resize_logits
from opsin.segment.sizes import cut, pad_to_multiple


class LevelHead(nn.Module):
    """A level of the pyramid brought to the finest one's stride: 3x3, norm, ReLU and twice the size, until it is there.

    The finest has one 3x3. Figure 3 of the paper.
    """

    def __init__(self, in_channels: int, out_channels: int, doublings: int, norm: str | None) -> None:
        super().__init__()
        widths = [in_channels, *(out_channels for _ in range(max(doublings, 1) - 1))]
        self.convs = nn.ModuleList(ConvNormActivation(width, out_channels, 3, norm=norm) for width in widths)
        self.doublings = doublings

    def forward(self, x: Tensor) -> Tensor:
        for conv in self.convs:
            x = conv(x)
            if self.doublings:
                x = F.interpolate(x, scale_factor=2.0, mode="bilinear")
        return x


class SemanticFPN(Segmenter):
    """Any backbone, a pyramid, a head for each of its levels, and their sum scored at stride 4 and upsampled.

    backbone: name of a classification network; backbone_options: its own; backbone_weights: published ones;
    frozen_norm: its batch norms keep their statistics. strides: of the maps taken from it, the finest first; each is
    brought to the first. neck: a name that `opsin.necks` knows, with neck_options. channels: of the pyramid;
    head_channels: of the heads; head_norm: theirs, "group" in the paper. overlapping: see `Segmenter`.
    An image of any size is padded below and to the right by its own border, to whole cells of the coarsest map.
    """

    def __init__(
        self,
        *,
        num_classes: int = 19,
        in_channels: int = 3,
        backbone: str = "resnet50",
        backbone_options: Mapping[str, Any] | None = None,
        backbone_weights: str | None = None,
        frozen_norm: bool = False,
        strides: Sequence[int] = (4, 8, 16, 32),
        neck: str | None = "fpn",
        neck_options: Mapping[str, Any] | None = None,
        channels: int = 256,
        head_channels: int = 128,
        head_norm: str | None = "group",
        overlapping: bool | None = None,
    ) -> None:
        super().__init__(num_classes, in_channels, overlapping)
        check_count("channels", channels)
        check_count("head_channels", head_channels)
        options = {"in_channels": in_channels, "weights": backbone_weights, "frozen_norm": frozen_norm}
        self.backbone = create_encoder(backbone, **{**options, **(backbone_options or {})})
        self.backbone.keep(strides)
        self.min_size = self.backbone.min_size
        self.neck = create_neck(
            neck, self.backbone.channels, self.backbone.strides, **{"out_channels": channels, **(neck_options or {})}
        )
        self.coarsest, self.strides = max(self.backbone.strides), (self.neck.strides[0],)
        heads = []
        for width, stride in zip(self.neck.channels, self.neck.strides, strict=True):
            ratio = stride // self.neck.strides[0]
            if ratio & (ratio - 1):
                raise InputError(f"the heads double their maps, and strides {list(self.neck.strides)} are not doubles")
            heads.append(LevelHead(width, head_channels, ratio.bit_length() - 1, head_norm))
        self.heads = nn.ModuleList(heads)
        self.predict = nn.Conv2d(head_channels, num_classes, 1)
        self.class_layers = ("predict",)

    def forward(self, images: Tensor) -> Outputs:
        self._check(images)
        padded = pad_to_multiple(images, self.coarsest)
        levels = self.neck(self.backbone(padded))
        total, *others = (head(x) for head, x in zip(self.heads, levels, strict=True))
        for x in others:
            total = total + resize_logits(x, total.shape[-2:])
        logits = resize_logits(self.predict(total), padded.shape[-2:])
        return {"logits": cut(logits, images.shape[-2:])}


@register(
    "semantic_fpn",
    task="segment",
    network=SemanticFPN,
    published=Published(
        "arXiv:1901.02446",
        2019,
        (3, 512, 1024),
        28_478_675,
        idea="the levels of a detector's pyramid, brought to one size and added up",
        source="derived: the paper's section 3 and figure 3 on ResNet-50",
    ),
)
def semantic_fpn(**options: Any) -> SemanticFPN:
    return SemanticFPN(**options)
