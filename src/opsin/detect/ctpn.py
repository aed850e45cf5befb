"""CTPN: Detecting Text in Natural Image with Connectionist Text Proposal Network.

Tian, Huang, He, He and Qiao 2016, arXiv:1609.03605. The idea: a line of text has no size and no clear ends, but every
strip of it looks like text. So the network finds strips 16 pixels wide, each with a top and a bottom, and connects
them. Whether a strip is text is told by its neighbours better than by itself: a recurrent network reads each row of the
last map from left to right and from right to left. The ends of a line, which strips of a fixed width miss by up to
half of it, are said by the first and the last strip: side refinement.

ctpn is the paper's network on any backbone, with side refinement; ctpn_released the authors' published one, which has
none, and the anchors of its list.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from functools import partial
from typing import Any, ClassVar, Literal, NamedTuple, TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from opsin.checks import check_count, check_number
from opsin.detect.detector import Assignment, Detector, Outputs
from opsin.detect.matching import check_labels
from opsin.detect.postprocess import Selection
from opsin.detect.regions import draw
from opsin.detect.rpn import Trunk, create_trunk
from opsin.detect.text_lines import LineRules, decode_lines
from opsin.detect.text_slices import SliceMatches, Slices, cut_lines, match_slices
from opsin.errors import InputError, unknown
from opsin.losses import smooth_l1_loss
from opsin.nn.recurrent import BidirectionalLSTM
from opsin.ops import grid_anchors
from opsin.registry import Published, register
from opsin.structures import Instances

Heights: TypeAlias = Literal["paper", "released"] | Sequence[float]

STRIDE = 16
HEIGHTS: dict[str, tuple[float, ...]] = {
    "paper": tuple(11 / 0.7**k for k in range(10)),  # section 3.1: from 11 pixels on, each divided by 0.7: to 273
    "released": (11, 16, 23, 33, 48, 68, 97, 139, 198, 283),  # what the authors' code and its ports list
}
_TALLEST = 4.0  # of exp(height / anchor's), as a logarithm: beyond it a prediction is no number to compute with


class LineTruth(NamedTuple):
    """What an image's anchors shall say: its slices, what each anchor is matched to, and left and right of each line.

    ends: (N, 2).
    """

    slices: Slices
    matches: SliceMatches
    ends: Tensor


class CTPN(Detector):
    """A backbone's map of stride 16, 3x3 of it read row by row by a BiLSTM, and k anchors a place of fixed width.

    backbone, and its options: see `create_trunk`. hidden: of the LSTM each way. features: of the layer behind it.
    heights: of the anchors in pixels, or "paper", or "released". side_refinement: whether strips say where the nearest
    end of their line is. All classes of the truth are one to it: text.

    coverage: the share of a column that a line covers at least, to be text there. match_threshold: an anchor whose IoU
    with a slice of its column is at least that is matched to it, as are the best of each slice; below
    background_threshold it is background; those between are taught top and bottom alone. sampled: anchors of an image
    that the loss of scores sees, half of them text if there are so many. side_reach: in pixels, how far from an end an
    anchor is taught to say where it is. side_weight: the paper's lambda 2. beta: where smooth L1 becomes linear.
    text_threshold, gap, upright, and in line_options whatever else `LineRules` has: how strips become lines.

    forward gives logits (B, A, 2), of background and text; vertical (B, A, 2), centre and height; sides (B, A), with
    side refinement; anchors (A, 4), row by row, place by place; and the input's size.
    """

    class_agnostic: ClassVar[bool] = True
    object_name: ClassVar[str] = "text"
    takes_polygons = True

    def __init__(
        self,
        *,
        num_classes: int = 1,
        in_channels: int = 3,
        backbone: str = "vgg16",
        backbone_options: Mapping[str, Any] | None = None,
        backbone_weights: str | None = None,
        frozen_norm: bool = False,
        hidden: int = 128,
        features: int = 512,
        heights: Heights = "paper",
        side_refinement: bool = True,
        coverage: float = 0.5,
        match_threshold: float = 0.7,
        background_threshold: float = 0.5,
        sampled: int = 128,
        side_reach: float = 32.0,
        side_weight: float = 2.0,
        beta: float = 1 / 9,
        text_threshold: float = 0.7,
        gap: float = 50.0,
        upright: bool = False,
        line_options: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(num_classes, in_channels)
        self.heights = _heights(heights)
        self._set_loss(coverage, match_threshold, background_threshold, sampled, side_reach, side_weight, beta)
        trunk = create_trunk(
            backbone,
            (STRIDE,),
            None,
            None,
            in_channels=in_channels,
            backbone_options=backbone_options,
            backbone_weights=backbone_weights,
            frozen_norm=frozen_norm,
        )
        self._create(trunk, hidden, features, side_refinement)
        if side_refinement:
            self.dense_names = ("boxes", "scores", "sides")
        self.rules = _rules(text_threshold, gap, upright, side_refinement, line_options or {})
        self.selection = Selection(score_threshold=0.0, iou_threshold=0.3, candidates=12_000, limit=500)

    def _create(self, trunk: Trunk, hidden: int, features: int, side_refinement: bool) -> None:
        self.backbone, self.strides = trunk.backbone, trunk.strides
        if trunk.backbone.name == "vgg16":
            for layer in self.backbone.modules():
                if isinstance(layer, nn.MaxPool2d):
                    layer.ceil_mode = True  # Caffe's: 75 rows give 38
        check_count("hidden", hidden)
        check_count("features", features)
        self.rows = BidirectionalLSTM(9 * trunk.channels, hidden, features)
        count = len(self.heights)
        self.text = nn.Linear(features, 2 * count)
        self.vertical = nn.Linear(features, 2 * count)
        self.sides = nn.Linear(features, count) if side_refinement else None
        for layer in (self.rows.mix, self.text, self.vertical, self.sides):
            if isinstance(layer, nn.Linear):
                nn.init.normal_(layer.weight, std=0.01)  # section 3.3
                nn.init.zeros_(layer.bias)

    def _set_loss(
        self,
        coverage: float,
        match_threshold: float,
        background_threshold: float,
        sampled: int,
        side_reach: float,
        side_weight: float,
        beta: float,
    ) -> None:
        if not 0 < coverage <= 1:
            raise InputError(f"coverage is a share above 0 and at most 1, got {coverage!r}")
        if not 0 < background_threshold <= match_threshold <= 1:
            raise InputError(
                f"background_threshold={background_threshold} and match_threshold={match_threshold} must rise in this "
                "order between 0 and 1"
            )
        self.coverage, self.sampled = coverage, check_count("sampled", sampled, least=2)
        self.thresholds = {"positive": match_threshold, "negative": background_threshold}
        self.side_reach = check_number("side_reach", side_reach, above=True)
        self.side_weight, self.beta = check_number("side_weight", side_weight), check_number("beta", beta)

    def forward(self, images: Tensor) -> Outputs:
        self._check(images)
        (x,) = self.backbone(images)
        batch, (height, width) = x.shape[0], x.shape[-2:]
        windows = F.unfold(x, 3, padding=1)  # (B, 9C, H * W)
        rows = windows.transpose(1, 2).reshape(batch * height, width, -1)
        hidden = F.relu(self.rows(rows)).view(batch, height * width, -1)
        outputs = {
            "logits": self.text(hidden).view(batch, -1, 2),
            "vertical": self.vertical(hidden).view(batch, -1, 2),
        }
        if self.sides is not None:
            outputs["sides"] = self.sides(hidden).view(batch, -1)
        cell = torch.tensor([[-STRIDE / 2, -side / 2, STRIDE / 2, side / 2] for side in self.heights])
        anchors = grid_anchors(cell.to(images.device), (height, width), STRIDE)
        return {**outputs, "anchors": anchors, "size": torch.tensor(images.shape[-2:])}

    def loss(self, outputs: Outputs, targets: Sequence[Instances]) -> dict[str, Tensor]:
        """Section 3.2, eq. 3 to 6: the cross-entropy of a sample of anchors, and smooth L1 of tops and bottoms and of
        ends of all anchors that shall say them, each divided by their number.
        """
        anchors = outputs["anchors"]
        truth = self._match(outputs, targets)
        seen = torch.stack([self._draw(one.matches.matched) for one in truth])
        logits = outputs["logits"].float()[seen != -2]
        wrong = F.cross_entropy(logits, (seen[seen != -2] >= 0).long(), reduction="sum") / max(1, len(logits))
        rows, places, slices, starts = [], [], [], 0
        for row, one in enumerate(truth):
            valid = (one.matches.matched >= 0) | (
                (one.matches.overlap > self.thresholds["negative"]) & (one.matches.matched == -2)
            )
            own = (valid & (one.matches.nearest >= 0)).nonzero()[:, 0]
            rows.append(torch.full_like(own, row))
            places.append(own)
            slices.append(one.matches.nearest[own] + starts)
            starts += len(one.slices.lines)
        row, place, chosen = torch.cat(rows), torch.cat(places), torch.cat(slices)
        wanted = _encode(anchors[place], *(torch.cat([one.slices[k] for one in truth])[chosen] for k in (2, 3)))
        stated = outputs["vertical"].float()[row, place]
        missed = smooth_l1_loss(stated, wanted, beta=self.beta, reduction="sum") / max(1, len(place))
        losses = {"text": wrong, "vertical": missed}
        if "sides" in outputs:
            ends = torch.cat([one.ends[one.slices.lines] for one in truth])[chosen]
            losses["sides"] = self.side_weight * self._side_loss(outputs["sides"][row, place], anchors[place], ends)
        return losses

    def _side_loss(self, stated: Tensor, anchors: Tensor, ends: Tensor) -> Tensor:
        """Of the anchors within reach of an end of their line. stated: (P,). anchors: (P, 4). ends: (P, 2), x."""
        away = ends - ((anchors[:, 0] + anchors[:, 2]) / 2)[:, None]
        nearest = away.gather(1, away.abs().argmin(dim=1, keepdim=True))[:, 0]
        near = nearest.abs() <= self.side_reach
        wanted = nearest[near] / STRIDE
        return smooth_l1_loss(stated.float()[near], wanted, beta=self.beta, reduction="sum") / max(1, len(wanted))

    def _draw(self, matched: Tensor) -> Tensor:
        """`matched` with -2 for all anchors but a random sample."""
        seen = torch.full_like(matched, -2)
        for places in draw(matched, self.sampled, 0.5):
            seen[places] = matched[places]
        return seen

    def assign(self, outputs: Outputs, targets: Sequence[Instances]) -> list[Assignment]:
        """Which line each anchor is matched to, by one of its slices."""
        found = []
        for one in self._match(outputs, targets):
            matched = one.matches.matched
            lines = torch.cat([one.slices.lines, matched.new_zeros(1)])  # one for those without
            found.append(
                Assignment(outputs["anchors"], torch.where(matched >= 0, lines[matched.clamp(min=-1)], matched))
            )
        return found

    @torch.no_grad()
    def _match(self, outputs: Outputs, targets: Sequence[Instances]) -> list[LineTruth]:
        """The slices of each image's lines, and what its anchors are matched to."""
        anchors, kinds = outputs["anchors"].float(), len(self.heights)
        columns = int((anchors[-1, 2] / STRIDE).round())
        column = anchors.view(-1, columns, kinds, 4)[:, 0]
        found = []
        for truth in targets:
            boxes = truth.boxes.to(anchors)
            labels = torch.zeros(len(boxes), dtype=torch.int64) if truth.labels is None else truth.labels.cpu()
            check_labels(labels, self.num_classes)
            lines = Instances(boxes, polygons=truth.polygons)
            known = (labels >= 0).nonzero()[:, 0]
            slices = cut_lines(lines[known], STRIDE, columns, self.coverage)
            ignored = cut_lines(lines[labels < 0], STRIDE, columns, self.coverage)
            matches = match_slices(slices, ignored, column[..., 1], column[..., 3], columns, **self.thresholds)
            places = known.to(slices.lines.device)[slices.lines]
            found.append(LineTruth(slices._replace(lines=places), matches, boxes[:, [0, 2]]))
        return found

    def predictions(self, outputs: Outputs) -> tuple[Tensor, Tensor]:
        """Strips (B, A, 4), and the probability that they are text, (B, A, 1)."""
        anchors, stated = outputs["anchors"], outputs["vertical"].float()
        height = anchors[:, 3] - anchors[:, 1]
        middle = (anchors[:, 1] + anchors[:, 3]) / 2 + stated[..., 0] * height
        half = stated[..., 1].clamp(max=_TALLEST).exp() * height / 2
        left, right = (anchors[:, k].expand_as(middle) for k in (0, 2))
        strips = torch.stack([left, middle - half, right, middle + half], dim=-1)
        return strips, outputs["logits"].float().softmax(dim=-1)[..., 1:]

    def dense(self, outputs: Outputs) -> dict[str, Tensor]:
        """`predictions`, and with side refinement sides: (B, A), x of the nearest end of the line of each strip."""
        found = super().dense(outputs)
        if "sides" in outputs:
            anchors = outputs["anchors"]
            found["sides"] = (anchors[:, 0] + anchors[:, 2]) / 2 + STRIDE * outputs["sides"].float()
        return found

    def decoding(self) -> dict[str, Any]:
        return {"lines": asdict(self.rules)}

    @torch.no_grad()
    def decode(
        self, outputs: Outputs, selection: Selection | None = None, *, rules: LineRules | None = None, **options: Any
    ) -> list[Instances]:
        """The lines of each image, best first: see `find_lines`. rules: others than its own. options: fields of
        `Selection` to change.
        """
        selection = Selection(**{**vars(selection or self.selection), **options})
        height, width = outputs["size"].tolist()
        return decode_lines(self.dense(outputs), rules or self.rules, selection, (height, width))


