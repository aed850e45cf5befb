"""Large images in overlapping tiles: how they are cut, how large a tile is, and what is known of it from training.

A network sees an image at the size of its input, so what is small in a large image is lost. In a tile it is as large as
the objects were that the network was trained on. The whole image is looked at as well, once, as always: what is larger
than a tile is found there. `Predictor.merge` makes one answer of all of them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from torch import Tensor
from torch.nn.functional import pad

from opsin.data import Preprocessing, Split
from opsin.data.images import UnreadableImage
from opsin.errors import InputError

Size = tuple[int, int]  # height and width
Answers = list[dict[str, Any]]
QUANTILES = (0.1, 0.5, 0.9, 0.99, 1.0)  # of the sizes of objects that are saved with a model
_MEASURED = 2000  # images whose sizes are read for that, evenly spaced over the split
_UNKNOWN = 0.25  # of a tile's side: the overlap where nothing is known of the objects
_LEAST = 8  # pixels: the smallest side of a tile that can be asked for


@dataclass(frozen=True)
class Place:
    """A part of an image, in its pixels."""

    top: int
    left: int
    height: int
    width: int

    @property
    def box(self) -> tuple[int, int, int, int]:
        """xyxy."""
        return self.left, self.top, self.left + self.width, self.top + self.height

    def inner(self, size: Size) -> tuple[bool, bool, bool, bool]:
        """Which of the sides of `box` lie within an image of this size, so that something may be cut there."""
        x1, y1, x2, y2 = self.box
        return x1 > 0, y1 > 0, x2 < size[1], y2 < size[0]


@dataclass(frozen=True)
class Tiling:
    """Tiles of one size, which overlap by at least so many pixels. size, overlap: (height, width).

    filled: whether a tile that is narrower than that, of an image that is, is filled up with black to its size; else it
    would be stretched where the network's input is made of it. whole: whether the whole image is looked at too.
    """

    size: Size
    overlap: Size
    filled: bool = False
    whole: bool = True

    def places(self, size: Size) -> list[Place]:
        """The tiles of an image of (height, width): they cover it to the pixel, and none reaches out of it."""
        rows, columns = (_spans(size[axis], self.size[axis], self.overlap[axis]) for axis in (0, 1))
        return [Place(top, left, height, width) for top, height in rows for left, width in columns]

    def cut(self, image: Tensor, place: Place) -> Tensor:
        """A tile of an image (C, H, W)."""
        part = image[..., place.top : place.top + place.height, place.left : place.left + place.width]
        below, right = self.size[0] - place.height, self.size[1] - place.width
        return pad(part, (0, right, 0, below)) if self.filled and (below or right) else part

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {"size": list(self.size), "overlap": list(self.overlap), "whole": self.whole}

    def describe(self) -> str:
        """In words."""
        (height, width), (rows, columns) = self.size, self.overlap
        overlap = f"{rows}" if rows == columns else f"{rows} and {columns}"
        return f"tiles of {height}x{width} pixels that overlap by {overlap}, beside the whole image"


def _spans(length: int, side: int, overlap: int) -> list[tuple[int, int]]:
    """Starts and lengths along one axis, evenly spread."""
    if length <= side:
        return [(0, length)]
    count = -(-(length - overlap) // (side - overlap))
    return [(number * (length - side) // (count - 1), side) for number in range(count)]


@dataclass(frozen=True)
class ObjectSizes:
    """How large the objects were that a model was trained on.

    scale: pixels of the input for one of the image, down and across, the median over the objects. image, input: of the
    heights and the widths of their boxes, (height, width) at each of `QUANTILES`, in pixels of the images and of the
    input.
    """

    count: int
    scale: tuple[float, float]
    image: list[tuple[float, float]]
    input: list[tuple[float, float]]

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON, rounded."""
        rows = {name: [[round(v, 2) for v in pair] for pair in getattr(self, name)] for name in ("image", "input")}
        return {"count": self.count, "scale": [round(v, 6) for v in self.scale], "quantiles": list(QUANTILES), **rows}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> ObjectSizes:
        """What `to_dict` gave. Raises InputError for anything else."""
        try:
            scale, *rows = (np.array(values[name], np.float64) for name in ("scale", "image", "input"))
            shapes = [scale.shape, *(row.shape for row in rows)]
            whole = all(np.isfinite(row).all() and (row > 0).all() for row in (scale, *rows))
            if not whole or shapes != [(2,), (len(QUANTILES), 2), (len(QUANTILES), 2)]:
                raise ValueError
            image, given = ([(float(h), float(w)) for h, w in row] for row in rows)
            return cls(int(values["count"]), (float(scale[0]), float(scale[1])), image, given)
        except (KeyError, TypeError, ValueError):
            raise InputError("what the model says of the sizes of its training objects is damaged") from None


