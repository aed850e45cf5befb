"""Fast R-CNN: one network that pools regions from one map of the image, and learns classes and boxes at once.

Girshick 2015, arXiv:1504.08083. R-CNN ran a network on every one of 2,000 proposals, then trained SVMs and box
regressors on features that filled a disk. Here the image is convolved once; each proposal is pooled from the map to a
fixed size and seen by two fully connected layers, and a softmax and the offsets of each class are learned together, by
steps that take few images and many regions of each. The proposals come from elsewhere: Selective Search.

fast_rcnn_vgg16 and fast_rcnn_caffenet are the paper's models L and S as published, with Caffe's poolings, whose last
window may reach over the border. fast_rcnn is the same on any backbone.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

from opsin.backbones.extraction import create_extractor
from opsin.checks import check_count, check_number
from opsin.detect.detector import Assignment, Detector, Outputs
from opsin.detect.postprocess import Selection
from opsin.detect.proposals import LIMIT, METHODS, SlidingWindows
from opsin.detect.regions import (
    REGION_SELECTION,
    Pooling,
    RegionPredictor,
    Regions,
    RoIPooler,
    RoISampler,
    TwoLayerHead,
    any_regions,
    assign_regions,
    decode_regions,
    fill_hidden,
    likeliest_boxes,
    region_losses,
    sample_regions,
)
from opsin.errors import InputError, unknown
from opsin.nn.capabilities import ClassRows
from opsin.nn.norm import alexnet_lrn, freeze_batch_norm
from opsin.nn.surgery import decompose_linear
from opsin.ops import box_area
from opsin.registry import Published, create_model, register
from opsin.structures import Instances

_CHUNK = 1000  # regions that the head sees at once in use: 100 MB, pooled from VGG-16's map
_HIDDEN = ("head.fc6.0", "head.fc7")
_SIDE = 224  # pixels: the size at which a region is best seen, that of ImageNet's images


class FastRCNN(Detector):
    """A backbone that gives one map, and a head that looks at regions of it: `model(images, proposals)`.

    backbone: (B, C, H, W) -> [(B, channels, about H / stride, about W / stride)]. roi_size: cells of a pooled region,
    each way; pooling: "pool", the paper's, or "align". hidden: width of fc6 and fc7; dropout: behind both.
    proposals: the method that makes them, by its name in `opsin.detect.proposals`, with proposal_options; training,
    evaluation and prediction of a run see to it.
    regions: sampled of each image; positives: the share that is matched to an object, at most; threshold: from this IoU
    on; background: the range of the others. add_truth: the objects are among the proposals of the training, as in the
    published code. box_weight, beta: of smooth L1, and where it becomes linear.
    scales: an image pyramid (section 2.4): the input at several sizes, each proposal seen at the one where its area is
    nearest to 224 x 224. (1.0,) is brute force, for which `detect.multi_scale` can draw the size of each step.
    truncated_svd: ranks of fc6 and fc7 as two thin layers each, for the weights of what `truncated_svd` gives.

    forward gives the maps, "features_0" and so on, one for each scale, the boxes of all proposals, their rows, and the
    size of the input. Without proposals it lays out 2,000 sliding windows. The head runs in `loss`, on a sample, and in
    `decode`, on all.
    """

    needs_proposals = True
    export_refusal = "its proposals are made outside of the network, and a file takes nothing but images"

    def __init__(
        self,
        backbone: nn.Module,
        channels: int,
        stride: int,
        *,
        num_classes: int = 20,
        in_channels: int = 3,
        roi_size: int = 7,
        pooling: Pooling = "pool",
        hidden: int = 4096,
        dropout: float = 0.5,
        proposals: str = "selective_search_fast",
        proposal_options: Mapping[str, Any] | None = None,
        regions: int = 64,
        positives: float = 0.25,
        threshold: float = 0.5,
        background: Sequence[float] = (0.1, 0.5),
        add_truth: bool = True,
        box_weight: float = 1.0,
        beta: float = 1.0,
        scales: Sequence[float] = (1.0,),
        truncated_svd: Sequence[int] | None = None,
    ) -> None:
        super().__init__(num_classes, in_channels)
        if proposals not in METHODS:
            raise unknown("proposals", proposals, METHODS)
        for name, values, count in (("background", background, 2), ("truncated_svd", truncated_svd or (1, 1), 2)):
            if len(values) != count:
                raise InputError(f"{name} takes two numbers, got {list(values)}")
        if not scales:
            raise InputError("scales must hold a number; [1.0] sees the input as it is")
        self.proposals, self.proposal_options = proposals, dict(proposal_options or {})
        self.sampler = RoISampler(regions, positives, threshold, (background[0], background[1]))
        self.add_truth = add_truth
        self.box_weight, self.beta = check_number("box_weight", box_weight), check_number("beta", beta, above=True)
        self.scales = tuple(check_number("scales", scale, above=True) for scale in scales)
        self.strides = (stride,)
        self.backbone = backbone
        self.pooler = RoIPooler((stride,), roi_size, pooling)
        self.head = TwoLayerHead(channels, roi_size, hidden, dropout=dropout)
        self.predictor = RegionPredictor(hidden, num_classes)
        self.selection = REGION_SELECTION
        if truncated_svd is not None:
            self._thin(truncated_svd)

    def forward(self, images: Tensor, proposals: Sequence[Tensor] | None = None) -> Outputs:
        """images: (B, C, H, W). proposals: of each image (P_i, 4), xyxy in its pixels, any number of them."""
        self._check(images)
        given = self._windows(images) if proposals is None else self._gather(images, proposals)
        maps = {f"features_{k}": self._see(images, scale) for k, scale in enumerate(self.scales)}
        return {**maps, "proposals": given.boxes, "rows": given.rows, "size": torch.tensor(images.shape[-2:])}

    def _windows(self, images: Tensor) -> Regions:
        boxes = SlidingWindows().lay_out(images.shape[-2], images.shape[-1]).to(images.device)
        rows = torch.arange(len(images), device=images.device).repeat_interleave(len(boxes))
        return Regions(boxes.repeat(len(images), 1), rows)

    @staticmethod
    def _gather(images: Tensor, proposals: Sequence[Tensor]) -> Regions:
        if len(proposals) != len(images):
            raise InputError(f"{len(images)} images came with the proposals of {len(proposals)}; give each its own")
        return Regions.gather([boxes.to(images.device, torch.float32) for boxes in proposals])

    def _see(self, images: Tensor, scale: float) -> Tensor:
        if scale != 1:
            size = [_scaled(side, scale) for side in images.shape[-2:]]
            images = interpolate(images, size, mode="bilinear", antialias=True)
        (features,) = self.backbone(images)
        return features

    def classify(self, outputs: Outputs, regions: Regions) -> tuple[Tensor, Tensor]:
        """What the head says of regions in pixels of the input: logits (R, K + 1) and offsets (R, K + 1, 4)."""
        first = outputs["features_0"]
        pooled = self._pool(outputs, regions, 0)
        if len(self.scales) > 1 and not first.is_meta:
            areas = box_area(regions.boxes)[:, None] * regions.boxes.new_tensor(self.scales) ** 2
            nearest = (areas - _SIDE**2).abs().argmin(dim=1)
            for k in range(1, len(self.scales)):
                places = (nearest == k).nonzero()[:, 0]
                own = Regions(regions.boxes[places], regions.rows[places])
                pooled = pooled.index_copy(0, places, self._pool(outputs, own, k))
        return self.predictor(self.head([pooled.to(first.dtype)]))

    def _pool(self, outputs: Outputs, regions: Regions, k: int) -> Tensor:
        """Regions from the map of the k-th scale: (R, C, S, S)."""
        boxes = regions.boxes
        if self.scales[k] != 1:
            height, width = outputs["size"].tolist()
            factors = [_scaled(side, self.scales[k]) / side for side in (width, height)]
            boxes = boxes * boxes.new_tensor(factors * 2)
        return self.pooler([outputs[f"features_{k}"]], Regions(boxes, regions.rows))[0]

    def loss(self, outputs: Outputs, targets: Sequence[Instances]) -> dict[str, Tensor]:
        """Section 2.3: a sample of regions of each image, cross-entropy and smooth L1 over the number of them all."""
        given = _by_image(outputs, len(targets))
        if self.add_truth:
            given = [torch.cat([boxes, _objects(one).to(boxes)]) for boxes, one in zip(given, targets, strict=True)]
        samples = sample_regions(given, targets, self.sampler, self.num_classes)
        losses = region_losses(*self.classify(outputs, samples.regions), samples, beta=self.beta)
        return {"class": losses["class"], "box": self.box_weight * losses["box"]}

    def assign(self, outputs: Outputs, targets: Sequence[Instances]) -> list[Assignment]:
        """Which object each proposal is matched to, and which are near enough to be drawn as background."""
        pairs = zip(_by_image(outputs, len(targets)), targets, strict=True)
        return [assign_regions(boxes, one, self.sampler, self.num_classes) for boxes, one in pairs]

    @torch.no_grad()
    def decode(self, outputs: Outputs, selection: Selection | None = None, **options: Any) -> list[Instances]:
        """The instances of each image, best first; see `decode_regions`. options: fields of `Selection` to change."""
        selection = Selection(**{**vars(selection or self.selection), **options})
        regions, logits, offsets = self._score_regions(outputs)
        count, size = len(outputs["features_0"]), outputs["size"].tolist()
        return decode_regions(logits, offsets, regions, count, size, selection)

    def class_rows(self) -> dict[str, ClassRows]:
        return self.predictor.class_rows("predictor")

    def predictions(self, outputs: Outputs) -> tuple[Tensor, Tensor]:
        """See `opsin.detect.regions.likeliest_boxes`; decoding has a box for each class."""
        regions, logits, offsets = self._score_regions(outputs)
        scores = logits.float().softmax(dim=1)[:, 1:]
        counts = torch.bincount(regions.rows, minlength=len(outputs["features_0"]))
        return likeliest_boxes(regions.boxes, scores, offsets.float()[:, 1:], counts.tolist())

    @property
    def second_stage_counts(self) -> dict[str, int]:
        return {"proposals": int(self.proposal_options.get("limit", LIMIT))}

    def second_stage(self, outputs: Outputs) -> tuple[Tensor, Tensor]:
        return self.classify(outputs, any_regions(outputs["proposals"], self.second_stage_counts["proposals"]))

    def _score_regions(self, outputs: Outputs) -> tuple[Regions, Tensor, Tensor]:
        """The proposals of all images, their logits and offsets."""
        regions = Regions(outputs["proposals"], outputs["rows"])
        parts = [
            self.classify(outputs, Regions(boxes, rows))
            for boxes, rows in zip(regions.boxes.split(_CHUNK), regions.rows.split(_CHUNK), strict=True)
        ]
        logits, offsets = (torch.cat(part) for part in zip(*parts, strict=True))
        return regions, logits, offsets

    def initialize_from(self, state: Mapping[str, Tensor]) -> list[str]:
        """As every detector; and fc6 and fc7 from the first linear layers of a classification network that fit."""
        fresh = super().initialize_from(state)
        filled = fill_hidden(self, _HIDDEN, state)
        return [name for name in fresh if name not in filled]

    def _thin(self, ranks: Sequence[int]) -> None:
        """fc6 and fc7 as two layers of these ranks, untrained."""
        for name, layer, rank in zip(_HIDDEN, _hidden_layers(self), ranks, strict=True):
            check_count("truncated_svd", rank)
            if rank > min(layer.in_features, layer.out_features):
                raise InputError(
                    f"truncated_svd={list(ranks)}: {name} has {layer.in_features} and {layer.out_features} features, "
                    "a rank can be no more than either"
                )
            first = nn.Linear(layer.in_features, rank, bias=False)
            self.set_submodule(name, nn.Sequential(first, nn.Linear(rank, layer.out_features)))


def truncated_svd(model: FastRCNN, fc6: int = 1024, fc7: int = 256) -> FastRCNN:
    """A trained detector with fc6 and fc7 as two thin layers each: faster in use, a little worse. Section 3.1.

    fc6, fc7: singular values kept. The model built with truncated_svd=(fc6, fc7) takes its weights. Raises InputError
    for ranks that cannot be, or a model that has thin layers already.
    """
    layers = _hidden_layers(model)
    thin = copy.deepcopy(model)
    for name, layer, rank in zip(_HIDDEN, layers, (fc6, fc7), strict=True):
        thin.set_submodule(name, decompose_linear(layer, rank=rank).model)
    return thin


def _hidden_layers(model: FastRCNN) -> list[nn.Linear]:
    found = [model.get_submodule(name) for name in _HIDDEN]
    whole = [layer for layer in found if isinstance(layer, nn.Linear)]
    if len(whole) < len(found):
        raise InputError("fc6 and fc7 of this model are thin layers already; decompose the model it was made from")
    return whole


def _scaled(side: int, scale: float) -> int:
    return max(1, round(side * scale))


def _by_image(outputs: Outputs, count: int) -> list[Tensor]:
    """The proposals of each of `count` images."""
    return list(outputs["proposals"].split(torch.bincount(outputs["rows"], minlength=count).tolist()))


def _objects(truth: Instances) -> Tensor:
    """Boxes of the truth without regions to ignore."""
    return truth.boxes if truth.labels is None else truth.boxes[truth.labels >= 0]


class CaffeNet(nn.Module):
    """The convolutions of Caffe's AlexNet, which pools before it normalises, as Fast R-CNN padded them: stride 16."""

    def __init__(self, in_channels: int = 3) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        width = in_channels
        for channels, kernel_size, stride, padding, groups, pooled in (
            (96, 11, 4, 5, 1, True), (256, 5, 1, 2, 2, True), (384, 3, 1, 1, 1, False), (384, 3, 1, 1, 2, False),
            (256, 3, 1, 1, 2, False),
        ):  # fmt: skip
            conv = nn.Conv2d(width, channels, kernel_size, stride, padding, groups=groups)
            nn.init.kaiming_normal_(conv.weight, nonlinearity="relu")
            nn.init.zeros_(conv.bias)  # type: ignore[arg-type]
            layers += [conv, nn.ReLU(inplace=True)]
            if pooled:
                layers += [nn.MaxPool2d(3, 2, padding=1, ceil_mode=True), alexnet_lrn()]
            width = channels
        self.layers = nn.Sequential(*layers)

    def forward(self, images: Tensor) -> list[Tensor]:
        return [self.layers(images)]


