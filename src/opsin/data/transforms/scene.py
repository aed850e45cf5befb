"""An image and its objects on their way through an augmentation: laid out, mirrored, cut, joined.

What happens to the image happens to boxes, masks, points and polygons. Pixel i spans [i, i + 1), everywhere.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torchvision.transforms.v2 import functional as F

from opsin.data.preprocessing import INTERPOLATIONS, Preprocessing
from opsin.ops import box_area, clip_boxes
from opsin.structures import Instances

Change = Callable[[Tensor, bool], Tensor]  # (..., H, W) and whether these are masks -> (..., H', W')


@dataclass(frozen=True)
class Scene:
    """An image, uint8 (C, H, W), and its objects in its pixels.

    share: (N,), how much of each object's area the cuts so far have left. sized: it has the size of the input.
    """

    image: Tensor
    instances: Instances
    share: Tensor
    sized: bool = False

    @property
    def size(self) -> tuple[int, int]:
        """Height and width."""
        return self.image.shape[-2], self.image.shape[-1]

    @property
    def regions(self) -> Tensor:
        """(N,) bool: which are regions to ignore, and no objects."""
        labels = self.instances.labels
        return torch.zeros(len(self.instances), dtype=torch.bool) if labels is None else labels < 0

    def keep(self, chosen: Tensor) -> Scene:
        """Less the instances that are not chosen: (N,) bool."""
        if bool(chosen.all()):
            return self
        return replace(self, instances=self.instances[chosen], share=self.share[chosen])


@dataclass(frozen=True)
class Frame:
    """What every step is told: what the network takes, and the rule by which objects leave an image.

    An object leaves when less than `visible` of its area is left, and in the end when a side is under `least` pixels of
    the input. A region to ignore stays as long as there is any of it.
    """

    preprocessing: Preprocessing
    visible: float = 0.1
    least: float = 1.0

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the input."""
        return self.preprocessing.size

    def scale(self, scene: Scene) -> tuple[float, float]:
        """How much the preprocessing enlarges the height and the width of a scene's image."""
        if scene.sized:
            return 1.0, 1.0
        scale_x, scale_y, _, _ = self.preprocessing.transform(*scene.size)
        return scale_y, scale_x

    def colour(self, fill: str | float | Sequence[float]) -> Tensor:
        """A fill as uint8 (C, 1, 1). "mean": the colour that becomes 0 in normalisation."""
        values: Any = [255 * mean for mean in self.preprocessing.mean] if fill == "mean" else fill
        levels = torch.as_tensor(values, dtype=torch.float32).round().clamp(0, 255).to(torch.uint8)
        return levels.expand(self.preprocessing.channels)[:, None, None]

    def cut(self, scene: Scene) -> Scene:
        """Boxes cut at the border of the image, less those that have left it."""
        if not len(scene.instances):
            return scene
        boxes = clip_boxes(scene.instances.boxes, scene.size)
        whole, left = box_area(scene.instances.boxes), box_area(boxes)
        share = torch.where(left > 0, scene.share * left / whole, 0)
        cut = replace(scene, instances=replace(scene.instances, boxes=boxes), share=share)
        return cut.keep((left > 0) & ((share >= self.visible) | scene.regions))

    def finish(self, scene: Scene) -> Scene:
        """Less what is too small to be found."""
        sides = scene.instances.boxes[:, 2:] - scene.instances.boxes[:, :2]
        return scene.keep((sides >= self.least).all(dim=1))


def begin(image: Tensor, instances: Instances) -> Scene:
    """An image as it was read. Of boxes that reach over its border the part within counts as the whole."""
    scene = Scene(image, instances, torch.ones(len(instances)))
    if not len(instances):
        return scene
    boxes = clip_boxes(instances.boxes, scene.size)
    return replace(scene, instances=replace(instances, boxes=boxes)).keep(box_area(boxes) > 0)


