"""Dead units: those that give the same for every image, and so say nothing.

A rectifier's unit is dead when it never lets anything through: no gradient reaches it, and it stays dead. Units of
other activations are dead when their output never changes. Some percent of a layer are common; half of it means a
learning rate or a bias that went wrong, or a layer that is too wide for its task.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from opsin.analyze.deconvolution import as_rectifier
from opsin.analyze.feature_maps import as_maps, evaluating
from opsin.errors import InputError

_SMOOTH = (
    *(F.leaky_relu, F.prelu, F.elu, F.silu, F.gelu, F.mish, F.hardswish, F.hardtanh),
    *(F.hardsigmoid, F.sigmoid, torch.sigmoid, Tensor.sigmoid, F.tanh, torch.tanh, Tensor.tanh),
)


@dataclass(frozen=True)
class LayerActivity:
    """How busy the units of an activation were. active: (units,), the share of places and images where it was > 0.

    name: of the module that called it, with #2 and on where it calls several. rectifier: ReLU or ReLU6.
    """

    name: str
    rectifier: bool
    units: int
    dead: tuple[int, ...]
    active: tuple[float, ...]

    @property
    def share(self) -> float:
        """Of the units, those that are dead."""
        return len(self.dead) / self.units


@torch.no_grad()
def find_dead_units(model: nn.Module, batches: Iterable[Tensor]) -> list[LayerActivity]:
    """The activity of every activation function, in the order of the network, over all images; in eval.

    batches: normalised images (B, C, H, W). A unit is a channel of (B, C, H, W), a number of (B, K), the last dimension
    of (B, N, C). Modules and functions are found alike. Raises InputError where there are no images.
    """
    watch, seen = _Watch(), 0
    with evaluating(model), watch.callers(model), watch:
        for images in batches:
            watch.calls.clear()
            model(images)
            seen += len(images)
    if not seen:
        raise InputError("no images to look for dead units in")
    return [layer.summary(name) for name, layer in watch.layers.items()]


class _Running:
    """Smallest, largest and positive outputs of each unit so far."""

    def __init__(self, rectifier: bool, units: int) -> None:
        self.rectifier = rectifier
        self.low, self.high = torch.full((units,), torch.inf), torch.full((units,), -torch.inf)
        self.positive, self.seen = torch.zeros(units, dtype=torch.float64), 0

    def update(self, maps: Tensor) -> None:
        values = maps.transpose(0, 1).flatten(1)
        self.low = torch.minimum(self.low, values.amin(dim=1).float().cpu())
        self.high = torch.maximum(self.high, values.amax(dim=1).float().cpu())
        self.positive += (values > 0).sum(dim=1).cpu()
        self.seen += values.shape[1]

    def summary(self, name: str) -> LayerActivity:
        dead = self.high <= 0 if self.rectifier else self.high == self.low
        active = (self.positive / self.seen).tolist()
        return LayerActivity(name, self.rectifier, len(dead), tuple(dead.nonzero()[:, 0].tolist()), tuple(active))


class _Watch(TorchFunctionMode):
    """Sees every activation function that is called, and knows the module that calls it."""

    def __init__(self) -> None:
        super().__init__()
        self.layers: dict[str, _Running] = {}
        self.calls: dict[str, int] = {}
        self._callers = ["network"]

    @contextmanager
    def callers(self, model: nn.Module) -> Iterator[None]:
        handles = []
        for name, module in model.named_modules():
            if name:
                handles.append(module.register_forward_pre_hook(lambda _m, _i, name=name: self._callers.append(name)))
                handles.append(module.register_forward_hook(lambda *_: self._leave(), always_call=True))
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def _leave(self) -> None:
        self._callers.pop()

    def __torch_function__(
        self, func: Callable[..., Any], types: Sequence[type], args: Sequence[Any] = (), kwargs: Mapping | None = None
    ) -> Any:
        output = func(*args, **(kwargs or {}))
        rectifier = as_rectifier(func, *args, **(kwargs or {})) is not None
        if (rectifier or func in _SMOOTH) and isinstance(output, Tensor) and 2 <= output.ndim <= 4:
            maps = as_maps(output)
            self.layers.setdefault(self._name(), _Running(rectifier, maps.shape[1])).update(maps)
        return output

    def _name(self) -> str:
        caller = self._callers[-1]
        self.calls[caller] = self.calls.get(caller, 0) + 1
        return caller if self.calls[caller] == 1 else f"{caller}#{self.calls[caller]}"