def _on_backbone(
    name: str,
    stride: int,
    backbone_options: Mapping[str, Any] | None,
    backbone_weights: str | None,
    frozen_stages: int,
    frozen_norm: bool,
    options: Mapping[str, Any],
) -> FastRCNN:
    """The detector on a registered network, with its published weights where they are named."""
    in_channels = options.get("in_channels", 3)
    backbone = create_extractor(name, (stride,), in_channels=in_channels, **(backbone_options or {}))
    model = FastRCNN(backbone, backbone.channels[0], stride, **options)
    if backbone_weights is not None:
        source = create_model(name, in_channels=in_channels, weights=backbone_weights, **(backbone_options or {}))
        model.initialize_from(source.state_dict())
    check_count("frozen_stages", frozen_stages, least=0)
    if frozen_stages:
        for part in backbone.backbone.layers()[: 1 + frozen_stages]:
            part.requires_grad_(False)
    if frozen_norm:
        freeze_batch_norm(backbone)
    return model


# Published networks

_published = partial(
    Published,
    "arXiv:1504.08083",
    2015,
    (3, 600, 1000),
    idea="convolve the image once, pool every region from its map, learn classes and boxes together",
    source="counted: the published Caffe definitions, with 2,000 regions; results: the paper, table 4",
)


@register(
    "fast_rcnn_vgg16",
    task="detect",
    network=FastRCNN,
    published=_published(134_690_729, 423_804_751_872, {"voc2007 test mAP": 66.9}),
)
def fast_rcnn_vgg16(*, backbone_weights: str | None = None, frozen_stages: int = 0, **options: Any) -> FastRCNN:
    """frozen_stages: 2 with published weights is the paper's, which trains from conv3_1 up (section 4.5)."""
    model = _on_backbone("vgg16", 16, None, backbone_weights, frozen_stages, False, options)
    for layer in model.backbone.modules():
        if isinstance(layer, nn.MaxPool2d):
            layer.ceil_mode = True
    return model


