"""Instances after their image was cut: which stay, and which have left it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from opsin.data.preprocessing import Preprocessing
from opsin.ops import box_area, clip_boxes
from opsin.structures import Instances


def keep_inside(instances: Instances, size: Sequence[int], visible: float = 0.0) -> Instances:
    """The instances of an image of (height, width), boxes cut at its border.

    Dropped is what has no area within it, or less than `visible` of what it had before. Masks, points and polygons stay
    as they are.
    """
    boxes = clip_boxes(instances.boxes, size)
    left, whole = box_area(boxes), box_area(instances.boxes)
    kept = (left > 0) & (left >= visible * whole)
    inside = instances[kept]
    inside.boxes = boxes[kept]
    return inside


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
