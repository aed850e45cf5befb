"""What a network costs, layer by layer: one run without data, every ATen operator watched.

`run_on_meta` gives the rows, `profile` adds shares and totals. Nothing is computed or allocated. A recurrent layer runs
there as its steps' matrix products, and attention as its two, so both are counted; see docs/counting.md.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from opsin.analyze.costs import Cost, bytes_of, cost_of, is_product, is_view, operator_name, tensors_in
from opsin.analyze.explain_schema import Field, Layer, Stage, Totals, Uncounted
from opsin.analyze.receptive_field import Follower
from opsin.nn.counting import describe_second_stage, whole_twin

SHARED = ("params", "macs", "flops", "activations", "bytes")  # of which a layer has a share


@dataclass
class _Frame:
    """One call of a module while it is open."""

    name: str
    module: nn.Module
    number: int
    inputs: dict[int, None] = field(default_factory=dict)  # numbers of the frames it reads from, in order
    operators: Counter[str] = field(default_factory=Counter)
    uncounted: list[str] = field(default_factory=list)
    cost: Cost = field(default_factory=Cost)
    elements: int = 0
    read: int = 0
    written: int = 0
    shape: dict[str, Any] = field(default_factory=dict)  # of its convolution, pooling or product


@dataclass(frozen=True)
class MetaRun:
    """A run without data. layers: without shares. fields: of every module's last output, by name. spans: of every
    module's last call, by name: the first and last + 1 row that it holds. views: calls that only reshape."""

    layers: tuple[Layer, ...]
    fields: Mapping[str, Field | None]
    spans: Mapping[str, tuple[int, int]]
    shapes: Mapping[str, tuple[int, ...]]
    calls: int
    uncounted_calls: int
    flop_counter_macs: int


@dataclass(frozen=True)
class Profile:
    """The rows with their shares, their sums, the stages of a backbone, and what could not be counted."""

    layers: tuple[Layer, ...]
    totals: Totals
    stages: tuple[Stage, ...]
    uncounted: tuple[Uncounted, ...]


class _Watch(TorchDispatchMode):
    """Books every operator with the innermost open module."""

    def __init__(self, model: nn.Module, images: Tensor, followed: bool) -> None:
        super().__init__()
        self.follower = Follower(images) if followed else None
        self.images = images
        self.root = _Frame("", model, 0)
        self.open = [self.root]
        self.opened = 0
        self.producers: dict[int, int] = {id(images): -1}
        self.learned = {p.untyped_storage()._cdata for p in model.parameters()}
        self.calls = self.uncounted_calls = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        name = operator_name(func)
        if func.namespace == "prim" or name in ("sym_size", "sym_stride", "sym_numel", "device"):
            return func(*args, **kwargs)
        given = [*args, *kwargs.values()]
        before = {id(t): tuple(t.shape) for t in tensors_in(given)}
        output = func(*args, **kwargs)
        frame = self.open[-1]
        self.calls += 1
        frame.operators[name] += 1
        cost = cost_of(func, args, output)
        if cost is None:
            self.uncounted_calls += 1
            frame.uncounted.append(f"{func.namespace}.{name}")
            cost = Cost()
        cost = replace(cost, connections=cost.connections + self._biases(name, given, output))
        frame.cost = Cost(*(a + b for a, b in zip(_amounts(frame.cost), _amounts(cost), strict=True)))
        read, written = bytes_of(func, given, output)
        frame.read += read
        frame.written += written
        results = tensors_in(output)
        if written:
            frame.elements += results[0].numel()
        if not frame.shape or is_product(func):
            frame.shape = _shape_of(func, args, results) or frame.shape
        for tensor in before:
            producer = self.producers.get(tensor)
            if producer is not None and producer != frame.number:
                frame.inputs[producer] = None
        source = self.producers.get(id(args[0])) if is_view(func) else None  # what is only viewed stays its maker's
        for tensor in results:
            self.producers[id(tensor)] = frame.number if source is None else source
        if self.follower is not None:
            self.follower.watch(func, args, output)
        return output

    def field(self, tensor: Tensor | None) -> Field | None:
        """What the units of a tensor see of the image; None without either."""
        return None if tensor is None or self.follower is None else self.follower.field(tensor)

    def _biases(self, name: str, given: Sequence[Any], output: Any) -> int:
        """A learned number that is added on its own connects every unit to the constant one."""
        if name not in ("add", "sub"):
            return 0
        learned = any(t.untyped_storage()._cdata in self.learned for t in tensors_in(given))
        return output.numel() if learned else 0


