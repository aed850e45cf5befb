"""Conditional adversarial adaptation: the discriminator sees features together with what the network answers.

Long et al. 2018, "Conditional adversarial domain adaptation" (CDAN), arXiv:1705.10667.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from opsin.adapt.adversarial import Discriminator, adversarial_strength, domain_loss, reverse_gradient
from opsin.adapt.features import Seen
from opsin.adapt.method import Method

_LARGEST = 4096  # of D K, above which the product is mapped at random to so many numbers; the paper's limit


def outer_product(features: Tensor, probabilities: Tensor) -> Tensor:
    """T(f, g) = f (x) g, flattened: (B, D) and (B, K) -> (B, K D), entry (k, d) being g_k f_d. CDAN, section 3.1."""
    return (probabilities[:, :, None] * features[:, None, :]).flatten(1)


def random_product(features: Tensor, probabilities: Tensor, of_features: Tensor, of_classes: Tensor) -> Tensor:
    """(f R_f) * (g R_g) / sqrt(d): as many numbers as the matrices have columns. CDAN, eq. 6.

    of_features: (D, d), of_classes: (K, d), fixed, of mean 0 and variance 1. Its inner products are those of the outer
    product on average.
    """
    return (features @ of_features) * (probabilities @ of_classes) / math.sqrt(of_features.shape[1])


def entropy_weights(probabilities: Tensor, source: Tensor) -> Tensor:
    """w = 1 + exp(-H(g)), divided by its mean on each side: sure answers count more. CDAN+E, section 3.2.

    probabilities: (B, K). source: (B,) bool. Returns (B,), without gradient; H in nats.
    """
    entropy = -(probabilities * probabilities.clamp(min=1e-12).log()).sum(dim=1)
    weights = (1 + torch.exp(-entropy)).detach()
    for side in (source, ~source):
        if bool(side.any()):
            weights = torch.where(side, weights / weights[side].mean(), weights)
    return weights


class CDAN(Method):
    """A discriminator of the product of features and answers, behind a gradient reversal.

    hidden, gamma: as of DANN. The gradient goes through the features alone, the answers are taken as they are, as in
    the authors' code. Where D K is above 4,096 the product is a random one of so many numbers.
    """

    entropy = False
    of_features: Tensor
    of_classes: Tensor

    def __init__(
        self, features: int, num_classes: int, num_sources: int, *, hidden: int = 1024, gamma: float = 10.0
    ) -> None:
        super().__init__(features, num_classes, num_sources)
        self.mapped, self.gamma = features * num_classes > _LARGEST, gamma
        size = _LARGEST if self.mapped else features * num_classes
        if self.mapped:
            self.register_buffer("of_features", torch.randn(features, size))
            self.register_buffer("of_classes", torch.randn(num_classes, size))
        self.discriminator = Discriminator(size, hidden)

    def losses(self, seen: Seen) -> Mapping[str, Tensor]:
        answers = seen.logits.detach().softmax(dim=1)
        joined = (
            random_product(seen.features, answers, self.of_features, self.of_classes)
            if self.mapped
            else outer_product(seen.features, answers)
        )
        weights = entropy_weights(answers, seen.source) if self.entropy else None
        strength = adversarial_strength(seen.progress, self.gamma)
        return {"domain": domain_loss(self.discriminator(reverse_gradient(joined, strength)), seen.source, weights)}


class CDANE(CDAN):
    """CDAN in which examples that the network is sure of count more."""

    entropy = True
