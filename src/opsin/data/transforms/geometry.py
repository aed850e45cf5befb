"""Random changes of place and shape: flips, torchvision's transforms as steps, and those of v2's kind that it lacks.

All that has a place in an image moves with it, in continuous pixels: pixel i spans [i, i + 1).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision import tv_tensors
from torchvision.transforms import InterpolationMode, v2

from opsin.data.preprocessing import cut_long
from opsin.data.transforms.class_map import ClassMap
from opsin.data.transforms.draws import check_probability, happens
from opsin.data.transforms.points import Points, find_places
from opsin.data.transforms.sample import Frame, Scene, mirror
from opsin.structures import Instances

_SIDE = 32  # points along each side of a box that are moved to find the box around what was in it


@dataclass(frozen=True)
class RandomHorizontalFlip:
    """Left to right; x becomes width - x. torchvision's, draw for draw."""

    kernels: ClassVar[Sequence[str]] = ("horizontal_flip",)
    p: float = 0.5

    def __post_init__(self) -> None:
        check_probability(self.p)

    def __call__(self, scene: Scene, frame: Frame) -> Scene:
        return mirror(scene, axis=0) if happens(self.p) else scene


@dataclass(frozen=True)
class RandomVerticalFlip:
    """Upside down; y becomes height - y. torchvision's, draw for draw."""

    kernels: ClassVar[Sequence[str]] = ("vertical_flip",)
    p: float = 0.5

    def __post_init__(self) -> None:
        check_probability(self.p)

    def __call__(self, scene: Scene, frame: Frame) -> Scene:
        return mirror(scene, axis=1) if happens(self.p) else scene


@dataclass(frozen=True)
class Geometric:
    """A transform of v2's kind that moves things, as a step: a box becomes the one around where its outline goes.

    kernels: torchvision's functionals that it calls. bends: straight lines do not stay straight, so that a box is
    followed along its sides, not by its corners alone. sizes: the image has the size of the input afterwards.
    """

    transform: v2.Transform
    kernels: Sequence[str]
    bends: bool = False
    sizes: bool = False

    @property
    def any_channels(self) -> bool:
        return self.sizes

    def __call__(self, scene: Scene, frame: Frame) -> Scene:
        sized = self.sizes or scene.sized
        if scene.plain:
            return scene._replace(image=self.transform(scene.image), sized=sized)
        size, instances = scene.size, scene.instances
        inputs = {"image": tv_tensors.Image(scene.image), "moving": dict(scene.moving)}
        if instances is not None:
            inputs["instances"] = _parts(instances, size, self.bends)
        outputs = self.transform(inputs)
        image = outputs["image"].as_subclass(Tensor)
        if instances is not None:
            instances = _with_parts(instances, outputs["instances"], image.shape[-2:])
        return frame.cut(scene._replace(image=image, instances=instances, moving=outputs["moving"], sized=sized))


def _parts(instances: Instances, size: tuple[int, int], bends: bool) -> dict[str, Any]:
    """What a transform of tv_tensors moves: the outlines of the boxes, masks, and points and polygons in one."""
    if not len(instances):
        return {}
    corners = outlines(instances.boxes) if bends else instances.boxes[:, [[0, 1], [2, 1], [2, 3], [0, 3]]]
    parts: dict[str, Any] = {"boxes": Points(corners, canvas_size=size)}
    if instances.masks is not None:
        parts["masks"] = ClassMap(instances.masks)
    if (places := _places(instances)) and sum(map(len, places)):
        parts["points"] = Points(torch.cat(places), canvas_size=size)
    return parts