def _amounts(cost: Cost) -> tuple[int, ...]:
    return cost.macs, cost.flops, cost.connections, cost.activations


def _shape_of(func: Any, args: Sequence[Any], results: Sequence[Tensor]) -> dict[str, Any]:
    name = operator_name(func)
    if name in ("convolution", "_convolution"):
        weight, transposed, groups = args[1], args[6], args[8]
        ends = (weight.shape[0], weight.shape[1] * groups)
        return {
            "kernel_size": tuple(weight.shape[2:]),
            "stride": tuple(args[3]),
            "dilation": tuple(args[5]),
            "groups": groups,
            "input_shape": tuple(args[0].shape[1:]),
            "in_channels": ends[0] if transposed else ends[1],
            "out_channels": ends[1] if transposed else ends[0],
        }
    if name in ("addmm", "mm", "linear"):
        features = args[name == "addmm"]
        return {
            "in_channels": features.shape[-1],
            "out_channels": results[0].shape[-1],
            "input_shape": tuple(features.shape[1:]),
        }
    if "pool" in name and "adaptive" not in name:
        stride = args[2] if len(args) > 2 and args[2] else args[1]
        dilated = len(args) > 4 and isinstance(args[4], list | tuple)
        return {
            "kernel_size": tuple(args[1]),
            "stride": tuple(stride),
            "dilation": tuple(args[4]) if dilated else (1,) * len(args[1]),
            "input_shape": tuple(args[0].shape[1:]),
        }
    return {}