class Span(NamedTuple):
    """Along one axis: pixels [start, start + length) of an image, resized to `extent`, lie at `place` of another."""

    start: int
    length: int
    place: int
    extent: int

    @property
    def scale(self) -> float:
        return self.extent / self.length

    @property
    def shift(self) -> float:
        return self.place - self.start * self.scale


def span(length: int, scale: float, side: int, chance: float) -> Span:
    """An image's length, scaled, laid into a side. chance in [0, 1) says where, or, if it is longer, which part.

    Whole pixels are taken, and become whole pixels: the true scale, the span's own, is that near to the one given.
    """
    extent = max(1, round(length * scale))
    if extent <= side:
        return Span(0, length, int(chance * (side - extent + 1)), extent)
    part = min(length, max(1, round(side / scale)))
    return Span(int(chance * (length - part + 1)), part, 0, side)


def lay(scene: Scene, rows: Span, columns: Span, size: tuple[int, int], frame: Frame, fill: Tensor) -> Scene:
    """A part of an image, resized and laid into one of (height, width) that is else `fill`. Boxes are not cut."""
    inside = slice(rows.place, rows.place + rows.extent), slice(columns.place, columns.place + columns.extent)

    def change(pixels: Tensor, masks: bool) -> Tensor:
        part = pixels[..., rows.start :, columns.start :][..., : rows.length, : columns.length]
        if masks:
            part = F.resize(part, [rows.extent, columns.extent], INTERPOLATIONS["nearest"])
        else:
            part = frame.preprocessing.resize(part, rows.extent, columns.extent)
        if (rows.extent, columns.extent) == size:
            return part
        canvas = part.new_empty(*part.shape[:-2], *size)
        canvas[:] = 0 if masks else fill
        canvas[..., inside[0], inside[1]] = part
        return canvas

    return moved(scene, change, (columns.scale, rows.scale), (columns.shift, rows.shift))


def mirror(scene: Scene, axis: int) -> Scene:
    """Flipped left to right (axis 0, x) or upside down (axis 1, y)."""
    height, width = scene.size
    scale, shift = ((-1, 1), (width, 0)) if axis == 0 else ((1, -1), (0, height))
    return moved(scene, lambda pixels, _: pixels.flip(-1 - axis), scale, shift)


def moved(scene: Scene, change: Change, scale: Sequence[float], shift: Sequence[float]) -> Scene:
    """A scene whose pixels `change`, and whose places go from (x, y) to (x, y) * scale + shift."""
    instances = place(scene.instances, scale, shift)
    if instances.masks is not None:
        instances.masks = change(instances.masks.to(torch.uint8), True).bool()
    return replace(scene, image=change(scene.image, False), instances=instances)


def place(instances: Instances, scale: Sequence[float], shift: Sequence[float]) -> Instances:
    """Boxes, points and polygons at (x, y) * scale + shift; the rest as it was."""
    factor, offset = torch.tensor(scale, dtype=torch.float32), torch.tensor(shift, dtype=torch.float32)
    boxes = instances.boxes * factor.repeat(2) + offset.repeat(2)
    for axis in (0, 1):
        if scale[axis] < 0:
            boxes[:, [axis, axis + 2]] = boxes[:, [axis + 2, axis]]
    points, polygons = instances.points, instances.polygons
    return replace(
        instances,
        boxes=boxes,
        points=None if points is None else points * factor + offset,
        polygons=None if polygons is None else [polygon * factor + offset for polygon in polygons],
    )


def join(scenes: Sequence[Scene], image: Tensor) -> Scene:
    """One image with the instances of several; fields that one of them lacks are left out."""
    joined: dict[str, Any] = {}
    for field in fields(Instances):
        values = [getattr(scene.instances, field.name) for scene in scenes]
        if all(isinstance(value, Tensor) for value in values):
            joined[field.name] = torch.cat(values)
        elif all(isinstance(value, list) for value in values):
            joined[field.name] = [one for value in values for one in value]
    share = torch.cat([scene.share for scene in scenes])
    return Scene(image, Instances(**joined), share, sized=all(scene.sized for scene in scenes))
