"""Points that move with their image, as a TVTensor with kernels for torchvision's transforms.

By the one convention: continuous pixels, pixel i spans [i, i + 1), a horizontal flip is width - x, as torchvision has
it for boxes. Its own KeyPoints, which it has since 0.23, flip to width - 1 - x.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as nnf
from torch import Tensor
from torchvision import tv_tensors
from torchvision.transforms.v2 import functional as F


class Points(tv_tensors.TVTensor):
    """Points (..., 2), float, of an image of canvas_size (height, width): landmarks, corners of quads, dots.

    They are never dropped or clamped: what has left the image lies outside of [0, width) x [0, height). NaN is a point
    that is nowhere, and stays so.
    """

    canvas_size: tuple[int, int]

    if TYPE_CHECKING:  # that of Tensor, which pyright takes for ours, knows no canvas

        def __init__(self, data: Any, *, canvas_size: Sequence[int]) -> None: ...

    def __new__(cls, data: Any, *, canvas_size: Sequence[int]) -> Points:
        places = torch.as_tensor(data)
        if places.ndim < 1 or places.shape[-1] != 2:
            raise ValueError(f"points must be (..., 2), got {tuple(places.shape)}")
        return cls._of(places if places.is_floating_point() else places.float(), canvas_size)

    @classmethod
    def _of(cls, places: Tensor, canvas_size: Sequence[int]) -> Points:
        points = places.as_subclass(cls)
        points.canvas_size = int(canvas_size[0]), int(canvas_size[1])
        return points

    @classmethod
    def wrap(cls, tensor: Tensor, like: Any, **changed: Any) -> Points:  # type: ignore[override]
        return cls._of(tensor, changed.get("canvas_size", like.canvas_size))

    @classmethod
    def _wrap_output(cls, output: Any, args: Any = (), kwargs: Any = None) -> Any:
        """A copy of points, on another device or detached, is of the same image."""
        if isinstance(output, Tensor) and isinstance(args[0], Points):
            return cls._of(output, args[0].canvas_size)
        return output

    def __repr__(self, *, tensor_contents: Any = None) -> str:  # type: ignore[override]
        return f"Points({self.as_subclass(Tensor)!r}, canvas_size={self.canvas_size})"


Size = tuple[int, int]


def place_points(points: Points, scale: Sequence[float], shift: Sequence[float], canvas_size: Sequence[int]) -> Points:
    """Points at (x, y) * scale + shift of an image of another size."""
    places = points.as_subclass(Tensor)
    return Points(places * places.new_tensor(scale) + places.new_tensor(shift), canvas_size=canvas_size)


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
    return nnf.grid_sample(field, grid, padding_mode="border", align_corners=False)[0, :, 0].T


# The kernels. Each takes what torchvision's functional of that name takes.


def _canvas_after(functional: Callable[..., Any], points: Points, *args: Any, **options: Any) -> Size:
    """The size that torchvision gives an image: what it says of a box around all of it."""
    height, width = points.canvas_size
    make: Any = tv_tensors.BoundingBoxes
    whole = make([[0.0, 0.0, width, height]], format="XYXY", canvas_size=points.canvas_size)
    return tuple(functional(whole, *args, **options).canvas_size)


def _get_size(points: Points) -> list[int]:
    return list(points.canvas_size)


def _horizontal_flip(points: Points) -> Points:
    return place_points(points, (-1, 1), (points.canvas_size[1], 0), points.canvas_size)


def _vertical_flip(points: Points) -> Points:
    return place_points(points, (1, -1), (0, points.canvas_size[0]), points.canvas_size)


def _resize(points: Points, size: Any, *args: Any, **options: Any) -> Points:
    after = _canvas_after(F.resize, points, size, *args, **options)
    scale = [new / old for new, old in zip(after, points.canvas_size, strict=True)]
    return place_points(points, scale[::-1], (0, 0), after)


def _crop(points: Points, top: int, left: int, height: int, width: int) -> Points:
    return place_points(points, (1, 1), (-left, -top), (height, width))


def _center_crop(points: Points, output_size: Any) -> Points:
    size = _canvas_after(F.center_crop, points, output_size)
    before = [  # where the part begins; below 0 where it is the larger one
        -((new - old) // 2) if new > old else round((old - new) / 2)
        for new, old in zip(size, points.canvas_size, strict=True)
    ]
    return _crop(points, before[0], before[1], *size)


def _resized_crop(points: Points, top: int, left: int, height: int, width: int, size: Any, **options: Any) -> Points:
    return _resize(_crop(points, top, left, height, width), size)


def _pad(points: Points, padding: Any, fill: Any = None, padding_mode: str = "constant") -> Points:
    if padding_mode != "constant":
        raise ValueError(
            f"padding mode {padding_mode} shows parts of the image twice, and points cannot be in two places"
        )
    sides = [padding] if isinstance(padding, int) else list(padding)
    return place_points(points, (1, 1), (sides[0], sides[1 % len(sides)]), _canvas_after(F.pad, points, padding))


def _affine(
    points: Points,
    angle: float,
    translate: Sequence[float],
    scale: float,
    shear: Sequence[float],
    interpolation: Any = None,
    fill: Any = None,
    center: Sequence[float] | None = None,
) -> Points:
    shears = (shear, 0.0) if isinstance(shear, int | float) else (*shear, 0.0)[:2]
    return _turned(points, points.canvas_size, angle, translate, scale, shears, center)


def _rotate(
    points: Points,
    angle: float,
    interpolation: Any = None,
    expand: bool = False,
    center: Sequence[float] | None = None,
    fill: Any = None,
) -> Points:
    after = points.canvas_size
    if expand:
        # An image's: of a box around all of it torchvision rounds otherwise.
        canvas = F.rotate(torch.zeros(1, *after, dtype=torch.uint8), angle, expand=True, center=center)  # type: ignore[arg-type]
        after = canvas.shape[-2], canvas.shape[-1]
    return _turned(points, after, -angle, (0.0, 0.0), 1.0, (0.0, 0.0), center)


def _turned(
    points: Points,
    after: Size,
    angle: float,
    translate: Sequence[float],
    scale: float,
    shear: Sequence[float],
    center: Sequence[float] | None,
) -> Points:
    """Sheared, scaled and turned about a centre (x, y), by degrees; in an image of another size about the same middle.

    R(angle) scale Y(shear y) X(shear x), with X = [[1, -tan sx], [0, 1]] and Y = [[1, 0], [-tan sy, 1]].
    """
    height, width = points.canvas_size
    x, y = (width * 0.5, height * 0.5) if center is None else center
    turn, along, down = math.radians(angle), math.radians(shear[0]), math.radians(shear[1])
    cosine, sine = math.cos(turn - down) / math.cos(down), math.sin(turn - down) / math.cos(down)
    xx, xy = scale * cosine, scale * (-math.cos(turn - down) * math.tan(along) / math.cos(down) - math.sin(turn))
    yx, yy = scale * sine, scale * (-math.sin(turn - down) * math.tan(along) / math.cos(down) + math.cos(turn))
    to_x = xx * -x + xy * -y + (x + translate[0]) + (after[1] - width) / 2
    to_y = yx * -x + yy * -y + (y + translate[1]) + (after[0] - height) / 2
    return Points(_mapped(points, [[xx, xy, to_x], [yx, yy, to_y]]), canvas_size=after)


def _perspective(
    points: Points,
    startpoints: Any = None,
    endpoints: Any = None,
    interpolation: Any = None,
    fill: Any = None,
    coefficients: Sequence[float] | None = None,
) -> Points:
    if coefficients is None:
        coefficients = _coefficients(startpoints, endpoints)
    a, b, c, d, e, f, g, h = coefficients  # a pixel (x, y) shows (a x + b y + c, d x + e y + f) / (g x + h y + 1)
    whole = a * e - b * d
    if whole == 0:
        raise ValueError(f"the perspective {list(coefficients)} puts the image on a line")
    rows = [[e - f * h, -b + c * h, b * f - c * e], [-d + f * g, a - c * g, -a * f + c * d]]
    below = [(-e * g + d * h) / whole, (-a * h + b * g) / whole, 1.0]
    places = _mapped(points, [[value / whole for value in row] for row in rows])
    return Points(places.div_(_mapped(points, [below, below])), canvas_size=points.canvas_size)


def _coefficients(startpoints: Any, endpoints: Any) -> list[float]:
    """Those of the perspective that shows four startpoints at four endpoints."""
    rows, shown = [], []
    for (x, y), (u, v) in zip(endpoints, startpoints, strict=True):
        rows += [[x, y, 1, 0, 0, 0, -u * x, -u * y], [0, 0, 0, x, y, 1, -v * x, -v * y]]
        shown += [u, v]
    system, wanted = (torch.tensor(values, dtype=torch.float64) for values in (rows, shown))
    return torch.linalg.solve(system, wanted).tolist()


def _mapped(points: Points, matrix: Sequence[Sequence[float]]) -> Tensor:
    """(x, y, 1) times a matrix, 2 rows of 3."""
    places = points.as_subclass(Tensor)
    flat = places.reshape(-1, 2)
    flat = torch.cat([flat, torch.ones_like(flat[:, :1])], dim=1)
    return torch.matmul(flat, places.new_tensor(matrix).T).reshape(places.shape)


def _elastic(points: Points, displacement: Tensor, interpolation: Any = None, fill: Any = None) -> Points:
    places = find_places(points.as_subclass(Tensor), displacement)
    return Points(places.to(points.device, points.dtype), canvas_size=points.canvas_size)


for _functional, _kernel in {
    F.get_size: _get_size,
    F.horizontal_flip: _horizontal_flip,
    F.vertical_flip: _vertical_flip,
    F.resize: _resize,
    F.crop: _crop,
    F.center_crop: _center_crop,
    F.resized_crop: _resized_crop,
    F.pad: _pad,
    F.affine: _affine,
    F.rotate: _rotate,
    F.perspective: _perspective,
    F.elastic: _elastic,
}.items():
    F.register_kernel(_functional, Points)(_kernel)
