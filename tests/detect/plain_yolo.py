"""YOLO's matching, loss and decoding once more, in loops over boxes and numbers, as papers and Darknet have them."""

from __future__ import annotations

import math
from collections.abc import Sequence

from torch import Tensor

from opsin.structures import Instances

Box = Sequence[float]


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def cross_entropy(logit: float, target: float) -> float:
    p = sigmoid(logit)
    return -target * math.log(p) - (1 - target) * math.log(1 - p)


def area(box: Box) -> float:
    return max(box[2] - box[0], 0) * max(box[3] - box[1], 0)


def shared(a: Box, b: Box) -> float:
    return area((max(a[0], b[0]), max(a[1], b[1]), min(a[2], b[2]), min(a[3], b[3])))


def iou(a: Box, b: Box) -> float:
    union = area(a) + area(b) - shared(a, b)
    return shared(a, b) / union if union else 0.0


def shape_iou(sides: Box, anchor: Box) -> float:
    return iou((0, 0, *sides), (0, 0, *anchor))


class Place:
    """One prediction: its numbers, its cell, its anchor, the stride and the scale of its grid."""

    def __init__(self, raw: Tensor, x: int, y: int, anchor: Box, stride: int, scale: float) -> None:
        self.raw = [float(v) for v in raw]
        self.x, self.y, self.anchor, self.stride, self.scale = x, y, anchor, stride, scale

    def box(self) -> Box:
        x, y, w, h = self.raw[:4]
        cx = (self.x + self.scale * sigmoid(x) - (self.scale - 1) / 2) * self.stride
        cy = (self.y + self.scale * sigmoid(y) - (self.scale - 1) / 2) * self.stride
        w, h = self.anchor[0] * math.exp(w), self.anchor[1] * math.exp(h)
        return cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2


def places(outputs: dict[str, Tensor], image: int, anchors, strides, scales) -> list[Place]:
    found = []
    for level, stride, scale in zip(anchors, strides, scales, strict=True):
        raw = outputs[f"stride{stride}"][image].unflatten(0, (len(level), -1))
        for a, anchor in enumerate(level):
            for y in range(raw.shape[2]):
                for x in range(raw.shape[3]):
                    found.append(Place(raw[a, :, y, x], x, y, anchor, stride, scale))
    return found


def owners(every: list[Place], truth: Instances, threshold: float | None = None) -> dict[int, list[int]]:
    """Place -> the truths that it answers for, the last one its box."""
    answer: dict[int, list[int]] = {}
    for t, box in enumerate(truth.boxes.tolist()):
        sides = (box[2] - box[0], box[3] - box[1])
        centre = ((box[0] + box[2]) / 2, (box[1] + box[3]) / 2)
        fits = [shape_iou(sides, place.anchor) for place in every]
        best = max(fits)
        for i, place in enumerate(every):
            in_cell = place.x == int(centre[0] / place.stride) and place.y == int(centre[1] / place.stride)
            if in_cell and (fits[i] == best or (threshold is not None and fits[i] > threshold)):
                answer.setdefault(i, []).append(t)
    return answer


def loss(
    outputs: dict[str, Tensor],
    targets: Sequence[Instances],
    anchors,
    strides,
    scales,
    size: tuple[int, int],
    ignore: float = 0.5,
    threshold: float | None = None,
    smoothing: float = 0.0,
) -> dict[str, float]:
    """YOLOv3's, as Darknet's gradient has it, of images without regions to ignore."""
    total = {"box": 0.0, "objectness": 0.0, "class": 0.0}
    for image, truth in enumerate(targets):
        every = places(outputs, image, anchors, strides, scales)
        answer = owners(every, truth, threshold)
        boxes = truth.boxes.tolist()
        for i, place in enumerate(every):
            mine = answer.get(i, [])
            if mine:
                box = boxes[mine[-1]]
                weight = 2 - area(box) / (size[0] * size[1])
                for axis in (0, 1):
                    centre = (box[axis] + box[axis + 2]) / 2 / place.stride - (place.x, place.y)[axis]
                    centre = (centre + (place.scale - 1) / 2) / place.scale
                    total["box"] += weight * cross_entropy(place.raw[axis], centre)
                    growth = math.log((box[axis + 2] - box[axis]) / place.anchor[axis])
                    total["box"] += weight * (place.raw[2 + axis] - growth) ** 2 / 2
                total["objectness"] += cross_entropy(place.raw[4], 1)
                labels = {int(truth.labels[t]) for t in mine}  # type: ignore[index]
                for k, logit in enumerate(place.raw[5:]):
                    wanted = (k in labels) * (1 - smoothing) + smoothing / 2
                    total["class"] += cross_entropy(logit, wanted)
            elif not any(iou(place.box(), box) > ignore for box in boxes):
                total["objectness"] += cross_entropy(place.raw[4], 0)
    return {name: value / len(targets) for name, value in total.items()}
