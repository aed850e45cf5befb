"""RPN: a network that proposes regions. Ren, He, Girshick and Sun 2015, arXiv:1506.01497, section 3.1.

The idea: the maps that tell what a region holds can tell where to look too. A 3x3 convolution slides over them, and of
k anchors at each place says how likely it holds any object and how it must be moved to fit; where Selective Search took
two seconds an image, this takes ten milliseconds. Lin et al. 2016, arXiv:1612.03144, section 4.1, slide it over every
level of a pyramid, with anchors of one size each.

`ProposalHead` is the part that Faster R-CNN shares; `RPN`, registered as rpn, is a detector of objects without classes,
to be trained alone and evaluated by its recall.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal, NamedTuple, TypeAlias

import torch
import torch.nn.functional as F
import torchvision.ops
from torch import Tensor, nn

from opsin.backbones.extraction import Extractor, create_extractor
from opsin.checks import check_count, check_number
from opsin.detect.anchor_grid import AnchorForm, AnchorGrid
from opsin.detect.detector import Assignment, Detector, Outputs
from opsin.detect.matching import assign_anchors, gather_positives
from opsin.detect.postprocess import Selection
from opsin.detect.regions import draw
from opsin.errors import InputError, unknown
from opsin.losses import smooth_l1_loss
from opsin.necks import Neck, create_neck
from opsin.nn.conv import ConvNormActivation
from opsin.nn.naming import build
from opsin.nn.norm import freeze_batch_norm
from opsin.ops import batched_nms, clip_boxes, decode_boxes, encode_boxes
from opsin.registry import Published, register
from opsin.structures import Instances

Objectness: TypeAlias = Literal["sigmoid", "softmax"]

_NARROW = 1e-3  # torchvision's: a proposal narrower than that, in pixels, is none


class Trunk(NamedTuple):
    """What stands before the heads: a backbone, a neck, the strides of its maps and the channels that all have."""

    backbone: Extractor
    neck: Neck
    strides: tuple[int, ...]
    channels: int


def create_trunk(
    backbone: str,
    strides: Sequence[int],
    neck: str | None,
    channels: int | None,
    *,
    in_channels: int = 3,
    backbone_options: Mapping[str, Any] | None = None,
    backbone_weights: str | None = None,
    frozen_norm: bool = False,
    neck_options: Mapping[str, Any] | None = None,
    extra_levels: int = 0,
) -> Trunk:
    """A backbone's maps of some strides through a neck, all of `channels`; None leaves them as the neck has them.

    Extra levels are those of `ExtraLevels`, by pooling unless neck_options say otherwise, as in FPN's section 4.1.
    Raises InputError for maps of different channels: the heads are shared by all.
    """
    body = create_extractor(
        backbone, strides, in_channels=in_channels, weights=backbone_weights, **(backbone_options or {})
    )
    if frozen_norm:
        freeze_batch_norm(body)
    options: dict[str, Any] = {"extra_levels": extra_levels, "extra_from": "pool"} if extra_levels else {}
    if channels is not None:
        check_count("channels", channels)
        options["out_channels"] = channels
    built = create_neck(neck, body.channels, body.strides, **{**options, **(neck_options or {})})
    if len(set(built.channels)) > 1 or channels not in (None, built.channels[0]):
        raise InputError(
            f"the heads are shared by all levels, of {channels or 'the same'} channels, and the neck gives "
            f"{list(built.channels)}; set channels and leave out_channels to it"
        )
    return Trunk(body, built, built.strides, built.channels[0])


class ProposalHead(nn.Module):
    """The RPN on maps of `channels` at some strides: objectness and offsets of every anchor, and proposals of them.

    convs: 3x3 ones before the two that predict. anchor_scales, ratios, anchors: see `AnchorGrid`. objectness: one
    logit, "sigmoid", or the paper's two, "softmax", of which only their difference counts.
    candidates: the best so many anchors of each level go into the suppression, at `iou_threshold` within a level.
    match_threshold: an anchor whose IoU with a truth is at least that is matched to it, as are the best anchors of each
    truth; below background_threshold it is background. sampled: anchors of an image that the loss sees,
    half of them such as answer if there are so many. inside_only: it sees none that crosses the image's border
    (section 3.1.3). beta: where smooth L1 becomes linear; 1/9 in all ports.
    """

    def __init__(
        self,
        channels: int,
        strides: Sequence[int],
        *,
        convs: int = 1,
        anchor_scales: Sequence[float] = (8.0,),
        ratios: Sequence[float] = (0.5, 1.0, 2.0),
        anchors: AnchorForm = "paper",
        objectness: Objectness = "sigmoid",
        candidates: int = 2000,
        iou_threshold: float = 0.7,
        match_threshold: float = 0.7,
        background_threshold: float = 0.3,
        sampled: int = 256,
        inside_only: bool = False,
        beta: float = 1 / 9,
    ) -> None:
        super().__init__()
        for name, value in (("convs", convs), ("candidates", candidates), ("sampled", sampled)):
            check_count(name, value)
        if objectness not in ("sigmoid", "softmax"):
            raise unknown("objectness", objectness, ("sigmoid", "softmax"))
        if not 0 < background_threshold <= match_threshold <= 1:
            raise InputError(
                f"background_threshold={background_threshold} and match_threshold={match_threshold} must rise in this "
                "order between 0 and 1"
            )
        sides = [[stride * scale for scale in anchor_scales] for stride in strides]
        self.grid = AnchorGrid(strides, sides, ratios, anchors)
        self.candidates, self.iou_threshold = candidates, check_number("iou_threshold", iou_threshold)
        self.rules: dict[str, Any] = {
            "positive": match_threshold, "negative": background_threshold, "rescue": "ties"
        }  # fmt: skip
        self.sampled, self.inside_only, self.beta = sampled, inside_only, check_number("beta", beta)
        count = self.grid.count
        self.convs = nn.Sequential(*(ConvNormActivation(channels, channels, norm=None) for _ in range(convs)))
        self.objectness = nn.Conv2d(channels, count * (2 if objectness == "softmax" else 1), 1)
        self.offsets = nn.Conv2d(channels, count * 4, 1)
        for layer in self.modules():
            if isinstance(layer, nn.Conv2d):
                nn.init.normal_(layer.weight, std=0.01)  # section 3.1.3
                nn.init.zeros_(layer.bias)  # type: ignore[arg-type]

    def forward(self, maps: Sequence[Tensor], size: Sequence[int]) -> Outputs:
        """maps: the finest first. size: (height, width) of the input.

        objectness: (B, A), a logit of each anchor, level by level, row by row, place by place. offsets: (B, A, 4).
        anchors: (A, 4). And `propose`'s.
        """
        hidden = [self.convs(x) for x in maps]
        anchors = self.grid.lay_out([x.shape[-2:] for x in maps], size, maps[0].device)
        logits = torch.cat([self.objectness(x).permute(0, 2, 3, 1).flatten(1) for x in hidden], dim=1)
        if self.objectness.out_channels > self.grid.count:
            background, objects = logits.unflatten(1, (-1, 2)).unbind(-1)
            logits = objects - background
        outputs = {
            "objectness": logits,
            "offsets": torch.cat([self.offsets(x).permute(0, 2, 3, 1).flatten(1) for x in hidden], 1).unflatten(
                1, (-1, 4)
            ),
            "anchors": torch.cat(anchors),
        }
        return outputs | self.propose(outputs, [len(level) for level in anchors], size)

    @torch.no_grad()
    def propose(self, outputs: Outputs, counts: Sequence[int], size: Sequence[int]) -> Outputs:
        """The boxes of the best anchors of each level that survive suppression, as constants to whoever uses them.

        proposals: (B, N, 4), by falling objectness, cut at the border; N, the candidates of all levels, is the same for
        all images. proposal_scores: (B, N), their logits, -inf from where on there are no more. proposal_ranks: (B, N)
        int64, their place among all anchors of their level, from 0 on: those below n are the proposals that n
        candidates of each level give. counts: anchors of each level.
        """
        logits, offsets = outputs["objectness"].float(), outputs["offsets"].float()
        places, ranks, levels, start = [], [], [], 0
        for level, count in enumerate(counts):
            best = logits[:, start : start + count].topk(min(self.candidates, count)).indices
            places.append(best + start)
            ranks.append(torch.arange(best.shape[1], device=best.device))
            levels.append(torch.full_like(ranks[-1], level))
            start += count
        chosen = torch.cat(places, dim=1)
        scores = logits.gather(1, chosen)
        boxes = decode_boxes(offsets.gather(1, chosen[..., None].expand(-1, -1, 4)), outputs["anchors"][chosen])
        boxes = clip_boxes(boxes, size)
        kept = self._survive(boxes, scores, torch.cat(levels), size)
        scores, order = torch.where(kept, scores, -torch.inf).sort(dim=1, descending=True, stable=True)
        return {
            "proposals": boxes.gather(1, order[..., None].expand(-1, -1, 4)),
            "proposal_scores": scores,
            "proposal_ranks": torch.cat(ranks)[order],
        }

    def _survive(self, boxes: Tensor, scores: Tensor, levels: Tensor, size: Sequence[int]) -> Tensor:
        """Which boxes no better one of their image and level overlaps: (B, N, 4), (B, N), (N,) -> (B, N) bool."""
        solid = ((boxes[..., 2:] - boxes[..., :2]) >= _NARROW).all(dim=-1)
        if boxes.is_meta:
            return solid  # shapes only: there is nothing to compare
        count = len(self.grid.strides)
        groups = (levels + count * torch.arange(boxes.shape[0], device=boxes.device)[:, None]).flatten()
        # A flat box suppresses nothing: all zeros, it overlaps none.
        flat, values = torch.where(solid[..., None], boxes, 0).flatten(0, 1), scores.flatten()
        if torch.compiler.is_compiling():
            # One kernel call in the exported program: each group is moved to a place of its own.
            moved = flat + (groups * (max(size) + 1.0))[:, None]
            kept = torchvision.ops.nms(moved, values, self.iou_threshold)
        else:
            kept = batched_nms(flat, values, groups, self.iou_threshold)
        alive = torch.zeros_like(values, dtype=torch.bool).index_fill(0, kept, True)
        return alive.view_as(solid) & solid

    def assign(self, outputs: Outputs, targets: Sequence[Instances], num_classes: int) -> list[Assignment]:
        """Which true box each anchor is matched to in each image."""
        anchors = outputs["anchors"]
        if not self.inside_only:
            return assign_anchors(anchors, targets, num_classes, **self.rules)
        height, width = outputs["size"].tolist()
        inside = ((anchors[:, :2] >= 0).all(1) & (anchors[:, 2] <= width) & (anchors[:, 3] <= height)).nonzero()[:, 0]
        found = assign_anchors(anchors[inside], targets, num_classes, **self.rules)
        outside = torch.full((len(anchors),), -2, device=anchors.device)
        return [Assignment(anchors, outside.index_copy(0, inside, one.matched)) for one in found]

    def losses(self, outputs: Outputs, targets: Sequence[Instances], num_classes: int) -> dict[str, Tensor]:
        """Section 3.1.2, eq. 1, of a sample of anchors: binary cross-entropy, and smooth L1 of those that answer.

        Both are divided by the anchors sampled, as in all ports: the paper divides the second by the number of places
        and weighs it by 10, which it says comes to much the same.
        """
        assigned = self.assign(outputs, targets, num_classes)
        sampled = []
        for one in assigned:
            seen = torch.full_like(one.matched, -2)
            for places in draw(one.matched, self.sampled, 0.5):
                seen[places] = one.matched[places]
            sampled.append(Assignment(one.boxes, seen))
        seen = torch.stack([one.matched for one in sampled])
        share = 1 / max(1, int((seen != -2).sum()))
        hits = gather_positives(sampled, targets)
        logits = outputs["objectness"].float()[seen != -2]
        wrong = F.binary_cross_entropy_with_logits(logits, (seen[seen != -2] >= 0).to(logits), reduction="sum")
        wanted = encode_boxes(hits.boxes, outputs["anchors"][hits.places])
        stated = outputs["offsets"].float()[hits.rows, hits.places]
        missed = smooth_l1_loss(stated, wanted, beta=self.beta, reduction="sum")
        return {"objectness": wrong * share, "rpn_box": missed * share}


def create_proposal_head(trunk: Trunk, **options: Any) -> ProposalHead:
    """A `ProposalHead` on a trunk's maps. Raises InputError for an unknown option, with the nearest known ones."""
    return build("head", {"rpn": ProposalHead}, "rpn", trunk.channels, trunk.strides, **options)


