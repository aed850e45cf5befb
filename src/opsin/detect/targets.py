"""From the truth of a batch to what a detector learns from, and from what it found back to the image."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from opsin.data import Preprocessing
from opsin.data.coordinates import return_masks
from opsin.ops import clip_boxes
from opsin.structures import Batch, Instances


def batch_targets(batch: Batch, device: torch.device, size: tuple[int, int] | None = None) -> list[Instances]:
    """The objects of each image in pixels of the input; see `usable` for those left out.

    size: (height, width) of the input, where it is not that of the batch's images. An image of which it is known only
    what it shows has boxes of NaN.
    """
    shape = size or batch["image"].shape[-2:]
    placed = [usable(_resize(one, batch, size), shape) for one in batch["instances"]]
    shown = batch.get("somewhere", [None] * len(placed))
    pairs = zip(placed, shown, strict=True)
    return [(one if labels is None else Instances.somewhere(labels)).to(device) for one, labels in pairs]


def rescale(boxes: Tensor, batch: Batch, size: tuple[int, int] | None) -> Tensor:
    """Boxes in pixels of a batch's images, in those of an input of (height, width)."""
    height, width = batch["image"].shape[-2:]
    rows, columns = size or (height, width)
    return boxes * boxes.new_tensor([columns / width, rows / height] * 2)


def _resize(instances: Instances, batch: Batch, size: tuple[int, int] | None) -> Instances:
    """Instances in pixels of a batch's images, in those of the input: their boxes, masks and polygons."""
    masks = instances.masks
    if masks is not None and size is not None and masks.shape[-2:] != size:
        masks = resize_masks(masks, size)
    polygons = instances.polygons
    if polygons is not None and size is not None:
        polygons = _move(polygons, lambda corners: rescale(corners, batch, size))
    return replace(instances, boxes=rescale(instances.boxes, batch, size), masks=masks, polygons=polygons)


def resize_masks(masks: Tensor, size: tuple[int, int]) -> Tensor:
    """Masks (N, H, W) bool at another size: each pixel is that of the old ones in which its middle lies."""
    if not len(masks):
        return masks.new_zeros(0, *size)
    return interpolate(masks[:, None].to(torch.uint8), size, mode="nearest-exact")[:, 0].bool()


def usable(instances: Instances, size: Sequence[int]) -> Instances:
    """The objects that can be learned from, of an input of (height, width): boxes cut at its border.

    Left out are those whose box is then narrower or lower than one pixel of the input, or not a number: no anchor can
    match them, and their logarithms are not finite.
    """
    boxes = clip_boxes(instances.boxes, size)
    kept = ((boxes[:, 2:] - boxes[:, :2]) >= 1).all(dim=1)
    return replace(instances, boxes=boxes)[kept]


def to_image(instances: Instances, preprocessing: Preprocessing, size: Sequence[int]) -> Instances:
    """Instances in pixels of the network's input, as those of an image of (height, width), on the CPU.

    Boxes are cut at its border; those amid the black around a padded image are left out. Polygons are not cut.
    """
    instances = instances.to("cpu")
    boxes = clip_boxes(preprocessing.return_boxes(instances.boxes.float(), size), size)
    masks = None if instances.masks is None else return_masks(instances.masks, preprocessing, size)
    polygons = return_polygons(instances.polygons, preprocessing, size)
    return replace(instances, boxes=boxes, masks=masks, polygons=polygons)[(boxes[:, 2:] > boxes[:, :2]).all(dim=1)]


def return_polygons(
    polygons: Sequence[Tensor] | None, preprocessing: Preprocessing, size: Sequence[int]
) -> list[Tensor] | None:
    """Polygons (P, 2) in pixels of the network's input as those of an image of (height, width); None stays None."""
    if polygons is None:
        return None
    return _move(polygons, lambda corners: preprocessing.return_boxes(corners.float(), size))


def _move(polygons: Sequence[Tensor], move: Callable[[Tensor], Tensor]) -> list[Tensor]:
    """Polygons (P, 2), of which every corner goes as that of a box does. move: of boxes, (N, 4), all at once."""
    if not polygons:
        return []
    return list(move(torch.cat(list(polygons)).repeat(1, 2))[:, :2].split([len(one) for one in polygons]))
