"""From the truth of a batch to the target of each anchor: the part that detectors with anchors share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from opsin.detect.detector import Assignment
from opsin.errors import InputError
from opsin.ops.matching import match_anchors
from opsin.structures import Instances


class Positives(NamedTuple):
    """The anchors of a batch that are matched to a truth.

    rows, places: (P,), which image and anchor. boxes: (P, 4), labels: (P,), of the truth.
    """

    rows: Tensor
    places: Tensor
    boxes: Tensor
    labels: Tensor


@torch.no_grad()
def assign_anchors(anchors: Tensor, targets: Sequence[Instances], num_classes: int, **rules: Any) -> list[Assignment]:
    """What each anchor (A, 4) is matched to in each image, by `opsin.ops.matching.match_anchors` and its rules.

    Truths with a label of -1, or in an image without labels, are regions to ignore. Raises InputError for a label that
    the model has no class for.
    """
    found = []
    for truth in targets:
        boxes = truth.boxes.to(anchors)
        region = torch.ones(len(boxes), dtype=torch.bool, device=boxes.device)
        if truth.labels is not None and len(truth):
            check_labels(truth.labels, num_classes)
            region = (truth.labels < 0).to(boxes.device)
        places = (~region).nonzero()[:, 0]  # of the truths to be found
        matched = match_anchors(boxes[places], anchors, ignored=boxes[region], **rules)
        if 0 < len(places) < len(boxes):
            matched = torch.where(matched >= 0, places[matched.clamp(min=0)], matched)
        found.append(Assignment(anchors, matched))
    return found


def gather_positives(assigned: Sequence[Assignment], targets: Sequence[Instances]) -> Positives:
    """The anchors that answer, of all images, with their truth, on the anchors' device."""
    anchors = assigned[0].boxes
    matched = torch.stack([one.matched for one in assigned])
    rows, places = (matched >= 0).nonzero(as_tuple=True)
    starts = torch.tensor([0, *(len(truth) for truth in targets)], device=anchors.device).cumsum(0)
    sources = starts[rows] + matched[rows, places]
    boxes = torch.cat([truth.boxes.to(anchors) for truth in targets])
    labels = [torch.zeros(len(one), dtype=torch.int64) if one.labels is None else one.labels for one in targets]
    return Positives(rows, places, boxes[sources], torch.cat([one.to(anchors.device) for one in labels])[sources])


def check_labels(labels: Tensor, num_classes: int) -> None:
    """Raise InputError for a label (N,) that a model of so many classes has none for."""
    largest = int(labels.max()) if len(labels) else -1
    if largest >= num_classes:
        raise InputError(
            f"a box has label {largest}, the model was built for {num_classes} classes, 0 to {num_classes - 1}; "
            f"build it with num_classes={largest + 1}"
        )
