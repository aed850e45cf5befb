"""Instances after their picture was cut: which stay, and which have left it."""

from __future__ import annotations

from collections.abc import Sequence

from opsin.ops import box_area, clip_boxes
from opsin.structures import Instances


def keep_inside(instances: Instances, size: Sequence[int], visible: float = 0.0) -> Instances:
    """The instances of a picture of (height, width), boxes cut at its border.

    Dropped is what has no area within it, or less than `visible` of what it had before. Masks, points and polygons stay
    as they are.
    """
    boxes = clip_boxes(instances.boxes, size)
    left, whole = box_area(boxes), box_area(instances.boxes)
    kept = (left > 0) & (left >= visible * whole)
    inside = instances[kept]
    inside.boxes = boxes[kept]
    return inside
