"""Several losses as one: named, weighted, summed."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from opsin.checks import check_number
from opsin.errors import InputError, unknown


class WeightedSum(nn.Module):
    """The sum of named criteria of the same outputs and targets, each times its weight, 1 unless given.

    `terms` has the weighted terms by name, as a model's `loss` returns them; `weigh` weights terms that were made
    elsewhere. The criteria are submodules: what they learn or remember is with the optimizer and the checkpoint.

    learned: weights found in training. Each term becomes exp(-s) weight loss + s / 2 with a parameter s that starts at
    0, the plain sum. Kendall et al. 2018, arXiv:1705.07115, eq. 10: s is the logarithm of the noise's variance, a
    squared error has a weight of 1/2, a cross-entropy one of 1. The sum may become negative.
    """

    log_variances: nn.ParameterDict | None

    def __init__(
        self,
        criteria: Mapping[str, nn.Module],
        weights: Mapping[str, float] | None = None,
        *,
        learned: bool = False,
    ) -> None:
        super().__init__()
        if not criteria:
            raise InputError("a weighted sum needs at least one criterion")
        for name in weights or {}:
            if name not in criteria:
                raise unknown("criterion of the weighted sum", name, criteria)
        self.criteria = nn.ModuleDict(criteria)
        self.weights = {
            name: check_number(f"the weight of {name}", (weights or {}).get(name, 1.0)) for name in criteria
        }
        self.log_variances = (
            nn.ParameterDict({name: nn.Parameter(torch.zeros(())) for name in criteria}) if learned else None
        )

    def forward(self, *inputs: Tensor) -> Tensor:
        return torch.stack(list(self.terms(*inputs).values())).sum()

    def terms(self, *inputs: Tensor) -> dict[str, Tensor]:
        """The weighted terms by name; their sum is minimised. inputs: what each criterion is called with."""
        return self.weigh({name: criterion(*inputs) for name, criterion in self.criteria.items()})

    def weigh(self, terms: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Terms of the same names, weighted."""
        if terms.keys() != self.weights.keys():
            raise InputError(f"the weighted sum has weights for {', '.join(self.weights)}; got {', '.join(terms)}")
        weighted = {name: weight * terms[name] for name, weight in self.weights.items()}
        if self.log_variances is None:
            return weighted
        return {name: term * (-(s := self.log_variances[name])).exp() + s / 2 for name, term in weighted.items()}

    def extra_repr(self) -> str:
        return f"weights={self.weights}, learned={self.log_variances is not None}"
