"""Domain-adversarial training: features by which a discriminator cannot say which domain an image is of.

Ganin et al. 2016, "Domain-adversarial training of neural networks" (DANN), JMLR 17, arXiv:1505.07818.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from opsin.adapt.features import Seen
from opsin.adapt.method import Method


class _Reverse(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, values: Tensor, strength: float) -> Tensor:
        ctx.strength = strength
        return values.view_as(values)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return -ctx.strength * gradients[0], None


def reverse_gradient(values: Tensor, strength: float = 1.0) -> Tensor:
    """R(x) = x forward, dR/dx = -strength backward: what falls behind it rises before it. DANN, eq. 16."""
    return _Reverse.apply(values, strength)  # type: ignore[no-any-return]


def adversarial_strength(progress: float, gamma: float = 10.0) -> float:
    """lambda_p = 2 / (1 + exp(-gamma p)) - 1: from 0 to nearly 1 over the training. DANN, section 5.2.2.

    progress: p in [0, 1]. So the discriminator is not followed while it knows nothing.
    """
    return 2 / (1 + math.exp(-gamma * progress)) - 1


class Discriminator(nn.Sequential):
    """Says how likely features are of a source: D -> hidden -> hidden -> 1 logit, with ReLU between.

    DANN's has two layers of 1,024 for photographs and one of 100 for digits.
    """

    def __init__(self, features: int, hidden: int = 1024) -> None:
        super().__init__(
            nn.Linear(features, hidden),
            nn.ReLU(),
            nn.Linear(hidden, hidden),
            nn.ReLU(),
            nn.Linear(hidden, 1),
        )

    def forward(self, features: Tensor) -> Tensor:  # type: ignore[override]
        """(B, D) -> (B,) logits."""
        return super().forward(features)[:, 0]


def domain_loss(logits: Tensor, source: Tensor, weights: Tensor | None = None) -> Tensor:
    """(1/2) [mean over sources of -w log d + mean over the target of -w log(1 - d)], d = sigmoid(logit).

    logits: (B,). source: (B,) bool. weights: (B,), of mean 1 on each side, or None. Each side weighs a half, however
    many examples it has. A side without examples adds nothing.
    """
    losses = F.binary_cross_entropy_with_logits(logits, source.to(logits.dtype), reduction="none")
    losses = losses if weights is None else losses * weights
    sides = [losses[side] for side in (source, ~source) if bool(side.any())]
    return torch.stack([side.mean() for side in sides]).sum() / 2


class DANN(Method):
    """A discriminator of domains behind a gradient reversal, whose strength rises as the training goes on.

    hidden: units of its two hidden layers. gamma: how fast the strength rises, see `adversarial_strength`.
    """

    def __init__(
        self, features: int, num_classes: int, num_sources: int, *, hidden: int = 1024, gamma: float = 10.0
    ) -> None:
        super().__init__(features, num_classes, num_sources)
        self.discriminator, self.gamma = Discriminator(features, hidden), gamma

    def losses(self, seen: Seen) -> Mapping[str, Tensor]:
        reversed_ = reverse_gradient(seen.features, adversarial_strength(seen.progress, self.gamma))
        return {"domain": domain_loss(self.discriminator(reversed_), seen.source)}
