"""YOLO: You Only Look Once: Unified, Real-Time Object Detection.

Redmon, Divvala, Girshick and Farhadi 2015, arXiv:1506.02640. The idea: no proposals, no second look. The image is a
grid of 7x7 cells; the cell that holds the centre of an object says what class it is, and each of its 2 boxes where it
is, and how well it thinks it says so: one regression from pixels to 7x7x30 numbers, by 24 convolutions and two fully
connected layers.

The loss (eq. 3) is a sum of squared errors. Of a cell's boxes the one with the highest IoU is responsible for its
object: its offsets count 5 times, its confidence shall be that IoU; the confidence of every other box shall be 0, and
counts half. Square roots of width and height make an error of 10 pixels worse for a small box. As in Darknet the
network gives the square roots; where no box of a cell overlaps the truth, the nearest is responsible; a cell has one
object, the first of the image.

yolov1 is the paper's figure 3, which has no norm. yolov1_darknet is the author's yolov1.cfg, another network: batch
norm, three boxes, and a locally connected layer, a convolution whose weights are others at each place, where the paper
has 4,096 neurons. yolov1_tiny is yolov1-tiny.cfg, "Fast YOLO": 8 convolutions and a fully connected layer. Given a
backbone, the first two have it in place of their first 20 convolutions, those that the paper trains to classify.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any, Literal, TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from opsin.backbones.darknet import Layers, Norm, he_initialize
from opsin.backbones.extraction import Extractor, create_extractor
from opsin.checks import check_count
from opsin.detect.detector import Assignment, Detector, Outputs
from opsin.detect.postprocess import Selection
from opsin.detect.yolo import Truths, gather_truths
from opsin.errors import InputError
from opsin.losses import l2_loss, sse_loss
from opsin.ops import iou
from opsin.ops.iou import lie_within
from opsin.registry import Published, register
from opsin.structures import Instances

Top: TypeAlias = Literal["connected", "local", "none"]

# (kernel, channels) of a convolution, (kernel, channels, stride), or a 2x2 max-pooling.
Plan: TypeAlias = Sequence[tuple[int, ...] | Literal["pool"]]

_DETECTING: Plan = ((3, 1024), (3, 1024, 2), (3, 1024), (3, 1024))  # "we add four convolutional layers", section 2.2
_PAPER: Plan = (
    *((7, 64, 2), "pool"),
    *((3, 192), "pool"),
    *((1, 128), (3, 256), (1, 256), (3, 512), "pool"),
    *((1, 256), (3, 512)) * 4,
    *((1, 512), (3, 1024), "pool"),
    *((1, 512), (3, 1024)) * 2,
    *_DETECTING,
)
_TINY: Plan = (
    *((3, 16), "pool", (3, 32), "pool", (3, 64), "pool", (3, 128), "pool", (3, 256), "pool", (3, 512), "pool"),
    *((3, 1024), (3, 256)),
)


class LocalConv2d(nn.Module):
    """A 3x3 convolution with weights of its own at each place of a map of one size: (B, C, S, S) -> (B, K, S, S)."""

    def __init__(self, in_channels: int, out_channels: int, side: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(side * side, out_channels, in_channels * 9))
        self.bias = nn.Parameter(torch.zeros(out_channels, side, side))
        nn.init.normal_(self.weight, std=(2 / (in_channels * 9)) ** 0.5)

    def forward(self, x: Tensor) -> Tensor:
        windows = F.unfold(x, 3, padding=1).permute(2, 1, 0)  # (places, C * 9, B)
        return torch.bmm(self.weight, windows).permute(2, 1, 0).unflatten(2, self.bias.shape[1:]) + self.bias


class YOLOv1(Detector):
    """Convolutions, then layers that see the whole image.

    forward gives, of S x S cells row by row and n boxes each: "classes" (B, S S, K), "confidences" (B, S S, n) and
    "boxes" (B, S S, n, 4): the centre within the cell in [0, 1], the square roots of width and height as shares of the
    image; all of them linear.

    plan: of the convolutions, on the map of a backbone where there is one. stride: of the grid's cells, in pixels.
    boxes: n. size: of the input, a multiple of the stride; the fully connected layers know no other. hidden: neurons of
    the layer before the last, dropout: between the two. norm: "bn" or None. coordinate_weight, background_weight: 5 and
    0.5 of the paper. iou_target=False makes the target of confidence 1.
    """

    def __init__(
        self,
        plan: Plan,
        top: Top,
        backbone: Extractor | None = None,
        stride: int = 64,
        *,
        num_classes: int = 20,
        in_channels: int = 3,
        boxes: int = 2,
        size: int = 448,
        hidden: int = 4096,
        dropout: float = 0.5,
        norm: Norm = None,
        coordinate_weight: float = 5.0,
        background_weight: float = 0.5,
        iou_target: bool = True,
    ) -> None:
        super().__init__(num_classes, in_channels)
        check_count("hidden", hidden)
        if size < stride or size % stride:
            raise InputError(f"size must be a multiple of {stride}, such as 448, got {size!r}")
        check_count("boxes", boxes)
        self.side, self.boxes, self.strides = size // stride, boxes, (stride,)
        self.size = self.fixed_size = size
        self.coordinate_weight, self.background_weight = coordinate_weight, background_weight
        self.iou_target = iou_target
        layers = Layers(norm, "leaky_relu", 0.1)
        modules: list[nn.Module] = []
        self.backbone = backbone
        channels = in_channels if backbone is None else backbone.channels[-1]
        for step in plan:
            if step == "pool":
                modules.append(nn.MaxPool2d(2))
            else:
                kernel, width, *step_by = step
                modules.append(layers(channels, width, kernel, *step_by))  # type: ignore[arg-type]
                channels = width
        self.features = nn.Sequential(*modules)
        he_initialize(self.features)
        self.head = self._head(top, channels, hidden, dropout)

    def _head(self, top: Top, channels: int, neurons: int, dropout: float) -> nn.Sequential:
        places = self.side**2
        hidden: list[nn.Module] = [nn.Flatten()]
        width = channels * places
        if top == "connected":
            hidden = [nn.Flatten(), nn.Linear(width, neurons), nn.LeakyReLU(0.1), nn.Dropout(dropout)]
            width = neurons
        elif top == "local":
            local = LocalConv2d(channels, 256, self.side)
            hidden, width = [local, nn.LeakyReLU(0.1), nn.Dropout(dropout), nn.Flatten()], 256 * places
        last = nn.Linear(width, places * (self.num_classes + 5 * self.boxes))
        nn.init.normal_(last.weight, std=0.01)
        nn.init.constant_(last.bias[places * (self.num_classes + self.boxes) :], 0.5)  # mid-cell, a quarter of the area
        nn.init.zeros_(last.bias[: places * (self.num_classes + self.boxes)])
        return nn.Sequential(*hidden, last)

    def forward(self, images: Tensor) -> Outputs:
        self._check(images)
        (entering,) = (images,) if self.backbone is None else self.backbone(images)
        raw = self.head(self.features(entering))
        places, classes = self.side**2, self.num_classes
        parts = raw.split([places * classes, places * self.boxes, places * self.boxes * 4], dim=1)
        return {
            "classes": parts[0].unflatten(1, (places, classes)),
            "confidences": parts[1].unflatten(1, (places, self.boxes)),
            "boxes": parts[2].unflatten(1, (places, self.boxes, 4)),
        }

    def darknet_order(self) -> Iterator[nn.Module]:
        if self.backbone is not None:
            yield self.backbone
        yield from (self.features, self.head)

    def predictions(self, outputs: Outputs) -> tuple[Tensor, Tensor]:
        confidences, classes = (outputs[name].float().clamp(0, 1) for name in ("confidences", "classes"))
        scores = confidences[..., None] * classes[:, :, None]
        return self._boxes(outputs).flatten(1, 2), scores.flatten(1, 2)

    def decode(self, outputs: Outputs, selection: Selection | None = None, **options: Any) -> list[Instances]:
        return super().decode({**outputs, "size": torch.tensor([self.size] * 2)}, selection, **options)

    def loss(self, outputs: Outputs, targets: Sequence[Instances]) -> dict[str, Tensor]:
        classes, confidences, raw = (outputs[name].float() for name in ("classes", "confidences", "boxes"))
        boxes = self._boxes(outputs)
        truths, regions = self._truths(targets, raw.device)
        image, cell, place = self._responsible(boxes.detach(), truths)
        wanted = torch.zeros_like(confidences)
        overlap = iou(boxes[image, cell, place].detach(), truths.boxes)
        wanted[image, cell, place] = overlap if self.iou_target else torch.ones_like(overlap)
        weights = self.background_weight * (~self._ignored(boxes, regions)).float()
        weights[image, cell, place] = 1
        one_hot = F.one_hot(truths.labels, self.num_classes).to(classes)
        images = max(len(raw), 1)
        offsets = self.coordinate_weight * sse_loss(raw[image, cell, place], self._encode(truths.boxes, cell))
        return {
            "box": offsets / images,
            "objectness": (weights * l2_loss(confidences, wanted, reduction="none")).sum() / images,
            "class": sse_loss(classes[image, cell], one_hot) / images,
        }

    def assign(self, outputs: Outputs, targets: Sequence[Instances]) -> list[Assignment]:
        """The boxes are those of the cells, each as often as it predicts boxes."""
        predicted = self._boxes(outputs)
        truths, regions = self._truths(targets, predicted.device)
        image, cell, place = self._responsible(predicted, truths)
        matched = self._ignored(predicted, regions).long().neg() - 1
        matched[image, cell, place] = truths.number
        (stride,) = self.strides
        step = torch.arange(self.side**2, device=predicted.device)
        corners = torch.stack([step % self.side, step // self.side], dim=1) * float(stride)
        cells = torch.cat([corners, corners + stride], dim=1).repeat_interleave(self.boxes, dim=0)
        return [Assignment(cells, one.flatten()) for one in matched]

    def _boxes(self, outputs: Outputs) -> Tensor:
        """xyxy in pixels: (B, S S, n, 4)."""
        raw = outputs["boxes"].float()
        step = torch.arange(self.side**2, device=raw.device)
        corners = torch.stack([step % self.side, step // self.side], dim=1)[:, None]
        centres = (raw[..., :2] + corners) * self.strides[0]
        halves = raw[..., 2:].square() * (self.size / 2)
        return torch.cat([centres - halves, centres + halves], dim=-1)

    def _encode(self, boxes: Tensor, cell: Tensor) -> Tensor:
        """What the raw numbers have to be: (T, 4)."""
        corners = torch.stack([cell % self.side, cell // self.side], dim=1)
        centres = (boxes[:, :2] + boxes[:, 2:]) / 2 / self.strides[0] - corners
        return torch.cat([centres, ((boxes[:, 2:] - boxes[:, :2]) / self.size).sqrt()], dim=1)

    def _truths(self, targets: Sequence[Instances], device: torch.device) -> tuple[Truths, Truths]:
        """The truths that have a cell, the first one of each, and the regions to ignore."""
        truths, regions = gather_truths(targets, (self.size, self.size), self.num_classes, device)
        places = truths.image * self.side**2 + self._cells(truths.boxes)
        order = torch.arange(len(places), device=device)
        first = torch.full((len(targets) * self.side**2,), len(places), device=device)
        first.scatter_reduce_(0, places, order, "amin")
        return truths.where(first[places] == order), regions

    def _cells(self, boxes: Tensor) -> Tensor:
        x, y = ((boxes[:, :2] + boxes[:, 2:]) / 2 / self.strides[0]).long().clamp(0, self.side - 1).unbind(dim=1)
        return y * self.side + x

    @torch.no_grad()
    def _responsible(self, boxes: Tensor, truths: Truths) -> tuple[Tensor, Tensor, Tensor]:
        """Image, cell and box that are matched to each truth."""
        cell = self._cells(truths.boxes)
        own = boxes[truths.image, cell]
        overlap = iou(own, truths.boxes[:, None])
        apart = (own - truths.boxes[:, None]).square().sum(dim=-1)
        none = overlap.amax(dim=1, keepdim=True) == 0
        return truths.image, cell, torch.where(none, -apart, overlap).argmax(dim=1)

    @torch.no_grad()
    def _ignored(self, boxes: Tensor, regions: Truths) -> Tensor:
        """Half of the box is in a region to ignore: (B, S S, n)."""
        found = torch.zeros(boxes.shape[:-1], dtype=torch.bool, device=boxes.device)
        for row, one in enumerate(boxes):
            inside = lie_within(one.flatten(0, 1), regions.boxes[regions.image == row])
            found[row] = inside.view(found[row].shape)
        return found


def _build(
    top: Top,
    backbone: str | None,
    backbone_options: Mapping[str, Any] | None,
    backbone_weights: str | None,
    width: float,
    stride: int,
    *,
    in_channels: int = 3,
    **options: Any,
) -> YOLOv1:
    """The paper's 24 convolutions, or a backbone's and the last four."""
    if stride not in (32, 64) or not width > 0:
        raise InputError(f"stride is 32 or 64 and width above 0, got stride={stride!r} and width={width!r}")
    if backbone is None:
        if width != 1 or stride != 64:
            raise InputError(f"width={width} and stride={stride} are of a yolov1 with a backbone; the paper's has none")
        return YOLOv1(_PAPER, top, in_channels=in_channels, **options)
    extractor = create_extractor(
        backbone, (32,), in_channels=in_channels, weights=backbone_weights, **(backbone_options or {})
    )
    plan = tuple((3, max(1, round(width * 1024)), *((2,) if place == 1 and stride == 64 else ())) for place in range(4))
    return YOLOv1(plan, top, extractor, stride, in_channels=in_channels, **options)


_published = partial(Published, "arXiv:1506.02640", 2015, (3, 448, 448))


@register(
    "yolov1",
    task="detect",
    network=YOLOv1,
    published=_published(
        271_703_550,
        20_285_153_280,
        {"voc07 test mAP": 63.4, "voc12 test mAP": 57.9},
        "one regression from pixels to a 7x7 grid of boxes and classes",
        "derived: the paper's figure 3; results read: its tables",
    ),
)
def yolov1(
    *,
    backbone: str | None = None,
    backbone_options: Mapping[str, Any] | None = None,
    backbone_weights: str | None = None,
    width: float = 1.0,
    stride: int = 64,
    **options: Any,
) -> YOLOv1:
    """backbone: a classification network in place of the paper's first 20 convolutions, up to its map of stride 32.

    With a backbone, width: of the four convolutions behind it, as a part of the paper's 1,024 channels; stride: 64, or
    32 for a finer grid, where none of the four halves the map.
    """
    return _build("connected", backbone, backbone_options, backbone_weights, width, stride, **options)


@register(
    "yolov1_darknet",
    task="detect",
    network=YOLOv1,
    published=_published(
        197_301_875,
        20_210_729_728,
        {},
        "yolov1 as the author's cfg has it: batch norm, a locally connected layer, three boxes a cell",
        "counted: the author's cfg",
    ),
)
def yolov1_darknet(
    *,
    boxes: int = 3,
    norm: Norm = "bn",
    backbone: str | None = None,
    backbone_options: Mapping[str, Any] | None = None,
    backbone_weights: str | None = None,
    width: float = 1.0,
    stride: int = 64,
    **options: Any,
) -> YOLOv1:
    """backbone, width, stride: as for `yolov1`."""
    given = {"boxes": boxes, "norm": norm, **options}
    return _build("local", backbone, backbone_options, backbone_weights, width, stride, **given)


@register(
    "yolov1_tiny",
    task="detect",
    network=YOLOv1,
    published=_published(
        27_095_374,
        1_608_015_360,
        {"voc07 test mAP": 52.7},
        "YOLO with eight convolutions: 155 images a second in 2015",
        "counted: the author's cfg; results read: the paper's table 1",
    ),
)
def yolov1_tiny(*, norm: Norm = "bn", **options: Any) -> YOLOv1:
    return YOLOv1(_TINY, "none", norm=norm, **options)
