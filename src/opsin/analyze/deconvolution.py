"""What in an image excites a unit: ZFNet's deconvolution view, and its relatives.

Zeiler and Fergus 2013, arXiv:1311.2901, section 2.1: keep one activation of a layer, set all others to zero, and send
it back to the pixels through the same network turned round. Each layer of that has a partner in autograd:

    unpooling to the switches, where the maximum was    the gradient of max pooling
    transposed filters                                  the gradient of a convolution
    ReLU of the reconstruction                          what takes the place of the gradient of a ReLU

So only the ReLU differs from the plain gradient, and exchanging its rule gives the view through any graph, not only
through chains. Three rules, for a signal R that arrives at y = relu(x):

    deconvnet    relu(R)                Zeiler and Fergus; what x was does not matter
    gradient     R where x > 0          Simonyan et al. 2013, arXiv:1312.6034
    guided       relu(R) where x > 0    Springenberg et al. 2014, arXiv:1412.6806: both

In a network without rectifiers the three are one: the gradient. A norm or an average pooling, which the paper's nets
lack, passes its gradient; where max pooling overlaps, what several windows send to one pixel adds up.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from opsin.analyze.feature_maps import as_maps, evaluating, find_output, recorded
from opsin.errors import InputError, unknown

Rule = Literal["deconvnet", "guided", "gradient"]


@dataclass(frozen=True)
class Projection:
    """What excites a unit, in the space of the input.

    signal: (B, C, H, W), the activation sent back. activation: (B,). places: (B, 2), row and column of the unit's map.
    """

    signal: Tensor
    activation: Tensor
    places: Tensor


@dataclass(frozen=True)
class Excitation:
    """How much an image excites a unit. index: of the image in its data. row, column: where in the unit's map."""

    index: int
    row: int
    column: int
    activation: float


def project(
    model: nn.Module, images: Tensor, layer: str, unit: int, *, rule: Rule = "deconvnet", places: Tensor | None = None
) -> Projection:
    """Send a unit's activation back to the pixels of normalised images (B, C, H, W).

    places: (B, 2) int64, rows and columns of the unit's map; None takes its strongest one in each image. What is not
    positive there sends nothing. Raises InputError for an unknown layer, unit or rule.
    """
    if rule not in get_args(Rule):
        raise unknown("rule", rule, get_args(Rule))
    images = images.detach().clone().requires_grad_()
    with torch.enable_grad(), evaluating(model), recorded(model, [layer]) as outputs, BackwardRule(rule):
        model(images)
        maps = as_maps(find_output(outputs, layer))
        chosen = maps[:, check_unit(layer, unit, maps.shape[1])]
        places = _strongest_places(chosen) if places is None else places
        rows, columns = places.unbind(dim=1)
        activation = chosen[torch.arange(len(chosen), device=chosen.device), rows, columns]
        start = activation.detach().clamp(min=0)
        (signal,) = torch.autograd.grad(activation, images, start)
    return Projection(signal, activation.detach(), places)


