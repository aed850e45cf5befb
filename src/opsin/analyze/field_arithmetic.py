"""What the units of a map see of the image: the algebra behind the receptive field.

One axis of a map is a `Slide`: unit i sees the rows (or columns) low(i) to high(i) of the image, for every whole i,
also beyond the border, as if the map went on for ever. A tensor is a `Sight`: which of its dimensions hold rows and
columns, behind whatever reshapes, and what its units see along each axis.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

Span = tuple[int, int]  # first and last pixel
Factor = tuple[int | None, int]  # (axis 0 for rows, 1 for columns, None for anything else; size): a part of a dimension
Layout = tuple[tuple[Factor, ...], ...]  # of each dimension its factors, outermost first; those of size 1 left out


@dataclass(frozen=True)
class Slide:
    """Unit q n + r sees lows[r] + q jump to highs[r] + q jump, where n = len(lows). Mostly n is 1.

    n is larger behind transposed convolutions, upsampling and adaptive pooling, whose units take turns. A unit that
    sees nothing has a low above its high.
    """

    lows: tuple[int, ...]
    highs: tuple[int, ...]
    jump: int

    def at(self, unit: int) -> Span:
        """The first and the last pixel that a unit sees."""
        q, r = divmod(unit, len(self.lows))
        return self.lows[r] + q * self.jump, self.highs[r] + q * self.jump

    def through(self, windows: Sequence[Iterable[int]], step: int) -> Slide:
        """The slide of a layer whose output unit q len(windows) + r reads the units windows[r] + q step of this one."""
        period = len(self.lows)
        turns = period // math.gcd(period, step)
        spans = []
        for turn in range(turns):
            for window in windows:
                seen = [self.at(unit + turn * step) for unit in window]
                seen = [(low, high) for low, high in seen if low <= high]
                spans.append((min(s[0] for s in seen), max(s[1] for s in seen)) if seen else (0, -1))
        return _shortest(spans, self.jump * turns * step // period)

    def union(self, other: Slide) -> Slide | None:
        """What a unit sees through either of two maps of one size; None where their units are not equally far apart."""
        if self.jump * len(other.lows) != other.jump * len(self.lows):
            return None
        period = math.lcm(len(self.lows), len(other.lows))
        spans = []
        for unit in range(period):
            seen = [s for s in (self.at(unit), other.at(unit)) if s[0] <= s[1]] or [(0, -1)]
            spans.append((min(s[0] for s in seen), max(s[1] for s in seen)))
        return _shortest(spans, self.jump * period // len(self.lows))


PIXELS = Slide((0,), (0,), 1)


def _shortest(spans: Sequence[Span], jump: int) -> Slide:
    """The slide of these spans with the fewest turns."""
    count = len(spans)
    for period in range(1, count + 1):
        if count % period or (jump * period) % count:
            continue
        small = jump * period // count
        if all(
            (low - spans[i % period][0], high - spans[i % period][1]) == (i // period * small,) * 2
            for i, (low, high) in enumerate(spans)
        ):
            return Slide(tuple(s[0] for s in spans[:period]), tuple(s[1] for s in spans[:period]), small)
    raise AssertionError("the whole period always fits")


@dataclass(frozen=True)
class Axis:
    """What units see along rows or columns. slide: what moves with the unit. span: what all of them see.

    exact: where it is False, slide and span are only upper bounds.
    """

    slide: Slide | None = None
    span: Span | None = None
    exact: bool = True


@dataclass(frozen=True)
class Sight:
    """Where the rows and columns of the image are in a tensor, and what its units see along them."""

    layout: Layout
    axes: Mapping[int, Axis]

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(math.prod(n for _, n in dim) for dim in self.layout)

    def place(self, axis: int) -> int | None:
        """The dimension that holds an axis, alone or with others; None where it is nowhere."""
        return next((d for d, dim in enumerate(self.layout) if any(a == axis for a, _ in dim)), None)

    def clean(self, dim: int) -> int | None:
        """The axis that a dimension holds and nothing else; None where there is none or more."""
        factors = self.layout[dim]
        return factors[0][0] if len(factors) == 1 else None

    def mixed(self, dims: Iterable[int]) -> Sight:
        """Every unit has seen all along these dimensions, which stay: softmax, layer norm."""
        sight = self
        for dim in dims:
            for axis, size in self.layout[dim]:
                if axis is not None:
                    sight = sight._seen(axis, size, keep=True)
        return sight

    def collapsed(self, dims: Iterable[int]) -> Sight:
        """As mixed, and the dimensions hold rows and columns no more: sums, products, anything not followed."""
        dims = [d % len(self.layout) for d in dims] if self.layout else []
        sight = self
        for dim in dims:
            for axis, size in self.layout[dim]:
                if axis is not None:
                    sight = sight._seen(axis, size, keep=False)
        layout = tuple(tuple((None, n) for _, n in dim) if d in dims else dim for d, dim in enumerate(sight.layout))
        return replace(sight, layout=layout)

    def blurred(self) -> Sight:
        """The same, as an upper bound only."""
        return replace(self, axes={a: replace(axis, exact=False) for a, axis in self.axes.items()})

    def moved(self, order: Sequence[int]) -> Sight:
        return replace(self, layout=tuple(self.layout[d] for d in order))

    def slid(self, dim: int, size: int, windows: Sequence[Iterable[int]], step: int) -> Sight:
        """The sight behind a layer that slides along a dimension: `Slide.through`, giving `size` units."""
        factors = self.layout[dim]
        axis = self.clean(dim)
        if axis is None or self.axes[axis].slide is None:
            sight = self.collapsed([dim]).blurred() if any(a is not None for a, _ in factors) else self
            return sight.resized(dim, size)
        old = self.axes[axis]
        assert old.slide is not None
        axes = {**self.axes, axis: replace(old, slide=old.slide.through(windows, step))}
        return replace(self, axes=axes).resized(dim, size, axis)

    def resized(self, dim: int, size: int, axis: int | None = None) -> Sight:
        """The dimension is `size` units of an axis, or of nothing that is followed."""
        factors = ((axis, size),) if size != 1 or axis is not None else ()
        return replace(self, layout=tuple(factors if d == dim else old for d, old in enumerate(self.layout)))

    def viewed(self, shape: Sequence[int]) -> Sight:
        """Behind a reshape: rows and columns are followed into merged dimensions and out again."""
        sight = self
        queue = [f for dim in self.layout for f in dim][::-1]
        layout: list[tuple[Factor, ...]] = []
        for size in shape:
            taken: list[Factor] = []
            missing = size
            if size == 1 and queue and queue[-1][1] == 1:  # the single row of a map that was pooled to one
                taken.append(queue.pop())
            while missing > 1:
                axis, n = queue.pop()
                if n == 1:
                    sight = sight if axis is None else sight._seen(axis, 1, keep=False)
                elif missing % n == 0:
                    taken.append((axis, n))
                    missing //= n
                elif n % missing == 0:
                    if axis is not None:  # rows cut into blocks: what was followed ends here
                        sight = sight._lost(axis, n)
                        taken = [(None if a == axis else a, k) for a, k in taken]
                    queue.append((None, n // missing))
                    taken.append((None, missing))
                    missing = 1
                else:
                    return replace(self._all_lost(), layout=tuple(((None, n),) if n != 1 else () for n in shape))
            layout.append(tuple(taken))
        for axis, n in queue:
            if axis is not None:
                sight = sight._seen(axis, n, keep=False)
        return replace(sight, layout=tuple(layout))

    def joined(self, other: Sight) -> Sight:
        """What units of a combination of two tensors see, the shapes broadcast."""
        rank = max(len(self.layout), len(other.layout))
        ours, theirs = (((),) * (rank - len(s.layout)) + s.layout for s in (self, other))
        layout = []
        left, right = self, other
        for a, b in zip(ours, theirs, strict=True):
            size_a, size_b = (math.prod(n for _, n in dim) for dim in (a, b))
            followed = [d for d in (a, b) if any(axis is not None for axis, _ in d)]
            if size_a != size_b:
                big, small = (a, b) if size_a > size_b else (b, a)
                for axis, n in small:
                    if axis is not None:
                        left, right = left._seen(axis, n, keep=False), right._seen(axis, n, keep=False)
                layout.append(big)
            elif len(followed) == 2 and a != b:
                for axis, n in (*a, *b):
                    if axis is not None:
                        left, right = left._lost(axis, n), right._lost(axis, n)
                layout.append(((None, size_a),))
            else:
                layout.append(followed[0] if followed else a)
        held = {axis for dim in layout for axis, _ in dim if axis is not None}
        axes = {}
        for axis in left.axes.keys() | right.axes.keys():
            axes[axis] = _both(left.axes.get(axis), right.axes.get(axis), axis in held)
        return Sight(tuple(layout), axes)

    def _seen(self, axis: int, size: int, keep: bool) -> Sight:
        """All of an axis has been seen by every unit. keep: its units still are there."""
        old = self.axes.get(axis)
        if old is None or old.slide is None:
            return self
        ends = [old.slide.at(unit) for unit in range(size)] if len(old.slide.lows) > 1 else [
            old.slide.at(0), old.slide.at(size - 1)
        ]  # fmt: skip
        span = min(low for low, _ in ends), max(high for _, high in ends)
        new = Axis(old.slide if keep else None, _wider(old.span, span), old.exact)
        return replace(self, axes={**self.axes, axis: new})

    def _lost(self, axis: int, size: int) -> Sight:
        sight = self._seen(axis, size, keep=False)
        if axis not in sight.axes:
            return sight
        return replace(sight, axes={**sight.axes, axis: replace(sight.axes[axis], exact=False)})

    def _all_lost(self) -> Sight:
        sight = self
        for dim in self.layout:
            for axis, n in dim:
                if axis is not None:
                    sight = sight._lost(axis, n)
        return sight


def _both(a: Axis | None, b: Axis | None, held: bool) -> Axis:
    if a is None or b is None:
        one = a or b
        assert one is not None
        return one
    span = _wider(a.span, b.span)
    exact = a.exact and b.exact
    if a.slide is None or b.slide is None:
        return Axis((a.slide or b.slide) if held else None, span, exact)
    slide = a.slide.union(b.slide)
    if slide is not None:
        return Axis(slide, span, exact)
    # Maps of one size whose units are not equally far apart: no one field fits; the first is kept as a bound.
    return Axis(a.slide, span, False)


def _wider(a: Span | None, b: Span | None) -> Span | None:
    if a is None or b is None:
        return a or b
    return min(a[0], b[0]), max(a[1], b[1])


def image_sight(channels: int, height: int, width: int, batch: int = 1) -> Sight:
    """The image itself, (B, C, H, W): every pixel sees itself."""
    first = tuple(((None, n),) if n != 1 else () for n in (batch, channels))
    return Sight((*first, ((0, height),), ((1, width),)), {0: Axis(PIXELS), 1: Axis(PIXELS)})