def take_proposals(outputs: Outputs, count: int, candidates: int | None = None) -> list[Tensor]:
    """The best proposals of each image, at most `count`, by falling objectness: (P_i, 4) each.

    candidates: as if only the best so many anchors of each level had gone into the suppression.
    """
    found = []
    for boxes, scores, ranks in zip(
        outputs["proposals"], outputs["proposal_scores"], outputs["proposal_ranks"], strict=True
    ):
        kept = scores > -torch.inf
        if candidates is not None:
            kept &= ranks < candidates
        found.append(boxes[kept][:count])
    return found


class RPN(Detector):
    """Any backbone and neck, and a `ProposalHead`: a detector of objects of whatever class.

    backbone, strides, neck, channels, and their options: see `create_trunk`. anchor_scales, ratios, anchors,
    candidates, and in rpn_options whatever else `ProposalHead` takes. limit: proposals of an image that decoding gives.
    The defaults are FPN's on ResNet-50; strides=(16,), neck=None, extra_levels=0 and anchor_scales=(8, 16, 32) are the
    paper's single map.

    All classes of the truth are one to it, and all answers have label 0. Trained by itself, its one class is "object",
    whatever classes the data have: `map` then says how well it ranks boxes, `mar_100` how many objects a hundred of
    them find. Decoding suppresses no more than the head has done unless an iou_threshold is given.
    forward gives what the head gives, and the input's size.
    """

    class_agnostic: ClassVar[bool] = True

    def __init__(
        self,
        *,
        num_classes: int = 80,
        in_channels: int = 3,
        backbone: str = "resnet50",
        backbone_options: Mapping[str, Any] | None = None,
        backbone_weights: str | None = None,
        frozen_norm: bool = False,
        strides: Sequence[int] = (4, 8, 16, 32),
        neck: str | None = "fpn",
        neck_options: Mapping[str, Any] | None = None,
        extra_levels: int = 1,
        channels: int | None = 256,
        anchor_scales: Sequence[float] = (8.0,),
        ratios: Sequence[float] = (0.5, 1.0, 2.0),
        anchors: AnchorForm = "paper",
        candidates: int = 1000,
        rpn_options: Mapping[str, Any] | None = None,
        limit: int = 1000,
    ) -> None:
        super().__init__(num_classes, in_channels)
        check_count("limit", limit)
        trunk = create_trunk(
            backbone,
            strides,
            neck,
            channels,
            in_channels=in_channels,
            backbone_options=backbone_options,
            backbone_weights=backbone_weights,
            frozen_norm=frozen_norm,
            neck_options=neck_options,
            extra_levels=extra_levels,
        )
        self.backbone, self.neck, self.strides = trunk.backbone, trunk.neck, trunk.strides
        self.rpn = create_proposal_head(
            trunk,
            anchor_scales=anchor_scales,
            ratios=ratios,
            anchors=anchors,
            candidates=candidates,
            **(rpn_options or {}),
        )
        most = candidates * len(trunk.strides)
        self.selection = Selection(score_threshold=0.0, iou_threshold=1.0, candidates=most, limit=limit)

    def forward(self, images: Tensor) -> Outputs:
        self._check(images)
        size = images.shape[-2:]
        return self.rpn(self.neck(self.backbone(images)), size) | {"size": torch.tensor(size)}

    def loss(self, outputs: Outputs, targets: Sequence[Instances]) -> dict[str, Tensor]:
        return self.rpn.losses(outputs, targets, self.num_classes)

    def assign(self, outputs: Outputs, targets: Sequence[Instances]) -> list[Assignment]:
        return self.rpn.assign(outputs, targets, self.num_classes)

    def predictions(self, outputs: Outputs) -> tuple[Tensor, Tensor]:
        """Proposals (B, N, 4) by falling score, and the probability that they hold an object, (B, N, 1), 0 for none."""
        return outputs["proposals"], outputs["proposal_scores"].sigmoid()[..., None]


@register(
    "rpn",
    task="detect",
    network=RPN,
    published=Published(
        paper="arXiv:1506.01497",
        year=2015,
        input=(3, 800, 1344),
        params=27_446_351,
        macs=201_627_401_472,
        idea="boxes proposed by the maps that will classify them",
        source="counted: torchvision's Faster R-CNN without its second stage",
    ),
)
def rpn(**options: Any) -> RPN:
    return RPN(**options)
