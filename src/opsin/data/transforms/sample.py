"""A sample on its way through an augmentation: image, instances, class maps and points laid out, mirrored, cut, joined.

What happens to the image happens to everything that has a place in it. Pixel i spans [i, i + 1), everywhere.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from types import MappingProxyType
from typing import Any, NamedTuple, TypeAlias

import torch
from torch import Tensor
from torchvision import tv_tensors
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional as F

from opsin.data.coordinates import place
from opsin.data.preprocessing import Preprocessing
from opsin.data.transforms.class_map import ClassMap, ignored
from opsin.data.transforms.points import Points
from opsin.errors import InputError
from opsin.ops import box_area, clip_boxes
from opsin.structures import Instances

# image: uint8 (C, H, W). instances: `Instances`. Any other field that is a TVTensor (ClassMap, Mask, Points, Image, or
# one of another package, with its kernels) moves with the image too; what is none is carried as it is.
Sample: TypeAlias = dict[str, Any]
Change = Callable[[Tensor, bool], Tensor]  # (..., H, W) and whether these are masks -> (..., H', W')


class Scene(NamedTuple):
    """A sample between two steps. A tuple, which is made twice as fast as a dataclass.

    image: uint8 (C, H, W). instances: in its pixels, None where the sample has none. share: (N,), how much of each
    one's area the cuts so far have left. moving: the other fields that move. sized: it has the size of the input.
    """

    image: Tensor
    instances: Instances | None = None
    share: Tensor | None = None
    moving: Mapping[str, tv_tensors.TVTensor] = MappingProxyType({})
    sized: bool = False

    @property
    def size(self) -> tuple[int, int]:
        """Height and width."""
        return self.image.shape[-2], self.image.shape[-1]

    @property
    def plain(self) -> bool:
        """Whether there is nothing but the image to move."""
        return self.instances is None and not self.moving

    def keep(self, chosen: Tensor) -> Scene:
        """Less the instances that are not chosen: (N,) bool."""
        if self.instances is None or self.share is None or bool(chosen.all()):
            return self
        return self._replace(instances=self.instances[chosen], share=self.share[chosen])


def regions(instances: Instances) -> Tensor:
    """(N,) bool: which are regions to ignore, and no objects."""
    labels = instances.labels
    return torch.zeros(len(instances), dtype=torch.bool) if labels is None else labels < 0


@dataclass(frozen=True)
class Frame:
    """What every step is given: what the network takes, and the rule by which objects leave an image.

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
        instances, share = scene.instances, scene.share
        if instances is None or share is None or not len(instances):
            return scene
        boxes = clip_boxes(instances.boxes, scene.size)
        whole, left = box_area(instances.boxes), box_area(boxes)
        share = torch.where(left > 0, share * left / whole, 0)
        cut = scene._replace(instances=replace(instances, boxes=boxes), share=share)
        return cut.keep((left > 0) & ((share >= self.visible) | regions(instances)))

    def finish(self, scene: Scene) -> Scene:
        """Less what is too small to be found."""
        if scene.instances is None:
            return scene
        sides = scene.instances.boxes[:, 2:] - scene.instances.boxes[:, :2]
        return scene.keep((sides >= self.least).all(dim=1))


def begin(sample: Sample) -> Scene:
    """A sample as it was read. Of boxes that reach over the image's border the part within counts as the whole.

    Raises InputError for a field that would have to move and cannot.
    """
    image = sample["image"]
    if len(sample) == 1:
        return Scene(image)
    instances = sample.get("instances")
    moving = {key: value for key, value in sample.items() if key not in ("image", "instances") and moves(key, value)}
    for key, value in moving.items():
        moving[key] = _checked(key, value, image.shape[-2:])
    if instances is None:
        return Scene(image, moving=moving)
    scene = Scene(image, instances, torch.ones(len(instances)), moving)
    if not len(instances):
        return scene
    boxes = clip_boxes(instances.boxes, scene.size)
    return scene._replace(instances=replace(instances, boxes=boxes)).keep(box_area(boxes) > 0)


def end(scene: Scene, sample: Sample) -> Sample:
    """A scene as the sample that it was, with all that is carried, and fields of the types that they had."""
    ended = {**sample, "image": scene.image}
    if scene.instances is not None:
        ended["instances"] = scene.instances
    for key, value in scene.moving.items():
        mask = type(value) is ClassMap and type(sample[key]) is not ClassMap
        ended[key] = tv_tensors.wrap(value.as_subclass(Tensor), like=sample[key]) if mask else value  # type: ignore[call-arg]
    return ended


def moves(key: str, value: Any) -> bool:
    """Whether a field has a place in the image. Raises InputError where that is not known, or not declared."""
    if isinstance(value, tv_tensors.TVTensor):
        return True
    if isinstance(value, Instances):
        raise InputError(f"a sample has its instances in the field instances, not in {key}")
    inner = value.values() if isinstance(value, Mapping) else value if isinstance(value, list | tuple) else ()
    if any(isinstance(one, tv_tensors.TVTensor | Instances) for one in inner):
        raise InputError(f"the field {key} of a sample holds several things that move; give each a field of its own")
    return False