def measure_objects(split: Split, preprocessing: Preprocessing | None) -> ObjectSizes | None:
    """The sizes of a split's objects; None where its truth knows of none, or there are no images."""
    if preprocessing is None or split.truth is None or split.inputs.key != "image":
        return None
    sides, placed, scales = [], [], []
    for i in np.unique(np.linspace(0, len(split) - 1, min(len(split), _MEASURED)).astype(int)).tolist():
        boxes = split.truth.extents(i)
        if boxes is None or not len(boxes):
            continue
        try:
            size = split.inputs.size(i)
        except UnreadableImage:
            continue
        if size is None:
            return None
        scale_x, scale_y, _, _ = preprocessing.transform(*size)
        own = (boxes[:, [3, 2]] - boxes[:, [1, 0]]).double().numpy()
        own = own[(own > 0).all(axis=1)]
        sides.append(own)
        placed.append(own * [scale_y, scale_x])
        scales.append(np.broadcast_to([scale_y, scale_x], own.shape))
    if not sum(map(len, sides)):
        return None
    image, given = (
        [(float(h), float(w)) for h, w in np.quantile(np.concatenate(rows), QUANTILES, axis=0)]
        for rows in (sides, placed)
    )
    scale_y, scale_x = np.median(np.concatenate(scales), axis=0).tolist()
    return ObjectSizes(sum(map(len, sides)), (scale_y, scale_x), image, given)


def read_tile(given: str | int | None) -> str | int | None:
    """What `tile` may be: "auto", the side of a tile in pixels, "off"; None where nothing was given.

    Raises InputError for anything else.
    """
    if given is None or given in ("auto", "off"):
        return given
    try:
        side = int(given)
    except ValueError:
        side = 0
    if isinstance(given, bool) or (side != given and str(side) != given) or side < _LEAST:
        raise InputError(f"tile is {given!r}; expected auto, off, or the side of a tile in pixels, {_LEAST} or more")
    return side


def choose_tiling(
    tile: str | int, objects: Mapping[str, Any], preprocessing: Preprocessing, name: str
) -> Tiling | None:
    """The tiles of a model. tile: what `read_tile` gave. objects: `ObjectSizes.to_dict()`, or empty. name: its own.

    "auto": an object that is as large, in pixels of its image, as those of the training were in theirs is as large in
    the input of the network as they were. No tile is then smaller than 99 of 100 of them. Tiles overlap by the largest,
    or by half where it is larger. Raises InputError for a model of which the sizes are not known.
    """
    if tile == "off":
        return None
    if preprocessing.fit == "crop":
        raise InputError(f"the input of {name} is cut out of the middle of an image, and tiles would leave gaps")
    known = ObjectSizes.from_dict(objects) if objects else None
    if tile != "auto":
        side = int(tile)
        share = (_UNKNOWN, _UNKNOWN)
        if known is not None:  # they are expected as large in the input as they were
            largest = known.input[-1]
            share = (largest[0] / preprocessing.size[0], largest[1] / preprocessing.size[1])
        overlap = tuple(_capped(side * part, side) for part in share)
        return Tiling((side, side), (overlap[0], overlap[1]), preprocessing.fit == "squash")
    if known is None:
        raise InputError(
            f"tile=auto goes by the sizes of the objects that a model was trained on, and {name} was saved without "
            f"them; give the side of a tile in pixels, such as tile={max(preprocessing.size)}"
        )
    most = QUANTILES.index(0.99)
    size = [
        max(round(preprocessing.size[axis] / known.scale[axis]), int(np.ceil(known.image[most][axis])), _LEAST)
        for axis in (0, 1)
    ]
    overlap = [_capped(known.image[-1][axis], size[axis]) for axis in (0, 1)]
    return Tiling((size[0], size[1]), (overlap[0], overlap[1]), preprocessing.fit == "squash")


def _capped(wanted: float, side: int) -> int:
    return min(int(np.ceil(wanted)), side // 2)


@dataclass(frozen=True)
class Tiles:
    """A tiling at work. batch_size: tiles that are looked at together, however large an image is."""

    tiling: Tiling
    batch_size: int

    def answer(
        self,
        predictor: Any,
        images: Sequence[Tensor],
        answer: Callable[[Sequence[Tensor]], Answers],
        options: Mapping[str, Any],
    ) -> Answers:
        """The answers of images (C, H, W): as `answer` gives them, but for images that are larger than a tile.

        options: of the prediction, for `Predictor.merge`.
        """
        answers = answer(images)
        for number, image in enumerate(images):
            size = (image.shape[-2], image.shape[-1])
            places = self.tiling.places(size)
            if len(places) == 1:
                continue
            found = [answers[number]]
            for start in range(0, len(places), self.batch_size):
                found += answer([self.tiling.cut(image, one) for one in places[start : start + self.batch_size]])
            answers[number] = predictor.merge(found, [Place(0, 0, *size), *places], size, **options)
        return answers


@dataclass
class TileCount:
    """What an evaluation with tiles looked at. images: all; cut: those larger than a tile; tiles: of these together."""

    tiling: Tiling
    images: int = 0
    cut: int = 0
    tiles: int = 0

    def add(self, image: Tensor) -> None:
        """Count an image (C, H, W)."""
        count = len(self.tiling.places((image.shape[-2], image.shape[-1])))
        self.images += 1
        if count > 1:
            self.cut, self.tiles = self.cut + 1, self.tiles + count

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {**self.tiling.to_dict(), **{k: v for k, v in asdict(self).items() if k != "tiling"}}

    def describe(self) -> str:
        """A line for a terminal."""
        what = f"{self.tiling.describe()}: "
        if not self.cut:
            return f"{what}none of {self.images} images is larger than a tile"
        return f"{what}{self.cut} of {self.images} images were cut, into {self.tiles / self.cut:.0f} tiles on average"
