"""A loss function as a module, for recipes and models that hold a criterion."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn


class Criterion(nn.Module):
    """A loss function with its options. Tensors among them follow the module's device, outside the state dict."""

    def __init__(self, function: Callable[..., Tensor], **options: Any) -> None:
        super().__init__()
        self.function = function
        self.options = {name: value for name, value in options.items() if not isinstance(value, Tensor)}
        for name in options.keys() - self.options.keys():
            self.register_buffer(name, options[name], persistent=False)

    def forward(self, *inputs: Tensor, **named: Tensor | None) -> Tensor:
        return self.function(*inputs, **named, **self.options, **dict(self.named_buffers()))

    def extra_repr(self) -> str:
        return ", ".join(
            [
                getattr(self.function, "__name__", type(self.function).__name__),
                *(f"{name}={value}" for name, value in self.options.items()),
            ]
        )
