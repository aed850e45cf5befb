"""Classification networks of the user's own: a plain `nn.Module` of images to logits, under the three verbs."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from opsin.backbones.backbone import Backbone, Outputs, logits_of
from opsin.errors import InputError
from opsin.losses import CrossEntropy
from opsin.nn.capabilities import learned_parts


class _Usual(CrossEntropy):
    """The loss where neither the recipe nor the network names another."""


class OwnClassifier(nn.Module):
    """A network under the verbs of a classifier; its weights are those of `network`, under that name.

    network: images (B, C, H, W) -> logits (B, K), or a dict of them as "logits". One with a method
    loss(outputs, targets) -> {name: term} of its own keeps it, unless the recipe names a loss. in_channels is of the
    images that it is given.
    """

    def __init__(self, network: nn.Module, num_classes: int, in_channels: int) -> None:
        super().__init__()
        self.network = network
        self.num_classes, self.in_channels = num_classes, in_channels
        self.criterion: nn.Module = _Usual()
        self.multi_label, self.temperature = False, 1.0

    @classmethod
    def claims(cls, module: nn.Module) -> bool:
        """Whether it is a `Backbone`, or adapted already."""
        return isinstance(module, Backbone | OwnClassifier)

    @classmethod
    def accept(cls, module: nn.Module) -> None:
        """Nothing: forward is all that it takes."""

    @classmethod
    def adapt(cls, module: nn.Module, num_classes: int | None, in_channels: int | None) -> nn.Module:
        """A `Backbone` as it is, any other under the verbs. Raises InputError for one of other classes or channels."""
        if num_classes is None or in_channels is None:
            raise InputError(f"{type(module).__name__} needs data with classes and images")
        if not isinstance(module, Backbone | OwnClassifier):
            return cls(module, num_classes, in_channels)
        name = type(module).__name__
        if module.num_classes != num_classes:
            raise InputError(
                f"{name} was built for {module.num_classes} classes, and the data has {num_classes}; call "
                f"reset_head({num_classes}) on it, or build it with num_classes={num_classes}"
            )
        if module.in_channels != in_channels:
            raise InputError(
                f"{name} was built for {module.in_channels} input channels, and images are given in {in_channels}; "
                f"set data.channels={module.in_channels}"
            )
        return module

    @classmethod
    def check(cls, outputs: Any, num_classes: int | None, name: str) -> None:
        """Raise InputError for what are no logits of a batch of two."""
        logits = outputs.get("logits") if isinstance(outputs, Mapping) else outputs
        wanted = f"(2, {num_classes})" if num_classes is not None else "(2, number of classes)"
        if not isinstance(logits, Tensor) or logits.ndim != 2 or len(logits) != 2:
            shown = tuple(logits.shape) if isinstance(logits, Tensor) else type(outputs).__name__
            raise InputError(f"{name} gives {shown} for a batch of 2 images; expected logits of shape {wanted}")
        if not logits.is_floating_point():
            raise InputError(f"{name} gives logits of {logits.dtype}; expected floating-point numbers")
        if num_classes is not None and logits.shape[1] != num_classes:
            raise InputError(
                f"{name} gives {logits.shape[1]} logits an image, and there are {num_classes} classes; build it for "
                f"{num_classes}"
            )

    def forward(self, images: Tensor) -> Outputs:
        """images: (B, C, H, W) float, normalised -> logits (B, K), or a dict with "logits"."""
        return self.network(images)

    def loss(self, outputs: Outputs, targets: Tensor) -> dict[str, Tensor]:
        """Named terms whose sum is minimised. targets: (B,) int64, or (B, K) float in [0, 1] when soft."""
        own = getattr(self.network, "loss", None)
        if callable(own) and isinstance(self.criterion, _Usual):
            return as_terms(own(outputs, targets))
        return as_terms(self.criterion(logits_of(outputs), targets))

    def decode(self, outputs: Outputs) -> dict[str, Tensor]:
        """Logits (B, K) -> scores (B, K) in [0, 1], and labels; as `Backbone.decode`."""
        logits = logits_of(outputs).float() / self.temperature
        if self.multi_label:
            scores = torch.sigmoid(logits)
            return {"scores": scores, "labels": scores >= 0.5}
        scores = torch.softmax(logits, dim=1)
        return {"scores": scores, "labels": scores.argmax(dim=1)}

    def saved_state(self) -> dict[str, Any]:
        """What `decode` follows beside the weights."""
        return {"temperature": float(self.temperature), "multi_label": bool(self.multi_label)}

    def restore_state(self, values: Mapping[str, Any]) -> None:
        """Take what `saved_state` gave. Raises ValueError for a temperature that is not above 0."""
        self.temperature, self.multi_label = float(values.get("temperature", 1.0)), bool(values.get("multi_label"))
        if not 0 < self.temperature < math.inf:
            raise ValueError(f"temperature is {self.temperature}; expected a number above 0")

    def learned_parts(self) -> list[nn.Module]:
        """What the network itself says an earlier training has taught."""
        return learned_parts(self.network)

    def drop_aux_heads(self) -> None:
        """Nothing: it has none that we know of."""


def as_terms(found: Any) -> dict[str, Tensor]:
    """What a loss gives, one number or several by their names, as named terms."""
    return dict(found) if isinstance(found, Mapping) else {"loss": found}