def _encode(anchors: Tensor, tops: Tensor, bottoms: Tensor) -> Tensor:
    """Section 3.1, eq. 1 and 2: centre and height of slices as offsets of anchors: (P, 4), (P,), (P,) -> (P, 2)."""
    height = anchors[:, 3] - anchors[:, 1]
    middle = (anchors[:, 1] + anchors[:, 3]) / 2
    return torch.stack([((tops + bottoms) / 2 - middle) / height, ((bottoms - tops) / height).log()], dim=-1)


def _heights(heights: str | Sequence[float]) -> tuple[float, ...]:
    if isinstance(heights, str):
        if heights not in HEIGHTS:
            raise unknown("heights", heights, HEIGHTS)
        return HEIGHTS[heights]
    if not len(heights) or not all(height > 0 for height in heights):
        raise InputError(f"heights must be numbers of pixels above 0, at least one, got {list(heights)}")
    return tuple(float(height) for height in heights)


def _rules(text_threshold: float, gap: float, upright: bool, refined: bool, options: Mapping[str, Any]) -> LineRules:
    known = [name for name in asdict(LineRules()) if name not in ("stride", "refined")]
    for name in options:
        if name not in known:
            raise unknown("option of line_options", name, known)
    if not 0 <= text_threshold < 1:
        raise InputError(f"text_threshold is a score from 0 to below 1, got {text_threshold!r}")
    given = {"text_threshold": text_threshold, "gap": check_number("gap", gap), "upright": upright, **options}
    return replace(LineRules(stride=STRIDE, refined=refined), **given)


# Published networks

_published = partial(
    Published,
    "arXiv:1609.03605",
    2016,
    (3, 600, 900),
    metrics={"icdar2013 F": 88.0, "icdar2015 F": 61.0},
    idea="strips of text as wide as a column of the map, read row by row and connected to lines",
)


@register(
    "ctpn",
    task="detect",
    network=CTPN,
    published=_published(
        19_723_634,
        176_627_933_184,
        source="counted: the released prototxt, with the paper's side refinement and torch's two biases of an LSTM; "
        "results read: the abstract",
    ),
)
def ctpn(**options: Any) -> CTPN:
    return CTPN(**options)


@register(
    "ctpn_released",
    task="detect",
    network=CTPN,
    published=_published(
        19_718_504,
        176_616_843_264,
        source="counted: the released prototxt, 19,717,480 with the one bias of Caffe's LSTM; results: the abstract",
    ),
)
def ctpn_released(*, heights: Heights = "released", side_refinement: bool = False, **options: Any) -> CTPN:
    return CTPN(heights=heights, side_refinement=side_refinement, **options)
