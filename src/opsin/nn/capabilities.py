"""What a network may say of itself beside forward, loss and decode, and what holds where it says nothing.

A network may have any of these methods; none of them is needed.

example(batch, size=None): an input, to count, draw and export it with. size: (C, H, W) of images where one is asked
for. example_loss(outputs): a loss of what it gives for `example`, whose gradient is that of a training. saved_state():
what it carries beyond its weights, plain JSON values and tensors; restore_state(values) takes it back, and raises
TypeError, ValueError or KeyError for values that cannot be. second_stage(outputs): what an answer runs after forward;
second_stage_counts: on how many regions of an image, as {"proposals": 1000}. class_rows(): which rows of its tensors
belong to which class, see `ClassRows`. learned_parts(): the modules that hold what an earlier training has learned,
which `train.freeze_epochs` holds still. strides, divisor, fixed_size, min_size: see `SizeLimits`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class ClassRows:
    """How the first dimension of a tensor holds classes: groups x (before + K x width + after) rows.

    groups: such as anchors of a place. before, after: rows of no class, such as the background's.
    """

    groups: int = 1
    before: int = 0
    width: int = 1
    after: int = 0


@dataclass(frozen=True)
class SizeLimits:
    """Which sizes of images a network takes, and at which strides it looks at them.

    strides: of its maps, in pixels of the input; none where it does not say. divisor: what both sides are to be
    multiples of. fixed: the only side. smallest: the least.
    """

    strides: tuple[int, ...] = ()
    divisor: int = 1
    fixed: int | None = None
    smallest: int = 1


def size_limits(model: nn.Module) -> SizeLimits:
    """What a network says of the sizes of its images: nothing, where it does not."""
    found = (getattr(model, name, None) for name in ("strides", "divisor", "fixed_size", "min_size"))
    strides, divisor, fixed, smallest = found
    smallest = max(smallest) if isinstance(smallest, tuple) else smallest  # of a height and a width
    return SizeLimits(tuple(strides or ()), divisor or 1, fixed, smallest or 1)


def example_input(model: nn.Module, size: Sequence[int] | None, batch: int = 1) -> Tensor:
    """An input of a network, on the device and in the floating-point type of its parameters.

    size: (C, H, W) of images; None for what the network itself names. Zeros, where it has no `example` of its own.
    """
    own: Callable[..., Tensor] | None = getattr(model, "example", None)
    first = next(model.parameters(), None)
    device, dtype = (torch.device("cpu"), torch.float32) if first is None else (first.device, first.dtype)
    if own is not None:
        made = own(batch, size)
        return made.to(device, dtype) if made.is_floating_point() else made.to(device)
    if size is None:
        raise ValueError(f"{type(model).__name__} names no example of its input; give its size")
    return torch.zeros(batch, *size, device=device, dtype=dtype)


def names_input(model: nn.Module) -> bool:
    """Whether a network has an `example` of its input."""
    return getattr(model, "example", None) is not None


def example_loss(model: nn.Module, outputs: Any, tensors: Sequence[Tensor]) -> Tensor:
    """A scalar that a network's outputs are trained by; the sum of all `tensors` in them where it names none."""
    own: Callable[[Any], Tensor] | None = getattr(model, "example_loss", None)
    if own is not None:
        return own(outputs)
    learned = [t for t in tensors if t.requires_grad] or [next(model.parameters())]  # R-CNN learns in its second stage
    return torch.stack([t.float().sum() for t in learned]).sum()


def saved_values(model: nn.Module) -> dict[str, Any]:
    """What a network carries beyond its weights: plain JSON values and tensors, none for most."""
    own: Callable[[], dict[str, Any]] | None = getattr(model, "saved_state", None)
    return {} if own is None else own()


def restore_values(model: nn.Module, values: Mapping[str, Any]) -> None:
    """Give a network what `saved_values` took. Raises TypeError, ValueError or KeyError for values that cannot be."""
    own: Callable[[Mapping[str, Any]], None] | None = getattr(model, "restore_state", None)
    if own is not None:
        own(values)


def initialize(model: nn.Module, state: Mapping[str, Tensor]) -> list[str]:
    """Copy what fits of another network's tensors. Returns the names of the model's own that were not filled.

    By name and shape, where the network has no `initialize_from(state)` of its own.
    """
    own: Callable[[Mapping[str, Tensor]], list[str]] | None = getattr(model, "initialize_from", None)
    if own is not None:
        return own(state)
    tensors = model.state_dict()
    fitting = {name: value for name, value in state.items() if name in tensors and tensors[name].shape == value.shape}
    model.load_state_dict(fitting, strict=False)
    return [name for name in tensors if name not in fitting]


def class_rows(model: nn.Module) -> dict[str, ClassRows]:
    """The tensors of a network's state whose rows belong to classes; none where it does not say."""
    own: Callable[[], dict[str, ClassRows]] | None = getattr(model, "class_rows", None)
    return {} if own is None else own()


def rows_of_last(name: str, module: nn.Module, layout: ClassRows) -> dict[str, ClassRows]:
    """The layout for the weight and the bias of the last convolution or linear layer of a module called `name`."""
    layers = [(n, m) for n, m in module.named_modules() if isinstance(m, nn.Linear | nn.Conv2d)]
    if not layers:
        return {}
    inner, last = layers[-1]
    prefix = f"{name}.{inner}" if inner else name
    return {f"{prefix}.{key}": layout for key, _ in last.named_parameters(recurse=False)}


def learned_parts(model: nn.Module) -> list[nn.Module]:
    """What of a network an earlier training can have taught: all but what answers; nothing where it does not say."""
    own: Callable[[], list[nn.Module]] | None = getattr(model, "learned_parts", None)
    return [] if own is None else own()


def whole_forward(model: nn.Module) -> Callable[[Tensor], Any]:
    """All that an answer takes: forward, and a second stage behind it where there is one."""
    second: Callable[[Any], Any] | None = getattr(model, "second_stage", None)
    first: Callable[[Tensor], Any] = model.forward
    return first if second is None else lambda images: second(first(images))
