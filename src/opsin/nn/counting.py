"""What a network costs: parameters and multiply-adds, in total and layer by layer."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from opsin.nn.capabilities import example_input, whole_forward

if TYPE_CHECKING:
    from torch.utils.flop_counter import FlopCounterMode


@dataclass(frozen=True)
class LayerRow:
    """One call of a layer. output_shape: of its first tensor, without the batch. A repeated call has no parameters."""

    name: str
    type: str
    output_shape: tuple[int, ...]
    params: int
    macs: int


def count_parameters(model: nn.Module) -> int:
    """Numbers in all learnable tensors, each tensor once, frozen ones included; buffers are not learnable."""
    return sum(p.numel() for p in model.parameters())


def count_macs(model: nn.Module, input_size: tuple[int, int, int] | None) -> int:
    """Multiply-adds of all convolutions and matrix products for one input of (C, H, W), in eval.

    Biases, norms, activations and pooling are not counted, as in the papers. A model of two stages is counted with the
    second, see `whole_twin`. Nothing is computed or allocated, and the model stays as it is. Raises InputError for an
    input that the model refuses.
    """
    with _counting(model, input_size) as (twin, images, counter):
        twin(images)
    return counter.get_total_flops() // 2


def layer_table(model: nn.Module, input_size: tuple[int, int, int] | None) -> list[LayerRow]:
    """A row for each call of a layer in the order of completion; the columns add up to the model's totals.

    A layer is a module without children; one with children has a row too where it owns parameters or computes itself.
    """
    rows: list[LayerRow] = []
    counted: set[int] = set()
    open_calls: list[list[int]] = []  # of each module being run: [flops before it, flops of the modules inside it]

    def enter(module: nn.Module, inputs: Any) -> None:
        open_calls.append([counter.get_total_flops(), 0])

    def leave(name: str, module: nn.Module, output: Any) -> None:
        before, inside = open_calls.pop()
        total = counter.get_total_flops() - before
        if open_calls:
            open_calls[-1][1] += total
        fresh = [p for p in module.parameters(recurse=False) if id(p) not in counted]
        counted.update(id(p) for p in fresh)
        params, macs = sum(p.numel() for p in fresh), (total - inside) // 2
        if params or macs or not any(module.children()):
            rows.append(LayerRow(name, type(module).__name__, _shape(output), params, macs))

    with _counting(model, input_size) as (twin, images, counter):
        for name, module in twin.named_modules():
            module.register_forward_pre_hook(enter)
            module.register_forward_hook(lambda m, _, output, name=name: leave(name, m, output))
        twin(images)
    return rows


def meta_twin(model: nn.Module, input_size: Sequence[int] | None) -> tuple[nn.Module, Tensor]:
    """A copy of the model without data, in eval, and one input of (C, H, W) for it: running it computes shapes only."""
    twin = copy_without_data(model).eval()
    return twin, example_input(twin, input_size)


def copy_without_data(model: nn.Module) -> nn.Module:
    """A copy of the model whose tensors are on the meta device, also those that a forward pass left on its modules."""
    # A deep copy takes what its memo already holds: here, for every tensor, one on the meta device.
    kept = [value for module in model.modules() for value in vars(module).values() if isinstance(value, Tensor)]
    tensors = [t for t in [*model.parameters(), *model.buffers(), *kept] if not is_lazy(t)]
    return copy.deepcopy(model, {id(t): _meta(t) for t in tensors})


def whole_twin(model: nn.Module, input_size: tuple[int, int, int] | None) -> tuple[nn.Module, Tensor]:
    """`meta_twin`, whose forward runs all that an answer takes: a detector's `second_stage` too, where there is one."""
    twin, images = meta_twin(model, input_size)
    twin.forward = whole_forward(twin)
    return twin, images


def describe_second_stage(model: nn.Module) -> str:
    """What of an image a second stage is counted on: "1,000 proposals, 100 masks"; "" for networks of one stage."""
    counts: dict[str, int] = getattr(model, "second_stage_counts", {})
    return ", ".join(f"{count:,} {name}" for name, count in counts.items())


@contextmanager
def _counting(
    model: nn.Module, input_size: tuple[int, int, int] | None
) -> Iterator[tuple[nn.Module, Tensor, FlopCounterMode]]:
    """A twin of the model without data, an input for it, and a counter of what runs."""
    from torch.utils.flop_counter import FlopCounterMode  # here: it imports triton, which takes most of a second

    twin, images = whole_twin(model, input_size)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        yield twin, images, counter


def _meta(tensor: Tensor) -> Tensor:
    meta = torch.empty_like(tensor, device="meta")
    return nn.Parameter(meta, tensor.requires_grad) if isinstance(tensor, nn.Parameter) else meta


def _shape(output: Any) -> tuple[int, ...]:
    while not isinstance(output, Tensor):
        if isinstance(output, dict):
            output = list(output.values())
        if not isinstance(output, (list, tuple)) or not output:
            return ()
        output = output[0]
    return tuple(output.shape[1:])


def short_count(count: float) -> str:
    """A count in three digits: 1.81 G, 25.6 M, 512."""
    for scale, sign in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(count) >= scale:
            digits = f"{count / scale:.3g}" if abs(count) < 999.5 * scale else f"{count / scale:.0f}"
            return f"{digits} {sign}"
    return f"{count:.3g}"