@torch.no_grad()
def strongest(
    model: nn.Module, batches: Iterable[Tensor], layers: Sequence[str], *, count: int = 9
) -> dict[str, list[list[Excitation]]]:
    """For each unit of each layer the `count` images that excite it most, strongest first, with its best place there.

    batches: normalised images (B, C, H, W), B may vary. Section 4 of the paper shows nine of them. Raises InputError
    for an unknown layer, and where there are no images.
    """
    found: dict[str, tuple[Tensor, ...]] = {}  # activation, image and place: each (at most `count`, units)
    widths: dict[str, int] = {}
    seen = 0
    with evaluating(model), recorded(model, layers) as outputs:
        for images in batches:
            model(images)
            for layer in layers:
                maps = as_maps(find_output(outputs, layer))
                widths[layer] = maps.shape[3]
                peak, place = maps.flatten(2).max(dim=2)
                index = torch.arange(seen, seen + len(images), device=peak.device)[:, None].expand_as(peak)
                found[layer] = _best((peak, index, place), found.get(layer), count)
            seen += len(images)
    if not seen:
        raise InputError("no images to look for the strongest activations in")
    return {
        layer: [
            [Excitation(i, p // widths[layer], p % widths[layer], v) for v, i, p in zip(*columns, strict=True)]
            for columns in zip(*(kept.T.tolist() for kept in found[layer]), strict=True)
        ]
        for layer in layers
    }


def check_unit(layer: str, unit: int, count: int) -> int:
    """The unit, if the layer has it. Raises InputError otherwise."""
    if not 0 <= unit < count:
        raise InputError(f"layer {layer} has no unit {unit}; it has {count}, 0 to {count - 1}")
    return unit


def as_image(signal: Tensor) -> Tensor:
    """A projection (C, H, W) as uint8 of C channels, 1 or 3: mid-grey is nothing, the strongest is black or white.

    Signals of other channel numbers are summed to grey.
    """
    signal = signal if signal.shape[0] in (1, 3) else signal.sum(dim=0, keepdim=True)
    largest = signal.abs().amax()
    scaled = signal / largest if largest > 0 else signal
    return (127.5 + 127.5 * scaled).round().to(torch.uint8).cpu()


class BackwardRule(TorchFunctionMode):
    """While active, rectifiers send gradients back by a rule: ReLU and ReLU6, as modules and as functions.

    LeakyReLU, whose gradient has no zero, and smooth activations keep theirs.
    """

    def __init__(self, rule: Rule) -> None:
        super().__init__()
        self.rule = rule

    def __torch_function__(
        self, func: Callable[..., Any], types: Sequence[type], args: Sequence[Any] = (), kwargs: Mapping | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if self.rule != "gradient" and (call := as_rectifier(func, *args, **kwargs)) is not None:
            return _Rectify.apply(args[0] if args else kwargs["input"], self.rule, *call)
        return func(*args, **kwargs)


def as_rectifier(
    func: Callable[..., Any],
    input: Tensor | None = None,
    *args: Any,
    inplace: bool = False,
    **options: Any,
) -> tuple[float, bool] | None:
    """(upper limit, whether in place) of a call of a rectifier; None for any other."""
    if func in (F.relu, F.relu6):
        return (6.0 if func is F.relu6 else torch.inf), bool(args[0] if args else inplace)
    if func in (torch.relu, Tensor.relu, F.relu_, torch.relu_, Tensor.relu_):
        return torch.inf, func not in (torch.relu, Tensor.relu)
    if func is F.hardtanh:  # what nn.ReLU6 calls
        low, high, flag = (*args, *(-1.0, 1.0, inplace)[len(args) :])
        low, high = options.get("min_val", low), options.get("max_val", high)
        return (high, bool(flag)) if low == 0 else None
    return None


class _Rectify(torch.autograd.Function):
    """min(relu(x), high), whose backward follows a rule."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, rule: Rule, high: float, inplace: bool) -> Tensor:
        if inplace:
            ctx.mark_dirty(x)
        y = x.clamp_(0, high) if inplace else x.clamp(0, high)
        ctx.rule, ctx.high = rule, high
        ctx.save_for_backward(y)
        return y

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None, None]:
        signal = gradients[0].clamp(min=0)
        if ctx.rule == "guided":
            (y,) = ctx.saved_tensors
            signal = signal * ((y > 0) & (y < ctx.high))
        return signal, None, None, None


def _best(fresh: tuple[Tensor, ...], old: tuple[Tensor, ...] | None, count: int) -> tuple[Tensor, ...]:
    """Of the rows of both, for each unit the `count` with the largest activations."""
    both = fresh if old is None else tuple(torch.cat(pair) for pair in zip(old, fresh, strict=True))
    best = both[0].topk(min(count, len(both[0])), dim=0).indices
    return tuple(kept.gather(0, best) for kept in both)


def _strongest_places(maps: Tensor) -> Tensor:
    """Where (B, h, w) maps are largest: (B, 2)."""
    flat = maps.flatten(1).argmax(dim=1)
    return torch.stack([flat // maps.shape[2], flat % maps.shape[2]], dim=1)
