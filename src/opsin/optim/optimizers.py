"""Optimizers by name, and the parameter groups they work on."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from torch import nn, optim

from opsin import objects
from opsin.checks import check_number, check_share, check_within
from opsin.errors import InputError, unknown
from opsin.optim.heavy_ball import HeavyBall
from opsin.optim.wrapping import FilterClipping, GradientCentralization, Lookahead


@dataclass(frozen=True)
class _Entry:
    """A torch optimizer, our defaults where they differ from torch's, and what is put around it."""

    kind: type[optim.Optimizer]
    defaults: Mapping[str, Any] = field(default_factory=dict)
    lookahead: Mapping[str, Any] | None = None
    gradient_centralization: bool = False


# 0.9: the momentum of every network in `backbones`.
_OPTIMIZERS: Mapping[str, _Entry] = MappingProxyType(
    {
        "sgd": _Entry(optim.SGD, {"momentum": 0.9}),
        "momentum": _Entry(optim.SGD, {"momentum": 0.9}),
        "nesterov": _Entry(optim.SGD, {"momentum": 0.9, "nesterov": True}),
        "heavy_ball": _Entry(HeavyBall),
        "adagrad": _Entry(optim.Adagrad),
        "rmsprop": _Entry(optim.RMSprop, {"alpha": 0.9}),  # Hinton's lecture 6e; torch has 0.99
        "adadelta": _Entry(optim.Adadelta, {"rho": 0.95}),  # Zeiler 2012, section 4.1; torch has 0.9
        "adam": _Entry(optim.Adam),
        "adamw": _Entry(optim.AdamW),
        "nadam": _Entry(optim.NAdam),
        "radam": _Entry(optim.RAdam),
        "lookahead": _Entry(optim.SGD, {"momentum": 0.9}, lookahead={}),
        # Its author's values: github.com/lessw2020/Ranger-Deep-Learning-Optimizer, 20.4.11.
        "ranger": _Entry(
            optim.RAdam,
            {"betas": (0.95, 0.999), "eps": 1e-5, "decoupled_weight_decay": True},
            lookahead={"k": 6, "alpha": 0.5},
            gradient_centralization=True,
        ),
    }
)

_OWN = {"layer_decay", "layer_rates", "lookahead", "gradient_centralization", "filter_rms"}  # options of any optimizer


def create_optimizer(
    model: nn.Module,
    name: str = "sgd",
    *,
    lr: float,
    weight_decay: float = 0.0,
    decay_norm_and_bias: bool = True,
    layer_decay: float = 1.0,
    layer_rates: Mapping[str, float] | None = None,
    lookahead: bool | Mapping[str, Any] | None = None,
    gradient_centralization: bool | None = None,
    filter_rms: float | None = None,
    **options: Any,
) -> optim.Optimizer:
    """An optimizer over every parameter of a model that requires a gradient, its criterion's included, each once.

    name: sgd and momentum (momentum 0.9 unless given), nesterov, heavy_ball, adagrad, rmsprop, adadelta, adam, adamw,
    nadam, radam, lookahead (around momentum), ranger (RAdam, Lookahead and gradient centralisation); or any class of
    torch.optim by its own name, as NAdam or torch.optim.NAdam, with torch's defaults, or of a module that was named,
    see `opsin.objects`. options are those of the torch class. weight_decay acts as the class defines it: decoupled in
    adamw and ranger, an L2 term in the others.
    decay_norm_and_bias=False keeps it off biases and normalisation (He et al. 2019, arXiv:1812.01187, section 3.1).
    layer_decay, layer_rates: see `parameter_groups`. lookahead: {k, alpha} or True puts `Lookahead` around any of them,
    and gradient_centralization=True `GradientCentralization`; False takes them away from a name that has them.
    filter_rms: the radius of `FilterClipping`, None for none.
    Raises InputError for an unknown name or option and for values that the optimizer refuses.
    """
    entry = _find_entry(name)
    taken = inspect.signature(entry.kind).parameters
    known = taken.keys() - {"params", "lr", "weight_decay"}
    for option in options:
        if option not in known and not any(p.kind is p.VAR_KEYWORD for p in taken.values()):
            raise unknown(f"option of {name}", option, known | _OWN)
    for key, value in (("lr", lr), ("weight_decay", weight_decay)):
        check_within(key, value, 0)
    # YAML has no tuples, torch wants them: betas.
    values = {key: tuple(value) if isinstance(value, list) else value for key, value in options.items()}
    groups = parameter_groups(model, weight_decay, decay_norm_and_bias, lr, layer_decay, layer_rates)
    rates = {"lr": lr, "weight_decay": weight_decay}
    if "weight_decay" not in taken and not any(p.kind is p.VAR_KEYWORD for p in taken.values()):
        rates = _without_decay(name, lr, weight_decay, groups)
    try:
        optimizer = entry.kind(groups, **{**rates, **entry.defaults, **values})
    except (TypeError, ValueError) as error:
        raise InputError(f"{name} cannot work with {options}: {error}") from error
    return _wrapped(optimizer, entry, lookahead, gradient_centralization, filter_rms)


