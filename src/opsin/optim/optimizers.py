"""Optimizers by name, and the parameter groups they work on."""

from __future__ import annotations

import inspect
import math
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from torch import nn, optim

from opsin.errors import InputError, unknown

# Our defaults where they differ from torch's. 0.9: the momentum of every network in `backbones`.
_OPTIMIZERS: Mapping[str, tuple[type[optim.Optimizer], dict[str, Any]]] = MappingProxyType(
    {
        "sgd": (optim.SGD, {"momentum": 0.9}),
        "adam": (optim.Adam, {}),
        "adamw": (optim.AdamW, {}),
        "rmsprop": (optim.RMSprop, {}),
        "adagrad": (optim.Adagrad, {}),
        "adadelta": (optim.Adadelta, {}),
        "nadam": (optim.NAdam, {}),
        "radam": (optim.RAdam, {}),
    }
)


def create_optimizer(
    model: nn.Module,
    name: str = "sgd",
    *,
    lr: float,
    weight_decay: float = 0.0,
    decay_norm_and_bias: bool = True,
    **options: Any,
) -> optim.Optimizer:
    """An optimizer over every parameter of a model that requires a gradient, its criterion's included, each once.

    name: sgd (momentum 0.9 unless given), adam, adamw, rmsprop, adagrad, adadelta, nadam, radam; options are those of
    the torch class. weight_decay acts as the class defines it: decoupled in adamw, an L2 term in the others.
    decay_norm_and_bias=False keeps it off biases and normalisation (He et al. 2019, arXiv:1812.01187, section 3.1).
    Raises InputError for an unknown name or option and for values that the optimizer refuses.
    """
    if name not in _OPTIMIZERS:
        raise unknown("optimizer", name, _OPTIMIZERS)
    kind, defaults = _OPTIMIZERS[name]
    known = inspect.signature(kind).parameters.keys() - {"params", "lr", "weight_decay"}
    for option in options:
        if option not in known:
            raise unknown(f"option of {name}", option, known)
    for key, value in (("lr", lr), ("weight_decay", weight_decay)):
        if not isinstance(value, int | float) or not math.isfinite(value) or value < 0:
            raise InputError(f"{key} must be a number of at least 0, got {value!r}")
    # YAML has no tuples, torch wants them: betas.
    values = {key: tuple(value) if isinstance(value, list) else value for key, value in options.items()}
    groups = parameter_groups(model, weight_decay, decay_norm_and_bias)
    try:
        return kind(groups, **{"lr": lr, "weight_decay": weight_decay, **defaults, **values})
    except (TypeError, ValueError) as error:
        raise InputError(f"{name} cannot work with {options}: {error}") from error


def parameter_groups(model: nn.Module, weight_decay: float, decay_norm_and_bias: bool) -> list[dict[str, Any]]:
    """The parameters of a model that require a gradient, each once, split by weight decay where that is asked for.

    Without decay are vectors and scalars (biases, affine parameters, slopes of PReLU) and whatever a layer or RMS norm
    holds, whose parameters may have more dimensions. Raises InputError when no parameter requires a gradient.
    """
    decayed: dict[nn.Parameter, None] = {}  # dicts as ordered sets: a tied parameter counts once, where it comes first
    spared: dict[nn.Parameter, None] = {}
    for module in model.modules():
        is_norm = isinstance(module, nn.LayerNorm | nn.RMSNorm)
        for parameter in module.parameters(recurse=False):
            if parameter.requires_grad and parameter not in decayed and parameter not in spared:
                spare = not decay_norm_and_bias and (parameter.ndim <= 1 or is_norm)
                (spared if spare else decayed)[parameter] = None
    if not decayed and not spared:
        raise InputError(f"no parameter of {type(model).__name__} requires a gradient; unfreeze what is to be trained")
    groups = [(list(decayed), weight_decay), (list(spared), 0.0)]
    return [{"params": params, "weight_decay": decay} for params, decay in groups if params]
