"""R-CNN: Rich feature hierarchies for accurate object detection and semantic segmentation.

Girshick, Donahue, Darrell and Malik 2014, arXiv:1311.2524v5. The idea: let a classification network look at every
region that may hold an object. Each proposal is cut out, warped to the network's input whatever its shape, and
described by the last hidden layer; a linear SVM for each class says what it is, a linear regression from the last
pooling where the object ends. A network trained on a million labelled images is fine-tuned on few boxes, and
detection improved by half at once; but every region costs a whole forward pass.

The training has stages (section 2.3, appendices B and C), which are in `opsin.detect.rcnn_training`: the network is
fine-tuned as a classifier of regions, the features of all regions are written to disk, and SVMs and regressions are
fitted to those. `forward` gives the image and its regions, `loss` is that of the fine-tuning, and `decode` runs the
network on every region. Until the SVMs are fitted the softmax of the fine-tuned network evaluates.

rcnn has AlexNet as it was in 2012, as Caffe has it: the paper's T-Net, 21 ways. rcnn_vgg16 is its O-Net.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.ops import roi_align

from opsin import registry
from opsin.backbones.backbone import Backbone
from opsin.checks import check_count, check_number
from opsin.detect.detector import Assignment, Detector, Outputs
from opsin.detect.matching import assign_anchors
from opsin.detect.postprocess import Selection, select
from opsin.detect.proposals import LIMIT
from opsin.detect.regions import Regions, RoISampler, any_regions, likeliest_boxes, sample_regions
from opsin.detect.svm import Margin
from opsin.errors import InputError, unknown
from opsin.ops import clip_boxes, decode_boxes
from opsin.registry import Published, register
from opsin.structures import Instances

_FLAT = 1e-2  # pixels: what is narrower is no box


class Description(NamedTuple):
    """What the network makes of R regions. pooled: (R, D), of the last pooling, flat. features: (R, F), of the last
    hidden layer, the pooling itself where there is none. logits: (R, K + 1), background first.
    """

    pooled: Tensor
    features: Tensor
    logits: Tensor


class RCNN(Detector):
    """A classification network for regions, and SVMs and box regressions on its features.

    backbone: name of a classification network whose head ends in linear layers, with backbone_options; side: of the
    regions that it sees; context: pixels of them, on each side, that show what is around the proposal.
    windows: regions that a batch of the fine-tuning samples, shared out over its images; positive_share: of those
    whose IoU with a truth is at least match_threshold, at most; background_threshold: the least IoU of the others.
    negative_threshold: an SVM's negatives overlap its class by less, its positives are truths alone; svm_cost,
    mining_passes: see `Margin`. box_threshold: a regression learns from proposals that overlap their truth by more;
    box_penalty: of its weights, meant for features of AlexNet's size. precision: of the features on disk.
    chunk: regions that the network sees at once.

    proposals: a method that `opsin.detect.proposals` knows, with proposal_options.
    """

    needs_proposals = True
    network_prefix = "network."
    export_refusal = "its proposals are made outside of the network, and a file takes nothing but images"
    svm_weights: Tensor
    svm_biases: Tensor
    box_weights: Tensor
    box_biases: Tensor
    has_svms: Tensor

    def __init__(
        self,
        *,
        num_classes: int = 20,
        in_channels: int = 3,
        backbone: str = "alexnet_2012",
        backbone_options: Mapping[str, Any] | None = None,
        side: int = 227,
        context: int = 16,
        proposals: str = "selective_search_fast",
        proposal_options: Mapping[str, Any] | None = None,
        windows: int = 128,
        positive_share: float = 0.25,
        match_threshold: float = 0.5,
        background_threshold: float = 0.0,
        negative_threshold: float = 0.3,
        svm_cost: float = 1e-3,
        mining_passes: int = 1,
        box_threshold: float = 0.6,
        box_penalty: float = 1000.0,
        precision: Literal["float16", "float32"] = "float16",
        chunk: int = 128,
    ) -> None:
        super().__init__(num_classes, in_channels)
        if precision not in ("float16", "float32"):
            raise unknown("precision", precision, ("float16", "float32"))
        check_count("windows", windows, least=4)
        check_count("chunk", chunk)
        check_count("context", context, least=0)
        if 2 * context >= check_count("side", side):
            raise InputError(f"context={context} on both sides leaves nothing of side={side}; it must be below half")
        self.side, self.context, self.chunk = side, context, chunk
        self.proposals, self.proposal_options = proposals, dict(proposal_options or {})
        self.windows, self.precision = windows, getattr(torch, precision)
        self.sampler = RoISampler(windows, positive_share, match_threshold, (background_threshold, match_threshold))
        self.negative_threshold = check_number("negative_threshold", negative_threshold, above=True)
        self.margin = Margin(cost=svm_cost, passes=mining_passes)
        self.box_threshold = check_number("box_threshold", box_threshold)
        self.box_penalty = check_number("box_penalty", box_penalty, above=True)
        self.strides, self.backbone_name = (), backbone
        self.network = self._create_network(backbone, backbone_options or {})
        self._linear = _linear_places(self.network, backbone)
        last, first = (self.network.head[place] for place in reversed(self._linear))  # type: ignore[index]
        self.register_buffer("svm_weights", torch.zeros(num_classes, last.in_features))
        self.register_buffer("svm_biases", torch.zeros(num_classes))
        self.register_buffer("box_weights", torch.zeros(num_classes, 4, first.in_features))
        self.register_buffer("box_biases", torch.zeros(num_classes, 4))
        self.register_buffer("has_svms", torch.tensor(False))
        self.selection = Selection(score_threshold=0.05, iou_threshold=0.3, candidates=20_000, limit=100)

    def _create_network(self, backbone: str, options: Mapping[str, Any]) -> Backbone:
        network = registry.create_model(
            backbone, num_classes=self.num_classes + 1, in_channels=self.in_channels, **options
        )
        if not isinstance(network, Backbone):
            raise InputError(f"{backbone} is no classification network; `opsin models --task classify` lists those")
        network.drop_aux_heads()
        return network

    # The network on regions

    def forward(self, images: Tensor, proposals: Sequence[Tensor] | None = None) -> Outputs:
        """images: (B, in_channels, H, W). proposals: (P_i, 4) of each; without them the whole image is the only one.

        Gives `maps`, the proposals of all, (R, 4), how many are of each image, counts (B,), and the input's size.
        """
        self._check(images)
        height, width = images.shape[-2:]
        if proposals is None:
            proposals = [images.new_tensor([[0.0, 0.0, width, height]])] * len(images)
        if len(proposals) != len(images):
            raise InputError(f"{len(images)} images need as many sets of proposals, got {len(proposals)}")
        return {
            **self.maps(images),
            "proposals": torch.cat([one.to(images.device, torch.float32) for one in proposals]),
            "counts": torch.tensor([len(one) for one in proposals]),
            "size": torch.tensor([height, width]),
        }

    def maps(self, images: Tensor) -> Outputs:
        """What all regions of an image share: here the image."""
        return {"images": images}

    def pool(self, outputs: Outputs, regions: Regions) -> Tensor:
        """Regions at the last pooling: (R, D)."""
        warped = warp(outputs["images"], regions, self.side, self.context)
        x = self.network.features(warped)[-1]
        return self.network.head[: self._linear[0]](x)  # type: ignore[index]

    def describe(self, outputs: Outputs, regions: Regions) -> Description:
        """What the network makes of regions, all at once."""
        pooled, (first, last) = self.pool(outputs, regions), self._linear
        features = self.network.head[first:last](pooled)  # type: ignore[index]
        return Description(pooled, features, self.network.head[last:](features))  # type: ignore[index]

    def loss(self, outputs: Outputs, targets: Sequence[Instances]) -> dict[str, Tensor]:
        """Section 2.3, fine-tuning: cross-entropy of sampled regions, the boxes of the truth among them.

        The paper samples the regions of all images at once; here each image of the batch gives as many.
        """
        proposals = _by_image(outputs)
        known = [truth.boxes[real_objects(truth)].to(given) for given, truth in zip(proposals, targets, strict=True)]
        given = [torch.cat(pair) for pair in zip(known, proposals, strict=True)]
        sampler = replace(self.sampler, count=max(4, self.windows // len(targets)))
        samples = sample_regions(given, targets, sampler, self.num_classes)
        if not len(samples.labels):
            return {"class": next(self.network.head.parameters()).sum() * 0}
        logits = self.describe(outputs, samples.regions).logits
        return {"class": F.cross_entropy(logits.float(), samples.labels + 1)}

    def assign(self, outputs: Outputs, targets: Sequence[Instances]) -> list[Assignment]:
        rules: dict[str, Any] = {"positive": self.sampler.threshold, "rescue": None}
        pairs = zip(_by_image(outputs), targets, strict=True)
        return [assign_anchors(boxes, [truth], self.num_classes, **rules)[0] for boxes, truth in pairs]

    # Evaluation

    def classify(self, description: Description) -> tuple[Tensor, Tensor]:
        """Scores (R, K) in [0, 1], of an SVM's margin its logistic function, and offsets (R, K, 4)."""
        if not self.has_svms.is_meta and self.has_svms:
            scores = F.linear(description.features.float(), self.svm_weights, self.svm_biases).sigmoid()
        else:
            scores = description.logits.float().softmax(dim=1)[:, 1:]
        offsets = F.linear(description.pooled.float(), self.box_weights.flatten(0, 1), self.box_biases.flatten())
        return scores, offsets.unflatten(1, (-1, 4))

    @property
    def second_stage_counts(self) -> dict[str, int]:
        return {"proposals": int(self.proposal_options.get("limit", LIMIT))}

    def second_stage(self, outputs: Outputs) -> tuple[Tensor, Tensor]:
        """As while the softmax evaluates: SVMs take the place of its layer, with a class less."""
        return self.classify(
            self.describe(outputs, any_regions(outputs["proposals"], self.second_stage_counts["proposals"]))
        )

    def score_regions(self, outputs: Outputs) -> tuple[Tensor, Tensor]:
        """Scores (R, K) and offsets (R, K, 4) of all proposals, `chunk` at a time."""
        found = [self.classify(self.describe(outputs, regions)) for regions in self.parts(outputs)]
        scores, offsets = map(torch.cat, zip(*found, strict=True))
        return scores, offsets

    def parts(self, outputs: Outputs) -> Iterator[Regions]:
        """The proposals, `chunk` at a time; one part without any where there are none."""
        rows = torch.arange(len(outputs["counts"])).repeat_interleave(outputs["counts"]).to(outputs["proposals"].device)
        yield from map(Regions, outputs["proposals"].split(self.chunk), rows.split(self.chunk))

    def predictions(self, outputs: Outputs) -> tuple[Tensor, Tensor]:
        """See `opsin.detect.regions.likeliest_boxes`; decoding has a box for each class."""
        scores, offsets = self.score_regions(outputs)
        return likeliest_boxes(outputs["proposals"], scores, offsets, outputs["counts"].tolist(), (1.0,) * 4)

    @torch.no_grad()
    def decode(self, outputs: Outputs, selection: Selection | None = None, **options: Any) -> list[Instances]:
        """As `Detector.decode`, but that a region has a box for each class."""
        selection = Selection(**{**vars(selection or self.selection), **options})
        return self.choose(outputs, *self.score_regions(outputs), selection)

    def choose(self, outputs: Outputs, scores: Tensor, offsets: Tensor, selection: Selection) -> list[Instances]:
        """The instances of each image, of what `score_regions` gave: boxes moved, cut at the border, suppressed."""
        counts, size, found = outputs["counts"].tolist(), outputs["size"].tolist(), []
        each = (x.split(counts) for x in (outputs["proposals"], scores, offsets))
        for proposals, certain, moves in zip(*each, strict=True):
            places, labels = (certain > selection.score_threshold).nonzero(as_tuple=True)
            boxes = clip_boxes(decode_boxes(moves[places, labels], proposals[places]), size)
            solid = ((boxes[:, 2:] - boxes[:, :2]) >= _FLAT).all(dim=1).nonzero()[:, 0]
            places, labels = places[solid], labels[solid]
            own = certain.new_zeros(len(solid), self.num_classes)
            own[torch.arange(len(solid), device=own.device), labels] = certain[places, labels]
            found.append(select(boxes[solid], own, selection))
        return found


