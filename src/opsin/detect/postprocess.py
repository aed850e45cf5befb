"""From dense predictions to instances: threshold, suppression, hard or soft, and the best of what is left.

`select` does so with all predictions of an image, `select_candidates` gives the same without a look at most of them:
suppression takes boxes by falling score, and whether one is kept depends on better ones only. So the best `limit` that
survive among all predictions are those that survive among the best few hundred, if there are as many; only if not, more
are looked at. Boxes are computed for those alone.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal, TypeAlias, get_args

import torch
from torch import Tensor

from opsin.errors import unknown
from opsin.ops import batched_nms, clip_boxes, decode_boxes, diou_nms, soft_nms
from opsin.structures import Instances

# Places looked at first, in multiples of the instances wanted. Of a trained network's that pass the threshold, some
# three in four go; the next time it is four times as many.
_FIRST, _GROWTH = 4, 4
# Scores of a place computed twice may differ by some rounding steps: what is within them of the best score that was
# left out may itself have been left out.
_SLACK = 1e-5


Suppression: TypeAlias = Literal["hard", "diou", "linear", "gaussian"]


@dataclass(frozen=True)
class Selection:
    """How dense predictions become instances.

    score_threshold: less certain ones are dropped. iou_threshold: of the suppression within a class. candidates: the
    best so many go into it. limit: instances of an image. suppression: "hard"; "diou", which keeps what overlaps with
    another centre, see `opsin.ops.diou_nms`; or soft-NMS, "linear" or "gaussian". Raises InputError for another.
    """

    score_threshold: float = 0.05
    iou_threshold: float = 0.5
    candidates: int = 1000
    limit: int = 100
    suppression: Suppression = "hard"

    def __post_init__(self) -> None:
        if self.suppression not in get_args(Suppression):
            raise unknown("suppression", self.suppression, get_args(Suppression))

    @property
    def soft(self) -> bool:
        """Whether scores are lowered, so that every candidate has a say in them."""
        return self.suppression in ("linear", "gaussian")


def select(boxes: Tensor, scores: Tensor, selection: Selection) -> Instances:
    """Dense predictions of one image as instances, best first. boxes: (A, 4). scores: (A, K)."""
    places, labels = (scores > selection.score_threshold).nonzero(as_tuple=True)
    values = scores[places, labels]
    if len(values) > selection.candidates:
        values, best = values.topk(selection.candidates)
        places, labels = places[best], labels[best]
    return suppress(boxes[places], labels, values, selection)


def suppress(boxes: Tensor, labels: Tensor, scores: Tensor, selection: Selection) -> Instances:
    """The instances that are left of candidates, best first, by NMS or soft-NMS within a class. (N, 4), (N,), (N,)."""
    kept, scores = suppressed(boxes, labels, scores, selection)
    return Instances(boxes[kept], labels[kept], scores)


def suppressed(boxes: Tensor, labels: Tensor, scores: Tensor, selection: Selection) -> tuple[Tensor, Tensor]:
    """Places (n,) of the candidates that `suppress` leaves, best first, and their scores, which soft-NMS lowers."""
    if selection.suppression == "hard":
        kept = batched_nms(boxes, scores, labels, selection.iou_threshold)[: selection.limit]
        return kept, scores[kept]
    if selection.suppression == "diou":
        kept = diou_nms(boxes, scores, selection.iou_threshold, groups=labels)[: selection.limit]
        return kept, scores[kept]
    kept, lowered = soft_nms(
        boxes,
        scores,
        selection.suppression,
        groups=labels,
        iou_threshold=selection.iou_threshold,
        score_threshold=selection.score_threshold,
    )
    return kept[: selection.limit], lowered[: selection.limit]


def select_anchors(
    outputs: Mapping[str, Tensor], selection: Selection, levels: Tensor, *, clip_first: bool
) -> list[Instances]:
    """The instances of each image, of logits (B, A, K), offsets (B, A, 4), anchors (A, 4) and the input's size.

    levels: see `select_candidates`. clip_first: suppress boxes that were cut at the border, not cut what is left.
    """
    anchors, size, found = outputs["anchors"], outputs["size"].tolist(), []
    for logits, offsets in zip(outputs["logits"].float(), outputs["offsets"].float(), strict=True):

        def scores_of(places: Tensor, logits: Tensor = logits) -> Tensor:
            return logits[places].sigmoid()

        def boxes_of(places: Tensor, offsets: Tensor = offsets) -> Tensor:
            boxes = decode_boxes(offsets[places], anchors[places])
            return clip_boxes(boxes, size) if clip_first else boxes

        instances = select_candidates(logits.amax(dim=1).sigmoid(), scores_of, boxes_of, selection, levels)
        if not clip_first:
            instances.boxes = clip_boxes(instances.boxes, size)
        found.append(instances)
    return found


@torch.no_grad()
def select_candidates(
    best: Tensor,
    scores_of: Callable[[Tensor], Tensor],
    boxes_of: Callable[[Tensor], Tensor],
    selection: Selection,
    levels: Tensor | None = None,
) -> Instances:
    """The instances of one image, best first: the same as of all predictions, `selection.candidates` in each group.

    best: (A,), the highest score of each place. scores_of, boxes_of: (n,) places -> (n, K) scores and (n, 4) boxes.
    levels: (A,), the group of each place; None makes each class a group, as SSD does.
    """
    threshold = selection.score_threshold
    count = len(best) if selection.soft else _FIRST * selection.limit
    while True:
        highest, places = best.topk(min(count, len(best)))
        passing = int((highest > threshold * (1 - _SLACK)).sum())
        complete = count >= len(best) or passing < count
        lowest = threshold if complete else max(threshold, float(highest[-1]) * (1 + _SLACK))
        places = places[:passing]
        scores = scores_of(places)
        chosen = (scores > lowest).flatten().nonzero()[:, 0]  # flat: twice as fast as by row and column
        values, order = scores.flatten()[chosen].sort(descending=True, stable=True)
        chosen = chosen[order]
        places, labels = places[chosen // scores.shape[1]], chosen % scores.shape[1]
        kept = _within_groups(labels if levels is None else levels[places], selection.candidates)
        if kept is not None:
            places, labels, values = places[kept], labels[kept], values[kept]
        found = suppress(boxes_of(places), labels, values, selection)
        if complete or len(found) == selection.limit:
            return found
        count *= _GROWTH


def _within_groups(groups: Tensor, most: int) -> Tensor | None:
    """Places of the first `most` of each group, in order; None for all. groups: (n,)."""
    if len(groups) <= most:
        return None
    counts = torch.bincount(groups)
    if int(counts.max()) <= most:
        return None
    order = groups.argsort(stable=True)
    rank = torch.arange(len(groups), device=groups.device) - (counts.cumsum(0) - counts)[groups[order]]
    return order[rank < most].sort().values
