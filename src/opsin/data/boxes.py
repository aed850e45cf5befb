"""Boxes of objects, each with a class, and their masks where somebody drew them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from opsin.data.box_check import BoxSummary, find_alike, find_odd
from opsin.data.labels import match_classes
from opsin.data.masks import Masks, Outline, Outlines
from opsin.data.stated_boxes import StatedBoxes
from opsin.data.texts import PackedTexts
from opsin.data.truth import Problem, Size, Truth
from opsin.errors import InputError
from opsin.structures import Instances

if TYPE_CHECKING:
    from PIL.Image import Image

_PROPOSAL = -2  # the label of a proposal among the instances of an image, on their way to the batch


class Rows(NamedTuple):
    """Rows of any number for each image, one after the other. values: (T, ...). offsets: (N + 1,) int64."""

    values: Tensor
    offsets: np.ndarray

    @classmethod
    def of(cls, parts: Sequence[Tensor], empty: Tensor) -> Rows:
        """Rows of each image. empty: (0, ...), what there is where there is nothing."""
        return cls(torch.cat([empty, *parts]), np.cumsum([0, *map(len, parts)]))

    def at(self, i: int) -> Tensor:
        """Those of an image."""
        return self.values[self.offsets[i] : self.offsets[i + 1]]

    def select(self, places: np.ndarray) -> Rows:
        """Those of the images at `places`, in that order."""
        counts = np.diff(self.offsets)[places]
        offsets = np.concatenate([[0], np.cumsum(counts)])
        rows = np.repeat(self.offsets[places] - offsets[:-1], counts) + np.arange(offsets[-1])
        return Rows(self.values[torch.from_numpy(rows)], offsets)


@dataclass(frozen=True, eq=False)
class Boxes(Truth):
    """The objects of each image, in pixels of the image as it is read.

    boxes: rows (T, 4) float32, xyxy. labels: (T,) int64, -1 for regions to ignore. classes: their names. drawn: the
    objects' masks. proposals: rows (P, 4) float32, boxes that may hold an object, best first; see `with_proposals`.
    masked: whether samples have masks too; see `with_masks`. outlined: whether they have polygons; see `with_polygons`.
    stated: the same objects as their file states them, where that was asked for, see
    `opsin.data.formats.annotations.build`. texts: of each object, T of them, what it reads, "" for nothing or where
    that is not known; see `regions`.
    """

    boxes: Rows
    labels: Tensor
    classes: Sequence[str]
    drawn: Masks | None = None
    proposals: Rows | None = None
    masked: bool = False
    outlined: bool = False
    stated: StatedBoxes | None = None
    texts: PackedTexts | None = None

    @classmethod
    def of(
        cls,
        instances: Sequence[Instances],
        classes: Sequence[str],
        drawn: Masks | None = None,
        texts: PackedTexts | None = None,
    ) -> Boxes:
        """Of the objects of each image: their boxes and labels, those without labels of the first class."""
        boxes = Rows.of([one.boxes for one in instances], torch.zeros(0, 4))
        labels = [torch.zeros(len(one), dtype=torch.int64) if one.labels is None else one.labels for one in instances]
        return cls(boxes, torch.cat([torch.zeros(0, dtype=torch.int64), *labels]), classes, drawn, texts=texts)

    @property
    def meaning(self) -> Mapping[str, Any]:
        return {"classes": list(self.classes)}

    @property
    def presence(self) -> np.ndarray:
        """(N, K) float32: 1 where an image shows a class."""
        labels = np.zeros((len(self), len(self.classes)), np.float32)
        images, shown = self._shown()
        labels[images, shown] = 1
        return labels

    def __len__(self) -> int:
        return len(self.boxes.offsets) - 1

    def select(self, places: np.ndarray) -> Boxes:
        return replace(
            self,
            boxes=self.boxes.select(places),
            labels=Rows(self.labels, self.boxes.offsets).select(places).values,
            drawn=None if self.drawn is None else self.drawn.select(places),
            proposals=None if self.proposals is None else self.proposals.select(places),
            stated=None if self.stated is None else self.stated.select(places),
            texts=None if self.texts is None else self.texts.select(self._rows(places)),
        )

    def match(self, meaning: Mapping[str, Any]) -> Boxes:
        known = list(meaning["classes"])
        places = match_classes(self.classes, known)
        return replace(self, classes=known) if places is None else self.relabel(places, known)

    def relabel(self, places: Sequence[int] | np.ndarray, classes: Sequence[str]) -> Boxes:
        """With class k called `places[k]` of `classes`. Classes with the same place become one."""
        table = torch.from_numpy(np.append(np.asarray(places, dtype=np.int64), -1))  # the last for -1, to ignore
        stated = None if self.stated is None else self.stated.relabel(table.numpy())
        return replace(self, labels=table[self.labels], classes=classes, stated=stated)

    def with_proposals(self, proposals: Sequence[Tensor] | None) -> Boxes:
        """With boxes that may hold an object, of each image (P, 4) in its pixels: batches then have `proposals`.

        They are moved and cut as regions to ignore are, and keep their order.
        """
        if proposals is None:
            return replace(self, proposals=None)
        if len(proposals) != len(self):
            raise InputError(f"there are proposals of {len(proposals)} images, and the split has {len(self)}")
        return replace(self, proposals=Rows.of([p.to(torch.float32) for p in proposals], torch.zeros(0, 4)))

    def with_masks(self, masked: bool = True) -> Boxes:
        """With masks in every sample, (N, height, width) of its image. InputError where objects have none."""
        return replace(self, masked=masked)

    def with_polygons(self, outlined: bool = True) -> Boxes:
        """With polygons in every sample, see `regions`, where anybody drew some; of boxes alone nothing changes."""
        return replace(self, outlined=outlined and isinstance(self.drawn, Outlines))

    def at(self, i: int) -> Instances:
        """The objects of an image: boxes and labels."""
        first, end = self.boxes.offsets[i], self.boxes.offsets[i + 1]
        return Instances(self.boxes.values[first:end], self.labels[first:end])

    @property
    def instances(self) -> list[Instances]:
        """The objects of each image."""
        return [self.at(i) for i in range(len(self))]

    def regions(self, i: int) -> Instances:
        """The objects of an image with `polygons`, each (n, 2), and `texts`: what a page reads, and where.

        The polygon of what has no outline is its box; its text, where none is known, is empty.
        """
        one = self.at(i)
        first, end = int(self.boxes.offsets[i]), int(self.boxes.offsets[i + 1])
        one.texts = [""] * len(one) if self.texts is None else [self.texts[k] for k in range(first, end)]
        one.polygons = self._polygons(i, one.boxes)
        return one

    def masks(self, i: int, size: Size) -> Tensor | None:
        """The pixels of each of an image's objects, (N, height, width) bool; None where one of them has no mask."""
        if self.drawn is None or self.drawn.lacking(i, _labels(self.at(i))):
            return None
        return self.drawn.draw(i, size)

    def unmasked(self) -> int | None:
        """The first image with an object that has no mask; None where there is none."""
        drawn = self.drawn
        if drawn is None:
            return 0 if len(self) else None
        labels = Rows(self.labels, self.boxes.offsets)
        return next((i for i in range(len(self)) if drawn.lacking(i, labels.at(i))), None)

    def shown(self, i: int) -> list[int]:
        """The classes of an image."""
        labels = self.labels[self.boxes.offsets[i] : self.boxes.offsets[i + 1]]
        return labels[labels >= 0].unique().tolist()

    def strata(self) -> np.ndarray:
        images, shown = self._shown()
        counts = np.bincount(shown, minlength=len(self.classes))[shown]
        order = np.lexsort((shown, counts, images))  # of an image its rarest class first, of several the first
        first = order[np.unique(images[order], return_index=True)[1]]
        rarest = np.full(len(self), -1, np.int64)
        rarest[images[first]] = shown[first]
        return rarest

    def read(self, i: int, size: Size | None) -> dict[str, Any]:
        label = np.zeros(len(self.classes), np.float32)
        label[self.shown(i)] = 1
        return {"label": label, "instances": self._instances(i, size), "size": size}

    def collate(self, samples: Sequence[dict[str, Any]]) -> dict[str, Any]:
        return {
            **super().collate([{k: v for k, v in one.items() if k not in ("instances", "size")} for one in samples]),
            "instances": _Packed.of([one["instances"] for one in samples]),
            "size": torch.tensor([one["size"] for one in samples]),
        }

    def unpack(self, batch: dict[str, Any]) -> None:
        batch["instances"] = everything = batch["instances"].instances()
        if self.proposals is not None:
            proposed = [one.labels == _PROPOSAL for one in everything]
            batch["proposals"] = [one.boxes[own] for one, own in zip(everything, proposed, strict=True)]
            batch["instances"] = [one[~own] for one, own in zip(everything, proposed, strict=True)]

    def extents(self, i: int) -> Tensor:
        one = self.at(i)
        return one.boxes[_labels(one) >= 0]

    def misfit(self, i: int, size: Size) -> str | None:
        """That boxes reach over a pixel beyond their image.

        When a source is opened, they are held against the size that the annotation gives, which may be wrong.
        """
        boxes = self.boxes.at(i)
        if not len(boxes):
            return None
        right, bottom = boxes[:, 2:].amax(dim=0).tolist()
        height, width = size
        if right <= width + 1 and bottom <= height + 1:
            return None
        return (
            f"it has {width}x{height} pixels (width x height), but its boxes reach to {right:g}, {bottom:g}; "
            "they were drawn for another size, or before it was turned"
        )

    def problems(self, sizes: Mapping[int, Size], training: bool = False) -> list[Problem]:
        if training:
            reason = "{source}: no image of the {split} split has a box to learn from; a detector needs some"
            return [] if bool((self.labels >= 0).any()) else [Problem("no_boxes", "", reason)]
        odd = (problem for i in range(len(self)) for problem in find_odd(i, self.at(i), sizes.get(i), self.classes))
        return [*find_alike(self.classes), *odd]

    def same(self, i: int, other: Any, j: int) -> str | None:
        return None if _sorted(self.at(i)) == _sorted(other.at(j)) else "with other boxes"

    def members(self, name: str) -> np.ndarray:
        images, shown = self._shown()
        return images[shown == list(self.classes).index(name)]

    def summary(self) -> BoxSummary:
        real = self.labels >= 0
        counts = np.bincount(self._shown()[1], minlength=len(self.classes))
        objects = torch.bincount(self.labels[real], minlength=len(self.classes))
        return BoxSummary(
            kind="boxes",
            section="boxes",
            counts=dict(zip(self.classes, counts.tolist(), strict=True)),
            noun="boxes",
            objects=dict(zip(self.classes, objects.tolist(), strict=True)),
            boxes=self.boxes.values[real],
            per_image=np.bincount(self._images()[real.numpy()], minlength=len(self)),
            ignored=int((~real).sum()),
        )

    def digest(self, i: int) -> bytes:
        first, end = self.boxes.offsets[i], self.boxes.offsets[i + 1]
        return self.boxes.values[first:end].numpy().tobytes() + self.labels[first:end].numpy().tobytes()

    def draw(self, image: Image, i: int, scale: tuple[float, float] = (1.0, 1.0)) -> Image:
        from opsin.data.drawing import draw_boxes

        one = self.at(i)
        return draw_boxes(image, replace(one, boxes=one.boxes * one.boxes.new_tensor([*scale, *scale])), self.classes)

    def draw_batch(
        self, image: Image, batch: Mapping[str, Any], k: int, scale: tuple[float, float] = (1.0, 1.0)
    ) -> Image:
        from opsin.data.drawing import draw_boxes, tint_masks

        one = batch["instances"][k]
        if one.masks is not None:
            image = tint_masks(image, one, self.classes)
        return draw_boxes(image, replace(one, boxes=one.boxes * one.boxes.new_tensor([*scale, *scale])), self.classes)

    def _instances(self, i: int, size: Size | None) -> Instances:
        one = self.at(i)
        if self.outlined:
            one.polygons = self._polygons(i, one.boxes)
        if self.masked:
            assert size is not None
            one.masks = self.masks(i, size)
            if one.masks is None:
                raise InputError("an object has no mask, only its box")
        if self.proposals is None:
            return one
        boxes, labels = self.proposals.at(i), _labels(one)
        both = torch.cat([labels, labels.new_full((len(boxes),), _PROPOSAL)])
        return Instances(torch.cat([one.boxes, boxes]), both)

    def _polygons(self, i: int, boxes: Tensor) -> list[Tensor]:
        outlines = self.drawn.rows[i] if isinstance(self.drawn, Outlines) else [None] * len(boxes)
        return [_polygon(box, outline) for box, outline in zip(boxes, outlines, strict=True)]

    def _rows(self, places: np.ndarray) -> np.ndarray:
        """The rows of the objects of the images at `places`, in that order."""
        offsets = self.boxes.offsets.tolist()
        spans = [np.arange(offsets[i], offsets[i + 1]) for i in places.tolist()]
        return np.concatenate([np.zeros(0, np.int64), *spans])

    def _images(self) -> np.ndarray:
        """(T,) int64: of each box its image."""
        return np.repeat(np.arange(len(self)), np.diff(self.boxes.offsets))

    def _shown(self) -> tuple[np.ndarray, np.ndarray]:
        """Every image with every class that it shows, once, in order: (M,) each."""
        labels, count = self.labels.numpy(), max(1, len(self.classes))
        real = labels >= 0
        pairs = np.unique(self._images()[real] * count + labels[real])
        return pairs // count, pairs % count


