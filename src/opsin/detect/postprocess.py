"""The best instances of an image without a look at most of its predictions.

Suppression takes boxes by falling score, and whether one is kept depends on better ones only. So the best `limit` that
survive among all predictions are those that survive among the best few hundred, if there are as many; only if not, more
are looked at. Boxes are computed for those alone.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from opsin.detect.detector import Outputs, Selection
from opsin.ops import batched_nms, clip_boxes, decode_boxes, soft_nms
from opsin.structures import Instances

# Places looked at first, in multiples of the instances wanted. Of a trained network's that pass the threshold, some
# three in four go; the next time it is four times as many.
_FIRST, _GROWTH = 4, 4
# Scores of a place computed twice may differ by some rounding steps: what is within them of the best score that was
# left out may itself have been left out.
_SLACK = 1e-5


def select_anchors(outputs: Outputs, selection: Selection, levels: Tensor, *, clip_first: bool) -> list[Instances]:
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
    count = _FIRST * selection.limit if selection.suppression == "hard" else len(best)
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
        boxes = boxes_of(places)
        if selection.suppression != "hard":
            return _soften(Instances(boxes, labels, values), selection)
        kept = batched_nms(boxes, values, labels, selection.iou_threshold)[: selection.limit]
        if complete or len(kept) == selection.limit:
            return Instances(boxes[kept], labels[kept], values[kept])
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


def _soften(found: Instances, selection: Selection) -> Instances:
    kept, lowered = soft_nms(
        found.boxes,
        found.scores,  # type: ignore[arg-type]
        selection.suppression,  # type: ignore[arg-type]
        groups=found.labels,
        iou_threshold=selection.iou_threshold,
        score_threshold=selection.score_threshold,
    )
    labels = found.labels[kept]  # type: ignore[index]
    return Instances(found.boxes[kept], labels, lowered)[slice(selection.limit)]