def _wrapped(
    optimizer: optim.Optimizer,
    entry: _Entry,
    lookahead: bool | Mapping[str, Any] | None,
    gradient_centralization: bool | None,
    filter_rms: float | None,
) -> optim.Optimizer:
    """The optimizer in what was asked for, or what its name has."""
    centralized = entry.gradient_centralization if gradient_centralization is None else gradient_centralization
    if not isinstance(centralized, bool):
        raise InputError(f"gradient_centralization must be true or false, got {centralized!r}")
    if centralized:
        optimizer = GradientCentralization(optimizer)
    if (ahead := _lookahead_options(entry, lookahead)) is not None:
        optimizer = Lookahead(optimizer, **ahead)
    return optimizer if filter_rms is None else FilterClipping(optimizer, filter_rms)


def _find_entry(name: str) -> _Entry:
    """An optimizer of ours, of torch by its class's name, or an object that stands for one."""
    if name in _OPTIMIZERS:
        return _OPTIMIZERS[name]
    found = objects.find("optim.name", name) if "." in name else getattr(optim, name, None)
    if inspect.isclass(found) and issubclass(found, optim.Optimizer) and found is not optim.Optimizer:
        return _Entry(found)
    if found is not None:
        raise InputError(f"optim.name={name} is no optimizer; expected a subclass of torch.optim.Optimizer")
    raise InputError(f"{unknown('optimizer', name, _OPTIMIZERS)}; or a class of torch.optim, such as NAdam")


def _without_decay(name: str, lr: float, weight_decay: float, groups: list[dict[str, Any]]) -> dict[str, float]:
    """What an optimizer without weight decay is given; its groups are left without."""
    if weight_decay:
        raise InputError(f"{name} has no weight decay; set optim.weight_decay=0")
    for group in groups:
        del group["weight_decay"]
    return {"lr": lr}


def list_optimizers() -> list[str]:
    """Names that `create_optimizer` knows."""
    return sorted(_OPTIMIZERS)