def warp(images: Tensor, regions: Regions, side: int, context: int) -> Tensor:
    """Regions with what is around them, whatever their shape, as squares: (R, C, side, side). Appendix A.

    The proposal fills the middle, `context` pixels of the square on each side show its surroundings. Each pixel is
    interpolated at one point, without antialiasing, as in the authors' code. What lies outside of the image is 0, the
    mean of normalised images.
    """
    middle = (regions.boxes[:, :2] + regions.boxes[:, 2:]) / 2
    half = (regions.boxes[:, 2:] - regions.boxes[:, :2]) / 2 * (side / (side - 2 * context))
    rois = torch.cat([regions.rows[:, None].to(middle), middle - half, middle + half], dim=1)
    return roi_align(images.float(), rois, side, 1.0, 1, True).to(images.dtype)


def _linear_places(network: Backbone, name: str) -> tuple[int, int]:
    """Where in its head the first and the last linear layer are. Raises InputError where there are none."""
    head = getattr(network, "head", None)  # a network that runs as a whole has none of its own
    layers = head.children() if isinstance(head, nn.Sequential) else ()
    places = [place for place, layer in enumerate(layers) if isinstance(layer, nn.Linear)]
    if not places:
        raise InputError(f"the head of {name} does not end in linear layers, on which R-CNN stands; choose another")
    return places[0], places[-1]


