"""Large images in tiles that are one map in the end: what overlaps is blended, and rows are given as they are done.

An image is looked at as large as the images of the training were in the network's input, whatever its own size. Tiles
are cut of it at that scale, at multiples of what the network divides sides by, so that all see the same grid; none is
of the whole image. A tile of a network without padding is cut with the pixels around it that it needs, mirrored at the
borders of the image alone (Ronneberger et al. 2015, arXiv:1505.04597, figure 2): its tiles meet without a seam.

How far the tiles of other networks overlap follows from their effective receptive field, see `find_reach`. In the
overlap each counts by a weight that falls to its edge. No more than a row of tiles is held at once.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from opsin.data.class_maps import count_pixels
from opsin.data.resizing import resize
from opsin.engine.tiles import Place, Tiles, Tiling
from opsin.segment.components import ComponentCounter
from opsin.segment.mirroring import Fitted, Size, find_sides, fit_input, take
from opsin.segment.resampling import find_line, resample_rows

Spans = Sequence[tuple[int, int]]  # starts and lengths
_GRID = 32  # pixels: a multiple of what any network halves its maps to, where it does not say
_STRIP = 1 << 22  # scores brought back to the image at a time


@dataclass(frozen=True)
class DenseTiling(Tiling):
    """Tiles of a map. size, overlap: (height, width) in pixels of the image at the scale that it is looked at.

    scale: pixels of that for one of the image, down and across. grid: what the places of tiles are multiples of.
    reach: how far the network looks, in words, for people.
    """

    whole: bool = False
    scale: tuple[float, float] = (1.0, 1.0)
    grid: int = _GRID
    reach: str = ""

    def scaled(self, size: Size) -> Size:
        """(height, width) of an image as it is looked at."""
        return max(1, round(size[0] * self.scale[0])), max(1, round(size[1] * self.scale[1]))

    def spans(self, length: int, axis: int) -> list[tuple[int, int]]:
        """Starts and lengths of the tiles along an axis of `length` pixels, as they are looked at."""
        side = self.size[axis]
        if length <= side:
            return [(0, length)]
        step = max(self.grid, (side - self.overlap[axis]) // self.grid * self.grid)
        starts = [0]
        while starts[-1] + side < length:
            last = -(-(length - side) // self.grid) * self.grid
            starts.append(min(starts[-1] + step, last))
        return [(start, min(side, length - start)) for start in starts]

    def places(self, size: Size) -> list[Place]:
        """The tiles of an image of (height, width), in its own pixels, rounded."""
        rows, columns = (
            [(round(a / self.scale[axis]), max(1, round(n / self.scale[axis]))) for a, n in self.spans(length, axis)]
            for axis, length in enumerate(self.scaled(size))
        )
        return [Place(top, left, height, width) for top, height in rows for left, width in columns]

    def describe(self) -> str:
        """In words."""
        own = [round(side / scale) for side, scale in zip(self.size, self.scale, strict=True)]
        shown = "" if self.scale == (1.0, 1.0) else f", looked at as {self.size[0]}x{self.size[1]}"
        overlap = f"{self.overlap[0]}" if self.overlap[0] == self.overlap[1] else " and ".join(map(str, self.overlap))
        reach = f" ({self.reach})" if self.reach else ""
        return f"tiles of {own[0]}x{own[1]} pixels{shown}, that overlap by {overlap}{reach}"


@dataclass
class _Rows:
    """The counts of a map that comes in rows: pixels and connected parts of each class."""

    num_classes: int
    overlapping: bool
    pixels: np.ndarray = field(init=False)
    counters: list[ComponentCounter] = field(init=False)

    def __post_init__(self) -> None:
        self.pixels = np.zeros(self.num_classes, np.int64)
        count = self.num_classes if self.overlapping else 1
        self.counters = [ComponentCounter(1 if self.overlapping else self.num_classes) for _ in range(count)]

    def add(self, rows: np.ndarray) -> None:
        self.pixels += count_pixels(rows, self.num_classes)[:-1]
        if self.overlapping:
            for counter, plane in zip(self.counters, rows, strict=True):
                counter.add(plane.astype(np.int8) - 1)
        else:
            self.counters[0].add(rows)

    def parts(self) -> np.ndarray:
        return np.concatenate([counter.counts() for counter in self.counters])


@dataclass(frozen=True)
class DenseTiles(Tiles):
    """Tiles of maps at work. tiling: a `DenseTiling`. batch_size: tiles that are looked at together."""

    def answer(
        self,
        predictor: Any,
        images: Sequence[Tensor],
        answer: Callable[[Sequence[Tensor]], list[dict[str, Any]]],
        options: Mapping[str, Any],
    ) -> list[dict[str, Any]]:
        """The answers of images (C, H, W), each by its tiles; one of the size of the network's input as always."""
        own = tuple(predictor.preprocessing.size)
        return [
            answer([image])[0]
            if self._tiling.scaled((image.shape[-2], image.shape[-1])) == own
            else self._answer(predictor, image, **options)
            for image in images
        ]

    @property
    def _tiling(self) -> DenseTiling:
        assert isinstance(self.tiling, DenseTiling)
        return self.tiling

    def _answer(
        self, predictor: Any, image: Tensor, threshold: float | None = None, scores: bool = False, **options: Any
    ) -> dict[str, Any]:
        size = (image.shape[-2], image.shape[-1])
        count = predictor.model.num_classes
        class_map = predictor.empty_map(count, size)
        kept = np.zeros((count, *size), np.float32) if scores else None
        counted, seams = _Rows(count, predictor.overlapping), Seams()
        for start, strip in self.stream(predictor, image, seams, **options):
            rows = slice(start, start + strip.shape[1])
            class_map[..., rows, :] = predictor.choose(strip, threshold)
            counted.add(class_map[..., rows, :])
            if kept is not None:
                kept[:, rows] = strip.float().numpy()
        found = predictor.answer_from(class_map, counted.pixels, counted.parts(), kept)
        return {**found, "tiles": seams.tiles, "seams": None if seams.largest is None else round(seams.largest, 6)}

    def stream(self, predictor: Any, image: Tensor, seams: Seams, **options: Any) -> Iterator[tuple[int, Tensor]]:
        """The first row of each strip of an image and its probabilities (K, n, W), on the CPU, from the top.

        seams: is told how far tiles differ. options: of `SegmentPredictor.probabilities`.
        """
        size = (image.shape[-2], image.shape[-1])
        looked = self._look(predictor, image)
        sides = (looked.shape[-2], looked.shape[-1])
        lines = [find_line(own, scaled / own, 0.0, scaled) for own, scaled in zip(size, sides, strict=True)]
        strip = max(1, _STRIP // (predictor.model.num_classes * size[1]))
        rows, columns = self._tiling.spans(sides[0], 0), self._tiling.spans(sides[1], 1)
        work = _Work(self, predictor, looked, rows, columns, seams, options)
        done, first, tail = 0, 0, None
        for place, (top, tall) in enumerate(rows):
            held = work.band(place, top + tall - first, top - first)
            if tail is not None:
                held[:, : tail.shape[1]] += tail
            stop = rows[place + 1][0] if place + 1 < len(rows) else sides[0]
            ready = int(torch.searchsorted(lines[0].second, stop))  # rows of the image that no further tile changes
            while done < ready:
                end = min(done + strip, ready)
                yield done, resample_rows(held, lines[0], lines[1], done, end, first)
                done = end
            if done < size[0]:
                keep = min(int(lines[0].first[done]), stop)
                tail, first = held[:, keep - first :].clone(), keep

    def _look(self, predictor: Any, image: Tensor) -> Tensor:
        """An image at the scale at which it is looked at, with the network's channels: uint8 (C, h, w)."""
        preprocessing = predictor.preprocessing
        size = self._tiling.scaled((image.shape[-2], image.shape[-1]))
        if image.shape[0] > preprocessing.channels:
            image = preprocessing.match_channels(image)
        if tuple(image.shape[-2:]) != size:
            image = resize(image, *size, preprocessing.interpolation)
        return preprocessing.match_channels(image)


class _Work:
    """The tiles of an image, row by row from the top."""

    def __init__(
        self, tiles: DenseTiles, predictor: Any, image: Tensor, rows: Spans, columns: Spans, seams: Seams, options: Any
    ) -> None:
        self.predictor, self.image, self.rows, self.columns = predictor, image, rows, columns
        self.at_once, self.seams, self.options = tiles.batch_size, seams, options
        self.down, self.across = _shares(rows, image.shape[-2]), _shares(columns, image.shape[-1])
        self.fitted: dict[Size, Fitted] = {}
        self.above: list[Tensor] = []  # of each tile of the row before, the pixels in the middle of the overlap

    def band(self, place: int, height: int, start: int) -> Tensor:
        """What a row of tiles adds to a map, (K, height, W), from its row `start` on; 0 before."""
        top, tall = self.rows[place]
        held: Tensor | None = None
        below: list[Tensor] = []
        before: Tensor | None = None
        middle_above = _middle(self.rows, place - 1) if place else None
        middle_below = _middle(self.rows, place)
        for number, tile in enumerate(self._tiles(top, tall)):
            left, wide = self.columns[number]
            self.seams.tiles += 1
            if before is not None:
                middle = _middle(self.columns, number - 1)
                assert middle is not None
                self.seams.compare(before, tile[..., middle - left])
            if middle_above is not None:
                self.seams.compare(self.above[number], tile[:, middle_above - top])
            middle = _middle(self.columns, number)
            before = None if middle is None else tile[..., middle - left].clone()
            if middle_below is not None:
                below.append(tile[:, middle_below - top].clone())
            if held is None:
                held = tile.new_zeros(len(tile), height, self.image.shape[-1])
            down, across = self.down[place].to(tile), self.across[number].to(tile)
            held[:, start:, left : left + wide].addcmul_(tile.mul(down[:, None]), across)
        self.above = below
        assert held is not None
        return held

    def _tiles(self, top: int, tall: int) -> Iterator[Tensor]:
        """The probabilities (K, h, w) of the tiles of a row, those of one size together."""
        waiting = list(self.columns)
        while waiting:
            size = (tall, waiting[0][1])
            lefts = [left for left, wide in waiting[: self.at_once] if wide == size[1]]
            del waiting[: len(lefts)]
            if size not in self.fitted:
                self.fitted[size] = fit_input(self.predictor.model, size)
            plan = self.fitted[size]
            windows = [take(self.image, top - plan.margin[0], one - plan.margin[1], plan.input) for one in lefts]
            batch = self.predictor.normalize(torch.stack(windows).to(self.predictor.device))
            yield from self.predictor.probabilities(batch, plan, **self.options)[..., : size[0], : size[1]].cpu()


@dataclass
class Seams:
    """How far two tiles differ, at most, in the probability of a class in the middle of where they overlap."""

    largest: float | None = None
    tiles: int = 0

    def compare(self, one: Tensor, other: Tensor) -> None:
        """The same pixels, (K, n), as two tiles have them."""
        self.largest = max(self.largest or 0.0, float((one - other).abs().max()))


def _middle(spans: Spans, place: int) -> int | None:
    """The pixel in the middle of where a tile overlaps with the next; None where it does not."""
    if place + 1 >= len(spans):
        return None
    end, start = sum(spans[place]), spans[place + 1][0]
    return (start + end) // 2 if start < end else None


def _shares(spans: Spans, length: int) -> list[Tensor]:
    """Of each tile along an axis what its pixels count, (n,): falling to the edges that others overlap; 1 in all."""
    weights = []
    for place, (start, side) in enumerate(spans):
        pixels = torch.arange(side, dtype=torch.float64) + 0.5
        own = torch.ones(side, dtype=torch.float64)
        for other in (place - 1, place + 1):
            if not 0 <= other < len(spans):
                continue
            a, n = spans[other]
            overlap = min(start + side, a + n) - max(start, a)
            if overlap > 0:
                distance = pixels if other < place else side - pixels
                own = torch.minimum(own, distance / overlap)
        weights.append(own)
    total = torch.zeros(length, dtype=torch.float64)
    for (start, side), own in zip(spans, weights, strict=True):
        total[start : start + side] += own
    return [own / total[a : a + n] for (a, n), own in zip(spans, weights, strict=True)]


def grid_of(model: Any) -> int:
    """What the places of tiles are multiples of, so that every tile sees the same grid of a `Segmenter`."""
    _, step, _ = find_sides(model)
    return math.lcm(model.divisor, step, 16 if step > 1 else _GRID)