@register(
    "fast_rcnn_caffenet",
    task="detect",
    network=FastRCNN,
    published=_published(57_298_409, 119_129_288_576, {"voc2007 test mAP": 57.1}),
)
def fast_rcnn_caffenet(*, in_channels: int = 3, roi_size: int = 6, **options: Any) -> FastRCNN:
    return FastRCNN(CaffeNet(in_channels), 256, 16, in_channels=in_channels, roi_size=roi_size, **options)


@register(
    "fast_rcnn",
    task="detect",
    network=FastRCNN,
    published=Published(
        "arXiv:1504.08083",
        2015,
        (3, 320, 320),
        16_786_089,
        30_864_588_800,
        idea="Fast R-CNN on any backbone",
        source="counted here, with 2,000 regions; nobody published this combination",
    ),
)
def fast_rcnn(
    *,
    backbone: str = "resnet18",
    stride: int = 16,
    backbone_options: Mapping[str, Any] | None = None,
    backbone_weights: str | None = None,
    frozen_stages: int = 0,
    frozen_norm: bool = False,
    pooling: Pooling = "align",
    hidden: int = 1024,
    dropout: float = 0.0,
    **options: Any,
) -> FastRCNN:
    """stride: of the map that regions are pooled from. frozen_stages: so many, and the stem, keep their weights.

    frozen_norm: batch norms keep their statistics.
    """
    given = {"pooling": pooling, "hidden": hidden, "dropout": dropout, **options}
    return _on_backbone(backbone, stride, backbone_options, backbone_weights, frozen_stages, frozen_norm, given)
