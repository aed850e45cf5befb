"""Where what is known of an image lies in the network's input, and back: boxes, masks, points, class maps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from opsin.data.preprocessing import Preprocessing
from opsin.ops import box_area, clip_boxes
from opsin.structures import Instances

# Where each side of a box is once x or y is turned round.
_CORNERS = {
    (x, y): torch.tensor((2 if x else 0, 3 if y else 1, 0 if x else 2, 1 if y else 3))
    for x in (False, True)
    for y in (False, True)
}


def keep_inside(instances: Instances, size: Sequence[int]) -> Instances:
    """The instances of an image of (height, width), boxes cut at its border, less those with no area within it.

    Masks, points and polygons stay as they are.
    """
    boxes = clip_boxes(instances.boxes, size)
    kept = box_area(boxes) > 0
    inside = instances[kept]
    inside.boxes = boxes[kept]
    return inside


def place(instances: Instances, scale: Sequence[float], shift: Sequence[float]) -> Instances:
    """Boxes, points and polygons at (x, y) * scale + shift; the rest as it was."""
    (x, y), (dx, dy) = scale, shift
    boxes = instances.boxes * torch.tensor((x, y, x, y), dtype=torch.float32)
    boxes += torch.tensor((dx, dy, dx, dy), dtype=torch.float32)
    if x < 0 or y < 0:  # the first corner stays the upper left one
        boxes = boxes.index_select(1, _CORNERS[x < 0, y < 0])
    points, polygons = instances.points, instances.polygons
    if points is None and polygons is None:
        return replace(instances, boxes=boxes)
    factor, offset = torch.tensor(scale, dtype=torch.float32), torch.tensor(shift, dtype=torch.float32)
    return replace(
        instances,
        boxes=boxes,
        points=None if points is None else points * factor + offset,
        polygons=None if polygons is None else [polygon * factor + offset for polygon in polygons],
    )


def prepare_instances(instances: Instances, size: Sequence[int], preprocessing: Preprocessing) -> Instances:
    """The instances of an image of (height, width) where `prepare` puts it, not cut at the border of the input."""
    scale_x, scale_y, shift_x, shift_y = preprocessing.transform(int(size[0]), int(size[1]))
    prepared = place(instances, (scale_x, scale_y), (shift_x, shift_y))
    if prepared.masks is not None:
        prepared.masks = place_masks(prepared.masks, preprocessing)
    return prepared


def prepare_field(value: Any, size: Sequence[int], preprocessing: Preprocessing) -> Any:
    """A TVTensor of an image of (height, width) where `prepare` puts it, by the kernels of its own type.

    What lies outside of the image, as the border of fit "pad" does, is what its type is filled with.
    """
    from torchvision.transforms.v2 import functional as F  # here: using a model needs no torchvision

    part = preprocessing._place(int(size[0]), int(size[1]))
    value = F.crop(value, part.cut_top, part.cut_left, part.cut_height, part.cut_width)
    value = F.resize(value, [part.height, part.width])
    return F.crop(value, -part.top, -part.left, *preprocessing.size)


def place_masks(masks: Tensor, preprocessing: Preprocessing) -> Tensor:
    """Masks (N, H, W) bool of an image as those of the network's input: cut, stretched or padded as the image is.

    Each pixel is that of the nearest old one.
    """
    nearest = replace(preprocessing, channels=1, mean=(0.0,), std=(1.0,), interpolation="nearest")
    placed = [nearest.prepare(mask[None].to(torch.uint8)) for mask in masks]
    return torch.cat([masks.new_zeros(0, *preprocessing.size), *[mask.bool() for mask in placed]])


def return_masks(masks: Tensor, preprocessing: Preprocessing, size: Sequence[int]) -> Tensor:
    """The inverse of `place_masks`: masks (N, H, W) of the input -> of the image, (N, height, width) bool.

    Each pixel of the image is that of the input in which its middle lies, and off where the input did not show it.
    """
    scale_x, scale_y, shift_x, shift_y = preprocessing.transform(int(size[0]), int(size[1]))
    places, shown = [], []
    for count, limit, scale, shift in zip(size, masks.shape[1:], (scale_y, scale_x), (shift_y, shift_x), strict=True):
        place = ((torch.arange(count, device=masks.device) + 0.5) * scale + shift).floor().long()
        shown.append((place >= 0) & (place < limit))
        places.append(place.clamp(0, limit - 1))
    rows, columns = places
    return masks[:, rows[:, None], columns] & shown[0][:, None] & shown[1]