def parameter_groups(
    model: nn.Module,
    weight_decay: float,
    decay_norm_and_bias: bool,
    lr: float | None = None,
    layer_decay: float = 1.0,
    layer_rates: Mapping[str, float] | None = None,
) -> list[dict[str, Any]]:
    """The parameters of a model that require a gradient, each once, split by weight decay and rate where asked for.

    Without decay are vectors and scalars (biases, affine parameters, slopes of PReLU) and whatever a layer or RMS norm
    holds, whose parameters may have more dimensions. layer_decay: d of the rate lr * d**depth, for fine-tuning (Howard
    and Ruder 2018, arXiv:1801.06146, section 3.2), where the head of a `Backbone` and whatever stands beside it have
    depth 0, its last stage 1, the stage before it 2, and so on to the stem. Groups of less depth come first.
    layer_rates: of parts of the model by name, as {"convs.0": 0.1}, what their rate is multiplied by; of two names that
    fit, the longer one's.
    Raises InputError when no parameter requires a gradient, where there are no stages to tell depths by, and for names
    of no part.
    """
    depths, rates = _depths(model, layer_decay), _rates(model, layer_rates or {})
    groups: dict[tuple[int, float, bool], dict[nn.Parameter, None]] = {}  # dicts as ordered sets
    seen: set[nn.Parameter] = set()  # a tied parameter counts once, where it comes first
    for module in model.modules():
        is_norm = isinstance(module, nn.LayerNorm | nn.RMSNorm)
        for parameter in module.parameters(recurse=False):
            if parameter.requires_grad and parameter not in seen:
                seen.add(parameter)
                spare = not decay_norm_and_bias and (parameter.ndim <= 1 or is_norm)
                key = depths.get(parameter, 0), rates.get(parameter, 1.0), spare
                groups.setdefault(key, {})[parameter] = None
    if not groups:
        raise InputError(f"no parameter of {type(model).__name__} requires a gradient; unfreeze what is to be trained")
    found = []
    for (depth, rate, spare), parameters in sorted(groups.items(), key=lambda item: item[0]):
        found.append({"params": list(parameters), "weight_decay": 0.0 if spare else weight_decay})
        if (layer_decay != 1 or rates) and lr is not None:
            found[-1]["lr"] = lr * layer_decay**depth * rate
    return found


def _rates(model: nn.Module, layer_rates: Mapping[str, float]) -> dict[nn.Parameter, float]:
    """Of each parameter that a name of `layer_rates` fits what its rate is multiplied by."""
    if not isinstance(layer_rates, Mapping):
        raise InputError(f'layer_rates are numbers by the names of parts, as {{"stem": 0.1}}; got {layer_rates!r}')
    for name, rate in layer_rates.items():
        check_number(f"layer_rates of {name}", rate)
    found, used = dict[nn.Parameter, float](), set[str]()
    for full, parameter in model.named_parameters():
        own = full.removeprefix("model.")  # of a task that has the model in it
        fitting = [name for name in layer_rates if f"{own}.".startswith(f"{name}.")]
        used.update(fitting)
        if fitting:
            found[parameter] = float(layer_rates[max(fitting, key=len)])
    if unused := [name for name in layer_rates if name not in used]:
        parts = [name.removeprefix("model.") for name, _ in model.named_modules() if name]
        raise unknown("part of the model in layer_rates", unused[0], parts)
    return found


def _depths(model: nn.Module, layer_decay: float) -> dict[nn.Parameter, int]:
    """How many layers, counted in stages, lie between each parameter and the output. Empty where it does not matter."""
    check_share("layer_decay", layer_decay)
    if layer_decay == 1:
        return {}
    for module in model.modules():
        stem, stages = getattr(module, "stem", None), getattr(module, "stages", None)
        if isinstance(stem, nn.Module) and isinstance(stages, nn.ModuleList):
            below = [*reversed(stages), stem]
            return {p: depth for depth, layer in enumerate(below, 1) for p in layer.parameters()}
    raise InputError(
        f"layer_decay needs a network of stem, stages and head; {type(model).__name__} has none: leave it out"
    )


def _lookahead_options(entry: _Entry, lookahead: bool | Mapping[str, Any] | None) -> dict[str, Any] | None:
    """The options of Lookahead, None where there is to be none."""
    if not isinstance(lookahead, Mapping | bool | None):
        raise InputError(f"lookahead must be true, false or {{k: 5, alpha: 0.5}}, got {lookahead!r}")
    given = dict(lookahead) if isinstance(lookahead, Mapping) else {}
    if lookahead is False or (lookahead is None and entry.lookahead is None):
        return None
    for option in given:
        if option not in ("k", "alpha"):
            raise unknown("option of lookahead", option, ("k", "alpha"))
    return {**(entry.lookahead or {}), **given}
