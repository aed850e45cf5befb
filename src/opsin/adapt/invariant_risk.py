"""Generalisation to domains that nobody has seen: the risks of several sources, and what is asked of them beside low.

IRM: Arjovsky et al. 2019, arXiv:1907.02893. VREx: Krueger et al. 2020, arXiv:2003.00688. Group DRO: Sagawa et al. 2019,
arXiv:1911.08731.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

from opsin.adapt.coral import coral_over_domains
from opsin.adapt.features import Seen
from opsin.adapt.method import Method
from opsin.errors import InputError


def domain_risks(logits: Tensor, labels: Tensor, domains: Tensor) -> tuple[Tensor, Tensor]:
    """The mean cross-entropy of each domain in a batch: (E,), and which domains they are, (E,) int64.

    logits: (B, K). labels: (B,) int64; -1 is left out. domains: (B,) int64.
    """
    known = labels >= 0
    losses = F.cross_entropy(logits[known].float(), labels[known], reduction="none")
    there = domains[known].unique()
    return torch.stack([losses[domains[known] == k].mean() for k in there]), there


def irm_penalty(logits: Tensor, labels: Tensor) -> Tensor:
    """g_1 g_2, g = d/dw of the mean cross-entropy of w z at w = 1, over every other example. IRM, eq. IRMv1, app. D.

    Of two halves of a batch the product is an unbiased estimate of the squared gradient, which one half squared is not;
    it may be below 0. logits: (B, K), B at least 2. labels: (B,).
    """
    scale = torch.ones((), device=logits.device, requires_grad=True)
    halves = [F.cross_entropy(logits[k::2].float() * scale, labels[k::2]) for k in (0, 1)]
    first, second = (torch.autograd.grad(half, scale, create_graph=True)[0] for half in halves)
    return first * second


class _OverDomains(Method):
    """What methods of generalisation share: they look at no target, and their losses are all there are."""

    family = "generalisation"
    adapts = False
    replaces = True

    def __init__(self, features: int, num_classes: int, num_sources: int) -> None:
        super().__init__(features, num_classes, num_sources)
        if num_sources < 2:
            raise InputError(
                "generalisation learns from what several domains have in common; give two or more --source"
            )


class ERM(_OverDomains):
    """Empirical risk minimisation: all sources together, each as often as another. It is hard to beat."""

    def losses(self, seen: Seen) -> Mapping[str, Tensor]:
        return {"risk": domain_risks(seen.logits, seen.labels, seen.domains)[0].mean()}


class IRM(_OverDomains):
    """Invariant risk: a classifier that is the best for every source at once. mean R_e + lambda mean |grad R_e|^2.

    penalty: lambda once `warmup` of the training is done, 1 before. From then on the sum is divided by it where it is
    above 1, as in the authors' code, so that steps stay as long. Which epoch and which penalty are good is not seen on
    the sources, where a shortcut looks better: see the page on generalisation.
    """

    def __init__(
        self,
        features: int,
        num_classes: int,
        num_sources: int,
        *,
        penalty: float = 100.0,
        warmup: float = 0.1,
    ) -> None:
        super().__init__(features, num_classes, num_sources)
        self.penalty, self.warmup = penalty, warmup

    def losses(self, seen: Seen) -> Mapping[str, Tensor]:
        risks, there = domain_risks(seen.logits, seen.labels, seen.domains)
        rows = [seen.domains == k for k in there]
        penalties = [irm_penalty(seen.logits[r], seen.labels[r]) for r in rows if int(r.sum()) > 1]
        weight = self.penalty if seen.progress >= self.warmup else 1.0
        scale = max(1.0, weight)
        penalty = torch.stack(penalties).mean() if penalties else risks.sum() * 0
        return {"risk": risks.mean() / scale, "penalty": weight * penalty / scale}


class VREx(_OverDomains):
    """Risk extrapolation: mean R_e + beta Var(R_e), the variance over the sources with N in the denominator.

    beta: once `warmup` of the training is done, 1 before.
    """

    def __init__(
        self, features: int, num_classes: int, num_sources: int, *, beta: float = 10.0, warmup: float = 0.1
    ) -> None:
        super().__init__(features, num_classes, num_sources)
        self.beta, self.warmup = beta, warmup

    def losses(self, seen: Seen) -> Mapping[str, Tensor]:
        risks, _ = domain_risks(seen.logits, seen.labels, seen.domains)
        beta = self.beta if seen.progress >= self.warmup else 1.0
        return {"risk": risks.mean(), "variance": beta * (risks - risks.mean()).square().mean()}


class GroupDRO(_OverDomains):
    """Distributionally robust: sum_e q_e R_e, q_e <- q_e exp(eta R_e) / sum: the worst source counts most.

    Sagawa et al. 2019, algorithm 1. eta: the step of the q.
    """

    q: Tensor

    def __init__(self, features: int, num_classes: int, num_sources: int, *, eta: float = 0.01) -> None:
        super().__init__(features, num_classes, num_sources)
        self.eta = eta
        self.register_buffer("q", torch.full((num_sources,), 1 / num_sources))

    def losses(self, seen: Seen) -> Mapping[str, Tensor]:
        risks, there = domain_risks(seen.logits, seen.labels, seen.domains)
        if self.training:
            self.q[there] *= torch.exp(self.eta * risks.detach())
            self.q /= self.q.sum()
        return {"risk": (self.q[there] * risks).sum()}


class DomainCORAL(_OverDomains):
    """The sources' features get one mean and one covariance, pair by pair, beside their risks."""

    def losses(self, seen: Seen) -> Mapping[str, Tensor]:
        known = seen.source
        risks, _ = domain_risks(seen.logits, seen.labels, seen.domains)
        return {"risk": risks.mean(), "coral": coral_over_domains(seen.features[known].float(), seen.domains[known])}
