"""One answer for an image of those for its tiles and for the whole of it, so that each object is there once.

An object at a tile's border is seen in part. Tiles overlap by the largest object, so that another one sees it whole:
then the part is dropped. What is larger than the overlap is seen in parts alone, or in the whole image; parts that
agree where their tiles overlap are joined. Of what is then found twice the more certain one is kept, by non-maximum
suppression within a class.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from opsin.data.masks import decode_mask, encode_masks
from opsin.engine.tiles import Place
from opsin.ops import batched_nms, box_area, pairwise_iou

_NEAR = 0.02  # of a tile's side: a box that comes as near to its border may be cut there
_COVERED = 0.5  # of a part: it is dropped where a whole one covers as much of it
_SURE = 0.5  # of a part's score: a whole one that is less certain does not take its place
_SEEN = 1.0  # pixels: what there must be of a part within the overlap of two tiles to be compared
_AGREE = 0.5  # IoU within the overlap of two tiles from which on two parts are of one object


@dataclass
class _Views:
    """What was found in all views of an image, in its pixels.

    boxes: (N, 4). labels: (N,) int64. scores: (N,). view: (N,), in which. cut: (N, 4) bool, at which sides by the
    border of a tile. members: of each the rows of the answers that it is made of, the most certain first.
    """

    boxes: Tensor
    labels: Tensor
    scores: Tensor
    view: Tensor
    cut: Tensor
    members: list[list[int]]

    @property
    def partial(self) -> Tensor:
        """(N,) bool: which are parts."""
        return self.cut.any(dim=1)

    def keep(self, chosen: Tensor) -> _Views:
        """Those of a mask or of places, in that order."""
        places = chosen.nonzero()[:, 0] if chosen.dtype is torch.bool else chosen
        boxes, labels, scores = self.boxes[places], self.labels[places], self.scores[places]
        members = [self.members[i] for i in places.tolist()]
        return _Views(boxes, labels, scores, self.view[places], self.cut[places], members)


def merge_instances(
    views: Sequence[Sequence[dict[str, Any]]],
    places: Sequence[Place],
    size: tuple[int, int],
    *,
    iou_threshold: float,
    limit: int | None = None,
) -> list[dict[str, Any]]:
    """The objects of an image, best first. views: those found at each of `places`, {"box", "label", "score"} and more.

    size: (height, width) of the image. iou_threshold: of two of a class that overlap by more, one is kept. limit: how
    many, at most; all if None. Fields `mask` and `polygon` are moved with their box, the polygon of several
    parts is that box; other fields are those of the most certain part.
    """
    rows = [(number, one) for number, view in enumerate(views) for one in view]
    found = _gather(rows, places, size)
    found = _drop_parts(found)
    found = _join(found, [place.box for place in places])
    found = _drop_parts(found)
    kept = batched_nms(found.boxes, found.scores, found.labels, iou_threshold)
    found = found.keep(kept[:limit])
    merged = []
    for box, members in zip(found.boxes.tolist(), found.members, strict=True):
        one = {**rows[members[0]][1], "box": [round(value, 2) for value in box]}
        if "polygon" in one:
            one["polygon"] = _moved([rows[member] for member in members], places, one["box"])
        if "mask" in one:
            one["mask"] = _whole_mask([rows[member] for member in members], places, size)
        merged.append(one)
    return merged


def _gather(rows: Sequence[tuple[int, dict[str, Any]]], places: Sequence[Place], size: tuple[int, int]) -> _Views:
    view = torch.tensor([number for number, _ in rows], dtype=torch.int64)
    names = {name: k for k, name in enumerate(dict.fromkeys(one["label"] for _, one in rows))}
    labels = torch.tensor([names[one["label"]] for _, one in rows], dtype=torch.int64)
    scores = torch.tensor([one["score"] for _, one in rows], dtype=torch.float32)
    boxes = torch.tensor([one["box"] for _, one in rows], dtype=torch.float32).reshape(-1, 4)
    frames = torch.tensor([place.box for place in places], dtype=torch.float32).reshape(-1, 4)[view]
    inner = torch.tensor([place.inner(size) for place in places]).reshape(-1, 4)[view]
    # Beyond its part of the image a tile is filled up with black.
    boxes = torch.cat([torch.minimum(boxes[:, i : i + 2] + frames[:, :2], frames[:, 2:]) for i in (0, 2)], dim=1)
    sides = (frames[:, 2:] - frames[:, :2]).repeat(1, 2)
    cut = inner & ((boxes - frames).abs() <= _NEAR * sides)
    found = _Views(boxes, labels, scores, view, cut, [[row] for row in range(len(rows))])
    return found.keep(box_area(boxes) > 0)


def _drop_parts(found: _Views) -> _Views:
    """Less the parts of what another view sees whole, whatever class it takes the part for."""
    partial = found.partial
    whole = found.keep(~partial)
    dropped = partial.clone()
    for view in found.view[partial].unique().tolist():  # one after the other: N x N would not fit for a vast image
        own = (partial & (found.view == view)).nonzero()[:, 0]
        shared = _shared(found.boxes[own], whole.boxes) / box_area(found.boxes[own])[:, None]
        sure = whole.scores >= _SURE * found.scores[own][:, None]
        dropped[own] = ((shared >= _COVERED) & sure & (whole.view != view)).any(dim=1)
    return found.keep(~dropped)


def _join(found: _Views, frames: Sequence[Sequence[int]]) -> _Views:
    """With the parts of one object in several tiles made one."""
    group = list(range(len(found.boxes)))  # union-find over the parts

    def root(i: int) -> int:
        while group[i] != i:
            group[i] = group[group[i]]
            i = group[i]
        return i

    partial = found.partial
    views = found.view[partial].unique().tolist()
    own = {view: (partial & (found.view == view)).nonzero()[:, 0] for view in views}
    for place, one in enumerate(views):
        for two in views[place + 1 :]:
            (a1, b1, a2, b2), (c1, d1, c2, d2) = frames[one], frames[two]
            both = (max(a1, c1), max(b1, d1), min(a2, c2), min(b2, d2))
            if both[0] >= both[2] or both[1] >= both[3]:
                continue
            for i, j in _agreeing(found, own[one], own[two], both):
                group[root(i)] = root(j)
    joined: dict[int, list[int]] = {}
    for i in range(len(group)):
        joined.setdefault(root(i), []).append(i)
    return _union(found, list(joined.values()))


def _agreeing(found: _Views, one: Tensor, two: Tensor, both: Sequence[int]) -> list[tuple[int, int]]:
    """Pairs of parts, rows of `one` and of `two`, that are alike within the overlap of their tiles."""
    window = found.boxes.new_tensor(both)
    clipped = [
        torch.cat([torch.maximum(found.boxes[own, :2], window[:2]), torch.minimum(found.boxes[own, 2:], window[2:])], 1)
        for own in (one, two)
    ]
    there = [((boxes[:, 2:] - boxes[:, :2]) >= _SEEN).all(dim=1) for boxes in clipped]
    same = found.labels[one][:, None] == found.labels[two]
    alike = (pairwise_iou(clipped[0], clipped[1]) >= _AGREE) & same & there[0][:, None] & there[1]
    return [(int(one[i]), int(two[j])) for i, j in alike.nonzero().tolist()]


def _union(found: _Views, groups: Sequence[list[int]]) -> _Views:
    """One of each group: the box around it, cut where the part that reaches furthest is."""
    boxes, cuts, members, best = [], [], [], []
    for group in groups:
        group = sorted(group, key=lambda i: -float(found.scores[i]))
        own, cut = found.boxes[group], found.cut[group]
        ends = torch.cat([own[:, :2].argmin(dim=0), own[:, 2:].argmax(dim=0)])
        boxes.append(own[ends, torch.arange(4)])
        cuts.append(cut[ends, torch.arange(4)])
        members.append([row for i in group for row in found.members[i]])
        best.append(group[0])
    empty = found.boxes[:0], found.cut[:0]
    first = found.keep(torch.tensor(best, dtype=torch.int64))
    joined = torch.stack(boxes) if boxes else empty[0], torch.stack(cuts) if cuts else empty[1]
    return _Views(joined[0], first.labels, first.scores, first.view, joined[1], members)


def _shared(one: Tensor, two: Tensor) -> Tensor:
    """The area that two boxes share: (N, 4), (M, 4) -> (N, M)."""
    low = torch.maximum(one[:, None, :2], two[:, :2])
    high = torch.minimum(one[:, None, 2:], two[:, 2:])
    return (high - low).clamp(min=0).prod(dim=2)


def _whole_mask(
    rows: Sequence[tuple[int, dict[str, Any]]], places: Sequence[Place], size: tuple[int, int]
) -> dict[str, Any]:
    """The masks of one object's parts as one of the image."""
    whole = torch.zeros(1, *size, dtype=torch.bool)
    for number, one in rows:
        place = places[number]
        part = decode_mask(one["mask"])[: place.height, : place.width]
        whole[0, place.top : place.top + place.height, place.left : place.left + place.width] |= part
    return encode_masks(whole)[0]


def _moved(
    rows: Sequence[tuple[int, dict[str, Any]]], places: Sequence[Place], box: Sequence[float]
) -> list[list[float]]:
    """The polygon of an object in pixels of the image; the corners of its box where it was found in parts."""
    if len(rows) > 1:
        x1, y1, x2, y2 = box
        return [[x1, y1], [x2, y1], [x2, y2], [x1, y2]]
    place = places[rows[0][0]]
    return [[round(x + place.left, 2), round(y + place.top, 2)] for x, y in rows[0][1]["polygon"]]
