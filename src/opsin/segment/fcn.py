"""FCN: Fully Convolutional Networks for Semantic Segmentation.

Long, Shelhamer and Darrell 2014, arXiv:1411.4038; Shelhamer et al. 2016, arXiv:1605.06211. The idea: a classifier is a
convolution once its fully connected layers are read as ones, and gives a coarse map of scores for an image of any size;
what it lacks in place, finer maps of the same network have, so their scores are added on the way up.

fcn32s scores the last map and upsamples it by 32; fcn16s adds the scores of pool4 first, fcn8s those of pool3 too. On
VGG-16 they are the authors' release: fc6 is a 7x7 convolution, the first convolution pads by 100 so that it fits into
any image, poolings round up as Caffe's, and maps are laid on each other by the offsets of the release. On any other
backbone scores are made of its maps of stride 32, 16 and 8, which are padded to whole cells and need no offsets.
Score layers start at zero, so that 16s begins as the 32s that it is initialised from, and 8s as the 16s (section 4.2).
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any, Literal, TypeAlias

from torch import Tensor, nn

from opsin import registry
from opsin.backbones.backbone import Backbone
from opsin.backbones.vgg import VGG
from opsin.checks import check_count, check_probability
from opsin.errors import InputError, unknown
from opsin.nn.norm import freeze_batch_norm
from opsin.nn.upsampling import BilinearDeconvolution, BilinearUpsample
from opsin.registry import Published, register
from opsin.segment.encoder import Encoder
from opsin.segment.segmenter import Outputs, Segmenter, resize_logits
from opsin.segment.sizes import CeilMaxPool2d, cut, pad_to_multiple

Upsampling: TypeAlias = Literal["fixed", "learned", "all_learned"]
UPSAMPLING = ("fixed", "learned", "all_learned")
BORDER = 100  # of the first convolution, in the release
# Where the upsampled scores, and those of pool4 and pool3, are cut in the release: by the finest stride, by the skip's.
CUTS = {32: 19, 16: 27, 8: 31}
SKIP_CUTS = {16: 5, 8: 9}
SCALES = {16: 0.01, 8: 0.0001}  # of pool4 and pool3 in the release's "at once"


class FCN(Segmenter):
    """Scores of maps of stride 32, and down to `finest` of those finer, upsampled step by step and added.

    backbone: name of a classification network; of a VGG the fully connected layers are taken along. backbone_options:
    its own; backbone_weights: published ones, whose fully connected layers become fc6 and fc7 where their sizes fit.
    frozen_norm: its batch norms keep their statistics. hidden_features, dropout: of fc6 and fc7, of a VGG only.
    upsampling: "fixed" interpolates, bilinear; "learned" starts so and learns all but the last step, as the paper has
    it (section 3.3); "all_learned" the last one too. at_once: the maps of finer skips are scaled down, by 0.01 and
    0.0001, so that all can be trained at once instead of in stages (arXiv:1605.06211, section 4.3).
    overlapping: see `Segmenter`.
    """

    def __init__(
        self,
        finest: int,
        *,
        num_classes: int = 21,
        in_channels: int = 3,
        backbone: str = "vgg16",
        backbone_options: Mapping[str, Any] | None = None,
        backbone_weights: str | None = None,
        frozen_norm: bool = False,
        hidden_features: int = 4096,
        dropout: float = 0.5,
        upsampling: Upsampling = "fixed",
        at_once: bool = False,
        overlapping: bool | None = None,
    ) -> None:
        super().__init__(num_classes, in_channels, overlapping)
        if upsampling not in UPSAMPLING:
            raise unknown("upsampling", upsampling, UPSAMPLING)
        check_count("hidden_features", hidden_features)
        network = registry.create_model(
            backbone, in_channels=in_channels, weights=backbone_weights, **(backbone_options or {})
        )
        if not isinstance(network, Backbone):
            raise InputError(f"{backbone} is no classification network; `opsin models --task classify` lists those")
        given = network.state_dict() if backbone_weights is not None else {}
        self.finest, self.strides, self.at_once = finest, (finest,), at_once
        vgg = network if isinstance(network, VGG) else None
        self.released = vgg is not None
        self.backbone = Encoder(network)
        self.backbone.name, self.min_size = backbone, 1 if self.released else network.min_size
        if frozen_norm:
            freeze_batch_norm(self.backbone)
        levels = [32 >> step for step in range(3) if 32 >> step >= finest]  # the coarsest first
        if vgg is not None:
            widths = self._take_classifier(vgg, hidden_features, check_probability("dropout", dropout), levels)
        else:
            self.backbone.keep(levels[::-1])
            widths = dict(zip(levels, self.backbone.channels[::-1], strict=True))
        self.scores = nn.ModuleDict({str(stride): nn.Conv2d(widths[stride], num_classes, 1) for stride in levels})
        kind = BilinearDeconvolution if self.released else BilinearUpsample
        self.ups = nn.ModuleDict(
            {str(stride): kind(num_classes, 2, learned=upsampling != "fixed") for stride in levels[:-1]}
        )
        self.last = kind(num_classes, finest, learned=upsampling == "all_learned")
        self.level: int = finest  # that is used: coarser in the first stages of a training in turn
        self._coarser: tuple[nn.Module, ...] = ()
        self.class_layers = tuple(f"scores.{stride}" for stride in levels)
        self.learned = ("backbone", "fc") if self.released else ("backbone",)
        for score in self.scores.values():
            _zero(score)
        if given:
            self.initialize_from(given)

    def _take_classifier(self, network: VGG, hidden: int, dropout: float, levels: list[int]) -> dict[int, int]:
        """fc6 and fc7 as convolutions, and the release's border and rounding. Returns the channels that are scored."""
        width = network.channels[-1]
        layers: list[nn.Module] = []
        for channels, size in ((width, 7), (hidden, 1)):
            conv = nn.Conv2d(channels, hidden, size)
            nn.init.kaiming_normal_(conv.weight, nonlinearity="relu")
            nn.init.zeros_(conv.bias)  # type: ignore[arg-type]
            layers += [conv, nn.ReLU(inplace=True), nn.Dropout(dropout)]
        self.fc = nn.Sequential(*layers)
        convs = [layer for layer in network.stages.modules() if isinstance(layer, nn.Conv2d)]
        convs[0].padding = (BORDER, BORDER)
        for name, layer in list(network.stages.named_modules()):
            if isinstance(layer, nn.MaxPool2d):
                network.stages.set_submodule(name, CeilMaxPool2d())
        self.pool = CeilMaxPool2d()
        return {32: hidden, 16: network.channels[3], 8: network.channels[2]}

    def forward(self, images: Tensor) -> Outputs:
        self._check(images)
        size = images.shape[-2:]
        if self.released:
            found = self._score(self._pooled(images), SKIP_CUTS)
            return {"logits": cut(self._last(found), size, CUTS[self.level])}
        padded = pad_to_multiple(images, 32)
        maps = dict(zip(self.backbone.strides, self.backbone(padded), strict=True))
        logits = self._last(self._score(maps, {16: 0, 8: 0}))
        if not self.backbone.exact:
            logits = resize_logits(logits, padded.shape[-2:])
        return {"logits": cut(logits, size)}

    def _pooled(self, images: Tensor) -> dict[int, Tensor]:
        """pool3 and pool4 by their strides, and what fc7 gives."""
        network, x, stride = self.backbone.backbone, images, 1
        maps: dict[int, Tensor] = {}
        for stage in network.stages:
            for layer in stage.children():
                x = layer(x)
                if isinstance(layer, nn.MaxPool2d):
                    stride *= 2
                    maps[stride] = x
        maps[32] = self.fc(self.pool(x))
        return maps

    def _score(self, maps: Mapping[int, Tensor], cuts: Mapping[int, int]) -> Tensor:
        """The scores of all levels at the finest one. cuts: where those of a skip begin that lie on the coarser's."""
        total = self.scores["32"](maps[32])
        for name in list(self.scores)[1:]:
            stride = int(name)
            if stride < self.level:
                break
            total = self.ups[str(2 * stride)](total)
            skip = maps[stride] * SCALES[stride] if self.at_once else maps[stride]
            if not self.released and not self.backbone.exact:
                total = resize_logits(total, skip.shape[-2:])
            total = total + cut(self.scores[name](skip), total.shape[-2:], cuts[stride])
        return total

    def hold_at(self, level: int | None) -> None:
        """Use no finer scores than those of a stride, as fcn32s or fcn16s would on the same tensors; None: all.

        So the stages of a training in turn are of one network. What upsamples a coarser level is fixed.
        """
        self.level = self.finest if level is None else level
        kind = BilinearDeconvolution if self.released else BilinearUpsample
        # in a tuple: none of its tensors is the network's
        self._coarser = () if self.level == self.finest else (kind(self.num_classes, self.level),)

    def _last(self, scores: Tensor) -> Tensor:
        return self._coarser[0].to(scores.device)(scores) if self._coarser else self.last(scores)

    def reset_head(self, num_classes: int) -> None:
        super().reset_head(num_classes)
        for name, layer in list(self.named_modules()):
            if isinstance(layer, BilinearDeconvolution):
                fresh = type(layer)(num_classes, layer.factor, learned=layer.learned)
                self.set_submodule(name, fresh.to(next(self.parameters()).device))

    def _class_layer(self, old: nn.Module) -> nn.Module:
        return _zero(super()._class_layer(old))

    def _from_classifier(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """A VGG's tensors: its convolutions, and its first two linear layers as convolutions of 7x7 and 1x1."""
        found = {f"backbone.backbone.{name}": tensor for name, tensor in state.items()}
        if not self.released:
            return found
        for place, (linear, conv) in enumerate((("head.3", "fc.0"), ("head.6", "fc.3"))):
            weight, bias = state.get(f"{linear}.weight"), state.get(f"{linear}.bias")
            window = 1 if place else 7
            if weight is not None and bias is not None and weight.shape[1] % window**2 == 0:
                found[f"{conv}.weight"] = weight.unflatten(1, (-1, window, window))
                found[f"{conv}.bias"] = bias
        return found


def _zero(layer: nn.Module) -> nn.Module:
    for parameter in layer.parameters():
        nn.init.zeros_(parameter)
    return layer


# Published networks

_IDEA = "a classifier is a convolution: slide it, and add the scores of finer maps on the way up"
_published = partial(Published, "arXiv:1411.4038", 2014, (3, 500, 500), idea=_IDEA)
_SOURCE = "counted on the release's prototxt, without its fixed bilinear kernels"


@register(
    "fcn32s",
    task="segment",
    network=FCN,
    published=_published(134_346_581, 181_365_854_976, {"VOC2011 seg11valid mIoU": 63.6}, source=_SOURCE),
)
def fcn32s(**options: Any) -> FCN:
    return FCN(32, **options)


@register(
    "fcn16s",
    task="segment",
    network=FCN,
    published=_published(134_357_354, 181_448_086_272, {"VOC2011 seg11valid mIoU": 65.0}, source=_SOURCE),
)
def fcn16s(**options: Any) -> FCN:
    return FCN(16, **options)


@register(
    "fcn8s",
    task="segment",
    network=FCN,
    published=_published(134_362_751, 181_529_034_048, {"VOC2011 seg11valid mIoU": 65.5}, source=_SOURCE),
)
def fcn8s(**options: Any) -> FCN:
    return FCN(8, **options)
