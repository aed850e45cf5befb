"""A loss of the user's own as a criterion: any callable of (logits, targets)."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from opsin.errors import InputError
from opsin.losses.criterion import Criterion


def create_own_loss(own: Any, **options: Any) -> nn.Module:
    """The criterion of a loss that is an object: a function, a module, or a class of modules, which `options` build.

    It is called with (logits, targets), as the model's own loss is, and gives one number, or several by their names,
    whose sum is minimised. Options of a function are its keywords. Raises InputError for anything else.
    """
    name = getattr(own, "__name__", type(own).__name__)
    if inspect.isclass(own):
        if not issubclass(own, nn.Module):
            raise InputError(f"loss {name} is a class, but no nn.Module; give a function of (logits, targets)")
        try:
            own, options = own(**options), {}
        except (TypeError, ValueError) as error:
            raise InputError(f"the loss {name} cannot be built with {options}: {error}") from error
    if not callable(own):
        raise InputError(
            f"loss is {own!r}; expected a callable of (logits, targets), such as a function or an nn.Module"
        )
    if isinstance(own, nn.Module) and options:
        raise InputError(f"the loss {name} is built already; remove {', '.join(options)}")
    check_takes(own.forward if isinstance(own, nn.Module) else own, f"the loss {name}", options)
    if isinstance(own, nn.Module):
        return own
    function: Any = own
    return Criterion(function, **options)


class OwnPixelLoss(nn.Module):
    """A loss of the user's own of (logits, labels) among those of `opsin.losses.pixels`.

    One with a parameter `pixel_weights` is given the weights of the pixels by that name. Of several terms the sum.
    """

    def __init__(self, criterion: nn.Module) -> None:
        super().__init__()
        self.criterion = criterion
        function: Any = criterion.function if isinstance(criterion, Criterion) else criterion.forward
        try:
            self.weighted = "pixel_weights" in inspect.signature(function).parameters
        except (TypeError, ValueError):
            self.weighted = False  # one in C says nothing of itself

    def forward(self, logits: Tensor, labels: Tensor, pixel_weights: Tensor | None = None) -> Tensor:
        if self.weighted:
            found = self.criterion(logits, labels, pixel_weights=pixel_weights)
        elif pixel_weights is not None:
            raise InputError(
                "this loss takes no weights of pixels; give it a parameter pixel_weights, or train without"
            )
        else:
            found = self.criterion(logits, labels)
        return torch.stack(list(found.values())).sum() if isinstance(found, Mapping) else found


def check_takes(function: Any, what: str, options: Mapping[str, Any] | None = None) -> None:
    """Raise InputError for a function that cannot be called with two values and these options. what: it, in words."""
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):
        return  # one in C says nothing of itself
    try:
        signature.bind(None, None, **(options or {}))
    except TypeError as error:
        raise InputError(f"{what} is called with two values, and {what} takes {signature}: {error}") from None


def check_loss(criterion: nn.Module, logits: Tensor, targets: Tensor) -> None:
    """Try a criterion on a small batch. Raises InputError where it fails, or gives no number to go down by."""
    name = type(criterion).__name__
    logits = logits.detach().clone().requires_grad_()
    with torch.enable_grad(), torch.random.fork_rng(devices=[]):
        try:
            found = criterion(logits, targets)
        except Exception as error:  # whatever the user's code raises
            shapes = f"logits {tuple(logits.shape)} and targets {tuple(targets.shape)} of {targets.dtype}"
            what = " ".join(f"{type(error).__name__}: {error}".split())
            raise InputError(f"the loss fails on {shapes}: {what}") from error
    terms = found if isinstance(found, Mapping) else {"loss": found}
    if not terms or (len(terms) > 1 and "loss" in terms):
        raise InputError(f"the loss gives the terms {', '.join(map(str, terms)) or 'none'}; name them, none 'loss'")
    for key, term in terms.items():
        if not isinstance(term, Tensor) or term.numel() != 1 or term.ndim:
            shape = tuple(term.shape) if isinstance(term, Tensor) else type(term).__name__
            raise InputError(
                f"the {key} of {name} is {shape}; expected one number, a tensor without dimensions: .mean()"
            )
    if not any(term.requires_grad for term in terms.values()):
        raise InputError("the loss does not depend on the logits: its result has no gradient; do not detach them")
