"""What every network of this task is: images -> points, whose distances say who is the same."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from opsin.backbones.backbone import check_images
from opsin.checks import check_count
from opsin.embed.thresholds import Threshold
from opsin.errors import InputError
from opsin.losses.classification import cross_entropy
from opsin.losses.identities import IdentityLoss
from opsin.losses.terms import full_precision
from opsin.losses.triplets import triplet_loss
from opsin.nn.capabilities import ClassRows

Outputs = dict[str, Tensor]


class Embedder(nn.Module, ABC):
    """A network of images -> {"embedding": (B, features)}, and "logits" (B, num_classes) where it classifies too.

    A subclass sets, in its constructor: features, of an embedding. normalized: whether embeddings are compared at
    length 1, by the angle between them. criterion: called with (embeddings, labels) -> a loss, or named terms; a recipe
    may set another. min_size, fixed_size: of its images; shape: the only (height, width). learned: names of the modules
    that an earlier training has taught. classifier: the name of the layer that makes logits, with a row for each class.

    `forward` is pure: the same in train and eval, exportable, and never sees a label.
    """

    features: int
    in_channels: int
    normalized: bool = True
    min_size: int = 1
    fixed_size: int | None = None
    shape: tuple[int, int] | None = None
    preprocessing: Mapping[str, Any] | None = None
    learned: tuple[str, ...] = ()
    classifier: str | None = None
    threshold: Threshold | None = None  # up to which distance a pair is the same, once it was fitted

    def __init__(self, features: int, in_channels: int) -> None:
        super().__init__()
        self.features = check_count("features", features)
        self.in_channels = check_count("in_channels", in_channels)
        self.criterion: nn.Module | None = IdentityLoss(triplet_loss)

    def forward(self, images: Tensor) -> Outputs:
        """images: (B, in_channels, H, W) float, normalised -> {"embedding": (B, features)}."""
        self._check(images)
        return {"embedding": self.embed(images)}

    @abstractmethod
    def embed(self, images: Tensor) -> Tensor:
        """The embeddings (B, features), of length 1 where the network itself makes them so."""

    def loss(self, outputs: Outputs, targets: Tensor) -> dict[str, Tensor]:
        """Named terms whose sum is minimised. targets: (B,) int64 identities, -1 is ignored.

        "softmax" of a network that classifies, and the terms of its criterion; "loss" where there is one alone.
        """
        found: dict[str, Tensor] = {}
        if self.criterion is not None:
            given = self.criterion(outputs["embedding"], targets)
            found = dict(given) if isinstance(given, Mapping) else {"embedding": given}
        if "logits" in outputs:
            found = {"softmax": cross_entropy(outputs["logits"], targets), **found}
        return found if len(found) > 1 else {"loss": next(iter(found.values()))}

    def decode(self, outputs: Outputs) -> Tensor:
        """Embeddings (B, features) float32 as they are compared: of length 1 where `normalized`."""
        embeddings = full_precision(outputs["embedding"])
        return F.normalize(embeddings, dim=1) if self.normalized else embeddings

    def distances(self, first: Tensor, second: Tensor) -> Tensor:
        """How unlike each of M decoded embeddings is to each of N: (M, D), (N, D) -> (M, N), the less the more alike.

        Euclidean, here.
        """
        return torch.cdist(first, second)

    def pair_distances(self, first: Tensor, second: Tensor) -> Tensor:
        """The same of N pairs: (N, D), (N, D) -> (N,)."""
        return torch.linalg.vector_norm(first - second, dim=1)

    def example_loss(self, outputs: Outputs) -> Tensor:
        """The loss of what `forward` gives, were the images in pairs of one identity."""
        labels = torch.arange(len(outputs["embedding"]), device=outputs["embedding"].device) // 2
        if "logits" in outputs:
            labels = labels % outputs["logits"].shape[1]
        # a batch of one has no pair: its gradient flows through the embedding itself
        return torch.stack([*self.loss(outputs, labels).values(), outputs["embedding"].square().sum()]).sum()

    def class_rows(self) -> dict[str, ClassRows]:
        """Weight and bias of the layer that makes logits, a row for each class."""
        if self.classifier is None:
            return {}
        layer = self.get_submodule(self.classifier)
        return {f"{self.classifier}.{key}": ClassRows() for key, _ in layer.named_parameters(recurse=False)}

    def saved_state(self) -> dict[str, Any]:
        """What answers follow beside the weights: the threshold that was fitted."""
        return {} if self.threshold is None else {"threshold": self.threshold.to_dict()}

    def restore_state(self, values: Mapping[str, Any]) -> None:
        """Take it back. Raises TypeError, ValueError or KeyError for values that cannot be."""
        found = values.get("threshold")
        self.threshold = None if found is None else Threshold.from_dict(found)

    def learned_parts(self) -> list[nn.Module]:
        """What an earlier training can have taught."""
        return [self.get_submodule(name) for name in self.learned]

    def _check(self, images: Tensor) -> None:
        if torch.compiler.is_compiling():
            return
        name, (height, width) = type(self).__name__, images.shape[-2:]
        check_images(name, images, self.in_channels, self.fixed_size)
        if self.shape is not None and (height, width) != self.shape:
            wanted = f"{self.shape[0]}x{self.shape[1]}"
            raise InputError(f"{name} takes images of {wanted} (height x width) only, got {height}x{width}")
        if min(height, width) < self.min_size:
            raise InputError(f"{name} needs images of at least {self.min_size}x{self.min_size}, got {height}x{width}")