class _Packed(NamedTuple):
    """The instances of a batch as few tensors."""

    boxes: Tensor  # (N, 4), of all images
    labels: Tensor  # (N,)
    counts: Tensor  # (B,)
    masks: Tensor | None  # (N, H, W)
    corners: Tensor | None = None  # (P, 2), of the polygons of all
    sides: Tensor | None = None  # (N,), of each polygon

    @classmethod
    def of(cls, instances: Sequence[Instances]) -> _Packed:
        labels = torch.cat([_labels(one) for one in instances])
        boxes = torch.cat([one.boxes for one in instances])
        masks = [one.masks for one in instances if one.masks is not None]
        corners = sides = None
        if all(one.polygons is not None for one in instances):
            outlines = [polygon for one in instances for polygon in one.polygons or []]
            corners = torch.cat([torch.zeros(0, 2), *outlines])
            sides = torch.tensor([len(polygon) for polygon in outlines], dtype=torch.int64)
        counts = torch.tensor([len(one) for one in instances])
        return cls(boxes, labels, counts, torch.cat(masks) if masks else None, corners, sides)

    def instances(self) -> list[Instances]:
        counts = self.counts.tolist()
        masks = [None] * len(counts) if self.masks is None else self.masks.split(counts)
        rows = zip(self.boxes.split(counts), self.labels.split(counts), masks, strict=True)
        found = [Instances(boxes, labels, masks=own) for boxes, labels, own in rows]
        if self.corners is not None and self.sides is not None:
            outlines = iter(self.corners.split(self.sides.tolist()))
            for one in found:
                one.polygons = [next(outlines) for _ in range(len(one))]
        return found


def _polygon(box: Tensor, outline: Outline | None) -> Tensor:
    """The corners (n, 2) of an outline's largest part, or those of the box."""
    if isinstance(outline, list) and outline:
        return torch.from_numpy(max(outline, key=len).reshape(-1, 2).astype(np.float32))
    x1, y1, x2, y2 = box.tolist()
    return torch.tensor([(x1, y1), (x2, y1), (x2, y2), (x1, y2)])


def _labels(one: Instances) -> Tensor:
    return torch.zeros(len(one), dtype=torch.int64) if one.labels is None else one.labels


def _sorted(one: Instances) -> list[tuple[float, ...]]:
    """Labels and boxes in an order that does not depend on theirs."""
    return sorted((label, *box) for label, box in zip(_labels(one).tolist(), one.boxes.tolist(), strict=True))
