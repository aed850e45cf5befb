"""Steps that make one image of several, with all that is known of them: mosaic and MixUp."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor
from torchvision import tv_tensors

from opsin.data.coordinates import place
from opsin.data.transforms.class_map import ClassMap
from opsin.data.transforms.crops import zoomed
from opsin.data.transforms.draws import between, check_probability, check_range, happens
from opsin.data.transforms.points import Points, place_points
from opsin.data.transforms.sample import Frame, Scene, join
from opsin.errors import InputError

Partner = Callable[[int], Scene]  # the k-th of a step's partners, as far along as the scene that it is for
Quarter = tuple[slice, slice]  # rows, columns


@dataclass(frozen=True)
class Mosaic:
    """Four images in one, each cut at random to its quarter. Bochkovskiy et al. 2020 (YOLOv4, arXiv:2004.10934).

    cut: where the quarters meet, as parts of both sides. scale: of each image, times the size that the preprocessing
    gives it, but so large at least that it fills its quarter. An image that is not drawn (p) goes on as it is. p and
    cut are those of the authors' darknet.

    Class maps are put together as the images are. Points are those of all four, one after the other along their first
    axis; NaN those that their quarter does not show.
    """

    partners: ClassVar[int] = 3
    kernels: ClassVar[Sequence[str]] = ("crop", "resize")
    p: float = 0.5
    cut: Sequence[float] = (0.2, 0.8)
    scale: Sequence[float] = (0.5, 1.5)

    def __post_init__(self) -> None:
        check_probability(self.p)
        check_range("cut", self.cut, least=0.0, most=1.0)
        check_range("scale", self.scale, least=0.0)

    def __call__(self, scene: Scene, frame: Frame, partner: Partner) -> Scene:
        if not happens(self.p):
            return scene
        ends = [(0, min(max(1, round(side * between(self.cut))), side - 1), side) for side in frame.size]
        quarters, tiles = [], []
        for k in range(4):
            (top, bottom), (left, right) = ends[0][k // 2 : k // 2 + 2], ends[1][k % 2 : k % 2 + 2]
            quarters.append((slice(top, bottom), slice(left, right)))
            tiles.append(self._tile(partner(k - 1) if k else scene, frame, (bottom - top, right - left)))
        image = scene.image.new_empty(frame.preprocessing.channels, *frame.size)
        for (rows, columns), tile in zip(quarters, tiles, strict=True):
            image[:, rows, columns] = tile.image
        placed = [
            _placed(tile, rows, columns, frame.size) for tile, (rows, columns) in zip(tiles, quarters, strict=True)
        ]
        moving = {
            key: _put_together([tile.moving.get(key) for tile in tiles], quarters, frame.size, key)
            for key in scene.moving
        }
        return join(placed, image)._replace(moving=moving, sized=True)

    def _tile(self, scene: Scene, frame: Frame, size: tuple[int, int]) -> Scene:
        least = max(
            side / (length * scale) for side, length, scale in zip(size, scene.size, frame.scale(scene), strict=True)
        )
        zoom = max(between(self.scale), least)
        return frame.cut(zoomed(scene, frame, zoom, size, frame.colour(0)))


@dataclass(frozen=True)
class MixUp:
    """The sum of two images, and the objects of both. Zhang et al. 2019, arXiv:1902.04103, sec. 3.1.

    alpha: of the Beta distribution that the share is drawn from; the paper's 1.5 makes both visible, mostly. The two
    lie on each other as they are, not deformed, at the size of the input. Every object counts in full; the paper
    weights the loss of each by its image's share.
    """

    partners: ClassVar[int] = 1
    kernels: ClassVar[None] = None  # a class, or a point, is not half of one and half of another
    blends: ClassVar[bool] = True
    p: float = 0.5
    alpha: float = 1.5

    def __post_init__(self) -> None:
        check_probability(self.p)
        if not self.alpha > 0:
            raise ValueError("alpha must be above 0")

    def __call__(self, scene: Scene, frame: Frame, partner: Partner) -> Scene:
        if not happens(self.p):
            return scene
        share = float(torch.distributions.Beta(self.alpha, self.alpha).sample())
        other = partner(0)
        image = torch.lerp(other.image.float(), scene.image.float(), share).round_().to(torch.uint8)
        return join([scene, other], image)


def _placed(tile: Scene, rows: slice, columns: slice, size: tuple[int, int]) -> Scene:
    """A quarter's scene with its instances where they lie in the whole image."""
    if tile.instances is None:
        return tile
    instances = place(tile.instances, (1, 1), (columns.start, rows.start))
    if instances.masks is not None:
        masks = instances.masks.new_zeros(len(instances), *size)
        masks[:, rows, columns] = instances.masks
        instances.masks = masks
    return tile._replace(instances=instances)


def _put_together(tiles: Sequence[Any], quarters: Sequence[Quarter], size: tuple[int, int], key: str) -> Any:
    """One field of four quarters. Raises InputError for a kind that nothing is known of but how it moves."""
    first = tiles[0]
    if any(type(tile) is not type(first) for tile in tiles):
        raise InputError(f"an image whose field {key} is of another kind, or missing, cannot be mixed with the others")
    if isinstance(first, Points):
        placed = []
        for tile, (rows, columns) in zip(tiles, quarters, strict=True):
            places = tile.as_subclass(Tensor)
            shown = ((places >= 0) & (places < places.new_tensor(tile.canvas_size[::-1]))).all(dim=-1, keepdim=True)
            shown = Points(torch.where(shown, places, torch.nan), canvas_size=tile.canvas_size)
            placed.append(place_points(shown, (1, 1), (columns.start, rows.start), size).as_subclass(Tensor))
        return Points(torch.cat([one if one.ndim > 1 else one[None] for one in placed]), canvas_size=size)
    if not isinstance(first, ClassMap | tv_tensors.Image):
        raise InputError(f"augmentation mosaic cannot put together the field {key}, a {type(first).__name__}")
    whole = first.as_subclass(Tensor).new_empty(*first.shape[:-2], *size)
    for tile, (rows, columns) in zip(tiles, quarters, strict=True):
        whole[..., rows, columns] = tile.as_subclass(Tensor)
    return tv_tensors.wrap(whole, like=first)  # type: ignore[call-arg]
