"""Softmax over the angles between embeddings and a direction for each identity, with margins or without.

Learnable directions are parameters of the criterion: trained and in checkpoints, and not part of the saved model.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from opsin.checks import check_count, check_number, check_within
from opsin.errors import InputError
from opsin.losses.classification import cross_entropy
from opsin.losses.terms import check_labels, check_shape, full_precision


class _Directions(nn.Module):
    """Cosines of embeddings with a direction for each identity: (B, D) -> (B, K) in [-1, 1]."""

    def __init__(self, num_classes: int, features: int) -> None:
        super().__init__()
        size = check_count("num_classes", num_classes), check_count("features", features)
        self.weight = nn.Parameter(nn.init.normal_(torch.empty(size), std=features**-0.5))  # about of length 1

    def cosines(self, embeddings: Tensor, labels: Tensor) -> Tensor:
        if embeddings.ndim != 2 or embeddings.shape[1] != self.weight.shape[1]:
            raise InputError(
                f"the directions have {self.weight.shape[1]} features, the embeddings are {tuple(embeddings.shape)}"
            )
        check_shape(labels, embeddings.shape[:1], embeddings, "embeddings")
        check_labels(labels, len(self.weight))
        embeddings = full_precision(embeddings)
        return F.normalize(embeddings, dim=1) @ F.normalize(self.weight.to(embeddings.dtype), dim=1).T

    def extra_repr(self) -> str:
        return f"num_classes={self.weight.shape[0]}, features={self.weight.shape[1]}"


class ArcFaceLoss(_Directions):
    """Cross-entropy of scale * cos(angle + margin) for the own identity, scale * cos(angle) for others.

    Deng et al. 2018, arXiv:1801.07698, eq. 3. embeddings: (B, D), of any length. labels: (B,) int64, -1 is ignored.
    margin: in radians, of the angle. Where angle + margin is more than pi, cos would rise again: there the value is
    cos(angle) - margin * sin(pi - margin), which goes on falling, as in the authors' code. A mean over the batch.
    """

    def __init__(self, num_classes: int, features: int, *, margin: float = 0.5, scale: float = 64.0) -> None:
        super().__init__(num_classes, features)
        self.margin = check_within("margin", margin, 0, math.pi / 2)
        self.scale = check_number("scale", scale, above=True)

    def forward(self, embeddings: Tensor, labels: Tensor) -> Tensor:
        cosines = self.cosines(embeddings, labels)
        own = cosines.gather(1, labels.clamp(min=0)[:, None])
        sines = (1 - own.square()).clamp(min=1e-12).sqrt()  # without the slope of arccos, which has none at 0
        shifted = own * math.cos(self.margin) - sines * math.sin(self.margin)
        shifted = torch.where(own > -math.cos(self.margin), shifted, own - self.margin * math.sin(self.margin))
        return cross_entropy(self.scale * cosines.scatter(1, labels.clamp(min=0)[:, None], shifted), labels)


class CosFaceLoss(_Directions):
    """Cross-entropy of scale * (cos(angle) - margin) for the own identity, scale * cos(angle) for others.

    Wang et al. 2018, arXiv:1801.09414, eq. 4. embeddings: (B, D), of any length. labels: (B,) int64, -1 is ignored.
    margin: of the cosine. A mean over the batch.
    """

    def __init__(self, num_classes: int, features: int, *, margin: float = 0.35, scale: float = 64.0) -> None:
        super().__init__(num_classes, features)
        self.margin = check_within("margin", margin, 0, 2)
        self.scale = check_number("scale", scale, above=True)

    def forward(self, embeddings: Tensor, labels: Tensor) -> Tensor:
        cosines = self.cosines(embeddings, labels)
        own = F.one_hot(labels.clamp(min=0), cosines.shape[1]).to(cosines.dtype)
        return cross_entropy(self.scale * (cosines - self.margin * own), labels)


class CosineSoftmax(_Directions):
    """Cross-entropy of scale * cos(angle), without a margin, with a scale that is learned.

    Wojke and Bewley 2018, arXiv:1812.00442, eq. 5. embeddings: (B, D), of any length. labels: (B,) int64, -1 is
    ignored. scale: the first one. A mean over the batch.
    """

    def __init__(self, num_classes: int, features: int, *, scale: float = 16.0) -> None:
        super().__init__(num_classes, features)
        self.log_scale = nn.Parameter(torch.tensor(math.log(check_number("scale", scale, above=True))))

    def forward(self, embeddings: Tensor, labels: Tensor) -> Tensor:
        cosines = self.cosines(embeddings, labels)
        return cross_entropy(self.log_scale.exp() * cosines, labels)


class SoftmaxLoss(nn.Module):
    """A linear layer from embeddings to identities, and cross-entropy: the plain classifier. A mean over the batch.

    embeddings: (B, D). labels: (B,) int64, -1 is ignored.
    """

    def __init__(self, num_classes: int, features: int) -> None:
        super().__init__()
        self.scores = nn.Linear(check_count("features", features), check_count("num_classes", num_classes))

    def forward(self, embeddings: Tensor, labels: Tensor) -> Tensor:
        return cross_entropy(self.scores(full_precision(embeddings)), labels)
