"""Random changes of place and shape that torchvision lacks, or moves boxes and points in by another convention.

Images, masks, boxes and points of a sample move together, as tv_tensors, in continuous pixels: pixel i spans
[i, i + 1). Points are tv_tensors.KeyPoints, which torchvision has since 0.23; without them there are no points to move.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision import tv_tensors
from torchvision.transforms import v2

from opsin.data.preprocessing import INTERPOLATIONS, cut_long

_POINTS: tuple[type, ...] = (tv_tensors.KeyPoints,) if hasattr(tv_tensors, "KeyPoints") else ()
_SIDE = 32  # points along each side of a box that are moved to find the box around what was in it


class RandomHorizontalFlip(v2.RandomHorizontalFlip):
    """torchvision's, with points at width - x as its boxes; its own points go to width - 1 - x."""

    def transform(self, inpt: Any, params: dict[str, Any]) -> Any:
        if isinstance(inpt, _POINTS):
            return _mirror(inpt, axis=0)
        return super().transform(inpt, params)


class RandomVerticalFlip(v2.RandomVerticalFlip):
    """torchvision's, with points at height - y as its boxes; its own points go to height - 1 - y."""

    def transform(self, inpt: Any, params: dict[str, Any]) -> Any:
        if isinstance(inpt, _POINTS):
            return _mirror(inpt, axis=1)
        return super().transform(inpt, params)


class ScaleJitterCrop(v2.Transform):
    """Resize so that the shorter side is a random number of pixels, then cut out a random place.

    Simonyan and Zisserman 2015 (VGG, arXiv:1409.1556), sec. 3.1: S in [256, 512]; min = max is the fixed scale there.
    """

    def __init__(
        self, size: Sequence[int], min: int = 256, max: int = 512, interpolation: Any = INTERPOLATIONS["bilinear"]
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
        if isinstance(inpt, (tv_tensors.BoundingBoxes, *_POINTS)):
            return follow(inpt, params["displacement"])
        return super().transform(inpt, params)


class ThinPlateSpline(v2.Transform):
    """Bend along the smoothest map that moves a grid of points as drawn. Bookstein 1989, IEEE PAMI 11(6), 567-585.

    grid: points along each side of a regular grid on the image, its borders included. distortion: each is moved by up
    to this part of the width and height, uniformly. fill, mask_fill: what comes in from outside.
    """

    def __init__(
        self,
        distortion: float = 0.1,
        grid: int = 4,
        interpolation: Any = INTERPOLATIONS["bilinear"],
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
        if isinstance(inpt, (tv_tensors.BoundingBoxes, *_POINTS)):
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


def follow(inpt: Any, displacement: Tensor) -> Any:
    """Boxes or points where their pixels come to lie in an image that is read at p + displacement(p).

    displacement: (1, H, W, 2), as in v2.functional.elastic. A box becomes the one around its moved outline, clamped as
    torchvision does. v2.functional.elastic itself takes -displacement for the inverse, and whole pixels.
    """
    if isinstance(inpt, _POINTS):
        return _wrap(find_places(inpt.as_subclass(Tensor), displacement), inpt)
    if inpt.format.value not in ("XYXY", "XYWH", "CXCYWH"):
        raise ValueError(f"boxes of format {inpt.format.value} cannot be bent; give their corners as points")
    corners = v2.functional.convert_bounding_box_format(inpt, new_format=tv_tensors.BoundingBoxFormat.XYXY)
    x1, y1, x2, y2 = corners.as_subclass(Tensor).to(displacement.dtype)[:, None].unbind(-1)
    along = torch.linspace(0, 1, _SIDE, dtype=displacement.dtype, device=inpt.device)
    x, y = x1 + (x2 - x1) * along, y1 + (y2 - y1) * along
    sides = ((x, y1.expand_as(x)), (x, y2.expand_as(x)), (x1.expand_as(y), y), (x2.expand_as(y), y))
    outline = find_places(torch.cat([torch.stack(side, dim=-1) for side in sides], dim=1), displacement)
    bent = torch.cat([outline.amin(dim=1), outline.amax(dim=1)], dim=-1)
    bent = v2.functional.clamp_bounding_boxes(_wrap(bent, corners))
    return v2.functional.convert_bounding_box_format(bent, new_format=inpt.format)


def find_places(points: Tensor, displacement: Tensor) -> Tensor:
    """Solve p + displacement(p) = point, in pixels, for each of points (..., 2); in the field's type, on its device.

    Beyond its border the field is constant. p = point - displacement(p) is iterated, which converges where the field is
    steeper nowhere than 1. Where that fails the image folds and shows a point more than once: the nearest pixel then.
    """
    if not points.numel():
        return points
    size = displacement.new_tensor(displacement.shape[2:0:-1])  # width, height
    field = (displacement * size / 2).permute(0, 3, 1, 2)
    wanted = places = points.reshape(-1, 2).to(field)
    for _ in range(50):
        previous, places = places, wanted - _read(field, places, size)
        if (places - previous).abs().max() < 1e-3:  # a thousandth of a pixel
            break
    missed = (places + _read(field, places, size) - wanted).abs().amax(dim=1) > 0.1
    if missed.any():
        rows, columns = (torch.arange(side, device=field.device) + 0.5 for side in field.shape[2:])
        pixels = torch.cartesian_prod(rows, columns).flip(1)
        sources = pixels + field[0].flatten(1).T
        nearest = [int((sources - point).square().sum(dim=1).argmin()) for point in wanted[missed]]
        places[missed] = pixels[nearest]
    return places.reshape(points.shape)


def _read(field: Tensor, places: Tensor, size: Tensor) -> Tensor:
    """The field (1, 2, H, W) at places (N, 2) in pixels."""
    grid = (2 * places / size - 1)[None, None]
    return F.grid_sample(field, grid, padding_mode="border", align_corners=False)[0, :, 0].T


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


def _mirror(points: Any, axis: int) -> Any:
    side = points.canvas_size[1 - axis]
    mirrored = points.as_subclass(Tensor).clone()
    mirrored[..., axis] = side - mirrored[..., axis]
    return _wrap(mirrored, points)


def _wrap(places: Tensor, inpt: Any) -> Any:
    """Places as the boxes or points that they were: of the same type, and on the same device."""
    places = places if inpt.is_floating_point() else places.round()
    return tv_tensors.wrap(places.to(inpt.device, inpt.dtype), like=inpt)  # type: ignore[call-arg]


def _size(flat_inputs: list[Any]) -> list[int]:
    """Height and width of what is to be moved together."""
    return v2.functional.get_size(flat_inputs[0])