def _checked(key: str, value: tv_tensors.TVTensor, size: Sequence[int]) -> tv_tensors.TVTensor:
    """A field that moves, a mask as the class map that it is."""
    name = type(value).__name__
    if isinstance(value, tv_tensors.BoundingBoxes) or name == "KeyPoints":
        ours = "Points, which flip to width - x" if name == "KeyPoints" else "Instances"
        raise InputError(f"the field {key} of a sample is torchvision's {name}; give {ours}")
    if isinstance(value, tv_tensors.Mask):
        try:
            ignored(value.dtype)
        except ValueError as error:
            raise InputError(f"the field {key} of a sample: {error}") from error
        value = value.as_subclass(ClassMap)
    own = value.canvas_size if isinstance(value, Points) else value.shape[-2:]
    known = isinstance(value, Points | ClassMap | tv_tensors.Image)
    if known and tuple(own) != tuple(size):
        raise InputError(
            f"the field {key} of a sample is of an image of {own[0]}x{own[1]}, its own is {size[0]}x{size[1]}"
        )
    return value


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
            part = F.resize(part, [rows.extent, columns.extent], InterpolationMode.NEAREST_EXACT)
        else:
            part = frame.preprocessing.resize(part, rows.extent, columns.extent)
        if (rows.extent, columns.extent) == size:
            return part
        canvas = part.new_empty(*part.shape[:-2], *size)
        canvas[:] = 0 if masks else fill
        canvas[..., inside[0], inside[1]] = part
        return canvas

    def move(value: Any) -> Any:
        value = F.crop(value, rows.start, columns.start, rows.length, columns.length)
        value = F.resize(value, [rows.extent, columns.extent])
        return F.crop(value, -rows.place, -columns.place, *size)  # pads what is not there

    return moved(scene, change, move, (columns.scale, rows.scale), (columns.shift, rows.shift))


def mirror(scene: Scene, axis: int) -> Scene:
    """Flipped left to right (axis 0, x) or upside down (axis 1, y)."""
    height, width = scene.size
    scale, shift = ((-1, 1), (width, 0)) if axis == 0 else ((1, -1), (0, height))
    flip: Any = F.horizontal_flip if axis == 0 else F.vertical_flip
    return moved(scene, lambda pixels, _: pixels.flip(-1 - axis), flip, scale, shift)


def moved(
    scene: Scene, change: Change, move: Callable[[Any], Any], scale: Sequence[float], shift: Sequence[float]
) -> Scene:
    """A scene whose pixels `change`, whose other fields `move`, and whose places are at (x, y) * scale + shift."""
    image, moving = change(scene.image, False), {key: move(value) for key, value in scene.moving.items()}
    if scene.instances is None:
        return scene._replace(image=image, moving=moving)
    instances = place(scene.instances, scale, shift)
    if instances.masks is not None:
        instances.masks = change(instances.masks.to(torch.uint8), True).bool()
    return scene._replace(image=image, instances=instances, moving=moving)


def join(scenes: Sequence[Scene], image: Tensor) -> Scene:
    """One image with the instances of several; fields of instances that one of them lacks are left out."""
    instances = [scene.instances for scene in scenes if scene.instances is not None]
    sized = all(scene.sized for scene in scenes)
    if not instances:
        return Scene(image, sized=sized)
    if len(instances) < len(scenes):
        raise InputError("an image with instances cannot be mixed with one without")
    joined: dict[str, Any] = {}
    for one in fields(Instances):
        values = [getattr(own, one.name) for own in instances]
        if all(isinstance(value, Tensor) for value in values):
            joined[one.name] = torch.cat(values)
        elif all(isinstance(value, list) for value in values):
            joined[one.name] = [part for value in values for part in value]
    share = torch.cat([scene.share for scene in scenes if scene.share is not None])
    return Scene(image, Instances(**joined), share, sized=sized)


# What each of torchvision's functionals is asked to do to find out whether a field has a kernel for it.
_PROBES: dict[str, Callable[[Any], Any]] = {
    "horizontal_flip": F.horizontal_flip,
    "vertical_flip": F.vertical_flip,
    "resize": lambda value: F.resize(value, [1, 1]),
    "crop": lambda value: F.crop(value, 0, 0, 1, 1),
    "center_crop": lambda value: F.center_crop(value, [1, 1]),
    "resized_crop": lambda value: F.resized_crop(value, 0, 0, 1, 1, [1, 1]),
    "pad": lambda value: F.pad(value, [0]),
    "affine": lambda value: F.affine(value, 0.0, [0, 0], 1.0, [0.0, 0.0]),
    "rotate": lambda value: F.rotate(value, 0.0),
    "perspective": lambda value: F.perspective(value, None, None, coefficients=[1.0, 0, 0, 0, 1, 0, 0, 0]),
    "elastic": lambda value: F.elastic(value, torch.zeros(1, 1, 1, 2)),
}


def missing_kernel(value: tv_tensors.TVTensor, functionals: Sequence[str]) -> str | None:
    """The first of torchvision's functionals that has no kernel for the type of a value, None if all have one.

    torchvision's transforms hand back what has none, unmoved and unsaid.
    """
    for name in functionals:
        try:
            _PROBES[name](value)
        except TypeError as error:
            if "supports inputs of type" in str(error):
                return name
        except (ValueError, RuntimeError):
            pass  # it has one, which does not like what it was asked
    return None