def run_on_meta(model: nn.Module, input_size: tuple[int, int, int] | None) -> MetaRun:
    """Follow one image of (C, H, W) through the network in eval, without data. The model stays as it is.

    input_size: None for the network's own `example`, which is no image: nothing has a receptive field then.
    Raises InputError for an input that the model refuses.
    """
    twin, images = whole_twin(model, input_size)
    watch = _Watch(twin, images, input_size is not None)
    rows: list[tuple[_Frame, tuple[int, ...], int, Tensor | None]] = []
    begun: dict[str, tuple[int, int]] = {}
    shapes: dict[str, tuple[int, ...]] = {}
    fields: dict[str, Field | None] = {}
    counted: set[int] = set()

    def enter(name: str, module: nn.Module) -> None:
        watch.opened += 1
        watch.open.append(_Frame(name, module, watch.opened))
        begun[name] = len(rows), len(rows)

    def leave(name: str, module: nn.Module, output: Any) -> None:
        frame = watch.open.pop()
        first = next(iter(tensors_in(output)), None)
        shapes[name] = tuple(first.shape[1:]) if first is not None else ()
        fields[name] = watch.field(first)
        fresh = {id(p): p.numel() for p in module.parameters(recurse=False) if id(p) not in counted}
        counted.update(fresh)
        if fresh or frame.operators or not any(module.children()):
            rows.append((frame, shapes[name], sum(fresh.values()), first))
        begun[name] = begun[name][0], len(rows)

    for name, module in twin.named_modules():
        module.register_forward_pre_hook(lambda m, _, name=name: enter(name, m))
        module.register_forward_hook(lambda m, _, output, name=name: leave(name, m, output))
    with torch.no_grad(), FlopCounterMode(display=False) as counter, watch:
        twin(images)
    left = _not_run(twin, counted)
    numbers = {frame.number: index for index, (frame, *_) in enumerate(rows)} | {-1: -1}
    layers = [
        _layer(index, frame, shape, params, watch.field(first), numbers)
        for index, (frame, shape, params, first) in enumerate(rows)
    ]
    layers += [
        _layer(len(rows) + i, _Frame(name, module, -2), (), params, None, {})
        for i, (name, module, params) in enumerate(left)
    ]
    calls, missing = watch.calls, watch.uncounted_calls
    return MetaRun(tuple(layers), fields, begun, shapes, calls, missing, counter.get_total_flops() // 2)


def _not_run(model: nn.Module, counted: set[int]) -> list[tuple[str, nn.Module, int]]:
    """Modules whose parameters no call has brought in: training heads in eval, or those that another module reads."""
    left = []
    for name, module in model.named_modules():
        fresh = {id(p): p.numel() for p in module.parameters(recurse=False) if id(p) not in counted}
        counted.update(fresh)
        if fresh:
            left.append((name, module, sum(fresh.values())))
    return left


def _layer(
    index: int,
    frame: _Frame,
    shape: tuple[int, ...],
    params: int,
    seen: Field | None,
    numbers: Mapping[int, int],
) -> Layer:
    moved = frame.read + frame.written
    return Layer(
        index=index,
        name=frame.name,
        type=type(frame.module).__name__,
        inputs=tuple(sorted({numbers[n] for n in frame.inputs if n in numbers})),
        output_shape=shape,
        params=params,
        connections=frame.cost.connections,
        macs=frame.cost.macs,
        flops=frame.cost.flops,
        activations=frame.cost.activations,
        elements=frame.elements,
        bytes_read=frame.read,
        bytes_written=frame.written,
        intensity=frame.cost.flops / moved if moved else 0.0,
        share={},
        operators=dict(frame.operators),
        uncounted=tuple(dict.fromkeys(frame.uncounted)),
        field=seen,
        **frame.shape,
    )


def profile(model: nn.Module, input_size: tuple[int, int, int] | None) -> Profile:
    """Rows, shares, totals, stages and gaps of a network for one image of (C, H, W), or its own example, in eval.

    Raises InputError for an input that the model refuses.
    """
    run = run_on_meta(model, input_size)
    sums = {key: sum(_amount(layer, key) for layer in run.layers) for key in SHARED}
    layers = tuple(replace(layer, share=_shares([layer], sums)) for layer in run.layers)
    totals = Totals(
        params=sums["params"],
        buffers=sum(b.numel() for b in model.buffers()),
        connections=sum(layer.connections for layer in layers),
        macs=sums["macs"],
        flops=sums["flops"],
        activations=sums["activations"],
        elements=sum(layer.elements for layer in layers),
        bytes=sums["bytes"],
        intensity=sums["flops"] / sums["bytes"] if sums["bytes"] else 0.0,
        operators=run.calls,
        coverage=100.0 * (run.calls - run.uncounted_calls) / run.calls if run.calls else 100.0,
        macs_by_flop_counter=run.flop_counter_macs,
        counted_on=describe_second_stage(model),
    )
    return Profile(layers, totals, _stages(model, run, layers, sums), _gaps(layers))


def _amount(layer: Layer, key: str) -> int:
    return layer.bytes_read + layer.bytes_written if key == "bytes" else getattr(layer, key)


def _shares(layers: Sequence[Layer], sums: Mapping[str, int]) -> dict[str, float]:
    return {key: sum(_amount(one, key) for one in layers) / total if total else 0.0 for key, total in sums.items()}


def _stages(model: nn.Module, run: MetaRun, layers: Sequence[Layer], sums: Mapping[str, int]) -> tuple[Stage, ...]:
    stages = getattr(model, "stages", None)
    parts = {name for name, _ in model.named_children()}
    if not isinstance(stages, nn.ModuleList) or not {"stem", "head"} <= parts:
        return ()
    names = ["stem", *(f"stages.{i}" for i in range(len(stages))), "head"]
    strides = [None, *getattr(model, "strides", [None] * len(stages)), None]
    found = []
    for name, stride in zip(names, strides, strict=True):
        # A stage that is not run as a whole (auxiliary heads leave in its middle) is the rows under its name.
        rows = [layer.index for layer in layers if layer.name == name or layer.name.startswith(f"{name}.")]
        first, last = run.spans.get(name) or ((rows[0], rows[-1] + 1) if rows else (0, 0))
        if first == last:
            continue
        inside = layers[first:last]
        shape, seen = run.shapes.get(name, inside[-1].output_shape), run.fields.get(name, inside[-1].field)
        found.append(
            Stage(
                name=name,
                output_shape=shape,
                channels=shape[0] if shape else 0,
                stride=stride,
                params=sum(layer.params for layer in inside),
                macs=sum(layer.macs for layer in inside),
                flops=sum(layer.flops for layer in inside),
                activations=sum(layer.activations for layer in inside),
                share=_shares(inside, sums),
                layers=(first, last),
                field=seen,
            )
        )
    return tuple(found)


def _gaps(layers: Sequence[Layer]) -> tuple[Uncounted, ...]:
    missing = dict.fromkeys(operator for layer in layers for operator in layer.uncounted)
    return tuple(
        Uncounted(
            operator,
            sum(layer.operators[operator.partition(".")[2]] for layer in layers if operator in layer.uncounted),
            tuple(layer.name for layer in layers if operator in layer.uncounted),
        )
        for operator in missing
    )


def receptive_fields(model: nn.Module, input_size: tuple[int, int, int]) -> dict[str, Field]:
    """The field of the output of every module that depends on the image, by name; of the last call, if repeated."""
    return {name: field for name, field in run_on_meta(model, input_size).fields.items() if field is not None}
