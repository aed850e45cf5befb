"""What a classifier sees before its last layer, beside its answer: what methods by features bring together."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from opsin.backbones.backbone import Backbone, Outputs, logits_of
from opsin.errors import InputError
from opsin.structures import Batch


@dataclass(frozen=True)
class Seen:
    """What a network makes of a batch of several domains.

    features: (B, D), the input of its last layer. logits: (B, K). labels: (B,) int64, -1 where there is none. domains:
    (B,) int64, -1 of the target. progress: how much of the training is done, in [0, 1].
    """

    features: Tensor
    logits: Tensor
    labels: Tensor
    domains: Tensor
    progress: float = 0.0

    @property
    def source(self) -> Tensor:
        """(B,) bool: the examples of domains that teach."""
        return self.domains >= 0

    @property
    def target(self) -> Tensor:
        """(B,) bool: those of the domain that is adapted to."""
        return self.domains < 0

    def halves(self, values: Tensor) -> tuple[Tensor, Tensor]:
        """The rows of the sources, and those of the target."""
        return values[self.source], values[self.target]


def last_layer(model: nn.Module) -> nn.Module:
    """The layer that makes the logits. Raises InputError for a network that names none."""
    if not isinstance(model, Backbone):
        raise InputError(
            "adaptation needs the features of a network, which one of your own does not name; take another"
        )
    names = [name.rpartition(".")[0] for name in model.class_rows() if name.startswith("head")]
    if not names:
        raise InputError(f"{model.label} has no last layer with a row for each class, whose input could be adapted")
    return model.get_submodule(names[-1])


def look(model: nn.Module, images: Tensor) -> tuple[Tensor, Outputs]:
    """The features (B, D) before the last layer, and the network's outputs; maps are averaged over their places."""
    seen: list[Tensor] = []

    def keep(module: nn.Module, given: tuple[Any, ...]) -> None:
        seen.append(given[0])

    handle = last_layer(model).register_forward_pre_hook(keep)
    try:
        outputs = model(images)
    finally:
        handle.remove()
    features = seen[-1]
    return (features.mean(dim=(2, 3)) if features.ndim == 4 else features), outputs


def count_features(model: nn.Module) -> int:
    """The D of `look`."""
    layer: Any = last_layer(model)
    return int(layer.weight.shape[1])


def rows_of(outputs: Outputs, rows: Tensor) -> Outputs:
    """The outputs of some examples of a batch. rows: (B,) bool."""
    if isinstance(outputs, Tensor):
        return outputs[rows]
    return {name: value[rows] for name, value in outputs.items()}


def seen_in(features: Tensor, outputs: Outputs, batch: Batch, progress: float) -> Seen:
    """What methods are given of a batch."""
    fields: Any = batch
    device = features.device
    return Seen(features, logits_of(outputs), fields["label"].to(device), fields["domain"].to(device), progress)


@torch.no_grad()
def probabilities(logits: Tensor) -> Tensor:
    """(B, K), without gradient."""
    return logits.float().softmax(dim=1)