def _by_image(outputs: Outputs) -> list[Tensor]:
    return list(outputs["proposals"].split(outputs["counts"].tolist()))


def real_objects(truth: Instances) -> Tensor:
    """Which truths are objects, and no regions to ignore: (N,) bool."""
    if truth.labels is None:
        return torch.ones(len(truth), dtype=torch.bool, device=truth.boxes.device)
    return truth.labels >= 0


# Published networks

_published = partial(
    Published,
    "arXiv:1311.2524",
    2014,
    (3, 500, 500),  # Selective Search's width; the network sees regions of 227 or 224 of it
    idea="a classification network looks at every proposed region",
)


@register(
    "rcnn",
    task="detect",
    network=RCNN,
    published=_published(
        56_954_261,
        metrics={"voc2007 test AP50": 58.5, "voc2010 test AP50": 53.7, "voc2012 test AP50": 53.3},
        source="counted: the authors' pascal_finetune_deploy.prototxt; results read: their repository",
    ),
)
def rcnn(**options: Any) -> RCNN:
    return RCNN(**options)


@register(
    "rcnn_vgg16",
    task="detect",
    network=RCNN,
    published=_published(
        134_346_581,
        metrics={"voc2007 test AP50": 66.0},
        source="derived: VGG-16 with 21 outputs; result read: table 3 of the paper, O-Net with regression",
    ),
)
def rcnn_vgg16(*, backbone: str = "vgg16", side: int = 224, **options: Any) -> RCNN:
    return RCNN(backbone=backbone, side=side, **options)
