"""Criteria, by name: each a documented function, and a small module where it has state."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from opsin import objects
from opsin.errors import InputError, unknown
from opsin.lazy_modules import lazy_modules
from opsin.losses.angular import ArcFaceLoss, CosFaceLoss, CosineSoftmax, SoftmaxLoss
from opsin.losses.boxes import ciou_loss, diou_loss, giou_loss, iou_loss
from opsin.losses.centre import CentreLoss
from opsin.losses.classification import (
    BinaryCrossEntropy,
    CrossEntropy,
    binary_cross_entropy,
    cross_entropy,
    kl_divergence,
    sigmoid_cross_entropy,
    softmax_cross_entropy,
)
from opsin.losses.criterion import Criterion
from opsin.losses.embedding import batch_contrastive_loss, contrastive_loss, margin_ranking_loss
from opsin.losses.focal import focal_loss, softmax_focal_loss
from opsin.losses.identities import create_identity_loss, list_identity_losses
from opsin.losses.landmarks import adaptive_wing_loss, wing_loss
from opsin.losses.mining import hard_negatives
from opsin.losses.overlap import dice_loss, jaccard_loss, lovasz_loss
from opsin.losses.own_loss import OwnPixelLoss, create_own_loss
from opsin.losses.pixels import PixelCrossEntropy, pixel_cross_entropy, pixel_focal_loss, pixel_sigmoid_focal_loss
from opsin.losses.prototypical import PrototypicalLoss, prototypical_loss
from opsin.losses.regression import huber_loss, l1_loss, l2_loss, smooth_l1_loss, sse_loss
from opsin.losses.sequence import ctc_loss
from opsin.losses.triplets import soft_ratio_loss, triplet_loss
from opsin.losses.weighting import WeightedSum

__getattr__, __dir__ = lazy_modules(__name__, __file__)

__all__ = [
    "ArcFaceLoss",
    "BinaryCrossEntropy",
    "CentreLoss",
    "CosFaceLoss",
    "CosineSoftmax",
    "Criterion",
    "CrossEntropy",
    "PixelCrossEntropy",
    "PrototypicalLoss",
    "SoftmaxLoss",
    "WeightedSum",
    "adaptive_wing_loss",
    "batch_contrastive_loss",
    "binary_cross_entropy",
    "ciou_loss",
    "contrastive_loss",
    "create_identity_loss",
    "create_loss",
    "create_own_loss",
    "create_pixel_loss",
    "cross_entropy",
    "ctc_loss",
    "dice_loss",
    "diou_loss",
    "focal_loss",
    "giou_loss",
    "hard_negatives",
    "huber_loss",
    "iou_loss",
    "jaccard_loss",
    "kl_divergence",
    "l1_loss",
    "l2_loss",
    "list_identity_losses",
    "list_losses",
    "list_pixel_losses",
    "lovasz_loss",
    "margin_ranking_loss",
    "pixel_cross_entropy",
    "pixel_focal_loss",
    "pixel_sigmoid_focal_loss",
    "prototypical_loss",
    "sigmoid_cross_entropy",
    "smooth_l1_loss",
    "soft_ratio_loss",
    "softmax_cross_entropy",
    "softmax_focal_loss",
    "sse_loss",
    "triplet_loss",
    "wing_loss",
]


def _weighted_sum(
    criteria: Mapping[str, Mapping[str, Any] | None],
    weights: Mapping[str, float] | None = None,
    learned: bool = False,
) -> WeightedSum:
    """A WeightedSum from names: {"cross_entropy": {"smoothing": 0.1}, "centre": {...}} and {"centre": 0.003}."""
    return _sum_of(create_loss, criteria, weights, learned)


def _weighted_pixel_sum(
    criteria: Mapping[str, Mapping[str, Any] | None],
    weights: Mapping[str, float] | None = None,
    learned: bool = False,
) -> WeightedSum:
    """The same of losses of pixels: {"cross_entropy": None, "dice": {"smooth": 0}}."""
    return _sum_of(create_pixel_loss, criteria, weights, learned)


def _sum_of(
    create: Callable[..., nn.Module],
    criteria: Mapping[str, Mapping[str, Any] | None],
    weights: Mapping[str, float] | None,
    learned: bool,
) -> WeightedSum:
    if not isinstance(criteria, Mapping):
        raise InputError(f"criteria are losses by name, each with its options; got {criteria!r}")
    made = {name: create(name, **(options or {})) for name, options in criteria.items()}
    return WeightedSum(made, weights, learned=learned)


_Modules = Mapping[str, Callable[..., nn.Module]]
_Functions = Mapping[str, tuple[Callable[..., Tensor], Callable[[int], tuple[Tensor, ...]]]]
_MODULES: _Modules = {
    "bce": BinaryCrossEntropy,
    "centre": CentreLoss,
    "cross_entropy": CrossEntropy,
    "weighted_sum": _weighted_sum,
}


def _pair(size: int) -> tuple[Tensor, ...]:
    return torch.zeros(0, size), torch.zeros(0, size)


def _labelled(size: int) -> tuple[Tensor, ...]:
    return torch.zeros(0, size), torch.zeros(0, dtype=torch.int64)


# Of each function what an empty batch looks like, for `size` classes or coordinates: options are tried on it.
_FUNCTIONS: _Functions = {
    "adaptive_wing": (adaptive_wing_loss, _pair),
    "ciou": (ciou_loss, _pair),
    "contrastive": (contrastive_loss, lambda size: (*_pair(size), torch.zeros(0))),
    "ctc": (ctc_loss, lambda size: (torch.zeros(1, 0, 2**31), torch.zeros(0, 1, dtype=torch.int64))),
    "dice": (dice_loss, _pair),
    "diou": (diou_loss, _pair),
    "focal": (focal_loss, _pair),
    "giou": (giou_loss, _pair),
    "huber": (huber_loss, _pair),
    "iou": (iou_loss, _pair),
    "jaccard": (jaccard_loss, _pair),
    "kl": (kl_divergence, _pair),
    "l1": (l1_loss, _pair),
    "l2": (l2_loss, _pair),
    "lovasz": (lovasz_loss, _pair),
    "margin_ranking": (margin_ranking_loss, lambda size: (torch.zeros(0), torch.zeros(0), torch.zeros(0))),
    "sigmoid_cross_entropy": (sigmoid_cross_entropy, _pair),
    "smooth_l1": (smooth_l1_loss, _pair),
    "softmax_cross_entropy": (softmax_cross_entropy, _pair),
    "softmax_focal": (softmax_focal_loss, _pair),
    "sse": (sse_loss, _pair),
    "triplet": (triplet_loss, _labelled),
    "wing": (wing_loss, _pair),
}


def _map(size: int) -> tuple[Tensor, ...]:
    return torch.zeros(0, size, 1, 1), torch.zeros(0, 1, 1, dtype=torch.int64)


# Losses of maps of classes, called with (logits, labels, pixel_weights), see `opsin.losses.pixels`.
_PIXEL_MODULES: _Modules = {"cross_entropy": PixelCrossEntropy, "weighted_sum": _weighted_pixel_sum}
_PIXEL_FUNCTIONS: _Functions = {
    "dice": (dice_loss, _map),
    "focal": (pixel_focal_loss, _map),
    "jaccard": (jaccard_loss, _map),
    "lovasz": (lovasz_loss, _map),
    "sigmoid_focal": (pixel_sigmoid_focal_loss, _map),
}


def list_losses() -> list[str]:
    """Names that `create_loss` knows."""
    return sorted([*_MODULES, *_FUNCTIONS])


def list_pixel_losses() -> list[str]:
    """Names that `create_pixel_loss` knows."""
    return sorted([*_PIXEL_MODULES, *_PIXEL_FUNCTIONS])


def create_loss(name: str, **options: Any) -> nn.Module:
    """The criterion of a recipe: a module that is called as the loss of that name, mostly (logits, targets) -> scalar.

    name: or a dotted path, as "torch.nn.CrossEntropyLoss", see `opsin.objects`.
    Options are the function's keywords, or the module's arguments; numbers for each class may be plain lists. Raises
    InputError for an unknown name or option, with the nearest known ones, and for a value that the loss refuses.
    """
    if (own := objects.find("loss.name", name)) is not None:
        return create_own_loss(own, **options)
    if name not in _MODULES and name not in _FUNCTIONS:
        raise unknown("loss", name, list_losses())
    return _create(name, _MODULES, _FUNCTIONS, options)


def create_pixel_loss(name: str, **options: Any) -> nn.Module:
    """The criterion of a segmenter: a module that is called with (logits, labels, pixel_weights) -> scalar.

    name, options: as of `create_loss`; see `opsin.losses.pixels` for what it is given. A loss of the user's own is
    called with (logits, labels), and with the weights of the pixels where it has a parameter `pixel_weights`.
    """
    if (own := objects.find("loss.name", name)) is not None:
        return OwnPixelLoss(create_own_loss(own, **options))
    if name not in _PIXEL_MODULES and name not in _PIXEL_FUNCTIONS:
        raise unknown("loss of pixels", name, list_pixel_losses())
    return _create(name, _PIXEL_MODULES, _PIXEL_FUNCTIONS, options)


def _create(name: str, modules: _Modules, functions: _Functions, options: dict[str, Any]) -> nn.Module:
    make: Callable[..., Any] = modules.get(name) or functions[name][0]
    known = {n: p for n, p in inspect.signature(make).parameters.items() if name in modules or p.kind is p.KEYWORD_ONLY}
    for option, value in options.items():
        if option not in known:
            raise unknown(f"option of {name}", option, known)
        if isinstance(value, (list, tuple)):
            options[option] = _numbers(option, value)
    missing = [n for n, p in known.items() if p.default is p.empty and n not in options]
    if missing:
        raise InputError(f"the loss {name} needs {' and '.join(missing)}; give {'=..., '.join(missing)}=...")
    if name in modules:
        return make(**options)
    function, empty_batch = functions[name]
    criterion = Criterion(function, **options)
    size = next((len(value) for value in criterion.buffers()), 4)
    criterion(*empty_batch(size))  # a wrong option is refused now, not in the first step
    return criterion


def _numbers(option: str, values: Sequence[Any]) -> Tensor:
    try:
        return torch.tensor(values, dtype=torch.float32)
    except (TypeError, ValueError, RuntimeError):
        raise InputError(f"{option} takes numbers only, got {values!r}") from None
