"""Receptive field, jump and centre of every map, through any graph: branches, shortcuts, dilation, pooling, gates.

`Follower` watches the ATen operators of a run without data and keeps, for every tensor, what its units see (`Sight`).
The recurrence for a chain is in `scratch/receptive_field.py`; here branches take the union, and what has seen a
whole map (global pooling, a dense layer, attention, squeeze and excitation, the statistics of a group norm) says so. A
border is seen as if the map went on: a field may be larger than the image. Araujo, Norris and Sim 2019, Distill
4(11), e21.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from torch import Tensor

from opsin.analyze.costs import BY_OUTPUT, operator_name, tensors_in
from opsin.analyze.explain_schema import Field
from opsin.analyze.field_arithmetic import Sight, Slide, image_sight

Arguments = Sequence[Any]


class Follower:
    """What the units of all tensors of a run see. `watch` each operator in order; `field` answers for a tensor."""

    def __init__(self, images: Tensor) -> None:
        batch, channels, self.height, self.width = images.shape
        self._sights = {id(images): image_sight(channels, self.height, self.width, batch)}
        self._alive: list[Tensor] = [images]  # an id names a tensor only while it lives

    def watch(self, func: Any, args: Arguments, output: Any) -> None:
        """Note what the outputs of a call see."""
        name = operator_name(func)
        followed = [s for s in map(self._of, tensors_in(args)) if s is not None]
        if not followed:
            return
        outputs = tensors_in(output)
        rule = _RULES.get(name)
        for place, out in enumerate(outputs):
            sight: Sight | None = None
            if rule is not None:
                sight = rule(self._of, args, out, place)
            elif name in _POINTWISE:
                sight = _pointwise(self._of, args, out, place)
            if sight is None or sight.shape != tuple(out.shape):
                sight = _unknown(followed, out)
            self._keep(out, sight)
            if func._schema.is_mutable and out is not args[0]:
                continue
            if func._schema.is_mutable:
                self._written(out, sight)

    def field(self, tensor: Tensor) -> Field | None:
        """What the units of a tensor see; None where it does not depend on the image."""
        sight = self._of(tensor)
        if sight is None or not sight.axes:
            return None
        seen = [self._axis(sight, axis, limit) for axis, limit in ((0, self.height), (1, self.width))]
        jumps = [s[1] for s in seen]
        return Field(
            size=_pair([s[0][1] - s[0][0] + 1 for s in seen]),
            jump=None if None in jumps else _pair([_whole(float(j)) for j in jumps if j is not None]),
            start=_pair([s[0][0] for s in seen]),
            centre=_pair([(s[0][0] + s[0][1] + 1) / 2 for s in seen]),
            whole=any(a.span is not None and _covers(a.span, n) for a, n in _limits(sight, self.height, self.width)),
            exact=all(axis.exact for axis in sight.axes.values()),
        )

    def _axis(self, sight: Sight, axis: int, limit: int) -> tuple[tuple[int, int], float | None]:
        """((first, last) pixel of unit 0, or of the largest of the first turns), jump."""
        known = sight.axes[axis]
        if known.slide is None:
            low, high = known.span or (0, limit - 1)
            return (max(low, 0), min(high, limit - 1)), None
        return _typical(known.slide)

    def _of(self, value: Any) -> Sight | None:
        return self._sights.get(id(value)) if isinstance(value, Tensor) else None

    def _keep(self, tensor: Tensor, sight: Sight) -> None:
        self._sights[id(tensor)] = sight
        self._alive.append(tensor)

    def _written(self, part: Tensor, sight: Sight) -> None:
        """A tensor that shares memory with what was written has seen as much."""
        storage = part.untyped_storage()._cdata
        for other in {id(t): t for t in self._alive}.values():
            if other is part or other.untyped_storage()._cdata != storage:
                continue
            old = self._of(other)
            if other.shape == part.shape:
                self._sights[id(other)] = sight if old is None else old.joined(sight)
            elif old is None or old.axes != sight.axes:
                self._sights[id(other)] = _unknown([s for s in (old, sight) if s is not None], other)


def _limits(sight: Sight, height: int, width: int) -> list[tuple[Any, int]]:
    return [(sight.axes[axis], limit) for axis, limit in ((0, height), (1, width))]


def _covers(span: tuple[int, int], limit: int) -> bool:
    """Most of the side: a stride may leave the last pixels unread."""
    return min(span[1], limit - 1) - max(span[0], 0) + 1 > limit / 2


def _typical(slide: Slide) -> tuple[tuple[int, int], float]:
    """The widest span among the units that take turns, laid around the place of unit 0; and the jump."""
    turns = len(slide.lows)
    spans = [slide.at(unit) for unit in range(turns)]
    size = max(high - low for low, high in spans)
    unit = next(i for i, (low, high) in enumerate(spans) if high - low == size)
    shift = unit * slide.jump // turns if turns > 1 else 0
    return (spans[unit][0] - shift, spans[unit][1] - shift), slide.jump / turns


def _whole(value: float) -> float:
    return int(value) if value == int(value) else value


def _pair(values: Sequence[Any]) -> tuple[Any, Any]:
    return values[0], values[1]


def _unknown(followed: Sequence[Sight], out: Tensor) -> Sight:
    """An operator without a rule: every unit may have seen all that its inputs had."""
    sight = followed[0].collapsed(range(len(followed[0].layout)))
    for other in followed[1:]:
        other = other.collapsed(range(len(other.layout)))
        sight = replace(sight, layout=()).joined(replace(other, layout=()))
    layout = tuple(((None, n),) if n != 1 else () for n in out.shape)
    return replace(sight, layout=layout).blurred()


# A rule: (sight of an argument, arguments, one output, its place among the outputs) -> its sight, or None for unknown.
_Of = Callable[[Any], "Sight | None"]
_Rule = Callable[[_Of, Arguments, Tensor, int], "Sight | None"]


def _pointwise(of: _Of, args: Arguments, out: Tensor, place: int) -> Sight | None:
    """Element by element, broadcast: the union of what the inputs see."""
    sight: Sight | None = None
    for tensor in tensors_in(args):
        own = of(tensor)
        if own is None:
            continue
        sight = own if sight is None else sight.joined(own)
    if sight is None:
        return None
    missing = out.ndim - len(sight.layout)
    layout = ((),) * missing + sight.layout
    if missing >= 0 and math.prod(sight.shape) != out.numel():  # a constant of a larger shape
        layout = tuple(
            dim if math.prod(k for _, k in dim) == n else ((None, n),) for dim, n in zip(layout, out.shape, strict=True)
        )
    return replace(sight, layout=layout)


def _copy(of: _Of, args: Arguments, out: Tensor, place: int) -> Sight | None:
    return _pointwise(of, (args[1],) if of(args[1]) else args, out, place)


def _view(of: _Of, args: Arguments, out: Tensor, place: int) -> Sight | None:
    sight = of(args[0])
    return sight and sight.viewed(tuple(out.shape))


def _permute(of: _Of, args: Arguments, out: Tensor, place: int) -> Sight | None:
    sight = of(args[0])
    return sight and sight.moved([d % len(sight.layout) for d in args[1]])


def _transpose(of: _Of, args: Arguments, out: Tensor, place: int) -> Sight | None:
    sight = of(args[0])
    if sight is None or len(sight.layout) < 2:
        return sight
    a, b = (args[1], args[2]) if len(args) > 2 else (0, 1)
    order = list(range(len(sight.layout)))
    order[a], order[b] = order[b], order[a]
    return sight.moved(order)


def _unsqueeze(of: _Of, args: Arguments, out: Tensor, place: int) -> Sight | None:
    sight = of(args[0])
    if sight is None:
        return None
    dim = args[1] % out.ndim
    return replace(sight, layout=(*sight.layout[:dim], (), *sight.layout[dim:]))


def _squeeze(of: _Of, args: Arguments, out: Tensor, place: int) -> Sight | None:
    sight = of(args[0])
    if sight is None:
        return None
    wanted = range(args[0].ndim) if len(args) < 2 else args[1] if isinstance(args[1], list | tuple) else [args[1]]
    gone = {d % args[0].ndim for d in wanted if args[0].shape[d] == 1}
    sight = sight.collapsed(gone) if gone else sight
    return replace(sight, layout=tuple(dim for d, dim in enumerate(sight.layout) if d not in gone))


def _slice(of: _Of, args: Arguments, out: Tensor, place: int) -> Sight | None:
    sight = of(args[0])
    dim = (args[1] if len(args) > 1 else 0) % out.ndim
    start = args[2] if len(args) > 2 and args[2] is not None else 0
    step = args[4] if len(args) > 4 else 1
    size = args[0].shape[dim]
    start = max(start + size, 0) if start < 0 else min(start, size)
    return sight and sight.slid(dim, out.shape[dim], [[start]], step)


def _select(of: _Of, args: Arguments, out: Tensor, place: int) -> Sight | None:
    sight = of(args[0])
    return sight and _taken(sight, args[1] % args[0].ndim, args[2] % args[0].shape[args[1]])


def _taken(sight: Sight, dim: int, index: int) -> Sight:
    sight = sight.slid(dim, 1, [[index]], 1).collapsed([dim])
    return replace(sight, layout=tuple(f for d, f in enumerate(sight.layout) if d != dim))


def _unbind(of: _Of, args: Arguments, out: Tensor, place: int) -> Sight | None:
    sight = of(args[0])
    return sight and _taken(sight, (args[1] if len(args) > 1 else 0) % args[0].ndim, place)


def _split(of: _Of, args: Arguments, out: Tensor, place: int) -> Sight | None:
    sight = of(args[0])
    dim = (args[2] if len(args) > 2 else 0) % out.ndim
    start = sum(args[1][:place]) if isinstance(args[1], list | tuple) else args[1] * place
    return sight and sight.slid(dim, out.shape[dim], [[start]], 1)


def _cat(of: _Of, args: Arguments, out: Tensor, place: int) -> Sight | None:
    dim = (args[1] if len(args) > 1 else 0) % out.ndim
    sight: Sight | None = None
    for tensor in args[0]:
        own = of(tensor)
        if own is None:
            continue
        if any(axis is not None for axis, _ in own.layout[dim]):
            own = own.collapsed([dim]).blurred()
        own = own.resized(dim, out.shape[dim])
        sight = own if sight is None else sight.joined(own)
    return sight


def _stack(of: _Of, args: Arguments, out: Tensor, place: int) -> Sight | None:
    sight = _pointwise(of, args[0], args[0][0], place)
    dim = (args[1] if len(args) > 1 else 0) % out.ndim
    if sight is None:
        return None
    return replace(sight, layout=(*sight.layout[:dim], (), *sight.layout[dim:])).resized(dim, out.shape[dim])


def _expand(of: _Of, args: Arguments, out: Tensor, place: int) -> Sight | None:
    sight = of(args[0])
    if sight is None:
        return None
    layout = ((),) * (out.ndim - len(sight.layout)) + sight.layout
    sight = replace(sight, layout=layout)
    for dim, (old, new) in enumerate(zip(sight.shape, out.shape, strict=True)):
        if old != new:
            sight = sight.collapsed([dim]).resized(dim, new)
    return sight


def _reduce(of: _Of, args: Arguments, out: Tensor, place: int) -> Sight | None:
    """Sums, means and maxima over dimensions: those have been seen as a whole."""
    sight = of(args[0])
    if sight is None:
        return None
    rank = args[0].ndim
    given = args[1] if len(args) > 1 else None
    if isinstance(given, bool) or given is None or given == []:
        given = range(rank)
    dims = {d % rank for d in (given if isinstance(given, list | tuple | range) else [given])}
    sight = sight.collapsed(dims)
    if out.ndim == rank:
        return replace(sight, layout=tuple(() if d in dims else f for d, f in enumerate(sight.layout)))
    return replace(sight, layout=tuple(f for d, f in enumerate(sight.layout) if d not in dims))


def _softmax(of: _Of, args: Arguments, out: Tensor, place: int) -> Sight | None:
    sight = of(args[0])
    return sight and sight.mixed([args[1] % out.ndim])


def _layer_norm(of: _Of, args: Arguments, out: Tensor, place: int) -> Sight | None:
    sight = of(args[0])
    return sight and sight.mixed(range(len(sight.layout) - len(args[1]), len(sight.layout))) if place == 0 else sight


def _group_norm(of: _Of, args: Arguments, out: Tensor, place: int) -> Sight | None:
    sight = of(args[0])
    return sight and sight.mixed(range(1, len(sight.layout))) if place == 0 else sight


def _batch_norm(of: _Of, args: Arguments, out: Tensor, place: int) -> Sight | None:
    sight = of(args[0])
    if sight is None or place:
        return sight
    learning = args[5] if len(args) > 5 and isinstance(args[5], bool) else False
    return sight.mixed(range(len(sight.layout))) if learning else sight


def _products(first: int) -> _Rule:
    """(..., n, k) times (..., k, m), or vectors: k has been seen as a whole, by both sides."""

    def rule(of: _Of, args: Arguments, out: Tensor, place: int) -> Sight | None:
        left, right = args[first], args[first + 1]
        a, b = of(left), of(right)
        if a is not None:
            a = a.collapsed([left.ndim - 1])
            kept = a.layout[:-1]
            a = replace(a, layout=kept if right.ndim == 1 else (*kept, _plain(out.shape[-1])))
        if b is not None:
            inner = max(right.ndim - 2, 0)
            b = b.collapsed([inner])
            if a is not None and right.ndim > 1:  # rows by rows, as in attention: one side's stay
                b = b.collapsed([right.ndim - 1])
            kept = tuple(f for d, f in enumerate(b.layout) if d != inner)
            rows = [] if left.ndim == 1 else [_plain(left.shape[-2])]
            b = replace(b, layout=(*kept[: right.ndim - 2], *rows, *kept[right.ndim - 2 :]) if kept else tuple(rows))
        if a is None or b is None:
            return a or b
        return a.joined(b)

    return rule


def _linear(of: _Of, args: Arguments, out: Tensor, place: int) -> Sight | None:
    sight = of(args[0])
    return sight and sight.collapsed([args[0].ndim - 1]).resized(args[0].ndim - 1, out.shape[-1])


def _attention(of: _Of, args: Arguments, out: Tensor, place: int) -> Sight | None:
    query, value = of(args[0]), of(args[2])
    if query is None or value is None or place:
        return None
    size = out.ndim
    value = value.collapsed([size - 2]).resized(size - 2, out.shape[-2])
    return query.collapsed([size - 1]).resized(size - 1, out.shape[-1]).joined(value)


def _plain(size: int) -> tuple[tuple[None, int], ...]:
    return ((None, size),) if size != 1 else ()


def _windows(sight: Sight, out: Tensor, rank: int, window: Callable[[int], tuple[list[list[int]], int]]) -> Sight:
    """Slide along the last `rank` dimensions; `window(i)` gives those of the i-th of them, and their step."""
    for i in range(rank):
        dim = out.ndim - rank + i
        windows, step = window(i)
        sight = sight.slid(dim, out.shape[dim], windows, step)
    return sight


def _convolution(of: _Of, args: Arguments, out: Tensor, place: int) -> Sight | None:
    sight = of(args[0])
    if sight is None:
        return None
    weight, strides, paddings, dilations, transposed = args[1], args[3], args[4], args[5], args[6]
    rank = weight.ndim - 2
    sight = sight.collapsed([1])

    def window(i: int) -> tuple[list[list[int]], int]:
        kernel, stride, padding, dilation = weight.shape[2 + i], _at(strides, i), _at(paddings, i), _at(dilations, i)
        if not transposed:
            return [[k * dilation - padding for k in range(kernel)]], stride
        # output o takes part in input i by tap k where o = i stride - padding + k dilation
        taps = [[o + padding - k * dilation for k in range(kernel)] for o in range(stride)]
        return [[t // stride for t in row if t % stride == 0] for row in taps], 1

    return _windows(sight, out, rank, window).resized(1, out.shape[1])


def _pooling(of: _Of, args: Arguments, out: Tensor, place: int) -> Sight | None:
    sight = of(args[0])
    if sight is None:
        return None
    kernels, strides = args[1], args[2] if len(args) > 2 and args[2] else args[1]
    paddings = args[3] if len(args) > 3 else [0]
    # in the max poolings the next argument is the dilation, in the average ones ceil_mode
    dilations = args[4] if len(args) > 4 and isinstance(args[4], list | tuple) else [1]

    def window(i: int) -> tuple[list[list[int]], int]:
        return [[k * _at(dilations, i) - _at(paddings, i) for k in range(_at(kernels, i))]], _at(strides, i)

    return _windows(sight, out, max(len(kernels), 1), window)


def _adaptive(of: _Of, args: Arguments, out: Tensor, place: int) -> Sight | None:
    sight = of(args[0])
    if sight is None:
        return None
    rank = len(args[1])

    def window(i: int) -> tuple[list[list[int]], int]:
        n, m = args[0].shape[i - rank], out.shape[i - rank]
        turns = m // math.gcd(n, m)
        return [list(range(o * n // m, -((-(o + 1) * n) // m))) for o in range(turns)], n // math.gcd(n, m)

    sight = _windows(sight, out, rank, window)
    single = [d for d in range(out.ndim - rank, out.ndim) if out.shape[d] == 1]  # one unit that has seen all
    sight = sight.collapsed(single)
    return replace(sight, layout=tuple(() if d in single else f for d, f in enumerate(sight.layout)))


def _padding(of: _Of, args: Arguments, out: Tensor, place: int) -> Sight | None:
    sight = of(args[0])
    if sight is None:
        return None
    for i in range(len(args[1]) // 2):
        dim = out.ndim - 1 - i
        if args[1][2 * i] or args[1][2 * i + 1]:
            sight = sight.slid(dim, out.shape[dim], [[-args[1][2 * i]]], 1)
    return sight


def _nearest(of: _Of, args: Arguments, out: Tensor, place: int) -> Sight | None:
    return _resampled(of, args, out, lambda o, n, m: [o * n // m])


def _bilinear(of: _Of, args: Arguments, out: Tensor, place: int) -> Sight | None:
    if args[2]:  # align_corners: the step is (n - 1) / (m - 1), which no turns repeat
        return None

    def window(o: int, n: int, m: int) -> list[int]:
        doubled = (2 * o + 1) * n - m  # 2 m times the place (o + 1/2) n / m - 1/2
        low = doubled // (2 * m)
        return [low] if doubled % (2 * m) == 0 else [low, low + 1]

    return _resampled(of, args, out, window)


def _resampled(of: _Of, args: Arguments, out: Tensor, window: Callable[[int, int, int], list[int]]) -> Sight | None:
    sight = of(args[0])
    if sight is None:
        return None

    def windows(i: int) -> tuple[list[list[int]], int]:
        n, m = args[0].shape[i - 2], out.shape[i - 2]
        shared = math.gcd(n, m)
        return [window(o, n, m) for o in range(m // shared)], n // shared

    return _windows(sight, out, 2, windows)


def _pixel_shuffle(of: _Of, args: Arguments, out: Tensor, place: int) -> Sight | None:
    sight, factor = of(args[0]), args[1]
    return sight and _windows(sight, out, 2, lambda i: ([[0]] * factor, 1)).resized(out.ndim - 3, out.shape[-3])


def _pixel_unshuffle(of: _Of, args: Arguments, out: Tensor, place: int) -> Sight | None:
    sight, factor = of(args[0]), args[1]
    return sight and _windows(sight, out, 2, lambda i: ([list(range(factor))], factor)).resized(
        out.ndim - 3, out.shape[-3]
    )


def _at(values: Sequence[int], i: int) -> int:
    return values[i] if len(values) > 1 else values[0]


_POINTWISE = (
    frozenset(BY_OUTPUT) - frozenset(name for name in BY_OUTPUT if "softmax" in name or "sample" in name)
) | frozenset(
    [
        "clone",
        "_to_copy",
        "contiguous",
        "detach",
        "alias",
        "where",
        "masked_fill",
        "fill",
        "zero",
        "logical_not",
        "logical_and",
        "logical_or",
        "bitwise_and",
        "bitwise_or",
        "bitwise_not",
        "isnan",
        "isinf",
        "channel_shuffle",
        "lift_fresh",
        "zeros_like",
        "ones_like",
        "full_like",
    ]
)

_RULES: dict[str, _Rule] = {
    **dict.fromkeys(("view", "_unsafe_view", "reshape", "_reshape_alias"), _view),
    **dict.fromkeys(("transpose", "t"), _transpose),
    **dict.fromkeys(("split", "split_with_sizes", "unsafe_split"), _split),
    **dict.fromkeys(
        ("sum", "mean", "amax", "amin", "max", "min", "prod", "linalg_vector_norm", "var", "std", "argmax",
         "logsumexp"),
        _reduce,
    ),
    **dict.fromkeys(("_softmax", "_log_softmax", "_safe_softmax"), _softmax),
    **dict.fromkeys(
        ("native_batch_norm", "_native_batch_norm_legit", "_native_batch_norm_legit_no_training", "batch_norm"),
        _batch_norm,
    ),
    **dict.fromkeys(("mm", "bmm", "mv", "dot"), _products(0)),
    **dict.fromkeys(("addmm", "baddbmm", "addmv"), _products(1)),
    **dict.fromkeys(("convolution", "_convolution"), _convolution),
    **{f"max_pool{n}d_with_indices": _pooling for n in (1, 2, 3)},
    **{f"{kind}_pool{n}d": _pooling for kind in ("max", "avg") for n in (1, 2, 3)},
    **{f"{mark}adaptive_{kind}_pool{n}d": _adaptive for mark in ("", "_") for kind in ("max", "avg") for n in (1, 2)},
    **dict.fromkeys(("constant_pad_nd", "reflection_pad2d", "replication_pad2d"), _padding),
    "copy": _copy,
    "permute": _permute,
    "unsqueeze": _unsqueeze,
    "squeeze": _squeeze,
    "slice": _slice,
    "select": _select,
    "unbind": _unbind,
    "cat": _cat,
    "stack": _stack,
    "expand": _expand,
    "native_layer_norm": _layer_norm,
    "native_group_norm": _group_norm,
    "linear": _linear,
    **dict.fromkeys(
        ("_scaled_dot_product_flash_attention_for_cpu", "_scaled_dot_product_flash_attention",
         "_scaled_dot_product_efficient_attention"),
        _attention,
    ),
    "upsample_nearest2d": _nearest,
    "upsample_bilinear2d": _bilinear,
    "pixel_shuffle": _pixel_shuffle,
    "pixel_unshuffle": _pixel_unshuffle,
}  # fmt: skip
