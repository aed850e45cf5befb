"""Losses of batches of identities, by name: called with (embeddings, labels), of all processes together.

embeddings: (B, D), labels: (B,) int64, -1 is ignored. What is near and far is found within the batch, which is to hold
several images of each identity; see `opsin.data.identity_batches`.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from opsin import objects
from opsin.errors import InputError, unknown
from opsin.losses.angular import ArcFaceLoss, CosFaceLoss, CosineSoftmax, SoftmaxLoss
from opsin.losses.centre import CentreLoss
from opsin.losses.embedding import batch_contrastive_loss
from opsin.losses.gathering import gather
from opsin.losses.own_loss import create_own_loss
from opsin.losses.prototypical import PrototypicalLoss
from opsin.losses.triplets import soft_ratio_loss, triplet_loss
from opsin.losses.weighting import WeightedSum


class IdentityLoss(nn.Module):
    """A function of (embeddings, labels) with its options, of the rows of all processes; see `gather`."""

    def __init__(self, function: Callable[..., Tensor], **options: Any) -> None:
        super().__init__()
        self.function, self.options = function, options
        function(torch.zeros(0, 2), torch.zeros(0, dtype=torch.int64), **options)  # a wrong option is refused now

    def forward(self, embeddings: Tensor, labels: Tensor) -> Tensor:
        return self.function(gather(embeddings), gather(labels), **self.options)

    def extra_repr(self) -> str:
        return ", ".join([self.function.__name__, *(f"{name}={value}" for name, value in self.options.items())])


def _weighted_sum(
    num_classes: int,
    features: int,
    *,
    criteria: Mapping[str, Mapping[str, Any] | None],
    weights: Mapping[str, float] | None = None,
) -> WeightedSum:
    """Several losses: {"softmax": None, "centre": {"alpha": 0.5}} and {"centre": 0.003}."""
    if not isinstance(criteria, Mapping):
        raise InputError(f"criteria are losses by name, each with its options; got {criteria!r}")
    made = {name: _create(name, num_classes, features, own or {}) for name, own in criteria.items()}
    return WeightedSum(made, weights)


_FUNCTIONS: Mapping[str, Callable[..., Tensor]] = {
    "contrastive": batch_contrastive_loss,
    "soft_ratio": soft_ratio_loss,
    "triplet": triplet_loss,
}
_MODULES: Mapping[str, Callable[..., nn.Module]] = {
    "arcface": ArcFaceLoss,
    "centre": CentreLoss,
    "cosface": CosFaceLoss,
    "cosine_softmax": CosineSoftmax,
    "prototypical": PrototypicalLoss,
    "softmax": SoftmaxLoss,
    "weighted_sum": _weighted_sum,
}
_KNOWN = ("num_classes", "features")  # follow from the data and the network


def list_identity_losses() -> list[str]:
    """Names that `create_identity_loss` knows."""
    return sorted([*_FUNCTIONS, *_MODULES])


def create_identity_loss(name: str, *, num_classes: int, features: int, **options: Any) -> nn.Module:
    """The criterion of an embedder: a module that is called with (embeddings, labels) -> scalar.

    name: or a dotted path, see `opsin.objects`. num_classes: identities of the training; features: of an embedding.
    Raises InputError for an unknown name or option, with the nearest known ones, and for a value that it refuses.
    """
    return _create(name, num_classes, features, options)


def _create(name: str, num_classes: int, features: int, options: Mapping[str, Any]) -> nn.Module:
    if (own := objects.find("loss.name", name)) is not None:
        return create_own_loss(own, **options)
    if name not in _FUNCTIONS and name not in _MODULES:
        raise unknown("loss of identities", name, list_identity_losses())
    make: Callable[..., Any] = _MODULES.get(name) or _FUNCTIONS[name]
    parameters = inspect.signature(make).parameters
    own_options = [
        n for n, p in parameters.items() if n not in _KNOWN and (name in _MODULES or p.kind is p.KEYWORD_ONLY)
    ]
    for option in options:
        if option in _KNOWN:
            raise InputError(f"loss.{option} follows from the data and the network; remove it")
        if option not in own_options:
            raise unknown(f"option of {name}", option, own_options)
    if name in _FUNCTIONS:
        return IdentityLoss(make, **options)
    sizes = {"num_classes": num_classes, "features": features}
    return make(**{n: v for n, v in sizes.items() if n in parameters}, **options)