def _with_parts(instances: Instances, parts: dict[str, Any], size: Sequence[int]) -> Instances:
    plain = {key: value.as_subclass(Tensor) for key, value in parts.items()}
    if "boxes" in plain:
        low, high = plain["boxes"].amin(dim=1), plain["boxes"].amax(dim=1)
        instances = replace(instances, boxes=torch.cat([low, high], dim=1), masks=plain.get("masks"))
    elif instances.masks is not None:
        instances = replace(instances, masks=instances.masks.new_zeros(0, *size))
    if "points" in plain:
        moved = list(plain["points"].split([len(part) for part in _places(instances)]))
        points = None if instances.points is None else moved.pop(0).view_as(instances.points)
        instances = replace(instances, points=points, polygons=None if instances.polygons is None else moved)
    return instances


def _places(instances: Instances) -> list[Tensor]:
    """Points and polygons, each (any, 2)."""
    points = [] if instances.points is None else [instances.points.flatten(0, 1)]
    return points + (instances.polygons or [])


class ScaleJitterCrop(v2.Transform):
    """Resize so that the shorter side is a random number of pixels, then cut out a random place.

    Simonyan and Zisserman 2015 (VGG, arXiv:1409.1556), sec. 3.1: S in [256, 512]; min = max is the fixed scale there.
    """

    def __init__(
        self, size: Sequence[int], min: int = 256, max: int = 512, interpolation: Any = InterpolationMode.BILINEAR
    ) -> None:
        super().__init__()
        self.size = tuple(size)
        if not self.size[0] <= min <= max or not self.size[1] <= min:
            raise ValueError(f"min {min} and max {max} must be in order, and not below the size {self.size}")
        self.min, self.max, self.interpolation = min, max, interpolation

    def make_params(self, flat_inputs: list[Any]) -> dict[str, Any]:
        height, width = cut_long(torch.empty(_size(flat_inputs), device="meta"), *self.size).shape
        shorter = int(torch.randint(self.min, self.max + 1, ()))
        resized = (shorter, shorter * width // height) if height <= width else (shorter * height // width, shorter)
        top, left = (int(torch.randint(0, r - s + 1, ())) for r, s in zip(resized, self.size, strict=True))
        return {"cut": [height, width], "resized": list(resized), "top": top, "left": left}

    def transform(self, inpt: Any, params: dict[str, Any]) -> Any:
        if v2.functional.get_size(inpt) != params["cut"]:
            inpt = v2.functional.center_crop(inpt, params["cut"])
        inpt = v2.functional.resize(inpt, params["resized"], self.interpolation, antialias=True)
        return v2.functional.crop(inpt, params["top"], params["left"], *self.size)


class ElasticTransform(v2.ElasticTransform):
    """torchvision's, drawn faster, with boxes and points that go where their pixels go. Simard et al. 2003, section 2.

    A pixel is read at its place plus a field: noise, uniform in [-1, 1], smoothed by a Gaussian of sigma pixels, times
    alpha / 2 pixels. So torchvision's alpha is twice the paper's, whose values for digits are alpha=68, sigma=4 here.
    """

    def make_params(self, flat_inputs: list[Any]) -> dict[str, Any]:
        size = height, width = _size(flat_inputs)
        fields = []
        for alpha, sigma, side in zip(self.alpha, self.sigma, (width, height), strict=True):
            noise = torch.rand(1, 1, *size) * 2 - 1
            if sigma > 0:
                noise = _smooth(noise, int(8 * sigma + 1) | 1, self.sigma)
            fields.append(noise * alpha / side)
        return {"displacement": torch.cat(fields, dim=1).permute(0, 2, 3, 1)}

    def transform(self, inpt: Any, params: dict[str, Any]) -> Any:
        if isinstance(inpt, tv_tensors.BoundingBoxes):
            return follow(inpt, params["displacement"])
        return super().transform(inpt, params)


class ElasticGrid(v2.Transform):
    """Bend by random displacements of a coarse grid. Ronneberger et al. 2015 (U-Net, arXiv:1505.04597), section 3.1.

    grid: points along each side, on the borders of the image and between; 3 in the paper. sigma: of the Gaussian that
    displacements across and down are drawn from, in pixels; 10 in the paper. What a pixel moves by is interpolated,
    bicubic. fill: what comes in from outside. Images are read bilinear.
    """

    def __init__(
        self, grid: int = 3, sigma: float = 10.0, interpolation: Any = InterpolationMode.BILINEAR, fill: Any = 0
    ) -> None:
        super().__init__()
        if grid < 2:
            raise ValueError(f"grid is {grid}; expected 2 points or more along each side")
        if not sigma >= 0:
            raise ValueError(f"sigma is {sigma}; expected a number of pixels, 0 or more")
        self.grid, self.sigma, self.interpolation, self.fill = grid, sigma, interpolation, fill

    def make_params(self, flat_inputs: list[Any]) -> dict[str, Any]:
        height, width = _size(flat_inputs)
        moves = self.sigma * torch.randn(1, 2, self.grid, self.grid)
        smooth = F.interpolate(moves, (height, width), mode="bicubic", align_corners=True)
        # 2: torch counts an image's width and height from -1 to 1.
        return {"displacement": smooth.permute(0, 2, 3, 1) * 2 / torch.tensor([width, height])}

    def transform(self, inpt: Any, params: dict[str, Any]) -> Any:
        displacement = params["displacement"]
        if isinstance(inpt, tv_tensors.BoundingBoxes):
            return follow(inpt, displacement)
        return v2.functional.elastic(inpt, displacement, self.interpolation, fill=self.fill)


class ThinPlateSpline(v2.Transform):
    """Bend along the smoothest map that moves a grid of points as drawn. Bookstein 1989, IEEE PAMI 11(6), 567-585.

    grid: points along each side of a regular grid on the image, its borders included. distortion: each is moved by up
    to this part of the width and height, uniformly. fill, mask_fill: what comes in from outside.
    """

    def __init__(
        self,
        distortion: float = 0.1,
        grid: int = 4,
        interpolation: Any = InterpolationMode.BILINEAR,
        fill: float | Sequence[float] = 0,
        mask_fill: float = 0,
    ) -> None:
        super().__init__()
        if grid < 2:
            raise ValueError(f"grid is {grid}; expected 2 points or more along each side")
        limit = 0.5 / (grid - 1)
        if not 0 <= distortion < limit:
            raise ValueError(f"distortion is {distortion}; expected less than {limit:g}, half a step of the grid")
        self.distortion, self.grid, self.interpolation = distortion, grid, interpolation
        self.fill, self.mask_fill = fill, mask_fill

    def make_params(self, flat_inputs: list[Any]) -> dict[str, Any]:
        height, width = _size(flat_inputs)
        moves = (torch.rand(self.grid**2, 2) * 2 - 1) * self.distortion
        # 2: torch counts an image's width and height from -1 to 1.
        return {"displacement": (_grid_weights(height, width, self.grid) @ (2 * moves)).view(1, height, width, 2)}

    def transform(self, inpt: Any, params: dict[str, Any]) -> Any:
        displacement = params["displacement"]
        if isinstance(inpt, tv_tensors.BoundingBoxes):
            return follow(inpt, displacement)
        fill = self.mask_fill if isinstance(inpt, tv_tensors.Mask) else self.fill
        return v2.functional.elastic(inpt, displacement, self.interpolation, fill=fill)  # type: ignore[arg-type]


def spline_weights(points: Tensor, controls: Tensor) -> Tensor:
    """Weights (N, K) that make, of values at K controls, those of the thin-plate spline through them at N points.

    points: (N, 2), controls: (K, 2), distinct and not all on one line. The spline is sum_k w_k U(|p - c_k|) + a'(1, p)
    with U(r) = r^2 log r^2 (Bookstein's eq. 5 to 7), linear in the values: the weights are one matrix for all of them.
    """
    controls = controls.to(torch.float64)
    count = len(controls)
    system = controls.new_zeros(count + 3, count + 3)
    system[:count] = _spline_terms(controls, controls)
    system[count:, :count] = system[:count, count:].T
    solved = torch.linalg.solve(system, torch.eye(count + 3, count, dtype=system.dtype))
    return (_spline_terms(points.to(torch.float64), controls) @ solved).to(points.dtype)


def outlines(boxes: Tensor) -> Tensor:
    """Places along the sides of boxes (N, 4): (N, places, 2)."""
    x1, y1, x2, y2 = boxes[:, None].unbind(-1)
    along = torch.linspace(0, 1, _SIDE, dtype=boxes.dtype, device=boxes.device)
    x, y = x1 + (x2 - x1) * along, y1 + (y2 - y1) * along
    sides = ((x, y1.expand_as(x)), (x, y2.expand_as(x)), (x1.expand_as(y), y), (x2.expand_as(y), y))
    return torch.cat([torch.stack(side, dim=-1) for side in sides], dim=1)


def follow(boxes: Any, displacement: Tensor) -> Any:
    """tv_tensors.BoundingBoxes where their pixels come to lie in an image that is read at p + displacement(p).

    displacement: (1, H, W, 2), as in v2.functional.elastic. A box becomes the one around its moved outline, clamped as
    torchvision does. v2.functional.elastic itself takes -displacement for the inverse, and whole pixels.
    """
    if boxes.format.value not in ("XYXY", "XYWH", "CXCYWH"):
        raise ValueError(f"boxes of format {boxes.format.value} cannot be bent; give their corners as points")
    corners = v2.functional.convert_bounding_box_format(boxes, new_format=tv_tensors.BoundingBoxFormat.XYXY)
    outline = find_places(outlines(corners.as_subclass(Tensor).to(displacement.dtype)), displacement)
    bent = torch.cat([outline.amin(dim=1), outline.amax(dim=1)], dim=-1)
    bent = bent if boxes.is_floating_point() else bent.round()
    bent = tv_tensors.wrap(bent.to(boxes.device, boxes.dtype), like=corners)  # type: ignore[call-arg]
    bent = v2.functional.clamp_bounding_boxes(bent)
    return v2.functional.convert_bounding_box_format(bent, new_format=boxes.format)


def _spline_terms(points: Tensor, controls: Tensor) -> Tensor:
    """U of the distances to the controls, and the affine 1, x, y: (N, K + 3)."""
    squares = (points[:, None] - controls).square().sum(dim=-1)
    return torch.cat([torch.xlogy(squares, squares), torch.ones_like(points[:, :1]), points], dim=1)


@lru_cache(maxsize=2)  # images that come here have the network's size: it is made once
def _grid_weights(height: int, width: int, grid: int) -> Tensor:
    """`spline_weights` (H W, grid^2), float32, of every pixel's centre, for a regular grid over the image."""
    rows, columns = ((torch.arange(side, dtype=torch.float64) + 0.5) for side in (height, width))
    lines = torch.linspace(0, 1, grid, dtype=torch.float64)
    controls = torch.cartesian_prod(lines * height, lines * width)
    scale = max(height, width)  # the spline is the same in any unit; this one keeps the system well conditioned
    return spline_weights(torch.cartesian_prod(rows, columns) / scale, controls / scale).float()


def _smooth(noise: Tensor, taps: int, sigmas: Sequence[float]) -> Tensor:
    """A Gaussian blur of (1, 1, H, W), one direction after the other; sigmas: of x and y."""
    reach = taps // 2
    mode = "reflect" if reach < min(noise.shape[-2:]) else "replicate"
    noise = F.pad(noise, [reach] * 4, mode=mode)
    offsets = torch.arange(-reach, reach + 1, dtype=noise.dtype)
    for sigma, shape in zip(sigmas, ((1, 1, 1, taps), (1, 1, taps, 1)), strict=True):
        noise = F.conv2d(noise, torch.softmax(-offsets.square() / (2 * sigma**2), dim=0).view(shape))
    return noise


def _size(flat_inputs: list[Any]) -> list[int]:
    """Height and width of what is to be moved together."""
    return v2.functional.get_size(flat_inputs[0])
